// The messages of a queue that wait to be delivered, 16 bytes each, in the order of their ids.
//
// Messages of higher priorities wait beside them, each level by itself. New messages join a line of blocks; what comes back goes into a small heap in front of it, so
// that a returned message has its own place again (G5). Messages that wait for their time stand
// beside it (`QueueState.delayed`); the line's cost does not change by that.

import Base

/// A message as a queue keeps it while it waits.
struct Waiting: Hashable, Sendable {
  /// The id, and in its highest bit, which no entry's number reaches, `isShared`.
  private(set) var idBits: UInt64
  /// Bits 0...27 the record's offset in its entry's payload, 28...55 its size, 56...63 flags.
  private var packed: UInt64

  /// There is a `MessageNote` for it.
  static let hasNote: UInt64 = 1 << 56
  /// It was in a consumer's hands before.
  static let wasDelivered: UInt64 = 1 << 57
  /// Its queue has keys and it has one, so its place there is to be given up when it leaves.
  static let hasKey: UInt64 = 1 << 63
  /// Bits 58...62 are the priority, 0 where the queue that it was published to has none.
  private static let priorityShift: UInt64 = 58

  private static let sharedBit: UInt64 = 1 << 63

  @inline(__always)
  init(id: MessageID, isShared: Bool = false, offset: Int, size: Int) {
    invariant(
      offset <= FixedLimits.payloadBytesMax && size <= FixedLimits.payloadBytesMax,
      "record at \(offset) of \(size) bytes")
    idBits = id.rawValue | (isShared ? Self.sharedBit : 0)
    packed = UInt64(offset) | UInt64(size) << 28
  }

  /// For reading snapshots.
  init(idBits: UInt64, packed: UInt64) {
    self.idBits = idBits
    self.packed = packed
  }

  @inline(__always)
  var id: MessageID { MessageID(rawValue: idBits & ~Self.sharedBit) }
  /// Other messages have the same record: it was published to several queues at once.
  var isShared: Bool { idBits & Self.sharedBit != 0 }
  mutating func becomeShared() { idBits |= Self.sharedBit }

  var offset: UInt32 { UInt32(packed & 0xfff_ffff) }
  var size: UInt64 { packed >> 28 & 0xfff_ffff }
  var bits: UInt64 { packed }
  func has(_ flag: UInt64) -> Bool { packed & flag != 0 }
  mutating func set(_ flag: UInt64) { packed |= flag }

  var priority: Int { Int(packed >> Self.priorityShift & 31) }

  /// Of a message that has none yet.
  mutating func set(priority: Int) { packed |= UInt64(min(priority, 31)) << Self.priorityShift }

  /// The record of a message that was never moved.
  var ownReference: RecordReference {
    RecordReference(entry: id.entry, offset: offset, size: UInt32(size))
  }
}

/// First in, first out, in blocks: a snapshot shares all blocks, and a change after it copies one.
struct WaitingLine: Sendable {
  /// The oldest block; messages before `headIndex` are gone. Not used up unless all is empty.
  private var head: [Waiting] = []
  private var headIndex = 0
  /// Full blocks between head and tail.
  private var middle = RingBuffer<[Waiting]>()
  /// The newest block. Empty while everything fits into the head.
  private var tail: [Waiting] = []
  private(set) var count = 0

  static let blockCount = 4_096
  /// A block with more room than this is given up when it runs empty, so that many queues that
  /// were busy once do not keep memory.
  private static let keptCapacity = 1_024

  var isEmpty: Bool { count == 0 }
  var first: Waiting? { count == 0 ? nil : head[headIndex] }

  @inline(__always)
  mutating func append(_ message: Waiting) {
    count += 1
    if tail.isEmpty, middle.isEmpty, head.count < Self.blockCount {
      head.append(message)
    } else {
      appendToTail(message)
    }
  }

  private mutating func appendToTail(_ message: Waiting) {
    if tail.count == Self.blockCount {
      middle.append(tail)
      tail = []
    } else if tail.count == Self.keptCapacity {
      tail.reserveCapacity(Self.blockCount)
    }
    tail.append(message)
  }

  @inline(__always)
  mutating func popFirst() -> Waiting? {
    if count == 0 { return nil }
    let message = head[headIndex]
    headIndex += 1
    count -= 1
    if headIndex == head.count { nextHead() }
    return message
  }

  /// The head is used up.
  private mutating func nextHead() {
    headIndex = 0
    var next = middle.popFirst()
    // Messages taken out one by one may have left it empty.
    while let block = next, block.isEmpty { next = middle.popFirst() }
    if let block = next {
      head = block
    } else if !tail.isEmpty {
      head = []
      swap(&head, &tail)
    } else if head.capacity > Self.keptCapacity {
      head = []
    } else {
      head.removeAll(keepingCapacity: true)
    }
  }

