// Names that the broker makes up, and how texts show bytes.

import Base

/// Makes names that no other connection makes: `amq.gen-` and `amq.ctag-` with 128 random bits.
struct NameMaker {
  private var random: SeededRandom

  init(seed: UInt64) {
    random = SeededRandom(seed: seed)
  }

  mutating func queueName() -> String { "amq.gen-" + suffix() }
  mutating func consumerTag() -> String { "amq.ctag-" + suffix() }

  private static let digits = Array(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")

  /// 22 digits of 6 bits.
  private mutating func suffix() -> String {
    var text = ""
    for _ in 0..<2 {
      var bits = random.next()
      for _ in 0..<11 {
        text.append(Self.digits[Int(bits & 63)])
        bits >>= 6
      }
    }
    return text
  }
}

extension String {
  /// Bytes as RabbitMQ's texts show them: `<<"text">>` if all can be printed, else `<<1,2,3>>`.
  init(shown bytes: some Collection<UInt8>) {
    if !bytes.isEmpty, bytes.allSatisfy({ (32...126).contains($0) }) {
      self = "<<\"\(String(decoding: bytes, as: UTF8.self))\">>"
    } else {
      self = "<<\(bytes.map { "\($0)" }.joined(separator: ","))>>"
    }
  }

  /// So much of it as can show in a reply text, which is cut to 255 bytes.
  init(cut bytes: UnsafeRawBufferPointer) {
    self.init(shown: bytes.prefix(255))
  }

  /// As the reply text of a close: at most 255 bytes.
  var replyText: [UInt8] {
    let bytes = [UInt8](utf8)
    if bytes.count <= 255 { return bytes }
    // Ends between characters, so that a client that decodes it does not stumble.
    var end = 252
    while end > 0, bytes[end] & 0xc0 == 0x80 { end -= 1 }
    return bytes[..<end] + [UInt8]("...".utf8)
  }
}

extension UnsafeRawBufferPointer {
  /// A name of a queue, an exchange or a vhost, without line breaks, as RabbitMQ takes names.
  func resourceName() throws(Failure) -> String {
    guard let text = String(validating: self, as: UTF8.self) else {
      throw .fault(Fault(.preconditionFailed, "a name that is not UTF-8: \(String(shown: self))"))
    }
    if !contains(where: { $0 == 10 || $0 == 13 }) { return text }
    return String(text.unicodeScalars.filter { $0 != "\n" && $0 != "\r" })
  }
}
