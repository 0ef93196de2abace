// All publishes of a client between the tasks that send them and the loop that carries them: one
// lock, crossed once per message by the sender and once per turn by the loop (never per message).
//
// A sender encodes its record behind the others of the chunk being filled and takes the next
// sequence. The loop takes all chunks at once, sends each as one frame, and reports answers as
// runs. Sequences are given here, so that a publish has its name before anything is sent.

import Base
import Synchronization
import Wire

/// Consecutive publishes of one publisher: one frame.
struct PublishChunk: Sendable {
  /// Whose window they count in.
  var owner: Int
  var queue: QueueID
  /// Sequence of the first record of `run`.
  var first: UInt64
  var count: Int
  /// Message records.
  var run: [UInt8]
  /// All of it is one, for several queues.
  var transaction: ChunkTransaction?

  /// Chunks end before they grow beyond this, unless one record is larger by itself.
  static let bytesMax = 256 << 10
  static let countMax = 4096

  var last: UInt64 { first + UInt64(count) - 1 }

  /// The same publishes in chunks that keep the limits, but for a record that is over them by
  /// itself.
  func split(runBytesMax: Int, countMax: Int) -> [PublishChunk] {
    if run.count <= runBytesMax && count <= countMax || transaction != nil { return [self] }
    var parts: [PublishChunk] = []
    run.withUnsafeBytes { bytes in
      var start = 0
      var offset = 0
      var partCount = 0
      var partFirst = first
      func end() {
        parts.append(
          PublishChunk(
            owner: owner, queue: queue, first: partFirst, count: partCount,
            run: [UInt8](bytes[start..<offset])))
        partFirst += UInt64(partCount)
        partCount = 0
        start = offset
      }
      while offset < bytes.count {
        let size = MessageRecord.size(in: bytes, at: offset)
        if partCount > 0, offset + size - start > runBytesMax || partCount == countMax { end() }
        offset += size
        partCount += 1
      }
      end()
    }
    return parts
  }
}

/// An answer to consecutive publishes of one chunk.
struct PublishAnswerRun: Sendable {
  var owner: Int
  var first: UInt64
  var count: Int
  /// Of the chunk, if this answered its last record.
  var bytesReleased: Int
  /// The first message's id; the others follow, each with as many as it has copies.
  var result: Result<Base.MessageID, SkeinError>
  var copies: UInt64 = 1

  var last: UInt64 { first + UInt64(count) - 1 }
}

final class PublishBook: Sendable {
  typealias Receipts = Result<[MessageReceipt], SkeinError>

  /// Somebody who waits for the answers to all sequences of a range.
  fileprivate struct Ticket {
    var first: UInt64
    var last: UInt64
    var receipts: [MessageReceipt] = []
    var failures: [PublishFailure] = []
    var promise: Promise<Receipts>
    /// Of a transaction.
    var order: TransactionOrder?
    /// Whoever waited was told that the outcome is unknown; the answer is noted all the same.
    var isTimedOut = false
  }

  /// Publishes whose task was told that their outcome is unknown. The cluster could only say where the first
  /// copy of a message is, and forgets that once this client has the answer.
  fileprivate struct UnknownPublishes {
    let first: UInt64
    let last: UInt64
    /// Of a transaction: in how many queues the messages are, with how many consecutive ones are in so many.
    var copies: [(copies: Int, count: Int)] = []
    /// What came too late for the task, for each message; empty if nothing will come, nil for one of which
    /// nothing is known.
    var answers: [Result<MessageReceipt, SkeinError>?] = []

    var count: Int { Int(last - first) + 1 }
  }

  fileprivate struct SpaceWaiter {
    let promise: Promise<Result<Void, SkeinError>>
    let deadline: MonotonicTime
  }

  fileprivate struct Owner {
    var window: Int
    var bytesMax: Int
    var outstanding = 0
    var outstandingBytes = 0
    /// The last sequence it was given, 0 for none.
    var last: UInt64 = 0
    var spaceWaiters: [SpaceWaiter] = []
    /// Since the last flush, at most `failuresMax`.
    var failures: [PublishFailure] = []
    /// nil while nobody listens.
    var confirmations: [PublishConfirmation]?
    var confirmationWaiter: Promise<Void>?
    var isReleased = false

    var hasSpace: Bool { outstanding < window && outstandingBytes < bytesMax }
  }

