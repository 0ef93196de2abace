// What AMQP gateways tell the machine. The layout of the frame is in Commands.swift; text is behind a
// 16-bit length.

import Base

/// What an exchange, a queue or a binding belongs to and what it is called.
package struct TopologyName: Hashable, Sendable {
  package var host: VirtualHostID
  package var name: String

  package init(_ name: String, in host: VirtualHostID = .main) {
    self.host = host
    self.name = name
  }
}

/// What a queue is declared with by an AMQP client.
package struct QueueOrder: Hashable, Sendable {
  package var name: TopologyName
  /// Only asks whether it is there.
  package var isPassive = false
  package var isDurable = true
  package var isExclusive = false
  package var isAutoDelete = false
  package var settings = QueueSettings()
  /// Where dead letters go: nil for nowhere, empty for the default exchange.
  package var deadLetterExchange: String?
  /// nil: the message's own.
  package var deadLetterKey: [UInt8]?
  /// A field table without its length, kept as it is.
  package var arguments: [UInt8] = []

  package init(_ name: TopologyName) { self.name = name }
}

/// What an exchange is declared with.
package struct ExchangeOrder: Hashable, Sendable {
  package var name: TopologyName
  package var isPassive = false
  package var settings: ExchangeSettings

  package init(_ name: TopologyName, _ settings: ExchangeSettings) {
    self.name = name
    self.settings = settings
  }
}

/// A binding to be made or to go.
package struct BindingOrder: Hashable, Sendable {
  package var source: TopologyName
  /// In the same virtual host.
  package var target: BindingTarget
  package var key: [UInt8]
  /// A field table without its length.
  package var arguments: [UInt8]

  package init(
    source: TopologyName, target: BindingTarget, key: [UInt8], arguments: [UInt8] = []
  ) {
    self.source = source
    self.target = target
    self.key = key
    self.arguments = arguments
  }
}

/// Messages for an exchange.
package struct RouteOrder: Hashable, Sendable {
  package var exchange: TopologyName
  /// The routing key, then what the message names in CC and BCC.
  package var keys: [[UInt8]]
  /// What reaches no queue is told as `.unroutable`; without it such messages are forgotten and
  /// count as stored.
  package var isMandatory: Bool

  package init(exchange: TopologyName, keys: [[UInt8]], isMandatory: Bool = false) {
    self.exchange = exchange
    self.keys = keys
    self.isMandatory = isMandatory
  }
}

extension CommandWriter {
  /// Begins a bundle: what is written until `endRelay` is carried out once, in one entry, and only
  /// directly behind the bundle before it.
  ///
  /// - Parameters:
  ///   - process: drawn by the node's process when it started. The first bundle of a new process
  ///     ends the AMQP sessions of the one before.
  ///   - sequence: of the bundle, from 1.
  /// - Returns: what `endRelay` wants.
  package static func beginRelay(
    from node: NodeID, process: UInt64, sequence: UInt64, into payload: inout [UInt8]
  ) -> Int {
    let start = begin(.relay, &payload)
    payload.put(node)
    payload.put(process)
    payload.put(sequence)
    return start
  }

  package static func endRelay(_ start: Int, into payload: inout [UInt8]) { end(start, &payload) }

  /// The node is gone for good or for too long: its AMQP sessions end, what they hold counts as
  /// failed. Comes from the leader.
  package static func endNodeSessions(_ node: NodeID, into payload: inout [UInt8]) {
    let start = begin(.endNodeSessions, &payload)
    payload.put(node)
    end(start, &payload)
  }

  /// The session's connection was lost: what it holds goes back at once and counts as failed.
  package static func loseSession(_ session: SessionID, into payload: inout [UInt8]) {
    let start = begin(.loseSession, &payload)
    payload.put(session)
    end(start, &payload)
  }

  package static func declareExchange(
    _ requester: Requester, tag: RequestTag, _ order: ExchangeOrder, into payload: inout [UInt8]
  ) {
    let start = begin(.declareExchange, requester, tag, order.name, &payload)
    payload.put(
      flags([
        order.isPassive, order.settings.isDurable, order.settings.isAutoDelete,
        order.settings.isInternal,
      ]))
    payload.put(order.settings.kind.rawValue)
    payload.putShortText(order.settings.alternate)
    end(start, &payload)
  }

