// From the outboxes to the connections: records are copied from the log's payloads into the write
// buffers while there is room, many messages in a frame.

import Base
import Node
import QueueMachine
import Wire

/// Finds records, and remembers the payload it saw last: the next delivery's record mostly lies in
/// the same one.
struct RecordCursor {
  private var entry = LogIndex.zero
  private var payload: [UInt8] = []
  /// Where offset 0 of the entry would lie in `payload`; may be negative.
  private var base = 0

  enum Outcome {
    /// In `payload`.
    case found(Range<Int>)
    case damaged
    case later
    case unavailable
  }

  mutating func locate(
    _ reference: RecordReference, _ replica: borrowing Replica, _ records: inout RecordSource
  ) -> Outcome {
    let start = base + Int(reference.offset)
    let end = start + Int(reference.size)
    if reference.entry == entry, start >= 0, end <= payload.count { return .found(start..<end) }
    switch records.recordThisTurn(reference, cache: replica.cache) {
    case .found(let found, let range):
      entry = reference.entry
      payload = found
      base = range.lowerBound - Int(reference.offset)
      return .found(range)
    case .damaged: return .damaged
    case .later: return .later
    case .unavailable: return .unavailable
    }
  }

  /// Calls `body` with what `locate` found.
  func withRecord(_ range: Range<Int>, _ body: (UnsafeRawBufferPointer) -> Void) {
    payload.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[range])) }
  }

  func write(
    _ header: DeliveryHeader, _ range: Range<Int>, _ encoder: inout DeliverEncoder,
    to bytes: inout [UInt8]
  ) {
    payload.withUnsafeBytes {
      let record = UnsafeRawBufferPointer(rebasing: $0[range])
      let size = MessageRecord.size(in: record, at: 0)
      invariant(
        size == record.count, "entry \(entry): record of \(size) bytes where \(range.count) are")
      encoder.append(header, record: record, to: &bytes)
    }
  }
}

extension ClientGateway {
  /// Writes deliveries to the connections that have room for them.
  mutating func pumpDeliveries(
    records: inout RecordSource, replica: inout Replica, now: MonotonicTime
  ) {
    // Who waited for it may be gone.
    deliverRetry = .never
    output.beginWriting(to: clients.count)
    defer { output.endWriting(now: now) }
    guard !delivering.isEmpty else { return }
    var cursor = RecordCursor()
    var kept = 0
    var cut: ReadTurns.Cut?
    var stuck = 0
    for position in delivering.indices {
      let client = delivering[position]
      let waited = client.outbox.count
      if now < client.deliverRetry, !client.outbox.isEmpty {
        // Whether there is room for it now or not.
        deliverRetry = min(deliverRetry, client.deliverRetry)
      }
      let end = output.isTurnOver ? .output : pump(client, &replica, now, &cursor, &records)
      let gotSomething = client.outbox.count < waited
      if gotSomething, client.connection.pendingBytes >= pendingMax {
        // Who reads makes room for the others.
        flush(client, now: now)
      }
      if client.outbox.isEmpty {
        client.isDelivering = false
      } else {
        delivering[kept] = client
        kept += 1
        if end == .output { output.noteCut(client.connection, gotSomething: gotSomething) }
        if cut == nil, end == .output, !gotSomething, !output.isTurnOver, stuck == kept - 1 {
          stuck = kept
        } else if end != .ownReasons, cut == nil {
          cut = ReadTurns.Cut(place: kept - 1, gotSomething: gotSomething, end: end)
        }
      }
    }
    delivering.removeSubrange(kept...)
    if let cut {
      readTurns.pass(cut, behind: stuck, in: &delivering)
    }
  }

  /// Deliveries are written to a connection while fewer bytes than this wait to be sent.
  private var pendingMax: Int {
    min(ClientGatewayLimits.deliverBytesPending, configuration.limits.clientWriteBytes / 2)
  }

