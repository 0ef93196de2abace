// The history as Jepsen's `total-queue` wants it: enqueues and dequeues, one EDN map a line. What
// stands for what is said in docs/history-format.md.

extension Checker {
  /// Writes the history, judged first, piece by piece.
  package mutating func exportEDN<Failure: Error>(
    _ write: ([UInt8]) throws(Failure) -> Void
  ) throws(Failure) {
    _ = judge()
    var output = EDNOutput(dequeuer: history.messages.count)
    for event in history.events {
      if event.marks.contains(.enqueue) {
        let value = ednValue(event.message)
        output.line(event.type.name, "enqueue", Int(event.message), event.time, value)
      } else if event.marks.contains(.dequeue) {
        let value = ednValue(origin(of: event.message))
        output.line("invoke", "dequeue", output.dequeuer, event.time, "nil")
        output.line("ok", "dequeue", output.dequeuer, event.time, value)
      }
      if output.bytes.count > 1 << 20 { try write(output.takeBytes()) }
    }
    try write(output.takeBytes())
  }

  /// The message under the queue where it was published.
  private func origin(of message: UInt32) -> UInt32 {
    firstPublish(of: message) != nil ? message : origins[message]?.first ?? message
  }

  private func ednValue(_ message: UInt32) -> String {
    let record = history.messages[Int(message)]
    return "[\(quoted(history.queues.text(record.queue)))"
      + " \(quoted(history.values.text(record.value)))]"
  }

  /// A string as Clojure's reader takes it.
  private func quoted(_ text: String) -> String {
    var line = JSONLine()
    line.text(text)
    return String(decoding: line.bytes, as: UTF8.self)
  }
}

private struct EDNOutput {
  /// The process of all dequeues, which begin and end at once. Each enqueue has one of its own,
  /// since a Jepsen process does one thing at a time.
  let dequeuer: Int
  var bytes: [UInt8] = []
  private var index = 0

  init(dequeuer: Int) { self.dequeuer = dequeuer }

  mutating func takeBytes() -> [UInt8] {
    var taken: [UInt8] = []
    swap(&taken, &bytes)
    return taken
  }

  mutating func line(
    _ type: String, _ name: String, _ process: Int, _ time: UInt64, _ value: String
  ) {
    bytes.append(
      contentsOf:
        "{:index \(index), :time \(time), :type :\(type), :process \(process), :f :\(name), :value \(value)}\n"
        .utf8)
    index += 1
  }
}
