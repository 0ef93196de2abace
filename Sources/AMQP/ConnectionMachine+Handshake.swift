// From the protocol header to connection.open-ok (AMQP 0-9-1 §2.2.4), and the few methods of
// channel 0 after that. Before connection.open nobody is trusted: whatever is wrong then closes the
// connection without a word, but for a wrong password and an unknown vhost.

import Base

/// What a client said that it understands (connection.start-ok, client properties).
struct ClientCapabilities {
  var authenticationFailureClose = false
  var consumerCancelNotify = false
  var connectionBlocked = false

  init() {}

  init(_ properties: FieldTable) {
    guard case .table(let table)? = properties["capabilities"] else { return }
    authenticationFailureClose = table["authentication_failure_close"] == .boolean(true)
    consumerCancelNotify = table["consumer_cancel_notify"] == .boolean(true)
    connectionBlocked = table["connection.blocked"] == .boolean(true)
  }
}

extension ServerProperties {
  /// As connection.start has them.
  var table: FieldTable {
    // There are no priorities of consumers, but some clients send none where they are not announced,
    // and fail: `skein doctor` names who does.
    let capabilities = [
      "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
      "connection.blocked", "consumer_priorities", "authentication_failure_close",
      "per_consumer_qos", "direct_reply_to",
    ]
    return FieldTable([
      ("capabilities", .table(FieldTable(capabilities.map { ($0, .boolean(true)) }))),
      ("cluster_name", .text(clusterName)), ("copyright", .text(copyright)),
      ("information", .text(information)), ("platform", .text(platform)),
      ("product", .text(product)), ("version", .text(version)),
    ])
  }
}

extension ConnectionMachine {
  /// False if there is no more to take now.
  mutating func takeProtocolHeader(_ bytes: UnsafeRawBufferPointer) -> Bool {
    // 0-9 is said by some old clients and is the same for all that they do then.
    let other: [UInt8] = [0x41, 0x4d, 0x51, 0x50, 1, 1, 0, 9]
    let said = bytes.prefix(Frame.protocolHeader.count)
    let isKnown = [Frame.protocolHeader, other].contains { $0.starts(with: said) }
    guard isKnown else {
      output.append(contentsOf: Frame.protocolHeader)
      finish()
      return false
    }
    guard said.count == Frame.protocolHeader.count else { return false }
    phase = .starting
    settings.server.table.encoded.withUnsafeBytes { properties in
      "PLAIN AMQPLAIN".withRawBytes { mechanisms in
        "en_US".withRawBytes { locales in
          ConnectionStart(
            versionMajor: 0, versionMinor: 9, serverProperties: properties,
            mechanisms: mechanisms, locales: locales
          ).encode(channel: 0, into: &output)
        }
      }
    }
    return true
  }

  mutating func takeConnectionMethod(
    _ method: MethodID, _ fields: UnsafeRawBufferPointer
  ) throws(Failure) {
    switch (method, phase) {
    case (.connectionStartOK, .starting): try start(try read(fields))
    case (.connectionTuneOK, .tuning): try tune(try read(fields))
    case (.connectionOpen, .opening): try open(try read(fields))
    case (.connectionClose, .open):
      let _: ConnectionClose = try read(fields)
      closeByClient()
    case (.connectionClose, _):
      // The client gives up before it is in, or its close crossed ours.
      ConnectionCloseOK().encode(channel: 0, into: &output)
      if phase != .closing, phase != .closed { finish() }
    case (.connectionCloseOK, .closing): finish()
    case (_, .closing), (_, .closed): break
    case (.connectionUpdateSecret, .open):
      // For tokens that expire; a password does not, and RabbitMQ takes any for who has one.
      let _: ConnectionUpdateSecret = try read(fields)
      ConnectionUpdateSecretOK().encode(channel: 0, into: &output)
    case (_, .open):
      throw .fault(Fault(.channelError, "unexpected method in connection state running"))
    default: throw .silent
    }
  }

