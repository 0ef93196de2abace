// A broker in memory, as simple as the seam allows: what it does is what clients can see of a real
// one, without a log, without time.

import AMQP
import Base

final class FakeBroker {
  struct Message {
    var position: Int
    var exchange: [UInt8]
    var routingKey: [UInt8]
    var properties: [UInt8]
    var body: [UInt8]
    var wasDelivered = false
  }

  final class Queue {
    var declaration: QueueDeclaration
    /// Of an exclusive one.
    var owner: Int?
    var messages: [Message] = []
    var consumers: [Consumer] = []

    init(_ declaration: QueueDeclaration, owner: Int?) {
      self.declaration = declaration
      self.owner = owner
    }
  }

  final class Consumer {
    let connection: TestConnection
    let channel: ChannelID
    let request: ConsumeRequest
    var prefetch: Int
    var delivered: UInt64 = 0

    init(_ connection: TestConnection, _ channel: ChannelID, _ request: ConsumeRequest) {
      self.connection = connection
      self.channel = channel
      self.request = request
      prefetch = Int(request.prefetch)
    }
  }

  struct Held {
    var connection: Int
    var channel: ChannelID
    var consumer: ConsumerID
    var delivery: DeliveryID
    var queue: String
    var message: Message
  }

  var queues: [String: Queue] = [:]
  var exchanges: [String: ExchangeDeclaration] = [:]
  var queueBindings: [QueueBinding] = []
  var exchangeBindings: [ExchangeBinding] = []
  var held: [Held] = []
  /// Channels that are closed, by the number of their connection.
  private var ended: [Int: Set<ChannelID>] = [:]
  var channelPrefetch: [ChannelID: Int] = [:]
  var replyConsumers: [String: (connection: TestConnection, consumer: ConsumerID)] = [:]
  /// Every request, in its order, for tests that look at them.
  var seen: [String] = []
  /// Requests are kept unanswered until this is false.
  var isHolding = false
  var confirmsAreHeld = false
  /// What the next requests of channels are refused with.
  var fault: Fault?
  private var waiting: [() -> Void] = []
  private var positions = 0
  private var gets: UInt64 = 0

  init() {
    for (name, kind) in [
      ("", ExchangeKind.direct), ("amq.direct", .direct), ("amq.fanout", .fanout),
      ("amq.topic", .topic), ("amq.headers", .headers), ("amq.match", .headers),
    ] {
      exchanges[name] = ExchangeDeclaration(
        name: name, kind: kind, isDurable: true, isAutoDelete: false, isInternal: false,
        alternate: nil, table: [])
    }
  }

  /// Lets what was held happen.
  func release() {
    isHolding = false
    let all = waiting
    waiting = []
    for action in all { action() }
  }

  func carryOut(_ list: BrokerRequests, of connection: TestConnection) {
    for request in list.requests {
      if isHolding {
        waiting.append { self.carryOut(request, list, of: connection) }
      } else {
        carryOut(request, list, of: connection)
      }
    }
  }

  private func carryOut(
    _ request: BrokerRequest, _ list: BrokerRequests, of connection: TestConnection
  ) {
    switch request {
    case .authenticate(let token, let credentials):
      seen.append("authenticate \(credentials.mechanism) \(credentials.user)")
      let isRight = credentials.user == "guest" && credentials.password == [UInt8]("guest".utf8)
      connection.answer(token, isRight ? .done : .loginRefused)
    case .openVhost(let token, let name):
      connection.answer(token, name == "/" ? .done : .refused(.noVhost(name)))
    case .channel(let token, let channel, let request):
      seen.append("\(request)".prefix { $0 != "(" }.description)
      answer(token, channel, request, list, connection)
    case .publish(let range):
      for publish in list.publishes[range] { self.publish(publish, list, connection) }
    case .settle(let range):
      for settle in list.settles[range] { self.settle(settle, connection) }
    case .closeChannel(let token, let channel):
      seen.append("closeChannel \(channel.number)")
      endChannel(channel, connection)
      connection.answer(token, .done)
    case .closeConnection(let token):
      seen.append("closeConnection")
      end(connection)
      connection.answer(token, .done)
    }
    deliver()
  }

