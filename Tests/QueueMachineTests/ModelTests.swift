// Random commands: the machine against the naive model, through snapshots, with and without effects.

import Base
import Foundation
import TestSupport
import Testing

@testable import QueueMachine

/// The machine, another that gathers no effects, and the model, side by side.
struct Comparison: ~Copyable {
  var model = Model(limits: Script.limits)
  var machine = QueueMachine(limits: Script.limits)
  var silent = QueueMachine(limits: Script.limits)
  var script = Script()
  var index = LogIndex(0)
  var stamp: UInt64 = 1_000
  var effects = EffectList()
  var nothing = EffectList(isWanted: false)

  /// Carries out one step; what differed, or nil.
  mutating func run(_ step: Step) -> String? {
    index = index.next
    stamp += step.advance
    script.payload = []
    CommandWriter.beginBatch(stamp: MachineTime(stamp), into: &script.payload)
    var script = script
    let expected = model.apply(
      stamp: stamp,
      step.commands.map { command in { script.carryOut(command, &$0) } })
    self.script = script
    effects.removeAll()
    let checked = script.payload.withUnsafeBytes { payload in
      let checked = try? CommandBatch.check(payload)
      machine.apply(index: index, payload: payload, effects: &effects)
      silent.apply(index: index, payload: payload, effects: &nothing)
      return checked
    }
    if checked != step.commands.count { return "check counts \(String(describing: checked))" }
    machine.checkInvariants()
    let seen = Seen.all(effects)
    if seen != expected { return difference(seen, expected) }
    return stateDifference()
  }

  private func difference(_ seen: [Seen], _ expected: [Seen]) -> String {
    let place = zip(seen, expected).enumerated().first { $1.0 != $1.1 }?.offset
    let at = place ?? min(seen.count, expected.count)
    func text(_ list: [Seen]) -> String { at < list.count ? "\(list[at])" : "nothing more" }
    return "effect \(at): machine \(text(seen)), model \(text(expected))"
  }

  private func stateDifference() -> String? {
    if machine.summaries() != model.summaries() {
      return "summaries: machine \(machine.summaries()), model \(model.summaries())"
    }
    for queue in model.queues {
      let known = model.peek(queue.id)
      if machine.peek(queue.id, limit: .max) != known.map(\.message) {
        return "peek \(queue.name)"
      }
      for message in known
      where machine.biography(of: message.message.id, in: queue.id) != message {
        let seen = machine.biography(of: message.message.id, in: queue.id)
        return "biography: machine \(String(describing: seen)), model \(message)"
      }
      if machine.dropped(from: queue.id) != queue.dropped { return "dropped" }
    }
    for producer in (0..<5).map({ ProducerID(UInt64($0)) }) {
      let last = model.producers[producer]?.last ?? 0
      for sequence in (last > 6 ? last - 6 : 0)...(last + 1)
      where machine.outcome(of: PublishSequence(sequence), by: producer)
        != model.outcome(sequence, producer)
      {
        return "outcome of \(sequence) by \(producer)"
      }
    }
    for session in model.sessions {
      if machine.origin(of: session.id) != session.origin { return "origin" }
      if machine.held(by: session.id) != session.consumers.reduce(0, { $0 + $1.held.count }) {
        return "held"
      }
    }
    if machine.sessionCount != model.sessions.count { return "sessions" }
    if let due = model.nextDeadline, machine.nextDeadline.rawValue > due { return "deadline late" }
    if !nothing.isEmpty { return "effects though unwanted" }
    if machine.stateHash != silent.stateHash { return "hash without effects" }
    return nil
  }

  /// Goes on with a machine read from the snapshot of this one.
  mutating func throughSnapshot() -> String? {
    let bytes = machine.freeze().encoded()
    guard let copy = try? QueueMachine(snapshot: bytes, limits: Script.limits) else {
      return "snapshot unreadable"
    }
    if copy.freeze().encoded() != bytes { return "snapshot of the restored machine differs" }
    if silent.freeze().encoded() != bytes { return "snapshot without effects differs" }
    machine = copy
    machine.checkInvariants()
    return nil
  }

