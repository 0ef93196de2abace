// The node process, seen from the command line: `skein node` calls `Server.run`.

import Base
import CLinux
import Consensus
import Glibc
import LogStore
import Node
import QueueMachine
import Transport

package enum Server {
  /// The version that nodes report and compare.
  package static let version = "0.1.0"

  /// Runs the node until it is told to stop; returns the exit code of the process.
  ///
  /// What makes a start impossible (a port in use, a foreign data directory) is one line on standard
  /// error that says what to do.
  package static func run(configuration: ServerConfiguration) -> Int32 {
    let log = NodeLog(node: configuration.node)
    Signals.ignoreSIGPIPE()
    skein_keep_freed_memory()
    raiseDescriptorLimit(configuration, log)
    do {
      let signals = try SignalSource([SIGTERM, SIGINT])
      var loop = try NodeLoop.start(configuration, log: log, signals: signals)
      return loop.runToEnd()
    } catch {
      log.error("cannot start: \(error)")
      return 1
    }
  }

  /// The usual limit of 1024 descriptors is below the usual limit of connections.
  private static func raiseDescriptorLimit(_ configuration: ServerConfiguration, _ log: NodeLog) {
    // Those of native clients, those of AMQP's, and the node's own files.
    let needed = rlim_t(configuration.limits.connections * 2 + 1024)
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    guard limit.rlim_cur < needed else { return }
    limit.rlim_cur = min(needed, limit.rlim_max)
    _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    if limit.rlim_cur < needed {
      log.warning(
        "this process may open \(limit.rlim_cur) files, and limits.connections is"
          + " \(configuration.limits.connections), of native and of AMQP clients each")
    }
  }
}

extension NodeLoop {
  /// Opens the data directory, binds the ports and starts the threads.
  static func start(
    _ configuration: ServerConfiguration, log: NodeLog, signals: SignalSource?
  ) throws -> NodeLoop {
    let poller = try Poller()
    if let signals { try poller.add(signals.descriptor, token: signalToken, interest: .read) }
    let mailbox = try Mailbox<LoopMessage>()
    try poller.add(mailbox.descriptor, token: mailboxToken, interest: .read)

    // The ports first: they are what most often goes wrong, and cost nothing to give back.
    let peerListener = try Listener(try address(of: configuration.peerListen))
    let peers = PeerLinks(
      configuration: configuration, listener: peerListener, poller: poller, log: log)
    let gateway = try ClientGateway(
      configuration: configuration, poller: poller, version: Server.version, log: log)
    let amqp = try AMQPGateway(
      configuration: configuration, poller: poller, version: Server.version, log: log)

    let (store, recovery) = try LogStore.open(
      directory: configuration.dataDirectory,
      identity: StoreIdentity(
        cluster: configuration.cluster.description, node: configuration.node),
      options: configuration.storeOptions, fileSystem: LinuxFileSystem())
    for report in recovery.damage { log.warning("damage: \(report)") }
    if recovery.tornBytes > 0 {
      log.info("an unfinished last write of \(recovery.tornBytes) bytes was cut off")
    }
    let now = MonotonicClock.now()
    let machine = try loadMachine(from: store, limits: configuration.machineLimits)
    let replica = Replica(
      configuration: configuration.replicaConfiguration,
      restored: configuration.restored(recovery), machine: machine, now: now)
    var loop = NodeLoop(
      configuration: configuration, log: log, poller: poller, mailbox: mailbox, signals: signals,
      store: store, storageThread: try JobThread(name: "skein-storage"),
      backgroundThread: try JobThread(name: "skein-background", isPatient: true),
      readerThread: try JobThread(name: "skein-reader", isPatient: true),
      resolverThread: try JobThread(name: "skein-resolver"), started: now, replica: replica,
      gateway: gateway, amqp: amqp, peers: peers, records: RecordSource(store: store))
    loop.problems = NodeProblems(recovery.damage, damaged: recovery.damagedEntries)
    try loop.begin(now: now)
    return loop
  }

  private mutating func begin(now: MonotonicTime) throws {
    try peers.listen()
    var members = replica.consensus.membership
    if members.members.isEmpty { members = configuration.initialMembership }
    peers.setMembers(members, now: now)
    log.info(
      "node \(configuration.node) of cluster \(configuration.cluster): clients at"
        + " \(configuration.clientListen), peers at \(configuration.peerListen), log through entry"
        + " \(replica.consensus.lastIndex) in term \(replica.consensus.term)")
    startUpkeep(now: now)
  }

