// Transactions of clients: checked like publishes, part by part, and handed on as one command.

import Base
import Node
import QueueMachine
import Wire

extension ClientGateway {
  mutating func takeTransact(
    _ transact: TransactView, from client: ClientConnection, now: MonotonicTime,
    replica: inout Replica
  ) throws(FrameError) -> Intake {
    for settle in transact.settles { try checkRanges(settle.ranges, of: .transact) }
    // Its numbers, which are refused as those of a publish are.
    let numbers = PublishView(
      queue: QueueID(0), first: transact.first, answeredThrough: transact.answeredThrough,
      count: transact.count, run: transact.run)
    guard case .attached(let session) = client.session else {
      refuseWithoutSession(numbers, client, replica)
      return .taken
    }
    guard replica.hasRoom else { return .noRoom }
    guard maySend(numbers, client) else { return .taken }
    if let fault = fault(of: transact) {
      refuseForGood(numbers, fault.refusal, fault.detail, client, session, now, &replica)
      return .taken
    }
    replica.submit(now: now) {
      CommandWriter.transact(
        session, first: transact.first, answeredThrough: transact.answeredThrough,
        holder: transact.holder, settles: transact.settles.map(TransactionSettle.init),
        parts: transact.parts.map(TransactionPart.init), run: transact.run, into: &$0)
    }
    client.unansweredPublishes += transact.count
    counters.published += transact.count
    return .taken
  }

  /// What is wrong with the messages themselves.
  private func fault(of transact: TransactView) -> (refusal: Refusal, detail: String)? {
    for (place, part) in transact.parts.enumerated() {
      do throws(MessageRecordError) {
        let count = try MessageRecord.check(
          transact.run(of: place), contentBytesMax: configuration.limits.messageBytes)
        if count != part.count {
          return (.messageMalformed, "\(part.count) messages announced and \(count) sent")
        }
      } catch {
        return (error.refusal, error.sentence)
      }
    }
    return nil
  }
}

extension TransactionSettle {
  fileprivate init(_ settle: TransactSettle) {
    self.init(
      consumer: settle.consumer, kind: settle.kind, ranges: settle.ranges, delay: settle.delay,
      error: settle.error)
  }
}

extension TransactionPart {
  fileprivate init(_ part: TransactPart) {
    self.init(queues: part.queues, count: part.count, runBytes: part.runBytes)
  }
}
