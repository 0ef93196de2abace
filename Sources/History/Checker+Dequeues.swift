// Which events stand for enqueues and dequeues in the EDN export.

extension Checker {
  /// Marks the publish that is the enqueue, unless the message may rightly be gone unseen.
  mutating func markEnqueue(_ facts: MessageFacts, _ ending: Ending) {
    if case .excused = ending, !life.isSettled, !isDoneAtAll(facts) { return }
    guard let first = life.publishes.first else { return }
    history.events[Int(first)].marks.insert(.enqueue)
    if let confirm = life.firstConfirm { history.events[Int(confirm)].marks.insert(.enqueue) }
  }

  /// Marks the deliveries that were settled. A dead letter that was only found counts as one.
  mutating func markDequeues(_ facts: MessageFacts) {
    guard let first = life.deliveries.first else { return }
    let isListed =
      life.publishes.isEmpty && !queues[Int(facts.queue)].hasSettlements
      && queues[Int(facts.queue)].drain != nil
    if isListed { history.events[Int(first)].marks.insert(.dequeue) }
    var marked = isListed || !life.isSettled
    // Many deliveries of one token, and much that is asked for with it, are not to be multiplied.
    var last: (token: UInt64, isSettled: Bool)?
    for position in life.tokens.all {
      let token = token(of: position)
      let isSettled =
        last.flatMap { $0.token == token ? $0.isSettled : nil }
        ?? life.settlements(of: token).contains(where: \.isFinal)
      last = (token, isSettled)
      if isSettled {
        history.events[Int(position)].marks.insert(.dequeue)
        marked = true
      }
    }
    if !marked { history.events[Int(first)].marks.insert(.dequeue) }
  }
}
