// Settling and extending deliveries (G3, G6). Each has a number of its session and is carried out
// once; asked again it is answered alike, until the client says that it has seen the answer.

import Base

extension MachineState {
  /// What settle and extend have in common.
  private struct Order {
    var session: SessionID
    var sequence: CommandSequence
    var answeredThrough: CommandSequence
    var consumer: ConsumerID
    var ranges: EncodedRanges

    /// Of an AMQP session: carried out as it comes, and not answered.
    var isUnnumbered: Bool { sequence == .unnumbered }
  }

  mutating func settle(_ command: Settle, _ effects: inout EffectList) {
    let order = Order(
      session: command.session, sequence: command.sequence,
      answeredThrough: command.answeredThrough, consumer: command.consumer,
      ranges: command.ranges)
    guard let session = begin(order, &effects) else { return }
    guard let consumer = sessions[session].slot(of: command.consumer) else {
      finish(refusing: .consumerNotFound, order, session, &effects)
      return
    }
    guard mayLook(at: order, session, consumer, &effects),
      hasRoomForGaps(of: order, session, consumer, &effects)
    else { return }
    if command.kind != .acknowledge {
      let count = heldCount(order, consumer)
      if settledHere + count > limits.settledPerEntry {
        if order.isUnnumbered {
          return settleLater(order, command.kind, session, consumer, &effects)
        }
        refuse(order, .overloaded, sessions[session].origin, &effects)
        return
      }
      settledHere += count
    }
    switch command.kind {
    case .acknowledge: acknowledge(order, session, consumer, &effects)
    case .negative, .reject, .release:
      let end = FailedDelivery(
        kind: command.kind == .reject ? .rejected : .failed, error: command.error,
        consumer: consumer, delay: command.delay)
      giveBack(order, command.kind, end, session, consumer, &effects)
    }
    finish(order, session, &effects)
    afterHeldChanged(consumer)
  }

  /// The same as a part of a transaction, which has seen that all of the ranges is held.
  mutating func settleHeld(
    _ part: Transact.SettlePart, of id: SessionID, _ session: Int, _ consumer: Int,
    _ effects: inout EffectList
  ) {
    let order = Order(
      session: id, sequence: .zero, answeredThrough: .zero, consumer: part.consumer,
      ranges: part.ranges)
    switch part.kind {
    case .acknowledge: acknowledge(order, session, consumer, &effects)
    case .negative, .reject, .release:
      let end = FailedDelivery(
        kind: part.kind == .reject ? .rejected : .failed, error: part.error, consumer: consumer,
        delay: part.delay)
      giveBack(order, part.kind, end, session, consumer, &effects)
    }
    afterHeldChanged(consumer)
  }

  /// Nobody sends an unnumbered settle again: it is decided now, and what is too much for one entry
  /// leaves the consumer with the due work of the next.
  private mutating func settleLater(
    _ order: Order, _ kind: SettleKind, _ session: Int, _ consumer: Int,
    _ effects: inout EffectList
  ) {
    let state: HeldState =
      switch kind {
      case .negative: .failed
      case .reject: .rejected
      case .release, .acknowledge: .unseen
      }
    hash.fold(.settledLater, consumers[consumer].serial, UInt64(state.rawValue))
    visit(order, session, consumer, &effects) { machine, place in
      machine.consumers[consumer].held.settle(at: place, as: state)
      machine.hash.fold(machine.consumers[consumer].held[place].delivery.rawValue)
    }
    if !consumers[consumer].held.isEmpty { lowerDeadline(of: consumer, to: clock) }
  }

  /// Settles all that the consumer holds as handed back, to leave it with the due work of the next
  /// entry.
  mutating func handBackLater(_ consumer: Int) {
    hash.fold(
      .settledLater, consumers[consumer].serial, UInt64(HeldState.handedBack.rawValue))
    for place in 0..<consumers[consumer].held.end where consumers[consumer].held[place].isHeld {
      consumers[consumer].held.settle(at: place, as: .handedBack)
    }
    if !consumers[consumer].held.isEmpty { lowerDeadline(of: consumer, to: clock) }
  }

