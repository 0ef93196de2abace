// The histories of PropertyTests about what is gone, or should be: behind a drain, as a dead letter, by a
// cancel or a purge.

extension PropertyCase {
  static let gone = behindDrain + rejected + ackedAndDead + redrivenAndDrained + removed

  static let died = """
    5 c ok deliver q m token=1 attempt=2 lease=100 granted=1005 id=A
    6 c invoke nack q m token=1
    7 c ok nack q m token=1

    """
  /// Among others that are settled, so that the dead must be too.
  static let otherDead = """
    8 p invoke publish d other
    8 p ok publish d other
    8 c ok deliver d other token=1 attempt=1 lease=100
    8 c invoke ack d other token=1
    8 c ok ack d other token=1

    """

  static func deadAcked(_ time: Int) -> String {
    """
    \(time) e ok deliver d m token=9 attempt=1 lease=100 granted=\(time + 1000) id=B
    \(time) e invoke ack d m token=9
    \(time) e ok ack d m token=9

    """
  }

  // MARK: Behind a drain

  static let behindDrain: [Self] = [
    .wrong(
      "lost: came out and was settled only when the queue was empty", "lost",
      published + drained
        + acked.replacing("60 ", "9060 ").replacing("70 ", "9070 ")
        .replacing("71 ", "9071 ")),
    .wrong(
      "lost: delivered before the drain, settled behind it", "lost",
      published + "5 c ok deliver q m token=1 attempt=1 lease=100 id=A\n" + drained
        + "9002 c invoke ack q m token=1\n9003 c ok ack q m token=1\n"),
    .wrong(
      "lost: found as a dead letter only when these were drained", "lost",
      withDeadLetters + published + died + bothDrained
        + "9005 c ok deliver d m token=1 attempt=1 lease=10 id=B\n"),
    .wrong(
      "lost: settled as a dead letter only when these were drained", "lost",
      withDeadLetters + published + died + otherDead + bothDrained + deadAcked(9005)),
    .wrong(
      "lost: a second drain does not undo what the first one shows", "lost",
      published + drained
        + acked.replacing("60 ", "9060 ").replacing("70 ", "9070 ")
        .replacing("71 ", "9071 ") + "9080 a invoke drain q -\n9081 a ok drain q -\n"),
    .fine(
      "lost: the ack was on its way when the queue was empty",
      published + "5 c ok deliver q m token=1 attempt=1 lease=100 id=A\n"
        + "9000 a invoke drain q -\n9000 c invoke ack q m token=1\n9001 a ok drain q -\n"
        + "9002 c ok ack q m token=1\n"),
    .fine(
      "lost: settled in time, and read once more by one that stood still",
      published + """
        50 c ok deliver q m token=2 attempt=2 lease=100 granted=1200 id=A
        51 c invoke ack q m token=2
        52 c ok ack q m token=2

        """ + drained + "9002 e ok deliver q m token=1 attempt=1 lease=100 granted=1005 id=A\n"),
    .fine(
      "lost: the dead letters are drained after their queue",
      withDeadLetters + published + died + otherDead + drained
        + "9002 a invoke drain d -\n" + deadAcked(9003) + "9004 a ok drain d -\n"),
    .fine(
      "lost: a dead letter may come later than a drain before its own queue's",
      withDeadLetters + published + "9000 a invoke drain d -\n9001 a ok drain d -\n"
        + died
        .replacing("5 c", "9001 c").replacing("6 c", "9002 c").replacing("7 c", "9003 c")
        + "9004 a invoke drain q -\n9005 a ok drain q -\n"
        + "9006 p invoke publish r other\n9006 c ok deliver d m token=9 attempt=1 id=B\n"
        + "9007 c invoke ack d m token=9\n9008 c ok ack d m token=9\n9009 a invoke drain r -\n"
        + "9009 a ok drain r -\n"),
    .fine(
      "lost: a redrive brought it back when its queue was drained",
      withDeadLetters + published + died + drained + """
        9002 a invoke redrive d -
        9003 a ok redrive d -
        9004 e ok deliver q m token=2 attempt=1 lease=100 id=C
        9005 e invoke ack q m token=2
        9006 e ok ack q m token=2
        9007 a invoke drain d -
        9008 a ok drain d -

        """),
    .open(
      "lost: a redrive may have brought it back when its queue was drained",
      withDeadLetters + published + died
        + drained + "9002 a invoke redrive d -\n9003 a ok redrive d -\n"
        + "9004 a invoke drain d -\n9005 a ok drain d -\n"),
  ]

  // MARK: Rejected

  static let rejection = """
    5 c ok deliver q m token=1 attempt=1 lease=100 granted=1005 id=A
    6 c invoke reject q m token=1
    7 c ok reject q m token=1

    """

