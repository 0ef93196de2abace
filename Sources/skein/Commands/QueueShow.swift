// `skein queue show`: one queue, its settings and what went through it.

import Base
import SkeinClient

enum QueueShow {
  static let command = Command(
    path: ["queue", "show"], summary: "show a queue's settings and counts",
    operands: [Operand(name: "NAME", help: "the queue")],
    options: [.json] + Option.connection,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    try await Connection.with(arguments) { client in
      let queue = try await client.showQueue(arguments.operands[0])
      try StandardOutput.write(
        arguments.flag("json") ? queue.json.text + "\n" : queue.page(Terminal.hasColours))
      return .fine
    }
  }
}

extension QueueOverview {
  /// All that is known; the fields are fixed, docs/cli.md explains them.
  var json: JSON {
    [
      "name": .text(name), "ready": .unsigned(ready), "leased": .unsigned(leased),
      "delayed": .unsigned(delayed), "consumers": .integer(exactly: consumers),
      "bytes": .unsigned(bytes), "published": .unsigned(published),
      "delivered": .unsigned(delivered), "acknowledged": .unsigned(acknowledged),
      "redelivered": .unsigned(redelivered), "deadLettered": .unsigned(deadLettered),
      "settings": [
        "leaseSeconds": .number(options.lease.seconds),
        "maxDeliveries": options.maxDeliveries == 0
          ? .null : .integer(exactly: options.maxDeliveries),
        "deadLetter": options.deadLetterQueue.isEmpty ? .null : .text(options.deadLetterQueue),
        "retryDelaySeconds": .number(options.retryDelay.seconds),
        "retryMaxSeconds": options.retryDelayMax == .zero
          ? .null : .number(options.retryDelayMax.seconds),
        "retryJitter": .number(options.retryJitter),
        "priorities": .integer(exactly: options.priorities),
        "keyed": options.keyLimit == 0 ? .null : .integer(exactly: options.keyLimit),
        "expiresSeconds": options.expires == .zero ? .null : .number(options.expires.seconds),
        "singleActive": .bool(options.singleActiveConsumer),
        "ttlSeconds": options.timeToLive == .zero ? .null : .number(options.timeToLive.seconds),
        "maxLength": options.maxLength == 0 ? .null : .unsigned(options.maxLength),
        "maxBytes": options.maxBytes == 0 ? .null : .unsigned(options.maxBytes),
        "overflow": .text(options.overflow == .reject ? "reject" : "drop-oldest"),
      ],
    ]
  }

  fileprivate func page(_ colours: Bool) -> String {
    let none = "–"
    func span(_ span: Duration) -> String {
      span == .zero ? none : DurationText.format(span.rounded)
    }
    let overflow = options.overflow == .reject ? "reject" : "drop-oldest"
    var limits: [String] = []
    if options.maxLength > 0 { limits.append("\(grouped(options.maxLength)) messages") }
    if options.maxBytes > 0 { limits.append(ByteCountText.format(options.maxBytes)) }
    let lines = [
      ("queue", name), ("ready", grouped(ready)), ("leased", grouped(leased)),
      ("delayed", grouped(delayed)), ("consumers", "\(consumers)"),
      ("bytes", ByteCountText.rounded(bytes)), ("published", grouped(published)),
      ("delivered", grouped(delivered)), ("redelivered", grouped(redelivered)),
      ("acknowledged", grouped(acknowledged)), ("dead-lettered", grouped(deadLettered)),
      ("lease", DurationText.format(options.lease.rounded)),
      ("max deliveries", options.maxDeliveries == 0 ? none : "\(options.maxDeliveries)"),
      ("dead-letter", options.deadLetterQueue.isEmpty ? none : options.deadLetterQueue),
      ("retry delay", span(options.retryDelay)), ("retry max", span(options.retryDelayMax)),
      ("retry jitter", "\(options.retryJitter)"), ("ttl", span(options.timeToLive)),
      ("priorities", "\(options.priorities)"),
      ("keyed", options.keyLimit == 0 ? none : "\(options.keyLimit)"),
      ("expires", span(options.expires)),
      ("single active", options.singleActiveConsumer ? "yes" : "no"),
      (
        "limit", limits.isEmpty ? none : limits.joined(separator: ", ") + ", then \(overflow)"
      ),
    ]
    return lines.map { name, value in
      let padding = String(repeating: " ", count: 16 - name.count)
      return Style.faint.apply(name, colours: colours) + padding + value + "\n"
    }.joined()
  }
}
