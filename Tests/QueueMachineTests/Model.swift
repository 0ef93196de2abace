// The queues written as plainly as possible: arrays, whole scans, no cleverness. What it decides is
// what the machine must decide, effect by effect.

import Base

@testable import QueueMachine

struct Model {
  struct Note: Equatable {
    var attempts: UInt32 = 0
    var error = ""
    var deadLetter: DeadLetterNote?
  }

  struct Message: Equatable {
    var id: MessageID
    var reference: RecordReference
    var wasDelivered = false
    var note = Note()
  }

  struct HeldMessage: Equatable {
    var delivery: UInt64
    var message: Message
    var token: UInt64
    var leaseEnd: UInt64
    var granted: UInt64
    var attempt: UInt32

    var asDelivery: Delivery {
      Delivery(
        delivery: DeliveryID(delivery), token: FencingToken(token), id: message.id,
        reference: message.reference, leaseEnd: MachineTime(leaseEnd),
        granted: MachineTime(granted), attempt: attempt, isRedelivery: message.wasDelivered)
    }
  }

  struct Consumer {
    var serial: UInt64
    var id: ConsumerID
    var queue: QueueID
    var credit: Int
    var held: [HeldMessage] = []
    var nextDelivery: UInt64 = 1
    var isSubscribed = true
  }

  struct Session {
    var id: SessionID
    var origin: SessionOrigin?
    var kind: SessionKind
    var producer: ProducerID
    var timeout: UInt64
    var deadline: UInt64?
    var settled: UInt64 = 0
    var refusals: [SettleRefusal] = []
    var consumers: [Consumer] = []
  }

  enum Answer: Equatable {
    case stored(MessageID)
    case refused(Refusal)
  }

  struct Producer {
    var session: SessionID?
    var idleSince: UInt64 = 0
    var forgottenThrough: UInt64 = 0
    /// Of the numbers after `forgottenThrough`.
    var answers: [Answer] = []
    var last: UInt64 { forgottenThrough + UInt64(answers.count) }

    /// Maximal runs of answers that could be one effect: (first number, count, answer of first).
    func runs(_ numbers: Range<UInt64>) -> [(first: UInt64, count: UInt32, answer: Answer)] {
      var runs: [(first: UInt64, count: UInt32, answer: Answer)] = []
      for number in numbers {
        let answer = answers[Int(number - forgottenThrough - 1)]
        if let last = runs.last {
          switch (last.answer, answer) {
          case (.stored(let first), .stored(let id))
          where id.rawValue == first.rawValue + UInt64(last.count):
            runs[runs.count - 1].count += 1
            continue
          case (.refused(let left), .refused(let right)) where left == right:
            runs[runs.count - 1].count += 1
            continue
          default: break
          }
        }
        runs.append((number, 1, answer))
      }
      return runs
    }
  }

  struct Queue {
    var id: QueueID
    var name: String
    var settings: QueueSettings
    /// By id.
    var ready: [Message] = []
    /// Who is next: session and consumer.
    var rotation: [Place] = []
    var nextToken: UInt64 = 1
    var published: UInt64 = 0
    var delivered: UInt64 = 0
    var acknowledged: UInt64 = 0
    var redelivered: UInt64 = 0
    var deadLettered: UInt64 = 0
    var dropped: UInt64 = 0
  }

  struct Place: Hashable {
    var session: SessionID
    var consumer: ConsumerID
  }

  let limits: MachineLimits
  var clock: UInt64 = 0
  var index: UInt64 = 0
  var ordinal = 0
  var command: UInt64 = 0
  var nextQueue: UInt32 = 1
  var tokenFloor: UInt64 = 1
  var queues: [Queue] = []
  /// By id.
  var sessions: [Session] = []
  var producers: [ProducerID: Producer] = [:]
  var seen: [Seen] = []

  init(limits: MachineLimits) { self.limits = limits }

  // One entry.

  mutating func apply(stamp: UInt64, _ commands: [(inout Model) -> Void]) -> [Seen] {
    index += 1
    clock = max(clock, stamp)
    ordinal = 0
    command = 0
    seen = []
    due()
    assign()
    for carryOut in commands {
      carryOut(&self)
      assign()
      command += 1
    }
    return seen
  }

