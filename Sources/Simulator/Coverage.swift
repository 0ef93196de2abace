// What happened in a run, counted: whoever reads the table sees that the faults hit and which
// interesting states were reached. A counter that stays at zero over many seeds says that something
// is not tried. A fault counts when it hit: a partition when it held a message up, a full disk when it
// refused a write, a pause when something had to wait for it.

/// One thing that can happen.
package enum Happening: Int, CaseIterable, Sendable {
  case events, simulatedSeconds
  // Faults.
  case kills, powerLosses, wholeClusterStops, crashesInsideJob, crashesInsideRecovery
  case unsyncedLost, tornWrites, zeroedBlockEnds, pauses, partitions, oneWayCuts, isolatedLeaders,
    rings, clogs, clientsCutOff
  case resets, slowDisks, failedSyncs, failedDirectorySyncs, fullDisks, bitFlips, zeroedSectors,
    misdirectedWrites
  case staleSectors, truncatedFiles, deletedFiles, wipedDisks, emptiedDirectories, transfers
  case pauseKills, laggardMajorities, framesAfterNewConnection, framesOfFormerLives, victimsMoved
  case lostWrites, framesRepeated, ordersToStaleLeaders, clientHangs, hangsBeyondSession
  case swizzles, clockJumps, membersAdded, memberRejoins, membersRemoved, leadersRemoved
  case lostPackets, driftingClocks, harmsAmongChangingMembers
  case restartsAfterFailedSync, crashesInsideSnapshot, crashesInsideRewrite
  case crashesInsideInstall, crashesInsideMembershipChange
  // What the cluster did about it.
  case elections, leaderChanges, commits, truncations, halts, restarts, restartsWithDamage
  case tornTailsCut, logsCut, memoryLost, memoryRestored, logsMended
  case repairs, snapshots, snapshotsWithoutRoom, cleanings, snapshotsSent, snapshotsInstalled
  case snapshotStreamsFailed
  case readsFromKeptLog, readsOfReplacedEntries, feedsPaced, writesToBeRead
  case readsFromLog, damageFoundRunning, linearizableReads, promotions, snapshotsOverTornLogs,
    statesCompared, disksInspected, latentDamage
  case readsAskedOfFormerLeaders
  // What the clients did and saw.
  case sessionsOpened, sessionsAttached, sessionsLost, clientCrashes, publishes, publishesRepeated
  case confirms, deliveries, redeliveries, acks, nacks, rejects, releases, extends, leasesOverrun
  case publishesRefused, delayedPublishes, delayedDeliveries, cancels, reschedules, redrives, purges
  case creditChanges, settlesTwice, staleSettles, deadLetters, leasesSurvivingLeaderChange,
    leasesSurvivingTwoLeaderChanges, expiredDeadLetters, overflowedDeadLetters, droppedMessages,
    lateDeliveries, unknownAcks, leasesLapsed, deadLettersRead, outcomesAsked
  case transactions, transactionsAcrossQueues, transactionsRefused
  case drainedMessages

  /// In the table and in JSON.
  package var name: String { "\(self)" }

  /// Every long run must reach these, or the simulator no longer tries what it is for.
  package static let mustReach: [Happening] = [
    .kills, .powerLosses, .crashesInsideJob, .unsyncedLost, .tornWrites, .pauses, .partitions,
    .oneWayCuts, .isolatedLeaders, .resets, .failedSyncs, .fullDisks, .bitFlips, .wipedDisks,
    .elections, .leaderChanges, .truncations, .halts, .restartsWithDamage, .tornTailsCut, .logsCut,
    .memoryLost, .memoryRestored, .repairs, .snapshots, .cleanings, .snapshotsInstalled,
    .sessionsAttached, .clientCrashes, .publishesRepeated, .redeliveries, .leasesOverrun,
    .staleSettles, .deadLetters, .leasesSurvivingLeaderChange, .swizzles, .clockJumps,
    .membersAdded, .membersRemoved, .leadersRemoved, .promotions, .transfers,
    .restartsAfterFailedSync, .crashesInsideSnapshot, .crashesInsideRewrite,
    .crashesInsideInstall, .crashesInsideMembershipChange, .staleSectors, .misdirectedWrites,
    .truncatedFiles, .deletedFiles, .delayedDeliveries, .cancels, .reschedules, .redrives,
    .purges, .creditChanges, .settlesTwice, .publishesRefused, .nacks, .rejects, .releases,
    .extends, .sessionsLost, .damageFoundRunning, .logsMended, .memberRejoins,
    .failedDirectorySyncs, .zeroedBlockEnds, .transactions, .transactionsAcrossQueues,
    .transactionsRefused, .wholeClusterStops, .rings, .clogs, .slowDisks, .zeroedSectors,
    .crashesInsideRecovery, .linearizableReads, .clientsCutOff, .snapshotsSent, .readsFromLog,
    .snapshotsOverTornLogs, .leasesSurvivingTwoLeaderChanges, .expiredDeadLetters,
    .overflowedDeadLetters, .droppedMessages, .unknownAcks, .delayedPublishes, .drainedMessages,
    .pauseKills, .laggardMajorities, .framesAfterNewConnection, .framesOfFormerLives,
    .victimsMoved, .lostWrites, .framesRepeated, .ordersToStaleLeaders, .clientHangs,
    .hangsBeyondSession, .readsAskedOfFormerLeaders, .statesCompared, .leasesLapsed,
    .deadLettersRead, .outcomesAsked, .disksInspected, .latentDamage, .lostPackets, .driftingClocks,
    .harmsAmongChangingMembers, .readsFromKeptLog,
    .feedsPaced, .writesToBeRead,
  ]
}

/// How often each thing happened.
package struct Coverage: Sendable {
  private var counts = [UInt64](repeating: 0, count: Happening.allCases.count)

  package init() {}

  package subscript(_ happening: Happening) -> UInt64 {
    get { counts[happening.rawValue] }
    set { counts[happening.rawValue] = newValue }
  }

  mutating func note(_ happening: Happening) { counts[happening.rawValue] += 1 }

  package mutating func add(_ other: Coverage) {
    for place in counts.indices { counts[place] += other.counts[place] }
  }

  /// Those of the must-reach list that never happened.
  package var missing: [Happening] { Happening.mustReach.filter { self[$0] == 0 } }
}
