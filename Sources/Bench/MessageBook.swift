// Every message that the load makes, and what came of it. A body tells its number and the time it
// was meant to be sent; the rest is taken from one random block at a place that the number decides,
// so that comparing it costs no more than reading it.
//
//   body offset size
//             0    8  number of the message, from 0
//             8    8  reading of this process's monotonic clock, nanoseconds
//            16       filler

import Base
import Glibc

/// Makes records and judges deliveries. Belongs to the loop's thread.
package final class MessageBook {
  package static let bodyBytesMin = 16
  /// Different beginnings that a filler may have.
  private static let fillers: UInt64 = 4096

  let bodyBytes: Int
  private let pattern: [UInt8]
  private var confirmed = NumberSet()
  private var delivered = NumberSet()
  /// The next number.
  package private(set) var issued: UInt64 = 0
  /// Deliveries of messages that were delivered before.
  package private(set) var duplicated: UInt64 = 0
  /// Deliveries that are not what was published.
  package private(set) var corrupted: UInt64 = 0

  package init(bodyBytes: Int, seed: UInt64) {
    invariant(bodyBytes >= Self.bodyBytesMin, "a body of \(bodyBytes) bytes has no room")
    self.bodyBytes = bodyBytes
    var random = SeededRandom(seed: seed)
    pattern = (0..<bodyBytes + Int(Self.fillers)).map { _ in
      UInt8.random(in: 0...255, using: &random)
    }
  }

  /// Bytes of one record.
  package var recordBytes: Int { MessageRecord.fixedBytes + bodyBytes }
  /// Different messages that came.
  package var deliveredCount: UInt64 { delivered.count }
  package var confirmedCount: UInt64 { confirmed.count }
  /// Confirmed and never delivered, to be asked when nothing more comes.
  package var lost: UInt64 { confirmed.count(without: delivered) }
  package var firstLost: UInt64? { confirmed.first(without: delivered) }

  /// Appends the records of the next `count` messages, all meant for `time`.
  ///
  /// - Returns: the first number.
  package func append(_ count: Int, time: UInt64, to bytes: inout [UInt8]) -> UInt64 {
    let first = issued
    issued += UInt64(count)
    let sizes = (UInt64(recordBytes) | UInt64(bodyBytes) << 32).littleEndian
    pattern.withUnsafeBytes { pattern in
      for place in 0..<count {
        let number = first + UInt64(place)
        let head = (sizes, UInt64(0), number.littleEndian, time.littleEndian)
        // SAFETY: reads the tuple's own 32 bytes.
        withUnsafeBytes(of: head) { bytes.append(contentsOf: $0) }
        bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: pattern[filler(of: number)]))
      }
    }
    return first
  }

  private func filler(of number: UInt64) -> Range<Int> {
    // Neighbours begin far apart, so that mixed-up messages differ.
    let start = Int((number &* 0x9e37_79b9) % Self.fillers)
    return start..<start + bodyBytes - Self.bodyBytesMin
  }

  /// A body alone, for a client that makes the record itself.
  package func nextBody(time: UInt64) -> (number: UInt64, body: [UInt8]) {
    var record: [UInt8] = []
    let number = append(1, time: time, to: &record)
    return (number, Array(record[MessageRecord.fixedBytes...]))
  }

  package func noteConfirmed(first: UInt64, count: UInt64) {
    for number in first..<first + count { _ = confirmed.insert(number) }
  }

  /// Judges one delivered record.
  ///
  /// - Returns: the time in it; nil if it is not what was published.
  package func noteDelivered(_ record: UnsafeRawBufferPointer) -> UInt64? {
    guard let (number, time) = read(record) else {
      corrupted += 1
      return nil
    }
    if !delivered.insert(number) { duplicated += 1 }
    return time
  }

  /// As above, for a body that was taken out of its record.
  package func noteDelivered(body: UnsafeRawBufferPointer) -> UInt64? {
    guard let (number, time) = readBody(body) else {
      corrupted += 1
      return nil
    }
    if !delivered.insert(number) { duplicated += 1 }
    return time
  }

  private func read(_ record: UnsafeRawBufferPointer) -> (number: UInt64, time: UInt64)? {
    guard record.count == recordBytes else { return nil }
    // SAFETY: a record has at least its head of 16 bytes.
    let sizes = UInt64(littleEndian: record.loadUnaligned(as: UInt64.self))
    let rest = record.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    guard sizes == UInt64(recordBytes) | UInt64(bodyBytes) << 32, rest == 0 else { return nil }
    return readBody(UnsafeRawBufferPointer(rebasing: record[MessageRecord.fixedBytes...]))
  }

  private func readBody(_ body: UnsafeRawBufferPointer) -> (number: UInt64, time: UInt64)? {
    guard body.count == bodyBytes, let base = body.baseAddress else { return nil }
    // SAFETY: a body has at least 16 bytes.
    let number = UInt64(littleEndian: body.loadUnaligned(as: UInt64.self))
    let time = UInt64(littleEndian: body.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    guard number < issued else { return nil }
    let filler = filler(of: number)
    let isEqual = pattern.withUnsafeBytes { pattern in
      // SAFETY: both ranges have `bodyBytes` - 16 bytes within their buffers.
      guard let expected = pattern.baseAddress else { return false }
      return memcmp(base + Self.bodyBytesMin, expected + filler.lowerBound, filler.count) == 0
    }
    return isEqual ? (number, time) : nil
  }
}
