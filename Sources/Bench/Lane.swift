// One connection of the load: a program of its own as far as the cluster can see, with a session if
// it publishes or consumes.

import Base
import Transport
import Wire

final class Lane {
  let connection: Connection
  let address: String
  /// Replies to requests that somebody waits for.
  var replies: [UInt64: ServerFrame] = [:]
  var nextRequest: UInt64 = 1
  var publisher: PublisherState?
  var consumer: ConsumerState?
  /// To be flushed.
  var isTouched = false
  /// Payload bytes that the node takes in one frame.
  var frameBytesMax = 1 << 20
  var publishWindow = 1

  init(_ connection: Connection, address: String) {
    self.connection = connection
    self.address = address
  }

  /// Queues a request.
  ///
  /// - Returns: the number that its reply has; nil if the connection takes no more now.
  func send(_ frame: ClientFrame) -> UInt64? {
    let request = nextRequest
    guard connection.write({ frame.encode(request: RequestID(request), into: &$0) }) else {
      return nil
    }
    nextRequest += 1
    return request
  }
}

/// A session's publishes.
struct PublisherState {
  /// A frame's worth of publishes that is not answered yet.
  struct Run {
    var count: UInt64
    /// Of the first message.
    var number: UInt64
    /// When it was due, nanoseconds.
    var due: UInt64
  }

  /// The queues that are published to in turn.
  let queues: [QueueID]
  let window: Int
  var nextQueue: Int
  private(set) var nextSequence: UInt64 = 1
  private(set) var answeredThrough: UInt64 = 0
  private var runs = RingBuffer<Run>()
  private var records: [UInt8] = []

  init(queues: [QueueID], window: Int, firstQueue: Int) {
    self.queues = queues
    self.window = window
    nextQueue = firstQueue % max(1, queues.count)
  }

  var unanswered: Int { Int(nextSequence - 1 - answeredThrough) }
  var room: Int { window - unanswered }

  /// Publishes the next `count` messages as one frame. The connection has room.
  mutating func publish(
    _ count: Int, due: UInt64, book: MessageBook, to connection: Connection
  ) {
    records.removeAll(keepingCapacity: true)
    let number = book.append(count, time: due, to: &records)
    let queue = queues[nextQueue]
    nextQueue = nextQueue + 1 == queues.count ? 0 : nextQueue + 1
    let first = nextSequence
    let isTaken = records.withUnsafeBytes { run in
      let view = PublishView(
        queue: queue, first: PublishSequence(first),
        answeredThrough: PublishSequence(answeredThrough), count: count, run: run)
      return connection.write { view.encode(into: &$0) }
    }
    invariant(isTaken, "a publish was not taken by a connection with room")
    nextSequence += UInt64(count)
    runs.append(Run(count: UInt64(count), number: number, due: due))
  }

  /// Takes the confirm of `count` publishes from `first` on.
  mutating func confirm(
    first: UInt64, count: UInt64, now: UInt64, book: MessageBook,
    latencies: inout LatencyHistogram
  ) throws(LoadError) {
    guard first == answeredThrough + 1, first + count <= nextSequence else {
      throw .protocolViolation("publish \(first) confirmed behind \(answeredThrough)")
    }
    answeredThrough += count
    var left = count
    while left > 0, var run = runs.first {
      let taken = min(left, run.count)
      book.noteConfirmed(first: run.number, count: taken)
      latencies.record(now > run.due ? now - run.due : 0, times: taken)
      left -= taken
      run.number += taken
      run.count -= taken
      if run.count > 0 { runs[0] = run } else { _ = runs.popFirst() }
    }
  }
}

/// A session's consumers and what they have to settle.
struct ConsumerState {
  /// By the consumer's id less 1: deliveries to be acknowledged.
  private var ranges: [[DeliveryRange]]
  /// Those with ranges.
  private var touched: [Int] = []
  private var nextSequence: UInt64 = 1
  private var settledThrough: UInt64 = 0

  init(consumers: Int) { ranges = Array(repeating: [], count: consumers) }

  /// Every settlement sent was answered, and none is to be sent.
  var isSettled: Bool { settledThrough + 1 == nextSequence && touched.isEmpty }

  /// Takes one deliver frame.
  mutating func take(
    _ view: DeliverView, now: UInt64, book: MessageBook, latencies: inout LatencyHistogram
  ) throws(LoadError) {
    let place = Int(view.consumer.rawValue) - 1
    guard ranges.indices.contains(place) else {
      throw .protocolViolation("a delivery for consumer \(view.consumer)")
    }
    if ranges[place].isEmpty { touched.append(place) }
    var own: [DeliveryRange] = []
    swap(&own, &ranges[place])
    view.forEachMessage { header, record in
      if let time = book.noteDelivered(record) { latencies.record(now > time ? now - time : 0) }
      if let last = own.last, last.last.next == header.delivery {
        own[own.count - 1].last = header.delivery
      } else {
        own.append(DeliveryRange(first: header.delivery, last: header.delivery))
      }
    }
    swap(&own, &ranges[place])
  }

  /// Acknowledges what was taken; the connection may take all of it only later.
  mutating func settle(on connection: Connection, each: Bool) {
    while let place = touched.last, connection.hasRoom {
      if each {
        settleEach(place, on: connection)
      } else {
        settleAll(place, on: connection)
      }
      if ranges[place].isEmpty { touched.removeLast() }
    }
  }

  private mutating func settleAll(_ place: Int, on connection: Connection) {
    let count = min(ranges[place].count, SettleRequest.rangesMax)
    send(Array(ranges[place].prefix(count)), of: place, on: connection)
    ranges[place].removeFirst(count)
  }

  private mutating func settleEach(_ place: Int, on connection: Connection) {
    for range in ranges[place] {
      for delivery in range.first.rawValue...range.last.rawValue {
        let one = DeliveryID(delivery)
        send([DeliveryRange(first: one, last: one)], of: place, on: connection)
      }
    }
    ranges[place].removeAll(keepingCapacity: true)
  }

  private mutating func send(_ ranges: [DeliveryRange], of place: Int, on connection: Connection) {
    let request = SettleRequest(
      sequence: CommandSequence(nextSequence), answeredThrough: CommandSequence(settledThrough),
      kind: .acknowledge, consumer: ConsumerID(UInt32(place + 1)), ranges: ranges)
    nextSequence += 1
    // With each delivery settled by itself a turn's settlements may pass the limit of the queue:
    // they are at most what the consumers may hold.
    let isTaken = connection.write { ClientFrame.settle(request).encode(into: &$0) }
    invariant(isTaken, "a settlement was not taken by a connection with room")
  }

  mutating func settled(through sequence: UInt64) throws(LoadError) {
    guard sequence > settledThrough, sequence < nextSequence else {
      throw .protocolViolation("command \(sequence) settled behind \(settledThrough)")
    }
    settledThrough = sequence
  }
}
