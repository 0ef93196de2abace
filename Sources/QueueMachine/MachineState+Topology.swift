// Exchanges, bindings and queues as AMQP clients declare them. Whatever a request changes happens in
// the entry that holds it; what fails changes nothing.

import Base

extension MachineState {
  mutating func carryOutTopology(
    _ frame: CommandFrame, _ reader: inout ByteReader, _ effects: inout EffectList
  ) throws(ByteReaderError) {
    switch frame.kind {
    case .declareExchange: declareExchange(try DeclareExchange(&reader), &effects)
    case .deleteExchange: deleteExchange(try DeleteExchange(&reader), &effects)
    case .bind: bind(try ChangeBinding(&reader), &effects)
    case .unbind: unbind(try ChangeBinding(&reader), &effects)
    case .orderQueue: orderQueue(try OrderQueue(&reader), &effects)
    case .dropQueue: dropQueue(try DropQueue(&reader), &effects)
    case .clearQueue: clearQueue(try TopologyHead(&reader), &effects)
    case .route: route(try Route(&reader, at: frame.offset), &effects)
    case .consume: consume(try Consume(&reader), &effects)
    case .take: take(try Take(&reader), &effects)
    case .mark: answer(try TopologyHead(&reader), &effects) { _ in .done }
    case .addVirtualHost: addVirtualHost(try TopologyHead(&reader), &effects)
    case .setUser: setUser(try SetUser(&reader), &effects)
    default: stopForBug("\(frame.kind) is none of the topology's")
    }
  }

  /// Carries out a request and replies.
  private mutating func answer(
    _ head: TopologyHead, _ effects: inout EffectList,
    _ body: (inout MachineState) throws(TopologyFailure) -> TopologyReply
  ) {
    let answer: TopologyReply
    do throws(TopologyFailure) {
      answer = try body(&self)
    } catch {
      answer = .failed(error)
    }
    reply(.topology(answer), to: head.requester, head.tag, &effects)
  }

  // MARK: Exchanges

  private mutating func declareExchange(_ command: DeclareExchange, _ effects: inout EffectList) {
    answer(command.head, &effects) { machine throws(TopologyFailure) in
      try machine.declare(command)
      return .done
    }
  }

  private mutating func declare(_ command: DeclareExchange) throws(TopologyFailure) {
    let name = command.head.name
    if name.name.isEmpty {
      if command.isPassive { return }
      throw .defaultExchange
    }
    if let number = topology.exchange(name.name, in: name.host) {
      if command.isPassive { return }
      if topology.exchanges[UInt64(number)]?.settings != command.settings {
        throw .exchangeDiffers(name.name, host: hostName(of: name))
      }
      return
    }
    if command.isPassive { throw .noExchange(name.name, host: hostName(of: name)) }
    if name.name.hasPrefix("amq.") {
      throw .reservedExchange(name.name, host: hostName(of: name))
    }
    try checkHost(of: name)
    if topology.exchanges.count >= TopologyLimits.exchanges {
      throw .tooMany("there are \(topology.exchanges.count) exchanges")
    }
    try checkNumbers(ofExchanges: 1)
    let number = topology.insert(name.name, command.settings, in: name.host)
    hash.fold(.exchangeDeclared, UInt64(number), UInt64(command.settings.kind.rawValue))
  }

  /// Numbers are not used again, and there are 2^32 of them.
  private func checkNumbers(ofExchanges count: UInt32) throws(TopologyFailure) {
    if topology.nextExchange > .max - count {
      throw .tooMany("all numbers for exchanges are used up: so many were declared since ever")
    }
  }

