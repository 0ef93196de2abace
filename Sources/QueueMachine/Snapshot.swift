// Snapshots of the machine.

import Base

/// Why bytes are no snapshot that this version can read.
package enum SnapshotError: Error, Equatable, Sendable {
  /// Not a snapshot of queues at all.
  case notASnapshot
  /// Written by a version that this one does not know.
  case unknownFormat(UInt32)
  /// The bytes end early or contradict themselves.
  case damaged(String)
}

/// A machine's state at one moment, which the running machine no longer changes.
package struct FrozenQueues: Sendable {
  let state: MachineState

  /// The last index applied.
  package var appliedIndex: LogIndex { state.appliedIndex }
  package var clock: MachineTime { state.clock }
  package var stateHash: UInt64 { state.stateHash }

  /// Writes the snapshot in chunks of about 64 KiB. The same state gives the same bytes.
  package func encode(into chunk: ([UInt8]) -> Void) {
  }

  /// The whole snapshot in one array.
  package func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    encode { bytes.append(contentsOf: $0) }
    return bytes
  }

  /// Every record that some message still needs, in no particular order.
  package func forEachLiveRecord(_ body: (RecordReference) -> Void) {
    state.forEachLiveRecord(body)
  }
}
