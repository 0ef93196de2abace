// One AMQP connection, from the protocol header to the last close: bytes in, requests and bytes
// out. Holds no socket and reads no clock. The gateway that owns it calls, per turn of its loop:
//
//     receive     with what was read; carry out the requests, empty the list
//     answer, deliver, confirm, …    with what the broker decided
//     flush       once, for what was gathered (confirms)
//     tick        when `nextDeadline` is reached
//
// and writes what was appended to `output`. Afterwards it looks at `state`: whether to go on
// reading, and whether the connection is over.

import Base

/// What the gateway is to do with the connection.
package enum ConnectionState: Hashable, Sendable {
  /// Read on.
  case receiving
  /// An answer is due before more is taken: read nothing, call `receive` again after `answer`.
  case waiting
  /// All was said. Send what is to be sent, shut the output down, drop what still comes until the
  /// peer closes.
  case finished
}

package struct ConnectionMachine: ~Copyable {
  package let settings: ConnectionSettings

  /// - Parameters:
  ///   - seed: from which names of queues and consumers are made up; different for every connection
  ///     that there ever was.
  package init(settings: ConnectionSettings, seed: UInt64, now: MonotonicTime) {
    self.settings = settings
  }

  // MARK: What the gateway asks

  package var state: ConnectionState { .receiving }

  /// When to call `tick` at the latest.
  package var nextDeadline: MonotonicTime { .never }

  /// Who logged in; nil before.
  package var user: String? { nil }
  /// What was opened; nil before.
  package var vhost: String? { nil }
  /// For people: what the client says of itself, `product version` or its connection name.
  package var clientName: String { "" }
  package var channelCount: Int { 0 }
  package var consumerCount: Int { 0 }
  /// Deliveries not yet settled.
  package var unsettledCount: Int { 0 }

  /// How many bytes the frame that begins with `bytes` has, to make room for it; 0 if it is not
  /// known yet.
  package func bytesNeeded(for bytes: UnsafeRawBufferPointer) -> Int { 0 }

  // MARK: What comes from the client

  /// Takes whole frames from the front of `bytes`; returns how many bytes were taken. The rest is
  /// to be given again, with more behind it, or when `state` is `.receiving` again.
  package mutating func receive(
    _ bytes: UnsafeRawBufferPointer, now: MonotonicTime, output: inout [UInt8],
    requests: inout BrokerRequests
  ) -> Int { 0 }

  /// Lets time pass: heartbeats, and whoever took too long.
  ///
  /// - Parameter isReading: false if the gateway does not read from the socket, so that silence is
  ///   not the client's.
  package mutating func tick(
    now: MonotonicTime, isReading: Bool, output: inout [UInt8], requests: inout BrokerRequests
  ) {}

  // MARK: What comes from the broker

  /// Answers a request. Answers to what is closed meanwhile are dropped.
  package mutating func answer(
    _ token: RequestToken, _ answer: BrokerAnswer, output: inout [UInt8],
    requests: inout BrokerRequests
  ) {}

  /// Answers a get with a message; `remaining` messages nobody holds are left in the queue. False
  /// if the channel is closed meanwhile: its messages have gone back.
  package mutating func answerGet(
    _ token: RequestToken, _ delivery: BrokerDelivery, remaining: UInt32,
    output: inout [UInt8]
  ) -> Bool { false }

  /// Sends a message to a consumer. False, and nothing sent, if there is no such consumer any more:
  /// the broker has to take the message back, unless the channel was closed.
  package mutating func deliver(_ delivery: BrokerDelivery, output: inout [UInt8]) -> Bool {
    false
  }

  /// The queue of a consumer is gone. The consumer is forgotten; what it holds can be settled.
  package mutating func cancelConsumer(_ consumer: ConsumerID, output: inout [UInt8]) {}

  /// An unroutable message comes back to its publisher. To be called before its `confirm`.
  package mutating func returnMessage(
    _ channel: ChannelID, code: ReplyCode, content: BrokerContent, output: inout [UInt8]
  ) {}

  /// The channel's publishes from `first` to `last` are stored (or went nowhere). They need not
  /// come in order. Sent by `flush`.
  package mutating func confirm(
    _ channel: ChannelID, first: ChannelSequence, last: ChannelSequence
  ) {}

  /// The channel's publishes from `first` to `last` are not stored and never will be, for reasons
  /// of the broker's: basic.nack. Without confirm mode nobody is told.
  package mutating func refusePublish(
    _ channel: ChannelID, first: ChannelSequence, last: ChannelSequence, output: inout [UInt8]
  ) {}

  /// A publish was wrong: the channel (or the connection) is closed with `fault`, 60.40.
  package mutating func failPublish(
    _ channel: ChannelID, _ fault: Fault, output: inout [UInt8], requests: inout BrokerRequests
  ) {}

  /// Closes one channel for a reason of the broker's.
  package mutating func closeChannel(
    _ channel: ChannelID, _ fault: Fault, output: inout [UInt8], requests: inout BrokerRequests
  ) {}

  /// Tells the client, if it wants to know, that its publishes are not taken for now (why), or are
  /// again (nil).
  package mutating func setBlocked(_ reason: String?, output: inout [UInt8]) {}

  /// Closes the connection: `Fault.forced` on shutdown. The client's close-ok is awaited for a
  /// while; the broker must take the connection as ended from here on.
  package mutating func close(
    _ fault: Fault, now: MonotonicTime, output: inout [UInt8], requests: inout BrokerRequests
  ) {}

  /// Writes what was gathered: confirms.
  package mutating func flush(output: inout [UInt8]) {}
}
