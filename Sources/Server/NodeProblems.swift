// What is wrong with this node, in sentences for `skein status`.

import Base
import LogStore
import Node

struct NodeProblems {
  /// Set once the node takes no part any more.
  var halted: String?
  /// What recovery found in records up to the snapshot and has not been put right yet.
  var damage: [String] = []
  /// What recovery cut off the log and has not come again yet.
  private var cutLog: [String] = []
  /// What recovery found that made this node forget what it promised, until it has caught up.
  private var lostMemory: [String] = []
  /// What recovery could not build upon, until all of it has come again.
  private var everythingLost: [String] = []

  init() {}

  /// - Parameter damaged: what is to be repaired. Damage that was repaired in an earlier life of the node is
  ///   found again where it lies, and is nothing that anybody must wait for.
  init(_ reports: [DamageReport], damaged: [EntryRange]) {
    for report in reports {
      switch report.consequence {
      case .nothingLost: continue
      case .recordsLost(let range):
        guard damaged.contains(where: { $0.first <= range.last && range.first <= $0.last }) else {
          continue
        }
        damage.append("\(report)")
      case .logCutFrom: cutLog.append("\(report)")
      case .everythingLost: everythingLost.append("\(report)")
      case .hardStateLost: lostMemory.append("\(report)")
      }
    }
  }

  /// What recovery found lost and is not there again.
  var lost: [String] { everythingLost + lostMemory + cutLog }

  /// The log again holds all that this node ever acknowledged.
  mutating func logIsMended() {
    cutLog.removeAll()
    everythingLost.removeAll()
  }

  /// The node has caught up with all that it may have promised, and votes again.
  ///
  /// - Parameter isLogWhole: nothing of the log is missing that it is known to have had.
  mutating func memoryIsRestored(isLogWhole: Bool) {
    lostMemory.removeAll()
    if isLogWhole { everythingLost.removeAll() }
  }

  func texts(_ replica: borrowing Replica, noSpace: String?) -> [String] {
    var texts: [String] = []
    if let noSpace { texts.append("publishes are refused: \(noSpace)") }
    if let halted { texts.append("stopped taking part: \(halted)") }
    if replica.isForming { texts.append("waiting to hear from every other member") }
    if replica.isMemoryLost, !replica.isForming {
      texts.append("takes part without a vote until its log has caught up")
    }
    if replica.recordsToRepair > 0 {
      texts.append("repairing \(replica.recordsToRepair) damaged records")
    }
    texts.append(contentsOf: damage)
    texts.append(contentsOf: lost)
    return texts
  }
}
