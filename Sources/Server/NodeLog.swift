// The node's log: one event a line on standard error, for people and for `skein cluster logs`.

import Base
import Glibc
import Transport

/// Writes lines such as `2026-11-20T22:00:00.123Z node 2 info: leads term 7`.
struct NodeLog: Sendable {
  enum Level: String, Sendable {
    case info
    case warning
    case error
  }

  let node: NodeID
  /// For tests, whose output has its own story.
  var isQuiet = false

  func info(_ text: String) { write(.info, text) }
  func warning(_ text: String) { write(.warning, text) }
  func error(_ text: String) { write(.error, text) }

  private func write(_ level: Level, _ text: String) {
    if isQuiet { return }
    let oneLine = text.replacing("\n", with: " ")
    var line = "\(Self.timestamp(WallClock.now())) node \(node) \(level.rawValue): \(oneLine)\n"
    line.withUTF8 { bytes in
      // SAFETY: write(2) only reads the bytes. A log that cannot be written is no reason to stop.
      _ = Glibc.write(2, bytes.baseAddress, bytes.count)
    }
  }

  /// RFC 3339 with milliseconds, UTC.
  static func timestamp(_ sinceEpoch: Nanoseconds) -> String {
    var seconds = time_t(sinceEpoch.rawValue / 1_000_000_000)
    let milliseconds = sinceEpoch.rawValue / 1_000_000 % 1000
    var parts = tm()
    gmtime_r(&seconds, &parts)
    func padded(_ value: some BinaryInteger, _ width: Int) -> String {
      let digits = String(value)
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    let date =
      "\(parts.tm_year + 1900)-\(padded(parts.tm_mon + 1, 2))-\(padded(parts.tm_mday, 2))"
    let time =
      "\(padded(parts.tm_hour, 2)):\(padded(parts.tm_min, 2)):\(padded(parts.tm_sec, 2))"
    return "\(date)T\(time).\(padded(milliseconds, 3))Z"
  }
}
