// simulate FIRST LAST: runs seeds until one fails. Ends with 0, with 2 where a promise was broken, with
// 3 where a run gets nowhere or does not end, or as a broken invariant does. `skein sim` without the
// rest of Skein.

import Glibc
import Simulator

func say(_ text: String) {
  var line = text + "\n"
  line.withUTF8 { _ = write(1, $0.baseAddress, $0.count) }
}

/// Ends the process once what follows has used a minute of processor time, a hundred times what a seed
/// needs: the simulator itself looks at its time between two events only.
func limitTime() {
  var limit = itimerval()
  limit.it_value.tv_sec = 60
  setitimer(__itimer_which_t(ITIMER_PROF.rawValue), &limit, nil)
}

let numbers = CommandLine.arguments.dropFirst().compactMap { UInt64($0) }
guard numbers.count == 2, numbers[0] <= numbers[1] else {
  say("usage: simulate FIRST LAST")
  exit(64)
}
signal(SIGPROF) { _ in
  let text: StaticString = "  liveness: does not end, a minute of processor time is used up\n"
  _ = write(1, text.utf8Start, text.utf8CodeUnitCount)
  _exit(3)
}
for seed in numbers[0]...numbers[1] {
  // Before the run: who reads of a broken invariant or an end of time has to know the seed.
  say("seed \(seed)")
  limitTime()
  if let violation = Simulator.run(seed: seed).violation {
    say("  \(violation)")
    exit(violation.isStandstill ? 3 : 2)
  }
}
say("every promise held")
