// Snapshots: the state as bytes. The same state gives the same bytes in every process: everything
// is written in the order of its ids, and nothing of how this process happens to store it.
//
//   u32 "SKQM", u32 format, u64 applied index, u64 clock, u64 state hash, u32 next queue
//   u64 token floor
//   u32 queues, by id:    id, name, settings, u32 dead-letter queue (0 none), next token, last use,
//                         serials of its active and its exclusive consumer (0 none), counters,
//                         u8 flags, with keys u64 next turn, u64 count + u64 id, u64 hash of all
//                         messages with a key, u64 count + 16 bytes of those that wait for others;
//                         per level of priority u32 times passed over (only where there
//                         are levels), u64 count + runs of the line (WaitingRuns.swift), then u64
//                         count + 16 bytes each of the returned by id, then with keys of those by turn with u64 turn each, then of the
//                         delayed by id with u64 due each, u32 notes by message id
//   u32 producers, by id: id, session, epoch, attempt, idle since, last sequence, u32 runs
//   u32 sessions, by id:  id, name, kind, origin, producer, timeout, deadline, settled, refusals,
//                         u32 consumers by id: serial, queue, credit, priority, deliveries, u8 flags (1
//                         subscribed, 2 something is settled that has not left), deadline, held, each
//                         with flag 2 with its `HeldState`
//   per queue:            u32 count + serials of its rotation, next first
//   the topology, as in TopologySnapshot.swift
//   u32 CRC-32C of all before
//
// All little-endian. A waiting message elsewhere than in a line is written as it lies in memory: u64 id
// (with the bit that says that others share its record), u64 packed.

import Base

/// Why bytes are no snapshot that this version can read.
package enum SnapshotError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Not a snapshot of queues at all.
  case notASnapshot
  /// Written by a version that this one does not know.
  case unknownFormat(UInt32)
  /// The bytes end early, contradict themselves, or do not have their checksum.
  case damaged(String)

  package var description: String {
    switch self {
    case .notASnapshot: "this is no snapshot of queues"
    case .unknownFormat(let format):
      "the snapshot of the queues has format \(format), which another version of Skein wrote: this one reads"
        + " \(SnapshotFormat.versionWithoutRuns) and \(SnapshotFormat.version)"
    case .damaged(let how): "the snapshot of the queues is damaged: \(how)"
    }
  }
}

enum SnapshotFormat {
  /// "SKQM"
  static let magic: UInt32 = 0x4d51_4b53
  static let version: UInt32 = 12
  /// The last one that had all messages of a line as they lie in memory: read, not written.
  static let versionWithoutRuns: UInt32 = 11
}

/// A machine's state at one moment, which the running machine no longer changes. Shares memory with
/// it: blocks that change are copied then.
package final class FrozenQueues: Sendable {
  let state: MachineState

  init(state: MachineState) { self.state = state }

  /// The last index applied.
  package var appliedIndex: LogIndex { state.appliedIndex }
  package var clock: MachineTime { state.clock }
  package var stateHash: UInt64 { state.stateHash }

  /// Writes the snapshot in chunks of at least 64 KiB but for the last. The same state gives the
  /// same bytes.
  package func encode(into chunk: ([UInt8]) -> Void) {
    var writer = SnapshotWriter()
    writer.putHeader(of: state)
    let queues = state.queues.slots.sorted { state.queues[$0].id < state.queues[$1].id }
    writer.bytes.put(UInt32(queues.count))
    for queue in queues {
      writer.put(state.queues[queue], of: state, chunk)
      writer.maybePass(chunk)
    }
    writer.bytes.put(UInt32(state.producers.count))
    for producer in state.producerSlots.sortedKeys {
      if let slot = state.producerSlots[producer] { writer.put(state.producers[slot]) }
      writer.maybePass(chunk)
    }
    writer.bytes.put(UInt32(state.sessions.count))
    for session in state.sessionSlots.sortedKeys {
      if let slot = state.sessionSlots[session] { writer.put(state.sessions[slot], of: state) }
      writer.maybePass(chunk)
    }
    for queue in queues { writer.putRotation(of: state.queues[queue], in: state) }
    writer.put(state.topology, chunk)
    writer.finish(chunk)
  }

  /// The whole snapshot in one array.
  package func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    encode { bytes.append(contentsOf: $0) }
    return bytes
  }

  /// Every record that some message still needs, in no particular order.
  ///
  /// - Parameter span: asked of many at once; those that it takes are not told one by one.
  package func forEachLiveRecord(
    span: (RecordSpan) -> Bool = { _ in false }, _ body: (RecordReference) -> Void
  ) {
    state.forEachLiveRecord(span: span, body)
  }
}

/// Gathers bytes and passes them on in chunks.
private struct SnapshotWriter {
  var bytes: [UInt8] = []
  private var checksum = Checksum(rawValue: 0)

  private static let chunkBytes = 65_536

  init() {}

  mutating func maybePass(_ chunk: ([UInt8]) -> Void) {
    if bytes.count >= Self.chunkBytes { pass(chunk) }
  }

