// What AMQP accepts without a word although its sender hardly meant it, for `skein doctor`: gathered as
// the node's clients do it, since the start, each kind once per queue.

import AMQP
import Base
import Node
import QueueMachine

struct AMQPAdvice {
  /// A mistake, with the queue as people know it.
  enum Finding: Hashable {
    case unknownArgument(String, queue: String)
    case unknownExchangeArgument(String, exchange: String)
    case unknownConsumerArgument(String, queue: String)
    case synonym(queue: String)
    case transientMessage(queue: String)
    case noPrefetch(queue: String)
    case requeueLoop(queue: String)
  }

  /// So many of each kind are kept; names of queues may be made up anew for ever.
  static let countMax = 64
  /// A message that is delivered so often without ever being acknowledged goes round.
  static let attemptsMax: UInt32 = 16

  /// In the order in which they were first seen.
  private(set) var findings: [Finding] = []
  private var known: Set<Finding> = []
  private var counts = [Int](repeating: 0, count: Finding.kinds)

  /// - Returns: whether it is new.
  mutating func note(_ finding: Finding) -> Bool {
    guard counts[finding.kind] < Self.countMax, known.insert(finding).inserted else {
      return false
    }
    counts[finding.kind] += 1
    findings.append(finding)
    return true
  }

  var sentences: [String] { findings.map(\.sentence) }
}

extension AMQPGateway {
  mutating func advise(_ finding: AMQPAdvice.Finding) {
    if advice.note(finding) { log.info("AMQP: \(finding.sentence)") }
  }

  mutating func noteMistakes(of request: ChannelRequest, _ client: AMQPClient) {
    switch request {
    case .declareQueue(let declaration):
      let queue = shown(declaration.name, client)
      for name in declaration.arguments.unknown { advise(.unknownArgument(name, queue: queue)) }
      if declaration.arguments.usesDeliveryLimitSynonym { advise(.synonym(queue: queue)) }
    case .declareExchange(let declaration):
      for name in declaration.unknownArguments {
        advise(.unknownExchangeArgument(name, exchange: shown(declaration.name, client)))
      }
    case .consume(let consume):
      for name in consume.unknownArguments {
        advise(.unknownConsumerArgument(name, queue: shown(consume.queue, client)))
      }
    default: break
    }
  }

  /// The consumer has begun.
  mutating func noteMistakes(of consumer: ConsumerID, _ client: AMQPClient) {
    guard let state = client.consumers[consumer], !state.noAck, state.prefetch == 0,
      client.channelLimits[state.channel] == nil
    else { return }
    advise(.noPrefetch(queue: shown(state.queue, client)))
  }

  /// - Parameter publish: the first of several; looked at for a client's first few only.
  mutating func noteMistakes(
    of publish: PublishRequest, _ list: borrowing BrokerRequests, _ client: AMQPClient,
    _ replica: borrowing Replica
  ) {
    guard !publish.isPersistent, publish.exchange.isEmpty, client.transientLooks > 0 else { return }
    client.transientLooks -= 1
    let queue = String(decoding: list.bytes[publish.routingKey], as: UTF8.self)
    noteTransient(in: queue, client, replica)
  }

  /// What came by another exchange is seen when it is delivered; a client's first few are looked at.
  mutating func noteMistakes(
    of content: BrokerContent, from queue: String, _ client: AMQPClient,
    _ replica: borrowing Replica
  ) {
    guard client.deliveryLooks > 0 else { return }
    client.deliveryLooks -= 1
    // It was checked when it was published.
    guard let properties = try? PropertiesView(content.properties) else { return }
    if properties.deliveryMode != 2 { noteTransient(in: queue, client, replica) }
  }

  private mutating func noteTransient(
    in queue: String, _ client: AMQPClient, _ replica: borrowing Replica
  ) {
    let info = replica.machine.queueInfo(TopologyName(queue, in: client.host))
    if info?.isDurable == true { advise(.transientMessage(queue: shown(queue, client))) }
  }

  /// A queue or exchange as `skein` names it.
  private func shown(_ name: String, _ client: AMQPClient) -> String {
    client.host == .main ? name : "//\(client.machine.vhost ?? ""):\(name)"
  }
}

extension AMQPAdvice.Finding {
  static let kinds = 7

  fileprivate var kind: Int {
    switch self {
    case .unknownArgument: 0
    case .unknownExchangeArgument: 1
    case .unknownConsumerArgument: 2
    case .synonym: 3
    case .transientMessage: 4
    case .noPrefetch: 5
    case .requeueLoop: 6
    }
  }

  var sentence: String {
    switch self {
    case .unknownArgument(let name, let queue):
      "queue '\(queue)' was declared with the argument '\(name)', which means nothing here"
    case .unknownExchangeArgument(let name, let exchange):
      "exchange '\(exchange)' was declared with the argument '\(name)', which means nothing here"
    case .unknownConsumerArgument(let name, let queue):
      "a consumer of queue '\(queue)' has the argument '\(name)', which means nothing here"
    case .synonym(let queue):
      "queue '\(queue)' was declared with 'x-max-delivery-attempts', which only Skein knows;"
        + " its name is 'x-delivery-limit'"
    case .transientMessage(let queue):
      "messages without delivery_mode 2 were published to the durable queue '\(queue)': Skein keeps"
        + " them, RabbitMQ would lose them with a restart"
    case .noPrefetch(let queue):
      "a consumer of queue '\(queue)' acknowledges by hand and has no prefetch limit (basic.qos): it"
        + " is sent as much as there is"
    case .requeueLoop(let queue):
      "a message of queue '\(queue)' was delivered more than \(AMQPAdvice.attemptsMax) times: a"
        + " consumer rejects it with requeue for ever; set 'x-delivery-limit' with a dead-letter"
        + " exchange, or 'x-retry-delay'"
    }
  }
}
