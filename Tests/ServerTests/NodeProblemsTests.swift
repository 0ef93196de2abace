// What a node says is wrong with it.

import Base
import Testing

@testable import LogStore
@testable import Server

@Suite struct NodeProblemsTests {
  /// Found by chaos: mixed over AMQP, seeds 2 and 4. Nothing was to be fetched, so nothing ever came that
  /// would have ended it.
  @Test func damageThatWasRepairedBeforeIsNoProblem() {
    func range(_ first: UInt64, _ last: UInt64) -> EntryRange {
      EntryRange(first: LogIndex(first), last: LogIndex(last))
    }
    let reports = [range(5, 9), range(20, 20), range(30, 40)].map {
      DamageReport(text: "somewhere", consequence: .recordsLost($0))
    }
    #expect(NodeProblems(reports, damaged: []).damage.isEmpty)
    #expect(NodeProblems(reports, damaged: [range(1, 4), range(10, 19)]).damage.isEmpty)
    let problems = NodeProblems(reports, damaged: [range(9, 10), range(40, 41)])
    #expect(problems.damage == [reports[0], reports[2]].map { "\($0)" })
  }

  /// Found by chaos: disk-truncate, seeds 9 and 11. The node voted again and still said that it did not.
  @Test func whatWasLostIsAProblemUntilItIsThereAgain() {
    let cut = DamageReport(text: "an entry", consequence: .logCutFrom(LogIndex(7)))
    let vote = DamageReport(text: "the state file", consequence: .hardStateLost)
    let all = DamageReport(text: "the manifest", consequence: .everythingLost)
    var problems = NodeProblems([cut, vote, all], damaged: [])
    #expect(problems.lost == ["\(all)", "\(vote)", "\(cut)"])
    problems.logIsMended()
    #expect(problems.lost == ["\(vote)"])
    problems.memoryIsRestored(isLogWhole: true)
    #expect(problems.lost.isEmpty)

    problems = NodeProblems([cut, vote, all], damaged: [])
    problems.memoryIsRestored(isLogWhole: false)
    #expect(problems.lost == ["\(all)", "\(cut)"])
    problems.memoryIsRestored(isLogWhole: true)
    #expect(problems.lost == ["\(cut)"])
  }
}
