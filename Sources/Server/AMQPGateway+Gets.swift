// What basic.get took is written where deliveries are: while there is room, and in turn with them, so that
// who gets large messages that must be read from the disk keeps nobody else waiting.

import AMQP
import Base
import Node
import QueueMachine

extension AMQPGateway {
  private enum GetOutcome {
    case answered
    case damaged
    case later
    case unavailable
  }

  /// Answers the gets whose messages can be read. The others keep their order; what is damaged is fetched
  /// from the other nodes (G11).
  mutating func pumpGets(
    _ client: AMQPClient, _ room: OutputRoom, _ records: inout RecordSource,
    _ replica: inout Replica, now: MonotonicTime
  ) -> PumpEnd {
    guard client.phase == .open, !client.waitingGets.isEmpty else { return .ownReasons }
    var gets: [AMQPClient.WaitingGet] = []
    swap(&gets, &client.waitingGets)
    var kept: [AMQPClient.WaitingGet] = []
    var place = 0
    var end = PumpEnd.ownReasons
    looking: while place < gets.count, client.phase == .open {
      var get = gets[place]
      if now >= get.retryAt {
        let size = Int(get.delivery.reference.size)
        guard room.takes(size, behind: client.connection.pendingBytes) else {
          end = endOfRoom(of: client)
          break
        }
        switch maybeAnswer(get, client, replica, &records) {
        case .answered:
          // The connection may have waited for that.
          if client.isPaused { needsTurn = true }
          place += 1
          continue
        case .later:
          end = .reading
          break looking
        case .damaged: replica.entryIsDamaged(get.delivery.reference.entry, now: now)
        case .unavailable: break
        }
        get.retryAt = now + ClientGatewayLimits.deliverRetry
      }
      deliverRetry = min(deliverRetry, get.retryAt)
      kept.append(get)
      place += 1
    }
    guard client.phase == .open else { return .ownReasons }
    gets.replaceSubrange(..<place, with: kept)
    swap(&gets, &client.waitingGets)
    return end
  }

  /// Answers a get if its message can be read.
  private mutating func maybeAnswer(
    _ get: AMQPClient.WaitingGet, _ client: AMQPClient, _ replica: borrowing Replica,
    _ records: inout RecordSource
  ) -> GetOutcome {
    // Without its channel it has gone back already.
    guard let taker = client.takers[get.taker], let session = client.openSession else {
      return .answered
    }
    switch records.recordThisTurn(get.delivery.reference, cache: replica.cache) {
    case .damaged: return .damaged
    case .later: return .later
    case .unavailable: return .unavailable
    case .found(let payload, let range):
      payload.withUnsafeBytes { bytes in
        let record = UnsafeRawBufferPointer(rebasing: bytes[range])
        answer(get, with: record, from: taker.queue, session, client, replica)
      }
      return .answered
    }
  }

  private mutating func answer(
    _ get: AMQPClient.WaitingGet, with record: UnsafeRawBufferPointer, from queue: String,
    _ session: SessionID, _ client: AMQPClient, _ replica: borrowing Replica
  ) {
    let delivery = get.delivery
    var isTaken = false
    withContent(of: record, delivery, get.taker, queue, client, replica) { gateway, content in
      gateway.noteMistakes(of: content, from: queue, client, replica)
      gateway.say(to: client) { machine, output, _ in
        isTaken = machine.answerGet(
          get.token,
          BrokerDelivery(
            consumer: get.taker, delivery: delivery.delivery,
            isRedelivered: delivery.isRedelivery, content: content),
          remaining: UInt32(clamping: get.ready), output: &output)
      }
    }
    client.takers.answered(get.taker, holds: isTaken && !get.noAck)
    counters.delivered += 1
    if delivery.attempt > AMQPAdvice.attemptsMax { advise(.requeueLoop(queue: queue)) }
    guard !isTaken || get.noAck else { return }
    let one = DeliveryRange(first: delivery.delivery, last: delivery.delivery)
    settle([one], of: get.taker, isTaken ? .acknowledge : .release, session, client)
    needsTurn = true
  }
}