  private static func address(of endpoint: Endpoint) throws -> SocketAddress {
    guard let address = try SocketAddress.resolve(endpoint).first else {
      throw AddressError.unknownHost(endpoint.host)
    }
    return address
  }

  /// Runs until the node ends, and ends its threads.
  mutating func runToEnd() -> Int32 {
    let exitCode = run()
    peers.close()
    storageThread.stop()
    backgroundThread.stop()
    readerThread.stop()
    // A resolver that hangs must not keep the process.
    resolverThread.abandon()
    return exitCode
  }
}

extension ServerConfiguration {
  /// The members that the cluster begins with.
  var initialMembership: Membership {
    Membership(
      members: members.map {
        Membership.Member(
          id: $0.node, peerAddress: $0.peers.description, clientAddress: $0.clients.description)
      })
  }

  /// The machine's limits decide what an entry does, so they are the same on all nodes and for ever:
  /// no configuration has a say. The configured limits are the gateway's, before anything is proposed.
  var machineLimits: MachineLimits { MachineLimits() }

  var storeOptions: StoreOptions {
    var options = StoreOptions()
    options.segmentBytes = UInt64(storage.segmentBytes)
    return options
  }

  var replicaConfiguration: ReplicaConfiguration {
    let consensus = ConsensusConfiguration(
      id: node, seed: UInt64.random(in: .min ... .max), heartbeatInterval: timeouts.heartbeat,
      electionTimeoutMin: timeouts.electionMin, electionTimeoutMax: timeouts.electionMax,
      windowBytesMax: limits.replicationBytes)
    var replica = ReplicaConfiguration(consensus: consensus, cluster: cluster.description)
    replica.cacheBytesMax = limits.entryCacheBytes
    replica.unappliedBytesMax = limits.uncommittedBytes
    replica.snapshotBytes = storage.snapshotBytes
    replica.logBytesForAbsent = 8 * UInt64(storage.snapshotBytes)
    replica.logBytesForFed = 64 * UInt64(storage.snapshotBytes)
    replica.hasStickySessions = amqpListen != nil
    return replica
  }

  /// What the disk held, as consensus and the replica want it.
  func restored(_ recovery: Recovery) -> RestoredReplica {
    let snapshot = recovery.snapshot?.position ?? .zero
    let base = logBase(recovery, snapshot)
    let founded = join ? Membership(members: []) : initialMembership
    let state = RestoredState(
      hardState: recovery.hardState, snapshot: snapshot,
      snapshotMembership: recovery.snapshot?.membership ?? founded, logBase: base,
      termRuns: recovery.termRuns.compactMap { run in
        // The base's own entry is not one of the runs'.
        let first = max(run.first, base.index.next)
        return first <= recovery.last.index ? TermRun(first: first, term: run.term) : nil
      }.droppingOvertaken(),
      last: max(recovery.last.index, snapshot.index),
      memberships: recovery.memberships.filter { $0.index > snapshot.index }.map {
        MembershipEntry(index: $0.index, membership: $0.membership)
      }, canVote: !recovery.isMemoryLost)
    return RestoredReplica(
      consensus: state, damaged: recovery.damagedEntries.map { $0.first...$0.last },
      wallClock: MachineTime(WallClock.now().rawValue))
  }

  /// The position before the first entry that consensus may refer to. With entries older than the
  /// snapshot in the log it is the first of them: the term before that one is not known.
  private func logBase(_ recovery: Recovery, _ snapshot: LogPosition) -> LogPosition {
    let first = recovery.firstIndex
    if first <= LogIndex(1) || first > snapshot.index {
      return first <= LogIndex(1) ? .zero : snapshot
    }
    guard let run = recovery.termRuns.last(where: { $0.first <= first }) else { return snapshot }
    return LogPosition(term: run.term, index: first)
  }
}

extension [TermRun] {
  /// Of several runs that begin at the same index after cutting, the last one holds.
  fileprivate func droppingOvertaken() -> [TermRun] {
    var result: [TermRun] = []
    for run in self {
      if result.last?.first == run.first { result.removeLast() }
      result.append(run)
    }
    return result
  }
}
