// The leader's sends: consensus plans what may go, this joins the payloads, from memory or from the
// log for a follower that is far behind.

import Base
import Consensus

extension Replica {
  /// A member waits for entries that may not be read for it yet.
  package var isFeedPaced: Bool { isLeader && feedDeadline != .never }

  /// Whether a member lacks entries that this node must read for it, from its log: so also those that
  /// are written now. Not one for which the log is not kept any more.
  package var feedsFromLog: Bool {
    guard isLeader, let cached = cache.firstIndex else { return false }
    for place in 0..<consensus.followerCount {
      let first = consensus.firstToSend(at: place)
      if first < cached, first > consensus.logBase.index { return true }
    }
    return false
  }

  /// How many payload bytes one append carries at most, unless a single entry is larger.
  static var appendBytesMax: Int { 1 << 20 }

  mutating func replicate(now: MonotonicTime, hasRoom: (NodeID) -> Bool) {
    var isNewsWaiting = false
    feedDeadline = .never
    var content = AppendContent()
    for place in 0..<consensus.followerCount {
      let member = consensus.follower(at: place)
      var isHeldUp = !peerReads.isEmpty && peerReads[member] != nil
      while !isHeldUp {
        if consensus.hasOnlyNews(at: place), hasRoom(member), !isNewsUrgent(for: member),
          mayWait(now: now)
        {
          isNewsWaiting = true
          break
        }
        guard let plan = consensus.nextAppend(to: member), hasRoom(member) else { break }
        isHeldUp = !carryOut(plan, &content)
      }
      // While what comes next is read, or waits for its time, the member hears from its leader still.
      if isHeldUp, let plan = consensus.nextHeartbeat(to: member), hasRoom(member) {
        send(plan, AppendContent())
      }
      if consensus.isFedSnapshot(at: place), !snapshotReads.contains(member),
        let plan = consensus.nextSnapshotChunk(to: member, now: now), hasRoom(member)
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
  ///
  /// - Parameter content: what was sent last in this turn. Members that are equally far share it.
  private mutating func carryOut(_ plan: AppendPlan, _ content: inout AppendContent) -> Bool {
    guard plan.hasEntries else {
      send(plan, AppendContent())
      return true
    }
    guard cache.contains(plan.first) else {
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
    if !feedPaces.isEmpty { feedPaces[plan.to] = nil }
    let bytesMax = min(plan.bytesMax, Self.appendBytesMax)
    if content.first != plan.first || content.last != plan.last || content.bytesMax != bytesMax {
      content = AppendContent(first: plan.first, last: plan.last, bytesMax: bytesMax)
      var index = plan.first
      while index <= plan.last, let entry = cache.entry(index) {
        if !content.headers.isEmpty, content.bytes + entry.payload.count > bytesMax { break }
        content.add(entry)
        index = index.next
      }
    }
    send(plan, content)
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

  private mutating func send(_ plan: AppendPlan, _ content: AppendContent) {
    let request = AppendRequest(
      term: plan.term, previous: plan.previous, entries: content.headers,
      commit: plan.commit, round: plan.round, clearsPromises: plan.clearsPromises,
      isMember: plan.isMember)
    consensus.didSend(plan, through: request.lastIndex, bytes: content.bytes)
    outputs.append(
      .send(to: plan.to, .consensus(.append(request), payloads: content.payloads)))
  }

  /// Entries that were read for a peer: sent if they are still what it needs.
  mutating func sendRead(_ entries: [Entry], to peer: NodeID) {
    guard isLeader, let first = entries.first, let plan = consensus.nextAppend(to: peer),
      plan.first == first.index
    else { return }
    var content = AppendContent()
    for entry in entries {
      guard entry.index <= plan.last, consensus.term(at: entry.index) == entry.header.term else {
        break
      }
      content.add(entry)
    }
    guard !content.headers.isEmpty else { return }
    feedPaces[peer]?.fed(content.bytes)
    send(plan, content)
  }
}

/// The entries of one append as they are sent: headers in the message, payloads behind it.
private struct AppendContent {
  // What it is asked to hold: entries from `first` through `last`, as many as fit `bytesMax`.
  var first = LogIndex.zero
  var last = LogIndex.zero
  var bytesMax = 0
  private(set) var headers: [EntryHeader] = []
  private(set) var payloads: [[UInt8]] = []
  /// Of the payloads.
  private(set) var bytes = 0

  mutating func add(_ entry: Entry) {
    headers.append(entry.header)
    payloads.append(entry.payload)
    bytes += entry.payload.count
  }
}
