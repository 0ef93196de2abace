// A full disk, or one of which no more may be used, and the demands on the node that has it (FullDiskWatch).

import Base
import SkeinClient

extension FaultActor {
  private static let lookInterval = Duration.milliseconds(50)
  /// After it has stopped, what was under way may end.
  private static let lastWritesMax = Nanoseconds.seconds(1)
  /// Less than the node needs to take publishes (two segments), and enough to go on for a while.
  private static let nearlyFullBytes: UInt64 = 3 << 19

  /// Fills the disk of a node, as far as the draw says, and makes room again.
  func fillDisk(_ fault: PlannedFault, _ node: Int, _ place: Int) async throws {
    let directory = cluster.places.dataDirectory(node)
    let probe = try await RoomProbe(client: try await administrator())
    let left = fault.draw.isMultiple(of: 2) ? Self.nearlyFullBytes : 0
    var detail = try DiskFaults.fill(directory, leaving: left)
    var watch = FullDiskWatch(mustSay: true)
    let files = try await observe(fault, node, probe, &watch)
    if let files {
      watch.filesChanged(DiskFaults.changes(files, try DiskFaults.fingerprint(of: directory)))
    }
    try DiskFaults.empty(directory)
    detail += try await makeUse(ofRoomAt: node, &watch)
    await probe.close()
    records[place].detail = detail
    for breach in watch.breaches { await cluster.noteBreach(breach, by: node, of: "G12") }
    if watch.word == .nothing, watch.breaches.isEmpty {
      records[place].skipped = "the node did not need the disk meanwhile"
    }
  }

  /// The node leads while its directory may not grow: what leads is what takes publishes.
  func limitDisk(_ fault: PlannedFault, _ node: Int) async throws {
    // A limit is no reason to stop.
    cluster.leaders.excuseNoMore(node)
    let probe = try await RoomProbe(client: try await administrator())
    await cluster.stop(node)
    try await cluster.limitDisk(node, true)
    try await cluster.start(node)
    let admin = try await administrator()
    do throws(SkeinError) {
      try await until(clock.now + .seconds(5)) { () async throws(SkeinError) in
        try await admin.transferLeadership(to: node)
      }
    } catch {
      // Then the limit is not reached, which is said.
    }
    await admin.close(within: .seconds(1))
    var watch = FullDiskWatch(mustSay: false)
    _ = try await observe(fault, node, probe, &watch)
    await probe.close()
    for breach in watch.breaches { await cluster.noteBreach(breach, by: node, of: "G13") }
    await cluster.stop(node)
    try await cluster.limitDisk(node, false)
  }

  /// Looks at the node until the fault is over, and once it has said something tries what must go on and what
  /// must not.
  /// - Returns: its files, some time after it had stopped; nil if it has not.
  private func observe(
    _ fault: PlannedFault, _ node: Int, _ probe: RoomProbe, _ watch: inout FullDiskWatch
  ) async throws -> [String: String]? {
    var files: [String: String]?
    var stoppedAt: Nanoseconds?
    var isProbed = false
    while clock.now < begin + fault.end, !Task.isCancelled {
      if let sight = await look(at: node) {
        watch.see(sight)
        if watch.word == .stopped { stoppedAt = stoppedAt ?? clock.now }
        if watch.word != .nothing, !isProbed {
          isProbed = true
          if let reason = await probe.drain() { watch.notDrained(reason) }
          if await probe.publish(), let after = await look(at: node) {
            watch.confirmed(before: sight, after: after)
          }
        }
      }
      if let stoppedAt, files == nil, clock.now > stoppedAt + Self.lastWritesMax {
        files = try DiskFaults.fingerprint(of: cluster.places.dataDirectory(node))
      }
      do { try await Task.sleep(for: Self.lookInterval) } catch { break }
    }
    return files
  }

  /// There is room again: who only refused takes publishes again, who stopped is started.
  /// - Returns: what became of it, for people.
  private func makeUse(ofRoomAt node: Int, _ watch: inout FullDiskWatch) async throws -> String {
    let room = clock.now
    while !Task.isCancelled, let sight = await look(at: node), sight.word != .stopped {
      let time = Nanoseconds(rawValue: clock.now.rawValue - room.rawValue)
      watch.see(sight, roomFor: time)
      if sight.word == .nothing {
        return watch.word == .nothing
          ? "" : "; publishes were refused, and taken again by themselves"
      }
      if time > FullDiskWatch.returnMax { break }
      do { try await Task.sleep(for: Self.lookInterval) } catch { break }
    }
    await cluster.stop(node)
    return "; the node stopped taking part, and was started again"
  }

  /// nil if the node does not answer.
  private func look(at node: Int) async -> FullDiskWatch.Sight? {
    do throws(SkeinError) {
      let overview = try await cluster.overview(of: node)
      return FullDiskWatch.Sight(
        time: clock.now, problems: overview.problems, lastIndex: overview.lastIndex,
        leads: overview.role == .leader ? overview.term : nil)
    } catch {
      return nil
    }
  }
}

/// A queue of its own beside the load's, with messages that wait there since before the disk was full.
private struct RoomProbe: Sendable {
  private let client: SkeinClient

  private static let queue = "room"
  private static let messages = 20
  private static let drainMax = Duration.seconds(5)
  private static let publishMax = Duration.milliseconds(1500)

  init(client: SkeinClient) async throws(SkeinError) {
    self.client = client
    _ = try await client.declareQueue(Self.queue)
    _ = try await client.publish(
      (1...Self.messages).map { Message("before \($0)") }, to: Self.queue)
  }

  func close() async { await client.close(within: .seconds(1)) }

  /// Takes out what waits, and has each acknowledgement confirmed.
  /// - Returns: nil if all was done, else why not.
  func drain() async -> String? {
    await within(Self.drainMax, orElse: "it takes more than \(Self.drainMax)") {
      do throws(SkeinError) {
        let consumer = try await client.consume(Self.queue)
        var count = 0
        while count < Self.messages {
          for delivery in try await consumer.nextBatch() {
            try await delivery.acknowledge()
            count += 1
          }
        }
        consumer.cancel()
        return nil
      } catch {
        return "\(error)"
      }
    }
  }

  /// - Returns: whether it was confirmed.
  func publish() async -> Bool {
    await within(Self.publishMax, orElse: false) {
      do throws(SkeinError) {
        try await client.publish(Message("while it is full"), to: Self.queue)
        return true
      } catch {
        return false
      }
    }
  }

  private func within<Result: Sendable>(
    _ limit: Duration, orElse late: Result, _ body: @escaping @Sendable () async -> Result
  ) async -> Result {
    await withTaskGroup { group in
      group.addTask { await body() }
      group.addTask {
        do { try await Task.sleep(for: limit) } catch { return late }
        return late
      }
      defer { group.cancelAll() }
      return await group.next() ?? late
    }
  }
}
