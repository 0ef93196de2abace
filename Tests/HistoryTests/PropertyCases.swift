// The histories of PropertyTests.

extension PropertyCase {
  static let all =
    lost + resurrected + unexpected + heldTwice + failover + early + tokens + stale + order
    + deadLetters + confirmedTwice + attempts + gone + late + slack + ends + left
    + copies + holders

  /// `x` is a consumer of the queue.
  static let xRead = """
    0 o invoke publish q x
    0 o ok publish q x
    0 x ok deliver q x token=80 attempt=1 lease=9
    0 x invoke ack q x token=80
    0 x ok ack q x token=80

    """
  static let published = "0 p invoke publish q m\n1 p ok publish q m id=A\n"
  static let drained = "9000 a invoke drain q -\n9001 a ok drain q -\n"
  static let withDeadLetters =
    "0 a invoke declare q -\n0 a ok declare q - config.deadLetter=d config.maxDeliveries=2\n"
  static let bothDrained = drained + "9002 a invoke drain d -\n9003 a ok drain d -\n"
  static let acked =
    "60 c ok deliver q m token=1 attempt=1 lease=100 id=A\n"
    + "70 c invoke ack q m token=1\n71 c ok ack q m token=1\n"

  static let lost: [Self] = [
    .wrong("lost: never came out", "lost", published + drained),
    .wrong(
      "lost: came out, was never settled, is gone", "lost",
      published + "5 c ok deliver q m token=1 attempt=1 lease=100\n" + drained),
    .wrong(
      "lost: the only ack was refused", "lost",
      published + """
        5 c ok deliver q m token=1 attempt=1 lease=100
        6 c invoke ack q m token=1
        7 c fail ack q m token=1

        """ + drained),
    .wrong(
      "lost: a purge that ended before", "lost",
      "0 a invoke purge q -\n0 a ok purge q -\n" + published + drained),
    .wrong(
      "lost: a purge that failed", "lost",
      published + "2 a invoke purge q -\n3 a fail purge q -\n" + drained),
    .wrong(
      "lost: its time to live was not over", "lost",
      "0 p invoke publish q m ttl=9002\n1 p ok publish q m\n" + drained),
    .wrong(
      "lost: confirmed by a retry", "lost",
      "0 p invoke publish q m\n1 p info publish q m\n2 p invoke publish q m\n3 p ok publish q m\n"
        + drained),
    .wrong("lost: not even a dead letter", "lost", withDeadLetters + published + bothDrained),
    .wrong(
      "lost: as a dead letter, where others are settled", "lost",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=1 lease=10 granted=5
        6 c invoke nack q m token=1
        7 c ok nack q m token=1
        8 c ok deliver d m token=1 attempt=1 lease=10
        9 p invoke publish d other
        9 p ok publish d other
        9 c ok deliver d other token=2 attempt=1 lease=10
        9 c invoke ack d other token=2
        9 c ok ack d other token=2

        """ + bothDrained),
    .wrong(
      "lost: the dead letters were purged when all was drained", "lost",
      withDeadLetters + published + bothDrained
        + "9004 a invoke purge d -\n9005 a ok purge d -\n"),
    .fine(
      "lost: the dead letters were purged meanwhile",
      withDeadLetters + published + "5 c ok deliver q m token=1 attempt=2 lease=10\n"
        + "8000 a invoke purge d -\n8001 a ok purge d -\n" + bothDrained),
    .fine("lost: acked", published + acked + drained),
    .fine(
      "lost: acked with unknown outcome",
      published + "5 c ok deliver q m token=1\n6 c invoke ack q m token=1\n" + drained),
    .fine(
      "lost: rejected with unknown outcome",
      published + "5 c ok deliver q m token=1\n6 c invoke reject q m token=1\n"
        + "7 c info reject q m token=1\n" + drained),
    .fine(
      "lost: the publish is unknown", "0 p invoke publish q m\n1 p info publish q m\n" + drained),
    .fine(
      "lost: purged meanwhile",
      "0 p invoke publish q m\n0 a invoke purge q -\n1 p ok publish q m\n2 a info purge q -\n"
        + drained),
    .fine("lost: perhaps cancelled", published + "2 a invoke cancel q m\n" + drained),
    .fine(
      "lost: expired exactly then",
      "0 p invoke publish q m ttl=9001\n1 p ok publish q m\n" + drained),
    .fine(
      "lost: found as a dead letter",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=2 lease=10
        6 c invoke nack q m token=1
        7 c ok nack q m token=1
        8 c ok deliver d m token=1 attempt=1 lease=10 id=B

        """ + bothDrained),
    .open("lost: not drained", published),
    .open(
      "lost: not drained, and nothing confirmed", "0 p invoke publish q m\n1 p info publish q m\n"),
    .open(
      "lost: drained before the last confirm",
      "0 p invoke publish q m\n1 a invoke drain q -\n2 p ok publish q m\n3 a ok drain q -\n"),
    .open("lost: the drain did not end", published + "9 a invoke drain q -\n"),
    .open(
      "lost: the dead-letter queue was not drained",
      withDeadLetters + published + "5 c ok deliver q m token=1 attempt=1 lease=10\n" + drained),
  ]

