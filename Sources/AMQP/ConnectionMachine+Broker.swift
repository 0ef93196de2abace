// What the broker decided becomes frames.

import Base

extension ConnectionMachine {
  // MARK: Answers

  /// Answers a request. Answers to what is closed meanwhile are dropped.
  package mutating func answer(
    _ token: RequestToken, _ answer: BrokerAnswer, output: inout [UInt8],
    requests: inout BrokerRequests
  ) {
    lend(&output, &requests) { machine in
      if token == machine.connectionToken {
        machine.connectionToken = nil
        machine.takeConnectionAnswer(answer)
      } else if let channel = machine.waitingChannels[token.rawValue],
        let place = machine.place(of: channel), let pending = machine.channels[place].pending
      {
        machine.stopWaiting(place)
        machine.takeAnswer(answer, to: pending, place)
      }
    }
  }

  private mutating func takeConnectionAnswer(_ answer: BrokerAnswer) {
    switch (phase, answer) {
    case (.authenticating, .done): sendTune()
    case (.authenticating, _): refuseLogin(authenticating.mechanism)
    case (.openingVhost, .done): finishHandshake()
    case (.openingVhost, .refused(let fault)):
      vhost = nil
      sendClose(fault, .connectionOpen)
      phase = .closing
    case (.closingByClient, _): finishClose()
    default: invariant(false, "\(answer) to a connection that is \(phase)")
    }
  }

  private mutating func takeAnswer(
    _ answer: BrokerAnswer, to pending: PendingRequest, _ place: Int
  ) {
    if case .refused(let fault) = answer, !pending.kind.isClose {
      if case .cancel(let consumer) = pending.kind { _ = removeConsumer(consumer, place) }
      fail(.fault(fault), channels[place].number, pending.method)
      return
    }
    let number = channels[place].number
    switch (pending.kind, answer) {
    case (.declareQueue(let name), .queueDeclared(let messages, let consumers)):
      channels[place].lastQueue = name
      if !pending.noWait {
        sendDeclared(name, messages: messages, consumers: consumers, place)
      }
    case (.ok(let method), .done):
      if !pending.noWait { sendEmpty(method, number) }
    case (.frame(let bytes), .done): output += bytes
    case (.messages(let method), .messages(let count)):
      if pending.noWait { break }
      if method == .queuePurgeOK {
        QueuePurgeOK(messageCount: count).encode(channel: number, into: &output)
      } else {
        QueueDeleteOK(messageCount: count).encode(channel: number, into: &output)
      }
    case (.consume(let consumer), .done), (.consume(let consumer), .replyAddress):
      takeConsumer(consumer, answer, noWait: pending.noWait, place)
    case (.cancel(let id), .done):
      let consumer = removeConsumer(id, place)
      if !pending.noWait, let consumer { sendCancelOK(consumer.tag, place) }
    case (.get, .getEmpty):
      BasicGetEmpty(clusterID: UnsafeRawBufferPointer(start: nil, count: 0))
        .encode(channel: number, into: &output)
    case (.commit, .done): TxCommitOK().encode(channel: number, into: &output)
    case (.close, _):
      ChannelCloseOK().encode(channel: number, into: &output)
      removeChannel(at: place)
    default:
      invariant(false, "\(answer) to \(pending.method.name)")
    }
  }

  /// An answer that has no fields.
  private mutating func sendEmpty(_ method: MethodID, _ channel: UInt16) {
    let start = output.beginMethod(method, channel: channel)
    output.endFrame(start)
  }

  private mutating func takeConsumer(
    _ consumer: ChannelConsumer, _ answer: BrokerAnswer, noWait: Bool, _ place: Int
  ) {
    if case .replyAddress(let address) = answer {
      channels[place].replyAddress = [UInt8](address.utf8)
    }
    channels[place].consumers.append(consumer)
    consumers.insert(channels[place].number, for: UInt64(consumer.id.rawValue))
    guard !noWait else { return }
    consumer.tag.withUnsafeBytes {
      BasicConsumeOK(consumerTag: $0).encode(channel: channels[place].number, into: &output)
    }
  }

