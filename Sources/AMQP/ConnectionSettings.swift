// What a node tells and allows its AMQP connections.

import Base

/// Who the broker says it is (connection.start).
package struct ServerProperties: Hashable, Sendable {
  /// Clients look at it: Celery sends basic.qos global=true to a "RabbitMQ" from 3.3 and below 4.
  package var product = "Skein"
  package var version: String
  package var platform = "Swift"
  package var clusterName: String
  package var copyright = ""
  package var information = "https://www.rabbitmq.com/amqp-0-9-1-reference.html"

  package init(version: String, clusterName: String) {
    self.version = version
    self.clusterName = clusterName
  }
}

/// The limits of one connection.
package struct ConnectionSettings: Hashable, Sendable {
  package var server: ServerProperties
  /// Proposed to the client, which may lower it: bytes of a whole frame, header and end included.
  package var frameBytesMax: UInt32 = 131_072
  /// How many channels may be open at once.
  package var channelMax: UInt16 = 2047
  /// Proposed to the client, whose answer counts; seconds, 0 for none.
  package var heartbeatSeconds: UInt16 = 60
  /// From the connection to connection.open.
  package var handshakeTimeout = Nanoseconds.seconds(10)
  /// How long a peer may take for its part of a close.
  package var closeTimeout = Nanoseconds.seconds(10)
  /// The largest body.
  package var messageBytesMax = 32 << 20
  /// All content of one transaction.
  package var transactionBytesMax = 33 << 20
  /// Content begun on all channels of the connection and not complete.
  package var assemblyBytesMax = 64 << 20
  package var consumersPerChannelMax = 1024
  /// Routing keys of one message in `CC` and `BCC`.
  package var copiesPerMessageMax = 1023

  package init(server: ServerProperties) { self.server = server }
}