  /// Runs steps from the beginning; the first failure with its step's number.
  static func failure(_ steps: [Step]) -> (step: Int, what: String)? {
    var comparison = Comparison()
    for (number, step) in steps.enumerated() {
      if let what = comparison.run(step) { return (number, what) }
      if number % 25 == 24, let what = comparison.throughSnapshot() { return (number, what) }
    }
    return comparison.throughSnapshot().map { (steps.count - 1, $0) }
  }

  /// Fewer steps and commands that fail too.
  static func shrunk(_ steps: [Step]) -> [Step] {
    var steps = steps
    if let failure = failure(steps) { steps = Array(steps[...failure.step]) }
    var size = max(1, steps.count / 2)
    while size >= 1 {
      var start = 0
      while start < steps.count {
        var fewer = steps
        fewer.removeSubrange(start..<min(start + size, steps.count))
        if failure(fewer) != nil { steps = fewer } else { start += size }
      }
      size /= 2
    }
    for number in steps.indices {
      var place = 0
      while place < steps[number].commands.count {
        var fewer = steps
        fewer[number].commands.remove(at: place)
        if failure(fewer) != nil { steps = fewer } else { place += 1 }
      }
    }
    return steps
  }
}

@Suite(.ownThreads) struct ModelTests {
  /// Set to repeat one seed, or to try many.
  static let seeds: [UInt64] = {
    let environment = ProcessInfo.processInfo.environment
    if let seed = environment["SKEIN_SEED"].flatMap(UInt64.init) { return [seed] }
    let count = environment["SKEIN_SEEDS"].flatMap(UInt64.init) ?? 12
    return Array(1...count)
  }()

  static let stepCount =
    ProcessInfo.processInfo.environment["SKEIN_STEPS"].flatMap(Int.init) ?? 150

  @Test(arguments: seeds) func machineAgreesWithModel(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let steps = Step.script(&random, count: Self.stepCount)
    guard Comparison.failure(steps) != nil else { return }
    let fewest = Comparison.shrunk(steps)
    let failure = Comparison.failure(fewest)
    let script = fewest.map { "+\($0.advance): \($0.commands)" }.joined(separator: "\n")
    Issue.record(
      """
      seed \(seed): \(failure?.what ?? "no failure once shrunk")
      \(script)
      repeat: SKEIN_SEED=\(seed) SKEIN_STEPS=\(Self.stepCount) swift test --filter ModelTests
      """)
  }

