// Publishing: every number of a producer is answered once, and asked again is answered alike (G4).
//
// The numbers of a producer are contiguous. A publish may repeat numbers that are known, which are
// answered from memory, and go on with new ones, which are stored. Refusals that say "not now"
// (`Refusal.isFinal` is false) use no number up.

import Base

extension MachineState {
  mutating func publish(_ command: Publish, _ effects: inout EffectList) {
    guard let session = slot(of: command.session) else {
      effects.addForAll(
        .refused(
          command.session, first: command.first, count: command.count, .sessionNotFound))
      return
    }
    let origin = sessions[session].origin
    guard let producer = slot(of: sessions[session].producer),
      producers[producer].session == command.session
    else {
      refuse(command, from: command.first.rawValue, .producerFenced, origin, &effects)
      return
    }
    forgetAnswers(of: producer, through: command.answeredThrough)
    let runs = producers[producer].runs.count
    defer { liveRuns += producers[producer].runs.count - runs }
    let first = command.first.rawValue
    let next = producers[producer].lastSequence + 1
    guard first >= 1, first <= next else {
      refuse(command, from: first, .sequenceGap, origin, &effects)
      return
    }
    let known = min(UInt64(command.count), next - first)
    if known > 0, effects.wants(origin) {
      producers[producer].answers(from: first, count: known) { run, count in
        effects.addAnswer(run, to: command.session, first: first, count: count)
      }
    }
    if known < command.count { store(command, after: Int(known), producer, origin, &effects) }
  }

  /// Stores the messages of the run but for the first `known`, or refuses them.
  private mutating func store(
    _ command: Publish, after known: Int, _ producer: Int, _ origin: SessionOrigin?,
    _ effects: inout EffectList
  ) {
    let first = command.first.rawValue + UInt64(known)
    let count = Int(command.count) - known
    if hasTooManyAnswers(producer, with: count) {
      refuse(command, from: first, .tooManyUnanswered, origin, &effects)
      return
    }
    if publishedHere + count > limits.publishesPerEntry {
      refuse(command, from: first, .overloaded, origin, &effects)
      return
    }
    var run = ProducerState.Run(first: first, count: UInt64(count), firstID: 0, refusal: nil)
    if command.refusal == nil, let queue = slot(of: command.queue) {
      if queues[queue].hasLimit {
        storeWithinLimit(command, after: known, queue, producer, origin, &effects)
        return
      }
      let id = MessageID(entry: appliedIndex, ordinal: nextOrdinal)
      hash.fold(.published, id.rawValue, UInt64(command.queue.rawValue) << 32 | UInt64(count))
      Self.append(
        command.run, at: command.runOffset, after: known, count: count, firstID: id,
        to: &queues[queue], at: clock, hash: &hash)
      stored(count, in: queue)
      run.firstID = id.rawValue
    } else {
      hash.fold(.publishRefused, first, UInt64(count))
      run.refusal = command.refusal ?? .queueNotFound
    }
    producers[producer].answer(run)
    if effects.wants(origin) {
      effects.addAnswer(run, to: command.session, first: first, count: run.count)
    }
  }

  /// Of a producer with a session.
  mutating func forgetAnswers(of producer: Int, through sequence: PublishSequence) {
    let runs = producers[producer].runs.count
    producers[producer].forgetAnswers(
      through: min(sequence.rawValue, producers[producer].lastSequence))
    liveRuns += producers[producer].runs.count - runs
  }

  /// Whether the producer has to say that it has seen answers before it gets so many more, which
  /// make `runs` runs.
  @inline(__always)  // As `slot(of:)`.
  func hasTooManyAnswers(_ producer: Int, with count: Int, runs: Int = 1) -> Bool {
    producers[producer].unanswered + UInt64(count) > limits.unansweredMessages
      || runs > roomForRuns(producer)
  }

  /// How many more runs of answers are kept of the producer.
  @inline(__always)
  private func roomForRuns(_ producer: Int) -> Int {
    let runs = producers[producer].runs.count
    return min(
      limits.unansweredRuns - runs, max(limits.runsWhenFull - runs, limits.liveRuns - liveRuns))
  }

  mutating func stored(_ count: Int, in queue: Int) {
    nextOrdinal += count
    publishedHere += count
    invariant(
      nextOrdinal <= MessageID.perEntryMax, "\(nextOrdinal) messages in entry \(appliedIndex)")
    markDirty(queue)
    lowerDeadline(ofQueue: queue)
  }

