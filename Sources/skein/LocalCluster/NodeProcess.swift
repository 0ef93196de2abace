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

  /// Whether the number belongs to a node with this configuration. (A process that ended and was
  /// not yet waited for has no command line.)
  var isRunning: Bool {
    guard let bytes = try? SmallFile.read("/proc/\(pid)/cmdline") else {
      return false
    }
    let words = bytes.split(separator: 0, omittingEmptySubsequences: false)
      .map { String(decoding: $0, as: UTF8.self) }
    return words.dropFirst().starts(with: ["node", "--config", configurationFile])
  }

  /// Whether it is stopped by `skein cluster pause`.
  var isPaused: Bool { state == "T" }

  /// Whether nobody has the number, or one that ended and was not yet waited for.
  fileprivate var hasEnded: Bool { state == nil || state == "Z" }

  /// The kernel's letter for what the process does; nil if there is none.
  private var state: Character? {
    guard let bytes = try? SmallFile.read("/proc/\(pid)/stat") else {
      return nil
    }
    // The state is the word behind the name, which is in parentheses and may contain anything.
    let text = String(decoding: bytes, as: UTF8.self)
    guard let close = text.lastIndex(of: ")") else { return nil }
    return text[close...].dropFirst(2).first
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
    guard let bytes = try? SmallFile.read(processFile(node)),
      let pid = pid_t(String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)),
      pid > 0
    else { return nil }
    let process = NodeProcess(node: node, pid: pid, configurationFile: configurationFile(node))
    return process.isRunning ? process : nil
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