  package static func deleteExchange(
    _ requester: Requester, tag: RequestTag, _ name: TopologyName, ifUnused: Bool,
    into payload: inout [UInt8]
  ) {
    let start = begin(.deleteExchange, requester, tag, name, &payload)
    payload.put(flags([ifUnused]))
    end(start, &payload)
  }

  package static func bind(
    _ requester: Requester, tag: RequestTag, _ order: BindingOrder, into payload: inout [UInt8]
  ) {
    put(.bind, requester, tag, order, &payload)
  }

  package static func unbind(
    _ requester: Requester, tag: RequestTag, _ order: BindingOrder, into payload: inout [UInt8]
  ) {
    put(.unbind, requester, tag, order, &payload)
  }

  private static func put(
    _ kind: CommandKind, _ requester: Requester, _ tag: RequestTag, _ order: BindingOrder,
    _ payload: inout [UInt8]
  ) {
    let start = begin(kind, requester, tag, order.source, &payload)
    switch order.target {
    case .queue(let name):
      payload.put(UInt8(0))
      payload.putShortText(name)
    case .exchange(let name):
      payload.put(UInt8(1))
      payload.putShortText(name)
    }
    putShortBytes(order.key, &payload)
    payload.putLongBytes(order.arguments)
    end(start, &payload)
  }

  /// Declares a queue as AMQP knows it. The answer is `TopologyReply.queueDeclared`.
  package static func declareQueue(
    _ requester: Requester, tag: RequestTag, _ order: QueueOrder, into payload: inout [UInt8]
  ) {
    let start = begin(.orderQueue, requester, tag, order.name, &payload)
    payload.put(
      flags([
        order.isPassive, order.isDurable, order.isAutoDelete, order.isExclusive,
        order.deadLetterExchange != nil, order.deadLetterKey != nil,
      ]))
    order.settings.encode(into: &payload)
    payload.putShortText(order.deadLetterExchange ?? "")
    putShortBytes(order.deadLetterKey ?? [], &payload)
    payload.putLongBytes(order.arguments)
    end(start, &payload)
  }

  package static func deleteQueue(
    _ requester: Requester, tag: RequestTag, _ name: TopologyName, ifUnused: Bool, ifEmpty: Bool,
    into payload: inout [UInt8]
  ) {
    let start = begin(.dropQueue, requester, tag, name, &payload)
    payload.put(flags([ifUnused, ifEmpty]))
    end(start, &payload)
  }

  package static func purgeQueue(
    _ requester: Requester, tag: RequestTag, _ name: TopologyName, into payload: inout [UInt8]
  ) {
    end(begin(.clearQueue, requester, tag, name, &payload), &payload)
  }

  /// Publishes the `count` records of `run` to an exchange. The answer comes as one or several
  /// effects with this tag, in the order of the records.
  package static func route(
    _ session: SessionID, tag: RequestTag, _ order: RouteOrder, count: UInt32,
    run: UnsafeRawBufferPointer, into payload: inout [UInt8]
  ) {
    let start = begin(.route, .session(session), tag, order.exchange, &payload)
    payload.put(flags([order.isMandatory]))
    payload.put(UInt16(order.keys.count))
    for key in order.keys { putShortBytes(key, &payload) }
    payload.put(count)
    payload.append(contentsOf: run)
    end(start, &payload)
  }

  /// Subscribes by name.
  package static func consume(
    _ session: SessionID, tag: RequestTag, consumer: ConsumerID, queue: TopologyName,
    credit: UInt32, isExclusive: Bool, into payload: inout [UInt8]
  ) {
    let start = begin(.consume, .session(session), tag, queue, &payload)
    payload.put(consumer)
    payload.put(credit)
    payload.put(flags([isExclusive]))
    end(start, &payload)
  }

  /// Takes the next message, if there is one. What is taken is held by `consumer`, which takes
  /// nothing else by itself and lasts while it holds something.
  package static func take(
    _ session: SessionID, tag: RequestTag, consumer: ConsumerID, queue: TopologyName,
    into payload: inout [UInt8]
  ) {
    let start = begin(.take, .session(session), tag, queue, &payload)
    payload.put(consumer)
    end(start, &payload)
  }

