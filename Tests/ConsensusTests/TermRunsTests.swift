import Base
import Testing

@testable import Consensus

@Suite struct TermRunsTests {
  /// The same as an array of terms, index 1 first.
  struct Naive {
    var base = 0
    var terms: [UInt64] = []
    func term(at index: Int) -> Term? {
      guard index >= base, index <= terms.count else { return nil }
      return index == 0 ? .zero : Term(terms[index - 1])
    }
    func place(atOrBefore index: Int, termAtMost term: UInt64) -> LogPosition {
      for place in stride(from: min(index, terms.count), to: base, by: -1)
      where terms[place - 1] <= term {
        return position(UInt64(place), terms[place - 1])
      }
      return position(UInt64(base), base == 0 ? 0 : terms[base - 1])
    }
  }

  @Test("agrees with an array of terms under random appends, truncations and drops")
  func randomized() {
    for seed in 1...20 as ClosedRange<UInt64> {
      var random = SeededRandom(seed: seed)
      var naive = Naive()
      var runs = TermRuns(base: .zero)
      for _ in 0..<200 {
        let last = naive.terms.count
        switch random.next() % 6 {
        case 0 where last > naive.base:
          let from = naive.base + 1 + Int(random.next() % UInt64(last - naive.base))
          naive.terms.removeSubrange((from - 1)...)
          runs.truncate(from: LogIndex(UInt64(from)))
        case 1 where last > naive.base:
          let through = naive.base + Int(random.next() % UInt64(last - naive.base + 1))
          naive.base = through
          runs.drop(through: LogIndex(UInt64(through)))
        default:
          let term = max(1, naive.terms.last ?? 1) + (random.next() % 4 == 0 ? 1 : 0)
          naive.terms.append(term)
          runs.append(position(UInt64(last + 1), term))
        }
        runs.checkInvariants()
        for index in 0...naive.terms.count + 1 {
          let found = runs.term(at: LogIndex(UInt64(index)))
          #expect(found == naive.term(at: index), "seed \(seed), index \(index), \(runs)")
        }
        let index = Int(random.next() % UInt64(naive.terms.count + 2))
        let term = random.next() % 20
        if index >= naive.base {
          #expect(
            runs.place(atOrBefore: LogIndex(UInt64(index)), termAtMost: Term(term))
              == naive.place(atOrBefore: index, termAtMost: term), "seed \(seed)")
        }
      }
    }
  }
}
