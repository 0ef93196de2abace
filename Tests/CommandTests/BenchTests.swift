// `skein bench`: what its options make, what is refused, and the JSON whose fields are fixed.

import Base
import Bench
import Testing

@testable import skein

@Suite struct BenchCommandTests {
  static func settings(_ words: [String]) throws -> BenchSettings {
    guard case .run(let command, let arguments) = try CommandTable.call(["bench"] + words),
      let mode = BenchMode(rawValue: command.path[1])
    else { throw UsageError("no measurement") }
    return try BenchSettings(mode, arguments)
  }

  @Test func everyModeHasItsCommand() {
    #expect(BenchCommands.commands.map { $0.path[1] } == BenchMode.allCases.map(\.rawValue))
  }

  @Test(arguments: BenchMode.allCases)
  func everyModeWorksWithoutOptions(mode: BenchMode) throws {
    let settings = try Self.settings([mode.rawValue])
    #expect(settings.messages > 0 && settings.messages <= BenchSettings.messagesMax)
    #expect(settings.plan.bodyBytes >= MessageBook.bodyBytesMin)
    #expect(settings.nodes == 3 && settings.basePort == nil)
  }

  @Test func optionsSayWhatIsMeasured() throws {
    let publish = try Self.settings([
      "publish", "--body", "100", "--messages", "2M", "--window", "20k", "--producers", "3",
      "--base-port", "23000", "--seconds", "1.5", "--batch", "7", "--idle", "9", "--warm-up", "5",
    ])
    #expect(publish.plan.bodyBytes == 100 && publish.messages == 2_000_000)
    #expect(publish.plan.window == 20_000 && publish.plan.producers == 3)
    #expect(publish.basePort == 23_000 && publish.seconds == 1.5)
    #expect(publish.plan.batch == 7 && publish.idle == 9 && publish.warmUp == 5)
    let paced = try Self.settings(["paced", "--rate", "500", "--seconds", "4"])
    #expect(paced.messages == 2000)
    let limit = try Self.settings(["limit", "--log", "append", "--page-cache"])
    #expect(limit.log == .append && limit.usesPageCache)
    #expect(try !Self.settings(["limit"]).usesPageCache)
    #expect(try Self.settings(["many-queues"]).plan.batch == 1)
    #expect(try Self.settings(["end-to-end", "--settle-each"]).plan.settlesEach)
  }

  @Test(
    arguments: [
      (["publish", "--body", "15"], "--body must be from 16 to 33554432, not 15"),
      (["publish", "--window", "0"], "--window must be from 1 to 65536, not 0"),
      (["drain", "--rate", "5"], "unknown option --rate"),
      (["limit", "--log", "appended"], "--log must be append or recycled, not appended"),
      (
        ["paced", "--rate", "1000000", "--seconds", "1000"],
        "--rate and --seconds make 1000000000 messages, which are too many"
      ),
      (["failover", "--endpoints", "a:1"], "unknown option --endpoints"),
      (["failovre"], "unknown command \"bench failovre\", did you mean \"bench failover\"?"),
    ])
  func whatMakesNoSenseIsRefused(words: [String], message: String) {
    #expect { _ = try Self.settings(words) } throws: { error in
      (error as? UsageError)?.message.hasPrefix(message) == true
    }
  }

  @Test func theFieldsOfTheJSONAreFixed() throws {
    var report = BenchReport(try Self.settings(["end-to-end"]))
    report.nodes = 3
    report.messages = 10
    report.seconds = 2
    var histogram = LatencyHistogram()
    histogram.record(2_000_000)
    report.confirm = histogram
    report.residentBytes = [1, 2, 3]
    report.add("rate", 5.5)
    #expect(
      report.json.text == """
        {"mode":"end-to-end","nodes":3,"bodyBytes":1024,"messages":10,"window":1000,"producers":1,\
        "consumers":1,"seconds":2.0,"messagesPerSecond":5.0,"confirmMs":{"p50":2.0,"p99":2.0,\
        "p999":2.0,"max":2.0},"endToEndMs":null,"nodeCPUSecondsPerMillion":null,\
        "bytesWrittenPerMessage":null,"messagesPerSync":null,"residentBytes":[1,2,3],"lost":0,\
        "duplicated":0,"corrupted":0,"rate":5.5}
        """)
  }

  @Test func aWrongMessageFailsTheMeasurement() throws {
    let clean = BenchReport(try Self.settings(["publish"]))
    #expect(clean.isClean)
    for field in [\BenchReport.lost, \.duplicated, \.corrupted] {
      var report = clean
      report[keyPath: field] = 1
      #expect(!report.isClean)
    }
    var failover = clean
    failover.unconfirmed = 0
    #expect(failover.isClean)
    failover.unconfirmed = 1
    #expect(!failover.isClean)
  }

  @Test func theBarsCoverWhatWasRecorded() {
    var histogram = LatencyHistogram()
    #expect(BenchReport.bars(histogram, of: "confirm") == "")
    histogram.record(900_000, times: 3)
    histogram.record(3_000_000)
    let lines = BenchReport.bars(histogram, of: "confirm").split(separator: "\n")
    #expect(lines.count == 4)
    #expect(lines[1].hasSuffix("75.0 %") && lines[1].contains("1.000"))
    #expect(lines[2].hasSuffix(" 0.000 %"))
    #expect(lines[3].hasSuffix("25.0 %"))
  }
}
