// Messages for exchanges: the route is found when the entry is applied, so that it is right wherever
// the publisher is connected, and a message is in all its queues or in none (G10). And what AMQP
// clients take out again by the name of a queue.

import Base

/// By which exchange and keys a message came to its queue: kept where a dead letter goes on by them
/// and the machine could not tell otherwise.
struct MessageAddress: Hashable, Sendable {
  /// Larger tables are not kept: memory holds no more of a message than what is small.
  static let headerBytesMax = 4 << 10

  var exchange: String
  var keys: [[UInt8]]
  /// The message's header table as sent, where a headers exchange is to see it when the message is
  /// dead; empty elsewhere.
  var headers: [UInt8] = []
}

extension MachineState {
  // MARK: Publishing

  mutating func route(_ command: Route, _ effects: inout EffectList) {
    // Of a session that ended nobody waits for the answer.
    guard let session = slot(of: command.head.session) else { return }
    let origin = sessions[session].origin
    let before = bundlePlace?.recordsBefore ?? 0
    do throws(TopologyFailure) {
      let start = try routeStart(of: command)
      var place = RunPlace(next: 0, offset: 0)
      if before > 0 { skip(before, of: command, &place) }
      while place.next < command.count, bundlePlace?.stop == nil {
        if let start, hasLookedEnough(at: start), stopsBundle(at: place.next) { return }
        let (targets, isForAll) = self.targets(of: command, from: start, at: place.offset)
        let count = isForAll ? command.count - place.next : 1
        store(command, &place, count, in: targets, origin, &effects)
      }
    } catch {
      effects.add(
        .topology(
          .routeFailed(
            command.head.session, command.head.tag, count: command.count - before, error)),
        for: origin)
    }
  }

  /// Whether the entry has looked at so many headers that no more of what goes by them is for its
  /// bundle. Never where it has looked at nothing: so each message goes at some time.
  private func hasLookedEnough(at exchange: UInt32) -> Bool {
    topology.headerLooks >= bundlePlace?.looksMax ?? limits.headerLooksPerEntry
      && topology.maySeeHeaders(exchange)
  }

  /// Where in a run the next record is.
  private struct RunPlace {
    var next: UInt32
    var offset: Int
  }

  /// What the publishes of a transaction need together. Looked up by slot only.
  struct RoomWanted {
    /// In all queues.
    var messages = 0
    var count: [Int: UInt64] = [:]
    var bytes: [Int: UInt64] = [:]
    /// Of headers and keys to be kept, each copy's.
    var headerBytes = 0
    /// What was looked at for headers exchanges before.
    var looksBefore = 0
    /// The entry may look at no more.
    var isForAnotherEntry = false
  }

  /// Adds what a publish needs; fails if it cannot be carried out. What is looked at for it will be
  /// looked at again when it is.
  mutating func want(_ room: inout RoomWanted, for command: Route) throws(TopologyFailure) {
    let start = try routeStart(of: command)
    let keyBytes = MessageAddress.bytes(ofFurtherKeys: command.keys)
    let seesHeaders = start.map { topology.maySeeHeaders($0) } ?? false
    var offset = 0
    for _ in 0..<command.count {
      if seesHeaders, room.looksBefore > 0, topology.headerLooks >= limits.headerLooksPerEntry {
        room.isForAnotherEntry = true
        return
      }
      let size = Self.recordSize(in: command.run, at: offset)
      let (slots, _) = targets(of: command, from: start, at: offset)
      if topology.headerLooks - room.looksBefore > limits.headerLooksPerTransaction {
        throw .other(.overloaded, detail: "the transaction is too large")
      }
      room.messages += slots.count
      let seers = slots.count { deadLettersSeeHeaders($0) }
      if seers > 0 {
        let record = UnsafeRawBufferPointer(rebasing: command.run[offset...])
        room.headerBytes += seers * MessageAddress.headersToKeep(ofRecord: record).count
      }
      if keyBytes > 0 { room.headerBytes += keyBytes * slots.count { keepsAddress($0) } }
      for queue in slots where queues[queue].hasLimit {
        let settings = queues[queue].settings
        guard settings.overflow == .reject else {
          if settings.bytesMax > 0, size > settings.bytesMax { throw fullQueue(queue) }
          continue
        }
        room.count[queue, default: 0] += 1
        room.bytes[queue, default: 0] += UInt64(size)
        if queues[queue].isFull(for: room.bytes[queue] ?? 0, count: room.count[queue] ?? 0) {
          throw fullQueue(queue)
        }
      }
      offset += size
    }
  }

