// Faults that are planted against who holds a message: a lease that is cut, a place that is lost.

import Base

@testable import History

extension Story {
  /// Where each message was first published.
  private var published: [String: Int] {
    var places: [String: Int] = [:]
    for (place, event) in events.enumerated() where event.f == "publish" && event.type == "invoke" {
      places[event.value!] = places[event.value!] ?? place
    }
    return places
  }

  /// Where something was published and when it was granted, of all that came from its own queue.
  private var grants: [(published: Int, granted: UInt64)] {
    let published = published
    return events.filter { $0.f == "deliver" && $0.queue != "d" }
      .map { (published[$0.value!]!, $0.granted) }
  }

  /// Messages after whose delivery something was published that was granted within their lease.
  var shownWithinLease: [String] {
    let (grants, departures) = (grants, departures)
    return simpleMessages.filter { value in
      let delivered = place(value, "ok", "deliver")
      let event = events[delivered]
      let isGone = departures.contains {
        events[$0.upperBound - 1].value == event.process && $0.lowerBound <= delivered + 2
      }
      return !isGone
        && grants.contains {
          $0.published > delivered && $0.granted < event.granted + GoodHistory.lease
        }
    }
  }

  /// The holder asks for more time as soon as it has the message, and is refused.
  mutating func refuse(_ value: String) {
    let delivered = place(value, "ok", "deliver")
    let event = events[delivered]
    let token = [(key: "token", json: event["token"]!)]
    let error = [(key: "error", json: "\"stale\"")]
    events.insert(
      contentsOf: [
        StoryEvent(event.time, event.process, "invoke", "extend", event.queue, value, token),
        StoryEvent(event.time, event.process, "fail", "extend", event.queue, value, token + error),
      ], at: delivered + 1)
  }

  /// A message is handed back as soon as it came, and comes again behind another, which was published
  /// later and certainly granted afterwards.
  mutating func overtakeReturned(_ random: inout SeededRandom) -> String? {
    let plain = simpleMessages.filter {
      queue(of: $0) != "k" && events[place($0, "ok", "deliver")]["attempt"] == "1"
    }
    let lives = plain.map { value in
      (
        value: value, rank: rank(of: value), published: place(value, "invoke", "publish"),
        confirmed: place(value, "ok", "publish"), delivered: place(value, "ok", "deliver")
      )
    }
    let (grants, departures) = (grants, departures)
    var pairs: [(String, String)] = []
    for one in lives {
      let shown = grants.filter { $0.published > one.delivered }.map(\.granted).min() ?? .max
      for other in lives
      where other.rank == one.rank && other.published > one.confirmed
        && other.delivered > one.delivered
        && events[other.delivered].granted > shown
      {
        let waits = min(one.delivered, other.published)..<other.delivered + 1
        if departures.contains(where: { $0.overlaps(waits) }) { continue }
        pairs.append((one.value, other.value))
      }
    }
    guard let (value, other) = pairs.randomElement(using: &random) else { return nil }
    handBack(value, behind: other)
    return value
  }

  /// Whoever has the same is delivered in the order of publishes.
  private func rank(of value: String) -> [String] {
    let publish = events[place(value, "invoke", "publish")]
    return [publish.queue!, publish["priority"] ?? ""]
  }

  private mutating func handBack(_ value: String, behind other: String) {
    let first = events[place(value, "ok", "deliver")]
    events.removeAll { $0.value == value && $0.f == "ack" }
    let overtaking = events[place(other, "ok", "deliver")]
    var again = first
    again.time = overtaking.time
    again.process = "again"
    again["token"] = "\(first.token! + 100_000)"
    again["granted"] = "\(overtaking.granted + 1)"
    func both(_ event: StoryEvent, _ f: String) -> [StoryEvent] {
      ["invoke", "ok"].map {
        StoryEvent(
          event.time, event.process, $0, f, event.queue, value,
          [(key: "token", json: event["token"]!)])
      }
    }
    events.insert(
      contentsOf: [again] + both(again, "ack"), at: place(other, "ok", "deliver") + 1)
    events.insert(contentsOf: both(first, "release"), at: place(value, "ok", "deliver") + 1)
  }
}
