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
  /// By process, the first event that says it died or its session ended.
  var deaths: [UInt32: EventPosition] = [:]
  /// When new leaders began to lead.
  var leaderChanges: [EventPosition] = []

  package var eventCount: Int { events.count }

  func messageNumber(queue: UInt32, value: UInt32) -> UInt32? {
    messageNumbers.number(of: PairTable.pair(queue, value))
  }

  /// Reads a history that is in memory as a whole.
  package static func parse(_ bytes: [UInt8]) throws(HistoryError) -> History {
    var reader = HistoryReader()
    try reader.read(bytes)
    return try reader.finish()
  }
}
