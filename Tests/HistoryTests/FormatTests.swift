// What is a history and what is not: refused with line and column, or read all the same.

import Testing

@testable import History

@Suite struct FormatTests {
  static let invoke =
    #"{"index":0,"time":5,"process":"p","type":"invoke","f":"publish","queue":"q","value":"m"}"#

  /// Reads `text` in pieces of `size` bytes.
  private func read(_ text: String, inPiecesOf size: Int = .max) throws -> History {
    var reader = HistoryReader()
    let bytes = Array(text.utf8)
    var place = 0
    while place < bytes.count {
      let end = min(bytes.count, size == .max ? bytes.count : place + size)
      try reader.read(Array(bytes[place..<end]))
      place = end
    }
    return try reader.finish()
  }

  private func event(_ rest: String, index: Int = 1, time: Int = 6) -> String {
    "{\"index\":\(index),\"time\":\(time),\"process\":\"p\",\(rest)}"
  }

  @Test func piecesMayBeCutAnywhere() throws {
    let text =
      Self.invoke + "\n" + event(#""type":"ok","f":"publish","queue":"q","value":"m","id":"1""#)
      + "\n"
    for size in 1...text.utf8.count {
      #expect(try read(text, inPiecesOf: size).eventCount == 2)
    }
  }

  @Test func everyTruncationIsRefusedInItsLine() throws {
    let bytes = Array((Self.invoke + "\n" + Self.invoke).utf8)
    for length in Self.invoke.utf8.count + 2..<bytes.count {
      let error = #expect(throws: HistoryError.self) {
        _ = try History.parse(Array(bytes[..<length]))
      }
      #expect(error?.line == 2)
      #expect(error?.column == length - Self.invoke.utf8.count)
    }
  }

