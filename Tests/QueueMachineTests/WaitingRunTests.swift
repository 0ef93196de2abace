// Lines of waiting messages in snapshots: any line comes back as it was, and what is no line is refused.

import Base
import TestSupport
import Testing

@testable import QueueMachine

@Suite struct WaitingRunTests {
  private static let lastEntry = LogIndex(1 << 43)

  private static func encoded(_ messages: [Waiting], pieces: [Int] = []) -> [UInt8] {
    var bytes: [UInt8] = []
    var writer = WaitingRunWriter()
    var rest = messages[...]
    for piece in pieces {
      writer.put(rest.prefix(piece), into: &bytes)
      rest = rest.dropFirst(piece)
    }
    writer.put(rest, into: &bytes)
    writer.end(into: &bytes)
    return bytes
  }

  private static func decoded(
    _ bytes: [UInt8], _ count: Int, of applied: LogIndex = lastEntry
  ) throws -> [Waiting] {
    try bytes.withUnsafeBytes {
      var reader = ByteReader($0)
      let line = try WaitingLine(UInt64(count), of: applied, decoding: &reader)
      #expect(reader.isAtEnd)
      var messages: [Waiting] = []
      line.forEachBlock { messages += $0 }
      #expect(line.count == messages.count)
      return messages
    }
  }

  /// Messages as entries bring them: so many of one entry, one behind the other, then the next.
  private static func batches(
    _ random: inout SeededRandom, sizes: ClosedRange<Int>, perEntry: ClosedRange<Int>
  ) -> [Waiting] {
    var messages: [Waiting] = []
    var entry: UInt64 = .random(in: 1...1_000_000, using: &random)
    while messages.count < 10_000 {
      var offset = 16
      for ordinal in 0..<Int.random(in: perEntry, using: &random) {
        let size = Int.random(in: sizes, using: &random)
        messages.append(
          Waiting(
            id: MessageID(entry: LogIndex(entry), ordinal: ordinal), offset: offset, size: size))
        offset += size
      }
      entry += .random(in: 1...3, using: &random)
    }
    return messages
  }

  @Test func equalMessagesTakeAFewBytesForEachEntry() throws {
    var random = SeededRandom(seed: 1)
    let batches = Self.batches(&random, sizes: 1_060...1_060, perEntry: 400...500)
    let bytes = Self.encoded(batches)
    #expect(bytes.count < batches.count / 400 * 25)
    #expect(try Self.decoded(bytes, batches.count) == batches)

    let singles = Self.batches(&random, sizes: 300...300, perEntry: 1...1)
    #expect(Self.encoded(singles).count < singles.count * 6)
    #expect(try Self.decoded(Self.encoded(singles), singles.count) == singles)
  }

  @Test func unequalMessagesTakeLessThanInMemory() throws {
    var random = SeededRandom(seed: 2)
    for perEntry in [1...1, 1...20, 400...500] {
      let messages = Self.batches(&random, sizes: 40...20_000, perEntry: perEntry)
      let bytes = Self.encoded(messages)
      #expect(bytes.count < messages.count * 10)
      #expect(try Self.decoded(bytes, messages.count) == messages)
    }
  }

  /// Whatever a message can be: flags, priorities, shared records, the largest sizes and offsets.
  @Test func anyLineComesBack() throws {
    var random = SeededRandom(seed: 3)
    for _ in 0..<40 {
      var messages: [Waiting] = []
      var id: UInt64 = 0
      let step = UInt64(1) << UInt64.random(in: 0...40, using: &random)
      for _ in 0..<Int.random(in: 0...9_000, using: &random) {
        id += .random(in: 1...step, using: &random)
        let shared: UInt64 = Bool.random(using: &random) ? 1 << 63 : 0
        messages.append(
          Waiting(idBits: id | shared, packed: .random(in: 0...UInt64.max, using: &random)))
      }
      #expect(try Self.decoded(Self.encoded(messages), messages.count) == messages)
    }
  }

  /// Two nodes have the same line in other blocks.
  @Test func blocksDoNotShowInTheBytes() {
    var random = SeededRandom(seed: 4)
    let messages = Self.batches(&random, sizes: 100...101, perEntry: 1...50)
    let whole = Self.encoded(messages)
    for _ in 0..<20 {
      let pieces = (0..<30).map { _ in Int.random(in: 0...400, using: &random) }
      #expect(Self.encoded(messages, pieces: pieces) == whole)
    }
  }

  @Test func whatIsNoLineIsRefused() throws {
    // One message, id 1, at offset 0, of size 8: one of the run, steps 1, 0 and 8, each doubled.
    #expect(try Self.decoded([1, 2, 0, 16], 1).map(\.size) == [8])
    let bad: [(String, [UInt8], Int)] = [
      ("no message in a run", [0, 2, 0, 16], 1),
      ("more than there are", [2, 2, 0, 0], 1),
      ("the same id again", [1, 2, 0, 16, 1, 0, 0, 0], 2),
      ("an id before the last", [1, 4, 0, 16, 1, 1, 0, 0], 2),
      ("an offset below 0", [1, 2, 1, 16], 1),
      ("a size below 0", [1, 2, 0, 1], 1),
      ("a number of eleven bytes", [1] + Array(repeating: 255, count: 10) + [0, 0, 0], 1),
      ("a number above 64 bits", [1] + Array(repeating: 255, count: 9) + [2, 0, 0], 1),
      ("nothing", [], 1),
      ("half a run", [1, 2, 0], 1),
    ]
    for (name, bytes, count) in bad {
      #expect(throws: (any Error).self, "\(name)") { _ = try Self.decoded(bytes, count) }
    }
    // However many a run says it has: its messages must be of entries that were applied.
    let endless: [UInt8] = [255, 255, 255, 255, 255, 255, 255, 127, 2, 0, 0]
    #expect(throws: SnapshotFault.self) {
      _ = try Self.decoded(endless, 1 << 60, of: LogIndex(0))
    }
  }
}