  private func fullQueue(_ queue: Int) -> TopologyFailure {
    .other(.queueFull, detail: "queue '\(queues[queue].name)' is full")
  }

  /// The exchange's number; nil for the default one.
  private func routeStart(of command: Route) throws(TopologyFailure) -> UInt32? {
    let name = command.head.name
    if name.name.isEmpty { return nil }
    guard let number = topology.exchange(name.name, in: name.host),
      let exchange = topology.exchanges[UInt64(number)]
    else { throw .noExchange(name.name, host: hostName(of: name)) }
    if exchange.settings.isInternal {
      throw .internalExchange(name.name, host: hostName(of: name))
    }
    return number
  }

  /// Slots of the queues, by their ids; and whether all records of the run go there, or only the
  /// one at `offset`, whose headers were looked at.
  private mutating func targets(
    of command: Route, from start: UInt32?, at offset: Int
  ) -> (slots: [Int], isForAll: Bool) {
    guard let start else {
      let slots = Set(command.keys.compactMap { queueSlot(behind: $0, in: command.head.name.host) })
      return (slots.sorted { queues[$0].id < queues[$1].id }, true)
    }
    var looksAtHeaders = false
    let record = UnsafeRawBufferPointer(rebasing: command.run[offset...])
    let route = topology.route(from: start, keys: command.keys) {
      looksAtHeaders = true
      return AMQPProperties.headers(ofRecord: record)
    }
    return (route.compactMap { queueSlots[UInt64($0)] }, !looksAtHeaders)
  }

  /// The queue that the default exchange routes a key to.
  private func queueSlot(behind key: [UInt8], in host: VirtualHostID) -> Int? {
    let name = String(decoding: key, as: UTF8.self)
    if host == .main, Topology.isForeign(name) { return nil }
    return queueNames[topology.queueName(name, in: host)]
  }

  /// Stores the next `count` records in all the queues, and answers for them.
  private mutating func store(
    _ command: Route, _ place: inout RunPlace, _ count: UInt32, in targets: [Int],
    _ origin: SessionOrigin?, _ effects: inout EffectList
  ) {
    let (session, tag) = (command.head.session, command.head.tag)
    let start = place.offset
    if targets.isEmpty {
      skip(count, of: command, &place)
      hash.fold(.unroutable, UInt64(count))
      let run = RunReference(
        entry: appliedIndex, offset: command.runOffset + start, byteCount: place.offset - start,
        count: count)
      if let reply = directReply(to: command, run, &effects) {
        effects.add(.topology(reply), for: origin)
      } else if command.isMandatory {
        effects.add(.topology(.unroutable(session, tag, run)), for: origin)
      } else {
        effects.add(.topology(.routed(session, tag, count: count)), for: origin)
      }
      return
    }
    var left = count
    let seers = targets.count { deadLettersSeeHeaders($0) }
    let keyBytes = MessageAddress.bytes(ofFurtherKeys: command.keys)
    let keyKeepers = keyBytes == 0 ? 0 : targets.count { keepsAddress($0) }
    if seers == 0, keyKeepers == 0, !targets.contains(where: { queues[$0].hasLimit }) {
      let fitting = min(left, UInt32(clamping: roomForMessages(ofCopies: targets.count)))
      if fitting > 0 {
        skip(fitting, of: command, &place)
        let run = UnsafeRawBufferPointer(rebasing: command.run[start..<place.offset])
        for queue in targets {
          append(
            run, at: command.runOffset + start, count: fitting, isShared: targets.count > 1,
            to: queue, command)
        }
        effects.add(.topology(.routed(session, tag, count: fitting)), for: origin)
        left -= fitting
      }
    } else {
      while left > 0, roomForMessages(ofCopies: targets.count) > 0 {
        storeOne(command, &place, in: targets, seers, keyKeepers * keyBytes, origin, &effects)
        left -= 1
      }
      for queue in targets { trimIfOverfull(queue) }
    }
    if left > 0 { storeLater(left, of: command, &place, copies: targets.count, origin, &effects) }
  }

