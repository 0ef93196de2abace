// When `skein publish` gives up, and how headers are written.

import SkeinClient
import Testing

@testable import skein

@Suite struct PublishRunTests {
  @Test func sendingOnDoesNotPutTheEndOff() {
    let start = ContinuousClock.now
    var watch = AnswerWatch(limit: .seconds(2))
    #expect(watch.due == nil)
    for second in 0..<10 { watch.noteSent(at: start + .seconds(second)) }
    #expect(watch.due == start + .seconds(2))
    watch.noteAnswered(4, at: start + .seconds(11))
    #expect(watch.due == start + .seconds(13))
    watch.noteAnswered(6, at: start + .seconds(12))
    #expect(watch.due == nil)
    // An answer overtakes the note of its sending.
    watch.noteAnswered(1, at: start + .seconds(13))
    watch.noteSent(at: start + .seconds(14))
    #expect(watch.due == nil)
    watch.noteSent(at: start + .seconds(15))
    #expect(watch.due == start + .seconds(17))
  }

  @Test func headersOfOneNameAreAnArray() {
    let message = Message(
      body: [],
      headers: [MessageHeader("a", "1"), MessageHeader("b", "2"), MessageHeader("a", [0xff])])
    #expect(
      JSON.object(MessageText.contents(message)).text
        == #"{"headers":{"a":["1",{"base64":"/w=="}],"b":"2"},"body":""}"#)
  }

  /// Told before anything is connected to.
  @Test(
    arguments: [
      (["q", "--also", "a,,b"], "--also names no queue"),
      (["q", "--also", "a,q"], "--also names a queue twice"),
      (["q", "--also", "a,a"], "--also names a queue twice"),
      (
        ["q", "x", "--also", "a", "--window", "5"],
        "--window does not go together with --also or --atomic"
      ),
      (
        ["q", "x", "--atomic", "--window", "5"],
        "--window does not go together with --also or --atomic"
      ),
      (["q", "x", "--atomic", "--rate", "5"], "--atomic and --rate do not go together"),
      (["q", "--lines", "--atomic", "--resume", "f"], "--atomic and --resume do not go together"),
    ] as [([String], String)])
  func stepsThatContradictThemselvesAreRefused(words: [String], message: String) async throws {
    let arguments = try Arguments(Publish.command, words)
    await #expect(throws: UsageError(message, command: "publish")) {
      try await Publish.run(arguments)
    }
  }

  private func groups(of text: String, behind known: UInt64) async throws -> [[String]] {
    let path = "/tmp/skein-lines-\(UInt64.random(in: 0 ... .max))"
    try Files.write(text, to: path)
    defer { try? Files.remove(path) }
    let source = PublishSource(
      bodies: [], input: try InputReader(file: path), byLines: true, known: known)
    var groups: [[String]] = []
    try await source.forEachGroup { group in
      groups.append(group.map { String(decoding: $0, as: UTF8.self) })
    }
    return groups
  }

  @Test func linesThatARunBeforeHasPublishedArePassedOver() async throws {
    #expect(try await groups(of: "a\nb\nc", behind: 0) == [["a", "b"], ["c"]])
    #expect(try await groups(of: "a\nb\nc", behind: 1) == [["b"], ["c"]])
    #expect(try await groups(of: "a\nb\nc\n", behind: 3) == [])
    await #expect(throws: Failure.self) { _ = try await groups(of: "a\nb", behind: 3) }
  }
}