  mutating func tell(_ session: SessionID, _ effect: Effect) {
    if let place = sessions.firstIndex(where: { $0.id == session }) {
      if sessions[place].origin != nil { seen.append(.plain(effect)) }
    } else {
      seen.append(.plain(effect))
    }
  }

  func isAttached(_ session: SessionID) -> Bool {
    sessions.contains { $0.id == session && $0.origin != nil }
  }

  // Time.

  mutating func due() {
    let places = sessions.flatMap { session in
      session.consumers.map { (serial: $0.serial, session: session.id, consumer: $0.id) }
    }
    for place in places.sorted(by: { $0.serial < $1.serial }) {
      expireLeases(place.session, place.consumer)
    }
    dueSessions()
    for (id, producer) in producers
    where producer.session == nil && producer.idleSince + limits.producerMemory.rawValue <= clock {
      producers[id] = nil
    }
  }

  mutating func expireLeases(_ session: SessionID, _ id: ConsumerID) {
    var lapsed: [DeliveryRange] = []
    let (s, c) = find(session, id)!
    let queue = sessions[s].consumers[c].queue
    for held in sessions[s].consumers[c].held where held.leaseEnd <= clock {
      sessions[s].consumers[c].held.removeAll { $0.delivery == held.delivery }
      fail(held, in: queue, error: "lease ran out")
      if let last = lapsed.last, last.last.rawValue + 1 == held.delivery {
        lapsed[lapsed.count - 1].last = DeliveryID(held.delivery)
      } else {
        lapsed.append(DeliveryRange(held.delivery...held.delivery))
      }
    }
    if lapsed.isEmpty { return }
    if sessions[s].origin != nil { seen.append(.lapsed(session, id, lapsed)) }
    refresh(session, id)
  }

  mutating func dueSessions() {
    let ended = sessions.filter { ($0.deadline ?? .max) <= clock }
      .sorted { ($0.deadline!, $0.id) < ($1.deadline!, $1.id) }
    for session in ended {
      for consumer in session.consumers {
        for held in consumer.held { fail(held, in: consumer.queue, error: "consumer is gone") }
      }
      end(session.id, .expired)
    }
  }

  // Finding and keeping in shape.

  func find(_ session: SessionID, _ id: ConsumerID) -> (Int, Int)? {
    guard let s = sessions.firstIndex(where: { $0.id == session }),
      let c = sessions[s].consumers.firstIndex(where: { $0.id == id })
    else { return nil }
    return (s, c)
  }

  func queuePlace(_ id: QueueID) -> Int? { queues.firstIndex { $0.id == id } }

  /// Puts the consumer into the rotation, takes it out, or removes it, as its state asks for.
  mutating func refresh(_ session: SessionID, _ id: ConsumerID) {
    let place = Place(session: session, consumer: id)
    guard let (s, c) = find(session, id) else { return }
    let consumer = sessions[s].consumers[c]
    let q = queuePlace(consumer.queue)!
    if !consumer.isSubscribed && consumer.held.isEmpty {
      sessions[s].consumers.remove(at: c)
      queues[q].rotation.removeAll { $0 == place }
      return
    }
    let couldTake =
      consumer.isSubscribed && sessions[s].origin != nil && consumer.held.count < consumer.credit
    if !couldTake {
      queues[q].rotation.removeAll { $0 == place }
    } else if !queues[q].rotation.contains(place) {
      queues[q].rotation.append(place)
    }
  }

  // Messages going back.

  mutating func giveBack(_ message: Message, to queue: QueueID) {
    var message = message
    message.wasDelivered = true
    let q = queuePlace(queue)!
    queues[q].ready.append(message)
    queues[q].ready.sort { $0.id < $1.id }
  }

  mutating func fail(_ held: HeldMessage, in queue: QueueID, error: String) {
    let settings = queues[queuePlace(queue)!].settings
    if settings.deliveriesMax > 0, held.attempt >= settings.deliveriesMax {
      giveUp(held, in: queue, .deliveriesExhausted, error)
      return
    }
    var message = held.message
    message.note.attempts = held.attempt
    if !error.isEmpty { message.note.error = error }
    giveBack(message, to: queue)
  }

