// The histories of PropertyTests about a message and its dead letter: which of the two copies something
// is said of, and that they are never out at once.

extension PropertyCase {
  static let copies = heldAndDead + evidence + undated

  // MARK: Held and dead

  private static let limited =
    "0 a invoke declare q -\n0 a ok declare q - config.deadLetter=d config.maxDeliveries=3\n"
  private static let ledAnew = "6 nemesis info leader-change - n2\n"

  /// `c` holds it from 1005 to 1105, and it is a dead letter.
  private static func deadWhileHeld(
    at moment: Int = 1007, _ between: String = "", _ rest: String = ""
  ) -> String {
    limited + published + "5 c ok deliver q m token=1 attempt=1 lease=100 granted=1005 id=A\n"
      + between + """
        7 e ok deliver d m token=9 attempt=1 lease=100 granted=\(moment) id=B
        8 e invoke ack d m token=9
        8 e ok ack d m token=9

        """ + rest + bothDrained
  }

  static let heldAndDead: [Self] = [
    .wrong("held-twice: a dead letter while it was held", "held-twice", deadWhileHeld()),
    .wrong(
      "held-twice: a dead letter while it was held, to the nanosecond", "held-twice",
      deadWhileHeld(at: 1104)),
    .wrong(
      "held-twice: a dead letter while it was held, and its holder finds out", "held-twice",
      deadWhileHeld(
        at: 1007, "",
        "9 c invoke nack q m token=1\n9 c fail nack q m token=1\n"
          + "10 nemesis info client-kill - c\n")),
    .wrong(
      "held-twice: a dead letter while who reads late held it", "held-twice",
      limited + published + """
        5 c ok deliver d m token=9 attempt=1 lease=100 granted=1020 id=B
        6 c invoke ack d m token=9
        6 c ok ack d m token=9
        7 s ok deliver q m token=1 attempt=1 lease=100 granted=1005 id=A

        """ + bothDrained),
    .wrong(
      "failover-duplicate: a dead letter while it was held", "failover-duplicate",
      deadWhileHeld(at: 1007, ledAnew)),
    .fine(
      "failover-duplicate: a dead letter while it was held, which is not asked for", strict: false,
      deadWhileHeld(at: 1007, ledAnew)),
    .fine("held-twice: a dead letter when its lease was over", deadWhileHeld(at: 1105)),
    .fine(
      "held-twice: a dead letter, and its nack is of unknown outcome",
      deadWhileHeld(at: 1007, "6 c invoke nack q m token=1\n")),
    .fine(
      "held-twice: a dead letter, and its extension is of unknown outcome",
      deadWhileHeld(at: 1007, "6 c invoke extend q m token=1 lease=1\n")),
    .fine(
      "held-twice: a dead letter, and its holder was killed",
      deadWhileHeld(at: 1007, "6 nemesis info client-kill - c\n")),
    .fine(
      "held-twice: a dead letter, and its holder's session had ended, as it found out later",
      deadWhileHeld(at: 1007, "", "9 nemesis info session-end - c\n")),
    .fine(
      "held-twice: a dead letter, and its time to live is over",
      deadWhileHeld().replacing("publish q m\n1", "publish q m ttl=2\n1")),
    .fine(
      "held-twice: a dead letter, and another message of the same value is held",
      deadWhileHeld(at: 1007, "", "9 c invoke ack q m token=1\n9 c info ack q m token=1\n")
        .replacing(
          "1 p ok",
          """
          0 a invoke declare r -
          0 a ok declare r - config.deadLetter=d
          0 p invoke publish r m
          0 p ok publish r m
          1 p ok
          """) + "9004 a invoke drain r -\n9005 a ok drain r -\n"
        + "9006 a invoke drain d -\n9007 a ok drain d -\n"),
    .fine(
      "held-twice: a dead letter, read when it was brought back and held again",
      limited + published + rejection + """
        8 a invoke redrive d -
        20 a ok redrive d -
        21 c ok deliver q m token=2 attempt=1 lease=100 granted=1021 id=C
        22 s ok deliver d m token=1 attempt=1 lease=5 granted=1009 id=B
        23 c invoke ack q m token=2
        23 c info ack q m token=2

        """ + bothDrained),
    .fine(
      "held-twice: a dead letter of the very time at which it was granted again",
      limited + published + rejection + """
        8 e ok deliver d m token=1 attempt=1 lease=5 granted=1021 id=B
        8 e invoke release d m token=1
        8 e ok release d m token=1
        8 a invoke redrive d -
        20 a ok redrive d -
        21 c ok deliver q m token=2 attempt=1 lease=100 granted=1021 id=C
        23 c invoke ack q m token=2
        23 c info ack q m token=2

        """ + bothDrained),
  ]

