// `skein check`: what a recorded history proves, by the rules of docs/history-format.md.

import Glibc
import History

enum Check {
  static let command = Command(
    path: ["check"], summary: "judge a recorded history",
    operands: [Operand(name: "HISTORY", help: "a file of JSON Lines, - for standard input")],
    options: [
      Option("edn", "FILE", "write the history for Jepsen's total-queue too (- for here)"),
      Option("strict", nil, "a redelivery after a change of leader is a violation"),
      Option("no-strict", nil, "such a redelivery is only counted (this is the default)"),
      .json,
    ],
    details: """
      Exit codes: 0 valid, 2 violated, 3 unknown (not drained, or empty), 1 not a history.
      """,
    run: .blocking(run))

  static func run(_ arguments: Arguments) throws -> ExitCode {
    let isStrict = arguments.flag("strict")
    if isStrict, arguments.flag("no-strict") {
      throw arguments.usage("--strict and --no-strict exclude each other")
    }
    let edn = arguments.text("edn")
    if edn == "-", arguments.flag("json") {
      throw arguments.usage("--edn - and --json cannot both write to standard output")
    }
    var checker = Checker(try read(arguments.operands[0]), isStrict: isStrict)
    let verdict = checker.judge()
    if let edn { try export(&checker, to: edn) }
    if edn != "-" {
      try StandardOutput.write(
        arguments.flag("json")
          ? verdict.json + "\n" : VerdictText.text(verdict, colours: Terminal.hasColours))
    }
    switch verdict.validity {
    case .valid: return .fine
    case .violated: return .violated
    case .unknown: return .unknown
    }
  }

  // MARK: Files

  private static func read(_ path: String) throws -> History {
    let file = path == "-" ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { throw Failure.system(path) }
    defer { if file != STDIN_FILENO { close(file) } }
    var reader = HistoryReader()
    var status = stat()
    if fstat(file, &status) == 0, status.st_size > 0 { reader.reserve(bytes: Int(status.st_size)) }
    let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
    defer { piece.deallocate() }
    do {
      while true {
        // SAFETY: read(2) writes at most so many bytes as the buffer has.
        let count = Glibc.read(file, piece.baseAddress, piece.count)
        if count == 0 { return try reader.finish() }
        if count < 0, errno == EINTR { continue }
        if count < 0 { throw Failure.system(path) }
        try reader.read(UnsafeRawBufferPointer(rebasing: piece[..<count]))
      }
    } catch let error as HistoryError {
      throw Failure("\(path):\(error.line):\(error.column): \(error.message)")
    }
  }

  private static func export(_ checker: inout Checker, to path: String) throws {
    if path == "-" {
      try checker.exportEDN { (bytes) throws in try StandardOutput.write(bytes) }
      return
    }
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard file >= 0 else { throw Failure.system(path) }
    defer { close(file) }
    try checker.exportEDN { (bytes) throws in try write(bytes, to: file, path) }
  }

  private static func write(_ bytes: [UInt8], to file: Int32, _ path: String) throws {
    var offset = 0
    while offset < bytes.count {
      // SAFETY: write(2) only reads the bytes from the offset on.
      let count = bytes.withUnsafeBytes { bytes in
        Glibc.write(
          file, UnsafeRawBufferPointer(rebasing: bytes[offset...]).baseAddress,
          bytes.count - offset)
      }
      if count < 0, errno != EINTR { throw Failure.system(path) }
      offset += max(0, count)
    }
  }
}