  static let rejected: [Self] = [
    .wrong(
      "lost: rejected, and no dead letter came out", "lost",
      withDeadLetters + published + rejection + bothDrained),
    .wrong(
      "lost: a reject of unknown outcome, and neither it nor a dead letter came out", "lost",
      withDeadLetters + published + rejection.replacing("7 c ok", "7 c info") + bothDrained),
    .wrong(
      "lost: brought back by name, and did not come", "lost",
      withDeadLetters + published + rejection
        + "30 a invoke redrive d m\n31 a ok redrive d m\n" + bothDrained),
    .fine(
      "lost: found as a dead letter, and brought back by name when it was perhaps taken",
      withDeadLetters + published + rejection
        + "8 e ok deliver d m token=1 attempt=1 lease=9 granted=1008 id=B\n"
        + "30 a invoke redrive d m\n31 a ok redrive d m\n" + bothDrained),
    .wrong(
      "lost: brought back, came, was not settled, and is gone", "lost",
      withDeadLetters + published + rejection
        + "8 e ok deliver d m token=1 attempt=1 lease=9 granted=1008 id=B\n"
        + "30 a invoke redrive d -\n31 a ok redrive d -\n"
        + "32 e ok deliver q m token=2 attempt=1 lease=9 granted=1032 id=C\n" + bothDrained),
    .fine(
      "lost: brought back by name after an ack of unknown outcome, and did not come",
      withDeadLetters + published
        + "5 c ok deliver q m token=1 attempt=2 lease=9 granted=1005 id=A\n"
        + "6 c invoke ack q m token=1\n7 c info ack q m token=1\n"
        + "30 a invoke redrive d m\n31 a ok redrive d m\n" + bothDrained),
    .fine("lost: rejected, and there are no dead letters", published + rejection + drained),
    .fine(
      "lost: rejected, and the dead letters were not drained",
      withDeadLetters + published + rejection + drained),
    .fine(
      "lost: rejected, and found",
      withDeadLetters + published + rejection + deadAcked(8)
        + bothDrained),
    .fine(
      "lost: rejected, and the dead letters were purged",
      withDeadLetters + published + rejection + "8 a invoke purge d -\n9 a ok purge d -\n"
        + bothDrained),
    .fine(
      "lost: rejected, and dead letters live only so long",
      withDeadLetters + "0 a invoke declare d -\n0 a ok declare d - config.ttl=9000\n" + published
        + rejection + bothDrained),
    .fine(
      "lost: brought back by name, and acked",
      withDeadLetters + published + rejection
        + "8 e ok deliver d m token=1 attempt=1 lease=9 granted=1008 id=B\n"
        + "30 a invoke redrive d m\n31 a ok redrive d m\n"
        + "32 e ok deliver q m token=2 attempt=1 lease=9 granted=1032 id=C\n"
        + "33 e invoke ack q m token=2\n33 e ok ack q m token=2\n" + bothDrained),
    .fine(
      "lost: found as a dead letter, and read late where it came from",
      withDeadLetters + published
        + "5 c ok deliver q m token=2 attempt=2 lease=9 granted=1030 id=A\n"
        + "6 c invoke reject q m token=2\n7 c ok reject q m token=2\n"
        + "8 e ok deliver d m token=1 attempt=1 lease=9 granted=1040 id=B\n"
        + "9 s ok deliver q m token=1 attempt=1 lease=9 granted=1005 id=A\n" + bothDrained),
  ]

  // MARK: Acked and dead

  static let ackedAndDead: [Self] = [
    .wrong(
      "resurrected: acked, and a dead letter as well", "resurrected",
      withDeadLetters + published + acked + deadAcked(80) + bothDrained),
    .wrong(
      "resurrected: a dead letter, and its ack counts as well", "resurrected",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=1 lease=100 granted=1005 id=A
        6 e ok deliver d m token=9 attempt=1 lease=100 granted=1006 id=B
        7 e invoke ack d m token=9
        7 e ok ack d m token=9
        8 c invoke ack q m token=1
        9 c ok ack q m token=1

        """ + bothDrained),
    .wrong(
      "resurrected: acked, and a dead letter that is newer than any redrive of it", "resurrected",
      withDeadLetters + published
        + "3 a invoke redrive d -\n4 a ok redrive d -\n" + """
          5 c ok deliver q m token=1 attempt=1 lease=100 granted=1005 id=A
          6 c invoke ack q m token=1
          7 c ok ack q m token=1

          """ + deadAcked(8) + bothDrained),
    .fine(
      "resurrected: the ack of a dead letter is refused",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=2 lease=100 granted=1005 id=A

        """ + deadAcked(150) + """
          151 c invoke ack q m token=1
          152 c fail ack q m token=1

          """ + bothDrained),
    .fine(
      "resurrected: the ack is unknown, and it became a dead letter",
      withDeadLetters + published + """
        5 c ok deliver q m token=1 attempt=2 lease=100 granted=1005 id=A
        6 c invoke ack q m token=1
        7 c info ack q m token=1

        """ + deadAcked(150) + bothDrained),
    .fine(
      "resurrected: a dead letter, brought back, acked, and then read by one that stood still",
      withDeadLetters + published + died + """
        8 a invoke redrive d -
        20 a ok redrive d -
        21 e ok deliver q m token=2 attempt=1 lease=100 granted=1021 id=C
        22 e invoke ack q m token=2
        23 e ok ack q m token=2
        24 s ok deliver d m token=1 attempt=1 lease=5 granted=1009 id=B

        """ + bothDrained),
  ]

