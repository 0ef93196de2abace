// Message records that damage took from this disk come back from the peers (G11). Entries after the
// snapshot come by ordinary replication; this is about records in entries up to it, of which only
// those still referred to are needed.

import Base
import Consensus

/// Which records are missing, and whom was asked.
struct Repair: Sendable {
  /// The entries that are damaged here, ascending, not overlapping.
  var damaged: [ClosedRange<LogIndex>]
  /// The records in them that the queues still refer to, ascending; those before `asked` came.
  var needed: [RecordReference] = []
  /// The next question begins here.
  var next = 0
  /// What the last peer asked did not have.
  var missing: [RecordReference] = []
  /// What came and is not written yet.
  var found: [RecordReference] = []
  var bodies: [[UInt8]] = []
  var foundBytes = 0
  /// When the question is put to the next peer; `.never` with nothing needed.
  var deadline = MonotonicTime.never
  /// How often a peer was asked, to take them in turn.
  var questions = 0
  /// How many of the last questions brought nothing.
  var inVain = 0
  let patience: Nanoseconds

  /// How many records are asked for at a time, and answered.
  static let recordsPerQuestion = 256
  /// What came is written when it is this much.
  static let portionBytes = 16 << 20

  init(damaged: [ClosedRange<LogIndex>], patience: Nanoseconds) {
    self.damaged = damaged
    self.patience = patience
  }

  /// How many records have not come yet.
  var openCount: Int { needed.count - next + missing.count }

  /// The records of the question that is open now.
  var question: ArraySlice<RecordReference> {
    needed[next..<min(needed.count, next + Self.recordsPerQuestion)]
  }

  /// Takes an answer to the open question; false if it brought nothing.
  mutating func take(_ references: [RecordReference], _ bodies: [[UInt8]]) -> Bool {
    let open = question
    guard !open.isEmpty else { return false }
    var brought: [RecordReference: [UInt8]] = [:]
    for (reference, body) in zip(references, bodies) where body.count == Int(reference.size) {
      brought[reference] = body
    }
    var isUseful = false
    for reference in open {
      if let body = brought[reference] {
        found.append(reference)
        self.bodies.append(body)
        foundBytes += body.count
        isUseful = true
      } else {
        missing.append(reference)
      }
    }
    guard isUseful else {
      missing.removeLast(open.count)
      return false
    }
    next = open.endIndex
    if next == needed.count {
      needed = missing
      missing = []
      next = 0
    }
    return true
  }

  /// Keeps only what is still wanted of the records that have not come yet.
  mutating func keepOpen(where isWanted: (RecordReference) -> Bool) {
    needed = (needed[next...] + missing).filter(isWanted)
    needed.sort { ($0.entry, $0.offset) < ($1.entry, $1.offset) }
    missing = []
    next = 0
  }

  /// A part of the damage of which everything needed has come, to be written now: all of it at the
  /// end, before that as much as makes a portion.
  mutating func takeComplete() -> (
    ranges: [ClosedRange<LogIndex>], references: [RecordReference], bodies: [[UInt8]]
  )? {
    guard !damaged.isEmpty else { return nil }
    var end = damaged[damaged.count - 1].upperBound
    if openCount > 0 {
      guard foundBytes >= Self.portionBytes, missing.isEmpty, next < needed.count else {
        return nil
      }
      // The entry that the next question begins in may be in two portions: it stays open.
      guard needed[next].entry.rawValue > 0 else { return nil }
      end = needed[next].entry.previous
      guard damaged[0].lowerBound <= end, found.first.map({ $0.entry <= end }) ?? false else {
        return nil
      }
    }
    let count = found.firstIndex { $0.entry > end } ?? found.count
    let part = (
      ranges: damaged.filter { $0.lowerBound <= end }.map {
        $0.lowerBound...min($0.upperBound, end)
      }, references: Array(found[..<count]), bodies: Array(bodies[..<count])
    )
    damaged = damaged.filter { $0.upperBound > end }.map {
      max($0.lowerBound, end.next)...$0.upperBound
    }
    found.removeFirst(count)
    bodies.removeFirst(count)
    foundBytes = bodies.reduce(0) { $0 + $1.count }
    return part
  }

  mutating func removeAll() {
    self = Repair(damaged: [], patience: patience)
  }
}

extension Replica {
  /// An entry turned out to be damaged when it was read for a delivery or a snapshot stream.
  package mutating func entryIsDamaged(_ index: LogIndex, now: MonotonicTime) {
    guard !repair.damaged.contains(where: { $0.contains(index) }),
      !repairsOnTheirWay.contains(where: { $0.contains { $0.contains(index) } })
    else { return }
    repair.damaged.append(index...index)
    repair.damaged.sort { $0.lowerBound < $1.lowerBound }
    outputs.append(.note("entry \(index) is damaged on this disk: fetching it from the peers"))
    findNeededRepairs()
    maybeAskForRepairs(now: now)
  }

  /// Looks through the queues for records in damaged entries, and begins anew to ask for them.
  mutating func findNeededRepairs() {
    var needed: [RecordReference] = []
    let damaged = repair.damaged
    machine.forEachLiveRecord { reference in
      if damaged.contains(where: { $0.contains(reference.entry) }) { needed.append(reference) }
    }
    needed.sort { ($0.entry, $0.offset) < ($1.entry, $1.offset) }
    let questions = repair.questions
    repair.removeAll()
    repair.damaged = damaged
    repair.needed = needed
    repair.questions = questions
    repair.deadline = needed.isEmpty ? .never : MonotonicTime(0)
    writeRepairs()
  }

  private mutating func writeRepairs() {
    while let part = repair.takeComplete() {
      repairsOnTheirWay.append(part.ranges)
      outputs.append(.repair(part.ranges, part.references, bodies: part.bodies))
    }
    if repair.damaged.isEmpty { repair.removeAll() }
  }

  /// The oldest repair that was ordered is in the log, or the log was replaced meanwhile.
  package mutating func repairStaged() {
    invariant(!repairsOnTheirWay.isEmpty, "a repair that nobody ordered")
    repairsOnTheirWay.removeFirst()
  }

  mutating func maybeAskForRepairs(now: MonotonicTime) {
    guard repair.openCount > 0, now >= repair.deadline else { return }
    let others = consensus.membership.members.map(\.id).filter { $0 != id }
    guard !others.isEmpty else { return }
    if repair.inVain >= others.count {
      dropSettledRepairs()
      guard repair.openCount > 0 else { return }
    }
    repair.inVain += 1
    let peer = others[repair.questions % others.count]
    repair.deadline = now + repair.patience
    // If it does not answer, the next one is asked.
    repair.questions += 1
    outputs.append(.send(to: peer, .fetchRecords(Array(repair.question))))
  }

  /// Nobody keeps the records of messages that were settled meanwhile: they need not come.
  private mutating func dropSettledRepairs() {
    repair.inVain = 0
    var open: Set<RecordReference> = []
    repair.keepOpen {
      open.insert($0)
      return true
    }
    var wanted: Set<RecordReference> = []
    machine.forEachLiveRecord { if open.contains($0) { wanted.insert($0) } }
    repair.keepOpen { wanted.contains($0) }
    writeRepairs()
  }

  mutating func receiveRecords(
    _ references: [RecordReference], _ bodies: [[UInt8]], now: MonotonicTime
  ) {
    guard repair.take(references, bodies) else { return }
    repair.inVain = 0
    writeRepairs()
    guard repair.openCount > 0 else { return }
    // This peer has them: go on with it at once.
    repair.questions += consensus.membership.members.count - 2
    repair.deadline = now
    maybeAskForRepairs(now: now)
  }
}
