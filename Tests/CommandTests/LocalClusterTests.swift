// The files of a local cluster: what is written can be read by a node, ids are not used twice, and
// no signal goes to a process that is not ours. Nothing is started here.

import Base
import Foundation
import Server
import Testing

@testable import skein

@Suite struct LocalClusterTests {
  /// Runs `body` with a cluster of three nodes in a fresh directory that is removed afterwards.
  func withCluster(_ body: (LocalCluster) throws -> Void) throws {
    let directory = NSTemporaryDirectory() + "skein-test-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let cluster = try LocalCluster(directory: directory)
    try cluster.create(nodes: 3, basePort: 7400)
    try body(cluster)
  }

  @Test func theConfigurationsThatAreWrittenAreRight() throws {
    try withCluster { cluster in
      #expect(try cluster.nodes() == [NodeID(1), NodeID(2), NodeID(3)])
      #expect(try cluster.basePort() == 7400)
      let all = try cluster.nodes().map { try cluster.configuration($0) }
      #expect(Set(all.map(\.cluster)).count == 1)
      #expect(all.allSatisfy { $0.members == all[0].members && !$0.join })
      #expect(all[1].dataDirectory == cluster.dataDirectory(NodeID(2)))
      #expect(all[1].clientListen.description == "127.0.0.1:7402")
      #expect(all[1].peerListen.description == "127.0.0.1:7452")
    }
  }

  @Test func aNodeThatJoinsKnowsTheOthersAndItself() throws {
    try withCluster { cluster in
      let node = try cluster.nextNode()
      #expect(node == NodeID(4))
      let configuration = try cluster.createJoining(node)
      #expect(configuration.join)
      #expect(configuration.members.map(\.node.rawValue) == [1, 2, 3, 4])
      #expect(configuration.clientListen.description == "127.0.0.1:7404")
      #expect(try configuration.cluster == cluster.configuration(NodeID(1)).cluster)
    }
  }

  @Test func theNumberOfARemovedNodeIsNotUsedAgain() throws {
    try withCluster { cluster in
      try cluster.forget(NodeID(3))
      #expect(try cluster.nodes() == [NodeID(1), NodeID(2)])
      #expect(try cluster.nextNode() == NodeID(4))
    }
  }

  @Test func wipingLeavesWhatIsNotOurs() throws {
    try withCluster { cluster in
      let own = cluster.directory + "/notes.txt"
      try "mine".write(toFile: own, atomically: true, encoding: .utf8)
      try cluster.wipe()
      #expect(
        try FileManager.default.contentsOfDirectory(atPath: cluster.directory) == ["notes.txt"])
    }
  }

  /// A number of a process may belong to anybody by now: here, to this test.
  @Test func aProcessThatIsNotTheNodeIsNotTakenForIt() throws {
    try withCluster { cluster in
      for text in ["\(getpid())\n", "1\n", "0", "-1", "", "nonsense", "99999999"] {
        try text.write(toFile: cluster.processFile(NodeID(1)), atomically: true, encoding: .utf8)
        #expect(cluster.process(of: NodeID(1)) == nil)
      }
      let stranger = NodeProcess(
        node: NodeID(1), pid: getpid(), configurationFile: cluster.configurationFile(NodeID(1)))
      #expect(!stranger.send(SIGKILL) && stranger.hasLeft)
    }
  }

  /// What ends with its parent ends with the thread that started it: that must not be one that goes.
  @Test func oneThreadStartsAllThatEndsWithThisProcess() throws {
    let starter = try SpawnThread()
    let threads = try (0..<3).map { _ in
      try starter.run { pid_t(truncatingIfNeeded: pthread_self()) }
    }
    #expect(Set(threads).count == 1)
    #expect(throws: Failure("it cannot")) { _ = try starter.run { throw Failure("it cannot") } }
  }

  /// A command that restarts a node at once finds its ports free; nobody has waited for it yet.
  @Test func aProcessHasLeftWhenItHoldsNothingAnyMore() async throws {
    var ends: [Int32] = [0, 0]
    try #require(pipe(&ends) == 0)
    defer { for end in ends { close(end) } }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO)
    // A shell that reads its program from the pipe.
    let pid = try spawn(["sh"], executable: "/bin/sh", actions: &actions, newSession: false)
    defer { waitpid(pid, nil, 0) }
    let process = NodeProcess(node: NodeID(1), pid: pid, configurationFile: "none")
    #expect(!process.hasEnded)
    let farewell = Array("exit 0\n".utf8)
    #expect(write(ends[1], farewell, farewell.count) == farewell.count)
    #expect(try await LocalCluster.wait(atMost: .seconds(60)) { process.hasEnded })
    #expect(process.hasLeft && !process.isRunning)
  }
}
