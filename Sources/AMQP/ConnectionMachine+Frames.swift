// Taking frames where they landed: limits first, then the phase of the connection, then the state
// of the channel, then the method.

import Base

extension ConnectionMachine {
  /// Takes whole frames from the front of `bytes`; returns how many bytes were taken. The rest is
  /// to be given again, with more behind it, or when `state` is `.receiving` again.
  ///
  /// - Parameter stopsBehindPublish: the broker takes no publishes now: what stands behind the first
  ///   one must wait as well, so it is not taken.
  package mutating func receive(
    _ bytes: UnsafeRawBufferPointer, now: MonotonicTime, stopsBehindPublish: Bool = false,
    output: inout [UInt8], requests: inout BrokerRequests
  ) -> Int {
    self.now = now
    lastReceived = now
    return lend(&output, &requests) { $0.takeFrames(bytes, stopsBehindPublish) }
  }

  private mutating func takeFrames(
    _ bytes: UnsafeRawBufferPointer, _ stopsBehindPublish: Bool
  ) -> Int {
    isStalled = false
    var offset = 0
    if phase == .header {
      guard takeProtocolHeader(bytes) else { return phase == .finished ? bytes.count : 0 }
      offset = Frame.protocolHeader.count
    }
    while state == .receiving, bytes.count - offset >= Frame.headerBytes {
      let header = FrameHeader(bytes, at: offset)
      let start = offset + Frame.headerBytes
      if header.payloadBytes > payloadBytesMax {
        fail(.lostSync(tooLarge(header)), header.channel, nil)
        break
      }
      guard bytes.count - start > header.payloadBytes else { break }
      let payload = UnsafeRawBufferPointer(rebasing: bytes[start..<start + header.payloadBytes])
      let end = bytes[start + header.payloadBytes]
      guard end == Frame.end else {
        fail(.lostSync(wrongEnd(header, payload, end)), header.channel, nil)
        break
      }
      if waits(header.channel) {
        isStalled = true
        break
      }
      offset = start + header.payloadBytes + 1
      take(header, payload)
      if stopsBehindPublish, requests.requests.last?.publishes == true { break }
    }
    parkOpenContent()
    // What comes behind the end is dropped.
    return phase == .finished ? bytes.count : offset
  }

  /// Whether the channel's frames must wait for an answer.
  private func waits(_ channel: UInt16) -> Bool {
    guard channel != 0, phase == .open, let place = slots[UInt64(channel)] else { return false }
    return channels[place].pending != nil
  }

  private mutating func take(_ header: FrameHeader, _ payload: UnsafeRawBufferPointer) {
    var method: MethodID?
    do throws(Failure) {
      switch header.type {
      case Frame.method:
        guard payload.count >= 4 else { throw unknownFrame(header, payload) }
        // SAFETY: four bytes are there.
        let id = UInt32(bigEndian: payload.loadUnaligned(as: UInt32.self))
        method = MethodID(rawValue: id)
        guard let method else { throw .silent }
        let fields = UnsafeRawBufferPointer(rebasing: payload[4...])
        if header.channel == 0 {
          try takeConnectionMethod(method, fields)
        } else {
          try takeChannelMethod(method, header.channel, fields)
        }
      case Frame.header, Frame.body:
        try takeContent(header, payload)
      case Frame.heartbeat:
        guard payload.isEmpty else { throw unknownFrame(header, payload) }
        guard header.channel == 0 else { throw unexpectedFrame(header, payload) }
      default:
        throw unknownFrame(header, payload)
      }
    } catch {
      fail(error, header.channel, method)
    }
  }

  /// A method's fields. What cannot be read is told with RabbitMQ's words.
  func read<Fields: MethodFields>(
    _ fields: UnsafeRawBufferPointer, as type: Fields.Type = Fields.self
  ) throws(Failure) -> Fields {
    var reader = MethodReader(fields)
    do throws(MethodError) {
      return try Fields(&reader)
    } catch {
      throw .fault(Fault(.frameError, "cannot decode \(String(cut: fields))"))
    }
  }

  // MARK: Methods of a channel

  private mutating func takeChannelMethod(
    _ method: MethodID, _ number: UInt16, _ fields: UnsafeRawBufferPointer
  ) throws(Failure) {
    guard try takesChannelFrames() else { return }
    guard let place = slots[UInt64(number)] else {
      try openChannel(method, number, fields)
      return
    }
    switch channels[place].phase {
    case .closing:
      takeWhileClosing(method, number, place)
    case .closingByClient:
      // Its frames wait for the broker's word.
      invariant(false, "a frame of channel \(number), which waits to be closed")
    case .open:
      switch channels[place].assembly.stage {
      case .idle: break
      case .header: throw otherThanHeader()
      case .body: throw otherThanBody()
      }
      try carryOut(method, place, fields)
    }
  }

