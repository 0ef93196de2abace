// Giving ready messages to consumers. Part of every command's application, so that every replica
// knows who holds what and no further log entry is needed to deliver.
//
// The rule (also in the README): consumers that could take a message stand in the queue's rotation.
// The first takes its share, at most its credit, and goes to the end if it has credit left, or
// leaves until it has some again and then joins at the end. The share is what was ready when the
// assignment began divided by the consumers in the rotation, at least 1. Consumers with a priority
// have a rotation for each: a lower one gets what the higher ones have no credit for.

import Base

extension MachineState {
  mutating func markDirty(_ queue: Int) {
    if queues[queue].isDirty { return }
    queues[queue].isDirty = true
    dirtyQueues.append(queue)
  }

  /// Puts the consumer into its queue's rotation if it could take a message and is not there.
  mutating func maybeJoinRotation(_ consumer: Int) {
    if consumers[consumer].isInRotation || !consumers[consumer].isSubscribed
      || consumers[consumer].creditLeft == 0
      || sessions[consumers[consumer].sessionSlot].origin == nil
    {
      return
    }
    let queue = consumers[consumer].queueSlot
    if queues[queue].settings.hasSingleActiveConsumer,
      queues[queue].activeConsumer != consumers[consumer].serial
    {
      return
    }
    consumers[consumer].rotationPlace = queues[queue].rotation.append(
      consumer, consumers[consumer].priority)
    markDirty(queue)
  }

  /// Takes the consumer out of the rotation wherever it stands; the others keep their order.
  mutating func leaveRotation(_ consumer: Int) {
    guard consumers[consumer].isInRotation else { return }
    queues[consumers[consumer].queueSlot].rotation.remove(
      at: consumers[consumer].rotationPlace, consumers[consumer].priority)
    consumers[consumer].rotationPlace = Rotation.none
  }

  /// Assigns what the command made ready or made room for, queue by queue in order of their ids.
  mutating func assignDirty(_ effects: inout EffectList) {
    if !doomedQueues.isEmpty { deleteDoomed(&effects) }
    if dirtyQueues.isEmpty { return }
    if dirtyQueues.count > 1 {
      dirtyQueues.sort { queues[$0].id < queues[$1].id }
    }
    for place in dirtyQueues.indices {
      queues[dirtyQueues[place]].isDirty = false
      assign(dirtyQueues[place], &effects)
    }
    dirtyQueues.removeAll(keepingCapacity: true)
  }

  private mutating func assign(_ queue: Int, _ effects: inout EffectList) {
    var ready = queues[queue].ready.count
    if ready == 0 || queues[queue].rotation.isEmpty { return }
    if !queues[queue].rotation.hasPriorities {
      assign(&ready, from: queue, to: 0, &effects)
      return
    }
    // Each that comes up takes something, and leaves when it has no credit any more: so this costs
    // what is delivered, however many priorities there are.
    while ready > 0, let priority = queues[queue].rotation.highest {
      assign(&ready, from: queue, to: priority, &effects)
    }
  }

  /// Among the consumers of one priority.
  private mutating func assign(
    _ ready: inout Int, from queue: Int, to priority: Int16, _ effects: inout EffectList
  ) {
    let takers = queues[queue].rotation.count(of: priority)
    if takers == 0 || ready == 0 { return }
    let share = max(1, ready / takers)
    while ready > 0, let consumer = queues[queue].rotation.popFirst(of: priority) {
      let count = min(share, ready, consumers[consumer].creditLeft)
      deliver(count, from: queue, to: consumer, &effects)
      ready -= count
      if consumers[consumer].creditLeft > 0 {
        consumers[consumer].rotationPlace = queues[queue].rotation.append(consumer, priority)
      } else {
        consumers[consumer].rotationPlace = Rotation.none
      }
    }
  }

  private mutating func deliver(
    _ count: Int, from queue: Int, to consumer: Int, _ effects: inout EffectList
  ) {
    let session = consumers[consumer].sessionSlot
    let isWanted = effects.wants(sessions[session].origin)
    let before = effects.deliveries.count
    hash.fold(.delivered, consumers[consumer].serial, queues[queue].nextToken)
    let leaseEnd = clock + queues[queue].settings.lease
    Self.handOut(
      count, from: &queues[queue], to: &consumers[consumer], granted: clock, leaseEnd: leaseEnd,
      hash: &hash, deliveries: &effects.deliveries, isWanted: isWanted)
    lowerDeadline(of: consumer, to: leaseEnd)
    if isWanted {
      effects.effects.append(
        .deliver(
          consumers[consumer].session, consumers[consumer].id,
          deliveries: before..<effects.deliveries.count))
    }
  }

  /// The loop over messages.
  static func handOut(
    _ count: Int, from queue: inout QueueState, to consumer: inout ConsumerState,
    granted: MachineTime, leaseEnd: MachineTime, hash: inout StateHash,
    deliveries: inout [Delivery], isWanted: Bool
  ) {
    var redelivered: UInt64 = 0
    var bytes: UInt64 = 0
    for _ in 0..<count {
      guard let message = queue.ready.popFirst() else {
        stopForBug("queue \(queue.id) ran out of ready messages")
      }
      hash.fold(message.id.rawValue)
      let held = Held(
        delivery: DeliveryID(rawValue: consumer.nextDelivery), message: message,
        token: FencingToken(rawValue: queue.nextToken), leaseEnd: leaseEnd, granted: granted,
        attempt: queue.attempts(of: message) + 1)
      consumer.nextDelivery += 1
      queue.nextToken += 1
      bytes += message.size
      if message.has(Waiting.wasDelivered) { redelivered += 1 }
      if isWanted { deliveries.append(Delivery(held, reference: queue.reference(of: message))) }
      consumer.held.append(held)
    }
    queue.leased += UInt64(count)
    queue.leasedBytes += bytes
    queue.delivered += UInt64(count)
    queue.redelivered += redelivered
  }

  /// No lease of the consumer ends before its deadline.
  mutating func lowerDeadline(of consumer: Int, to time: MachineTime) {
    if time < consumers[consumer].deadline { setDeadline(of: consumer, to: time) }
  }

  mutating func setDeadline(of consumer: Int, to time: MachineTime) {
    consumers[consumer].deadline = time
    if time == .never {
      leaseDeadlines.remove(consumers[consumer].serial)
    } else {
      leaseDeadlines.set(consumers[consumer].serial, to: time)
    }
  }
}

extension Delivery {
  @inline(__always)
  init(_ held: Held, reference: RecordReference) {
    self.init(
      delivery: held.delivery, token: held.token, id: held.message.id, reference: reference,
      leaseEnd: held.leaseEnd, granted: held.granted, attempt: held.attempt,
      isRedelivery: held.message.has(Waiting.wasDelivered))
  }
}
