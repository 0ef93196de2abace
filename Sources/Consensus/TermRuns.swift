// Which term each entry of the log has, without the entries: one run per leader that wrote into
// the log. All that elections, conflict checks and the commit rule need to know of the log's
// contents (thesis §3.5, §3.6.1).

import Base

/// The first entry of a term in the log.
package struct TermRun: Hashable, Sendable {
  package var first: LogIndex
  package var term: Term

  package init(first: LogIndex, term: Term) {
    self.first = first
    self.term = term
  }
}

/// The terms of the entries after `base` through `last`.
struct TermRuns {
  /// The position before the first entry that the log still has. Its term is known.
  private(set) var base: LogPosition
  /// By ascending index and term; base.index < first <= last, base.term <= term.
  private(set) var runs: [TermRun]
  /// The last entry's index, `base.index` if the log is empty.
  private(set) var last: LogIndex

  init(base: LogPosition, runs: [TermRun] = [], last: LogIndex? = nil) {
    self.base = base
    self.runs = runs
    self.last = last ?? base.index
    checkInvariants()
  }

  var lastPosition: LogPosition {
    LogPosition(term: runs.last?.term ?? base.term, index: last)
  }

  /// The term of the entry at `index`; nil before `base` and after `last`.
  func term(at index: LogIndex) -> Term? {
    guard index >= base.index, index <= last else { return nil }
    if let run = runs.last, index >= run.first { return run.term }
    return runs.last { $0.first <= index }?.term ?? base.term
  }

  func contains(_ position: LogPosition) -> Bool { term(at: position.index) == position.term }

  /// The place with the highest index at or before `index` whose term is at most `term`; `base` if
  /// there is none. Both sides of the fast back-up ask this.
  func place(atOrBefore index: LogIndex, termAtMost term: Term) -> LogPosition {
    var end = min(index, last)
    for run in runs.reversed() where run.first <= end {
      if run.term <= term { return LogPosition(term: run.term, index: end) }
      end = run.first.previous
    }
    return base
  }

  mutating func append(_ position: LogPosition) {
    invariant(
      position.index == last.next && position.term >= lastPosition.term,
      "\(position) appended after \(lastPosition)")
    if position.term > lastPosition.term || runs.isEmpty {
      runs.append(TermRun(first: position.index, term: position.term))
    }
    last = position.index
  }

  /// Removes the entries from `index` on.
  mutating func truncate(from index: LogIndex) {
    invariant(index > base.index && index <= last, "truncate \(index) of \(base)...\(last)")
    while let run = runs.last, run.first >= index { runs.removeLast() }
    last = index.previous
  }

  /// The entries through `index` are no longer to be had.
  mutating func drop(through index: LogIndex) {
    guard index > base.index, let term = term(at: index) else { return }
    let kept = runs.filter { $0.first > index }
    let running = last > index && kept.first?.first != index.next
    let continued =
      running ? [TermRun(first: index.next, term: self.term(at: index.next) ?? term)] : []
    base = LogPosition(term: term, index: index)
    runs = continued + kept
  }

  /// An empty log after `position`: a snapshot replaced it.
  mutating func reset(to position: LogPosition) {
    base = position
    runs = []
    last = position.index
  }

  func checkInvariants() {
    invariant(last >= base.index, "log ends at \(last) before its base \(base)")
    invariant(
      runs.first.map { $0.first == base.index.next } ?? (last == base.index),
      "runs \(runs) leave a gap after \(base), last \(last)")
    var previous = base
    for (number, run) in runs.enumerated() {
      let grows = number == 0 ? run.term >= base.term : run.term > previous.term
      invariant(grows && run.first > previous.index, "runs \(runs) after \(base) are not ascending")
      previous = LogPosition(term: run.term, index: run.first)
    }
    invariant(previous.index <= last, "run from \(previous) after the end \(last)")
  }
}
