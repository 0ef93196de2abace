// Where a delivery finds the bytes of its message: in the newest entries, else in the log.

import Base
import LogStore
import Node

/// What became of looking a record up.
enum RecordLookup {
  /// The record is `payload[range]`. The array is shared: neighbours lie in the same one.
  case found(payload: [UInt8], range: Range<Int>)
  /// Its bytes are damaged on this disk; the replica fetches them from a peer.
  case damaged
  /// Enough was read for this turn of the loop.
  case later
  /// The log does not have it, which should not be: the reason.
  case unavailable(String)
}

/// Looks records up, and keeps the last pieces that it read from the disk.
struct RecordSource: ~Copyable {
  typealias Search = (RecordReference, borrowing EntryCache) -> RecordLookup

  private let store: LogStore?
  /// What tests have asked instead of everything else.
  private let search: Search?
  private var blocks = BlockCache()
  /// Bytes that deliveries may still read from the disk in this turn.
  private var bytesLeft = RecordSource.bytesPerTurn
  /// What the last look into the log cost.
  private var lastReadBytes = 0
  /// A delivery was told to wait for the next turn.
  private(set) var isSpent = false
  /// A thousand small messages of one connection may lie in as many places of the log, each a block: read at
  /// once they would keep the loop from everything else, heartbeats too.
  static let bytesPerTurn = 4 << 20
  /// What a damaged entry counts for: mostly all of it was read, and how large it is nobody says.
  private static let damagedEntryBytes = 1 << 20

  /// Without a store only the cache is looked through.
  init(store: LogStore?) {
    self.store = store
    search = nil
  }

  /// For tests: `search` says what is to be had.
  init(_ search: @escaping Search) {
    store = nil
    self.search = search
  }

  mutating func beginTurn() {
    bytesLeft = Self.bytesPerTurn
    isSpent = false
  }

  /// As `record`, as far as the turn's share of reading goes.
  mutating func recordThisTurn(
    _ reference: RecordReference, cache: borrowing EntryCache
  ) -> RecordLookup {
    if let known = knownRecord(reference, cache: cache) { return known }
    if bytesLeft <= 0 {
      isSpent = true
      return .later
    }
    let found = readRecord(reference)
    bytesLeft -= max(Int(reference.size), lastReadBytes)
    return found
  }

  mutating func record(_ reference: RecordReference, cache: borrowing EntryCache) -> RecordLookup {
    knownRecord(reference, cache: cache) ?? readRecord(reference)
  }

  private mutating func knownRecord(
    _ reference: RecordReference, cache: borrowing EntryCache
  ) -> RecordLookup? {
    if let search { return search(reference, cache) }
    if let entry = cache.entry(reference.entry) {
      return lookUp(reference, in: entry.payload, from: 0)
    }
    if let block = blocks.block(containing: reference) {
      return lookUp(reference, in: block.bytes, from: block.offset)
    }
    return nil
  }

  private mutating func readRecord(_ reference: RecordReference) -> RecordLookup {
    lastReadBytes = 0
    guard let store else { return .unavailable("entry \(reference.entry) is not in memory") }
    do {
      let block = try store.block(containing: reference)
      lastReadBytes = block.bytes.count
      blocks.insert(block)
      return lookUp(reference, in: block.bytes, from: block.offset)
    } catch {
      switch error {
      case .damaged(let index):
        store.noteDamage(index)
        lastReadBytes = Self.damagedEntryBytes
        return .damaged
      case .notInLog(let index): return .unavailable("entry \(index) is not in the log")
      case .storage(let failure): return .unavailable("\(failure)")
      }
    }
  }

  /// The log was rewritten in part, or replaced: what was read may be of another life.
  mutating func forget() { blocks.removeAll() }

  /// - Returns: how many bytes were given up.
  mutating func release(downTo bytesMax: Int) -> Int { blocks.release(downTo: bytesMax) }

  private func lookUp(
    _ reference: RecordReference, in bytes: [UInt8], from offset: UInt32
  ) -> RecordLookup {
    let start = Int(reference.offset) - Int(offset)
    let end = start + Int(reference.size)
    guard start >= 0, end <= bytes.count else {
      return .unavailable("record at \(reference.offset) beyond entry \(reference.entry)")
    }
    return .found(payload: bytes, range: start..<end)
  }
}

/// Whose turn it is where more is to be read for deliveries than one turn of the loop may read: who reads goes
/// on for some turns, since what was read for it holds its next messages too, and would be gone from the
/// cache if all others read in between.
struct ReadTurns {
  /// Turns after which those who were given all that there was room for are behind all others: these read
  /// what the cache holds.
  var limit = BlockCache.bytesMax / RecordSource.bytesPerTurn
  /// Turns since then in which somebody had to wait.
  private var used = 0

  /// The first in a turn of the loop whose deliveries were cut short for what all share.
  struct Cut {
    var place: Int
    var gotSomething: Bool
    var end: PumpEnd
  }

  /// To be called after a turn in which somebody was.
  ///
  /// - Parameter stuck: how many in front of all can be given nothing as long as others do not read. They stay
  ///   there, and take nothing from those behind them.
  mutating func pass<Client>(_ cut: Cut, behind stuck: Int = 0, in waiting: inout [Client]) {
    if stuck > 0 {
      var others = Array(waiting[stuck...])
      let place = cut.place - stuck
      pass(Cut(place: place, gotSomething: cut.gotSomething, end: cut.end), in: &others)
      waiting.replaceSubrange(stuck..., with: others)
      return
    }
    switch cut.end {
    case .ownReasons: return
    case .reading: pass(at: cut.place, gotSomething: cut.gotSomething, in: &waiting)
    case .output:
      // Those behind it were written little: what fits into their own shares.
      let served = cut.gotSomething ? cut.place + 1 : cut.place
      guard served > 0 else { return }
      waiting = Array(waiting[served...] + waiting[..<served])
    }
  }

  /// To be called after a turn of the loop in which somebody had to wait for reading. Nobody waits for ever: each time
  /// that the order changes, who waits comes nearer to the front.
  ///
  /// - Parameters:
  ///   - place: the first in `waiting` whose deliveries were cut short in this turn of the loop.
  ///   - gotSomething: whether it was given any.
  mutating func pass<Client>(at place: Int, gotSomething: Bool, in waiting: inout [Client]) {
    let served = gotSomething ? place + 1 : place
    // Where nothing could be read for the first, it is the first still.
    guard served > 0 else { return }
    used += 1
    guard used >= limit else { return }
    used = 0
    waiting = Array(waiting[served...] + waiting[..<served])
  }
}
