// A verdict for people says no more than was judged.

import History
import Testing

@testable import skein

@Suite struct VerdictTextTests {
  private static let history = [
    #""process":"p","type":"invoke","f":"publish","queue":"q","value":"m"}"#,
    #""process":"p","type":"ok","f":"publish","queue":"q","value":"m"}"#,
    #""process":"c","type":"ok","f":"deliver","queue":"q","value":"m","token":1,"lease":9}"#,
    #""process":"nemesis","type":"info","f":"leader-change","value":"2"}"#,
    #""process":"e","type":"ok","f":"deliver","queue":"q","value":"m","token":2,"lease":9}"#,
    #""process":"e","type":"invoke","f":"ack","queue":"q","value":"m","token":2}"#,
    #""process":"e","type":"ok","f":"ack","queue":"q","value":"m","token":2}"#,
    #""process":"a","type":"invoke","f":"drain","queue":"q"}"#,
    #""process":"a","type":"ok","f":"drain","queue":"q"}"#,
  ]

  private func text(strict: Bool, without f: String = "") throws -> String {
    let lines = Self.history.filter { !$0.contains("\"f\":\"\(f)\"") }.enumerated().map {
      "{\"index\":\($0),\"time\":5,\($1)\n"
    }
    var checker = Checker(try History.parse(Array(lines.joined().utf8)), isStrict: strict)
    return VerdictText.text(checker.judge(), colours: false)
  }

  @Test func strictOrNotItSaysWhatWasJudged() throws {
    let counted = try text(strict: false)
    #expect(counted.hasPrefix("valid: what was judged was kept; redeliveries after a change"))
    #expect(counted.contains("(--strict judges them)"))
    #expect(!counted.contains("every promise"))
    #expect(counted.contains("1 leaderChange"))
    let row = try #require(counted.split(separator: "\n").first { $0.hasPrefix("failover-") })
    #expect(row.hasSuffix("not judged"))
    #expect(try text(strict: true).hasPrefix("violated: "))
  }

  @Test func whatWasNotDrainedIsNotKnown() throws {
    let open = try text(strict: true, without: "drain")
    let row = try #require(open.split(separator: "\n").first { $0.hasPrefix("lost") })
    #expect(row.hasSuffix("not known"))
    #expect(!open.contains("not judged"))
  }
}