  /// Begins a transaction: the settles and publishes that follow until `endCommit` happen together
  /// or, if one of the publishes cannot be carried out, none of them does.
  ///
  /// - Returns: what `endCommit` wants.
  package static func beginCommit(
    _ session: SessionID, tag: RequestTag, into payload: inout [UInt8]
  ) -> Int {
    begin(.commit, .session(session), tag, TopologyName(""), &payload)
  }

  package static func endCommit(_ start: Int, into payload: inout [UInt8]) {
    end(start, &payload)
  }

  /// Answered when everything before it is carried out.
  package static func mark(
    _ session: SessionID, tag: RequestTag, into payload: inout [UInt8]
  ) {
    end(begin(.mark, .session(session), tag, TopologyName(""), &payload), &payload)
  }

  package static func addVirtualHost(
    _ requester: Requester, tag: RequestTag, name: String, into payload: inout [UInt8]
  ) {
    end(begin(.addVirtualHost, requester, tag, TopologyName(name), &payload), &payload)
  }

  /// Sets a user's password; an empty hash removes the user.
  package static func setUser(
    _ requester: Requester, tag: RequestTag, name: String, salt: [UInt8], hash: [UInt8],
    into payload: inout [UInt8]
  ) {
    let start = begin(.setUser, requester, tag, TopologyName(name), &payload)
    payload.putLongBytes(salt)
    payload.putLongBytes(hash)
    end(start, &payload)
  }

  /// Every command but the bundle's own begins alike.
  private static func begin(
    _ kind: CommandKind, _ requester: Requester, _ tag: RequestTag, _ name: TopologyName,
    _ payload: inout [UInt8]
  ) -> Int {
    let start = begin(kind, &payload)
    put(requester, &payload)
    payload.put(tag)
    payload.put(name.host)
    payload.putShortText(name.name)
    return start
  }

  private static func putShortBytes(_ bytes: [UInt8], _ payload: inout [UInt8]) {
    invariant(bytes.count <= UInt16.max, "a key of \(bytes.count) bytes")
    payload.put(UInt16(bytes.count))
    payload.append(contentsOf: bytes)
  }

  private static func flags(_ bits: [Bool]) -> UInt8 {
    bits.enumerated().reduce(0) { $0 | ($1.element ? 1 << UInt8($1.offset) : 0) }
  }
}

// Reading them back.

/// What every command of the topology begins with.
struct TopologyHead {
  var requester: Requester
  var tag: RequestTag
  var name: TopologyName

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    requester = try Requester(decoding: &reader)
    tag = try reader.identifier()
    let host = try reader.identifier(VirtualHostID.self)
    name = TopologyName(try reader.shortText(), in: host)
  }

  var session: SessionID {
    if case .session(let session) = requester { session } else { .none }
  }
}

private struct Flags {
  let bits: UInt8
  init(_ reader: inout ByteReader) throws(ByteReaderError) { bits = try reader.integer() }
  subscript(place: UInt8) -> Bool { bits & 1 << place != 0 }
}

struct DeclareExchange {
  var head: TopologyHead
  var isPassive: Bool
  var settings: ExchangeSettings

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    head = try TopologyHead(&reader)
    let flags = try Flags(&reader)
    isPassive = flags[0]
    settings = ExchangeSettings(
      kind: try reader.kind(), isDurable: flags[1], isAutoDelete: flags[2], isInternal: flags[3])
    settings.alternate = try reader.shortText()
  }
}

struct DeleteExchange {
  var head: TopologyHead
  var ifUnused: Bool

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    head = try TopologyHead(&reader)
    ifUnused = try Flags(&reader)[0]
  }
}

struct ChangeBinding {
  var head: TopologyHead
  var target: BindingTarget
  var key: [UInt8]
  var arguments: [UInt8]

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    head = try TopologyHead(&reader)
    let leadsToExchange = try Flags(&reader)[0]
    let name = try reader.shortText()
    target = leadsToExchange ? .exchange(name) : .queue(name)
    key = try reader.shortBytes()
    arguments = try reader.longBytes()
  }
}

