import Base
import Testing

@testable import Wire

@Suite struct FrameTests {
  @Test(arguments: Side.allCases)
  func `Every frame survives a round trip`(side: Side) throws {
    for bytes in side.samples {
      #expect(try side.reencode(bytes) == bytes)
    }
  }

  @Test func `Every kind has a sample`() {
    let kinds = Set((Samples.allClientBytes + Samples.allServerBytes).map { $0[4] })
    #expect(kinds == Set(FrameKind.allCases.map(\.rawValue)))
  }

  @Test(arguments: Side.allCases)
  func `A frame cut anywhere is waited for, and cut with its length refused`(side: Side) throws {
    for bytes in side.samples {
      for end in 0..<bytes.count {
        let cut = Array(bytes[..<end])
        #expect(try side.reencode(cut) == nil)
        guard end >= Frame.headerBytes else { continue }
        var shortened = cut
        shortened.patch(UInt32(end - Frame.headerBytes), at: 0)
        #expect(throws: FrameError.self, "kind \(bytes[4]) cut at \(end)") {
          try side.reencode(shortened)
        }
      }
    }
  }

  @Test(arguments: Side.allCases)
  func `Bytes behind the last field are refused by name`(side: Side) throws {
    for bytes in side.samples {
      var longer = bytes + [0]
      longer.patch(UInt32(longer.count - Frame.headerBytes), at: 0)
      let kind = try #require(FrameKind(rawValue: bytes[4]))
      #expect(throws: FrameError.trailingBytes(kind, bytes: 1)) { try side.reencode(longer) }
    }
  }

  @Test(arguments: Side.allCases)
  func `A flipped bit never crashes, and what is still read is well formed`(side: Side) throws {
    for bytes in side.samples {
      for bit in 0..<bytes.count * 8 {
        var flipped = bytes
        flipped[bit / 8] ^= 1 << (bit % 8)
        // Refused or read: both are fine, as long as reading what was read again changes nothing.
        guard let read = try? side.reencode(flipped) else { continue }
        #expect(try side.reencode(read) == read)
      }
    }
  }

  @Test func `What only the other side sends is refused`() throws {
    #expect(throws: FrameError.unexpectedKind(.pong)) {
      try Side.client.reencode(Samples.bytes(ServerFrame.pong))
    }
    #expect(throws: FrameError.unexpectedKind(.ping)) {
      try Side.server.reencode(Samples.bytes(ClientFrame.ping))
    }
  }

  @Test func `An oversized frame is refused from its header alone, with both sizes`() throws {
    var header = Samples.bytes(ClientFrame.ping)
    header.patch(UInt32(1001), at: 0)
    #expect(throws: FrameError.oversized(bytes: 1001, limit: 1000)) {
      try Side.client.reencode(header, limit: 1000)
    }
    header.patch(UInt32(1000), at: 0)
    #expect(try Side.client.reencode(header, limit: 1000) == nil)
  }

  @Test func `Unknown versions and kinds are refused by name`() {
    var bytes = Samples.bytes(ClientFrame.ping)
    bytes[4] = 200
    #expect(throws: FrameError.unknownKind(200)) { try Side.client.reencode(bytes) }
    bytes[5] = 2
    #expect(throws: FrameError.unknownVersion(2)) { try Side.client.reencode(bytes) }
  }

  @Test func `A count that cannot be true makes no room`() {
    var bytes: [UInt8] = []
    let start = Frame.begin(.queueSummaries, in: &bytes)
    bytes.put(UInt32.max)
    Frame.finish(start, in: &bytes)
    #expect(throws: FrameError.self) { try Side.server.reencode(bytes) }
  }

  @Test func `Frames follow one another in the unread bytes`() throws {
    let bytes = Samples.bytes(ClientFrame.ping) + Samples.bytes(.hello(client: "x"))
    try bytes.withUnsafeBytes { all in
      let first = try #require(try FrameDecoder.next(in: all, limit: 100))
      #expect(first.kind == .ping && first.request == RequestID(5))
      let rest = UnsafeRawBufferPointer(rebasing: all[first.byteCount...])
      let second = try #require(try FrameDecoder.next(in: rest, limit: 100))
      #expect(second.kind == .hello && second.byteCount == rest.count)
    }
  }

  @Test func `The bytes of frames are these for ever`() {
    #expect(
      Samples.bytes(ClientFrame.ping, request: RequestID(0x0102)) == [
        0, 0, 0, 0, 2, 1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0,
      ])
    #expect(
      Samples.bytes(.resolveQueue(name: "ab"), request: RequestID(1)) == [
        4, 0, 0, 0, 6, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 97, 98,
      ])
    #expect(
      Samples.bytes(
        .confirmed(first: PublishSequence(3), count: 2, message: MessageID(9)), request: .none)
        == [
          24, 0, 0, 0, 70, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
          3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
        ])
    #expect(
      Samples.publishFrame(["Z"]).prefix(48) == [
        62, 0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        3, 0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0,
        9, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0,
      ])
  }

  @Test func `A text that is too long for people is cut at a character`() throws {
    let long = String(repeating: "ü", count: 3000)
    let bytes = Samples.bytes(.refused(.overloaded, detail: long, leader: ""))
    try bytes.withUnsafeBytes {
      let view = try #require(try FrameDecoder.next(in: $0, limit: 1 << 20))
      guard case .refused(_, let detail, _) = try ServerFrame(decoding: view) else {
        Issue.record("no refusal")
        return
      }
      #expect(detail == String(repeating: "ü", count: 2048))
    }
  }
}

