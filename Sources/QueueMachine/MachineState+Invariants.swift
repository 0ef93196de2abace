// What must hold between entries, checked the slow way. For tests and simulations.

import Base

extension MachineState {
  func checkInvariants() {
    invariant(dirtyQueues.isEmpty, "queues left unassigned")
    checkTables()
    checkTopology()
    for slot in queues.slots { checkQueue(slot) }
    for slot in consumers.slots { checkConsumer(slot) }
    for slot in sessions.slots { checkSession(slot) }
    for slot in producers.slots { checkProducer(slot) }
    leaseDeadlines.checkOrder()
    queueDeadlines.checkOrder()
    sessionDeadlines.checkOrder()
    idleProducers.checkOrder()
  }

  private func checkTables() {
    invariant(queueSlots.count == queues.count, "queue ids")
    invariant(queueNames.count == queues.count, "queue names")
    invariant(sessionSlots.count == sessions.count, "session ids")
    invariant(consumerSlots.count == consumers.count, "consumer serials")
    invariant(producerSlots.count == producers.count, "producer ids")
    let inSessions = sessions.slots.reduce(0) { $0 + sessions[$1].consumers.count }
    invariant(inSessions == consumers.count, "\(inSessions) of \(consumers.count) in sessions")
    let withDeadline = consumers.slots.count { consumers[$0].deadline != .never }
    invariant(withDeadline == leaseDeadlines.count, "lease deadlines")
    let detached = sessions.slots.count { sessions[$0].origin == nil }
    invariant(detached == sessionDeadlines.count, "session deadlines")
    let idle = producers.slots.count { producers[$0].session == .none }
    invariant(idle == idleProducers.count, "idle producers")
    let idleProducerRuns = producers.slots.filter { producers[$0].session == .none }
      .reduce(0) { $0 + producers[$1].runs.count }
    invariant(idleProducerRuns == idleRuns, "\(idleProducerRuns) runs of idle producers")
    let liveProducerRuns = producers.slots.filter { producers[$0].session != .none }
      .reduce(0) { $0 + producers[$1].runs.count }
    invariant(
      liveProducerRuns == liveRuns, "\(liveProducerRuns) runs of live producers: \(liveRuns)")
    let refusals = sessions.slots.reduce(0) { $0 + sessions[$1].refusals.count }
    invariant(refusals == refusalCount, "\(refusals) refusals remembered")
    let headers = queues.slots.reduce(0) { $0 + queues[$1].headerBytes }
    invariant(headers == keptHeaderBytes, "\(headers) bytes of headers: \(keptHeaderBytes)")
    invariant(headers <= limits.headerBytesKept, "\(headers) bytes of headers are too many")
    invariant(headerBytesPromised == 0, "\(headerBytesPromised) bytes of headers promised")
    let resting = sessions.slots.count { slot in
      sessions[slot].origin == nil
        && sessions[slot].consumers.allSatisfy { consumers[$0.slot].held.isEmpty }
    }
    invariant(resting == restingSessions.count, "resting sessions")
    restingSessions.checkOrder()
  }

