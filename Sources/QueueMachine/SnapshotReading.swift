// Reading a snapshot back. The layout is in Snapshot.swift. What can be derived from the rest (who
// is held, deadlines, byte counts) is derived, so that it cannot contradict.

import Base

extension MachineState {
  init(snapshot: UnsafeRawBufferPointer, limits: MachineLimits) throws(SnapshotError) {
    self.init(limits: limits)
    var (format, reader) = try Self.checked(snapshot)
    do {
      appliedIndex = try reader.identifier()
      clock = try reader.identifier()
      hash = StateHash(value: try reader.integer())
      nextQueue = try reader.integer()
      tokenFloor = try reader.integer()
      var targets: [(slot: Int, target: QueueID)] = []
      for _ in 0..<(try reader.integer(UInt32.self)) {
        let (queue, target) = try Self.queue(of: appliedIndex, format, &reader)
        let slot = queues.insert(queue)
        keptHeaderBytes += queue.headerBytes
        queueSlots.insert(slot, for: UInt64(queue.id.rawValue))
        queueNames[queue.name] = slot
        if target.rawValue != 0 { targets.append((slot, target)) }
      }
      for (slot, target) in targets {
        guard let found = self.slot(of: target) else { throw SnapshotFault.reference }
        queues[slot].deadLetterSlot = found
        queues[found].deadLetterUsers += 1
      }
      for _ in 0..<(try reader.integer(UInt32.self)) { try readProducer(&reader) }
      for _ in 0..<(try reader.integer(UInt32.self)) { try readSession(&reader) }
      for id in queueSlots.sortedKeys {
        if let slot = queueSlots[id] {
          try readRotation(of: slot, &reader)
          lowerDeadline(ofQueue: slot)
        }
      }
      topology = try Topology(decoding: &reader) { queueSlots.contains(UInt64($0)) }
    } catch {
      throw .damaged("\(error)")
    }
    guard reader.isAtEnd else { throw .damaged("\(reader.remaining) bytes too many") }
  }

  /// Checks what surrounds the state; returns the format and a reader behind it.
  private static func checked(
    _ snapshot: UnsafeRawBufferPointer
  ) throws(SnapshotError) -> (UInt32, ByteReader) {
    var reader = ByteReader(UnsafeRawBufferPointer(rebasing: snapshot.dropLast(4)))
    let format: UInt32
    do {
      guard try reader.integer(UInt32.self) == SnapshotFormat.magic else {
        throw SnapshotError.notASnapshot
      }
      format = try reader.integer(UInt32.self)
      guard format == SnapshotFormat.version || format == SnapshotFormat.versionWithoutRuns else {
        throw SnapshotError.unknownFormat(format)
      }
    } catch let error as SnapshotError {
      throw error
    } catch {
      throw .notASnapshot
    }
    // SAFETY: the reader has read 8 bytes before the last 4.
    let stored = UInt32(
      littleEndian: snapshot.loadUnaligned(fromByteOffset: snapshot.count - 4, as: UInt32.self))
    guard stored == Checksum(of: reader.bytes).rawValue else { throw .damaged("checksum") }
    return (format, reader)
  }

  private static func queue(
    of applied: LogIndex, _ format: UInt32, _ reader: inout ByteReader
  ) throws -> (queue: QueueState, target: QueueID) {
    var queue = QueueState()
    queue.id = try reader.key()
    queue.name = try reader.shortText()
    queue.settings = try QueueSettings(decoding: &reader)
    let target = try reader.identifier(QueueID.self)
    queue.nextToken = try reader.integer()
    queue.lastUse = try reader.identifier()
    queue.activeConsumer = try reader.integer()
    queue.exclusiveConsumer = try reader.integer()
    queue.published = try reader.integer()
    queue.delivered = try reader.integer()
    queue.acknowledged = try reader.integer()
    queue.redelivered = try reader.integer()
    queue.deadLettered = try reader.integer()
    queue.dropped = try reader.integer()
    queue.needsTrim = try reader.integer(UInt8.self) != 0
    guard queue.settings.fault == nil else { throw SnapshotFault.reference }
    if queue.settings.keyLimit > 0 { try Self.readKeys(of: &queue, &reader) }
    let levels = Int(queue.settings.priorities)
    queue.ready = ReadyQueue(levels: levels)
    for number in 0..<levels {
      let passedOver = levels == 1 ? 0 : try reader.integer(UInt32.self)
      var level = try ReadyLevel(of: applied, format, decoding: &reader)
      if queue.settings.keyLimit > 0 { try level.readTurns(&reader) }
      level.forEach { message in
        queue.bytes += message.size
        if message.has(Waiting.hasKey) { queue.keys.restoreOut(message) }
      }
      queue.ready.restore(number, level, passedOver: passedOver)
    }
    for _ in 0..<(try reader.integer(UInt64.self)) {
      let message = try Waiting(decoding: &reader)
      queue.delayed.set(DelayedMessage(due: try reader.identifier(), message: message))
      if message.has(Waiting.hasKey), message.has(Waiting.wasDelivered) {
        queue.keys.restoreOut(message)
      }
      queue.bytes += message.size
    }
    for _ in 0..<(try reader.integer(UInt32.self)) {
      let id = try reader.key(MessageID.self)
      let note = try MessageNote(decoding: &reader)
      queue.notes.insert(note, for: id.rawValue)
      queue.headerBytes += note.keptBytes
      // Those held past their time are looked at once more, which does nothing.
      if note.expires != .never { queue.expiries.set(id.rawValue, to: note.expires) }
    }
    return (queue, target)
  }