  /// Sets the leases to end `duration` from now, sooner or later than before.
  mutating func extend(_ command: Extend, _ effects: inout EffectList) {
    let order = Order(
      session: command.session, sequence: command.sequence,
      answeredThrough: command.answeredThrough, consumer: command.consumer,
      ranges: command.ranges)
    guard let session = begin(order, &effects) else { return }
    guard let consumer = sessions[session].slot(of: command.consumer) else {
      finish(refusing: .consumerNotFound, order, session, &effects)
      return
    }
    guard mayLook(at: order, session, consumer, &effects),
      hasRoomForGaps(of: order, session, consumer, &effects)
    else { return }
    let count = heldCount(order, consumer)
    if extendedHere + count > limits.extendedPerEntry {
      refuse(order, .overloaded, sessions[session].origin, &effects)
      return
    }
    extendedHere += count
    let leaseEnd = clock + min(command.duration, limits.extensionMax)
    hash.fold(.extended, consumers[consumer].serial, leaseEnd.rawValue)
    visit(order, session, consumer, &effects) { machine, place in
      machine.consumers[consumer].held[place].leaseEnd = leaseEnd
      machine.hash.fold(machine.consumers[consumer].held[place].delivery.rawValue)
    }
    if !consumers[consumer].held.isEmpty { lowerDeadline(of: consumer, to: leaseEnd) }
    finish(order, session, &effects)
  }

  /// Whether the entry may look at what the order names, to see whether it can be carried out. If not,
  /// the order is refused without using its number up.
  private mutating func mayLook(
    at order: Order, _ session: Int, _ consumer: Int, _ effects: inout EffectList
  ) -> Bool {
    if order.isUnnumbered { return true }
    let looks = consumers[consumer].held.looks(at: order.ranges)
    // Little orders are bounded by their bytes, and no other client can keep them waiting.
    if looks > limits.looksOfLittle {
      let share = sharesHere[order.session, default: SessionShare()]
      if share.looks >= limits.looksPerSession || lookedHere >= limits.looksPerEntry {
        refuse(order, .overloaded, sessions[session].origin, &effects)
        return false
      }
      sharesHere[order.session, default: SessionShare()].looks += looks
    }
    lookedHere += looks
    return true
  }

  /// How many deliveries the command would settle or extend.
  private func heldCount(_ order: Order, _ consumer: Int) -> Int {
    var count = 0
    for place in 0..<order.ranges.count {
      count += consumers[consumer].held.count(in: order.ranges[place])
    }
    return count
  }

  private mutating func acknowledge(
    _ order: Order, _ session: Int, _ consumer: Int, _ effects: inout EffectList
  ) {
    let queue = consumers[consumer].queueSlot
    var count: UInt64 = 0
    var bytes: UInt64 = 0
    hash.fold(.acknowledged, consumers[consumer].serial, order.sequence.rawValue)
    visit(order, session, consumer, &effects) { machine, place in
      let message = machine.consumers[consumer].held[place].message
      machine.consumers[consumer].held.remove(at: place)
      machine.hash.fold(message.id.rawValue)
      count += 1
      bytes += message.size
      if message.has(Waiting.hasNote | Waiting.hasKey) {
        machine.leave(message, from: queue, isOut: true)
      }
    }
    queues[queue].leased -= count
    queues[queue].leasedBytes -= bytes
    queues[queue].bytes -= bytes
    queues[queue].acknowledged += count
    if queues[queue].settings.keyLimit > 0 { markDirty(queue) }
  }

  private mutating func giveBack(
    _ order: Order, _ kind: SettleKind, _ end: FailedDelivery, _ session: Int,
    _ consumer: Int, _ effects: inout EffectList
  ) {
    let queue = consumers[consumer].queueSlot
    visit(order, session, consumer, &effects) { machine, place in
      let held = machine.consumers[consumer].held[place]
      machine.consumers[consumer].held.remove(at: place)
      switch kind {
      case .negative: machine.fail(held, end, in: queue)
      case .reject: machine.reject(held, end, in: queue)
      case .release, .acknowledge:
        // A node hands back unnumbered what it never sent to its client.
        machine.release(held, to: queue, wasSeen: !order.isUnnumbered)
      }
    }
  }

  /// Calls `body` with the place of every delivery in the ranges that is held, and refuses the
  /// parts between. Costs no more than what the consumer holds, however long a range claims to be,
  /// since `begin` has seen that no two ranges overlap.
  @inline(__always)
  private mutating func visit(
    _ order: Order, _ session: Int, _ consumer: Int, _ effects: inout EffectList,
    _ body: (inout MachineState, Int) -> Void
  ) {
    for number in 0..<order.ranges.count {
      let range = order.ranges[number]
      var next = range.first
      var place = consumers[consumer].held.place(of: next)
      let end = consumers[consumer].held.end
      while place < end {
        let delivery = consumers[consumer].held[place].delivery
        if delivery > range.last { break }
        if consumers[consumer].held[place].isHeld {
          if next < delivery {
            let gap = DeliveryRange(first: next, last: DeliveryID(delivery.rawValue - 1))
            refuseGap(gap, order, session, consumer, &effects)
          }
          body(&self, place)
          next = delivery.next
        }
        place += 1
      }
      if next <= range.last {
        let gap = DeliveryRange(first: next, last: range.last)
        refuseGap(gap, order, session, consumer, &effects)
      }
    }
  }

