// The histories of PropertyTests about what a client finds out late, or never: whose session had ended,
// what an answer that was lost had done, when a lease began.

extension PropertyCase {
  static let slack = leftLater + readLateUnread + withoutGrants + again + removedOnce

  // MARK: A session's end

  /// `x` settles something at that time, so that its session is there, and finds out later that it ended.
  private static func lived(until time: Int) -> String {
    """
    \(time) x ok deliver q o token=90 attempt=1 lease=100 granted=9
    \(time) x invoke ack q o token=90
    \(time) x ok ack q o token=90

    """
  }
  private static let other = "0 o invoke publish q o\n0 o ok publish q o\n"
  private static let foundOut = "9990 nemesis info session-end - x\n"

  static let leftLater: [Self] = [
    .fine(
      "out-of-order: handed back unread by a session that ended, as it found out later",
      xRead + twoMessages() + foundOut),
    .wrong(
      "out-of-order: the session that ended lived on when it was read", "out-of-order",
      other + twoMessages().replacing("103 c ok ack q m", lived(until: 103) + "103 c ok ack q m")
        + foundOut),
    .wrong(
      "out-of-order: the session that ended was given something afterwards", "out-of-order",
      other
        + twoMessages().replacing(
          "103 c ok ack q m",
          """
          103 o invoke publish q late
          103 o ok publish q late
          103 y ok deliver q late token=91 attempt=1 lease=9 granted=1102
          103 y invoke ack q late token=91
          103 y ok ack q late token=91
          103 x ok deliver q o token=92 attempt=1 lease=9 granted=1103
          103 x invoke ack q o token=92
          103 x info ack q o token=92
          103 c ok ack q m
          """) + foundOut),
    .wrong(
      "out-of-order: a kill is not found out later", "out-of-order",
      xRead + twoMessages() + "9990 nemesis info client-kill - x\n"),
    .fine(
      "resurrected: perhaps in the hands of one that left, as it found out later",
      xRead + after(purged, grantedAt: 1030) + foundOut),
    .wrong(
      "resurrected: who left later was there when it came", "resurrected",
      other
        + after(purged, grantedAt: 1030).replacing("8000 a inv", lived(until: 40) + "8000 a inv")
        + foundOut),
    .fine(
      "held-twice: its session was over, as it found out later",
      heldTwice("") + "9990 nemesis info session-end - c\n"),
    .wrong(
      "held-twice: its session was over later", "held-twice",
      other
        + heldTwice("").replacing("50 e inv", lived(until: 50).replacing(" x ", " c ") + "50 e inv")
        + "9990 nemesis info session-end - c\n"),
    .wrong(
      "held-twice: killed only afterwards", "held-twice",
      heldTwice("") + "9990 nemesis info client-kill - c\n"),
  ]

  // MARK: Read late

  private static func unread(_ attempt: Int, _ rest: String) -> String {
    published + """
      2 c ok deliver q m token=2 attempt=1 lease=50 granted=1010
      3 x ok deliver q m token=1 attempt=\(attempt) lease=50 granted=1000
      4 x invoke ack q m token=1
      5 x fail ack q m token=1
      8 c invoke ack q m token=2
      9 c ok ack q m token=2

      """ + rest + drained
  }

  static let readLateUnread: [Self] = [
    .fine(
      "token-regress: read late by a session that had ended, which does not count",
      unread(1, "") + foundOut),
    .fine(
      "token-regress: read late by a session that had ended, as was known",
      unread(1, "").replacing("2 c", "2 nemesis info session-end - x\n2 c")),
    .wrong("token-regress: read late, and counted as one", "token-regress", unread(1, "")),
    .wrong(
      "token-regress: read late by a session that ended, and it was a later attempt",
      "token-regress", unread(2, "") + foundOut),
    .wrong(
      "token-regress: its session was there when it was read", "token-regress",
      other + unread(1, lived(until: 9)) + foundOut),
  ]

  // MARK: Without grants

  private static func grantless(_ rest: String, attempt: Int = 1) -> String {
    published + "1000 c ok deliver q m token=1 attempt=1 lease=50\n" + rest + """
      1010 e ok deliver q m token=2 attempt=\(attempt) lease=50
      1011 e invoke ack q m token=2
      1012 e ok ack q m token=2

      """ + drained
  }
  private static let led = "1005 nemesis info leader-change - 2\n"

  /// Published at 28, with leases of 5: `e` may have had it from 33 to 38.
  private static func overrun(_ rest: String) -> String {
    "0 a invoke declare q -\n0 a ok declare q - config.lease=5\n"
      + published.replacing("0 p", "28 p").replacing("1 p", "28 p")
      + "32 c ok deliver q m token=1 attempt=1\n" + rest + """
        38 e ok deliver q m token=2 attempt=2
        38 f ok deliver q m token=3 attempt=3
        39 f invoke ack q m token=3
        39 f ok ack q m token=3

        """ + drained
  }

