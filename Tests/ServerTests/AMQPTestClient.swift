// An AMQP client of a few lines, written from the specification and not from the node's own codec: it
// blocks, and knows no more than the tests need.

import Base
import Foundation
import Glibc
import Testing

final class AMQPTestClient {
  struct Failure: Error, Hashable, CustomStringConvertible {
    var description: String
  }

  struct Method: Hashable {
    var channel: UInt16
    var classID: UInt16
    var methodID: UInt16
    var arguments: [UInt8]

    /// A short string of the arguments.
    func shortText(at offset: Int) -> String {
      let count = Int(arguments[offset])
      return String(decoding: arguments[(offset + 1)..<(offset + 1 + count)], as: UTF8.self)
    }

    func number(at offset: Int, bytes: Int) -> UInt64 {
      arguments[offset..<offset + bytes].reduce(0) { $0 << 8 | UInt64($1) }
    }
  }

  struct Message: Hashable {
    /// basic.deliver, basic.get-ok or basic.return.
    var method: Method
    var body: String

    var tag: UInt64 {
      // In a delivery it stands behind the consumer tag.
      let offset = method.methodID == 60 ? 1 + Int(method.arguments[0]) : 0
      return method.number(at: offset, bytes: 8)
    }
    var isRedelivered: Bool {
      let offset = method.methodID == 60 ? 1 + Int(method.arguments[0]) : 0
      return method.arguments[offset + 8] & 1 != 0
    }
  }

  /// The channel that methods are sent on. Answers are taken from whichever they come.
  var channel: UInt16 = 1
  /// Called instead of blocking, where the node runs in the same thread.
  var whileWaiting: (() -> Void)?
  /// So many calls without a byte are a hang.
  private static let waitsMax = 500
  private let descriptor: Int32
  private var inbound: [UInt8] = []
  /// Confirmed publishes: the highest tag.
  private(set) var confirmed: UInt64 = 0
  private(set) var messages: [Message] = []
  /// connection.blocked was said, and unblocked not yet.
  private(set) var isBlocked = false
  /// Heartbeats that have come.
  private(set) var heartbeats = 0
  private var methods: [Method] = []
  private var openContent: (method: Method, size: Int, body: [UInt8])?

  init(port: UInt16) throws {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    // Nothing here takes so long; a broken node must not hang the tests.
    var patience = timeval(tv_sec: 30, tv_usec: 0)
    setsockopt(
      descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result == 0 else { throw Failure(description: "cannot connect: \(errno)") }
    // What is sent is there at once.
    var isOn: Int32 = 1
    setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &isOn, socklen_t(4))
  }

  deinit { close(descriptor) }

  /// From the protocol header to an open channel 1.
  /// - Parameter heartbeat: seconds; 0 for none.
  func open(
    user: String = "guest", password: String = "guest", vhost: String = "/", heartbeat: UInt8 = 0
  ) throws {
    try sendLogin(user, password)
    try awaitLogin(heartbeat: heartbeat)
    try sendOpen(vhost)
    _ = try expect(10, 41)
    try call(1, 20, 10, [0])
    _ = try expect(20, 11)
  }

  /// From the protocol header to connection.start-ok.
  func sendLogin(_ user: String, _ password: String) throws {
    try write([UInt8]("AMQP".utf8) + [0, 0, 9, 1])
    _ = try expect(10, 10)
    let login = "\0\(user)\0\(password)"
    let capabilities = [
      "connection.blocked", "consumer_cancel_notify", "authentication_failure_close",
    ].flatMap { short($0) + [UInt8(ascii: "t"), 1] }
    let properties =
      short("capabilities") + [UInt8(ascii: "F")] + big(UInt64(capabilities.count), 4)
      + capabilities
    try call(
      0, 10, 11,
      big(UInt64(properties.count), 4) + properties + short("PLAIN") + long(login) + short("en_US"))
  }

  /// Up to connection.tune-ok.
  func awaitLogin(heartbeat: UInt8 = 0) throws {
    _ = try expect(10, 30)
    try call(0, 10, 31, [7, 255, 0, 2, 0, 0, 0, heartbeat])
  }

  func sendOpen(_ vhost: String) throws { try call(0, 10, 40, short(vhost) + [0, 0]) }

  /// Opens another channel, on which methods are sent from now on.
  func openChannel(_ number: UInt16) throws {
    try call(number, 20, 10, [0])
    _ = try expect(20, 11)
    channel = number
  }

  // MARK: Methods

