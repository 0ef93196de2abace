// Harm that nobody has noticed yet. When all is drained, a copy of each disk is opened as the next process
// of its node would open it, and all of the log is read: it must be what was committed. Where a disk that
// may be harmed is not whole, the node is started again, which is how harm is found in production; then the
// rest of the cluster must have made it whole (G11).

import Base
import Consensus
import LogStore

struct DiskInspection {
  /// Nodes that were started again for what was found.
  private(set) var restarted: Set<Int> = []
  /// Harm was done at last, at rest.
  private var hasHarmed = false
  /// Nodes whose state file was harmed then. It alone says that the last batch was synced, in one copy: who
  /// loses both cannot know.
  private var withoutMarker: Set<Int> = []

  /// Looks at the disks of all members.
  ///
  /// - Returns: false if not all was written yet, or a node has to start again first.
  mutating func look(_ simulation: Simulation) -> Bool {
    guard let leader = simulation.leader else { return false }
    let nodes = leader.replica.consensus.membership.members.map {
      simulation.nodes[simulation.place($0.id)]
    }
    let isWritten = nodes.allSatisfy { node in
      node.life.map { $0.storage.isIdle && $0.background.isIdle } ?? false
    }
    guard isWritten else { return false }
    var isWhole = true
    for node in nodes {
      simulation.note(.disksInspected)
      guard let fault = Self.fault(on: node, simulation) else { continue }
      isWhole = false
      judge(fault, on: node, simulation)
    }
    guard isWhole, !hasHarmed, simulation.plan.faults.contains(where: { $0.kind == .damage })
    else { return isWhole }
    hasHarmed = true
    return !harm(simulation)
  }

  /// What is harmed in the course of a run is mostly found there: so in the end all disks that may be harmed
  /// are, once more. False if there are none.
  private mutating func harm(_ simulation: Simulation) -> Bool {
    restarted = []
    for place in simulation.victims {
      let damage = DiskDamage(simulation, simulation.nodes[place])
      for _ in 0..<2 where damage.strike()?.hasSuffix("/state") == true {
        withoutMarker.insert(place)
      }
      damage.strikeEnd()
    }
    return !simulation.victims.isEmpty
  }

  /// What is wrong with a disk.
  struct Fault {
    var text: String
    /// The node's next process knows, and will not vote or serve as if all were well.
    var isNoticed = true
  }

  mutating func judge(_ fault: Fault, on node: SimulatedNode, _ simulation: Simulation) {
    guard node.isVictim else {
      return simulation.violated("G11", "nobody harmed the disk of \(node): \(fault.text)")
    }
    guard fault.isNoticed || withoutMarker.contains(node.place) else {
      return simulation.violated(
        "G11", "\(node) would not notice the harm on its disk: \(fault.text)")
    }
    guard restarted.insert(node.place).inserted else {
      return simulation.violated(
        "G11", "the disk of \(node) is not whole after it was started again: \(fault.text)")
    }
    simulation.note(.latentDamage)
    simulation.trace { "harm on the disk of \(node) that nobody noticed: \(fault.text)" }
    simulation.crash(node, power: false)
    simulation.restart(node, after: .milliseconds(10))
  }

  /// What the node's next process would find missing or wrong; nil if nothing is.
  static func fault(on node: SimulatedNode, _ simulation: Simulation) -> Fault? {
    do throws(LogStoreError) {
      let (store, recovery) = try LogStore.open(
        directory: "/data",
        identity: StoreIdentity(cluster: "sim", node: simulation.id(node.place)),
        options: simulation.plan.storeOptions, fileSystem: node.disk.copied())
      for report in recovery.damage {
        switch report.consequence {
        // Of entries that the snapshot covers only messages that wait count, and none does any more.
        case .nothingLost, .recordsLost: continue
        case .logCutFrom, .everythingLost, .hardStateLost: return Fault(text: report.description)
        }
      }
      return faultOfSnapshot(store) ?? faultOfLog(store, recovery, simulation)
    } catch {
      return Fault(text: "it cannot be opened: \(error)")
    }
  }

  private static func faultOfSnapshot(_ store: LogStore) -> Fault? {
    do {
      _ = try loadMachine(from: store)
      return nil
    } catch {
      return Fault(text: "the snapshot cannot be read: \(error)")
    }
  }

  /// All entries are read, and all are the committed ones.
  private static func faultOfLog(
    _ store: LogStore, _ recovery: Recovery, _ simulation: Simulation
  ) -> Fault? {
    let commit = simulation.checks.commit
    if recovery.last.index < commit {
      return Fault(
        text: "its log ends with entry \(recovery.last), and \(commit) is committed",
        isNoticed: false)
    }
    var index = recovery.firstIndex
    while index <= commit {
      do throws(LogReadError) {
        let entries = try store.entries(from: index, through: commit, maxBytes: 1 << 16)
        for entry in entries {
          if let fault = simulation.checks.fault(ofCommitted: entry) {
            return Fault(text: fault, isNoticed: false)
          }
        }
        index = index.advanced(by: entries.count)
      } catch {
        return Fault(text: "entry \(index) cannot be read: \(error)")
      }
    }
    return nil
  }
}

extension ClusterChecks {
  /// What is wrong with an entry that is to be the committed one.
  func fault(ofCommitted entry: Entry) -> String? {
    let position = entry.header.position
    if committedTerm(position.index) != position.term {
      return "entry \(position) is not the one that was committed"
    }
    return isKnown(entry) ? nil : "entry \(position) has other bytes than were committed"
  }
}
