// The histories of PropertyTests about who left later than it is asked of: an end that is recorded behind
// what it is to explain, and those that never had anything.

extension PropertyCase {
  static let left = acrossLeaders + withoutSigns + ofOthers

  // MARK: Across a change of leader

  private static let ended = "8 nemesis info session-end - c\n"

  /// `c` has it, another leads, `e` gets it within the lease.
  private static func handedOver(
    _ rest: String, led: String = "4 nemesis info leader-change - n2\n", granted: Int = 1010
  ) -> String {
    published + "3 c ok deliver q m token=1 attempt=1 lease=3000 granted=1000\n" + led + """
      5 e ok deliver q m token=2 attempt=1 lease=3000 granted=\(granted)
      6 e invoke ack q m token=2
      7 e ok ack q m token=2

      """ + rest + drained
  }

  static let acrossLeaders: [Self] = [
    .wrong(
      "failover-duplicate: its session ended, as was recorded later", "failover-duplicate",
      handedOver(ended)),
    .fine(
      "failover-duplicate: its session ended, as was recorded before",
      handedOver("", led: "4 nemesis info leader-change - n2\n4 nemesis info session-end - c\n")),
    .fine(
      "failover-duplicate: its session ended unnoticed, and nobody led anew",
      handedOver(ended, led: "")),
    .fine(
      "failover-duplicate: its session ended unnoticed, and its lease as well",
      handedOver(ended, granted: 4000).replacing("token=2 attempt=1", "token=2 attempt=2")),
    .fine(
      "failover-duplicate: its session ended unnoticed, and another led later",
      handedOver("7 nemesis info leader-change - n2\n" + ended, led: "")),
    .fine(
      "failover-duplicate: its session ended unnoticed by its timeout",
      handedOver(ended.replacing("session-end - c", "session-end - c timeout=3"))),
    .wrong(
      "failover-duplicate: its session ended unnoticed before its timeout", "failover-duplicate",
      handedOver(ended.replacing("session-end - c", "session-end - c timeout=6"))),
    .wrong(
      "failover-duplicate: its session ended noticed before its timeout", "failover-duplicate",
      handedOver(
        "", led: "4 nemesis info leader-change - n2\n4 nemesis info session-end - c timeout=6\n")),
    .wrong(
      "held-twice: its session ended before its timeout", "held-twice",
      handedOver(ended.replacing("session-end - c", "session-end - c timeout=6"), led: "")),
    .fine(
      "failover-duplicate: its session ended unnoticed, which is not asked for", strict: false,
      handedOver(ended)),
  ]

  // MARK: Without grants

  private static let yPublished = "7 p invoke publish q y\n8 p ok publish q y\n"
  private static let yRead = """
    9 c ok deliver q y token=3 attempt=1
    10 c invoke ack q y token=3
    11 c info ack q y token=3

    """
  private static func twice(_ rest: String) -> String {
    "0 a invoke declare q -\n0 a ok declare q - config.lease=1000\n" + published + """
      3 c ok deliver q m token=1 attempt=1
      4 e ok deliver q m token=2 attempt=2
      5 e invoke ack q m token=2
      6 e ok ack q m token=2

      """ + rest + drained + "9990 nemesis info session-end - c\n"
  }
  private static func amqp(_ reader: String) -> String {
    """
    0 p invoke publish q m
    1 p ok publish q m
    2 p invoke publish q n
    3 p ok publish q n
    4 c ok deliver q n token=1 lease=0
    5 c ok deliver q m token=2 lease=0
    6 c invoke ack q n token=1
    6 c info ack q n token=1
    7 c invoke ack q m token=2
    7 c info ack q m token=2

    """ + drained + "9990 nemesis info session-end - \(reader)\n"
  }

  static let withoutSigns: [Self] = [
    .wrong(
      "held-twice: it read what was published later", "held-twice", twice(yPublished + yRead)),
    .fine(
      "held-twice: it read what was published before",
      twice(yRead).replacing(
        "3 c ok",
        yPublished.replacing("7 p", "2 p").replacing("8 p", "2 p")
          + "3 c ok")),
    .wrong(
      "held-twice: it published something later", "held-twice",
      twice(
        "7 c invoke publish z y\n8 c ok publish z y\n9 o ok deliver z y token=1\n"
          + "9 o invoke ack z y token=1\n9 o ok ack z y token=1\n"
          + "10 a invoke drain z -\n10 a ok drain z -\n")),
    .fine(
      "held-twice: what it published later is of unknown outcome",
      twice("7 c invoke publish q y\n8 c info publish q y\n")),
    .wrong(
      "out-of-order: read by one whose session ended", "out-of-order", amqp("c")),
  ]

  // MARK: Who had nothing

  private static let xKilled = xRead + "0 nemesis info client-kill - x\n"
  /// `c` has it, and `e` gets it within the lease, when `c` was killed.
  private static func killedLater(timeout: Int) -> String {
    published + """
      3 c ok deliver q m token=1 attempt=1 lease=3000 granted=1000
      4 nemesis info session-end - c timeout=\(timeout)
      4 nemesis info client-kill - c
      5 e ok deliver q m token=2 attempt=2 lease=3000 granted=1010
      6 e invoke ack q m token=2
      7 e ok ack q m token=2

      """ + drained
  }

  static let ofOthers: [Self] = [
    .fine(
      "held-twice: it gave up its session, which lasted, and was killed",
      killedLater(timeout: 50)),
    .wrong(
      "held-twice: it gave up its session, which lasted, and its kill failed", "held-twice",
      killedLater(timeout: 50).replacing(
        "4 nemesis info client-kill - c",
        "4 nemesis invoke client-kill - c\n4 nemesis fail client-kill - c")),
    .fine(
      "out-of-order: one was about to be killed when it was published, and attempts are not said",
      xKilled + amqp("p")),
    .wrong(
      "out-of-order: one was about to be killed when it was published, which would count",
      "out-of-order", xKilled + amqp("p").replacing("lease=0", "attempt=1 lease=0")),
    .fine(
      "out-of-order: one left who had only declared its queue",
      "0 x invoke declare q -\n0 x ok declare q -\n" + amqp("x")),
    .wrong(
      "out-of-order: one left who had only published", "out-of-order",
      """
      0 x invoke publish q y
      0 x ok publish q y
      0 o ok deliver q y token=1
      0 o invoke ack q y token=1
      0 o ok ack q y token=1

      """ + amqp("x")),
    .wrong("out-of-order: a producer left", "out-of-order", amqp("p")),
    .fine("out-of-order: one left of whom nobody heard", amqp("x")),
    .fine("out-of-order: one left who may have had it", xRead + amqp("x")),
    .wrong(
      "out-of-order: one left who read from another queue", "out-of-order",
      xRead.replacing(" q x", " z x") + "0 a invoke drain z -\n0 a ok drain z -\n" + amqp("x")),
    .wrong(
      "resurrected: a producer left when the queue was purged", "resurrected",
      after(purged, grantedAt: 1030) + "9990 nemesis info session-end - p\n"),
    .wrong(
      "resurrected: it left itself, who read what was purged", "resurrected",
      after(purged, grantedAt: 1030, acked: "info") + "9990 nemesis info session-end - c\n"),
  ]
}
