// Anything may come: garbage, frames in any order, tables that are bombs. And the books of tags and
// confirms against models that anybody can read.

import Base
import Foundation
import TestSupport
import Testing

@testable import AMQP

/// The seeds of a run: SKEIN_SEED=n repeats one.
private let seeds: [UInt64] = {
  if let text = ProcessInfo.processInfo.environment["SKEIN_SEED"], let seed = UInt64(text) {
    return [seed]
  }
  return (1...20).map { $0 }
}()

private func repeating(_ seed: UInt64, _ test: String) -> Comment {
  "SKEIN_SEED=\(seed) swift test --filter AMQPTests.\(test)"
}

@Suite struct GarbageTests {
  /// Whole frames of all kinds with wrong insides, whole runs cut and flipped.
  private static func frame(_ random: inout SeededRandom) -> [UInt8] {
    let methods = TestFrames.table.methods
    func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(random.next() & 0xff) } }
    let channel = UInt16(random.next() % 4)
    switch random.next() % 10 {
    case 0: return bytes(Int(random.next() % 40))
    case 1:
      return TestFrames.frame(
        UInt8(random.next() % 10), channel, bytes(Int(random.next() % 40)))
    case 2: return TestFrames.header(channel: channel, body: Int(random.next() % 8))
    case 3: return TestFrames.body(channel: channel, bytes(Int(random.next() % 8)))
    case 4: return TestFrames.publish(channel: channel, key: "q", "body")
    case 5:
      return TestFrames.method("queue.declare", channel: channel, ["queue": "q"])
    case 6: return TestFrames.method("channel.open", channel: channel)
    case 7:
      return TestFrames.method(
        "basic.consume", channel: channel, ["queue": "q", "consumerTag": "t"])
    default:
      let method = methods[Int(random.next() % UInt64(methods.count))]
      var payload = TestFrames.big(UInt64(method.classID), 2) + TestFrames.big(UInt64(method.id), 2)
      payload += bytes(Int(random.next() % 30))
      return TestFrames.frame(1, channel, payload)
    }
  }

  @Test(arguments: seeds) func nothingThatComesBreaksTheMachine(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    for _ in 0..<100 {
      let client = TestConnection.open(channel: false)
      client.call("channel.open")
      for _ in 0..<20 where client.state != .finished {
        var frame = Self.frame(&random)
        if random.next() % 8 == 0, !frame.isEmpty {
          frame[Int(random.next() % UInt64(frame.count))] ^= UInt8(1 << (random.next() % 8))
        }
        let lines = client.send(frame)
        #expect(!lines.contains { $0.hasPrefix("rest") }, repeating(seed, "GarbageTests"))
        if random.next() % 4 == 0 { client.call("connection.close-ok", channel: 0) }
      }
    }
  }

  @Test func everyTruncationOfAHandshakeWaitsForMore() {
    let bytes = Frame.protocolHeader + TestConnection.startOK()
    for count in 0..<bytes.count {
      let client = TestConnection(FakeBroker())
      #expect(client.send([UInt8](bytes[..<count])).count == (count < 8 ? 0 : 1))
      #expect(client.state == .receiving)
      #expect(client.broker.seen.isEmpty)
    }
  }

  /// A field less than the method says, for every method and every length.
  @Test func everyTruncationOfEveryMethodIsAFault() {
    for method in TestFrames.table.methods where method.className != "connection" {
      let whole = TestFrames.method("\(method.className).\(method.name)")
      let payload = [UInt8](whole[7..<whole.count - 1])
      for count in 4..<payload.count {
        let client = TestConnection.open()
        let lines = client.send(TestFrames.frame(1, 1, [UInt8](payload[..<count])))
        #expect(lines.count == 1)
        let isServers = lines.first?.contains("COMMAND_INVALID - unimplemented method") == true
        let isSecondOpen = lines.first?.contains("second 'channel.open' seen") == true
        #expect(
          isServers || isSecondOpen
            || lines.first?.contains("replyCode=501 replyText=FRAME_ERROR - cannot decode") == true,
          "\(method.name) \(count)")
      }
    }
  }
}

@Suite struct ConnectionTruncationTests {
  private static func truncations(of method: String) -> [[UInt8]] {
    let whole = TestFrames.method(method, channel: 0)
    let payload = [UInt8](whole[7..<whole.count - 1])
    return (4..<payload.count).map { TestFrames.frame(1, 0, [UInt8](payload[..<$0])) }
  }