  /// The next `count` records find no room in this entry: they go into the one in which their bundle
  /// comes again.
  private mutating func storeLater(
    _ count: UInt32, of command: Route, _ place: inout RunPlace, copies: Int,
    _ origin: SessionOrigin?, _ effects: inout EffectList
  ) {
    // One that has too many copies for any entry is refused.
    if copies <= limits.publishesPerEntry, stopsBundle(at: place.next) { return }
    skip(count, of: command, &place)
    hash.fold(.publishRefused, UInt64(count))
    effects.add(
      .topology(
        .routeRefused(command.head.session, command.head.tag, count: count, .overloaded)),
      for: origin)
  }

  /// Stores one record where some queue has a limit or is to keep its headers or further keys: in
  /// all queues, or in none if one that refuses is full or there is no room for what is kept.
  ///
  /// - Parameters:
  ///   - seers: how many of the queues are to keep the headers.
  ///   - keyBytes: what all copies keep of keys.
  private mutating func storeOne(
    _ command: Route, _ place: inout RunPlace, in targets: [Int], _ seers: Int, _ keyBytes: Int,
    _ origin: SessionOrigin?, _ effects: inout EffectList
  ) {
    let start = place.offset
    skip(1, of: command, &place)
    let size = UInt64(place.offset - start)
    let isFull = targets.contains { queue in
      let settings = queues[queue].settings
      return settings.overflow == .reject
        ? queues[queue].isFull(for: size) : settings.bytesMax > 0 && size > settings.bytesMax
    }
    let (session, tag) = (command.head.session, command.head.tag)
    let run = UnsafeRawBufferPointer(rebasing: command.run[start..<place.offset])
    let headers =
      seers > 0
      ? MessageAddress.headersToKeep(ofRecord: run) : UnsafeRawBufferPointer(rebasing: run[0..<0])
    // What needs no room is never refused for want of it.
    let keptBytes = seers * headers.count + keyBytes
    let isTooMuch = keptBytes > 0 && !mayKeepHeaders(keptBytes)
    if isFull || isTooMuch {
      hash.fold(.publishRefused, UInt64(place.next))
      effects.add(
        .topology(.routeRefused(session, tag, count: 1, isFull ? .queueFull : .overloaded)),
        for: origin)
      return
    }
    // One array, which all the copies share.
    let kept = [UInt8](headers)
    for queue in targets {
      append(
        run, at: command.runOffset + start, count: 1, isShared: targets.count > 1, headers: kept,
        to: queue, command)
    }
    effects.add(.topology(.routed(session, tag, count: 1)), for: origin)
  }

  private func skip(_ count: UInt32, of command: Route, _ place: inout RunPlace) {
    if place.next == 0, count == command.count {
      place = RunPlace(next: count, offset: command.run.count)
      return
    }
    for _ in 0..<count {
      place.offset += Self.recordSize(in: command.run, at: place.offset)
      place.next += 1
    }
  }

  /// Puts a run of records into one queue under ids of its own.
  ///
  /// - Parameter headers: of the run's one record, where some queue's dead letters go by them.
  private mutating func append(
    _ run: UnsafeRawBufferPointer, at runOffset: Int, count: UInt32, isShared: Bool,
    headers: [UInt8] = [], to queue: Int, _ command: Route
  ) {
    let id = MessageID(entry: appliedIndex, ordinal: nextOrdinal)
    hash.fold(.routed, id.rawValue, UInt64(queues[queue].id.rawValue) << 32 | UInt64(count))
    if let address = addressToKeep(of: command, headers: headers, in: queue) {
      append(
        run, at: runOffset, count: count, firstID: id, isShared: isShared, noting: address,
        to: queue)
    } else {
      Self.append(
        run, at: runOffset, after: 0, count: Int(count), firstID: id, isShared: isShared,
        to: &queues[queue], at: clock, hash: &hash)
    }
    stored(Int(count), in: queue)
  }

