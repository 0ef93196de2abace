// The bounds of the client side that nobody configures (G13). What is configurable is in
// `ServerConfiguration.Limits` and `Timeouts`.

import Base

enum ClientGatewayLimits {
  /// Connections accepted in one turn of the loop; the others come in the next.
  static let acceptsPerTurn = 64
  /// Bytes read from one connection in one turn.
  static let readBytesPerTurn = 256 << 10
  /// The largest payload of the frame by which a client introduces itself.
  static let helloBytes = 8_192
  /// What all connections together may have sent of frames that are not taken yet, beyond the first
  /// `begunBytesFree` of each.
  static let begunBytes = 512 << 20
  static let begunBytesFree = 64 << 10
  /// Requests of one connection that wait for their reply; more are refused.
  static let waitingRequestsPerConnection = 1_024
  /// The longest time that a session outlives its connection, in `timeouts.session`.
  static let sessionTimeoutFactor: UInt64 = 6
  /// Sentences kept for publishes of one connection that are about to be refused.
  static let publishFaults = 16
  /// Reads of all connections that wait for the leader to be sure of itself; more are refused.
  static let waitingReads = 8_192
  /// Requests about the node and the members that wait for the loop; more are refused.
  static let waitingNodeRequests = 1_024
  /// Deliveries are written to a connection while fewer bytes than this wait to be sent. Enough to
  /// keep a fast reader busy until the next turn; what is beyond waits as numbers in the outbox.
  static let deliverBytesPending = 1 << 20
  /// Bytes of deliveries written in one turn of the loop, to all connections of a gateway.
  static let deliverBytesPerTurn = 64 << 20
  /// Bytes of deliveries that wait to be sent to all connections of a gateway, but for the last message. Half
  /// of it is for who comes first, of the other half each connection has its share.
  static let outputBytes = 512 << 20
  /// With answers, and the last message, it may be so much more: then somebody is closed.
  static let answerBytes = 256 << 20
  /// Where somebody gets nothing for so long, for what waits for others, some who do not read are closed.
  static let outputPatience = Nanoseconds.seconds(5)
  /// A deliver frame takes no further message when it is this large: the write buffer is then just
  /// one chunk, which is used again.
  static let deliverFrameBytes = 60 << 10
  /// Deliveries waiting for one connection. Credit bounds them already; this bounds what a client
  /// can make of its credit.
  static let outboxItems = 1 << 20
  /// Bytes of records in one answer to a peek, unless its first record alone has more.
  static let peekBytes = 4 << 20
  /// Messages in one answer to a peek.
  static let peekMessages = 1_000
  /// How long a connection that is being closed may take to read its last words.
  static let lingerTime = Nanoseconds.seconds(2)
  /// Connections that are being closed with last words; more are closed without.
  static let lingeringConnections = 256
  /// Without descriptors nobody is accepted for so long.
  static let acceptPause = Nanoseconds.milliseconds(100)
  /// How soon a record that was not to be had is looked for again.
  static let deliverRetry = Nanoseconds.milliseconds(20)
}