  private mutating func start(_ method: ConnectionStartOK) throws(Failure) {
    // The table was seen to be one.
    guard let properties = try? FieldTable(method.clientProperties) else { throw .silent }
    capabilities = ClientCapabilities(properties)
    clientName = Self.clientName(properties)
    let mechanism = String(decoding: method.mechanism, as: UTF8.self)
    let credentials: Credentials?
    switch mechanism {
    case "PLAIN": credentials = Self.plain(method.response)
    case "AMQPLAIN": credentials = Self.amqplain(method.response)
    default: throw .silent
    }
    guard let credentials else {
      refuseLogin(mechanism)
      return
    }
    authenticating = (credentials.user, mechanism)
    phase = .authenticating
    let token = makeToken()
    connectionToken = token
    requests.requests.append(.authenticate(token, credentials))
  }

  private static func clientName(_ properties: FieldTable) -> String {
    if let name = properties["connection_name"]?.text, !name.isEmpty { return shown(name) }
    let parts = ["product", "version"].compactMap { properties[$0]?.text }
    return shown(parts.joined(separator: " "))
  }

  /// What a client says of itself ends up on operators' terminals: short, and without control
  /// characters.
  private static func shown(_ text: String) -> String {
    var scalars = String.UnicodeScalarView()
    for scalar in text.unicodeScalars.prefix(255) {
      scalars.append(scalar.properties.generalCategory == .control ? "?" : scalar)
    }
    return String(scalars)
  }

  /// RFC 4616: who to act as (not used), user, password, with zero bytes between.
  private static func plain(_ response: UnsafeRawBufferPointer) -> Credentials? {
    let parts = response.split(separator: 0, maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count == 3, let user = String(validating: parts[1], as: UTF8.self) else {
      return nil
    }
    return Credentials(mechanism: "PLAIN", user: user, password: [UInt8](parts[2]))
  }

  /// A table without its length, with LOGIN and PASSWORD.
  private static func amqplain(_ response: UnsafeRawBufferPointer) -> Credentials? {
    guard let table = try? FieldTable(response),
      case .string(let login)? = table["LOGIN"], case .string(let password)? = table["PASSWORD"],
      let user = String(validating: login, as: UTF8.self)
    else { return nil }
    return Credentials(mechanism: "AMQPLAIN", user: user, password: password)
  }

  /// Whoever cannot hear why is closed without a word.
  mutating func refuseLogin(_ mechanism: String) {
    guard capabilities.authenticationFailureClose else {
      finish()
      return
    }
    sendClose(
      Fault(
        .accessRefused,
        """
        Login was refused using authentication mechanism \(mechanism). For details see the broker \
        logfile.
        """), nil)
    phase = .closing
  }

  mutating func sendTune() {
    user = authenticating.user
    phase = .tuning
    ConnectionTune(
      channelMax: settings.channelMax, frameMax: settings.frameBytesMax,
      heartbeat: settings.heartbeatSeconds
    ).encode(channel: 0, into: &output)
  }

  /// The client may lower the limits; 0 leaves ours. The heartbeat is the client's choice.
  private mutating func tune(_ method: ConnectionTuneOK) throws(Failure) {
    let frameMax = method.frameMax == 0 ? settings.frameBytesMax : method.frameMax
    guard frameMax >= Frame.frameBytesMin, frameMax <= settings.frameBytesMax,
      method.channelMax <= settings.channelMax
    else { throw .silent }
    // As RabbitMQ does, we take a frame whose payload alone is as large as the frame may be: some
    // clients are wrong by these eight bytes.
    payloadBytesMax = Int(frameMax)
    channelMax = Int(method.channelMax == 0 ? settings.channelMax : method.channelMax)
    heartbeat = .seconds(UInt64(method.heartbeat))
    phase = .opening
    startHeartbeats()
  }

  private mutating func open(_ method: ConnectionOpen) throws(Failure) {
    let name = String(decoding: method.virtualHost, as: UTF8.self)
    vhost = name
    phase = .openingVhost
    let token = makeToken()
    connectionToken = token
    requests.requests.append(.openVhost(token, name: name))
  }

  mutating func finishHandshake() {
    phase = .open
    phaseDeadline = .never
    ConnectionOpenOK(knownHosts: UnsafeRawBufferPointer(start: nil, count: 0))
      .encode(channel: 0, into: &output)
  }
}

extension String {
  /// The text's UTF-8, for the call.
  func withRawBytes<Value>(_ body: (UnsafeRawBufferPointer) -> Value) -> Value {
    var text = self
    return text.withUTF8 { body(UnsafeRawBufferPointer($0)) }
  }
}
