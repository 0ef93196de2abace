// Looking at messages page by page, by their ids, and finding those that were moved. Reads only.
//
// A page costs what it shows and, of what stands in no order of ids (delayed and returned messages,
// those of queues with keys, held ones), one look at each: the plain line of a queue is found by
// halving. It takes memory for one page, however long the queue is.

import Base

/// A message that may be shown.
private struct Candidate {
  var message: Waiting
  var state: MessageState
  var due = MachineTime.never
  /// If leased, with its consumer's slot.
  var held: Held?
  var consumer = 0
}

/// The smallest ids of all that were added, at most `limit`.
private struct SmallestIDs {
  let limit: Int
  private(set) var candidates: [Candidate] = []
  /// Nothing above it is wanted any more.
  private var bound = MessageID(rawValue: .max)

  init(limit: Int) { self.limit = limit }

  mutating func add(_ candidate: Candidate) {
    if candidate.message.id > bound { return }
    candidates.append(candidate)
    if candidates.count >= max(1_024, limit.multipliedReportingOverflow(by: 2).partialValue),
      candidates.count / 2 >= limit
    {
      cut()
    }
  }

  private mutating func cut() {
    candidates.sort { $0.message.id < $1.message.id }
    if candidates.count > limit { candidates.removeLast(candidates.count - limit) }
    if let last = candidates.last { bound = last.message.id }
  }

  mutating func sorted() -> [Candidate] {
    cut()
    return candidates
  }
}

extension MachineState {
  func peek(
    _ queue: QueueID, _ filter: MessageFilter, after: MessageID?, limit: Int
  ) -> [PeekedMessage] {
    guard let slot = slot(of: queue), limit > 0 else { return [] }
    let skip = Int(filter.skip)
    var found = SmallestIDs(limit: min(limit, 1 << 30) + skip)
    let start = after ?? MessageID(rawValue: 0)
    let states = filter.states & ~MessageFilter.dead
    let isForDead = filter.states & MessageFilter.dead != 0
    func wants(_ state: UInt8) -> Bool { states == 0 || states & state != 0 }
    func see(_ candidate: Candidate) {
      guard candidate.message.id > start else { return }
      if isForDead, !isDead(candidate.message, in: slot) { return }
      found.add(candidate)
    }
    if wants(MessageFilter.ready) {
      lookAtReady(slot, after: start, limit: found.limit, isForDead: isForDead, see)
    }
    if wants(MessageFilter.delayed) {
      for entry in queues[slot].delayed.entries {
        see(Candidate(message: entry.message, state: .delayed, due: entry.due))
      }
    }
    if wants(MessageFilter.leased) {
      for consumer in consumers(of: slot) {
        consumers[consumer].held.forEach { held in
          see(
            Candidate(message: held.message, state: .leased, held: held, consumer: consumer))
        }
      }
    }
    return found.sorted().dropFirst(skip).map { peeked($0, in: slot) }
  }

  private func lookAtReady(
    _ slot: Int, after start: MessageID, limit: Int, isForDead: Bool,
    _ see: (Candidate) -> Void
  ) {
    for number in 0...queues[slot].ready.higher.count {
      let level = queues[slot].ready[level: number]
      if isForDead {
        // Any number may not fit.
        var left = limit
        level.line.forEachBlock { block in
          for message in block where left > 0 && message.id > start && isDead(message, in: slot) {
            see(Candidate(message: message, state: .ready))
            left -= 1
          }
        }
      } else {
        for message in level.line.messages(after: start, limit: limit) {
          see(Candidate(message: message, state: .ready))
        }
      }
      for message in level.returned.entries { see(Candidate(message: message, state: .ready)) }
      for turn in level.turns.entries { see(Candidate(message: turn.message, state: .ready)) }
    }
    queues[slot].keys.forEachBlocked { see(Candidate(message: $0, state: .ready)) }
  }

  private func isDead(_ message: Waiting, in queue: Int) -> Bool {
    message.has(Waiting.hasNote)
      && queues[queue].notes[message.id.rawValue]?.story?.deadLetter != nil
  }

  private func peeked(_ candidate: Candidate, in queue: Int) -> PeekedMessage {
    if let held = candidate.held { return peeked(held, of: candidate.consumer) }
    var message = peeked(candidate.message, in: queue, state: candidate.state)
    message.due = candidate.due
    return message
  }

  /// Where a message is that was moved away from a queue, which knows it no more. Looks first where
  /// its queue sends dead letters, then into the others, and gives up after many.
  func moved(_ id: MessageID, from queue: QueueID) -> (queue: QueueID, message: MessageID)? {
    guard id.rawValue != 0 else { return nil }
    let origin = slot(of: queue)
    let target = origin.map { queues[$0].deadLetterSlot } ?? -1
    let near = [origin, target >= 0 ? target : nil].compactMap { $0 }
    let others = queues.slots.filter { !near.contains($0) }
      .sorted { queues[$0].id < queues[$1].id }
    var looked = 0
    for slot in near + others {
      looked += queues[slot].notes.count
      if looked > FixedLimits.notesPerSearch { return nil }
      var found: MessageID?
      queues[slot].notes.forEach { current, note in
        if note.story?.formerIDs.contains(id) == true {
          found = min(found ?? MessageID(rawValue: current), MessageID(rawValue: current))
        }
      }
      if let found { return (queues[slot].id, found) }
    }
    return nil
  }
}