  private mutating func append(
    _ run: UnsafeRawBufferPointer, at runOffset: Int, count: UInt32, firstID: MessageID,
    isShared: Bool, noting address: MessageAddress, to queue: Int
  ) {
    var story = MessageStory()
    story.address = address
    var offset = 0
    for place in 0..<UInt64(count) {
      let size = Self.recordSize(in: run, at: offset)
      var message = Waiting(
        id: MessageID(rawValue: firstID.rawValue + place), isShared: isShared,
        offset: runOffset + offset, size: size)
      hash.fold(message.bits)
      let record = UnsafeRawBufferPointer(rebasing: run[offset...])
      queues[queue].note(&message) { $0.story = story }
      countHeaders(address.keptBytes, in: queue)
      queues[queue].admit(message, record: record, at: clock)
      offset += size
    }
    queues[queue].bytes += UInt64(run.count)
    queues[queue].published += UInt64(count)
  }

  /// What dead letters of that queue have to know of their way here, if they have to: where no
  /// other key is given for them and theirs is not the queue's own name, or where their headers
  /// decide.
  private func addressToKeep(
    of command: Route, headers: [UInt8], in queue: Int
  ) -> MessageAddress? {
    guard let extras = topology.queues[UInt64(queues[queue].id.rawValue)],
      extras.deadLetterExchange != nil
    else { return nil }
    var address = MessageAddress(exchange: command.head.name.name, keys: command.keys)
    let seesHeaders = deadLettersSeeHeaders(extras)
    if seesHeaders { address.headers = headers }
    guard seesHeaders || extras.deadLetterKey == nil, address != extras.ownAddress else {
      return nil
    }
    return address
  }

  /// Whether dead letters of the queue go on by the keys or headers of their messages.
  private func keepsAddress(_ queue: Int) -> Bool {
    guard let extras = topology.queues[UInt64(queues[queue].id.rawValue)],
      extras.deadLetterExchange != nil
    else { return false }
    return extras.deadLetterKey == nil || deadLettersSeeHeaders(extras)
  }

  // MARK: Direct replies

  /// The beginning of the keys under which consumers of direct replies are reached.
  static let replyPrefix = "amq.rabbitmq.reply-to."

  /// Has the run handed to the consumer whose address the routing key is; nil if it is no such.
  private func directReply(
    to command: Route, _ run: RunReference, _ effects: inout EffectList
  ) -> TopologyEffect? {
    guard command.head.name.name.isEmpty, let key = command.keys.first,
      key.starts(with: Self.replyPrefix.utf8),
      let address = ReplyAddress(text: String(decoding: key, as: UTF8.self)),
      let receiver = slot(of: address.session)
    else { return nil }
    effects.add(
      .topology(.directReply(address.session, address.consumer, run)),
      for: sessions[receiver].origin)
    return .routed(command.head.session, command.head.tag, count: run.count)
  }

  // MARK: Taking

  mutating func consume(_ command: Consume, _ effects: inout EffectList) {
    let answer: TopologyReply
    do throws(TopologyFailure) {
      let queue = try slot(of: command.head.name, for: command.head.session)
      guard let session = slot(of: command.head.session) else { throw .noSession }
      let subscribe = Subscribe(command, queue: queues[queue].id)
      if let refusal = maybeSubscribe(subscribe, session) {
        throw refusal == .consumerExclusive
          ? .exclusiveUse(command.head.name.name, host: hostName(of: command.head.name))
          : .other(refusal, detail: "")
      }
      answer = .consuming(command.consumer)
    } catch {
      answer = .failed(error)
    }
    reply(.topology(answer), to: command.head.requester, command.head.tag, &effects)
  }

