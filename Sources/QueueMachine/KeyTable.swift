// Keys: of one key at most so many messages are out at a time, the others wait behind them in the
// key's room, so that its order is kept while different keys go in parallel.
//
// A message is out from when it may be delivered until it leaves the queue: also while a consumer
// holds it and while it waits for its retry. Who is out stands in the ready queue by turn, so that
// keys take turns and one key's backlog does not hold up the others. Delayed publishes are not out.

import Base

/// A message that may be delivered, and when it is its turn.
struct Turn: HeapEntry {
  var number: UInt64
  var message: Waiting

  var key: UInt64 { message.id.rawValue }
  func precedes(_ other: Turn) -> Bool { number < other.number }
}

/// A message that waits until another of its key leaves: higher priorities first, then by id.
struct BlockedMessage: HeapEntry {
  var message: Waiting

  var key: UInt64 { message.id.rawValue }

  func precedes(_ other: BlockedMessage) -> Bool {
    message.priority == other.message.priority
      ? message.id < other.message.id : message.priority > other.message.priority
  }
}

struct KeyTable: Sendable {
  struct Room: Sendable {
    /// How many messages of the key are out.
    var out: UInt32 = 0
    var blocked = IndexedHeap<BlockedMessage>()
  }

  /// By the hash of the key. Keys of equal hashes are one key.
  private(set) var rooms = IntegerMap<Room>()
  /// The hash of the key by message id, for all messages of the queue that have one.
  private(set) var keys = IntegerMap<UInt64>()
  /// The number of the next turn.
  var nextTurn: UInt64 = 1
  private(set) var blockedCount = 0

  /// A hash that is the same in every process, not 0.
  static func hash(_ key: Slice<UnsafeRawBufferPointer>) -> UInt64 {
    var hash = StateHash()
    for byte in key { hash.fold(UInt64(byte)) }
    return max(1, hash.value)
  }

  func key(of id: MessageID) -> UInt64 { keys[id.rawValue] ?? 0 }

  mutating func add(_ id: MessageID, key: UInt64) { keys.insert(key, for: id.rawValue) }

  /// Whether one more of the key may be out, which it then is.
  mutating func maybeLetOut(_ message: Waiting, limit: UInt32) -> Bool {
    let key = key(of: message.id)
    if rooms[key] == nil { rooms.insert(Room(), for: key) }
    let isOut = rooms.update(key) { room in
      if room.out < limit {
        room.out += 1
        return true
      }
      room.blocked.set(BlockedMessage(message: message))
      return false
    }
    if isOut == false { blockedCount += 1 }
    return isOut ?? false
  }

  /// One that was out is so no more; returns the one that is out in its place.
  mutating func replace(key: UInt64) -> Waiting? {
    let next = rooms.update(key) { room -> Waiting? in
      invariant(room.out > 0, "key \(key) has nothing out")
      room.out -= 1
      guard let next = room.blocked.popFirst() else { return nil }
      room.out += 1
      return next.message
    }
    if next.flatMap({ $0 }) != nil { blockedCount -= 1 }
    if let room = rooms[key], room.out == 0, room.blocked.isEmpty { rooms.remove(key) }
    return next.flatMap { $0 }
  }

  mutating func removeBlocked(_ id: MessageID) -> Waiting? {
    guard let key = keys[id.rawValue] else { return nil }
    let removed = rooms.update(key) { $0.blocked.remove(id.rawValue)?.message }
    guard let message = removed.flatMap({ $0 }) else { return nil }
    blockedCount -= 1
    return message
  }

  func blocked(_ id: MessageID) -> Waiting? {
    keys[id.rawValue].flatMap { rooms[$0]?.blocked[id.rawValue]?.message }
  }

  mutating func forget(_ id: MessageID) { keys.remove(id.rawValue) }

  func forEachBlocked(_ body: (Waiting) -> Void) {
    if blockedCount == 0 { return }
    for key in rooms.sortedKeys { rooms[key]?.blocked.entries.forEach { body($0.message) } }
  }

  // For reading snapshots.

  mutating func restoreOut(_ message: Waiting) {
    // A forged snapshot may have the mark without the key.
    let key = max(1, key(of: message.id))
    if rooms.update(key, { $0.out += 1 }) == nil { rooms.insert(Room(out: 1), for: key) }
  }

  mutating func restoreBlocked(_ message: Waiting) {
    _ = maybeLetOut(message, limit: 0)
  }
}

extension QueueState {
  /// The messages with ids above `id` that are ready but for their key, by id, at most `limit`.
  func readyOrBlocked(after id: MessageID, limit: Int) -> [Waiting] {
    var found = ready.messages(after: id, limit: limit)
    if keys.blockedCount == 0 { return found }
    keys.forEachBlocked { if $0.id > id { found.append($0) } }
    found.sort { $0.id < $1.id }
    return Array(found.prefix(limit))
  }

  /// Makes a message ready that is not out, or lets it wait for others of its key.
  mutating func join(_ message: Waiting) {
    if settings.keyLimit == 0 {
      ready.append(message)
    } else if !message.has(Waiting.hasKey)
      || keys.maybeLetOut(message, limit: settings.keyLimit)
    {
      takeTurn(message)
    }
  }

  private mutating func takeTurn(_ message: Waiting) {
    ready.append(message, turn: keys.nextTurn)
    keys.nextTurn += 1
  }

  /// Gives up the place of a message that was out; the next of its key is ready then.
  mutating func giveUpPlace(of message: Waiting) {
    if message.has(Waiting.hasKey), let next = keys.replace(key: keys.key(of: message.id)) {
      takeTurn(next)
    }
  }
}