  // MARK: Requests

  private func answer(
    _ token: RequestToken, _ channel: ChannelID, _ request: ChannelRequest,
    _ list: BrokerRequests, _ connection: TestConnection
  ) {
    switch request {
    case .get(let name, let noAck):
      get(token, channel, name, noAck: noAck, connection)
    case .commit(let publishes, let settles):
      for settle in list.settles[settles] { self.settle(settle, connection) }
      for publish in list.publishes[publishes] { self.publish(publish, list, connection) }
      connection.answer(token, .done)
    default:
      do throws(Fault) {
        if let fault { throw fault }
        connection.answer(token, try reply(channel, request, connection))
      } catch {
        connection.answer(token, .refused(error))
      }
    }
  }

  private func queue(_ name: String, _ connection: TestConnection) throws(Fault) -> Queue {
    guard let queue = queues[name] else { throw .noQueue(name, vhost: "/") }
    if let owner = queue.owner, owner != connection.number {
      throw .queueLocked(name, vhost: "/")
    }
    return queue
  }

  private func checkExchange(_ name: String) throws(Fault) {
    if exchanges[name] == nil { throw .noExchange(name, vhost: "/") }
  }

  private func declared(_ queue: Queue) -> BrokerAnswer {
    .queueDeclared(
      messages: UInt32(queue.messages.count), consumers: UInt32(queue.consumers.count))
  }

  private func reply(
    _ channel: ChannelID, _ request: ChannelRequest, _ connection: TestConnection
  ) throws(Fault) -> BrokerAnswer {
    switch request {
    case .declareQueue(let declaration):
      if queues[declaration.name] != nil {
        let queue = try queue(declaration.name, connection)
        if let fault = declaration.fault(against: queue.declaration, vhost: "/") { throw fault }
        return declared(queue)
      }
      let queue = Queue(declaration, owner: declaration.isExclusive ? connection.number : nil)
      queues[declaration.name] = queue
      return declared(queue)
    case .inspectQueue(let name): return declared(try queue(name, connection))
    case .bindQueue(let binding):
      _ = try queue(binding.queue, connection)
      try checkExchange(binding.exchange)
      if !queueBindings.contains(binding) { queueBindings.append(binding) }
    case .unbindQueue(let binding): queueBindings.removeAll { $0 == binding }
    case .purgeQueue(let name):
      let queue = try queue(name, connection)
      let count = queue.messages.count
      queue.messages = []
      return .messages(UInt32(count))
    case .deleteQueue(let name, let ifUnused, let ifEmpty):
      guard queues[name] != nil else { return .messages(0) }
      let queue = try queue(name, connection)
      if ifUnused, !queue.consumers.isEmpty { throw .queueInUse(name, vhost: "/") }
      if ifEmpty, !queue.messages.isEmpty { throw .queueNotEmpty(name, vhost: "/") }
      return .messages(UInt32(delete(name)))
    case .declareExchange(let declaration):
      if let current = exchanges[declaration.name] {
        if let fault = declaration.fault(against: current, vhost: "/") { throw fault }
      } else if declaration.name.hasPrefix("amq.") {
        throw .reservedExchangeName(declaration.name)
      } else {
        exchanges[declaration.name] = declaration
      }
    case .inspectExchange(let name): try checkExchange(name)
    case .deleteExchange(let name, let ifUnused):
      if ifUnused, queueBindings.contains(where: { $0.exchange == name }) {
        throw .exchangeInUse(name, vhost: "/")
      }
      exchanges[name] = nil
      queueBindings.removeAll { $0.exchange == name }
    case .bindExchange(let binding):
      try checkExchange(binding.source)
      try checkExchange(binding.destination)
      exchangeBindings.append(binding)
    case .unbindExchange(let binding): exchangeBindings.removeAll { $0 == binding }
    case .consume(let request):
      let queue = try queue(request.queue, connection)
      if queue.consumers.contains(where: { $0.request.isExclusive })
        || (request.isExclusive && !queue.consumers.isEmpty)
      {
        throw .exclusivelyConsumed(request.queue, vhost: "/")
      }
      queue.consumers.append(Consumer(connection, channel, request))
    case .consumeReplies(let consumer):
      let address = "amq.rabbitmq.reply-to.\(connection.number).\(consumer)"
      replyConsumers[address] = (connection, consumer)
      return .replyAddress(address)
    case .cancel(let id):
      for queue in queues.values {
        queue.consumers.removeAll {
          $0.request.consumer == id && $0.connection.number == connection.number
        }
      }
    case .setChannelPrefetch(let count): channelPrefetch[channel] = Int(count)
    case .setConsumerPrefetch(let changes):
      for consumer in queues.values.flatMap(\.consumers)
      where consumer.connection.number == connection.number {
        for change in changes where change.consumer == consumer.request.consumer {
          consumer.prefetch = Int(change.count)
          seen.append("prefetch \(change.consumer) \(change.count)")
        }
      }
    case .awaitPublishes: seen.append("awaitPublishes")
    case .get, .commit: fatalError("answered elsewhere")
    }
    return .done
  }

