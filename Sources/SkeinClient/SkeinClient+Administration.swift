// Queues, members, leadership, status.

import Base
import Wire

// Queues.
extension SkeinClient {
  /// Declares a queue. Doing so again with the same options changes nothing.
  ///
  /// - Returns: false if the queue was there before.
  /// - Throws: `refused` with `queueDiffers`, `settingInvalid` (which names the setting),
  ///   `queueNameInvalid`, `deadLetterQueueNotFound`; `timedOut`, `requestUnknown`, `closed`,
  ///   `cancelled`.
  @discardableResult
  public func declareQueue(
    _ name: String, options: QueueOptions = QueueOptions()
  ) async throws(SkeinError) -> Bool {
    try Self.check(queueName: name)
    let reply = try await shared.ask(.declareQueue(name: name, settings: try options.settings()))
    guard case .queue(_, let isNew) = reply else { throw Self.unexpected(reply) }
    return isNew
  }

  /// Deletes a queue with all its messages.
  ///
  /// - Returns: how many messages went with it (0 if an answer was lost on the way).
  @discardableResult
  public func deleteQueue(_ name: String) async throws(SkeinError) -> UInt64 {
    try Self.check(queueName: name)
    return try count(
      await shared.ask(.deleteQueue(name: name), refusalWhenRepeated: .queueNotFound))
  }

  /// Drops what is not held by a consumer.
  ///
  /// - Returns: how many messages were dropped.
  @discardableResult
  public func purgeQueue(_ name: String) async throws(SkeinError) -> UInt64 {
    try Self.check(queueName: name)
    return try count(await shared.ask(.purgeQueue(name: name)))
  }

  /// All queues, by name.
  public func listQueues() async throws(SkeinError) -> [QueueOverview] {
    try summaries(await shared.ask(.listQueues))
  }

  /// One queue. Throws `refused` with `queueNotFound`.
  public func showQueue(_ name: String) async throws(SkeinError) -> QueueOverview {
    try Self.check(queueName: name)
    let found = try summaries(await shared.ask(.showQueue(name: name)))
    guard let queue = found.first else { throw .protocolViolation("no queue in the reply") }
    return queue
  }

  /// Looks at messages without consuming them, in the queue's order, up to `limit` behind `after`.
  public func peek(
    _ queue: String, after: MessageIdentifier? = nil, limit: Int = 10
  ) async throws(SkeinError) -> [PeekedMessage] {
    try await search(queue, after: after, limit: limit).messages
  }

  /// Looks for messages without consuming them, behind `after` in the order of their ids: one page
  /// of at most `limit`. Each request looks at a bounded number of messages, so that a page may have
  /// few or none and a `next` all the same: go on with that as `after`, until it is nil.
  public func search(
    _ queue: String, _ query: MessageQuery = MessageQuery(), after: MessageIdentifier? = nil,
    limit: Int = 100
  ) async throws(SkeinError) -> MessagePage {
    try Self.check(queueName: queue)
    let filter = query.filter
    if let fault = filter.fault { throw .refused(.settingInvalid, detail: fault) }
    let reply = try await shared.ask(
      .peek(
        queue: queue, after: after?.stored ?? Base.MessageID(rawValue: 0),
        limit: UInt32(clamping: limit), filter: filter))
    guard case .peeked(let records, let next) = reply else { throw Self.unexpected(reply) }
    var messages: [PeekedMessage] = []
    for record in records { messages.append(try PeekedMessage(record)) }
    return MessagePage(
      messages: messages, next: next.rawValue == 0 ? nil : MessageIdentifier(next))
  }

  private func check(_ queue: String, _ delay: Duration? = nil) throws(SkeinError) {
    try Self.check(queueName: queue)
    if let delay, delay < .zero { throw .invalidMessage("a delay must not be negative") }
  }

  /// All that is known of one message: where it stands, its failed deliveries, its moves.
  ///
  /// A message that was moved from this queue, to a dead-letter queue or back, is found by its old
  /// id too: the biography names its new id and queue.
  ///
  /// - Throws: `refused` with `queueNotFound`; with `messageGone`, `messageElsewhere` if it is in
  ///   another queue where it was not moved from this one, or `messageNotFound` if no message ever had
  ///   this id.
  public func message(
    _ id: MessageIdentifier, in queue: String
  ) async throws(SkeinError) -> MessageBiography {
    try check(queue)
    let reply = try await shared.ask(.showMessage(queue: queue, message: id.stored))
    guard case .shown(let message) = reply else { throw Self.unexpected(reply) }
    return try MessageBiography(message)
  }

