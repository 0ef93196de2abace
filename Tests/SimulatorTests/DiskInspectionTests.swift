// What is wrong on a disk when all is at rest is seen, though nobody reads it (G11).

import TestSupport
import Testing

@testable import Simulator

@Suite(.ownThreads) struct DiskInspectionTests {
  private let simulation: Simulation
  private let node: SimulatedNode

  init() throws {
    simulation = try SessionWatchTests.running()
    node = try #require(simulation.leader).node
  }

  /// The last bytes that are in the node's log.
  private func harmLog(_ change: (inout [UInt8], Int) -> Void) throws {
    let name = try #require(
      node.disk.names.last { name in
        name.contains("segment-") && node.disk.files[name]?.hasContent(in: 4096..<8192) == true
      })
    let file = try #require(node.disk.files[name])
    let last = try #require(file.bytes.lastIndex { $0 != 0 })
    file.damage { change(&$0, last) }
  }

  @Test func aWholeDiskIsFine() {
    #expect(DiskInspection.fault(on: node, simulation) == nil)
  }

  /// The disk that the node goes on with is not the one that was looked at.
  @Test func lookingChangesNothing() {
    let before = node.disk.names.map { node.disk.files[$0]?.bytes }
    _ = DiskInspection.fault(on: node, simulation)
    #expect(node.disk.names.map { node.disk.files[$0]?.bytes } == before)
  }

  @Test func aFlippedBitIsFound() throws {
    try harmLog { bytes, last in bytes[last] ^= 1 }
    #expect(DiskInspection.fault(on: node, simulation) != nil)
  }

  @Test func anEndThatIsMissingIsFound() throws {
    try harmLog { bytes, last in for place in 4096...last { bytes[place] = 0 } }
    #expect(DiskInspection.fault(on: node, simulation) != nil)
  }

  @Test func harmThatNobodyDidIsAViolation() {
    node.isVictim = false
    var inspection = DiskInspection()
    inspection.judge(.init(text: "something is wrong"), on: node, simulation)
    #expect(simulation.violation?.rule == "G11")
  }

  @Test func harmIsMendedOnce() {
    node.isVictim = true
    var inspection = DiskInspection()
    inspection.judge(.init(text: "something is wrong"), on: node, simulation)
    #expect(simulation.violation == nil)
    #expect(node.life == nil && inspection.restarted == [node.place])
    inspection.judge(.init(text: "something is wrong"), on: node, simulation)
    #expect(simulation.violation?.rule == "G11")
  }

  @Test func harmThatTheNodeWouldNotNoticeIsAViolation() {
    node.isVictim = true
    var inspection = DiskInspection()
    inspection.judge(
      .init(text: "something is wrong", isNoticed: false), on: node, simulation)
    #expect(simulation.violation?.rule == "G11")
    #expect(node.life != nil)
  }
}
