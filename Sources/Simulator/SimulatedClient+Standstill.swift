// A client that stands still, and goes on as if nothing had been.

import Base

extension SimulatedClient {
  var isHanging: Bool { hangsUntil > simulation.now }

  /// The process is stopped, as by SIGSTOP: its machine goes on taking what comes for it. For longer
  /// than its leases, at times for longer than the node waits for a word of it and its session lasts.
  func hang() {
    guard !isHanging else { return }
    let longest = simulation.plan.silence + simulation.plan.sessionTimeout.rawValue + .seconds(5)
    let span = simulation.laterChance.within(.milliseconds(500)...longest)
    hangsUntil = simulation.now + span
    simulation.trace { "\(self) stands still until \(Simulation.seconds(self.hangsUntil))" }
    act(.wake, after: span)
    if let connection {
      simulation.schedule(
        .clientSilence(connection.number), at: simulation.now + simulation.plan.silence)
    }
  }

  /// A delivery counts as seen when it reaches the machine: the history's checkers take an event for
  /// not much later than its cause, and a redrive before a delivery was read would be one after it.
  /// Whatever comes of it comes when the process goes on.
  func miss(_ reply: ServerReply, over connection: ClientConnection) {
    if case .deliver(let consumer, let messages) = reply {
      take(messages, consumer)
    } else {
      missed.append((reply, connection))
    }
  }

  /// It goes on as if nothing had been, and finds out.
  func wake() {
    if !missed.isEmpty || missedEnd != nil { simulation.note(.clientHangs) }
    if let session, simulation.checks.sessions.isOver(session) {
      simulation.note(.hangsBeyondSession)
    }
    let (replies, end) = (missed, missedEnd)
    missed = []
    missedEnd = nil
    for (reply, connection) in replies { receive(reply, over: connection) }
    if let end { closed(end) }
  }
}
