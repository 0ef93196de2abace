// The histories of PropertyTests about what a holder may rely on: its lease, and the place of what it
// hands back.

extension PropertyCase {
  static let holders =
    refusedInTime + refusedRightly + overtaken + notOvertaken + grantedAtOnce + ofDeadLetters

  // MARK: Leases

  private static let refusal = "5 c invoke ack q m token=1\n6 c fail ack q m token=1 error=stale\n"
  private static let handedOver = "4 nemesis info leader-change - n2\n"
  private static let shown = "7 p invoke publish q w\n7 p ok publish q w\n"
  private static let first = "3 c ok deliver q m token=1 attempt=1 lease=3000 granted=1000\n"

  /// `c` is refused, something is published and granted, and `e` gets the message long afterwards.
  private static func refused(
    _ before: String = handedOver, _ refusal: String = refusal, shown: String = shown,
    granted: Int = 1010, rest: String = ""
  ) -> String {
    published + first + before + refusal + shown + """
      8 d ok deliver q w token=2 attempt=1 lease=3000 granted=\(granted)
      8 d invoke ack q w token=2
      8 d ok ack q w token=2
      8500 e ok deliver q m token=3 attempt=2 lease=3000 granted=9000
      8501 e invoke ack q m token=3
      8502 e ok ack q m token=3

      """ + rest + drained
  }

  private static let settledLater =
    "20 c invoke ack q m token=4\n20 c ok ack q m token=4\n"

  private static func extended(_ lease: Int, _ completion: String = "ok") -> String {
    "4 c invoke extend q m token=1 lease=\(lease)\n4 c \(completion) extend q m token=1"
      + (completion == "ok" ? " lease=\(lease)\n" : "\n")
  }

  static let refusedInTime: [Self] = [
    .wrong("lease-cut: a new leader did not know of it", "lease-cut", refused()),
    .wrong("lease-cut: with the same leader", "lease-cut", strict: false, refused("")),
    .wrong("lease-cut: a moment before its end", "lease-cut", refused(granted: 3999)),
    .wrong(
      "lease-cut: an extension", "lease-cut",
      refused("", refusal.replacing("ack", "extend"))),
    .wrong(
      "lease-cut: it had been extended", "lease-cut",
      refused(extended(3000)).replacing(
        "attempt=1 lease=3000 granted=1000", "attempt=1 lease=5 granted=1000")
    ),
    .wrong(
      "lease-cut: a shorter extension had failed", "lease-cut", refused(extended(5, "fail"))),
    .wrong(
      "lease-cut: the queue says how long it lasts", "lease-cut",
      "0 a invoke declare q -\n0 a ok declare q - config.lease=3000\n"
        + refused().replacing("attempt=1 lease=3000 granted=1000", "attempt=1 granted=1000")),
    .wrong(
      "lease-cut: what was handed back was granted again", "lease-cut",
      "0 p invoke publish q w\n0 p ok publish q w\n0 d ok deliver q w token=1 attempt=1 granted=900\n"
        + refused(shown: "7 d invoke release q w token=1\n7 d ok release q w token=1\n")),
    .wrong(
      "lease-cut: perhaps extended to more", "lease-cut", refused(extended(9000, "info"))),
    .wrong(
      "lease-cut: extended without a word of how long, and the ok does not say", "lease-cut",
      refused("4 c invoke extend q m token=1\n4 c ok extend q m token=1\n")),
    .wrong(
      "lease-cut: redriven while it was held", "lease-cut",
      refused("4 a invoke redrive d m\n4 a ok redrive d m\n")),
    .wrong(
      "lease-cut: purged while it was held", "lease-cut",
      refused("4 a invoke purge q -\n4 a ok purge q -\n")),
    .wrong(
      "lease-cut: refused many times", "lease-cut",
      refused("", refusal + refusal.replacing("5 c", "6 c"))),
    .wrong(
      "lease-cut: another was refused as well", "lease-cut",
      refused(
        handedOver, "5 x invoke ack q m token=1\n5 x fail ack q m token=1 error=stale\n" + refusal)),
  ]

