// The queues written as plainly as possible: arrays, whole scans, no cleverness. What it decides is
// what the machine must decide, effect by effect.

import Base

@testable import QueueMachine

struct Model {
  struct Note: Equatable {
    var attempts: UInt32 = 0
    var error = ""
    var firstTry: UInt64?
    var events: [MessageEvent] = []
    var eventsForgotten: UInt32 = 0
    var deadLetter: DeadLetterNote?

    mutating func add(_ event: MessageEvent) {
      events.append(event)
      if events.count > 16 {
        events.removeFirst()
        eventsForgotten += 1
      }
    }
  }

  /// How a delivery ended without success.
  struct Failure {
    var kind: MessageEvent.Kind
    var error: String
    var delay: UInt64?
  }

  struct Message: Equatable {
    var id: MessageID
    var reference: RecordReference
    var wasDelivered = false
    var priority = 0
    /// 0 is none.
    var key = 0
    /// In a queue with keys, among the ready ones: may be delivered, and when.
    var turn: Int?
    /// When it becomes ready; nil if it is or was delivered.
    var due: UInt64?
    var expires: UInt64?
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
    var priority = 0
    var isExclusive = false
    var held: [HeldMessage] = []
    var nextDelivery: UInt64 = 1
    var isSubscribed = true
  }

  struct Session {
    var id: SessionID
    var origin: SessionOrigin?
    var node: NodeID
    var kind: SessionKind
    var producer: ProducerID
    var timeout: UInt64
    var deadline: UInt64?
    var settled: UInt64 = 0
    var refusals: [SettleRefusal] = []
    var consumers: [Consumer] = []

    var isResting: Bool { origin == nil && consumers.allSatisfy(\.held.isEmpty) }

    /// What all consumers but one could hold at once.
    func holdsAtMost(without id: ConsumerID) -> Int {
      consumers.filter { $0.id != id }.reduce(0) {
        $0 + max($1.isSubscribed ? $1.credit : 0, $1.held.count)
      }
    }
  }

  enum Answer: Equatable {
    case stored(MessageID, copies: UInt32)
    case refused(Refusal)
  }

  struct Producer {
    var session: SessionID?
    var epoch: UInt64 = 0
    var attempt = OpenAttempt.none
    var idleSince: UInt64 = 0
    var forgottenThrough: UInt64 = 0
    /// Of the numbers after `forgottenThrough`.
    var answers: [Answer] = []
    var last: UInt64 { forgottenThrough + UInt64(answers.count) }

    var allRuns: [(first: UInt64, count: UInt32, answer: Answer)] {
      runs(forgottenThrough + 1..<last + 1)
    }

