// Sessions: they outlive their connection, so that a client goes on with what it holds at the next
// leader (G7).

import Base

extension MachineState {
  mutating func openSession(_ command: OpenSession, _ effects: inout EffectList) {
    let known = slot(of: command.producer)
    // It waited in a connection that its client has given up for the session that it has now.
    if let known, command.attempt.isSuperseded(by: producers[known].attempt) {
      effects.add(.sessionOpenRefused(command.origin, .producerFenced), for: command.origin)
      return
    }
    guard makeRoom(for: command, &effects) else {
      effects.add(.sessionOpenRefused(command.origin, .tooManySessions), for: command.origin)
      return
    }
    if command.epoch != .none {
      if known.map({ producers[$0].epoch }) != command.epoch {
        // Another client has published under these numbers, or may have.
        let refusal: Refusal = known == nil ? .producerForgotten : .producerFenced
        effects.add(.sessionOpenRefused(command.origin, refusal), for: command.origin)
        return
      }
    }
    let id = SessionID(rawValue: commandNumber)
    hash.fold(.sessionOpened, id.rawValue, command.producer.rawValue)
    var session = SessionState()
    session.id = id
    session.name = command.name
    session.kind = command.kind
    session.origin = command.origin
    session.node = command.origin.node
    session.producer = command.producer
    session.timeout = min(command.timeout, limits.sessionTimeoutMax)
    sessionSlots.insert(sessions.insert(session), for: id.rawValue)
    var lastSequence = PublishSequence.zero
    var epoch = ProducerEpoch.none
    if command.producer.rawValue != 0 {
      let producer = takeProducer(command.producer, for: id, &effects)
      if command.epoch == .none { producers[producer].epoch = ProducerEpoch(commandNumber) }
      producers[producer].attempt = command.attempt
      hash.fold(command.attempt.rawValue)
      epoch = producers[producer].epoch
      lastSequence = PublishSequence(rawValue: producers[producer].lastSequence)
    }
    effects.add(
      .sessionOpened(command.origin, id, lastSequence: lastSequence, epoch: epoch),
      for: command.origin)
  }

  /// Where there are too many sessions, the detached one that holds nothing and would end first
  /// ends now, so that clients that come and go cannot lock others out.
  private mutating func makeRoom(
    for command: OpenSession, _ effects: inout EffectList
  ) -> Bool {
    if sessions.count < min(limits.sessions, Int(command.sessionsMax)) { return true }
    guard let first = restingSessions.first, let session = sessionSlots[first.key] else {
      return false
    }
    while let member = sessions[session].consumers.first { removeConsumer(member.slot) }
    end(session, .expired, &effects)
    return sessions.count < min(limits.sessions, Int(command.sessionsMax))
  }

  /// Notes a detached session of which nothing is held any more.
  mutating func noteIfResting(_ session: Int) {
    guard sessions[session].origin == nil else { return }
    let members = sessions[session].consumers
    for member in members where !consumers[member.slot].held.isEmpty { return }
    restingSessions.set(sessions[session].id.rawValue, to: sessions[session].deadline)
  }

  /// Makes `session` the one that may publish for the producer.
  private mutating func takeProducer(
    _ producer: ProducerID, for session: SessionID, _ effects: inout EffectList
  ) -> Int {
    guard let slot = slot(of: producer) else {
      var fresh = ProducerState()
      fresh.id = producer
      fresh.session = session
      let slot = producers.insert(fresh)
      producerSlots.insert(slot, for: producer.rawValue)
      return slot
    }
    if let older = self.slot(of: producers[slot].session) {
      effects.add(.producerFenced(sessions[older].id), for: sessions[older].origin)
    }
    if producers[slot].session == .none {
      idleRuns -= producers[slot].runs.count
      liveRuns += producers[slot].runs.count
    }
    idleProducers.remove(producer.rawValue)
    producers[slot].idleSince = .never
    producers[slot].session = session
    return slot
  }

  mutating func attachSession(_ command: AttachSession, _ effects: inout EffectList) {
    guard let session = slot(of: command.session) else {
      effects.add(
        .sessionAttachRefused(command.origin, command.session, .sessionNotFound),
        for: command.origin)
      return
    }
    hash.fold(.sessionAttached, command.session.rawValue, UInt64(command.origin.node.rawValue))
    sessions[session].origin = command.origin
    sessions[session].node = command.origin.node
    sessions[session].deadline = .never
    sessionDeadlines.remove(command.session.rawValue)
    restingSessions.remove(command.session.rawValue)
    let members = sessions[session].consumers
    for member in members { maybeJoinRotation(member.slot) }
    if effects.wants(command.origin) { tellWhatIsHeld(session, command, &effects) }
  }

