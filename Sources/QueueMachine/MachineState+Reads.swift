// Looking without changing.

import Base

extension MachineState {
  func queue(named name: String) -> QueueID? { queueNames[name].map { queues[$0].id } }

  func summary(of queue: QueueID) -> QueueSummary? { slot(of: queue).map { summary(slot: $0) } }

  func summaries() -> [QueueSummary] {
    queues.slots.map { summary(slot: $0) }.sorted { $0.name < $1.name }
  }

  private func summary(slot: Int) -> QueueSummary {
    let queue = queues[slot]
    return QueueSummary(
      id: queue.id, name: queue.name, settings: queue.settings,
      ready: UInt64(queue.ready.count + queue.keys.blockedCount), leased: queue.leased,
      delayed: UInt64(queue.delayed.count), consumers: queue.consumers,
      bytes: queue.bytes,
      published: queue.published, delivered: queue.delivered, acknowledged: queue.acknowledged,
      redelivered: queue.redelivered, deadLettered: queue.deadLettered)
  }

  func dropped(_ queue: QueueID) -> UInt64? { slot(of: queue).map { queues[$0].dropped } }

  func peeked(_ message: Waiting, in queue: Int, state: MessageState) -> PeekedMessage {
    let note = message.has(Waiting.hasNote) ? queues[queue].notes[message.id.rawValue] : nil
    let story = note?.story
    return PeekedMessage(
      id: message.id, reference: queues[queue].reference(of: message), state: state,
      attempts: note?.attempts ?? 0, session: .none, consumer: ConsumerID(0), leaseEnd: .never,
      expires: note?.expires ?? .never, lastError: story?.lastError ?? "",
      deadLetter: story?.deadLetter)
  }

  private func peeked(_ entry: DelayedMessage, in queue: Int) -> PeekedMessage {
    var message = peeked(entry.message, in: queue, state: .delayed)
    message.due = entry.due
    return message
  }

  func peeked(_ held: Held, of consumer: Int) -> PeekedMessage {
    var message = peeked(held.message, in: consumers[consumer].queueSlot, state: .leased)
    message.session = consumers[consumer].session
    message.consumer = consumers[consumer].id
    message.leaseEnd = held.leaseEnd
    return message
  }

  func biography(of id: MessageID, in queue: QueueID) -> MessageBiography? {
    guard let slot = slot(of: queue), id.rawValue != 0,
      var biography = found(id, in: slot)
    else { return nil }
    if let story = queues[slot].notes[id.rawValue]?.story {
      biography.events = story.events
      biography.eventsForgotten = story.eventsForgotten
    }
    return biography
  }

  private func found(_ id: MessageID, in queue: Int) -> MessageBiography? {
    if let entry = queues[queue].delayed[id.rawValue] {
      return MessageBiography(message: peeked(entry, in: queue))
    }
    if let message = queues[queue].ready.message(id) ?? queues[queue].keys.blocked(id) {
      return MessageBiography(message: peeked(message, in: queue, state: .ready))
    }
    var found: MessageBiography?
    for consumer in consumers(of: queue) {
      consumers[consumer].held.forEach { held in
        guard held.message.id == id else { return }
        let session = sessions[consumers[consumer].sessionSlot]
        found = MessageBiography(
          message: peeked(held, of: consumer), holder: session.name,
          node: session.origin?.node ?? NodeID(0), granted: held.granted)
      }
    }
    return found
  }

  func held(by session: SessionID) -> Int? {
    slot(of: session).map { slot in
      sessions[slot].consumers.reduce(0) { $0 + consumers[$1.slot].held.count }
    }
  }

  func deliveries(of session: SessionID) -> [(ConsumerID, Delivery)] {
    guard let slot = slot(of: session) else { return [] }
    var found: [(ConsumerID, Delivery)] = []
    for member in sessions[slot].consumers {
      let queue = consumers[member.slot].queueSlot
      consumers[member.slot].held.forEach { held in
        found.append(
          (member.id, Delivery(held, reference: queues[queue].reference(of: held.message))))
      }
    }
    return found
  }

  func origin(of session: SessionID) -> SessionOrigin? {
    slot(of: session).flatMap { sessions[$0].origin }
  }

  func sessionSummaries() -> [SessionSummary] {
    sessionSlots.sortedKeys.compactMap { sessionSlots[$0] }.map { slot in
      let session = sessions[slot]
      return SessionSummary(
        session: session.id, name: session.name, kind: session.kind, origin: session.origin,
        producer: session.producer, consumers: session.consumers.count,
        held: session.consumers.reduce(0) { $0 + consumers[$1.slot].held.count })
    }
  }

  var queueCount: Int { queues.count }

  func consumers(of session: SessionID) -> [ConsumerID] {
    slot(of: session).map { sessions[$0].consumers.map(\.id) } ?? []
  }

  var sessionCount: Int { sessions.count }
  var consumerCount: Int { consumers.count }

  func outcome(of sequence: PublishSequence, by producer: ProducerID) -> PublishOutcome {
    guard let slot = slot(of: producer) else { return .unseen }
    return producers[slot].outcome(of: sequence.rawValue)
  }
}
