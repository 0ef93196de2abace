// The histories of PropertyTests about what was read late, about attempts that must be counted and waited
// for, and about who may settle.

extension PropertyCase {
  static let late = readLate + heldLate + failed + overran + strangers + dead

  // MARK: Read late

  /// The newer one first, of another process.
  private static func readLate(_ newer: Int, _ older: Int, lease: Int = 50, _ rest: String = "")
    -> String
  {
    published + """
      105 c ok deliver q m token=7 attempt=2 lease=50 granted=\(newer)
      106 e ok deliver q m token=6 attempt=1 lease=\(lease) granted=\(older)

      """ + rest + """
        108 c invoke ack q m token=7
        109 c ok ack q m token=7

        """ + drained
  }

  static let readLate: [Self] = [
    .wrong(
      "token-regress: read late, and granted later", "token-regress",
      readLate(1000, 1200)),
    .fine("token-regress: read late, and granted earlier", readLate(1200, 1000)),
    .fine("token-regress: read late, and granted at the same time", readLate(1000, 1000, lease: 0)),
    .fine(
      "token-regress: read late, and only one says when it was granted",
      readLate(1000, 1200).replacing(" granted=1000", "")),
  ]

  static let heldLate: [Self] = [
    .wrong(
      "held-twice: read late, and its lease was live when the newer one was granted", "held-twice",
      readLate(1049, 1000)),
    .wrong(
      "held-twice: read late, and the lease that the queue gives was live", "held-twice",
      "0 a invoke declare q -\n0 a ok declare q - config.lease=300\n"
        + readLate(1049, 1000).replacing("lease=50", "")),
    .wrong(
      "held-twice: read late, and only one read after it is older than its lease", "held-twice",
      published + """
        105 c ok deliver q m token=7 attempt=3 lease=50 granted=1200
        106 e ok deliver q m token=5 attempt=1 lease=50 granted=1000
        107 s ok deliver q m token=6 attempt=2 lease=50 granted=1040
        108 c invoke ack q m token=7
        109 c ok ack q m token=7

        """ + drained),
    .wrong(
      "held-twice: read late, and killed only afterwards", "held-twice",
      readLate(1049, 1000, "107 nemesis info client-kill - e\n")),
    .wrong(
      "failover-duplicate: read late, and its lease was live when another led",
      "failover-duplicate",
      readLate(1049, 1000).replacing("105 c", "104 nemesis info leader-change - 2\n105 c")),
    .fine(
      "failover-duplicate: read late, and not strict", strict: false,
      readLate(1049, 1000).replacing("105 c", "104 nemesis info leader-change - 2\n105 c")),
    .fine("held-twice: read late, and its lease was over exactly then", readLate(1050, 1000)),
    .fine(
      "held-twice: read late, and its session was over, as it found out later",
      readLate(1049, 1000, "107 nemesis info session-end - e\n")),
    .fine(
      "held-twice: the one before it was handed back",
      published + """
        100 f ok deliver q m token=5 attempt=1 lease=500 granted=1000
        101 f invoke nack q m token=5
        102 f ok nack q m token=5
        105 c ok deliver q m token=7 attempt=3 lease=50 granted=1200
        106 e ok deliver q m token=6 attempt=2 lease=50 granted=1040
        108 c invoke ack q m token=7
        109 c ok ack q m token=7

        """ + drained),
    .fine(
      "held-twice: a grant is not compared with the time of a reading",
      published + """
        5 c ok deliver q m token=1 attempt=1 lease=100 granted=77000
        150 e ok deliver q m token=2 attempt=2 lease=100
        151 e invoke ack q m token=2
        152 e ok ack q m token=2

        """ + drained),
    .wrong(
      "held-twice: by the times of reading, where one does not say when it was granted",
      "held-twice",
      published.replacing("0 p", "50 p").replacing("1 p", "51 p") + """
        55 c ok deliver q m token=1 attempt=1 lease=100 granted=3
        149 e ok deliver q m token=2 attempt=2 lease=100
        151 e invoke ack q m token=2
        152 e ok ack q m token=2

        """ + drained),
  ]

