// The single faults of a run, by which it can be repeated with some of them left out. All draw from the
// generator that decides everything else too, so a strike is known by how many draws came before it: at its
// time it draws the same again, whatever became of the run meanwhile.

import Base

/// One fault as it was drawn.
package struct Strike: Hashable, Sendable {
  package let kind: FaultKind
  /// Nanoseconds of simulated time.
  let time: UInt64
  /// What was drawn before, from `Simulation.chance` and `laterChance`.
  let draws: UInt64
  let laterDraws: UInt64
}

extension Strike: CustomStringConvertible {
  /// As a cut has it: `kill@3.120456789-48213-12`.
  package var description: String {
    let decimals = "\(time % 1_000_000_000)"
    return "\(kind.rawValue)@\(time / 1_000_000_000)."
      + String(repeating: "0", count: 9 - decimals.count) + "\(decimals)-\(draws)-\(laterDraws)"
  }

  /// Far more than any run draws: reading a list must not take for ever.
  private static let drawsMax: UInt64 = 1_000_000_000

  /// nil if the text is none that `description` wrote.
  package init?(_ text: some StringProtocol) {
    let parts = text.split(separator: "@", omittingEmptySubsequences: false)
    guard parts.count == 2, let kind = FaultKind(rawValue: String(parts[0])) else { return nil }
    let numbers = parts[1].split(separator: "-").compactMap {
      UInt64(String($0).filter { $0 != "." })
    }
    guard numbers.count == 3, numbers[1...].allSatisfy({ $0 <= Self.drawsMax }) else { return nil }
    self.init(kind: kind, time: numbers[0], draws: numbers[1], laterDraws: numbers[2])
    guard description == text else { return nil }
  }
}

/// Which faults a run has: those that its seed draws, or some of them.
struct StrikeList {
  /// In their order; nil if all that are drawn come to pass.
  private let given: [Strike]?
  private var next = 0
  /// What came to pass.
  private(set) var happened: [Strike] = []
  /// One that was given and turned out as another kind: the list is of another version's run, or of one
  /// with another cut.
  private(set) var foreign: Strike?
  // The generators as they were at a strike of the whole run.
  private var chance: Chance
  private var laterChance: Chance
  /// What was drawn from both when the last strike began.
  private var drawn: (first: UInt64, later: UInt64) = (0, 0)

  /// - Parameters: the generators before anything was drawn.
  init(_ given: [Strike]?, _ chance: Chance, _ laterChance: Chance) {
    self.given = given
    self.chance = chance
    self.laterChance = laterChance
  }

  /// When the next one comes, which in a whole run is at `drawn`; nil if there is none.
  func nextTime(drawn: UInt64) -> UInt64? {
    guard let given else { return drawn }
    return next < given.count ? given[next].time : nil
  }

  /// Gives the strike the generators that it had in the whole run.
  mutating func begin(_ chance: inout Chance, _ laterChance: inout Chance) {
    if let given, next < given.count {
      self.chance.skip(to: given[next].draws)
      self.laterChance.skip(to: given[next].laterDraws)
      chance = self.chance
      laterChance = self.laterChance
      next += 1
    }
    drawn = (chance.draws, laterChance.draws)
  }

  /// The strike that began is of this kind. With the same draws before it has the kind that it had in
  /// the whole run.
  mutating func willStrike(_ kind: FaultKind, at time: UInt64) -> Strike {
    let strike = Strike(kind: kind, time: time, draws: drawn.first, laterDraws: drawn.later)
    if let given, next > 0, given[next - 1].kind != kind, foreign == nil {
      foreign = given[next - 1]
    }
    happened.append(strike)
    return strike
  }
}

extension Chance {
  /// As it is after so many draws.
  mutating func skip(to count: UInt64) { while draws < count { _ = next() } }
}
