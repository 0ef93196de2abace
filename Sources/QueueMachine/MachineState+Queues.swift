// Declaring, deleting and purging queues.

import Base

extension MachineState {
  mutating func declareQueue(_ command: DeclareQueue, _ effects: inout EffectList) {
    // First, and not as an argument: `reply` would be called on a copy of this state, and what is
    // declared would then copy every queue.
    let answer = declare(command.name, command.settings)
    reply(answer, to: command.requester, command.tag, &effects)
  }

  mutating func declare(_ name: String, _ settings: QueueSettings) -> Reply {
    guard QueueSettings.isValid(name: name) else {
      return .refused(
        .queueNameInvalid, detail: "a queue name is 1 to 255 bytes without control characters")
    }
    if let fault = settings.fault { return .refused(.settingInvalid, detail: fault) }
    if let slot = queueNames[name] {
      if let difference = settings.difference(from: queues[slot].settings) {
        return .refused(.queueDiffers, detail: difference)
      }
      queues[slot].lastUse = clock
      return .queueDeclared(queues[slot].id, isNew: false)
    }
    if let missing = settings.unsupported { return .refused(.notSupported, detail: missing) }
    if queues.count >= limits.queues {
      return .refused(.tooManyQueues, detail: "there are \(queues.count) queues")
    }
    // They are not used again.
    if nextQueue == .max {
      return .refused(
        .tooManyQueues,
        detail: "all numbers for queues are used up: so many were declared since ever")
    }
    var queue = QueueState()
    if !settings.deadLetterQueue.isEmpty {
      // A queue must exist before another names it, and keeps its settings: so no cycle can be
      // built but this one.
      if settings.deadLetterQueue == name {
        return .refused(.deadLetterCycle, detail: "dead-letter must be another queue")
      }
      guard let target = queueNames[settings.deadLetterQueue] else {
        return .refused(
          .deadLetterQueueNotFound,
          detail: "dead-letter names \(settings.deadLetterQueue), which does not exist")
      }
      queue.deadLetterSlot = target
      queues[target].deadLetterUsers += 1
    }
    queue.id = QueueID(rawValue: nextQueue)
    queue.name = name
    queue.settings = settings
    queue.ready = ReadyQueue(levels: Int(settings.priorities))
    queue.nextToken = tokenFloor
    queue.lastUse = clock
    nextQueue += 1
    hash.fold(.queueDeclared, UInt64(queue.id.rawValue))
    let slot = queues.insert(queue)
    queueSlots.insert(slot, for: UInt64(queue.id.rawValue))
    queueNames[name] = slot
    lowerDeadline(ofQueue: slot)
    return .queueDeclared(queue.id, isNew: true)
  }

  mutating func deleteQueue(_ command: NameQueue, _ effects: inout EffectList) {
    let answer = delete(command.name, &effects)
    reply(answer, to: command.requester, command.tag, &effects)
  }

  mutating func delete(_ name: String, _ effects: inout EffectList) -> Reply {
    guard let queue = queueNames[name] else { return .refused(.queueNotFound, detail: name) }
    if queues[queue].deadLetterUsers > 0 {
      return .refused(
        .queueInUse, detail: "number of queues that do so: \(queues[queue].deadLetterUsers)")
    }
    return .queueDeleted(messages: remove(queue, &effects))
  }

  /// Removes a queue that no other names; returns how many messages went with it.
  mutating func remove(_ queue: Int, _ effects: inout EffectList) -> UInt64 {
    let messages = queues[queue].waitingCount + queues[queue].leased
    hash.fold(.queueDeleted, UInt64(queues[queue].id.rawValue), messages)
    // By serial, the same order everywhere.
    let mine = consumers(of: queue).sorted { consumers[$0].serial < consumers[$1].serial }
    for consumer in mine {
      let session = consumers[consumer].sessionSlot
      effects.add(
        .consumerCancelled(consumers[consumer].session, consumers[consumer].id),
        for: sessions[session].origin)
      consumers[consumer].held.removeAll()
      removeConsumer(consumer)
    }
    let target = queues[queue].deadLetterSlot
    if target >= 0 {
      queues[target].deadLetterUsers -= 1
      noteUse(of: target)
    }
    tokenFloor = max(tokenFloor, queues[queue].nextToken)
    queueDeadlines.remove(UInt64(queues[queue].id.rawValue))
    queueSlots.remove(UInt64(queues[queue].id.rawValue))
    queueNames[queues[queue].name] = nil
    let id = queues[queue].id
    countHeaders(-queues[queue].headerBytes, in: queue)
    queues.remove(queue)
    queueDeleted(id)
    return messages
  }