  private mutating func pump(
    _ client: ClientConnection, _ replica: inout Replica, _ now: MonotonicTime,
    _ cursor: inout RecordCursor, _ records: inout RecordSource
  ) -> PumpEnd {
    let pendingMax = pendingMax
    let pending = client.connection.pendingBytes
    guard client.takesAnswers, pending < pendingMax, now >= client.deliverRetry,
      let next = client.outbox.first
    else { return .ownReasons }
    let room = output.room(for: client.connection, pendingMax: pendingMax)
    guard room.takes(next.byteCount, behind: pending) else { return .output }
    defer {
      output.wrote(client.connection.pendingBytes - pending)
      output.count(client.connection, &client.countedOutput)
    }
    // A local is reached without the checks that a class's property costs.
    var outbox = Outbox()
    swap(&outbox, &client.outbox)
    defer { swap(&outbox, &client.outbox) }
    let clock = replica.clock.reading(at: now)
    touch(client)
    while let first = outbox.first,
      room.takes(first.byteCount, behind: client.connection.pendingBytes)
    {
      // Looked up before the frame is begun: one without messages must not be.
      switch cursor.locate(first.delivery.reference, replica, &records) {
      case .found:
        let bytesMax = room.bytes(
          upTo: ClientGatewayLimits.deliverFrameBytes, behind: client.connection.pendingBytes)
        let written = writeFrame(
          to: client, upTo: bytesMax, &outbox, first.consumer, clock, replica, &cursor, &records)
        invariant(written > 0, "no room for a frame behind \(client.connection.pendingBytes) bytes")
      case .damaged:
        // What follows waits too, so that each consumer's order is kept.
        replica.entryIsDamaged(first.delivery.reference.entry, now: now)
        tryAgainLater(client, now: now)
        return .ownReasons
      case .later: return .reading
      case .unavailable:
        tryAgainLater(client, now: now)
        return .ownReasons
      }
    }
    return client.connection.pendingBytes < pendingMax ? .output : .ownReasons
  }

  /// What is next for the client cannot be had now. It is not looked for in every turn: others would be
  /// kept from reading by it.
  private mutating func tryAgainLater(_ client: ClientConnection, now: MonotonicTime) {
    client.deliverRetry = now + ClientGatewayLimits.deliverRetry
    deliverRetry = min(deliverRetry, client.deliverRetry)
  }

  /// Writes one frame with the consumer's next messages, at least the first; returns how many.
  private mutating func writeFrame(
    to client: ClientConnection, upTo bytesMax: Int, _ outbox: inout Outbox,
    _ consumer: ConsumerID, _ clock: MachineTime, _ replica: borrowing Replica,
    _ cursor: inout RecordCursor, _ records: inout RecordSource
  ) -> Int {
    var count = 0
    _ = client.connection.write { bytes in
      var encoder = DeliverEncoder(consumer, into: &bytes)
      while let item = outbox.first, item.consumer == consumer {
        guard count == 0 || encoder.payloadBytes(in: bytes) + item.byteCount <= bytesMax,
          case .found(let range) = cursor.locate(item.delivery.reference, replica, &records)
        else { break }
        cursor.write(item.delivery.header(at: clock), range, &encoder, to: &bytes)
        outbox.removeFirst()
        count += 1
      }
      encoder.finish(in: &bytes)
    }
    counters.delivered += count
    return count
  }
}

extension Outbox.Item {
  /// What it takes in a deliver frame.
  fileprivate var byteCount: Int { DeliveryHeader.byteCount + Int(delivery.reference.size) }
}

extension Delivery {
  /// What the client is told besides the record.
  ///
  /// - Parameter clock: the queues' clock; the lease told is what is left of it.
  func header(at clock: MachineTime) -> DeliveryHeader {
    DeliveryHeader(
      delivery: delivery, token: token, message: id, lease: leaseEnd.since(clock),
      granted: granted, attempt: attempt, isRedelivery: isRedelivery)
  }
}
