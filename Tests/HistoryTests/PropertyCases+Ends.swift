// The histories of PropertyTests about the end: what drains show together with redrives, with settlements
// of unknown outcome, and with queues that give up.

extension PropertyCase {
  static let ends = lateRedrives + namedRedrives + overlapping + givenUp + disproved

  private static let lateRedrive = "9500 a invoke redrive d -\n9501 a ok redrive d -\n"
  private static let anotherRedrive = unknownRedrive.replacing("8 a", "9 a")
  private static func drains(_ begin: Int) -> String {
    """
    \(begin) a invoke drain q -
    \(begin) a ok drain q -
    \(begin) a invoke drain d -
    \(begin) a ok drain d -

    """
  }

  private static let betweenDrains =
    drained + "9001 a invoke redrive d -\n9002 a ok redrive d -\n9002 a invoke drain d -\n"
    + "9003 a ok drain d -\n"
  private static let neverGivesUp =
    "0 a invoke declare q -\n0 a ok declare q - config.deadLetter=d\n"

  // MARK: Redrives at the end

  static let lateRedrives: [Self] = [
    .wrong(
      "lost: rejected, and a redrive when all was drained", "lost",
      withDeadLetters + published + rejection + bothDrained + lateRedrive),
    .wrong(
      "lost: never came out, and a redrive when all was drained", "lost",
      withDeadLetters + published + bothDrained + lateRedrive),
    .wrong(
      "lost: never came out, and a redrive of unknown outcome when all was drained", "lost",
      withDeadLetters + published + bothDrained + lateRedrive.replacing("a ok", "a info")),
    .open(
      "lost: rejected, and a redrive between the drains",
      withDeadLetters + published + rejection + betweenDrains),
    .open(
      "lost: rejected, and a redrive of unknown outcome may have brought it back",
      withDeadLetters + published + rejection + unknownRedrive + bothDrained),
    .wrong(
      "lost: rejected, a redrive of unknown outcome, and drained twice", "lost",
      withDeadLetters + published + rejection + unknownRedrive + twiceDrained),
    .wrong(
      "lost: two redrives of unknown outcome, and drained twice", "lost",
      withDeadLetters + published + rejection + unknownRedrive + anotherRedrive + twiceDrained),
    .open(
      "lost: each of two redrives of unknown outcome may have come after a drain",
      withDeadLetters + published + rejection + unknownRedrive + anotherRedrive + bothDrained
        + "9005 c ok deliver q m token=2 attempt=2 lease=100 granted=9900 id=C\n"
        + twiceDrained.dropFirst(bothDrained.count)),
    .open(
      "lost: two redrives of unknown outcome, and one that left between them",
      xRead + withDeadLetters + published + rejection + unknownRedrive + anotherRedrive
        + bothDrained + "9005 nemesis info client-kill - x\n"
        + twiceDrained.dropFirst(bothDrained.count)),
    .open(
      "lost: perhaps with one that was about to be killed when it was published, then redriven",
      xRead + withDeadLetters + "0 nemesis info client-kill - x\n" + published + betweenDrains),
    .open(
      "lost: read and nacked before its publish was recorded, then redriven",
      withDeadLetters + """
        0 c ok deliver q m token=1 attempt=2 lease=100
        0 c invoke nack q m token=1

        """ + published + "5 c ok nack q m token=1\n" + betweenDrains),
    .wrong(
      "lost: a redrive, and its queue makes no dead letters of what nobody rejects", "lost",
      neverGivesUp + published + nacked + betweenDrains),
    .open(
      "lost: a redrive, and its queue makes dead letters of what is perhaps rejected",
      neverGivesUp + published + rejection.replacing("7 c ok", "7 c info") + betweenDrains),
    .wrong(
      "lost: a redrive of unknown outcome, and it was never a dead letter", "lost",
      withDeadLetters + unknownRedrive.replacing("8 a", "0 a").replacing("9 a", "0 a") + published
        + bothDrained),
    .wrong(
      "lost: two redrives of unknown outcome, and drained three times", "lost",
      withDeadLetters + published + rejection + unknownRedrive + anotherRedrive + twiceDrained
        + drains(9020)),
    .open(
      "lost: rejected, and the dead letters were only drained before",
      withDeadLetters + published + "5 a invoke drain d -\n5 a ok drain d -\n" + rejection + drained
    ),
    .fine(
      "resurrected: a redrive that nobody heard of any more comes after a drain",
      withDeadLetters + "0 a invoke redrive d -\n0 a invoke drain d -\n0 a ok drain d -\n"
        + published
        + rejection + """
          9 c ok deliver q m token=2 attempt=1 lease=50 granted=1010 id=C
          10 c invoke ack q m token=2
          11 c ok ack q m token=2

          """ + bothDrained),
  ]

  // MARK: Redrives that find nothing