  fileprivate struct State {
    var producer: UInt64
    var next: UInt64 = 1
    /// Everything up to here is answered.
    var answered: UInt64 = 0
    var staged: [PublishChunk] = []
    /// Being filled; empty with count 0.
    var filling = PublishChunk(owner: -1, queue: QueueID(0), first: 0, count: 0, run: [])
    var isScheduled = false
    var owners: [Owner] = []
    var freeOwners: [Int] = []
    /// By `last`.
    var tickets: [Ticket] = []
    /// Some tickets are for one sequence within the range of another.
    var ticketsOverlap = false
    /// The oldest first, of at most `unknownMessagesMax` messages together (or one).
    var unknown: [UnknownPublishes] = []
    var unknownMessages = 0
    var contentBytesMax = MessageRecord.contentBytesMax
    var chunkCountMax = PublishChunk.countMax
    var chunkBytesMax = PublishChunk.bytesMax
    /// The largest payload of a frame.
    var frameBytesMax = Int.max
    var window = Int.max
    /// Set once nothing can be published any more.
    var failure: SkeinError?
  }

  static let failuresMax = 1000
  fileprivate static let unknownMessagesMax = 65_536

  private let state: Mutex<State>

  init(producer: UInt64) {
    state = Mutex(State(producer: producer))
  }

  /// Under whose numbers is published.
  var producer: UInt64 { state.withLock { $0.producer } }

  func reference(_ sequence: UInt64) -> PublishReference {
    PublishReference(producer: producer, sequence: sequence)
  }
}

// For senders.
extension PublishBook {
  enum Staged {
    /// With the first and last sequence given; `wake`: the loop does not know of it yet.
    case sent(first: UInt64, last: UInt64, wake: Bool)
    /// The window is full.
    case full
  }

  func addOwner(window: Int, bytesMax: Int) -> Int {
    state.withLock { state in
      let owner = Owner(window: window, bytesMax: bytesMax)
      if let free = state.freeOwners.popLast() {
        state.owners[free] = owner
        return free
      }
      state.owners.append(owner)
      return state.owners.count - 1
    }
  }

  /// The publisher is gone: its place is used again once all it sent is answered.
  func releaseOwner(_ owner: Int) {
    state.withLock { state in
      state.owners[owner].isReleased = true
      if state.owners[owner].outstanding == 0 { state.freeOwners.append(owner) }
    }
  }

