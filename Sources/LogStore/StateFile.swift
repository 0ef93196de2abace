// The hard state on disk, and beside it how far the log is known to be synced.
//
// The file `state` has two slots, each in two copies that lie apart, so that one damaged block
// takes nothing away: blocks of 4 KiB in the order slot 0, slot 1, slot 0 again, slot 1 again. A
// save goes to both copies of the slot that is not the last durable one; a mere marker (how far the
// log is synced) goes to its first copy only and needs no sync of its own. So a torn write never
// touches the last durable save.

import Base
import Consensus

/// One slot's content.
///
///   offset size
///        0    4  magic "SKH1"
///        4    4  CRC-32C of bytes 8 to 127
///        8    4  format version
///       12    4  flags, bit 0: memory lost, bit 1: founder, bit 2: a cut is under way
///       16    4  node
///       20    4  vote, 0 for none
///       24    8  number of the save; the highest counts
///       32    8  term
///       40    8  floor: term
///       48    8  floor: index
///       56    8  synced: segment
///       64    4  synced: offset
///       68    4  zero
///       72    8  synced: term of the last entry
///       80    8  synced: its index
///       88    8  the newest segment begun
///       96   32  zero
struct StateRecord: Equatable, Sendable {
  static let bytes = 128
  static let magic: UInt32 = 0x3148_4b53

  var version = formatVersion
  var node: NodeID
  var save: UInt64 = 0
  var hardState = HardState()
  var isMemoryLost = false
  var synced = SyncedEnd()
  var newestSegment: UInt64 = 0
  /// What lies behind the log's end may not have been overwritten yet.
  var isCutting = false

  private struct Flags: OptionSet {
    let rawValue: UInt32
    static let memoryLost = Flags(rawValue: 1)
    static let founder = Flags(rawValue: 2)
    static let cutting = Flags(rawValue: 4)
  }

  private var flags: Flags {
    var flags = Flags()
    if isMemoryLost { flags.insert(.memoryLost) }
    if hardState.isFounder { flags.insert(.founder) }
    if isCutting { flags.insert(.cutting) }
    return flags
  }

  func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.bytes)
    bytes.putFields(96) {
      $0.put(Self.magic)
      $0.put(UInt32(0))
      $0.put(version)
      $0.put(flags.rawValue)
      $0.put(node)
      $0.put(hardState.vote?.rawValue ?? 0)
      $0.put(save)
      $0.put(hardState.term)
      $0.put(hardState.floor.term)
      $0.put(hardState.floor.index)
      $0.put(synced.place.segment)
      $0.put(synced.place.offset)
      $0.put(UInt32(0))
      $0.put(synced.position.term)
      $0.put(synced.position.index)
      $0.put(newestSegment)
    }
    bytes.putZeros(Self.bytes - bytes.count)
    bytes.sealHeader(at: 0, bytes: Self.bytes)
    return bytes
  }

  init(node: NodeID) { self.node = node }

  init?(in bytes: UnsafeRawBufferPointer, at offset: Int) {
    guard let head = checkedHeader(in: bytes, at: offset, bytes: Self.bytes, magic: Self.magic)
    else { return nil }
    var reader = ByteReader(head)
    do {
      try reader.skip(8)
      version = try reader.integer()
      let flags = Flags(rawValue: try reader.integer())
      isMemoryLost = flags.contains(.memoryLost)
      hardState.isFounder = flags.contains(.founder)
      isCutting = flags.contains(.cutting)
      node = try reader.identifier()
      let vote = try reader.identifier(NodeID.self)
      save = try reader.integer()
      hardState.term = try reader.identifier()
      hardState.vote = vote.rawValue == 0 ? nil : vote
      hardState.floor.term = try reader.identifier()
      hardState.floor.index = try reader.identifier()
      synced.place.segment = try reader.integer()
      synced.place.offset = try reader.integer()
      try reader.skip(4)
      synced.position.term = try reader.identifier()
      synced.position.index = try reader.identifier()
      newestSegment = try reader.integer()
    } catch {
      return nil
    }
  }
}

/// A write to the state file.
struct StateWrite: Sendable {
  var bytes: [UInt8]
  var slot: Int
  /// The first copy of the slot, or both.
  var copies: Int
  var isSynchronized: Bool

  func write(to file: any FileHandle) throws(StorageFailure) {
    for copy in 0..<copies {
      try file.write(bytes, at: StateSlots.offset(slot: slot, copy: copy))
    }
  }
}

/// Which slot is written next. Decides on the loop thread what a job writes on another.
struct StateSlots: Sendable {
  static let blockBytes: UInt64 = 4096
  static let fileBytes = 4 * blockBytes

  /// The slot with the last durable save; the other one is written.
  private(set) var durableSlot: Int
  /// What was last decided to be written.
  private(set) var record: StateRecord
  /// What was written last was a save.
  private(set) var isLastDurable = true

  init(record: StateRecord, durableSlot: Int) {
    self.record = record
    self.durableSlot = durableSlot
  }

  static func offset(slot: Int, copy: Int) -> UInt64 { UInt64(copy * 2 + slot) * blockBytes }

  /// A save: both copies of a slot, synced before anything else is done.
  mutating func save(_ next: StateRecord) -> StateWrite {
    let slot = 1 - durableSlot
    advance(next)
    durableSlot = slot
    isLastDurable = true
    return StateWrite(bytes: record.encoded(), slot: slot, copies: 2, isSynchronized: true)
  }

  /// The same hard state with a later mark. It may be lost in a crash.
  mutating func mark(_ next: StateRecord) -> StateWrite {
    invariant(next.hardState == record.hardState, "a marker changes the hard state")
    advance(next)
    isLastDurable = false
    return StateWrite(
      bytes: record.encoded(), slot: 1 - durableSlot, copies: 1, isSynchronized: false)
  }

  private mutating func advance(_ next: StateRecord) {
    let save = record.save + 1
    record = next
    record.save = save
  }

  /// Every whole copy in the file, the newest first.
  static func copies(in bytes: [UInt8]) -> [(record: StateRecord, slot: Int, copy: Int)] {
    bytes.withUnsafeBytes { buffer in
      var found: [(record: StateRecord, slot: Int, copy: Int)] = []
      for slot in 0..<2 {
        for copy in 0..<2 {
          let at = Int(offset(slot: slot, copy: copy))
          if let record = StateRecord(in: buffer, at: at) { found.append((record, slot, copy)) }
        }
      }
      return found.sorted { ($0.record.save, -$0.copy) > ($1.record.save, -$1.copy) }
    }
  }
}