    /// Maximal runs of answers that could be one effect: (first number, count, answer of first).
    func runs(_ numbers: Range<UInt64>) -> [(first: UInt64, count: UInt32, answer: Answer)] {
      var runs: [(first: UInt64, count: UInt32, answer: Answer)] = []
      for number in numbers {
        let answer = answers[Int(number - forgottenThrough - 1)]
        if let last = runs.last {
          switch (last.answer, answer) {
          case (.stored(let first, let copies), .stored(let id, let same))
          where copies == same
            && id.rawValue == first.rawValue + UInt64(last.count) * UInt64(copies):
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
    var nextTurn = 1
    /// By level of priority, see `next`.
    var passedOver = Array(repeating: 0, count: 32)
    /// By id.
    var delayed: [Message] = []
    /// A message was moved here above the limits.
    var needsTrim = false
    /// Who is next: session and consumer.
    var rotation: [Place] = []
    var nextToken: UInt64 = 1
    var lastUse: UInt64 = 0
    /// Where only one may be.
    var active: Place?
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
  /// How many refusals this entry may still tell each session again.
  var refusalsLeft: [SessionID: Int] = [:]

  init(limits: MachineLimits) { self.limits = limits }

  // One entry.

  mutating func apply(stamp: UInt64, _ commands: [(inout Model) -> Void]) -> [Seen] {
    index += 1
    clock = max(clock, stamp)
    ordinal = 0
    command = 0
    seen = []
    refusalsLeft = [:]
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
    for id in queues.map(\.id) {
      dueMessages(queuePlace(id)!)
      let queue = queues[queuePlace(id)!]
      if queue.settings.expires != .zero, !isUsed(queue),
        queue.lastUse + queue.settings.expires.rawValue <= clock
      {
        remove(queue)
      }
    }
    for (id, producer) in producers
    where producer.session == nil && producer.idleSince + limits.producerMemory.rawValue <= clock {
      producers[id] = nil
    }
  }

  func isUsed(_ queue: Queue) -> Bool {
    sessions.contains { $0.consumers.contains { $0.queue == queue.id } }
      || queues.contains { $0.settings.deadLetterQueue == queue.name }
  }

  mutating func remove(_ queue: Queue) {
    for s in sessions.indices { sessions[s].consumers.removeAll { $0.queue == queue.id } }
    tokenFloor = max(tokenFloor, queue.nextToken)
    queues.removeAll { $0.id == queue.id }
    for q in queues.indices where queues[q].name == queue.settings.deadLetterQueue {
      queues[q].lastUse = clock
    }
  }

  /// After consumers of the queue came or went: who may be active, and whether anybody is there.
  mutating func consumersChanged(_ id: QueueID, isLoss: Bool = true) {
    guard let q = queuePlace(id) else { return }
    if isLoss { queues[q].lastUse = clock }
    guard queues[q].settings.hasSingleActiveConsumer else { return }
    if let active = queues[q].active, find(active.session, active.consumer) != nil { return }
    let all = sessions.flatMap { session in
      session.consumers.filter { $0.queue == id && $0.isSubscribed }.map { (session.id, $0) }
    }
    let next = all.min { (-$0.1.priority, $0.1.serial) < (-$1.1.priority, $1.1.serial) }
    queues[q].active = next.map { Place(session: $0.0, consumer: $0.1.id) }
    if let next { refresh(next.0, next.1.id) }
  }

  mutating func dueMessages(_ q: Int) {
    let old = (queues[q].ready + queues[q].delayed).filter { ($0.expires ?? .max) <= clock }
    for message in old.sorted(by: { ($0.expires!, $0.id) < ($1.expires!, $1.id) }) {
      queues[q].ready.removeAll { $0.id == message.id }
      queues[q].delayed.removeAll { $0.id == message.id }
      giveUp(message, in: queues[q].id, .expired, message.note.attempts)
    }
    let due = queues[q].delayed.filter { $0.due! <= clock }
    for message in due.sorted(by: { ($0.due!, $0.id) < ($1.due!, $1.id) }) {
      queues[q].delayed.removeAll { $0.id == message.id }
      makeReady(message, in: queues[q].id)
    }
    if queues[q].needsTrim { trim(q) }
  }

  mutating func trim(_ q: Int) {
    queues[q].needsTrim = false
    while isOver(q, 0, 0) {
      let message: Message
      if queues[q].ready.isEmpty {
        message = queues[q].delayed.min { ($0.due!, $0.id) < ($1.due!, $1.id) }!
        queues[q].delayed.removeAll { $0.id == message.id }
      } else {
        let lowest = queues[q].ready.map { level($0, q) }.min()!
        let place = queues[q].ready.firstIndex { level($0, q) == lowest }!
        message = queues[q].ready.remove(at: place)
      }
      giveUp(message, in: queues[q].id, .overflowed, message.note.attempts)
    }
  }

  mutating func trimIfOverfull(_ q: Int) {
    if queues[q].settings.overflow == .dropOldest, isOver(q, 0, 0) { trim(q) }
  }

  func level(_ message: Message, _ q: Int) -> Int {
    min(message.priority, Int(queues[q].settings.priorities) - 1)
  }

  /// What may be delivered: in a queue with keys only what has a turn or was delivered before.
  func deliverable(_ q: Int) -> [Message] {
    queues[q].settings.keyLimit == 0
      ? queues[q].ready : queues[q].ready.filter { $0.turn != nil || $0.wasDelivered }
  }

  /// How many of the key may be or were delivered and did not leave.
  func out(_ q: Int, _ key: Int) -> Int {
    let held = sessions.flatMap(\.consumers).filter { $0.queue == queues[q].id }.flatMap(\.held)
    return deliverable(q).count { $0.key == key } + held.count { $0.message.key == key }
      + queues[q].delayed.count { $0.key == key && $0.wasDelivered }
  }

  mutating func join(_ message: Message, _ q: Int) {
    var message = message
    message.due = nil
    message.turn = nil
    let limit = Int(queues[q].settings.keyLimit)
    if limit > 0, message.key == 0 || out(q, message.key) < limit { takeTurn(&message, q) }
    queues[q].ready.append(message)
    queues[q].ready.sort { $0.id < $1.id }
  }

  mutating func takeTurn(_ message: inout Message, _ q: Int) {
    message.turn = queues[q].nextTurn
    queues[q].nextTurn += 1
  }

  /// After a message of the key left.
  mutating func letNextOut(_ q: Int, _ key: Int) {
    let limit = Int(queues[q].settings.keyLimit)
    while key != 0, limit > 0, out(q, key) < limit {
      let blocked = queues[q].ready.filter {
        $0.key == key && $0.turn == nil && !$0.wasDelivered
      }
      guard let next = blocked.min(by: { (-$0.priority, $0.id) < (-$1.priority, $1.id) }) else {
        return
      }
      let place = queues[q].ready.firstIndex { $0.id == next.id }!
      var message = next
      takeTurn(&message, q)
      queues[q].ready[place] = message
    }
  }

  /// Takes the message that is to be delivered next.
  mutating func next(_ q: Int) -> Message {
    let deliverable = deliverable(q)
    let levels = Set(deliverable.map { level($0, q) }).sorted()
    let top = levels.last!
    for level in 0..<32 where level < top && !levels.contains(level) {
      queues[q].passedOver[level] = 0
    }
    let chosen = levels.first { $0 < top && queues[q].passedOver[$0] >= 64 } ?? top
    for level in levels where level < chosen { queues[q].passedOver[level] += 1 }
    queues[q].passedOver[chosen] = 0
    // In a queue with keys what came back goes first, the rest by turns; else all goes by id.
    let isKeyed = queues[q].settings.keyLimit > 0
    func order(_ message: Message) -> (Int, MessageID) {
      (!isKeyed || message.wasDelivered ? 0 : message.turn!, message.id)
    }
    var message = deliverable.filter { level($0, q) == chosen }.min { order($0) < order($1) }!
    queues[q].ready.removeAll { $0.id == message.id }
    message.turn = nil
    return message
  }

  /// Whether the queue would be over its limits with so much more.
  func isOver(_ q: Int, _ count: Int, _ bytes: Int) -> Bool {
    let waiting = queues[q].ready + queues[q].delayed
    let sum = waiting.reduce(bytes) { $0 + Int($1.reference.size) }
    let settings = queues[q].settings
    return settings.lengthMax > 0 && waiting.count + count > settings.lengthMax
      || settings.bytesMax > 0 && sum > settings.bytesMax
  }

  mutating func expireLeases(_ session: SessionID, _ id: ConsumerID) {
    var lapsed: [DeliveryRange] = []
    let (s, c) = find(session, id)!
    let queue = sessions[s].consumers[c].queue
    for held in sessions[s].consumers[c].held where held.leaseEnd <= clock {
      sessions[s].consumers[c].held.removeAll { $0.delivery == held.delivery }
      fail(held, of: session, id, in: queue, Failure(kind: .leaseRanOut, error: "lease ran out"))
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
        for held in consumer.held {
          let (s, c) = find(session.id, consumer.id)!
          sessions[s].consumers[c].held.removeAll { $0.delivery == held.delivery }
          fail(
            held, of: session.id, consumer.id, in: consumer.queue,
            Failure(kind: .consumerGone, error: "consumer is gone"))
        }
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
      consumersChanged(consumer.queue)
      return
    }
    let couldTake =
      consumer.isSubscribed && sessions[s].origin != nil && consumer.held.count < consumer.credit
      && (!queues[q].settings.hasSingleActiveConsumer || queues[q].active == place)
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
    makeReady(message, in: queue)
    trimIfOverfull(queuePlace(queue)!)
  }

  /// What is too old goes with what falls due next.
  mutating func makeReady(_ message: Message, in queue: QueueID) {
    if (message.expires ?? .max) <= clock {
      delay(message, in: queue, until: clock)
      return
    }
    var message = message
    message.due = nil
    let q = queuePlace(queue)!
    if queues[q].settings.keyLimit > 0, !message.wasDelivered {
      join(message, q)
      return
    }
    queues[q].ready.append(message)
    queues[q].ready.sort { $0.id < $1.id }
  }

  mutating func delay(_ message: Message, in queue: QueueID, until due: UInt64) {
    var message = message
    message.due = due
    message.turn = nil
    let q = queuePlace(queue)!
    queues[q].delayed.append(message)
    queues[q].delayed.sort { $0.id < $1.id }
  }

  func event(
    _ held: HeldMessage, of session: SessionID, _ consumer: ConsumerID, in queue: QueueID,
    _ failure: Failure
  ) -> MessageEvent {
    MessageEvent(
      kind: failure.kind, time: MachineTime(clock), queue: queues[queuePlace(queue)!].name,
      granted: MachineTime(held.granted), attempt: held.attempt, session: "n",
      consumer: consumer, node: sessions.first { $0.id == session }!.node, error: failure.error)
  }

  mutating func fail(
    _ held: HeldMessage, of session: SessionID, _ consumer: ConsumerID, in queue: QueueID,
    _ failure: Failure
  ) {
    let settings = queues[queuePlace(queue)!].settings
    let event = event(held, of: session, consumer, in: queue, failure)
    if settings.deliveriesMax > 0, held.attempt >= settings.deliveriesMax {
      giveUp(
        held.message, in: queue, .deliveriesExhausted, held.attempt, failure.error, event)
      return
    }
    var message = held.message
    message.wasDelivered = true
    message.note.attempts = held.attempt
    if !failure.error.isEmpty { message.note.error = failure.error }
    message.note.add(event)
    message.note.firstTry = min(message.note.firstTry ?? .max, held.granted)
    let wait = failure.delay ?? retryDelay(settings, held)
    if wait == 0 || (message.expires ?? .max) <= clock {
      makeReady(message, in: queue)
    } else {
      delay(
        message, in: queue,
        until: clock.addingReportingOverflow(wait).overflow
          ? .max : clock + wait)
    }
    trimIfOverfull(queuePlace(queue)!)
  }

  func retryDelay(_ settings: QueueSettings, _ held: HeldMessage) -> UInt64 {
    let cap =
      settings.retryDelayMax == .zero ? Double.infinity : Double(settings.retryDelayMax.rawValue)
    var wait = Double(settings.retryDelay.rawValue)
    for _ in 1..<held.attempt { wait = min(cap, wait * 2) }
    wait = min(cap, wait)
    let jitter = UInt64(settings.retryJitterPermille)
    let luck = RetryRule.luck(
      held.message.id, attempt: held.attempt, token: FencingToken(held.token))
    if jitter > 0 { wait = min(cap, wait * Double(1000 - jitter + luck % (2 * jitter + 1)) / 1000) }
    return UInt64(wait)
  }

  mutating func giveUp(
    _ message: Message, in queue: QueueID, _ reason: DeadLetterReason, _ attempts: UInt32,
    _ error: String = "", _ event: MessageEvent? = nil
  ) {
    let q = queuePlace(queue)!
    letNextOut(q, message.key)
    guard let target = queues.firstIndex(where: { $0.name == queues[q].settings.deadLetterQueue })
    else {
      queues[q].dropped += 1
      return
    }
    queues[q].deadLettered += 1
    var note = message.note
    if let event { note.add(event) }
    let first = min(message.note.firstTry ?? .max, event?.granted.rawValue ?? .max)
    note.deadLetter = DeadLetterNote(
      reason: reason, originQueue: queues[q].name, originID: message.id, attempts: attempts,
      lastError: error.isEmpty ? note.error : error,
      firstTime: MachineTime(min(first, clock)), time: MachineTime(clock))
    note.add(
      MessageEvent(
        kind: .deadLettered, time: MachineTime(clock), queue: queues[q].name, reason: reason))
    move(message, note, to: target)
  }

  mutating func move(_ message: Message, _ note: Note, to target: Int) {
    var note = note
    note.attempts = 0
    note.error = ""
    note.firstTry = nil
    let span = queues[target].settings.timeToLive.rawValue
    join(
      Message(
        id: nextID(), reference: message.reference, priority: message.priority, key: message.key,
        expires: span > 0 ? clock + span : nil, note: note), target)
    if queues[target].settings.overflow == .dropOldest, isOver(target, 0, 0) {
      queues[target].needsTrim = true
    }
  }

  // Single messages.

  mutating func cancel(
    _ requester: Requester, _ tag: RequestTag, _ name: String, _ id: MessageID
  ) {
    takeWaiting(requester, tag, name, id, isCancel: true) { _, _, _ in .messageCancelled }
  }

  mutating func reschedule(
    _ requester: Requester, _ tag: RequestTag, _ name: String, _ id: MessageID, _ delay: UInt64
  ) {
    takeWaiting(requester, tag, name, id, isCancel: false) { model, message, queue in
      if delay == 0 {
        model.makeReady(message, in: queue)
      } else {
        model.delay(message, in: queue, until: model.clock + delay)
      }
      return .messageRescheduled
    }
  }

  private mutating func takeWaiting(
    _ requester: Requester, _ tag: RequestTag, _ name: String, _ id: MessageID,
    isCancel: Bool, _ act: (inout Model, Message, QueueID) -> Reply
  ) {
    guard let q = queues.firstIndex(where: { $0.name == name }) else {
      reply(requester, tag, .refused(.queueNotFound, detail: name))
      return
    }
    guard let message = (queues[q].ready + queues[q].delayed).first(where: { $0.id == id }) else {
      reply(requester, tag, absence(of: id, from: q))
      return
    }
    queues[q].ready.removeAll { $0.id == id }
    queues[q].delayed.removeAll { $0.id == id }
    if !message.wasDelivered || isCancel { letNextOut(q, message.key) }
    let answer = act(&self, message, queues[q].id)
    reply(requester, tag, answer)
  }

  /// Why no message of this id is ready in the queue.
  private func absence(of id: MessageID, from q: Int) -> Reply {
    if id.rawValue == 0 || id.rawValue >> 20 > index {
      return .refused(.messageNotFound, detail: "\(id)")
    }
    if isHeld(id, queues[q].id) { return .refused(.messageLeased, detail: "\(id)") }
    if queues[q].delayed.contains(where: { $0.id == id }) {
      return .refused(.messageDelayed, detail: "\(id)")
    }
    let other = queues.first { queue in
      (queue.ready + queue.delayed).contains { $0.id == id } || isHeld(id, queue.id)
    }
    guard let other else { return .refused(.messageGone, detail: "\(id)") }
    return .refused(.messageElsewhere, detail: "\(id) is in queue \(other.name)")
  }

  func isHeld(_ id: MessageID, _ queue: QueueID) -> Bool {
    sessions.contains { session in
      session.consumers.contains { consumer in
        consumer.queue == queue && consumer.held.contains { $0.message.id == id }
      }
    }
  }

  mutating func redrive(
    _ requester: Requester, _ tag: RequestTag, _ name: String, _ which: RedriveChoice,
    after: MessageID, through: MessageID, limit: Int
  ) {
    guard let q = queues.firstIndex(where: { $0.name == name }) else {
      reply(requester, tag, .refused(.queueNotFound, detail: name))
      return
    }
    var through = through.rawValue == 0 ? MessageID(entry: LogIndex(index), ordinal: 0) : through
    var meant = queues[q].ready.filter { $0.id > after && $0.id <= through }
    var limit = limit
    if case .message(let id) = which {
      limit = 1
      through = id
      meant = queues[q].ready.filter { $0.id == id }
      if meant.isEmpty {
        reply(requester, tag, absence(of: id, from: q))
        return
      }
    }
    var moved = 0
    var skipped = 0
    for message in meant {
      if moved >= limit {
        let next = MessageID(rawValue: message.id.rawValue - 1)
        reply(
          requester, tag,
          .queueRedriven(
            messages: UInt64(moved), skipped: UInt64(skipped), next: next, through: through))
        return
      }
      let dead = message.note.deadLetter
      switch which {
      case .all: if dead == nil { continue }
      case .reason(let reason): if dead?.reason != reason { continue }
      case .message: break
      }
      guard let dead, let target = queues.firstIndex(where: { $0.name == dead.originQueue }),
        queues[target].settings.overflow == .dropOldest
          || !isOver(target, 1, Int(message.reference.size))
      else {
        skipped += 1
        continue
      }
      moved += 1
      let key = message.key
      queues[q].ready.removeAll { $0.id == message.id }
      letNextOut(q, key)
      var note = message.note
      note.deadLetter = nil
      note.add(
        MessageEvent(kind: .redriven, time: MachineTime(clock), queue: queues[q].name))
      move(message, note, to: target)
    }
    reply(
      requester, tag,
      .queueRedriven(
        messages: UInt64(moved), skipped: UInt64(skipped), next: nil, through: through))
  }

  mutating func nextID() -> MessageID {
    ordinal += 1
    return MessageID(entry: LogIndex(index), ordinal: ordinal - 1)
  }

  mutating func assign() {
    for q in queues.indices {
      let priorities = Set(queues[q].rotation.map { priority($0) })
      for level in priorities.sorted(by: >) { assign(q, level) }
    }
  }

  func priority(_ place: Place) -> Int {
    let (s, c) = find(place.session, place.consumer)!
    return sessions[s].consumers[c].priority
  }

  mutating func assign(_ q: Int, _ level: Int) {
    let takers = queues[q].rotation.count { priority($0) == level }
    if takers == 0 { return }
    let share = max(1, deliverable(q).count / takers)
    while !deliverable(q).isEmpty,
      let first = queues[q].rotation.firstIndex(where: { priority($0) == level })
    {
      let place = queues[q].rotation.remove(at: first)
      let (s, c) = find(place.session, place.consumer)!
      var deliveries: [Delivery] = []
      for _ in 0..<share {
        let consumer = sessions[s].consumers[c]
        if deliverable(q).isEmpty || consumer.held.count >= consumer.credit { break }
        let message = next(q)
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

  // Sessions.

  mutating func openSession(
    _ origin: SessionOrigin, _ kind: SessionKind, _ producer: ProducerID, epoch: UInt64,
    attempt: OpenAttempt, sessionsMax: Int, _ timeout: UInt64
  ) {
    let newest = producers[producer]?.attempt.rawValue ?? 0
    let client = attempt.rawValue >> 32
    if client > 0, client == newest >> 32, attempt.rawValue <= newest {
      seen.append(.plain(.sessionOpenRefused(origin, .producerFenced)))
      return
    }
    let most = min(limits.sessions, sessionsMax)
    if sessions.count >= most,
      let resting = sessions.filter({ $0.isResting })
        .min(by: { ($0.deadline!, $0.id) < ($1.deadline!, $1.id) })
    {
      end(resting.id, .expired)
    }
    if sessions.count >= most {
      seen.append(.plain(.sessionOpenRefused(origin, .tooManySessions)))
      return
    }
    if epoch > 0, producers[producer]?.epoch != epoch {
      let refusal =
        producers[producer] == nil ? Refusal.producerForgotten : .producerFenced
      seen.append(.plain(.sessionOpenRefused(origin, refusal)))
      return
    }
    let id = SessionID(rawValue: index << 20 | command)
    sessions.append(
      Session(
        id: id, origin: origin, node: origin.node, kind: kind, producer: producer,
        timeout: timeout))
    var last: UInt64 = 0
    var current: UInt64 = 0
    if producer.rawValue != 0 {
      var known = producers[producer] ?? Producer()
      if let older = known.session { tell(older, .producerFenced(older)) }
      known.session = id
      if epoch == 0 { known.epoch = id.rawValue }
      known.attempt = attempt
      current = known.epoch
      last = known.last
      producers[producer] = known
    }
    tell(
      id,
      .sessionOpened(
        origin, id, lastSequence: PublishSequence(last), epoch: ProducerEpoch(current)))
  }

  mutating func attachSession(
    _ id: SessionID, _ origin: SessionOrigin, _ positions: [ConsumerPosition]
  ) {
    guard let s = sessions.firstIndex(where: { $0.id == id }) else {
      seen.append(.plain(.sessionAttachRefused(origin, id, .sessionNotFound)))
      return
    }
    sessions[s].origin = origin
    sessions[s].node = origin.node
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
    let lost = sessions.first { $0.id == id }?.consumers.map(\.queue) ?? []
    sessions.removeAll { $0.id == id }
    for queue in lost { consumersChanged(queue) }
    for (producer, state) in producers where state.session == id {
      producers[producer]!.session = nil
      producers[producer]!.idleSince = clock
      let others = producers.filter { $0.value.session == nil && $0.key != producer }
      let kept = others.reduce(0) { $0 + $1.value.allRuns.count }
      let runs = state.allRuns
      if kept + runs.count > limits.idleRuns, let last = runs.last {
        producers[producer]!.answers.removeFirst(Int(last.first - state.forgottenThrough - 1))
        producers[producer]!.forgottenThrough = last.first - 1
      }
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
      if queue.settings == settings { queues[queuePlace(queue.id)!].lastUse = clock }
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
      Queue(
        id: QueueID(nextQueue), name: name, settings: settings, nextToken: tokenFloor,
        lastUse: clock))
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
      let detail = "number of queues that do so: \(users)"
      reply(requester, tag, .refused(.queueInUse, detail: detail))
      return
    }
    var messages = queues[q].ready.count + queues[q].delayed.count
    let id = queues[q].id
    let places = sessions.flatMap { session in
      session.consumers.filter { $0.queue == id }.map { ($0.serial, session.id, $0) }
    }
    for (_, session, consumer) in places.sorted(by: { $0.0 < $1.0 }) {
      messages += consumer.held.count
      tell(session, .consumerCancelled(session, consumer.id))
    }
    remove(queues[q])
    reply(requester, tag, .queueDeleted(messages: UInt64(messages)))
  }

  mutating func purge(_ requester: Requester, _ tag: RequestTag, _ name: String) {
    guard let q = queues.firstIndex(where: { $0.name == name }) else {
      reply(requester, tag, .refused(.queueNotFound, detail: name))
      return
    }
    let messages = UInt64(queues[q].ready.count + queues[q].delayed.count)
    queues[q].ready = []
    queues[q].delayed = []
    // All levels are empty now.
    queues[q].passedOver = Array(repeating: 0, count: 32)
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
    records: [Record], refusal: Refusal? = nil
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
    if hasTooManyAnswers(producer, owner.producer, with: Int(end - new)) {
      tell(session, refuse(new, .tooManyUnanswered))
      return
    }
    var stop = end
    if refusal == nil, let q = queuePlace(queue) {
      let hasLimit = queues[q].settings.lengthMax > 0 || queues[q].settings.bytesMax > 0
      let known = producer
      for (place, record) in records.enumerated().dropFirst(Int(new - first)) {
        let before = hasLimit ? self : nil
        producer.answers.append(store(record, q))
        let made = producer.allRuns.count - known.allRuns.count
        // As if it had not been there, if its answer cannot be kept.
        if let before, hasTooManyAnswers(known, owner.producer, with: 0, runs: made) {
          self = before
          producer.answers.removeLast()
          stop = first + UInt64(place)
          break
        }
      }
      trimIfOverfull(q)
    } else {
      for _ in new..<end { producer.answers.append(.refused(refusal ?? .queueNotFound)) }
    }
    answer(session, producer.runs(new..<stop))
    if stop < end { tell(session, refuse(stop, .tooManyUnanswered)) }
  }

  /// Whether the producer may not have so many answers more, in so many runs more.
  func hasTooManyAnswers(
    _ producer: Producer, _ id: ProducerID, with count: Int, runs: Int = 1
  ) -> Bool {
    let all = producer.allRuns.count + runs
    let live = producers.filter { $0.value.session != nil && $0.key != id }
      .reduce(all) { $0 + $1.value.allRuns.count }
    return UInt64(producer.answers.count + count) > limits.unansweredMessages
      || all > limits.unansweredRuns
      || all > limits.runsWhenFull && live > limits.liveRuns
  }

  struct Record {
    var offset: Int
    var size: Int
    var delay: UInt64?
    var timeToLive: UInt64?
    var priority = 0
    var key = 0
  }

  /// Of a transaction that returns messages too it is checked before that.
  mutating func store(_ record: Record, _ q: Int, isChecked: Bool = false) -> Answer {
    let settings = queues[q].settings
    if isChecked {
    } else if settings.overflow == .reject
      ? isOver(q, 1, record.size) : settings.bytesMax > 0 && record.size > settings.bytesMax
    {
      return .refused(.queueFull)
    }
    let span = settings.timeToLive == .zero ? nil : settings.timeToLive.rawValue
    let shortest = [span, record.timeToLive].compactMap { $0 }.min()
    var message = Message(
      id: nextID(),
      reference: RecordReference(
        entry: LogIndex(index), offset: UInt32(record.offset), size: UInt32(record.size)))
    if settings.priorities > 1 { message.priority = min(record.priority, 31) }
    if settings.keyLimit > 0 { message.key = record.key }
    message.expires = shortest.map { clock + $0 }
    queues[q].published += 1
    if let delay = record.delay, delay > 0 {
      self.delay(message, in: queues[q].id, until: clock + delay)
    } else {
      join(message, q)
    }
    return .stored(message.id, copies: 1)
  }

  mutating func answer(
    _ session: SessionID, _ runs: [(first: UInt64, count: UInt32, answer: Answer)]
  ) {
    for run in runs {
      let first = PublishSequence(run.first)
      switch run.answer {
      case .stored(let id, let copies):
        tell(
          session,
          .confirmed(session, first: first, count: run.count, firstID: id, copies: copies))
      case .refused(let refusal):
        tell(session, .refused(session, first: first, count: run.count, refusal))
      }
    }
  }

  // Consumers.

  mutating func subscribe(
    _ session: SessionID, _ id: ConsumerID, _ tag: RequestTag, _ queue: QueueID, _ credit: Int,
    priority: Int, isExclusive: Bool
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
      let known = sessions[s].consumers[c]
      if known.queue != queue || known.priority != priority || known.isExclusive != isExclusive {
        reply(requester, tag, refuse(.consumerDiffers))
        return
      }
      if !mayHold(credit, id, s) {
        reply(requester, tag, refuse(.tooMuchCredit))
        return
      }
      sessions[s].consumers[c].isSubscribed = true
      sessions[s].consumers[c].credit = credit
    } else if sessions[s].consumers.count >= limits.consumersPerSession
      || sessions.reduce(0, { $0 + $1.consumers.count }) >= limits.consumers
    {
      reply(requester, tag, refuse(.tooManyConsumers))
      return
    } else if consumers(of: queue).contains(where: { $0.isExclusive || isExclusive }) {
      reply(requester, tag, refuse(.consumerExclusive))
      return
    } else if !mayHold(credit, id, s) {
      reply(requester, tag, refuse(.tooMuchCredit))
      return
    } else {
      sessions[s].consumers.append(
        Consumer(
          serial: index << 20 | command, id: id, queue: queue, credit: credit, priority: priority,
          isExclusive: isExclusive))
      sessions[s].consumers.sort { $0.id < $1.id }
    }
    consumersChanged(queue, isLoss: false)
    refresh(session, id)
    reply(requester, tag, .subscribed(id, queue))
  }

  func consumers(of queue: QueueID) -> [Consumer] {
    sessions.flatMap { $0.consumers.filter { $0.queue == queue } }
  }

  func mayHold(_ credit: Int, _ id: ConsumerID, _ s: Int) -> Bool {
    let present = sessions[s].consumers.first { $0.id == id }
    if let present, present.isSubscribed, credit <= present.credit { return true }
    let most = max(credit, present?.held.count ?? 0) + sessions[s].holdsAtMost(without: id)
    return most <= limits.creditPerSession
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
      if !mayHold(credit, id, s) {
        reply(requester, tag, .refused(.tooMuchCredit, detail: ""))
        return
      }
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

  /// What of the ranges will be refused and why.
  private func refusals(
    _ session: SessionID, _ id: ConsumerID, _ ranges: [DeliveryRange]
  ) -> [(range: DeliveryRange, why: Refusal)] {
    let starts = ranges.map(\.first.rawValue)
    let ends = [0] + ranges.map(\.last.rawValue)
    if zip(starts, ends).contains(where: { $0 <= $1 })
      || ranges.contains(where: { $0.last < $0.first })
    {
      return ranges.map { ($0, .malformedRequest) }
    }
    guard let (s, c) = find(session, id) else { return ranges.map { ($0, .consumerNotFound) } }
    let consumer = sessions[s].consumers[c]
    let held = Set(consumer.held.map(\.delivery))
    var refused: [(range: DeliveryRange, why: Refusal)] = []
    for range in ranges {
      let last = min(range.last.rawValue, consumer.nextDelivery - 1)
      var number = range.first.rawValue
      while number <= last {
        let first = number
        while number <= last, !held.contains(number) { number += 1 }
        if first < number { refused.append((DeliveryRange(first...number - 1), .staleDelivery)) }
        number += 1
      }
      if range.last.rawValue > last {
        refused.append(
          (
            DeliveryRange(max(range.first.rawValue, last + 1)...range.last.rawValue),
            .deliveryNotFound
          ))
      }
    }
    return refused
  }

  /// `act` gets each held delivery, which is out of the consumer's hands if `takes`.
  private mutating func visit(
    _ session: SessionID, _ sequence: UInt64, _ answeredThrough: UInt64, _ id: ConsumerID,
    _ ranges: [DeliveryRange], takes: Bool, _ act: (inout Model, HeldMessage, QueueID) -> Void
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
      let again = sessions[s].refusals.filter { $0.sequence.rawValue == sequence }
      if !again.isEmpty {
        let left = refusalsLeft[session] ?? 2 * sessions[s].refusals.count
        if again.count > left {
          for range in ranges { tell(session, refusal(range, .overloaded)) }
          return
        }
        refusalsLeft[session] = left - again.count
      }
      for known in again {
        tell(
          session,
          .settleRefused(
            session, known.sequence, known.consumer, known.range, known.refusal))
      }
      settled(session, sequence)
      return
    }
    if sequence != sessions[s].settled + 1 {
      for range in ranges { tell(session, refusal(range, .sequenceGap)) }
      return
    }
    var refused = refusals(session, id, ranges)
    if refused.count > limits.unansweredRefusals, find(session, id) != nil {
      refused = ranges.map { ($0, .malformedRequest) }
    }
    let remembered = sessions[s].refusals.count
    let isFull = sessions.reduce(0) { $0 + $1.refusals.count } >= limits.refusals
    let after = remembered + refused.count
    if remembered >= limits.unansweredRefusals
      || !refused.isEmpty && isFull && after > limits.refusalsWhenFull
      || !isFull && remembered > 0 && !refused.isEmpty && after > limits.unansweredRefusals
    {
      for range in ranges { tell(session, refusal(range, .tooManyUnanswered)) }
      return
    }
    func refuse(_ model: inout Model, _ range: DeliveryRange, _ why: Refusal) {
      model.sessions[s].refusals.append(
        SettleRefusal(
          sequence: CommandSequence(sequence), consumer: id, range: range, refusal: why))
      model.tell(session, refusal(range, why))
    }
    if refused.contains(where: { $0.why == .malformedRequest }) {
      for (range, why) in refused { refuse(&self, range, why) }
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
          // Out of the consumer's hands before the act, which may let others of its key out.
          if takes { sessions[s].consumers[c].held.removeAll { $0.delivery == delivery } }
          act(&self, held, queue)
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
    var through = CommandSequence(through)
    if case .plain(.settled(session, let earlier))? = seen.last {
      seen.removeLast()
      through = max(through, earlier)
    }
    seen.append(.plain(.settled(session, through: through)))
  }

  mutating func settle(
    _ session: SessionID, _ sequence: UInt64, _ answeredThrough: UInt64, _ kind: SettleKind,
    _ id: ConsumerID, _ ranges: [DeliveryRange], _ error: String, delay: UInt64?
  ) {
    visit(session, sequence, answeredThrough, id, ranges, takes: true) { model, held, queue in
      model.end(held, of: session, id, in: queue, kind, error, delay: delay)
    }
  }

  /// What was taken out of the consumer's hands.
  mutating func end(
    _ held: HeldMessage, of session: SessionID, _ id: ConsumerID, in queue: QueueID,
    _ kind: SettleKind, _ error: String, delay: UInt64?
  ) {
    switch kind {
    case .acknowledge:
      queues[queuePlace(queue)!].acknowledged += 1
      letNextOut(queuePlace(queue)!, held.message.key)
    case .negative:
      fail(held, of: session, id, in: queue, Failure(kind: .failed, error: error, delay: delay))
    case .reject:
      let failure = Failure(kind: .rejected, error: error)
      giveUp(
        held.message, in: queue, .rejected, held.attempt, error,
        event(held, of: session, id, in: queue, failure))
    case .release: giveBack(held.message, to: queue)
    }
  }

  mutating func extend(
    _ session: SessionID, _ sequence: UInt64, _ answeredThrough: UInt64, _ id: ConsumerID,
    _ ranges: [DeliveryRange], _ duration: UInt64
  ) {
    visit(session, sequence, answeredThrough, id, ranges, takes: false) { model, held, _ in
      let (s, c) = model.find(session, id)!
      let place = model.sessions[s].consumers[c].held.firstIndex { $0.delivery == held.delivery }!
      model.sessions[s].consumers[c].held[place].leaseEnd =
        model.clock + min(duration, model.limits.extensionMax.rawValue)
    }
  }

  // What can be read.

  func summaries() -> [QueueSummary] {
    queues.map { queue in
      let consumers = sessions.flatMap { $0.consumers.filter { $0.queue == queue.id } }
      let held = consumers.flatMap(\.held)
      let all = queue.ready + queue.delayed + held.map(\.message)
      let bytes = all.reduce(0) { $0 + UInt64($1.reference.size) }
      return QueueSummary(
        id: queue.id, name: queue.name, settings: queue.settings, ready: UInt64(queue.ready.count),
        leased: UInt64(held.count), delayed: UInt64(queue.delayed.count),
        consumers: UInt32(consumers.filter(\.isSubscribed).count), bytes: bytes,
        published: queue.published, delivered: queue.delivered,
        acknowledged: queue.acknowledged, redelivered: queue.redelivered,
        deadLettered: queue.deadLettered)
    }.sorted { $0.name < $1.name }
  }

  func peek(_ id: QueueID) -> [MessageBiography] {
    func peeked(_ message: Message, _ state: MessageState) -> MessageBiography {
      MessageBiography(
        message: PeekedMessage(
          id: message.id, reference: message.reference, state: state,
          attempts: message.note.attempts, session: .none, consumer: ConsumerID(0),
          leaseEnd: .never, due: message.due.map { MachineTime($0) } ?? .never,
          expires: message.expires.map { MachineTime($0) } ?? .never,
          lastError: message.note.error, deadLetter: message.note.deadLetter),
        events: message.note.events, eventsForgotten: message.note.eventsForgotten)
    }
    let queue = queues[queuePlace(id)!]
    var all = queue.ready.map { peeked($0, .ready) } + queue.delayed.map { peeked($0, .delayed) }
    for session in sessions {
      for consumer in session.consumers where consumer.queue == id {
        for held in consumer.held {
          var found = peeked(held.message, .leased)
          found.message.session = session.id
          found.message.consumer = consumer.id
          found.message.leaseEnd = MachineTime(held.leaseEnd)
          found.holder = "n"
          found.node = session.origin?.node ?? NodeID(0)
          found.granted = MachineTime(held.granted)
          all.append(found)
        }
      }
    }
    return all.sorted { $0.message.id < $1.message.id }
  }

  func outcome(_ sequence: UInt64, _ id: ProducerID) -> PublishOutcome {
    guard let producer = producers[id], sequence > 0, sequence <= producer.last else {
      return .unseen
    }
    if sequence <= producer.forgottenThrough { return .answerForgotten }
    switch producer.answers[Int(sequence - producer.forgottenThrough - 1)] {
    case .stored(let id, _): return .stored(id)
    case .refused(let refusal): return .refused(refusal)
    }
  }

  /// When something really falls due next.
  var nextDeadline: UInt64? {
    let leases = sessions.flatMap { $0.consumers.flatMap { $0.held.map(\.leaseEnd) } }
    let messages = queues.flatMap { queue in
      (queue.ready + queue.delayed).flatMap { [$0.due, $0.expires].compactMap { $0 } }
    }
    let expiries = queues.filter { $0.settings.expires != .zero && !isUsed($0) }
      .map { $0.lastUse + $0.settings.expires.rawValue }
    return (leases + messages + expiries + sessions.compactMap(\.deadline)).min()
  }
}
