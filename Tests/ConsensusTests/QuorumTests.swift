import Base
import Testing

@testable import Consensus

@Suite struct QuorumTests {
  @Test("What a majority of the voters reaches is found as by sorting what they have")
  func agreesWithSorting() {
    var random = SeededRandom(seed: 11)
    for round in 0..<2_000 {
      let members = (1...UInt32.random(in: 1...7, using: &random)).map {
        Membership.Member(
          id: NodeID($0), peerAddress: "", clientAddress: "",
          isLearner: $0 > 1 && .random(in: 0..<4, using: &random) == 0)
      }
      let membership = Membership(members: members)
      // Also one that is no member any more.
      let own = NodeID(.random(in: 1...UInt32(members.count) + 1, using: &random))
      var consensus = Consensus(
        configuration: ConsensusConfiguration(id: own, seed: 1),
        restored: RestoredState(snapshotMembership: membership), now: MonotonicTime(0))
      let ownMatch = LogIndex(.random(in: 0...5, using: &random))
      var values: [LogIndex] = membership.voters.contains(own) ? [ownMatch] : []
      for member in members where member.id != own && .random(in: 0..<5, using: &random) > 0 {
        var progress = Progress(
          id: member.id, next: LogIndex(9), window: InFlightWindow(messagesMax: 1, bytesMax: 1),
          isConnected: true, round: 0, now: MonotonicTime(0))
        progress.match = LogIndex(.random(in: 0...5, using: &random))
        consensus.progress.append(progress)
        if !member.isLearner { values.append(progress.match) }
      }
      values.sort(by: >)
      let quorum = membership.quorum
      let expected = quorum <= values.count ? values[quorum - 1] : .zero
      let found = consensus.quorumValue(own: ownMatch) { $0.match }
      #expect(found == expected, "round \(round): \(values) of \(membership.voters.count)")
    }
  }

  @Test("A membership tells its voters, its learners and others apart")
  func membershipTellsApart() {
    let membership = Membership(
      members: [(1, false), (2, true), (5, false)].map {
        Membership.Member(
          id: NodeID($0.0), peerAddress: "", clientAddress: "", isLearner: $0.1)
      })
    let ids = (1...5).map { NodeID($0) }
    #expect(ids.filter { membership.contains($0) } == [NodeID(1), NodeID(2), NodeID(5)])
    #expect(ids.filter { membership.isVoter($0) } == [NodeID(1), NodeID(5)])
    #expect(ids.filter { membership.isLearner($0) } == [NodeID(2)])
  }
}
