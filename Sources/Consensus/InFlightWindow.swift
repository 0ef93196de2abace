// What a leader has sent to one follower without an answer, so that a slow follower holds a bounded
// amount (thesis §10.2.1, pipelining).

import Base

struct InFlightWindow {
  private struct Message {
    var last: LogIndex
    var bytes: Int
  }

  let messagesMax: Int
  let bytesMax: Int
  private var messages = RingBuffer<Message>()
  /// The sum over `messages`. One message may overshoot `bytesMax`.
  private(set) var bytes = 0

  init(messagesMax: Int, bytesMax: Int) {
    self.messagesMax = messagesMax
    self.bytesMax = bytesMax
  }

  var count: Int { messages.count }
  var isOpen: Bool { messages.count < messagesMax && bytes < bytesMax }
  var bytesLeft: Int { max(0, bytesMax - bytes) }

  mutating func sent(through last: LogIndex, bytes sent: Int) {
    invariant(sent >= 0, "message of \(sent) bytes")
    messages.append(Message(last: last, bytes: sent))
    bytes += sent
  }

  /// The follower has everything through `index` on its disk.
  mutating func acknowledged(through index: LogIndex) {
    while let first = messages.first, first.last <= index {
      bytes -= first.bytes
      _ = messages.popFirst()
    }
  }

  mutating func clear() {
    messages.removeAll()
    bytes = 0
  }

  func checkInvariants() {
    invariant(messages.count <= messagesMax, "\(messages.count) messages of \(messagesMax)")
    invariant(bytes >= 0 && (bytes == 0 || count > 0), "\(bytes) bytes in \(count) messages")
  }
}
