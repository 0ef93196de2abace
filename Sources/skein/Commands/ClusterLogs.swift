// `skein cluster logs`: what a node had to say.

import Base
import Glibc

enum ClusterLogs {
  static let command = Command(
    path: ["cluster", "logs"], summary: "show what a node logged",
    operands: [Operand(name: "N", help: "the node's number")],
    options: [
      .directory,
      Option("follow", nil, "go on with what it logs from now, until interrupted"),
    ],
    run: .asynchronous(run))

  /// How often a followed log is looked at.
  private static let interval = Duration.milliseconds(100)

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let cluster = try LocalCluster.existing(arguments)
    let node = try await cluster.node(arguments)
    let file = cluster.logFile(node)
    let descriptor = open(file, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Failure.system(file) }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = read(descriptor, &bytes, bytes.count)
      if count > 0 {
        try StandardOutput.write(Array(bytes[..<count]))
      } else if count < 0, errno != EINTR {
        throw Failure.system(file)
      } else if arguments.flag("follow") {
        try await Task.sleep(for: interval)
      } else {
        return .fine
      }
    }
  }
}
