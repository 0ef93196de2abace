// What a run hands over: the series behind the plot, the page, the JSON.

import Base
import Foundation
import History
import Testing

@testable import ChaosHarness

@Suite struct ReportTests {
  /// A run that never was: two faults, a violation, a node that died, with names that have to be
  /// escaped.
  private func result(
    trouble: String? = nil, isLost: Bool = true, hasExit: Bool = true, isStrict: Bool = true,
    word: String? = nil, faults: [FaultRecord]? = nil, leaderships: [Leadership]? = nil
  ) throws -> ChaosResult {
    var recorder = HistoryRecorder()
    recorder.invoke(.publish("m<1>", to: "work"), by: "p1", at: 10)
    recorder.ok(.publish("m<1>", to: "work"), by: "p1", at: 20, id: "1-0")
    recorder.nemesis("kill leader", value: "2", type: .invoke, at: 30)
    if !isLost {
      let delivery = HistoryDelivery(
        queue: "work", value: "m<1>", token: 1, attempt: 1, lease: 100)
      recorder.deliver(delivery, to: "c1", at: 32)
      recorder.invoke(.ack("m<1>", of: "work", token: 1), by: "c1", at: 33)
      recorder.ok(.ack("m<1>", of: "work", token: 1), by: "c1", at: 34)
    }
    recorder.invoke(.drain("work"), by: "d", at: 40)
    recorder.ok(.drain("work"), by: "d", at: 50)
    var reader = HistoryReader()
    try reader.read(recorder.takeBytes())
    var checker = Checker(try reader.finish(), isStrict: isStrict)

    let scenario = try ScenarioLibrary.scenario("leader-kill")
    var options = ChaosOptions(scenario: scenario, seed: 3)
    options.duration = .seconds(10)
    if let word { options.word = word }
    let plan = FaultPlan(scenario, seed: 3, duration: .seconds(10))
    var series = TimeSeries()
    for step in 0..<100 {
      series.confirmed(at: .milliseconds(UInt64(step) * 10), latency: .milliseconds(2))
    }
    series.confirmed(at: .milliseconds(1500), latency: .milliseconds(400))
    series.delivered(at: .milliseconds(700))
    var done = FaultRecord(
      fault: plan.faults[0], start: .milliseconds(1000), victims: "2", detail: "a & b")
    done.end = .milliseconds(1200)
    var skipped = FaultRecord(fault: plan.faults[1], start: .milliseconds(2000), victims: "")
    skipped.end = skipped.start
    skipped.skipped = "no node <to> do it to"
    return ChaosResult(
      options: options, plan: plan, verdict: checker.judge(), trouble: trouble,
      exits: hasExit
        ? [NodeExit(node: 3, time: .seconds(1), cause: "signal 6", log: "a \"bug\"\nand <more>")]
        : [],
      faults: faults ?? [done, skipped],
      leaderships: leaderships ?? [
        Leadership(node: 2, term: 1, time: .milliseconds(100)),
        Leadership(node: 1, term: 2, time: .milliseconds(1050)),
      ], series: series, totals: Recording.Totals(), length: .seconds(2))
  }

  @Test func thePageStandsAlone() throws {
    let page = ReportPage(result: try result(trouble: "it <broke>")).html
    for word in ["http:", "https:", "<script", "<link", "src=", "@import", "url("] {
      #expect(!page.contains(word), "the page contains \(word)")
    }
    #expect(page.hasPrefix("<!doctype html>"))
    #expect(page.contains("prefers-color-scheme:dark"))
    #expect(page.contains("width=device-width"))
  }