  static let withoutGrants: [Self] = [
    .fine("held-twice: its lease had perhaps ended twice", overrun("")),
    .fine(
      "held-twice: its lease had perhaps ended before it was killed",
      overrun("36 nemesis info client-kill - c\n")),
    .fine(
      "held-twice: its lease had perhaps ended before it was nacked",
      overrun("36 c invoke nack q m token=1\n36 c info nack q m token=1\n")),
    .fine(
      "held-twice: its lease had perhaps ended, made shorter, before it was nacked",
      overrun("32 c invoke extend q m token=1 lease=1\n36 c invoke nack q m token=1\n")),
    .wrong(
      "held-twice: its lease had not ended before it was nacked", "held-twice",
      overrun("36 c invoke nack q m token=1\n36 c ok nack q m token=1\n")),
    .wrong(
      "held-twice: its lease had not ended before it was killed", "held-twice",
      overrun("36 nemesis info client-kill - c\n").replacing("config.lease=5", "config.lease=9")),
    .wrong("attempts: the lease had ended, and it did not count", "attempts", grantless("")),
    .fine(
      "attempts: whether the lease had ended when another led nobody knows", strict: false,
      grantless(led)),
    .wrong(
      "attempts: the lease had ended when another led, as the grants say", "attempts",
      grantless(led).replacing("token=1 attempt=1 lease=50", "token=1 attempt=1 lease=50 granted=7")
        .replacing("token=2 attempt=1 lease=50", "token=2 attempt=1 lease=50 granted=57")),
    .fine(
      "attempts: an unknown nack, and another led", strict: false,
      grantless("1001 c invoke nack q m token=1\n1002 c info nack q m token=1\n" + led)),
    .fine(
      "early: the lease had perhaps not ended when another led", strict: false,
      "0 a invoke declare q -\n0 a ok declare q - config.retryDelay=5000\n"
        + grantless(led, attempt: 2)),
  ]

  // MARK: Asked for again, or anew

  /// Delivered, ended, delivered again without a number of the attempt, nacked, and once more.
  private static func unnumbered(_ end: String, _ last: Int) -> String {
    "0 a invoke declare q -\n0 a ok declare q - config.retryDelay=100 config.lease=1000\n"
      + published + """
        2 c ok deliver q m token=1
        3 c invoke \(end) q m token=1 delay=0
        4 c ok \(end) q m token=1
        5 c ok deliver q m token=2
        6 c invoke nack q m token=2
        7 c ok nack q m token=2
        \(last) c ok deliver q m token=3
        900 c invoke ack q m token=3
        901 c ok ack q m token=3

        """ + drained
  }

  private static func declaredAgain(_ attempt: Int, _ limits: [Int]) -> String {
    limits.map {
      "0 a invoke declare q -\n0 a ok declare q - config.maxDeliveries=\($0)\n"
    }.joined() + published
      + "2 c ok deliver q m token=1 attempt=\(attempt) lease=50\n"
      + "3 c invoke ack q m token=1\n4 c ok ack q m token=1\n" + drained
  }

  static let again: [Self] = [
    .fine("early: a release is no attempt, whose number is not said", unnumbered("release", 106)),
    .wrong(
      "early: a nack is an attempt, whose number is not said", "early", unnumbered("nack", 205)),
    .fine("early: a nack is an attempt, and it was waited for", unnumbered("nack", 206)),
    .wrong(
      "early: a release is no attempt, but the wait is as long as any", "early",
      unnumbered("release", 105)),
    .fine(
      "held-twice: an unknown extension may have come after the one that is known",
      heldTwice(
        "6 c invoke extend q m token=1 lease=3\n7 c invoke extend q m token=1\n"
          + "8 c info extend q m token=1\n8 c ok extend q m token=1 lease=100\n", at: 10)),
    .fine("attempts: as many as the queue allowed before", declaredAgain(10, [10, 1])),
    .fine("attempts: as many as the queue allows now", declaredAgain(10, [1, 10])),
    .fine("attempts: the queue allowed any number before", declaredAgain(10, [0, 1])),
    .wrong("attempts: more than the queue ever allowed", "attempts", declaredAgain(11, [10, 1])),
  ]

  // MARK: Cancelled once

  private static func ackedAndCancelled(_ cancel: String, ack: String = "ok") -> String {
    published + cancel + """
      14 c ok deliver q m token=1 attempt=1 lease=50 granted=1000
      15 c invoke ack q m token=1
      16 c \(ack) ack q m token=1

      """ + drained
  }

  static let removedOnce: [Self] = [
    .wrong(
      "resurrected: cancelled and acked", "resurrected", ackedAndCancelled(cancelled)),
    .wrong(
      "resurrected: acked and cancelled", "resurrected",
      ackedAndCancelled("") + "9002 p invoke cancel q m\n9003 p ok cancel q m\n"),
    .fine(
      "resurrected: cancelled, and the ack was refused",
      ackedAndCancelled(cancelled, ack: "fail")),
    .fine(
      "resurrected: acked, and the cancel may not have been",
      ackedAndCancelled(cancelled.replacing("11 p ok", "11 p info"))),
    .fine(
      "resurrected: cancelled, and the ack may not have been",
      ackedAndCancelled(cancelled, ack: "info")),
    .fine(
      "resurrected: cancelled, and published again",
      ackedAndCancelled(
        cancelled + "12 p invoke publish q m\n13 p ok publish q m\n")),
    .fine(
      "resurrected: cancelled before the publish began",
      "0 p invoke cancel q m\n0 p ok cancel q m\n" + ackedAndCancelled("")),
    .fine(
      "resurrected: cancelled before the publish began, and granted later",
      "0 p invoke cancel q m\n0 p ok cancel q m\n" + after("", grantedAt: 1030)),
    .wrong(
      "resurrected: cancelled while it was published", "resurrected",
      after("", grantedAt: 1030, acked: "info").replacing(
        "1 p ok publish q m", "0 x invoke cancel q m\n1 x ok cancel q m\n1 p ok publish q m")),
    .fine(
      "resurrected: cancelled, published again, and granted later",
      after(
        cancelled + "12 p invoke publish q m\n13 p ok publish q m\n", grantedAt: 1030)),
    .fine(
      "resurrected: a purge that spares what is delayed",
      after(purged, grantedAt: 1030).replacing("publish q m\n1 p", "publish q m delay=1\n1 p")),
    .wrong(
      "resurrected: purged more than once", "resurrected",
      after(purged, grantedAt: 1030).replacing(
        "30 c ok", "29 a invoke purge q -\n29 a ok purge q -\n30 c ok")),
  ]
}
