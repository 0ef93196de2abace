// What the nemesis did, as far as verdicts go by it: who died, and when a new leader began to lead.

extension HistoryReader {
  mutating func takeNemesis(
    _ event: inout Event, _ scanner: LineScanner
  ) throws(LineFault) {
    let position = EventPosition(history.events.count)
    guard fields[.f].kind != .absent else { throw fields.missing(.f, 0) }
    event.id = try fields.text(.f, &history.names, scanner, 0)
    let value = fields[.value]
    if value.kind == .text || value.kind == .escapedText || value.kind == .number {
      event.key = try fields.text(.value, &history.names, scanner, 0)
    }
    let fault = history.names.text(event.id)
    switch fault {
    case "leader-change": takeLeaderChange(event, at: position)
    case "client-kill", "session-end":
      guard event.key != Absent.reference else { throw fields.missing(.value, 0) }
      let process = try fields.text(.value, &history.processes, scanner, 0)
      if fault == "session-end" { event.span = try fields.optional(.timeout, scanner) }
      takeDeath(of: process, event, at: position, isKill: fault == "client-kill")
    default: break
    }
    history.events.append(event)
  }

  /// One that failed did not happen, nor did what began as it.
  private mutating func takeLeaderChange(_ event: Event, at position: EventPosition) {
    if event.type != .fail {
      history.leaderChanges.append(position)
    } else if let last = history.leaderChanges.last {
      let begun = history.events[Int(last)]
      if begun.type == .invoke, begun.key == event.key { history.leaderChanges.removeLast() }
    }
  }

  private mutating func takeDeath(
    of process: UInt32, _ event: Event, at position: EventPosition, isKill: Bool
  ) {
    let ends = isKill ? \History.kills : \History.sessionEnds
    let known = history[keyPath: ends][process]
    if event.type != .fail {
      if known == nil { history[keyPath: ends][process] = position }
    } else if let known, history.events[Int(known)].type == .invoke {
      history[keyPath: ends][process] = nil
    }
    guard isKill else { return }
    while killed.count <= Int(process) { killed.append(false) }
    killed[Int(process)] = history.kills[process] != nil
  }
}
