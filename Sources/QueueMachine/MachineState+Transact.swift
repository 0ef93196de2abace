// Transactions (G10): everything is looked at before anything is changed, so that one thing that
// cannot be done leaves all as it was. The whole is answered under the producer's numbers of its
// messages: sent again, also in a later session of the producer, it is answered alike (G4).

import Base

extension MachineState {
  mutating func transact(_ command: Transact, _ effects: inout EffectList) {
    let count = command.count
    guard let session = slot(of: command.session) else {
      effects.addForAll(
        .refused(
          command.session, first: command.first, count: UInt32(count), .sessionNotFound))
      return
    }
    let origin = sessions[session].origin
    guard let producer = slot(of: sessions[session].producer),
      producers[producer].session == command.session
    else {
      postpone(command, .producerFenced, origin, &effects)
      return
    }
    forgetAnswers(of: producer, through: command.answeredThrough)
    let runs = producers[producer].runs.count
    defer { liveRuns += producers[producer].runs.count - runs }
    let first = command.first.rawValue
    let next = producers[producer].lastSequence + 1
    guard first >= 1, first <= next else {
      postpone(command, .sequenceGap, origin, &effects)
      return
    }
    let known = min(UInt64(count), next - first)
    if known > 0 {
      if effects.wants(origin) {
        producers[producer].answers(from: first, count: known) { run, count in
          effects.addAnswer(run, to: command.session, first: first, count: count)
        }
      }
      if known < UInt64(count) {
        // No client sends this: a part of a transaction cannot have been carried out.
        refuse(command, after: known, .malformedRequest, producer, origin, &effects)
      }
      return
    }
    if let refusal = room(for: command, producer) {
      postpone(command, refusal, origin, &effects)
    } else if let refusal = fault(of: command, session) ?? lackOfRoom(for: command) {
      if refusal == .overloaded {
        postpone(command, refusal, origin, &effects)
      } else {
        refuse(command, after: 0, refusal, producer, origin, &effects)
      }
    } else if settledHere + command.givenBack > limits.settledPerEntry {
      postpone(command, .overloaded, origin, &effects)
    } else {
      settledHere += command.givenBack
      carryOut(command, session, producer, origin, &effects)
    }
  }

  /// Why the transaction has to be sent again later; nil if it need not be.
  private func room(for command: Transact, _ producer: Int) -> Refusal? {
    if hasTooManyAnswers(producer, with: command.count, runs: command.answerRuns) {
      return .tooManyUnanswered
    }
    // What would never fit is refused for good.
    if command.copies > limits.publishesPerEntry { return nil }
    return publishedHere + command.copies > limits.publishesPerEntry ? .overloaded : nil
  }

  /// Why the deliveries cannot be settled, or which queue is missing; `overloaded` if too much was
  /// looked at in this entry already to tell.
  private mutating func fault(of command: Transact, _ session: Int) -> Refusal? {
    // What costs little first: this may be sent again and again.
    if !command.settles.isEmpty, command.holder != command.session { return .staleDelivery }
    if command.rangeCount > FixedLimits.rangesPerTransaction { return .transactionTooLarge }
    guard command.settlesAreApart else { return .malformedRequest }
    if !command.settles.isEmpty, lookedHere >= limits.looksPerEntry { return .overloaded }
    for settle in command.settles {
      guard let consumer = sessions[session].slot(of: settle.consumer) else {
        return .consumerNotFound
      }
      lookedHere += consumers[consumer].held.looks(at: settle.ranges)
      for place in 0..<settle.ranges.count {
        let range = settle.ranges[place]
        if range.last.rawValue >= consumers[consumer].nextDelivery { return .deliveryNotFound }
        let asked = range.last.rawValue - range.first.rawValue + 1
        if UInt64(consumers[consumer].held.count(in: range)) < asked { return .staleDelivery }
      }
    }
    if command.copies > limits.publishesPerEntry || command.givenBack > limits.settledPerEntry {
      return .transactionTooLarge
    }
    let isKnown = command.parts.allSatisfy { part in
      part.queues.allSatisfy { slot(of: $0) != nil }
    }
    return isKnown ? nil : .queueNotFound
  }

  /// Whether a queue has no room for all that it is to get. One step for each queue of each part.
  private func lackOfRoom(for command: Transact) -> Refusal? {
    var demands: [Int: Demand] = [:]
    for part in command.parts {
      var largest: UInt64?
      for queue in part.queues.compactMap({ slot(of: $0) }) where queues[queue].hasLimit {
        if queues[queue].settings.overflow == .reject {
          let demand = demands[queue, default: Demand()].adding(part)
          if queues[queue].isFull(for: demand.bytes, count: demand.count) { return .queueFull }
        } else if queues[queue].settings.bytesMax > 0 {
          let bytes = largest ?? part.largestRecord
          largest = bytes
          if bytes > queues[queue].settings.bytesMax { return .queueFull }
        }
      }
    }
    return nil
  }