  /// After the consumer holds less, or was taken from: closes gaps, lets it take again, or removes
  /// it if it had ended and this was the last that it held.
  mutating func afterHeldChanged(_ consumer: Int) {
    consumers[consumer].held.tidy()
    recount(consumer)
    if consumers[consumer].isSubscribed {
      maybeJoinRotation(consumer)
      if consumers[consumer].held.isEmpty { noteIfResting(consumers[consumer].sessionSlot) }
    } else if consumers[consumer].held.isEmpty {
      removeConsumer(consumer)
    }
  }

  // Sequences and refusals.

  /// The session, if the command is to be carried out now; answers it otherwise.
  private mutating func begin(_ order: Order, _ effects: inout EffectList) -> Int? {
    guard let session = slot(of: order.session) else {
      if effects.isWanted { refuse(order, .sessionNotFound, nil, &effects) }
      return nil
    }
    if order.isUnnumbered, sessions[session].kind == .amqp {
      return order.ranges.areAscending ? session : nil
    }
    while let refusal = sessions[session].refusals.first,
      refusal.sequence <= order.answeredThrough
    {
      _ = sessions[session].refusals.popFirst()
      refusalCount -= 1
    }
    let origin = sessions[session].origin
    if order.sequence.rawValue > 0, order.sequence <= sessions[session].settled {
      answerAgain(order, session, &effects)
      return nil
    }
    if order.sequence != sessions[session].settled.next {
      refuse(order, .sequenceGap, origin, &effects)
      return nil
    }
    if sessions[session].refusals.count >= limits.unansweredRefusals {
      refuse(order, .tooManyUnanswered, origin, &effects)
      return nil
    }
    guard order.ranges.areAscending else {
      finish(refusing: .malformedRequest, order, session, &effects)
      return nil
    }
    return session
  }

  /// A few bytes ask for thousands of refusals, and each is kept until it is sent. So an entry tells
  /// each about twice. A client asks again when it was attached, which it hears of in between, so only
  /// one that does not keep to the protocol asks more often. (No other may be pushed back here: it
  /// would hear that a later order was carried out before it hears of these refusals, G6.)
  private mutating func answerAgain(
    _ order: Order, _ session: Int, _ effects: inout EffectList
  ) {
    let origin = sessions[session].origin
    let first = firstRefusal(of: order.sequence, session)
    let end = firstRefusal(of: order.sequence.next, session)
    if end > first {
      let left =
        sharesHere[order.session]?.refusalsLeft ?? 2 * sessions[session].refusals.count
      guard left >= end - first else {
        refuse(order, .overloaded, origin, &effects)
        return
      }
      sharesHere[order.session, default: SessionShare()].refusalsLeft = left - (end - first)
    }
    guard effects.wants(origin) else { return }
    for place in first..<end {
      let known = sessions[session].refusals[place]
      effects.effects.append(
        .settleRefused(
          order.session, order.sequence, known.consumer, known.range, known.refusal))
    }
    // Only through this one: the client asks for the later ones again too, and must hear of their
    // refusals before it hears that they are carried out (G6).
    effects.addSettled(order.session, through: order.sequence)
  }

  /// The place of the first refusal that is not of an earlier order: they are in their order.
  private func firstRefusal(of sequence: CommandSequence, _ session: Int) -> Int {
    var low = 0
    var high = sessions[session].refusals.count
    while low < high {
      let middle = (low + high) / 2
      if sessions[session].refusals[middle].sequence < sequence {
        low = middle + 1
      } else {
        high = middle
      }
    }
    return low
  }

  private mutating func finish(_ order: Order, _ session: Int, _ effects: inout EffectList) {
    if order.isUnnumbered { return }
    sessions[session].settled = order.sequence
    if effects.wants(sessions[session].origin) {
      effects.addSettled(order.session, through: order.sequence)
    }
  }