  static let refusedRightly: [Self] = [
    .fine("lease-cut: its lease was over", refused(granted: 4000)),
    .fine(
      "lease-cut: what shows when was published before",
      refused(shown.replacing("7 ", "4 ") + handedOver, shown: "")),
    .fine("lease-cut: it failed for another reason", refused().replacing("stale", "closed")),
    .fine("lease-cut: it failed, and nobody says why", refused().replacing(" error=stale", "")),
    .fine("lease-cut: by a change of leader, which is not asked for", strict: false, refused()),
    .fine("lease-cut: its session was over", refused("4 nemesis info session-end - c\n")),
    .fine(
      "lease-cut: its session was over, as it found out later",
      refused("", rest: "8600 nemesis info session-end - c\n")),
    .fine(
      "lease-cut: perhaps acked before",
      refused("4 c invoke ack q m token=1\n4 c info ack q m token=1\n")),
    .fine("lease-cut: perhaps extended to less", refused(extended(5, "info"))),
    .fine("lease-cut: extended to less", refused(extended(5))),
    .fine("lease-cut: extended to less and to more", refused(extended(5) + extended(3000))),
    .fine(
      "lease-cut: extended to more, perhaps afterwards",
      refused("4 c invoke extend q m token=1 lease=3000\n", refusal + "6 c ok extend q m token=1\n")
        .replacing("attempt=1 lease=3000 granted=1000", "attempt=1 lease=5 granted=1000")),
    .fine(
      "lease-cut: it may have expired in its hands",
      refused().replacing("0 p invoke publish q m", "0 p invoke publish q m ttl=2")),
    .fine(
      "lease-cut: extended to more than was granted perhaps, as the ok does not say",
      refused(
        "4 c invoke extend q m token=1 lease=9000\n4 c ok extend q m token=1\n", granted: 4000)),
    .fine(
      "lease-cut: the queue once said less",
      "0 a invoke declare q -\n0 a ok declare q - config.lease=5\n"
        + refused("4 a invoke declare q -\n4 a ok declare q - config.lease=3000\n")
        .replacing("attempt=1 lease=3000 granted=1000", "attempt=1 granted=1000")),
    .fine(
      "lease-cut: the queue once did not say",
      "0 a invoke declare q -\n0 a ok declare q - config.maxDeliveries=9\n"
        + refused("4 a invoke declare q -\n4 a ok declare q - config.lease=3000\n")
        .replacing("attempt=1 lease=3000 granted=1000", "attempt=1 granted=1000")),
    .fine(
      "held-twice: after a change of leader, where the queue once said less", strict: false,
      "0 a invoke declare q -\n0 a ok declare q - config.lease=5 config.retryDelay=500\n"
        + "0 a invoke declare q -\n0 a ok declare q - config.lease=3000 config.retryDelay=500\n"
        + published + """
          2 c ok deliver q m token=1 attempt=1 granted=1000
          9 nemesis info leader-change - n2
          20 c ok deliver q m token=4 attempt=1 granted=1020

          """ + settledLater + drained),
    .fine("lease-cut: it never had it", refused().replacing("5 c", "5 x").replacing("6 c", "6 x")),
    .fine("lease-cut: nobody says when it was granted", refused().replacing(" granted=1000", "")),
  ]

  // MARK: Places

  private static let later = "2 p invoke publish q o\n3 p ok publish q o\n"
  private static let back = "5 c invoke release q m token=1\n6 c ok release q m token=1\n"
  private static func nacked(_ delay: String = "") -> String {
    "5 c invoke nack q m token=1\(delay)\n6 c ok nack q m token=1\n"
  }
  private static func waits(_ delay: Int) -> String {
    "0 a invoke declare q -\n0 a ok declare q - config.retryDelay=\(delay)\n"
  }
  private static func came(
    _ value: String, _ token: Int, to process: String, _ granted: Int, attempt: Int = 1
  ) -> String {
    """
    9 \(process) ok deliver q \(value) token=\(token) attempt=\(attempt) lease=9000 granted=\(granted)
    9 \(process) invoke ack q \(value) token=\(token)
    9 \(process) ok ack q \(value) token=\(token)

    """
  }

  /// `m` is handed back, something is published and granted in another queue, and `o` comes, which was
  /// published after `m`, and then `m`.
  private static func returned(
    _ later: String = later, back: String = back, meanwhile: String = "", o: Int = 1020,
    m: Int = 1030, attempt: Int = 1
  ) -> String {
    published + later + "4 c ok deliver q m token=1 attempt=1 lease=9000 granted=1000\n" + back
      + """
      7 p invoke publish v w
      7 p ok publish v w
      8 d ok deliver v w token=9 attempt=1 lease=9000 granted=1010
      8 d invoke ack v w token=9
      8 d ok ack v w token=9

      """ + meanwhile + came("o", 3, to: "e", o) + came("m", 4, to: "c", m, attempt: attempt)
      + drained + "9002 a invoke drain v -\n9003 a ok drain v -\n"
  }

