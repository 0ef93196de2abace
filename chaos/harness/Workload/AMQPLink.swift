// A connection to a node's AMQP port, as simple as a client can be: one channel, and a thread of its
// own that waits. Frames are made and read with the codec of the AMQP target; what they mean is here.

import AMQP
import Base
import Glibc
import Transport

/// A connection with one open channel, of no use without it. Whoever made it uses it on one thread.
final class AMQPLink {
  /// What a node sent that a program has to hear of.
  enum Event {
    case deliver(tag: UInt64, isRedelivered: Bool, body: [UInt8])
    /// Publishes with this number, or up to it.
    case confirm(tag: UInt64, isMultiple: Bool, isStored: Bool)
  }

  /// The connection ended, or the node said that it or its channel shall.
  struct Ended: Error {
    let reason: String
  }

  private let socket: Int32
  private var received: [UInt8] = []
  /// The delivery whose body is still coming.
  private var incoming: (tag: UInt64, isRedelivered: Bool, left: Int, body: [UInt8])?
  private var lastHeard = MonotonicClock.now()
  private var lastSent = MonotonicClock.now()

  /// Seconds, as it is agreed upon.
  private static let heartbeat: UInt16 = 1
  /// Without a word for so long the node is not there any more.
  private static let silenceMax = Nanoseconds.seconds(3)
  /// A method that answers another may take so long, however often the node says that it is there.
  private static let answerMax = Nanoseconds.seconds(5)
  private static let bodyClass: UInt16 = 60
  private static let channel: UInt16 = 1

  /// Connects, opens the connection and its channel.
  init(to address: String) throws(Ended) {
    socket = try Self.dial(address)
    try write(Frame.protocolHeader)
    try wait(for: .connectionStart)
    try send(channel: 0) { output in
      Self.borrowing([[], Array("PLAIN".utf8), Array("\0guest\0guest".utf8), Array("en_US".utf8)]) {
        ConnectionStartOK(
          clientProperties: $0[0], mechanism: $0[1], response: $0[2], locale: $0[3]
        ).encode(channel: 0, into: &output)
      }
    }
    try wait(for: .connectionTune)
    try send(channel: 0) { output in
      ConnectionTuneOK(channelMax: 10, frameMax: 131_072, heartbeat: Self.heartbeat)
        .encode(channel: 0, into: &output)
      Self.borrowing([Array("/".utf8), []]) {
        ConnectionOpen(virtualHost: $0[0], reserved1: $0[1], insist: false)
          .encode(channel: 0, into: &output)
      }
    }
    try wait(for: .connectionOpenOK)
    try send(channel: Self.channel) { output in
      Self.borrowing([[]]) { ChannelOpen(outOfBand: $0[0]).encode(channel: 1, into: &output) }
    }
    try wait(for: .channelOpenOK)
  }

  deinit { close(socket) }

  // MARK: What a program asks for

  func selectConfirms() throws(Ended) {
    try send(channel: Self.channel) {
      ConfirmSelect(noWait: false).encode(channel: Self.channel, into: &$0)
    }
    try wait(for: .confirmSelectOK)
  }

  func consume(_ queue: String, prefetch: Int) throws(Ended) {
    try send(channel: Self.channel) { output in
      BasicQos(prefetchSize: 0, prefetchCount: UInt16(prefetch), global: false)
        .encode(channel: Self.channel, into: &output)
      Self.borrowing([Array(queue.utf8), [], []]) {
        BasicConsume(
          ticket: 0, queue: $0[0], consumerTag: $0[1], noLocal: false, noAck: false,
          exclusive: false, noWait: true, arguments: $0[2]
        ).encode(channel: Self.channel, into: &output)
      }
    }
  }

  /// Publishes to a queue by way of the default exchange, persistent.
  func publish(_ body: [UInt8], to queue: String) throws(Ended) {
    try send(channel: Self.channel) { output in
      Self.borrowing([[], Array(queue.utf8)]) {
        BasicPublish(
          ticket: 0, exchange: $0[0], routingKey: $0[1], mandatory: false, immediate: false
        ).encode(channel: Self.channel, into: &output)
      }
      // Class, weight, size; of the properties the delivery mode alone.
      var header: [UInt8] = []
      header.putBigEndian(UInt64(Self.bodyClass), bytes: 2)
      header.putBigEndian(0, bytes: 2)
      header.putBigEndian(UInt64(body.count), bytes: 8)
      header += [0x10, 0x00, 2]
      output.putFrame(Frame.header, Self.channel, header)
      output.putFrame(Frame.body, Self.channel, body)
    }
  }

