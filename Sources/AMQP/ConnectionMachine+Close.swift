// The ends: of a channel by the client or for a fault, of the connection by the client, by a fault,
// by the node, or without a word.

import Base

extension ConnectionMachine {
  // MARK: Channels

  /// channel.close: the broker takes everything back before the client hears close-ok, so that who
  /// hears it finds the messages in their queues.
  mutating func close(_ method: ChannelClose, _ place: Int) throws(Failure) {
    channels[place].phase = .closingByClient
    writeConfirms(place)
    dropState(ofChannelAt: place)
    let token = makeToken()
    wait(place, for: token, .channelClose, .close)
    requests.requests.append(.closeChannel(token, channels[place].id))
  }

  /// Closes the channel for a fault.
  mutating func closeChannel(at place: Int, _ fault: Fault, _ method: MethodID?) {
    guard channels[place].phase != .closing else { return }
    let isBrokerTold = channels[place].phase == .closingByClient
    channels[place].phase = .closing
    writeConfirms(place)
    stopWaiting(place)
    dropState(ofChannelAt: place)
    fault.text.replyText.withUnsafeBytes { text in
      ChannelClose(
        replyCode: fault.code.rawValue, replyText: text, classID: method?.classID ?? 0,
        methodID: method?.methodID ?? 0
      ).encode(channel: channels[place].number, into: &output)
    }
    if !isBrokerTold {
      requests.requests.append(.closeChannel(makeToken(), channels[place].id))
    }
  }

  /// Closes one channel for a reason of the broker's.
  package mutating func closeChannel(
    _ channel: ChannelID, _ fault: Fault, output: inout [UInt8], requests: inout BrokerRequests
  ) {
    guard phase == .open, let place = place(of: channel) else { return }
    lend(&output, &requests) { $0.closeChannel(at: place, fault, nil) }
  }

  /// Forgets what the channel consumes, holds and has begun.
  private mutating func dropState(ofChannelAt place: Int) {
    for consumer in channels[place].consumers {
      consumers.remove(UInt64(consumer.id.rawValue))
    }
    channels[place].consumers = []
    channels[place].replyAddress = nil
    channels[place].unsettled = UnsettledBook()
    dropContent(ofChannelAt: place)
    dropTransaction(ofChannelAt: place)
  }

  mutating func removeChannel(at place: Int) {
    stopWaiting(place)
    dropState(ofChannelAt: place)
    slots.remove(UInt64(channels[place].number))
    channels.swapAt(place, channels.count - 1)
    channels.removeLast()
    if place < channels.count { slots.insert(place, for: UInt64(channels[place].number)) }
  }

  // MARK: Waiting for the broker

  mutating func wait(
    _ place: Int, for token: RequestToken, _ method: MethodID, _ kind: PendingRequest.Kind,
    noWait: Bool = false
  ) {
    channels[place].pending = PendingRequest(
      token: token, method: method, kind: kind, noWait: noWait)
    waitingChannels.insert(channels[place].id, for: token.rawValue)
  }

  mutating func stopWaiting(_ place: Int) {
    guard let pending = channels[place].pending else { return }
    waitingChannels.remove(pending.token.rawValue)
    channels[place].pending = nil
    isStalled = false
  }

  // MARK: The connection

  /// A frame was not carried out.
  mutating func fail(_ failure: Failure, _ channel: UInt16, _ method: MethodID?) {
    if phase == .closing || phase == .closed {
      // All was said; only frames that have no end are the end.
      if case .lostSync = failure { finish() }
      return
    }
    switch failure {
    case .silent:
      abandon()
    case .lostSync(let fault):
      if phase == .open { closeConnection(fault, nil) }
      abandon()
    case .fault(let fault, let naming):
      guard phase == .open else {
        abandon()
        return
      }
      let named: MethodID? =
        switch naming {
        case .current: method
        case .none: nil
        case .method(let other): other
        }
      if !fault.code.endsConnection, channel != 0, let place = slots[UInt64(channel)] {
        closeChannel(at: place, fault, named)
      } else {
        closeConnection(fault, named)
      }
    }
  }

  /// connection.close: as for a channel, the broker first.
  mutating func closeByClient() {
    for place in channels.indices { writeConfirms(place) }
    dropChannels()
    phase = .closingByClient
    // A cluster that cannot decide must not hold the client for ever.
    phaseDeadline = now + settings.closeTimeout
    let token = makeToken()
    connectionToken = token
    requests.requests.append(.closeConnection(token))
  }

  mutating func finishClose() {
    phase = .closed
    phaseDeadline = now + settings.closeTimeout
    ConnectionCloseOK().encode(channel: 0, into: &output)
  }

  /// Closes the connection for a fault and tells the broker. The client's close-ok is awaited.
  mutating func closeConnection(_ fault: Fault, _ method: MethodID?) {
    guard phase == .open || phase == .openingVhost else { return }
    for place in channels.indices { writeConfirms(place) }
    dropChannels()
    sendClose(fault, method)
    requests.requests.append(.closeConnection(makeToken()))
    connectionToken = nil
    phase = .closing
    phaseDeadline = now + settings.closeTimeout
  }

  mutating func sendClose(_ fault: Fault, _ method: MethodID?) {
    fault.text.replyText.withUnsafeBytes { text in
      ConnectionClose(
        replyCode: fault.code.rawValue, replyText: text, classID: method?.classID ?? 0,
        methodID: method?.methodID ?? 0
      ).encode(channel: 0, into: &output)
    }
  }

  /// Closes the connection: `Fault.forced` on shutdown. The client's close-ok is awaited for a
  /// while; the broker must take the connection as ended from here on.
  package mutating func close(
    _ fault: Fault, now: MonotonicTime, output: inout [UInt8], requests: inout BrokerRequests
  ) {
    self.now = now
    lend(&output, &requests) { machine in
      switch machine.phase {
      case .open, .openingVhost: machine.closeConnection(fault, nil)
      case .closing, .closingByClient, .closed, .finished: break
      case .header, .starting, .authenticating, .tuning, .opening: machine.finish()
      }
    }
  }

  /// Ends without another word.
  mutating func abandon() {
    if phase == .open || phase == .openingVhost {
      requests.requests.append(.closeConnection(makeToken()))
    }
    finish()
  }

  mutating func finish() {
    dropChannels()
    connectionToken = nil
    phase = .finished
    phaseDeadline = .never
    nextHeartbeat = .never
  }

  private mutating func dropChannels() {
    if let open = openContent { requests.bytes.removeSubrange(open.start...) }
    openContent = nil
    channels = []
    slots.removeAll()
    consumers.removeAll()
    waitingChannels.removeAll()
    confirming = []
    isStalled = false
    parkedBytes = 0
    transactionBytes = 0
  }
}
