// Who left: a consumer that died, or whose session ended. What it held goes to others then, and what it
// had not read goes as if nobody had had it.

/// When each process that left can have left. A kill is recorded as it is done. Whoever lost its session
/// may find out much later; but it had it when what was last carried out for it was asked for, and when
/// what it read was granted.
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

  mutating func gatherDepartures() -> Departures {
    let deaths = history.deaths
    if deaths.isEmpty { return Departures([]) }
    var signsOfLife = deaths.filter { _, death in
      history.names.text(history.events[Int(death)].id) == "session-end"
    }.mapValues { _ in EventPosition(0) }
    if !signsOfLife.isEmpty { gather(&signsOfLife) }
    return Departures(
      deaths.map { process, death in
        (process, Interval(begin: min(signsOfLife[process] ?? death, death), end: death))
      })
  }

  /// Finds for each process the last place at which it certainly had its session.
  private mutating func gather(_ signsOfLife: inout [UInt32: EventPosition]) {
    for position in history.events.indices {
      let event = history.events[position]
      guard event.type == .ok, event.action == .deliver || event.action.isSettlement,
        let last = signsOfLife[event.process]
      else { continue }
      let place =
        event.action == .deliver ? placeCertainlyBefore(event.moment) : event.partner
      signsOfLife[event.process] = max(last, min(place, EventPosition(position)))
    }
  }
}