  mutating func purgeQueue(_ command: NameQueue, _ effects: inout EffectList) {
    let answer = purge(command.name)
    reply(answer, to: command.requester, command.tag, &effects)
  }

  /// Removes what waits; what consumers hold stays theirs.
  mutating func purge(_ name: String) -> Reply {
    guard let queue = queueNames[name] else { return .refused(.queueNotFound, detail: name) }
    let messages = queues[queue].waitingCount
    hash.fold(.queuePurged, UInt64(queues[queue].id.rawValue), messages)
    var gone: [(message: Waiting, isOut: Bool)] = []
    // First those that wait for others of their key, so that none of them is let out.
    queues[queue].keys.forEachBlocked { gone.append(($0, false)) }
    for (message, _) in gone { _ = queues[queue].keys.removeBlocked(message.id) }
    queues[queue].ready.forEach { gone.append(($0, true)) }
    for entry in queues[queue].delayed.entries {
      gone.append((entry.message, entry.message.has(Waiting.wasDelivered)))
    }
    queues[queue].ready = ReadyQueue(levels: Int(queues[queue].settings.priorities))
    queues[queue].delayed = IndexedHeap()
    for (message, isOut) in gone where message.has(Waiting.hasNote | Waiting.hasKey) {
      leave(message, from: queue, isOut: isOut)
    }
    queues[queue].bytes = queues[queue].leasedBytes
    return .queuePurged(messages: messages)
  }

  func reply(
    _ reply: Reply, to requester: Requester, _ tag: RequestTag, _ effects: inout EffectList
  ) {
    let effect = Effect.reply(requester, tag, reply)
    switch requester {
    case .connection(let origin): effects.add(effect, for: origin)
    case .session(let id):
      if let session = slot(of: id) {
        effects.add(effect, for: sessions[session].origin)
      } else {
        effects.addForAll(effect)
      }
    }
  }
}

extension QueueSettings {
  /// The first setting that differs, with both values, as a sentence; nil if none does.
  func difference(from other: QueueSettings) -> String? {
    func text(
      _ name: String, _ asked: some CustomStringConvertible,
      _ present: some CustomStringConvertible
    ) -> String {
      "\(name) is \(present), not \(asked)"
    }
    func time(_ name: String, _ asked: Nanoseconds, _ present: Nanoseconds) -> String {
      func words(_ span: Nanoseconds) -> String {
        span == .zero ? "none" : DurationText.format(span)
      }
      return text(name, words(asked), words(present))
    }
    func limit(_ name: String, _ asked: UInt64, _ present: UInt64) -> String {
      text(name, asked == 0 ? "none" : "\(asked)", present == 0 ? "none" : "\(present)")
    }
    func queue(_ name: String) -> String { name.isEmpty ? "none" : "\"\(name)\"" }
    func share(_ permille: UInt16) -> Double { Double(permille) / 1000 }
    if lease != other.lease { return time("lease", lease, other.lease) }
    if deliveriesMax != other.deliveriesMax {
      return limit("max-deliveries", UInt64(deliveriesMax), UInt64(other.deliveriesMax))
    }
    if deadLetterQueue != other.deadLetterQueue {
      return text("dead-letter", queue(deadLetterQueue), queue(other.deadLetterQueue))
    }
    if retryDelay != other.retryDelay { return time("retry-delay", retryDelay, other.retryDelay) }
    if retryDelayMax != other.retryDelayMax {
      return time("retry-max", retryDelayMax, other.retryDelayMax)
    }
    if retryJitterPermille != other.retryJitterPermille {
      return text("retry-jitter", share(retryJitterPermille), share(other.retryJitterPermille))
    }
    if timeToLive != other.timeToLive { return time("ttl", timeToLive, other.timeToLive) }
    if lengthMax != other.lengthMax { return limit("max-length", lengthMax, other.lengthMax) }
    if bytesMax != other.bytesMax { return limit("max-bytes", bytesMax, other.bytesMax) }
    if overflow != other.overflow { return text("overflow", overflow.name, other.overflow.name) }
    if priorities != other.priorities { return text("priorities", priorities, other.priorities) }
    if keyLimit != other.keyLimit {
      return limit("keyed", UInt64(keyLimit), UInt64(other.keyLimit))
    }
    if expires != other.expires { return time("expires", expires, other.expires) }
    if hasSingleActiveConsumer != other.hasSingleActiveConsumer {
      return text("single-active", hasSingleActiveConsumer, other.hasSingleActiveConsumer)
    }
    return nil
  }

  /// A setting that this version cannot keep yet: refused by name rather than not honoured.
  var unsupported: String? {
    if keyLimit != 0, overflow == .dropOldest, lengthMax != 0 || bytesMax != 0 {
      return "keyed with overflow drop-oldest is not supported"
    }
    return nil
  }
}
