// `Sources/AMQP/Methods.swift` is what the table says. With SKEIN_GENERATE=1 the test writes it.

import Foundation
import TestSupport
import Testing

@Suite(.ownThreads) struct MethodsFileTests {
  private static let folder =
    String(#filePath.dropLast("/Tests/AMQPTests/MethodsFileTests.swift".count)) + "/Sources/AMQP"

  @Test func theGeneratedFileIsUpToDate() throws {
    let table = MethodTable(
      try String(contentsOfFile: Self.folder + "/Generator/methods.txt", encoding: .utf8))
    let wanted = try Self.formatted(MethodGenerator.swiftSource(table))
    let path = Self.folder + "/Methods.swift"
    if ProcessInfo.processInfo.environment["SKEIN_GENERATE"] != nil {
      try wanted.write(toFile: path, atomically: true, encoding: .utf8)
    }
    let found = try String(contentsOfFile: path, encoding: .utf8)
    #expect(
      found == wanted,
      "run: SKEIN_GENERATE=1 swift test --filter AMQPTests.MethodsFileTests")
  }

  /// As `swift format` would have it, so that the generated file is no exception.
  private static func formatted(_ source: String) throws -> String {
    let file = FileManager.default.temporaryDirectory
      .appendingPathComponent("Methods-\(ProcessInfo.processInfo.processIdentifier).swift")
    try source.write(to: file, atomically: true, encoding: .utf8)
    defer { try? FileManager.default.removeItem(at: file) }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [
      "swift", "format", "--configuration", folder + "/../../.swift-format", file.path,
    ]
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return String(decoding: output, as: UTF8.self)
  }
}