  mutating func take(_ command: Take, _ effects: inout EffectList) {
    let answer: TopologyReply
    do throws(TopologyFailure) {
      let queue = try slot(of: command.head.name, for: command.head.session)
      guard let session = slot(of: command.head.session) else { throw .noSession }
      answer = try take(command, from: queue, session, &effects)
    } catch {
      answer = .failed(error)
    }
    reply(.topology(answer), to: command.head.requester, command.head.tag, &effects)
  }

  private mutating func take(
    _ command: Take, from queue: Int, _ session: Int, _ effects: inout EffectList
  ) throws(TopologyFailure) -> TopologyReply {
    noteUse(of: queue)
    // What may not wait at all is gone, though its time comes with the next entry only.
    expireDue(in: queue, by: clock + Nanoseconds(1))
    if queues[queue].ready.isEmpty { return .nothingToTake }
    let consumer: Int
    if let known = sessions[session].slot(of: command.consumer) {
      guard consumers[known].queueSlot == queue, !consumers[known].isSubscribed else {
        throw .other(.consumerDiffers, detail: "")
      }
      guard mayHold(UInt32(consumers[known].held.count + 1), known, session) else {
        throw .tooMany("the connection holds too many messages")
      }
      consumer = known
    } else {
      guard sessions[session].consumers.count < limits.consumersPerSession,
        consumers.count < limits.consumers, mayHold(1, nil, session)
      else { throw .tooMany("the connection has too many consumers") }
      consumer = insertTaker(command, from: queue, session)
    }
    // The list gets the delivery as any other and gives it back for the reply.
    let before = effects.deliveries.count
    let leaseEnd = clock + queues[queue].settings.lease
    hash.fold(.delivered, consumers[consumer].serial, queues[queue].nextToken)
    Self.handOut(
      1, from: &queues[queue], to: &consumers[consumer], granted: clock, leaseEnd: leaseEnd,
      hash: &hash, deliveries: &effects.deliveries, isWanted: true)
    lowerDeadline(of: consumer, to: leaseEnd)
    recount(consumer)
    noteUse(of: queue)
    let delivery = effects.deliveries.removeLast()
    invariant(effects.deliveries.count == before, "a get of several messages")
    return .took(command.consumer, delivery, ready: queues[queue].readyCount)
  }

  /// A consumer that lasts while it holds something and is given nothing by itself.
  private mutating func insertTaker(_ command: Take, from queue: Int, _ session: Int) -> Int {
    var consumer = ConsumerState()
    consumer.serial = commandNumber
    consumer.id = command.consumer
    consumer.session = command.head.session
    consumer.sessionSlot = session
    consumer.queueSlot = queue
    consumer.credit = 0
    consumer.isSubscribed = false
    let slot = insertConsumer(consumer)
    let (place, found) = sessions[session].place(of: command.consumer)
    invariant(!found, "consumer \(command.consumer) is there already")
    sessions[session].consumers.insert(
      SessionState.Member(id: command.consumer, slot: slot), at: place)
    return slot
  }

  // MARK: Dead letters

  func hasDeadLetterExchange(_ queue: Int) -> Bool {
    topology.queues[UInt64(queues[queue].id.rawValue)]?.deadLetterExchange != nil
  }

  /// What a dead-letter exchange makes of a message.
  struct DeadLetterCopies {
    /// Slots of the queues that it goes to, by their ids.
    var targets: [Int]
    /// With its death in it, and how it is addressed from now on.
    var story: MessageStory
  }

