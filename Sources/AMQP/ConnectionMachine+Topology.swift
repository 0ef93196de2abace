// Methods about exchanges, queues and bindings: names and arguments are checked here, whether the
// things are there is the broker's to say.

import Base

/// Queues of direct replies, which are none.
enum ReplyQueue {
  static let name = "amq.rabbitmq.reply-to"
}

extension ConnectionMachine {
  private var vhostName: String { vhost ?? "" }

  /// Has the broker do something, and the channel wait for it.
  mutating func ask(
    _ request: ChannelRequest, _ place: Int, _ method: MethodID, _ kind: PendingRequest.Kind,
    noWait: Bool = false
  ) {
    let token = makeToken()
    wait(place, for: token, method, kind, noWait: noWait)
    requests.requests.append(.channel(token, channels[place].id, request))
  }

  /// Answers what needs nothing of the broker, but not before it is known what became of the channel's
  /// publishes: their returns and faults come first, as in RabbitMQ.
  mutating func answerBehindPublishes(
    _ answer: some MethodFields, _ place: Int, _ method: MethodID
  ) {
    let number = channels[place].number
    if channels[place].published == 0 { return answer.encode(channel: number, into: &output) }
    var frame: [UInt8] = []
    answer.encode(channel: number, into: &frame)
    ask(.awaitPublishes, place, method, .frame(frame))
  }

  /// Has the broker do something that the client is not told of.
  mutating func order(_ request: ChannelRequest, _ place: Int) {
    requests.requests.append(.channel(makeToken(), channels[place].id, request))
  }

  /// The name, or for "" the queue that the channel declared last.
  func queueName(
    _ bytes: UnsafeRawBufferPointer, _ place: Int
  ) throws(Failure) -> String {
    if !bytes.isEmpty { return try bytes.resourceName() }
    let last = channels[place].lastQueue
    guard !last.isEmpty else {
      throw .fault(Fault(.notFound, "no previously declared queue"))
    }
    return last
  }

  private func checkNotDefault(_ exchange: String) throws(Failure) {
    guard exchange.isEmpty else { return }
    throw .fault(Fault(.accessRefused, "operation not permitted on the default exchange"))
  }

  // MARK: Queues

  mutating func declareQueue(_ method: QueueDeclare, _ place: Int) throws(Failure) {
    var name = try method.queue.resourceName()
    if name.hasPrefix(ReplyQueue.name) {
      declareReplyQueue(name, noWait: method.noWait, place)
      return
    }
    if method.passive {
      ask(
        .inspectQueue(name: name), place, .queueDeclare, .declareQueue(name: name),
        noWait: method.noWait)
      return
    }
    if name.hasPrefix("amq.") { throw .fault(.reservedQueueName(name)) }
    let isServerNamed = name.isEmpty
    if isServerNamed { name = names.queueName() }
    let arguments: QueueArguments
    do throws(Fault) {
      arguments = try QueueArguments(
        table(method.arguments), of: Fault.queue(name, vhost: vhostName))
    } catch {
      throw .fault(error)
    }
    if isServerNamed, arguments.type == .quorum {
      throw .fault(
        Fault(
          .preconditionFailed,
          "Cannot declare a server-named queue for type rabbit_quorum_queue"))
    }
    let declaration = QueueDeclaration(
      name: name, isDurable: method.durable, isExclusive: method.exclusive,
      isAutoDelete: method.autoDelete, arguments: arguments)
    if let fault = declaration.typeFault(vhost: vhostName) { throw .fault(fault) }
    ask(
      .declareQueue(declaration), place, .queueDeclare, .declareQueue(name: name),
      noWait: method.noWait)
  }

  /// The name stands for direct replies: there always, with one consumer. An address that was given
  /// to somebody is there as long as he is.
  private mutating func declareReplyQueue(_ name: String, noWait: Bool, _ place: Int) {
    guard name == ReplyQueue.name else {
      ask(
        .inspectQueue(name: name), place, .queueDeclare, .declareQueue(name: name), noWait: noWait)
      return
    }
    channels[place].lastQueue = name
    if !noWait { sendDeclared(name, messages: 0, consumers: 1, place) }
  }

  mutating func sendDeclared(_ name: String, messages: UInt32, consumers: UInt32, _ place: Int) {
    name.withRawBytes {
      QueueDeclareOK(queue: $0, messageCount: messages, consumerCount: consumers)
        .encode(channel: channels[place].number, into: &output)
    }
  }

  /// A table that was seen to be one.
  func table(_ bytes: UnsafeRawBufferPointer) -> FieldTable {
    (try? FieldTable(bytes)) ?? FieldTable()
  }

  private func queueBinding(
    _ queue: UnsafeRawBufferPointer, _ exchange: UnsafeRawBufferPointer,
    _ routingKey: UnsafeRawBufferPointer, _ table: UnsafeRawBufferPointer, _ place: Int
  ) throws(Failure) -> QueueBinding {
    let name = try queueName(queue, place)
    // "" for both means the last queue's name for both.
    let key = queue.isEmpty && routingKey.isEmpty ? [UInt8](name.utf8) : [UInt8](routingKey)
    let source = try exchange.resourceName()
    try checkNotDefault(source)
    return QueueBinding(
      exchange: source, queue: name, routingKey: key, table: [UInt8](table))
  }

  mutating func bindQueue(_ method: QueueBind, _ place: Int) throws(Failure) {
    let binding = try queueBinding(
      method.queue, method.exchange, method.routingKey, method.arguments, place)
    if let fault = bindingFault(method.arguments) { throw .fault(fault) }
    ask(.bindQueue(binding), place, .queueBind, .ok(.queueBindOK), noWait: method.noWait)
  }

