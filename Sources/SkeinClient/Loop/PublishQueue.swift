// Publishes in the order of their sequences, from the moment the loop took them until they are
// answered: what to send next, what to send again, whom an answer concerns.

import Base

struct PublishQueue {
  struct Pending {
    let chunk: PublishChunk
    let deadline: MonotonicTime
    /// Records from the front that are answered.
    var answered = 0

    var remaining: Int { chunk.count - answered }
    var firstOpen: UInt64 { chunk.first + UInt64(answered) }
    /// Where its frame begins: a transaction is always sent whole, answered in part or not.
    var firstSent: UInt64 { chunk.transaction == nil ? firstOpen : chunk.first }

    /// Where the first unanswered record begins in the run.
    var openOffset: Int {
      chunk.run.withUnsafeBytes { run in
        var offset = 0
        for _ in 0..<answered { offset += MessageRecord.size(in: run, at: offset) }
        return offset
      }
    }
  }

  /// An answer that came before those of earlier sequences.
  private struct EarlyAnswer {
    let first: UInt64
    let count: Int
    let result: Result<Base.MessageID, SkeinError>
    let copies: UInt64
  }

  private var pending = RingBuffer<Pending>()
  /// Chunks from the front that this connection was sent.
  private var sent = 0
  /// Publishes in these that are not answered.
  private var inFlight = 0
  /// Chunks from the front whose time is up.
  private var expired = 0
  private var early: [EarlyAnswer] = []
  /// Bytes of answered parts of a chunk that was split, released with the next answer.
  private var releasedEarly = 0
  /// Publishes that the cluster takes unanswered.
  var window = 65_536
  /// Nothing was ever sent, on any connection.
  private(set) var isUntouched = true
  /// The largest run that the leader takes in a frame.
  private(set) var runBytesMax = Int.max
  /// Nothing is sent before: the node pushed back.
  var pauseEnd = MonotonicTime.zero

  var isEmpty: Bool { pending.isEmpty }

  mutating func append(_ chunk: PublishChunk, deadline: MonotonicTime) {
    pending.append(Pending(chunk: chunk, deadline: deadline))
  }

  /// Nothing of it will be answered.
  mutating func removeAll() {
    for place in 0..<pending.count {
      pending[place].chunk.transaction?.order.giveDeliveriesBack()
    }
    pending.removeAll()
    early = []
    sent = 0
    inFlight = 0
    expired = 0
    releasedEarly = 0
  }

  var firstDeadline: MonotonicTime? { pending.first?.deadline }

  /// All that is pending, if nothing was ever sent and the first one's time is up.
  mutating func takeBack(now: MonotonicTime) -> [PublishChunk]? {
    guard isUntouched, let head = pending.first, head.deadline <= now else { return nil }
    var chunks: [PublishChunk] = []
    while let next = pending.popFirst() { chunks.append(next.chunk) }
    removeAll()
    return chunks
  }

  /// From the first unanswered publish on.
  mutating func sendAgain() {
    sent = 0
    inFlight = 0
    pauseEnd = .zero
  }

  /// Cuts chunks that are too large for one frame to a leader of smaller limits, before anything is
  /// sent to it.
  mutating func split(runBytesMax: Int, countMax: Int) {
    guard sent == 0 else { return }
    self.runBytesMax = runBytesMax
    var isTooLarge = false
    for place in 0..<pending.count {
      let chunk = pending[place].chunk
      isTooLarge = isTooLarge || chunk.run.count > runBytesMax || chunk.count > countMax
    }
    guard isTooLarge else { return }
    var parts = RingBuffer<Pending>()
    var expiredParts = 0
    for place in 0..<pending.count {
      let whole = pending[place]
      for part in whole.chunk.split(runBytesMax: runBytesMax, countMax: countMax) {
        let answered = max(0, min(part.count, Int(whole.firstOpen) - Int(part.first)))
        if answered == part.count {
          releasedEarly += part.run.count
        } else {
          parts.append(Pending(chunk: part, deadline: whole.deadline, answered: answered))
          if place < expired { expiredParts += 1 }
        }
      }
    }
    pending = parts
    expired = expiredParts
  }