  func acknowledge(_ tag: UInt64) throws(Ended) {
    try send(channel: Self.channel) {
      BasicAck(deliveryTag: tag, multiple: false).encode(channel: Self.channel, into: &$0)
    }
  }

  func giveBack(_ tag: UInt64) throws(Ended) {
    try send(channel: Self.channel) {
      BasicNack(deliveryTag: tag, multiple: false, requeue: true)
        .encode(channel: Self.channel, into: &$0)
    }
  }

  /// Ends the connection without a word: what it held goes back.
  func hangUp() { shutdown(socket, Int32(SHUT_RDWR)) }

  // MARK: Reading

  /// What comes within `time`, perhaps nothing.
  func events(within time: Nanoseconds) throws(Ended) -> [Event] {
    try read(within: time)
    var events: [Event] = []
    while let frame = nextFrame() {
      if let event = try take(frame) { events.append(event) }
    }
    let now = MonotonicClock.now()
    if now.since(lastHeard) > Self.silenceMax { throw Ended(reason: "the node is silent") }
    if now.since(lastSent) > .milliseconds(400) {
      var beat: [UInt8] = []
      beat.putFrame(Frame.heartbeat, 0, [])
      try write(beat)
    }
    return events
  }

  private func wait(for id: MethodID) throws(Ended) {
    let start = MonotonicClock.now()
    while true {
      while let frame = nextFrame() {
        if frame.type == Frame.method, frame.method == id.rawValue { return }
        _ = try take(frame)
      }
      try read(within: .milliseconds(100))
      let now = MonotonicClock.now()
      if now.since(lastHeard) > Self.silenceMax || now.since(start) > Self.answerMax {
        throw Ended(reason: "no answer: \(id.name) was expected")
      }
    }
  }

  private struct Received {
    let type: UInt8
    let payload: [UInt8]

    /// Class and method.
    var method: UInt32 { payload.count >= 4 ? payload.bigEndian(at: 0, bytes: 4) : 0 }
  }

  private func nextFrame() -> Received? {
    guard received.count >= Frame.overheadBytes else { return nil }
    let count: Int = received.bigEndian(at: 3, bytes: 4)
    guard received.count >= count + Frame.overheadBytes else { return nil }
    let frame = Received(
      type: received[0],
      payload: Array(received[Frame.headerBytes..<Frame.headerBytes + count]))
    received.removeFirst(count + Frame.overheadBytes)
    return frame
  }

  private func take(_ frame: Received) throws(Ended) -> Event? {
    switch frame.type {
    case Frame.method: return try takeMethod(frame)
    case Frame.header:
      incoming?.left = frame.payload.bigEndian(at: 4, bytes: 8)
      return delivered()
    case Frame.body:
      incoming?.body += frame.payload
      incoming?.left -= frame.payload.count
      return delivered()
    default: return nil
    }
  }

  private func delivered() -> Event? {
    guard let whole = incoming, whole.left == 0 else { return nil }
    incoming = nil
    return .deliver(tag: whole.tag, isRedelivered: whole.isRedelivered, body: whole.body)
  }

  private func takeMethod(_ frame: Received) throws(Ended) -> Event? {
    guard frame.payload.count >= 4 else { throw Ended(reason: "a method without a number") }
    let id = MethodID(rawValue: frame.method)
    // A channel that is closed, after a lease that ran out for one, gets nothing any more, however long
    // the node says that it is there.
    if let id, id == .channelClose || id == .connectionClose {
      throw Ended(reason: "the node said \(id.name)")
    }
    let result: Result<Event?, MethodError> = frame.payload.withUnsafeBytes { bytes in
      var fields = MethodReader(UnsafeRawBufferPointer(rebasing: bytes[4...]))
      do throws(MethodError) {
        return .success(try self.event(id, &fields))
      } catch {
        return .failure(error)
      }
    }
    switch result {
    case .success(let event): return event
    case .failure(let error): throw Ended(reason: "a method that is none: \(error)")
    }
  }