  /// Takes a message in if the window has space. Throws what makes it impossible.
  func stage(_ message: Message, owner: Int, queue: QueueID) throws(SkeinError) -> Staged {
    let result = state.withLock { state -> Result<Staged, SkeinError> in
      do throws(SkeinError) {
        return .success(try state.stage(message, owner: owner, queue: queue))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  /// Takes in as many of `messages` from `start` on as there is space for, with a promise of their
  /// receipts. `full` if not one.
  func stage(
    _ messages: [Message], from start: Int, owner: Int, queue: QueueID,
    promise: Promise<Receipts>
  ) throws(SkeinError) -> Staged {
    let result = state.withLock { state -> Result<Staged, SkeinError> in
      var span: (first: UInt64, last: UInt64)?
      var wakes = false
      do throws(SkeinError) {
        for message in messages[start...] {
          guard
            case .sent(let first, let last, let wake) = try state.stage(
              message, owner: owner, queue: queue)
          else { break }
          span = (span?.first ?? first, last)
          wakes = wakes || wake
        }
      } catch {
        // What came before it in the batch is sent all the same; its promise tells of it.
        guard span != nil else { return .failure(error) }
      }
      guard let span else { return .success(.full) }
      state.tickets.append(
        Ticket(first: span.first, last: span.last, promise: promise))
      return .success(.sent(first: span.first, last: span.last, wake: wakes))
    }
    return try result.get()
  }

  /// Takes in a transaction, which is a chunk of its own.
  func stage(
    _ order: TransactionOrder, owner: Int, promise: Promise<Receipts>
  ) throws(SkeinError) -> Staged {
    let result = state.withLock { state -> Result<Staged, SkeinError> in
      do throws(SkeinError) {
        return .success(try state.stage(order, owner: owner, promise: promise))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  /// A promise that is kept when the owner has space, or fails at `deadline`; nil if it has some.
  func waitForSpace(owner: Int, until deadline: MonotonicTime) -> Promise<Result<Void, SkeinError>>?
  {
    state.withLock { state in
      guard !state.owners[owner].hasSpace, state.failure == nil else { return nil }
      let promise = Promise<Result<Void, SkeinError>>()
      state.owners[owner].spaceWaiters.append(SpaceWaiter(promise: promise, deadline: deadline))
      return promise
    }
  }

  /// A promise of the answer to one publish that is not answered yet; nil if it is (or never was).
  func waitForAnswer(to sequence: UInt64) -> Promise<Receipts>? {
    state.withLock { state in
      guard sequence > state.answered, sequence < state.next, state.failure == nil else {
        return nil
      }
      let promise = Promise<Receipts>()
      // Nobody waits with it any more: who asks again and again takes no more than one.
      let left = state.tickets.firstIndex {
        $0.first == sequence && $0.last == sequence && $0.order == nil && $0.promise.isKept
      }
      if let left {
        state.tickets[left].promise = promise
        state.tickets[left].isTimedOut = false
        return promise
      }
      let place = state.tickets.firstIndex { $0.last > sequence } ?? state.tickets.count
      state.tickets.insert(
        Ticket(first: sequence, last: sequence, promise: promise), at: place)
      state.ticketsOverlap = true
      return promise
    }
  }

  /// Of a publish whose task does not know its outcome: in how many queues the message is if it is
  /// stored, and the answer if one came later.
  func lateAnswer(
    to sequence: UInt64
  ) -> (copies: Int, answer: Result<MessageReceipt, SkeinError>?)? {
    let found = state.withLock { state in
      state.unknown.last { $0.first <= sequence && sequence <= $0.last }
    }
    guard let found else { return nil }
    var place = Int(sequence - found.first)
    let answer = place < found.answers.count ? found.answers[place] : nil
    for group in found.copies {
      if place < group.count { return (group.copies, answer) }
      place -= group.count
    }
    return (1, answer)
  }

  func lastSequence(of owner: Int) -> UInt64 { state.withLock { $0.owners[owner].last } }

  /// The last publish that was taken in.
  var lastStaged: UInt64 { state.withLock { $0.next - 1 } }

  func takeFailures(of owner: Int) -> [PublishFailure] {
    state.withLock { state in
      let failures = state.owners[owner].failures
      state.owners[owner].failures = []
      return failures
    }
  }

  /// From now on the owner's confirmations are kept for `takeConfirmations`.
  func listen(owner: Int) {
    state.withLock { state in
      if state.owners[owner].confirmations == nil { state.owners[owner].confirmations = [] }
    }
  }

  enum Confirmations {
    case some([PublishConfirmation])
    case wait(Promise<Void>)
    /// Nothing is outstanding and nothing can come any more.
    case ended
  }

  func takeConfirmations(of owner: Int) -> Confirmations {
    state.withLock { state in
      if let ready = state.owners[owner].confirmations, !ready.isEmpty {
        state.owners[owner].confirmations = []
        return .some(ready)
      }
      if state.failure != nil { return .ended }
      let promise = Promise<Void>()
      state.owners[owner].confirmationWaiter = promise
      return .wait(promise)
    }
  }

  /// For tests: somebody waits for the answer to this publish now.
  func hasWaiting(for sequence: UInt64) -> Bool {
    state.withLock { state in
      state.tickets.contains {
        $0.first <= sequence && sequence <= $0.last && !$0.promise.isKept
      }
    }
  }

  /// For tests: how many have waited for the answer to this publish, or do.
  func ticketCount(of sequence: UInt64) -> Int {
    state.withLock { state in
      state.tickets.count { $0.first <= sequence && sequence <= $0.last }
    }
  }

  func isAnswered(_ sequence: UInt64) -> Bool { state.withLock { sequence <= $0.answered } }

  /// Every publish up to this one is answered.
  var answeredThrough: UInt64 { state.withLock { $0.answered } }

  var failure: SkeinError? { state.withLock { $0.failure } }
}

extension PublishBook.State {
  fileprivate mutating func stage(
    _ message: Message, owner: Int, queue: QueueID
  ) throws(SkeinError) -> PublishBook.Staged {
    if let failure { throw failure }
    let bytes = try message.check(contentBytesMax: contentBytesMax)
    guard owners[owner].hasSpace else { return .full }
    if filling.count > 0,
      filling.owner != owner || filling.queue != queue || filling.count >= chunkCountMax
        || filling.run.count + bytes > chunkBytesMax
    {
      seal()
    }
    if filling.count == 0 {
      filling.owner = owner
      filling.queue = queue
      filling.first = next
    }
    let before = filling.run.count
    MessageRecord.append(message.parts, to: &filling.run)
    filling.count += 1
    let sequence = next
    next += 1
    owners[owner].outstanding += 1
    owners[owner].outstandingBytes += filling.run.count - before
    owners[owner].last = sequence
    let wake = !isScheduled
    isScheduled = true
    return .sent(first: sequence, last: sequence, wake: wake)
  }

  fileprivate mutating func stage(
    _ order: TransactionOrder, owner: Int, promise: Promise<PublishBook.Receipts>
  ) throws(SkeinError) -> PublishBook.Staged {
    if let failure { throw failure }
    guard owners[owner].hasSpace else { return .full }
    guard order.messages.count <= window else {
      throw .invalidMessage("\(order.messages.count) messages are over the limit of \(window)")
    }
    var chunk = PublishChunk(
      owner: owner, queue: QueueID(0), first: next, count: order.messages.count, run: [])
    var parts: [TransactPart] = []
    var place = 0
    for group in order.groups {
      let start = chunk.run.count
      for message in order.messages[place..<place + group.count] {
        try message.check(contentBytesMax: contentBytesMax)
        MessageRecord.append(message.parts, to: &chunk.run)
      }
      place += group.count
      parts.append(
        TransactPart(
          queues: group.queues, count: group.count, runBytes: chunk.run.count - start))
    }
    let transaction = ChunkTransaction(order: order, parts: parts)
    let headBytes = chunk.run.withUnsafeBytes {
      transaction.head(first: next, answeredThrough: 0, run: $0).headBytes
    }
    guard headBytes + chunk.run.count <= frameBytesMax else {
      throw .messageTooLarge(bytes: headBytes + chunk.run.count, limit: frameBytesMax)
    }
    chunk.transaction = transaction
    seal()
    staged.append(chunk)
    let last = next + UInt64(chunk.count) - 1
    tickets.append(
      PublishBook.Ticket(first: next, last: last, promise: promise, order: order))
    defer { next = last + 1 }
    owners[owner].outstanding += chunk.count
    owners[owner].outstandingBytes += chunk.run.count
    owners[owner].last = last
    let wake = !isScheduled
    isScheduled = true
    return .sent(first: next, last: last, wake: wake)
  }

  /// Ends the chunk being filled and makes room for the next of about the same size.
  fileprivate mutating func seal() {
    guard filling.count > 0 else { return }
    var next = PublishChunk(owner: -1, queue: QueueID(0), first: 0, count: 0, run: [])
    next.run.reserveCapacity(Swift.min(filling.run.count, PublishChunk.bytesMax))
    swap(&filling, &next)
    staged.append(next)
  }
}

// For the loop.
extension PublishBook {
  /// Appends all that was staged to `chunks`.
  func take(into chunks: inout [PublishChunk]) {
    state.withLock { state in
      state.isScheduled = false
      state.seal()
      chunks.append(contentsOf: state.staged)
      state.staged.removeAll(keepingCapacity: true)
    }
  }

  /// Notes answers, in the order of their sequences, and tells who waits for them.
  func answer(_ runs: [PublishAnswerRun]) {
    var woken: [Promise<Result<Void, SkeinError>>] = []
    var listeners: [Promise<Void>] = []
    state.withLock { state in
      for run in runs {
        state.answered = max(state.answered, run.last)
        state.note(run)
        state.release(run, listeners: &listeners)
        woken.append(contentsOf: state.wakeForSpace(run.owner))
      }
    }
    for promise in woken { promise.keep(.success(())) }
    for promise in listeners { promise.keep(()) }
  }

  /// The time of all publishes up to `sequence` is up: who waits for one of them is told that its
  /// outcome is unknown. They go on being sent.
  func timeOut(through sequence: UInt64) {
    let expired = state.withLock { state in
      let count = state.tickets.firstIndex { $0.last > sequence } ?? state.tickets.count
      let expired = state.tickets[..<count].filter { !$0.isTimedOut }
      // Their answers are noted all the same, for `retry(_:)`.
      for place in 0..<count { state.tickets[place].isTimedOut = true }
      return expired
    }
    for ticket in expired {
      ticket.promise.keep(.failure(.outcomeUnknown(reference(ticket.firstUnknown))))
    }
  }

  /// Tells those whose wait for space has gone on until `now`; returns when the next is due.
  func timeOutSpace(now: MonotonicTime) -> MonotonicTime {
    var expired: [Promise<Result<Void, SkeinError>>] = []
    let next = state.withLock { state in
      var next = MonotonicTime.never
      for owner in state.owners.indices where !state.owners[owner].spaceWaiters.isEmpty {
        state.owners[owner].spaceWaiters.removeAll { waiter in
          if waiter.deadline <= now { expired.append(waiter.promise) }
          return waiter.deadline <= now
        }
        for waiter in state.owners[owner].spaceWaiters { next = min(next, waiter.deadline) }
      }
      return next
    }
    for promise in expired {
      promise.keep(.failure(.timedOut("the window of unconfirmed publishes stayed full")))
    }
    return next
  }

  /// What the cluster takes, and where a producer that was known before goes on. The latter only
  /// before anything was published.
  func configure(contentBytesMax: Int, runBytesMax: Int, window: Int) {
    state.withLock { state in
      state.contentBytesMax = min(contentBytesMax, MessageRecord.contentBytesMax)
      state.chunkBytesMax = min(runBytesMax, PublishChunk.bytesMax)
      state.chunkCountMax = max(1, min(window, PublishChunk.countMax))
      state.frameBytesMax = runBytesMax + PublishView.fixedBytes
      state.window = window
    }
  }

  func begin(behind sequence: UInt64) {
    state.withLock { state in
      guard state.next == 1 else { return }
      state.next = sequence + 1
      state.answered = sequence
    }
  }

  /// Not one publish was sent so far and the cluster takes none: all fail with `error`, those in
  /// `chunks` and those that are staged. Later ones are another producer's, so that no two have one
  /// name.
  func takeBack(_ chunks: [PublishChunk], _ error: SkeinError, newProducer: UInt64) {
    var woken: [Promise<Result<Void, SkeinError>>] = []
    var listeners: [Promise<Void>] = []
    state.withLock { state in
      state.seal()
      for chunk in chunks + state.staged {
        let run = PublishAnswerRun(
          owner: chunk.owner, first: chunk.first, count: chunk.count,
          bytesReleased: chunk.run.count, result: .failure(error))
        state.note(run)
        state.release(run, listeners: &listeners)
        woken.append(contentsOf: state.wakeForSpace(run.owner))
      }
      state.staged = []
      state.unknown = []
      state.unknownMessages = 0
      state.producer = newProducer
      state.next = 1
      state.answered = 0
      for owner in state.owners.indices { state.owners[owner].last = 0 }
    }
    for promise in woken { promise.keep(.success(())) }
    for promise in listeners { promise.keep(()) }
  }

  /// Nothing can be published any more. Publishes without an answer have an unknown outcome.
  func fail(_ error: SkeinError) {
    let (staged, tickets, spaceWaiters, listeners) = state.withLock { state in
      state.failure = state.failure ?? error
      let staged = state.staged
      state.staged = []
      state.filling = PublishChunk(owner: -1, queue: QueueID(0), first: 0, count: 0, run: [])
      let tickets = state.tickets
      state.tickets = []
      for ticket in tickets { state.noteUnknown(ticket) }
      let waiters = state.owners.flatMap(\.spaceWaiters)
      let listeners = state.owners.compactMap(\.confirmationWaiter)
      for owner in state.owners.indices {
        state.owners[owner].spaceWaiters = []
        state.owners[owner].confirmationWaiter = nil
      }
      return (staged, tickets, waiters, listeners)
    }
    for chunk in staged { chunk.transaction?.order.giveDeliveriesBack() }
    for ticket in tickets {
      ticket.promise.keep(.failure(.outcomeUnknown(reference(ticket.firstUnknown))))
    }
    for waiter in spaceWaiters { waiter.promise.keep(.failure(error)) }
    for promise in listeners { promise.keep(()) }
  }
}

extension PublishBook.Ticket {
  /// The first sequence that has no answer.
  fileprivate var firstOpen: UInt64 { first + UInt64(receipts.count + failures.count) }

  /// By which a task asks later: a transaction is known by its first message.
  fileprivate var firstUnknown: UInt64 { order == nil ? firstOpen : first }
}

extension PublishBook.State {
  /// Gives a run's answers to the tickets that it touches; answers come in order of sequences.
  fileprivate mutating func note(_ run: PublishAnswerRun) {
    var finished = 0
    for index in tickets.indices {
      if tickets[index].first > run.last {
        // Only the ends are ordered: a range that begins earlier may follow.
        if ticketsOverlap { continue }
        break
      }
      let from = max(run.first, tickets[index].firstOpen)
      let through = min(run.last, tickets[index].last)
      if from <= through {
        for sequence in from...through {
          let reference = PublishReference(producer: producer, sequence: sequence)
          switch run.result {
          case .success(let id):
            let own = Base.MessageID(rawValue: id.rawValue + (sequence - run.first) * run.copies)
            tickets[index].receipts.append(
              MessageReceipt(
                id: MessageIdentifier(own), reference: reference, copies: Int(run.copies)))
          case .failure(let error):
            tickets[index].failures.append(PublishFailure(reference: reference, error: error))
          }
        }
      }
      if tickets[index].last > run.last { break }
      finished = index + 1
    }
    for ticket in tickets[..<finished] where !ticket.promise.keep(ticket.result) {
      // Here, under the lock, so that nobody can ask in between.
      noteUnknown(ticket)
    }
    tickets.removeFirst(finished)
    if tickets.isEmpty { ticketsOverlap = false }
  }

  /// Remembers what is known of publishes whose task does not know their outcome.
  fileprivate mutating func noteUnknown(_ ticket: PublishBook.Ticket) {
    var found = PublishBook.UnknownPublishes(first: ticket.first, last: ticket.last)
    if let order = ticket.order {
      found.copies = order.groups.map { ($0.queues.count, $0.count) }
    }
    if ticket.order == nil || ticket.firstOpen > ticket.last {
      var answers: [UInt64: Result<MessageReceipt, SkeinError>] = [:]
      for receipt in ticket.receipts { answers[receipt.reference.sequence] = .success(receipt) }
      for failure in ticket.failures {
        // The cluster may still know.
        if case .outcomeUnknown = failure.error { continue }
        answers[failure.reference.sequence] = .failure(failure.error)
      }
      if ticket.order == nil, answers.isEmpty { return }
      found.answers = (ticket.first...ticket.last).map { answers[$0] }
    }
    unknown.append(found)
    unknownMessages += found.count
    while unknownMessages > PublishBook.unknownMessagesMax, unknown.count > 1 {
      unknownMessages -= unknown.removeFirst().count
    }
  }

  fileprivate mutating func release(
    _ run: PublishAnswerRun, listeners: inout [Promise<Void>]
  ) {
    owners[run.owner].outstanding -= run.count
    owners[run.owner].outstandingBytes -= run.bytesReleased
    let reference = PublishReference(producer: producer, sequence: run.first)
    if case .failure(let error) = run.result {
      for offset in 0..<run.count where owners[run.owner].failures.count < PublishBook.failuresMax {
        owners[run.owner].failures.append(
          PublishFailure(
            reference: PublishReference(
              producer: producer, sequence: run.first + UInt64(offset)), error: error))
      }
    }
    if owners[run.owner].confirmations != nil {
      owners[run.owner].confirmations?.append(
        PublishConfirmation(
          first: reference, count: run.count, result: run.result.map(MessageIdentifier.init)))
      if let waiter = owners[run.owner].confirmationWaiter {
        owners[run.owner].confirmationWaiter = nil
        listeners.append(waiter)
      }
    }
    if owners[run.owner].isReleased, owners[run.owner].outstanding == 0 {
      freeOwners.append(run.owner)
    }
  }

  /// All who wait for space, once a good part of the window is free: waking for each single place
  /// would cost more than the wait.
  fileprivate mutating func wakeForSpace(
    _ owner: Int
  ) -> [Promise<Result<Void, SkeinError>>] {
    let free = owners[owner].window - owners[owner].outstanding
    guard !owners[owner].spaceWaiters.isEmpty, owners[owner].hasSpace,
      free >= max(1, owners[owner].window / 4) || owners[owner].outstanding == 0
    else { return [] }
    let promises = owners[owner].spaceWaiters.map(\.promise)
    owners[owner].spaceWaiters = []
    return promises
  }
}

extension PublishBook.Ticket {
  fileprivate var result: PublishBook.Receipts {
    if failures.isEmpty { return .success(receipts) }
    if first == last { return .failure(failures[0].error) }
    return .failure(.publishesFailed(failures))
  }
}