  mutating func unbindQueue(_ method: QueueUnbind, _ place: Int) throws(Failure) {
    let binding = try queueBinding(
      method.queue, method.exchange, method.routingKey, method.arguments, place)
    ask(.unbindQueue(binding), place, .queueUnbind, .ok(.queueUnbindOK))
  }

  mutating func purgeQueue(_ method: QueuePurge, _ place: Int) throws(Failure) {
    let name = try queueName(method.queue, place)
    ask(
      .purgeQueue(name: name), place, .queuePurge, .messages(.queuePurgeOK),
      noWait: method.noWait)
  }

  mutating func deleteQueue(_ method: QueueDelete, _ place: Int) throws(Failure) {
    let name = try queueName(method.queue, place)
    ask(
      .deleteQueue(name: name, ifUnused: method.ifUnused, ifEmpty: method.ifEmpty), place,
      .queueDelete, .messages(.queueDeleteOK), noWait: method.noWait)
  }

  // MARK: Exchanges

  mutating func declareExchange(_ method: ExchangeDeclare, _ place: Int) throws(Failure) {
    let name = try method.exchange.resourceName()
    if method.passive {
      try checkNotDefault(name)
      ask(
        .inspectExchange(name: name), place, .exchangeDeclare, .ok(.exchangeDeclareOK),
        noWait: method.noWait)
      return
    }
    let type = String(decoding: method.type, as: UTF8.self)
    guard let kind = ExchangeKind(name: type) else {
      throw .fault(Fault(.preconditionFailed, "unknown exchange type '\(type)'"))
    }
    try checkNotDefault(name)
    let table = table(method.arguments)
    let declaration = ExchangeDeclaration(
      name: name, kind: kind, isDurable: method.durable, isAutoDelete: method.autoDelete,
      isInternal: method.isInternal, alternate: try alternate(table, of: name),
      table: [UInt8](method.arguments))
    ask(
      .declareExchange(declaration), place, .exchangeDeclare, .ok(.exchangeDeclareOK),
      noWait: method.noWait)
  }

  private func alternate(_ table: FieldTable, of exchange: String) throws(Failure) -> String? {
    guard let value = table["alternate-exchange"] else { return nil }
    let resource = Fault.exchange(exchange, vhost: vhostName)
    guard case .string = value else {
      throw .fault(
        Fault(
          .preconditionFailed,
          "invalid type '\(value.typeName)' for arg 'alternate-exchange' in \(resource)"))
    }
    do throws(Fault) {
      return try ArgumentReader(table: table, resource: resource).string("alternate-exchange")
    } catch {
      throw .fault(error)
    }
  }

  mutating func deleteExchange(_ method: ExchangeDelete, _ place: Int) throws(Failure) {
    let name = try method.exchange.resourceName()
    try checkNotDefault(name)
    if name.hasPrefix("amq.") {
      throw .fault(
        Fault(
          .accessRefused,
          "deletion of system \(Fault.exchange(name, vhost: vhostName)) not allowed"))
    }
    ask(
      .deleteExchange(name: name, ifUnused: method.ifUnused), place, .exchangeDelete,
      .ok(.exchangeDeleteOK), noWait: method.noWait)
  }

  private func exchangeBinding(
    _ source: UnsafeRawBufferPointer, _ destination: UnsafeRawBufferPointer,
    _ routingKey: UnsafeRawBufferPointer, _ table: UnsafeRawBufferPointer
  ) throws(Failure) -> ExchangeBinding {
    let binding = ExchangeBinding(
      source: try source.resourceName(), destination: try destination.resourceName(),
      routingKey: [UInt8](routingKey), table: [UInt8](table))
    try checkNotDefault(binding.destination)
    try checkNotDefault(binding.source)
    return binding
  }

  mutating func bindExchange(_ method: ExchangeBind, _ place: Int) throws(Failure) {
    let binding = try exchangeBinding(
      method.source, method.destination, method.routingKey, method.arguments)
    if let fault = bindingFault(method.arguments) { throw .fault(fault) }
    ask(.bindExchange(binding), place, .exchangeBind, .ok(.exchangeBindOK), noWait: method.noWait)
  }

  mutating func unbindExchange(_ method: ExchangeUnbind, _ place: Int) throws(Failure) {
    let binding = try exchangeBinding(
      method.source, method.destination, method.routingKey, method.arguments)
    ask(
      .unbindExchange(binding), place, .exchangeUnbind, .ok(.exchangeUnbindOK),
      noWait: method.noWait)
  }

  /// What a headers exchange needs to understand; others do not look at it.
  private func bindingFault(_ arguments: UnsafeRawBufferPointer) -> Fault? {
    guard let value = table(arguments)["x-match"] else { return nil }
    guard let match = value.text else {
      return Fault(
        .preconditionFailed,
        "Invalid x-match field type \(value.typeName) (value \(value)); expected longstr")
    }
    if ["all", "any", "all-with-x", "any-with-x"].contains(match) { return nil }
    return Fault(
      .preconditionFailed,
      """
      Invalid x-match field value \(String(shown: match.utf8)); expected all, any, all-with-x, or \
      any-with-x
      """)
  }

  // MARK: Without the broker

  mutating func flow(_ method: ChannelFlow, _ place: Int) throws(Failure) {
    guard method.active else { throw .fault(Fault(.notImplemented, "active=false")) }
    answerBehindPublishes(ChannelFlowOK(active: true), place, .channelFlow)
  }

  /// From before 0-9-1; some clients still ask.
  mutating func grantAccess(_ method: AccessRequest, _ place: Int) throws(Failure) {
    answerBehindPublishes(AccessRequestOK(ticket: 1), place, .accessRequest)
  }
}
