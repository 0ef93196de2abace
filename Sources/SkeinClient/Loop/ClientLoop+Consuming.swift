// Consumers: subscriptions, deliveries to the tasks, settlements to the leader.

import Base
import Transport
import Wire

struct ConsumerEntry {
  let core: ConsumerCore
  /// Who waits for the subscription, until it is answered.
  var promise: Promise<StagedSettle.Outcome>?
  /// When that wait is over.
  let deadline: MonotonicTime
  /// On this connection.
  var isSubscribeSent = false
  /// The session has the consumer.
  var isSubscribed = false
}

/// How far the end of a consumer has come. It is asked for until the cluster has said that it is
/// done, whatever becomes of leaders meanwhile: else messages would go on coming to nobody.
enum EndedConsumer {
  case toAsk
  /// On this connection.
  case asked
}

extension ClientLoop {
  func add(_ core: ConsumerCore, _ promise: Promise<StagedSettle.Outcome>) {
    isSessionWanted = true
    consumers[core.id.rawValue] = ConsumerEntry(
      core: core, promise: promise, deadline: now + options.timeout.nanoseconds)
  }

  func pumpConsumers() {
    guard now >= consumerRetryTime else { return }
    for (id, state) in endedConsumers where state == .toAsk {
      guard ownRequests.count < Self.requestsInFlightMax else { return }
      let consumer = ConsumerID(id)
      let isSent = ask(.unsubscribe(consumer: consumer, returnHeld: false), .unsubscribe(consumer))
      if isSent { endedConsumers[id] = .asked }
    }
    for (id, entry) in consumers where !entry.isSubscribed && !entry.isSubscribeSent {
      guard ownRequests.count < Self.requestsInFlightMax else { return }
      let core = entry.core
      let isSent = ask(
        .subscribe(
          consumer: core.id, queue: core.queueID, credit: core.credit, priority: core.priority,
          isExclusive: core.isExclusive),
        .subscribe(core.id))
      if isSent { consumers[id]?.isSubscribeSent = true }
    }
  }

  func handleSubscribed(_ consumer: ConsumerID) {
    consumers[consumer.rawValue]?.isSubscribed = true
    consumers[consumer.rawValue]?.promise?.keep(.success(()))
    consumers[consumer.rawValue]?.promise = nil
  }

  func handleSubscribeRefused(_ consumer: ConsumerID, _ refusal: Refusal, detail: String) {
    if refusal == .overloaded || refusal == .tooManyUnanswered {
      consumers[consumer.rawValue]?.isSubscribeSent = false
      consumerRetryTime = now + .milliseconds(50)
      return
    }
    if refusal == .sessionNotFound { return loseSessionAndConnection() }
    guard let entry = consumers.removeValue(forKey: consumer.rawValue) else { return }
    let error = SkeinError.refusal(refusal, detail: detail)
    entry.promise?.keep(.failure(error))
    entry.core.end(error)
  }

  func handleUnsubscribeRefused(_ consumer: ConsumerID, _ refusal: Refusal) {
    switch refusal {
    case .overloaded, .tooManyUnanswered:
      endedConsumers[consumer.rawValue] = .toAsk
      consumerRetryTime = now + .milliseconds(50)
    case .sessionNotFound: loseSessionAndConnection()
    default: endedConsumers[consumer.rawValue] = nil
    }
  }

  func handleSettleRefused(
    _ sequence: CommandSequence, _ consumer: ConsumerID, _ range: DeliveryRange,
    _ refusal: Refusal
  ) {
    switch refusal {
    case .notLeader, .shuttingDown, .noQuorum, .diskFailed: leaveLeader("", because: refusal)
    case .sessionNotFound: loseSessionAndConnection()
    case .sequenceGap where settles.isOpen(sequence) && settles.isNext(sequence):
      // The cluster does not know what it has answered: sending again would never help.
      loseSessionAndConnection()
    case .overloaded, .sequenceGap, .tooManyUnanswered:
      // The number is not used up: the same settlements are sent again, in order, a little later.
      guard settles.isOpen(sequence), now >= settles.pauseEnd else { return }
      settles.sendAgain()
      settles.pauseEnd = now + .milliseconds(20)
    default: settles.refused(sequence, consumer, range, .refusal(refusal, detail: ""))
    }
  }

  func core(of consumer: ConsumerID) -> ConsumerCore? {
    consumers[consumer.rawValue]?.core ?? retired[consumer.rawValue]
  }

  func handleConsumerCancelled(_ consumer: ConsumerID, _ refusal: Refusal) {
    retired[consumer.rawValue] = nil
    guard let entry = consumers.removeValue(forKey: consumer.rawValue) else { return }
    entry.core.end(.refusal(refusal, detail: "the consumer's queue \(entry.core.queue) is gone"))
  }