  @Test(
    "A field less than a method of the handshake says is the end without a word",
    arguments: ["start-ok", "tune-ok", "open"])
  func handshake(method: String) {
    let steps = [
      Frame.protocolHeader, TestConnection.startOK(),
      TestFrames.method("connection.tune-ok", channel: 0, ["channelMax": 1, "frameMax": 8192]),
    ]
    let count = ["start-ok", "tune-ok", "open"].firstIndex(of: method) ?? 0
    let truncated = Self.truncations(of: "connection.\(method)")
    #expect(!truncated.isEmpty)
    for frame in truncated {
      let client = TestConnection(FakeBroker())
      for step in steps[...count] { client.send(step) }
      #expect(client.state == .receiving)
      #expect(client.send(frame) == [])
      #expect(client.state == .finished, "\(frame.count) bytes")
    }
  }

  @Test(
    "Once it is open, a connection's method that is cut closes it with 501 and its name",
    arguments: [("close", 50), ("update-secret", 70)])
  func open(method: String, methodID: Int) {
    let truncated = Self.truncations(of: "connection.\(method)")
    #expect(!truncated.isEmpty)
    for frame in truncated {
      let client = TestConnection.open()
      let lines = client.send(frame)
      #expect(lines.count == 1)
      let line = lines.first ?? ""
      #expect(
        line.contains("replyCode=501 replyText=FRAME_ERROR - cannot decode")
          && line.hasSuffix("classID=10 methodID=\(methodID)"), "\(line)")
    }
  }
}

@Suite struct TableTests {
  private static func value(_ random: inout SeededRandom, depth: Int) -> FieldValue {
    func bytes() -> [UInt8] { (0..<random.next() % 6).map { _ in UInt8(random.next() & 0xff) } }
    switch random.next() % (depth < 5 ? 17 : 15) {
    case 0: return .boolean(random.next() % 2 == 0)
    case 1: return .int8(Int8(truncatingIfNeeded: random.next()))
    case 2: return .uint8(UInt8(truncatingIfNeeded: random.next()))
    case 3: return .int16(Int16(truncatingIfNeeded: random.next()))
    case 4: return .uint16(UInt16(truncatingIfNeeded: random.next()))
    case 5: return .int32(Int32(truncatingIfNeeded: random.next()))
    case 6: return .uint32(UInt32(truncatingIfNeeded: random.next()))
    case 7: return .int64(Int64(truncatingIfNeeded: random.next()))
    case 8: return .float(bits: UInt32(truncatingIfNeeded: random.next()))
    case 9: return .double(bits: random.next())
    case 10: return .decimal(scale: 2, value: UInt32(truncatingIfNeeded: random.next()))
    case 11: return .string(bytes())
    case 12: return .bytes(bytes())
    case 13: return .timestamp(random.next())
    case 14: return .void
    case 15: return .table(table(&random, depth: depth + 1))
    default:
      return .array((0..<random.next() % 4).map { _ in value(&random, depth: depth + 1) })
    }
  }

  static func table(_ random: inout SeededRandom, depth: Int = 1) -> FieldTable {
    FieldTable((0..<random.next() % 6).map { ("n\($0)", value(&random, depth: depth)) })
  }

  private static func check(_ bytes: [UInt8]) -> Bool {
    bytes.withUnsafeBytes { raw in
      do throws(FieldTableError) {
        try FieldTableCheck.check(raw)
        return true
      } catch {
        return false
      }
    }
  }

