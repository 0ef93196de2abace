// What a client publishes, in its window and in order, and what it makes of the answers.

import Base
import QueueMachine

extension SimulatedClient {
  func publish() {
    guard simulation.areQueuesDeclared else { return }
    if !simulation.isDraining, let queue = simulation.chance.pick(plan.queuesPublished),
      chunks.count < plan.window
    {
      let before = simulation.ledger.counts
      let count = simulation.chance.within(1...plan.batch)
      var run: [UInt8] = []
      var values: [Int] = []
      let part = append(count, to: [queue], &values, &run)
      addChunk(
        Chunk(first: nextSequence, parts: [part], values: values, run: run, before: before))
    }
    sendChunks()
    sendSettlements()
    if !simulation.isDraining { giveOrders() }
  }

  func addChunk(_ chunk: Chunk) {
    chunks.append(chunk)
    nextSequence += UInt64(chunk.values.count)
  }

  /// Draws new messages for some queues.
  func append(
    _ count: Int, to queues: [Int], _ values: inout [Int], _ run: inout [UInt8]
  ) -> Part {
    let start = run.count
    for _ in 0..<count {
      let published = drawMessage(for: queues)
      let value = simulation.ledger.newMessage(published)
      values.append(value)
      let size = Int(simulation.chance.skewed(0...UInt64(plan.bodyMax)))
      MessageRecord.append(
        MessageParts(
          body: Self.body(value, size), key: published.key ?? "",
          priority: UInt8(published.priority ?? 0), delay: published.delay,
          timeToLive: published.timeToLive), to: &run)
    }
    return Part(queues: queues, count: count, runBytes: run.count - start)
  }

  private func drawMessage(for queues: [Int]) -> Ledger.Published {
    let settings = simulation.plan.queues[queues[0]].settings
    var published = Ledger.Published(
      queue: queues[0], otherQueues: Array(queues.dropFirst()), process: process)
    if settings.keyLimit > 0, simulation.chance.permille(800) {
      published.key = "k\(simulation.chance.below(4))"
    }
    if settings.priorities > 1 {
      published.priority = simulation.chance.below(Int(settings.priorities))
    }
    if simulation.chance.permille(plan.delayed) {
      simulation.note(.delayedPublishes)
      published.delay = .milliseconds(simulation.chance.skewed(1...20_000))
    }
    if simulation.chance.permille(plan.expiring) {
      published.timeToLive = .milliseconds(simulation.chance.skewed(1...30_000))
    }
    return published
  }

  /// Eight bytes of number, then bytes that follow from it.
  static func body(_ value: Int, _ size: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(size + 8)
    bytes.put(UInt64(value))
    for place in 0..<size { bytes.append(UInt8(truncatingIfNeeded: value &* 31 &+ place)) }
    return bytes
  }

  func sendChunks() {
    guard isAttached else { return }
    let answered = PublishSequence((chunks.first?.first ?? nextSequence) - 1)
    for place in chunks.indices where !chunks[place].isSent {
      guard let request = request(for: chunks[place], answeredThrough: answered) else { return }
      chunks[place].isSent = true
      simulation.note(chunks[place].wasSent ? .publishesRepeated : .publishes)
      chunks[place].wasSent = true
      send(request)
    }
  }

  /// - Parameter copies: ids of each message, one for each of its queues.
  func confirmed(_ first: UInt64, _ count: Int, _ firstID: MessageID, copies: UInt64) {
    for number in 0..<count {
      guard let (chunk, value) = value(of: first + UInt64(number)) else { continue }
      simulation.note(.confirms)
      let id = MessageID(rawValue: firstID.rawValue + UInt64(number) * copies)
      simulation.ledger.confirmed(value, id)
      heard(.stored(id), of: first + UInt64(number))
      chunks[chunk].answered = Int(first + UInt64(number) - chunks[chunk].first) + 1
      if chunks[chunk].transaction == nil {
        changeMind(about: value, id)
      } else {
        conclude(chunk, .confirmed)
      }
    }
    askOutcomes(of: first..<first + UInt64(count))
    dropAnswered()
  }

  private func dropAnswered() {
    while let chunk = chunks.first, chunk.answered == chunk.values.count { chunks.removeFirst() }
    forgetOutcomes()
  }

  func value(of sequence: UInt64) -> (chunk: Int, value: Int)? {
    guard
      let place = chunks.firstIndex(where: {
        $0.first <= sequence && sequence < $0.first + UInt64($0.values.count)
      })
    else { return nil }
    return (place, chunks[place].values[Int(sequence - chunks[place].first)])
  }

  func publishRefused(_ first: UInt64, _ count: Int, _ refusal: Refusal) {
    switch refusal {
    case .notLeader, .sessionNotFound:
      leave(for: nil)
    case .queueFull, .staleDelivery, .deliveryNotFound, .consumerNotFound:
      simulation.note(.publishesRefused)
      for number in 0..<count {
        guard let (chunk, value) = value(of: first + UInt64(number)) else { continue }
        judge(refusal, of: chunks[chunk])
        simulation.ledger.refused(value, refusal)
        heard(.refused(refusal), of: first + UInt64(number))
        chunks[chunk].answered = Int(first + UInt64(number) - chunks[chunk].first) + 1
        conclude(chunk, .refused)
      }
      dropAnswered()
      sendSettlements()
    case _ where refusal.isFinal:
      simulation.violated("G4", "\(self) is refused publish \(first) with \(refusal)")
    default:
      // Not now: everything from there on is sent again, in order, at the next turn.
      simulation.trace { "\(self) is to publish again from \(first): \(refusal)" }
      for place in chunks.indices
      where chunks[place].first + UInt64(chunks[place].values.count) > first {
        chunks[place].isSent = false
      }
    }
  }

  /// Why a publish is refused for good must be true.
  private func judge(_ refusal: Refusal, of chunk: Chunk) {
    if refusal == .queueFull {
      simulation.ledger.refusedForLength(chunk.parts.flatMap(\.queues), since: chunk.before)
      return
    }
    guard let transaction = chunk.transaction else {
      simulation.violated("G4", "\(self) is refused publish \(chunk.first) with \(refusal)")
      return
    }
    // Of a later session it is refused for that.
    guard transaction.session == session else { return }
    if refusal != .staleDelivery || transaction.settles.isEmpty {
      simulation.violated("G10", "\(self) is refused a transaction with \(refusal)")
    }
    let newest = simulation.checks.newestClock
    if transaction.settles.allSatisfy({ newest < $0.held.leaseEndAtLeast }) {
      simulation.ledger.taken(
        transaction.settles[0].held, "G10", "is refused in a transaction as stale")
    }
  }
}
