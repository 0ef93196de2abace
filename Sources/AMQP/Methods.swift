// Generated from Sources/AMQP/Generator/methods.txt, which says how. Not to be edited.
//
// Every method as its number (`MethodID`) and as a struct that is read from and written to the
// payload of a method frame. Byte fields are borrowed: they point into the frame that was read.

/// A method: class number in the upper 16 bits, method number in the lower.
package enum MethodID: UInt32, Hashable, Sendable, CaseIterable {
  case connectionStart = 0x000a_000a
  case connectionStartOK = 0x000a_000b
  case connectionSecure = 0x000a_0014
  case connectionSecureOK = 0x000a_0015
  case connectionTune = 0x000a_001e
  case connectionTuneOK = 0x000a_001f
  case connectionOpen = 0x000a_0028
  case connectionOpenOK = 0x000a_0029
  case connectionClose = 0x000a_0032
  case connectionCloseOK = 0x000a_0033
  case connectionBlocked = 0x000a_003c
  case connectionUnblocked = 0x000a_003d
  case connectionUpdateSecret = 0x000a_0046
  case connectionUpdateSecretOK = 0x000a_0047
  case channelOpen = 0x0014_000a
  case channelOpenOK = 0x0014_000b
  case channelFlow = 0x0014_0014
  case channelFlowOK = 0x0014_0015
  case channelClose = 0x0014_0028
  case channelCloseOK = 0x0014_0029
  case accessRequest = 0x001e_000a
  case accessRequestOK = 0x001e_000b
  case exchangeDeclare = 0x0028_000a
  case exchangeDeclareOK = 0x0028_000b
  case exchangeDelete = 0x0028_0014
  case exchangeDeleteOK = 0x0028_0015
  case exchangeBind = 0x0028_001e
  case exchangeBindOK = 0x0028_001f
  case exchangeUnbind = 0x0028_0028
  case exchangeUnbindOK = 0x0028_0033
  case queueDeclare = 0x0032_000a
  case queueDeclareOK = 0x0032_000b
  case queueBind = 0x0032_0014
  case queueBindOK = 0x0032_0015
  case queuePurge = 0x0032_001e
  case queuePurgeOK = 0x0032_001f
  case queueDelete = 0x0032_0028
  case queueDeleteOK = 0x0032_0029
  case queueUnbind = 0x0032_0032
  case queueUnbindOK = 0x0032_0033
  case basicQos = 0x003c_000a
  case basicQosOK = 0x003c_000b
  case basicConsume = 0x003c_0014
  case basicConsumeOK = 0x003c_0015
  case basicCancel = 0x003c_001e
  case basicCancelOK = 0x003c_001f
  case basicPublish = 0x003c_0028
  case basicReturn = 0x003c_0032
  case basicDeliver = 0x003c_003c
  case basicGet = 0x003c_0046
  case basicGetOK = 0x003c_0047
  case basicGetEmpty = 0x003c_0048
  case basicAck = 0x003c_0050
  case basicReject = 0x003c_005a
  case basicRecoverAsync = 0x003c_0064
  case basicRecover = 0x003c_006e
  case basicRecoverOK = 0x003c_006f
  case basicNack = 0x003c_0078
  case confirmSelect = 0x0055_000a
  case confirmSelectOK = 0x0055_000b
  case txSelect = 0x005a_000a
  case txSelectOK = 0x005a_000b
  case txCommit = 0x005a_0014
  case txCommitOK = 0x005a_0015
  case txRollback = 0x005a_001e
  case txRollbackOK = 0x005a_001f

  package var classID: UInt16 { UInt16(rawValue >> 16) }
  package var methodID: UInt16 { UInt16(truncatingIfNeeded: rawValue) }

  /// A content header and body frames follow.
  package var hasContent: Bool {
    switch self {
    case .basicPublish, .basicReturn, .basicDeliver, .basicGetOK: true
    default: false
    }
  }

  /// As in the standard: `queue.declare-ok`.
  package var name: String {
    switch self {
    case .connectionStart: "connection.start"
    case .connectionStartOK: "connection.start-ok"
    case .connectionSecure: "connection.secure"
    case .connectionSecureOK: "connection.secure-ok"
    case .connectionTune: "connection.tune"
    case .connectionTuneOK: "connection.tune-ok"
    case .connectionOpen: "connection.open"
    case .connectionOpenOK: "connection.open-ok"
    case .connectionClose: "connection.close"
    case .connectionCloseOK: "connection.close-ok"
    case .connectionBlocked: "connection.blocked"
    case .connectionUnblocked: "connection.unblocked"
    case .connectionUpdateSecret: "connection.update-secret"
    case .connectionUpdateSecretOK: "connection.update-secret-ok"
    case .channelOpen: "channel.open"
    case .channelOpenOK: "channel.open-ok"
    case .channelFlow: "channel.flow"
    case .channelFlowOK: "channel.flow-ok"
    case .channelClose: "channel.close"
    case .channelCloseOK: "channel.close-ok"
    case .accessRequest: "access.request"
    case .accessRequestOK: "access.request-ok"
    case .exchangeDeclare: "exchange.declare"
    case .exchangeDeclareOK: "exchange.declare-ok"
    case .exchangeDelete: "exchange.delete"
    case .exchangeDeleteOK: "exchange.delete-ok"
    case .exchangeBind: "exchange.bind"
    case .exchangeBindOK: "exchange.bind-ok"
    case .exchangeUnbind: "exchange.unbind"
    case .exchangeUnbindOK: "exchange.unbind-ok"
    case .queueDeclare: "queue.declare"
    case .queueDeclareOK: "queue.declare-ok"
    case .queueBind: "queue.bind"
    case .queueBindOK: "queue.bind-ok"
    case .queuePurge: "queue.purge"
    case .queuePurgeOK: "queue.purge-ok"
    case .queueDelete: "queue.delete"
    case .queueDeleteOK: "queue.delete-ok"
    case .queueUnbind: "queue.unbind"
    case .queueUnbindOK: "queue.unbind-ok"
    case .basicQos: "basic.qos"
    case .basicQosOK: "basic.qos-ok"
    case .basicConsume: "basic.consume"
    case .basicConsumeOK: "basic.consume-ok"
    case .basicCancel: "basic.cancel"
    case .basicCancelOK: "basic.cancel-ok"
    case .basicPublish: "basic.publish"
    case .basicReturn: "basic.return"
    case .basicDeliver: "basic.deliver"
    case .basicGet: "basic.get"
    case .basicGetOK: "basic.get-ok"
    case .basicGetEmpty: "basic.get-empty"
    case .basicAck: "basic.ack"
    case .basicReject: "basic.reject"
    case .basicRecoverAsync: "basic.recover-async"
    case .basicRecover: "basic.recover"
    case .basicRecoverOK: "basic.recover-ok"
    case .basicNack: "basic.nack"
    case .confirmSelect: "confirm.select"
    case .confirmSelectOK: "confirm.select-ok"
    case .txSelect: "tx.select"
    case .txSelectOK: "tx.select-ok"
    case .txCommit: "tx.commit"
    case .txCommitOK: "tx.commit-ok"
    case .txRollback: "tx.rollback"
    case .txRollbackOK: "tx.rollback-ok"
    }
  }
}

