// Who left: a consumer that died, or whose session ended. What it held goes to others then, and what it
// had not read goes as if nobody had had it.

/// When a process can have left. A kill is recorded as it is done. Whoever lost its session may find out
/// much later; but it had it when what was last carried out for it was asked for, and when what it read was
/// published and granted. Where the cluster ends sessions only after some time without a sign of life, it
/// had it for that long after these.
struct Departure {
  var process: UInt32
  var when: Interval
  /// Whether it is a session's end of which it is not known how long the cluster must have waited.
  var isOfUnknownTimeout = false
}

struct Departures {
  private var ofProcess: [UInt32: Departure] = [:]
  private var ofQueue: [UInt32: QueueDepartures] = [:]
  /// Of those that never read, published or settled anything: they may have consumed any queue.
  private var ofUnheard = QueueDepartures()

  init() {}

  /// - Parameter queues: those from which a process read; nil if it may have consumed any.
  init(_ departures: [Departure], queues: [UInt32: Set<UInt32>]) {
    for departure in departures.sorted(by: { $0.when.begin < $1.when.begin }) {
      ofProcess[departure.process] = departure
      guard let queues = queues[departure.process] else {
        ofUnheard.append(departure)
        continue
      }
      for queue in queues { ofQueue[queue, default: QueueDepartures()].append(departure) }
    }
  }

  /// When a process left, if it may have left before an event.
  func departure(of process: UInt32, before position: EventPosition) -> Departure? {
    ofProcess[process].flatMap { $0.when.begin < position ? $0 : nil }
  }

  /// Whether anybody who may have consumed the queue may have left before an event.
  func mayHaveHappened(in queue: UInt32, before position: EventPosition) -> Bool {
    [ofQueue[queue], ofUnheard].contains { $0?.first.map { $0 < position } ?? false }
  }

  /// Whether anybody else who may have consumed the queue may have left between two events.
  func mayHaveHappened(
    in queue: UInt32, after: EventPosition, before: EventPosition, butOf process: UInt32? = nil
  ) -> Bool {
    [ofQueue[queue], ofUnheard].contains {
      $0?.mayHaveHappened(after: after, before: before, butOf: process) ?? false
    }
  }
}

/// Of those that read from one queue.
private struct QueueDepartures {
  /// By begin.
  private var all: [Departure] = []
  /// For each, of those up to it, the one with the latest end, and the latest end of the others.
  private var latest: [Departure] = []
  private var secondEnds: [EventPosition?] = []

  /// When the first of them can have left at the earliest.
  var first: EventPosition? { all.first?.when.begin }

  /// - Parameter departure: it begins no earlier than all those that are there.
  mutating func append(_ departure: Departure) {
    all.append(departure)
    guard let last = latest.last, let second = secondEnds.last else {
      latest.append(departure)
      secondEnds.append(nil)
      return
    }
    let isLatest = departure.when.end > last.when.end
    latest.append(isLatest ? departure : last)
    secondEnds.append(max(second ?? 0, isLatest ? last.when.end : departure.when.end))
  }

  func mayHaveHappened(
    after: EventPosition, before: EventPosition, butOf process: UInt32?
  ) -> Bool {
    let place = firstPlace(of: all) { $0.when.begin >= before }
    if place == 0 { return false }
    let last = latest[place - 1]
    let end = last.process == process ? secondEnds[place - 1] : last.when.end
    return end.map { $0 >= after } ?? false
  }
}

extension Checker {
  func mayHaveLeft(_ process: UInt32, before position: EventPosition) -> Bool {
    departures.departure(of: process, before: position) != nil
  }

  /// Whether the end of a holder's session may be why a message came to another between two reads. One
  /// that is recorded later may have gone unnoticed; but a new leader keeps the sessions, so that across a
  /// change of leader, where their timeout is not known, nobody can tell that from one that it ended
  /// against its promise.
  func explains(
    _ departure: Departure, from read: EventPosition, to next: EventPosition
  ) -> Bool {
    !departure.isOfUnknownTimeout || departure.when.end < next
      || leaderChange(between: read, next) == nil
  }

  mutating func gatherDepartures() -> Departures {
    let gone = Set(history.kills.keys).union(history.sessionEnds.keys)
    if gone.isEmpty { return Departures() }
    var leavers = Leavers(gone, count: history.processes.count)
    for position in history.events.indices {
      let event = history.events[position]
      guard leavers.areLeaving[Int(event.process)], event.action != .nemesis else { continue }
      let queue = history.messages[Int(event.message)].queue
      if event.action == .deliver {
        leavers.hear(of: event.process, readingFrom: queue)
      } else if event.action == .publish || event.action.isSettlement {
        leavers.hear(of: event.process, readingFrom: nil)
      }
      guard event.type == .ok else { continue }
      var place = event.partner
      if event.action == .deliver {
        place = max(placeCertainlyBefore(event.moment), begin(of: event.message))
      }
      leavers.note(place, at: EventPosition(position), of: event.process)
    }
    let departures = gone.compactMap {
      departure(of: $0, lastSign: leavers.signsOfLife[$0] ?? 0)
    }
    return Departures(departures, queues: leavers.queues)
  }

  /// The first that is recorded of it; but a session that its client gave up may have lasted until it was
  /// killed.
  private func departure(of process: UInt32, lastSign: EventPosition) -> Departure? {
    let kill = history.kills[process].map {
      Departure(process: process, when: Interval(begin: $0, end: $0))
    }
    guard let end = history.sessionEnds[process], end < kill?.when.begin ?? .max else {
      return kill
    }
    let departure = sessionEnd(of: process, end, lastSign: lastSign)
    if let kill, kill.when.begin < departure.when.begin { return kill }
    return departure
  }

  private func sessionEnd(
    of process: UInt32, _ death: EventPosition, lastSign: EventPosition
  ) -> Departure {
    let event = history.events[Int(death)]
    guard event.span != Absent.number else {
      let when = Interval(begin: min(lastSign, death), end: death)
      return Departure(process: process, when: when, isOfUnknownTimeout: true)
    }
    // Between what was recorded just before that and what was recorded next; also if its client gave it up
    // earlier.
    let earliest = sum(time(lastSign), event.span)
    let next = firstPlace(of: history.events) { $0.time >= earliest }
    let begin = EventPosition(max(1, next) - 1)
    return Departure(process: process, when: Interval(begin: begin, end: max(begin, death)))
  }

  /// Where a message was first published, to whatever queue.
  func begin(of message: UInt32) -> EventPosition {
    let begin = min(firstPublishes[Int(message)], origins[message]?.begin ?? Absent.reference)
    return begin == Absent.reference ? 0 : begin
  }
}

/// What those that left did before.
private struct Leavers {
  /// By process.
  var areLeaving: [Bool]
  /// The last place at which each certainly had its session.
  var signsOfLife: [UInt32: EventPosition] = [:]
  /// The queues from which it read, once it read, published or settled anything.
  private(set) var queues: [UInt32: Set<UInt32>] = [:]

  init(_ processes: Set<UInt32>, count: Int) {
    areLeaving = [Bool](repeating: false, count: count)
    for process in processes { areLeaving[Int(process)] = true }
  }

  mutating func hear(of process: UInt32, readingFrom queue: UInt32?) {
    if let queue {
      queues[process, default: []].insert(queue)
    } else if queues[process] == nil {
      queues[process] = []
    }
  }

  mutating func note(_ place: EventPosition, at position: EventPosition, of process: UInt32) {
    signsOfLife[process] = max(signsOfLife[process] ?? 0, min(place, position))
  }
}
