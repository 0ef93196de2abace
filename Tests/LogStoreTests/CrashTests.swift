// Crashes: at every step of a script, with every fate of what was not synced; then at random.

import Base
import Consensus
import TestSupport
import Testing

@testable import LogStore

/// What a store may hold after a crash: one of the states from the last finished one on.
struct Model {
  /// Entries behind the snapshot, and the snapshot.
  struct Log: Equatable {
    var entries: [Entry] = []
    var snapshot: LogIndex?
  }
  private(set) var logs: [Log] = [Log()]
  private(set) var states: [HardState] = [HardState()]

  mutating func stage(_ operations: [LogOperation]) {
    var log = logs[logs.count - 1]
    for operation in operations {
      switch operation {
      case .saveHardState(let state): states.append(state)
      case .truncate(let from):
        log.entries.removeAll { $0.index >= from }
        logs.append(log)
      case .append(let entries):
        for entry in entries {
          log.entries.append(entry)
          logs.append(log)
        }
      }
    }
  }

  mutating func stage(snapshot: LogIndex, installs: Bool = false) {
    var log = logs[logs.count - 1]
    log.snapshot = snapshot
    log.entries.removeAll { $0.index <= snapshot || installs }
    logs.append(log)
  }

  mutating func finish() {
    logs.removeFirst(logs.count - 1)
    states.removeFirst(states.count - 1)
  }

  func allows(_ log: Log) -> Bool { logs.contains(log) }
}

extension LogStore {
  /// What a model compares: the entries behind the snapshot.
  func content() throws(LogReadError) -> Model.Log {
    let base = snapshot?.position.index ?? .zero
    return Model.Log(
      entries: try all().filter { $0.index > base }, snapshot: snapshot?.position.index)
  }

  func takeSnapshot(at index: LogIndex, bytes: Int = 50) throws(StorageFailure) -> WriteJob? {
    guard let term = state.term(of: index) else { return nil }
    let writer = snapshotWriter(
      position: LogPosition(term: term, index: index), membership: Membership(members: []),
      stateHash: index.rawValue, stateHashIndex: index)
    try writer.append([UInt8](repeating: 7, count: bytes))
    try writer.finish()
    return stage(writer)
  }
}

@Suite(.ownThreads) struct CrashTests {
  /// Runs until the disk stops answering; the model knows what was finished.
  private func runScript(_ disk: MemoryFileSystem, _ model: inout Model) throws {
    let (store, _) = try LogStore.open(disk)
    func write(_ operations: [LogOperation]) throws {
      model.stage(operations)
      try store.write(operations)
      model.finish()
    }
    try write([.saveHardState(HardState(term: Term(1), vote: NodeID(1)))])
    try write([.append(entries(1...3, bytes: 2500))])
    try write([.append(entries(4...9, bytes: 1500))])
    try write([.saveHardState(HardState(term: Term(2)))])
    try write([.truncate(from: LogIndex(6)), .append(entries(6...11, term: 2, bytes: 900))])
    store.upkeep()
    model.stage(snapshot: LogIndex(8))
    try store.run(try store.takeSnapshot(at: LogIndex(8)))
    model.finish()
    try write([.append(entries(12...30, term: 2, bytes: 900))])
    if let cleaning = store.cleaning(
      keepFrom: LogIndex(9),
      live: [RecordReference(entry: LogIndex(2), offset: 100, size: 50)].inSpans)
    {
      try cleaning.execute()
      try store.run(store.stage(cleaning))
    }
    store.upkeep()
    try write([
      .saveHardState(HardState(term: Term(3), vote: NodeID(2))),
      .append(entries(31...45, term: 3, bytes: 900)),
    ])
    try store.run(store.stageMarker())
  }

  @Test("After a crash at every step nothing finished is lost and nothing is taken for damage")
  func everyStep() throws {
    let whole = MemoryFileSystem()
    var ignored = Model()
    try runScript(whole, &ignored)
    #expect(whole.operations > 60)
    for step in 0...whole.operations {
      var model = Model()
      let disk = MemoryFileSystem()
      disk.stopAfter = step
      do { try runScript(disk, &model) } catch { _ = error }
      for (kind, seed) in [
        (CrashKind.allLost, 1), (.allKept, 1), (.torn, 1), (.torn, 2),
      ] {
        let after = disk.crashed(kind, seed: UInt64(seed * 1000 + step))
        let (store, recovery) = try LogStore.open(after)
        let note = Comment("step \(step), \(kind), seed \(seed)")
        #expect(recovery.damage.filter { $0.consequence != .nothingLost } == [], note)
        #expect(!recovery.isMemoryLost, note)
        #expect(recovery.hardState.floor == .zero, note)
        #expect(model.states.contains(recovery.hardState), note)
        #expect(model.allows(try store.content()), note)
        store.checkInvariants()
        if store.firstIndex > LogIndex(2), store.snapshot != nil {
          let live = RecordReference(entry: LogIndex(2), offset: 100, size: 50)
          #expect(try store.record(live) == Array(payload(2, 1, bytes: 2500)[100..<150]), note)
        }
      }
    }
  }