  private mutating func deleteExchange(_ command: DeleteExchange, _ effects: inout EffectList) {
    answer(command.head, &effects) { machine throws(TopologyFailure) in
      let name = command.head.name
      if name.name.isEmpty { throw .defaultExchange }
      if name.name.hasPrefix("amq.") {
        throw .reservedExchange(name.name, host: machine.hostName(of: name))
      }
      guard let number = machine.topology.exchange(name.name, in: name.host) else { return .done }
      let isUsed = machine.topology.exchanges[UInt64(number)]?.bindings.isEmpty == false
      if command.ifUnused, isUsed {
        throw .exchangeInUse(name.name, host: machine.hostName(of: name))
      }
      machine.removeExchange(number)
      return .done
    }
  }

  /// Removes an exchange and all its bindings, and the auto-delete exchanges that have none then.
  private mutating func removeExchange(_ first: UInt32) {
    var doomed = [first]
    while let number = doomed.popLast() {
      guard let exchange = topology.exchanges[UInt64(number)] else { continue }
      hash.fold(.exchangeDeleted, UInt64(number))
      for binding in exchange.bindings.keys.sorted() {
        removeBinding(binding, of: number, from: .target)
      }
      // Looked up anew: a binding of the exchange to itself is gone by now.
      for incoming in topology.exchanges[UInt64(number)]?.incoming.sorted() ?? [] {
        if removeBinding(incoming.number, of: incoming.exchange, from: .source) {
          doomed.append(incoming.exchange)
        }
      }
      if let gone = topology.exchanges.remove(UInt64(number)) {
        topology.routeSize -= gone.routes.size
      }
      topology.exchangeNumbers[ScopedName(host: exchange.host, name: exchange.name)] = nil
    }
    topology.routes.forget()
  }

  // MARK: Bindings

  private mutating func bind(_ command: ChangeBinding, _ effects: inout EffectList) {
    answer(command.head, &effects) { machine throws(TopologyFailure) in
      let (source, identity) = try machine.ends(of: command)
      try machine.bind(source, identity)
      return .done
    }
  }

  private mutating func bind(
    _ source: UInt32, _ identity: Binding.Identity
  ) throws(TopologyFailure) {
    if topology.exchanges[UInt64(source)]?.numbers[identity] != nil { return }
    if topology.bindingCount >= TopologyLimits.bindings {
      throw .tooMany("there are \(topology.bindingCount) bindings")
    }
    let bytes = identity.arguments.count
    if bytes > TopologyLimits.argumentBytes
      || topology.argumentBytes + bytes > TopologyLimits.argumentBytesInAll
    {
      throw .tooMany("the arguments of the binding have \(bytes) bytes")
    }
    try checkRoutes(source, identity)
    let binding = Binding(
      number: topology.nextBinding, target: identity.target,
      leadsToExchange: identity.leadsToExchange, key: identity.key, arguments: identity.arguments)
    hash.fold(.bound, binding.number, UInt64(source) << 32 | UInt64(identity.target))
    topology.add(binding, to: source)
  }

  /// What a binding takes for routing may be far more than itself.
  private func checkRoutes(
    _ source: UInt32, _ identity: Binding.Identity
  ) throws(TopologyFailure) {
    guard let exchange = topology.exchanges[UInt64(source)] else { return }
    switch exchange.settings.kind {
    case .topic:
      let more = exchange.routes.topics.nodesMissing(for: identity.key)
      if topology.routeSize.topicNodes + more > limits.topicNodes {
        throw .tooMany(
          "the keys of all topic bindings may have \(limits.topicNodes) words together, and what"
            + " several begin with counts once; this one would add \(more)")
      }
    case .headers:
      let more = HeaderMatch(arguments: identity.arguments).count
      if topology.routeSize.headerLooks + 1 + more > limits.wantedHeaders {
        throw .tooMany(
          "all bindings of headers exchanges may ask for \(limits.wantedHeaders) headers together,"
            + " each counted as one more")
      }
      let known = exchange.routes.size.wantedHeaders
      if more > 0, known + more > limits.wantedHeadersPerExchange {
        throw .tooMany(
          "the bindings of one headers exchange may ask for \(limits.wantedHeadersPerExchange)"
            + " headers together; those of '\(exchange.name)' ask for \(known), and this one would"
            + " add \(more)")
      }
    case .direct, .fanout: return
    }
  }