  /// All of it can be done.
  private mutating func carryOut(
    _ command: Transact, _ session: Int, _ producer: Int, _ origin: SessionOrigin?,
    _ effects: inout EffectList
  ) {
    hash.fold(.transacted, command.first.rawValue, UInt64(command.count))
    for settle in command.settles {
      // An earlier part may have removed it, if it had ended and this was all that it held: then
      // this part has no deliveries.
      guard let consumer = sessions[session].slot(of: settle.consumer) else { continue }
      settleHeld(settle, of: command.session, session, consumer, &effects)
    }
    var next = command.first.rawValue
    for part in command.parts {
      let run = ProducerState.Run(
        first: next, count: UInt64(part.count),
        firstID: MessageID(entry: appliedIndex, ordinal: nextOrdinal).rawValue, refusal: nil,
        copies: UInt32(part.queues.count))
      store(part)
      producers[producer].answer(run)
      if effects.wants(origin) {
        effects.addAnswer(run, to: command.session, first: next, count: run.count)
      }
      next += UInt64(part.count)
    }
  }

  /// Each message in each of its queues, in this order: so the ids of one message follow one another.
  private mutating func store(_ part: Transact.Part) {
    let targets = part.queues.compactMap { slot(of: $0) }
    let first = MessageID(entry: appliedIndex, ordinal: nextOrdinal)
    for queue in part.queues {
      hash.fold(.published, first.rawValue, UInt64(queue.rawValue) << 32 | UInt64(part.count))
    }
    if targets.count == 1 {
      Self.append(
        part.run, at: part.runOffset, after: 0, count: part.count, firstID: first,
        to: &queues[targets[0]], at: clock, hash: &hash)
    } else {
      var offset = 0
      var id = first.rawValue
      for _ in 0..<part.count {
        let rest = UnsafeRawBufferPointer(rebasing: part.run[offset...])
        for queue in targets {
          Self.append(
            rest, at: part.runOffset + offset, after: 0, count: 1,
            firstID: MessageID(rawValue: id), isShared: true, to: &queues[queue], at: clock,
            hash: &hash)
          id += 1
        }
        offset += Self.recordSize(in: part.run, at: offset)
      }
    }
    nextOrdinal += part.copies
    publishedHere += part.copies
    for queue in targets {
      trimIfOverfull(queue)
      markDirty(queue)
      lowerDeadline(ofQueue: queue)
    }
  }

  /// The answer to all its numbers but the first `known` for good.
  private mutating func refuse(
    _ command: Transact, after known: UInt64, _ refusal: Refusal, _ producer: Int,
    _ origin: SessionOrigin?, _ effects: inout EffectList
  ) {
    let run = ProducerState.Run(
      first: command.first.rawValue + known, count: UInt64(command.count) - known, firstID: 0,
      refusal: refusal)
    hash.fold(.publishRefused, run.first, run.count)
    producers[producer].answer(run)
    if effects.wants(origin) {
      effects.addAnswer(run, to: command.session, first: run.first, count: run.count)
    }
  }

  /// Refuses it without using its numbers up.
  private func postpone(
    _ command: Transact, _ refusal: Refusal, _ origin: SessionOrigin?,
    _ effects: inout EffectList
  ) {
    effects.add(
      .refused(command.session, first: command.first, count: UInt32(command.count), refusal),
      for: origin)
  }
}

/// What a transaction asks of one queue.
private struct Demand {
  var count: UInt64 = 0
  var bytes: UInt64 = 0

  mutating func adding(_ part: Transact.Part) -> Demand {
    count += UInt64(part.count)
    bytes += UInt64(part.run.count)
    return self
  }
}

extension Transact {
  /// Deliveries that it takes from consumers other than by acknowledging them, once it is seen that
  /// they are held.
  fileprivate var givenBack: Int {
    var count = 0
    for settle in settles where settle.kind != .acknowledge {
      for place in 0..<settle.ranges.count {
        let range = settle.ranges[place]
        count += Int(range.last.rawValue - range.first.rawValue + 1)
      }
    }
    return count
  }
}

extension Transact.Part {
  /// Bytes of its largest record.
  fileprivate var largestRecord: UInt64 {
    var offset = 0
    var largest = 0
    for _ in 0..<count {
      let size = MachineState.recordSize(in: run, at: offset)
      largest = max(largest, size)
      offset += size
    }
    return UInt64(largest)
  }
}
