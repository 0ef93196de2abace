// The book notices a message that is lost, one that comes twice, and one that was changed: else a
// measurement of a broken cluster would look like one of a fast one.

import Base
import Testing

@testable import Bench

@Suite struct MessageBookTests {
  /// The records of `count` messages, one by one.
  static func records(_ book: MessageBook, _ count: Int, time: UInt64 = 7) -> [[UInt8]] {
    var run: [UInt8] = []
    _ = book.append(count, time: time, to: &run)
    return (0..<count).map { Array(run[$0 * book.recordBytes..<($0 + 1) * book.recordBytes]) }
  }

  static func deliver(_ record: [UInt8], to book: MessageBook) -> UInt64? {
    record.withUnsafeBytes { book.noteDelivered($0) }
  }

  @Test(arguments: [16, 17, 100, 1024])
  func whatWasPublishedIsRight(bodyBytes: Int) {
    let book = MessageBook(bodyBytes: bodyBytes, seed: 1)
    let records = Self.records(book, 300, time: 42)
    book.noteConfirmed(first: 0, count: 300)
    for record in records { #expect(Self.deliver(record, to: book) == 42) }
    #expect(book.deliveredCount == 300)
    #expect(book.lost == 0 && book.duplicated == 0 && book.corrupted == 0)
  }

  @Test func theRecordsAreMessageRecords() throws {
    let book = MessageBook(bodyBytes: 100, seed: 1)
    var run: [UInt8] = []
    _ = book.append(5, time: 1, to: &run)
    let count = try run.withUnsafeBytes { try MessageRecord.check($0, contentBytesMax: 1000) }
    #expect(count == 5)
  }

  @Test func aConfirmedMessageThatNeverComesIsLost() {
    let book = MessageBook(bodyBytes: 64, seed: 2)
    let records = Self.records(book, 200)
    book.noteConfirmed(first: 0, count: 200)
    for (number, record) in records.enumerated() where number != 130 {
      _ = Self.deliver(record, to: book)
    }
    #expect(book.lost == 1)
    #expect(book.firstLost == 130)
  }

  @Test func anUnconfirmedMessageMayBeMissing() {
    let book = MessageBook(bodyBytes: 64, seed: 2)
    _ = Self.records(book, 10)
    book.noteConfirmed(first: 0, count: 3)
    #expect(book.lost == 3)
    #expect(book.firstLost == 0)
  }

  @Test func aSecondDeliveryIsADuplicate() {
    let book = MessageBook(bodyBytes: 64, seed: 3)
    let records = Self.records(book, 3)
    for record in records + [records[1]] { _ = Self.deliver(record, to: book) }
    #expect(book.duplicated == 1)
    #expect(book.deliveredCount == 3)
  }

  /// Any change but to the time that a message carries.
  @Test func anyChangedByteIsCorruption() {
    let book = MessageBook(bodyBytes: 40, seed: 4)
    let record = Self.records(book, 5)[3]
    for position in record.indices where !(24..<32).contains(position) {
      for bit in 0..<8 {
        var damaged = record
        damaged[position] ^= 1 << bit
        #expect(Self.deliver(damaged, to: book) == nil, "byte \(position), bit \(bit)")
      }
    }
    #expect(book.duplicated == 0 && book.deliveredCount == 0)
    #expect(book.corrupted == UInt64((record.count - 8) * 8))
  }

  @Test func anotherSizeOrNumberIsCorruption() {
    let book = MessageBook(bodyBytes: 40, seed: 5)
    let other = MessageBook(bodyBytes: 41, seed: 5)
    let foreign = MessageBook(bodyBytes: 40, seed: 6)
    _ = Self.records(book, 2)
    #expect(Self.deliver(Self.records(other, 1)[0], to: book) == nil)
    #expect(Self.deliver(Self.records(foreign, 1)[0], to: book) == nil)
    let ahead = MessageBook(bodyBytes: 40, seed: 5)
    #expect(Self.deliver(Self.records(ahead, 3)[2], to: book) == nil)
    #expect(book.corrupted == 3)
  }
}
