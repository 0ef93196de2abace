// What can be done to a cluster and its clients: the names that stand in scenario files.

import Base

/// A kind of harm. The raw value is its name in scenario files, histories and reports.
package enum FaultKind: String, CaseIterable, Sendable {
  case kill
  case stop
  case restart
  case rollingRestart = "rolling-restart"
  case powerLoss = "power-loss"
  case isolate
  case isolatePeers = "isolate-peers"
  case oneWayIn = "one-way-in"
  case oneWayOut = "one-way-out"
  case halves
  case ring
  case star
  case cutClients = "cut-clients"
  case latency
  case throttle
  case loss
  case reorder
  case duplicate
  case drop
  case halfOpen = "half-open"
  case diskFlip = "disk-flip"
  case diskTruncate = "disk-truncate"
  case diskStale = "disk-stale"
  case diskWipe = "disk-wipe"
  case diskFull = "disk-full"
  case diskLimit = "disk-limit"
  case members
  case transfer
  case killConsumer = "kill-consumer"
  case killProducer = "kill-producer"
  case slowConsumer = "slow-consumer"

  /// Whether the scenario has to say which nodes.
  package var needsTarget: Bool {
    switch self {
    case .kill, .stop, .restart, .powerLoss, .isolate, .isolatePeers, .oneWayIn, .oneWayOut,
      .cutClients, .halfOpen, .drop, .latency, .throttle, .loss, .reorder, .duplicate, .diskFlip,
      .diskTruncate, .diskStale, .diskWipe, .diskFull, .diskLimit:
      true
    case .rollingRestart, .halves, .ring, .star, .members, .transfer, .killConsumer, .killProducer,
      .slowConsumer:
      false
    }
  }

  /// Whether it may be done to several nodes at once. What harms disks may not: what a majority
  /// has lost is lost.
  package var takesSeveral: Bool { needsTarget && !isDisk }

  /// Whether it lasts; the others are over when they are done.
  package var lasts: Bool {
    switch self {
    case .rollingRestart, .drop, .members, .transfer, .killConsumer, .killProducer: false
    default: true
    }
  }

  package var isDisk: Bool {
    switch self {
    case .diskFlip, .diskTruncate, .diskStale, .diskWipe, .diskFull, .diskLimit: true
    default: false
    }
  }

  /// With fewer nodes it would do nothing, or harm more disks than a minority.
  package var nodesMin: Int {
    switch self {
    case .ring, .star, .diskFlip, .diskTruncate, .diskStale, .diskWipe: 3
    case .isolatePeers, .oneWayIn, .oneWayOut, .halves, .transfer: 2
    default: 1
    }
  }

  /// Whether each node's data has to be on a file system of its own (`disk`), which needs root.
  package var needsDisk: Bool { self == .diskFull || self == .powerLoss }

  /// Whether only the kernel can do it, in namespaces (`--netns`).
  package var needsNamespaces: Bool { [.loss, .reorder, .duplicate].contains(self) }

  /// Whether in namespaces it needs the kernel's netem.
  package var isShaped: Bool { needsNamespaces || self == .latency }
}

/// Whom a fault is done to. Who leads is known only when it is done.
package enum FaultTarget: String, CaseIterable, Sendable {
  /// Any node, drawn.
  case node
  case leader
  /// Who led before the one that leads now; if nobody leads, who led last.
  case former
  /// Any other, drawn.
  case follower
  /// As many as may be missing: one of three, two of five.
  case minority
  /// One more than that, the leader among them.
  case majority
  case all

  /// How many of `nodes`.
  package func count(of nodes: Int) -> Int {
    switch self {
    case .node, .leader, .former, .follower: 1
    case .minority: max(1, (nodes - 1) / 2)
    case .majority: nodes / 2 + 1
    case .all: nodes
    }
  }
}

/// A fault with everything that a scenario says about it.
package struct FaultLine: Equatable, Sendable {
  package var kind: FaultKind
  package var target: FaultTarget?
  /// From the end of one to the next; nil is once.
  package var every: ClosedRange<Nanoseconds>?
  /// How long it lasts.
  package var length: ClosedRange<Nanoseconds>
  /// When the first one begins; nil draws it from `every`.
  package var first: Nanoseconds?
  /// How often it is drawn in a `mix`, compared with others.
  package var weight: UInt64 = 1
  /// Of `latency`: what is added to each way. Of `reorder`: how long packets take that others overtake.
  package var delay: Nanoseconds = .milliseconds(20)
  package var jitter: Nanoseconds = .milliseconds(10)
  /// Of `throttle`: bytes a second.
  package var bytesPerSecond: UInt64 = 256 << 10
  /// Of `loss`, `reorder` and `duplicate`: of the packets.
  package var percent: Double = 5

  package init(kind: FaultKind, target: FaultTarget? = nil) {
    self.kind = kind
    self.target = target
    length = kind.lasts ? .seconds(1) ... .seconds(3) : .zero ... .zero
    if kind == .reorder { delay = .milliseconds(5) }
  }

  /// `kill leader`, as it stands in histories and reports.
  package var name: String { target.map { "\(kind.rawValue) \($0.rawValue)" } ?? kind.rawValue }
}
