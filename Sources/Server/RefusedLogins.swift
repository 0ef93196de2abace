// What the node's log says of AMQP clients whose user or password is wrong: RabbitMQ's clients are told
// to look there. Whoever tries passwords by the thousand must not fill it.

import Base

struct RefusedLogins {
  /// So many lines are written in `pause`; who was refused beside is counted in the next one.
  static let linesMax = 10
  static let pause = Nanoseconds.seconds(10)
  /// Of a user's name.
  static let scalarsMax = 64

  private var since = MonotonicTime(0)
  private var lines = 0
  private var untold = 0

  /// A login was refused.
  ///
  /// - Returns: the line for the log; nil if there were too many.
  mutating func line(user: String, address: String, now: MonotonicTime) -> String? {
    if now.since(since) >= Self.pause {
      since = now
      lines = 0
    }
    guard lines < Self.linesMax else {
      untold += 1
      return nil
    }
    lines += 1
    let others = untold == 0 ? "" : "; \(untold) others were refused before"
    untold = 0
    return "AMQP: login of user '\(Self.shown(user))' from \(address) was refused\(others)"
  }

  /// A name as anybody may have sent it, made harmless: short, nothing that is not seen, nothing that
  /// ends the quotes.
  static func shown(_ name: String) -> String {
    var text = ""
    for scalar in name.unicodeScalars.prefix(scalarsMax) {
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse,
        .unassigned:
        text += "?"
      default:
        text += scalar == "'" || scalar == "\\" ? "\\\(scalar)" : "\(scalar)"
      }
    }
    return name.unicodeScalars.count > scalarsMax ? text + "…" : text
  }
}
