// How a node ends: it stops when it is told to, and halts, still answering, when it must not go on.

import Base
import Consensus
import LogStore
import Node
import Transport

extension NodeLoop {
  /// The node takes no part any more, but says why to whoever asks (G12, G14).
  mutating func halt(_ reason: String, now: MonotonicTime) {
    guard isTakingPart else { return }
    log.error("stopped taking part: \(reason)")
    answerPendingChanges(now: now)
    problems.halted = reason
    // Who was told to stop does not stay for that.
    if case .stopping = phase { phase = .ended(exitCode: 0) } else { phase = .halted(reason) }
    // Nothing is written or sent any more, so nothing is to be waited for.
    markerDeadline = .never
    failedStreams.removeAll()
    peers.close()
    // Nothing that their clients want is carried out here any more; elsewhere it is.
    amqp.beginShutdown(now: now, replica: &replica)
    amqp.relay.end()
    replica.halt()
  }

  mutating func beginStopping(now: MonotonicTime) {
    switch phase {
    case .running:
      phase = .stopping(deadline: now + configuration.timeouts.stop)
      gateway.beginShutdown(now: now)
      amqp.beginShutdown(now: now, replica: &replica)
      if replica.isLeader, replica.consensus.membership.voters.count > 1 {
        do {
          try replica.transferLeadership(to: nil, now: now)
        } catch {
          log.warning("leadership is not handed over: \(error)")
        }
      }
    case .stopping, .halted:
      phase = .ended(exitCode: 0)
    case .ended:
      break
    }
  }

  mutating func continueStopping(now: MonotonicTime) {
    guard case .stopping(let deadline) = phase else { return }
    let isHandedOver = !replica.isLeader || replica.consensus.membership.voters.count == 1
    guard now >= deadline || (isHandedOver && gateway.isDrained && amqp.isDrained && storage.isIdle)
    else { return }
    if storage.isIdle, let marker = store.stageMarker() {
      do {
        try marker.execute()
        try store.finished(marker)
      } catch {
        log.error("\(error)")
      }
    }
    log.info("stopped")
    phase = .ended(exitCode: 0)
  }
}
