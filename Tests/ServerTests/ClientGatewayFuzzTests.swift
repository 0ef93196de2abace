// Whatever a client sends, the node goes on and the other clients with it.

import Base
import Node
import QueueMachine
import Testing
import Transport
import Wire

@testable import Server

@Suite struct ClientGatewayFuzzTests {
  /// Frames that can be decoded, with fields that are right, wrong, zero and enormous.
  private struct Chooser {
    var random: SeededRandom

    mutating func number(below bound: UInt64) -> UInt64 { random.next() % bound }

    mutating func extreme() -> UInt64 {
      switch number(below: 8) {
      case 0: 0
      case 1: .max
      case 2: .max - number(below: 70_000)
      case 3: random.next()
      default: number(below: 12)
      }
    }

    mutating func short() -> UInt32 { UInt32(truncatingIfNeeded: extreme()) }

    mutating func name() -> String {
      ["q", "r", "", "\n", "dead", String(repeating: "x", count: 300)][Int(number(below: 6))]
    }

    mutating func settings() -> QueueSettings {
      var settings = QueueSettings()
      if number(below: 3) == 0 {
        settings.lease = Nanoseconds(extreme())
        settings.deliveriesMax = short()
        settings.deadLetterQueue = name()
        settings.retryDelay = Nanoseconds(extreme())
        settings.priorities = UInt8(truncatingIfNeeded: extreme())
      }
      return settings
    }

    mutating func ranges() -> [DeliveryRange] {
      (0..<number(below: 4)).map { _ in
        let ends = [extreme(), extreme()].sorted()
        return DeliveryRange(first: DeliveryID(ends[0]), last: DeliveryID(ends[1]))
      }
    }

    mutating func frame(_ session: SessionID) -> ClientFrame {
      switch number(below: 24) {
      case 0:
        .openSession(
          producer: ProducerID(extreme()), epoch: ProducerEpoch(extreme()),
          timeout: Nanoseconds(extreme()), name: name())
      case 1:
        .attachSession(
          AttachRequest(
            session: number(below: 2) == 0 ? session : SessionID(extreme()),
            consumers: (0..<number(below: 4)).map { _ in
              .init(consumer: ConsumerID(short()), received: DeliveryID(extreme()))
            }))
      case 2: .closeSession
      case 3:
        .publishOutcome(
          producer: ProducerID(extreme()), sequence: PublishSequence(extreme()))
      case 4, 5:
        .subscribe(
          consumer: ConsumerID(short()), queue: QueueID(short()), credit: short() % 70_000)
      case 6: .setCredit(consumer: ConsumerID(short()), credit: short())
      case 7: .unsubscribe(consumer: ConsumerID(short()), returnHeld: number(below: 2) == 0)
      case 8, 9, 10:
        .settle(
          SettleRequest(
            sequence: CommandSequence(extreme()), answeredThrough: CommandSequence(extreme()),
            kind: SettleKind.allCases[Int(number(below: 4))], consumer: ConsumerID(short()),
            ranges: ranges(), delay: number(below: 2) == 0 ? Nanoseconds(extreme()) : nil,
            error: name()))
      case 11:
        .extend(
          ExtendRequest(
            sequence: CommandSequence(extreme()), answeredThrough: CommandSequence(extreme()),
            consumer: ConsumerID(short()), ranges: ranges(), by: Nanoseconds(extreme())))
      case 12, 13: .declareQueue(name: name(), settings: settings())
      case 14: .deleteQueue(name: name())
      case 15: .purgeQueue(name: name())
      case 16: .peek(queue: name(), after: MessageID(extreme()), limit: short())
      case 17: .showQueue(name: name())
      case 18: .resolveQueue(name: name())
      case 19: .showMessage(queue: name(), message: MessageID(extreme()))
      case 20: .cancelMessage(queue: name(), message: MessageID(extreme()))
      case 21:
        .rescheduleMessage(
          queue: name(), message: MessageID(extreme()), delay: Nanoseconds(extreme()))
      case 22:
        .redriveQueue(
          queue: name(), which: .all, after: MessageID(extreme()), through: MessageID(extreme()),
          limit: short())
      default: .listQueues
      }
    }

    mutating func publish() -> [UInt8] {
      var run: [UInt8] = []
      let count = 1 + number(below: 4)
      for _ in 0..<count {
        let body = [UInt8](repeating: 1, count: Int(number(below: 200)))
        MessageRecord.append(
          MessageParts(
            body: body, key: name(), priority: UInt8(number(below: 40)),
            delay: number(below: 3) == 0 ? Nanoseconds(extreme()) : nil,
            timeToLive: number(below: 3) == 0 ? Nanoseconds(extreme()) : nil), to: &run)
      }
      var bytes: [UInt8] = []
      run.withUnsafeBytes {
        PublishView(
          queue: QueueID(short()), first: PublishSequence(extreme()),
          answeredThrough: PublishSequence(extreme()), count: Int(count), run: $0
        ).encode(into: &bytes)
      }
      return bytes
    }
  }

  @Test(arguments: 1...6 as ClosedRange<UInt64>)
  func nothingThatAClientSendsStopsTheNode(seed: UInt64) throws {
    var chooser = Chooser(random: SeededRandom(seed: seed))
    let harness = try GatewayHarness.leading()
    let witness = try harness.client(producer: 1 << 40)
    let queue = try witness.declare("witness")
    var client = try harness.greetedClient()
    var session = SessionID.none
    for _ in 0..<400 {
      if client.isClosed || chooser.number(below: 40) == 0 {
        if chooser.number(below: 2) == 0 { client.close() }
        client = try harness.greetedClient()
        if chooser.number(below: 3) > 0 {
          try client.openSession(producer: ProducerID(chooser.number(below: 3)))
          session = client.session
        }
      }
      var bytes: [UInt8] = []
      if chooser.number(below: 3) == 0 {
        bytes = chooser.publish()
      } else {
        chooser.frame(session).encode(
          request: RequestID(1 + chooser.number(below: 1 << 40)), into: &bytes)
      }
      if chooser.number(below: 8) == 0 {
        let place = Int(chooser.number(below: UInt64(bytes.count)))
        bytes[place] ^= UInt8(1 << chooser.number(below: 8))
      }
      client.send(bytes: bytes)
      if chooser.number(below: 2) == 0 { harness.turn() }
      if chooser.number(below: 16) == 0 {
        harness.now = harness.now + .milliseconds(chooser.number(below: 3_000))
        _ = try witness.ask(.ping)
      }
    }
    harness.settle()
    try witness.publishAndWait([[1], [2]], to: queue)
    #expect(
      witness.confirmed == 2,
      "repeat with: swift test --filter ClientGatewayFuzzTests (seed \(seed))")
    harness.replica.machine.checkInvariants()
  }
}
