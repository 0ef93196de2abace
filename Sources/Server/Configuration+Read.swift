// From a file to a checked configuration. Reports everything that is wrong at once.

import Base
import QueueMachine
import Transport

extension ServerConfiguration {
  /// Reads and checks the configuration in `file`. Relative paths in it are taken from the file's
  /// own directory.
  /// - Throws: `ConfigurationError` if the file cannot be read or anything in it is wrong.
  package static func read(file: String) throws(ConfigurationError) -> ServerConfiguration {
    let path: String
    let bytes: [UInt8]
    do throws(ErrorNumber) {
      path = try SmallFile.absolute(file)
      bytes = try SmallFile.read(path)
    } catch {
      throw ConfigurationError(file: file, faults: ["cannot be read: \(error)"])
    }
    let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
    return try parse(json: bytes, file: file, directory: directory)
  }

  /// Checks the text of a configuration file.
  /// - Parameters:
  ///   - json: the text.
  ///   - file: its name, for messages.
  ///   - directory: where relative paths begin.
  /// - Throws: `ConfigurationError` with everything that is wrong.
  package static func parse(
    json: [UInt8], file: String, directory: String
  ) throws(ConfigurationError) -> ServerConfiguration {
    let value: JSONValue
    do throws(JSONFault) {
      value = try JSONValue(parsing: json)
    } catch {
      throw ConfigurationError(file: file, faults: ["\(error)"])
    }
    guard case .object(let values) = value else {
      throw ConfigurationError(file: file, faults: ["expected an object, found \(value.kind)"])
    }
    var findings = ConfigurationFindings()
    let configuration = assemble(values, directory: directory, &findings)
    guard let configuration, findings.faults.isEmpty else {
      throw ConfigurationError(file: file, faults: findings.faults)
    }
    return configuration
  }

  /// The paths of all keys there are, in the order of the file.
  package static var keys: [String] {
    var findings = ConfigurationFindings()
    _ = assemble([:], directory: "", &findings)
    return findings.keys
  }

  /// All of it; nil only with a fault.
  private static func assemble(
    _ values: [String: JSONValue], directory: String, _ findings: inout ConfigurationFindings
  ) -> ServerConfiguration? {
    var file = ConfigurationSection(prefix: "", values: values)
    let cluster = readCluster(&file, &findings)
    let node = file.count("node", in: 1...Int(UInt32.max), default: 0, &findings)
    if node == 0, values["node"] == nil { findings.faults.append("node: is missing") }
    let data = file.text("data", &findings)
    if data == "" { findings.faults.append("data: must not be empty") }
    var listen = file.section("listen", &findings)
    let peerListen = listen.endpoint("peers", &findings)
    let clientListen = listen.endpoint("clients", &findings)
    let isAMQPSaid = listen.has("amqp")
    var amqpListen = listen.maybeEndpoint("amqp", &findings)
    listen.finish(&findings)
    let members = readMembers(&file, &findings)
    let join = file.bool("join", default: false, &findings)
    if !isAMQPSaid, members.count == 1, !join {
      amqpListen = clientListen.flatMap { usualAMQPEndpoint(beside: $0) }
    }
    let limits = readLimits(&file, &findings)
    let timeouts = readTimeouts(&file, &findings)
    let storage = readStorage(&file, &findings)
    file.finish(&findings)
    guard let cluster, node > 0, let data, let peerListen, let clientListen else { return nil }
    let configuration = ServerConfiguration(
      cluster: cluster, node: NodeID(UInt32(node)),
      dataDirectory: data.hasPrefix("/") ? data : directory + "/" + data,
      peerListen: peerListen, clientListen: clientListen, amqpListen: amqpListen,
      members: members, join: join,
      limits: limits, timeouts: timeouts, storage: storage)
    findings.faults += configuration.contradictions
    return configuration
  }

  private static func readCluster(
    _ file: inout ConfigurationSection, _ findings: inout ConfigurationFindings
  ) -> ClusterIdentity? {
    guard let text = file.text("cluster", &findings) else { return nil }
    return ClusterIdentity(text: text)
      ?? file.fault(
        "cluster", "\"\(text)\" is not 16 hexadecimal digits, the same on all nodes", &findings)
  }

  /// Where programs look for a broker if they are told nothing: for a node alone, at the address where
  /// its native clients reach it.
  private static func usualAMQPEndpoint(beside clients: Endpoint) -> Endpoint? {
    let host = clients.host.contains(":") ? "[\(clients.host)]" : clients.host
    do throws(AddressError) {
      return try Endpoint(parsing: "\(host):5672")
    } catch {
      stopForBug("an address that was taken apart before: \(error)")
    }
  }