  /// All messages in order, block by block.
  func forEachBlock(_ body: (ArraySlice<Waiting>) -> Void) {
    if headIndex < head.count { body(head[headIndex...]) }
    for place in 0..<middle.count { body(middle[place][...]) }
    if !tail.isEmpty { body(tail[...]) }
  }

  /// The messages with ids above `id`, at most `limit`, found by halving.
  func messages(after id: MessageID, limit: Int) -> [Waiting] {
    var found: [Waiting] = []
    forEachBlock { block in
      guard found.count < limit, let last = block.last, last.id > id else { return }
      var low = block.startIndex
      var high = block.endIndex
      while low < high {
        let middle = (low + high) / 2
        if block[middle].id > id { high = middle } else { low = middle + 1 }
      }
      found.append(contentsOf: block[low...].prefix(limit - found.count))
    }
    return found
  }

  /// The message with this id, if it is here.
  func message(_ id: MessageID) -> Waiting? {
    var found: Waiting?
    forEachBlock { block in
      if let place = Self.place(of: id, in: block) { found = block[place] }
    }
    return found
  }

  /// Takes a message out of the line. Costs a look at each block and a move within one.
  mutating func remove(_ id: MessageID) -> Waiting? {
    if first?.id == id { return popFirst() }
    if let place = Self.place(of: id, in: head[headIndex...]) {
      count -= 1
      return head.remove(at: place)
    }
    for number in 0..<middle.count {
      if let place = Self.place(of: id, in: middle[number][...]) {
        count -= 1
        return middle[number].remove(at: place)
      }
    }
    guard let place = Self.place(of: id, in: tail[...]) else { return nil }
    count -= 1
    return tail.remove(at: place)
  }

  /// Found by halving; nil if the block does not have it.
  private static func place(of id: MessageID, in block: ArraySlice<Waiting>) -> Int? {
    guard let first = block.first, let last = block.last, first.id <= id, id <= last.id else {
      return nil
    }
    var low = block.startIndex
    var high = block.endIndex
    while low < high {
      let middle = (low + high) / 2
      if block[middle].id < id { low = middle + 1 } else { high = middle }
    }
    return block[low].id == id ? low : nil
  }
}

/// What waits at one level of priority, in the order in which it is to be delivered.
struct ReadyLevel: Sendable {
  var line = WaitingLine()
  /// Messages that came back, the smallest id first.
  var returned = IndexedHeap<Waiting>()
  /// In place of the line in a queue with keys: by their turns.
  var turns = IndexedHeap<Turn>()

  @inline(__always)
  var count: Int { line.count + returned.count + turns.count }
  @inline(__always)
  var isEmpty: Bool { count == 0 }

  @inline(__always)
  mutating func append(_ message: Waiting) { line.append(message) }

  /// Back to its own place.
  mutating func giveBack(_ message: Waiting) { returned.set(message) }

  @inline(__always)
  mutating func popFirst() -> Waiting? {
    returned.isEmpty ? line.popFirst() ?? turns.popFirst()?.message : popEarlier()
  }

  @inline(never)
  private mutating func popEarlier() -> Waiting? {
    guard let back = returned.first else { return line.popFirst() }
    if let next = line.first, next.id < back.id { return line.popFirst() }
    return returned.popFirst()
  }

  /// Takes a message out wherever it stands; nil if it is not here.
  mutating func remove(_ id: MessageID) -> Waiting? {
    returned.remove(id.rawValue) ?? turns.remove(id.rawValue)?.message ?? line.remove(id)
  }

  /// The message with this id, if it is here.
  func message(_ id: MessageID) -> Waiting? {
    returned[id.rawValue] ?? turns[id.rawValue]?.message ?? line.message(id)
  }

  /// All messages, in no particular order.
  func forEach(_ body: (Waiting) -> Void) {
    forEachBlock({ $0.forEach(body) }, others: body)
  }

  func forEachBlock(_ body: (ArraySlice<Waiting>) -> Void, others: (Waiting) -> Void) {
    line.forEachBlock(body)
    returned.entries.forEach(others)
    for turn in turns.entries { others(turn.message) }
  }

  /// The messages with ids above `id` by id, at most `limit`.
  func messages(after id: MessageID, limit: Int) -> [Waiting] {
    var found = line.messages(after: id, limit: limit)
    found.append(contentsOf: returned.entries.filter { $0.id > id })
    for turn in turns.entries where turn.message.id > id { found.append(turn.message) }
    found.sort { $0.id < $1.id }
    return Array(found.prefix(limit))
  }
}