  // MARK: Drained after a redrive

  static let twiceDrained =
    bothDrained + "9010 a invoke drain q -\n9011 a ok drain q -\n"
    + "9012 a invoke drain d -\n9013 a ok drain d -\n"
  static let unknownRedrive = "8 a invoke redrive d -\n9 a info redrive d -\n"

  static let redrivenAndDrained: [Self] = [
    .wrong(
      "lost: a redrive of unknown outcome is over when all was drained after it", "lost",
      withDeadLetters + published + died + unknownRedrive + twiceDrained),
    .fine(
      "resurrected: a redrive of unknown outcome that comes after the dead letters were drained",
      withDeadLetters + unknownRedrive + "10 a invoke drain d -\n11 a ok drain d -\n"
        + published.replacing("0 p", "12 p").replacing("1 p", "13 p")
        + rejection.replacing("5 c", "15 c").replacing("6 c", "16 c").replacing("7 c", "17 c")
        + "18 e ok deliver q m token=2 attempt=2 lease=100 granted=1018 id=A\n"
        + "19 e invoke ack q m token=2\n20 e ok ack q m token=2\n" + bothDrained),
    .open(
      "lost: a redrive of unknown outcome may have brought it back after its queue was drained",
      withDeadLetters + published + died + unknownRedrive + bothDrained),
    .fine(
      "lost: a redrive of unknown outcome brought it back",
      withDeadLetters + published + died + unknownRedrive + bothDrained
        + "9004 e ok deliver q m token=2 attempt=1 lease=100 granted=1018 id=C\n"
        + "9005 e invoke ack q m token=2\n9006 e ok ack q m token=2\n"
        + "9010 a invoke drain q -\n9011 a ok drain q -\n"
        + "9012 a invoke drain d -\n9013 a ok drain d -\n"),
  ]

  // MARK: Cancelled and purged

  /// Another message, published after what was done and granted before `m`.
  static func after(
    _ done: String, grantedAt moment: Int, attempt: Int = 1, acked: String = "ok"
  ) -> String {
    published + done + """
      20 p invoke publish r n
      21 p ok publish r n id=N
      22 c ok deliver r n token=1 attempt=1 lease=100 granted=1022 id=N
      23 c invoke ack r n token=1
      24 c ok ack r n token=1
      30 c ok deliver q m token=1 attempt=\(attempt) lease=100 granted=\(moment) id=A
      31 c invoke ack q m token=1
      32 c \(acked) ack q m token=1
      8000 a invoke drain r -
      8000 a ok drain r -

      """ + drained
  }
  static let cancelled = "10 p invoke cancel q m\n11 p ok cancel q m\n"
  static let purged = "10 a invoke purge q -\n11 a ok purge q -\n"

  static let removed: [Self] = [
    .wrong("resurrected: cancelled", "resurrected", after(cancelled, grantedAt: 1030)),
    .wrong("resurrected: purged", "resurrected", after(purged, grantedAt: 1030)),
    .fine(
      "resurrected: granted before it was cancelled, perhaps, and read late",
      after(cancelled, grantedAt: 1022, acked: "fail")),
    .fine(
      "resurrected: granted before the purge, perhaps, and read late",
      after(purged, grantedAt: 1022)),
    .fine(
      "resurrected: the cancel was refused",
      after(cancelled.replacing("11 p ok", "11 p fail"), grantedAt: 1030)),
    .fine(
      "resurrected: the cancel is unknown",
      after(cancelled.replacing("11 p ok", "11 p info"), grantedAt: 1030)),
    .fine(
      "resurrected: the purge is unknown",
      after(purged.replacing("11 a ok", "11 a info"), grantedAt: 1030)),
    .fine(
      "resurrected: in somebody's hands when the queue was purged",
      after(purged, grantedAt: 1030, attempt: 2)),
    .fine(
      "resurrected: perhaps in the hands of one that left",
      xRead + after(purged + "12 nemesis info session-end - x\n", grantedAt: 1030)),
    .fine(
      "resurrected: perhaps a dead letter when the queue was purged",
      "0 a invoke declare q -\n0 a ok declare q - config.deadLetter=d\n"
        + after(purged + "12 a invoke redrive d -\n13 a ok redrive d -\n", grantedAt: 1030)
        + "9002 a invoke drain d -\n9003 a ok drain d -\n"),
    .fine(
      "resurrected: the purge began before the publish was confirmed",
      after("", grantedAt: 1030).replacing(
        "1 p ok publish q m", "0 a invoke purge q -\n1 p ok publish q m"
      )
      .replacing("20 p invoke", "11 a ok purge q -\n20 p invoke")),
  ]
}
