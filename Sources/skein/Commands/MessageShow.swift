// `skein message show`: all that is known of one message.

import Base
import SkeinClient

enum MessageShow {
  static let command = Command(
    path: ["message", "show"],
    summary: "show where a message stands and what happened to it",
    operands: [
      Operand(name: "QUEUE", help: "the queue that it is in, or was in under this id"),
      Operand(name: "ID", help: "of the message, such as 12-0"),
    ],
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let queue = arguments.operands[0]
    let id = try id(arguments.operands[1], arguments)
    return try await Connection.with(arguments) { client in
      let message = try await client.message(id, in: queue)
      try StandardOutput.write(
        arguments.flag("json")
          ? JSON.object(json(message, message.queue)).text + "\n"
          : page(message, message.queue, Terminal.hasColours))
      return .fine
    }
  }

  static func id(
    _ text: String, _ arguments: Arguments
  ) throws(UsageError) -> MessageIdentifier {
    guard let id = MessageIdentifier(text) else {
      throw arguments.usage("\"\(text)\" is no message id such as 12-0")
    }
    return id
  }

  private static func json(_ message: MessageBiography, _ queue: String) -> [JSON.Member] {
    var members = QueuePeek.json(message.message, queue)
    if let holder = message.holder {
      members.append(
        .init(
          name: "holder",
          value: [
            "consumer": .text(holder.consumer),
            "node": holder.node.map { .integer(exactly: $0) } ?? .null,
            "granted": .number(holder.granted.seconds),
            "leaseEnd": .number(holder.leaseEnd.seconds),
          ]))
    }
    members.append(.init(name: "events", value: .array(message.events.map(json))))
    members.append(
      .init(name: "eventsForgotten", value: .integer(exactly: message.eventsForgotten)))
    return members
  }

  private static func json(_ event: MessageBiography.Event) -> JSON {
    var members: [JSON.Member] = [
      .init(name: "kind", value: .text(event.kind.rawValue)),
      .init(name: "time", value: .number(event.time.seconds)),
      .init(name: "queue", value: .text(event.queue)),
    ]
    if let reason = event.reason {
      members.append(.init(name: "reason", value: .text(reason.rawValue)))
    }
    if let attempt = event.attempt {
      members += [
        .init(name: "attempt", value: .integer(exactly: attempt.number)),
        .init(name: "granted", value: .number(attempt.granted.seconds)),
        .init(name: "consumer", value: .text(attempt.consumer)),
        .init(name: "node", value: .integer(exactly: attempt.node)),
        .init(name: "error", value: .text(attempt.error)),
      ]
    }
    return .object(members)
  }

  private static func page(
    _ message: MessageBiography, _ queue: String, _ colours: Bool
  ) -> String {
    let peeked = message.message
    var lines = [
      ("message", peeked.id.description), ("queue", queue), ("state", peeked.state.rawValue),
      ("failed", "\(peeked.attempts)"),
      ("bytes", "\(peeked.message.body.count)"),
      ("body", QueuePeek.short(peeked.message.body)),
    ]
    if let due = peeked.due {
      let wait = due > message.now ? due - message.now : .zero
      lines.append(("next attempt", "\(clock(due)) (in \(rounded(wait.seconds)) s)"))
    }
    if let expires = peeked.expires { lines.append(("expires", clock(expires))) }
    if let holder = message.holder {
      let node = holder.node.map { "node \($0)" } ?? "not connected"
      lines.append(("held by", "\(holder.consumer) (\(node)), until \(clock(holder.leaseEnd))"))
    }
    if let dead = peeked.deadLetter {
      lines.append(("dead-lettered", "\(dead.reason.rawValue), at \(clock(dead.time))"))
      lines.append(("came from", "\(dead.originQueue), message \(dead.originID)"))
    }
    let head = lines.map { name, value in
      let padding = String(repeating: " ", count: 16 - name.count)
      return Style.faint.apply(name, colours: colours) + padding + value + "\n"
    }.joined()
    if message.events.isEmpty { return head }
    var table = Table(["time", "event", ">attempt", "queue", "consumer", "node", "error"])
    for event in message.events {
      let reason = event.reason.map { ": \($0.rawValue)" } ?? ""
      table.add([
        clock(event.time), event.kind.rawValue + reason,
        event.attempt.map { "\($0.number)" } ?? "", event.queue, event.attempt?.consumer ?? "",
        event.attempt.map { "\($0.node)" } ?? "", event.attempt?.error ?? "",
      ])
    }
    let forgotten =
      message.eventsForgotten == 0
      ? "" : "\(message.eventsForgotten) earlier events are no longer known\n"
    return head + "\n" + table.text(colours: colours) + forgotten
  }

  /// The day and the time in UTC: `2026-11-20 23:36:13.906`.
  static func clock(_ time: Duration) -> String {
    func padded(_ number: Int64, _ width: Int) -> String {
      let digits = "\(number)"
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    let (seconds, attoseconds) = time.components
    let rest = seconds % 86_400
    // Days since 1970 as a date, by Howard Hinnant's civil_from_days.
    let shifted = seconds / 86_400 + 719_468
    let era = shifted / 146_097
    let dayOfEra = shifted % 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let monthFromMarch = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
    let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2)) "
      + "\(padded(rest / 3600, 2)):\(padded(rest / 60 % 60, 2)):\(padded(rest % 60, 2))"
      + ".\(padded(attoseconds / 1_000_000_000_000_000, 3))"
  }
}