  private static func readMembers(
    _ file: inout ConfigurationSection, _ findings: inout ConfigurationFindings
  ) -> [Member] {
    let elements: [JSONValue]
    switch file.take("members", &findings) {
    case .array(let found)?: elements = found
    case nil:
      // So that `keys` knows what a member has.
      elements = [.object([:])]
      findings.faults.append("members: is missing")
    case let other?:
      elements = []
      findings.faults.append("members: expected a list, found \(other.kind)")
    }
    var members: [Member] = []
    for (position, element) in elements.enumerated() {
      let path = "members[\(position)]"
      guard case .object(let values) = element else {
        findings.faults.append("\(path): expected an object, found \(element.kind)")
        continue
      }
      var section = ConfigurationSection(prefix: path + ".", values: values)
      let node = section.count("node", in: 1...Int(UInt32.max), default: 0, &findings)
      if values["node"] == nil { findings.faults.append("\(path).node: is missing") }
      let peers = section.endpoint("peers", &findings)
      let clients = section.endpoint("clients", &findings)
      section.finish(&findings)
      guard node > 0, let peers, let clients else { continue }
      members.append(Member(node: NodeID(UInt32(node)), peers: peers, clients: clients))
    }
    return members
  }

  private static func readLimits(
    _ file: inout ConfigurationSection, _ findings: inout ConfigurationFindings
  ) -> Limits {
    var section = file.section("limits", &findings)
    var limits = Limits()
    // More than the queue machine takes would be refused all the same.
    let machine = MachineLimits()
    let megabyte = 1 << 20
    let writes = megabyte...(4096 * megabyte)
    limits.messageBytes = section.bytes(
      "messageBytes", in: 1024...(32 * megabyte), default: limits.messageBytes, &findings)
    limits.connections = section.count(
      "connections", in: 1...1_000_000, default: limits.connections, &findings)
    limits.sessions = section.count(
      "sessions", in: 1...machine.sessions, default: limits.sessions, &findings)
    limits.queues = section.count(
      "queues", in: 1...machine.queues, default: limits.queues, &findings)
    limits.consumersPerSession = section.count(
      "consumersPerSession", in: 1...machine.consumersPerSession,
      default: limits.consumersPerSession, &findings)
    limits.publishesInFlight = section.count(
      "publishesInFlight", in: 1...1_000_000, default: limits.publishesInFlight, &findings)
    limits.uncommittedBytes = section.bytes(
      "uncommittedBytes", in: writes, default: limits.uncommittedBytes, &findings)
    limits.replicationBytes = section.bytes(
      "replicationBytes", in: 65_536...(1024 * megabyte), default: limits.replicationBytes,
      &findings)
    limits.clientWriteBytes = section.bytes(
      "clientWriteBytes", in: writes, default: limits.clientWriteBytes, &findings)
    limits.peerWriteBytes = section.bytes(
      "peerWriteBytes", in: writes, default: limits.peerWriteBytes, &findings)
    limits.entryCacheBytes = section.bytes(
      "entryCacheBytes", in: 0...(65_536 * megabyte), default: limits.entryCacheBytes, &findings)
    section.finish(&findings)
    return limits
  }

  private static func readTimeouts(
    _ file: inout ConfigurationSection, _ findings: inout ConfigurationFindings
  ) -> Timeouts {
    var section = file.section("timeouts", &findings)
    var timeouts = Timeouts()
    timeouts.heartbeat = section.duration(
      "heartbeat", in: .milliseconds(1) ... .seconds(60), default: timeouts.heartbeat, &findings)
    timeouts.electionMin = section.duration(
      "electionMin", in: .milliseconds(5) ... .seconds(600), default: timeouts.electionMin,
      &findings)
    timeouts.electionMax = section.duration(
      "electionMax", in: .milliseconds(10) ... .seconds(600), default: timeouts.electionMax,
      &findings)
    timeouts.session = section.duration(
      "session", in: .milliseconds(100) ... .seconds(86_400), default: timeouts.session, &findings)
    timeouts.silentConnection = section.duration(
      "silentConnection", in: .milliseconds(100) ... .seconds(86_400),
      default: timeouts.silentConnection, &findings)
    timeouts.handshake = section.duration(
      "handshake", in: .milliseconds(100) ... .seconds(600), default: timeouts.handshake,
      &findings)
    timeouts.stop = section.duration(
      "stop", in: .zero ... .seconds(600), default: timeouts.stop, &findings)
    section.finish(&findings)
    return timeouts
  }

  private static func readStorage(
    _ file: inout ConfigurationSection, _ findings: inout ConfigurationFindings
  ) -> Storage {
    var section = file.section("storage", &findings)
    var storage = Storage()
    let megabyte = 1 << 20
    storage.segmentBytes = section.bytes(
      "segmentBytes", in: megabyte...(1024 * megabyte), default: storage.segmentBytes, &findings)
    storage.snapshotBytes = section.bytes(
      "snapshotBytes", in: megabyte...(1024 * 1024 * megabyte), default: storage.snapshotBytes,
      &findings)
    storage.diskBytesMax = section.bytes("diskBytesMax", in: (16 * megabyte)...Int.max, &findings)
    section.finish(&findings)
    return storage
  }
}