  /// Where a message that its queue gives up goes by the queue's dead-letter exchange; nil if the
  /// entry may not make so many copies any more. The first counts for the message itself, as
  /// anywhere, each other one as due work.
  mutating func deadLetterCopies(
    of message: Waiting, _ reason: DeadLetterReason, from queue: Int
  ) -> DeadLetterCopies? {
    if dueWork > limits.dueWorkPerEntry { return nil }
    if topology.headerLooks >= limits.headerLooksOfDead, deadLettersSeeHeaders(queue) {
      dueWork = max(dueWork, limits.dueWorkPerEntry + 1)
      return nil
    }
    var story = queues[queue].story(of: message) ?? MessageStory()
    guard let extras = topology.queues[UInt64(queues[queue].id.rawValue)],
      let exchange = extras.deadLetterExchange
    else { return DeadLetterCopies(targets: [], story: story) }
    let address = story.address ?? extras.ownAddress
    story.noteDeath(
      in: extras.name, reason, exchange: address.exchange, keys: address.keys, at: clock)
    let keys = extras.deadLetterKey.map { [$0] } ?? address.keys
    let next = MessageAddress(exchange: exchange, keys: keys, headers: address.headers)
    story.address = next
    let routed = deadLetterTargets(next, extras.host)
    let others = max(0, routed.count - 1)
    // One that alone has too many goes where nothing else did: so each goes at some time.
    if dueWork > 1, dueWork + others > limits.dueWorkPerEntry {
      // Others are not looked at any more: each look costs as much as the copies.
      dueWork = limits.dueWorkPerEntry + 1
      return nil
    }
    dueWork += others
    let targets = routed.filter { target in
      !story.isCycle(
        through: topology.queues[UInt64(queues[target].id.rawValue)]?.name
          ?? queues[target].name)
    }
    return DeadLetterCopies(targets: targets, story: story)
  }

  private mutating func deadLetterTargets(
    _ address: MessageAddress, _ host: VirtualHostID
  ) -> [Int] {
    if address.exchange.isEmpty {
      let slots = Set(address.keys.compactMap { queueSlot(behind: $0, in: host) })
      return slots.sorted { queues[$0].id < queues[$1].id }
    }
    guard let start = topology.exchange(address.exchange, in: host) else { return [] }
    // The record lies in the log and cannot be read here: a headers exchange sees what was kept.
    let route = topology.route(from: start, keys: address.keys) {
      HeaderIndex(address.headers)
    }
    return route.compactMap { queueSlots[UInt64($0)] }
  }
}

extension QueueExtras {
  /// How a message that was sent to the queue by its name is addressed.
  var ownAddress: MessageAddress {
    MessageAddress(exchange: "", keys: [[UInt8](name.utf8)])
  }
}

/// Where a consumer of direct replies is: the text is a routing key of the default exchange.
package struct ReplyAddress: Hashable, Sendable {
  package var session: SessionID
  package var consumer: ConsumerID

  package init(session: SessionID, consumer: ConsumerID) {
    self.session = session
    self.consumer = consumer
  }

  package var text: String {
    "\(MachineState.replyPrefix)\(String(session.rawValue, radix: 16)).\(consumer)"
  }

  package init?(text: String) {
    let rest = text.dropFirst(MachineState.replyPrefix.count).split(separator: ".")
    guard text.hasPrefix(MachineState.replyPrefix), rest.count == 2,
      let session = UInt64(rest[0], radix: 16), session != 0, let consumer = UInt32(rest[1])
    else { return nil }
    self.session = SessionID(rawValue: session)
    self.consumer = ConsumerID(rawValue: consumer)
  }
}

extension MessageStory {
  /// Deaths remembered of a message, the latest first.
  static let deathsMax = 16

  mutating func noteDeath(
    in queue: String, _ reason: DeadLetterReason, exchange: String, keys: [[UInt8]],
    at time: MachineTime
  ) {
    if let place = deaths.firstIndex(where: { $0.queue == queue && $0.reason == reason }) {
      var death = deaths.remove(at: place)
      death.count += 1
      deaths.insert(death, at: 0)
      return
    }
    if deaths.count == Self.deathsMax { deaths.removeLast() }
    deaths.insert(
      MessageDeath(
        queue: queue, reason: reason, exchange: exchange, keys: keys, count: 1, time: time), at: 0)
  }

  /// Whether the message would go round without anybody having rejected it (as RabbitMQ has it).
  func isCycle(through queue: String) -> Bool {
    guard let place = deaths.firstIndex(where: { $0.queue == queue }) else { return false }
    return !deaths[...place].contains { $0.reason == .rejected }
  }
}

extension Subscribe {
  fileprivate init(_ command: Consume, queue: QueueID) {
    session = command.head.session
    consumer = command.consumer
    tag = command.head.tag
    self.queue = queue
    credit = command.credit
    isExclusive = command.isExclusive
  }
}
