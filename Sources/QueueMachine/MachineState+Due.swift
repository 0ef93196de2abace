// What time brings: leases that ran out, sessions that stayed away, messages that are too old or
// whose time came, producers forgotten. Carried out at the beginning of an entry, by the entry's
// stamp: first all leases by consumer and delivery, then sessions by time and id, then the queues by
// id, of each first what is too old, by time and id, then what falls due, then what is too much, then
// the queue itself if nobody uses it any more. What leases and sessions give back to a full queue makes room
// at once.
// Nothing is assigned before all of it is returned.

import Base

extension MachineState {
  /// Carries out what is due, at most `MachineLimits.dueWorkPerEntry` of it, but for the copies
  /// of one message; the rest stays due for the next entry. Counted are messages, the copies of one
  /// that an exchange moves, and queues that go, with what is in them.
  mutating func carryOutDue(_ effects: inout EffectList) {
    carryOutDueLeases(&effects)
    endDueSessions(&effects)
    carryOutDueQueues(&effects)
    while let idle = idleProducers.first, idle.time + limits.producerMemory <= clock {
      forgetProducer(ProducerID(rawValue: idle.key))
    }
  }

  /// Also right after a detach, which may leave no time at all.
  mutating func endDueSessions(_ effects: inout EffectList) {
    while dueWork < limits.dueWorkPerEntry, let due = sessionDeadlines.first,
      due.time <= clock, let session = sessionSlots[due.key]
    {
      expire(session, &effects)
    }
  }

  /// The heap says who may have something due; the order among them is by serial, since the
  /// deadlines in it are lower bounds, which must decide nothing.
  private mutating func carryOutDueLeases(_ effects: inout EffectList) {
    guard let first = leaseDeadlines.first, first.time <= clock else { return }
    var due: [UInt64] = []
    while let first = leaseDeadlines.first, first.time <= clock {
      leaseDeadlines.remove(first.key)
      due.append(first.key)
    }
    due.sort()
    for serial in due {
      guard let consumer = consumerSlots[serial] else { continue }
      if dueWork < limits.dueWorkPerEntry {
        expireLeases(of: consumer, &effects)
      } else {
        leaseDeadlines.set(serial, to: consumers[consumer].deadline)
      }
    }
  }

  /// Returns what this consumer held too long, and what it settled that had to wait, as far as this
  /// entry may, and finds its next deadline.
  private mutating func expireLeases(of consumer: Int, _ effects: inout EffectList) {
    let queue = consumers[consumer].queueSlot
    let isWanted = effects.wants(sessions[consumers[consumer].sessionSlot].origin)
    let before = effects.ranges.count
    var next = MachineTime.never
    var place = consumers[consumer].held.place(of: DeliveryID(0))
    while place < consumers[consumer].held.end, dueWork < limits.dueWorkPerEntry {
      let held = consumers[consumer].held[place]
      if held.isHeld {
        if held.leaseEnd <= clock {
          consumers[consumer].held.remove(at: place)
          dueWork += 1
          let end = FailedDelivery(
            kind: .leaseRanOut, error: "lease ran out", consumer: consumer)
          fail(held, end, in: queue)
          if isWanted { effects.addRange(held.delivery, since: before) }
        } else {
          next = min(next, held.leaseEnd)
        }
      } else if held.isLeaving {
        consumers[consumer].held.remove(at: place)
        dueWork += 1
        _ = carryOutSettle(of: held, by: consumer, in: queue)
      }
      place += 1
    }
    // What is left is looked at in the next entry; no lease of it ends before the last deadline. Gaps
    // decide nothing: a replica that was restored has none.
    while place < consumers[consumer].held.end, consumers[consumer].held[place].state == .gap {
      place += 1
    }
    if place < consumers[consumer].held.end { next = consumers[consumer].deadline }
    setDeadline(of: consumer, to: next)
    if isWanted, effects.ranges.count > before {
      effects.effects.append(
        .lapsed(
          consumers[consumer].session, consumers[consumer].id,
          ranges: before..<effects.ranges.count))
    }
    afterHeldChanged(consumer)
  }

  /// Ends a session that stayed detached: what it holds counts as failed. Goes on with the next
  /// entry where it holds too much for one.
  private mutating func expire(_ session: Int, _ effects: inout EffectList) {
    while let member = sessions[session].consumers.first {
      if dueWork >= limits.dueWorkPerEntry { return }
      failHeld(by: member.slot)
      consumers[member.slot].held.tidy()
      recount(member.slot)
      if !consumers[member.slot].held.isEmpty { return }
      removeConsumer(member.slot)
    }
    end(session, .expired, &effects)
  }

