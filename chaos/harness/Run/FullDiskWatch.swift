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
    let lastIndex: UInt64
    /// The term that it leads; nil if it does not.
    let leads: UInt64?

    var word: Word {
      if problems.contains(where: { $0.hasPrefix("stopped taking part: ") }) { return .stopped }
      return problems.contains { $0.hasPrefix("publishes are refused: ") } ? .refuses : .nothing
    }
  }

  /// It is full, and not only near a limit that may not be reached.
  private let mustSay: Bool
  private(set) var word = Word.nothing
  /// What it did that it must not, for people.
  private(set) var breaches: [String] = []
  private var last: Sight?
  /// It was first seen to have taken an entry since its disk is full.
  private var writesSince: Nanoseconds?

  /// So long after it has written something it may say nothing.
  static let sayMax = Nanoseconds.seconds(2)
  /// So long after it has room it may refuse publishes.
  static let returnMax = Nanoseconds.seconds(10)

  init(mustSay: Bool) { self.mustSay = mustSay }

  /// While the disk is full.
  mutating func see(_ sight: Sight) {
    if let last, sight.lastIndex > last.lastIndex { writesSince = writesSince ?? sight.time }
    if word == .stopped, sight.word != .stopped {
      breach("takes part again after it had stopped for want of space, and nobody had started it")
    }
    last = sight
    if sight.word != .nothing { word = sight.word }
    if mustSay, word == .nothing, let writesSince, sight.time > writesSince + Self.sayMax {
      breach(
        "has written for \(DurationText.format(Self.sayMax)) since and did not say that its disk is full"
      )
    }
  }

  /// A publish was answered while the node was seen `before` and `after`.
  mutating func confirmed(before: Sight, after: Sight) {
    guard let term = before.leads, after.leads == term, before.word == .refuses,
      after.word == .refuses
    else { return }
    breach("confirmed a publish although it said that it refuses them")
  }

  /// What waited in a queue since before the disk was full could not be taken out of it.
  mutating func notDrained(_ reason: String) {
    breach("is full and nothing can be consumed any more: \(reason)")
  }

  /// Its files, some time after it had said that it stopped, and before it was started again.
  mutating func filesChanged(_ names: [String]) {
    if !names.isEmpty {
      breach("wrote after it had stopped for want of space: \(names.joined(separator: ", "))")
    }
  }

  /// There has been room for so long, and the node was not started anew.
  mutating func see(_ sight: Sight, roomFor time: Nanoseconds) {
    if sight.word == .refuses, time > Self.returnMax {
      breach(
        "still refuses publishes \(DurationText.format(Self.returnMax)) after there was room again")
    }
  }

  /// Each once.
  private mutating func breach(_ text: String) {
    if !breaches.contains(text) { breaches.append(text) }
  }
}