  mutating func giveUp(
    _ held: HeldMessage, in queue: QueueID, _ reason: DeadLetterReason, _ error: String
  ) {
    let q = queuePlace(queue)!
    guard let target = queues.firstIndex(where: { $0.name == queues[q].settings.deadLetterQueue })
    else {
      queues[q].dropped += 1
      return
    }
    queues[q].deadLettered += 1
    let note = DeadLetterNote(
      reason: reason, originQueue: queues[q].name, originID: held.message.id,
      attempts: held.attempt, lastError: error.isEmpty ? held.message.note.error : error,
      time: MachineTime(clock))
    queues[target].ready.append(
      Message(
        id: nextID(), reference: held.message.reference, note: Note(deadLetter: note)))
  }

  mutating func nextID() -> MessageID {
    ordinal += 1
    return MessageID(entry: LogIndex(index), ordinal: ordinal - 1)
  }

  mutating func assign() {
    for q in queues.indices {
      let takers = queues[q].rotation.count
      if takers == 0 { continue }
      let share = max(1, queues[q].ready.count / takers)
      while !queues[q].ready.isEmpty, !queues[q].rotation.isEmpty {
        let place = queues[q].rotation.removeFirst()
        let (s, c) = find(place.session, place.consumer)!
        var deliveries: [Delivery] = []
        for _ in 0..<share {
          let consumer = sessions[s].consumers[c]
          if queues[q].ready.isEmpty || consumer.held.count >= consumer.credit { break }
          let message = queues[q].ready.removeFirst()
          let held = HeldMessage(
            delivery: consumer.nextDelivery, message: message, token: queues[q].nextToken,
            leaseEnd: clock + queues[q].settings.lease.rawValue, granted: clock,
            attempt: message.note.attempts + 1)
          sessions[s].consumers[c].held.append(held)
          sessions[s].consumers[c].nextDelivery += 1
          queues[q].nextToken += 1
          queues[q].delivered += 1
          queues[q].redelivered += message.wasDelivered ? 1 : 0
          deliveries.append(held.asDelivery)
        }
        seen.append(.deliver(place.session, place.consumer, deliveries))
        refresh(place.session, place.consumer)
      }
    }
  }

  // Sessions.

  mutating func openSession(
    _ origin: SessionOrigin, _ kind: SessionKind, _ producer: ProducerID, _ timeout: UInt64
  ) {
    if sessions.count >= limits.sessions {
      seen.append(.plain(.sessionOpenRefused(origin, .tooManySessions)))
      return
    }
    let id = SessionID(rawValue: index << 20 | command)
    sessions.append(
      Session(id: id, origin: origin, kind: kind, producer: producer, timeout: timeout))
    var last: UInt64 = 0
    if producer.rawValue != 0 {
      var known = producers[producer] ?? Producer()
      if let older = known.session { tell(older, .producerFenced(older)) }
      known.session = id
      last = known.last
      producers[producer] = known
    }
    tell(id, .sessionOpened(origin, id, lastSequence: PublishSequence(last)))
  }

  mutating func attachSession(
    _ id: SessionID, _ origin: SessionOrigin, _ positions: [ConsumerPosition]
  ) {
    guard let s = sessions.firstIndex(where: { $0.id == id }) else {
      seen.append(.plain(.sessionAttachRefused(origin, id, .sessionNotFound)))
      return
    }
    sessions[s].origin = origin
    sessions[s].deadline = nil
    let last = producers[sessions[s].producer]?.last ?? 0
    tell(
      id,
      .sessionAttached(
        origin, id, lastSequence: PublishSequence(last),
        settledThrough: CommandSequence(sessions[s].settled)))
    for position in positions where find(id, position.consumer) == nil {
      tell(id, .consumerCancelled(id, position.consumer))
    }
    for consumer in sessions[s].consumers {
      let through = positions.last { $0.consumer == consumer.id }?.lastDelivery.rawValue ?? 0
      var ranges: [DeliveryRange] = []
      for held in consumer.held where held.delivery <= through {
        if let last = ranges.last, last.last.rawValue + 1 == held.delivery {
          ranges[ranges.count - 1].last = DeliveryID(held.delivery)
        } else {
          ranges.append(DeliveryRange(held.delivery...held.delivery))
        }
      }
      if through > 0 {
        seen.append(.holding(id, consumer.id, through: DeliveryID(through), ranges))
      }
      let missed = consumer.held.filter { $0.delivery > through }.map(\.asDelivery)
      if !missed.isEmpty { seen.append(.deliver(id, consumer.id, missed)) }
      refresh(id, consumer.id)
    }
  }

