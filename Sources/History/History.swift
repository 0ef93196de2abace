// A whole history in memory: events in flat arrays, strings by number, each event chained to the
// others of its message. Made by HistoryReader, judged by the Checker.

package struct History {
  var events: [Event] = []
  var messages: [MessageRecord] = []
  /// (queue, value) to message.
  var messageNumbers = PairTable()
  var processes = StringTable()
  var queues = StringTable()
  var values = StringTable()
  /// Server ids, ordering keys and names of faults.
  var names = StringTable()
  /// By queue, what it was declared with.
  var settings: [UInt32: HistoryQueueSettings] = [:]
  /// By queue, the fewest deliveries after which it ever gave up.
  var leastDeliveries: [UInt32: UInt64] = [:]
  /// The shortest lease and the longest retry delay that a queue was ever declared with: 0 and the largest
  /// number where a declaration does not say.
  var shortestLeases: [UInt32: UInt64] = [:]
  var longestRetryDelays: [UInt32: UInt64] = [:]
  /// By process, the first event that says that it was killed, and that its session ended.
  var kills: [UInt32: EventPosition] = [:]
  var sessionEnds: [UInt32: EventPosition] = [:]
  /// When new leaders began to lead.
  var leaderChanges: [EventPosition] = []

  package var eventCount: Int { events.count }

  func messageNumber(queue: UInt32, value: UInt32) -> UInt32? {
    messageNumbers.number(of: PairTable.pair(queue, value))
  }

  /// How many queues may be dead-letter queues of one another's in a row.
  static let deadLettersMax = 16

  /// The name of a queue behind which there are more.
  mutating func endlessDeadLetters() -> String? {
    var next: [UInt32: UInt32] = [:]
    for (queue, settings) in settings {
      if let deadLetter = settings.deadLetter { next[queue] = queues.number(of: deadLetter) }
    }
    let first = next.keys.sorted().first { queue in
      var (last, steps) = (queue, 0)
      while let target = next[last], target != queue, steps <= Self.deadLettersMax {
        (last, steps) = (target, steps + 1)
      }
      return steps > Self.deadLettersMax
    }
    return first.map { queues.text($0) }
  }

  /// Of a queue that is declared again, `maxDeliveries` is the most that was ever allowed.
  mutating func declare(_ queue: UInt32, _ settings: HistoryQueueSettings) {
    var settings = settings
    if let most = settings.maxDeliveries, most > 0 {
      leastDeliveries[queue] = min(leastDeliveries[queue] ?? most, most)
    }
    shortestLeases[queue] = min(shortestLeases[queue] ?? .max, settings.lease ?? 0)
    longestRetryDelays[queue] = max(longestRetryDelays[queue] ?? 0, settings.retryDelay ?? .max)
    if let earlier = self.settings[queue] {
      let limits = [settings.maxDeliveries ?? 0, earlier.maxDeliveries ?? 0]
      settings.maxDeliveries = limits.contains(0) ? 0 : limits.max()
    }
    self.settings[queue] = settings
  }

  /// Reads a history that is in memory as a whole.
  package static func parse(_ bytes: [UInt8]) throws(HistoryError) -> History {
    var reader = HistoryReader()
    try reader.read(bytes)
    return try reader.finish()
  }
}