  private mutating func unbind(_ command: ChangeBinding, _ effects: inout EffectList) {
    answer(command.head, &effects) { machine in
      // What is not there is not bound, and that is what was wanted.
      let ends: (source: UInt32, identity: Binding.Identity)
      do throws(TopologyFailure) {
        ends = try machine.ends(of: command)
      } catch {
        switch error {
        case .noExchange, .noQueue: return .done
        default: return .failed(error)
        }
      }
      let known = machine.topology.exchanges[UInt64(ends.source)]?.numbers[ends.identity]
      if let number = known, machine.removeBinding(number, of: ends.source, from: .both) {
        machine.removeExchange(ends.source)
      }
      machine.topology.routes.forget()
      return .done
    }
  }

  /// Which of its ends have to be told of a binding that goes; the other ones go themselves.
  private enum BindingEnd { case source, target, both }

  /// Removes a binding; true if its exchange is to go too, being an auto-delete one without any now.
  @discardableResult
  private mutating func removeBinding(
    _ number: UInt64, of source: UInt32, from end: BindingEnd
  ) -> Bool {
    guard let binding = topology.exchanges[UInt64(source)]?.bindings[number] else { return false }
    hash.fold(.unbound, number)
    if end != .source {
      let gone = IncomingBinding(exchange: source, number: number)
      if binding.leadsToExchange {
        _ = topology.exchanges.update(UInt64(binding.target)) { $0.forget(gone) }
      } else {
        _ = topology.queues.update(UInt64(binding.target)) { $0.forget(gone) }
      }
    }
    topology.bindingCount -= 1
    topology.argumentBytes -= binding.arguments.count
    if end == .target { return false }
    return topology.change(source) { exchange in
      exchange.remove(binding)
      return exchange.settings.isAutoDelete && exchange.bindings.isEmpty
    } ?? false
  }

  private mutating func ends(
    of command: ChangeBinding
  ) throws(TopologyFailure) -> (source: UInt32, identity: Binding.Identity) {
    let name = command.head.name
    if name.name.isEmpty { throw .defaultExchange }
    var identity = Binding.Identity(
      target: 0, leadsToExchange: false, key: command.key, arguments: command.arguments)
    switch command.target {
    case .queue(let queue):
      let slot = try self.slot(
        of: TopologyName(queue, in: name.host), for: command.head.session)
      identity.target = queues[slot].id.rawValue
    case .exchange(let other):
      if other.isEmpty { throw .defaultExchange }
      guard let number = topology.exchange(other, in: name.host) else {
        throw .noExchange(other, host: hostName(of: name))
      }
      identity.target = number
      identity.leadsToExchange = true
    }
    guard let source = topology.exchange(name.name, in: name.host) else {
      throw .noExchange(name.name, host: hostName(of: name))
    }
    if case .queue(let queue) = command.target { remember(identity.target, as: queue, name.host) }
    return (source, identity)
  }

  /// A queue that natives declared is known to the topology from its first binding on.
  private mutating func remember(_ queue: UInt32, as name: String, _ host: VirtualHostID) {
    guard topology.queues[UInt64(queue)] == nil else { return }
    var extras = QueueExtras()
    extras.host = host
    extras.name = name
    extras.isNative = true
    topology.queues.insert(extras, for: UInt64(queue))
  }

  // MARK: Queues

  private mutating func orderQueue(_ command: OrderQueue, _ effects: inout EffectList) {
    answer(command.head, &effects) { machine throws(TopologyFailure) in
      let slot = try machine.order(command.order, for: command.head.session)
      return .queueDeclared(
        ready: machine.queues[slot].readyCount, consumers: machine.queues[slot].consumers)
    }
  }

