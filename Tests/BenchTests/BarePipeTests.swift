// The bare pipe carries every byte through both of its forms, and leaves no thread behind.

import Foundation
import Testing

@testable import Bench

@Suite struct BarePipeTests {
  @Test(arguments: [false, true])
  func everyMessageIsConfirmed(usesPageCache: Bool) throws {
    let directory = NSTemporaryDirectory() + "skein-pipe-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer {
      do { try FileManager.default.removeItem(atPath: directory) } catch { Issue.record(error) }
    }
    let pipe = BarePipe(bodyBytes: 100, window: 10, log: .append, usesPageCache: usesPageCache)
    let result = try pipe.run(messages: 100, directory: directory) { false }
    #expect(result.messages == 100 && result.confirm.count == 100)
    #expect(result.nanoseconds > 0 && result.processorTime > 0)
    for place in 0..<3 {
      let bytes = try Data(contentsOf: URL(fileURLWithPath: "\(directory)/pipe-\(place)"))
      #expect(bytes.count == 100 * 124)
    }
    #expect(throws: LoadError.cancelled) {
      try pipe.run(messages: 100, directory: directory) { true }
    }
  }
}
