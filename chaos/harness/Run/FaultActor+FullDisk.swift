// A full disk, or one of which no more may be used, and the demands on the node that has it (FullDiskWatch).

import Base
import SkeinClient

extension FaultActor {
  private static let lookInterval = Duration.milliseconds(50)
  /// Less than the node needs to take publishes (two segments), and enough to go on for a while.
  private static let nearlyFullBytes: UInt64 = 3 << 19

  /// Fills the disk of a node, as far as the draw says, and makes room again.
  func fillDisk(_ fault: PlannedFault, _ node: Int, _ place: Int) async throws {
    let directory = cluster.places.dataDirectory(node)
    guard let probe = await probe(place) else { return }
    let left = fault.draw.isMultiple(of: 2) ? Self.nearlyFullBytes : 0
    var detail = try DiskFaults.fill(directory, leaving: left)
    var watch = FullDiskWatch()
    try await observe(fault, node, probe, &watch)
    try DiskFaults.empty(directory)
    detail += await makeUse(ofRoomAt: node, &watch)
    await probe.close()
    records[place].detail = detail
    await note(watch, fault, node, of: "G12")
    if Task.isCancelled { return }
    if watch.word == .nothing, watch.breaches.isEmpty, watch.unknowns.isEmpty {
      records[place].skipped = "the node did not need the disk meanwhile"
    }
  }

  /// What was seen of it. A fault that was cancelled has seen what its end did, and says nothing.
  private func note(
    _ watch: FullDiskWatch, _ fault: PlannedFault, _ node: Int, of promise: String
  ) async {
    if Task.isCancelled { return }
    for breach in watch.breaches { await cluster.noteBreach(breach, by: node, of: promise) }
    for unknown in watch.unknowns { isNotKnown("\(fault.line.name): node \(node) \(unknown)") }
  }

  /// nil if the cluster takes no messages for it: then the fault is skipped.
  private func probe(_ place: Int) async -> RoomProbe? {
    do {
      return try await RoomProbe(client: try await administrator())
    } catch {
      records[place].skipped = "\(error)"
      return nil
    }
  }

  /// The node leads while its directory may not grow: what leads is what takes publishes.
  func limitDisk(_ fault: PlannedFault, _ node: Int, _ place: Int) async throws {
    // A limit is no reason to stop.
    cluster.leaders.excuseNoMore(node)
    guard let probe = await probe(place) else { return }
    await cluster.stop(node)
    try await cluster.limitDisk(node, true)
    try await cluster.start(node)
    do throws(SkeinError) {
      let admin = try await administrator()
      try await until(clock.now + .seconds(5)) { () async throws(SkeinError) in
        try await admin.transferLeadership(to: node)
      }
      await admin.close(within: .seconds(1))
    } catch {
      // Then the limit is not reached, which is said.
    }
    var watch = FullDiskWatch()
    try await observe(fault, node, probe, &watch)
    await probe.close()
    await note(watch, fault, node, of: "G13")
    await cluster.stop(node)
    try await cluster.limitDisk(node, false)
  }

  /// Looks at the node until the fault is over, and once it has said something tries what must go on and what
  /// must not.
  private func observe(
    _ fault: PlannedFault, _ node: Int, _ probe: RoomProbe, _ watch: inout FullDiskWatch
  ) async throws {
    let directory = cluster.places.dataDirectory(node)
    var isProbed = false
    while clock.now < begin + fault.end, !Task.isCancelled {
      if let sight = await look(at: node) {
        watch.see(sight)
        if watch.word != .nothing, !isProbed {
          isProbed = true
          await tryOut(node, probe, &watch)
        }
      }
      watch.see(files: try DiskFaults.fingerprint(of: directory), at: clock.now)
      do { try await Task.sleep(for: Self.lookInterval) } catch { return }
    }
  }

  private func tryOut(_ node: Int, _ probe: RoomProbe, _ watch: inout FullDiskWatch) async {
    // What it says from before the first sight on.
    let said = cluster.places.logBytes(node)
    guard let before = await look(at: node) else { return }
    let drained = await probe.drain()
    guard let between = await look(at: node), !Task.isCancelled else { return }
    watch.drained(drained, before: before, after: between, took: tookPublishes(node, since: said))
    guard await probe.publish(), let after = await look(at: node), !Task.isCancelled
    else { return }
    watch.confirmed(before: between, after: after, took: tookPublishes(node, since: said))
  }

  /// It has said meanwhile that it takes publishes, whatever it says now.
  private func tookPublishes(_ node: Int, since offset: Int) -> Bool {
    cluster.places.hasSaid("publishes are taken again", by: node, from: offset)
  }

  /// There is room again: who only refused takes publishes again, who stopped is started.
  /// - Returns: what became of it, for people.
  private func makeUse(ofRoomAt node: Int, _ watch: inout FullDiskWatch) async -> String {
    let room = clock.now
    while true {
      let sight = await look(at: node)
      if Task.isCancelled { return "; it was interrupted" }
      if sight?.word == .nothing {
        return watch.word == .nothing
          ? "" : "; publishes were refused, and taken again by themselves"
      }
      if sight?.word == .stopped {
        await cluster.stop(node)
        return "; the node stopped taking part, and was started again"
      }
      if clock.now > room + FullDiskWatch.returnMax {
        watch.isLate(sight)
        await cluster.stop(node)
        return "; nobody knows whether the node would have taken publishes again: it was restarted"
      }
      do { try await Task.sleep(for: Self.lookInterval) } catch { return "; it was interrupted" }
    }
  }

  /// nil if the node does not answer.
  private func look(at node: Int) async -> FullDiskWatch.Sight? {
    do throws(SkeinError) {
      let overview = try await cluster.overview(of: node)
      return FullDiskWatch.Sight(
        time: clock.now, problems: overview.problems,
        leads: overview.role == .leader ? overview.term : nil)
    } catch {
      return nil
    }
  }
}
