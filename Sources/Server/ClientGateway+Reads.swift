// Linearizable reads (thesis §6.4): what clients ask of the queues' state is answered from the
// leader's memory once the replica says that it still leads. All that were asked for together share
// one ticket.

import Base
import Consensus
import Node
import QueueMachine
import Wire

/// A read that waits for its ticket.
struct WaitingRead {
  enum Question {
    case resolve(name: String)
    case list
    case show(name: String)
    case peek(queue: String, after: MessageID, limit: UInt32, MessageFilter)
    case message(queue: String, MessageID)
    case outcome(ProducerID, PublishSequence)
    case access
  }
  /// Of the connection that asked.
  var token: UInt64
  var request: RequestID
  var question: Question

  /// Whether few bytes ask for many. A connection waits for one such answer at a time, since its
  /// write buffer is bounded.
  static func isLarge(_ frame: ClientFrame) -> Bool {
    switch frame {
    case .listQueues, .peek, .showMessage: true
    default: false
    }
  }
}

extension ClientGateway {
  /// Takes the request if it is a read; false if it is none.
  mutating func takeRead(
    _ frame: ClientFrame, _ request: RequestID, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) -> Bool {
    let question: WaitingRead.Question
    switch frame {
    case .resolveQueue(let name): question = .resolve(name: name)
    case .listQueues: question = .list
    case .listAccess: question = .access
    case .showQueue(let name): question = .show(name: name)
    case .peek(let queue, let after, let limit, let filter):
      if let fault = filter.fault {
        refuse(request, .settingInvalid, fault, to: client)
        return true
      }
      question = .peek(queue: queue, after: after, limit: limit, filter)
    case .showMessage(let queue, let message): question = .message(queue: queue, message)
    case .publishOutcome(let producer, let sequence): question = .outcome(producer, sequence)
    default: return false
    }
    guard waitingReadCount < ClientGatewayLimits.waitingReads,
      let ticket = replica.beginRead(now: now)
    else {
      refuse(request, .overloaded, "too many reads are waiting", to: client)
      return true
    }
    let read = WaitingRead(token: client.token, request: request, question: question)
    if let last = waitingReads.indices.last, waitingReads[last].ticket == ticket {
      waitingReads[last].reads.append(read)
    } else {
      waitingReads.append((ticket, [read]))
    }
    waitingReadCount += 1
    client.waitingRequests += 1
    if WaitingRead.isLarge(frame) { client.awaitsLargeAnswer = true }
    return true
  }

  /// Answers the reads of a ticket from the replica's state as it is.
  mutating func readReady(
    _ ticket: ReadTicket, records: inout RecordSource, replica: inout Replica, now: MonotonicTime
  ) {
    readReady(ticket, replica: &replica, now: now) { records.record($0, cache: $1) }
  }

  mutating func readReady(
    _ ticket: ReadTicket, replica: inout Replica, now: MonotonicTime,
    lookUp: (RecordReference, borrowing EntryCache) -> RecordLookup
  ) {
    for read in takeReads(of: ticket) {
      guard let client = clients[read.token] else { continue }
      finish(read, of: client)
      switch read.question {
      case .peek(let queue, let after, let limit, let filter):
        peek(queue, after, limit, filter, read.request, client, &replica, now, lookUp)
      case .message(let queue, let message):
        show(message, of: queue, read.request, client, &replica, now, lookUp)
      default:
        answer(read, to: client, replica)
      }
    }
  }

  /// This node may lead no more: the client asks the one that does.
  mutating func readFailed(_ ticket: ReadTicket) {
    for read in takeReads(of: ticket) {
      guard let client = clients[read.token] else { continue }
      finish(read, of: client)
      refuse(read.request, .notLeader, leaderSentence, to: client)
    }
  }

  private mutating func takeReads(of ticket: ReadTicket) -> [WaitingRead] {
    guard let place = waitingReads.firstIndex(where: { $0.ticket == ticket }) else { return [] }
    let reads = waitingReads.remove(at: place).reads
    waitingReadCount -= reads.count
    return reads
  }

