// How a line of waiting messages is written in a snapshot: as runs of messages that follow each other in
// the same way. Those of one entry lie one behind the other in it, so that what came in one batch with
// records of one size is a run, and a line of ten million takes some bytes for each entry instead of 16
// for each message. Messages that differ in size take about 6 bytes each.
//
//   run     varint  messages in it, at least 1 (LEB128: seven bits a byte, the lowest first)
//           zigzag  step of the id bits, from each message to the next, the first from that before the run
//           zigzag  bytes between the record before and this one: offset - (offset + size before)
//           zigzag  step of size and flags (`Waiting.bits` without the offset)
//
// Before the first message stands one of zeros. A run is as long as it can be, whatever blocks the line
// has in memory: the same messages give the same bytes.

import Base

/// From one waiting message to the next.
private struct WaitingStep: Equatable {
  var id: UInt64
  var gap: UInt64
  var sizeAndFlags: UInt64

  private static let offsetBits: UInt64 = 28
  private static let offsetMask: UInt64 = 1 << offsetBits - 1

  /// Everything wraps around, so that there is a step between any two messages.
  @inline(__always)
  init(from: Waiting, to: Waiting) {
    id = to.idBits &- from.idBits
    gap = to.bits & Self.offsetMask &- (from.bits & Self.offsetMask &+ from.size)
    sizeAndFlags = to.bits >> Self.offsetBits &- from.bits >> Self.offsetBits
  }

  init(decoding reader: inout ByteReader) throws {
    id = try reader.zigzag()
    gap = try reader.zigzag()
    sizeAndFlags = try reader.zigzag()
  }

  func encode(into bytes: inout [UInt8]) {
    bytes.putZigzag(id)
    bytes.putZigzag(gap)
    bytes.putZigzag(sizeAndFlags)
  }

  /// nil where no message can be.
  @inline(__always)
  func next(after last: Waiting) -> Waiting? {
    let offset = last.bits & Self.offsetMask &+ last.size &+ gap
    let rest = last.bits >> Self.offsetBits &+ sizeAndFlags
    guard offset <= Self.offsetMask, rest <= UInt64.max >> Self.offsetBits else { return nil }
    return Waiting(idBits: last.idBits &+ id, packed: offset | rest << Self.offsetBits)
  }
}

/// Writes a line, message by message.
struct WaitingRunWriter {
  private var last = Waiting(idBits: 0, packed: 0)
  /// From each of the run's messages to the next.
  private var step: WaitingStep?
  private var count: UInt64 = 0

  mutating func put(_ messages: ArraySlice<Waiting>, into bytes: inout [UInt8]) {
    for message in messages {
      let step = WaitingStep(from: last, to: message)
      if step != self.step {
        end(into: &bytes)
        self.step = step
      }
      count += 1
      last = message
    }
  }

  /// Behind the last message.
  mutating func end(into bytes: inout [UInt8]) {
    guard let step else { return }
    bytes.putVarint(count)
    step.encode(into: &bytes)
    self.step = nil
    count = 0
  }
}

extension WaitingLine {
  /// Reads `total` messages back, of entries up to `applied`.
  ///
  /// - Throws: `ByteReaderError`, or `SnapshotFault` where runs do not make a line.
  init(_ total: UInt64, of applied: LogIndex, decoding reader: inout ByteReader) throws {
    self.init()
    var last = Waiting(idBits: 0, packed: 0)
    var missing = total
    while missing > 0 {
      let count = try reader.varint()
      let step = try WaitingStep(decoding: &reader)
      guard count > 0, count <= missing else { throw SnapshotFault.run }
      missing -= count
      for _ in 0..<count {
        // In the order of their ids, all of entries that there were. A snapshot with right checksums that
        // a node did not write could still ask for more memory than there is.
        guard let next = step.next(after: last), next.id > last.id, next.id.entry <= applied else {
          throw SnapshotFault.run
        }
        append(next)
        last = next
      }
    }
  }
}

extension Waiting {
  init(decoding reader: inout ByteReader) throws {
    self.init(idBits: try reader.integer(), packed: try reader.integer())
    if id.rawValue == 0 { throw SnapshotFault.reference }
  }
}

extension ReadyLevel {
  init(
    of applied: LogIndex, _ format: UInt32, decoding reader: inout ByteReader
  ) throws {
    self.init()
    let inLine: UInt64 = try reader.integer()
    if format == SnapshotFormat.versionWithoutRuns {
      var last = MessageID(rawValue: 0)
      for _ in 0..<inLine {
        let message = try Waiting(decoding: &reader)
        guard message.id > last, message.id.entry <= applied else { throw SnapshotFault.run }
        append(message)
        last = message.id
      }
    } else {
      line = try WaitingLine(inLine, of: applied, decoding: &reader)
    }
    for _ in 0..<(try reader.integer(UInt64.self)) { giveBack(try Waiting(decoding: &reader)) }
  }
}

extension [UInt8] {
  fileprivate mutating func putVarint(_ value: UInt64) {
    var rest = value
    while rest > 127 {
      append(UInt8(truncatingIfNeeded: rest) | 128)
      rest >>= 7
    }
    append(UInt8(rest))
  }

  /// As a difference in two's complement: small ones take one byte, negative ones too.
  fileprivate mutating func putZigzag(_ difference: UInt64) {
    putVarint(difference << 1 ^ (0 &- (difference >> 63)))
  }
}

extension ByteReader {
  fileprivate mutating func varint() throws -> UInt64 {
    var value: UInt64 = 0
    for shift in stride(from: UInt64(0), to: 64, by: 7) {
      let byte = try integer(UInt8.self)
      // The tenth byte has room for one bit.
      if shift == 63, byte > 1 { break }
      value |= UInt64(byte & 127) << shift
      if byte < 128 { return value }
    }
    throw SnapshotFault.run
  }

  fileprivate mutating func zigzag() throws -> UInt64 {
    let value = try varint()
    return value >> 1 ^ (0 &- (value & 1))
  }
}
