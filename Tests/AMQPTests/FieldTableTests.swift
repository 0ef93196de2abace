// Field tables: byte-identical both ways, and nothing that is no table passes.

import AMQP
import Testing

@Suite struct FieldTableTests {
  static let all = FieldTable([
    ("t", .boolean(true)), ("b", .int8(-2)), ("B", .uint8(200)), ("s", .int16(-300)),
    ("u", .uint16(65_000)), ("I", .int32(-70_000)), ("i", .uint32(4_000_000_000)),
    ("l", .int64(-5_000_000_000)), ("f", .float(bits: Float(1.5).bitPattern)),
    ("d", .double(bits: (2.25).bitPattern)), ("D", .decimal(scale: 2, value: 314)),
    ("S", .text("text")), ("x", .bytes([0, 255])), ("T", .timestamp(1_700_000_000)),
    ("V", .void), ("F", .table(FieldTable([("in", .table(FieldTable()))]))),
    ("A", .array([.int8(1), .array([]), .void])),
  ])

  @Test func everyTypeIsTheSameBothWays() throws {
    let bytes = Self.all.encoded
    let read = try FieldTable(bytes)
    #expect(read == Self.all)
    #expect(read.encoded == bytes)
  }

  @Test func everyTruncationIsFoundOrEndsBetweenEntries() {
    let bytes = Self.all.encoded
    for count in 0..<bytes.count {
      let part = [UInt8](bytes.prefix(count))
      if let read = try? FieldTable(part) { #expect(read.encoded == part) }
    }
  }
}
