// Snapshots: the same bytes everywhere, damage refused, the frozen state independent.

import Base
import Foundation
import TestSupport
import Testing

@testable import QueueMachine

/// A log made by random commands.
enum Transcript {
  static func payloads(seed: UInt64, steps: Int) -> [[UInt8]] {
    var random = SeededRandom(seed: seed)
    var comparison = Comparison()
    return Step.script(&random, count: steps).map { step in
      _ = comparison.run(step)
      return comparison.script.payload
    }
  }

  static func snapshot(seed: UInt64, steps: Int) -> [UInt8] {
    var machine = QueueMachine(limits: Script.limits)
    var effects = EffectList(isWanted: false)
    for (index, payload) in payloads(seed: seed, steps: steps).enumerated() {
      payload.withUnsafeBytes {
        machine.apply(index: LogIndex(UInt64(index + 1)), payload: $0, effects: &effects)
      }
    }
    return machine.freeze().encoded()
  }
}

@Suite(.ownThreads) struct SnapshotTests {
  /// Swift seeds its hash tables anew in every process: an order of theirs that reached the state
  /// would show here.
  @Test func anotherProcessGivesTheSameBytes() throws {
    let file = FileManager.default.temporaryDirectory
      .appendingPathComponent("skein-snapshot-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: file) }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe")
    process.arguments = ["--testing-library", "swift-testing", "--filter", "writesSnapshotIfAsked"]
    process.environment = ProcessInfo.processInfo.environment.merging(
      ["SKEIN_SNAPSHOT_FILE": file.path]) { $1 }
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    let mine = Transcript.snapshot(seed: 11, steps: 120)
    process.waitUntilExit()
    let theirs = try [UInt8](Data(contentsOf: file))
    #expect(theirs == mine)
    #expect(mine.count > 500)
  }

  /// The other process's half of the test above; does nothing by itself.
  @Test func writesSnapshotIfAsked() throws {
    guard let file = ProcessInfo.processInfo.environment["SKEIN_SNAPSHOT_FILE"] else { return }
    try Data(Transcript.snapshot(seed: 11, steps: 120)).write(to: URL(fileURLWithPath: file))
  }

  @Test func frozenStateDoesNotChangeWithTheMachine() {
    let rig = Rig()
    let queue = rig.declare("q")
    let session = rig.open(producer: 1)
    // Of different sizes, so that the snapshot is more than a chunk.
    rig.publish(session, 1, to: queue, bodies: (0..<20_000).map { $0 * $0 % 301 })
    let frozen = rig.machine.freeze()
    let before = frozen.encoded()
    rig.subscribe(session, 1, queue, credit: 4_500)
    rig.settle(session, 1, .acknowledge, [1...4_000])
    rig.publish(session, 20_001, to: queue, bodies: [1], answeredThrough: 20_000)
    #expect(frozen.encoded() == before)
    #expect(frozen.appliedIndex < rig.machine.appliedIndex)
    var chunks = 0
    frozen.encode { _ in chunks += 1 }
    #expect(chunks > 1)
    var live = 0
    frozen.forEachLiveRecord { _ in live += 1 }
    #expect(live == 20_000)
  }

  @Test func liveRecordsOfSnapshotAndMachineAreTheSame() throws {
    let bytes = Transcript.snapshot(seed: 5, steps: 100)
    let machine = try QueueMachine(snapshot: bytes, limits: Script.limits)
    var fromMachine: [RecordReference: Int] = [:]
    machine.forEachLiveRecord { fromMachine[$0, default: 0] += 1 }
    var fromBytes: [RecordReference: Int] = [:]
    try bytes.withUnsafeBytes {
      try QueueMachine.forEachLiveRecord(inSnapshot: $0) { fromBytes[$0, default: 0] += 1 }
    }
    #expect(fromMachine == fromBytes)
  }

  /// Half of the spans are taken, the others told record by record: together all that are alive.
  @Test func spansStandForTheirRecords() throws {
    var taken = 0
    for seed: UInt64 in 1...6 {
      let bytes = Transcript.snapshot(seed: seed, steps: 60)
      let machine = try QueueMachine(snapshot: bytes, limits: Script.limits)
      var all: [RecordReference] = []
      machine.forEachLiveRecord { all.append($0) }
      var isTaken = false
      var told: [RecordReference] = []
      var spans: [RecordSpan] = []
      machine.freeze().forEachLiveRecord { span in
        isTaken.toggle()
        if isTaken { spans.append(span) }
        return isTaken
      } _: {
        told.append($0)
      }
      taken += spans.count
      #expect(told.count + spans.reduce(0) { $0 + $1.count } == all.count)
      let bytesOf = { (records: [RecordReference]) in records.reduce(0) { $0 + UInt64($1.size) } }
      #expect(bytesOf(told) + spans.reduce(0) { $0 + $1.bytes } == bytesOf(all))
      for reference in Set(all).subtracting(told) {
        #expect(spans.contains { $0.first <= reference.entry && reference.entry <= $0.last })
      }
    }
    #expect(taken >= 3)
  }