  private func finish(_ read: WaitingRead, of client: ClientConnection) {
    client.waitingRequests -= 1
    switch read.question {
    case .list, .peek, .message: client.awaitsLargeAnswer = false
    case .resolve, .show, .outcome, .access: break
    }
  }

  private mutating func answer(
    _ read: WaitingRead, to client: ClientConnection, _ replica: borrowing Replica
  ) {
    switch read.question {
    case .resolve(let name):
      guard let queue = replica.machine.queue(named: name) else {
        return refuseUnknown(name, read.request, client)
      }
      send(.queueReply(queue: queue, isNew: false), request: read.request, to: client)
    case .list:
      send(.queueSummaries(replica.machine.summaries()), request: read.request, to: client)
    case .show(let name):
      guard let queue = replica.machine.queue(named: name),
        let summary = replica.machine.summary(of: queue)
      else { return refuseUnknown(name, read.request, client) }
      send(.queueSummaries([summary]), request: read.request, to: client)
    case .outcome(let producer, let sequence):
      let outcome = replica.machine.outcome(of: sequence, by: producer)
      send(.outcomeReply(PublishAnswer(outcome)), request: read.request, to: client)
    case .access:
      let reply = ServerFrame.accessReply(
        users: replica.machine.userNames(), hosts: replica.machine.virtualHosts())
      send(reply, request: read.request, to: client)
    case .peek, .message:
      invariant(false, "a peek needs records")
    }
  }

  private mutating func refuseUnknown(
    _ name: String, _ request: RequestID, _ client: ClientConnection
  ) {
    refuse(request, .queueNotFound, "queue \"\(name.clipped(toBytes: 255))\"", to: client)
  }

  private mutating func peek(
    _ name: String, _ after: MessageID, _ limit: UInt32, _ filter: MessageFilter,
    _ request: RequestID, _ client: ClientConnection, _ replica: inout Replica,
    _ now: MonotonicTime, _ lookUp: (RecordReference, borrowing EntryCache) -> RecordLookup
  ) {
    guard let queue = replica.machine.queue(named: name) else {
      return refuseUnknown(name, request, client)
    }
    // Where records decide, as many are looked at as one answer may have.
    let looked =
      filter.asksForRecords
      ? ClientGatewayLimits.peekMessages : min(Int(limit), ClientGatewayLimits.peekMessages)
    let found = replica.machine.peek(
      queue, filter, after: after.rawValue == 0 ? nil : after, limit: looked)
    var next = found.count == looked ? found.last?.id ?? MessageID(rawValue: 0) : MessageID(0)
    var records: [PeekedRecord] = []
    var bytes = 0
    let bytesMax = min(
      ClientGatewayLimits.peekBytes, configuration.limits.clientWriteBytes / 2)
    for (place, message) in found.enumerated() {
      bytes += Int(message.reference.size)
      if place > 0, bytes > bytesMax || records.count >= Int(limit) {
        next = found[place - 1].id
        break
      }
      guard let record = record(of: message, request, client, &replica, now, lookUp) else { return }
      if record.withUnsafeBytes({ filter.fits($0) }) {
        records.append(PeekedRecord(message, record: record))
      }
    }
    send(.peeked(records, next: next), request: request, to: client)
  }

  /// The message's bytes; refuses the request and returns nil where they cannot be read.
  private mutating func record(
    of message: PeekedMessage, _ request: RequestID, _ client: ClientConnection,
    _ replica: inout Replica, _ now: MonotonicTime,
    _ lookUp: (RecordReference, borrowing EntryCache) -> RecordLookup
  ) -> [UInt8]? {
    switch lookUp(message.reference, replica.cache) {
    case .found(let payload, let range):
      return Array(payload[range])
    case .damaged:
      replica.entryIsDamaged(message.reference.entry, now: now)
      let detail = "message \(message.id) is damaged on this disk and being fetched; ask again"
      refuse(request, .diskFailed, detail, to: client)
    case .later:
      invariant(false, "a peek reads whatever the turn has read")
    case .unavailable(let reason):
      refuse(request, .diskFailed, "message \(message.id): \(reason)", to: client)
    }
    return nil
  }

