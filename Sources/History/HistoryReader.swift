// JSON Lines into a History, piece by piece, so that a file need not be in memory: lines are cut,
// scanned in place (LineScanner), checked against the format, and completions matched to their
// invokes. docs/history-format.md is the format.

package struct HistoryReader {
  var history = History()
  /// The beginning of a line whose end has not come yet.
  private var carry: [UInt8] = []
  private var line = 0
  private var lastIndex: UInt64?
  private var lastTime: UInt64 = 0
  var fields = EventFields()
  /// The number of its name.
  private let nemesis: UInt32
  /// Messages with many open invokes.
  var crowded: [UInt32: OpenInvokes] = [:]
  /// By process, whether it was killed.
  var killed: [Bool] = []

  /// No event is as long as this; a file without line breaks is no history.
  private static let lineBytesMax = 16 << 20

  package init() { nemesis = history.processes.number(of: "nemesis") }

  /// Makes room for the events of a file of `bytes` bytes, so that memory is not copied on the way.
  package mutating func reserve(bytes: Int) {
    // Real histories have 120 to 200 bytes an event. What is not used takes no memory.
    history.events.reserveCapacity(bytes / 110)
  }

  // MARK: Lines

  package mutating func read(_ bytes: [UInt8]) throws(HistoryError) {
    do {
      try bytes.withUnsafeBytes { (piece) in try read(piece) }
    } catch let error as HistoryError {
      throw error
    } catch {
      throw HistoryError(line: line, column: 1, message: "\(error)")
    }
  }

  /// Takes the next piece of the file, cut anywhere.
  package mutating func read(_ piece: UnsafeRawBufferPointer) throws(HistoryError) {
    var start = 0
    while let end = Self.newline(in: piece, from: start) {
      let part = UnsafeRawBufferPointer(rebasing: piece[start..<end])
      if carry.isEmpty {
        try take(part)
      } else {
        carry.append(contentsOf: part)
        try takeCarry()
      }
      start = end + 1
    }
    carry.append(contentsOf: piece[start...])
    if carry.count > Self.lineBytesMax {
      throw HistoryError(line: line + 1, column: 1, message: "the line is longer than 16 MiB")
    }
  }

  /// The history, when the whole file has been read.
  package mutating func finish() throws(HistoryError) -> History {
    if !carry.isEmpty { try takeCarry() }
    for position in history.events.indices where history.events[position].marks.contains(.open) {
      history.events[position].partner = Absent.reference
    }
    if let queue = history.endlessDeadLetters() {
      throw HistoryError(
        line: line, column: 1,
        message: "more than \(History.deadLettersMax) dead-letter queues come behind \(queue)")
    }
    var finished = History()
    swap(&finished, &history)
    return finished
  }

  private static func newline(in piece: UnsafeRawBufferPointer, from start: Int) -> Int? {
    var offset = start
    while offset &+ 8 <= piece.count {
      // A byte that is a newline becomes 0, which the subtraction makes borrow.
      let word =
        piece.loadUnaligned(fromByteOffset: offset, as: UInt64.self) ^ 0x0a0a_0a0a_0a0a_0a0a
      let zeros = (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
      if zeros != 0 { return offset &+ zeros.trailingZeroBitCount / 8 }
      offset &+= 8
    }
    while offset < piece.count {
      if piece[offset] == 0x0a { return offset }
      offset &+= 1
    }
    return nil
  }

  private mutating func takeCarry() throws(HistoryError) {
    var bytes: [UInt8] = []
    swap(&bytes, &carry)
    do {
      try bytes.withUnsafeBytes { (line) in try take(line) }
    } catch let error as HistoryError {
      throw error
    } catch {
      throw HistoryError(line: line, column: 1, message: "\(error)")
    }
  }

  private mutating func take(_ bytes: UnsafeRawBufferPointer) throws(HistoryError) {
    line += 1
    do throws(LineFault) {
      // SAFETY: the scanner is used while `bytes` is borrowed; an empty line has no address.
      guard let base = bytes.baseAddress else { return }
      var scanner = LineScanner(bytes, base: base)
      if line == 1, bytes.starts(with: [0xef, 0xbb, 0xbf]) { scanner.position = 3 }
      scanner.skipSpace()
      if scanner.position == bytes.count { return }
      try takeEvent(&scanner)
    } catch {
      throw HistoryError(line: line, column: error.offset + 1, message: error.message)
    }
  }

  // MARK: Fields

  private mutating func takeEvent(_ scanner: inout LineScanner) throws(LineFault) {
    let begin = scanner.position
    try fields.read(&scanner)
    scanner.skipSpace()
    if scanner.position < scanner.count { throw scanner.fault("more than one object in the line") }
    var event = try frame(scanner, begin)
    if event.action == .nemesis {
      try takeNemesis(&event, scanner)
    } else {
      try fill(&event, scanner, begin)
      try takeOperation(&event, scanner, begin)
    }
  }

  /// What every event has: index, time, process, type, f.
  private mutating func frame(
    _ scanner: LineScanner, _ begin: Int
  ) throws(LineFault) -> Event {
    let index = try fields.whole(.index, scanner, begin)
    if let lastIndex, index <= lastIndex {
      throw fields.fault(.index, "index \(index) after \(lastIndex) does not grow")
    }
    let time = try fields.whole(.time, scanner, begin)
    if time < lastTime { throw fields.fault(.time, "time \(time) after \(lastTime) falls") }
    lastIndex = index
    lastTime = time
    let process = try fields.text(.process, &history.processes, scanner, begin)
    let isNemesis = process == nemesis
    let type = try fields.word(.type, fields.typeWords, scanner, begin)
    let action =
      isNemesis
      ? Int(HistoryAction.nemesis.rawValue)
      : try fields.word(.f, fields.actionWords, scanner, begin)
    guard let action = HistoryAction(rawValue: UInt8(action)), isNemesis || action != .nemesis,
      let type = HistoryEventType(rawValue: UInt8(type))
    else { throw fields.fault(.f, "nemesis is a process, not an f") }
    return Event(
      index: index, time: time, token: Absent.number, span: Absent.number, moment: Absent.number,
      message: Absent.reference, process: process, id: Absent.reference,
      partner: Absent.reference, next: Absent.reference, key: Absent.reference,
      level: Absent.reference, action: action, type: type, marks: [])
  }

  /// What only operations of clients have.
  private mutating func fill(
    _ event: inout Event, _ scanner: LineScanner, _ begin: Int
  ) throws(LineFault) {
    let queue = try fields.text(.queue, &history.queues, scanner, begin)
    var value = Absent.reference
    if fields[.value].kind != .absent {
      value = try fields.text(.value, &history.values, scanner, begin)
    } else if event.action.needsValue {
      throw fields.missing(.value, begin)
    }
    event.message = message(queue: queue, value: value)
    event.token = try fields.optional(.token, scanner)
    switch event.action {
    case .publish:
      event.span = try fields.optional(.delay, scanner)
      event.moment = try fields.optional(.ttl, scanner)
      event.level = try fields.optional32(.priority, scanner)
      event.key = try fields.optionalText(.key, &history.names, scanner, begin)
      event.id = try fields.optionalText(.id, &history.names, scanner, begin)
    case .deliver, .extend:
      event.span = try fields.optional(.lease, scanner)
      event.moment = try fields.optional(.granted, scanner)
      event.level = try fields.optional32(.attempt, scanner)
      event.id = try fields.optionalText(.id, &history.names, scanner, begin)
    case .nack, .reschedule: event.span = try fields.optional(.delay, scanner)
    default: break
    }
  }

  private mutating func message(queue: UInt32, value: UInt32) -> UInt32 {
    let (number, isNew) = history.messageNumbers.insert(PairTable.pair(queue, value))
    if isNew {
      history.messages.append(
        MessageRecord(
          queue: queue, value: value, firstEvent: Absent.reference, lastEvent: Absent.reference))
    }
    return number
  }

  // MARK: Events

  private mutating func takeOperation(
    _ event: inout Event, _ scanner: LineScanner, _ begin: Int
  ) throws(LineFault) {
    let position = EventPosition(history.events.count)
    let message = Int(event.message)
    if Int(event.process) < killed.count, killed[Int(event.process)],
      event.type == .invoke || event.action == .deliver
    {
      let name = history.processes.text(event.process)
      throw fields.fault(.process, "\(name) was killed: its name must not be used again")
    }
    if event.action == .deliver {
      guard event.type == .ok else { throw fields.fault(.type, "a deliver is a single ok event") }
      if event.token == Absent.number { throw fields.missing(.token, begin) }
    } else if event.type == .invoke {
      event.marks = .open
      open(position, event)
    } else {
      guard let invoke = close(event) else {
        throw LineFault(
          offset: begin,
          message: "no open invoke of this process, f, queue, value and token completes here")
      }
      event.partner = invoke
      if event.type == .fail, event.action.isSettlement, fields.saysStale(scanner) {
        event.marks = .stale
      }
      history.events[Int(invoke)].partner = position
      history.events[Int(invoke)].marks.remove(.open)
      if event.action == .declare, event.type == .ok { try takeSettings(event, scanner) }
    }
    if history.messages[message].firstEvent == Absent.reference {
      history.messages[message].firstEvent = position
    } else {
      history.events[Int(history.messages[message].lastEvent)].next = position
    }
    history.messages[message].lastEvent = position
    history.events.append(event)
  }

  private mutating func takeSettings(
    _ event: Event, _ scanner: LineScanner
  ) throws(LineFault) {
    let slot = fields[.config]
    guard slot.kind != .absent else { return }
    guard slot.kind == .object else { throw fields.fault(.config, "config must be an object") }
    let text = scanner
    var inner = scanner
    inner.position = slot.start
    var settings = HistoryQueueSettings()
    try inner.object { (_, key, value) throws(LineFault) in
      if value.kind == .null { return }
      let name = String(decoding: try text.unescaped(key), as: UTF8.self)
      if name == "deadLetter" {
        guard value.kind == .text || value.kind == .escapedText else {
          throw LineFault(offset: value.start, message: "deadLetter must be a string")
        }
        settings.deadLetter = String(decoding: try text.unescaped(value), as: UTF8.self)
      } else if name == "retryJitter" {
        guard let part = text.billionths(value) else {
          throw LineFault(offset: value.start, message: "retryJitter must be from 0 to 1")
        }
        settings.retryJitterBillionths = part
      } else if let path = Self.wholeSettings[name] {
        // `keyed` may be said with true or false as well.
        let isSaid = name == "keyed" && value.kind == .literal
        guard let number = text.whole(value) ?? (isSaid ? 1 : nil) else {
          throw LineFault(offset: value.start, message: "\(name) must be a whole number")
        }
        settings[keyPath: path] = number
      }
    }
    history.declare(history.messages[Int(event.message)].queue, settings)
    if let deadLetter = settings.deadLetter { _ = history.queues.number(of: deadLetter) }
  }

  private static var wholeSettings: [String: WritableKeyPath<HistoryQueueSettings, UInt64?>] {
    [
      "retryDelay": \.retryDelay, "retryMax": \.retryMax, "maxDeliveries": \.maxDeliveries,
      "lease": \.lease, "priorities": \.priorities, "keyed": \.keyed, "ttl": \.timeToLive,
    ]
  }
}