  static let overtaken: [Self] = [
    .wrong("out-of-order: overtaken after it was handed back", "out-of-order", returned()),
    .wrong(
      "out-of-order: overtaken by another producer's", "out-of-order",
      returned(later.replacing(" p ", " p2 "))),
    .wrong(
      "out-of-order: overtaken by one of the same priority", "out-of-order",
      returned().replacing("publish q m\n1", "publish q m priority=2\n1")
        .replacing("publish q o\n3", "publish q o priority=2\n3")),
    .wrong(
      "out-of-order: handed back twice, and overtaken then", "out-of-order",
      returned(
        back: back + "6 c ok deliver q m token=2 attempt=1 lease=9000 granted=1005\n"
          + back.replacing("token=1", "token=2")
      ).replacing("5 c invoke release q m token=2", "6 c invoke release q m token=2")),
    .wrong(
      "out-of-order: overtaken by what had been held before", "out-of-order",
      returned().replacing("token=3 attempt=1", "token=3 attempt=2")),
    .wrong(
      "out-of-order: overtaken by what nobody knows the attempt of", "out-of-order",
      returned().replacing("token=3 attempt=1", "token=3")),
    .wrong(
      "out-of-order: overtaken by what was published twice", "out-of-order",
      returned(later + later.replacing("2 p", "3 p").replacing("3 p ok", "3 p info"))),
    .wrong(
      "out-of-order: nacked without a wait, and overtaken", "out-of-order",
      returned(back: nacked(" delay=0"), attempt: 2)),
    .wrong(
      "out-of-order: nacked where the queue says not to wait, and overtaken", "out-of-order",
      waits(0) + returned(back: nacked(), attempt: 2)),
    .wrong(
      "out-of-order: overtaken, and another left before it was handed back", "out-of-order",
      xRead + "0 nemesis info client-kill - x\n" + returned()),
  ]

  static let notOvertaken: [Self] = [
    .fine("out-of-order: handed back, and the next", returned(o: 1040)),
    .fine("out-of-order: handed back, and granted at the same time", returned(o: 1030)),
    .fine("out-of-order: perhaps granted before it was handed back", returned(o: 1010)),
    .fine(
      "out-of-order: published while the one that is handed back was not confirmed",
      returned("").replacing(
        "1 p ok publish q m", "1 p2 invoke publish q o\n1 p2 ok publish q o\n1 p ok publish q m")),
    .fine(
      "out-of-order: handed back, with a key",
      returned().replacing("publish q m\n1", "publish q m key=k\n1")),
    .fine(
      "out-of-order: overtaken by one with a key",
      returned().replacing("publish q o\n3", "publish q o key=k\n3")),
    .fine(
      "out-of-order: overtaken by one of another priority",
      returned().replacing("publish q o\n3", "publish q o priority=2\n3")),
    .fine("out-of-order: held in between, for too long", returned(attempt: 2)),
    .fine(
      "out-of-order: perhaps unread with one that was killed in between",
      xRead + returned(meanwhile: "8 nemesis info client-kill - x\n")),
    .fine(
      "out-of-order: perhaps unread with one that left, as it found out later",
      xRead + returned() + "9990 nemesis info session-end - x\n"),
    .fine(
      "out-of-order: perhaps handed back",
      returned(back: back.replacing(" ok release", " info release"))
        .replacing("attempt=1 lease=9000 granted=1000", "attempt=1 lease=10 granted=1000")),
    .fine(
      "out-of-order: perhaps nacked as well",
      returned(back: "5 c invoke nack q m token=1\n5 c info nack q m token=1\n" + back)),
    .fine(
      "out-of-order: overtaken by what was rescheduled",
      returned(meanwhile: "8 p invoke retime q o delay=0\n8 p ok retime q o\n")),
    .fine(
      "out-of-order: rescheduled after it was handed back",
      returned(meanwhile: "8 p invoke retime q m delay=0\n8 p ok retime q m\n")),
    .fine(
      "out-of-order: overtaken by what may have come as a dead letter",
      "0 a invoke declare w -\n0 a ok declare w - config.deadLetter=q\n"
        + "0 p invoke publish w o\n0 p ok publish w o\n" + returned()
        + "9004 a invoke drain w -\n9005 a ok drain w -\n9006 a invoke drain q -\n9007 a ok drain q -\n"
    ),
    .fine("out-of-order: nacked, and waiting", returned(back: nacked(), attempt: 2)),
    .fine(
      "out-of-order: nacked, and the queue says how long it waits",
      waits(2) + returned(back: nacked(), attempt: 2)),
    .fine(
      "out-of-order: nacked for a while, and the queue says not to wait",
      waits(0) + returned(back: nacked(" delay=1"), attempt: 2)),
    .fine(
      "out-of-order: nacked, and the queue says later not to wait",
      waits(2) + returned(back: nacked(), attempt: 2)
        + waits(0).replacing("0 a", "9990 a")),
    .fine(
      "out-of-order: unread with somebody of whom a new leader did not know", strict: false,
      returned(meanwhile: "8 nemesis info leader-change - n2\n")),
    .wrong(
      "out-of-order: overtaken, and a new leader keeps leases", "out-of-order",
      returned(meanwhile: "8 nemesis info leader-change - n2\n")),
    .fine(
      "out-of-order: nacked, and held in between, for too long",
      waits(0) + returned(back: nacked(), attempt: 3)),
    .fine(
      "out-of-order: nacked, and perhaps handed back",
      waits(0) + returned(back: back.replacing("6 c ok", "5 c info") + nacked(), attempt: 2)),
    .fine(
      "out-of-order: nobody says when the others were granted",
      returned().replacing("lease=9000 granted=1010", "lease=9000")),
  ]

