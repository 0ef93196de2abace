// Tests of the ground layer: checksum vectors, containers against the standard library's, records.

import Testing

@testable import Base

@Suite struct ChecksumTests {
  @Test("CRC-32C gives the test vectors of RFC 3720 B.4")
  func knownVectors() {
    #expect(Checksum(of: [UInt8](repeating: 0, count: 32)).rawValue == 0x8a91_36aa)
    #expect(Checksum(of: [UInt8](repeating: 0xff, count: 32)).rawValue == 0x62a8_ab43)
    #expect(Checksum(of: [UInt8](0..<32)).rawValue == 0x46dd_794e)
    #expect(Checksum(of: Array("123456789".utf8)).rawValue == 0xe306_9283)
  }

  @Test("Long inputs (three lanes) agree with the same bytes summed piece by piece")
  func longInputs() {
    var random = SeededRandom(seed: 1)
    let bytes = (0..<40_000).map { _ in UInt8.random(in: 0...255, using: &random) }
    for count in [0, 1, 7, 8, 767, 768, 769, 4_096, 12_288, 12_289, 40_000] {
      var piecewise = Checksum(rawValue: 0)
      var at = 0
      while at < count {
        let end = min(count, at + 61)
        piecewise = bytes[at..<end].withUnsafeBytes { Checksum(of: $0, after: piecewise) }
        at = end
      }
      #expect(Checksum(of: Array(bytes[..<count])) == piecewise, "\(count) bytes")
    }
  }
}

@Suite struct ContainerTests {
  @Test("IntegerMap behaves as Dictionary under random inserts and removals")
  func integerMap() {
    var random = SeededRandom(seed: 2)
    var map = IntegerMap<Int>()
    var model: [UInt64: Int] = [:]
    for step in 0..<20_000 {
      let key = UInt64.random(in: 1...400, using: &random)
      if Bool.random(using: &random) {
        map.insert(step, for: key)
        model[key] = step
      } else {
        #expect(map.remove(key) == model.removeValue(forKey: key))
      }
      #expect(map.count == model.count)
      #expect(map[key] == model[key])
    }
    #expect(map.sortedKeys == model.keys.sorted())
  }

  @Test("RingBuffer behaves as an array under random pushes and pops")
  func ringBuffer() {
    var random = SeededRandom(seed: 3)
    var ring = RingBuffer<Int>()
    var model: [Int] = []
    for step in 0..<20_000 {
      switch Int.random(in: 0..<5, using: &random) {
      case 0...2:
        ring.append(step)
        model.append(step)
      case 3:
        #expect(ring.popFirst() == (model.isEmpty ? nil : model.removeFirst()))
      default:
        #expect(ring.popLast() == model.popLast())
      }
      #expect(ring.count == model.count)
      #expect(ring.first == model.first)
      #expect(ring.last == model.last)
    }
    #expect((0..<ring.count).map { ring[$0] } == model)
  }
}

@Suite struct MessageRecordTests {
  let message = MessageParts(
    body: Array("body".utf8), headers: [("a", [1, 2]), ("b", [])], key: "k",
    contentType: "text/plain", priority: 3, delay: .seconds(1), timeToLive: .milliseconds(5))

  @Test("A message goes through its record unchanged")
  func roundTrip() throws {
    for message in [message, MessageParts(body: [])] {
      var bytes: [UInt8] = []
      MessageRecord.append(message, to: &bytes)
      let parts = try bytes.withUnsafeBytes { try MessageRecord.parts(of: $0) }
      #expect(parts == message)
    }
  }

  @Test("Every truncation of a run is refused")
  func truncations() throws {
    var bytes: [UInt8] = []
    MessageRecord.append(message, to: &bytes)
    let first = bytes.count
    MessageRecord.append(message, to: &bytes)
    for count in 1..<bytes.count where count != first {
      #expect(throws: MessageRecordError.self) {
        try Array(bytes[..<count]).withUnsafeBytes {
          try MessageRecord.check($0, contentBytesMax: 1_000)
        }
      }
    }
    #expect(try bytes.withUnsafeBytes { try MessageRecord.check($0, contentBytesMax: 1_000) } == 2)
    #expect(throws: MessageRecordError.self) {
      try bytes.withUnsafeBytes {
        try MessageRecord.check($0, contentBytesMax: first - MessageRecord.headBytesMax - 1)
      }
    }
  }

  @Test("No single changed byte makes the checker read outside or crash")
  func changedBytes() {
    var bytes: [UInt8] = []
    MessageRecord.append(message, to: &bytes)
    for at in bytes.indices {
      for value: UInt8 in [0, 1, 0x7f, 0x80, 0xff] {
        var changed = bytes
        changed[at] = value
        let count = changed.withUnsafeBytes {
          try? MessageRecord.check($0, contentBytesMax: 1 << 20)
        }
        #expect(count == nil || count == 1)
      }
    }
  }
}

@Suite struct NearestNameTests {
  @Test("A mistyped name finds its neighbour, a foreign one none")
  func nearest() {
    let known = ["--lines", "--rate", "--delay", "--priority"]
    #expect(nearestName(to: "--lnies", in: known) == "--lines")
    #expect(nearestName(to: "--prioritty", in: known) == "--priority")
    #expect(nearestName(to: "--zzzzzzz", in: known) == nil)
  }
}

@Suite struct MessageIDTests {
  @Test("The text of a message id reads back; other text is refused")
  func text() {
    let id = MessageID(entry: LogIndex(77), ordinal: 5)
    #expect(id.description == "77-5")
    #expect(MessageID(text: "77-5") == id)
    for wrong in ["", "77", "77-", "-5", "77-1048576", "a-b", "1-2-3", "17592186044416-0"] {
      #expect(MessageID(text: wrong) == nil, "\(wrong)")
    }
  }
}
