// What a leader gathers for its next entry.

import Base
import Consensus
import QueueMachine

extension Replica {
  /// Gathers a command for the next entry of this leader. `encode` appends it with `CommandWriter`.
  ///
  /// The shell checks `isLeader` and `hasRoom` before; it refuses by name otherwise.
  @inlinable package mutating func submit(
    now: MonotonicTime, _ encode: (inout [UInt8]) -> Void
  ) {
    beginBatch()
    appendToBatch(encode)
    if isBatchFull { proposeBatch(now: now) }
  }

  @usableFromInline mutating func beginBatch() {
    if batch.isEmpty {
      batch.reserveCapacity(4096)
      CommandWriter.beginBatch(into: &batch)
    }
  }

  @usableFromInline mutating func appendToBatch(_ encode: (inout [UInt8]) -> Void) {
    encode(&batch)
  }

  @usableFromInline var isBatchFull: Bool { batch.count >= configuration.batchBytesMax }

  /// Proposes what was gathered as one entry.
  @usableFromInline mutating func proposeBatch(now: MonotonicTime) {
    // While leadership is handed over the batch waits: it is proposed if that fails, and dropped
    // like all that was not proposed if it succeeds.
    guard !batch.isEmpty else { return }
    checkBatch()
    guard let position = consensus.propose() else { return }
    CommandWriter.setStamp(clock.reading(at: now), of: &batch)
    keep(Entry(position: position, kind: .commands, payload: takeBatch()))
  }

  /// A batch up to this size is copied, bytes: the entry, which the cache keeps, has no room to spare then, and
  /// the memory that the batch grew into is there for the next one.
  static var copiedBatchMax: Int { 32 << 10 }

  private mutating func takeBatch() -> [UInt8] {
    var payload: [UInt8] = []
    if batch.count <= Self.copiedBatchMax {
      payload = batch.withUnsafeBytes { [UInt8]($0) }
      batch.removeAll(keepingCapacity: true)
    } else {
      swap(&payload, &batch)
    }
    return payload
  }

  /// What cannot be applied must not reach the log: it would stop every replica, and again whenever
  /// one starts. Too many commands or messages are no bug: apply refuses what is too much.
  private func checkBatch() {
    batch.withUnsafeBytes { bytes in
      do throws(CommandBatchError) {
        try CommandBatch.check(bytes)
      } catch {
        switch error {
        case .tooManyCommands, .tooManyPublishes: break
        case .tooLarge, .truncated, .unknownCommand, .malformed:
          stopForBug("commands that cannot be applied were to be proposed: \(error)")
        }
      }
    }
  }
}