/// connection.start
package struct ConnectionStart: MethodFields {
  package static let id = MethodID.connectionStart
  package var versionMajor: UInt8
  package var versionMinor: UInt8
  package var serverProperties: UnsafeRawBufferPointer
  package var mechanisms: UnsafeRawBufferPointer
  package var locales: UnsafeRawBufferPointer

  package init(
    versionMajor: UInt8, versionMinor: UInt8, serverProperties: UnsafeRawBufferPointer,
    mechanisms: UnsafeRawBufferPointer, locales: UnsafeRawBufferPointer
  ) {
    self.versionMajor = versionMajor
    self.versionMinor = versionMinor
    self.serverProperties = serverProperties
    self.mechanisms = mechanisms
    self.locales = locales
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    versionMajor = try reader.octet()
    versionMinor = try reader.octet()
    serverProperties = try reader.table()
    mechanisms = try reader.longstr()
    locales = try reader.longstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(versionMajor)
    output.putBig(versionMinor)
    output.putLongString(serverProperties)
    output.putLongString(mechanisms)
    output.putLongString(locales)
    output.endFrame(start)
  }
}

/// connection.start-ok
package struct ConnectionStartOK: MethodFields {
  package static let id = MethodID.connectionStartOK
  package var clientProperties: UnsafeRawBufferPointer
  package var mechanism: UnsafeRawBufferPointer
  package var response: UnsafeRawBufferPointer
  package var locale: UnsafeRawBufferPointer

  package init(
    clientProperties: UnsafeRawBufferPointer, mechanism: UnsafeRawBufferPointer,
    response: UnsafeRawBufferPointer, locale: UnsafeRawBufferPointer
  ) {
    self.clientProperties = clientProperties
    self.mechanism = mechanism
    self.response = response
    self.locale = locale
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    clientProperties = try reader.table()
    mechanism = try reader.shortstr()
    response = try reader.longstr()
    locale = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putLongString(clientProperties)
    output.putShortString(mechanism)
    output.putLongString(response)
    output.putShortString(locale)
    output.endFrame(start)
  }
}

/// connection.secure
package struct ConnectionSecure: MethodFields {
  package static let id = MethodID.connectionSecure
  package var challenge: UnsafeRawBufferPointer

  package init(challenge: UnsafeRawBufferPointer) {
    self.challenge = challenge
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    challenge = try reader.longstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putLongString(challenge)
    output.endFrame(start)
  }
}

/// connection.secure-ok
package struct ConnectionSecureOK: MethodFields {
  package static let id = MethodID.connectionSecureOK
  package var response: UnsafeRawBufferPointer

  package init(response: UnsafeRawBufferPointer) {
    self.response = response
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    response = try reader.longstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putLongString(response)
    output.endFrame(start)
  }
}

/// connection.tune
package struct ConnectionTune: MethodFields {
  package static let id = MethodID.connectionTune
  package var channelMax: UInt16
  package var frameMax: UInt32
  package var heartbeat: UInt16

  package init(channelMax: UInt16, frameMax: UInt32, heartbeat: UInt16) {
    self.channelMax = channelMax
    self.frameMax = frameMax
    self.heartbeat = heartbeat
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    channelMax = try reader.short()
    frameMax = try reader.long()
    heartbeat = try reader.short()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(channelMax)
    output.putBig(frameMax)
    output.putBig(heartbeat)
    output.endFrame(start)
  }
}

/// connection.tune-ok
package struct ConnectionTuneOK: MethodFields {
  package static let id = MethodID.connectionTuneOK
  package var channelMax: UInt16
  package var frameMax: UInt32
  package var heartbeat: UInt16

  package init(channelMax: UInt16, frameMax: UInt32, heartbeat: UInt16) {
    self.channelMax = channelMax
    self.frameMax = frameMax
    self.heartbeat = heartbeat
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    channelMax = try reader.short()
    frameMax = try reader.long()
    heartbeat = try reader.short()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(channelMax)
    output.putBig(frameMax)
    output.putBig(heartbeat)
    output.endFrame(start)
  }
}