  /// False if frames of channels are to be dropped, since the connection is being closed.
  func takesChannelFrames() throws(Failure) -> Bool {
    switch phase {
    case .open: return true
    case .closing, .closingByClient, .closed, .finished: return false
    // Nobody is trusted before connection.open.
    case .header, .starting, .authenticating, .tuning, .opening, .openingVhost: throw .silent
    }
  }

  private mutating func openChannel(
    _ method: MethodID, _ number: UInt16, _ fields: UnsafeRawBufferPointer
  ) throws(Failure) {
    try checkRoomForChannel()
    guard method == .channelOpen else {
      throw .fault(Fault(.channelError, "expected 'channel.open'"))
    }
    let _: ChannelOpen = try read(fields)
    channelsOpened += 1
    slots.insert(channels.count, for: UInt64(number))
    channels.append(Channel(id: ChannelID(opening: channelsOpened, number: number)))
    ChannelOpenOK(reserved1: UnsafeRawBufferPointer(start: nil, count: 0))
      .encode(channel: number, into: &output)
  }

  /// channel_max is a count: a single channel of a higher number is fine.
  func checkRoomForChannel() throws(Failure) {
    guard channels.count >= channelMax else { return }
    throw .fault(
      Fault(
        .notAllowed,
        """
        number of channels opened (\(channels.count)) has reached the negotiated channel_max \
        (\(channelMax))
        """), naming: .none)
  }

  /// We closed the channel: only the client's agreement counts. A close of its own may have crossed
  /// ours.
  private mutating func takeWhileClosing(_ method: MethodID, _ number: UInt16, _ place: Int) {
    switch method {
    case .channelCloseOK: removeChannel(at: place)
    case .channelClose: ChannelCloseOK().encode(channel: number, into: &output)
    default: break
    }
  }

  private mutating func carryOut(
    _ method: MethodID, _ place: Int, _ fields: UnsafeRawBufferPointer
  ) throws(Failure) {
    switch method {
    case .basicPublish: try publish(try read(fields), place)
    case .basicAck: try acknowledge(try read(fields), place)
    case .basicNack: try negativeAcknowledge(try read(fields), place)
    case .basicReject: try reject(try read(fields), place)
    case .basicConsume: try consume(try read(fields), place)
    case .basicCancel: try cancel(try read(fields), place)
    case .basicGet: try get(try read(fields), place)
    case .basicQos: try setQos(try read(fields), place)
    case .basicRecover:
      try recover(try read(fields, as: BasicRecover.self).requeue, place, .basicRecover)
    case .basicRecoverAsync:
      try recover(try read(fields, as: BasicRecoverAsync.self).requeue, place, .basicRecoverAsync)
    case .queueDeclare: try declareQueue(try read(fields), place)
    case .queueBind: try bindQueue(try read(fields), place)
    case .queueUnbind: try unbindQueue(try read(fields), place)
    case .queuePurge: try purgeQueue(try read(fields), place)
    case .queueDelete: try deleteQueue(try read(fields), place)
    case .exchangeDeclare: try declareExchange(try read(fields), place)
    case .exchangeDelete: try deleteExchange(try read(fields), place)
    case .exchangeBind: try bindExchange(try read(fields), place)
    case .exchangeUnbind: try unbindExchange(try read(fields), place)
    case .confirmSelect: try selectConfirms(try read(fields), place)
    case .txSelect: try selectTransactions(try read(fields), place)
    case .txCommit: try commit(try read(fields), place)
    case .txRollback: try rollBack(try read(fields), place)
    case .channelFlow: try flow(try read(fields), place)
    case .channelClose: try close(try read(fields), place)
    case .accessRequest: try grantAccess(try read(fields), place)
    case .channelOpen: throw .fault(Fault(.channelError, "second 'channel.open' seen"))
    default: throw .fault(Fault(.commandInvalid, "unimplemented method"))
    }
  }

  // MARK: What is wrong with frames

  private func shown(_ header: FrameHeader, _ payload: UnsafeRawBufferPointer) -> String {
    let part = payload.count <= 16 ? "all" : "first 16"
    return "type \(header.type), \(part) octets = \(String(shown: payload.prefix(16)))"
  }

  private func tooLarge(_ header: FrameHeader) -> Fault {
    let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
    return Fault(
      .frameError,
      """
      \(shown(header, nothing)): {frame_too_large,\(header.payloadBytes),\
      \(payloadBytesMax - Frame.overheadBytes)}
      """)
  }

  private func wrongEnd(
    _ header: FrameHeader, _ payload: UnsafeRawBufferPointer, _ end: UInt8
  ) -> Fault {
    Fault(.frameError, "\(shown(header, payload)): {invalid_frame_end_marker,\(end)}")
  }

  private func unknownFrame(
    _ header: FrameHeader, _ payload: UnsafeRawBufferPointer
  ) -> Failure {
    .fault(Fault(.frameError, "\(shown(header, payload)): unknown_frame"), naming: .none)
  }

  func unexpectedFrame(_ header: FrameHeader, _ payload: UnsafeRawBufferPointer) -> Failure {
    .fault(Fault(.unexpectedFrame, shown(header, payload)), naming: .none)
  }
}