  private mutating func order(
    _ order: QueueOrder, for session: SessionID
  ) throws(TopologyFailure) -> Int {
    let host = hostName(of: order.name)
    let name = topology.queueName(order.name.name, in: order.name.host)
    if let slot = queueNames[name] {
      let extras = topology.queues[UInt64(queues[slot].id.rawValue)]
      let owner = extras?.owner ?? .none
      if owner != .none, owner != session { throw .queueLocked(order.name.name, host: host) }
      // As in RabbitMQ, who asks for it uses it (`x-expires`).
      noteUse(of: slot)
      if order.isPassive { return slot }
      if order.isExclusive != (owner != .none) { throw .queueLocked(order.name.name, host: host) }
      if let difference = order.difference(from: extras, queues[slot].settings) {
        throw .queueDiffers(order.name.name, host: host, detail: difference)
      }
      return slot
    }
    if order.isPassive { throw .noQueue(order.name.name, host: host) }
    try checkHost(of: order.name)
    if order.name.host == .main, Topology.isForeign(name) {
      throw .settingInvalid("a queue of vhost '/' must not begin with '//'")
    }
    return try declareNew(order, as: name, for: session)
  }

  private mutating func declareNew(
    _ order: QueueOrder, as name: String, for session: SessionID
  ) throws(TopologyFailure) -> Int {
    let bytes = order.arguments.count
    if bytes > TopologyLimits.argumentBytes
      || topology.argumentBytes + bytes > TopologyLimits.argumentBytesInAll
    {
      throw .tooMany("the arguments of the queue have \(bytes) bytes")
    }
    if order.isExclusive, slot(of: session) == nil { throw .noSession }
    switch declare(name, order.settings) {
    case .queueDeclared(let queue, _):
      var extras = QueueExtras()
      extras.host = order.name.host
      extras.name = order.name.name
      extras.isDurable = order.isDurable
      extras.isAutoDelete = order.isAutoDelete
      extras.owner = order.isExclusive ? session : .none
      extras.arguments = order.arguments
      extras.deadLetterExchange = order.deadLetterExchange
      extras.deadLetterKey = order.deadLetterKey
      topology.insert(extras, for: queue)
      hash.fold(.queueOrdered, UInt64(queue.rawValue), extras.owner.rawValue)
      guard let slot = slot(of: queue) else { stopForBug("queue \(queue) was just declared") }
      return slot
    case .refused(let refusal, let detail): throw .other(refusal, detail: detail)
    case let reply: stopForBug("a declaration was answered with \(reply)")
    }
  }

  private mutating func dropQueue(_ command: DropQueue, _ effects: inout EffectList) {
    let name = command.head.name
    let wanted = topology.queueName(name.name, in: name.host)
    guard let found = queueNames[wanted] else {
      answer(command.head, &effects) { _ in .messages(0) }
      return
    }
    let outcome: TopologyReply
    do throws(TopologyFailure) {
      let slot = try self.slot(of: name, for: command.head.session)
      if command.ifUnused, queues[slot].consumers > 0 {
        throw .queueInUse(name.name, host: hostName(of: name))
      }
      if command.ifEmpty, queues[slot].waitingCount > 0 {
        throw .queueNotEmpty(name.name, host: hostName(of: name))
      }
      let messages = queues[found].waitingCount
      if case .refused(let refusal, let detail) = delete(wanted, &effects) {
        throw .other(refusal, detail: detail)
      }
      outcome = .messages(messages)
    } catch {
      outcome = .failed(error)
    }
    answer(command.head, &effects) { _ in outcome }
  }

  private mutating func clearQueue(_ head: TopologyHead, _ effects: inout EffectList) {
    answer(head, &effects) { machine throws(TopologyFailure) in
      let slot = try machine.slot(of: head.name, for: head.session)
      guard case .queuePurged(let messages) = machine.purge(machine.queues[slot].name) else {
        return .messages(0)
      }
      return .messages(messages)
    }
  }

  // MARK: Hosts and users