  private mutating func show(
    _ id: MessageID, of name: String, _ request: RequestID, _ client: ClientConnection,
    _ replica: inout Replica, _ now: MonotonicTime,
    _ lookUp: (RecordReference, borrowing EntryCache) -> RecordLookup
  ) {
    guard let queue = replica.machine.queue(named: name) else {
      return refuseUnknown(name, request, client)
    }
    var place = (queue: queue, message: id)
    if replica.machine.biography(of: id, in: queue) == nil,
      let moved = replica.machine.moved(id, from: queue)
    {
      place = moved
    }
    guard let biography = replica.machine.biography(of: place.message, in: place.queue) else {
      let absence = replica.machine.absence(of: id, from: queue)
      return refuse(request, absence.refusal, absence.detail, to: client)
    }
    guard
      let record = record(of: biography.message, request, client, &replica, now, lookUp)
    else { return }
    let queueName = replica.machine.summary(of: place.queue)?.name ?? name
    let shown = ShownMessage(
      biography, record: record, now: replica.machine.clock, queue: queueName)
    send(.messageShown(shown), request: request, to: client)
  }
}

extension PublishAnswer {
  init(_ outcome: PublishOutcome) {
    switch outcome {
    case .stored(let message): self = .stored(message)
    case .refused(let refusal): self = .refused(refusal)
    case .answerForgotten: self = .forgotten
    case .unseen: self = .notSeen
    }
  }
}

extension PeekedRecord {
  init(_ message: PeekedMessage, record: [UInt8]) {
    let state: State =
      switch message.state {
      case .ready: .ready
      case .leased: .leased
      case .delayed: .delayed
      }
    self.init(
      message: message.id, state: state, attempts: message.attempts, due: message.due,
      expires: message.expires, lastError: message.lastError,
      deadLetter: message.deadLetter.map(DeadLetter.init), record: record)
  }
}

extension PeekedRecord.DeadLetter {
  init(_ note: DeadLetterNote) {
    self.init(
      reason: Reason(note.reason), originQueue: note.originQueue, originMessage: note.originID,
      attempts: note.attempts, lastError: note.lastError, firstTime: note.firstTime,
      time: note.time)
  }
}

extension PeekedRecord.DeadLetter.Reason {
  init(_ reason: DeadLetterReason) {
    self =
      switch reason {
      case .deliveriesExhausted: .deliveriesExhausted
      case .rejected: .rejected
      case .expired: .expired
      case .overflowed: .overflowed
      }
  }
}

extension ShownMessage {
  init(_ biography: MessageBiography, record: [UInt8], now: MachineTime, queue: String) {
    let message = biography.message
    var holder: Holder?
    if message.state == .leased {
      holder = Holder(
        session: biography.holder, consumer: message.consumer, node: biography.node,
        granted: biography.granted, leaseEnd: message.leaseEnd)
    }
    self.init(
      peeked: PeekedRecord(message, record: record), holder: holder,
      events: biography.events.map(Event.init), eventsForgotten: biography.eventsForgotten,
      now: now, queue: queue)
  }
}

extension ShownMessage.Event {
  init(_ event: MessageEvent) {
    let kind: Kind =
      switch event.kind {
      case .failed: .failed
      case .leaseRanOut: .leaseRanOut
      case .consumerGone: .consumerGone
      case .rejected: .rejected
      case .deadLettered: .deadLettered
      case .redriven: .redriven
      }
    self.init(
      kind: kind, time: event.time, queue: event.queue,
      reason: event.reason.map(PeekedRecord.DeadLetter.Reason.init), granted: event.granted,
      attempt: event.attempt, session: event.session, consumer: event.consumer,
      node: event.node, error: event.error)
  }
}