  @Test func everythingIsOnThePageAndEscaped() throws {
    let page = ReportPage(result: try result(trouble: "it <broke>")).html
    for text in [
      "violated", "m&lt;1&gt;", "it &lt;broke&gt;", "a &amp; b", "no node &lt;to&gt; do it to",
      "node 3 after 1.0 s: signal 6", "and &lt;more&gt;", "leader-kill --seed 3 --duration 10s",
    ] {
      #expect(page.contains(text), "the page lacks \(text)")
    }
    for kind in ViolationKind.allCases { #expect(page.contains(kind.name)) }
    for text in ["m<1>", "<broke>", "<more>"] { #expect(!page.contains(text)) }
    for tag in ["svg", "table", "section", "details", "pre", "div", "ul", "p", "td", "g", "text"] {
      let opened = page.matches(of: try Regex("<\(tag)[ >]")).count
      #expect(opened == page.ranges(of: "</\(tag)>").count, "<\(tag)> is not closed")
    }
  }

  @Test func theJSONIsOne() throws {
    let result = try result(trouble: "it \"broke\"")
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(result.json.utf8)) as? [String: Any])
    #expect(object["valid"] as? Bool == false)
    let run = try #require(object["run"] as? [String: Any])
    #expect(run["outcome"] as? String == "violated")
    #expect(run["trouble"] as? String == "it \"broke\"")
    let faults = try #require(run["faults"] as? [[String: Any]])
    #expect(faults.count == 2)
    // What the fault cost: from confirm to confirm, and until the next leader.
    #expect(faults[0]["gapMs"] as? Double == 510)
    #expect(faults[0]["electionMs"] as? Double == 50)
    #expect(faults[1]["gapMs"] is NSNull && faults[1]["electionMs"] is NSNull)
    #expect((run["nodeExits"] as? [[String: Any]])?.first?["cause"] as? String == "signal 6")
  }

  /// The last confirm before the second fault was at 990 ms, the first after it at 1500.
  @Test func aGapIsThatOfTheFaultThatBroughtIt() throws {
    let plan = FaultPlan(
      try ScenarioLibrary.scenario("leader-kill"), seed: 3, duration: .seconds(10))
    let faults = [100, 1000].enumerated().map { place, time in
      FaultRecord(fault: plan.faults[place], start: .milliseconds(UInt64(time)), victims: "2")
    }
    let result = try result(faults: faults)
    #expect(result.gap(of: faults[0]) == nil)
    #expect(result.gap(of: faults[1]) == 510)
  }

  /// After the last confirm, 1.5 s after the beginning, a run that broke off has waited until its end.
  @Test func whatNeverCameBackIsALongGap() throws {
    let fault = FaultRecord(
      fault: FaultPlan(
        try ScenarioLibrary.scenario("leader-kill"), seed: 3, duration: .seconds(10)
      ).faults[0], start: .milliseconds(1600), victims: "2")
    #expect(try result(faults: [fault]).gap(of: fault) == nil)
    #expect(try result(trouble: "it broke off", faults: [fault]).gap(of: fault) == 500)
  }

