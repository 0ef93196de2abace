// Checking an entry's payload before it is proposed and when it is recovered.

import Base

/// Why a payload is no batch of commands.
package enum CommandBatchError: Error, Equatable, Sendable {
  case tooLarge(bytes: Int)
  case truncated(offset: Int)
  case unknownCommand(UInt8, offset: Int)
  case malformed(offset: Int)
  case tooManyCommands
  case tooManyPublishes
}

package enum CommandBatch {
  /// Checks that `apply` can read the payload; returns the number of commands.
  @discardableResult
  package static func check(
    _ payload: UnsafeRawBufferPointer
  ) throws(CommandBatchError) -> Int { 0 }

  /// The stamp of a checked batch.
  package static func stamp(of payload: UnsafeRawBufferPointer) -> MachineTime {
    MachineTime(
      rawValue: UInt64(littleEndian: payload.loadUnaligned(fromByteOffset: 0, as: UInt64.self)))
  }
}
