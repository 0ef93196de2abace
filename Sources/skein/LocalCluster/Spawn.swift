// Starting a program by posix_spawn(3).

import Dispatch
import Glibc
import Synchronization
import Transport

/// Starts a program. Signals are as usual in it, whatever they are here.
/// - Parameters:
///   - newSession: it outlives this process and the terminal.
///   - environment: `NAME=value` texts, in place of ours where the name is the same.
func spawn(
  _ words: [String], executable: String, actions: inout posix_spawn_file_actions_t,
  newSession: Bool, environment: [String] = []
) throws -> pid_t {
  var attributes = posix_spawnattr_t()
  posix_spawnattr_init(&attributes)
  defer { posix_spawnattr_destroy(&attributes) }
  var none = sigset_t()
  sigemptyset(&none)
  posix_spawnattr_setsigmask(&attributes, &none)
  var standard = sigset_t()
  sigemptyset(&standard)
  for number in [SIGPIPE, SIGINT, SIGTERM, SIGHUP] { sigaddset(&standard, number) }
  posix_spawnattr_setsigdefault(&attributes, &standard)
  var flags = Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)
  // POSIX_SPAWN_SETSID of spawn.h, behind a GNU switch there.
  if newSession { flags |= 0x80 }
  posix_spawnattr_setflags(&attributes, Int16(flags))

  let arguments = CStrings(words)
  let variables = CStrings(merged(environment))
  var pid: pid_t = 0
  let result = posix_spawn(
    &pid, executable, &actions, &attributes, arguments.pointers, variables.pointers)
  guard result == 0 else {
    throw Failure("\(executable) cannot be started: \(String(cString: strerror(result)))")
  }
  return pid
}

/// Nodes that must not outlive who started them, however that one ends. posix_spawn(3) cannot ask the kernel for
/// it, so the node does, when its environment says so.
enum EndWithParent {
  private static let variable = "SKEIN_ENDS_WITH"

  /// For `spawn`. Only a thread that lives as long as this process may start it (`SpawnThread`).
  static var environment: [String] { ["\(variable)=\(getpid())"] }

  /// In the process that was started.
  /// - Throws: `Failure` if the other one is gone already.
  static func obey() throws {
    guard let parent = Terminal.environment(variable) else { return }
    // What this one starts is its own affair.
    unsetenv(variable)
    Signals.endWithParent()
    guard parent == "\(getppid())" else {
      throw Failure("process \(parent), which this one was to end with, is gone")
    }
  }
}

/// One thread that starts processes, for as long as this process lives: to the kernel the thread is their
/// parent, and those of the concurrency pool come and go.
final class SpawnThread: Sendable {
  private let jobs = WorkQueue<@Sendable () -> Void>()

  init() throws(ErrorNumber) {
    let jobs = jobs
    _ = try WorkerThread(name: "skein-spawn") {
      while let batch = jobs.take() { for job in batch { job() } }
    }
  }

  /// - Returns: what `body` returned on the thread.
  func run(_ body: @escaping @Sendable () throws -> pid_t) throws -> pid_t {
    let answer = Answer()
    let isDone = DispatchSemaphore(value: 0)
    jobs.post {
      answer.result.withLock { $0 = Result { try body() } }
      isDone.signal()
    }
    isDone.wait()
    return try answer.result.withLock { $0 }.get()
  }

  private final class Answer: Sendable {
    let result = Mutex<Result<pid_t, any Error>>(.failure(Failure("nothing was started")))
  }
}

/// Our environment with `changes` in it.
private func merged(_ changes: [String]) -> [String] {
  let names = Set(changes.map { $0.prefix { $0 != "=" } })
  var variables: [String] = []
  var next = environ
  while let variable = next.pointee {
    let text = String(cString: variable)
    if !names.contains(text.prefix { $0 != "=" }) { variables.append(text) }
    next += 1
  }
  return variables + changes
}

/// Texts as C wants a list of them: pointers, the last one null.
final class CStrings {
  let pointers: [UnsafeMutablePointer<CChar>?]

  init(_ texts: [String]) {
    // SAFETY: each copy is freed once, in deinit; nobody keeps the pointers longer.
    pointers = texts.map { strdup($0) } + [nil]
  }

  deinit {
    for pointer in pointers { free(pointer) }
  }
}