  /// What no task has taken goes back; what a task holds can still be settled.
  func endConsumer(_ core: ConsumerCore) {
    guard let entry = consumers.removeValue(forKey: core.id.rawValue) else { return }
    entry.promise?.keep(.failure(.cancelled))
    stageSettles(of: core)
    let untaken = core.end(nil)
    guard case .none = session else {
      retired = retired.filter { $0.value.hasHolds }
      if core.hasHolds { retired[core.id.rawValue] = core }
      endedConsumers[core.id.rawValue] = .toAsk
      giveBack(untaken, consumer: core.id)
      return
    }
  }

  func handleDeliver(_ deliver: DeliverView, payload: UnsafeRawBufferPointer) {
    let isSound = Self.areRecordsSound(deliver)
    guard isSound else {
      move = .drop("it delivered a malformed message")
      return
    }
    if let entry = consumers[deliver.consumer.rawValue] {
      entry.core.receive(DeliverySource(deliver, payload: payload), in: session.id)
      return
    }
    // The consumer has ended meanwhile: nobody will take this, but for what a task has already and
    // the cluster only repeats.
    let received = retired[deliver.consumer.rawValue]?.received ?? DeliveryID(0)
    var ranges: [DeliveryRange] = []
    deliver.forEachMessage { header, _ in
      guard header.delivery > received else { return }
      ranges.append(DeliveryRange(first: header.delivery, last: header.delivery))
    }
    guard !ranges.isEmpty else { return }
    if endedConsumers[deliver.consumer.rawValue] == nil {
      // The cluster has it still: what is given back would come here again and again.
      endedConsumers[deliver.consumer.rawValue] = .toAsk
    }
    giveBack(ranges, consumer: deliver.consumer)
  }

  private static func areRecordsSound(_ deliver: DeliverView) -> Bool {
    do throws(MessageRecordError) {
      try deliver.forEachMessage { (_, record) throws(MessageRecordError) in
        _ = try MessageRecord.check(record, contentBytesMax: MessageRecord.contentBytesMax)
      }
      return true
    } catch {
      return false
    }
  }

  private func giveBack(_ ranges: [DeliveryRange], consumer: ConsumerID) {
    guard !ranges.isEmpty else { return }
    settles.append(
      StagedSettle(action: .release, ranges: ranges), consumer: consumer, core: nil,
      deadline: now + options.timeout.nanoseconds)
  }

  func stageSettles(of core: ConsumerCore) {
    let deadline = now + options.timeout.nanoseconds
    let staged = core.takeStaged()
    if staged.isEmpty { return }
    // The loop takes these publishes after the commands of the same turn, of which this is one.
    let behind = shared.book.lastStaged
    for settle in staged {
      settles.append(settle, consumer: core.id, core: core, deadline: deadline, behind: behind)
    }
  }

  func failStaged(_ staged: [StagedSettle], _ error: SkeinError) {
    for settle in staged {
      for waiter in settle.waiters { waiter.promise.keep(.failure(error)) }
    }
  }

  /// Extensions go before everything: what a publish waits for must not cost a lease, and one that
  /// was asked for before a transaction that ends the delivery comes before it.
  func pumpExtensions() { pumpSettles { !$0.action.endsDelivery } }

  /// The end of a delivery does not overtake a publish that was staged before it: that may be the
  /// result of the work.
  func pumpSettles() {
    pumpSettles { !$0.action.endsDelivery || !publishes.hasUnsent(through: $0.behind) }
  }

  private func pumpSettles(where mayGo: (SettleQueue.Pending) -> Bool) {
    guard now >= settles.pauseEnd, let connection else { return }
    while connection.hasRoom, let (settle, sequence) = settles.nextToSend(where: mayGo) {
      let frame = settle.action.frame(
        consumer: settle.consumer, ranges: settle.ranges, sequence: sequence,
        answeredThrough: settles.answeredThrough)
      guard send(frame) else { return }
      settles.noteSent()
    }
  }

  func runConsumerTimers() -> MonotonicTime {
    var next = settles.expire(now: now)
    if settles.hasUnsent, settles.pauseEnd > now { next = min(next, settles.pauseEnd) }
    if consumerRetryTime > now { next = min(next, consumerRetryTime) }
    for (id, entry) in consumers {
      guard let promise = entry.promise else { continue }
      if now >= entry.deadline {
        consumers[id] = nil
        let error =
          sessionRefusal ?? .timedOut("no leader took the subscription in time: \(leader.report)")
        promise.keep(.failure(error))
        let untaken = entry.core.end(error)
        // It may have been taken all the same, on this or an earlier connection.
        if case .none = session { continue }
        endedConsumers[id] = .toAsk
        giveBack(untaken, consumer: entry.core.id)
      } else {
        next = min(next, entry.deadline)
      }
    }
    return next
  }
}
