// Requests about the node and the members, which the loop answers: the gateway knows neither disks
// nor peers.

import Base
import Node
import Wire

/// By which the loop gives its answer; the connection may be gone by then.
struct NodeRequestID: Hashable, Sendable {
  fileprivate let token: UInt64
  fileprivate let request: RequestID
}

struct NodeRequest: Hashable, Sendable {
  enum Question: Hashable, Sendable {
    case status
    case memberList
    // Of the leader only:
    case memberAdd(NodeID, peerAddress: String, clientAddress: String)
    case memberRemove(NodeID)
    /// nil: to the one that is furthest along.
    case transferLeadership(to: NodeID?)
  }
  let id: NodeRequestID
  let question: Question
}

extension ClientGateway {
  /// Takes the request if it is about the node or the members; false if it is not.
  mutating func takeNodeRequest(
    _ frame: ClientFrame, _ request: RequestID, from client: ClientConnection,
    replica: borrowing Replica
  ) -> Bool {
    let question: NodeRequest.Question
    switch frame {
    case .status: question = .status
    case .memberList: question = .memberList
    case .memberAdd(let node, let peerAddress, let clientAddress):
      question = .memberAdd(node, peerAddress: peerAddress, clientAddress: clientAddress)
    case .memberRemove(let node): question = .memberRemove(node)
    case .transferLeadership(let node): question = .transferLeadership(to: node)
    default: return false
    }
    switch question {
    case .status, .memberList: break
    case .memberAdd, .memberRemove, .transferLeadership:
      guard replica.isLeader else {
        refuse(request, .notLeader, leaderSentence, to: client)
        return true
      }
    }
    guard nodeRequests.count < ClientGatewayLimits.waitingNodeRequests else {
      refuse(request, .overloaded, "too many requests are waiting", to: client)
      return true
    }
    client.waitingRequests += 1
    let id = NodeRequestID(token: client.token, request: request)
    nodeRequests.append(NodeRequest(id: id, question: question))
    return true
  }

  /// Whether `takeRequests` would give some.
  var hasRequests: Bool { !nodeRequests.isEmpty }

  /// The requests since the last call; each is to be answered, now or later.
  mutating func takeRequests() -> [NodeRequest] {
    guard !nodeRequests.isEmpty else { return [] }
    var taken: [NodeRequest] = []
    swap(&taken, &nodeRequests)
    return taken
  }

  /// Replies to a request, if its connection is still there.
  mutating func answer(_ id: NodeRequestID, with frame: ServerFrame) {
    guard let client = clients[id.token] else { return }
    client.waitingRequests -= 1
    send(frame, request: id.request, to: client)
  }

  /// Refuses a request, if its connection is still there.
  mutating func refuse(_ id: NodeRequestID, _ refusal: Refusal, _ detail: String) {
    guard let client = clients[id.token] else { return }
    client.waitingRequests -= 1
    refuse(id.request, refusal, detail, to: client)
  }
}
