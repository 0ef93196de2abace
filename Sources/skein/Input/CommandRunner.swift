// `consume --exec`: a shell command per message, the body on its standard input.

import Dispatch
import Glibc
import Synchronization

/// How a command ended.
struct CommandOutcome: Sendable {
  /// Exit code; 128 and the signal if one ended it, as shells count.
  let code: Int32
  /// The last line that it wrote to standard error; empty if none.
  let lastError: String
  /// What it wrote to standard output, if that was asked for.
  var output: [UInt8] = []
  /// It wrote more than was asked for; the rest is lost.
  var isOutputCut = false
}

enum CommandRunner {
  private static let queue = DispatchQueue(label: "skein.exec", attributes: .concurrent)

  /// Runs `/bin/sh -c command` with `body` as its input and `environment` on top of ours. What it
  /// writes goes where our own output goes, or with `outputMax` is kept up to so many bytes.
  static func run(
    _ command: String, body: [UInt8], environment: [String], outputMax: Int? = nil
  ) async throws -> CommandOutcome {
    let result: Result<CommandOutcome, any Error> = await withCheckedContinuation { continuation in
      queue.async {
        continuation.resume(
          returning: Result {
            try runHere(command, body: body, environment: environment, outputMax)
          })
      }
    }
    return try result.get()
  }

  private static func runHere(
    _ command: String, body: [UInt8], environment: [String], _ outputMax: Int?
  ) throws -> CommandOutcome {
    let (pid, input, errors, output) = try starting.withLock { _ in
      try start(command, environment, keepsOutput: outputMax != nil)
    }
    var exchange = Exchange(
      input: input, errors: errors, output: output, outputMax: outputMax ?? 0, body: body)
    let code = exchange.run(pid)
    return CommandOutcome(
      code: code, lastError: exchange.lastLine, output: exchange.kept,
      isOutputCut: exchange.isOutputCut)
  }

  /// Held while pipes are made and a command is started: the pipes of one must not get into
  /// another, which would keep them open.
  private static let starting = Mutex(())