  mutating func detachSessions(where isMeant: (Session) -> Bool) {
    for s in sessions.indices where sessions[s].origin != nil && isMeant(sessions[s]) {
      sessions[s].origin = nil
      sessions[s].deadline = clock + sessions[s].timeout
      for consumer in sessions[s].consumers { refresh(sessions[s].id, consumer.id) }
    }
    dueSessions()
  }

  mutating func closeSession(_ id: SessionID) {
    guard let session = sessions.first(where: { $0.id == id }) else { return }
    for consumer in session.consumers {
      for held in consumer.held { giveBack(held.message, to: consumer.queue) }
    }
    end(id, .closed)
  }

  mutating func end(_ id: SessionID, _ how: SessionEnd) {
    seen.append(.plain(.sessionEnded(id, how)))
    for q in queues.indices { queues[q].rotation.removeAll { $0.session == id } }
    sessions.removeAll { $0.id == id }
    for (producer, state) in producers where state.session == id {
      producers[producer]!.session = nil
      producers[producer]!.idleSince = clock
    }
    while true {
      let idle = producers.filter { $0.value.session == nil }
      if idle.count <= limits.idleProducers { break }
      let oldest = idle.min { ($0.value.idleSince, $0.key) < ($1.value.idleSince, $1.key) }!
      producers[oldest.key] = nil
    }
  }

  // Queues.

  mutating func declare(
    _ requester: Requester, _ tag: RequestTag, _ name: String,
    _ settings: QueueSettings
  ) {
    reply(requester, tag, declare(name, settings))
  }

  mutating func declare(_ name: String, _ settings: QueueSettings) -> Reply {
    if let queue = queues.first(where: { $0.name == name }) {
      return queue.settings == settings
        ? .queueDeclared(queue.id, isNew: false)
        : .refused(.queueDiffers, detail: settings.difference(from: queue.settings)!)
    }
    if queues.count >= limits.queues {
      return .refused(.tooManyQueues, detail: "there are \(queues.count) queues")
    }
    let target = settings.deadLetterQueue
    if target == name {
      return .refused(.deadLetterCycle, detail: "dead-letter must be another queue")
    }
    if !target.isEmpty, !queues.contains(where: { $0.name == target }) {
      return .refused(
        .deadLetterQueueNotFound, detail: "dead-letter names \(target), which does not exist")
    }
    queues.append(
      Queue(id: QueueID(nextQueue), name: name, settings: settings, nextToken: tokenFloor))
    nextQueue += 1
    return .queueDeclared(QueueID(nextQueue - 1), isNew: true)
  }

  mutating func delete(_ requester: Requester, _ tag: RequestTag, _ name: String) {
    guard let q = queues.firstIndex(where: { $0.name == name }) else {
      reply(requester, tag, .refused(.queueNotFound, detail: name))
      return
    }
    let users = queues.count { $0.settings.deadLetterQueue == name }
    if users > 0 {
      let detail = "\(users) queues have it as their dead-letter queue"
      reply(requester, tag, .refused(.queueInUse, detail: detail))
      return
    }
    var messages = queues[q].ready.count
    let id = queues[q].id
    let places = sessions.flatMap { session in
      session.consumers.filter { $0.queue == id }.map { ($0.serial, session.id, $0) }
    }
    for (_, session, consumer) in places.sorted(by: { $0.0 < $1.0 }) {
      messages += consumer.held.count
      tell(session, .consumerCancelled(session, consumer.id))
    }
    for s in sessions.indices { sessions[s].consumers.removeAll { $0.queue == id } }
    tokenFloor = max(tokenFloor, queues[q].nextToken)
    queues.remove(at: q)
    reply(requester, tag, .queueDeleted(messages: UInt64(messages)))
  }

  mutating func purge(_ requester: Requester, _ tag: RequestTag, _ name: String) {
    guard let q = queues.firstIndex(where: { $0.name == name }) else {
      reply(requester, tag, .refused(.queueNotFound, detail: name))
      return
    }
    let messages = UInt64(queues[q].ready.count)
    queues[q].ready = []
    reply(requester, tag, .queuePurged(messages: messages))
  }

  mutating func reply(_ requester: Requester, _ tag: RequestTag, _ reply: Reply) {
    switch requester {
    case .connection: seen.append(.plain(.reply(requester, tag, reply)))
    case .session(let session): tell(session, .reply(requester, tag, reply))
    }
  }

