// A queue of a full disk's fault, beside the load's: what waited there since before can be taken out while the
// disk is full, and nothing new is confirmed on it. Each attempt has a limit, so that no fault waits for ever.

import Base
import SkeinClient

struct RoomProbe: Sendable {
  /// What became of something that was tried.
  enum Attempt: Equatable, Sendable {
    case done
    /// By a node, with these words.
    case refused(String)
    /// It was too late, broke off, or was cancelled: that shows nothing.
    case unknown(String)
  }

  private let client: SkeinClient

  private static let queue = "room"
  private static let messages = 20
  private static let prepareMax = Duration.seconds(10)
  private static let drainMax = Duration.seconds(5)
  private static let publishMax = Duration.milliseconds(1500)

  /// Puts messages into its queue.
  init(client: SkeinClient) async throws(ChaosError) {
    self.client = client
    let prepared = await Self.limited(Self.prepareMax) { () async throws(SkeinError) in
      _ = try await client.declareQueue(Self.queue)
      _ = try await client.publish(
        (1...Self.messages).map { Message("before \($0)") }, to: Self.queue)
      return .done
    }
    switch prepared {
    case .done: return
    case .refused(let reason), .unknown(let reason):
      await client.close(within: .seconds(1))
      throw ChaosError("the queue that is watched could not be filled: \(reason)")
    }
  }

  func close() async { await client.close(within: .seconds(1)) }

  /// Takes out what waits, and has each acknowledgement confirmed.
  func drain() async -> Attempt {
    await Self.limited(Self.drainMax) { () async throws(SkeinError) in
      let consumer = try await client.consume(Self.queue)
      defer { consumer.cancel() }
      return try await Self.takeOut(Self.messages) { () async throws(SkeinError) in
        let batch = try await consumer.nextBatch()
        for delivery in batch { try await delivery.acknowledge() }
        return batch.count
      }
    }
  }

  /// - Returns: whether it was confirmed.
  func publish() async -> Bool {
    await Self.limited(Self.publishMax) { () async throws(SkeinError) in
      try await client.publish(Message("while it is full"), to: Self.queue)
      return .done
    } == .done
  }

  /// Takes batches until there were so many messages.
  /// - Parameter take: takes one, and says how many it had; 0 once no more will come.
  static func takeOut(
    _ count: Int, _ take: () async throws(SkeinError) -> Int
  ) async throws(SkeinError) -> Attempt {
    var taken = 0
    while taken < count {
      let batch = try await take()
      if batch == 0 { return .unknown("no more came after \(taken) of \(count)") }
      taken += batch
    }
    return .done
  }

  /// What `body` comes to, if it does in time.
  static func limited(
    _ limit: Duration, _ body: @escaping @Sendable () async throws(SkeinError) -> Attempt
  ) async -> Attempt {
    let attempt = await within(limit, orElse: .unknown("it takes more than \(limit)")) {
      do throws(SkeinError) { return try await body() } catch { return Attempt(error) }
    }
    return Task.isCancelled ? .unknown("it was interrupted") : attempt
  }
}

extension RoomProbe.Attempt {
  init(_ error: SkeinError) {
    self =
      switch error {
      // Who says so does not speak for the node with the full disk.
      case .refused(.notLeader, _), .refused(.noQuorum, _), .refused(.shuttingDown, _):
        .unknown("\(error)")
      case .refused: .refused("\(error)")
      default: .unknown("\(error)")
      }
  }
}

/// What `body` gives, which ends once it is cancelled; `late` if that takes longer than `limit`.
func within<Value: Sendable>(
  _ limit: Duration, orElse late: Value, _ body: @escaping @Sendable () async -> Value
) async -> Value {
  await withTaskGroup { group in
    group.addTask { await body() }
    group.addTask {
      do { try await Task.sleep(for: limit) } catch { return late }
      return late
    }
    defer { group.cancelAll() }
    return await group.next() ?? late
  }
}
