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
    case synonym(queue: String)
    case transientMessage(queue: String)
    case noPrefetch(queue: String)
    case requeueLoop(queue: String)
  }

  /// So many are kept; names of queues may be made up anew for ever.
  static let countMax = 64
  /// A message that is delivered so often without ever being acknowledged goes round.
  static let attemptsMax: UInt32 = 16

  /// In the order in which they were first seen.
  private(set) var findings: [Finding] = []
  private var known: Set<Finding> = []

  /// - Returns: whether it is new.
  mutating func note(_ finding: Finding) -> Bool {
    guard findings.count < Self.countMax, known.insert(finding).inserted else { return false }
    findings.append(finding)
    return true
  }

  var sentences: [String] { findings.map(\.sentence) }
}

extension AMQPGateway {
  mutating func advise(_ finding: AMQPAdvice.Finding) {
    if advice.note(finding) { log.info("AMQP: \(finding.sentence)") }
  }

  mutating func noteMistakes(of declaration: QueueDeclaration) {
    for name in declaration.arguments.unknown {
      advise(.unknownArgument(name, queue: declaration.name))
    }
    if declaration.arguments.usesDeliveryLimitSynonym { advise(.synonym(queue: declaration.name)) }
  }

  /// - Parameter publish: the first of several; looked at for a client's first few only.
  mutating func noteMistakes(
    of publish: PublishRequest, _ list: borrowing BrokerRequests, _ client: AMQPClient,
    _ replica: borrowing Replica
  ) {
    guard !publish.isPersistent, publish.exchange.isEmpty, client.transientLooks > 0 else { return }
    client.transientLooks -= 1
    let queue = String(decoding: list.bytes[publish.routingKey], as: UTF8.self)
    let info = replica.machine.queueInfo(TopologyName(queue, in: client.host))
    if info?.isDurable == true { advise(.transientMessage(queue: queue)) }
  }
}

extension AMQPAdvice.Finding {
  var sentence: String {
    switch self {
    case .unknownArgument(let name, let queue):
      "queue '\(queue)' was declared with the argument '\(name)', which means nothing"
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