  private func get(
    _ token: RequestToken, _ channel: ChannelID, _ name: String, noAck: Bool,
    _ connection: TestConnection
  ) {
    let queue: Queue
    do throws(Fault) {
      queue = try self.queue(name, connection)
    } catch {
      connection.answer(token, .refused(error))
      return
    }
    guard !queue.messages.isEmpty else {
      connection.answer(token, .getEmpty)
      return
    }
    let message = queue.messages.removeFirst()
    gets += 1
    let consumer = ConsumerID(1 << 31)
    if !noAck {
      held.append(
        Held(
          connection: connection.number, channel: channel, consumer: consumer,
          delivery: DeliveryID(gets), queue: name, message: message))
    }
    connection.answerGet(
      token, consumer, DeliveryID(gets), message, remaining: UInt32(queue.messages.count))
  }

  @discardableResult
  func delete(_ name: String) -> Int {
    guard let queue = queues.removeValue(forKey: name) else { return 0 }
    queueBindings.removeAll { $0.queue == name }
    for consumer in queue.consumers { consumer.connection.cancel(consumer.request.consumer) }
    return queue.messages.count
  }

  // MARK: Messages

  private func publish(
    _ publish: PublishRequest, _ list: BrokerRequests, _ connection: TestConnection
  ) {
    positions += 1
    let message = Message(
      position: positions, exchange: [UInt8](list.bytes[publish.exchange]),
      routingKey: [UInt8](list.bytes[publish.routingKey]),
      properties: [UInt8](list.bytes[publish.properties]),
      body: [UInt8](list.bytes[publish.body]))
    let exchange = String(decoding: message.exchange, as: UTF8.self)
    guard let declaration = exchanges[exchange] else {
      connection.failPublish(publish.channel, .noExchange(exchange, vhost: "/"))
      return
    }
    guard !declaration.isInternal else {
      connection.failPublish(publish.channel, .internalExchange(exchange, vhost: "/"))
      return
    }
    let key = String(decoding: message.routingKey, as: UTF8.self)
    if exchange.isEmpty, let (replyTo, consumer) = replyConsumers[key] {
      replyTo.deliver(consumer, DeliveryID(1), message)
    } else {
      var names = Set<String>()
      for key in [message.routingKey] + publish.copies { names.formUnion(route(exchange, key)) }
      if names.isEmpty, publish.isMandatory { connection.giveBack(publish.channel, message) }
      for name in names.sorted() { queues[name]?.messages.append(message) }
    }
    if publish.wantsConfirm, !confirmsAreHeld {
      connection.confirm(publish.channel, publish.sequence, publish.sequence)
    }
  }

