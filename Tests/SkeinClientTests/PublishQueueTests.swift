import Base
import Testing

@testable import SkeinClient

@Suite struct PublishQueueTests {
  private func chunk(_ first: UInt64, _ count: Int) -> PublishChunk {
    var run: [UInt8] = []
    for number in 0..<count {
      MessageRecord.append(
        MessageParts(body: Array("\(first + UInt64(number))".utf8)), to: &run)
    }
    return PublishChunk(owner: 0, queue: QueueID(1), first: first, count: count, run: run)
  }

  @Test func `A chunk answered in part is sent again from its first open record`() throws {
    var queue = PublishQueue()
    queue.append(chunk(1, 4), deadline: .never)
    queue.noteSent()
    var runs: [PublishAnswerRun] = []
    queue.answer(first: 1, count: 2, result: .success(MessageID(rawValue: 9)), into: &runs)
    queue.sendAgain()
    let next = try #require(queue.nextToSend)
    #expect(next.firstOpen == 3 && next.remaining == 2)
    let rest = next.chunk.run[next.openOffset...].withUnsafeBytes { bytes in
      try? MessageRecord.check(bytes, contentBytesMax: 1000)
    }
    #expect(rest == 2)
  }

  @Test func `The cluster's window holds chunks back, but never a chunk alone`() {
    var queue = PublishQueue()
    queue.window = 5
    queue.append(chunk(1, 8), deadline: .never)
    queue.append(chunk(9, 1), deadline: .never)
    #expect(queue.nextToSend?.firstOpen == 1)
    queue.noteSent()
    #expect(queue.nextToSend == nil)
    var runs: [PublishAnswerRun] = []
    queue.answer(first: 1, count: 4, result: .success(MessageID(rawValue: 1)), into: &runs)
    #expect(queue.nextToSend?.firstOpen == 9)
  }

  @Test func `Time runs out once for each chunk`() {
    var queue = PublishQueue()
    queue.append(chunk(1, 2), deadline: MonotonicTime(rawValue: 10))
    queue.append(chunk(3, 2), deadline: MonotonicTime(rawValue: 20))
    #expect(queue.expire(now: MonotonicTime(rawValue: 9)) == (nil, MonotonicTime(rawValue: 10)))
    #expect(queue.expire(now: MonotonicTime(rawValue: 10)) == (2, MonotonicTime(rawValue: 20)))
    #expect(queue.expire(now: MonotonicTime(rawValue: 15)) == (nil, MonotonicTime(rawValue: 20)))
    var runs: [PublishAnswerRun] = []
    queue.answer(first: 1, count: 2, result: .success(MessageID(rawValue: 1)), into: &runs)
    #expect(queue.expire(now: MonotonicTime(rawValue: 20)) == (4, .never))
  }

  /// Answers in any order, repeated, overlapping, over lost connections: each publish is answered
  /// once, in order, with its own id.
  @Test(arguments: 1...50)
  func `Whatever the answers' order, each publish gets its own, once`(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    var queue = PublishQueue()
    var last: UInt64 = 0
    for _ in 0..<20 {
      let count = Int.random(in: 1...6, using: &random)
      queue.append(chunk(last + 1, count), deadline: .never)
      last += UInt64(count)
    }
    var runs: [PublishAnswerRun] = []
    var turns = 0
    while !queue.isEmpty {
      turns += 1
      if turns % 7 == 0 { queue.sendAgain() }
      while queue.nextToSend != nil { queue.noteSent() }
      let head = queue.answeredThrough ?? last
      let first = UInt64.random(
        in: max(1, head > 3 ? head - 3 : 1)...min(last, head + 9), using: &random)
      let count = Int.random(in: 1...Int(min(7, last - first + 1)), using: &random)
      queue.answer(
        first: first, count: count, result: .success(MessageID(rawValue: first * 10)),
        into: &runs)
    }
    var next: UInt64 = 1
    for run in runs {
      #expect(run.first == next, "swift test --filter PublishQueueTests, seed \(seed)")
      next += UInt64(run.count)
    }
    #expect(next == last + 1)
    let released = runs.reduce(0) { $0 + $1.bytesReleased }
    var all = 0
    var place: UInt64 = 1
    while place <= last {
      all += MessageRecord.fixedBytes + "\(place)".utf8.count
      place += 1
    }
    #expect(released == all)
  }
}
