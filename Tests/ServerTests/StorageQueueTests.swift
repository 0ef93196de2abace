// What is to be written is staged in the order in which it was asked for, and operations that wait
// together cost one job.

import Base
import Consensus
import Foundation
import LogStore
import Testing

@testable import Node
@testable import Server

@Suite struct StorageQueueTests {
  private func withStore(_ body: (LogStore) throws -> Void) throws {
    let path = FileManager.default.temporaryDirectory.path + "/skein-queue-\(UUID().uuidString)"
    // Only a temporary directory would stay behind.
    defer { try? FileManager.default.removeItem(atPath: path) }
    let (store, _) = try LogStore.open(
      directory: path, identity: StoreIdentity(cluster: "test", node: NodeID(1)),
      fileSystem: LinuxFileSystem())
    try body(store)
  }

  private func append(_ index: UInt64, bytes: Int) -> [LogOperation] {
    let position = LogPosition(term: Term(1), index: LogIndex(index))
    let payload = [UInt8](repeating: UInt8(index), count: bytes)
    return [.append([Entry(position: position, kind: .commands, payload: payload)])]
  }

  /// Carries the next job out; what it was for, nil if there is none.
  private func carryOutNext(_ queue: inout StorageQueue, _ store: LogStore) throws -> String? {
    guard let job = queue.next(from: store) else { return nil }
    // Else what follows would be told of nothing in particular.
    #expect(!queue.isIdle)
    try job.execute()
    try store.finished(job)
    switch queue.takeCurrent() {
    case .stored(let tickets): return tickets.map { "stored \($0.map(\.number))" } ?? "stored"
    case .marker: return "marker"
    default: return "another"
    }
  }

  @Test("Operations wait for what was asked for before them, and nothing overtakes them")
  func order() throws {
    try withStore { store in
      var queue = StorageQueue()
      let tickets = (1...4).map { StoreTicket(number: $0) }
      queue.add([.saveHardState(HardState(term: Term(1)))] + append(1, bytes: 10), for: tickets[0])
      queue.add(.marker)
      queue.add(append(2, bytes: 20), for: tickets[1])
      queue.add([])
      queue.add(append(3, bytes: 30), for: tickets[2])
      queue.add(.marker)
      queue.add(append(4, bytes: 40), for: tickets[3])
      #expect(queue.waitingBytes == 100)
      var done: [String] = []
      var waiting: [Int] = []
      while let next = try carryOutNext(&queue, store) {
        done.append(next)
        waiting.append(queue.waitingBytes)
      }
      // The first marker has nothing to add: whoever begins a segment notes that durably.
      #expect(done == ["stored [1]", "stored [2, 3]", "marker", "stored [4]"])
      #expect(waiting == [90, 40, 40, 0])
      #expect(queue.isIdle)
      #expect(store.syncedLast.index == LogIndex(4))
    }
  }

  @Test("While a job is on its way nothing is staged, and what comes gathers")
  func gathering() throws {
    try withStore { store in
      var queue = StorageQueue()
      queue.add([.saveHardState(HardState(term: Term(1)))] + append(1, bytes: 1))
      let staged = queue.next(from: store)
      let first = try #require(staged)
      queue.add(append(2, bytes: 1), for: StoreTicket(number: 1))
      queue.add(append(3, bytes: 1), for: StoreTicket(number: 2))
      let isRefused = queue.next(from: store) == nil
      #expect(isRefused)
      #expect(!queue.mayGoOn)
      try first.execute()
      try store.finished(first)
      guard case .stored(nil) = queue.takeCurrent() else {
        Issue.record("somebody is told of what nobody waits for")
        return
      }
      #expect(queue.mayGoOn)
      #expect(try carryOutNext(&queue, store) == "stored [1, 2]")
    }
  }
}
