// What the workload makes known to the checker, and what not.

import Base
import Foundation
import History
import Testing

@testable import ChaosHarness

@Suite struct WorkloadTests {
  @Test("A body is the one that was published, to its last byte, or has no value known (G11)")
  func damagedBodies() {
    let body = WorkloadMessage.body("p1-7", bytes: 40)
    func value(_ bytes: [UInt8]) -> String {
      bytes.withUnsafeBytes { WorkloadMessage.value(of: $0, bytes: 40) }
    }
    #expect(value(body) == "p1-7")
    for place in body.indices {
      var damaged = body
      damaged[place] ^= 1
      #expect(value(damaged) != "p1-7", "byte \(place)")
    }
    #expect(value(body.dropLast()) != "p1-7")
    #expect(value(body + [0]) != "p1-7")
  }

  @Test("A client that was killed begins nothing that nobody would know of")
  func nothingAfterDeath() throws {
    let path = NSTemporaryDirectory() + "skein-recording-\(UUID().uuidString)"
    defer { unlink(path) }
    let recording = try Recording(path: path, clock: RunClock())
    let operation = HistoryOperation.publish("p1-1", to: "work")
    let other = HistoryOperation.publish("p2-1", to: "work")
    #expect(recording.invoke(operation, by: "p1"))
    recording.clientKill("p1")
    #expect(!recording.invoke(operation, by: "p1"))
    #expect(recording.invoke(other, by: "p2"))
    #expect(recording.totals.published == 2)
    try recording.finish()
  }
}
