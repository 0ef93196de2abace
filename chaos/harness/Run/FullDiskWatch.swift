// What a node whose disk is full was seen doing, and what of it is against the promises (G12, G13): it says so;
// it takes no publishes; once it has stopped it writes nothing; with room again it takes publishes again by
// itself, unless it had stopped, and then only once it is started again. Pure.

import Base

struct FullDiskWatch {
  /// What it has said so far.
  enum Word: Equatable {
    case nothing
    /// It takes no publishes, and all else as far as it can.
    case refuses
    /// It takes no part any more: a write has failed.
    case stopped
  }

  /// One look at the node.
  struct Sight {
    let time: Nanoseconds
    /// As `skein status` has them.
    let problems: [String]
    /// The term that it leads; nil if it does not.
    let leads: UInt64?

    var word: Word {
      if problems.contains(where: { $0.hasPrefix("stopped taking part: ") }) { return .stopped }
      return problems.contains { $0.hasPrefix("publishes are refused: ") } ? .refuses : .nothing
    }
  }

  private(set) var word = Word.nothing
  /// What it did that it must not, for people.
  private(set) var breaches: [String] = []
  /// What it may have been only too slow for, for people: nobody knows whether it would have kept the promise.
  private(set) var unknowns: [String] = []
  private var files: Files?

  /// Its files since it said that it stopped.
  private struct Files {
    let prints: [String: String]
    let since: Nanoseconds
    /// They were seen like this twice: what was under way has ended.
    var isStill = false
  }

  /// So long after it has room it should have taken publishes again.
  static let returnMax = Nanoseconds.seconds(10)
  /// Between the two times that the files of a node that has stopped are seen to be the same.
  static let stillMin = Nanoseconds.seconds(1)

  /// While the disk is full. Who says nothing may have segments to use again, which are room.
  mutating func see(_ sight: Sight) {
    if word == .stopped, sight.word != .stopped {
      breach("takes part again after it had stopped for want of space, and nobody had started it")
    }
    if sight.word != .nothing { word = sight.word }
  }

  /// A publish was confirmed while the node was seen `before` and `after`.
  /// - Parameter took: it has said between them that it takes publishes again.
  mutating func confirmed(before: Sight, after: Sight, took: Bool) {
    if !took, Self.refused(before, after) {
      breach("confirmed a publish although it said that it refuses them")
    }
  }

  /// What waited in a queue since before the disk was full was taken out of it, or not, while the node was seen
  /// `before` and `after`. Through another leader, or between two changes, it shows nothing of this node.
  mutating func drained(_ attempt: RoomProbe.Attempt, before: Sight, after: Sight, took: Bool) {
    if took || !Self.refused(before, after) { return }
    switch attempt {
    case .done: return
    case .refused(let reason): breach("is full and nothing can be consumed any more: \(reason)")
    case .unknown(let reason):
      isNotKnown("is full, and what waited in a queue was not taken out: \(reason)")
    }
  }

  /// It led one term all the while, and refused publishes before and after.
  private static func refused(_ before: Sight, _ after: Sight) -> Bool {
    guard let term = before.leads else { return false }
    return after.leads == term && before.word == .refuses && after.word == .refuses
  }

  /// Its files. Once it has stopped and they have stood still, they must for as long as it is not started again.
  mutating func see(files prints: [String: String], at time: Nanoseconds) {
    guard word == .stopped else { return }
    guard let old = files else { return files = Files(prints: prints, since: time) }
    let names = DiskFaults.changes(old.prints, prints)
    if names.isEmpty {
      if time >= old.since + Self.stillMin { files?.isStill = true }
    } else if old.isStill {
      breach("wrote after it had stopped for want of space: \(names.joined(separator: ", "))")
    } else {
      files = Files(prints: prints, since: time)
    }
  }

  /// There has been room for `returnMax`, the node was not started anew, and was last seen like this.
  mutating func isLate(_ sight: Sight?) {
    let time = DurationText.format(Self.returnMax)
    isNotKnown(
      sight == nil
        ? "does not answer \(time) after there was room again"
        : "still refuses publishes \(time) after there was room again")
  }

  /// Each once.
  private mutating func breach(_ text: String) {
    if !breaches.contains(text) { breaches.append(text) }
  }
  private mutating func isNotKnown(_ text: String) {
    if !unknowns.contains(text) { unknowns.append(text) }
  }
}