  static let resurrected: [Self] = [
    .wrong(
      "resurrected: after an ack", "resurrected",
      published + acked + "80 e ok deliver q m token=2 attempt=2 lease=100\n" + drained),
    .wrong(
      "resurrected: after a reject", "resurrected",
      published + """
        5 c ok deliver q m token=1 attempt=1 lease=100
        6 c invoke reject q m token=1
        7 c ok reject q m token=1
        8 c ok deliver q m token=2 attempt=2 lease=100

        """ + drained),
    .wrong(
      "resurrected: the redrive ended before the reject", "resurrected",
      withDeadLetters + published + """
        4 a invoke redrive d -
        4 a ok redrive d -
        5 c ok deliver q m token=1 attempt=1 lease=100
        6 c invoke reject q m token=1
        7 c ok reject q m token=1
        8 c ok deliver q m token=2 attempt=2 lease=100
        9 c invoke ack q m token=2
        9 c ok ack q m token=2

        """ + bothDrained),
    .fine(
      "resurrected: the ack is unknown",
      published + """
        5 c ok deliver q m token=1 attempt=1 lease=100
        6 c invoke ack q m token=1
        7 c info ack q m token=1
        8 e ok deliver q m token=2 attempt=2 lease=100
        9 e invoke ack q m token=2
        9 e ok ack q m token=2

        """ + drained),
    .fine(
      "resurrected: a redrive undid the reject",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=1 lease=100
        6 c invoke reject q m token=1
        7 c ok reject q m token=1
        8 a invoke redrive d m
        9 c ok deliver q m token=2 attempt=1 lease=100 id=C
        9 a ok redrive d m
        10 c invoke ack q m token=2
        11 c ok ack q m token=2

        """ + bothDrained),
    .fine(
      "resurrected: an old delivery read late",
      published + """
        200 e ok deliver q m token=2 attempt=2 lease=100
        201 e invoke ack q m token=2
        202 e ok ack q m token=2
        203 c ok deliver q m token=1 attempt=1 lease=100

        """ + drained),
  ]

  static let unexpected: [Self] = [
    .wrong(
      "unexpected: never published", "unexpected",
      published + acked + "80 c ok deliver q ghost token=2\n" + drained),
    .wrong(
      "unexpected: all publishes failed", "unexpected",
      "0 p invoke publish q m\n1 p fail publish q m\n2 c ok deliver q m token=1\n"),
    .wrong(
      "unexpected: of another queue, and not judged further", "unexpected",
      published + acked + "80 c ok deliver r m token=2\n81 e ok deliver r m token=1\n" + drained),
    .fine(
      "unexpected: before the publish's invoke",
      "0 c ok deliver q m token=1\n0 c invoke ack q m token=1\n0 c ok ack q m token=1\n" + published
        + drained),
    .fine(
      "unexpected: one publish failed, one is unknown",
      "0 p invoke publish q m\n1 p fail publish q m\n2 p invoke publish q m\n" + acked + drained),
    .fine(
      "unexpected: from the declared dead-letter queue",
      withDeadLetters + published + acked.replacing("ack", "reject")
        + "80 c ok deliver d m token=1 attempt=1\n" + bothDrained),
  ]

  static func heldTwice(_ between: String, first: String = "", at: Int = 50) -> String {
    published + "5 c ok deliver q m token=1 attempt=1 lease=100 \(first)\n" + between
      + "\(at) e ok deliver q m token=2 attempt=2 lease=100\n"
      + "\(at) e invoke ack q m token=2\n\(at) e ok ack q m token=2\n" + drained
  }

  static let heldTwice: [Self] = [
    .wrong("held-twice: two processes", "held-twice", heldTwice("")),
    .wrong(
      "held-twice: the same process", "held-twice",
      heldTwice("").replacingOccurrences(" e ", " c ")),
    .wrong(
      "held-twice: the nack failed", "held-twice",
      heldTwice("6 c invoke nack q m token=1\n7 c fail nack q m token=1\n")),
    .wrong(
      "held-twice: another consumer died", "held-twice",
      heldTwice("6 nemesis info client-kill - x\n")),
    .wrong(
      "held-twice: extended just before", "held-twice",
      heldTwice(
        "90 c invoke extend q m token=1\n91 c ok extend q m token=1 lease=100\n", at: 189)),
    .wrong(
      "held-twice: the machine's clock says the lease was live", "held-twice",
      published + """
        500 c ok deliver q m token=1 attempt=1 lease=100 granted=77000
        700 e ok deliver q m token=2 attempt=2 lease=100 granted=77099
        701 e invoke ack q m token=2
        702 e ok ack q m token=2

        """ + drained),
    .wrong(
      "held-twice: the leader changed before the first delivery", "held-twice",
      published + "4 nemesis info leader-change - 2\n" + heldTwice("").dropFirst(published.count)),
    .fine(
      "held-twice: nacked, without a known outcome",
      heldTwice("6 c invoke nack q m token=1\n")),
    .fine(
      "held-twice: released",
      heldTwice("6 c invoke release q m token=1\n7 c ok release q m token=1\n")),
    .fine("held-twice: the consumer died", heldTwice("6 nemesis info client-kill - c\n")),
    .fine("held-twice: its session ended", heldTwice("6 nemesis info session-end - c\n")),
    .fine("held-twice: the lease ended exactly then", heldTwice("", first: "granted=0", at: 100)),
    .fine("held-twice: the grant was earlier than the reading", heldTwice("", at: 100)),
    .fine(
      "held-twice: extended, and over exactly then",
      heldTwice(
        "90 c invoke extend q m token=1\n91 c ok extend q m token=1 lease=100\n", at: 190)),
    .fine(
      "held-twice: an unknown extension may have made the lease shorter",
      heldTwice("6 c invoke extend q m token=1 lease=9\n", at: 15)),
    .wrong(
      "held-twice: not even the unknown extension had ended", "held-twice",
      heldTwice("6 c invoke extend q m token=1 lease=10\n", at: 15)),
    .wrong(
      "held-twice: the extension that is known made it long again", "held-twice",
      heldTwice(
        "6 c invoke extend q m token=1 lease=3\n7 c invoke extend q m token=1\n"
          + "8 c info extend q m token=1\n8 c ok extend q m token=1 lease=100\n", at: 9)),
    .fine("held-twice: the ack is unknown", heldTwice("6 c invoke ack q m token=1\n")),
    .wrong(
      "held-twice: an unknown reject that nothing brought back", "held-twice",
      heldTwice("6 c invoke reject q m token=1\n")),
    .fine(
      "early: expired while it waited, and a redrive brought it back",
      withDeadLetters + """
        1 p invoke publish q m delay=1000 ttl=10
        2 p ok publish q m id=A
        30 a invoke redrive d -
        31 a ok redrive d -
        40 e ok deliver q m token=2 attempt=1 lease=100 id=C
        41 e invoke ack q m token=2
        42 e ok ack q m token=2

        """ + bothDrained),
    .fine(
      "early: the nack made a dead letter, and a redrive brought it back",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=1 lease=100 id=A
        6 c invoke nack q m token=1 delay=1000
        7 c ok nack q m token=1
        8 a invoke redrive d -
        9 a ok redrive d -
        10 e ok deliver q m token=2 attempt=1 lease=100 id=C
        11 e invoke ack q m token=2
        12 e ok ack q m token=2

        """ + bothDrained),
    .fine(
      "held-twice: an unknown reject, and a redrive",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=1 lease=100 id=A
        6 c invoke reject q m token=1
        7 c info reject q m token=1
        8 a invoke redrive d -
        9 a ok redrive d -
        10 e ok deliver q m token=2 attempt=1 lease=100 id=C
        11 e invoke ack q m token=2
        12 e ok ack q m token=2

        """ + bothDrained),
    .fine(
      "held-twice: not strict about the leader", strict: false,
      heldTwice("6 nemesis info leader-change - 2\n")),
  ]

  static let failover: [Self] = [
    .wrong(
      "failover-duplicate: strict", "failover-duplicate",
      heldTwice("6 nemesis info leader-change - 2\n")),
    .wrong(
      "failover-duplicate: the refused nack is no cause", "failover-duplicate",
      heldTwice(
        "6 c invoke nack q m token=1\n7 nemesis info leader-change - 2\n7 c fail nack q m token=1\n"
      )),
    .fine(
      "failover-duplicate: nacked as well",
      heldTwice(
        "6 c invoke nack q m token=1\n7 nemesis info leader-change - 2\n7 c ok nack q m token=1\n")),
    .fine(
      "failover-duplicate: the consumer died with the leader",
      heldTwice("6 nemesis info leader-change - 2\n7 nemesis info client-kill - c\n")),
    .fine(
      "failover-duplicate: the lease had ended too",
      heldTwice("6 nemesis info leader-change - 2\n", at: 100)),
  ]

  private static func delayed(_ delivery: Int, retry: String = "") -> String {
    "0 p invoke publish q m delay=50\n1 p ok publish q m\n" + retry
      + "\(delivery) c ok deliver q m token=1 attempt=1 lease=100\n"
      + "60 c invoke ack q m token=1\n61 c ok ack q m token=1\n" + drained
  }

  static func backOff(_ delivery: Int, attempt: Int = 1, outcome: String = "ok") -> String {
    """
    0 a invoke declare q -
    0 a ok declare q - config.retryDelay=100 config.retryMax=300 config.retryJitter=0.2
    0 p invoke publish q m
    1 p ok publish q m
    5 c ok deliver q m token=1 attempt=\(attempt) lease=5000
    10 c invoke nack q m token=1
    11 c \(outcome) nack q m token=1
    \(delivery) c ok deliver q m token=2 attempt=\(attempt + 1) lease=5000
    900 c invoke ack q m token=2
    901 c ok ack q m token=2

    """ + drained
  }

  static let early: [Self] = [
    .wrong("early: a delayed publish", "early", delayed(49)),
    .wrong(
      "early: a delayed nack", "early",
      backOff(59).replacing("nack q m token=1\n11", "nack q m token=1 delay=50\n11")),
    .wrong("early: the back-off", "early", backOff(89)),
    .wrong("early: the doubled back-off", "early", backOff(169, attempt: 2)),
    .wrong("early: the longest back-off", "early", backOff(249, attempt: 9)),
    .fine("early: exactly due", delayed(50)),
    .fine(
      "early: only a retry asks for a delay",
      delayed(49, retry: "2 p invoke publish q m delay=50\n3 p ok publish q m\n")
        .replacing("0 p invoke publish q m delay=50", "0 p invoke publish q m")),
    .fine(
      "early: due by the first invoke, not the retry",
      delayed(50, retry: "2 p invoke publish q m delay=50\n3 p ok publish q m\n")),
    .fine(
      "early: a delayed nack, exactly due",
      backOff(60).replacing("nack q m token=1\n11", "nack q m token=1 delay=50\n11")),
    .fine(
      "early: handed back twice, and only the second says for how long",
      backOff(15).replacing("config.retryDelay=100", "config.retryDelay=0")
        .replacing("\n11 c ok", "\n10 c invoke nack q m token=1 delay=50\n11 c ok")),
    .wrong(
      "early: the retry of a delayed nack names no delay", "early",
      backOff(15).replacing("config.retryDelay=100", "config.retryDelay=0")
        .replacing(
          "nack q m token=1\n11 c ok",
          "nack q m token=1 delay=50\n10 c invoke nack q m token=1\n11 c ok")),
    .fine("early: the back-off at its lowest jitter", backOff(90)),
    .fine("early: the doubled back-off, exactly due", backOff(170, attempt: 2)),
    .fine("early: the longest back-off, exactly due", backOff(250, attempt: 9)),
    .fine("early: an unknown nack", backOff(12, outcome: "info")),
    .fine(
      "early: put forward while it waited out its nack",
      backOff(60).replacing("11 c ok nack", "11 a invoke retime q m delay=40\n11 c ok nack")),
    .wrong(
      "early: the reschedule was refused", "early",
      backOff(60).replacing(
        "11 c ok nack",
        "11 a invoke retime q m delay=40\n11 a fail retime q m\n11 c ok nack")),
    .wrong(
      "early: the reschedule had ended before the nack", "early",
      backOff(60).replacing(
        "10 c invoke nack",
        "9 a invoke retime q m delay=40\n9 a ok retime q m\n10 c invoke nack")),
  ]

  private static func again(_ token: Int, attempt: Int, to process: String = "c") -> String {
    published + """
      5 c ok deliver q m token=7 attempt=2 lease=100
      6 c invoke nack q m token=7 delay=0
      7 c ok nack q m token=7
      8 \(process) ok deliver q m token=\(token) attempt=\(attempt) lease=100
      9 \(process) invoke ack q m token=\(token)
      10 \(process) ok ack q m token=\(token)

      """ + drained
  }

  static let tokens: [Self] = [
    .wrong("token-regress: smaller", "token-regress", again(6, attempt: 3)),
    .wrong("token-regress: the same", "token-regress", again(7, attempt: 3, to: "e")),
    .wrong(
      "token-regress: smaller with a smaller attempt on the same process", "token-regress",
      again(6, attempt: 1)),
    .fine("token-regress: grown by more than one", again(70, attempt: 3)),
    .fine(
      "token-regress: read late on another process",
      published + """
        105 c ok deliver q m token=7 attempt=2 lease=100
        106 e ok deliver q m token=6 attempt=1 lease=100
        107 e invoke ack q m token=6
        107 c invoke ack q m token=7
        108 e fail ack q m token=6
        108 c ok ack q m token=7

        """ + drained),
    .fine(
      "token-regress: begins anew in the dead-letter queue",
      withDeadLetters + published + """
        5 c ok deliver q m token=7 attempt=2 lease=100
        6 c invoke reject q m token=7
        7 c ok reject q m token=7
        8 c ok deliver d m token=1 attempt=1 lease=100
        9 c invoke ack d m token=1
        10 c ok ack d m token=1

        """ + bothDrained),
  ]

  private static func overrun(_ late: String) -> String {
    published + """
      5 c ok deliver q m token=1 attempt=1 lease=100
      150 e ok deliver q m token=2 attempt=2 lease=100

      """ + late + "160 e invoke ack q m token=2\n161 e ok ack q m token=2\n" + drained
  }

  static let stale: [Self] = [
    .wrong(
      "stale-accepted: an ack", "stale-accepted",
      overrun("151 c invoke ack q m token=1\n152 c ok ack q m token=1\n")),
    .wrong(
      "stale-accepted: an ack that was on its way", "stale-accepted",
      published + """
        5 c ok deliver q m token=1 attempt=1 lease=100
        140 c invoke ack q m token=1
        150 e ok deliver q m token=2 attempt=2 lease=100
        151 c ok ack q m token=1

        """ + drained),
    .wrong(
      "stale-accepted: a nack", "stale-accepted",
      overrun("151 c invoke nack q m token=1\n152 c ok nack q m token=1\n")),
    .wrong(
      "stale-accepted: an extension", "stale-accepted",
      overrun("151 c invoke extend q m token=1\n152 c ok extend q m token=1 lease=9\n")),
    .wrong(
      "stale-accepted: a release", "stale-accepted",
      overrun("151 c invoke release q m token=1\n152 c ok release q m token=1\n")),
    .fine(
      "stale-accepted: refused",
      overrun("151 c invoke ack q m token=1\n152 c fail ack q m token=1\n")),
    .fine(
      "stale-accepted: unknown",
      overrun("151 c invoke ack q m token=1\n152 c info ack q m token=1\n")),
    .fine(
      "stale-accepted: a nack on its way",
      published + """
        5 c ok deliver q m token=1 attempt=1 lease=100
        6 c invoke nack q m token=1
        7 e ok deliver q m token=2 attempt=2 lease=100
        8 c ok nack q m token=1
        9 e invoke ack q m token=2
        10 e ok ack q m token=2

        """ + drained),
  ]

  static func twoMessages(
    _ first: String = "", _ second: String = "", producer: String = "p", consumer: String = "c",
    attempt: Int = 1, outcome: String = "ok"
  ) -> String {
    """
    0 p invoke publish q m \(first)
    1 \(producer) invoke publish q n \(second)
    2 p \(outcome) publish q m
    3 \(producer) ok publish q n
    100 c ok deliver q n token=1 attempt=1 lease=100
    101 \(consumer) ok deliver q m token=2 attempt=\(attempt) lease=100
    102 c invoke ack q n token=1
    102 \(consumer) invoke ack q m token=2
    103 c ok ack q n token=1
    103 \(consumer) ok ack q m token=2

    """ + drained
  }

  static let order: [Self] = [
    .wrong("out-of-order: overtaken", "out-of-order", twoMessages()),
    .wrong(
      "out-of-order: of one key", "out-of-order", twoMessages("key=k", "key=k")),
    .wrong(
      "out-of-order: of one priority", "out-of-order", twoMessages("priority=1", "priority=1")),
    .wrong(
      "out-of-order: a redrive had ended before", "out-of-order",
      redriven("0 a invoke redrive d -\n0 a ok redrive d -\n") + twoMessages()),
    .fine(
      "out-of-order: perhaps redriven", redriven("0 a invoke redrive d -\n") + twoMessages()),
    .fine("out-of-order: another producer", twoMessages(producer: "o")),
    .fine("out-of-order: another consumer", twoMessages(consumer: "e")),
    .fine("out-of-order: another key", twoMessages("key=k", "key=l")),
    .fine("out-of-order: another priority", twoMessages("priority=1", "priority=2")),
    .fine("out-of-order: delayed", twoMessages("delay=20")),
    .fine("out-of-order: unknown", twoMessages(outcome: "info")),
    .fine("out-of-order: it had been out before, unread", twoMessages(attempt: 2)),
    .fine(
      "out-of-order: handed back unread by one that left",
      xRead + twoMessages().replacing("100 c ok", with: "99 nemesis info client-kill - x\n100 c ok")
    ),
    .fine(
      "out-of-order: handed back unread when a session ended",
      xRead
        + twoMessages().replacing("101 c ok", with: "100 nemesis info session-end - x\n101 c ok")),
    .wrong(
      "out-of-order: one had left before", "out-of-order",
      xRead + "0 nemesis info client-kill - x\n" + twoMessages()),
    .wrong(
      "out-of-order: one left afterwards", "out-of-order",
      xRead
        + twoMessages().replacing(
          "102 c invoke ack q m", with: "102 nemesis info client-kill - x\n102 c invoke ack q m")),
    .fine(
      "out-of-order: retried",
      twoMessages().replacing("3 p ok", "2 p invoke publish q m\n3 p ok publish q m\n3 p ok")),
  ]

  private static func redriven(_ redrive: String) -> String {
    "0 a invoke declare q -\n0 a ok declare q - config.deadLetter=d\n" + redrive
  }

  private static func delivered(
    _ attempts: [Int], _ between: String = "", back: String = "nack"
  ) -> String {
    var text = withDeadLetters.replacing("maxDeliveries=2", with: "maxDeliveries=3") + published
    for (place, attempt) in attempts.enumerated() {
      let time = 10 + 10 * place
      let token = place + 1
      if place == attempts.count - 1 { text += between }
      text += "\(time) c ok deliver q m token=\(token) attempt=\(attempt) lease=100 id=A\n"
      let end = place == attempts.count - 1 ? "ack" : back
      text += "\(time + 1) c invoke \(end) q m token=\(token)\n"
      text += "\(time + 2) c ok \(end) q m token=\(token)\n"
    }
    return text + bothDrained
  }

  static let attempts: [Self] = [
    .wrong("attempts: counted anew", "attempts", delivered([1, 2, 1])),
    .wrong("attempts: less than the one before the last", "attempts", delivered([1, 3, 3, 2])),
    .wrong("attempts: more than the queue allows", "attempts", delivered([1, 2, 3, 4])),
    .wrong("attempts: the first is too many", "attempts", delivered([4])),
    .wrong(
      "attempts: counted anew after a redrive that failed", "attempts",
      delivered([1, 2, 1], "25 a invoke redrive d -\n26 a fail redrive d -\n")),
    .fine("attempts: the last", delivered([1, 2, 3])),
    .fine("attempts: handed back, which counts as none", delivered([1, 1, 1], back: "release")),
    .fine("attempts: seen from the second on", delivered([2, 3])),
    .fine(
      "attempts: counted anew after a redrive",
      delivered([1, 2, 1], "25 a invoke redrive d -\n26 a ok redrive d -\n")),
  ]

  private static func dead(_ rest: String) -> String {
    withDeadLetters + published + """
      5 c ok deliver q m token=1 attempt=2 lease=100 id=A
      6 c invoke nack q m token=1
      7 c ok nack q m token=1
      8 c ok deliver d m token=1 attempt=1 lease=100 id=B
      9 c invoke ack d m token=1
      10 c ok ack d m token=1

      """ + rest + bothDrained
  }

  static let deadLetters: [Self] = [
    .wrong(
      "dead-letter-doubled: two ids", "dead-letter-doubled",
      dead("11 c ok deliver d m token=2 attempt=1 lease=100 id=C\n")),
    .wrong(
      "dead-letter-doubled: the own queue goes on", "dead-letter-doubled",
      dead("11 e ok deliver q m token=2 attempt=3 lease=100 id=A\n")),
    .wrong(
      "dead-letter-doubled: both count once", "dead-letter-doubled",
      dead(
        "11 e ok deliver q m token=2 attempt=3 id=A\n12 c ok deliver d m token=2 attempt=1 id=C\n")),
    .wrong(
      "dead-letter-doubled: rejected, and the own queue goes on", "dead-letter-doubled",
      dead("11 e ok deliver q m token=2 attempt=3 lease=100 id=A\n").replacing("nack", "reject")),
    .wrong(
      "dead-letter-doubled: the redrive failed", "dead-letter-doubled",
      dead("11 a invoke redrive d -\n12 a fail redrive d -\n13 c ok deliver d m token=2 id=C\n")),
    .fine("dead-letter-doubled: once", dead("")),
    .fine(
      "dead-letter-doubled: the same copy again",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=2 lease=100 id=A
        6 c invoke nack q m token=1
        7 c ok nack q m token=1
        8 c ok deliver d m token=1 attempt=1 lease=100 id=B
        9 c invoke nack d m token=1
        10 c ok nack d m token=1
        11 c ok deliver d m token=2 attempt=2 lease=100 id=B
        12 c invoke ack d m token=2
        13 c ok ack d m token=2

        """ + bothDrained),
    .fine(
      "dead-letter-doubled: a redrive between",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=2 lease=100 id=A
        6 c invoke nack q m token=1
        7 c ok nack q m token=1
        8 c ok deliver d m token=1 attempt=1 lease=100 id=B
        9 c invoke release d m token=1
        10 c ok release d m token=1
        11 a invoke redrive d -
        12 a ok redrive d -
        13 c ok deliver q m token=2 attempt=1 lease=100 id=C
        14 c invoke reject q m token=2
        15 c ok reject q m token=2
        16 c ok deliver d m token=2 attempt=1 lease=100 id=D
        17 c invoke ack d m token=2
        18 c ok ack d m token=2

        """ + bothDrained),
    .fine(
      "dead-letter-doubled: read after the redrive",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=2 granted=50 lease=100 id=A
        6 c invoke nack q m token=1
        7 c ok nack q m token=1
        8 a invoke redrive d -
        9 a ok redrive d -
        10 s ok deliver d m token=1 attempt=1 granted=80 lease=5 id=B
        13 c ok deliver q m token=2 attempt=1 granted=90 lease=100 id=C
        14 c invoke reject q m token=2
        15 c ok reject q m token=2
        16 c ok deliver d m token=2 attempt=1 granted=160 lease=100 id=D
        17 c invoke ack d m token=2
        18 c ok ack d m token=2

        """ + bothDrained),
    .wrong(
      "dead-letter-doubled: the redrive was over before", "dead-letter-doubled",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=2 granted=50 lease=100 id=A
        6 c invoke nack q m token=1
        7 c ok nack q m token=1
        8 a invoke redrive d -
        9 a ok redrive d -
        9 p invoke publish q n
        9 p ok publish q n id=N
        9 c ok deliver q n token=9 attempt=1 granted=70 lease=100 id=N
        9 c invoke ack q n token=9
        9 c ok ack q n token=9
        10 s ok deliver d m token=1 attempt=1 granted=80 lease=5 id=B
        16 c ok deliver d m token=2 attempt=1 granted=160 lease=100 id=D
        17 c invoke ack d m token=2
        18 c ok ack d m token=2

        """ + bothDrained),
    .fine(
      "dead-letter-doubled: without a grant it was perhaps read after the redrive of it",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=2 lease=100 id=A
        6 c invoke nack q m token=1
        7 c ok nack q m token=1
        8 a invoke redrive d -
        9 a ok redrive d -
        10 s ok deliver d m token=1 attempt=1 lease=1 id=B
        16 c ok deliver d m token=2 attempt=1 lease=100 id=D
        17 c invoke ack d m token=2
        18 c ok ack d m token=2

        """ + bothDrained),
    .fine(
      "dead-letter-doubled: published to two queues with one for dead letters",
      withDeadLetters + """
        0 a invoke declare r -
        0 a ok declare r - config.deadLetter=d
        0 p invoke publish q m
        0 p invoke publish r m
        1 p ok publish q m id=A
        1 p ok publish r m id=B
        5 c ok deliver q m token=1
        5 c ok deliver r m token=1
        6 c invoke reject q m token=1
        6 c invoke reject r m token=1
        7 c ok reject q m token=1
        7 c ok reject r m token=1
        8 c ok deliver d m token=1 id=C
        8 c ok deliver d m token=2 id=D
        9 a invoke drain r -
        9 a ok drain r -

        """ + bothDrained),
  ]

