// What the broker tells a connection: the other half of the seam (see `BrokerRequest`). The gateway
// hands these to `ConnectionMachine`, which makes frames of them.

import Base

/// The answer to a request with a token. Each `BrokerRequest` says which cases fit it.
package enum BrokerAnswer: Sendable {
  case done
  /// Wrong password, or a user that may not come from there: the client is told no more than that.
  case loginRefused
  /// With what nobody holds, and how many consumers there are.
  case queueDeclared(messages: UInt32, consumers: UInt32)
  case messages(UInt32)
  case getEmpty
  case replyAddress(String)
  /// The channel or the connection is closed with this.
  case refused(Fault)
}

/// A message's parts, borrowed for the call.
package struct BrokerContent {
  package var exchange: UnsafeRawBufferPointer
  package var routingKey: UnsafeRawBufferPointer
  /// Flags and values, as in `PublishRequest.properties`.
  package var properties: UnsafeRawBufferPointer
  package var body: UnsafeRawBufferPointer

  // SAFETY: the caller keeps all four alive and unchanged while the value is used. Exchange and
  // routing key are at most 255 bytes long.
  package init(
    exchange: UnsafeRawBufferPointer, routingKey: UnsafeRawBufferPointer,
    properties: UnsafeRawBufferPointer, body: UnsafeRawBufferPointer
  ) {
    self.exchange = exchange
    self.routingKey = routingKey
    self.properties = properties
    self.body = body
  }
}

/// A message for a consumer, or the answer to a get.
package struct BrokerDelivery {
  /// As in `ConsumeRequest`; for a get whatever the broker settles by, above 2^31.
  package var consumer: ConsumerID
  /// The broker's number for it, by which it is settled.
  package var delivery: DeliveryID
  package var isRedelivered: Bool
  package var content: BrokerContent

  package init(
    consumer: ConsumerID, delivery: DeliveryID, isRedelivered: Bool, content: BrokerContent
  ) {
    self.consumer = consumer
    self.delivery = delivery
    self.isRedelivered = isRedelivered
    self.content = content
  }
}
