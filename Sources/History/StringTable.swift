// Strings by number: each is kept once, as bytes in one pool, and found by open addressing. Used for
// every event, therefore without `String` and `Dictionary`.

/// Numbers from 0 for byte strings, in the order of their first coming.
struct StringTable {
  private var pool: [UInt8] = []
  /// Where string `n` ends in the pool; it begins where the one before ends.
  private var ends: [Int] = []
  private var hashes: [UInt32] = []
  /// Number + 1 of the string in this slot, 0 if empty.
  private var slots: [UInt32] = [UInt32](repeating: 0, count: 64)

  var count: Int { ends.count }

  /// The number of `bytes`, a new one if they are new.
  mutating func number(of bytes: UnsafeRawBufferPointer) -> UInt32 {
    let hash = Self.hash(bytes)
    let mask = slots.count &- 1
    var slot = Int(hash) & mask
    while slots[slot] != 0 {
      let number = Int(slots[slot] &- 1)
      if hashes[number] == hash, equals(number, bytes) { return UInt32(number) }
      slot = (slot &+ 1) & mask
    }
    let number = UInt32(ends.count)
    slots[slot] = number + 1
    pool.append(contentsOf: bytes)
    ends.append(pool.count)
    hashes.append(hash)
    if ends.count * 2 > slots.count { grow() }
    return number
  }

  mutating func number(of text: String) -> UInt32 {
    var text = text
    return text.withUTF8 { number(of: UnsafeRawBufferPointer($0)) }
  }

  func text(_ number: UInt32) -> String {
    String(decoding: pool[range(Int(number))], as: UTF8.self)
  }

  private func range(_ number: Int) -> Range<Int> {
    (number == 0 ? 0 : ends[number &- 1])..<ends[number]
  }

  private func equals(_ number: Int, _ bytes: UnsafeRawBufferPointer) -> Bool {
    let range = range(number)
    guard range.count == bytes.count else { return false }
    return pool.withUnsafeBytes { pool in
      var offset = 0
      while offset < bytes.count {
        if pool[range.lowerBound &+ offset] != bytes[offset] { return false }
        offset &+= 1
      }
      return true
    }
  }

  private mutating func grow() {
    var larger = [UInt32](repeating: 0, count: slots.count * 2)
    let mask = larger.count - 1
    for (number, hash) in hashes.enumerated() {
      var slot = Int(hash) & mask
      while larger[slot] != 0 { slot = (slot + 1) & mask }
      larger[slot] = UInt32(number + 1)
    }
    slots = larger
  }

  /// Eight bytes at a time, multiplied and folded. The same in every process.
  private static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var hash: UInt64 = 0x9e37_79b9_7f4a_7c15 ^ UInt64(bytes.count)
    var offset = 0
    while offset &+ 8 <= bytes.count {
      hash = mix(hash ^ bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      offset &+= 8
    }
    var rest: UInt64 = 0
    while offset < bytes.count {
      rest = rest << 8 | UInt64(bytes[offset])
      offset &+= 1
    }
    return UInt32(truncatingIfNeeded: mix(hash ^ rest))
  }

  private static func mix(_ value: UInt64) -> UInt64 {
    let product = value.multipliedFullWidth(by: 0xd6e8_feb8_6659_fd93)
    return product.high ^ product.low
  }
}

/// Numbers for pairs of numbers, in the order of their first coming.
struct PairTable {
  private var pairs: [UInt64] = []
  /// Number + 1 of the pair in this slot, 0 if empty.
  private var slots: [UInt32] = [UInt32](repeating: 0, count: 64)

  static func pair(_ first: UInt32, _ second: UInt32) -> UInt64 {
    UInt64(first) << 32 | UInt64(second)
  }

  private static func home(_ pair: UInt64) -> Int {
    let product = pair &* 0x9e37_79b9_7f4a_7c15
    return Int(truncatingIfNeeded: (product ^ (product >> 32)) & 0x7fff_ffff)
  }

  func number(of pair: UInt64) -> UInt32? {
    let mask = slots.count &- 1
    var slot = Self.home(pair) & mask
    while slots[slot] != 0 {
      let number = slots[slot] &- 1
      if pairs[Int(number)] == pair { return number }
      slot = (slot &+ 1) & mask
    }
    return nil
  }

  /// The number of `pair` and whether it is new.
  mutating func insert(_ pair: UInt64) -> (number: UInt32, isNew: Bool) {
    let mask = slots.count &- 1
    var slot = Self.home(pair) & mask
    while slots[slot] != 0 {
      let number = slots[slot] &- 1
      if pairs[Int(number)] == pair { return (number, false) }
      slot = (slot &+ 1) & mask
    }
    let number = UInt32(pairs.count)
    slots[slot] = number + 1
    pairs.append(pair)
    if pairs.count * 2 > slots.count { grow() }
    return (number, true)
  }

  private mutating func grow() {
    var larger = [UInt32](repeating: 0, count: slots.count * 2)
    let mask = larger.count - 1
    for (number, pair) in pairs.enumerated() {
      var slot = Self.home(pair) & mask
      while larger[slot] != 0 { slot = (slot + 1) & mask }
      larger[slot] = UInt32(number + 1)
    }
    slots = larger
  }
}