/// connection.open
package struct ConnectionOpen: MethodFields {
  package static let id = MethodID.connectionOpen
  package var virtualHost: UnsafeRawBufferPointer
  package var reserved1: UnsafeRawBufferPointer
  package var insist: Bool

  package init(virtualHost: UnsafeRawBufferPointer, reserved1: UnsafeRawBufferPointer, insist: Bool)
  {
    self.virtualHost = virtualHost
    self.reserved1 = reserved1
    self.insist = insist
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    virtualHost = try reader.shortstr()
    reserved1 = try reader.shortstr()
    let bits2 = try reader.octet()
    insist = bits2 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(virtualHost)
    output.putShortString(reserved1)
    output.putBig(UInt8((insist ? 1 : 0)))
    output.endFrame(start)
  }
}

/// connection.open-ok
package struct ConnectionOpenOK: MethodFields {
  package static let id = MethodID.connectionOpenOK
  package var knownHosts: UnsafeRawBufferPointer

  package init(knownHosts: UnsafeRawBufferPointer) {
    self.knownHosts = knownHosts
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    knownHosts = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(knownHosts)
    output.endFrame(start)
  }
}

/// connection.close
package struct ConnectionClose: MethodFields {
  package static let id = MethodID.connectionClose
  package var replyCode: UInt16
  package var replyText: UnsafeRawBufferPointer
  package var classID: UInt16
  package var methodID: UInt16

  package init(
    replyCode: UInt16, replyText: UnsafeRawBufferPointer, classID: UInt16, methodID: UInt16
  ) {
    self.replyCode = replyCode
    self.replyText = replyText
    self.classID = classID
    self.methodID = methodID
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    replyCode = try reader.short()
    replyText = try reader.shortstr()
    classID = try reader.short()
    methodID = try reader.short()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(replyCode)
    output.putShortString(replyText)
    output.putBig(classID)
    output.putBig(methodID)
    output.endFrame(start)
  }
}