  // Publishing.

  mutating func publish(
    _ session: SessionID, first: UInt64, answeredThrough: UInt64, queue: QueueID,
    records: [(offset: Int, size: Int)]
  ) {
    func refuse(_ from: UInt64, _ refusal: Refusal) -> Effect {
      .refused(
        session, first: PublishSequence(from), count: UInt32(first + UInt64(records.count) - from),
        refusal)
    }
    guard let owner = sessions.first(where: { $0.id == session }) else {
      tell(session, refuse(first, .sessionNotFound))
      return
    }
    guard var producer = producers[owner.producer], producer.session == session else {
      tell(session, refuse(first, .producerFenced))
      return
    }
    while producer.forgottenThrough < answeredThrough, !producer.answers.isEmpty {
      producer.answers.removeFirst()
      producer.forgottenThrough += 1
    }
    defer { producers[owner.producer] = producer }
    if first == 0 || first > producer.last + 1 {
      tell(session, refuse(first, .sequenceGap))
      return
    }
    let end = first + UInt64(records.count)
    let new = max(first, producer.last + 1)
    // Known ones.
    let knownEnd = min(end, producer.last + 1)
    if first <= producer.forgottenThrough {
      let count = min(producer.forgottenThrough + 1, knownEnd) - first
      tell(
        session,
        .refused(
          session, first: PublishSequence(first), count: UInt32(count), .answerForgotten))
    }
    let kept = max(first, producer.forgottenThrough + 1)
    if kept < knownEnd { answer(session, producer.runs(kept..<knownEnd)) }
    // New ones.
    if new >= end { return }
    let runs = producer.runs(producer.forgottenThrough + 1..<producer.last + 1).count
    if UInt64(producer.answers.count) + (end - new) > limits.unansweredMessages
      || runs >= limits.unansweredRuns
    {
      tell(session, refuse(new, .tooManyUnanswered))
      return
    }
    if let q = queuePlace(queue) {
      for record in records[Int(new - first)...] {
        let id = nextID()
        let reference = RecordReference(
          entry: LogIndex(index), offset: UInt32(record.offset), size: UInt32(record.size))
        queues[q].ready.append(Message(id: id, reference: reference))
        queues[q].published += 1
        producer.answers.append(.stored(id))
      }
    } else {
      for _ in new..<end { producer.answers.append(.refused(.queueNotFound)) }
    }
    answer(session, producer.runs(new..<end))
  }

  mutating func answer(
    _ session: SessionID, _ runs: [(first: UInt64, count: UInt32, answer: Answer)]
  ) {
    for run in runs {
      let first = PublishSequence(run.first)
      switch run.answer {
      case .stored(let id):
        tell(session, .confirmed(session, first: first, count: run.count, firstID: id))
      case .refused(let refusal):
        tell(session, .refused(session, first: first, count: run.count, refusal))
      }
    }
  }

  // Consumers.

  mutating func subscribe(
    _ session: SessionID, _ id: ConsumerID, _ tag: RequestTag, _ queue: QueueID, _ credit: Int
  ) {
    let requester = Requester.session(session)
    func refuse(_ refusal: Refusal) -> Reply { .refused(refusal, detail: "") }
    guard let s = sessions.firstIndex(where: { $0.id == session }) else {
      reply(requester, tag, refuse(.sessionNotFound))
      return
    }
    if !(1...65_535).contains(credit) {
      reply(requester, tag, refuse(.settingInvalid))
      return
    }
    guard queuePlace(queue) != nil else {
      reply(requester, tag, refuse(.queueNotFound))
      return
    }
    if let (_, c) = find(session, id) {
      if sessions[s].consumers[c].queue != queue {
        reply(requester, tag, refuse(.consumerDiffers))
        return
      }
      sessions[s].consumers[c].isSubscribed = true
      sessions[s].consumers[c].credit = credit
    } else if sessions[s].consumers.count >= limits.consumersPerSession {
      reply(requester, tag, refuse(.tooManyConsumers))
      return
    } else {
      sessions[s].consumers.append(
        Consumer(serial: index << 20 | command, id: id, queue: queue, credit: credit))
      sessions[s].consumers.sort { $0.id < $1.id }
    }
    refresh(session, id)
    reply(requester, tag, .subscribed(id, queue))
  }