  /// - Parameters:
  ///   - flags: passive 1, durable 2, exclusive 4, auto-delete 8.
  ///   - arguments: numbers are sent as 32 bits; booleans are 0 and 1 behind their type.
  func declare(
    _ queue: String, flags: UInt8 = 0b10, arguments: [(String, UInt32)] = []
  ) throws -> UInt64 {
    var table: [UInt8] = []
    for (name, value) in arguments {
      let isFlag = name == "x-single-active-consumer"
      table += short(name) + [UInt8(ascii: isFlag ? "t" : "I")] + big(UInt64(value), isFlag ? 1 : 4)
    }
    let end = [flags] + big(UInt64(table.count), 4) + table
    try call(channel, 50, 10, [0, 0] + short(queue) + end)
    let reply = try expect(50, 11)
    return reply.number(at: 1 + Int(reply.arguments[0]), bytes: 4)
  }

  /// An entry of a table: a name and a text.
  func entry(_ name: String, _ text: String) -> [UInt8] {
    short(name) + [UInt8(ascii: "S")] + long(text)
  }

  private func table(_ entries: [UInt8]) -> [UInt8] { big(UInt64(entries.count), 4) + entries }

  /// - Parameter flags: passive 1, durable 2, auto-delete 4, internal 8.
  func declareExchange(
    _ name: String, _ kind: String, flags: UInt8 = 0b10, arguments: [UInt8] = []
  ) throws {
    try call(channel, 40, 10, [0, 0] + short(name) + short(kind) + [flags] + table(arguments))
    _ = try expect(40, 11)
  }

  func bind(
    _ queue: String, to exchange: String, key: String, arguments: [UInt8] = []
  ) throws {
    let names = short(queue) + short(exchange) + short(key)
    try call(channel, 50, 20, [0, 0] + names + [0] + table(arguments))
    _ = try expect(50, 21)
  }

  func unbind(
    _ queue: String, from exchange: String, key: String, arguments: [UInt8] = []
  ) throws {
    let names = short(queue) + short(exchange) + short(key)
    try call(channel, 50, 50, [0, 0] + names + table(arguments))
    _ = try expect(50, 51)
  }

  func bindExchange(_ target: String, to source: String, key: String) throws {
    try call(
      channel, 40, 30, [0, 0] + short(target) + short(source) + short(key) + [0] + table([]))
    _ = try expect(40, 31)
  }

  func unbindExchange(_ target: String, from source: String, key: String) throws {
    try call(
      channel, 40, 40, [0, 0] + short(target) + short(source) + short(key) + [0] + table([]))
    _ = try expect(40, 51)
  }

  func selectConfirms() throws {
    try call(channel, 85, 10, [0])
    _ = try expect(85, 11)
  }

  /// - Parameter headers: the entries of a table; none if it is empty.
  func publish(
    _ body: String, to exchange: String = "", key: String, mandatory: Bool = false,
    headers: [UInt8] = []
  ) throws {
    let properties =
      headers.isEmpty ? [0, 0] : [0x20, 0] + big(UInt64(headers.count), 4) + headers
    try write(
      method(channel, 60, 40, [0, 0] + short(exchange) + short(key) + [mandatory ? 1 : 0])
        + frame(2, channel, [0, 60, 0, 0] + big(UInt64(body.utf8.count), 8) + properties)
        + (body.isEmpty ? [] : frame(3, channel, [UInt8](body.utf8))))
  }

  /// Begins a message of `size` bytes and sends the first `count` of them.
  func beginPublish(of size: Int, sending count: Int, key: String) throws {
    try write(
      method(channel, 60, 40, [0, 0] + short("") + short(key) + [0])
        + frame(2, channel, [0, 60, 0, 0] + big(UInt64(size), 8) + [0, 0]))
    try goOnPublishing(count)
  }

  func goOnPublishing(_ count: Int) throws {
    try write(frame(3, channel, [UInt8](repeating: 0x78, count: count)))
  }

  /// Whether the publish was confirmed; false if the broker said that it takes none.
  func awaitConfirmUnlessBlocked(_ tag: UInt64) throws -> Bool {
    while confirmed < tag {
      if isBlocked { return false }
      try takeFrame()
    }
    return true
  }

  func awaitUnblocked() throws { while isBlocked { try takeFrame() } }

  func awaitConfirms(through tag: UInt64) throws {
    while confirmed < tag { try takeFrame() }
  }

