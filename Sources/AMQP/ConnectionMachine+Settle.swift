// Acknowledgements by delivery tag. Tags are the channel's own; what reaches the broker are ranges
// of its deliveries.

import Base

extension ConnectionMachine {
  mutating func acknowledge(_ method: BasicAck, _ place: Int) throws(Failure) {
    try settle(.acknowledged, method.deliveryTag, multiple: method.multiple, place)
  }

  mutating func negativeAcknowledge(_ method: BasicNack, _ place: Int) throws(Failure) {
    try settle(
      method.requeue ? .requeued : .rejected, method.deliveryTag, multiple: method.multiple,
      place)
  }

  mutating func reject(_ method: BasicReject, _ place: Int) throws(Failure) {
    try settle(
      method.requeue ? .requeued : .rejected, method.deliveryTag, multiple: false, place)
  }

  private mutating func settle(
    _ outcome: SettleOutcome, _ tag: UInt64, multiple: Bool, _ place: Int
  ) throws(Failure) {
    let unknown = Failure.fault(
      Fault(.preconditionFailed, "unknown delivery tag \(tag)"))
    if multiple {
      var taken: [Unsettled] = []
      if tag == 0 {
        channels[place].unsettled.takeAll { taken.append($0) }
      } else {
        guard channels[place].unsettled.takeAll(through: tag, { taken.append($0) }) else {
          throw unknown
        }
      }
      for unsettled in taken { try settle(outcome, unsettled, place) }
    } else {
      guard let unsettled = channels[place].unsettled.take(tag) else { throw unknown }
      try settle(outcome, unsettled, place)
    }
  }

  private mutating func settle(
    _ outcome: SettleOutcome, _ unsettled: Unsettled, _ place: Int
  ) throws(Failure) {
    if channels[place].mode == .transaction {
      try addToTransaction(outcome, unsettled, place)
    } else {
      requests.append(outcome, unsettled, of: channels[place].id)
    }
  }

  /// Everything that the channel holds goes back, whatever transaction is open: deliveries begin
  /// anew.
  mutating func recover(_ requeue: Bool, _ place: Int, _ method: MethodID) throws(Failure) {
    guard requeue else { throw .fault(Fault(.notImplemented, "requeue=false")) }
    var taken: [Unsettled] = []
    channels[place].unsettled.takeAll { taken.append($0) }
    for unsettled in taken { requests.append(.requeued, unsettled, of: channels[place].id) }
    if method == .basicRecover { answerBehindPublishes(BasicRecoverOK(), place, method) }
  }
}