  private func route(_ exchange: String, _ key: [UInt8]) -> Set<String> {
    if exchange.isEmpty {
      let name = String(decoding: key, as: UTF8.self)
      return queues[name] == nil ? [] : [name]
    }
    let isFanout = exchanges[exchange]?.kind == .fanout
    var names = Set(
      queueBindings.filter { $0.exchange == exchange && (isFanout || $0.routingKey == key) }
        .map(\.queue))
    for binding in exchangeBindings
    where binding.source == exchange && (isFanout || binding.routingKey == key) {
      names.formUnion(route(binding.destination, key))
    }
    return names
  }

  private func deliver() {
    for name in queues.keys.sorted() {
      guard let queue = queues[name] else { continue }
      while !queue.messages.isEmpty, let consumer = queue.consumers.first(where: hasRoom) {
        var message = queue.messages.removeFirst()
        consumer.delivered += 1
        let delivery = DeliveryID(consumer.delivered)
        guard consumer.connection.deliver(consumer.request.consumer, delivery, message) else {
          queue.messages.insert(message, at: 0)
          return
        }
        message.wasDelivered = true
        if !consumer.request.noAck {
          held.append(
            Held(
              connection: consumer.connection.number, channel: consumer.channel,
              consumer: consumer.request.consumer, delivery: delivery, queue: name,
              message: message))
        }
      }
    }
  }

  private func hasRoom(_ consumer: Consumer) -> Bool {
    if consumer.request.noAck { return true }
    let mine = held.filter {
      $0.connection == consumer.connection.number && $0.channel == consumer.channel
    }
    if let limit = channelPrefetch[consumer.channel], limit > 0, mine.count >= limit {
      return false
    }
    return consumer.prefetch == 0
      || mine.count(where: { $0.consumer == consumer.request.consumer }) < consumer.prefetch
  }

  private func settle(_ settle: SettleRequest, _ connection: TestConnection) {
    seen.append(
      "settle \(settle.outcome) \(settle.consumer) \(settle.first)-\(settle.last)")
    for delivery in settle.first.rawValue...settle.last.rawValue {
      guard
        let place = held.firstIndex(where: {
          $0.connection == connection.number && $0.consumer == settle.consumer
            && $0.delivery.rawValue == delivery
        })
      else {
        // It went back when its channel was closed for a fault of what came before.
        if ended[connection.number, default: []].contains(settle.channel) { continue }
        fatalError("settled what is not held: \(settle)")
      }
      let entry = held.remove(at: place)
      if settle.outcome == .requeued { putBack(entry) }
    }
  }

  private func putBack(_ entry: Held) {
    guard let queue = queues[entry.queue] else { return }
    var message = entry.message
    message.wasDelivered = true
    let place =
      queue.messages.firstIndex { $0.position > message.position } ?? queue.messages.count
    queue.messages.insert(message, at: place)
  }

  private func endChannel(_ channel: ChannelID, _ connection: TestConnection) {
    ended[connection.number, default: []].insert(channel)
    for queue in queues.values {
      queue.consumers.removeAll {
        $0.connection.number == connection.number && $0.channel == channel
      }
    }
    let back = held.filter { $0.connection == connection.number && $0.channel == channel }
    held.removeAll { $0.connection == connection.number && $0.channel == channel }
    for entry in back { putBack(entry) }
  }

  func end(_ connection: TestConnection) {
    for channel in Set(
      held.filter { $0.connection == connection.number }.map(\.channel)
        + queues.values.flatMap(\.consumers).filter {
          $0.connection.number == connection.number
        }.map(\.channel))
    {
      endChannel(channel, connection)
    }
    for (name, queue) in queues where queue.owner == connection.number { delete(name) }
    deliver()
  }
}