  /// The random commands reach what they are there for: agreement on nothing would prove nothing.
  @Test func randomCommandsReachEveryRule() {
    var reached: [String: Int] = [:]
    for seed in UInt64(1)...20 {
      var random = SeededRandom(seed: seed)
      var comparison = Comparison()
      for step in Step.script(&random, count: 150) {
        _ = comparison.run(step)
        for effect in comparison.effects.effects { reached[Self.kind(of: effect), default: 0] += 1 }
      }
      for queue in comparison.model.queues {
        reached["dead-lettered", default: 0] += Int(queue.deadLettered)
        reached["dropped", default: 0] += Int(queue.dropped)
        for message in comparison.model.peek(queue.id) {
          reached["\(message.message.state)", default: 0] += 1
          for event in message.events {
            let name = event.reason.map { "\($0)" } ?? "\(event.kind)"
            reached["event \(name)", default: 0] += 1
          }
        }
        reached["redelivered", default: 0] += Int(queue.redelivered)
        reached["acknowledged", default: 0] += Int(queue.acknowledged)
      }
    }
    let expected: Set<String> = [
      "sessionOpened", "sessionOpenRefused tooManySessions",
      "sessionOpenRefused producerFenced", "sessionOpenRefused producerForgotten",
      "reply consumerExclusive", "refused messageTooLarge", "sessionAttached",
      "sessionAttachRefused sessionNotFound", "holding", "sessionEnded closed",
      "sessionEnded expired", "producerFenced", "confirmed", "deliver", "settled", "lapsed",
      "consumerCancelled", "refused sessionNotFound", "refused producerFenced",
      "refused sequenceGap", "refused tooManyUnanswered", "refused queueNotFound",
      "refused answerForgotten",
      "confirmed several", "refused malformedRequest", "refused staleDelivery",
      "refused consumerNotFound", "refused deliveryNotFound", "settleRefused staleDelivery",
      "settleRefused deliveryNotFound",
      "settleRefused consumerNotFound", "settleRefused sequenceGap",
      "settleRefused malformedRequest", "settleRefused tooManyUnanswered",
      "settleRefused sessionNotFound", "reply declared true",
      "reply declared false", "reply deleted", "reply purged", "reply subscribed",
      "reply creditSet", "reply unsubscribed", "reply queueDiffers", "reply tooManyQueues",
      "reply queueInUse", "reply deadLetterCycle", "reply deadLetterQueueNotFound",
      "reply queueNotFound", "reply consumerDiffers", "reply consumerNotFound",
      "reply tooManyConsumers", "reply tooMuchCredit",
      "reply settingInvalid", "reply sessionNotFound", "dead-lettered",
      "dropped", "redelivered", "acknowledged", "refused queueFull", "reply cancelled",
      "reply rescheduled", "reply redriven", "reply redriven on", "reply redriven skipped",
      "reply messageNotFound", "reply messageLeased", "reply messageGone",
      "reply messageElsewhere", "reply messageDelayed", "ready", "delayed", "leased",
      "event failed", "event leaseRanOut", "event consumerGone", "event rejected",
      "event redriven", "event deliveriesExhausted", "event expired", "event overflowed",
    ]
    let missed = expected.filter { reached[$0, default: 0] == 0 }
    #expect(missed.isEmpty, "never reached: \(missed.sorted()); reached: \(reached)")
  }

  private static func kind(of effect: Effect) -> String {
    switch effect {
    case .sessionOpened: "sessionOpened"
    case .sessionOpenRefused(_, let refusal): "sessionOpenRefused \(refusal)"
    case .sessionAttached: "sessionAttached"
    case .sessionAttachRefused(_, _, let refusal): "sessionAttachRefused \(refusal)"
    case .holding: "holding"
    case .sessionEnded(_, let how): "sessionEnded \(how)"
    case .producerFenced: "producerFenced"
    case .reply(_, _, .queueDeclared(_, let isNew)): "reply declared \(isNew)"
    case .reply(_, _, .queueDeleted): "reply deleted"
    case .reply(_, _, .queuePurged): "reply purged"
    case .reply(_, _, .messageCancelled): "reply cancelled"
    case .reply(_, _, .messageRescheduled): "reply rescheduled"
    case .reply(_, _, .queueRedriven(0, skipped: 1..., _, _)): "reply redriven skipped"
    case .reply(_, _, .queueRedriven(_, _, nil, _)): "reply redriven"
    case .reply(_, _, .queueRedriven): "reply redriven on"
    case .reply(_, _, .subscribed): "reply subscribed"
    case .reply(_, _, .creditSet): "reply creditSet"
    case .reply(_, _, .unsubscribed): "reply unsubscribed"
    case .reply(_, _, .refused(let refusal, _)): "reply \(refusal)"
    case .confirmed(_, _, _, _, let copies):
      copies == 1 ? "confirmed" : "confirmed several"
    case .refused(_, _, _, let refusal): "refused \(refusal)"
    case .deliver: "deliver"
    case .settled: "settled"
    case .settleRefused(_, _, _, _, let refusal): "settleRefused \(refusal)"
    case .lapsed: "lapsed"
    case .consumerCancelled: "consumerCancelled"
    case .reply(_, _, .topology), .topology: "topology"
    }
  }
}
