// Which of the numbers 0, 1, 2 … were seen: one bit each.

/// A set of small numbers that grows to the largest one.
struct NumberSet: Sendable {
  private var words: [UInt64] = []
  private(set) var count: UInt64 = 0

  /// - Returns: whether it was not there before.
  mutating func insert(_ number: UInt64) -> Bool {
    let place = Int(number >> 6)
    if place >= words.count { grow(to: place) }
    let bit: UInt64 = 1 << (number & 63)
    guard words[place] & bit == 0 else { return false }
    words[place] |= bit
    count += 1
    return true
  }

  private mutating func grow(to place: Int) {
    let wanted = max(place + 1, words.count * 2)
    words.append(contentsOf: repeatElement(0, count: wanted - words.count))
  }

  /// How many numbers are here and not in `other`.
  func count(without other: NumberSet) -> UInt64 {
    var missing: UInt64 = 0
    for (place, word) in words.enumerated() {
      let known = place < other.words.count ? other.words[place] : 0
      missing += UInt64((word & ~known).nonzeroBitCount)
    }
    return missing
  }

  /// The lowest number that is here and not in `other`.
  func first(without other: NumberSet) -> UInt64? {
    for (place, word) in words.enumerated() {
      let known = place < other.words.count ? other.words[place] : 0
      let rest = word & ~known
      if rest != 0 { return UInt64(place * 64 + rest.trailingZeroBitCount) }
    }
    return nil
  }
}
