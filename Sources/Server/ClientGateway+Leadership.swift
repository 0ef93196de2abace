// A change of leader: clients are told where to go, and sessions leave this node when it does not
// lead any more (G7). Publishes and requests without an answer have an unknown outcome then; the
// client asks the new leader, which knows.

import Base
import Node
import QueueMachine
import Wire

extension ClientGateway {
  /// Tells clients what changed since the last call. Cheap where nothing did: every entry to the
  /// gateway asks, so that nothing of a term past reaches a session.
  mutating func noticeLeadership(of replica: inout Replica, now: MonotonicTime) {
    let term = replica.consensus.term
    let isLeader = replica.isLeader
    let leader = replica.leader
    guard term != knownTerm || isLeader != knownIsLeader || leader != knownLeader else { return }
    let losesSessions = knownIsLeader && (!isLeader || term != knownTerm)
    let begins = isLeader && (!knownIsLeader || term != knownTerm)
    let isNews = leader != knownLeader
    knownTerm = term
    knownIsLeader = isLeader
    knownLeader = leader
    noteMembership(of: replica)
    if losesSessions { loseSessions(now: now) }
    if begins {
      // The term's first command detached the sessions of other nodes. Those of this one are of an
      // earlier term or process: nobody here knows them, so they must be attached again too.
      let node = configuration.node
      replica.submit(now: now) { CommandWriter.nodeGone(node, into: &$0) }
      needsTurn = true
    }
    if isNews || losesSessions { tellAll(leaderFrame) }
  }

  private mutating func tellAll(_ frame: ServerFrame) {
    for token in clients.sortedKeys {
      guard let client = clients[token], client.phase == .open || client.phase == .draining
      else { continue }
      send(frame, to: client)
    }
  }

  /// The members, or their addresses, changed.
  mutating func membershipChanged(in replica: borrowing Replica) {
    noteMembership(of: replica)
    tellAll(.membersChanged(addresses: replica.consensus.membership.members.map(\.clientAddress)))
  }

  private mutating func noteMembership(of replica: borrowing Replica) {
    knownLeaderAddress =
      knownLeader.flatMap { replica.consensus.membership.member($0)?.clientAddress } ?? ""
  }

  private var leaderFrame: ServerFrame {
    .leaderChanged(leader: knownLeader ?? NodeID(0), address: knownLeaderAddress)
  }

  private mutating func loseSessions(now: MonotonicTime) {
    sessions.removeAll()
    detaching.removeAll()
    // Tickets are numbered anew in each term.
    for ticket in waitingReads.map(\.ticket) { readFailed(ticket) }
    for token in clients.sortedKeys {
      guard let client = clients[token] else { continue }
      let session = client.session
      let tagged = client.tagged
      client.tagged = []
      client.waitingRequests -= tagged.count
      let detail = "leadership was lost meanwhile: the outcome is unknown"
      for asked in tagged { refuse(asked.request, .notLeader, detail, to: client) }
      switch session {
      case .none, .lost:
        break
      case .attached:
        client.loseSession()
      case .opening(let request), .attaching(let request, _), .closing(let request, _):
        // Its command may still be carried out. Asked for again through the same connection it
        // could not be told from the new one, so the client comes back through another.
        client.loseSession()
        refuse(request, .notLeader, detail, to: client)
        end(client, .notLeader, detail, now: now)
      }
    }
  }
}
