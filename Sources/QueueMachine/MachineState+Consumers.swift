// Consumers: a session's wish for messages of one queue.

import Base

extension MachineState {
  mutating func subscribe(_ command: Subscribe, _ effects: inout EffectList) {
    guard let session = slot(of: command.session) else {
      effects.addForAll(refusal(command.session, command.tag, .sessionNotFound))
      return
    }
    let origin = sessions[session].origin
    if let refused = maybeSubscribe(command, session) {
      effects.add(refusal(command.session, command.tag, refused), for: origin)
    } else {
      effects.add(
        .reply(
          .session(command.session), command.tag, .subscribed(command.consumer, command.queue)),
        for: origin)
    }
  }

  mutating func maybeSubscribe(_ command: Subscribe, _ session: Int) -> Refusal? {
    if !(1...FixedLimits.creditMax).contains(command.credit) { return .settingInvalid }
    guard let queue = slot(of: command.queue) else { return .queueNotFound }
    let (place, found) = sessions[session].place(of: command.consumer)
    if found {
      let consumer = sessions[session].consumers[place].slot
      if consumers[consumer].queueSlot != queue
        || consumers[consumer].priority != command.priority
        || (queues[queue].exclusiveConsumer == consumers[consumer].serial) != command.isExclusive
      {
        return .consumerDiffers
      }
      // It ended, and gave the queue up.
      let isAlone = queues[queue].exclusiveConsumer
      if isAlone != 0, isAlone != consumers[consumer].serial { return .consumerExclusive }
      if !mayHold(command.credit, consumer, session) { return .tooMuchCredit }
      hash.fold(.subscribed, consumers[consumer].serial, UInt64(command.credit))
      if !consumers[consumer].isSubscribed {
        consumers[consumer].isSubscribed = true
        queues[queue].consumers += 1
      }
      changeCredit(of: consumer, to: command.credit)
      return nil
    }
    if sessions[session].consumers.count >= limits.consumersPerSession { return .tooManyConsumers }
    if consumers.count >= limits.consumers { return .tooManyConsumers }
    // To AMQP an ended consumer is none, whatever it holds.
    let isUsed =
      queues[queue].consumers > 0 || queues[queue].leased > 0 && sessions[session].kind != .amqp
    if queues[queue].exclusiveConsumer != 0 || command.isExclusive && isUsed {
      return .consumerExclusive
    }
    if !mayHold(command.credit, nil, session) { return .tooMuchCredit }
    var consumer = ConsumerState()
    consumer.serial = commandNumber
    consumer.id = command.consumer
    consumer.session = command.session
    consumer.sessionSlot = session
    consumer.queueSlot = queue
    consumer.credit = command.credit
    consumer.priority = command.priority
    hash.fold(.subscribed, consumer.serial, UInt64(command.credit))
    if command.isExclusive { queues[queue].exclusiveConsumer = consumer.serial }
    if queues[queue].settings.hasSingleActiveConsumer {
      queues[queue].candidates.set(
        ActiveCandidate(key: consumer.serial, priority: command.priority))
    }
    let slot = insertConsumer(consumer)
    sessions[session].consumers.insert(
      SessionState.Member(id: command.consumer, slot: slot), at: place)
    queues[queue].consumers += 1
    maybeChooseActive(queue)
    maybeJoinRotation(slot)
    return nil
  }

  /// Puts the consumer into the table and among those of its queue; returns its slot.
  mutating func insertConsumer(_ consumer: ConsumerState) -> Int {
    let queue = consumer.queueSlot
    let next = queues[queue].firstConsumer
    let slot = consumers.insert(consumer)
    consumerSlots.insert(slot, for: consumer.serial)
    consumers[slot].nextOfQueue = next
    if next != ConsumerState.noSlot { consumers[next].previousOfQueue = slot }
    queues[queue].firstConsumer = slot
    recount(slot)
    return slot
  }

  /// Notes with its session what the consumer may hold, after that has changed.
  mutating func recount(_ consumer: Int) {
    let most = consumers[consumer].holdsAtMost
    let counted = consumers[consumer].counted
    if most == counted { return }
    sessions[consumers[consumer].sessionSlot].holdsAtMost += most - counted
    consumers[consumer].counted = most
  }

  /// Takes the consumer out from among those of its queue.
  private mutating func leaveQueue(_ consumer: Int) {
    let next = consumers[consumer].nextOfQueue
    let previous = consumers[consumer].previousOfQueue
    if next != ConsumerState.noSlot { consumers[next].previousOfQueue = previous }
    if previous != ConsumerState.noSlot {
      consumers[previous].nextOfQueue = next
    } else {
      queues[consumers[consumer].queueSlot].firstConsumer = next
    }
  }

  /// The slots of the queue's consumers, ended ones that hold something included, in no order that
  /// means anything.
  func consumers(of queue: Int) -> [Int] {
    var found: [Int] = []
    var next = queues[queue].firstConsumer
    while next != ConsumerState.noSlot {
      found.append(next)
      next = consumers[next].nextOfQueue
    }
    return found
  }

  /// Where only one consumer may be active and none is, the one of the highest priority is from now
  /// on, of several the one that subscribed first.
  private mutating func maybeChooseActive(_ queue: Int) {
    guard queues[queue].activeConsumer == 0, let next = queues[queue].candidates.popFirst(),
      let consumer = consumerSlots[next.key]
    else { return }
    queues[queue].activeConsumer = next.key
    maybeJoinRotation(consumer)
  }

