import Base
import Foundation
import Testing
import Wire

@testable import SkeinClient

@Suite(.timeLimit(.minutes(1))) struct DocumentationTests {
  private let root = String(
    #filePath.dropLast("/Tests/SkeinClientTests/DocumentationTests.swift".count))

  private func text(_ path: String) throws -> String {
    try String(contentsOfFile: "\(root)/\(path)", encoding: .utf8)
  }

  @Test func `The page's example is the one that is compiled`() throws {
    let source = try text("Tests/SkeinClientTests/GettingStarted.swift")
    let page = try text("Sources/SkeinClient/SkeinClient.docc/GettingStarted.md")
    let compiled = try #require(source.firstMatch(of: /\/\/ begin\n((?:.|\n)*)\/\/ end/)).1
    let shown = try #require(page.firstMatch(of: /```swift\n((?:.|\n)*?)```/)).1
    #expect(compiled == shown)
  }

  @Test func `The example runs`() async throws {
    let node = try FakeNode()
    let running = Task { try await greet(endpoints: [node.address]) }
    node.change { $0.manual = [.declareQueue] }
    node.send(.queueReply(queue: QueueID(1), isNew: true), to: try await node.take(.declareQueue))
    var published = 0
    while published < 11 {
      let publish = try await node.take(.publish).publish()
      published += publish.bodies.count
      node.send(
        .confirmed(
          first: PublishSequence(publish.first), count: UInt32(publish.bodies.count),
          message: MessageID(rawValue: publish.first)))
    }
    _ = try await node.take(.subscribe)
    node.deliver(1, (1...11).map { ($0, "hello") })
    for _ in 1...11 {
      node.send(.settled(through: try await node.take(.settle).settle().sequence))
    }
    try await running.value
    _ = try await node.take(.closeSession)
  }
}
