// Between this node's AMQP gateway and the leader: bundles of commands go there, and questions how
// far a read must wait. The leader's own gateway goes the same way, without the network.

import Base
import Consensus
import Node
import QueueMachine

/// The leadership as the relay knows it, and what others asked of this node as the leader.
struct RelayDesk {
  var leader: NodeID?
  var term = Term.zero
  var inbox = RelayInbox()
  /// The question of each node that waits, with the ticket of the read that answers it: others may
  /// have the same.
  private(set) var questions: [(ticket: ReadTicket, node: NodeID, request: UInt64)] = []
  /// Since when nothing is heard of nodes that have AMQP sessions.
  var silentSince: [NodeID: MonotonicTime] = [:]
  /// What the others were told, in this term, of why this leader takes no publishes; empty for that
  /// it does again, nil if they were told nothing, which means the same.
  var toldRefusal: String?
  /// What leaders said of that, each for its term. Looked up only.
  var refusals: [NodeID: (term: Term, reason: String)] = [:]
  /// When it is looked up again which nodes have AMQP clients, and which of them are gone.
  var lookAtClients = MonotonicTime(0)

  /// A node that gets no answer asks again: what its first asking began will answer it.
  func isWaiting(_ node: NodeID, for request: UInt64) -> Bool {
    questions.contains { $0.node == node && $0.request == request }
  }

  /// Whoever asks something else does not wait for what it asked before.
  mutating func add(_ request: UInt64, of node: NodeID, waitingFor ticket: ReadTicket) {
    questions.removeAll { $0.node == node }
    questions.append((ticket, node, request))
  }

  /// The questions that a ticket answers, which are over.
  mutating func takeQuestions(of ticket: ReadTicket) -> [(node: NodeID, request: UInt64)] {
    let taken = questions.filter { $0.ticket == ticket }
    questions.removeAll { $0.ticket == ticket }
    return taken.map { ($0.node, $0.request) }
  }

  mutating func forgetQuestions() { questions.removeAll() }
}

extension NodeLoop {
  /// Passes on what was gathered. To be called before every `finishTurn`.
  mutating func passOn(now: MonotonicTime) {
    noticeRelayLeader(now: now)
    passOnRefusal(now: now)
    amqp.relay.close()
    guard let leader = replica.leader else { return }
    if replica.isLeader {
      desk.inbox.submit(to: &replica, now: now)
      while replica.isLeader, replica.hasRoom, let bundle = amqp.relay.next() {
        replica.submit(now: now) { $0.append(contentsOf: bundle) }
        amqp.relay.didSend(now: now)
      }
      lookAtNodes(now: now)
    } else {
      while let bundle = amqp.relay.next(), peers.hasRoom(leader),
        peers.offer(.relay(bundle), to: leader)
      {
        amqp.relay.didSend(now: now)
      }
    }
    askForIndex(of: leader, now: now)
  }

  /// Whether something was gathered, or waits for room that there may be now.
  var hasToPassOn: Bool { amqp.wantsTurn || amqp.relay.hasNext || !desk.inbox.isEmpty }

  private mutating func noticeRelayLeader(now: MonotonicTime) {
    let term = replica.consensus.term
    guard replica.leader != desk.leader || term != desk.term else { return }
    desk.leader = replica.leader
    desk.term = term
    desk.inbox.forget()
    desk.forgetQuestions()
    desk.silentSince.removeAll()
    desk.toldRefusal = nil
    desk.lookAtClients = now
    amqp.relay.sendAgain()
    amqp.reads.askAgain()
  }

  /// What the leader does not take from its own clients it does not take from other nodes' either
  /// (G12): these stop taking it from theirs. What they have gathered by then, at most
  /// `CommandRelay.waitingBytesMax` each, still goes: acknowledgements stand among it.
  private mutating func passOnRefusal(now: MonotonicTime) {
    if gateway.noSpace == nil, desk.toldRefusal == nil, desk.refusals.isEmpty,
      amqp.blockedBecause == nil
    {
      return  // As mostly.
    }
    var reason: String?
    if replica.isLeader {
      reason = gateway.noSpace
      let told = reason ?? ""
      // The reason has figures that change all the time: the first one will do.
      if told.isEmpty != (desk.toldRefusal ?? "").isEmpty {
        desk.toldRefusal = told
        let envelope = PeerEnvelope.publishesRefused(term: desk.term, reason: told)
        for member in replica.consensus.memberStatuses { peers.send(envelope, to: member.id) }
      }
    } else if let leader = replica.leader, let refusal = desk.refusals[leader],
      refusal.term == desk.term, !refusal.reason.isEmpty
    {
      reason = refusal.reason
    }
    if (reason == nil) != (amqp.blockedBecause == nil) { amqp.setBlocked(reason, now: now) }
  }

  private mutating func askForIndex(of leader: NodeID, now: MonotonicTime) {
    guard let question = amqp.reads.question(now: now) else { return }
    if replica.isLeader {
      if let ticket = replica.beginRead(now: now) {
        amqp.reads.isReading(ticket)
      } else {
        // Not now: it is asked again as one that got no answer.
        amqp.reads.isAsked(now: now)
      }
    } else {
      // Where it cannot be sent now it is asked again as well.
      _ = peers.offer(.askIndex(request: question), to: leader)
      amqp.reads.isAsked(now: now)
    }
  }