  private static let letter = "8 e ok deliver d m token=1 attempt=1 lease=9 granted=1008 id=B\n"
  private static let back = """
    20 a invoke redrive d m
    21 a ok redrive d m
    22 e ok deliver q m token=2 attempt=1 lease=9 granted=1032 id=C

    """

  static let namedRedrives: [Self] = [
    .fine(
      "lost: acked as a dead letter when a redrive of it came",
      withDeadLetters + published + rejection + letter
        + "9 e invoke ack d m token=1\n20 a invoke redrive d m\n21 e ok ack d m token=1\n"
        + "22 a ok redrive d m\n" + bothDrained),
    .fine(
      "lost: brought back, perhaps acked, and redriven again by name",
      withDeadLetters + published + rejection + back
        + "23 e invoke ack q m token=2\n23 e info ack q m token=2\n"
        + "24 a invoke redrive d m\n25 a ok redrive d m\n" + bothDrained),
    .fine(
      "lost: read as a dead letter, brought back, perhaps acked, and redriven again by name",
      withDeadLetters + published + rejection + letter
        + "9 e invoke release d m token=1\n9 e ok release d m token=1\n" + back
        + "23 e invoke ack q m token=2\n23 e info ack q m token=2\n"
        + "24 a invoke redrive d m\n25 a ok redrive d m\n" + bothDrained),
    .wrong(
      "lost: brought back by name, came, and was not settled", "lost",
      withDeadLetters + published + rejection + letter + back + bothDrained),
  ]

  // MARK: Drains side by side

  /// Rejected when both drains had begun.
  private static func sideBySide(_ dead: String) -> String {
    withDeadLetters + published
      + rejection.replacing("6 c inv", "6 a invoke drain q -\n" + dead + "6 c inv")
      + "8 a ok drain q -\n"
  }

  static let overlapping: [Self] = [
    .open(
      "lost: the dead letters' drain began before its own ended",
      sideBySide("6 b invoke drain d -\n") + "9 b ok drain d -\n"),
    .fine(
      "lost: settled as a dead letter after a drain that began before its own ended",
      sideBySide("6 b invoke drain d -\n") + "9 b ok drain d -\n" + deadAcked(9005)),
    .wrong(
      "lost: the dead letters' drain began when its own had ended", "lost",
      sideBySide("") + "8 b invoke drain d -\n9 b ok drain d -\n"),
    .open(
      "lost: it may have become a dead letter unread when those had been drained",
      withDeadLetters + published + "3 a invoke drain d -\n4 a ok drain d -\n"
        + "6 a invoke drain q -\n7 nemesis info client-kill - x\n9000 a ok drain q -\n"),
    .wrong(
      "lost: a later drain of the dead letters counts", "lost",
      sideBySide("6 b invoke drain d -\n")
        + "9 b ok drain d -\n10 b invoke drain d -\n11 b ok drain d -\n"),
  ]

  // MARK: Given up

  private static func limited(_ queue: String, to limit: Int) -> String {
    (queue == "d" ? neverGivesUp : "")
      + "0 a invoke declare \(queue) -\n0 a ok declare \(queue) - config.maxDeliveries=\(limit)\n"
  }
  private static let nacked = """
    5 c ok deliver q m token=1 attempt=2 lease=50 granted=1000
    6 c invoke nack q m token=1
    7 c ok nack q m token=1

    """
  private static let deadNacked = """
    8 e ok deliver d m token=1 attempt=2 lease=50 granted=1010
    9 e invoke nack d m token=1
    9 e ok nack d m token=1

    """

  private static func limitedDead(to limit: Int) -> String {
    "0 a invoke declare d -\n0 a ok declare d - config.maxDeliveries=\(limit)\n"
  }
  private static let wRead = xRead.replacing(" x", " w")
  /// `x` and `w` are consumers of the dead letters, and leave.
  private static let deadReaders =
    (xRead + wRead).replacing("0 ", "8 ").replacing("token=88 ", "token=80 ")
    .replacing(" q ", " d ") + "9 nemesis info client-kill - x\n9 nemesis info client-kill - w\n"