  // MARK: Messages

  /// Of a whole frame that is sent.
  private var sentFrameBytesMax: Int { payloadBytesMax }

  /// Answers a get with a message; `remaining` messages nobody holds are left in the queue. False
  /// if the channel is closed meanwhile: its messages have gone back.
  package mutating func answerGet(
    _ token: RequestToken, _ delivery: BrokerDelivery, remaining: UInt32,
    output: inout [UInt8]
  ) -> Bool {
    guard let channel = waitingChannels[token.rawValue], let place = place(of: channel),
      let pending = channels[place].pending, case .get(let noAck) = pending.kind
    else { return false }
    stopWaiting(place)
    lend(&output) { machine in
      let tag = machine.nextTag(delivery, noAck: noAck, place)
      machine.output.putMessage(
        .basicGetOK, channel: channel.number, delivery.content,
        frameBytesMax: machine.sentFrameBytesMax
      ) {
        $0.put(tag)
        $0.put(flag: delivery.isRedelivered)
        $0.put(short: delivery.content.exchange)
        $0.put(short: delivery.content.routingKey)
        $0.put(remaining)
      }
    }
    return true
  }

  private mutating func nextTag(
    _ delivery: BrokerDelivery, noAck: Bool, _ place: Int
  ) -> UInt64 {
    channels[place].lastDeliveryTag += 1
    let tag = channels[place].lastDeliveryTag
    if !noAck {
      channels[place].unsettled.append(
        Unsettled(tag: tag, consumer: delivery.consumer, delivery: delivery.delivery))
    }
    return tag
  }

  /// Sends a message to a consumer. False, and nothing sent, if there is no such consumer any more:
  /// the broker has to take the message back, unless the channel was closed.
  package mutating func deliver(_ delivery: BrokerDelivery, output: inout [UInt8]) -> Bool {
    guard let number = consumers[UInt64(delivery.consumer.rawValue)],
      let place = slots[UInt64(number)],
      let index = channels[place].place(of: delivery.consumer)
    else { return false }
    lend(&output) { machine in
      let noAck = machine.channels[place].consumers[index].noAck
      let tag = machine.nextTag(delivery, noAck: noAck, place)
      let consumerTag = machine.channels[place].consumers[index].tag
      machine.output.putMessage(
        .basicDeliver, channel: number, delivery.content,
        frameBytesMax: machine.sentFrameBytesMax
      ) {
        $0.put(short: consumerTag)
        $0.put(tag)
        $0.put(flag: delivery.isRedelivered)
        $0.put(short: delivery.content.exchange)
        $0.put(short: delivery.content.routingKey)
      }
    }
    return true
  }

  /// The queue of a consumer is gone. The consumer is forgotten; what it holds can be settled.
  package mutating func cancelConsumer(_ consumer: ConsumerID, output: inout [UInt8]) {
    guard let number = consumers[UInt64(consumer.rawValue)], let place = slots[UInt64(number)],
      let removed = removeConsumer(consumer, place), capabilities.consumerCancelNotify
    else { return }
    lend(&output) { machine in
      removed.tag.withUnsafeBytes {
        BasicCancel(consumerTag: $0, noWait: true).encode(channel: number, into: &machine.output)
      }
    }
  }

  // MARK: Publishes

  /// An unroutable message comes back to its publisher. To be called before its `confirm`.
  package mutating func returnMessage(
    _ channel: ChannelID, code: ReplyCode, content: BrokerContent, output: inout [UInt8]
  ) {
    // What comes before close-ok is still told.
    guard phase == .open, let place = place(of: channel), channels[place].phase != .closing else {
      return
    }
    lend(&output) { machine in
      machine.output.putMessage(
        .basicReturn, channel: channel.number, content,
        frameBytesMax: machine.sentFrameBytesMax
      ) {
        $0.put(code.rawValue)
        $0.put(short: [UInt8](code.name.utf8))
        $0.put(short: content.exchange)
        $0.put(short: content.routingKey)
      }
    }
  }

