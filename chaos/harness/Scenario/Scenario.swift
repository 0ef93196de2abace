// A scenario: the cluster, the workload and the faults of a run, as a value. ScenarioParser reads it
// from a file.

import Base

package struct Scenario: Equatable, Sendable {
  package var name: String
  /// One sentence for people.
  package var about = ""
  /// The promises that it attacks, such as `G7`.
  package var attacks: [String] = []
  package var nodes = 3
  package var duration: Nanoseconds = .seconds(60)
  package var workload = WorkloadPlan()
  /// Nothing is harmed before.
  package var calm: Nanoseconds = .seconds(2)
  /// If set, one of the faults is drawn again and again, so far apart; else each goes its own way.
  package var mix: ClosedRange<Nanoseconds>?
  package var faults: [FaultLine] = []
  /// Each node's data lies on a file system of this size, made as root; nil is the directory's own.
  package var diskBytes: UInt64?

  package init(name: String) { self.name = name }

  /// What it cannot do without: `root`, `--netns`, `netem`.
  package var needs: [String] {
    if !faults.isEmpty, faults.allSatisfy(\.kind.needsNamespaces) {
      return ["root", "--netns", "netem"]
    }
    return diskBytes == nil ? [] : ["root"]
  }
}

/// What the clients do.
package struct WorkloadPlan: Equatable, Sendable {
  /// Publishes a second of all producers together; nil is as fast as it goes.
  package var rate: UInt64? = 500
  package var queues = 2
  package var producers = 2
  package var consumers = 4
  package var prefetch = 20
  /// Bytes of a message.
  package var bodyBytes = 100
  /// Different keys; 0 publishes without, and then the queues are not keyed.
  package var keys = 0
  package var lease: Nanoseconds = .seconds(3)
  /// The cluster keeps a client that is away for so long. Longer than the lease: what a session
  /// that was given up held has then lapsed before, and a history can tell why it came again.
  package var session: Nanoseconds = .seconds(5)
  package var maxDeliveries = 5
  package var retryDelay: Nanoseconds = .milliseconds(50)
  /// Of a thousand publishes, so many have a delay.
  package var delayed: UInt64 = 20
  /// Of a thousand deliveries, so many are handed back, rejected, and so on.
  package var nacked: UInt64 = 20
  package var rejected: UInt64 = 5
  package var released: UInt64 = 5
  package var extended: UInt64 = 5
  /// Held for longer than the lease, then acknowledged all the same.
  package var overrun: UInt64 = 3
  /// Acknowledged, and a message made of it published to the next queue, in one step.
  package var moved: UInt64 = 0
  /// Of a thousand publishes, so many are worth nothing after a second or two.
  package var expiring: UInt64 = 0
  /// Of a thousand publishes, so many have a delay and are cancelled once they are confirmed.
  package var cancelled: UInt64 = 0
  /// Levels of the queues; 1 is none.
  package var priorities = 1
  /// Publishers, and as many consumers, that speak AMQP, on a queue of their own.
  package var amqp = 0
  /// Dead letters are brought back so often; nil is never.
  package var redrive: Nanoseconds?

  package init() {}

  /// The load goes through AMQP: as many publishers as there were. What AMQP has no word for (keys, leases,
  /// moves and the like) is left out; the native consumers only look after their own queues.
  package mutating func speakAMQP() {
    amqp = max(amqp, producers)
    producers = 0
    moved = 0
    redrive = nil
  }

  /// Where producers publish.
  package var queueNames: [String] { (1...queues).map { "work-\($0)" } }
  /// All but the dead letters and the AMQP clients' own.
  package var workQueues: [String] { queueNames + (onwardQueue.map { [$0] } ?? []) }
  /// Where moved messages go.
  package var onwardQueue: String? { moved > 0 ? "onward" : nil }
  package var deadLetterQueue: String { "dead" }
}