  @Test("A random life with crashes agrees with a list of entries", arguments: 1...12)
  func randomLife(seed: UInt64) throws {
    var random = SeededRandom(seed: seed)
    let again = Comment("seed \(seed): swift test --filter CrashTests/randomLife")
    var disk = MemoryFileSystem()
    var model = Model()
    for _ in 0..<8 {
      let (store, recovery) = try LogStore.open(disk)
      #expect(recovery.damage.filter { $0.consequence != .nothingLost } == [], again)
      let found = try store.content()
      #expect(model.allows(found), again)
      #expect(model.states.contains(store.hardState), again)
      model = Model(found, store.hardState)
      disk.operations = 0
      disk.stopAfter = Int.random(in: 5...150, using: &random)
      do { try live(store, &model, &random) } catch { _ = error }
      store.checkInvariants()
      disk = disk.crashed(
        [.allLost, .allKept, .torn, .torn].randomElement(using: &random) ?? .torn,
        seed: random.next())
    }
  }

  /// Random operations until the disk stops.
  private func live(
    _ store: LogStore, _ model: inout Model, _ random: inout SeededRandom
  ) throws {
    while true {
      switch Int.random(in: 0..<20, using: &random) {
      case 0...14:
        var operations: [LogOperation] = []
        let base = store.snapshot?.position.index ?? .zero
        var last = store.last.index
        var term = max(store.hardState.term, Term(1))
        if Int.random(in: 0..<5, using: &random) == 0, last > base {
          let back = UInt64.random(
            in: 0...min(6, last.rawValue - base.rawValue - 1), using: &random)
          term = term.next
          operations.append(
            .saveHardState(
              HardState(term: term, vote: Bool.random(using: &random) ? NodeID(2) : nil)))
          operations.append(.truncate(from: LogIndex(last.rawValue - back)))
          last = LogIndex(last.rawValue - back).previous
        }
        let count = UInt64.random(in: 1...4, using: &random)
        operations.append(
          .append(
            (1...count).map {
              entry(
                last.rawValue + $0, term: term.rawValue,
                bytes: Int.random(in: 0...3000, using: &random))
            }))
        let full = store.withTerm(operations)
        model.stage(full)
        try store.run(store.stage(full))
        model.finish()
      case 15: store.upkeep()
      case 16, 17:
        let base = store.snapshot?.position.index.rawValue ?? 0
        guard store.last.index.rawValue > base + 2 else { continue }
        let index = LogIndex(
          UInt64.random(in: base + 1...store.last.index.rawValue, using: &random))
        let job = try store.takeSnapshot(at: index)
        model.stage(snapshot: index)
        try store.run(job)
        model.finish()
      case 18:
        guard let job = store.cleaning(keepFrom: store.last.index, live: [].inSpans) else {
          continue
        }
        defer { store.upkeep() }
        try job.execute()
        try store.run(store.stage(job))
      default: try store.run(store.stageMarker())
      }
    }
  }
}

extension Model {
  init(_ log: Log, _ state: HardState) {
    self.init()
    logs = [log]
    states = [state]
  }

  @Test("Records of a segment whose head was lost never follow those of the next attempt")
  func headOfARecycledSegment() throws {
    var options = smallOptions()
    options.sparesReady = 1
    func begin() throws -> (MemoryFileSystem, LogStore, UInt64) {
      let disk = MemoryFileSystem()
      let (store, _) = try LogStore.open(disk, options)
      store.upkeep()
      var index: UInt64 = 1
      while store.state.log.stream.count < 2 {
        let spares = store.state.spares.count
        if let last = store.state.log.stream.last, last.fileBytes - UInt64(last.used) < 2200,
          spares > 0
        {
          break
        }
        try store.append(index...index, bytes: 1000)
        index += 1
        if store.state.spares.isEmpty { store.upkeep() }
      }
      return (disk, store, index)
    }
    let (whole, store, first) = try begin()
    let before = whole.operations
    try store.write([.append(entries(first...first + 5, bytes: 1000))])
    #expect(store.state.log.stream.last?.life ?? 0 > 1)
    for stop in before...whole.operations {
      for seed in UInt64(1)...12 {
        let (disk, store, first) = try begin()
        disk.stopAfter = stop
        let job = store.stage([.append(entries(first...first + 5, bytes: 1000))])
        do throws(StorageFailure) { try job.execute() } catch { #expect(error.detail == "stopped") }
        let crashed = disk.crashed(.torn, seed: seed)
        let (after, recovery) = try LogStore.open(crashed, options)
        after.upkeep()
        // The next leader's entries, of the same sizes.
        let next = recovery.last.index.rawValue + 1
        try after.append(next...next + 1, term: 7, bytes: 1000)
        let (_, second) = try LogStore.open(crashed.crashed(.allLost), options)
        #expect(second.last == after.last, "stopped after \(stop), seed \(seed)")
      }
    }
  }
}