  private mutating func addVirtualHost(_ head: TopologyHead, _ effects: inout EffectList) {
    answer(head, &effects) { machine throws(TopologyFailure) in
      let name = head.name.name
      if machine.topology.host(named: name) != nil { return .done }
      guard (1...TopologyLimits.virtualHostBytes).contains(name.utf8.count),
        name.unicodeScalars.allSatisfy({ $0.value >= 32 && $0 != ":" })
      else { throw .settingInvalid("a vhost's name is 1 to 100 bytes without a colon") }
      if machine.topology.hosts.count >= TopologyLimits.virtualHosts {
        throw .tooMany("there are \(machine.topology.hosts.count) vhosts")
      }
      try machine.checkNumbers(ofExchanges: UInt32(Topology.predeclared.count))
      let host = machine.topology.insertHost(name)
      machine.hash.fold(.hostAdded, UInt64(host.rawValue))
      return .done
    }
  }

  private mutating func setUser(_ command: SetUser, _ effects: inout EffectList) {
    answer(command.head, &effects) { machine throws(TopologyFailure) in
      let name = command.head.name.name
      guard (1...TopologyLimits.nameBytes).contains(name.utf8.count),
        command.salt.count <= 64, command.hash.count <= 64
      else { throw .settingInvalid("a user's name is 1 to 255 bytes") }
      let isKnown = machine.topology.users.contains { $0.name == name }
      if !isKnown, machine.topology.users.count >= TopologyLimits.users {
        throw .tooMany("there are \(machine.topology.users.count) users")
      }
      machine.topology.setUser(User(name: name, salt: command.salt, hash: command.hash))
      machine.hash.fold(.userSet, UInt64(command.hash.count))
      return .done
    }
  }

  // MARK: Looking up

  /// The slot of a queue that the session may use.
  func slot(
    of name: TopologyName, for session: SessionID
  ) throws(TopologyFailure) -> Int {
    guard let slot = queueNames[topology.queueName(name.name, in: name.host)] else {
      throw .noQueue(name.name, host: hostName(of: name))
    }
    let owner = topology.queues[UInt64(queues[slot].id.rawValue)]?.owner ?? .none
    if owner != .none, owner != session {
      throw .queueLocked(name.name, host: hostName(of: name))
    }
    return slot
  }

  func hostName(of name: TopologyName) -> String { topology.name(of: name.host) }

  private func checkHost(of name: TopologyName) throws(TopologyFailure) {
    if !topology.hosts.contains(where: { $0.id == name.host }) {
      throw .noVirtualHost("\(name.host)")
    }
  }

  // MARK: What else happens to queues and sessions

  /// Called when a consumer of the queue ended.
  mutating func queueLostConsumer(_ queue: Int) {
    guard queues[queue].consumers == 0 else { return }
    let id = queues[queue].id.rawValue
    if topology.queues[UInt64(id)]?.isAutoDelete == true { doomedQueues.append(id) }
  }

  /// Called when a session ended: what it alone could use goes with it.
  mutating func sessionEnded(_ session: SessionID) {
    if let queues = topology.exclusive.remove(session.rawValue) { doomedQueues += queues }
  }

  /// Deletes the queues that are to go with their consumers or sessions, at the end of the command.
  mutating func deleteDoomed(_ effects: inout EffectList) {
    var place = 0
    while place < doomedQueues.count {
      if let slot = queueSlots[UInt64(doomedQueues[place])] {
        // One that others name as their dead-letter queue stays.
        _ = delete(queues[slot].name, &effects)
      }
      place += 1
    }
    doomedQueues.removeAll(keepingCapacity: true)
  }