  /// What a run says, in its three forms: how it ended, the JSON, the page.
  private func said(_ result: ChaosResult) throws -> (valid: String, page: String) {
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(result.json.utf8)) as? [String: Any])
    let valid = object["valid"].map { "\($0)" } ?? ""
    return (valid, ReportPage(result: result).html)
  }

  private func judgement(_ name: String, _ result: ChaosResult) -> PromiseReport.Judgement? {
    result.promises.first { $0.name == name }?.judgement
  }

  @Test("A run in which all went well says so, and what it cannot know")
  func aGoodRun() throws {
    let result = try result(isLost: false, hasExit: false)
    #expect(result.outcome == .valid && result.runVerdict.validity == .valid)
    let (valid, page) = try said(result)
    #expect(valid == "1" || valid == "true")
    #expect(page.contains("Every promise that a history can show was kept."))
    #expect(result.promises.map(\.name) == (1...14).map { "G\($0)" })
    for name in ["G2", "G7", "G9"] { #expect(judgement(name, result) == .kept) }
    for name in ["G1", "G10", "G11", "G12", "G13", "G14"] {
      guard case .unknown = judgement(name, result) else {
        Issue.record("\(name) is not shown by a history")
        continue
      }
    }
    #expect(page.matches(of: /not known:/).count == 6)
    #expect(page.matches(of: />kept</).count == 8)
    // What a kill does not put to the test, other faults do.
    let harmed = PromiseReport.all(of: result.verdict, trouble: nil, faults: [.powerLoss])
    #expect(harmed[0].judgement == .kept && harmed[10].judgement == .kept)
    let wiped = PromiseReport.all(of: result.verdict, trouble: nil, faults: [.diskWipe])
    #expect(wiped[0].judgement != .kept && wiped[10].judgement == .kept)
  }

  @Test("A node that ended by itself is no valid run, whatever the history shows")
  func anExitIsNotValid() throws {
    let result = try result(isLost: false)
    #expect(result.verdict.validity == .valid)
    #expect(result.outcome == .violated && result.runVerdict.validity == .violated)
    let (valid, page) = try said(result)
    #expect(valid == "0" || valid == "false")
    #expect(page.contains("A node ended, stopped, led or went on against the rules. "))
  }

  @Test("Nothing is called kept of a run that broke off")
  func anInterruptedRunKeepsNothing() throws {
    let result = try result(trouble: "it was interrupted", isLost: false, hasExit: false)
    #expect(result.outcome == .incomplete && result.runVerdict.validity == .unknown)
    #expect(result.runVerdict.unknownReasons.first?.contains("interrupted") == true)
    let (valid, page) = try said(result)
    #expect(valid == "unknown")
    #expect(!page.contains(">kept<"))
    #expect(page.contains("not known</td>"))
  }

  @Test("What is only counted is not kept")
  func notStrictIsNotKept() throws {
    let result = try result(isLost: false, hasExit: false, isStrict: false)
    guard case .unknown = judgement("G7", result) else {
      Issue.record("nobody looked for it")
      return
    }
    #expect(judgement("G6", result) == .kept)
  }

  @Test("A violation breaks the promises that it is named for")
  func everyViolationBreaksAPromise() throws {
    let result = try result(hasExit: false)
    #expect(judgement("G2", result) == .broken(1, "lost"))
    for kind in ViolationKind.allCases {
      var verdict = try self.result(isLost: false, hasExit: false).verdict
      verdict.violations[kind.rawValue].count = 1
      let broken = PromiseReport.all(of: verdict, trouble: nil, faults: []).filter {
        if case .broken = $0.judgement { true } else { false }
      }
      #expect(!broken.isEmpty, "\(kind.name) breaks nothing")
    }
  }

  @Test("That producers waited stands in the result")
  func waitingIsSaid() throws {
    let plain = try result()
    #expect(plain.waiting == nil)
    var totals = Recording.Totals()
    totals.waited = .seconds(12)
    let waited = ChaosResult(
      options: plain.options, plan: plain.plan, verdict: plain.verdict, trouble: nil, exits: [],
      faults: [], leaderships: [], series: plain.series, totals: totals, length: .seconds(60))
    #expect(waited.json.contains("\"producersWaitedSeconds\":12.0"))
    #expect(ReportPage(result: waited).html.contains("producers waited 12.0 s"))
  }

  @Test func faultsCostWhatTheyCost() throws {
    let result = try result()
    // From the last confirm at 990 ms to the next at 1500.
    #expect(result.gap(of: result.faults[0]) == 510)
    #expect(result.elections.map(\.milliseconds) == [50])
    #expect(result.outcome == .violated)
  }

  private func kill(_ victims: String, at start: Nanoseconds) -> FaultRecord {
    var line = FaultLine(kind: .kill, target: .node)
    line.every = nil
    let fault = PlannedFault(line: line, start: start, end: start, draw: 0)
    var record = FaultRecord(fault: fault, start: start, victims: victims)
    record.end = start + .milliseconds(10)
    return record
  }

  /// The leader is lost by the first of two faults, and the next one leads only after the second.
  @Test func aSlowElectionIsOfTheFaultThatCostTheLeader() throws {
    var lost = Leadership(node: 2, term: 1, time: .milliseconds(100))
    lost.end = .milliseconds(1001)
    let next = Leadership(node: 1, term: 2, time: .milliseconds(1900))
    let faults = [kill("2", at: .milliseconds(1000)), kill("3", at: .milliseconds(1500))]
    let result = try result(faults: faults, leaderships: [lost, next])
    #expect(result.elections.map(\.milliseconds) == [900])
    #expect(result.elections.first?.fault.victims == "2")
    // A client's death costs no leader.
    var client = kill("c1", at: .milliseconds(950))
    client = FaultRecord(
      fault: PlannedFault(
        line: FaultLine(kind: .killConsumer), start: client.start, end: client.start, draw: 0),
      start: client.start, victims: "c1")
    #expect(try self.result(faults: [client], leaderships: [lost, next]).elections.isEmpty)
  }

  /// Where nobody leads the lane is empty.
  @Test func aDeadLeaderLeadsNoMoreInThePicture() throws {
    var lost = Leadership(node: 2, term: 1, time: .milliseconds(0))
    let next = Leadership(node: 1, term: 2, time: .milliseconds(1900))
    let whole = TimelineFigure(result: try result(leaderships: [lost, next]), width: 900).svg
    lost.end = .milliseconds(1000)
    let gap = TimelineFigure(result: try result(leaderships: [lost, next]), width: 900).svg
    #expect(whole != gap)
  }

  @Test func theCommandNamesTheFileThatWasGiven() throws {
    #expect(try result().command.hasPrefix("skein chaos run leader-kill --seed 3 "))
    #expect(
      try result(word: "my own/it's.chaos").command.hasPrefix(
        #"skein chaos run 'my own/it'\''s.chaos' --seed 3 "#))
  }

  @Test func latenciesAreFoundAgain() {
    var histogram = LatencyHistogram()
    #expect(histogram.quantile(0.5) == nil)
    for step in 1...1000 as ClosedRange<UInt64> { histogram.add(.milliseconds(step)) }
    for (share, wanted) in [(0.5, 500.0), (0.99, 990), (0.01, 10)] {
      let found = Double(histogram.quantile(share)?.rawValue ?? 0) / 1e6
      #expect(abs(found - wanted) < wanted * 0.13, "\(share): \(found)")
    }
    histogram.add(.zero)
    histogram.add(.seconds(86_400))
    #expect(histogram.max == .seconds(86_400))
  }

  @Test func theMedianOfManyIsOfAllOfThem() {
    var all = LatencyHistogram()
    var few = LatencyHistogram()
    few.add(.seconds(1))
    var many = LatencyHistogram()
    for _ in 0..<9 { many.add(.milliseconds(2)) }
    all.add(few)
    all.add(LatencyHistogram())
    all.add(many)
    #expect(all.count == 10 && all.max == .seconds(1))
    #expect((all.quantile(0.5) ?? .zero) < .milliseconds(3))
  }

  @Test func aLineOfTheNodesLogIsUnderstood() throws {
    let line = try #require(LogLine("2026-11-20T22:00:00.123Z node 2 info: leads term 7"))
    #expect(line.event == .leads(term: 7))
    #expect(line.time == Nanoseconds(rawValue: 1_795_212_000_123_000_000))
    #expect(
      LogLine("2026-11-20T22:00:00.123Z node 2 info: does not lead in term 8")?.event
        == .leadsNoMore)
    #expect(
      LogLine("2026-11-20T22:00:00.123Z node 2 error: stopped taking part: a sync failed")?.event
        == .halted(reason: "a sync failed"))
    #expect(LogLine("2026-11-20T22:00:00.123Z node 2 info: follows node 1 in term 8") == nil)
    #expect(LogLine("2026-11-20T22:00:00.123Z node 2 warning: leads term 7") == nil)
    #expect(LogLine("") == nil)
  }
}