struct OrderQueue {
  var head: TopologyHead
  var order: QueueOrder

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    head = try TopologyHead(&reader)
    order = QueueOrder(head.name)
    let flags = try Flags(&reader)
    order.isPassive = flags[0]
    order.isDurable = flags[1]
    order.isAutoDelete = flags[2]
    order.isExclusive = flags[3]
    order.settings = try QueueSettings(decoding: &reader)
    let exchange = try reader.shortText()
    order.deadLetterExchange = flags[4] ? exchange : nil
    let key = try reader.shortBytes()
    order.deadLetterKey = flags[5] ? key : nil
    order.arguments = try reader.longBytes()
  }
}

struct DropQueue {
  var head: TopologyHead
  var ifUnused: Bool
  var ifEmpty: Bool

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    head = try TopologyHead(&reader)
    let flags = try Flags(&reader)
    (ifUnused, ifEmpty) = (flags[0], flags[1])
  }
}

struct Route {
  var head: TopologyHead
  var isMandatory: Bool
  var keys: [[UInt8]] = []
  var count: UInt32
  var run: UnsafeRawBufferPointer
  /// Where the run begins in the payload.
  var runOffset: Int

  init(_ reader: inout ByteReader, at offset: Int) throws(ByteReaderError) {
    head = try TopologyHead(&reader)
    isMandatory = try Flags(&reader)[0]
    let keyCount = Int(try reader.integer(UInt16.self))
    for _ in 0..<keyCount { keys.append(try reader.shortBytes()) }
    count = try reader.integer()
    runOffset = offset + reader.offset
    run = try reader.take(reader.remaining)
  }

  var isSound: Bool {
    (1...TopologyLimits.keysPerMessage).contains(keys.count)
      && Publish.isWhole(run, count: Int(count))
  }
}

struct Consume {
  var head: TopologyHead
  var consumer: ConsumerID
  var credit: UInt32
  var isExclusive: Bool

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    head = try TopologyHead(&reader)
    consumer = try reader.identifier()
    credit = try reader.integer()
    isExclusive = try Flags(&reader)[0]
  }
}

struct Take {
  var head: TopologyHead
  var consumer: ConsumerID

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    head = try TopologyHead(&reader)
    consumer = try reader.identifier()
  }
}

struct SetUser {
  var head: TopologyHead
  var salt: [UInt8]
  var hash: [UInt8]

  init(_ reader: inout ByteReader) throws(ByteReaderError) {
    head = try TopologyHead(&reader)
    salt = try reader.longBytes()
    hash = try reader.longBytes()
  }
}

/// A transaction of an AMQP session: settles and publishes.
struct Commit {
  var head: TopologyHead
  let commands: CommandFrames

  /// - Parameter frame: its commands keep their places in the payload.
  init(_ frame: CommandFrame) throws(ByteReaderError) {
    var reader = ByteReader(frame.fields)
    head = try TopologyHead(&reader)
    commands = frame.inner(from: reader.offset)
  }
}

extension CommandFrame {
  /// The commands within this one, from `offset` of its fields on; they keep their places in the
  /// payload.
  func inner(from offset: Int) -> CommandFrames {
    // SAFETY: the fields lie at `self.offset` of the payload, which the caller keeps alive.
    let whole = UnsafeRawBufferPointer(
      start: fields.baseAddress.map { $0 - self.offset }, count: self.offset + fields.count)
    return CommandFrames(whole, from: self.offset + offset)
  }
}

/// A bundle that a gateway passed on.
struct Relay {
  var node: NodeID
  var process: UInt64
  var sequence: UInt64
  let commands: CommandFrames

  /// - Parameter frame: its commands keep their places in the payload.
  init(_ frame: CommandFrame) throws(ByteReaderError) {
    var reader = ByteReader(frame.fields)
    node = try reader.identifier()
    process = try reader.integer()
    sequence = try reader.integer()
    commands = frame.inner(from: reader.offset)
  }
}

extension ByteReader {
  /// Bytes behind a 16-bit length.
  fileprivate mutating func shortBytes() throws(ByteReaderError) -> [UInt8] {
    let count = Int(try integer(UInt16.self))
    return try array(count)
  }
}
