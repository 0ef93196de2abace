// The libFuzzer target of the AMQP codec and machines; see README.md beside it.
//
// The first byte of an input says what it is for:
//
//     0  bytes of a connection from its first, as they are
//     1  frames of an open connection: type, channel, payload size (a byte each), payload; their
//        framing is made here, so that the fuzzer need not find lengths and end bytes
//     2  the same, and what is taken is cut into pieces by the second byte
//     3  a field table
//     4  properties

import AMQP
import Base

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzAMQP(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
  let input = [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard let kind = input.first else { return 0 }
  let rest = [UInt8](input.dropFirst())
  switch kind {
  case 0: connect(rest)
  case 1: converse(rest, pieces: 0)
  case 2: converse([UInt8](rest.dropFirst()), pieces: Int(rest.first ?? 0))
  case 3: readTable(rest)
  case 4: readProperties(rest)
  default: break
  }
  return 0
}

private func connect(_ bytes: [UInt8]) {
  let client = TestConnection(FakeBroker())
  check(client.send(bytes), client)
}

private func converse(_ input: [UInt8], pieces: Int) {
  var bytes: [UInt8] = []
  var rest = input[...]
  while rest.count >= 3 {
    let head = [UInt8](rest.prefix(3))
    rest = rest.dropFirst(3)
    let payload = [UInt8](rest.prefix(Int(head[2])))
    rest = rest.dropFirst(payload.count)
    bytes += TestFrames.frame(head[0], UInt16(head[1]), payload)
  }
  let client = TestConnection.open()
  if pieces == 0 {
    check(client.send(bytes), client)
    return
  }
  var left = bytes[...]
  while !left.isEmpty, client.state != .finished {
    check(client.send([UInt8](left.prefix(pieces))), client)
    left = left.dropFirst(pieces)
    check(client.tick(after: 0.1), client)
  }
}

/// What is sent is whole frames, and nothing is kept that was taken.
private func check(_ lines: [String], _ client: TestConnection) {
  precondition(
    lines.allSatisfy { !$0.hasPrefix("rest") || $0.hasPrefix("rest [65, 77") }, "\(lines)")
  precondition(client.state != .finished || client.channelCount == 0)
}

private func readTable(_ bytes: [UInt8]) {
  guard let table = try? FieldTable(bytes) else { return }
  let again = table.encoded
  precondition(again.count == bytes.count, "\(bytes) became \(again)")
  precondition((try? FieldTable(again)) == table)
  _ = try? QueueArguments(table, of: "queue 'q' in vhost '/'")
}

private func readProperties(_ bytes: [UInt8]) {
  guard let properties = try? BasicProperties(bytes) else { return }
  precondition((try? BasicProperties(properties.encoded)) == properties)
  var changed: [UInt8] = []
  bytes.withUnsafeBytes {
    Properties.withHeaders(
      $0, adding: [("x-delivery-count", .int64(1))], droppingExpiration: true, into: &changed)
  }
  precondition((try? BasicProperties(changed))?.headers?["x-delivery-count"] == .int64(1))
}