  /// Nodes go on from the data that the version before them wrote.
  @Test func theFormerFormatIsRead() throws {
    let former = FormerSnapshot.bytes
    #expect(former[4] == 11)
    let machine = try QueueMachine(snapshot: former, limits: Script.limits)
    let now = Transcript.snapshot(seed: 11, steps: 120)
    #expect(machine.freeze().encoded() == now)
    #expect(now.count < former.count)
    for count in stride(from: 0, to: former.count, by: 7) {
      #expect(throws: SnapshotError.self) {
        _ = try QueueMachine(snapshot: Array(former[..<count])).clock
      }
    }
  }

  @Test func damagedSnapshotIsRefused() {
    let bytes = Transcript.snapshot(seed: 2, steps: 30)
    for count in 0..<bytes.count {
      #expect(throws: SnapshotError.self) {
        _ = try QueueMachine(snapshot: Array(bytes[..<count])).clock
      }
    }
    var random = SeededRandom(seed: 1)
    for _ in 0..<300 {
      var damaged = bytes
      let place = Int.random(in: 0..<bytes.count, using: &random)
      damaged[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      #expect(throws: SnapshotError.self) { _ = try QueueMachine(snapshot: damaged).clock }
    }
    var newer = bytes
    newer[4] = 200
    #expect(throws: SnapshotError.unknownFormat(200)) {
      _ = try QueueMachine(snapshot: newer).clock
    }
    var older = bytes
    older[4] = 5
    #expect(throws: SnapshotError.unknownFormat(5)) { _ = try QueueMachine(snapshot: older).clock }
  }

  /// A snapshot whose checksum is right although its inside is not must still not crash.
  @Test func forgedSnapshotIsReadWithinItsBounds() {
    let bytes = Transcript.snapshot(seed: 4, steps: 60)
    var random = SeededRandom(seed: 9)
    for _ in 0..<200 {
      var forged = Array(bytes.dropLast(4))
      // Behind the queues' counts, so that no message count of a billion is asked for.
      let place = Int.random(in: 8..<forged.count, using: &random)
      forged[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      forged.put(Checksum(of: forged).rawValue)
      _ = try? QueueMachine(snapshot: forged).clock
    }
  }
}

@Suite struct BatchTests {
  @Test func everyTruncationIsRefusedOrEndsBetweenCommands() {
    for payload in Transcript.payloads(seed: 6, steps: 12) {
      for count in 0..<payload.count {
        payload[..<count].withUnsafeBytes { bytes in
          let commands = try? CommandBatch.check(UnsafeRawBufferPointer(bytes))
          let whole = payload.withUnsafeBytes { try? CommandBatch.check($0) }
          if let commands, let whole { #expect(commands < whole) }
        }
      }
    }
  }

  @Test func unknownCommandIsNamed() {
    var payload: [UInt8] = []
    CommandWriter.beginBatch(into: &payload)
    CommandWriter.closeSession(SessionID(1), into: &payload)
    payload[12] = 200
    #expect(throws: CommandBatchError.unknownCommand(200, offset: 8)) {
      try payload.withUnsafeBytes { try CommandBatch.check($0) }
    }
  }

  /// Whatever passes the check can be applied: flipped bits in good batches.
  @Test func whatPassesTheCheckCanBeApplied() {
    var random = SeededRandom(seed: 21)
    var machine = QueueMachine(limits: Script.limits)
    var effects = EffectList()
    var index = LogIndex(0)
    var applied = 0
    for payload in Transcript.payloads(seed: 8, steps: 150) {
      for flips in 0..<4 {
        var bytes = payload
        // The stamp is the leader's own and stays.
        for _ in 0..<flips where bytes.count > 8 {
          let place = Int.random(in: 8..<bytes.count, using: &random)
          bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        }
        bytes.withUnsafeBytes {
          guard (try? CommandBatch.check($0)) != nil else { return }
          index = index.next
          effects.removeAll()
          machine.apply(index: index, payload: $0, effects: &effects)
          machine.checkInvariants()
          applied += 1
        }
      }
    }
    #expect(applied > 200)
  }
}
