// Writes a history, event by event: what the simulator and the chaos harness record with. A value
// that appends lines to bytes; whoever owns it writes them to a file or gives them to a
// HistoryReader.

/// A client's operation, as its invoke and its completion both name it.
package struct HistoryOperation: Equatable, Sendable {
  package var action: HistoryAction
  package var queue: String
  package var value: String?
  package var token: UInt64?
  /// Nanoseconds; of a publish, nack or reschedule.
  package var delay: UInt64?
  /// Nanoseconds; of a publish.
  package var timeToLive: UInt64?
  package var key: String?
  package var priority: Int?
  /// Nanoseconds; of an extend, as it is asked for.
  package var lease: UInt64?
  /// Why a nack was sent.
  package var error: String?

  /// The error of a settlement that failed since the cluster no longer took its process for the holder.
  package static let stale = "stale"

  private init(_ action: HistoryAction, _ queue: String, _ value: String?, token: UInt64? = nil) {
    self.action = action
    self.queue = queue
    self.value = value
    self.token = token
  }

  package static func declare(_ queue: String) -> Self { Self(.declare, queue, nil) }

  /// - Parameter value: the workload's own id of the message, never used for another one.
  package static func publish(
    _ value: String, to queue: String, delay: UInt64? = nil, timeToLive: UInt64? = nil,
    key: String? = nil, priority: Int? = nil
  ) -> Self {
    var operation = Self(.publish, queue, value)
    operation.delay = delay
    operation.timeToLive = timeToLive
    operation.key = key
    operation.priority = priority
    return operation
  }

  package static func ack(_ value: String, of queue: String, token: UInt64) -> Self {
    Self(.ack, queue, value, token: token)
  }

  package static func nack(
    _ value: String, of queue: String, token: UInt64, delay: UInt64? = nil, error: String? = nil
  ) -> Self {
    var operation = Self(.nack, queue, value, token: token)
    operation.delay = delay
    operation.error = error
    return operation
  }

  package static func reject(_ value: String, of queue: String, token: UInt64) -> Self {
    Self(.reject, queue, value, token: token)
  }

  package static func release(_ value: String, of queue: String, token: UInt64) -> Self {
    Self(.release, queue, value, token: token)
  }

  package static func extend(
    _ value: String, of queue: String, token: UInt64, lease: UInt64? = nil
  ) -> Self {
    var operation = Self(.extend, queue, value, token: token)
    operation.lease = lease
    return operation
  }

  package static func cancel(_ value: String, in queue: String) -> Self {
    Self(.cancel, queue, value)
  }

  package static func reschedule(_ value: String, in queue: String, delay: UInt64) -> Self {
    var operation = Self(.reschedule, queue, value)
    operation.delay = delay
    return operation
  }

  package static func purge(_ queue: String) -> Self { Self(.purge, queue, nil) }

  /// - Parameter deadLetters: the dead-letter queue. A nil `value` brings all of it back.
  package static func redrive(_ value: String? = nil, from deadLetters: String) -> Self {
    Self(.redrive, deadLetters, value)
  }

  package static func drain(_ queue: String) -> Self { Self(.drain, queue, nil) }
}

/// A message that reached a consumer.
package struct HistoryDelivery: Equatable, Sendable {
  package var queue: String
  package var value: String
  package var token: UInt64
  package var attempt: UInt32?
  /// Nanoseconds.
  package var lease: UInt64?
  /// When the lease began, on the machine's clock, nanoseconds.
  package var granted: UInt64?
  /// The server's id of the stored copy.
  package var id: String?

  package init(
    queue: String, value: String, token: UInt64, attempt: UInt32? = nil, lease: UInt64? = nil,
    granted: UInt64? = nil, id: String? = nil
  ) {
    self.queue = queue
    self.value = value
    self.token = token
    self.attempt = attempt
    self.lease = lease
    self.granted = granted
    self.id = id
  }
}

