// Reading a payload's fields with errors that name the frame.

import Base

/// `ByteReader` over one frame's payload, whose errors are `FrameError`.
struct FieldReader {
  let kind: FrameKind
  private var reader: ByteReader

  init(_ frame: FrameView) {
    kind = frame.kind
    reader = ByteReader(frame.payload)
  }

  mutating func integer<Integer: FixedWidthInteger>(
    _ type: Integer.Type = Integer.self
  ) throws(FrameError) -> Integer {
    do { return try reader.integer() } catch { throw named(error) }
  }

  mutating func identifier<ID: Identifier>(
    _ type: ID.Type = ID.self
  ) throws(FrameError) -> ID {
    ID(rawValue: try integer(ID.RawValue.self))
  }

  mutating func flag(_ field: String) throws(FrameError) -> Bool {
    let value = try integer(UInt8.self)
    guard value <= 1 else { throw .invalidValue(kind, field: field, value: UInt64(value)) }
    return value == 1
  }

  mutating func choice<Choice: RawRepresentable>(
    _ type: Choice.Type = Choice.self, _ field: String
  ) throws(FrameError) -> Choice where Choice.RawValue: FixedWidthInteger {
    let value = try integer(Choice.RawValue.self)
    guard let choice = Choice(rawValue: value) else {
      throw .invalidValue(kind, field: field, value: UInt64(truncatingIfNeeded: value))
    }
    return choice
  }

  /// A refusal of a later version is one all the same: only its reason stays unknown.
  mutating func refusal() throws(FrameError) -> Refusal {
    Refusal(rawValue: try integer()) ?? .other
  }

  mutating func text() throws(FrameError) -> String {
    do { return try reader.shortText() } catch { throw named(error) }
  }

  mutating func longBytes() throws(FrameError) -> [UInt8] {
    do { return try reader.longBytes() } catch { throw named(error) }
  }

  mutating func settings() throws(FrameError) -> QueueSettings {
    do { return try QueueSettings(decoding: &reader) } catch { throw named(error) }
  }

  mutating func filter() throws(FrameError) -> MessageFilter {
    do { return try MessageFilter(decoding: &reader) } catch { throw named(error) }
  }

  mutating func deliveryRange() throws(FrameError) -> DeliveryRange {
    let first = try identifier(DeliveryID.self)
    let last = try identifier(DeliveryID.self)
    guard first <= last else {
      throw .invalidValue(kind, field: "end of a delivery range", value: last.rawValue)
    }
    return DeliveryRange(first: first, last: last)
  }

  mutating func deliveryRanges() throws(FrameError) -> [DeliveryRange] {
    try list(elementBytesMin: 16) { (reader) throws(FrameError) in try reader.deliveryRange() }
  }

  /// A list behind a 32-bit count.
  ///
  /// - Parameter elementBytesMin: the fewest bytes of one element: a count that cannot be true is
  ///   refused before room is made for it.
  mutating func list<Element>(
    elementBytesMin: Int, _ element: (inout FieldReader) throws(FrameError) -> Element
  ) throws(FrameError) -> [Element] {
    let count = Int(try integer(UInt32.self))
    guard count <= reader.remaining / elementBytesMin else {
      throw .truncated(
        kind, offset: reader.offset, needed: count * elementBytesMin, available: reader.remaining)
    }
    var elements: [Element] = []
    elements.reserveCapacity(count)
    for _ in 0..<count { elements.append(try element(&self)) }
    return elements
  }

  /// All that is left, borrowed.
  mutating func rest() throws(FrameError) -> UnsafeRawBufferPointer {
    do { return try reader.take(reader.remaining) } catch { throw named(error) }
  }

  func checkEnd() throws(FrameError) {
    guard reader.isAtEnd else { throw .trailingBytes(kind, bytes: reader.remaining) }
  }

  private func named(_ error: ByteReaderError) -> FrameError {
    switch error {
    case .truncated(let offset, let needed, let available):
      .truncated(kind, offset: offset, needed: needed, available: available)
    case .notUTF8(let offset): .notUTF8(kind, offset: offset)
    }
  }
}

extension Array where Element == UInt8 {
  /// Appends text behind a 16-bit length, cut to `limit` bytes at the boundary of a character: for
  /// what people read, where a long text must not become an error of its own.
  mutating func putClippedText(_ text: String, limit: Int = 4096) {
    guard text.utf8.count > limit else { return putShortText(text) }
    var end = text.utf8.index(text.utf8.startIndex, offsetBy: limit)
    while end.samePosition(in: text.unicodeScalars) == nil { end = text.utf8.index(before: end) }
    putShortText(String(text[..<end]))
  }

  mutating func putList<Item>(_ items: [Item], _ put: (Item, inout [UInt8]) -> Void) {
    self.put(UInt32(items.count))
    for item in items { put(item, &self) }
  }

  mutating func putFlag(_ flag: Bool) { put(UInt8(flag ? 1 : 0)) }

  mutating func put(_ range: DeliveryRange) {
    put(range.first)
    put(range.last)
  }
}
