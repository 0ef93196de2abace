// Processes that can be ended at once, and nothing that begins afterwards.

import Glibc
import Testing

@testable import ChaosHarness

@Suite struct NodeProcessesTests {
  /// A process that ends only if it is killed.
  private func launch() throws -> Int32 {
    var pid: Int32 = 0
    let words: [UnsafeMutablePointer<CChar>?] = [strdup("sleep"), strdup("1000"), nil]
    defer { for word in words { free(word) } }
    guard posix_spawnp(&pid, "sleep", nil, nil, words, environ) == 0 else {
      throw ChaosError.system("sleep")
    }
    return pid
  }

  @Test func allAreKilledAndNoneBeginsAnyMore() async throws {
    let processes = NodeProcesses()
    let pids = [try processes.start(launch), try processes.start(launch)]
    for pid in pids { #expect(processes.endStatus(pid) == nil) }
    processes.killAll()
    for pid in pids {
      var status: Int32?
      while status == nil {
        status = processes.endStatus(pid)
        await Task.yield()
      }
      #expect(status == SIGKILL)
    }
    #expect(throws: ChaosError.self) { try processes.start(launch) }
  }
}
