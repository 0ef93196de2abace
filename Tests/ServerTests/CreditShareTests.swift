// What the consumers of an AMQP connection may hold together.

import Base
import Testing

@testable import Server

@Suite struct CreditShareTests {
  @Test(
    "All together never have more than there is, and nobody less than it must", arguments: 1...8)
  func sharesFit(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var shares = CreditShares()
    var wanted: [Int] = []
    var changes = 0
    for _ in 0..<1_000 {
      if wanted.isEmpty || wanted.count < 2_048 && random.next() % 8 < 5 {
        let one = [1, 100, 2_048, 20_000, 65_535, 65_535][Int(random.next() % 6)]
        wanted.append(one)
        shares.add(one)
      } else {
        shares.remove(wanted.remove(at: Int(random.next() % UInt64(wanted.count))))
      }
      if shares.settle() { changes += 1 }
      func total(_ share: Int) -> Int { wanted.reduce(0) { $0 + min($1, share) } }
      #expect(total(shares.share) <= CreditShares.budget)
      // A share is a power of two, and is raised where a quarter would be left.
      #expect(shares.share >= 65_536 || total(2 * shares.share) > CreditShares.budget / 4 * 3)
    }
    #expect(changes > 0)
  }

  @Test func whoComesAndGoesChangesNothingForTheOthers() {
    var shares = CreditShares()
    for _ in 0..<1_000 {
      shares.add(65_535)
      _ = shares.settle()
    }
    var changes = 0
    for _ in 0..<1_000 {
      shares.add(65_535)
      if shares.settle() { changes += 1 }
      shares.remove(65_535)
      if shares.settle() { changes += 1 }
    }
    #expect(changes <= 1)
    #expect(shares.share == 128)
  }
}