  /// The channel's publishes from `first` to `last` are stored (or went nowhere). They need not
  /// come in order. Sent by `flush`.
  package mutating func confirm(
    _ channel: ChannelID, first: ChannelSequence, last: ChannelSequence
  ) {
    guard let place = confirmingPlace(of: channel, last) else { return }
    let base = channels[place].publishedBeforeConfirm
    guard last.rawValue > base else { return }
    channels[place].confirms.confirm(
      max(first.rawValue, base + 1) - base...last.rawValue - base)
    if !channels[place].isConfirming {
      channels[place].isConfirming = true
      confirming.append(channel)
    }
  }

  private func confirmingPlace(of channel: ChannelID, _ last: ChannelSequence) -> Int? {
    guard phase == .open, let place = place(of: channel), channels[place].phase == .open,
      channels[place].mode == .confirm
    else { return nil }
    invariant(
      last.rawValue <= channels[place].published,
      "a confirm of publish \(last) of \(channels[place].published)")
    return place
  }

  /// The channel's publishes from `first` to `last` are not stored and never will be, for reasons
  /// of the broker's: basic.nack. Without confirm mode nobody is told.
  package mutating func refusePublish(
    _ channel: ChannelID, first: ChannelSequence, last: ChannelSequence, output: inout [UInt8]
  ) {
    guard let place = confirmingPlace(of: channel, last) else { return }
    let base = channels[place].publishedBeforeConfirm
    guard last.rawValue > base else { return }
    let range = max(first.rawValue, base + 1) - base...last.rawValue - base
    lend(&output) { machine in
      machine.writeConfirms(place)
      for tag in range {
        BasicNack(deliveryTag: tag, multiple: false, requeue: false)
          .encode(channel: channel.number, into: &machine.output)
      }
    }
    channels[place].confirms.refuse(range)
  }

  /// A publish was wrong: the channel (or the connection) is closed with `fault`, 60.40.
  package mutating func failPublish(
    _ channel: ChannelID, _ fault: Fault, output: inout [UInt8], requests: inout BrokerRequests
  ) {
    guard phase == .open, let place = place(of: channel), channels[place].phase == .open else {
      return
    }
    lend(&output, &requests) { $0.fail(.fault(fault), channel.number, .basicPublish) }
  }

  /// Writes what was gathered: confirms.
  package mutating func flush(output: inout [UInt8]) {
    guard !confirming.isEmpty else { return }
    lend(&output) { machine in
      for channel in machine.confirming {
        if let place = machine.place(of: channel) { machine.writeConfirms(place) }
      }
      machine.confirming.removeAll(keepingCapacity: true)
    }
  }

  mutating func writeConfirms(_ place: Int) {
    channels[place].isConfirming = false
    guard channels[place].confirms.hasNews else { return }
    let number = channels[place].number
    // Taken out for the call, so that both can be written to at once.
    var confirms = ConfirmBook()
    swap(&confirms, &channels[place].confirms)
    confirms.tell { tag, multiple in
      BasicAck(deliveryTag: tag, multiple: multiple).encode(channel: number, into: &output)
    }
    swap(&confirms, &channels[place].confirms)
  }

  // MARK: The node

  /// Tells the client, if it wants to know, that its publishes are not taken for now (why), or are
  /// again (nil). Connections that open meanwhile have to be told too; saying it again is nothing.
  package mutating func setBlocked(_ reason: String?, output: inout [UInt8]) {
    guard phase == .open, isBlocked != (reason != nil) else { return }
    isBlocked = reason != nil
    guard capabilities.connectionBlocked else { return }
    lend(&output) { machine in
      if let reason {
        reason.replyText.withUnsafeBytes {
          ConnectionBlocked(reason: $0).encode(channel: 0, into: &machine.output)
        }
      } else {
        ConnectionUnblocked().encode(channel: 0, into: &machine.output)
      }
    }
  }
}

extension PendingRequest.Kind {
  fileprivate var isClose: Bool {
    if case .close = self { true } else { false }
  }
}
