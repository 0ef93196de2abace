// simulate FIRST LAST: runs seeds until one fails. Ends with 0, with 2 where a promise was broken, with
// 3 where a run gets nowhere, or as a broken invariant does. `skein sim` without the rest of Skein.

import Glibc
import Simulator

func say(_ text: String) {
  var line = text + "\n"
  line.withUTF8 { _ = write(1, $0.baseAddress, $0.count) }
}

let numbers = CommandLine.arguments.dropFirst().compactMap { UInt64($0) }
guard numbers.count == 2, numbers[0] <= numbers[1] else {
  say("usage: simulate FIRST LAST")
  exit(64)
}
for seed in numbers[0]...numbers[1] {
  // Before the run: who reads of a broken invariant has to know the seed.
  say("seed \(seed)")
  if let violation = Simulator.run(seed: seed).violation {
    say("  \(violation)")
    exit(violation.isStandstill ? 3 : 2)
  }
}
say("every promise held")
