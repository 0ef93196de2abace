// Randomness as a value: the only source that the pure layers may use, always from a passed-in
// seed, so that a run can be repeated.

/// xoshiro256** (Blackman and Vigna 2018), seeded through SplitMix64. Not for secrets.
@frozen @usableFromInline package struct SeededRandom: RandomNumberGenerator, Sendable {
  @usableFromInline var state: (UInt64, UInt64, UInt64, UInt64)

  package init(seed: UInt64) {
    var split = seed
    func next() -> UInt64 {
      split &+= 0x9e37_79b9_7f4a_7c15
      var z = split
      z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
      z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
      return z ^ (z >> 31)
    }
    state = (next(), next(), next(), next())
  }

  @usableFromInline package mutating func next() -> UInt64 {
    let product = state.1 &* 5
    let result = ((product << 7) | (product >> 57)) &* 9
    let shifted = state.1 << 17
    state.2 ^= state.0
    state.3 ^= state.1
    state.1 ^= state.2
    state.0 ^= state.3
    state.2 ^= shifted
    state.3 = (state.3 << 45) | (state.3 >> 19)
    return result
  }
}