  func get(_ queue: String, noAck: Bool = false) throws -> Message? {
    try call(channel, 60, 70, [0, 0] + short(queue) + [noAck ? 1 : 0])
    let before = messages.count
    while true {
      if messages.count > before { return messages.removeLast() }
      if let place = methods.firstIndex(where: { $0.classID == 60 && $0.methodID == 72 }) {
        methods.remove(at: place)
        return nil
      }
      try takeFrame()
    }
  }

  func consume(_ queue: String, prefetch: UInt16) throws {
    try call(channel, 60, 10, [0, 0, 0, 0] + big(UInt64(prefetch), 2) + [0])
    _ = try expect(60, 11)
    try consume(queue)
  }

  /// - Returns: the consumer's tag.
  @discardableResult func consume(
    _ queue: String, noAck: Bool = false, arguments: [UInt8] = []
  ) throws -> String {
    try call(
      channel, 60, 20, [0, 0] + short(queue) + short("") + [noAck ? 2 : 0] + table(arguments))
    return try expect(60, 21).shortText(at: 0)
  }

  func cancel(_ tag: String) throws {
    try call(channel, 60, 30, short(tag) + [0])
    _ = try expect(60, 31)
  }

  func limitChannel(to count: UInt16) throws {
    try call(channel, 60, 10, [0, 0, 0, 0] + big(UInt64(count), 2) + [1])
    _ = try expect(60, 11)
  }

  func selectTransactions() throws {
    try call(channel, 90, 10, [])
    _ = try expect(90, 11)
  }

  func commit() throws {
    try call(channel, 90, 20, [])
    _ = try expect(90, 21)
  }

  func rollBack() throws {
    try call(channel, 90, 30, [])
    _ = try expect(90, 31)
  }

  /// Is gone without a word: by an orderly end of the stream, or by a reset.
  func vanish(byReset: Bool) {
    if byReset {
      var atOnce = linger(l_onoff: 1, l_linger: 0)
      setsockopt(
        descriptor, SOL_SOCKET, SO_LINGER, &atOnce, socklen_t(MemoryLayout<linger>.size))
    } else {
      shutdown(descriptor, Int32(SHUT_RDWR))
    }
  }

  func delete(_ queue: String) throws {
    try call(channel, 50, 40, [0, 0] + short(queue) + [0])
    _ = try expect(50, 41)
  }

  /// With requeue.
  func reject(_ tag: UInt64) throws { try call(channel, 60, 90, big(tag, 8) + [1]) }

  func ack(_ tag: UInt64) throws { try call(channel, 60, 80, big(tag, 8) + [0]) }

  /// Everything up to the tag.
  func ackAll(through tag: UInt64) throws { try call(channel, 60, 80, big(tag, 8) + [1]) }

  func takeMessages(_ count: Int) throws -> [Message] {
    while messages.count < count { try takeFrame() }
    defer { messages.removeFirst(count) }
    return Array(messages.prefix(count))
  }

  func closeConnection() throws {
    try call(0, 10, 50, [0, 200] + short("bye") + [0, 0, 0, 0])
    _ = try expect(10, 51)
  }

  /// Whether such a method has come and was not asked for yet.
  func has(_ classID: UInt16, _ methodID: UInt16) -> Bool {
    methods.contains { $0.classID == classID && $0.methodID == methodID }
  }

  /// How many such methods have come and were not asked for yet.
  func methods(_ classID: UInt16, _ methodID: UInt16) -> Int {
    methods.count { $0.classID == classID && $0.methodID == methodID }
  }

  // MARK: Frames

  func call(_ channel: UInt16, _ classID: UInt16, _ methodID: UInt16, _ arguments: [UInt8]) throws {
    try write(method(channel, classID, methodID, arguments))
  }

  /// The next method of that kind; a close that is not it is an error.
  func expect(_ classID: UInt16, _ methodID: UInt16) throws -> Method {
    while true {
      if let place = methods.firstIndex(where: { $0.classID == classID && $0.methodID == methodID })
      {
        return methods.remove(at: place)
      }
      let close = methods.first {
        $0.methodID == 50 && $0.classID == 10 || $0.methodID == 40 && $0.classID == 20
      }
      if let close {
        throw Failure(
          description: "closed: \(close.number(at: 0, bytes: 2)) \(close.shortText(at: 2))")
      }
      try takeFrame()
    }
  }

  private func takeFrame() throws {
    while true {
      if inbound.count >= 7 {
        let size = inbound[3..<7].reduce(0) { $0 << 8 | Int($1) }
        if inbound.count >= 8 + size {
          let kind = inbound[0]
          let channel = UInt16(inbound[1]) << 8 | UInt16(inbound[2])
          let payload = [UInt8](inbound[7..<7 + size])
          inbound.removeFirst(8 + size)
          take(kind, channel, payload)
          return
        }
      }
      try takeBytes()
    }
  }

