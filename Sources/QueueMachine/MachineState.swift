import Base

struct MachineState: Sendable {
  var limits: MachineLimits
  var clock = MachineTime.zero
  var appliedIndex = LogIndex.zero
  var stateHash: UInt64 = 0
  var nextDeadline: MachineTime { .never }
  init(limits: MachineLimits) { self.limits = limits }
  init(snapshot: UnsafeRawBufferPointer, limits: MachineLimits) throws(SnapshotError) {
    self.limits = limits
  }

  mutating func apply(
    index: LogIndex, payload: UnsafeRawBufferPointer, effects: inout EffectList
  ) {
    appliedIndex = index
    clock = max(clock, CommandBatch.stamp(of: payload))
  }
  func queue(named name: String) -> QueueID? { nil }
  func summary(of queue: QueueID) -> QueueSummary? { nil }
  func summaries() -> [QueueSummary] { [] }
  func peek(_ queue: QueueID, after: MessageID?, limit: Int) -> [PeekedMessage] { [] }
  func held(by session: SessionID) -> Int? { nil }
  func deliveries(of session: SessionID) -> [(ConsumerID, Delivery)] { [] }
  func origin(of session: SessionID) -> SessionOrigin? { nil }
  func sessionSummaries() -> [SessionSummary] { [] }
  var sessionCount: Int { 0 }
  var consumerCount: Int { 0 }
  func outcome(of sequence: PublishSequence, by producer: ProducerID) -> PublishOutcome { .unseen }
  func forEachLiveRecord(_ body: (RecordReference) -> Void) {}
  func checkInvariants() {}
}