  mutating func setCredit(
    _ session: SessionID, _ id: ConsumerID, _ tag: RequestTag, _ credit: Int
  ) {
    let requester = Requester.session(session)
    if !sessions.contains(where: { $0.id == session }) {
      reply(requester, tag, .refused(.sessionNotFound, detail: ""))
    } else if !(0...65_535).contains(credit) {
      reply(requester, tag, .refused(.settingInvalid, detail: ""))
    } else if let (s, c) = find(session, id) {
      sessions[s].consumers[c].credit = credit
      refresh(session, id)
      reply(requester, tag, .creditSet(id))
    } else {
      reply(requester, tag, .refused(.consumerNotFound, detail: ""))
    }
  }

  mutating func unsubscribe(
    _ session: SessionID, _ id: ConsumerID, _ tag: RequestTag, _ returnHeld: Bool
  ) {
    let requester = Requester.session(session)
    if !sessions.contains(where: { $0.id == session }) {
      reply(requester, tag, .refused(.sessionNotFound, detail: ""))
      return
    }
    if let (s, c) = find(session, id) {
      let consumer = sessions[s].consumers[c]
      sessions[s].consumers[c].isSubscribed = false
      if returnHeld {
        sessions[s].consumers[c].held = []
        for held in consumer.held { giveBack(held.message, to: consumer.queue) }
      }
      refresh(session, id)
    }
    reply(requester, tag, .unsubscribed(id))
  }

  // Settling.

  /// `act` gets the place of a held delivery and says whether it is out of the consumer's hands.
  private mutating func visit(
    _ session: SessionID, _ sequence: UInt64, _ answeredThrough: UInt64, _ id: ConsumerID,
    _ ranges: [DeliveryRange], _ act: (inout Model, HeldMessage, QueueID) -> Bool
  ) {
    func refusal(_ range: DeliveryRange, _ refusal: Refusal) -> Effect {
      .settleRefused(session, CommandSequence(sequence), id, range, refusal)
    }
    guard let s = sessions.firstIndex(where: { $0.id == session }) else {
      for range in ranges { tell(session, refusal(range, .sessionNotFound)) }
      return
    }
    sessions[s].refusals.removeAll { $0.sequence.rawValue <= answeredThrough }
    if sequence > 0, sequence <= sessions[s].settled {
      for known in sessions[s].refusals where known.sequence.rawValue == sequence {
        tell(
          session,
          .settleRefused(
            session, known.sequence, known.consumer, known.range, known.refusal))
      }
      settled(session, sessions[s].settled)
      return
    }
    if sequence != sessions[s].settled + 1 {
      for range in ranges { tell(session, refusal(range, .sequenceGap)) }
      return
    }
    if sessions[s].refusals.count >= limits.unansweredRefusals {
      for range in ranges { tell(session, refusal(range, .tooManyUnanswered)) }
      return
    }
    func refuse(_ model: inout Model, _ range: DeliveryRange, _ why: Refusal) {
      model.sessions[s].refusals.append(
        SettleRefusal(
          sequence: CommandSequence(sequence), consumer: id, range: range, refusal: why))
      model.tell(session, refusal(range, why))
    }
    let starts = ranges.map(\.first.rawValue)
    let ends = [0] + ranges.map(\.last.rawValue)
    if zip(starts, ends).contains(where: { $0 <= $1 })
      || ranges.contains(where: { $0.last < $0.first })
    {
      for range in ranges { refuse(&self, range, .malformedRequest) }
      sessions[s].settled = sequence
      settled(session, sequence)
      return
    }
    for range in ranges {
      guard let (_, c) = find(session, id) else {
        refuse(&self, range, .consumerNotFound)
        continue
      }
      let first = range.first.rawValue
      let last = range.last.rawValue
      let next = sessions[s].consumers[c].nextDelivery
      let queue = sessions[s].consumers[c].queue
      var stale: ClosedRange<UInt64>?
      var delivery = first
      while delivery < next, delivery <= last {
        if let held = sessions[s].consumers[c].held.first(where: { $0.delivery == delivery }) {
          if let gap = stale { refuse(&self, DeliveryRange(gap), .staleDelivery) }
          stale = nil
          if act(&self, held, queue) {
            sessions[s].consumers[c].held.removeAll { $0.delivery == delivery }
          }
        } else {
          stale = (stale?.lowerBound ?? delivery)...delivery
        }
        delivery += 1
      }
      if let gap = stale { refuse(&self, DeliveryRange(gap), .staleDelivery) }
      if last >= next { refuse(&self, DeliveryRange(max(first, next)...last), .deliveryNotFound) }
    }
    sessions[s].settled = sequence
    settled(session, sequence)
    refresh(session, id)
  }

