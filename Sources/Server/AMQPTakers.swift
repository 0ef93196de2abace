// What the channels of one connection take by basic.get. The machine of queues knows who takes as a
// consumer, which lasts while it holds something: here there is one for each channel and queue for as
// long, so that a connection that gets from ever new queues does not grow.

import AMQP
import Base
import QueueMachine

struct AMQPTakers {
  struct Taker {
    var channel: ChannelID
    var queue: String
    /// Taken, and no settle of it is on its way.
    var held = 0
    /// A get has no answer yet.
    var isAsking = true
  }

  private struct Place: Hashable {
    var channel: ChannelID
    var queue: String
  }

  /// Their numbers are above those that the connection's machine gives to consumers.
  static let first: UInt32 = 1 << 31
  /// The number given last; behind the largest they begin anew.
  private var last = first
  private var takers: [ConsumerID: Taker] = [:]
  private var places: [Place: ConsumerID] = [:]

  init() {}

  /// For tests: the numbers go on behind `last`.
  init(behind last: UInt32) { self.last = last }

  static func owns(_ consumer: ConsumerID) -> Bool { consumer.rawValue >= first }

  var count: Int { takers.count }
  subscript(_ taker: ConsumerID) -> Taker? { takers[taker] }

  /// Who is to take for a get of the channel, which asks for one thing at a time.
  mutating func ask(_ queue: String, of channel: ChannelID) -> ConsumerID {
    let place = Place(channel: channel, queue: queue)
    if let known = places[place] {
      takers[known]?.isAsking = true
      return known
    }
    repeat { last = last == .max ? Self.first : last + 1 } while takers[ConsumerID(last)] != nil
    let taker = ConsumerID(last)
    takers[taker] = Taker(channel: channel, queue: queue)
    places[place] = taker
    return taker
  }

  /// The get was answered.
  ///
  /// - Parameter holds: with a message that is to be settled.
  mutating func answered(_ taker: ConsumerID, holds: Bool) {
    takers[taker]?.isAsking = false
    if holds { takers[taker]?.held += 1 }
    forgetIfIdle(taker)
  }

  /// Settles are on their way that will be carried out; those of consumers mean nothing here.
  mutating func settled(_ settles: ArraySlice<SettleRequest>) {
    for settle in settles where AMQPTakers.owns(settle.consumer) {
      takers[settle.consumer]?.held -= settle.count
      forgetIfIdle(settle.consumer)
    }
  }

  private mutating func forgetIfIdle(_ taker: ConsumerID) {
    guard let state = takers[taker], !state.isAsking, state.held <= 0 else { return }
    forget(taker)
  }

  /// The machine of queues has forgotten it, and what it held: its queue is gone. One that asks is known
  /// there anew, under the same number, if there is such a queue again by then.
  mutating func queueIsGone(_ taker: ConsumerID) {
    takers[taker]?.held = 0
    forgetIfIdle(taker)
  }

  private mutating func forget(_ taker: ConsumerID) {
    guard let state = takers.removeValue(forKey: taker) else { return }
    places[Place(channel: state.channel, queue: state.queue)] = nil
  }

  /// Forgets those of a channel.
  mutating func removeAll(of channel: ChannelID) -> [ConsumerID] {
    let gone = takers.filter { $0.value.channel == channel }.map(\.key)
    for taker in gone { forget(taker) }
    return gone
  }
}