  private static func start(
    _ command: String, _ environment: [String], keepsOutput: Bool
  ) throws -> (pid: pid_t, input: Pipe, errors: Pipe, output: Pipe?) {
    let input = try Pipe()
    let errors = try Pipe()
    let output = keepsOutput ? try Pipe() : nil
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, input.readEnd, STDIN_FILENO)
    posix_spawn_file_actions_adddup2(&actions, errors.writeEnd, STDERR_FILENO)
    if let output { posix_spawn_file_actions_adddup2(&actions, output.writeEnd, STDOUT_FILENO) }
    let pid = try spawn(
      ["sh", "-c", command], executable: "/bin/sh", actions: &actions, newSession: false,
      environment: environment)
    input.closeReadEnd()
    errors.closeWriteEnd()
    output?.closeWriteEnd()
    return (pid, input, errors, output)
  }

  /// Feeds a command and listens to it until it ends.
  private struct Exchange {
    let input: Pipe
    let errors: Pipe
    /// nil if it goes where ours goes.
    let output: Pipe?
    let outputMax: Int
    let body: [UInt8]
    private(set) var kept: [UInt8] = []
    private(set) var isOutputCut = false
    private var written = 0
    private var line: [UInt8] = []
    private(set) var lastLine = ""

    /// Of an error text, what is kept.
    private static let lineBytesMax = 1024
    /// A command that ended while something it started holds its pipes open is noticed after this
    /// many milliseconds.
    private static let patience: Int32 = 20
    /// A pipe holds 64 KiB, of which one read takes 4 KiB at least.
    private static let drainReadsMax = 64

    init(input: Pipe, errors: Pipe, output: Pipe?, outputMax: Int, body: [UInt8]) {
      self.input = input
      self.errors = errors
      self.output = output
      self.outputMax = outputMax
      self.body = body
      input.makeWriteEndNonBlocking()
      if body.isEmpty { input.closeWriteEnd() }
    }

    mutating func run(_ pid: pid_t) -> Int32 {
      while errors.readEnd >= 0 || (output?.readEnd ?? -1) >= 0 {
        // One that is closed is -1, which is passed over.
        var wanted = [
          pollfd(fd: errors.readEnd, events: Int16(POLLIN), revents: 0),
          pollfd(fd: input.writeEnd, events: Int16(POLLOUT), revents: 0),
          pollfd(fd: output?.readEnd ?? -1, events: Int16(POLLIN), revents: 0),
        ]
        let count = poll(&wanted, nfds_t(wanted.count), Exchange.patience)
        if count == 0, let code = Exchange.reap(pid, WNOHANG) {
          // It may have written its last words between the look at the pipes and its end.
          drain()
          endLine()
          return code
        }
        guard count > 0 else { continue }
        if wanted[0].revents != 0 { listen() }
        if wanted[1].revents != 0 { feed() }
        if wanted[2].revents != 0 { keepOutput() }
      }
      input.closeWriteEnd()
      endLine()
      return Exchange.reap(pid, 0) ?? 0
    }

    /// Reads what lies in the pipes of a command that has ended: no more than they can hold, since
    /// what it started may go on writing.
    private mutating func drain() {
      for _ in 0..<Exchange.drainReadsMax {
        var wanted = [
          pollfd(fd: errors.readEnd, events: Int16(POLLIN), revents: 0),
          pollfd(fd: output?.readEnd ?? -1, events: Int16(POLLIN), revents: 0),
        ]
        guard poll(&wanted, nfds_t(wanted.count), 0) > 0 else { return }
        if wanted[0].revents != 0 { listen() }
        if wanted[1].revents != 0 { keepOutput() }
      }
    }

    private mutating func feed() {
      let count = body.withUnsafeBytes { bytes in
        // SAFETY: `written` is below the count, or the end would have been closed.
        write(input.writeEnd, bytes.baseAddress.map { $0 + written }, bytes.count - written)
      }
      if count > 0 { written += count }
      // A command need not read its input: EPIPE is no failure.
      if written == body.count || (count < 0 && errno != EAGAIN && errno != EINTR) {
        input.closeWriteEnd()
      }
    }

    private mutating func listen() {
      var bytes = [UInt8](repeating: 0, count: 4096)
      let count = read(errors.readEnd, &bytes, bytes.count)
      if count < 0, errno == EINTR || errno == EAGAIN { return }
      guard count > 0 else {
        errors.closeReadEnd()
        return
      }
      StandardError.write(Array(bytes[..<count]))
      for byte in bytes[..<count] {
        if byte == 0x0a {
          endLine()
        } else if line.count < Exchange.lineBytesMax {
          line.append(byte)
        }
      }
    }

    private mutating func keepOutput() {
      guard let output else { return }
      var bytes = [UInt8](repeating: 0, count: 65_536)
      let count = read(output.readEnd, &bytes, bytes.count)
      if count < 0, errno == EINTR || errno == EAGAIN { return }
      guard count > 0 else {
        output.closeReadEnd()
        return
      }
      let room = outputMax - kept.count
      kept.append(contentsOf: bytes[..<min(count, room)])
      isOutputCut = isOutputCut || count > room
    }

    private mutating func endLine() {
      let text = String(decoding: line, as: UTF8.self)
      if text.contains(where: { !$0.isWhitespace }) { lastLine = text }
      line.removeAll()
    }

    /// The exit code; nil if it still runs and `options` say not to wait.
    private static func reap(_ pid: pid_t, _ options: Int32) -> Int32? {
      var status: Int32 = 0
      var result: pid_t
      repeat { result = waitpid(pid, &status, options) } while result < 0 && errno == EINTR
      guard result == pid else { return result == 0 ? nil : 127 }
      let signal = status & 0x7f
      return signal == 0 ? (status >> 8) & 0xff : 128 + signal
    }
  }

  /// Both ends of a pipe; -1 once closed. Used by one thread.
  private final class Pipe {
    private(set) var readEnd: Int32
    private(set) var writeEnd: Int32

    init() throws {
      var ends: [Int32] = [-1, -1]
      guard pipe(&ends) == 0 else { throw Failure.system("pipe") }
      for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
      readEnd = ends[0]
      writeEnd = ends[1]
    }

    deinit {
      closeReadEnd()
      closeWriteEnd()
    }

    func makeWriteEndNonBlocking() { _ = fcntl(writeEnd, F_SETFL, O_NONBLOCK) }

    func closeReadEnd() {
      if readEnd >= 0 { close(readEnd) }
      readEnd = -1
    }

    func closeWriteEnd() {
      if writeEnd >= 0 { close(writeEnd) }
      writeEnd = -1
    }
  }
}
