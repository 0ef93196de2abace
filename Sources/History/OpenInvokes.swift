// Which invoke a completion belongs to: the oldest open one of the same process, f, queue, value and token.
// The open ones of a message are chained; those of a message that has many are found by what they are.

/// The open invokes of one message, by all that a completion names of them.
struct OpenInvokes {
  private struct Key: Hashable {
    var process: UInt32
    var action: HistoryAction
    var token: UInt64

    init(_ event: Event) { (process, action, token) = (event.process, event.action, event.token) }
  }

  /// Of each, the oldest and the newest, chained by `Event.partner`.
  private var chains: [Key: (first: EventPosition, last: EventPosition)] = [:]

  mutating func open(_ position: EventPosition, in events: inout [Event], _ event: Event) {
    let key = Key(event)
    guard let chain = chains[key] else {
      chains[key] = (position, position)
      return
    }
    events[Int(chain.last)].partner = position
    chains[key] = (chain.first, position)
  }

  mutating func close(_ event: Event, in events: [Event]) -> EventPosition? {
    let key = Key(event)
    guard let chain = chains[key] else { return nil }
    chains[key] = chain.first == chain.last ? nil : (events[Int(chain.first)].partner, chain.last)
    return chain.first
  }
}

extension HistoryReader {
  /// A longer chain is not walked again and again.
  private static let openChainMax = 32

  mutating func open(_ position: EventPosition, _ event: Event) {
    let message = Int(event.message)
    if !crowded.isEmpty, crowded[event.message] != nil {
      crowded[event.message]?.open(position, in: &history.events, event)
      return
    }
    if history.messages[message].firstOpen == Absent.reference {
      history.messages[message].firstOpen = position
    } else {
      history.events[Int(history.messages[message].lastOpen)].partner = position
    }
    history.messages[message].lastOpen = position
  }

  /// Takes the oldest open invoke that `event` completes out of its message's chain.
  mutating func close(_ event: Event) -> EventPosition? {
    if !crowded.isEmpty, crowded[event.message] != nil {
      return crowded[event.message]?.close(event, in: history.events)
    }
    let message = Int(event.message)
    var before = Absent.reference
    var candidate = history.messages[message].firstOpen
    var walked = 0
    while candidate != Absent.reference {
      let invoke = history.events[Int(candidate)]
      if invoke.process == event.process, invoke.action == event.action,
        invoke.token == event.token
      {
        if before == Absent.reference {
          history.messages[message].firstOpen = invoke.partner
        } else {
          history.events[Int(before)].partner = invoke.partner
        }
        if history.messages[message].lastOpen == candidate {
          history.messages[message].lastOpen = before
        }
        return candidate
      }
      before = candidate
      candidate = invoke.partner
      walked += 1
      if walked == Self.openChainMax {
        crowd(event.message)
        return close(event)
      }
    }
    return nil
  }

  /// Moves a message's open invokes to where the next are found at once.
  private mutating func crowd(_ message: UInt32) {
    var open = OpenInvokes()
    var position = history.messages[Int(message)].firstOpen
    while position != Absent.reference {
      let invoke = history.events[Int(position)]
      open.open(position, in: &history.events, invoke)
      position = invoke.partner
    }
    crowded[message] = open
  }
}
