// The leader's sends: consensus plans what may go, this joins the payloads, from memory or from the
// log for a follower that is far behind.

import Base
import Consensus

extension Replica {
  /// A member waits for entries that may not be read for it yet.
  package var isFeedPaced: Bool { isLeader && feedDeadline != .never }

  /// How many payload bytes one append carries at most, unless a single entry is larger.
  static var appendBytesMax: Int { 1 << 20 }

  mutating func replicate(now: MonotonicTime, hasRoom: (NodeID) -> Bool) {
    var isNewsWaiting = false
    feedDeadline = .never
    for member in consensus.memberStatuses.map(\.id) {
      while hasRoom(member), peerReads[member] == nil,
        let plan = consensus.nextAppend(to: member)
      {
        if plan.isNews, !isNewsUrgent(for: member), mayWait(now: now) {
          isNewsWaiting = true
          break
        }
        guard carryOut(plan) else { break }
      }
      // While what comes next is read, or waits for its time, the member hears from its leader still.
      if hasRoom(member), let plan = consensus.nextHeartbeat(to: member) { send(plan, []) }
      if hasRoom(member), !snapshotReads.contains(member),
        let plan = consensus.nextSnapshotChunk(to: member, now: now)
      {
        snapshotReads.insert(member)
        outputs.append(.readSnapshot(plan))
      }
    }
    if !isNewsWaiting { newsDeadline = .never }
  }

  /// How long a follower may be left without the news that entries were committed. Usually the next
  /// entry brings it; a message of its own wakes the follower, and this node with its answer, for
  /// nothing that anybody waits for.
  private static var newsPause: Nanoseconds { .milliseconds(1) }

  /// Whether the follower's clients wait for the news and no entry is under way that brings the next.
  private func isNewsUrgent(for member: NodeID) -> Bool {
    newsAtOnceTo.contains(member) && consensus.commit == consensus.lastIndex
  }

  /// Whether news without entries can wait for the next entry still. They go when the first that
  /// waited has waited long enough.
  private mutating func mayWait(now: MonotonicTime) -> Bool {
    if newsDeadline == .never { newsDeadline = now + Self.newsPause }
    return now < newsDeadline
  }

  /// False if the entries must be read from the log first, now or when it is time.
  private mutating func carryOut(_ plan: AppendPlan) -> Bool {
    guard plan.hasEntries else {
      send(plan, [])
      return true
    }
    guard cache.entry(plan.first) != nil else {
      let mayRead = timeOfNextRead(for: plan.to)
      guard mayRead <= turnTime else {
        feedDeadline = min(feedDeadline, mayRead)
        return false
      }
      var last = plan.last
      if let cached = cache.firstIndex, cached > plan.first { last = min(last, cached.previous) }
      let read = EntryRead(
        purpose: .replicate(to: plan.to), first: plan.first, last: last,
        bytesMax: min(plan.bytesMax, Self.appendBytesMax, FeedPace.readMost(of: configuration)))
      peerReads[plan.to] = read
      outputs.append(.read(read))
      return false
    }
    feedPaces[plan.to] = nil
    var entries: [Entry] = []
    var bytes = 0
    var index = plan.first
    while index <= plan.last, let entry = cache.entry(index) {
      bytes += entry.payload.count
      if !entries.isEmpty, bytes > min(plan.bytesMax, Self.appendBytesMax) { break }
      entries.append(entry)
      index = index.next
    }
    send(plan, entries)
    return true
  }

  private mutating func timeOfNextRead(for member: NodeID) -> MonotonicTime {
    var pace =
      feedPaces[member]
      ?? FeedPace(logGrowth, configuration, now: turnTime)
    let time = pace.nextRead(logGrowth, now: turnTime)
    feedPaces[member] = pace
    return time
  }

  private mutating func send(_ plan: AppendPlan, _ entries: [Entry]) {
    let request = AppendRequest(
      term: plan.term, previous: plan.previous, entries: entries.map(\.header),
      commit: plan.commit, round: plan.round, clearsPromises: plan.clearsPromises,
      isMember: plan.isMember)
    let bytes = entries.reduce(0) { $0 + $1.payload.count }
    consensus.didSend(plan, through: request.lastIndex, bytes: bytes)
    outputs.append(
      .send(to: plan.to, .consensus(.append(request), payloads: entries.map(\.payload))))
  }

  /// Entries that were read for a peer: sent if they are still what it needs.
  mutating func sendRead(_ entries: [Entry], to peer: NodeID) {
    guard isLeader, let first = entries.first, let plan = consensus.nextAppend(to: peer),
      plan.first == first.index
    else { return }
    let useful = entries.prefix {
      $0.index <= plan.last && consensus.term(at: $0.index) == $0.header.term
    }
    guard !useful.isEmpty else { return }
    feedPaces[peer]?.fed(useful.reduce(0) { $0 + $1.payload.count })
    send(plan, Array(useful))
  }
}
