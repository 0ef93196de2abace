// Faults of disks: one at a time, and only while everything else is well, since what a majority of the disks
// has lost is lost.

import Base
import SkeinClient

extension FaultActor {
  func harmDisk(_ fault: PlannedFault) async throws {
    // What one disk loses the others must have: all is well first, and one after the other.
    if let trouble = await cluster.waitUntilHealthy(atMost: Self.healthWait) {
      return skip(fault, trouble)
    }
    let nodes = await take(fault)
    guard let node = nodes.first else { return skip(fault, "no node to do it to") }
    // Another fault may have struck between the two.
    if let trouble = await cluster.trouble() {
      await cluster.letGo(nodes)
      return skip(fault, trouble)
    }
    let directory = cluster.places.dataDirectory(node)
    let place = begin(fault, text(nodes))
    let logBytes = cluster.places.logBytes(node)
    var mustBeFound = false
    if fault.line.kind == .diskFull {
      try await fillDisk(fault, node, place)
    } else if fault.line.kind == .diskLimit {
      try await limitDisk(fault, node, place)
    } else {
      var old: DiskFaults.OldFile?
      if fault.line.kind == .diskStale { old = try DiskFaults.remember(in: directory) }
      if fault.line.kind == .diskStale { await last(fault) }
      await cluster.kill(node)
      let damage = try damage(fault, directory, old)
      mustBeFound = damage?.mustBeFound == true
      if let damage {
        records[place].detail = damage.text
      } else {
        records[place].skipped = "there was nothing on the disk that it would have changed"
      }
      if fault.line.kind != .diskStale { await last(fault) }
      if damage?.isOfIdentity == true { try await expectRefusal(node, directory, place) }
    }
    try await cluster.start(node)
    // Only now it is over: until it has everything again, the others must keep theirs.
    if let trouble = await cluster.waitUntilHealthy(atMost: .seconds(60)) {
      // If it has ended, that is against the promises, and more than nobody's knowing.
      if !Task.isCancelled { await cluster.noteIfEnded(node) }
      throw ChaosError("after \(fault.line.name): \(trouble)")
    }
    if records[place].skipped != nil {
      // Then there is nothing that it could say.
    } else if fault.line.kind == .diskLimit {
      if let said = cluster.places.warning("publishes are refused", by: node, from: logBytes) {
        records[place].detail = said
      } else {
        records[place].skipped = "the limit was not reached"
      }
    } else if let said = cluster.places.warning("damage", by: node, from: logBytes) {
      records[place].detail += "; the node: \(said)"
    } else if mustBeFound {
      let done = records[place].detail
      await cluster.noteBreach("took damage for a torn tail: \(done)", by: node, of: "G11")
    }
    end(place)
    await cluster.letGo(nodes)
  }

  /// Without its identity a node must not start, since it could serve another's data. What is left then is
  /// to begin anew, as with an empty disk.
  private func expectRefusal(_ node: Int, _ directory: String, _ place: Int) async throws {
    let damage = records[place].detail
    switch try await cluster.startDamaged(node) {
    case .refused:
      records[place].detail += "; it refused to start, and its directory was emptied"
    case .serves:
      await cluster.noteBreach("started in spite of damage: \(damage)", by: node, of: "G11")
    case .unknown(let reason):
      if !Task.isCancelled { isNotKnown("whether node \(node) starts after \(damage): \(reason)") }
    }
    _ = try DiskFaults.wipe(directory)
  }

  /// - Returns: what was done; nil if nothing is changed.
  private func damage(
    _ fault: PlannedFault, _ directory: String, _ old: DiskFaults.OldFile?
  ) throws(ChaosError) -> DiskFaults.Damage? {
    switch fault.line.kind {
    case .diskFlip: try DiskFaults.flip(in: directory, draw: fault.draw)
    case .diskTruncate: try DiskFaults.truncate(in: directory, draw: fault.draw)
    case .diskStale:
      try old.flatMap { (file) throws(ChaosError) in try DiskFaults.putBack(file) }
    default: try DiskFaults.wipe(directory)
    }
  }
}