  /// Removes a message that waits, ready or delayed.
  ///
  /// - Throws: `refused` with `queueNotFound`; with `messageLeased` if a consumer holds it,
  ///   `messageGone` if the queue has it no more, `messageElsewhere` if another one has it, or
  ///   `messageNotFound` if no message ever had this id. `requestUnknown` if no answer came in time; or
  ///   if the first one was lost with the leader and the next one has the message no more, which may
  ///   have been consumed or expired as well.
  public func cancelMessage(
    _ id: MessageIdentifier, in queue: String
  ) async throws(SkeinError) {
    try check(queue)
    _ = try count(
      await shared.ask(
        .cancelMessage(queue: queue, message: id.stored), unknownWhenRepeated: .messageGone))
  }

  /// Makes a message that waits ready `delay` from now, sooner or later than it would be. Throws as
  /// `cancelMessage`.
  public func rescheduleMessage(
    _ id: MessageIdentifier, in queue: String, delay: Duration
  ) async throws(SkeinError) {
    try check(queue, delay)
    _ = try count(
      await shared.ask(
        .rescheduleMessage(queue: queue, message: id.stored, delay: delay.nanoseconds)))
  }

  /// Moves messages of a dead-letter queue back to the queues they came from, where their attempts
  /// begin anew. Goes on in steps, each atomic, until all that were there at its beginning are
  /// looked at; what consumers hold or wait to retry stays.
  ///
  /// - Parameters:
  ///   - limit: move at most so many; nil is no limit.
  ///   - step: how many messages one step moves, at most 4,096: fewer leave more room for others.
  /// - Throws: `refused` with `queueNotFound`, or for a message by id as `cancelMessage`, or with
  ///   `messageDelayed` if it waits for its time.
  public func redrive(
    _ queue: String, _ which: RedriveSelection = .all, limit: UInt64? = nil, step: Int = 1000
  ) async throws(SkeinError) -> RedriveResult {
    try check(queue)
    var result = RedriveResult()
    var after = Base.MessageID(rawValue: 0)
    var through = after
    repeat {
      let left = min(limit.map { $0 - result.moved } ?? .max, UInt64(max(1, step)))
      if left == 0 { break }
      let reply = try await shared.ask(
        .redriveQueue(
          queue: queue, which: which.wire, after: after, through: through,
          limit: UInt32(clamping: left)))
      guard case .redriven(let moved, let skipped, let next, let last) = reply else {
        throw Self.unexpected(reply)
      }
      result.moved += moved
      result.skipped += skipped
      after = next
      through = last
    } while after.rawValue != 0
    return result
  }

  private func count(_ reply: RequestReply) throws(SkeinError) -> UInt64 {
    guard case .done(let count) = reply else { throw Self.unexpected(reply) }
    return count
  }

  private func summaries(_ reply: RequestReply) throws(SkeinError) -> [QueueOverview] {
    guard case .summaries(let summaries) = reply else { throw Self.unexpected(reply) }
    return summaries.map(QueueOverview.init)
  }
}

extension RedriveSelection {
  fileprivate var wire: RedriveScope {
    switch self {
    case .all: .all
    case .reason(let reason): .reason(reason.wire)
    case .message(let id): .message(id.stored)
    }
  }
}

// Who may come by AMQP, and where to. For `skein` alone: programs have no use for it.
extension SkeinClient {
  /// Sets a user's password, or with an empty hash removes the user.
  ///
  /// - Parameter hash: SHA-256 of salt and password.
  /// - Throws: `refused` with `settingInvalid`.
  package func setUser(
    _ name: String, salt: [UInt8], hash: [UInt8]
  ) async throws(SkeinError) {
    _ = try count(await shared.ask(.setUser(name: name, salt: salt, hash: hash)))
  }

  /// Adds a virtual host; one that is there already stays as it is.
  ///
  /// - Throws: `refused` with `settingInvalid`.
  package func addVirtualHost(_ name: String) async throws(SkeinError) {
    _ = try count(await shared.ask(.addVirtualHost(name: name)))
  }

  /// Users by name; virtual hosts, "/" first.
  package func access() async throws(SkeinError) -> (users: [String], hosts: [String]) {
    let reply = try await shared.ask(.listAccess)
    guard case .access(let users, let hosts) = reply else { throw Self.unexpected(reply) }
    return (users, hosts)
  }
}

