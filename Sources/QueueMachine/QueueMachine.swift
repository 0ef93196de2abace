// The queues as a deterministic replicated machine: an entry of the log goes in, the state changes,
// and out come the effects for the shell to carry out. No clock, no randomness, no I/O: the same
// entries give the same state, hash and snapshot on every node (G14).
//
// Node.Replica owns one and is its only caller.

import Base

package struct QueueMachine: ~Copyable {
  var state: MachineState
  private let inPlace = InPlace()

  /// An empty machine.
  ///
  /// - Parameter limits: must be the same on all nodes.
  package init(limits: MachineLimits = MachineLimits()) {
    state = MachineState(limits: limits)
  }

  /// Applies one entry of kind `commands`; `payload` has passed `CommandBatch.check` at its
  /// proposer (`Replica.proposeBatch`).
  package mutating func apply(
    index: LogIndex, payload: UnsafeRawBufferPointer, effects: inout EffectList
  ) {
    state.apply(index: index, payload: payload, effects: &effects)
  }

  /// The machine's clock: the largest stamp applied.
  package var clock: MachineTime { state.clock }
  /// The last index applied, 0 before the first.
  package var appliedIndex: LogIndex { state.appliedIndex }
  /// A digest of every decision so far; equal on all replicas at equal index (G14).
  package var stateHash: UInt64 { state.stateHash }
  /// When an entry should be proposed for something falls due; `.never` if nothing will. May be
  /// earlier than anything really falls due, never later.
  package var nextDeadline: MachineTime { state.nextDeadline }

  // Reads.

  /// The queue of that name.
  package func queue(named name: String) -> QueueID? { state.queue(named: name) }
  /// Messages of the queue that failed for good, were too old or too many, where there is no
  /// dead-letter queue.
  package func dropped(from queue: QueueID) -> UInt64? { state.dropped(queue) }
  package func summary(of queue: QueueID) -> QueueSummary? { state.summary(of: queue) }
  /// All queues by name.
  package func summaries() -> [QueueSummary] { state.summaries() }
  /// Messages of a queue by ascending id, whether ready, delayed or held.
  ///
  /// - Parameters:
  ///   - filter: of which the states and what is passed over count here; records are not read.
  ///   - after: begin behind this id; nil begins with the first.
  ///   - limit: the most to return.
  package func peek(
    _ queue: QueueID, _ filter: MessageFilter = MessageFilter(), after: MessageID? = nil,
    limit: Int
  ) -> [PeekedMessage] {
    state.peek(queue, filter, after: after, limit: limit)
  }
  /// Where a message is that was moved from `queue`, as a dead letter or back; nil if it is nowhere.
  package func moved(
    _ message: MessageID, from queue: QueueID
  ) -> (queue: QueueID, message: MessageID)? {
    state.moved(message, from: queue)
  }
  /// What is known of one message; nil if the queue does not have it.
  package func biography(of message: MessageID, in queue: QueueID) -> MessageBiography? {
    state.biography(of: message, in: queue)
  }
  /// Why the queue has no message of that id, as far as can be told without looking at too much.
  package func absence(of message: MessageID, from queue: QueueID) -> MessageAbsence {
    guard let slot = state.slot(of: queue) else {
      return MessageAbsence(refusal: .queueNotFound, detail: "")
    }
    return state.absence(of: message, from: slot, looks: Self.looksPerRead).absence
  }
  /// A question is answered on the event loop, and there may be many.
  private static let looksPerRead = 1 << 16

  /// How many messages the session holds; nil if there is no such session.
  package func held(by session: SessionID) -> Int? { state.held(by: session) }
  /// What the session's consumers hold, by consumer and delivery.
  package func deliveries(of session: SessionID) -> [(ConsumerID, Delivery)] {
    state.deliveries(of: session)
  }
  /// The connection that the session is attached through; nil if detached or unknown.
  package func origin(of session: SessionID) -> SessionOrigin? { state.origin(of: session) }
  /// All sessions by id.
  package func sessions() -> [SessionSummary] { state.sessionSummaries() }
  package var queueCount: Int { state.queueCount }
  /// The session's consumers by id, ended ones that still hold messages included.
  package func consumers(of session: SessionID) -> [ConsumerID] { state.consumers(of: session) }
  package var sessionCount: Int { state.sessionCount }
  package var consumerCount: Int { state.consumerCount }
  /// What became of a publish (G4).
  package func outcome(of sequence: PublishSequence, by producer: ProducerID) -> PublishOutcome {
    state.outcome(of: sequence, by: producer)
  }

  // Snapshots.

  /// The state as it is now, to be encoded on another thread. Cheap: copies no message.
  package func freeze() -> FrozenQueues { FrozenQueues(state: state) }

  /// The machine that a snapshot was made of.
  ///
  /// - Parameter limits: must be those of the machine that wrote it.
  /// - Throws: `SnapshotError` if the bytes are damaged or of another format.
  package init(
    snapshot: UnsafeRawBufferPointer, limits: MachineLimits = MachineLimits()
  ) throws(SnapshotError) {
    state = try MachineState(snapshot: snapshot, limits: limits)
  }

  package init(
    snapshot: [UInt8], limits: MachineLimits = MachineLimits()
  ) throws(SnapshotError) {
    let read = snapshot.withUnsafeBytes { bytes in
      Result { () throws(SnapshotError) in try MachineState(snapshot: bytes, limits: limits) }
    }
    state = try read.get()
  }

  /// Every record that some message still needs, in no particular order.
  package func forEachLiveRecord(_ body: (RecordReference) -> Void) {
    state.forEachLiveRecord(body)
  }

  /// The same of a snapshot's bytes.
  package static func forEachLiveRecord(
    inSnapshot bytes: UnsafeRawBufferPointer, _ body: (RecordReference) -> Void
  ) throws(SnapshotError) {
    try MachineState(snapshot: bytes, limits: MachineLimits()).forEachLiveRecord(body)
  }

  /// Stops the process if the state contradicts itself. Slow: for tests and simulations.
  package func checkInvariants() { state.checkInvariants() }
}