  private static func readKeys(
    of queue: inout QueueState, _ reader: inout ByteReader
  ) throws {
    queue.keys.nextTurn = try reader.integer()
    for _ in 0..<(try reader.integer(UInt64.self)) {
      let id = try reader.key(MessageID.self)
      let key = try reader.integer(UInt64.self)
      guard key != 0 else { throw SnapshotFault.reference }
      queue.keys.add(id, key: key)
    }
    for _ in 0..<(try reader.integer(UInt64.self)) {
      let message = try Waiting(decoding: &reader)
      guard queue.keys.key(of: message.id) != 0 else { throw SnapshotFault.reference }
      queue.keys.restoreBlocked(message)
      queue.bytes += message.size
    }
  }

  private mutating func readProducer(_ reader: inout ByteReader) throws {
    var producer = ProducerState()
    producer.id = try reader.key()
    producer.session = try reader.identifier()
    producer.epoch = try reader.identifier()
    producer.attempt = try reader.identifier()
    producer.idleSince = try reader.identifier()
    producer.lastSequence = try reader.integer()
    var runs = RingBuffer<ProducerState.Run>()
    for _ in 0..<(try reader.integer(UInt32.self)) {
      runs.append(
        ProducerState.Run(
          first: try reader.integer(), count: try reader.integer(),
          firstID: try reader.integer(),
          refusal: Refusal(rawValue: try reader.integer()), copies: try reader.integer()))
    }
    producer.restore(runs)
    producerSlots.insert(producers.insert(producer), for: producer.id.rawValue)
    if producer.session == .none {
      idleProducers.set(producer.id.rawValue, to: producer.idleSince)
      idleRuns += producer.runs.count
    } else {
      liveRuns += producer.runs.count
    }
  }

  private mutating func readSession(_ reader: inout ByteReader) throws {
    var session = SessionState()
    session.id = try reader.key()
    session.name = try reader.shortText()
    session.kind = try reader.kind()
    let isAttached = try reader.integer(UInt8.self) != 0
    let origin = try SessionOrigin(decoding: &reader)
    session.origin = isAttached ? origin : nil
    session.node = try reader.identifier()
    session.producer = try reader.identifier()
    session.timeout = try reader.identifier()
    session.deadline = try reader.identifier()
    session.settled = try reader.identifier()
    for _ in 0..<(try reader.integer(UInt32.self)) {
      let sequence = try reader.identifier(CommandSequence.self)
      let consumer = try reader.identifier(ConsumerID.self)
      let range = DeliveryRange(first: try reader.identifier(), last: try reader.identifier())
      guard let refusal = Refusal(rawValue: try reader.integer()) else {
        throw SnapshotFault.reference
      }
      refusalCount += 1
      session.refusals.append(
        SettleRefusal(sequence: sequence, consumer: consumer, range: range, refusal: refusal))
    }
    let slot = sessions.insert(session)
    sessionSlots.insert(slot, for: session.id.rawValue)
    if session.origin == nil { sessionDeadlines.set(session.id.rawValue, to: session.deadline) }
    for _ in 0..<(try reader.integer(UInt32.self)) {
      let consumer = try readConsumer(of: session.id, slot, &reader)
      sessions[slot].consumers.append(
        SessionState.Member(id: consumers[consumer].id, slot: consumer))
    }
    noteIfResting(slot)
  }

  private mutating func readConsumer(
    of session: SessionID, _ sessionSlot: Int, _ reader: inout ByteReader
  ) throws -> Int {
    var consumer = ConsumerState()
    consumer.id = try reader.identifier()
    consumer.serial = try reader.integer()
    consumer.session = session
    consumer.sessionSlot = sessionSlot
    guard consumer.serial != 0, let queue = slot(of: try reader.identifier(QueueID.self)) else {
      throw SnapshotFault.reference
    }
    consumer.queueSlot = queue
    consumer.credit = try reader.integer()
    consumer.priority = Int16(bitPattern: try reader.integer())
    consumer.nextDelivery = try reader.integer()
    let flags = try reader.integer(UInt8.self)
    guard flags < 4 else { throw SnapshotFault.reference }
    consumer.isSubscribed = flags & 1 != 0
    consumer.deadline = try reader.identifier()
    for _ in 0..<(try reader.integer(UInt32.self)) {
      let held = Held(
        delivery: try reader.identifier(), message: try Waiting(decoding: &reader),
        token: try reader.identifier(), leaseEnd: try reader.identifier(),
        granted: try reader.identifier(), attempt: try reader.integer())
      consumer.held.append(held)
      if flags & 2 != 0 {
        let state: HeldState = try reader.kind()
        switch state {
        case .gap: throw SnapshotFault.reference
        case .held: break
        default: consumer.held.settle(at: consumer.held.end - 1, as: state)
        }
      }
      queues[queue].bytes += held.message.size
      queues[queue].leased += 1
      queues[queue].leasedBytes += held.message.size
      if held.message.has(Waiting.hasKey) { queues[queue].keys.restoreOut(held.message) }
    }
    if consumer.isSubscribed { queues[queue].consumers += 1 }
    let slot = insertConsumer(consumer)
    if queues[queue].settings.hasSingleActiveConsumer, consumer.isSubscribed,
      queues[queue].activeConsumer != consumer.serial
    {
      queues[queue].candidates.set(
        ActiveCandidate(key: consumer.serial, priority: consumer.priority))
    }
    if consumer.deadline != .never { leaseDeadlines.set(consumer.serial, to: consumer.deadline) }
    return slot
  }

