// When operations may have taken effect, by places in the history, and many of them at once.

/// When an operation that did not fail may have taken effect, by places in the history.
struct Interval {
  var begin: EventPosition
  /// `Absent.reference`, later than everything, if it never certainly ended.
  var end: EventPosition

  var hasEnded: Bool { end != Absent.reference }
}

/// Intervals that are asked again and again whether one of them lies between two places: of a queue
/// that is redriven all the time there are as many as there are questions.
struct Intervals {
  /// By begin.
  private var intervals: [Interval] = []
  /// For each, the latest end of those up to it.
  private var latestEnds: [EventPosition] = []

  var isEmpty: Bool { intervals.isEmpty }

  init(_ intervals: [Interval] = []) {
    for interval in intervals.inOrder { append(interval) }
  }

  /// - Parameter interval: it begins after all those that are there.
  mutating func append(_ interval: Interval) {
    intervals.append(interval)
    latestEnds.append(max(latestEnds.last ?? 0, interval.end))
  }

  mutating func removeAll() {
    intervals.removeAll(keepingCapacity: true)
    latestEnds.removeAll(keepingCapacity: true)
  }

  /// Whether one of them may have happened after one event and before another.
  func mayHaveHappened(after: EventPosition, before: EventPosition) -> Bool {
    let place = firstPlace(of: intervals) { $0.begin >= before }
    return place > 0 && latestEnds[place - 1] > after
  }
}

/// Intervals of which the one that was over first is looked for.
struct EarliestEnds {
  private var begins: [EventPosition] = []
  /// For each, the earliest end of it and those that begin after it.
  private var ends: [EventPosition] = []

  init(_ intervals: [Interval] = []) {
    let sorted = intervals.inOrder
    begins = sorted.map(\.begin)
    ends = sorted.map(\.end)
    for place in ends.indices.dropLast().reversed() {
      ends[place] = min(ends[place], ends[place + 1])
    }
  }

  /// The earliest end of those that began after an event.
  func first(begunAfter position: EventPosition) -> EventPosition? {
    let place = firstPlace(of: begins) { $0 > position }
    return place < ends.count ? ends[place] : nil
  }
}

/// Redrives of one queue or of one message.
struct Redrives {
  /// Those of unknown outcome may happen at any time after they began, but each only once.
  private(set) var all = Intervals()
  private var confirmed = Intervals()
  private var unknown: [EventPosition] = []

  var isEmpty: Bool { all.isEmpty }

  init(_ redrives: [Interval] = []) {
    for redrive in redrives.inOrder {
      all.append(redrive)
      if redrive.hasEnded { confirmed.append(redrive) } else { unknown.append(redrive.begin) }
    }
  }

  func mayHaveHappened(after: EventPosition, before: EventPosition) -> Bool {
    all.mayHaveHappened(after: after, before: before)
  }

  func isConfirmed(after: EventPosition, before: EventPosition) -> Bool {
    confirmed.mayHaveHappened(after: after, before: before)
  }

  /// How many of unknown outcome began before an event.
  func unknownCount(before position: EventPosition) -> Int {
    firstPlace(of: unknown) { $0 >= position }
  }
}

extension [Interval] {
  /// By begin.
  fileprivate var inOrder: [Interval] {
    let isSorted = zip(self, dropFirst()).allSatisfy { $0.begin <= $1.begin }
    return isSorted ? self : sorted { $0.begin < $1.begin }
  }
}

/// The first place at which `isReached` holds, which then holds up to the end.
func firstPlace<Elements: RandomAccessCollection>(
  of elements: Elements, where isReached: (Elements.Element) -> Bool
) -> Int where Elements.Index == Int {
  var range = elements.startIndex..<elements.endIndex
  while !range.isEmpty {
    let middle = range.lowerBound + range.count / 2
    if isReached(elements[middle]) {
      range = range.lowerBound..<middle
    } else {
      range = middle + 1..<range.upperBound
    }
  }
  return range.lowerBound
}
