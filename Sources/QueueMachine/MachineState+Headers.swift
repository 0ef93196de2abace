// What of messages' headers is kept in memory, since a headers exchange is to decide on them once
// they are dead and what lies in the log is not read then; and how much of it there may be (G13). The
// keys of a message beyond its first (CC and BCC) count with them: there may be a thousand of these,
// and dead letters may go on by them.
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

extension MessageAddress {
  /// What an array of a few bytes takes beside them.
  static let keyOverhead = 48

  /// What is counted of a message's keys. The first is not: every message that came by an exchange
  /// has one, and it is no more than what its record takes on disk.
  static func bytes(ofFurtherKeys keys: [[UInt8]]) -> Int {
    keys.count < 2 ? 0 : keys.dropFirst().reduce(0) { $0 + $1.count + keyOverhead }
  }

  var keptBytes: Int { headers.count + Self.bytes(ofFurtherKeys: keys) }
}

extension MessageStory {
  /// What is counted of the message in memory.
  var keptBytes: Int {
    deaths.reduce(address?.keptBytes ?? 0) {
      $0 + MessageAddress.bytes(ofFurtherKeys: $1.keys)
    }
  }

  /// Leaves nothing that is counted: it goes on by its first key.
  mutating func forgetWhatIsCounted() {
    address?.headers = []
    if let address, address.keys.count > 1 { self.address?.keys = Array(address.keys.prefix(1)) }
    for place in deaths.indices where deaths[place].keys.count > 1 {
      deaths[place].keys = Array(deaths[place].keys.prefix(1))
    }
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
    if let note { countHeaders(-note.keptBytes, in: queue) }
    return note
  }
}