  mutating func setCredit(_ command: Subscribe, _ effects: inout EffectList) {
    guard let session = slot(of: command.session) else {
      effects.addForAll(refusal(command.session, command.tag, .sessionNotFound))
      return
    }
    let origin = sessions[session].origin
    if command.credit > FixedLimits.creditMax {
      effects.add(refusal(command.session, command.tag, .settingInvalid), for: origin)
    } else if let consumer = sessions[session].slot(of: command.consumer) {
      guard mayHold(command.credit, consumer, session) else {
        effects.add(refusal(command.session, command.tag, .tooMuchCredit), for: origin)
        return
      }
      hash.fold(.creditSet, consumers[consumer].serial, UInt64(command.credit))
      changeCredit(of: consumer, to: command.credit)
      effects.add(
        .reply(.session(command.session), command.tag, .creditSet(command.consumer)), for: origin)
    } else {
      effects.add(refusal(command.session, command.tag, .consumerNotFound), for: origin)
    }
  }

  /// Whether the session's consumers may hold so many together if `consumer`, or a new one, gets
  /// this credit. Less than before is always fine.
  func mayHold(_ credit: UInt32, _ consumer: Int?, _ session: Int) -> Bool {
    if let consumer, consumers[consumer].isSubscribed, credit <= consumers[consumer].credit {
      return true
    }
    var others = sessions[session].holdsAtMost
    var most = Int(credit)
    if let consumer {
      others -= consumers[consumer].counted
      most = max(most, consumers[consumer].held.count)
    }
    return others + most <= limits.creditPerSession
  }

  private mutating func changeCredit(of consumer: Int, to credit: UInt32) {
    consumers[consumer].credit = credit
    recount(consumer)
    if consumers[consumer].creditLeft == 0 {
      leaveRotation(consumer)
    } else {
      maybeJoinRotation(consumer)
    }
  }

  /// Asked again about a consumer that is gone it answers the same.
  mutating func unsubscribe(_ command: Unsubscribe, _ effects: inout EffectList) {
    guard let session = slot(of: command.session) else {
      effects.addForAll(refusal(command.session, command.tag, .sessionNotFound))
      return
    }
    if let consumer = sessions[session].slot(of: command.consumer) {
      let returned = command.returnHeld ? consumers[consumer].held.count : 0
      let isTooMuch = settledHere + returned > limits.settledPerEntry
      if isTooMuch, sessions[session].kind != .amqp {
        effects.add(
          refusal(command.session, command.tag, .overloaded), for: sessions[session].origin)
        return
      }
      hash.fold(.unsubscribed, consumers[consumer].serial)
      if isTooMuch || command.returnHeld && consumers[consumer].held.leavingCount > 0 {
        // A gateway does not ask again: it ends now, and what it holds goes back by and by.
        handBackLater(consumer)
        endSubscription(consumer)
      } else if command.returnHeld || consumers[consumer].held.isEmpty {
        settledHere += returned
        releaseAndRemove(consumer)
      } else {
        endSubscription(consumer)
      }
    }
    effects.add(
      .reply(.session(command.session), command.tag, .unsubscribed(command.consumer)),
      for: sessions[session].origin)
  }

  /// It is given nothing more, and stays for what it holds.
  private mutating func endSubscription(_ consumer: Int) {
    guard consumers[consumer].isSubscribed else { return }
    let queue = consumers[consumer].queueSlot
    leaveRotation(consumer)
    consumers[consumer].isSubscribed = false
    recount(consumer)
    queues[queue].consumers -= 1
    if sessions[consumers[consumer].sessionSlot].kind == .amqp,
      queues[queue].exclusiveConsumer == consumers[consumer].serial
    {
      queues[queue].exclusiveConsumer = 0
    }
    queueLostConsumer(queue)
  }

  /// Hands back what the consumer holds, not counted as attempts, and removes it.
  mutating func releaseAndRemove(_ consumer: Int) {
    let queue = consumers[consumer].queueSlot
    let all = consumers[consumer].held.all
    consumers[consumer].held.removeAll()
    for held in all { release(held, to: queue) }
    removeConsumer(consumer)
  }

  /// Removes a consumer that holds nothing any more.
  mutating func removeConsumer(_ consumer: Int) {
    invariant(
      consumers[consumer].held.isEmpty, "consumer removed with \(consumers[consumer].held.count)")
    leaveRotation(consumer)
    let queue = consumers[consumer].queueSlot
    if consumers[consumer].isSubscribed {
      queues[queue].consumers -= 1
      queueLostConsumer(queue)
    }
    leaseDeadlines.remove(consumers[consumer].serial)
    consumerSlots.remove(consumers[consumer].serial)
    let session = consumers[consumer].sessionSlot
    let (place, found) = sessions[session].place(of: consumers[consumer].id)
    invariant(found, "consumer \(consumers[consumer].id) not among its session's")
    sessions[session].consumers.remove(at: place)
    sessions[session].holdsAtMost -= consumers[consumer].counted
    let serial = consumers[consumer].serial
    leaveQueue(consumer)
    consumers.remove(consumer)
    noteIfResting(session)
    queues[queue].candidates.remove(serial)
    if queues[queue].exclusiveConsumer == serial { queues[queue].exclusiveConsumer = 0 }
    if queues[queue].activeConsumer == serial {
      queues[queue].activeConsumer = 0
      maybeChooseActive(queue)
    }
    noteUse(of: queue)
  }

  /// To be called when the queue may have lost the last that used it.
  mutating func noteUse(of queue: Int) {
    if queues[queue].settings.expires == .zero { return }
    queues[queue].lastUse = clock
    lowerDeadline(ofQueue: queue)
  }

  private func refusal(_ session: SessionID, _ tag: RequestTag, _ refusal: Refusal) -> Effect {
    .reply(.session(session), tag, .refused(refusal, detail: ""))
  }
}