  // MARK: Grants of the very same time

  private static func settled(_ queue: String, _ value: String, _ token: Int, by process: String)
    -> String
  {
    """
    9 \(process) invoke ack \(queue) \(value) token=\(token)
    9 \(process) ok ack \(queue) \(value) token=\(token)

    """
  }

  /// `c` gives its session up at 1000, when `n` has just been granted to it, unread.
  private static let refusedAtOnce =
    published + "1 p invoke publish q n\n2 p ok publish q n\n" + """
      3 c ok deliver q m token=1 attempt=1 lease=3000 granted=900
      5 c invoke ack q m token=1
      6 c fail ack q m token=1 error=stale
      7 p invoke publish v w
      7 p ok publish v w
      8 d ok deliver v w token=1 attempt=1 lease=3000 granted=1000
      9 c ok deliver q n token=2 attempt=1 lease=3000 granted=1000
      9 nemesis info session-end - c
      9 e ok deliver q m token=3 attempt=1 lease=3000 granted=1100
      9 e ok deliver q n token=4 attempt=1 lease=3000 granted=1100

      """ + settled("v", "w", 1, by: "d") + settled("q", "m", 3, by: "e")
    + settled("q", "n", 4, by: "e") + drained + "9002 a invoke drain v -\n9003 a ok drain v -\n"

  /// `x` has `m` unread, is granted `y` at 1030, and hands both back unread at that very time.
  private static let returnedAtOnce =
    "0 p invoke publish q z\n0 p ok publish q z\n" + published + later + """
      3 x ok deliver q z token=1 attempt=1 lease=9000 granted=900
      3 x invoke ack q z token=1
      3 x ok ack q z token=1
      4 c ok deliver q m token=2 attempt=1 lease=9000 granted=1000
      5 c invoke release q m token=2
      6 c ok release q m token=2
      7 p invoke publish v w
      7 p ok publish v w
      8 d ok deliver v w token=9 attempt=1 lease=9000 granted=1010
      8 p invoke publish q y
      8 p ok publish q y
      9 e ok deliver q o token=4 attempt=1 lease=9000 granted=1020
      9 c ok deliver q m token=6 attempt=1 lease=9000 granted=1030
      9 p invoke publish v u
      9 p ok publish v u
      9 d ok deliver v u token=10 attempt=1 lease=9000 granted=1030
      9 x ok deliver q y token=5 attempt=1 lease=9000 granted=1030
      9 nemesis info session-end - x
      9 e ok deliver q y token=7 attempt=1 lease=9000 granted=1040

      """ + settled("v", "w", 9, by: "d")
    + settled("q", "o", 4, by: "e") + settled("q", "m", 6, by: "c") + settled("v", "u", 10, by: "d")
    + settled("q", "y", 7, by: "e") + drained + "9002 a invoke drain v -\n9003 a ok drain v -\n"

