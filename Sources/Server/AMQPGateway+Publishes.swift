// Publishes and settles: many of them become one command each turn.

import AMQP
import Base
import QueueMachine

extension AMQPGateway {
  /// Gathers publishes, those of one channel to one exchange and key in one run of records.
  mutating func publish(
    _ range: Range<Int>, of list: borrowing BrokerRequests, for client: AMQPClient,
    isCommit: Bool = false
  ) {
    guard let session = client.openSession else { return }
    var place = range.lowerBound
    while place < range.upperBound {
      let first = list.publishes[place]
      var end = place + 1
      while end < range.upperBound, goesAlong(list.publishes[end], behind: first, end - place, list)
      {
        end += 1
      }
      let tag = RequestTag(client.nextPublishTag)
      client.nextPublishTag += 1
      counters.published += end - place
      let bytes = write(place..<end, of: list, session, tag)
      client.append(
        AMQPClient.PublishRun(
          tag: tag, channel: first.channel, first: first.sequence, count: UInt32(end - place),
          wantsConfirm: first.wantsConfirm && !isCommit, bytes: bytes))
      client.waitingBytes += bytes
      client.isPublisher = true
      place = end
    }
  }

  /// Messages in one run: bounds an entry, and what one refusal covers.
  private static let runMax = 4_096

  private func goesAlong(
    _ next: PublishRequest, behind first: PublishRequest, _ count: Int,
    _ list: borrowing BrokerRequests
  ) -> Bool {
    next.channel == first.channel && next.isMandatory == first.isMandatory
      && next.wantsConfirm == first.wantsConfirm && next.copies == first.copies
      && next.sequence.rawValue == first.sequence.rawValue + UInt64(count)
      && count < Self.runMax
      && list.bytes[next.exchange] == list.bytes[first.exchange]
      && list.bytes[next.routingKey] == list.bytes[first.routingKey]
  }

  /// - Returns: the bytes of the messages.
  private mutating func write(
    _ range: Range<Int>, of list: borrowing BrokerRequests, _ session: SessionID,
    _ tag: RequestTag
  ) -> Int {
    commandBytes.removeAll(keepingCapacity: true)
    let publishes = list.publishes
    let first = publishes[range.lowerBound]
    list.bytes.withUnsafeBytes { bytes in
      for place in range { publishes[place].appendRecord(from: bytes, to: &commandBytes) }
    }
    var order = RouteOrder(
      exchange: TopologyName(String(decoding: list.bytes[first.exchange], as: UTF8.self)),
      keys: [[UInt8](list.bytes[first.routingKey])] + first.copies,
      isMandatory: first.isMandatory)
    order.exchange.host = host(of: session)
    invariant(
      order.keys.count <= TopologyLimits.keysPerMessage, "\(order.keys.count) routing keys")
    let records = commandBytes
    relay.append { payload in
      records.withUnsafeBytes { run in
        CommandWriter.route(
          session, tag: tag, order, count: UInt32(range.count), run: run, into: &payload)
      }
    }
    if commandBytes.capacity > 4 << 20 { commandBytes = [] }
    return records.count
  }

  func host(of session: SessionID) -> VirtualHostID { sessions[session.rawValue]?.host ?? .main }

  /// Settles, neighbours of one consumer and outcome in one command. `makeRoom` is to follow: behind
  /// the whole transaction if they are part of one, in which nothing else may stand.
  mutating func settle(
    _ settles: ArraySlice<SettleRequest>, for client: AMQPClient
  ) {
    guard let session = client.openSession else { return }
    var rest = settles
    while let first = rest.first {
      var ranges = [DeliveryRange(first: first.first, last: first.last)]
      rest = rest.dropFirst()
      while let next = rest.first, next.consumer == first.consumer,
        next.outcome == first.outcome, next.first > ranges[ranges.count - 1].last,
        ranges.count < FixedLimits.rangesPerSettle
      {
        if next.first == ranges[ranges.count - 1].last.next {
          ranges[ranges.count - 1].last = next.last
        } else {
          ranges.append(DeliveryRange(first: next.first, last: next.last))
        }
        rest = rest.dropFirst()
      }
      settle(ranges, of: first.consumer, first.outcome.kind, session, client)
    }
  }

  mutating func settle(
    _ ranges: [DeliveryRange], of consumer: ConsumerID, _ kind: SettleKind, _ session: SessionID,
    _ client: AMQPClient
  ) {
    guard !ranges.isEmpty else { return }
    relay.append {
      CommandWriter.settle(
        session, sequence: .unnumbered, answeredThrough: .zero, kind: kind, consumer: consumer,
        ranges: ranges, into: &$0)
    }
  }
}

extension SettleOutcome {
  fileprivate var kind: SettleKind {
    switch self {
    case .acknowledged: .acknowledge
    case .requeued: .negative
    case .rejected: .reject
    }
  }
}

extension PublishRequest {
  /// Appends the message as a record: layout in `MessageRecord` and `AMQPProperties`.
  fileprivate func appendRecord(from bytes: UnsafeRawBufferPointer, to records: inout [UInt8]) {
    let contentType = contentType(in: bytes)
    let start = records.count
    let valueBytes = 3 + exchange.count + routingKey.count + properties.count
    records.put(UInt32(0))
    records.put(UInt32(body.count))
    records.put(UInt16(0))
    records.put(UInt16(contentType.count))
    records.put(UInt16(1))
    records.put(priority)
    var flags: UInt8 = 0
    if delay != nil { flags |= MessageRecord.delayFlag }
    if expiration != nil { flags |= MessageRecord.timeToLiveFlag }
    records.put(flags)
    if let delay { records.put(Nanoseconds.milliseconds(clamping: delay)) }
    // One that expires at once still goes to a consumer that waits for it.
    if let expiration {
      records.put(max(Nanoseconds(1), Nanoseconds.milliseconds(clamping: expiration)))
    }
    records.append(contentsOf: bytes[contentType])
    let name = AMQPProperties.headerName
    records.put(UInt16(name.utf8.count))
    records.put(UInt32(valueBytes))
    records.append(contentsOf: name.utf8)
    AMQPProperties.append(
      exchange: UnsafeRawBufferPointer(rebasing: bytes[exchange]),
      routingKey: UnsafeRawBufferPointer(rebasing: bytes[routingKey]),
      properties: UnsafeRawBufferPointer(rebasing: bytes[properties]), to: &records)
    records.append(contentsOf: bytes[body])
    records.patch(UInt32(records.count - start), at: start)
  }

  /// The content type, which is the first property; empty if there is none or it is no text.
  private func contentType(in bytes: UnsafeRawBufferPointer) -> Range<Int> {
    let start = properties.lowerBound
    guard properties.count > 2, bytes[start] & 0x80 != 0 else { return 0..<0 }
    let text = start + 3..<start + 3 + Int(bytes[start + 2])
    guard text.upperBound <= properties.upperBound,
      String(validating: UnsafeRawBufferPointer(rebasing: bytes[text]), as: UTF8.self) != nil
    else { return 0..<0 }
    return text
  }
}

extension Nanoseconds {
  /// Clients may ask for longer than can be told in nanoseconds; ten years are for ever.
  static func milliseconds(clamping count: UInt64) -> Nanoseconds {
    .milliseconds(min(count, 10 * 365 * 86_400_000))
  }
}