  mutating func settled(_ session: SessionID, _ through: UInt64) {
    guard isAttached(session) else { return }
    if case .plain(.settled(session, _))? = seen.last { seen.removeLast() }
    seen.append(.plain(.settled(session, through: CommandSequence(through))))
  }

  mutating func settle(
    _ session: SessionID, _ sequence: UInt64, _ answeredThrough: UInt64, _ kind: SettleKind,
    _ id: ConsumerID, _ ranges: [DeliveryRange], _ error: String
  ) {
    visit(session, sequence, answeredThrough, id, ranges) { model, held, queue in
      switch kind {
      case .acknowledge: model.queues[model.queuePlace(queue)!].acknowledged += 1
      case .negative: model.fail(held, in: queue, error: error)
      case .reject: model.giveUp(held, in: queue, .rejected, error)
      case .release: model.giveBack(held.message, to: queue)
      }
      return true
    }
  }

  mutating func extend(
    _ session: SessionID, _ sequence: UInt64, _ answeredThrough: UInt64, _ id: ConsumerID,
    _ ranges: [DeliveryRange], _ duration: UInt64
  ) {
    visit(session, sequence, answeredThrough, id, ranges) { model, held, _ in
      let (s, c) = model.find(session, id)!
      let place = model.sessions[s].consumers[c].held.firstIndex { $0.delivery == held.delivery }!
      model.sessions[s].consumers[c].held[place].leaseEnd =
        model.clock + min(duration, model.limits.extensionMax.rawValue)
      return false
    }
  }

  // What can be read.

  func summaries() -> [QueueSummary] {
    queues.map { queue in
      let consumers = sessions.flatMap { $0.consumers.filter { $0.queue == queue.id } }
      let held = consumers.flatMap(\.held)
      let bytes = (queue.ready + held.map(\.message)).reduce(0) { $0 + UInt64($1.reference.size) }
      return QueueSummary(
        id: queue.id, name: queue.name, settings: queue.settings, ready: UInt64(queue.ready.count),
        leased: UInt64(held.count), delayed: 0,
        consumers: UInt32(consumers.filter(\.isSubscribed).count), bytes: bytes,
        published: queue.published, delivered: queue.delivered,
        acknowledged: queue.acknowledged, redelivered: queue.redelivered,
        deadLettered: queue.deadLettered)
    }.sorted { $0.name < $1.name }
  }

  func peek(_ id: QueueID) -> [PeekedMessage] {
    func peeked(_ message: Message) -> PeekedMessage {
      PeekedMessage(
        id: message.id, reference: message.reference, state: .ready,
        attempts: message.note.attempts, session: .none, consumer: ConsumerID(0),
        leaseEnd: .never, lastError: message.note.error, deadLetter: message.note.deadLetter)
    }
    var all = queues[queuePlace(id)!].ready.map(peeked)
    for session in sessions {
      for consumer in session.consumers where consumer.queue == id {
        for held in consumer.held {
          var message = peeked(held.message)
          message.state = .leased
          message.session = session.id
          message.consumer = consumer.id
          message.leaseEnd = MachineTime(held.leaseEnd)
          all.append(message)
        }
      }
    }
    return all.sorted { $0.id < $1.id }
  }

  func outcome(_ sequence: UInt64, _ id: ProducerID) -> PublishOutcome {
    guard let producer = producers[id], sequence > 0, sequence <= producer.last else {
      return .unseen
    }
    if sequence <= producer.forgottenThrough { return .answerForgotten }
    switch producer.answers[Int(sequence - producer.forgottenThrough - 1)] {
    case .stored(let id): return .stored(id)
    case .refused(let refusal): return .refused(refusal)
    }
  }

  /// When something really falls due next.
  var nextDeadline: UInt64? {
    let leases = sessions.flatMap { $0.consumers.flatMap { $0.held.map(\.leaseEnd) } }
    return (leases + sessions.compactMap(\.deadline)).min()
  }
}