  private static let readable: [(String, Int)] = [
    ("", 0), ("\n\n", 0), (" \t\r\n", 0),
    (invoke, 1), ("\u{feff}" + invoke, 1), ("\r\n" + invoke + "\r\n\r\n", 1),
    ("  " + invoke + "  ", 1),
    // Unknown keys of every kind, nulls, escapes.
    (
      #"{"index":0,"x":[1,{"y":[null,true,false,-1.5e+3,"ü\u00fc\ud83e\udda2"]}],"time":5,"token":null,"#
        + #""process":"p\n","type":"invoke","f":"publish","queue":"q","value":"m\u0041"}"#, 1
    ),
    // Numbers stand for their digits.
    (#"{"index":0,"time":0,"process":1,"type":"invoke","f":"drain","queue":7}"#, 1),
    (#"{"index":0,"time":0,"process":"nemesis","type":"info","f":"cut","value":["n1","n2"]}"#, 1),
  ]

  @Test(arguments: readable)
  func itIsRead(text: String, events: Int) throws {
    #expect(try read(text).eventCount == events)
  }

  @Test func escapesAreTheCharactersTheyStandFor() throws {
    let history = try read(
      Self.invoke + "\n" + event(##""type":"ok","f":"publish","queue":"\u0071","value":"\u006d""##))
    #expect(history.messages.count == 1)
    #expect(history.events[0].partner == 1)
  }

  @Test(arguments: Unreadable.all)
  func itIsRefused(_ bad: Unreadable) throws {
    let error = #expect(throws: HistoryError.self) { _ = try read(bad.text) }
    #expect(error?.line == bad.line)
    #expect(error?.column == bad.column)
    #expect(error?.message.contains(bad.message) == true, "\(error?.message ?? "")")
  }

  @Test func bytesThatAreNoTextAreRefused() {
    for bad: [UInt8] in [
      [0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xe2, 0x82],
    ] {
      let bytes = Array("{\"x\":\"".utf8) + bad + Array("\"}".utf8)
      let error = #expect(throws: HistoryError.self) { _ = try History.parse(bytes) }
      #expect(error?.message == "not UTF-8")
    }
    let nested = Array(("{\"x\":" + String(repeating: "[", count: 100_000)).utf8)
    #expect(throws: HistoryError.self) { _ = try History.parse(nested) }
  }

  @Test func aCompletionBelongsToTheOldestOpenInvoke() throws {
    let history = try History.parse(
      Story(
        """
        0 p invoke publish q m
        0 o invoke publish q m
        0 p invoke publish q m
        1 p info publish q m
        2 p ok publish q m
        """
      ).bytes)
    #expect(history.events.map(\.partner) == [3, Absent.reference, 4, 0, 2])
  }

  /// A history of queues each of which has the next one for its dead letters.
  private func inARow(_ deadLetters: [String]) -> [UInt8] {
    Story(
      zip(deadLetters, deadLetters.dropFirst()).map { queue, deadLetter in
        "0 a invoke declare \(queue) -\n0 a ok declare \(queue) - config.deadLetter=\(deadLetter)"
      }.joined(separator: "\n")
    ).bytes
  }

  @Test func deadLetterQueuesHaveAnEnd() throws {
    let names = (0...17).map { "q\($0)" }
    _ = try History.parse(inARow(Array(names[...16])))
    _ = try History.parse(inARow(["a", "b", "c", "a"]))
    let refused = HistoryError(
      line: 34, column: 1, message: "more than 16 dead-letter queues come behind q0")
    #expect(throws: refused) { _ = try History.parse(inARow(names)) }
  }

  @Test func whoWasKilledMayStillBeAnswered() throws {
    let history = try History.parse(
      Story(
        """
        0 p invoke publish q m
        1 nemesis invoke client-kill - p
        1 nemesis ok client-kill - p
        2 p info publish q m
        3 nemesis invoke client-kill - o
        3 nemesis fail client-kill - o
        4 o invoke publish q n
        """
      ).bytes)
    #expect(history.events[0].partner == 3)
    #expect(Array(history.kills.values) == [1])
  }

  @Test func whoseKillFailedMayActAfterItsSessionEnded() throws {
    let failed = """
      0 nemesis info session-end - p
      1 nemesis invoke client-kill - p
      2 nemesis fail client-kill - p
      3 p invoke publish q m
      """
    _ = try History.parse(Story(failed).bytes)
    #expect(throws: HistoryError.self) {
      _ = try History.parse(Story(failed.replacing("fail", "info")).bytes)
    }
  }

  @Test func aFailedKillTakesNoOtherEndBack() throws {
    let verdict = try Story(
      """
      0 p invoke publish q m
      0 p ok publish q m
      1 c ok deliver q m token=1 lease=100
      2 nemesis invoke client-kill - c
      3 nemesis info session-end - c
      4 nemesis fail client-kill - c
      5 e ok deliver q m token=2 lease=100
      6 e invoke ack q m token=2
      6 e ok ack q m token=2
      7 a invoke drain q -
      8 a ok drain q -
      """
    ).verdict()
    #expect(verdict.validity == .valid)
  }

  @Test(arguments: ["", "0 nemesis info cut - x", "0 a invoke declare q -\n0 a ok declare q -"])
  func withoutMessagesTheVerdictIsUnknown(text: String) throws {
    let verdict = try Story(text).verdict()
    #expect(verdict.validity == .unknown)
    #expect(verdict.exitCode == 3)
  }
}

/// A text that is no history, and where and why it is refused.
struct Unreadable: CustomTestStringConvertible, Sendable {
  let testDescription: String
  let text: String
  let line: Int
  let column: Int
  let message: String

  init(_ name: String, _ text: String, _ line: Int, _ column: Int, _ message: String) {
    testDescription = name
    self.text = text
    self.line = line
    self.column = column
    self.message = message
  }

  private static let invoke = FormatTests.invoke

  static let all: [Unreadable] = [
    Unreadable("no JSON", "hello", 1, 1, "expected a JSON object"),
    Unreadable("an array", "[1]", 1, 1, "expected a JSON object"),
    Unreadable("two objects", "\(invoke)\(invoke)", 1, 89, "more than one object"),
    Unreadable(
      "no such f", #"{"index":1,"time":6,"process":"p","type":"invoke","f":"eat"}"#, 1, 55,
      "unknown f"
    ),
    Unreadable(
      "no such type", #"{"index":1,"time":6,"process":"p","type":"done","f":"ack"}"#, 1, 42,
      "unknown type"
    ),
    Unreadable(
      "no index", #"{"time":6,"process":"p","type":"invoke","f":"drain","queue":"q"}"#, 1, 1,
      "no index"
    ),
    Unreadable(
      "no queue", #"{"index":1,"time":6,"process":"p","type":"invoke","f":"drain"}"#, 1, 1,
      "no queue"
    ),
    Unreadable(
      "no value", #"{"index":1,"time":6,"process":"p","type":"invoke","f":"publish","queue":"q"}"#,
      1, 1,
      "no value"
    ),
    Unreadable(
      "no token",
      #"{"index":1,"time":6,"process":"p","type":"ok","f":"deliver","queue":"q","value":"m"}"#,
      1, 1, "no token"
    ),
    Unreadable(
      "a deliver that begins",
      #"{"index":1,"time":6,"process":"p","type":"invoke","f":"deliver","queue":"q","value":"m","token":1}"#,
      1, 42, "single ok"
    ),
    Unreadable("index stays", "\(invoke)\n\(invoke)", 2, 10, "does not grow"),
    Unreadable(
      "time falls", invoke + "\n" + #"{"index":1,"time":4,"process":"p"}"#, 2, 19, "falls"),
    Unreadable(
      "no invoke",
      "\(invoke)\n"
        + #"{"index":1,"time":6,"process":"o","type":"ok","f":"publish","queue":"q","value":"m"}"#,
      2, 1, "no open invoke"
    ),
    Unreadable(
      "completed twice",
      "\(invoke)\n"
        + #"{"index":1,"time":6,"process":"p","type":"ok","f":"publish","queue":"q","value":"m"}"#
        + "\n"
        + #"{"index":2,"time":6,"process":"p","type":"ok","f":"publish","queue":"q","value":"m"}"#,
      3, 1, "no open invoke"
    ),
    Unreadable(
      "another token",
      #"{"index":0,"time":6,"process":"p","type":"invoke","f":"ack","queue":"q","value":"m","token":1}"#
        + "\n"
        + #"{"index":1,"time":6,"process":"p","type":"ok","f":"ack","queue":"q","value":"m","token":2}"#,
      2, 1, "no open invoke"
    ),
    Unreadable(
      "a name that was killed",
      #"{"index":0,"time":6,"process":"nemesis","type":"info","f":"client-kill","value":"p"}"#
        + "\n" + #"{"index":1,"time":6,"process":"p","type":"invoke","f":"drain","queue":"q"}"#,
      2, 31, "was killed"
    ),
    Unreadable(
      "a message read by who was killed",
      #"{"index":0,"time":6,"process":"nemesis","type":"info","f":"client-kill","value":"p"}"#
        + "\n"
        + #"{"index":1,"time":6,"process":"p","type":"ok","f":"deliver","queue":"q","value":"m","token":1}"#,
      2, 31, "was killed"
    ),
    Unreadable(
      "a timeout that is no number",
      #"{"index":0,"time":6,"process":"nemesis","type":"info","f":"session-end","value":"p","timeout":"x"}"#,
      1, 95, "timeout must be a whole number"),
    Unreadable("a fraction", #"{"index":1,"time":6.5,"process":"p"}"#, 1, 19, "whole number"),
    Unreadable("a negative", #"{"index":-1,"time":6,"process":"p"}"#, 1, 10, "whole number"),
    Unreadable("too large", #"{"index":1,"time":9223372036854775808}"#, 1, 19, "whole number"),
    Unreadable(
      "a queue that is a list", #"{"index":1,"time":6,"process":["p"]}"#, 1, 31, "must be a string"),
    Unreadable("a stray comma", #"{"index":1,}"#, 1, 12, "expected a key"),
    Unreadable("a bad escape", #"{"index":1,"x":"\q"}"#, 1, 18, "unknown escape"),
    Unreadable("a tab in a string", "{\"index\":1,\"x\":\"\t\"}", 1, 17, "control character"),
    Unreadable(
      "half a pair", ##"{"index":1,"time":6,"process":"\ud800"}"##, 1, 34, "surrogate"
    ),
  ]
}
