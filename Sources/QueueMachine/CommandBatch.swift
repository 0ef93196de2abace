// Checking an entry's payload before it is proposed, and when a log is recovered or repaired.

import Base

/// Why a payload is no batch of commands.
package enum CommandBatchError: Error, Equatable, Sendable {
  case tooLarge(bytes: Int)
  case truncated(offset: Int)
  case unknownCommand(UInt8, offset: Int)
  /// The fields of the command at `offset` do not fill it exactly or are out of range.
  case malformed(offset: Int)
  case tooManyCommands
  /// More than `FixedLimits.publishesPerEntry` messages.
  case tooManyPublishes
}

package enum CommandBatch {
  /// Checks that `apply` can read the payload.
  ///
  /// - Returns: the number of commands.
  @discardableResult
  package static func check(
    _ payload: UnsafeRawBufferPointer
  ) throws(CommandBatchError) -> Int {
    var frames = try CommandFrames(payload)
    var commands = 0
    var messages = 0
    try check(&frames, &commands, &messages, within: .entry)
    return commands
  }

  /// Checks bundles of commands (`CommandWriter.beginRelay`) that another node passed on: nothing
  /// else may be among them.
  ///
  /// - Parameter bytes: commands without a stamp before them.
  /// - Returns: each bundle's beginning, sequence and process, in their order.
  package static func checkRelays(
    _ bytes: UnsafeRawBufferPointer, from node: NodeID
  ) throws(CommandBatchError) -> [RelayHead] {
    var frames = CommandFrames(bytes, from: 0)
    var heads: [RelayHead] = []
    while true {
      let start = frames.offset
      guard let frame = try frames.next() else { return heads }
      guard frame.kind == .relay else { throw .malformed(offset: start) }
      var commands = 0
      var messages = 0
      var single = CommandFrames(
        UnsafeRawBufferPointer(rebasing: bytes[..<frames.offset]), from: start)
      try check(&single, &commands, &messages, within: .entry)
      do {
        let relay = try Relay(frame)
        guard relay.node == node else { throw CommandBatchError.malformed(offset: start) }
        heads.append(
          RelayHead(
            range: start..<frames.offset, process: relay.process, sequence: relay.sequence))
      } catch {
        throw .malformed(offset: start)
      }
    }
  }

  /// What commands may be within of: each only within the one before it.
  private enum Holder: Int { case entry, bundle, transaction }

  private static func check(
    _ frames: inout CommandFrames, _ commands: inout Int, _ messages: inout Int,
    within holder: Holder
  ) throws(CommandBatchError) {
    while let frame = try frames.next() {
      commands += 1
      guard commands <= FixedLimits.commandsPerEntry else { throw .tooManyCommands }
      if frame.kind == .relay || frame.kind == .commit {
        let start = frame.offset - CommandFrames.headerBytes
        let next: Holder = frame.kind == .relay ? .bundle : .transaction
        guard next.rawValue > holder.rawValue else { throw .malformed(offset: start) }
        var inner: CommandFrames
        do {
          inner =
            next == .bundle ? try Relay(frame).commands : try Commit(frame).commands
        } catch {
          throw .malformed(offset: start)
        }
        try check(&inner, &commands, &messages, within: next)
        continue
      }
      if holder == .transaction, frame.kind != .route, frame.kind != .settle {
        throw .malformed(offset: frame.offset - CommandFrames.headerBytes)
      }
      let start = frame.offset - CommandFrames.headerBytes
      do {
        messages += try checkFields(of: frame)
      } catch {
        throw .malformed(offset: start)
      }
      guard messages <= FixedLimits.publishesPerEntry else { throw .tooManyPublishes }
    }
  }

  /// The stamp of a batch; the payload has at least its 8 bytes.
  package static func stamp(of payload: UnsafeRawBufferPointer) -> MachineTime {
    invariant(payload.count >= CommandFrames.stampBytes, "batch of \(payload.count) bytes")
    // SAFETY: the line above.
    return MachineTime(
      rawValue: UInt64(littleEndian: payload.loadUnaligned(fromByteOffset: 0, as: UInt64.self)))
  }

  /// Reads the command as apply does; returns how many messages it publishes.
  private static func checkFields(of frame: CommandFrame) throws(ByteReaderError) -> Int {
    var reader = ByteReader(frame.fields)
    var messages = 0
    var isSound = true
    switch frame.kind {
    case .openSession:
      let command = try OpenSession(&reader)
      isSound = command.name.utf8.count <= FixedLimits.sessionNameBytesMax
    case .attachSession: _ = try AttachSession(&reader)
    case .detachSession: _ = try DetachSession(&reader)
    case .closeSession: _ = try reader.identifier(SessionID.self)
    case .leaderChanged, .nodeGone: _ = try reader.identifier(NodeID.self)
    case .declareQueue: _ = try DeclareQueue(&reader)
    case .deleteQueue, .purgeQueue: _ = try NameQueue(&reader)
    case .cancelMessage: _ = try NameMessage(&reader, hasDelay: false)
    case .rescheduleMessage: _ = try NameMessage(&reader, hasDelay: true)
    case .redriveQueue: _ = try RedriveQueue(&reader)
    case .publish:
      let command = try Publish(&reader, at: frame.offset)
      isSound = command.isWhole
      messages = Int(command.count)
    case .refusePublish: _ = try Publish(refused: &reader)
    case .transact:
      let command = try Transact(&reader, at: frame.offset)
      isSound = command.isWhole
      // What it stores in several queues is bounded by apply, which has it sent again.
      messages = command.count
    case .subscribe: _ = try Subscribe(&reader, hasQueue: true)
    case .setCredit: _ = try Subscribe(&reader, hasQueue: false)
    case .unsubscribe: _ = try Unsubscribe(&reader)
    case .settle: isSound = try Settle(&reader).ranges.count <= FixedLimits.rangesPerSettle
    case .extend: isSound = try Extend(&reader).ranges.count <= FixedLimits.rangesPerSettle
    // Bundles are checked by their contents.
    case .relay, .commit: isSound = false
    case .endNodeSessions: _ = try reader.identifier(NodeID.self)
    case .loseSession: _ = try reader.identifier(SessionID.self)
    case .declareExchange: _ = try DeclareExchange(&reader)
    case .deleteExchange: _ = try DeleteExchange(&reader)
    case .bind, .unbind: _ = try ChangeBinding(&reader)
    case .orderQueue: _ = try OrderQueue(&reader)
    case .dropQueue: _ = try DropQueue(&reader)
    case .clearQueue, .mark, .addVirtualHost: _ = try TopologyHead(&reader)
    case .route:
      let command = try Route(&reader, at: frame.offset)
      isSound = command.isSound
      messages = Int(command.count)
    case .consume: _ = try Consume(&reader)
    case .take: _ = try Take(&reader)
    case .setUser: _ = try SetUser(&reader)
    }
    guard isSound, reader.isAtEnd else {
      throw .truncated(offset: reader.offset, needed: 0, available: reader.remaining)
    }
    return messages
  }
}

/// A bundle among others.
package struct RelayHead: Hashable, Sendable {
  /// Where it lies.
  package var range: Range<Int>
  package var process: UInt64
  package var sequence: UInt64
}