  static let grantedAtOnce: [Self] = [
    .fine("lease-cut: what shows when was nacked twice", askedTwice("nack", attempt: 2)),
    .fine("lease-cut: what shows when was released twice", askedTwice("release", attempt: 1)),
    .fine(
      "dead-letter-doubled: read late, and granted at the same time",
      withDeadLetters + "0 p invoke publish q n\n0 p ok publish q n\n" + published + """
        2 x ok deliver q n token=1 attempt=1 lease=9000 granted=1000
        2 x invoke ack q n token=1
        2 x ok ack q n token=1
        5 y ok deliver d m token=1 attempt=1 lease=9000 granted=1000
        6 x ok deliver q m token=2 attempt=1 lease=9000 granted=1000
        7 nemesis info session-end - x
        8 y invoke ack d m token=1
        8 y ok ack d m token=1

        """ + bothDrained),
    .fine("lease-cut: its session ended when another was granted", refusedAtOnce),
    .wrong(
      "lease-cut: its session ended after another was granted", "lease-cut",
      refusedAtOnce.replacing(
        "9 c ok deliver q n token=2 attempt=1 lease=3000 granted=1000",
        "9 c ok deliver q n token=2 attempt=1 lease=3000 granted=1001")),
    .fine("out-of-order: handed back unread when another was granted", returnedAtOnce),
    .wrong(
      "out-of-order: overtaken before another was granted to who left", "out-of-order",
      returnedAtOnce.replacing(
        "token=5 attempt=1 lease=9000 granted=1030", "token=5 attempt=1 lease=9000 granted=1035"
      )
      .replacing(
        "token=10 attempt=1 lease=9000 granted=1030", "token=10 attempt=1 lease=9000 granted=1031")),
    .fine(
      "lease-cut: granted when the leader changed, which is not asked for", strict: false,
      published + handedOver + """
        5 p invoke publish q v
        5 p ok publish q v
        5 d ok deliver q v token=4 attempt=1 lease=3000 granted=1000
        5 d invoke ack q v token=4
        5 d ok ack q v token=4

        """
        + refused("").replacing(published, "").replacing("token=2", "token=5")
        .replacing("3 c ok", "5 c ok")),
  ]

  /// What `c` handed back at 5 was granted unread at 1005; it asks for the same again at 20, with the same
  /// answer, and the other reads it then.
  private static func askedTwice(_ action: String, attempt: Int) -> String {
    "0 p invoke publish q z\n0 p ok publish q z\n" + published + """
      1 c ok deliver q z token=1 attempt=1 lease=9000 granted=1000
      1 b ok deliver q m token=2 attempt=1 lease=15 granted=1000
      3 c invoke \(action) q z token=1
      4 c info \(action) q z token=1
      17 b invoke ack q m token=2
      18 b fail ack q m token=2 error=stale
      20 c invoke \(action) q z token=1
      21 c ok \(action) q z token=1
      30 e ok deliver q z token=3 attempt=\(attempt) lease=9000 granted=1005
      30 e invoke ack q z token=3
      30 e ok ack q z token=3
      31 b ok deliver q m token=4 attempt=2 lease=9000 granted=1016

      """ + settledLater.replacing("20 c", "31 b") + drained
  }

  // MARK: Dead letters

  private static let refusedDeadLetter =
    "0 a invoke declare q -\n0 a ok declare q - config.deadLetter=d\n" + published + """
      2 c ok deliver q m token=1 attempt=1 lease=3000 granted=1000
      2 c invoke reject q m token=1
      3 c ok reject q m token=1
      4 e ok deliver d m token=1 attempt=1 lease=9000 granted=1010
      5 e invoke ack d m token=1
      6 e fail ack d m token=1 error=stale
      7 p invoke publish v w
      7 p ok publish v w
      8 d ok deliver v w token=1 attempt=1 lease=3000 granted=3200
      9 f ok deliver d m token=2 attempt=2 lease=9000 granted=10010

      """ + settled("v", "w", 1, by: "d") + settled("d", "m", 2, by: "f") + bothDrained
    + "9004 a invoke drain v -\n9005 a ok drain v -\n"

  static let ofDeadLetters: [Self] = [
    .wrong("lease-cut: of a dead letter", "lease-cut", refusedDeadLetter),
    .fine(
      "lease-cut: of a dead letter that may expire",
      refusedDeadLetter.replacing("publish q m\n1", "publish q m ttl=2000\n1")),
    .fine(
      "lease-cut: of a dead letter whose queue of origin lets it expire",
      refusedDeadLetter.replacing("deadLetter=d", "deadLetter=d config.ttl=2000")),
    .fine(
      "out-of-order: perhaps unread with somebody for a whole lease, and nobody counts",
      "0 a invoke declare q -\n0 a ok declare q - config.lease=10\n" + published + later
        + "9 e ok deliver q o token=2 granted=1000\n" + settled("q", "o", 2, by: "e")
        + "20 e ok deliver q m token=3 granted=1015\n"
        + settled("q", "m", 3, by: "e").replacing("9 e", "20 e") + drained),
    .wrong(
      "out-of-order: not there for a whole lease, and nobody counts", "out-of-order",
      "0 a invoke declare q -\n0 a ok declare q - config.lease=10\n" + published + later
        + "9 e ok deliver q o token=2 granted=1000\n" + settled("q", "o", 2, by: "e")
        + "9 e ok deliver q m token=3 granted=1008\n" + settled("q", "m", 3, by: "e") + drained),
  ]
}