/// connection.close-ok
package struct ConnectionCloseOK: MethodFields {
  package static let id = MethodID.connectionCloseOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// connection.blocked
package struct ConnectionBlocked: MethodFields {
  package static let id = MethodID.connectionBlocked
  package var reason: UnsafeRawBufferPointer

  package init(reason: UnsafeRawBufferPointer) {
    self.reason = reason
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    reason = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(reason)
    output.endFrame(start)
  }
}

/// connection.unblocked
package struct ConnectionUnblocked: MethodFields {
  package static let id = MethodID.connectionUnblocked
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// connection.update-secret
package struct ConnectionUpdateSecret: MethodFields {
  package static let id = MethodID.connectionUpdateSecret
  package var newSecret: UnsafeRawBufferPointer
  package var reason: UnsafeRawBufferPointer

  package init(newSecret: UnsafeRawBufferPointer, reason: UnsafeRawBufferPointer) {
    self.newSecret = newSecret
    self.reason = reason
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    newSecret = try reader.longstr()
    reason = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putLongString(newSecret)
    output.putShortString(reason)
    output.endFrame(start)
  }
}

/// connection.update-secret-ok
package struct ConnectionUpdateSecretOK: MethodFields {
  package static let id = MethodID.connectionUpdateSecretOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// channel.open
package struct ChannelOpen: MethodFields {
  package static let id = MethodID.channelOpen
  package var outOfBand: UnsafeRawBufferPointer

  package init(outOfBand: UnsafeRawBufferPointer) {
    self.outOfBand = outOfBand
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    outOfBand = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(outOfBand)
    output.endFrame(start)
  }
}

/// channel.open-ok
package struct ChannelOpenOK: MethodFields {
  package static let id = MethodID.channelOpenOK
  package var reserved1: UnsafeRawBufferPointer

  package init(reserved1: UnsafeRawBufferPointer) {
    self.reserved1 = reserved1
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    reserved1 = try reader.longstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putLongString(reserved1)
    output.endFrame(start)
  }
}

/// channel.flow
package struct ChannelFlow: MethodFields {
  package static let id = MethodID.channelFlow
  package var active: Bool

  package init(active: Bool) {
    self.active = active
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    let bits0 = try reader.octet()
    active = bits0 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(UInt8((active ? 1 : 0)))
    output.endFrame(start)
  }
}

/// channel.flow-ok
package struct ChannelFlowOK: MethodFields {
  package static let id = MethodID.channelFlowOK
  package var active: Bool

  package init(active: Bool) {
    self.active = active
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    let bits0 = try reader.octet()
    active = bits0 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(UInt8((active ? 1 : 0)))
    output.endFrame(start)
  }
}

/// channel.close
package struct ChannelClose: MethodFields {
  package static let id = MethodID.channelClose
  package var replyCode: UInt16
  package var replyText: UnsafeRawBufferPointer
  package var classID: UInt16
  package var methodID: UInt16

  package init(
    replyCode: UInt16, replyText: UnsafeRawBufferPointer, classID: UInt16, methodID: UInt16
  ) {
    self.replyCode = replyCode
    self.replyText = replyText
    self.classID = classID
    self.methodID = methodID
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    replyCode = try reader.short()
    replyText = try reader.shortstr()
    classID = try reader.short()
    methodID = try reader.short()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(replyCode)
    output.putShortString(replyText)
    output.putBig(classID)
    output.putBig(methodID)
    output.endFrame(start)
  }
}

/// channel.close-ok
package struct ChannelCloseOK: MethodFields {
  package static let id = MethodID.channelCloseOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// access.request
package struct AccessRequest: MethodFields {
  package static let id = MethodID.accessRequest
  package var realm: UnsafeRawBufferPointer
  package var exclusive: Bool
  package var passive: Bool
  package var active: Bool
  package var write: Bool
  package var read: Bool

  package init(
    realm: UnsafeRawBufferPointer, exclusive: Bool, passive: Bool, active: Bool, write: Bool,
    read: Bool
  ) {
    self.realm = realm
    self.exclusive = exclusive
    self.passive = passive
    self.active = active
    self.write = write
    self.read = read
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    realm = try reader.shortstr()
    let bits1 = try reader.octet()
    exclusive = bits1 & 1 != 0
    passive = bits1 & 2 != 0
    active = bits1 & 4 != 0
    write = bits1 & 8 != 0
    read = bits1 & 16 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(realm)
    output.putBig(
      UInt8(
        (exclusive ? 1 : 0) | (passive ? 2 : 0) | (active ? 4 : 0) | (write ? 8 : 0)
          | (read ? 16 : 0)))
    output.endFrame(start)
  }
}

/// access.request-ok
package struct AccessRequestOK: MethodFields {
  package static let id = MethodID.accessRequestOK
  package var ticket: UInt16

  package init(ticket: UInt16) {
    self.ticket = ticket
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.endFrame(start)
  }
}

/// exchange.declare
package struct ExchangeDeclare: MethodFields {
  package static let id = MethodID.exchangeDeclare
  package var ticket: UInt16
  package var exchange: UnsafeRawBufferPointer
  package var type: UnsafeRawBufferPointer
  package var passive: Bool
  package var durable: Bool
  package var autoDelete: Bool
  package var isInternal: Bool
  package var noWait: Bool
  package var arguments: UnsafeRawBufferPointer

  package init(
    ticket: UInt16, exchange: UnsafeRawBufferPointer, type: UnsafeRawBufferPointer, passive: Bool,
    durable: Bool, autoDelete: Bool, isInternal: Bool, noWait: Bool,
    arguments: UnsafeRawBufferPointer
  ) {
    self.ticket = ticket
    self.exchange = exchange
    self.type = type
    self.passive = passive
    self.durable = durable
    self.autoDelete = autoDelete
    self.isInternal = isInternal
    self.noWait = noWait
    self.arguments = arguments
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    exchange = try reader.shortstr()
    type = try reader.shortstr()
    let bits3 = try reader.octet()
    passive = bits3 & 1 != 0
    durable = bits3 & 2 != 0
    autoDelete = bits3 & 4 != 0
    isInternal = bits3 & 8 != 0
    noWait = bits3 & 16 != 0
    arguments = try reader.table()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(exchange)
    output.putShortString(type)
    output.putBig(
      UInt8(
        (passive ? 1 : 0) | (durable ? 2 : 0) | (autoDelete ? 4 : 0) | (isInternal ? 8 : 0)
          | (noWait ? 16 : 0)))
    output.putLongString(arguments)
    output.endFrame(start)
  }
}

/// exchange.declare-ok
package struct ExchangeDeclareOK: MethodFields {
  package static let id = MethodID.exchangeDeclareOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// exchange.delete
package struct ExchangeDelete: MethodFields {
  package static let id = MethodID.exchangeDelete
  package var ticket: UInt16
  package var exchange: UnsafeRawBufferPointer
  package var ifUnused: Bool
  package var noWait: Bool

  package init(ticket: UInt16, exchange: UnsafeRawBufferPointer, ifUnused: Bool, noWait: Bool) {
    self.ticket = ticket
    self.exchange = exchange
    self.ifUnused = ifUnused
    self.noWait = noWait
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    exchange = try reader.shortstr()
    let bits2 = try reader.octet()
    ifUnused = bits2 & 1 != 0
    noWait = bits2 & 2 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(exchange)
    output.putBig(UInt8((ifUnused ? 1 : 0) | (noWait ? 2 : 0)))
    output.endFrame(start)
  }
}

/// exchange.delete-ok
package struct ExchangeDeleteOK: MethodFields {
  package static let id = MethodID.exchangeDeleteOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// exchange.bind
package struct ExchangeBind: MethodFields {
  package static let id = MethodID.exchangeBind
  package var ticket: UInt16
  package var destination: UnsafeRawBufferPointer
  package var source: UnsafeRawBufferPointer
  package var routingKey: UnsafeRawBufferPointer
  package var noWait: Bool
  package var arguments: UnsafeRawBufferPointer

  package init(
    ticket: UInt16, destination: UnsafeRawBufferPointer, source: UnsafeRawBufferPointer,
    routingKey: UnsafeRawBufferPointer, noWait: Bool, arguments: UnsafeRawBufferPointer
  ) {
    self.ticket = ticket
    self.destination = destination
    self.source = source
    self.routingKey = routingKey
    self.noWait = noWait
    self.arguments = arguments
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    destination = try reader.shortstr()
    source = try reader.shortstr()
    routingKey = try reader.shortstr()
    let bits4 = try reader.octet()
    noWait = bits4 & 1 != 0
    arguments = try reader.table()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(destination)
    output.putShortString(source)
    output.putShortString(routingKey)
    output.putBig(UInt8((noWait ? 1 : 0)))
    output.putLongString(arguments)
    output.endFrame(start)
  }
}

/// exchange.bind-ok
package struct ExchangeBindOK: MethodFields {
  package static let id = MethodID.exchangeBindOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// exchange.unbind
package struct ExchangeUnbind: MethodFields {
  package static let id = MethodID.exchangeUnbind
  package var ticket: UInt16
  package var destination: UnsafeRawBufferPointer
  package var source: UnsafeRawBufferPointer
  package var routingKey: UnsafeRawBufferPointer
  package var noWait: Bool
  package var arguments: UnsafeRawBufferPointer

  package init(
    ticket: UInt16, destination: UnsafeRawBufferPointer, source: UnsafeRawBufferPointer,
    routingKey: UnsafeRawBufferPointer, noWait: Bool, arguments: UnsafeRawBufferPointer
  ) {
    self.ticket = ticket
    self.destination = destination
    self.source = source
    self.routingKey = routingKey
    self.noWait = noWait
    self.arguments = arguments
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    destination = try reader.shortstr()
    source = try reader.shortstr()
    routingKey = try reader.shortstr()
    let bits4 = try reader.octet()
    noWait = bits4 & 1 != 0
    arguments = try reader.table()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(destination)
    output.putShortString(source)
    output.putShortString(routingKey)
    output.putBig(UInt8((noWait ? 1 : 0)))
    output.putLongString(arguments)
    output.endFrame(start)
  }
}

/// exchange.unbind-ok
package struct ExchangeUnbindOK: MethodFields {
  package static let id = MethodID.exchangeUnbindOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// queue.declare
package struct QueueDeclare: MethodFields {
  package static let id = MethodID.queueDeclare
  package var ticket: UInt16
  package var queue: UnsafeRawBufferPointer
  package var passive: Bool
  package var durable: Bool
  package var exclusive: Bool
  package var autoDelete: Bool
  package var noWait: Bool
  package var arguments: UnsafeRawBufferPointer

  package init(
    ticket: UInt16, queue: UnsafeRawBufferPointer, passive: Bool, durable: Bool, exclusive: Bool,
    autoDelete: Bool, noWait: Bool, arguments: UnsafeRawBufferPointer
  ) {
    self.ticket = ticket
    self.queue = queue
    self.passive = passive
    self.durable = durable
    self.exclusive = exclusive
    self.autoDelete = autoDelete
    self.noWait = noWait
    self.arguments = arguments
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    queue = try reader.shortstr()
    let bits2 = try reader.octet()
    passive = bits2 & 1 != 0
    durable = bits2 & 2 != 0
    exclusive = bits2 & 4 != 0
    autoDelete = bits2 & 8 != 0
    noWait = bits2 & 16 != 0
    arguments = try reader.table()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(queue)
    output.putBig(
      UInt8(
        (passive ? 1 : 0) | (durable ? 2 : 0) | (exclusive ? 4 : 0) | (autoDelete ? 8 : 0)
          | (noWait ? 16 : 0)))
    output.putLongString(arguments)
    output.endFrame(start)
  }
}

/// queue.declare-ok
package struct QueueDeclareOK: MethodFields {
  package static let id = MethodID.queueDeclareOK
  package var queue: UnsafeRawBufferPointer
  package var messageCount: UInt32
  package var consumerCount: UInt32

  package init(queue: UnsafeRawBufferPointer, messageCount: UInt32, consumerCount: UInt32) {
    self.queue = queue
    self.messageCount = messageCount
    self.consumerCount = consumerCount
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    queue = try reader.shortstr()
    messageCount = try reader.long()
    consumerCount = try reader.long()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(queue)
    output.putBig(messageCount)
    output.putBig(consumerCount)
    output.endFrame(start)
  }
}

/// queue.bind
package struct QueueBind: MethodFields {
  package static let id = MethodID.queueBind
  package var ticket: UInt16
  package var queue: UnsafeRawBufferPointer
  package var exchange: UnsafeRawBufferPointer
  package var routingKey: UnsafeRawBufferPointer
  package var noWait: Bool
  package var arguments: UnsafeRawBufferPointer

  package init(
    ticket: UInt16, queue: UnsafeRawBufferPointer, exchange: UnsafeRawBufferPointer,
    routingKey: UnsafeRawBufferPointer, noWait: Bool, arguments: UnsafeRawBufferPointer
  ) {
    self.ticket = ticket
    self.queue = queue
    self.exchange = exchange
    self.routingKey = routingKey
    self.noWait = noWait
    self.arguments = arguments
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    queue = try reader.shortstr()
    exchange = try reader.shortstr()
    routingKey = try reader.shortstr()
    let bits4 = try reader.octet()
    noWait = bits4 & 1 != 0
    arguments = try reader.table()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(queue)
    output.putShortString(exchange)
    output.putShortString(routingKey)
    output.putBig(UInt8((noWait ? 1 : 0)))
    output.putLongString(arguments)
    output.endFrame(start)
  }
}

/// queue.bind-ok
package struct QueueBindOK: MethodFields {
  package static let id = MethodID.queueBindOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// queue.purge
package struct QueuePurge: MethodFields {
  package static let id = MethodID.queuePurge
  package var ticket: UInt16
  package var queue: UnsafeRawBufferPointer
  package var noWait: Bool

  package init(ticket: UInt16, queue: UnsafeRawBufferPointer, noWait: Bool) {
    self.ticket = ticket
    self.queue = queue
    self.noWait = noWait
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    queue = try reader.shortstr()
    let bits2 = try reader.octet()
    noWait = bits2 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(queue)
    output.putBig(UInt8((noWait ? 1 : 0)))
    output.endFrame(start)
  }
}

/// queue.purge-ok
package struct QueuePurgeOK: MethodFields {
  package static let id = MethodID.queuePurgeOK
  package var messageCount: UInt32

  package init(messageCount: UInt32) {
    self.messageCount = messageCount
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    messageCount = try reader.long()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(messageCount)
    output.endFrame(start)
  }
}

/// queue.delete
package struct QueueDelete: MethodFields {
  package static let id = MethodID.queueDelete
  package var ticket: UInt16
  package var queue: UnsafeRawBufferPointer
  package var ifUnused: Bool
  package var ifEmpty: Bool
  package var noWait: Bool

  package init(
    ticket: UInt16, queue: UnsafeRawBufferPointer, ifUnused: Bool, ifEmpty: Bool, noWait: Bool
  ) {
    self.ticket = ticket
    self.queue = queue
    self.ifUnused = ifUnused
    self.ifEmpty = ifEmpty
    self.noWait = noWait
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    queue = try reader.shortstr()
    let bits2 = try reader.octet()
    ifUnused = bits2 & 1 != 0
    ifEmpty = bits2 & 2 != 0
    noWait = bits2 & 4 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(queue)
    output.putBig(UInt8((ifUnused ? 1 : 0) | (ifEmpty ? 2 : 0) | (noWait ? 4 : 0)))
    output.endFrame(start)
  }
}

/// queue.delete-ok
package struct QueueDeleteOK: MethodFields {
  package static let id = MethodID.queueDeleteOK
  package var messageCount: UInt32

  package init(messageCount: UInt32) {
    self.messageCount = messageCount
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    messageCount = try reader.long()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(messageCount)
    output.endFrame(start)
  }
}

/// queue.unbind
package struct QueueUnbind: MethodFields {
  package static let id = MethodID.queueUnbind
  package var ticket: UInt16
  package var queue: UnsafeRawBufferPointer
  package var exchange: UnsafeRawBufferPointer
  package var routingKey: UnsafeRawBufferPointer
  package var arguments: UnsafeRawBufferPointer

  package init(
    ticket: UInt16, queue: UnsafeRawBufferPointer, exchange: UnsafeRawBufferPointer,
    routingKey: UnsafeRawBufferPointer, arguments: UnsafeRawBufferPointer
  ) {
    self.ticket = ticket
    self.queue = queue
    self.exchange = exchange
    self.routingKey = routingKey
    self.arguments = arguments
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    queue = try reader.shortstr()
    exchange = try reader.shortstr()
    routingKey = try reader.shortstr()
    arguments = try reader.table()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(queue)
    output.putShortString(exchange)
    output.putShortString(routingKey)
    output.putLongString(arguments)
    output.endFrame(start)
  }
}

/// queue.unbind-ok
package struct QueueUnbindOK: MethodFields {
  package static let id = MethodID.queueUnbindOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// basic.qos
package struct BasicQos: MethodFields {
  package static let id = MethodID.basicQos
  package var prefetchSize: UInt32
  package var prefetchCount: UInt16
  package var global: Bool

  package init(prefetchSize: UInt32, prefetchCount: UInt16, global: Bool) {
    self.prefetchSize = prefetchSize
    self.prefetchCount = prefetchCount
    self.global = global
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    prefetchSize = try reader.long()
    prefetchCount = try reader.short()
    let bits2 = try reader.octet()
    global = bits2 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(prefetchSize)
    output.putBig(prefetchCount)
    output.putBig(UInt8((global ? 1 : 0)))
    output.endFrame(start)
  }
}

/// basic.qos-ok
package struct BasicQosOK: MethodFields {
  package static let id = MethodID.basicQosOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// basic.consume
package struct BasicConsume: MethodFields {
  package static let id = MethodID.basicConsume
  package var ticket: UInt16
  package var queue: UnsafeRawBufferPointer
  package var consumerTag: UnsafeRawBufferPointer
  package var noLocal: Bool
  package var noAck: Bool
  package var exclusive: Bool
  package var noWait: Bool
  package var arguments: UnsafeRawBufferPointer

  package init(
    ticket: UInt16, queue: UnsafeRawBufferPointer, consumerTag: UnsafeRawBufferPointer,
    noLocal: Bool, noAck: Bool, exclusive: Bool, noWait: Bool, arguments: UnsafeRawBufferPointer
  ) {
    self.ticket = ticket
    self.queue = queue
    self.consumerTag = consumerTag
    self.noLocal = noLocal
    self.noAck = noAck
    self.exclusive = exclusive
    self.noWait = noWait
    self.arguments = arguments
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    queue = try reader.shortstr()
    consumerTag = try reader.shortstr()
    let bits3 = try reader.octet()
    noLocal = bits3 & 1 != 0
    noAck = bits3 & 2 != 0
    exclusive = bits3 & 4 != 0
    noWait = bits3 & 8 != 0
    arguments = try reader.table()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(queue)
    output.putShortString(consumerTag)
    output.putBig(
      UInt8((noLocal ? 1 : 0) | (noAck ? 2 : 0) | (exclusive ? 4 : 0) | (noWait ? 8 : 0)))
    output.putLongString(arguments)
    output.endFrame(start)
  }
}

/// basic.consume-ok
package struct BasicConsumeOK: MethodFields {
  package static let id = MethodID.basicConsumeOK
  package var consumerTag: UnsafeRawBufferPointer

  package init(consumerTag: UnsafeRawBufferPointer) {
    self.consumerTag = consumerTag
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    consumerTag = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(consumerTag)
    output.endFrame(start)
  }
}

/// basic.cancel
package struct BasicCancel: MethodFields {
  package static let id = MethodID.basicCancel
  package var consumerTag: UnsafeRawBufferPointer
  package var noWait: Bool

  package init(consumerTag: UnsafeRawBufferPointer, noWait: Bool) {
    self.consumerTag = consumerTag
    self.noWait = noWait
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    consumerTag = try reader.shortstr()
    let bits1 = try reader.octet()
    noWait = bits1 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(consumerTag)
    output.putBig(UInt8((noWait ? 1 : 0)))
    output.endFrame(start)
  }
}

/// basic.cancel-ok
package struct BasicCancelOK: MethodFields {
  package static let id = MethodID.basicCancelOK
  package var consumerTag: UnsafeRawBufferPointer

  package init(consumerTag: UnsafeRawBufferPointer) {
    self.consumerTag = consumerTag
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    consumerTag = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(consumerTag)
    output.endFrame(start)
  }
}

/// basic.publish
package struct BasicPublish: MethodFields {
  package static let id = MethodID.basicPublish
  package var ticket: UInt16
  package var exchange: UnsafeRawBufferPointer
  package var routingKey: UnsafeRawBufferPointer
  package var mandatory: Bool
  package var immediate: Bool

  package init(
    ticket: UInt16, exchange: UnsafeRawBufferPointer, routingKey: UnsafeRawBufferPointer,
    mandatory: Bool, immediate: Bool
  ) {
    self.ticket = ticket
    self.exchange = exchange
    self.routingKey = routingKey
    self.mandatory = mandatory
    self.immediate = immediate
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    exchange = try reader.shortstr()
    routingKey = try reader.shortstr()
    let bits3 = try reader.octet()
    mandatory = bits3 & 1 != 0
    immediate = bits3 & 2 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(exchange)
    output.putShortString(routingKey)
    output.putBig(UInt8((mandatory ? 1 : 0) | (immediate ? 2 : 0)))
    output.endFrame(start)
  }
}

/// basic.return
package struct BasicReturn: MethodFields {
  package static let id = MethodID.basicReturn
  package var replyCode: UInt16
  package var replyText: UnsafeRawBufferPointer
  package var exchange: UnsafeRawBufferPointer
  package var routingKey: UnsafeRawBufferPointer

  package init(
    replyCode: UInt16, replyText: UnsafeRawBufferPointer, exchange: UnsafeRawBufferPointer,
    routingKey: UnsafeRawBufferPointer
  ) {
    self.replyCode = replyCode
    self.replyText = replyText
    self.exchange = exchange
    self.routingKey = routingKey
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    replyCode = try reader.short()
    replyText = try reader.shortstr()
    exchange = try reader.shortstr()
    routingKey = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(replyCode)
    output.putShortString(replyText)
    output.putShortString(exchange)
    output.putShortString(routingKey)
    output.endFrame(start)
  }
}

/// basic.deliver
package struct BasicDeliver: MethodFields {
  package static let id = MethodID.basicDeliver
  package var consumerTag: UnsafeRawBufferPointer
  package var deliveryTag: UInt64
  package var redelivered: Bool
  package var exchange: UnsafeRawBufferPointer
  package var routingKey: UnsafeRawBufferPointer

  package init(
    consumerTag: UnsafeRawBufferPointer, deliveryTag: UInt64, redelivered: Bool,
    exchange: UnsafeRawBufferPointer, routingKey: UnsafeRawBufferPointer
  ) {
    self.consumerTag = consumerTag
    self.deliveryTag = deliveryTag
    self.redelivered = redelivered
    self.exchange = exchange
    self.routingKey = routingKey
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    consumerTag = try reader.shortstr()
    deliveryTag = try reader.longlong()
    let bits2 = try reader.octet()
    redelivered = bits2 & 1 != 0
    exchange = try reader.shortstr()
    routingKey = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(consumerTag)
    output.putBig(deliveryTag)
    output.putBig(UInt8((redelivered ? 1 : 0)))
    output.putShortString(exchange)
    output.putShortString(routingKey)
    output.endFrame(start)
  }
}

/// basic.get
package struct BasicGet: MethodFields {
  package static let id = MethodID.basicGet
  package var ticket: UInt16
  package var queue: UnsafeRawBufferPointer
  package var noAck: Bool

  package init(ticket: UInt16, queue: UnsafeRawBufferPointer, noAck: Bool) {
    self.ticket = ticket
    self.queue = queue
    self.noAck = noAck
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    ticket = try reader.short()
    queue = try reader.shortstr()
    let bits2 = try reader.octet()
    noAck = bits2 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(ticket)
    output.putShortString(queue)
    output.putBig(UInt8((noAck ? 1 : 0)))
    output.endFrame(start)
  }
}

/// basic.get-ok
package struct BasicGetOK: MethodFields {
  package static let id = MethodID.basicGetOK
  package var deliveryTag: UInt64
  package var redelivered: Bool
  package var exchange: UnsafeRawBufferPointer
  package var routingKey: UnsafeRawBufferPointer
  package var messageCount: UInt32

  package init(
    deliveryTag: UInt64, redelivered: Bool, exchange: UnsafeRawBufferPointer,
    routingKey: UnsafeRawBufferPointer, messageCount: UInt32
  ) {
    self.deliveryTag = deliveryTag
    self.redelivered = redelivered
    self.exchange = exchange
    self.routingKey = routingKey
    self.messageCount = messageCount
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    deliveryTag = try reader.longlong()
    let bits1 = try reader.octet()
    redelivered = bits1 & 1 != 0
    exchange = try reader.shortstr()
    routingKey = try reader.shortstr()
    messageCount = try reader.long()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(deliveryTag)
    output.putBig(UInt8((redelivered ? 1 : 0)))
    output.putShortString(exchange)
    output.putShortString(routingKey)
    output.putBig(messageCount)
    output.endFrame(start)
  }
}

/// basic.get-empty
package struct BasicGetEmpty: MethodFields {
  package static let id = MethodID.basicGetEmpty
  package var clusterID: UnsafeRawBufferPointer

  package init(clusterID: UnsafeRawBufferPointer) {
    self.clusterID = clusterID
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    clusterID = try reader.shortstr()
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putShortString(clusterID)
    output.endFrame(start)
  }
}

/// basic.ack
package struct BasicAck: MethodFields {
  package static let id = MethodID.basicAck
  package var deliveryTag: UInt64
  package var multiple: Bool

  package init(deliveryTag: UInt64, multiple: Bool) {
    self.deliveryTag = deliveryTag
    self.multiple = multiple
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    deliveryTag = try reader.longlong()
    let bits1 = try reader.octet()
    multiple = bits1 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(deliveryTag)
    output.putBig(UInt8((multiple ? 1 : 0)))
    output.endFrame(start)
  }
}

/// basic.reject
package struct BasicReject: MethodFields {
  package static let id = MethodID.basicReject
  package var deliveryTag: UInt64
  package var requeue: Bool

  package init(deliveryTag: UInt64, requeue: Bool) {
    self.deliveryTag = deliveryTag
    self.requeue = requeue
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    deliveryTag = try reader.longlong()
    let bits1 = try reader.octet()
    requeue = bits1 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(deliveryTag)
    output.putBig(UInt8((requeue ? 1 : 0)))
    output.endFrame(start)
  }
}

/// basic.recover-async
package struct BasicRecoverAsync: MethodFields {
  package static let id = MethodID.basicRecoverAsync
  package var requeue: Bool

  package init(requeue: Bool) {
    self.requeue = requeue
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    let bits0 = try reader.octet()
    requeue = bits0 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(UInt8((requeue ? 1 : 0)))
    output.endFrame(start)
  }
}

/// basic.recover
package struct BasicRecover: MethodFields {
  package static let id = MethodID.basicRecover
  package var requeue: Bool

  package init(requeue: Bool) {
    self.requeue = requeue
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    let bits0 = try reader.octet()
    requeue = bits0 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(UInt8((requeue ? 1 : 0)))
    output.endFrame(start)
  }
}

/// basic.recover-ok
package struct BasicRecoverOK: MethodFields {
  package static let id = MethodID.basicRecoverOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// basic.nack
package struct BasicNack: MethodFields {
  package static let id = MethodID.basicNack
  package var deliveryTag: UInt64
  package var multiple: Bool
  package var requeue: Bool

  package init(deliveryTag: UInt64, multiple: Bool, requeue: Bool) {
    self.deliveryTag = deliveryTag
    self.multiple = multiple
    self.requeue = requeue
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    deliveryTag = try reader.longlong()
    let bits1 = try reader.octet()
    multiple = bits1 & 1 != 0
    requeue = bits1 & 2 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(deliveryTag)
    output.putBig(UInt8((multiple ? 1 : 0) | (requeue ? 2 : 0)))
    output.endFrame(start)
  }
}

/// confirm.select
package struct ConfirmSelect: MethodFields {
  package static let id = MethodID.confirmSelect
  package var noWait: Bool

  package init(noWait: Bool) {
    self.noWait = noWait
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    let bits0 = try reader.octet()
    noWait = bits0 & 1 != 0
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.putBig(UInt8((noWait ? 1 : 0)))
    output.endFrame(start)
  }
}

/// confirm.select-ok
package struct ConfirmSelectOK: MethodFields {
  package static let id = MethodID.confirmSelectOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// tx.select
package struct TxSelect: MethodFields {
  package static let id = MethodID.txSelect
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// tx.select-ok
package struct TxSelectOK: MethodFields {
  package static let id = MethodID.txSelectOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// tx.commit
package struct TxCommit: MethodFields {
  package static let id = MethodID.txCommit
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// tx.commit-ok
package struct TxCommitOK: MethodFields {
  package static let id = MethodID.txCommitOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// tx.rollback
package struct TxRollback: MethodFields {
  package static let id = MethodID.txRollback
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// tx.rollback-ok
package struct TxRollbackOK: MethodFields {
  package static let id = MethodID.txRollbackOK
  package init() {
  }

  /// Reads the fields, which must be all that `reader` has.
  package init(_ reader: inout MethodReader) throws(MethodError) {
    try reader.end()
  }

  /// Appends the method's frame.
  package func encode(channel: UInt16, into output: inout [UInt8]) {
    let start = output.beginMethod(Self.id, channel: channel)
    output.endFrame(start)
  }
}

/// The flags of basic's 14 properties, in whose order they follow.
package enum PropertyFlag {
  /// shortstr
  package static let contentType: UInt16 = 1 << 15
  /// shortstr
  package static let contentEncoding: UInt16 = 1 << 14
  /// table
  package static let headers: UInt16 = 1 << 13
  /// octet
  package static let deliveryMode: UInt16 = 1 << 12
  /// octet
  package static let priority: UInt16 = 1 << 11
  /// shortstr
  package static let correlationID: UInt16 = 1 << 10
  /// shortstr
  package static let replyTo: UInt16 = 1 << 9
  /// shortstr
  package static let expiration: UInt16 = 1 << 8
  /// shortstr
  package static let messageID: UInt16 = 1 << 7
  /// timestamp
  package static let timestamp: UInt16 = 1 << 6
  /// shortstr
  package static let type: UInt16 = 1 << 5
  /// shortstr
  package static let userID: UInt16 = 1 << 4
  /// shortstr
  package static let appID: UInt16 = 1 << 3
  /// shortstr
  package static let clusterID: UInt16 = 1 << 2
}