  // MARK: What shows what was granted later

  /// `n` is purged, and came to `s` before or after that.
  private static let nPurged = """
    9 p invoke publish r n
    9 p ok publish r n
    20 a invoke purge r -
    21 a ok purge r -

    """
  private static let nRead = """
    70 s ok deliver r n token=9 attempt=1 lease=100 granted=1010
    71 s invoke ack r n token=9
    71 s ok ack r n token=9

    """
  private static func deadLettered(_ queues: String...) -> String {
    queues.map { "0 a invoke declare \($0) -\n0 a ok declare \($0) - config.deadLetter=d\n" }
      .joined()
  }
  private static func rejected(
    _ queue: String, at time: Int = 2, granted: String = "granted=1002"
  ) -> String {
    """
    \(time) p invoke publish \(queue) m
    \(time) p ok publish \(queue) m
    \(time) c ok deliver \(queue) m token=1 attempt=1 lease=100 \(granted)
    \(time) c invoke reject \(queue) m token=1
    \(time) c ok reject \(queue) m token=1

    """
  }
  private static func settled(_ process: String, token: Int) -> String {
    "\(process) invoke ack d m token=\(token)\n\(process) ok ack d m token=\(token)\n"
  }
  private static func allDrained(_ queues: String...) -> String {
    queues.map { "9000 a invoke drain \($0) -\n9000 a ok drain \($0) -\n" }.joined()
  }

  static let evidence: [Self] = [
    .fine(
      "resurrected: one of two dead letters was handed back, the other granted before the purge",
      deadLettered("r", "q") + rejected("r") + rejected("q")
        + "5 b ok deliver d m token=5 attempt=1 lease=100 granted=1005\n" + nPurged
        + "50 b invoke nack d m token=5\n51 b ok nack d m token=5\n"
        + "60 e ok deliver d m token=7 attempt=1 lease=100 granted=1006\n"
        + settled("61 e", token: 7)
        + "62 b ok deliver d m token=8 attempt=2 lease=100 granted=1052\n"
        + settled("62 b", token: 8)
        + nRead + allDrained("r", "q", "d")),
    .fine(
      "resurrected: a dead letter was granted before the purge, and published there later",
      deadLettered("r") + rejected("r") + nPurged
        + "50 p invoke publish d m\n51 p ok publish d m\n"
        + "52 e ok deliver d m token=2 attempt=1 lease=100 granted=1051\n"
        + settled("53 e", token: 2)
        + "60 s ok deliver d m token=1 attempt=1 lease=100 granted=1005\n"
        + settled("61 s", token: 1)
        + nRead + allDrained("r") + "9001 a invoke drain d -\n9001 a ok drain d -\n"),
    .wrong(
      "resurrected: purged, and a dead letter of what was published later was granted before",
      "resurrected",
      deadLettered("q") + nPurged
        + rejected("q", at: 23, granted: "")
        + "24 b ok deliver d m token=1 attempt=1 lease=100 granted=1005\n"
        + settled("25 b", token: 1)
        + nRead + allDrained("r", "q") + "9001 a invoke drain d -\n9001 a ok drain d -\n"),
  ]

  // MARK: Without grants

  static let undated: [Self] = [
    .fine(
      "dead-letter-doubled: read as a dead letter after the redrive of it, and nobody says when",
      deadLettered("q") + published + """
        2 c ok deliver q m token=1 attempt=1 lease=5
        3 c invoke reject q m token=1
        3 c ok reject q m token=1
        10 r invoke redrive d -
        11 r ok redrive d -
        12 s ok deliver d m token=1 attempt=1 lease=5
        13 e ok deliver q m token=2 attempt=1 lease=5
        14 e invoke ack q m token=2
        14 e ok ack q m token=2

        """ + bothDrained),
    .wrong(
      "dead-letter-doubled: a redrive before it was published, and nobody says when",
      "dead-letter-doubled",
      deadLettered("q") + "0 r invoke redrive d -\n0 r ok redrive d -\n" + published + """
        2 c ok deliver q m token=1 attempt=1 lease=5
        3 c invoke reject q m token=1
        3 c info reject q m token=1
        12 s ok deliver d m token=1 attempt=1 lease=5
        13 e ok deliver q m token=2 attempt=1 lease=5
        14 e invoke ack q m token=2
        14 e info ack q m token=2

        """ + bothDrained),
  ]
}