  /// Answers an attach: what of the client's deliveries is still held, and those it missed again,
  /// unchanged.
  private func tellWhatIsHeld(
    _ session: Int, _ command: AttachSession, _ effects: inout EffectList
  ) {
    let producer = slot(of: sessions[session].producer)
    effects.effects.append(
      .sessionAttached(
        command.origin, command.session,
        lastSequence: PublishSequence(
          rawValue: producer.map { producers[$0].lastSequence } ?? 0),
        settledThrough: sessions[session].settled))
    var received: [ConsumerID: DeliveryID] = [:]
    for position in command.consumers {
      received[position.consumer] = position.lastDelivery
      if sessions[session].slot(of: position.consumer) == nil {
        effects.effects.append(.consumerCancelled(command.session, position.consumer))
      }
    }
    for member in sessions[session].consumers {
      tellWhatIsHeld(member, through: received[member.id] ?? DeliveryID(0), &effects)
    }
  }

  private func tellWhatIsHeld(
    _ member: SessionState.Member, through last: DeliveryID, _ effects: inout EffectList
  ) {
    let firstRange = effects.ranges.count
    let firstDelivery = effects.deliveries.count
    let queue = consumers[member.slot].queueSlot
    consumers[member.slot].held.forEach { held in
      if held.delivery <= last {
        effects.addRange(held.delivery, since: firstRange)
      } else {
        effects.deliveries.append(
          Delivery(held, reference: queues[queue].reference(of: held.message)))
      }
    }
    let session = consumers[member.slot].session
    if last.rawValue > 0 {
      effects.effects.append(
        .holding(
          session, member.id, through: last, ranges: firstRange..<effects.ranges.count))
    }
    if effects.deliveries.count > firstDelivery {
      effects.effects.append(
        .deliver(session, member.id, deliveries: firstDelivery..<effects.deliveries.count))
    }
  }

  mutating func detachSession(_ command: DetachSession, _ effects: inout EffectList) {
    guard let session = slot(of: command.session),
      sessions[session].origin == command.origin
    else { return }
    detach(session)
    endDueSessions(&effects)
  }

  /// A new leader: native clients of the other nodes have to come to it.
  mutating func leaderChanged(to node: NodeID, _ effects: inout EffectList) {
    detachAll(&effects) { $0.kind == .native && $0.origin?.node != node }
  }

  mutating func nodeGone(_ node: NodeID, _ effects: inout EffectList) {
    detachAll(&effects) { $0.kind == .native && $0.origin?.node == node }
  }

  mutating func detachAll(
    _ effects: inout EffectList, where isMeant: (SessionState) -> Bool
  ) {
    for id in sessionSlots.sortedKeys {
      if let session = sessionSlots[id], sessions[session].origin != nil,
        isMeant(sessions[session])
      {
        detach(session)
      }
    }
    endDueSessions(&effects)
  }

  /// From now on it gets nothing; its leases run on, and its time to come back.
  mutating func detach(_ session: Int) {
    let id = sessions[session].id
    hash.fold(.sessionDetached, id.rawValue)
    sessions[session].origin = nil
    sessions[session].deadline = clock + sessions[session].timeout
    sessionDeadlines.set(id.rawValue, to: sessions[session].deadline)
    let members = sessions[session].consumers
    for member in members { leaveRotation(member.slot) }
    noteIfResting(session)
  }

  mutating func closeSession(_ id: SessionID, _ effects: inout EffectList) {
    guard let session = slot(of: id) else { return }
    let members = sessions[session].consumers
    if members.contains(where: { consumers[$0.slot].held.leavingCount > 0 }) {
      // What was rejected moves on, which is bounded: it ends as a lost one does.
      for member in members { handBackLater(member.slot) }
      sessions[session].timeout = .zero
      if sessions[session].origin != nil { detach(session) }
      endDueSessions(&effects)
      return
    }
    while let member = sessions[session].consumers.first { releaseAndRemove(member.slot) }
    end(session, .closed, &effects)
  }

  /// Removes a session that has no consumers any more. Its producer is remembered.
  mutating func end(_ session: Int, _ how: SessionEnd, _ effects: inout EffectList) {
    let id = sessions[session].id
    hash.fold(.sessionEnded, id.rawValue, UInt64(how.rawValue))
    effects.addForAll(.sessionEnded(id, how))
    if let producer = slot(of: sessions[session].producer), producers[producer].session == id {
      producers[producer].session = .none
      producers[producer].idleSince = clock
      liveRuns -= producers[producer].runs.count
      if idleRuns + producers[producer].runs.count > limits.idleRuns {
        producers[producer].keepLastRun()
      }
      idleRuns += producers[producer].runs.count
      idleProducers.set(producers[producer].id.rawValue, to: clock)
    }
    refusalCount -= sessions[session].refusals.count
    sessionDeadlines.remove(id.rawValue)
    restingSessions.remove(id.rawValue)
    sessionSlots.remove(id.rawValue)
    sessions.remove(session)
    sessionEnded(id)
    while idleProducers.count > limits.idleProducers, let oldest = idleProducers.first {
      forgetProducer(ProducerID(rawValue: oldest.key))
    }
  }
}