  private mutating func pass(_ chunk: ([UInt8]) -> Void) {
    checksum = bytes.withUnsafeBytes { Checksum(of: $0, after: checksum) }
    chunk(bytes)
    bytes.removeAll(keepingCapacity: true)
  }

  mutating func finish(_ chunk: ([UInt8]) -> Void) {
    checksum = bytes.withUnsafeBytes { Checksum(of: $0, after: checksum) }
    bytes.put(checksum.rawValue)
    chunk(bytes)
  }

  mutating func putHeader(of state: MachineState) {
    bytes.put(SnapshotFormat.magic)
    bytes.put(SnapshotFormat.version)
    bytes.put(state.appliedIndex)
    bytes.put(state.clock)
    bytes.put(state.hash.value)
    bytes.put(state.nextQueue)
    bytes.put(state.tokenFloor)
  }

  mutating func put(
    _ queue: QueueState, of state: MachineState, _ chunk: ([UInt8]) -> Void
  ) {
    bytes.put(queue.id)
    bytes.putShortText(queue.name)
    queue.settings.encode(into: &bytes)
    let target = queue.deadLetterSlot < 0 ? QueueID(0) : state.queues[queue.deadLetterSlot].id
    bytes.put(target)
    bytes.put(queue.nextToken)
    bytes.put(queue.lastUse)
    bytes.put(queue.activeConsumer)
    bytes.put(queue.exclusiveConsumer)
    for counter in queue.counters { bytes.put(counter) }
    bytes.put(UInt8(queue.needsTrim ? 1 : 0))
    if queue.settings.keyLimit > 0 { put(queue.keys, chunk) }
    for level in 0...queue.ready.higher.count {
      if level > 0 || !queue.ready.higher.isEmpty { bytes.put(queue.ready.passedOver[level]) }
      put(queue.ready[level: level], chunk)
      if queue.settings.keyLimit > 0 { put(queue.ready[level: level].turns, chunk) }
    }
    bytes.put(UInt64(queue.delayed.count))
    for entry in queue.delayed.entries.sorted(by: { $0.message.id < $1.message.id }) {
      bytes.put(entry.message.idBits)
      bytes.put(entry.message.bits)
      bytes.put(entry.due)
      maybePass(chunk)
    }
    bytes.put(UInt32(queue.notes.count))
    for id in queue.notes.sortedKeys {
      if let note = queue.notes[id] { put(note, of: id) }
      maybePass(chunk)
    }
  }

  private mutating func put(_ level: ReadyLevel, _ chunk: ([UInt8]) -> Void) {
    bytes.put(UInt64(level.line.count))
    var runs = WaitingRunWriter()
    level.line.forEachBlock { block in
      runs.put(block, into: &bytes)
      maybePass(chunk)
    }
    runs.end(into: &bytes)
    bytes.put(UInt64(level.returned.count))
    for message in level.returned.entries.sorted(by: { $0.id < $1.id }) {
      bytes.put(message.idBits)
      bytes.put(message.bits)
      maybePass(chunk)
    }
  }

  private mutating func put(_ keys: KeyTable, _ chunk: ([UInt8]) -> Void) {
    bytes.put(keys.nextTurn)
    bytes.put(UInt64(keys.keys.count))
    for id in keys.keys.sortedKeys {
      bytes.put(id)
      bytes.put(keys.keys[id] ?? 0)
      maybePass(chunk)
    }
    var blocked: [Waiting] = []
    keys.forEachBlocked { blocked.append($0) }
    bytes.put(UInt64(blocked.count))
    for message in blocked.sorted(by: { $0.id < $1.id }) {
      bytes.put(message.idBits)
      bytes.put(message.bits)
      maybePass(chunk)
    }
  }

  private mutating func put(_ turns: IndexedHeap<Turn>, _ chunk: ([UInt8]) -> Void) {
    bytes.put(UInt64(turns.count))
    for turn in turns.entries.sorted(by: { $0.number < $1.number }) {
      bytes.put(turn.message.idBits)
      bytes.put(turn.message.bits)
      bytes.put(turn.number)
      maybePass(chunk)
    }
  }

  private mutating func put(_ note: MessageNote, of id: UInt64) {
    bytes.put(id)
    bytes.put(note.attempts)
    bytes.put(note.recordEntry)
    bytes.put(note.expires)
    bytes.put(note.key)
    bytes.put(UInt8(note.story == nil ? 0 : 1))
    if let story = note.story { put(story) }
  }

