// Lines out of pieces, and commands that are fed a message.

import Glibc
import Testing

@testable import skein

@Suite struct LineTests {
  static func lines(_ pieces: [String]) -> [String] {
    var splitter = LineSplitter()
    var lines: [String] = []
    for piece in pieces {
      splitter.split(Array(piece.utf8)) { lines.append(String(decoding: $0, as: UTF8.self)) }
    }
    if let last = splitter.finish() { lines.append(String(decoding: last, as: UTF8.self)) }
    return lines
  }

  @Test(
    arguments: [
      ([], []), (["a\n"], ["a"]), (["a"], ["a"]), (["a\nb"], ["a", "b"]), (["\n\n"], ["", ""]),
      (["a", "b\nc", "\n"], ["ab", "c"]), (["a\r\n"], ["a\r"]), (["", "\n", ""], [""]),
    ] as [([String], [String])])
  func piecesAreCutAtLineFeeds(pieces: [String], lines: [String]) {
    #expect(Self.lines(pieces) == lines)
  }

  /// Wherever the pieces end, the lines are the same.
  @Test func whereThePiecesEndDoesNotMatter() {
    let text = "one\n\nthree, longer\nfour"
    let whole = Self.lines([text])
    #expect(whole == ["one", "", "three, longer", "four"])
    for first in 0...text.count {
      for second in first...text.count {
        let pieces = [
          text.prefix(first), text.prefix(second).dropFirst(first), text.dropFirst(second),
        ]
        #expect(Self.lines(pieces.map(String.init)) == whole)
      }
    }
  }
}

@Suite struct CommandRunnerTests {
  /// As the program does at its start: a command that does not read its input is no reason to end.
  init() { signal(SIGPIPE, SIG_IGN) }

  static func run(_ command: String, _ body: String = "") async throws -> CommandOutcome {
    try await CommandRunner.run(command, body: Array(body.utf8), environment: ["SKEIN_ATTEMPT=3"])
  }

  @Test func theBodyIsTheInput() async throws {
    #expect(try await Self.run("test \"$(cat)\" = hello", "hello").code == 0)
  }

  @Test func whatACommandWritesIsKeptUpToALimit() async throws {
    func run(_ command: String, _ limit: Int) async throws -> CommandOutcome {
      try await CommandRunner.run(
        command, body: Array("in".utf8), environment: [], outputMax: limit)
    }
    let whole = try await run("cat; echo out; echo no >&2; exit 3", 100)
    #expect(String(decoding: whole.output, as: UTF8.self) == "inout\n")
    #expect(whole.code == 3 && whole.lastError == "no" && !whole.isOutputCut)
    let cut = try await run("head -c 300000 /dev/zero", 70_000)
    #expect(cut.output.count == 70_000 && cut.isOutputCut && cut.code == 0)
    #expect(try await run("exec >&-; true", 10).output.isEmpty)
  }

  /// It ends while something it started holds its pipes open, at about the time of a look at them:
  /// what it wrote last was lost now and then.
  @Test func theLastWordsOfACommandAreNotLost() async throws {
    for delay in 0..<8 {
      let command = "sleep 0.6 & sleep 0.01\(delay); echo last; echo error >&2"
      let outcome = try await CommandRunner.run(
        command, body: [], environment: [], outputMax: 100)
      #expect(String(decoding: outcome.output, as: UTF8.self) == "last\n")
      #expect(outcome.lastError == "error")
    }
  }

  @Test func theExitCodeAndTheLastLineOfErrorsAreKept() async throws {
    let outcome = try await Self.run("echo first >&2; echo; echo last >&2; echo >&2; exit 7")
    #expect(outcome.code == 7)
    #expect(outcome.lastError == "last")
  }

  @Test func variablesAreSet() async throws {
    #expect(try await Self.run("test \"$SKEIN_ATTEMPT\" = 3 && test -n \"$PATH\"").code == 0)
  }

  @Test func aSignalIsAFailure() async throws {
    #expect(try await Self.run("kill -9 $$").code == 137)
  }

  @Test func aCommandNeedNotReadItsInput() async throws {
    let body = String(repeating: "x", count: 1 << 20)
    #expect(try await Self.run("exit 0", body).code == 0)
    #expect(try await Self.run("head -c 10 >/dev/null", body).code == 0)
  }

  @Test func aLargeBodyGoesThroughWhole() async throws {
    let body = String(repeating: "x", count: 1 << 20)
    #expect(try await Self.run("test \"$(wc -c | tr -d ' ')\" = 1048576", body).code == 0)
  }

  /// What the command left running keeps the pipe open: that must not hold up the next message.
  @Test func whatACommandLeavesBehindIsNotWaitedFor() async throws {
    let outcome = try await Self.run("sleep 1000 >&2 & echo $! >&2; exit 4")
    #expect(outcome.code == 4)
    let left = try #require(pid_t(outcome.lastError))
    #expect(kill(left, SIGKILL) == 0)
  }

  @Test func commandsRunSideBySide() async throws {
    try await withThrowingTaskGroup(of: Int32.self) { group in
      for code in 0..<8 { group.addTask { try await Self.run("cat; exit \(code)").code } }
      var codes: Set<Int32> = []
      for try await code in group { codes.insert(code) }
      #expect(codes == Set(0..<8))
    }
  }
}