  static let confirmedTwice: [Self] = [
    .wrong(
      "confirmed-twice: a retry under another id", "confirmed-twice",
      published + "2 p invoke publish q m\n3 p ok publish q m id=B\n" + acked + drained),
    .wrong(
      "confirmed-twice: delivered under another id", "confirmed-twice",
      published + acked.replacing("id=A", "id=B") + drained),
    .wrong(
      "confirmed-twice: an unknown publish came out, its retry was stored too", "confirmed-twice",
      "0 p invoke publish q m\n1 p info publish q m\n" + acked
        + "80 p invoke publish q m\n81 p ok publish q m id=B\n" + drained),
    .fine(
      "confirmed-twice: a retry under the same id",
      published + "2 p invoke publish q m\n3 p ok publish q m id=A\n" + acked + drained),
    .fine(
      "confirmed-twice: in two queues",
      published + "2 p invoke publish r m\n3 p ok publish r m id=B\n" + acked
        + "80 c ok deliver r m token=1 id=B\n81 c invoke ack r m token=1\n"
        + "82 c ok ack r m token=1\n" + drained
        + "9100 a invoke drain r -\n9101 a ok drain r -\n"),
    .fine(
      "confirmed-twice: expired and redriven before the confirm arrived",
      withDeadLetters + """
        4 p invoke publish q m ttl=1
        8 a invoke redrive d m
        9 a ok redrive d m
        10 p ok publish q m id=A
        11 c ok deliver q m token=1 attempt=1 lease=100 id=C
        12 c invoke ack q m token=1
        13 c ok ack q m token=1

        """ + bothDrained),
    .fine(
      "confirmed-twice: expired and redriven, and the confirm came last",
      withDeadLetters + """
        4 p invoke publish q m ttl=1
        8 a invoke redrive d m
        9 a ok redrive d m
        11 c ok deliver q m token=1 attempt=1 lease=100 id=C
        12 p ok publish q m id=A
        13 c invoke ack q m token=1
        14 c ok ack q m token=1

        """ + bothDrained),
    .wrong(
      "confirmed-twice: the redrive had ended before the publish began", "confirmed-twice",
      withDeadLetters + """
        4 a invoke redrive d -
        5 a ok redrive d -
        6 p invoke publish q m
        10 p ok publish q m id=A
        11 c ok deliver q m token=1 attempt=1 lease=100 id=C
        12 c invoke ack q m token=1
        13 c ok ack q m token=1

        """ + bothDrained),
    .fine(
      "confirmed-twice: read after the redrive, and then confirmed",
      withDeadLetters + """
        4 p invoke publish q m
        8 a invoke redrive d -
        9 a ok redrive d -
        10 s ok deliver q m token=1 attempt=1 granted=50 lease=5 id=A
        11 p ok publish q m id=A
        12 c ok deliver q m token=2 attempt=1 granted=70 lease=100 id=C
        13 c invoke ack q m token=2
        14 c ok ack q m token=2

        """ + bothDrained),
    .fine(
      "confirmed-twice: read after the redrive, and nobody knows when it was granted",
      withDeadLetters + """
        4 p invoke publish q m
        8 a invoke redrive d -
        9 a ok redrive d -
        10 s ok deliver q m token=1 attempt=1 lease=5 id=A
        12 c ok deliver q m token=2 attempt=1 lease=100 id=C
        13 c invoke ack q m token=2
        14 c ok ack q m token=2

        """ + bothDrained),
    .wrong(
      "confirmed-twice: delivered twice, and the redrive had ended before the publish began",
      "confirmed-twice",
      withDeadLetters + """
        2 a invoke redrive d -
        3 a ok redrive d -
        4 p invoke publish q m
        10 s ok deliver q m token=1 attempt=1 granted=50 lease=5 id=A
        12 c ok deliver q m token=2 attempt=2 granted=70 lease=100 id=C
        13 c invoke ack q m token=2
        14 c ok ack q m token=2

        """ + bothDrained),
    .wrong(
      "confirmed-twice: delivered twice, and the redrive had ended before the first was granted",
      "confirmed-twice",
      withDeadLetters + """
        4 p invoke publish q m
        8 a invoke redrive d -
        9 a ok redrive d -
        9 p invoke publish q n
        9 p ok publish q n id=N
        9 c ok deliver q n token=1 attempt=1 granted=40 lease=100 id=N
        9 c invoke ack q n token=1
        9 c ok ack q n token=1
        10 s ok deliver q m token=2 attempt=1 granted=50 lease=5 id=A
        12 c ok deliver q m token=3 attempt=2 granted=70 lease=100 id=C
        13 c invoke ack q m token=3
        14 c ok ack q m token=3

        """ + bothDrained),
    .fine(
      "confirmed-twice: a new id by a redrive",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=1 lease=100 id=A
        6 c invoke reject q m token=1
        7 c ok reject q m token=1
        8 a invoke redrive d m
        9 a ok redrive d m
        10 c ok deliver q m token=2 attempt=1 lease=100 id=C
        11 c invoke ack q m token=2
        12 c ok ack q m token=2

        """ + bothDrained),
  ]
}

extension String {
  func replacingOccurrences(_ part: String, _ other: String) -> String {
    replacing(part, with: other)
  }
  func replacing(_ part: String, _ other: String) -> String { replacing(part, with: other) }
}