package struct HistoryRecorder: Sendable {
  /// Whole lines that nobody has taken yet.
  package private(set) var bytes: [UInt8] = []
  package private(set) var eventCount: UInt64 = 0
  private var lastTime: UInt64 = 0

  package init() {}

  /// Takes the lines written since the last call, to be written to a file.
  package mutating func takeBytes() -> [UInt8] {
    var taken: [UInt8] = []
    swap(&taken, &bytes)
    return taken
  }

  /// An operation begins. `time` is nanoseconds on the recorder's clock; one that fell behind the
  /// last event's is lifted to it.
  package mutating func invoke(
    _ operation: HistoryOperation, by process: String, at time: UInt64
  ) {
    write(operation, .invoke, process, time) { line in
      line.put("delay", operation.delay)
      line.put("ttl", operation.timeToLive)
      line.put("key", operation.key)
      line.put("priority", operation.priority.map { UInt64(max(0, $0)) })
      line.put("lease", operation.lease)
      line.put("error", operation.error)
    }
  }

  /// An operation was carried out: `operation` is the one that was invoked.
  /// - Parameters:
  ///   - id: the server's id of the stored copy, of a publish.
  ///   - lease: nanoseconds, of an extend.
  ///   - settings: what the queue has, of a declare.
  package mutating func ok(
    _ operation: HistoryOperation, by process: String, at time: UInt64, id: String? = nil,
    lease: UInt64? = nil, granted: UInt64? = nil, settings: HistoryQueueSettings? = nil
  ) {
    write(operation, .ok, process, time) { line in
      line.put("id", id)
      line.put("lease", lease)
      line.put("granted", granted)
      if let settings { line.put("config", settings) }
    }
  }

  /// An operation was refused: it certainly has not happened and never will.
  package mutating func fail(
    _ operation: HistoryOperation, by process: String, at time: UInt64, error: String? = nil
  ) {
    write(operation, .fail, process, time) { line in line.put("error", error) }
  }

  /// Nobody knows whether an operation happened, or will.
  package mutating func info(
    _ operation: HistoryOperation, by process: String, at time: UInt64, error: String? = nil
  ) {
    write(operation, .info, process, time) { line in line.put("error", error) }
  }

  package mutating func deliver(
    _ delivery: HistoryDelivery, to process: String, at time: UInt64
  ) {
    var line = begin(time, process, .ok, "deliver")
    line.put("queue", delivery.queue)
    line.put("value", delivery.value)
    line.put("token", delivery.token)
    line.put("attempt", delivery.attempt.map(UInt64.init))
    line.put("lease", delivery.lease)
    line.put("granted", delivery.granted)
    line.put("id", delivery.id)
    end(&line)
  }

  /// Something was done to the cluster or its clients, or happened there.
  package mutating func nemesis(
    _ fault: String, value: String? = nil, type: HistoryEventType = .info,
    timeout: UInt64? = nil, at time: UInt64
  ) {
    var line = begin(time, "nemesis", type, fault)
    line.put("value", value)
    line.put("timeout", timeout)
    end(&line)
  }

  /// `leader` begins to lead.
  package mutating func leaderChange(to leader: String, at time: UInt64) {
    nemesis("leader-change", value: leader, at: time)
  }

  /// `process` is killed; its name must not be used again. Record it before the signal is sent.
  package mutating func clientKill(_ process: String, at time: UInt64) {
    nemesis("client-kill", value: process, at: time)
  }

  /// The session of `process` ends, by itself or because the cluster took it for dead.
  ///
  /// - Parameter timeout: nanoseconds of silence after which the cluster ends it, and by nothing else.
  package mutating func sessionEnd(_ process: String, timeout: UInt64? = nil, at time: UInt64) {
    nemesis("session-end", value: process, timeout: timeout, at: time)
  }

  // MARK: Lines

  private mutating func write(
    _ operation: HistoryOperation, _ type: HistoryEventType, _ process: String, _ time: UInt64,
    _ rest: (inout JSONLine) -> Void
  ) {
    var line = begin(time, process, type, operation.action.name)
    line.put("queue", operation.queue)
    line.put("value", operation.value)
    line.put("token", operation.token)
    rest(&line)
    end(&line)
  }

  private mutating func begin(
    _ time: UInt64, _ process: String, _ type: HistoryEventType, _ name: String
  ) -> JSONLine {
    lastTime = max(lastTime, time)
    var line = JSONLine()
    swap(&line.bytes, &bytes)
    line.begin()
    line.put("index", eventCount)
    line.put("time", lastTime)
    line.put("process", process)
    line.put("type", type.name)
    line.put("f", name)
    eventCount += 1
    return line
  }

  private mutating func end(_ line: inout JSONLine) {
    line.end()
    line.bytes.append(0x0a)
    swap(&line.bytes, &bytes)
  }
}