  static let givenUp: [Self] = [
    .fine(
      "lost: the last attempt failed, and there are no dead letters",
      limited("q", to: 2) + published + nacked + drained),
    .wrong(
      "lost: the last attempt but one failed, and there are no dead letters", "lost",
      limited("q", to: 3) + published
        + nacked + drained),
    .wrong(
      "lost: never came out, and the queue gives up", "lost",
      limited("q", to: 3) + published
        + drained),
    .fine(
      "lost: given up by one that left and had it more than once, perhaps",
      xRead + limited("q", to: 3) + published
        + "3 nemesis info client-kill - x\n" + drained),
    .fine(
      "lost: given up by one that was about to be killed when it was published, perhaps",
      xRead + limited("q", to: 2) + "0 nemesis info client-kill - x\n" + published + drained),
    .fine(
      "lost: given up by one whose session ended no sooner than it was published, perhaps",
      xRead + limited("q", to: 2) + "0 nemesis info session-end - x timeout=1\n"
        + published.replacing("0 p", "3 p").replacing("1 p", "3 p") + drained),
    .fine(
      "lost: given up by those that left, perhaps, each time",
      xRead + wRead + limited("q", to: 2) + published + "3 nemesis info client-kill - x\n"
        + "3 nemesis info client-kill - w\n" + drained),
    .fine(
      "lost: given up by one that left, perhaps, as its last attempt",
      xRead + limited("q", to: 3) + published + nacked + "8 nemesis info client-kill - x\n"
        + drained),
    .fine(
      "lost: the last attempt but two failed, and one left",
      xRead + limited("q", to: 4) + published + nacked + "8 nemesis info client-kill - x\n"
        + drained),
    .wrong(
      "lost: who left had never had anything of the queue", "lost",
      limited("q", to: 2) + published
        + "3 p invoke publish z y\n4 p ok publish z y\n5 y ok deliver z y token=1\n"
        + "6 y invoke ack z y token=1\n7 y ok ack z y token=1\n8 nemesis info client-kill - p\n"
        + "8 nemesis info client-kill - y\n"
        + "8500 a invoke drain z -\n8500 a ok drain z -\n" + drained),
    .fine(
      "lost: given up by those that left before anybody heard of them, perhaps",
      limited("q", to: 2) + published + "3 nemesis info client-kill - x\n"
        + "3 nemesis info client-kill - w\n" + drained),
    .wrong(
      "lost: a dead letter may be given up, but nobody had it in its own queue", "lost",
      withDeadLetters + limitedDead(to: 2) + published + deadReaders + bothDrained),
    .fine(
      "lost: a dead letter may have been given up by those that left",
      withDeadLetters + limitedDead(to: 2) + published + nacked + deadReaders + bothDrained),
    .fine(
      "lost: a dead letter was with those that left more than once, perhaps",
      withDeadLetters + limitedDead(to: 3) + published + nacked + deadReaders + bothDrained),
    .fine(
      "lost: a message and its dead letter were with the same one that left, perhaps",
      xRead + withDeadLetters + limitedDead(to: 2) + published + deadReaders + bothDrained),
    .fine(
      "lost: the last attempt of a dead letter failed",
      limited("d", to: 2) + published + rejection.replacing("reject", "nack") + otherDead
        + deadNacked
        + bothDrained),
    .wrong(
      "lost: the last attempt but one of a dead letter failed", "lost",
      limited("d", to: 3) + published + rejection.replacing("reject", "nack") + otherDead
        + deadNacked
        + bothDrained),
  ]

  // MARK: Disproved

  private static func unknownAck(_ first: Int?, _ second: Int?, _ rest: String = "") -> String {
    let granted = [first, second].map { $0.map { "granted=\($0)" } ?? "" }
    return published + """
      6 c ok deliver q m token=1 attempt=1 lease=50 \(granted[0])
      7 c invoke ack q m token=1
      8 c info ack q m token=1
      90 e ok deliver q m token=2 attempt=2 lease=50 \(granted[1])

      """ + rest + drained
  }
  private static let unknownDeadAck = """
    8 e ok deliver d m token=1 attempt=1 lease=9 granted=1008 id=B
    9 e invoke ack d m token=1
    9 e info ack d m token=1

    """

  static let disproved: [Self] = [
    .wrong(
      "lost: it came again after an ack of unknown outcome, and is gone", "lost",
      unknownAck(1000, 1090)),
    .fine(
      "lost: it came again after an ack of unknown outcome, and was acked",
      unknownAck(1000, 1090, "91 e invoke ack q m token=2\n91 e info ack q m token=2\n")),
    .fine(
      "lost: nobody says that it was granted again", unknownAck(nil, nil)),
    .fine(
      "lost: nobody says when it was granted before", unknownAck(nil, 1090)),
    .wrong(
      "lost: a dead letter came again after an ack of unknown outcome, and is gone", "lost",
      withDeadLetters + published + rejection + unknownDeadAck
        + "20 e ok deliver d m token=2 attempt=2 lease=9 granted=1020 id=B\n" + bothDrained),
    .wrong(
      "lost: a dead letter with an ack of unknown outcome was brought back, and is gone", "lost",
      withDeadLetters + published + rejection + unknownDeadAck
        + "18 a invoke redrive d -\n19 a ok redrive d -\n"
        + "20 e ok deliver q m token=2 attempt=1 lease=9 granted=1020 id=C\n" + bothDrained),
    .fine(
      "lost: a dead letter with an ack of unknown outcome",
      withDeadLetters + published + rejection + unknownDeadAck + bothDrained),
    .fine(
      "lost: read late where it came from, and acked as a dead letter with unknown outcome",
      withDeadLetters + published
        + rejection.replacing("token=1", "token=2").replacing("attempt=1", "attempt=2")
        + unknownDeadAck + "20 s ok deliver q m token=1 attempt=1 lease=3 granted=1001 id=A\n"
        + bothDrained),
  ]
}