  @Test(arguments: seeds) func tablesAreTheSameBothWays(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    for _ in 0..<50 {
      let table = Self.table(&random)
      let bytes = table.encoded
      #expect(try FieldTable(bytes) == table, repeating(seed, "TableTests"))
      #expect(Self.check(bytes), repeating(seed, "TableTests"))
      // The check without taking apart agrees with the taking apart, whatever comes.
      var wrong = bytes
      for _ in 0..<10 where !wrong.isEmpty {
        wrong[Int(random.next() % UInt64(wrong.count))] = UInt8(random.next() & 0xff)
        let read = try? FieldTable(wrong)
        #expect((read != nil) == Self.check(wrong), repeating(seed, "TableTests"))
        if let read { #expect(read.encoded.count == wrong.count) }
      }
      for (name, value) in table.entries.map({ ($0.name, $0.value) }) where name == [110, 48] {
        let place = bytes.withUnsafeBytes { FieldTableCheck.value(named: "n0", in: $0) }
        var encoded: [UInt8] = []
        value.encode(into: &encoded)
        #expect(place.map { [UInt8](bytes[$0]) } == encoded)
      }
    }
  }

  @Test(arguments: [("F", "F"), ("A", "A"), ("F", "A")])
  func depthIsBounded(outer: String, inner: String) {
    func nested(_ depth: Int) -> [UInt8] {
      var bytes: [UInt8] = []
      for _ in 0..<depth {
        bytes = [0, UInt8(ascii: "F")] + TestFrames.big(UInt64(bytes.count), 4) + bytes
      }
      return bytes
    }
    var value = FieldValue.void
    var depth = 1
    while depth < FieldTable.depthMax {
      value =
        (depth % 2 == 0 ? outer : inner) == "F"
        ? .table(FieldTable([("", value)])) : .array([value])
      depth += 1
    }
    #expect(Self.check(FieldTable([("", value)]).encoded))
    #expect(!Self.check(FieldTable([("", .array([value]))]).encoded))
    let bomb = nested(2000)
    #expect(!Self.check(bomb))
    #expect(throws: FieldTableError.self) { try FieldTable(bomb) }
  }

  @Test func aBombInADeclarationIsAFault() {
    var value = FieldValue.void
    for _ in 0..<100 { value = .array([value]) }
    let client = TestConnection.open()
    let lines = client.call(
      "queue.declare",
      ["queue": "q", "arguments": .table(FieldTable([("x", value)]))])
    #expect(lines.first?.contains("replyCode=501") == true)
  }
}

@Suite(.ownThreads) struct BookTests {
  @Test(arguments: seeds) func theBookOfTagsIsASortedList(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var book = UnsettledBook()
    var model: [Unsettled] = []
    var tag: UInt64 = 0
    for step in 0..<3000 {
      switch random.next() % 20 {
      case 0..<10:
        tag += random.next() % 10 == 0 ? 2 : 1
        let unsettled = Unsettled(
          tag: tag, consumer: ConsumerID(1), delivery: DeliveryID(tag))
        book.append(unsettled)
        model.append(unsettled)
      case 10..<18:
        let wanted =
          model.isEmpty || random.next() % 10 == 0
          ? random.next() % (tag + 2) : model[Int(random.next() % UInt64(model.count))].tag
        let place = model.firstIndex { $0.tag == wanted }
        #expect(
          book.take(wanted) == place.map { model.remove(at: $0) }, repeating(seed, "BookTests"))
      case 18:
        let wanted = model.isEmpty ? tag : model[Int(random.next() % UInt64(model.count))].tag
        var taken: [Unsettled] = []
        let isThere = model.contains { $0.tag == wanted }
        #expect(book.takeAll(through: wanted) { taken.append($0) } == isThere)
        #expect(taken == (isThere ? model.filter { $0.tag <= wanted } : []))
        if isThere { model.removeAll { $0.tag <= wanted } }
        if step % 2 == 0 {
          book.putBack(taken)
          model = (taken + model).sorted { $0.tag < $1.tag }
        }
      default:
        if random.next() % 10 == 0 {
          var taken: [Unsettled] = []
          book.takeAll { taken.append($0) }
          #expect(taken == model)
          model = []
        }
      }
      #expect(book.count == model.count, repeating(seed, "BookTests"))
    }
  }

  /// One message held for ever, a million settled behind it: the book stays small.
  @Test func holesArePutAway() {
    var book = UnsettledBook()
    for tag in 1...100_000 as ClosedRange<UInt64> {
      book.append(Unsettled(tag: tag, consumer: ConsumerID(1), delivery: DeliveryID(tag)))
      if tag > 1 { #expect(book.take(tag) != nil) }
    }
    #expect(book.count == 1)
    #expect(book.length <= 70)
  }

  @Test(arguments: seeds) func everyConfirmIsToldOnce(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var book = ConfirmBook()
    var open = Set<UInt64>()
    var settled = Set<UInt64>()
    var refused = Set<UInt64>()
    var told = Set<UInt64>()
    var published: UInt64 = 0
    for _ in 0..<2000 {
      switch random.next() % 4 {
      case 0, 1:
        published += 1
        open.insert(published)
      case 2:
        guard let first = open.sorted().dropFirst(Int(random.next() % 3)).first else { break }
        var last = first
        while open.contains(last + 1), random.next() % 3 != 0 { last += 1 }
        for tag in first...last {
          open.remove(tag)
          settled.insert(tag)
        }
        if random.next() % 8 == 0 {
          refused.formUnion(first...last)
          book.refuse(first...last)
        } else {
          book.confirm(first...last)
        }
      default:
        book.tell { tag, multiple in
          if multiple {
            for covered in 1...tag {
              #expect(settled.contains(covered), repeating(seed, "BookTests"))
              told.insert(covered)
            }
          } else {
            #expect(settled.contains(tag), repeating(seed, "BookTests"))
            #expect(told.insert(tag).inserted, repeating(seed, "BookTests"))
          }
        }
        let silent = settled.subtracting(told).subtracting(refused)
        #expect(silent.isEmpty, repeating(seed, "BookTests"))
      }
    }
  }
}
