// `skein publish --also` and `--atomic`: messages are stored in steps of the cluster, each of them as a
// whole, in all its queues, or not at all (G10).

import SkeinClient

final class PublishSteps {
  private let client: SkeinClient
  private let queues: [String]
  private let template: Message
  private let rate: Double?
  private var pace: Pace
  /// Bytes of each message beside its body.
  private let overhead: Int
  /// All messages are one step.
  private let isAtomic: Bool
  private let start = ContinuousClock.now
  private var confirmed = 0

  /// Messages of a step, unless all are one. Enough that waiting for each costs little.
  private static let stepMessages = 256
  /// Bytes of these, unless one alone has more.
  private static let stepBytes = 1 << 20
  /// Messages that one step stores, each queue's counted.
  private static let copiesMax = 65_536

  init(
    _ client: SkeinClient, _ queues: [String], template: Message, rate: Double?, isAtomic: Bool
  ) {
    self.client = client
    self.queues = queues
    self.template = template
    self.rate = rate
    self.isAtomic = isAtomic
    pace = Pace(rate: rate)
    overhead = template.headers.reduce(
      64 + template.key.utf8.count + template.contentType.utf8.count
    ) { $0 + $1.name.utf8.count + $1.value.count + 8 }
  }

  func run(_ source: PublishSource, _ arguments: Arguments) async throws {
    do {
      if isAtomic {
        try await publish(try await all(of: source))
      } else {
        try await source.forEachGroup { try await self.publishInSteps($0) }
      }
    } catch {
      throw Failure("\(Publish.words(error)) (\(outcome(after: error)))")
    }
    try Publish.report(confirmed, to: queues, in: ContinuousClock.now - start, arguments)
  }

  /// Everything, if it fits into one step.
  private func all(of source: PublishSource) async throws -> [ArraySlice<UInt8>] {
    var bodies: [ArraySlice<UInt8>] = []
    var bytes = 0
    let bytesMax = client.messageBytesMax
    let most = Self.copiesMax / queues.count
    try await source.forEachGroup { group in
      bodies += group
      bytes += group.reduce(0) { $0 + $1.count + overhead }
      guard bodies.count <= most else {
        throw Failure("more than \(most) messages are too many for one step")
      }
      guard bytes <= bytesMax else {
        throw Failure("more than \(bytesMax) bytes are too much for one step")
      }
    }
    return bodies
  }

  private func publishInSteps(_ bodies: [ArraySlice<UInt8>]) async throws {
    let most = rate == nil ? min(Self.stepMessages, Self.copiesMax / queues.count) : 1
    var rest = bodies[...]
    while !rest.isEmpty {
      var bytes = 0
      let step = rest.prefix(most).prefix { body in
        bytes += body.count + overhead
        return bytes <= Self.stepBytes
      }
      let next = step.isEmpty ? rest.prefix(1) : step
      rest = rest[next.endIndex...]
      if let due = pace.next() { try await Task.sleep(until: due) }
      try await publish(Array(next))
    }
  }

  private func publish(_ bodies: [ArraySlice<UInt8>]) async throws {
    if bodies.isEmpty { return }
    let batch = bodies.map { body in
      var message = template
      message.body = Array(body)
      return OutgoingMessage(message, to: queues)
    }
    try await client.publishAll(batch)
    confirmed += batch.count
  }

  private func outcome(after error: any Error) -> String {
    let text = "\(grouped(UInt64(confirmed))) messages are confirmed"
    if case SkeinError.outcomeUnknown = error {
      return text + "; those behind them may or may not be stored, all of a group or none"
    }
    return text + "; none behind them is stored"
  }
}