  private mutating func readRotation(of queue: Int, _ reader: inout ByteReader) throws {
    for _ in 0..<(try reader.integer(UInt32.self)) {
      let serial = try reader.integer(UInt64.self)
      guard serial != 0, let consumer = consumerSlots[serial] else {
        throw SnapshotFault.reference
      }
      consumers[consumer].rotationPlace = queues[queue].rotation.append(
        consumer, consumers[consumer].priority)
    }
  }
}

/// What is wrong with a snapshot whose checksum is right: a bug in whoever wrote it.
enum SnapshotFault: Error {
  /// It names something that it does not contain, or by number 0.
  case reference
  /// Runs of waiting messages that no queue can have.
  case run
}

extension ReadyLevel {
  fileprivate mutating func readTurns(_ reader: inout ByteReader) throws {
    for _ in 0..<(try reader.integer(UInt64.self)) {
      let message = try Waiting(decoding: &reader)
      turns.set(Turn(number: try reader.integer(), message: message))
    }
  }
}

extension MessageNote {
  fileprivate init(decoding reader: inout ByteReader) throws {
    self.init()
    attempts = try reader.integer()
    recordEntry = try reader.identifier()
    expires = try reader.identifier()
    key = try reader.integer()
    if try reader.integer(UInt8.self) != 0 { story = try MessageStory(decoding: &reader) }
  }
}

extension MessageStory {
  fileprivate init(decoding reader: inout ByteReader) throws {
    lastError = try reader.shortText()
    firstTry = try reader.identifier()
    eventsForgotten = try reader.integer()
    for _ in 0..<(try reader.integer(UInt8.self)) {
      events.append(try MessageEvent(decoding: &reader))
    }
    if let reason = DeadLetterReason(rawValue: try reader.integer()) {
      deadLetter = DeadLetterNote(
        reason: reason, originQueue: try reader.shortText(), originID: try reader.identifier(),
        attempts: try reader.integer(), lastError: try reader.shortText(),
        firstTime: try reader.identifier(), time: try reader.identifier())
    }
    let addressKind = try reader.integer(UInt8.self)
    if addressKind > 2 { throw SnapshotFault.reference }
    if addressKind > 0 { address = try MessageAddress(decoding: &reader) }
    if addressKind == 2 { address?.headers = try reader.longBytes() }
    for _ in 0..<(try reader.integer(UInt8.self)) {
      let queue = try reader.shortText()
      let reason: DeadLetterReason = try reader.kind()
      let way = try MessageAddress(decoding: &reader)
      deaths.append(
        MessageDeath(
          queue: queue, reason: reason, exchange: way.exchange, keys: way.keys,
          count: try reader.integer(), time: try reader.identifier()))
    }
    for _ in 0..<(try reader.integer(UInt8.self)) { formerIDs.append(try reader.identifier()) }
  }
}

extension MessageAddress {
  fileprivate init(decoding reader: inout ByteReader) throws {
    exchange = try reader.shortText()
    keys = []
    for _ in 0..<(try reader.integer(UInt16.self)) { keys.append(try reader.longBytes()) }
  }
}

extension MessageEvent {
  fileprivate init(decoding reader: inout ByteReader) throws {
    guard let kind = Kind(rawValue: try reader.integer()) else { throw SnapshotFault.reference }
    self.init(
      kind: kind, time: try reader.identifier(), queue: try reader.shortText(),
      reason: DeadLetterReason(rawValue: try reader.integer()),
      granted: try reader.identifier(), attempt: try reader.integer(),
      session: try reader.shortText(), consumer: try reader.identifier(),
      node: try reader.identifier(), error: try reader.shortText())
  }
}

extension ByteReader {
  /// An id that must not be 0.
  fileprivate mutating func key<ID: Identifier>(_ type: ID.Type = ID.self) throws -> ID {
    let id = try identifier(ID.self)
    if id.rawValue == 0 { throw SnapshotFault.reference }
    return id
  }
}
