// Message records that damage took from this disk come back from the peers (G11). Entries after the
// snapshot come by ordinary replication; this is about records in entries up to it, of which only
// those still referred to are needed.

import Base
import Consensus

/// Which records are missing, and whom was asked.
struct Repair: Sendable {
  /// The entries that are damaged here.
  var damaged: [ClosedRange<LogIndex>]
  /// The records in them that the queues still refer to, ascending.
  var needed: [RecordReference] = []
  /// What came so far; written once it is all there.
  var found: [RecordReference] = []
  var bodies: [[UInt8]] = []
  /// When the question is put to the next peer; `.never` with nothing needed.
  var deadline = MonotonicTime.never
  /// How often a peer was asked, to take them in turn.
  var asked = 0
  let patience: Nanoseconds

  /// How many records are asked for at a time.
  static let recordsPerQuestion = 256

  init(damaged: [ClosedRange<LogIndex>], patience: Nanoseconds) {
    self.damaged = damaged
    self.patience = patience
  }

  mutating func removeAll() {
    damaged = []
    needed = []
    found = []
    bodies = []
    deadline = .never
  }
}

extension Replica {
  /// An entry turned out to be damaged when it was read for a delivery.
  package mutating func entryIsDamaged(_ index: LogIndex, now: MonotonicTime) {
    guard !repair.damaged.contains(where: { $0.contains(index) }) else { return }
    repair.damaged.append(index...index)
    outputs.append(.note("entry \(index) is damaged on this disk: fetching it from the peers"))
    findNeededRepairs()
    maybeAskForRepairs(now: now)
  }

  /// Looks through the queues for records in damaged entries.
  mutating func findNeededRepairs() {
    var needed: [RecordReference] = []
    let damaged = repair.damaged
    machine.forEachLiveRecord { reference in
      if damaged.contains(where: { $0.contains(reference.entry) }) { needed.append(reference) }
    }
    needed.sort { ($0.entry, $0.offset) < ($1.entry, $1.offset) }
    repair.needed = needed
    repair.deadline = MonotonicTime(0)
    maybeFinishRepair()
  }

  private mutating func maybeFinishRepair() {
    guard repair.needed.isEmpty, !repair.damaged.isEmpty else { return }
    outputs.append(.repair(repair.damaged, repair.found, bodies: repair.bodies))
    repair.removeAll()
  }

  mutating func maybeAskForRepairs(now: MonotonicTime) {
    guard !repair.needed.isEmpty, now >= repair.deadline else { return }
    let others = consensus.membership.members.map(\.id).filter { $0 != id }
    guard !others.isEmpty else { return }
    let peer = others[repair.asked % others.count]
    repair.asked += 1
    repair.deadline = now + repair.patience
    let question = Array(repair.needed.prefix(Repair.recordsPerQuestion))
    outputs.append(.send(to: peer, .fetchRecords(question)))
  }

  mutating func receiveRecords(
    _ references: [RecordReference], _ bodies: [[UInt8]], now: MonotonicTime
  ) {
    guard !repair.needed.isEmpty else { return }
    let wanted = Set(repair.needed)
    var taken: Set<RecordReference> = []
    for (reference, body) in zip(references, bodies)
    where wanted.contains(reference) && body.count == Int(reference.size) {
      guard taken.insert(reference).inserted else { continue }
      repair.found.append(reference)
      repair.bodies.append(body)
    }
    guard !taken.isEmpty else { return }
    repair.needed.removeAll { taken.contains($0) }
    maybeFinishRepair()
    if !repair.needed.isEmpty {
      // This peer has them: go on with it at once.
      repair.asked += consensus.membership.members.count - 2
      repair.deadline = now
      maybeAskForRepairs(now: now)
    }
  }
}
