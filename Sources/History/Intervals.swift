// When operations may have taken effect, by places in the history, and many of them at once.

/// When an operation that did not fail may have taken effect, by places in the history.
struct Interval {
  var begin: EventPosition
  /// `Absent.reference`, later than everything, if it never certainly ended.
  var end: EventPosition
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
    let isSorted = zip(intervals, intervals.dropFirst()).allSatisfy { $0.begin <= $1.begin }
    self.intervals = isSorted ? intervals : intervals.sorted { $0.begin < $1.begin }
    for interval in self.intervals {
      latestEnds.append(max(latestEnds.last ?? 0, interval.end))
    }
  }

  /// Whether one of them may have happened after one event and before another.
  func mayHaveHappened(after: EventPosition, before: EventPosition) -> Bool {
    let place = firstPlace(of: intervals) { $0.begin >= before }
    return place > 0 && latestEnds[place - 1] > after
  }
}

/// The first place at which `isReached` holds, which then holds up to the end.
func firstPlace<Element>(of elements: [Element], where isReached: (Element) -> Bool) -> Int {
  var range = 0..<elements.count
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
