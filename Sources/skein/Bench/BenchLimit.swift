// `skein bench limit`: the bare pipe, in a directory of its own.

import Base
import Bench

enum BenchLimit {
  static func run(_ settings: BenchSettings) throws -> BenchReport {
    let directory = try BenchCluster.makeDirectory(settings)
    let pipe = BarePipe(
      bodyBytes: settings.plan.bodyBytes, window: settings.plan.window, log: settings.log,
      usesPageCache: settings.usesPageCache)
    let result: BarePipe.Result
    do {
      result = try pipe.run(messages: settings.messages, directory: directory) {
        Task.isCancelled
      }
    } catch {
      try Files.remove(directory)
      throw error
    }
    try Files.remove(directory)
    var report = BenchReport(settings)
    report.nodes = 3
    report.messages = result.messages
    report.seconds = result.seconds
    report.confirm = result.confirm
    report.settings.consumers = 0
    report.nodeCPUSecondsPerMillion =
      Double(result.processorTime) / 1e9 / Double(result.messages) * 1e6
    report.bytesWrittenPerMessage = Double(settings.plan.bodyBytes + BarePipe.headBytes)
    report.further.append(.init(name: "log", value: .text(settings.log.rawValue)))
    report.further.append(.init(name: "pageCache", value: .bool(settings.usesPageCache)))
    return report
  }
}
