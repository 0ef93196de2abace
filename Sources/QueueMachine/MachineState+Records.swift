// Which records of the log are still needed: asked when the log is cleaned and when a damaged part of
// it is fetched again. A record that several queues share is told once, in memory that does not grow
// with the number of those that are shared.

import Base

extension MachineState {
  /// Each record once, however many messages have it, in no particular order.
  ///
  /// - Parameters:
  ///   - sharedAtOnce: shared records told in one pass over all messages; about twice as many are
  ///     gathered, of 16 bytes each.
  ///   - span: asked whether records that are not shared are told by it: then they are not told one by one.
  func forEachLiveRecord(
    sharedAtOnce: Int = 1 << 20, span: (RecordSpan) -> Bool = { _ in false },
    _ body: (RecordReference) -> Void
  ) {
    var pass = SharedRecords(most: sharedAtOnce)
    forEachMessage(span) { message, reference in
      if message.isShared { pass.add(reference) } else { body(reference) }
    }
    while let last = pass.tell(body) {
      pass = SharedRecords(most: sharedAtOnce, behind: last)
      forEachMessage({ _ in true }) { message, reference in
        if message.isShared { pass.add(reference) }
      }
    }
  }

  /// Every message with the place of its record, but for those that `span` takes, none of them shared.
  private func forEachMessage(
    _ span: (RecordSpan) -> Bool, _ body: (Waiting, RecordReference) -> Void
  ) {
    for slot in queues.slots {
      // Not the whole queue, which would be copied for each message.
      let notes = queues[slot].notes
      queues[slot].ready.forEachBlock { block in
        if let whole = RecordSpan(block), span(whole) { return }
        for message in block { body(message, QueueState.reference(of: message, notes)) }
      } others: {
        body($0, QueueState.reference(of: $0, notes))
      }
      queues[slot].keys.forEachBlocked { body($0, QueueState.reference(of: $0, notes)) }
      for entry in queues[slot].delayed.entries {
        body(entry.message, QueueState.reference(of: entry.message, notes))
      }
    }
    for slot in consumers.slots {
      let notes = queues[consumers[slot].queueSlot].notes
      consumers[slot].held.forEach {
        body($0.message, QueueState.reference(of: $0.message, notes))
      }
    }
  }
}

extension RecordSpan {
  /// nil if some of the messages share their records, or have them elsewhere than in the entries of their ids.
  fileprivate init?(_ block: ArraySlice<Waiting>) {
    guard let first = block.first, let last = block.last else { return nil }
    var ids: UInt64 = 0
    var bits: UInt64 = 0
    var bytes: UInt64 = 0
    for message in block {
      ids |= message.idBits
      bits |= message.bits
      bytes += message.size
    }
    let all = Waiting(idBits: ids, packed: bits)
    if all.isShared || all.has(Waiting.hasNote) { return nil }
    self.init(first: first.id.entry, last: last.id.entry, count: block.count, bytes: bytes)
  }
}

/// The first so many of the references that are added, each once, in the order of the log.
private struct SharedRecords {
  private let most: Int
  private let behind: RecordReference?
  private var gathered: [RecordReference] = []
  /// Set once there are more: those behind it are for a later pass.
  private var last: RecordReference?

  init(most: Int, behind: RecordReference? = nil) {
    self.most = most
    self.behind = behind
  }

  mutating func add(_ reference: RecordReference) {
    if let behind, !behind.isBefore(reference) { return }
    if let last, last.isBefore(reference) { return }
    gathered.append(reference)
    if gathered.count >= 2 * most { sort() }
  }

  /// - Returns: behind which to go on; nil if these were all.
  mutating func tell(_ body: (RecordReference) -> Void) -> RecordReference? {
    sort()
    gathered.forEach(body)
    return last
  }

  private mutating func sort() {
    gathered.sort { $0.isBefore($1) }
    var kept = 0
    for place in gathered.indices where place == 0 || gathered[place] != gathered[kept - 1] {
      if kept == most {
        last = gathered[kept - 1]
        break
      }
      gathered[kept] = gathered[place]
      kept += 1
    }
    gathered.removeSubrange(kept...)
  }
}

extension RecordReference {
  fileprivate func isBefore(_ other: RecordReference) -> Bool {
    (entry, offset) < (other.entry, other.offset)
  }
}
