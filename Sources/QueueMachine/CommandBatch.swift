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
    while let frame = try frames.next() {
      commands += 1
      guard commands <= FixedLimits.commandsPerEntry else { throw .tooManyCommands }
      let start = frame.offset - CommandFrames.headerBytes
      do {
        messages += try checkFields(of: frame)
      } catch {
        throw .malformed(offset: start)
      }
      guard messages <= FixedLimits.publishesPerEntry else { throw .tooManyPublishes }
    }
    return commands
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
    }
    guard isSound, reader.isAtEnd else {
      throw .truncated(offset: reader.offset, needed: 0, available: reader.remaining)
    }
    return messages
  }
}
