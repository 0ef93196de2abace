// Declarations of what is there already need no entry of the log: clients declare all the time. They
// are answered from this node's own state, once that holds everything that was confirmed anywhere
// before the question (read-index, thesis §6.4): this node asks the leader how far that is. What the
// client itself sent before, publishes too, may still be in the relay: they wait for that as well.
// Who may log in, and whether a virtual host is not there, is judged by such a state too.

import AMQP
import Base
import Consensus
import Node
import QueueMachine

/// Reads that wait until this node's state is fresh enough. All that gather while one question is
/// under way go with the next.
struct ReadBarrier {
  enum Question {
    case request(ChannelRequest)
    case login(Credentials)
    /// One that this node did not know.
    case vhost(String)
  }

  struct Read {
    var client: UInt64
    var token: RequestToken
    var asks: Question
    /// The relay's last bundle with commands from before the question.
    var behind: UInt64 = 0
  }

  private enum Stage {
    case idle
    /// Of this node's own replica, which leads.
    case reading(ReadTicket)
    /// Of the leader.
    case asked(since: MonotonicTime)
    case told(LogIndex)
  }

  /// When a question may be lost, and is put again.
  private static let patience = Nanoseconds.milliseconds(500)

  private var gathered: [Read] = []
  private var underWay: [Read] = []
  /// This node's state is fresh enough for them, but for what the relay still has.
  private var settled: [Read] = []
  private var stage = Stage.idle
  /// The question of those under way. It keeps its number however often it is put, and to whichever
  /// leader: each answer to it was given after the first asking, when all of them waited already, and
  /// one that comes late still counts. Answers to an earlier process of this node must mean nothing.
  private var number = UInt64.random(in: 1..<1 << 62)

  mutating func add(_ read: Read) { gathered.append(read) }

  var count: Int { gathered.count + underWay.count + settled.count }

  var nextDeadline: MonotonicTime {
    if case .asked(let since) = stage { return since + Self.patience }
    return .never
  }

  /// Whether a question is to be put: with the number for the leader.
  mutating func question(now: MonotonicTime) -> UInt64? {
    switch stage {
    case .idle: break
    case .asked(let since) where now.since(since) >= Self.patience: break
    case .reading, .asked, .told: return nil
    }
    if underWay.isEmpty {
      guard !gathered.isEmpty else { return nil }
      swap(&underWay, &gathered)
      number += 1
    }
    return number
  }

  mutating func isReading(_ ticket: ReadTicket) { stage = .reading(ticket) }
  mutating func isAsked(now: MonotonicTime) { stage = .asked(since: now) }

  /// The own replica's read is ready, or failed. False if the ticket is not one of these.
  mutating func took(_ ticket: ReadTicket, at index: LogIndex?) -> Bool {
    guard case .reading(ticket) = stage else { return false }
    stage = index.map { .told($0) } ?? .idle
    return true
  }

  mutating func wasTold(_ question: UInt64, _ index: LogIndex) {
    guard question == number, !underWay.isEmpty else { return }
    if case .told = stage { return }
    stage = .told(index)
  }

  /// The leader is another: the question is put again.
  mutating func askAgain() {
    switch stage {
    case .reading, .asked: stage = .idle
    case .idle, .told: break
    }
  }

  /// The reads that may be answered from a state as of `applied`, with the relay's bundles carried
  /// out through `relayed`.
  mutating func ready(at applied: LogIndex, relayed: UInt64) -> [Read] {
    if case .told(let index) = stage, applied >= index {
      stage = .idle
      settled.append(contentsOf: underWay)
      underWay.removeAll()
    }
    guard !settled.isEmpty else { return [] }
    let reads = settled.filter { $0.behind <= relayed }
    settled.removeAll { $0.behind <= relayed }
    return reads
  }

  /// Those of clients that are gone are not waited for.
  mutating func keep(where isThere: (Read) -> Bool) {
    gathered.removeAll { !isThere($0) }
    settled.removeAll { !isThere($0) }
    guard !underWay.isEmpty else { return }
    underWay.removeAll { !isThere($0) }
    if underWay.isEmpty { stage = .idle }
  }

  /// Nobody waits any more; answers that still come mean nothing.
  mutating func forget() {
    gathered.removeAll()
    underWay.removeAll()
    settled.removeAll()
    stage = .idle
  }
}

extension AMQPGateway {
  /// Whether the request asks for what seems to be there already, and does not keep it alive either.
  mutating func answerNeedsRead(
    _ request: ChannelRequest, _ client: AMQPClient, now: MonotonicTime,
    _ replica: borrowing Replica
  ) -> Bool {
    guard let answer = answer(to: request, client, replica) else { return false }
    if case .refused = answer { return true }
    return !prolongs(request, client, now: now, replica)
  }