/// What waits, in the order in which it is to be delivered: the highest level first, but a level
/// that was passed over `passedOverMax` times since its last turn is next, so that nothing starves.
struct ReadyQueue: Sendable {
  /// Priority 0, and all of a queue without priorities.
  var lowest = ReadyLevel()
  /// The levels above it, by priority.
  private(set) var higher: [ReadyLevel] = []
  /// By level: how many messages of higher ones were delivered since its last turn, or since it was
  /// empty. Empty without priorities.
  private(set) var passedOver: [UInt32] = []

  static let passedOverMax: UInt32 = 64

  init(levels: Int = 1) {
    if levels == 1 { return }
    higher = Array(repeating: ReadyLevel(), count: levels - 1)
    passedOver = Array(repeating: 0, count: levels)
  }

  @inline(__always)
  var count: Int { higher.isEmpty ? lowest.count : countOfAll }
  var isEmpty: Bool { count == 0 }

  private var countOfAll: Int { higher.reduce(lowest.count) { $0 + $1.count } }

  @inline(__always)
  mutating func append(_ message: Waiting) {
    if higher.isEmpty {
      lowest.append(message)
    } else {
      change(level(of: message)) { $0.append(message) }
    }
  }

  /// In a queue with keys: behind all that have a turn already.
  mutating func append(_ message: Waiting, turn: UInt64) {
    change(level(of: message)) { $0.turns.set(Turn(number: turn, message: message)) }
  }

  /// Back to its own place.
  mutating func giveBack(_ message: Waiting) {
    change(level(of: message)) { $0.giveBack(message) }
  }

  @inline(__always)
  mutating func popFirst() -> Waiting? { higher.isEmpty ? lowest.popFirst() : popByPriority() }

  @inline(never)
  private mutating func popByPriority() -> Waiting? {
    guard let top = (0...higher.count).last(where: { !isEmpty($0) }) else { return nil }
    var chosen = top
    for level in 0..<top {
      if isEmpty(level) {
        passedOver[level] = 0
      } else if chosen == top, passedOver[level] >= Self.passedOverMax {
        chosen = level
      }
    }
    for level in 0..<chosen where !isEmpty(level) { passedOver[level] += 1 }
    passedOver[chosen] = 0
    return change(chosen) { $0.popFirst() }
  }

  /// The oldest of the lowest level: what makes room.
  mutating func popOldest() -> Waiting? {
    for level in 0...higher.count where !isEmpty(level) {
      return change(level) { $0.popFirst() }
    }
    return nil
  }

  /// Takes a message out wherever it stands; nil if it is not here.
  mutating func remove(_ id: MessageID) -> Waiting? {
    for level in 0...higher.count {
      if let message = change(level, { $0.remove(id) }) { return message }
    }
    return nil
  }

  /// The message with this id, if it is here.
  func message(_ id: MessageID) -> Waiting? {
    for level in 0...higher.count {
      if let message = self[level: level].message(id) { return message }
    }
    return nil
  }

  /// All messages: those in line in blocks by their ids, and `others`, in no particular order.
  func forEachBlock(_ body: (ArraySlice<Waiting>) -> Void, others: (Waiting) -> Void) {
    lowest.forEachBlock(body, others: others)
    for level in higher { level.forEachBlock(body, others: others) }
  }

  /// All messages, in no particular order.
  func forEach(_ body: (Waiting) -> Void) {
    lowest.forEach(body)
    for level in higher { level.forEach(body) }
  }

  /// The messages with ids above `id` by id, at most `limit`.
  func messages(after id: MessageID, limit: Int) -> [Waiting] {
    var found = lowest.messages(after: id, limit: limit)
    if higher.isEmpty { return found }
    for level in higher { found += level.messages(after: id, limit: limit) }
    found.sort { $0.id < $1.id }
    return Array(found.prefix(limit))
  }

  /// Level 0 is the lowest.
  subscript(level level: Int) -> ReadyLevel { level == 0 ? lowest : higher[level - 1] }

  /// Asked for every level whenever a message is taken: without the copy that the subscript makes.
  @inline(__always)
  private func isEmpty(_ level: Int) -> Bool {
    level == 0 ? lowest.isEmpty : higher[level - 1].isEmpty
  }

  private func level(of message: Waiting) -> Int { min(message.priority, higher.count) }

  private mutating func change<Result>(
    _ level: Int, _ body: (inout ReadyLevel) -> Result
  ) -> Result {
    level == 0 ? body(&lowest) : body(&higher[level - 1])
  }

  /// For reading snapshots.
  mutating func restore(_ level: Int, _ waiting: ReadyLevel, passedOver count: UInt32) {
    change(level) { $0 = waiting }
    if !higher.isEmpty { passedOver[level] = count }
  }
}
