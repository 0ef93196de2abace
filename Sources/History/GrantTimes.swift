// What is surely older than a lease. A consumer that stood still reads a delivery long after it was
// granted: what came in between, such as a redrive, may have been done to it before it was read.

/// Publishes that were asked for before a lease began, by the time on the machine's clock at which it
/// began.
struct GrantTimes {
  /// By the time of the grant; each with the latest invoke of a publish that was delivered by then.
  private var grants: [(moment: UInt64, publish: EventPosition)]

  init(_ deliveries: [(moment: UInt64, publish: EventPosition)]) {
    grants = deliveries.sorted { $0.moment < $1.moment }
    for place in grants.indices.dropFirst() {
      grants[place].publish = max(grants[place].publish, grants[place - 1].publish)
    }
  }

  /// The latest event that certainly came before a lease began at `moment`; the history's first if
  /// nothing says more.
  func latestBefore(_ moment: UInt64) -> EventPosition {
    var range = 0..<grants.count
    while !range.isEmpty {
      let middle = range.lowerBound + range.count / 2
      if grants[middle].moment <= moment {
        range = middle + 1..<range.upperBound
      } else {
        range = range.lowerBound..<middle
      }
    }
    return range.lowerBound == 0 ? 0 : grants[range.lowerBound - 1].publish
  }
}

extension Checker {
  /// A place in the history at which a delivery had not been granted yet: where it was read, if it
  /// does not say when it was granted.
  mutating func placeBeforeGrant(of delivery: EventPosition) -> EventPosition {
    let event = history.events[Int(delivery)]
    guard event.action == .deliver, event.moment != Absent.number else { return delivery }
    if grantTimes == nil { grantTimes = gatherGrants() }
    return min(delivery, grantTimes?.latestBefore(event.moment) ?? delivery)
  }

  private func gatherGrants() -> GrantTimes {
    var grants: [(moment: UInt64, publish: EventPosition)] = []
    for event in history.events where event.action == .deliver && event.moment != Absent.number {
      guard let publish = firstPublish(of: event.message) else { continue }
      grants.append((event.moment, publish))
    }
    return GrantTimes(grants)
  }
}
