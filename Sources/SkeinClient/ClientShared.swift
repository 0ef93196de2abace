// What the client's tasks and its loop thread share, and what they tell each other.

import Base
import Synchronization
import Transport
import Wire

/// From tasks to the loop.
enum LoopCommand: Sendable {
  /// The book has staged publishes, or somebody waits for space in it.
  case published
  case settles(ConsumerCore)
  case flushSettles(ConsumerCore, Promise<StagedSettle.Outcome>)
  case request(ClientRequest)
  case addConsumer(ConsumerCore, Promise<StagedSettle.Outcome>)
  case endConsumer(ConsumerCore)
  /// A session is wanted even if nothing is published or consumed yet.
  case openSession(Promise<StagedSettle.Outcome>)
  /// Waits for what is under way for at most so long.
  case close(Promise<Void>, within: Nanoseconds)
  case abandon
}

/// A reply to a request, without borrowed bytes.
enum RequestReply: Sendable {
  case queue(QueueID, isNew: Bool)
  case done(UInt64)
  case outcome(PublishAnswer)
  case summaries([QueueSummary])
  case peeked([PeekedRecord], next: Base.MessageID)
  case shown(ShownMessage)
  case redriven(
    messages: UInt64, skipped: UInt64, next: Base.MessageID, through: Base.MessageID)
  case status(NodeStatus)
  case members([MemberInfo])
  case access(users: [String], hosts: [String])

  /// nil for frames that are no reply.
  init?(_ frame: ServerFrame) {
    switch frame {
    case .queueReply(let queue, let isNew): self = .queue(queue, isNew: isNew)
    case .done(let count): self = .done(count)
    case .outcomeReply(let outcome): self = .outcome(outcome)
    case .queueSummaries(let summaries): self = .summaries(summaries)
    case .peeked(let records, let next): self = .peeked(records, next: next)
    case .messageShown(let message): self = .shown(message)
    case .queueRedriven(let messages, let skipped, let next, let through):
      self = .redriven(messages: messages, skipped: skipped, next: next, through: through)
    case .statusReply(let status): self = .status(status)
    case .memberListReply(let members): self = .members(members)
    case .accessReply(let users, let hosts): self = .access(users: users, hosts: hosts)
    default: return nil
    }
  }
}

/// A request on its way to the leader, repeated there after a lost connection.
struct ClientRequest: Sendable {
  let kind: FrameKind
  /// The whole frame, its request id still 0.
  let frame: [UInt8]
  let promise: Promise<Result<RequestReply, SkeinError>>
  /// A refusal that, for a repeated request, only says that the first one was carried out.
  let refusalWhenRepeated: Refusal?
  /// One that leaves open whether the first was carried out: something else may have come about what
  /// was asked for.
  let unknownWhenRepeated: Refusal?
  /// It is done when the leader that it was sent to is lost.
  let isDoneWithLeader: Bool

  init(
    _ frame: ClientFrame, promise: Promise<Result<RequestReply, SkeinError>>,
    refusalWhenRepeated: Refusal? = nil, unknownWhenRepeated: Refusal? = nil
  ) {
    kind = frame.kind
    self.unknownWhenRepeated = unknownWhenRepeated
    self.refusalWhenRepeated = refusalWhenRepeated
    isDoneWithLeader = if case .transferLeadership(to: nil) = frame { true } else { false }
    var bytes: [UInt8] = []
    frame.encode(into: &bytes)
    self.frame = bytes
    self.promise = promise
  }
}

/// The connections' limits and addresses, as the cluster told them.
struct ClusterKnowledge: Sendable {
  /// Client addresses of members, endpoints given by the user first.
  var addresses: [String]
  var leader: String = ""
  var publishWindow = 65_536
  var creditMax = 65_535
  var contentBytesMax = MessageRecord.contentBytesMax
}

final class ClientShared: Sendable {
  let options: ClientOptions
  let endpoints: [String]
  let mailbox: Mailbox<LoopCommand>
  let book: PublishBook
  let knowledge: Mutex<ClusterKnowledge>
  /// Kept when a leader was found, or why none was.
  let connected = Promise<Result<Void, SkeinError>>()
  /// Kept when the loop has ended.
  let ended = Promise<Void>()

  init(endpoints: [String], options: ClientOptions) throws(SkeinError) {
    self.options = options
    self.endpoints = endpoints
    do throws(ErrorNumber) {
      mailbox = try Mailbox()
    } catch {
      throw .outOfResources("no descriptor for a mailbox: \(error)")
    }
    book = PublishBook(producer: options.producer ?? .random(in: 1 ... .max))
    knowledge = Mutex(ClusterKnowledge(addresses: endpoints))
  }

  /// Waits for a promise that the loop keeps; `closed` if the loop has ended without.
  func wait(
    _ promise: Promise<Result<Void, SkeinError>>
  ) async -> Result<Void, SkeinError> {
    if ended.isKept { promise.keep(.failure(.closed)) }
    return await promise.value(whenCancelled: .failure(.cancelled))
  }

  func ask(
    _ frame: ClientFrame, refusalWhenRepeated: Refusal? = nil,
    unknownWhenRepeated: Refusal? = nil
  ) async throws(SkeinError) -> RequestReply {
    let promise = Promise<Result<RequestReply, SkeinError>>()
    mailbox.post(
      .request(
        ClientRequest(
          frame, promise: promise, refusalWhenRepeated: refusalWhenRepeated,
          unknownWhenRepeated: unknownWhenRepeated)))
    if ended.isKept { promise.keep(.failure(.closed)) }
    return try await promise.value(whenCancelled: .failure(.cancelled)).get()
  }
}
