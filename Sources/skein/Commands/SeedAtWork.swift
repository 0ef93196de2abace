// Which seed `skein sim` is at. A broken invariant, a crash or a seed without end stops the process: whoever
// sees that must learn which seed it was.

import Glibc
import Synchronization

enum SeedAtWork {
  private static let current = Atomic<UInt64>(0)
  private static let isCut = Atomic<Bool>(false)

  /// Processor time that one seed may use: a thousand times what it needs. The simulator looks at its own time
  /// between two events only, and a loop within one would never end.
  private static let secondsMax = 120

  static func begin(_ seed: UInt64) {
    current.store(seed, ordering: .relaxed)
    var limit = itimerval()
    limit.it_value.tv_sec = secondsMax
    setitimer(__itimer_which_t(ITIMER_PROF.rawValue), &limit, nil)
  }

  /// From now on the end of the process says the seed.
  ///
  /// - Parameter isCut: whether parts of the seed are left out.
  static func reportEnds(isCut: Bool) {
    self.isCut.store(isCut, ordering: .relaxed)
    // A stack of its own, since the other may be what is used up.
    var stack = stack_t()
    stack.ss_size = 64 << 10
    stack.ss_sp = UnsafeMutableRawPointer.allocate(byteCount: stack.ss_size, alignment: 16)
    sigaltstack(&stack, nil)
    for number in [SIGABRT, SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE] {
      handle(number) { _ in
        SeedAtWork.say("skein: stopped in this seed; again: skein sim --trace --seed ")
        _exit(ExitCode.violated.rawValue)
      }
    }
    handle(SIGPROF) { _ in
      SeedAtWork.say(
        "skein: this seed does not end, its processor time is used up; again: skein sim --trace --seed "
      )
      _exit(ExitCode.unknown.rawValue)
    }
  }

  private static func handle(_ number: Int32, by handler: @escaping @convention(c) (Int32) -> Void)
  {
    var action = sigaction()
    action.__sigaction_handler.sa_handler = handler
    action.sa_flags = SA_ONSTACK
    sigaction(number, &action, nil)
  }

  /// Nothing that allocates: the process is in the middle of something.
  private static func say(_ text: StaticString) {
    var number = current.load(ordering: .relaxed)
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 32) { buffer in
      var place = 31
      repeat {
        buffer[place] = UInt8(48 + number % 10)
        number /= 10
        place -= 1
      } while number > 0
      put(text)
      // SAFETY: the buffer lives until the closure ends, and place + 1 ... 31 are written.
      if let base = buffer.baseAddress { _ = write(2, base + place + 1, 31 - place) }
      put(isCut.load(ordering: .relaxed) ? ", with the same --without\n" : "\n")
    }
  }

  private static func put(_ text: StaticString) {
    _ = write(2, text.utf8Start, text.utf8CodeUnitCount)
  }
}
