// Publishes: from the book to the leader, and the answers back.

import Base
import Transport
import Wire

extension ClientLoop {
  /// Takes what tasks have staged.
  func takePublishes() {
    taken.removeAll(keepingCapacity: true)
    shared.book.take(into: &taken)
    if taken.isEmpty { return }
    isSessionWanted = true
    let deadline = now + options.timeout.nanoseconds
    for chunk in taken { publishes.append(chunk, deadline: deadline) }
  }

  func pumpPublishes() {
    guard now >= publishes.pauseEnd, let connection else { return }
    while let next = publishes.nextToSend,
      connection.pendingBytes + Frame.overheadBytes < connection.outboundLimit
    {
      if let transaction = next.chunk.transaction {
        let isSent = send(transaction, next.chunk, connection)
        publishes.noteSent()
        if !isSent { giveUp(next, count: next.remaining, reference: next.chunk.first) }
        continue
      }
      let offset = next.openOffset
      guard next.chunk.run.count - offset <= publishes.runBytesMax else {
        publishes.noteSent()
        giveUp(next, count: 1, reference: next.firstOpen)
        continue
      }
      next.chunk.run.withUnsafeBytes { run in
        let view = PublishView(
          queue: next.chunk.queue, first: PublishSequence(next.firstOpen),
          answeredThrough: PublishSequence(publishes.answeredThrough ?? 0),
          count: next.remaining, run: UnsafeRawBufferPointer(rebasing: run[offset...]))
        _ = connection.write { view.encodeHead(into: &$0) }
      }
      let isTaken = connection.append(
        shared: next.chunk.run, range: offset..<next.chunk.run.count)
      invariant(isTaken, "a frame's head was taken and not its run")
      publishes.noteSent()
    }
  }

  /// This leader takes no frame so large. An earlier one may have stored it.
  private func giveUp(_ publish: PublishQueue.Pending, count: Int, reference: UInt64) {
    noteAnswer(
      first: publish.firstOpen, count: count,
      result: .failure(.outcomeUnknown(shared.book.reference(reference))))
  }

  /// Always the whole of it: a part that is answered already is answered again. False if the leader
  /// does not take it.
  private func send(
    _ transaction: ChunkTransaction, _ chunk: PublishChunk, _ connection: Connection
  ) -> Bool {
    var head: [UInt8] = []
    let fits = chunk.run.withUnsafeBytes { run in
      let view = transaction.head(
        first: chunk.first,
        answeredThrough: min(publishes.answeredThrough ?? 0, chunk.first - 1), run: run)
      let payloadBytes = view.headBytes + run.count
      guard payloadBytes - PublishView.fixedBytes <= publishes.runBytesMax else { return false }
      view.encodeHead(into: &head)
      return true
    }
    guard fits else { return false }
    let isTaken = connection.append(frame: head, shared: [chunk.run])
    invariant(isTaken, "a connection with room takes no frame")
    return true
  }

  func noteAnswer(
    first: UInt64, count: Int, result: Result<Base.MessageID, SkeinError>, copies: UInt32 = 1
  ) {
    publishes.answer(
      first: first, count: count, result: result, copies: UInt64(copies), into: &answers)
  }

  func handlePublishRefused(first: UInt64, count: Int, _ refusal: Refusal, detail: String) {
    switch refusal {
    case .notLeader, .shuttingDown, .noQuorum, .diskFailed:
      leaveLeader("", because: refusal)
    case .sessionNotFound:
      loseSessionAndConnection()
    case .producerFenced:
      handleFenced()
    case .sequenceGap where publishes.isNext(first):
      // Whatever was sent before it is answered: sending it again would never help.
      handleForgotten("it refuses publish \(first), though those before it are answered")
    case .overloaded, .tooManyUnanswered, .sequenceGap:
      // The number is not used up: the same publishes are sent again, in order, a little later.
      guard publishes.isOpen(first), now >= publishes.pauseEnd else { return }
      publishes.sendAgain()
      publishes.pauseEnd = now + .milliseconds(20)
    case .answerForgotten:
      // Of what was done once, and then of what was not: nobody can say.
      let reference = shared.book.reference(first)
      noteAnswer(first: first, count: count, result: .failure(.outcomeUnknown(reference)))
    default:
      noteAnswer(first: first, count: count, result: .failure(.refusal(refusal, detail: detail)))
    }
  }

  /// Tells the tasks, once per turn.
  func reportAnswers() {
    if answers.isEmpty { return }
    shared.book.answer(answers)
    answers.removeAll(keepingCapacity: true)
  }

  /// The leader opens no session: what nobody has sent is not stored, and its time is up.
  func takeBackPublishes(_ error: SkeinError) {
    // A producer that was chosen by the program keeps its name and with it its numbers.
    // So does one that a session was opened for.
    guard options.producer == nil, !hadSession, let chunks = publishes.takeBack(now: now) else {
      return
    }
    shared.book.takeBack(chunks, error, newProducer: .random(in: 1 ... .max))
  }

  func runPublishTimers() -> MonotonicTime {
    // An answer of this same turn counts.
    reportAnswers()
    if sessionRefusal != nil, publishes.isUntouched, options.producer == nil, !hadSession,
      let due = publishes.firstDeadline
    {
      // Told by name with the next refusal, which is not far.
      let last = due + .seconds(1)
      if now < last { return last }
    }
    let (through, next) = publishes.expire(now: now)
    if let through { shared.book.timeOut(through: through) }
    let resumes = publishes.pauseEnd > now && publishes.hasUnsent ? publishes.pauseEnd : .never
    return min(next, resumes)
  }
}
