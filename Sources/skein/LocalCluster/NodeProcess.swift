// The process of one node: starting it apart from this one, recognising it, and sending signals to
// it and to nothing else.

import Base
import Glibc
import Server

/// A running node of a local cluster, recognised by its command line.
struct NodeProcess: Sendable {
  let node: NodeID
  let pid: pid_t
  /// Its `--config`, by which it is recognised.
  let configurationFile: String

  /// Sends `signal` if the process is still the node. Numbers of processes are used again: what has
  /// the number now may be anything.
  @discardableResult func send(_ signal: Int32) -> Bool {
    isRunning && kill(pid, signal) == 0
  }

  /// Whether the number belongs to a node with this configuration. (A process that is ending, or
  /// ended and was not yet waited for, has no command line.)
  var isRunning: Bool { commandLine.map(isOwn) ?? false }

  /// Whether it is stopped by `skein cluster pause`.
  var isPaused: Bool { state?.letter == "T" }

  /// Whether it has given up its ports, files and locks. A process that was killed loses its command
  /// line a moment earlier.
  var hasLeft: Bool {
    if let commandLine, !commandLine.isEmpty { return !isOwn(commandLine) }
    return hasEnded
  }

  /// Whether nobody has the number, or one that ended and was not yet waited for. The first thread
  /// may be the first to end, and the others still hold everything.
  var hasEnded: Bool {
    guard let state else { return true }
    return state.letter == "X" || (state.letter == "Z" && state.threads <= 1)
  }

  /// Empty if the process has none; nil if there is no process.
  private var commandLine: [UInt8]? { try? SmallFile.read("/proc/\(pid)/cmdline") }

  private func isOwn(_ commandLine: [UInt8]) -> Bool {
    let words = commandLine.split(separator: 0, omittingEmptySubsequences: false)
      .map { String(decoding: $0, as: UTF8.self) }
    return words.dropFirst().starts(with: ["node", "--config", configurationFile])
  }

  /// The kernel's letter for what the process does, and how many threads it has; nil if there is no
  /// process (proc(5): the third and the twentieth word of `stat`).
  private var state: (letter: Character, threads: Int)? {
    guard let bytes = try? SmallFile.read("/proc/\(pid)/stat") else {
      return nil
    }
    // The second word is the name, in parentheses, and may contain anything.
    let text = String(decoding: bytes, as: UTF8.self)
    guard let close = text.lastIndex(of: ")") else { return nil }
    let words = text[close...].dropFirst().split(separator: " ")
    guard words.count > 17, let letter = words[0].first else { return nil }
    return (letter, Int(words[17]) ?? 0)
  }

  /// Waits until a process that was just started can be recognised. While a program is being loaded
  /// the kernel shows no command line for it, and whoever looks would take it for ended.
  fileprivate func waitUntilLoaded() {
    for _ in 0..<5000 {
      if isRunning || hasEnded { return }
      usleep(1000)
    }
  }
}

extension LocalCluster {
  /// The process of `node`, nil if it does not run.
  func process(of node: NodeID) -> NodeProcess? {
    guard let process = lastProcess(of: node), process.isRunning else { return nil }
    return process
  }

  /// The process that was last started for `node`, whatever became of it.
  func lastProcess(of node: NodeID) -> NodeProcess? {
    guard let bytes = try? SmallFile.read(processFile(node)),
      let pid = pid_t(String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)),
      pid > 0
    else { return nil }
    return NodeProcess(node: node, pid: pid, configurationFile: configurationFile(node))
  }

  /// As `process(of:)`, with a message if it does not run.
  func runningProcess(of node: NodeID) throws -> NodeProcess {
    guard let process = process(of: node) else { throw Failure("node \(node) does not run") }
    return process
  }

  /// Starts `node` in a session of its own, so that it outlives this process and the terminal. Its
  /// output goes to the end of its log file.
  func start(_ node: NodeID) throws -> NodeProcess {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(
      &actions, STDOUT_FILENO, logFile(node), O_WRONLY | O_CREAT | O_APPEND, 0o644)
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
    try keepDescriptorsFromChildren()
    let configuration = configurationFile(node)
    let pid = try spawn(
      ["skein", "node", "--config", configuration], executable: try ownExecutable(),
      actions: &actions, newSession: true)
    try Files.write("\(pid)\n", to: processFile(node))
    let process = NodeProcess(node: node, pid: pid, configurationFile: configuration)
    process.waitUntilLoaded()
    return process
  }

  /// Waits until `condition` holds, looking every few milliseconds; false after `limit`.
  static func wait(atMost limit: Nanoseconds, until condition: () -> Bool) async throws -> Bool {
    let start = ContinuousClock.now
    while !condition() {
      if ContinuousClock.now - start >= .nanoseconds(Int64(clamping: limit.rawValue)) {
        return false
      }
      try await Task.sleep(for: .milliseconds(5))
    }
    return true
  }
}

/// The program that runs now.
func ownExecutable() throws -> String {
  // SAFETY: realpath with a null buffer allocates the result, which is freed here.
  guard let resolved = realpath("/proc/self/exe", nil) else {
    throw Failure.system("/proc/self/exe")
  }
  defer { free(resolved) }
  return String(cString: resolved)
}

/// A lock or pipe that whoever called us left open must not stay open as long as a node runs.
func keepDescriptorsFromChildren() throws {
  for name in try Files.names(in: "/proc/self/fd") {
    guard let descriptor = Int32(name), descriptor > 2 else { continue }
    // The one that lists the directory is closed by now; nothing else can fail here.
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
  }
}
