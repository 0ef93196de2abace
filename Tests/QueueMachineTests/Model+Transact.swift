// Transactions as plainly as possible: tried on a copy, and kept if nothing was wrong.

import Base

@testable import QueueMachine

extension Model {
  mutating func transact(
    _ session: SessionID, first: UInt64, answeredThrough: UInt64, holder: SessionID,
    settles: [TransactionSettle], parts: [(queues: [QueueID], records: [Record])]
  ) {
    let count = parts.reduce(0) { $0 + $1.records.count }
    func refuse(_ refusal: Refusal) {
      tell(
        session,
        .refused(session, first: PublishSequence(first), count: UInt32(count), refusal))
    }
    guard let owner = sessions.first(where: { $0.id == session }) else {
      return refuse(.sessionNotFound)
    }
    guard var producer = producers[owner.producer], producer.session == session else {
      return refuse(.producerFenced)
    }
    while producer.forgottenThrough < answeredThrough, !producer.answers.isEmpty {
      producer.answers.removeFirst()
      producer.forgottenThrough += 1
    }
    producers[owner.producer] = producer
    if first == 0 || first > producer.last + 1 { return refuse(.sequenceGap) }
    let end = first + UInt64(count)
    if first <= producer.last {
      // Answers that are known; a part of a transaction is never carried out.
      let last = producer.last
      let records = (first..<min(end, last + 1)).map { _ in Record(offset: 0, size: 0) }
      publish(
        session, first: first, answeredThrough: answeredThrough, queue: QueueID(0),
        records: records)
      if end > last + 1 {
        let rest = (last + 1..<end).map { _ in Answer.refused(.malformedRequest) }
        answer(session, last + 1, rest, owner.producer)
      }
      return
    }
    let copies = parts.map(\.queues.count)
    let runs = zip(copies, copies.dropFirst()).count { $0 != $1 } + 1
    if hasTooManyAnswers(producer, owner.producer, with: count, runs: runs) {
      return refuse(.tooManyUnanswered)
    }
    if let wrong = fault(session, holder, settles, parts) {
      answer(session, first, (0..<count).map { _ in .refused(wrong) }, owner.producer)
      return
    }
    for settle in settles {
      for held in held(session, settle.consumer) where settle.names(held.delivery) {
        let (s, c) = find(session, settle.consumer)!
        let queue = sessions[s].consumers[c].queue
        sessions[s].consumers[c].held.removeAll { $0.delivery == held.delivery }
        self.end(
          held, of: session, settle.consumer, in: queue, settle.kind, settle.error,
          delay: settle.delay?.rawValue)
      }
      refresh(session, settle.consumer)
    }
    var next = first
    for part in parts {
      let base = ordinal
      for record in part.records {
        for queue in part.queues {
          let stored = store(record, queuePlace(queue)!, isChecked: true)
          invariant(stored != .refused(.queueFull), "the transaction was looked at before")
        }
      }
      for queue in part.queues {
        let q = queuePlace(queue)!
        trimIfOverfull(q)
      }
      let answers = part.records.indices.map { place in
        let id = MessageID(
          entry: LogIndex(index), ordinal: base + place * part.queues.count)
        return Answer.stored(id, copies: UInt32(part.queues.count))
      }
      answer(session, next, answers, owner.producer)
      next += UInt64(answers.count)
    }
  }

  private mutating func answer(
    _ session: SessionID, _ first: UInt64, _ answers: [Answer], _ producer: ProducerID
  ) {
    producers[producer]!.answers += answers
    answer(session, producers[producer]!.runs(first..<first + UInt64(answers.count)))
  }

  private func held(_ session: SessionID, _ consumer: ConsumerID) -> [HeldMessage] {
    find(session, consumer).map { sessions[$0].consumers[$1].held } ?? []
  }

  private func fault(
    _ session: SessionID, _ holder: SessionID, _ settles: [TransactionSettle],
    _ parts: [(queues: [QueueID], records: [Record])]
  ) -> Refusal? {
    if !settles.isEmpty, holder != session { return .staleDelivery }
    let named = settles.flatMap { settle in settle.ranges.map { (settle.consumer, $0) } }
    for settle in settles {
      var last: UInt64 = 0
      for range in settle.ranges {
        if range.first.rawValue <= last || range.last < range.first { return .malformedRequest }
        last = range.last.rawValue
      }
    }
    for (place, one) in named.enumerated() {
      for other in named[(place + 1)...] where other.0 == one.0 {
        if one.1.first <= other.1.last && other.1.first <= one.1.last { return .malformedRequest }
      }
    }
    for settle in settles {
      guard let (s, c) = find(session, settle.consumer) else { return .consumerNotFound }
      let consumer = sessions[s].consumers[c]
      for range in settle.ranges {
        if range.last.rawValue >= consumer.nextDelivery { return .deliveryNotFound }
        let held = Set(consumer.held.map(\.delivery))
        for delivery in range.first.rawValue...range.last.rawValue
        where !held.contains(delivery) {
          return .staleDelivery
        }
      }
    }
    for part in parts {
      for queue in part.queues where queuePlace(queue) == nil { return .queueNotFound }
    }
    for q in queues.indices {
      let coming = parts.flatMap { part in
        part.queues.filter { $0 == queues[q].id }.flatMap { _ in part.records }
      }
      if coming.isEmpty { continue }
      let bytes = coming.reduce(0) { $0 + $1.size }
      let largest = coming.map(\.size).max() ?? 0
      let settings = queues[q].settings
      if settings.overflow == .reject
        ? isOver(q, coming.count, bytes) : settings.bytesMax > 0 && largest > settings.bytesMax
      {
        return .queueFull
      }
    }
    return nil
  }
}

extension TransactionSettle {
  fileprivate func names(_ delivery: UInt64) -> Bool {
    ranges.contains { $0.first.rawValue <= delivery && delivery <= $0.last.rawValue }
  }
}