  /// As `store`, each message judged by itself: one that finds no room is refused with `queueFull`,
  /// or the oldest make room for all that were stored. Where the answers are too different to be
  /// kept, the rest has to be published again.
  private mutating func storeWithinLimit(
    _ command: Publish, after known: Int, _ queue: Int, _ producer: Int,
    _ origin: SessionOrigin?, _ effects: inout EffectList
  ) {
    let isRejecting = queues[queue].settings.overflow == .reject
    let bytesMax = queues[queue].settings.bytesMax
    let first = MessageID(entry: appliedIndex, ordinal: nextOrdinal)
    hash.fold(.published, first.rawValue, UInt64(command.queue.rawValue) << 32)
    let room = roomForRuns(producer)
    var runs: [ProducerState.Run] = []
    var made = 0
    var stored = 0
    var offset = 0
    var stop: UInt64?
    for place in 0..<Int(command.count) {
      let size = Self.recordSize(in: command.run, at: offset)
      defer { offset += size }
      if place < known { continue }
      var answer = ProducerState.Run(
        first: command.first.rawValue + UInt64(place), count: 1, firstID: 0, refusal: nil)
      let isRefused =
        isRejecting ? queues[queue].isFull(for: UInt64(size)) : bytesMax > 0 && size > bytesMax
      if isRefused {
        answer.refusal = .queueFull
      } else {
        answer.firstID = first.rawValue + UInt64(stored)
      }
      let goesOn = (runs.last ?? producers[producer].runs.last)?.joins(answer) ?? false
      if !goesOn {
        if made == room {
          stop = answer.first
          break
        }
        made += 1
      }
      if isRefused {
        hash.fold(.publishRefused, answer.first, 1)
      } else {
        let rest = UnsafeRawBufferPointer(rebasing: command.run[offset...])
        Self.append(
          rest, at: command.runOffset + offset, after: 0, count: 1,
          firstID: MessageID(rawValue: answer.firstID), to: &queues[queue], at: clock, hash: &hash)
        stored += 1
      }
      if goesOn, !runs.isEmpty {
        runs[runs.count - 1].count += 1
      } else {
        runs.append(answer)
      }
    }
    self.stored(stored, in: queue)
    if !isRejecting { trimIfOverfull(queue) }
    for run in runs {
      producers[producer].answer(run)
      if effects.wants(origin) {
        effects.addAnswer(run, to: command.session, first: run.first, count: run.count)
      }
    }
    if let stop { refuse(command, from: stop, .tooManyUnanswered, origin, &effects) }
  }

  /// The loop over messages.
  static func append(
    _ run: UnsafeRawBufferPointer, at runOffset: Int, after known: Int, count: Int,
    firstID: MessageID, isShared: Bool = false, to queue: inout QueueState,
    at clock: MachineTime, hash: inout StateHash
  ) {
    let isPlain = queue.isPlain
    var offset = 0
    for _ in 0..<known { offset += recordSize(in: run, at: offset) }
    let start = offset
    for place in 0..<count {
      let size = recordSize(in: run, at: offset)
      let message = Waiting(
        id: MessageID(rawValue: firstID.rawValue + UInt64(place)), isShared: isShared,
        offset: runOffset + offset, size: size)
      hash.fold(message.bits)
      // SAFETY: the record has its fixed bytes, of which the flags are the last.
      let flags = run.load(
        fromByteOffset: offset + MessageRecord.fixedBytes - 1, as: UInt8.self)
      if isPlain, flags == 0 {
        queue.ready.append(message)
      } else {
        queue.admit(message, record: UnsafeRawBufferPointer(rebasing: run[offset...]), at: clock)
      }
      offset += size
    }
    queue.bytes += UInt64(offset - start)
    queue.published += UInt64(count)
  }

  /// The record's size, which was checked by whoever proposed the entry: reading outside would
  /// take a bug, and stops here.
  @inline(__always)
  static func recordSize(in run: UnsafeRawBufferPointer, at offset: Int) -> Int {
    invariant(
      run.count - offset >= MessageRecord.fixedBytes, "record at \(offset) of \(run.count) bytes")
    // As `MessageRecord.size`, which is not inlined here.
    // SAFETY: the line above.
    let size = Int(
      UInt32(littleEndian: run.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
    invariant(
      size >= MessageRecord.fixedBytes && size <= run.count - offset,
      "record of \(size) bytes at \(offset) of \(run.count)")
    return size
  }

  /// Refuses the command's messages from number `first` on without using their numbers up.
  private func refuse(
    _ command: Publish, from first: UInt64, _ refusal: Refusal, _ origin: SessionOrigin?,
    _ effects: inout EffectList
  ) {
    let known = UInt32(first - command.first.rawValue)
    effects.add(
      .refused(
        command.session, first: PublishSequence(rawValue: first), count: command.count - known,
        refusal),
      for: origin)
  }
}

extension EffectList {
  /// The answer to `count` publishes; a nil run is forgotten and then begins at `first`.
  mutating func addAnswer(
    _ run: ProducerState.Run?, to session: SessionID, first: UInt64, count: UInt64
  ) {
    let start = PublishSequence(rawValue: run?.first ?? first)
    if let run, run.refusal == nil {
      effects.append(
        .confirmed(
          session, first: start, count: UInt32(count), firstID: MessageID(rawValue: run.firstID),
          copies: run.copies))
    } else {
      effects.append(
        .refused(
          session, first: start, count: UInt32(count), run?.refusal ?? .answerForgotten))
    }
  }
}