  /// The next chunk to send, if the window takes it.
  var nextToSend: Pending? {
    guard sent < pending.count else { return nil }
    let next = pending[sent]
    return inFlight == 0 || inFlight + next.remaining <= window ? next : nil
  }

  mutating func noteSent() {
    isUntouched = false
    inFlight += pending[sent].remaining
    sent += 1
  }

  var hasUnsent: Bool { sent < pending.count }

  /// Whether one of the publishes up to `sequence` waits to be sent on this connection.
  func hasUnsent(through sequence: UInt64) -> Bool {
    sent < pending.count && pending[sent].chunk.first <= sequence
  }

  /// Everything up to this is answered.
  var answeredThrough: UInt64? { pending.first.map { $0.firstOpen - 1 } }

  /// Whether everything before `first` is answered and it is not.
  func isNext(_ first: UInt64) -> Bool { sent > 0 && pending.first?.firstSent == first }

  /// Whether the publishes from `first` on were sent on this connection and are not answered.
  func isOpen(_ first: UInt64) -> Bool {
    guard let head = pending.first else { return false }
    return first >= head.firstSent
  }

  /// Takes an answer to `count` publishes from `first` on and appends whom it concerns to `runs`.
  mutating func answer(
    first: UInt64, count: Int, result: Result<Base.MessageID, SkeinError>, copies: UInt64 = 1,
    into runs: inout [PublishAnswerRun]
  ) {
    answerInOrder(first: first, count: count, result: result, copies: copies, into: &runs)
    while let place = early.firstIndex(where: { answer in
      pending.first.map { answer.first <= $0.firstOpen } ?? true
    }) {
      let answer = early.remove(at: place)
      answerInOrder(
        first: answer.first, count: answer.count, result: answer.result, copies: answer.copies,
        into: &runs)
    }
  }

  private mutating func answerInOrder(
    first: UInt64, count: Int, result: Result<Base.MessageID, SkeinError>, copies: UInt64,
    into runs: inout [PublishAnswerRun]
  ) {
    var next = first
    let end = first + UInt64(count)
    while next < end, let head = pending.first {
      if next > head.firstOpen {
        early.append(
          EarlyAnswer(
            first: next, count: Int(end - next),
            result: result.shifted((next - first) * copies), copies: copies))
        return
      }
      // What was answered before, on an earlier connection, is passed over.
      next = head.firstOpen
      guard next < end else { return }
      let covered = min(Int(end - next), head.remaining)
      let isWhole = covered == head.remaining
      runs.append(
        PublishAnswerRun(
          owner: head.chunk.owner, first: next, count: covered,
          bytesReleased: releasedEarly + (isWhole ? head.chunk.run.count : 0),
          result: result.shifted((next - first) * copies), copies: copies))
      if let order = head.chunk.transaction?.order {
        switch result {
        case .success: order.finishDeliveries()
        case .failure: order.giveDeliveriesBack()
        }
      }
      releasedEarly = 0
      if sent > 0 { inFlight -= covered }
      next += UInt64(covered)
      if isWhole {
        _ = pending.popFirst()
        sent = max(0, sent - 1)
        expired = max(0, expired - 1)
      } else {
        pending[0].answered += covered
      }
    }
  }

  /// The last sequence whose time is up at `now`, if some newly is; then when the next is due.
  mutating func expire(now: MonotonicTime) -> (through: UInt64?, next: MonotonicTime) {
    var through: UInt64?
    while expired < pending.count, pending[expired].deadline <= now {
      through = pending[expired].chunk.last
      expired += 1
    }
    return (through, expired < pending.count ? pending[expired].deadline : .never)
  }
}

extension Result where Success == MessageID {
  /// The ids of one answer follow one another.
  fileprivate func shifted(_ count: UInt64) -> Self {
    map { MessageID(rawValue: $0.rawValue + count) }
  }
}
