// What of messages' headers is kept in memory, since a headers exchange is to decide on them once
// they are dead and what lies in the log is not read then; and how much of it there may be (G13).
//
// Each waiting copy counts with all the bytes that it keeps, though copies share them until a
// restart, so that the count says the same on every replica whenever it was restored.

import Base

extension MessageAddress {
  /// The header table of the first record of `run` as it is kept; empty if it is too large.
  static func headersToKeep(ofRecord run: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    let headers = AMQPProperties.headerBytes(ofRecord: run)
    return headers.count <= headerBytesMax
      ? headers : UnsafeRawBufferPointer(rebasing: headers[0..<0])
  }
}

extension MachineState {
  /// Whether a headers exchange may decide on the queue's dead letters, as things are now.
  func deadLettersSeeHeaders(_ queue: Int) -> Bool {
    guard let extras = topology.queues[UInt64(queues[queue].id.rawValue)] else { return false }
    return deadLettersSeeHeaders(extras)
  }

  func deadLettersSeeHeaders(_ extras: QueueExtras) -> Bool {
    guard let name = extras.deadLetterExchange, !name.isEmpty,
      let exchange = topology.exchange(name, in: extras.host)
    else { return false }
    return topology.maySeeHeaders(exchange)
  }

  /// Whether so many bytes more may be kept of what is published.
  func mayKeepHeaders(_ bytes: Int) -> Bool {
    keptHeaderBytes + bytes <= limits.headerBytesKept
  }

  /// Whether a message that moves keeps them. It moves anyhow; where nobody may ask for them but
  /// after a redrive only half of the room is for them, so that publishes have the other half.
  func keepsHeaders(_ bytes: Int, movedTo queue: Int) -> Bool {
    let limit = deadLettersSeeHeaders(queue) ? limits.headerBytesKept : limits.headerBytesKept / 2
    return keptHeaderBytes + headerBytesPromised + bytes <= limit
  }

  /// Counts what a message keeps that came to the queue, or with a negative number what left it.
  mutating func countHeaders(_ bytes: Int, in queue: Int) {
    if bytes == 0 { return }
    queues[queue].headerBytes += bytes
    keptHeaderBytes += bytes
  }

  /// Removes what is kept about a message that leaves the queue for good; see `QueueState.leave`.
  @discardableResult
  mutating func leave(_ message: Waiting, from queue: Int, isOut: Bool) -> MessageNote? {
    let note = queues[queue].leave(message, isOut: isOut)
    if let note { countHeaders(-note.headerBytes, in: queue) }
    return note
  }
}