  /// A queue that goes when nobody uses it (`x-expires`) is used by whoever asks for it. That is an
  /// entry of the log only so often that the queue lives at least seven eighths of its time behind
  /// the last asking: Celery asks for its reply queues with every task.
  private mutating func prolongs(
    _ request: ChannelRequest, _ client: AMQPClient, now: MonotonicTime,
    _ replica: borrowing Replica
  ) -> Bool {
    let name: String
    switch request {
    case .declareQueue(let declaration): name = declaration.name
    case .inspectQueue(let queue): name = queue
    default: return false
    }
    guard let info = replica.machine.queueInfo(TopologyName(name, in: client.host)),
      info.settings.expires != .zero, info.consumers == 0
    else { return false }
    let pause = Nanoseconds(info.settings.expires.rawValue / 8)
    if let last = prolonged[info.id], now.since(last) < pause { return false }
    if prolonged.count >= Self.prolongedMax { prolonged.removeAll() }
    prolonged[info.id] = now
    return true
  }

  /// Queues whose last asking is remembered.
  private static var prolongedMax: Int { 10_000 }

  /// Answers the reads for which this node's state is fresh enough; what is no longer as it seemed
  /// becomes a command.
  mutating func answerReads(replica: borrowing Replica, now: MonotonicTime) {
    for read in reads.ready(at: replica.applied, relayed: relay.appliedThrough) {
      guard let client = clients[read.client] else { continue }
      switch read.asks {
      case .login(let credentials):
        guard client.phase == .open else { continue }
        let isKnown = mayLogIn(credentials, from: client, replica)
        if !isKnown { noteRefusedLogin(credentials.user, client, now: now) }
        answer(read.token, isKnown ? .done : .loginRefused, to: client)
      case .vhost(let name):
        guard client.phase == .open else { continue }
        if let host = replica.machine.virtualHost(named: name) {
          open(host, read.token, client)
        } else {
          refuse(read.token, .noVhost(name), client)
        }
      case .request(let request):
        guard let session = client.openSession else { continue }
        if let answer = answer(to: request, client, replica) {
          self.answer(read.token, answer, to: client)
        } else {
          order(request, read.token, session, client, replica)
        }
      }
    }
  }

  /// The answer from this node's state; nil where something must change for it, or where what is
  /// asked for is not there.
  func answer(
    to request: ChannelRequest, _ client: AMQPClient, _ replica: borrowing Replica
  ) -> BrokerAnswer? {
    let host = client.host
    let hostName = replica.machine.name(of: host)
    switch request {
    case .declareQueue(let declaration):
      guard let info = replica.machine.queueInfo(TopologyName(declaration.name, in: host)) else {
        return nil
      }
      if info.owner != .none, info.owner != client.openSession {
        return .refused(.queueLocked(declaration.name, vhost: hostName))
      }
      let present = QueueDeclaration(info, as: declaration)
      if let fault = declaration.fault(against: present, vhost: hostName) {
        return .refused(fault)
      }
      return info.answer
    case .inspectQueue(let name):
      // The address of a consumer of direct replies stands for a queue.
      if let address = ReplyAddress(text: name), replica.machine.isThere(address.session) {
        return .queueDeclared(messages: 0, consumers: 1)
      }
      guard let info = replica.machine.queueInfo(TopologyName(name, in: host)) else { return nil }
      if info.owner != .none, info.owner != client.openSession {
        return .refused(.queueLocked(name, vhost: hostName))
      }
      return info.answer
    case .declareExchange(let declaration):
      guard let settings = replica.machine.exchange(TopologyName(declaration.name, in: host))
      else { return nil }
      let fault = declaration.fault(against: settings, vhost: hostName)
      return fault.map { .refused($0) } ?? .done
    case .inspectExchange(let name):
      guard replica.machine.exchange(TopologyName(name, in: host)) != nil else { return nil }
      return .done
    case .bindQueue(let binding):
      return replica.machine.isBound(BindingOrder(binding, in: host)) ? .done : nil
    case .bindExchange(let binding):
      return replica.machine.isBound(BindingOrder(binding, in: host)) ? .done : nil
    default: return nil
    }
  }
}

extension QueueInfo {
  var answer: BrokerAnswer {
    .queueDeclared(messages: UInt32(clamping: ready), consumers: consumers)
  }
}

extension ExchangeDeclaration {
  /// What differs from the exchange there is; nil if nothing does.
  func fault(against settings: ExchangeSettings, vhost: String) -> Fault? {
    let asked = ExchangeOrder(self, in: .main).settings
    if asked == settings { return nil }
    let present = ExchangeDeclaration(
      name: name, kind: ExchangeKind(rawValue: settings.kind.rawValue) ?? .direct,
      isDurable: settings.isDurable, isAutoDelete: settings.isAutoDelete,
      isInternal: settings.isInternal,
      alternate: settings.alternate.isEmpty ? nil : settings.alternate,
      table: settings.alternateTable)
    return fault(against: present, vhost: vhost)
  }
}

extension ExchangeSettings {
  /// The arguments that say the same.
  fileprivate var alternateTable: [UInt8] {
    guard !alternate.isEmpty else { return [] }
    var bytes: [UInt8] = []
    FieldTable([("alternate-exchange", .text(alternate))]).encode(into: &bytes)
    return bytes
  }
}