  private mutating func put(_ story: MessageStory) {
    bytes.putShortText(story.lastError)
    bytes.put(story.firstTry)
    bytes.put(story.eventsForgotten)
    bytes.put(UInt8(story.events.count))
    for event in story.events { put(event) }
    bytes.put(story.deadLetter?.reason.rawValue ?? 0)
    if let deadLetter = story.deadLetter {
      bytes.putShortText(deadLetter.originQueue)
      bytes.put(deadLetter.originID)
      bytes.put(deadLetter.attempts)
      bytes.putShortText(deadLetter.lastError)
      bytes.put(deadLetter.firstTime)
      bytes.put(deadLetter.time)
    }
    // 0 without an address, 1 with one, 2 with one and headers behind it.
    bytes.put(UInt8(story.address.map { $0.headers.isEmpty ? 1 : 2 } ?? 0))
    if let address = story.address {
      put(address)
      if !address.headers.isEmpty { bytes.putLongBytes(address.headers) }
    }
    bytes.put(UInt8(story.deaths.count))
    for death in story.deaths {
      bytes.putShortText(death.queue)
      bytes.put(death.reason.rawValue)
      put(MessageAddress(exchange: death.exchange, keys: death.keys))
      bytes.put(death.count)
      bytes.put(death.time)
    }
    bytes.put(UInt8(story.formerIDs.count))
    for id in story.formerIDs { bytes.put(id) }
  }

  private mutating func put(_ address: MessageAddress) {
    bytes.putShortText(address.exchange)
    bytes.put(UInt16(address.keys.count))
    for key in address.keys { bytes.putLongBytes(key) }
  }

  private mutating func put(_ event: MessageEvent) {
    bytes.put(event.kind.rawValue)
    bytes.put(event.time)
    bytes.putShortText(event.queue)
    bytes.put(event.reason?.rawValue ?? 0)
    bytes.put(event.granted)
    bytes.put(event.attempt)
    bytes.putShortText(event.session)
    bytes.put(event.consumer)
    bytes.put(event.node)
    bytes.putShortText(event.error)
  }

  mutating func put(_ producer: ProducerState) {
    bytes.put(producer.id)
    bytes.put(producer.session)
    bytes.put(producer.epoch)
    bytes.put(producer.attempt)
    bytes.put(producer.idleSince)
    bytes.put(producer.lastSequence)
    bytes.put(UInt32(producer.runs.count))
    for place in 0..<producer.runs.count {
      let run = producer.runs[place]
      bytes.put(run.first)
      bytes.put(run.count)
      bytes.put(run.firstID)
      bytes.put(run.refusal?.rawValue ?? 0)
      bytes.put(run.copies)
    }
  }

  mutating func put(_ session: SessionState, of state: MachineState) {
    bytes.put(session.id)
    bytes.putShortText(session.name)
    bytes.put(session.kind.rawValue)
    bytes.put(UInt8(session.origin == nil ? 0 : 1))
    bytes.put(session.origin?.node ?? NodeID(0))
    bytes.put(session.origin?.connection ?? 0)
    bytes.put(session.node)
    bytes.put(session.producer)
    bytes.put(session.timeout)
    bytes.put(session.deadline)
    bytes.put(session.settled)
    bytes.put(UInt32(session.refusals.count))
    for place in 0..<session.refusals.count {
      let refusal = session.refusals[place]
      bytes.put(refusal.sequence)
      bytes.put(refusal.consumer)
      bytes.put(refusal.range.first)
      bytes.put(refusal.range.last)
      bytes.put(refusal.refusal.rawValue)
    }
    bytes.put(UInt32(session.consumers.count))
    for member in session.consumers { put(state.consumers[member.slot], of: state) }
  }

  private mutating func put(_ consumer: ConsumerState, of state: MachineState) {
    bytes.put(consumer.id)
    bytes.put(consumer.serial)
    bytes.put(state.queues[consumer.queueSlot].id)
    bytes.put(consumer.credit)
    bytes.put(UInt16(bitPattern: consumer.priority))
    bytes.put(consumer.nextDelivery)
    let isLeaving = consumer.held.leavingCount > 0
    bytes.put(UInt8((consumer.isSubscribed ? 1 : 0) | (isLeaving ? 2 : 0)))
    bytes.put(consumer.deadline)
    bytes.put(UInt32(consumer.held.count))
    for held in consumer.held.all {
      bytes.put(held.delivery)
      bytes.put(held.message.idBits)
      bytes.put(held.message.bits)
      bytes.put(held.token)
      bytes.put(held.leaseEnd)
      bytes.put(held.granted)
      bytes.put(held.attempt)
      if isLeaving { bytes.put(held.state.rawValue) }
    }
  }

  mutating func put(_ topology: Topology, _ chunk: ([UInt8]) -> Void) {
    var gathered: [UInt8] = []
    swap(&gathered, &bytes)
    topology.encode(into: &gathered) { bytes in
      guard bytes.count >= Self.chunkBytes else { return }
      swap(&self.bytes, &bytes)
      pass(chunk)
      swap(&self.bytes, &bytes)
    }
    swap(&gathered, &bytes)
  }

  mutating func putRotation(of queue: QueueState, in state: MachineState) {
    bytes.put(UInt32(queue.rotation.count))
    for consumer in queue.rotation.consumers { bytes.put(state.consumers[consumer].serial) }
  }
}

extension QueueState {
  /// What is written of a queue's counters, in this order.
  var counters: [UInt64] {
    [published, delivered, acknowledged, redelivered, deadLettered, dropped]
  }
}
