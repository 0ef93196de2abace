import Base
import Testing

@testable import QueueMachine

@Suite struct Smoke {
  @Test func publishDeliverAcknowledge() throws {
    let rig = Rig()
    let queue = rig.declare("a")
    let session = rig.open(producer: 5)
    let seen = rig.publish(session, 1, to: queue, bodies: [1, 2, 3])
    #expect(
      seen == [
        .plain(
          .confirmed(
            session, first: PublishSequence(1), count: 3,
            firstID: MessageID(entry: rig.index, ordinal: 0)))
      ])
    let got = rig.subscribe(session, 1, queue, credit: 2).deliveries
    #expect(got.map(\.delivery.rawValue) == [1, 2])
    try rig.restart()
    let more = rig.settle(session, 1, .acknowledge, 1, [1...1])
    #expect(more.deliveries.map(\.delivery.rawValue) == [3])
    #expect(rig.summary(queue).acknowledged == 1)
  }
}
