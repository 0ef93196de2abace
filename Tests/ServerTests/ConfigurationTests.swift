// The configuration file: what is read, what is refused and in which words, and that every key is
// explained in cluster/README.md.

import Base
import Foundation
import Testing
import Transport

@testable import Server

@Suite struct ConfigurationTests {
  /// A configuration of three members with `changes` replaced or, where null, taken out.
  static func text(_ changes: [String: String] = [:]) -> String {
    var keys: [(String, String)] = [
      ("cluster", "\"00000000c0ffee00\""), ("node", "1"), ("data", "\"data-1\""),
      ("listen", #"{"peers": "127.0.0.1:7411", "clients": "127.0.0.1:7401"}"#),
      (
        "members",
        """
        [{"node": 1, "peers": "127.0.0.1:7411", "clients": "127.0.0.1:7401"},
         {"node": 2, "peers": "127.0.0.1:7412", "clients": "127.0.0.1:7402"},
         {"node": 3, "peers": "127.0.0.1:7413", "clients": "127.0.0.1:7403"}]
        """
      ),
    ]
    for (key, value) in changes {
      keys.removeAll { $0.0 == key }
      if value != "missing" { keys.append((key, value)) }
    }
    return "{" + keys.map { "\"\($0)\": \($1)" }.joined(separator: ",\n") + "}"
  }

  static func parse(_ text: String) throws(ConfigurationError) -> ServerConfiguration {
    try ServerConfiguration.parse(json: Array(text.utf8), file: "node.json", directory: "/etc/s")
  }

  static func faults(_ text: String) -> [String] {
    do throws(ConfigurationError) {
      _ = try parse(text)
      return []
    } catch {
      return error.faults
    }
  }

  @Test func aMinimalFileGivesTheDefaults() throws {
    let configuration = try Self.parse(Self.text())
    #expect(configuration.cluster.description == "00000000c0ffee00")
    #expect(configuration.node == NodeID(1))
    #expect(configuration.dataDirectory == "/etc/s/data-1")
    #expect(configuration.peerListen.description == "127.0.0.1:7411")
    #expect(configuration.clientListen.description == "127.0.0.1:7401")
    #expect(configuration.members.map(\.node) == [NodeID(1), NodeID(2), NodeID(3)])
    #expect(!configuration.join)
    #expect(configuration.limits == ServerConfiguration.Limits())
    #expect(configuration.timeouts == ServerConfiguration.Timeouts())
    #expect(configuration.storage == ServerConfiguration.Storage())
  }

  @Test func aNodeAloneTakesAMQPAtTheUsualPortUnlessItIsToldOtherwise() throws {
    let alone = #"[{"node": 1, "peers": "127.0.0.1:7411", "clients": "127.0.0.1:7401"}]"#
    func port(_ listen: String, members: String? = nil) throws -> UInt16? {
      var changes = [
        "listen": #"{"peers": "127.0.0.1:7411", "clients": "127.0.0.1:7401"\#(listen)}"#
      ]
      if let members { changes["members"] = members }
      return try Self.parse(Self.text(changes)).amqpListen?.port
    }
    #expect(try port("") == nil)
    #expect(try port("", members: alone) == 5672)
    #expect(try port(#", "amqp": "127.0.0.1:5673""#, members: alone) == 5673)
    #expect(try port(#", "amqp": null"#, members: alone) == nil)
  }

  @Test func theDefaultsAreInRangeAndDoNotContradictEachOther() throws {
    let configuration = try Self.parse(Self.text())
    #expect(configuration.contradictions == [])
  }

  @Test func settingsAreTaken() throws {
    let configuration = try Self.parse(
      Self.text([
        "data": "\"/var/lib/skein\"", "join": "true",
        "limits": #"{"messageBytes": "64KiB", "connections": 12}"#,
        "timeouts": #"{"heartbeat": "20ms", "session": "1m"}"#,
        "storage": #"{"segmentBytes": 4194304, "diskBytesMax": "1GiB"}"#,
      ]))
    #expect(configuration.dataDirectory == "/var/lib/skein")
    #expect(configuration.join)
    #expect(configuration.limits.messageBytes == 65_536)
    #expect(configuration.limits.connections == 12)
    #expect(configuration.timeouts.heartbeat == .milliseconds(20))
    #expect(configuration.timeouts.session == .seconds(60))
    #expect(configuration.storage.segmentBytes == 4 << 20)
    #expect(configuration.storage.diskBytesMax == 1 << 30)
  }

  @Test(
    arguments: [
      (
        ["limits": #"{"mesageBytes": 5}"#],
        "limits.mesageBytes: there is no such key, did you mean \"messageBytes\"?"
      ),
      (["colour": "1"], "colour: there is no such key"),
      (["node": "\"one\""], "node: expected a whole number, found \"one\""),
      (["node": "0"], "node: must be from 1 to 4294967295, not 0"),
      (["node": "missing"], "node: is missing"),
      (["cluster": "missing"], "cluster: is missing"),
      (
        ["cluster": "\"geese\""],
        "cluster: \"geese\" is not 16 hexadecimal digits, the same on all nodes"
      ),
      (["data": "7"], "data: expected a text, found the number 7"),
      (["join": "1"], "join: expected true or false, found the number 1"),
      (["limits": "[]"], "limits: expected an object, found a list"),
      (
        ["limits": #"{"messageBytes": "much"}"#],
        "limits.messageBytes: is no amount of bytes such as \"64KiB\" or \"16MiB\""
      ),
      (
        ["limits": #"{"messageBytes": "33MiB"}"#],
        "limits.messageBytes: must be from 1KiB to 32MiB, not 33MiB"
      ),
      (
        ["limits": #"{"connections": 2.5}"#],
        "limits.connections: expected a whole number, found the number 2.5"
      ),
      (
        ["limits": #"{"connections": true}"#],
        "limits.connections: expected a whole number, found true"
      ),
      (
        ["limits": #"{"uncommittedBytes": "20MiB"}"#],
        "limits.uncommittedBytes: must be at least twice limits.messageBytes (32MiB)"
      ),
      (
        ["timeouts": #"{"heartbeat": 50}"#],
        "timeouts.heartbeat: expected a time such as \"500ms\", found the number 50"
      ),
      (
        ["timeouts": #"{"heartbeat": "often"}"#],
        "timeouts.heartbeat: \"often\" is no time such as \"500ms\" or \"10s\""
      ),
      (
        ["timeouts": #"{"heartbeat": "200ms"}"#],
        "timeouts.electionMin: 300ms must be at least three heartbeats (timeouts.heartbeat is 200ms)"
      ),
      (
        ["timeouts": #"{"electionMax": "310ms"}"#],
        "timeouts.electionMax: 310ms must be at least one and a half times timeouts.electionMin, or elections tie"
      ),
      (
        ["timeouts": #"{"session": "500ms"}"#],
        "timeouts.session: 500ms must be longer than an election (timeouts.electionMax), or every change of leader ends sessions"
      ),
      (
        ["storage": #"{"diskBytesMax": "64MiB"}"#],
        "storage.diskBytesMax: must be at least four segments (storage.segmentBytes)"
      ),
      (
        ["listen": #"{"peers": "127.0.0.1", "clients": "127.0.0.1:7401"}"#],
        "listen.peers: \"127.0.0.1\" has no port (expected host:port)"
      ),
      (
        ["listen": #"{"peers": "127.0.0.1:7411", "clients": "127.0.0.1:0"}"#],
        "listen.clients: port 0 is no port to be found at"
      ),
      (
        ["listen": #"{"peers": "127.0.0.1:7499", "clients": "127.0.0.1:7401"}"#],
        "listen.peers: port 7499 is not the one by which the members know this node (127.0.0.1:7411)"
      ),
      (["node": "4"], "members: this node's id 4 is not among them (1, 2, 3)"),
      (["members": "[]"], "members: must name at least one member"),
      (
        [
          "members":
            #"[{"node": 1, "peers": "a:7411", "clients": "a:7401"}, {"node": 1, "peers": "b:1", "clients": "b:2"}]"#
        ], "members[1].node: 1 is already the id of members[0]"
      ),
      (
        [
          "members":
            #"[{"node": 1, "peers": "a:7411", "clients": "a:7401"}, {"node": 2, "peers": "a:7411", "clients": "b:2"}]"#
        ], "members[1].peers: a:7411 is already the address of members[0].peers"
      ),
      (
        ["members": #"[{"node": 1, "peers": "a:7411", "clients": "a:7401", "port": 5}]"#],
        "members[0].port: there is no such key"
      ),
      (["members": #"[{"node": 1, "clients": "a:7401"}]"#], "members[0].peers: is missing"),
    ] as [([String: String], String)])
  func whatIsWrongIsNamed(changes: [String: String], fault: String) {
    #expect(Self.faults(Self.text(changes)).contains(fault), "\(Self.faults(Self.text(changes)))")
  }

  @Test func everythingThatIsWrongIsReportedAtOnce() {
    let faults = Self.faults(
      Self.text([
        "data": "missing", "limits": #"{"x": 1}"#, "timeouts": #"{"heartbeat": "1x"}"#,
      ]))
    #expect(
      faults.map { $0.prefix(while: { $0 != ":" }) } == ["data", "limits.x", "timeouts.heartbeat"])
  }

  @Test(
    arguments: [
      ("", "line 1: the text ends where a value is expected"),
      ("[1]", "expected an object, found a list"),
      ("{\n", "line 2: expected a key in quotes"),
      ("{\"node\" 1}", "line 1: expected a colon behind \"node\""),
      ("{\"node\": 1\n\n\"a\": 2}", "line 3: expected a comma or }"),
      ("{\"node\": 1, \"node\": 2}", "line 1: the key \"node\" is there twice"),
      ("{\"data\": here}", "line 1: here is no value (a text needs quotes)"),
      ("{\"data\": \"here}", "line 1: a quote is not closed"),
      ("{\"data\": \"\\x\"}", "line 1: unknown escape \\x"),
      ("{\"node\": 01}", "line 1: 01 is no number"),
      ("{} {}", "line 1: there is something behind the end"),
      ("#!/bin/sh", "line 1: \"#\" where a value is expected"),
    ])
  func whatIsNoJSONObjectIsRefusedWithItsLine(text: String, fault: String) {
    #expect(Self.faults(text) == [fault])
  }

  @Test func whatIsNotUTF8IsRefused() {
    #expect(throws: JSONFault(line: 1, words: "the text is not UTF-8")) {
      try JSONValue(parsing: [0x22, 0xff, 0x22])
    }
  }

  @Test func valuesOfAllKindsAreRead() throws {
    let text = #" {"a": [null, true, false, -12, 1.5e3], "b": {"c": "\u00e9\ud83e\udebf\n\"/"}} "#
    #expect(
      try JSONValue(parsing: Array(text.utf8))
        == .object([
          "a": .array([.null, .bool(true), .bool(false), .integer(-12), .number(1500)]),
          "b": .object(["c": .text("é🪿\n\"/")]),
        ]))
  }

  /// Every text cut short anywhere is refused and none stops the process.
  @Test func everyBeginningOfAFileIsRefused() {
    let text = Array(Self.text(["limits": #"{"messageBytes": "1\u004dMiB"}"#]).utf8)
    for count in 0..<text.count {
      #expect(throws: (any Error).self) { try JSONValue(parsing: Array(text[..<count])) }
    }
  }

  @Test func aFileThatIsMissingIsSaidToBe() {
    #expect(
      throws: ConfigurationError(
        file: "/nowhere/a.json", faults: ["cannot be read: No such file or directory"])
    ) {
      try ServerConfiguration.read(file: "/nowhere/a.json")
    }
  }

  /// Each key stands in the page's tables, in backticks, with the default that the code has.
  @Test func everyKeyIsExplainedInTheClusterPage() throws {
    let page = try String(
      contentsOfFile: #filePath.replacing("Tests/ServerTests/ConfigurationTests.swift", with: "")
        + "cluster/README.md", encoding: .utf8)
    for key in ServerConfiguration.keys {
      let name = key.replacing("members[0]", with: "members[]")
      #expect(page.contains("`\(name)`"), "cluster/README.md does not explain \(name)")
    }
  }

  @Test func aPortThatIsTakenAndAnAddressThatIsNotOursAreNamed() throws {
    let listener = try Listener(.loopback(port: 0))
    var configuration = try Self.parse(Self.text())
    configuration.peerListen = try Endpoint(parsing: "\(listener.address)")
    // TEST-NET-1 of RFC 5737: nobody's address.
    configuration.clientListen = try Endpoint(parsing: "192.0.2.1:7401")
    #expect(
      configuration.addressFaults().map(\.description) == [
        "listen.peers: cannot listen on \(listener.address): the address is in use",
        "listen.clients: cannot listen on 192.0.2.1:7401: no interface of this machine has that"
          + " address",
      ])
    #expect(configuration.addressFaults().map(\.isInUse) == [true, false])
  }

  @Test func clusterIdentitiesAreSixteenHexadecimalDigits() {
    let identity = ClusterIdentity.random()
    #expect(ClusterIdentity(text: identity.description) == identity)
    for text in ["", "1", "0000000000000000", "00000000c0ffee0g", "+0000000c0ffee00"] {
      #expect(ClusterIdentity(text: text) == nil)
    }
  }
}

/// The files that are meant to be copied.
@Suite struct ExampleConfigurationTests {
  @Test func theThreeMachinesAgree() throws {
    let root = #filePath.replacing("Tests/ServerTests/ConfigurationTests.swift", with: "")
    let all = try (1...3).map {
      try ServerConfiguration.read(file: "\(root)cluster/three-machines/node-\($0).json")
    }
    #expect(all.map(\.node.rawValue) == [1, 2, 3])
    #expect(Set(all.map(\.members)).count == 1)
    #expect(Set(all.map(\.cluster)).count == 1)
    #expect(all.allSatisfy { $0.dataDirectory == "/var/lib/skein" && !$0.join })
  }
}