  /// The number is used up, for nothing.
  private mutating func finish(
    refusing refusal: Refusal, _ order: Order, _ session: Int, _ effects: inout EffectList
  ) {
    guard hasRoom(for: order.ranges.count, order, session, &effects) else { return }
    for place in 0..<order.ranges.count {
      refuse(order.ranges[place], refusal, order, session, &effects)
    }
    finish(order, session, &effects)
  }

  /// Whether so many refusals can be remembered until the client has seen them; if not now, the
  /// order is refused without using its number up.
  private func hasRoom(
    for refused: Int, _ order: Order, _ session: Int, _ effects: inout EffectList
  ) -> Bool {
    if order.isUnnumbered || refused == 0 { return true }
    let remembered = sessions[session].refusals.count
    let hasRoom =
      refusalCount < limits.refusals
      // One that has seen all would wait for ever.
      ? remembered == 0 || remembered + refused <= limits.unansweredRefusals
      : remembered + refused <= limits.refusalsWhenFull
    if !hasRoom { refuse(order, .tooManyUnanswered, sessions[session].origin, &effects) }
    return hasRoom
  }

  /// The same for the gaps that `visit` will refuse. An order with more of them than are ever
  /// remembered is refused as a whole.
  private mutating func hasRoomForGaps(
    of order: Order, _ session: Int, _ consumer: Int, _ effects: inout EffectList
  ) -> Bool {
    if order.isUnnumbered { return true }
    // Nearly always there is room for as many as could be, and nothing has to be counted.
    let isWhole = consumers[consumer].held.isWithoutGaps
    let most = order.ranges.count * 3 + (isWhole ? 0 : consumers[consumer].held.count)
    let room = refusalCount < limits.refusals ? limits.unansweredRefusals : limits.refusalsWhenFull
    if sessions[session].refusals.count + most <= room { return true }
    var gaps = 0
    for place in 0..<order.ranges.count {
      gaps += consumers[consumer].held.gaps(
        in: order.ranges[place], next: consumers[consumer].nextDelivery)
    }
    guard gaps > limits.unansweredRefusals else {
      return hasRoom(for: gaps, order, session, &effects)
    }
    finish(refusing: .malformedRequest, order, session, &effects)
    return false
  }

  /// Deliveries in no one's hands: those made are stale, those never made do not exist.
  private mutating func refuseGap(
    _ gap: DeliveryRange, _ order: Order, _ session: Int, _ consumer: Int,
    _ effects: inout EffectList
  ) {
    let made = DeliveryID(consumers[consumer].nextDelivery - 1)
    if gap.first <= made {
      let stale = DeliveryRange(first: gap.first, last: min(gap.last, made))
      refuse(stale, .staleDelivery, order, session, &effects)
    }
    if gap.last > made {
      let unknown = DeliveryRange(first: max(gap.first, made.next), last: gap.last)
      refuse(unknown, .deliveryNotFound, order, session, &effects)
    }
  }

  /// Refuses a part for good: remembered until the client has seen it.
  private mutating func refuse(
    _ range: DeliveryRange, _ refusal: Refusal, _ order: Order, _ session: Int,
    _ effects: inout EffectList
  ) {
    hash.fold(.settleRefused, range.first.rawValue, UInt64(refusal.rawValue))
    if order.isUnnumbered { return }
    refusalCount += 1
    sessions[session].refusals.append(
      SettleRefusal(
        sequence: order.sequence, consumer: order.consumer, range: range, refusal: refusal))
    effects.add(
      .settleRefused(order.session, order.sequence, order.consumer, range, refusal),
      for: sessions[session].origin)
  }

  /// Refuses the whole command without using up its number. A nil origin is a session that does
  /// not exist.
  private func refuse(
    _ order: Order, _ refusal: Refusal, _ origin: SessionOrigin?, _ effects: inout EffectList
  ) {
    guard effects.wants(origin) || refusal == .sessionNotFound else { return }
    for place in 0..<order.ranges.count {
      effects.effects.append(
        .settleRefused(
          order.session, order.sequence, order.consumer, order.ranges[place], refusal))
    }
  }
}

extension EffectList {
  /// Adds to the answer before where that is of the same session: it is cumulative.
  fileprivate mutating func addSettled(_ session: SessionID, through sequence: CommandSequence) {
    if case .settled(session, let earlier)? = effects.last {
      effects[effects.count - 1] = .settled(session, through: max(earlier, sequence))
    } else {
      effects.append(.settled(session, through: sequence))
    }
  }
}