  private func checkQueue(_ slot: Int) {
    let queue = queues[slot]
    invariant(queueSlots[UInt64(queue.id.rawValue)] == slot, "queue \(queue.id) misplaced")
    invariant(queueNames[queue.name] == slot, "queue \(queue.name) misnamed")
    invariant(queue.id.rawValue < nextQueue, "queue \(queue.id) from the future")
    var ids = Set<UInt64>()
    var noted = 0
    var headers = 0
    var bytes: UInt64 = 0
    var leased: UInt64 = 0
    func see(_ message: Waiting) {
      invariant(ids.insert(message.id.rawValue).inserted, "message \(message.id) twice")
      invariant(message.id.entry <= appliedIndex, "message \(message.id) from the future")
      let hasNote = queue.notes[message.id.rawValue] != nil
      invariant(hasNote == message.has(Waiting.hasNote), "note of message \(message.id)")
      noted += hasNote ? 1 : 0
      headers += queue.notes[message.id.rawValue]?.keptBytes ?? 0
      bytes += message.size
    }
    func seeWaiting(_ message: Waiting) {
      see(message)
      let expires = queue.expires(message)
      invariant(
        expires == .never || queue.expiries.time(of: message.id.rawValue) == expires,
        "message \(message.id) would never expire")
    }
    invariant(
      queue.ready.higher.count + 1 == Int(queue.settings.priorities), "levels of \(queue.id)")
    for number in 0...queue.ready.higher.count {
      let level = queue.ready[level: number]
      var last = MessageID(rawValue: 0)
      var lineCount = 0
      level.line.forEachBlock { block in
        lineCount += block.count
        for message in block {
          invariant(message.id > last, "message \(message.id) behind \(last)")
          last = message.id
          seeWaiting(message)
        }
      }
      invariant(lineCount == level.line.count, "line of queue \(queue.id)")
      level.returned.checkOrder()
      level.returned.entries.forEach(seeWaiting)
      level.turns.checkOrder()
      for turn in level.turns.entries {
        invariant(turn.number < queue.keys.nextTurn, "turn \(turn.number) of \(queue.id)")
        seeWaiting(turn.message)
      }
    }
    checkKeys(queue, seeWaiting)
    queue.delayed.checkOrder()
    for entry in queue.delayed.entries { seeWaiting(entry.message) }
    queue.expiries.checkOrder()
    for entry in queue.expiries.entries {
      invariant(queue.notes[entry.key]?.expires == entry.time, "expiry of \(entry.key)")
    }
    let deadline = queue.deadline(at: clock)
    let known = queueDeadlines.time(of: UInt64(queue.id.rawValue)) ?? .never
    invariant(known <= deadline, "queue \(queue.id) due at \(deadline), known \(known)")
    let waitingBytes = bytes
    var subscribed: UInt32 = 0
    var takers = Set<Int>()
    var all = 0
    for consumer in consumers.slots where consumers[consumer].queueSlot == slot {
      all += 1
      leased += UInt64(consumers[consumer].held.count)
      consumers[consumer].held.forEach { see($0.message) }
      if consumers[consumer].isSubscribed { subscribed += 1 }
      if consumers[consumer].isInRotation { takers.insert(consumer) }
    }
    invariant(leased == queue.leased, "\(leased) leased of queue \(queue.id): \(queue.leased)")
    invariant(bytes - waitingBytes == queue.leasedBytes, "leased bytes of queue \(queue.id)")
    invariant(bytes == queue.bytes, "\(bytes) bytes in queue \(queue.id): \(queue.bytes)")
    invariant(noted == queue.notes.count, "notes of queue \(queue.id)")
    invariant(headers == queue.headerBytes, "\(headers) bytes of headers in \(queue.id)")
    invariant(subscribed == queue.consumers, "consumers of queue \(queue.id)")
    let mine = consumers(of: slot)
    invariant(
      mine.count == all && mine.allSatisfy { consumers[$0].queueSlot == slot },
      "\(mine.count) consumers listed in queue \(queue.id)")
    let rotation = queue.rotation.consumers
    invariant(Set(rotation) == takers && rotation.count == takers.count, "rotation")
    invariant(queue.ready.isEmpty || takers.isEmpty, "queue \(queue.id) left unassigned")
    checkChosen(slot)
    let users = queues.slots.count { queues[$0].deadLetterSlot == slot }
    invariant(users == queue.deadLetterUsers, "dead-letter users of queue \(queue.id)")
  }

  /// The active and the exclusive consumer.
  private func checkChosen(_ slot: Int) {
    let queue = queues[slot]
    let mine = consumers.slots.filter { consumers[$0].queueSlot == slot }
    for serial in [queue.activeConsumer, queue.exclusiveConsumer] where serial != 0 {
      invariant(mine.contains { consumers[$0].serial == serial }, "consumer \(serial) is gone")
    }
    let subscribed = mine.count { consumers[$0].isSubscribed }
    invariant(queue.exclusiveConsumer == 0 || subscribed <= 1, "\(subscribed) have \(queue.id)")
    guard queue.settings.hasSingleActiveConsumer else {
      invariant(queue.activeConsumer == 0 && queue.candidates.isEmpty, "choice in \(queue.id)")
      return
    }
    queue.candidates.checkOrder()
    let others = mine.filter {
      consumers[$0].isSubscribed && consumers[$0].serial != queue.activeConsumer
    }
    invariant(
      Set(others.map { consumers[$0].serial }) == Set(queue.candidates.entries.map(\.key)),
      "candidates of \(queue.id)")
    invariant(queue.activeConsumer != 0 || others.isEmpty, "nobody is active in \(queue.id)")
  }