  private func takeBytes() throws {
    var buffer = [UInt8](repeating: 0, count: 65_536)
    for _ in 0..<Self.waitsMax {
      let flags = whileWaiting == nil ? 0 : Int32(MSG_DONTWAIT)
      let count = recv(descriptor, &buffer, buffer.count, flags)
      if count > 0 {
        inbound += buffer.prefix(count)
        return
      }
      guard count < 0, errno == EAGAIN, let whileWaiting else {
        throw Failure(description: "connection ended: \(count) \(errno)")
      }
      whileWaiting()
    }
    throw Failure(description: "nothing comes")
  }

  private func take(_ kind: UInt8, _ channel: UInt16, _ payload: [UInt8]) {
    switch kind {
    case 1:
      let method = Method(
        channel: channel, classID: UInt16(payload[0]) << 8 | UInt16(payload[1]),
        methodID: UInt16(payload[2]) << 8 | UInt16(payload[3]), arguments: Array(payload[4...]))
      switch (method.classID, method.methodID) {
      case (60, 80): confirmed = max(confirmed, method.number(at: 0, bytes: 8))
      case (60, 50), (60, 60), (60, 71): openContent = (method, 0, [])
      case (10, 60): isBlocked = true
      case (10, 61): isBlocked = false
      default: methods.append(method)
      }
    case 2:
      openContent?.size = payload[4..<12].reduce(0) { $0 << 8 | Int($1) }
      finishContent()
    case 3:
      openContent?.body += payload
      finishContent()
    case 8: heartbeats += 1
    default: break
    }
  }

  private func finishContent() {
    guard let content = openContent, content.body.count == content.size else { return }
    messages.append(
      Message(method: content.method, body: String(decoding: content.body, as: UTF8.self)))
    openContent = nil
  }

  private func write(_ bytes: [UInt8]) throws {
    let sent = try writeSome(bytes)
    guard sent == bytes.count else { throw Failure(description: "nothing is read") }
  }

  /// Writes until all is written, or nobody reads any more where somebody else must turn the loop.
  ///
  /// - Returns: how many bytes were written.
  @discardableResult func writeSome(_ bytes: [UInt8]) throws -> Int {
    var sent = 0
    var waits = 0
    let flags =
      Int32(MSG_NOSIGNAL) | (whileWaiting == nil ? 0 : Int32(MSG_DONTWAIT))
    while sent < bytes.count, waits < Self.waitsMax {
      let count = bytes[sent...].withUnsafeBytes {
        send(descriptor, $0.baseAddress, $0.count, flags)
      }
      if count > 0 {
        sent += count
        waits = 0
      } else if errno == EAGAIN, let whileWaiting {
        waits += 1
        whileWaiting()
      } else {
        throw Failure(description: "cannot send: \(errno)")
      }
    }
    return sent
  }

  func method(
    _ channel: UInt16, _ classID: UInt16, _ methodID: UInt16, _ arguments: [UInt8]
  ) -> [UInt8] {
    frame(1, channel, big(UInt64(classID), 2) + big(UInt64(methodID), 2) + arguments)
  }

  func frame(_ kind: UInt8, _ channel: UInt16, _ payload: [UInt8]) -> [UInt8] {
    [kind] + big(UInt64(channel), 2) + big(UInt64(payload.count), 4) + payload + [0xce]
  }

  func big(_ number: UInt64, _ bytes: Int) -> [UInt8] {
    (0..<bytes).reversed().map { UInt8(truncatingIfNeeded: number >> UInt64(8 * $0)) }
  }
  func short(_ text: String) -> [UInt8] { [UInt8(text.utf8.count)] + text.utf8 }
  private func long(_ text: String) -> [UInt8] { big(UInt64(text.utf8.count), 4) + text.utf8 }
}

/// An AMQP client of one node, with an open channel.
func connect(_ node: InProcessNode) throws -> AMQPTestClient {
  let client = try AMQPTestClient(port: try #require(node.configuration.amqpListen?.port))
  try client.open()
  return client
}

/// A cluster of one, and its node.
func single() throws -> (cluster: InProcessCluster, node: InProcessNode) {
  let cluster = try InProcessCluster(1)
  try cluster.startAll()
  return (cluster, cluster.nodes[0])
}