@Suite struct RunTests {
  @Test func `A publish hands out its run untouched`() throws {
    try Samples.publishFrame(["a", "bb"]).withUnsafeBytes {
      let view = try #require(try FrameDecoder.next(in: $0, limit: 1 << 20))
      let publish = try PublishView(decoding: view)
      #expect(publish.count == 2 && publish.queue == QueueID(3))
      #expect(publish.first == PublishSequence(10) && publish.last == PublishSequence(11))
      #expect(Array(publish.run) == Samples.run(["a", "bb"]))
      #expect(try MessageRecord.check(publish.run, contentBytesMax: 1000) == 2)
    }
  }

  @Test func `A transaction hands out the run of each part`() throws {
    try Samples.transactFrame(["a", "bb"]).withUnsafeBytes {
      let view = try #require(try FrameDecoder.next(in: $0, limit: 1000))
      let transact = try TransactView(decoding: view)
      #expect(transact.count == 2 && transact.copies == 3 && transact.holder == SessionID(5))
      #expect(transact.parts.map(\.queues.count) == [2, 1])
      #expect(Array(transact.run(of: 0)) == Samples.run(["a"]))
      #expect(Array(transact.run(of: 1)) == Samples.run(["bb"]))
      #expect(transact.settles.map(\.kind) == [.acknowledge, .negative])
    }
  }

  @Test func `A transaction for no queue, for too many, or with too short runs is refused`() {
    func error(_ bytes: [UInt8]) -> FrameError? {
      do throws(FrameError) {
        _ = try Side.client.reencode(bytes)
        return nil
      } catch {
        return error
      }
    }
    #expect(
      error(Samples.transactFrame(copies: 0))
        == .invalidValue(.transact, field: "number of queues", value: 0))
    #expect(
      error(Samples.transactFrame(copies: 1025))
        == .invalidValue(.transact, field: "number of queues", value: 1025))
    #expect(error(Samples.transactFrame(copies: 1024)) == nil)
    guard case .truncated(.transact, _, _, _) = error(Samples.transactFrame(runBytesMore: 1))
    else {
      Issue.record("a run that ends early was taken")
      return
    }
  }

  @Test func `A publish of nothing, or behind what is answered, is refused`() {
    var none = Samples.publishFrame()
    none.patch(UInt32(0), at: Frame.headerBytes + 4)
    #expect(throws: FrameError.invalidValue(.publish, field: "count", value: 0)) {
      try Side.client.reencode(none)
    }
    var late = Samples.publishFrame()
    late.patch(UInt64(10), at: Frame.headerBytes + 16)
    #expect(throws: FrameError.invalidValue(.publish, field: "first sequence", value: 10)) {
      try Side.client.reencode(late)
    }
  }

  @Test func `A deliver frame gives back each header and record`() throws {
    let bodies = ["one", "", "three"]
    try Samples.deliverFrame(bodies).withUnsafeBytes {
      let view = try #require(try FrameDecoder.next(in: $0, limit: 1 << 20))
      let deliver = try DeliverView(decoding: view)
      #expect(deliver.consumer == ConsumerID(6) && deliver.count == 3)
      var place = 0
      deliver.forEachMessage { header, record in
        #expect(header == Samples.header(place))
        #expect(Array(record) == Samples.run([bodies[place]]))
        place += 1
      }
      #expect(place == 3)
    }
  }
}

@Suite struct PreambleTests {
  private func read(_ bytes: [UInt8]) -> Preamble {
    bytes.withUnsafeBytes { Preamble(reading: $0) }
  }

  @Test func `Clients and peers are welcome, and may come in pieces`() {
    #expect(read(Preamble.clientBytes) == .client)
    #expect(read(Preamble.peerBytes + [1, 2]) == .peer)
    for end in 0..<Preamble.byteCount {
      #expect(read(Array(Preamble.clientBytes[..<end])) == .incomplete)
    }
    #expect(Preamble.clientBytes == [83, 75, 69, 73, 78, 0, 1, 67])
  }

  @Test(arguments: [
    (Array("GET / HTTP/1.1\r\n".utf8), Preamble.ForeignProtocol.http),
    (Array("POST".utf8), .http), ([0x16, 0x03, 0x01, 0x02], .tls),
    (Array("AMQP\u{0}\u{0}\u{9}\u{1}".utf8), .amqp), ([0], .unknown),
    (Array("SKEIm".utf8), .unknown),
  ])
  func `A stranger is named and answered by one line`(
    bytes: [UInt8], expected: Preamble.ForeignProtocol
  ) throws {
    #expect(read(bytes) == .foreign(expected))
    let line = try #require(read(bytes).refusalLine)
    #expect(line.contains(expected.rawValue) && line.hasSuffix("\r\n"))
  }

  @Test func `Another version of the protocol is named`() throws {
    let preamble = read(Array(Preamble.clientBytes[..<6]) + [9, 67])
    #expect(preamble == .unknownVersion(9))
    #expect(try #require(preamble.refusalLine).contains("version 9"))
  }
}
