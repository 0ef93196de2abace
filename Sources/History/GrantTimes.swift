// What is surely older than a lease. A consumer that stood still reads a delivery long after it was
// granted: what came in between, such as a redrive, may have been done to it before it was read.

/// What was asked for before a lease began, by the time on the machine's clock at which it began: publishes
/// of what was delivered by then, and settlements that gave back what was delivered again by then.
struct GrantTimes {
  /// By the time of the grant; each with the latest of these invokes.
  private var grants: [(moment: UInt64, after: EventPosition)]

  init(_ deliveries: [(moment: UInt64, after: EventPosition)]) {
    grants = deliveries.sorted { $0.moment < $1.moment }
    for place in grants.indices.dropFirst() {
      grants[place].after = max(grants[place].after, grants[place - 1].after)
    }
  }

  /// The latest event that certainly came before a lease began at `moment`; the history's first if
  /// nothing says more. Grants of the very same time say nothing, since many events may share one.
  func latestBefore(_ moment: UInt64) -> EventPosition {
    let place = firstPlace(of: grants) { $0.moment >= moment }
    return place == 0 ? 0 : grants[place - 1].after
  }

  /// The earliest time of a grant that certainly came after an event; nil if none is known.
  func firstAfter(_ position: EventPosition) -> UInt64? {
    let place = firstPlace(of: grants) { $0.after > position }
    return place == grants.count ? nil : grants[place].moment
  }
}

extension Checker {
  /// A place in the history at which a delivery had not been granted yet, not before its message was
  /// published: where it was read, if it does not say when it was granted.
  mutating func placeBeforeGrant(of delivery: EventPosition) -> EventPosition {
    let event = history.events[Int(delivery)]
    guard event.action == .deliver, event.moment != Absent.number else { return delivery }
    return min(delivery, max(placeCertainlyBefore(event.moment), life.publishes.first ?? 0))
  }

  /// A place in the history at which nothing had been granted yet at that time or later; its first event if
  /// nothing is known, or no time is given.
  mutating func placeCertainlyBefore(_ moment: UInt64) -> EventPosition {
    if moment == Absent.number { return 0 }
    if grantTimes == nil { grantTimes = gatherGrants() }
    return grantTimes?.latestBefore(moment) ?? 0
  }

  /// A time on the machine's clock that was reached at an event at the latest, as far as is known: something
  /// that was asked for afterwards was granted then. Nil if nothing is.
  mutating func momentAfter(_ position: EventPosition) -> UInt64? {
    if grantTimes == nil { grantTimes = gatherGrants() }
    return grantTimes?.firstAfter(position)
  }

  /// As `placeBeforeGrant`, for one that may have been read late whether or not it says when it was
  /// granted: if not, it is as old as its message.
  mutating func earliestPlace(of delivery: EventPosition, _ facts: MessageFacts) -> EventPosition {
    let isOfAnyAge = history.events[Int(delivery)].moment == Absent.number
    return isOfAnyAge ? min(facts.begin, delivery) : placeBeforeGrant(of: delivery)
  }

  /// Whether a delivery was certainly granted after an event: something that was asked for after it was
  /// granted earlier.
  mutating func isGranted(_ delivery: EventPosition, after place: EventPosition) -> Bool {
    delivery > place && placeCertainlyBefore(history.events[Int(delivery)].moment) > place
  }

  private func gatherGrants() -> GrantTimes {
    var grants: [(moment: UInt64, after: EventPosition)] = []
    for (number, message) in history.messages.enumerated() where message.value != Absent.reference {
      // Of several copies each has its own story. Where it is a dead letter it may have been one before.
      let origins = origins[UInt32(number)]?.count ?? 0
      let isPublished = firstPublish(of: UInt32(number)) != nil
      if origins > (isPublished ? 0 : 1) { continue }
      // What certainly came before the message was granted by a newer token. Of what was asked for again
      // with the same one, the first time may have been it.
      var after: (place: EventPosition, token: UInt64)?
      var back: (place: EventPosition, token: UInt64)?
      if origins == 1 { after = (begin(of: UInt32(number)), 0) }
      var position = message.firstEvent
      while position != Absent.reference {
        let event = history.events[Int(position)]
        switch (event.action, event.type) {
        case (.publish, .invoke): after = after ?? (position, 0)
        case (.nack, .invoke), (.release, .invoke):
          if event.token != back?.token, outcome(position) != .fail {
            back = (position, event.token)
          }
        case (.nack, .ok) where origins == 0, (.release, .ok) where origins == 0:
          let token = history.events[Int(event.partner)].token
          if let back, back.token == token, token >= after?.token ?? 0 { after = back }
        case (.deliver, _) where event.moment != Absent.number:
          if let after, event.token > after.token, position > after.place {
            grants.append((event.moment, after.place))
          }
        default: break
        }
        position = event.next
      }
    }
    return GrantTimes(grants)
  }
}