  /// Takes what is for the relay; false for everything else.
  mutating func takeRelayed(_ envelope: PeerEnvelope, from node: NodeID, now: MonotonicTime) -> Bool
  {
    switch envelope {
    case .relay(let bytes):
      // Whoever leads now gets it from its sender again.
      let applied = replica.machine.relayProgress(of: node)
      if replica.isLeader, let reason = desk.inbox.take(bytes, from: node, applied: applied) {
        log.warning(reason)
      }
    case .askIndex(let request):
      if replica.isLeader, !desk.isWaiting(node, for: request),
        let ticket = replica.beginRead(now: now)
      {
        desk.add(request, of: node, waitingFor: ticket)
      }
    case .toldIndex(let request, let index):
      amqp.reads.wasTold(request, index)
    case .publishesRefused(let term, let reason):
      desk.refusals[node] = (term, reason)
    default:
      return false
    }
    return true
  }

  /// A linearizable read is ready. All that were begun together share its ticket, whoever began them:
  /// clients of both kinds here, and other nodes.
  mutating func readIsReady(_ ticket: ReadTicket, now: MonotonicTime) {
    let index = replica.applied
    _ = amqp.reads.took(ticket, at: index)
    for question in desk.takeQuestions(of: ticket) {
      peers.send(.toldIndex(request: question.request, index: index), to: question.node)
    }
    gateway.readReady(ticket, records: &records, replica: &replica, now: now)
  }

  /// It is not: other nodes ask again.
  mutating func readFailed(_ ticket: ReadTicket) {
    _ = amqp.reads.took(ticket, at: nil)
    _ = desk.takeQuestions(of: ticket)
    gateway.readFailed(ticket)
  }

  // MARK: Nodes with clients

  /// How long a node that has its first AMQP client, or no more, or that is gone, may not be known for that:
  /// all sessions are looked at for it.
  private static var clientsPause: Nanoseconds { .milliseconds(100) }

  private mutating func lookAtNodes(now: MonotonicTime) {
    guard now >= desk.lookAtClients else { return }
    desk.lookAtClients = now + Self.clientsPause
    endSessionsOfLostNodes(now: now)
    noteNodesWithClients(now: now)
  }

  /// The followers with AMQP clients, which wait for the news of what was committed, and nodes that had
  /// some when they were removed from the cluster.
  private mutating func noteNodesWithClients(now: MonotonicTime) {
    let members = Set(replica.consensus.memberStatuses.map(\.id))
    var others = Set(replica.machine.nodesWithAMQPSessions)
    others.remove(configuration.node)
    replica.newsAtOnceTo = others.intersection(members)
    for node in others.subtracting(members) where desk.silentSince[node] == nil {
      desk.silentSince[node] = now
    }
  }

  // MARK: Nodes that are gone

  /// The connection to a node ended or came back.
  mutating func noteConnection(_ node: NodeID, isThere: Bool, now: MonotonicTime) {
    if isThere {
      // Who was removed is gone whether it still connects or not.
      if replica.consensus.memberStatuses.contains(where: { $0.id == node }) {
        desk.silentSince[node] = nil
      }
      if replica.isLeader, let reason = desk.toldRefusal {
        peers.send(.publishesRefused(term: desk.term, reason: reason), to: node)
      }
      if node == replica.leader {
        amqp.relay.sendAgain()
        amqp.reads.askAgain()
      }
    }
  }

  /// The leader ends the AMQP sessions of a node that nobody heard of, or that is no member any more, for
  /// as long as a native client's session lives: what its clients held is others' then. A node that comes
  /// back with the same process finds its sessions ended and says so to their clients; one that was
  /// restarted has ended them itself by its first bundle.
  private mutating func endSessionsOfLostNodes(now: MonotonicTime) {
    let members = replica.consensus.memberStatuses
    for node in desk.silentSince.keys.sorted() where !members.contains(where: { $0.id == node }) {
      endSessions(ofLost: node, now: now)
    }
    for member in members where member.id != configuration.node {
      let node = member.id
      if member.isConnected {
        desk.silentSince[node] = nil
        continue
      }
      if desk.silentSince[node] != nil {
        endSessions(ofLost: node, now: now)
      } else if replica.machine.hasAMQPSessions(of: node) {
        desk.silentSince[node] = now
      }
    }
  }

  private mutating func endSessions(ofLost node: NodeID, now: MonotonicTime) {
    guard let since = desk.silentSince[node],
      now.since(since) >= configuration.timeouts.session
    else { return }
    desk.silentSince[node] = nil
    // Without regard to room: it is a few bytes, and waiting for room is no reason to look again at once.
    replica.submit(now: now) { CommandWriter.endNodeSessions(node, into: &$0) }
  }

  /// When `passOn` has something to do although nothing happened.
  var relayDeadline: MonotonicTime {
    guard replica.isLeader, !desk.silentSince.isEmpty else { return .never }
    let first = desk.silentSince.values.reduce(.never) {
      min($0, $1 + configuration.timeouts.session)
    }
    return max(first, desk.lookAtClients)
  }
}