  // MARK: Failed attempts

  /// A first delivery, what ended it, and the second.
  private static func again(
    _ first: Int, _ end: String, _ second: Int?, at time: Int = 50, config: String = ""
  ) -> String {
    let queue = "config.deadLetter=d config.maxDeliveries=3 \(config)"
    let attempt = second.map { "attempt=\($0)" } ?? ""
    return "0 a invoke declare q -\n0 a ok declare q - \(queue)\n" + published + """
      5 c ok deliver q m token=1 attempt=\(first) lease=100 granted=1005 id=A

      """ + end + """
        \(time) e ok deliver q m token=2 \(attempt) lease=100 granted=\(time + 1000) id=A
        \(time) e invoke ack q m token=2
        \(time) e ok ack q m token=2

        """ + bothDrained
  }
  private static func handedBack(_ action: String, _ outcome: String = "ok") -> String {
    "6 c invoke \(action) q m token=1\n7 c \(outcome) \(action) q m token=1\n"
  }

  static let failed: [Self] = [
    .wrong("attempts: the nack did not count", "attempts", again(1, handedBack("nack"), 1)),
    .wrong(
      "attempts: the unknown nack did not count", "attempts",
      again(2, handedBack("nack", "info"), 2)),
    .wrong("attempts: the lease that ran out did not count", "attempts", again(1, "", 1, at: 200)),
    .wrong(
      "attempts: the last one failed, and it goes on", "attempts",
      again(3, handedBack("nack"), nil)),
    .wrong(
      "attempts: the last one's lease ran out, and it goes on", "attempts",
      again(3, "", 3, at: 200)),
    .fine("attempts: the nack counted", again(1, handedBack("nack"), 2)),
    .fine("attempts: more than the nack counted", again(1, handedBack("nack"), 3)),
    .fine("attempts: a release does not count", again(1, handedBack("release"), 1)),
    .fine(
      "attempts: a release of unknown outcome, and the lease ran out",
      again(1, handedBack("release", "info"), 1, at: 200)),
    .fine(
      "attempts: its session was over, and the lease ran out too",
      again(1, "6 nemesis info session-end - c\n", 1, at: 200)),
    .fine(
      "attempts: its session was over, as it found out later",
      again(1, "", 1, at: 200) + "9990 nemesis info session-end - c\n"),
    .fine(
      "attempts: the last one failed, and a redrive brought it back",
      again(3, handedBack("nack") + "8 a invoke redrive d -\n9 a ok redrive d -\n", 1)
        .replacing("granted=1050 id=A", "granted=1050 id=C")),
    .fine(
      "attempts: the last one was released, and it goes on", again(3, handedBack("release"), 3)),
  ]

  private static let backOff = "config.retryDelay=1000 config.retryMax=5000 config.retryJitter=0.2"

  static let overran: [Self] = [
    .wrong(
      "early: a lease ran out, and nobody waited", "early",
      again(1, "", 2, at: 904, config: backOff)),
    .wrong(
      "early: a lease ran out, and the second wait is longer", "early",
      again(2, "", 3, at: 1704, config: backOff)),
    .wrong(
      "early: an extended lease ran out, and nobody waited", "early",
      again(
        1, "20 c invoke extend q m token=1\n25 c ok extend q m token=1 lease=300\n", 2, at: 1119,
        config: backOff)),
    .wrong(
      "early: the time of reading, where nobody says when it was granted", "early",
      again(1, "", 2, at: 899, config: backOff).replacing("granted=1005", "")
        .replacing("granted=1899", "")),
    .fine("early: a lease ran out, exactly due", again(1, "", 2, at: 905, config: backOff)),
    .fine(
      "early: an extended lease ran out, exactly due",
      again(
        1, "20 c invoke extend q m token=1\n25 c ok extend q m token=1 lease=300\n", 2, at: 1120,
        config: backOff)),
    .fine(
      "early: an extension of unknown outcome may have made it shorter",
      again(1, "20 c invoke extend q m token=1 lease=10\n", 2, at: 840, config: backOff)),
    .fine(
      "early: its session was over before",
      again(1, "6 nemesis info session-end - c\n", 2, at: 840, config: backOff)),
    .fine(
      "early: a lease ran out, and it was rescheduled",
      again(
        1, "200 a invoke retime q m delay=10\n201 a ok retime q m\n", 2, at: 840, config: backOff)),
    .fine(
      "early: a lease ran out for the last time, and a redrive brought it back",
      again(3, "200 a invoke redrive d -\n201 a ok redrive d -\n", 1, at: 300, config: backOff)
        .replacing("granted=1300 id=A", "granted=1300 id=C")),
    .fine(
      "early: what chance takes away is rounded as the queue likes",
      again(
        1, "", 2, at: 105 + 799, config: "config.retryDelay=999 config.retryJitter=0.2")),
  ]

