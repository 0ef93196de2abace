// A message of the workload: its value, by which the history knows it, and filling behind.

import Base
import SkeinClient

enum WorkloadMessage {
  private static let separator = UInt8(ascii: "|")

  static func body(_ value: String, bytes: Int) -> [UInt8] {
    var body = Array(value.utf8)
    body.append(separator)
    while body.count < bytes { body.append(UInt8(ascii: "a") + UInt8(body.count % 26)) }
    return body
  }

  /// The value that the delivery's body names. A body that is not the one published under that value
  /// gets one that was never published, which the checker finds `unexpected` (G11).
  static func value(of delivery: Delivery, bytes: Int) -> String {
    delivery.withBody { value(of: $0, bytes: bytes) }
  }

  static func value(of content: UnsafeRawBufferPointer, bytes: Int) -> String {
    let value = String(decoding: content.prefix { $0 != separator }, as: UTF8.self)
    return content.elementsEqual(body(value, bytes: bytes)) ? value : "\(value) (damaged)"
  }

  /// Decides what becomes of a delivery. (Not by its attempt: one that is handed back untried has
  /// the same again.)
  static func draw(_ value: String, delivery token: UInt64, seed: UInt64) -> SeededRandom {
    // FNV-1a.
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in value.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    return SeededRandom(seed: hash ^ seed ^ (token &* 0x9e37_79b9_7f4a_7c15))
  }
}

extension Duration {
  init(_ span: Nanoseconds) {
    self = .nanoseconds(Int64(clamping: span.rawValue))
  }

  var nanoseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds * 1_000_000_000 + attoseconds / 1_000_000_000
  }
}
