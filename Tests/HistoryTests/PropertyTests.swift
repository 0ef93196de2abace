// Each property with histories written by hand: those that break it, alone and
// hidden among other messages, and those that nearly do and are allowed.

import TestSupport
import Testing

@testable import History

struct PropertyCase: CustomTestStringConvertible, Sendable {
  let name: String
  /// What is violated, and nothing else; nil for an allowed history.
  var violates: [String] = []
  var isStrict = true
  /// Without violations: whether it can be told that nothing is lost.
  var isKnown = true
  let text: String

  var testDescription: String { name }

  static func wrong(
    _ name: String, _ violates: String, strict: Bool = true, _ text: String
  ) -> Self {
    Self(name: name, violates: [violates], isStrict: strict, text: text)
  }
  static func fine(_ name: String, strict: Bool = true, _ text: String) -> Self {
    Self(name: name, isStrict: strict, text: text)
  }
  static func open(_ name: String, _ text: String) -> Self {
    Self(name: name, isKnown: false, text: text)
  }
}

@Suite(.ownThreads) struct PropertyTests {
  @Test(arguments: PropertyCase.all)
  func itIsJudgedAsWritten(_ history: PropertyCase) throws {
    try expect(history, Story(history.text), "alone")
  }

  @Test(arguments: PropertyCase.all)
  func itIsJudgedTheSameAmongOthers(_ history: PropertyCase) throws {
    for seed in 1...4 as ClosedRange<UInt64> {
      try expect(history, Story(history.text).inNoise(seed: seed), "noise of seed \(seed)")
    }
  }

  private func expect(_ history: PropertyCase, _ story: Story, _ where: String) throws {
    let verdict = try story.verdict(strict: history.isStrict)
    #expect(verdict.violated == history.violates, "\(history.name), \(`where`)")
    let expected: Validity =
      !history.violates.isEmpty ? .violated : history.isKnown ? .valid : .unknown
    #expect(verdict.validity == expected, "\(history.name), \(`where`): \(verdict.unknownReasons)")
    for name in history.violates {
      let violation = verdict.violations.first { $0.kind.name == name }
      #expect(violation?.ids.isEmpty == false)
      #expect(violation?.witness.isEmpty == false)
    }
  }
}