  // MARK: Who

  static let strangers: [Self] =
    ["ack", "nack", "release", "extend", "reject"].map { action in
      .wrong(
        "stale-accepted: \(action) by a process that never had the token", "stale-accepted",
        published + """
          5 c ok deliver q m token=1 attempt=1 lease=100 granted=1005
          6 x invoke \(action) q m token=1
          7 x ok \(action) q m token=1

          """
          + (action == "ack" || action == "reject"
            ? ""
            : """
            300 c ok deliver q m token=2 attempt=2 lease=100 granted=1300
            301 c invoke ack q m token=2
            302 c ok ack q m token=2

            """) + drained)
    } + [
      .fine(
        "stale-accepted: a stranger is refused",
        published + """
          5 c ok deliver q m token=1 attempt=1 lease=100
          6 x invoke ack q m token=1
          7 x fail ack q m token=1
          8 c invoke ack q m token=1
          9 c ok ack q m token=1

          """ + drained),
      .fine(
        "stale-accepted: nobody knows who had the token",
        published + """
          5 c ok deliver q m token=2 attempt=2 lease=100
          6 c invoke ack q m token=2
          7 x invoke nack q m token=1
          8 x info nack q m token=1
          9 c ok ack q m token=2

          """ + drained),
    ]

  /// Who was dead before explains nothing.
  static let dead: [Self] = [
    .wrong(
      "held-twice: the session that ended was another one of the same name", "held-twice",
      published + """
        2 nemesis info session-end - c
        3 p invoke publish q n
        4 p ok publish q n
        5 d ok deliver q n token=1 attempt=1 lease=100 granted=1004
        5 d invoke ack q n token=1
        5 d ok ack q n token=1
        6 c ok deliver q m token=2 attempt=1 lease=100 granted=1006
        7 e ok deliver q m token=3 attempt=2 lease=100 granted=1007
        8 e invoke ack q m token=3
        9 e ok ack q m token=3

        """ + drained),
    .fine(
      "held-twice: read when its session had ended",
      published + """
        2 nemesis info session-end - c
        6 c ok deliver q m token=2 attempt=1 lease=100 granted=1006
        7 e ok deliver q m token=3 attempt=2 lease=100 granted=1007
        8 e invoke ack q m token=3
        9 e ok ack q m token=3

        """ + drained),
    .wrong(
      "held-twice: a change of leader that failed is none", "held-twice",
      published + """
        5 c ok deliver q m token=1 attempt=1 lease=100
        6 nemesis fail leader-change - 2
        7 e ok deliver q m token=2 attempt=2 lease=100
        8 e invoke ack q m token=2
        9 e ok ack q m token=2

        """ + drained),
    .wrong(
      "held-twice: a change of leader that began and failed is none", "held-twice",
      published + """
        5 c ok deliver q m token=1 attempt=1 lease=100
        6 nemesis invoke leader-change - 2
        6 nemesis fail leader-change - 2
        7 e ok deliver q m token=2 attempt=2 lease=100
        8 e invoke ack q m token=2
        9 e ok ack q m token=2

        """ + drained),
  ]
}