// Members and leadership.
extension SkeinClient {
  /// The members, by the membership in force.
  public func members() async throws(SkeinError) -> [ClusterMember] {
    let reply = try await shared.ask(.memberList)
    guard case .members(let members) = reply else { throw Self.unexpected(reply) }
    return members.map(ClusterMember.init)
  }

  /// Adds a node; returns once it votes. Its process must be running already.
  ///
  /// - Throws: `refused` with `memberDiffers` or `membershipChangePending`; `requestUnknown` if it
  ///   has not caught up in time, which it may still do.
  public func addMember(
    id: Int, peerAddress: String, clientAddress: String
  ) async throws(SkeinError) {
    _ = try count(
      await shared.ask(
        .memberAdd(
          id: try node(id), peerAddress: try address(peerAddress),
          clientAddress: try address(clientAddress))))
  }

  /// Removes a node; returns once the change is committed. The leader may be removed too.
  ///
  /// - Throws: `refused` with `memberNotFound`, `lastVoter` or `membershipChangePending`.
  public func removeMember(id: Int) async throws(SkeinError) {
    _ = try count(
      await shared.ask(.memberRemove(id: try node(id)), refusalWhenRepeated: .memberNotFound))
  }

  /// Hands the leadership to a member, or to the one that is furthest along.
  ///
  /// - Throws: `refused` with `transferFailed` or `memberNotFound`.
  public func transferLeadership(to id: Int? = nil) async throws(SkeinError) {
    var target: NodeID?
    if let id { target = try node(id) }
    _ = try count(await shared.ask(.transferLeadership(to: target)))
  }

  private func node(_ id: Int) throws(SkeinError) -> NodeID {
    guard let number = UInt32(exactly: id), number > 0 else {
      throw .invalidMessage("a node id is 1 or more, not \(id)")
    }
    return NodeID(number)
  }

  private func address(_ text: String) throws(SkeinError) -> String {
    try NodeProbe.check(text)
    return text
  }
}

// Status, which needs neither leader nor majority.
extension SkeinClient {
  /// What one node says about itself, leader or not.
  ///
  /// - Throws: `invalidEndpoint`, `unreachable`, `protocolViolation`, `cancelled`.
  public static func status(
    of endpoint: String, timeout: Duration = .seconds(1)
  ) async throws(SkeinError) -> NodeOverview {
    let answer = try await NodeProbe.ask(endpoint, .status, timeout: timeout)
    guard case .status(let status) = answer.reply else { throw unexpected(answer.reply) }
    return NodeOverview(status)
  }

  /// What one node knows of the members, also without a majority. Throws as `status(of:)`.
  public static func members(
    knownTo endpoint: String, timeout: Duration = .seconds(1)
  ) async throws(SkeinError) -> [ClusterMember] {
    let answer = try await NodeProbe.ask(endpoint, .memberList, timeout: timeout)
    guard case .members(let members) = answer.reply else { throw unexpected(answer.reply) }
    return members.map(ClusterMember.init)
  }

  /// The status of every node: of the endpoints given and of the members that these know, all
  /// asked at once. Nodes are told apart by their ids, so that each is reported once.
  public static func clusterStatus(
    endpoints: [String], timeout: Duration = .seconds(1)
  ) async -> [NodeReport] {
    var asked: Set<String> = []
    var seen: Set<Int> = []
    var reports: [NodeReport] = []
    var next = endpoints
    while !next.isEmpty {
      let round = next.filter { asked.insert($0).inserted }
      next = []
      for (report, addresses) in await statusRound(round, timeout: timeout) {
        next.append(contentsOf: addresses)
        if case .success(let node) = report.result, !seen.insert(node.id).inserted { continue }
        reports.append(report)
      }
    }
    return reports
  }

  private static func statusRound(
    _ endpoints: [String], timeout: Duration
  ) async -> [(NodeReport, addresses: [String])] {
    await withTaskGroup(of: (Int, NodeReport, [String]).self) { group in
      for (place, endpoint) in endpoints.enumerated() {
        group.addTask {
          do throws(SkeinError) {
            let answer = try await NodeProbe.ask(endpoint, .status, timeout: timeout)
            guard case .status(let status) = answer.reply else { throw unexpected(answer.reply) }
            let report = NodeReport(endpoint: endpoint, result: .success(NodeOverview(status)))
            return (place, report, answer.addresses)
          } catch {
            return (place, NodeReport(endpoint: endpoint, result: .failure(error)), [])
          }
        }
      }
      var answers: [(Int, NodeReport, [String])] = []
      for await answer in group { answers.append(answer) }
      return answers.sorted { $0.0 < $1.0 }.map { ($0.1, $0.2) }
    }
  }
}