  private func checkKeys(_ queue: QueueState, _ see: (Waiting) -> Void) {
    var blocked = 0
    queue.keys.forEachBlocked { message in
      blocked += 1
      see(message)
    }
    invariant(blocked == queue.keys.blockedCount, "blocked messages of queue \(queue.id)")
    var out: [UInt64: UInt32] = [:]
    func count(_ message: Waiting) {
      if message.has(Waiting.hasKey) { out[queue.keys.key(of: message.id), default: 0] += 1 }
    }
    queue.ready.forEach(count)
    for entry in queue.delayed.entries where entry.message.has(Waiting.wasDelivered) {
      count(entry.message)
    }
    for consumer in consumers.slots where queues[consumers[consumer].queueSlot].id == queue.id {
      consumers[consumer].held.forEach { count($0.message) }
    }
    invariant(out[0] == nil, "a message of queue \(queue.id) lost its key")
    for key in queue.keys.rooms.sortedKeys {
      guard let room = queue.keys.rooms[key] else { continue }
      invariant(room.out == out[key] ?? 0, "\(room.out) out of key \(key)")
      invariant(room.out > 0 && room.out <= queue.settings.keyLimit, "\(room.out) out")
      invariant(
        room.blocked.isEmpty || room.out == queue.settings.keyLimit, "blocked without reason")
      room.blocked.checkOrder()
    }
    invariant(out.count == queue.keys.rooms.count, "keys of queue \(queue.id)")
  }

  private func checkConsumer(_ slot: Int) {
    let consumer = consumers[slot]
    invariant(consumerSlots[consumer.serial] == slot, "consumer \(consumer.serial) misplaced")
    invariant(sessions[consumer.sessionSlot].id == consumer.session, "consumer's session")
    invariant(
      sessions[consumer.sessionSlot].slot(of: consumer.id) == slot, "consumer not in its session")
    let isAttached = sessions[consumer.sessionSlot].origin != nil
    let queue = queues[consumer.queueSlot]
    let mayTake =
      !queue.settings.hasSingleActiveConsumer || queue.activeConsumer == consumer.serial
    let couldTake = consumer.isSubscribed && isAttached && consumer.creditLeft > 0 && mayTake
    invariant(couldTake == consumer.isInRotation, "consumer \(consumer.serial) in rotation")
    invariant(consumer.isSubscribed || !consumer.held.isEmpty, "ended consumer holds nothing")
    invariant(
      consumer.counted == consumer.holdsAtMost,
      "consumer \(consumer.serial) counts for what it held")
    let deadline = leaseDeadlines.time(of: consumer.serial) ?? .never
    invariant(deadline == consumer.deadline, "deadline of consumer \(consumer.serial)")
    var leaving = 0
    consumer.held.forEach { leaving += $0.isLeaving ? 1 : 0 }
    invariant(leaving == consumer.held.leavingCount, "\(leaving) settled and not gone")
    invariant(leaving == 0 || sessions[consumer.sessionSlot].kind == .amqp, "settled later")
    var last: UInt64 = 0
    var lastToken: UInt64 = 0
    consumer.held.forEach { held in
      invariant(held.delivery.rawValue > last, "deliveries out of order")
      invariant(held.token.rawValue > lastToken, "tokens out of order")
      last = held.delivery.rawValue
      lastToken = held.token.rawValue
      invariant(held.leaseEnd >= consumer.deadline, "lease ends before its deadline")
      invariant(
        held.attempt == queues[consumer.queueSlot].attempts(of: held.message) + 1, "attempts")
    }
    invariant(last < consumer.nextDelivery, "delivery \(last) of \(consumer.nextDelivery)")
    invariant(lastToken < queues[consumer.queueSlot].nextToken, "token \(lastToken)")
  }

  private func checkSession(_ slot: Int) {
    let session = sessions[slot]
    invariant(sessionSlots[session.id.rawValue] == slot, "session \(session.id) misplaced")
    invariant((session.origin == nil) == (session.deadline != .never), "session's deadline")
    if session.origin == nil {
      invariant(
        sessionDeadlines.time(of: session.id.rawValue) == session.deadline, "session's deadline")
    }
    for (left, right) in zip(session.consumers, session.consumers.dropFirst()) {
      invariant(left.id < right.id, "consumers of session \(session.id) out of order")
    }
    let counted = session.consumers.reduce(0) { $0 + consumers[$1.slot].counted }
    invariant(counted == session.holdsAtMost, "what session \(session.id) may hold")
    for place in 0..<session.refusals.count {
      invariant(session.refusals[place].sequence <= session.settled, "refusal from the future")
    }
  }

  private func checkProducer(_ slot: Int) {
    let producer = producers[slot]
    invariant(producerSlots[producer.id.rawValue] == slot, "producer \(producer.id) misplaced")
    if producer.session != .none {
      invariant(
        self.slot(of: producer.session).map { sessions[$0].producer } == producer.id,
        "producer \(producer.id) of a dead session")
    }
    var next = producer.runs.first?.first ?? producer.lastSequence + 1
    for place in 0..<producer.runs.count {
      let run = producer.runs[place]
      invariant(run.first == next && run.count > 0, "answers of \(producer.id) not contiguous")
      next += run.count
    }
    invariant(next == producer.lastSequence + 1, "answers of producer \(producer.id)")
  }
}
