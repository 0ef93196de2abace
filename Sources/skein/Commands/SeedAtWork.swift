// Which seed `skein sim` is at. A broken invariant, a crash or a seed without end stops the process: whoever
// sees that must learn which seed it was, and what it did. The process that is stopped can say little: it is
// in the middle of something. So it becomes another one (execve), `skein sim --stopped` (`SimStop`).

import Glibc
import Synchronization

enum SeedAtWork {
  /// What the end of the process turns into.
  enum End {
    /// This program with these arguments, and `--stopped SEED:SIGNAL`.
    case process([String])
    /// A line on standard error with the command that runs the seed again: the story is there already.
    case line(again: String)
    /// What `SimTrial` reads, then the end by the same signal.
    case verdict
  }

  static let signals = [SIGABRT, SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGPROF]

  /// Processor time that one seed may use: a thousand times what it needs. The simulator looks at its own time
  /// between two events only, and a loop within one would never end.
  static let secondsMax = 60
  /// The same where the story is told, after a run that took longer than it should.
  static let storySecondsMax = 20

  private static let current = Atomic<UInt64>(0)
  private static let step = Atomic<UInt64>(0)
  /// How much of `waits` is there.
  private static let waitsCount = Atomic<Int>(0)
  private static let waitsMax = 64 << 10

  private enum Kind: Int, AtomicRepresentable { case none, process, line, verdict }
  private static let kind = Atomic<Kind>(.none)

  // SAFETY: these are written before `kind` says so and before any handler is set, by the only thread.
  nonisolated(unsafe) private static var words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
  nonisolated(unsafe) private static var seedAndSignal: UnsafeMutablePointer<CChar>?
  nonisolated(unsafe) private static var again: UnsafeMutablePointer<CChar>?
  nonisolated(unsafe) private static var waits: UnsafeMutablePointer<UInt8>?

  static func begin(_ seed: UInt64, seconds: Int = secondsMax) {
    current.store(seed, ordering: .relaxed)
    limitTime(seconds)
  }

  private static func limitTime(_ seconds: Int) {
    var limit = itimerval()
    limit.it_value.tv_sec = seconds
    setitimer(__itimer_which_t(ITIMER_PROF.rawValue), &limit, nil)
  }

  /// This event of the seed is about to happen.
  static func reached(_ step: UInt64) { self.step.store(step, ordering: .relaxed) }

  /// What every node waits for, as of now.
  static func everybodyWaits(for text: String) {
    guard let waits else { return }
    // The end may come between any two bytes.
    waitsCount.store(0, ordering: .releasing)
    var count = 0
    for byte in text.utf8.prefix(waitsMax) {
      waits[count] = byte == 10 ? 32 : byte
      count += 1
    }
    waitsCount.store(count, ordering: .releasing)
  }

  /// From now on the end of the process becomes `end`.
  static func reportEnds(as end: End) {
    switch end {
    case .process(let arguments):
      // Twenty digits, a colon, ten digits, a zero.
      let number = UnsafeMutablePointer<CChar>.allocate(capacity: 32)
      number.initialize(repeating: 0, count: 32)
      seedAndSignal = number
      let all = (["skein"] + arguments + ["--stopped"]).map { strdup($0) } + [number, nil]
      let list = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: all.count)
      for (place, word) in all.enumerated() { (list + place).initialize(to: word) }
      words = list
      kind.store(.process, ordering: .releasing)
    case .line(let command):
      again = strdup(command)
      kind.store(.line, ordering: .releasing)
    case .verdict:
      waits = .allocate(capacity: waitsMax)
      kind.store(.verdict, ordering: .releasing)
    }
    // A stack of its own, since the other may be what is used up.
    var stack = stack_t()
    stack.ss_size = 64 << 10
    stack.ss_sp = UnsafeMutableRawPointer.allocate(byteCount: stack.ss_size, alignment: 16)
    sigaltstack(&stack, nil)
    for number in signals {
      var action = sigaction()
      action.__sigaction_handler.sa_handler = { SeedAtWork.stop($0) }
      action.sa_flags = SA_ONSTACK
      sigaction(number, &action, nil)
    }
  }

  /// Nothing that allocates or locks: the process is in the middle of something.
  private static func stop(_ number: Int32) {
    let seed = current.load(ordering: .relaxed)
    switch kind.load(ordering: .acquiring) {
    case .process:
      // Before all else: another signal may end the next process.
      put("skein: stopped in seed ")
      put(seed)
      put("\n")
      if let seedAndSignal, let words {
        var place = digits(of: seed, into: seedAndSignal)
        seedAndSignal[place] = 58  // :
        place += 1
        _ = digits(of: UInt64(number), into: seedAndSignal + place)
        limitTime(0)
        unblock()
        _ = execv("/proc/self/exe", words)
      }
    case .line:
      put(
        number == SIGPROF
          ? "skein: this seed does not end, its processor time is used up, at step "
          : "skein: stopped at step ")
      put(step.load(ordering: .relaxed))
      put("; again: ")
      if let again { _ = write(2, again, strlen(again)) }
      put("\n")
    case .verdict:
      put("stopped ")
      put(step.load(ordering: .relaxed))
      put("\nwaits ")
      if let waits { _ = write(2, waits, waitsCount.load(ordering: .acquiring)) }
      put("\n")
      signal(number, SIG_DFL)
      unblock()
      raise(number)
    case .none: break
    }
    _exit(number == SIGPROF ? ExitCode.unknown.rawValue : ExitCode.violated.rawValue)
  }

  private static func unblock() {
    var none = sigset_t()
    sigemptyset(&none)
    sigprocmask(SIG_SETMASK, &none, nil)
  }

  /// - Returns: how many there are.
  private static func digits(of number: UInt64, into text: UnsafeMutablePointer<CChar>) -> Int {
    var count = 1
    var rest = number
    while rest >= 10 {
      rest /= 10
      count += 1
    }
    rest = number
    for place in stride(from: count - 1, through: 0, by: -1) {
      text[place] = CChar(48 + rest % 10)
      rest /= 10
    }
    return count
  }

  private static func put(_ number: UInt64) {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 32) { buffer in
      // SAFETY: a UInt64 has at most twenty digits; the buffer lives until the closure ends.
      if let base = buffer.baseAddress { _ = write(2, base, digits(of: number, into: base)) }
    }
  }

  private static func put(_ text: StaticString) {
    _ = write(2, text.utf8Start, text.utf8CodeUnitCount)
  }
}
