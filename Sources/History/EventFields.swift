// The values of the line at hand, by key, and typed access to them. Apart from the reader's other
// state, so that strings can be put into its tables while this is read.

struct EventFields {
  private var slots = [Slot](repeating: Slot(), count: Field.allCases.count)
  private let fieldWords = Field.allCases.map { packedWord($0.name) }
  let actionWords = HistoryAction.allCases.map { packedWord($0.name) }
  let typeWords = HistoryEventType.allCases.map { packedWord($0.name) }
  private static let stale = packedWord(HistoryOperation.stale)

  subscript(field: Field) -> Slot { slots[field.rawValue] }

  /// Takes the object of a line apart.
  mutating func read(_ scanner: inout LineScanner) throws(LineFault) {
    for field in slots.indices { slots[field].kind = .absent }
    try scanner.object { (key, _, value) throws(LineFault) in
      var field = 0
      while field < fieldWords.count {
        if fieldWords[field] == key {
          slots[field] = value.kind == .null ? Slot() : value
          return
        }
        field &+= 1
      }
    }
  }

  func fault(_ field: Field, _ message: String) -> LineFault {
    LineFault(offset: slots[field.rawValue].column, message: message)
  }

  func missing(_ field: Field, _ begin: Int) -> LineFault {
    LineFault(offset: begin, message: "the event has no \(field.name)")
  }

  /// Whether it is for a token that is not its holder's any more that something failed.
  func saysStale(_ scanner: LineScanner) -> Bool {
    scanner.packed(slots[Field.error.rawValue]) == Self.stale
  }

  func whole(
    _ field: Field, _ scanner: LineScanner, _ begin: Int
  ) throws(LineFault) -> UInt64 {
    if slots[field.rawValue].kind == .absent { throw missing(field, begin) }
    return try optional(field, scanner)
  }

  /// `Absent.number` if it is not there.
  func optional(_ field: Field, _ scanner: LineScanner) throws(LineFault) -> UInt64 {
    let slot = slots[field.rawValue]
    if slot.kind == .absent { return Absent.number }
    guard let number = scanner.whole(slot) else {
      throw fault(field, "\(field.name) must be a whole number from 0 on")
    }
    return number
  }

  func optional32(_ field: Field, _ scanner: LineScanner) throws(LineFault) -> UInt32 {
    let number = try optional(field, scanner)
    if number == Absent.number { return Absent.reference }
    guard number < UInt64(UInt32.max) else { throw fault(field, "\(field.name) is too large") }
    return UInt32(number)
  }

  /// The number of a string in `table`. A number stands for its digits.
  func text(
    _ field: Field, _ table: inout StringTable, _ scanner: LineScanner, _ begin: Int
  ) throws(LineFault) -> UInt32 {
    let slot = slots[field.rawValue]
    switch slot.kind {
    case .text, .number:
      return table.number(
        of: UnsafeRawBufferPointer(
          start: scanner.base + slot.start, count: slot.end - slot.start))
    case .escapedText:
      return table.number(of: String(decoding: try scanner.unescaped(slot), as: UTF8.self))
    case .absent: throw missing(field, begin)
    default: throw fault(field, "\(field.name) must be a string")
    }
  }

  func optionalText(
    _ field: Field, _ table: inout StringTable, _ scanner: LineScanner, _ begin: Int
  ) throws(LineFault) -> UInt32 {
    if slots[field.rawValue].kind == .absent { return Absent.reference }
    return try text(field, &table, scanner, begin)
  }

  /// The place of a word among those that are allowed.
  func word(
    _ field: Field, _ words: [UInt64], _ scanner: LineScanner, _ begin: Int
  ) throws(LineFault) -> Int {
    let slot = slots[field.rawValue]
    if slot.kind == .absent { throw missing(field, begin) }
    guard slot.kind == .text else { throw fault(field, "unknown \(field.name)") }
    let word = scanner.packed(slot)
    guard word != 0, let place = words.firstIndex(of: word) else {
      let bytes = UnsafeRawBufferPointer(
        start: scanner.base + slot.start, count: min(40, slot.end - slot.start))
      throw fault(field, "unknown \(field.name) \"\(String(decoding: bytes, as: UTF8.self))\"")
    }
    return place
  }
}

/// The first eight bytes of a word as a number, as the scanner packs keys.
private func packedWord(_ word: String) -> UInt64 {
  word.utf8.prefix(8).enumerated().reduce(0) { $0 | UInt64($1.element) << UInt64($1.offset * 8) }
}
