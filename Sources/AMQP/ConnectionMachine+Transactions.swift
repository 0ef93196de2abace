// tx: publishes and settles wait here until the client commits, then go to the broker in one
// request, which is one log entry (G10). Their faults come with the commit.

import Base

extension ConnectionMachine {
  mutating func selectTransactions(_ method: TxSelect, _ place: Int) throws(Failure) {
    if channels[place].mode == .confirm {
      throw .fault(Fault(.preconditionFailed, "cannot switch from confirm to tx mode"))
    }
    channels[place].mode = .transaction
    answerBehindPublishes(TxSelectOK(), place, .txSelect)
  }

  private func checkIsTransactional(_ place: Int) throws(Failure) {
    guard channels[place].mode != .transaction else { return }
    throw .fault(Fault(.preconditionFailed, "channel is not transactional"))
  }

  /// Takes a publish that lies at the end of the requests' bytes.
  mutating func addToTransaction(
    _ publish: PublishRequest, from start: Int, _ place: Int
  ) throws(Failure) {
    let moved = channels[place].transaction.bytes.count - start
    let count = requests.bytes.count - start
    channels[place].transaction.bytes.append(contentsOf: requests.bytes[start...])
    requests.bytes.removeSubrange(start...)
    channels[place].transaction.publishes.append(publish.moved(by: moved))
    try charge(count + publish.chargeBesidesContent, naming: .method(.basicPublish))
  }

  mutating func addToTransaction(
    _ outcome: SettleOutcome, _ unsettled: Unsettled, _ place: Int
  ) throws(Failure) {
    channels[place].transaction.settles.append((outcome, unsettled))
    try charge(MemoryLayout<Unsettled>.size, naming: .current)
  }

  private mutating func charge(_ bytes: Int, naming: Failure.Naming) throws(Failure) {
    transactionBytes += bytes
    guard transactionBytes > settings.transactionBytesMax else { return }
    throw .fault(
      Fault(
        .resourceError, "transactions are larger than \(settings.transactionBytesMax) bytes"),
      naming: naming)
  }

  mutating func dropTransaction(ofChannelAt place: Int) {
    let transaction = channels[place].transaction
    transactionBytes -=
      transaction.bytes.count + transaction.publishes.reduce(0) { $0 + $1.chargeBesidesContent }
      + transaction.settles.count * MemoryLayout<Unsettled>.size
    channels[place].transaction = Transaction()
  }

  mutating func commit(_ method: TxCommit, _ place: Int) throws(Failure) {
    try checkIsTransactional(place)
    let transaction = channels[place].transaction
    dropTransaction(ofChannelAt: place)
    guard !transaction.isEmpty else {
      TxCommitOK().encode(channel: channels[place].number, into: &output)
      return
    }
    // Another channel's content may lie open at the end of the bytes.
    parkOpenContent()
    let moved = requests.bytes.count
    let firstPublish = requests.publishes.count
    let firstSettle = requests.settles.count
    requests.bytes.append(contentsOf: transaction.bytes)
    for publish in transaction.publishes { requests.publishes.append(publish.moved(by: moved)) }
    for (outcome, unsettled) in transaction.settles {
      requests.appendSettle(
        outcome, unsettled, of: channels[place].id, joiningFrom: firstSettle)
    }
    ask(
      .commit(
        publishes: firstPublish..<requests.publishes.count,
        settles: firstSettle..<requests.settles.count), place, .txCommit, .commit)
  }

  /// Publishes are forgotten, what was settled is held again.
  mutating func rollBack(_ method: TxRollback, _ place: Int) throws(Failure) {
    try checkIsTransactional(place)
    let settles = channels[place].transaction.settles
    dropTransaction(ofChannelAt: place)
    if !settles.isEmpty { channels[place].unsettled.putBack(settles.map(\.unsettled)) }
    TxRollbackOK().encode(channel: channels[place].number, into: &output)
  }
}

extension PublishRequest {
  /// Exchange, keys and content type go into the log once more: what a transaction takes there stays
  /// below twice its charge by far, and below what one frame between nodes holds.
  fileprivate var chargeBesidesContent: Int {
    let again = exchange.count + routingKey.count + min(properties.count, 255)
    return copies.reduce(MemoryLayout<Self>.size + again) {
      $0 + MemoryLayout<[UInt8]>.size + $1.count
    }
  }

  /// With its bytes so many places further.
  fileprivate func moved(by count: Int) -> PublishRequest {
    func moved(_ range: Range<Int>) -> Range<Int> {
      range.lowerBound + count..<range.upperBound + count
    }
    var copy = self
    copy.exchange = moved(exchange)
    copy.routingKey = moved(routingKey)
    copy.properties = moved(properties)
    copy.headers = moved(headers)
    copy.body = moved(body)
    return copy
  }
}
