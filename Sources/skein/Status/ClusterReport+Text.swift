// `skein status` for people.

import Base
import SkeinClient

/// How fast a queue moves, between two looks at it.
struct QueueRates: Sendable {
  let published: Double
  let delivered: Double
  let acknowledged: Double

  /// Per second; nil if a counter went back, as after the queue was deleted and declared anew.
  init?(from earlier: QueueOverview, to later: QueueOverview, seconds: Double) {
    guard seconds > 0, later.published >= earlier.published,
      later.delivered >= earlier.delivered, later.acknowledged >= earlier.acknowledged
    else { return nil }
    published = Double(later.published - earlier.published) / seconds
    delivered = Double(later.delivered - earlier.delivered) / seconds
    acknowledged = Double(later.acknowledged - earlier.acknowledged) / seconds
  }
}

extension ClusterReport {
  /// The whole page. `rates` by queue name, empty for a single look.
  func text(rates: [String: QueueRates] = [:], colours: Bool) -> String {
    var text = headline(colours: colours) + "\n" + nodeTable(colours: colours)
    let problems = problems
    if !problems.isEmpty {
      text += "\n"
      for problem in problems {
        text += Style.warning.apply("! \(problem)", colours: colours) + "\n"
      }
    }
    if let line = amqpLine { text += "\n" + line }
    if let queues {
      text += "\n"
      text +=
        queues.isEmpty ? "no queues\n" : ClusterReport.queueTable(queues, rates, colours: colours)
    }
    return text
  }

  /// Where AMQP clients go, and what they have made; nil where no node takes any.
  var amqpLine: String? {
    let listening = nodes.compactMap(\.status).filter { $0.amqpPort != nil }
    guard let first = listening.first else { return nil }
    let ports = listening.map { "\($0.amqpPort ?? 0)" }.joined(separator: ", ")
    let connections = listening.reduce(0) { $0 + $1.amqpConnections }
    return "AMQP at port \(ports): \(connections) connections, \(first.exchanges) exchanges,"
      + " \(first.bindings) bindings\n"
  }

  private func headline(colours: Bool) -> String {
    guard let margin else { return Style.bad.apply("no node answers", colours: colours) + "\n" }
    let who = leader.map { "leader is node \($0), term \(term)" } ?? "no leader, term \(term)"
    let style: Style = margin < 0 || leader == nil ? .bad : margin == 0 ? .warning : .good
    return "\(who); \(style.apply(words(margin), colours: colours))\n"
  }

  /// "may lose 1 more node".
  private func words(_ margin: Int) -> String {
    switch margin {
    case ..<0: "no quorum"
    case 0: "may lose no more node"
    case 1: "may lose 1 more node"
    default: "may lose \(margin) more nodes"
    }
  }

  private func nodeTable(colours: Bool) -> String {
    var table = Table([
      "node", "role", "clients", ">term", ">commit", ">applied", ">lag", ">disk", ">memory", ">up",
    ])
    for node in nodes {
      let id = node.id.map { "\($0)" } ?? "?"
      guard let status = node.status else {
        let dashes = Array(repeating: Table.Cell(text: "–", style: .faint), count: 7)
        table.add(
          [Table.Cell(text: id), Table.Cell(text: "down", style: .bad), .init(text: node.address)]
            + dashes)
        continue
      }
      let style: Style =
        switch status.role {
        case .leader: .strong
        case .stopped: .bad
        default: .plain
        }
      table.add([
        .init(text: id), .init(text: status.role.rawValue, style: style), .init(text: node.address),
        .init(text: "\(status.term)"), .init(text: grouped(status.commitIndex)),
        .init(text: grouped(status.appliedIndex)),
        .init(text: lag(of: node.id).map(grouped) ?? "–"),
        .init(text: ByteCountText.rounded(status.diskBytes)),
        .init(text: ByteCountText.rounded(status.memoryBytes)),
        .init(text: roundedAge(status.uptime)),
      ])
    }
    return table.text(colours: colours)
  }

  static func queueTable(
    _ queues: [QueueOverview], _ rates: [String: QueueRates], colours: Bool
  ) -> String {
    // `dead`: moved to the dead-letter queue since the queue was declared.
    var titles = ["queue", ">ready", ">leased", ">delayed", ">dead", ">consumers", ">bytes"]
    if !rates.isEmpty { titles += [">in/s", ">out/s", ">acked/s"] }
    var table = Table(titles)
    for queue in queues {
      var row = [
        queue.name, grouped(queue.ready), grouped(queue.leased), grouped(queue.delayed),
        grouped(queue.deadLettered), "\(queue.consumers)", ByteCountText.rounded(queue.bytes),
      ]
      if !rates.isEmpty {
        let own = rates[queue.name]
        row += [own?.published, own?.delivered, own?.acknowledged].map { rate in
          rate.map { grouped(UInt64($0.rounded())) } ?? "–"
        }
      }
      table.add(row)
    }
    return table.text(colours: colours)
  }
}

/// `12,345,678`.
func grouped(_ value: UInt64) -> String {
  var text = ""
  for (position, digit) in "\(value)".reversed().enumerated() {
    if position > 0, position % 3 == 0 { text.append(",") }
    text.append(digit)
  }
  return String(text.reversed())
}

/// The largest unit only: `3h`, `12s`.
func roundedAge(_ span: Duration) -> String {
  let seconds = span.components.seconds
  switch seconds {
  case 86_400...: return "\(seconds / 86_400)d"
  case 3600...: return "\(seconds / 3600)h"
  case 60...: return "\(seconds / 60)m"
  default: return "\(seconds)s"
  }
}