  /// Called when a queue was deleted.
  mutating func queueDeleted(_ queue: QueueID) {
    guard let extras = topology.queues.remove(UInt64(queue.rawValue)) else { return }
    topology.argumentBytes -= extras.arguments.count
    if extras.owner != .none {
      _ = topology.exclusive.update(extras.owner.rawValue) { mine in
        mine.removeAll { $0 == queue.rawValue }
      }
    }
    for incoming in extras.bindings.sorted() {
      if removeBinding(incoming.number, of: incoming.exchange, from: .source) {
        removeExchange(incoming.exchange)
      }
    }
    topology.routes.forget()
  }
}

extension QueueState {
  /// What could be delivered at once.
  var readyCount: UInt64 { UInt64(ready.count + keys.blockedCount) }
}

extension Exchange {
  mutating func add(_ binding: Binding) {
    bindings[binding.number] = binding
    if binding.leadsToExchange { exchangesBehind += 1 }
    numbers[binding.identity] = binding.number
    routes.insert(binding, settings.kind)
  }

  mutating func remove(_ binding: Binding) {
    if bindings.removeValue(forKey: binding.number)?.leadsToExchange == true {
      exchangesBehind -= 1
    }
    numbers[binding.identity] = nil
    routes.remove(binding, settings.kind)
  }

  mutating func forget(_ gone: IncomingBinding) { incoming.remove(gone) }
}

extension QueueExtras {
  mutating func forget(_ gone: IncomingBinding) { bindings.remove(gone) }
}

extension QueueOrder {
  /// What of the order differs from the queue there is, as a sentence; nil if nothing does.
  fileprivate func difference(from extras: QueueExtras?, _ present: QueueSettings) -> String? {
    let isNative = extras?.isNative ?? true
    let extras = extras ?? QueueExtras()
    if isDurable != extras.isDurable { return "durable is \(extras.isDurable)" }
    if isAutoDelete != extras.isAutoDelete { return "auto_delete is \(extras.isAutoDelete)" }
    // A native client's settings stand: an AMQP client that wants a queue has one.
    if isNative { return nil }
    if deadLetterExchange != extras.deadLetterExchange { return "x-dead-letter-exchange differs" }
    if deadLetterKey != extras.deadLetterKey { return "x-dead-letter-routing-key differs" }
    return settings.difference(from: present)
  }
}

extension Topology {
  mutating func add(_ binding: Binding, to source: UInt32) {
    nextBinding = max(nextBinding, binding.number + 1)
    change(source) { $0.add(binding) }
    let incoming = IncomingBinding(exchange: source, number: binding.number)
    if binding.leadsToExchange {
      _ = exchanges.update(UInt64(binding.target)) { $0.incoming.insert(incoming) }
    } else {
      _ = queues.update(UInt64(binding.target)) { $0.bindings.insert(incoming) }
    }
    bindingCount += 1
    argumentBytes += binding.arguments.count
    routes.forget()
  }

  /// Changes the bindings of an exchange, and counts what its routes take.
  @discardableResult
  mutating func change<Result>(
    _ exchange: UInt32, _ body: (inout Exchange) -> Result
  ) -> Result? {
    let done = exchanges.update(UInt64(exchange)) { exchange in
      let before = exchange.routes.size
      return (result: body(&exchange), before: before, after: exchange.routes.size)
    }
    guard let done else { return nil }
    routeSize -= done.before
    routeSize += done.after
    return done.result
  }

  mutating func insert(_ extras: QueueExtras, for queue: QueueID) {
    queues.insert(extras, for: UInt64(queue.rawValue))
    argumentBytes += extras.arguments.count
    guard extras.owner != .none else { return }
    if exclusive.update(extras.owner.rawValue, { $0.append(queue.rawValue) }) == nil {
      exclusive.insert([queue.rawValue], for: extras.owner.rawValue)
    }
  }

  /// Sets, or with an empty hash removes, a user.
  mutating func setUser(_ user: User) {
    users.removeAll { $0.name == user.name }
    guard !user.hash.isEmpty else { return }
    let place = users.firstIndex { $0.name > user.name } ?? users.count
    users.insert(user, at: place)
  }
}
