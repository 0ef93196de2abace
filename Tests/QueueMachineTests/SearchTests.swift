// Looking at messages by state and position, and finding moved ones by their old ids.

import Base
import Testing

@testable import QueueMachine

@Suite struct SearchTests {
  let rig = Rig()

  private func filter(_ change: (inout MessageFilter) -> Void) -> MessageFilter {
    var filter = MessageFilter()
    change(&filter)
    return filter
  }

  @Test func pagesGoThroughAllStatesInTheOrderOfIDs() {
    let queue = rig.declare("q") { $0.priorities = 3 }
    let session = rig.open(producer: 1)
    let messages = (0..<30).map { number in
      MessageParts(
        body: [UInt8](repeating: 1, count: number), priority: UInt8(number % 3),
        delay: number % 5 == 0 ? .seconds(9) : nil)
    }
    rig.publish(session, 1, to: queue, messages: messages)
    rig.subscribe(session, 1, queue, credit: 6)
    rig.settle(session, 1, .release, [2...2])
    let all = rig.machine.peek(queue, limit: 100)
    #expect(all.map(\.id.ordinal) == Array(0..<30))
    var paged: [PeekedMessage] = []
    while let page = Optional(rig.machine.peek(queue, after: paged.last?.id, limit: 7)),
      !page.isEmpty
    {
      #expect(page.count == min(7, 30 - paged.count))
      paged += page
    }
    #expect(paged == all)
    for (bit, state) in [
      (MessageFilter.ready, MessageState.ready), (MessageFilter.leased, .leased),
      (MessageFilter.delayed, .delayed),
    ] {
      let some = rig.machine.peek(queue, filter { $0.states = bit }, limit: 100)
      #expect(some == all.filter { $0.state == state } && !some.isEmpty)
    }
    let two = filter { $0.states = MessageFilter.leased | MessageFilter.delayed }
    #expect(
      rig.machine.peek(queue, two, limit: 3) == Array(all.filter { $0.state != .ready }.prefix(3)))
    // By position, also within a state.
    #expect(rig.machine.peek(queue, filter { $0.skip = 28 }, limit: 9) == Array(all[28...]))
    let late = filter {
      $0.states = MessageFilter.delayed
      $0.skip = 2
    }
    #expect(rig.machine.peek(queue, late, limit: 1).map(\.id.ordinal) == [10])
    #expect(rig.machine.peek(queue, filter { $0.skip = 30 }, limit: 9).isEmpty)
  }

  @Test func aPageOfALongQueueIsWhatIsAskedFor() {
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: Array(repeating: 1, count: 20_000))
    let page = rig.machine.peek(queue, filter { $0.skip = 15_000 }, limit: 3)
    #expect(page.map(\.id.ordinal) == [15_000, 15_001, 15_002])
    let next = rig.machine.peek(queue, after: page[2].id, limit: 2)
    #expect(next.map(\.id.ordinal) == [15_003, 15_004])
  }

  @Test func deadLettersAreToldFromOthers() {
    let dead = rig.declare("dead")
    let queue = rig.declare("q") { $0.deadLetterQueue = "dead" }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: dead)
    rig.publish(session, 2, to: queue, bodies: [1, 2])
    rig.subscribe(session, 1, queue)
    rig.settle(session, 1, .reject, [1...2])
    let found = rig.machine.peek(dead, filter { $0.states = MessageFilter.dead }, limit: 9)
    #expect(found.count == 2 && found.allSatisfy { $0.deadLetter?.originQueue == "q" })
    #expect(
      rig.machine.peek(dead, filter { $0.states = MessageFilter.dead }, limit: 1) == [found[0]])
  }

  @Test func aMovedMessageIsFoundByItsOldIDsThereAndBack() throws {
    let dead = rig.declare("dead")
    let queue = rig.declare("q") { $0.deadLetterQueue = "dead" }
    let session = rig.open(producer: 1)
    rig.publish(session, 1, to: queue, bodies: [1])
    let first = rig.machine.peek(queue, limit: 1)[0].id
    rig.subscribe(session, 1, queue)
    rig.settle(session, 1, .reject, [1...1])
    let second = rig.machine.peek(dead, limit: 1)[0].id
    #expect(rig.machine.biography(of: first, in: queue) == nil)
    let there = rig.machine.moved(first, from: queue)
    #expect(there?.queue == dead && there?.message == second)
    rig.unsubscribe(session, 1)
    rig.ask { requester, tag, payload in
      CommandWriter.redriveQueue(
        requester, tag: tag, queue: "dead", which: .all, after: MessageID(rawValue: 0),
        through: MessageID(rawValue: 0), limit: 10, into: &payload)
    }
    try rig.restart()
    let third = rig.machine.peek(queue, limit: 1)[0].id
    for old in [first, second] {
      let back = rig.machine.moved(old, from: old == first ? queue : dead)
      #expect(back?.queue == queue && back?.message == third)
    }
    #expect(rig.machine.moved(MessageID(rawValue: 77), from: queue)?.message == nil)
    #expect(rig.machine.biography(of: third, in: queue)?.events.map(\.kind).last == .redriven)
  }
}
