// Asking all members of a cluster at once, each for itself: works without a leader too.

import Base
import SkeinClient

struct StatusQuestion: Sendable {
  let endpoints: [String]
  /// A node that does not answer in this time is taken for down.
  let timeout: Duration

  init(endpoints: [String], timeout: Nanoseconds) {
    self.endpoints = endpoints
    self.timeout = Duration(timeout)
  }

  /// - Parameter queues: whether to ask for them too, which needs a leader.
  func ask(queues: Bool = true) async -> ClusterReport {
    let reports = await SkeinClient.clusterStatus(endpoints: endpoints, timeout: timeout)
    var report = ClusterReport(
      nodes: StatusQuestion.join(reports, await members(knownTo: reports)), queues: nil)
    if queues, report.leader != nil { report.queues = await askQueues() }
    return report
  }

  /// The members by who should know best: the leader, else anybody; none if nobody says.
  private func members(knownTo reports: [NodeReport]) async -> [ClusterMember] {
    let up = reports.compactMap { report -> (endpoint: String, leads: Bool)? in
      guard case .success(let node) = report.result else { return nil }
      return (report.endpoint, node.role == .leader)
    }
    for node in up.sorted(by: { $0.leads && !$1.leads }) {
      do throws(SkeinError) {
        return try await SkeinClient.members(knownTo: node.endpoint, timeout: timeout)
      } catch {
        // It may have died since: the next one.
        continue
      }
    }
    return []
  }

  /// Nil if nobody could say in time.
  private func askQueues() async -> [QueueOverview]? {
    var options = ClientOptions()
    options.name = "skein status"
    options.timeout = timeout
    do throws(SkeinError) {
      let client = try await SkeinClient.connect(endpoints: endpoints, options: options)
      let queues: Result<[QueueOverview], SkeinError>
      do throws(SkeinError) {
        queues = .success(try await client.listQueues())
      } catch {
        queues = .failure(error)
      }
      await client.close()
      return try queues.get()
    } catch {
      return nil
    }
  }

  /// One entry for each member, and for each node that answered without being one.
  static func join(_ reports: [NodeReport], _ members: [ClusterMember]) -> [ClusterReport.Node] {
    var answers: [Int: (String, NodeOverview)] = [:]
    var failures: [String: SkeinError] = [:]
    for report in reports {
      switch report.result {
      case .success(let status): answers[status.id] = (report.endpoint, status)
      case .failure(let error): failures[report.endpoint] = error
      }
    }
    var nodes = members.map { member in
      ClusterReport.Node(
        id: member.id, address: member.clientAddress, votes: member.votes,
        status: answers[member.id]?.1)
    }
    for (id, (address, status)) in answers where !members.contains(where: { $0.id == id }) {
      // Who the members are is not known when nobody says: then all are taken to vote.
      nodes.append(.init(id: id, address: address, votes: members.isEmpty, status: status))
    }
    if members.isEmpty {
      for (address, error) in failures {
        nodes.append(
          .init(id: nil, address: address, votes: true, status: nil, failure: words(error)))
      }
    }
    return nodes.sorted { ($0.id ?? .max, $0.address) < ($1.id ?? .max, $1.address) }
  }

  /// Why a node did not answer; which one it was is said beside it.
  private static func words(_ error: SkeinError) -> String {
    guard case .unreachable(let text) = error else { return "\(error)" }
    return text
  }
}
