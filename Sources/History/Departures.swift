// Who left: a consumer that died, or whose session ended. What it held goes to others then, and what it
// had not read goes as if nobody had had it.

/// When each process that left can have left. A kill is recorded as it is done. Whoever lost its session
/// may find out much later, but not before what was last carried out for it was asked for.
struct Departures {
  private var ofProcess: [UInt32: Interval] = [:]
  private var all = Intervals()

  init(_ departures: [(process: UInt32, when: Interval)]) {
    for departure in departures { ofProcess[departure.process] = departure.when }
    all = Intervals(departures.map(\.when))
  }

  /// When a process left, if it may have left before an event.
  func departure(of process: UInt32, before position: EventPosition) -> Interval? {
    ofProcess[process].flatMap { $0.begin < position ? $0 : nil }
  }

  /// Whether anybody may have left between two events.
  func mayHaveHappened(after: EventPosition, before: EventPosition) -> Bool {
    all.mayHaveHappened(after: after, before: before)
  }
}

extension Checker {
  func mayHaveLeft(_ process: UInt32, before position: EventPosition) -> Bool {
    departures.departure(of: process, before: position) != nil
  }

  func gatherDepartures() -> Departures {
    let deaths = history.deaths
    if deaths.isEmpty { return Departures([]) }
    var signsOfLife: [UInt32: EventPosition] = [:]
    let isSessionEnd = deaths.mapValues { death in
      history.names.text(history.events[Int(death)].id) == "session-end"
    }
    for event in history.events where event.type == .ok && event.action.isSettlement {
      guard isSessionEnd[event.process] == true else { continue }
      signsOfLife[event.process] = max(signsOfLife[event.process] ?? 0, event.partner)
    }
    return Departures(
      deaths.map { process, death in
        let begin = isSessionEnd[process] == true ? signsOfLife[process] ?? 0 : death
        return (process, Interval(begin: min(begin, death), end: death))
      })
  }
}