  private func event(
    _ id: MethodID?, _ fields: inout MethodReader
  ) throws(MethodError) -> Event? {
    switch id {
    case .basicDeliver:
      let deliver = try BasicDeliver(&fields)
      // How long the body is says the header.
      incoming = (deliver.deliveryTag, deliver.redelivered, -1, [])
      return nil
    case .basicAck:
      let ack = try BasicAck(&fields)
      return .confirm(tag: ack.deliveryTag, isMultiple: ack.multiple, isStored: true)
    case .basicNack:
      let nack = try BasicNack(&fields)
      return .confirm(tag: nack.deliveryTag, isMultiple: nack.multiple, isStored: false)
    default: return nil
    }
  }

  // MARK: The socket

  private static func dial(_ address: String) throws(Ended) -> Int32 {
    let parts = address.split(separator: ":")
    guard parts.count == 2, let port = UInt16(parts[1]) else {
      throw Ended(reason: "\(address) is no address")
    }
    let socket = Glibc.socket(
      AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw Ended(reason: "no socket") }
    var target = sockaddr_in()
    target.sin_family = sa_family_t(AF_INET)
    target.sin_port = port.bigEndian
    inet_pton(AF_INET, String(parts[0]), &target.sin_addr)
    // Neither connecting nor writing may take for ever.
    var limit = timeval(tv_sec: 2, tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    var one: Int32 = 1
    setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
    // SAFETY: a sockaddr_in is what the kernel reads as a sockaddr of its family.
    let result = withUnsafePointer(to: &target) { own in
      own.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result == 0 else {
      close(socket)
      throw Ended(reason: "\(address): \(String(cString: strerror(errno)))")
    }
    return socket
  }

  private func send(channel: UInt16, _ encode: (inout [UInt8]) -> Void) throws(Ended) {
    var output: [UInt8] = []
    encode(&output)
    try write(output)
  }

  private func write(_ bytes: [UInt8]) throws(Ended) {
    lastSent = MonotonicClock.now()
    var offset = 0
    while offset < bytes.count {
      // SAFETY: send(2) only reads the bytes from the offset on.
      let count = bytes.withUnsafeBytes {
        Glibc.send(
          socket, $0.baseAddress.map { $0 + offset }, bytes.count - offset,
          Int32(MSG_NOSIGNAL))
      }
      if count > 0 {
        offset += count
      } else if errno != EINTR {
        throw Ended(reason: String(cString: strerror(errno)))
      }
    }
  }

  private func read(within time: Nanoseconds) throws(Ended) {
    var waiting = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
    guard poll(&waiting, 1, Int32(clamping: (time.rawValue + 999_999) / 1_000_000)) > 0 else {
      return
    }
    var piece = [UInt8](repeating: 0, count: 64 << 10)
    let count = recv(socket, &piece, piece.count, 0)
    if count > 0 {
      lastHeard = MonotonicClock.now()
      received += piece[..<count]
    } else if count == 0 || errno != EINTR {
      throw Ended(reason: "the connection ended")
    }
  }

  /// Calls `body` with the bytes of each of the texts.
  private static func borrowing(
    _ texts: [[UInt8]], _ body: ([UnsafeRawBufferPointer]) -> Void
  ) {
    func next(_ place: Int, _ borrowed: [UnsafeRawBufferPointer]) {
      if place == texts.count { return body(borrowed) }
      texts[place].withUnsafeBytes { next(place + 1, borrowed + [$0]) }
    }
    next(0, [])
  }
}

extension [UInt8] {
  fileprivate mutating func putBigEndian(_ value: UInt64, bytes: Int) {
    for place in (0..<bytes).reversed() {
      append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(place))))
    }
  }

  fileprivate mutating func putFrame(_ type: UInt8, _ channel: UInt16, _ payload: [UInt8]) {
    append(type)
    putBigEndian(UInt64(channel), bytes: 2)
    putBigEndian(UInt64(payload.count), bytes: 4)
    append(contentsOf: payload)
    append(Frame.end)
  }

  fileprivate func bigEndian<Value: FixedWidthInteger>(at offset: Int, bytes: Int) -> Value {
    self[offset..<offset + bytes].reduce(0) { $0 << 8 | Value($1) }
  }
}