  /// What a consumer that is gone holds goes back, as far as this entry may.
  private mutating func failHeld(by consumer: Int) {
    let queue = consumers[consumer].queueSlot
    let end = FailedDelivery(
      kind: .consumerGone, error: "consumer is gone", consumer: consumer)
    var place = consumers[consumer].held.place(of: DeliveryID(0))
    while place < consumers[consumer].held.end, dueWork < limits.dueWorkPerEntry {
      let held = consumers[consumer].held[place]
      if held.state != .gap {
        consumers[consumer].held.remove(at: place)
        dueWork += 1
        if !carryOutSettle(of: held, by: consumer, in: queue) { fail(held, end, in: queue) }
      }
      place += 1
    }
  }

  /// The heap says which queues may have something due; nothing depends on what it says too early.
  private mutating func carryOutDueQueues(_ effects: inout EffectList) {
    guard let first = queueDeadlines.first, first.time <= clock else { return }
    var due: [UInt64] = []
    while let first = queueDeadlines.first, first.time <= clock {
      queueDeadlines.remove(first.key)
      due.append(first.key)
    }
    due.sort()
    for id in due {
      guard let queue = queueSlots[id] else { continue }
      expireDue(in: queue, by: clock)
      makeDueReady(in: queue)
      trim(queue)
      if queues[queue].expiry <= clock, dueWork < limits.dueWorkPerEntry {
        // It has no consumers, and nobody holds anything.
        dueWork += 1 + Int(queues[queue].waitingCount)
        _ = remove(queue, &effects)
      } else {
        lowerDeadline(ofQueue: queue)
      }
    }
  }

  mutating func expireDue(in queue: Int, by time: MachineTime) {
    while dueWork < limits.dueWorkPerEntry, let first = queues[queue].expiries.first,
      first.time <= time
    {
      queues[queue].expiries.remove(first.key)
      // One that is held expires when it comes back.
      guard let (message, isOut) = queues[queue].removeWaiting(MessageID(rawValue: first.key))
      else { continue }
      dueWork += 1
      giveUp(
        message, in: queue, queues[queue].settings.keepsNothing ? .overflowed : .expired,
        attempts: queues[queue].attempts(of: message), isOut: isOut)
    }
  }

  private mutating func makeDueReady(in queue: Int) {
    while dueWork < limits.dueWorkPerEntry, let first = queues[queue].delayed.first,
      first.due <= clock
    {
      queues[queue].delayed.remove(first.key)
      dueWork += 1
      hash.fold(.fellDue, first.key)
      makeReady(first.message, in: queue)
    }
  }

  /// Makes room in a queue that holds too much, as far as this entry may; the rest goes with the
  /// next.
  mutating func trim(_ queue: Int) {
    guard queues[queue].needsTrim else { return }
    while queues[queue].isOverfull {
      if dueWork >= limits.dueWorkPerEntry { return }
      guard let message = queues[queue].popOldest() else { break }
      dueWork += 1
      giveUp(message, in: queue, .overflowed, attempts: queues[queue].attempts(of: message))
    }
    queues[queue].needsTrim = false
  }

  /// To be called after something was put into the queue, or came back to it.
  mutating func trimIfOverfull(_ queue: Int) {
    guard queues[queue].settings.overflow == .dropOldest, queues[queue].isOverfull else { return }
    queues[queue].needsTrim = true
    trim(queue)
    lowerDeadline(ofQueue: queue)
  }

  /// To be called after something was put into the queue that falls due.
  mutating func lowerDeadline(ofQueue queue: Int) {
    let time = queues[queue].deadline(at: clock)
    if time == .never { return }
    let id = UInt64(queues[queue].id.rawValue)
    if let known = queueDeadlines.time(of: id), known <= time { return }
    queueDeadlines.set(id, to: time)
  }

  mutating func forgetProducer(_ producer: ProducerID) {
    guard let slot = slot(of: producer) else { return }
    hash.fold(.producerForgotten, producer.rawValue)
    idleRuns -= producers[slot].runs.count
    idleProducers.remove(producer.rawValue)
    producerSlots.remove(producer.rawValue)
    producers.remove(slot)
  }
}

extension EffectList {
  /// Adds a delivery to the ranges from place `start` on, of which the last may just go on.
  mutating func addRange(_ delivery: DeliveryID, since start: Int) {
    if ranges.count > start, ranges[ranges.count - 1].last.next == delivery {
      ranges[ranges.count - 1].last = delivery
    } else {
      ranges.append(DeliveryRange(first: delivery, last: delivery))
    }
  }
}
