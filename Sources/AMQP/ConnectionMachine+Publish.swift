// basic.publish and its content. Content of one channel whose frames follow each other is copied
// once, to the end of the requests' bytes; if frames of others come between, or the rest has not
// been read, it is parked with its channel until it is whole.

import Base

extension ConnectionMachine {
  mutating func publish(_ method: BasicPublish, _ place: Int) throws(Failure) {
    if method.immediate { throw .fault(Fault(.notImplemented, "immediate=true")) }
    parkOpenContent()
    openContent = (channels[place].number, requests.bytes.count)
    requests.bytes.append(contentsOf: method.exchange)
    requests.bytes.append(contentsOf: method.routingKey)
    channels[place].assembly.stage = .header
    channels[place].assembly.exchangeBytes = method.exchange.count
    channels[place].assembly.routingKeyBytes = method.routingKey.count
    channels[place].assembly.isMandatory = method.mandatory
  }

  mutating func takeContent(
    _ header: FrameHeader, _ payload: UnsafeRawBufferPointer
  ) throws(Failure) {
    if header.channel == 0 {
      if phase == .closing || phase == .closed { return }
      guard phase == .open else { throw .silent }
      throw unexpectedFrame(header, payload)
    }
    guard try takesChannelFrames() else { return }
    guard let place = slots[UInt64(header.channel)] else {
      try checkRoomForChannel()
      throw outOfTurn()
    }
    if channels[place].phase != .open { return }
    switch (channels[place].assembly.stage, header.type) {
    case (.idle, _): throw outOfTurn()
    case (.header, Frame.header): try takeContentHeader(payload, place)
    case (.header, _): throw otherThanHeader()
    case (.body, Frame.body): try takeBody(payload, place)
    case (.body, _): throw otherThanBody()
    }
  }

  private func outOfTurn() -> Failure {
    .fault(
      Fault(.unexpectedFrame, "expected method frame, got non method frame instead"),
      naming: .none)
  }

  func otherThanHeader() -> Failure {
    .fault(
      Fault(
        .unexpectedFrame,
        "expected content header for class 60, got non content header frame instead"),
      naming: .method(.basicPublish))
  }

  func otherThanBody() -> Failure {
    .fault(
      Fault(.unexpectedFrame, "expected content body, got non content body frame instead"),
      naming: .method(.basicPublish))
  }

  private func publishFault(_ code: ReplyCode, _ detail: String) -> Failure {
    .fault(Fault(code, detail), naming: .method(.basicPublish))
  }

  // MARK: The content header

  private mutating func takeContentHeader(
    _ payload: UnsafeRawBufferPointer, _ place: Int
  ) throws(Failure) {
    guard payload.count >= Frame.contentHeaderBytes else {
      throw publishFault(.frameError, "cannot decode \(String(cut: payload))")
    }
    // SAFETY: the payload has at least twelve bytes.
    let classID = UInt16(bigEndian: payload.loadUnaligned(as: UInt16.self))
    let weight = UInt16(bigEndian: payload.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
    let bodyBytes = UInt64(bigEndian: payload.loadUnaligned(fromByteOffset: 4, as: UInt64.self))
    guard classID == MethodID.basicPublish.classID else {
      throw publishFault(
        .unexpectedFrame,
        "expected content header for class 60, got one for class \(classID) instead")
    }
    guard weight == 0 else { throw otherThanHeader() }
    guard bodyBytes <= UInt64(settings.messageBytesMax) else {
      throw publishFault(
        .contentTooLarge,
        "message size \(bodyBytes) is larger than configured max size \(settings.messageBytesMax)")
    }
    let properties = UnsafeRawBufferPointer(rebasing: payload[Frame.contentHeaderBytes...])
    try takeProperties(properties, bodyBytes: bodyBytes, place)
    if bodyBytes == 0 { try completeContent(place) }
  }

  private mutating func takeProperties(
    _ bytes: UnsafeRawBufferPointer, bodyBytes: UInt64, _ place: Int
  ) throws(Failure) {
    let view: PropertiesView
    do throws(PropertiesError) {
      view = try PropertiesView(bytes)
    } catch {
      throw publishFault(.frameError, "cannot decode \(String(cut: bytes))")
    }
    try checkUser(view, bytes)
    channels[place].assembly.stage = .body
    channels[place].assembly.bodyBytes = bodyBytes
    channels[place].assembly.receivedBytes = 0
    channels[place].assembly.isPersistent = view.deliveryMode == 2
    channels[place].assembly.priority = view.priority
    channels[place].assembly.expiration = try expiration(view, bytes)
    channels[place].assembly.delay = nil
    if try rewrites(view, bytes, place) { return }
    channels[place].assembly.propertiesBytes = bytes.count
    channels[place].assembly.headers = view.headers
    append(bytes, place)
    try checkParked()
  }

  /// Looks into the headers and at where replies go; true if the properties were written otherwise
  /// than they came.
  private mutating func rewrites(
    _ view: PropertiesView, _ bytes: UnsafeRawBufferPointer, _ place: Int
  ) throws(Failure) -> Bool {
    var rewritten: [UInt8]?
    if !view.headers.isEmpty {
      let headers = UnsafeRawBufferPointer(rebasing: bytes[view.headers])
      channels[place].assembly.delay = Self.delay(headers)
      try takeCopies(headers, bytes, place, &rewritten)
    }
    if let replyTo = view.replyTo, bytes[replyTo].elementsEqual(ReplyQueue.name.utf8) {
      rewritten = try withReplyAddress(rewritten ?? [UInt8](bytes), place)
    }
    guard let rewritten else { return false }
    channels[place].assembly.propertiesBytes = rewritten.count
    rewritten.withUnsafeBytes { bytes in
      channels[place].assembly.headers = (try? PropertiesView(bytes))?.headers ?? 0..<0
      append(bytes, place)
    }
    try checkParked()
    return true
  }

  private func checkUser(
    _ view: PropertiesView, _ bytes: UnsafeRawBufferPointer
  ) throws(Failure) {
    guard let range = view.userID, let user else { return }
    let claimed = bytes[range]
    guard !claimed.elementsEqual(user.utf8) else { return }
    throw publishFault(
      .preconditionFailed,
      """
      user_id property set to '\(String(decoding: claimed, as: UTF8.self))' but authenticated user \
      was '\(user)'
      """)
  }

  /// The expiration in milliseconds, a decimal number as text.
  private func expiration(
    _ view: PropertiesView, _ bytes: UnsafeRawBufferPointer
  ) throws(Failure) -> UInt64? {
    guard let range = view.expiration else { return nil }
    let text = String(decoding: bytes[range], as: UTF8.self)
    func invalid(_ reason: String) -> Failure {
      publishFault(.preconditionFailed, "invalid expiration '\(text)': \(reason)")
    }
    let sign = text.first == "-" || text.first == "+" ? 1 : 0
    let digits = text.dropFirst(sign).prefix { $0.isASCII && $0.isNumber }
    guard !digits.isEmpty else { throw invalid("no_integer") }
    let rest = text.dropFirst(sign + digits.count)
    guard rest.isEmpty else { throw invalid("{leftover_string,\"\(rest)\"}") }
    guard let number = Int64(text), number <= 315_360_000_000 else {
      throw invalid("{value_too_big,\(text)}")
    }
    guard number >= 0 else { throw invalid("{value_negative,\(number)}") }
    return UInt64(number)
  }

  /// `x-delay`: our own, as RabbitMQ's plug-in for delayed messages has it.
  private static func delay(_ headers: UnsafeRawBufferPointer) -> UInt64? {
    guard let place = FieldTableCheck.value(named: "x-delay", in: headers),
      let value = fieldValue(headers, place), let number = value.integer, number > 0
    else { return nil }
    return UInt64(number)
  }

  private static func fieldValue(
    _ table: UnsafeRawBufferPointer, _ place: Range<Int>
  ) -> FieldValue? {
    // A value alone is read as the only entry of a table, under an empty name.
    let entry = [0] + [UInt8](UnsafeRawBufferPointer(rebasing: table[place]))
    return (try? FieldTable(entry))?.entries.first?.value
  }

  /// The routing keys in `CC` and `BCC`; who gets the message does not see `BCC`.
  private mutating func takeCopies(
    _ headers: UnsafeRawBufferPointer, _ properties: UnsafeRawBufferPointer, _ place: Int,
    _ rewritten: inout [UInt8]?
  ) throws(Failure) {
    for name in ["CC", "BCC"] as [StaticString] {
      guard let range = FieldTableCheck.value(named: name, in: headers),
        let value = Self.fieldValue(headers, range)
      else { continue }
      guard case .array(let values) = value else {
        throw publishFault(
          .preconditionFailed,
          "invalid message: {unacceptable_type_in_header,\"\(name)\",\(value.typeName)}")
      }
      for case .string(let key) in values where key.count <= 255 {
        try addCopy(key, place)
      }
      if name.description == "BCC", var decoded = try? BasicProperties(properties) {
        decoded.headers?.set("BCC", nil)
        rewritten = decoded.encoded
      }
    }
  }

  private mutating func addCopy(_ key: [UInt8], _ place: Int) throws(Failure) {
    guard channels[place].assembly.copies.count < settings.copiesPerMessageMax else {
      throw publishFault(
        .preconditionFailed,
        "invalid message: more than \(settings.copiesPerMessageMax) routing keys in CC and BCC")
    }
    channels[place].assembly.copies.append(key)
    let bytes = key.count + Assembly.bytesPerCopy
    channels[place].assembly.copiesBytes += bytes
    parkedBytes += bytes
  }

  private func withReplyAddress(
    _ bytes: [UInt8], _ place: Int
  ) throws(Failure) -> [UInt8] {
    guard let address = channels[place].replyAddress else {
      throw publishFault(.preconditionFailed, "fast reply consumer does not exist")
    }
    guard var properties = try? BasicProperties(bytes) else { return bytes }
    properties.replyTo = address
    return properties.encoded
  }

  // MARK: The body

  private mutating func takeBody(
    _ payload: UnsafeRawBufferPointer, _ place: Int
  ) throws(Failure) {
    let announced = channels[place].assembly.bodyBytes
    let received = channels[place].assembly.receivedBytes + UInt64(payload.count)
    guard received <= announced else {
      throw publishFault(
        .frameError, "\(received) body octets received, \(announced) announced")
    }
    append(payload, place)
    channels[place].assembly.receivedBytes = received
    if received == announced {
      try completeContent(place)
    } else {
      try checkParked()
    }
  }

  /// Appends to the channel's content, wherever it lies.
  private mutating func append(_ bytes: UnsafeRawBufferPointer, _ place: Int) {
    if openContent?.channel == channels[place].number {
      requests.bytes.append(contentsOf: bytes)
    } else {
      channels[place].assembly.parked.append(contentsOf: bytes)
      parkedBytes += bytes.count
    }
  }

  /// Moves content that lies at the end of the requests' bytes, if any does, to its channel.
  mutating func parkOpenContent() {
    guard let open = openContent else { return }
    openContent = nil
    guard let place = slots[UInt64(open.channel)] else { return }
    channels[place].assembly.parked = [UInt8](requests.bytes[open.start...])
    parkedBytes += requests.bytes.count - open.start
    requests.bytes.removeSubrange(open.start...)
  }

  /// What is parked is bounded for the connection, however many channels it has.
  private func checkParked() throws(Failure) {
    guard parkedBytes > settings.assemblyBytesMax else { return }
    throw publishFault(
      .resourceError,
      "content begun on all channels is larger than \(settings.assemblyBytesMax) bytes")
  }

  mutating func dropContent(ofChannelAt place: Int) {
    guard channels[place].assembly.stage != .idle else { return }
    if let open = openContent, open.channel == channels[place].number {
      requests.bytes.removeSubrange(open.start...)
      openContent = nil
    }
    parkedBytes -= channels[place].assembly.parked.count + channels[place].assembly.copiesBytes
    channels[place].assembly = Assembly()
  }

  /// All of the content is there: it becomes a request, or part of the transaction.
  private mutating func completeContent(_ place: Int) throws(Failure) {
    let start: Int
    if let open = openContent, open.channel == channels[place].number {
      start = open.start
      openContent = nil
    } else {
      parkOpenContent()
      start = requests.bytes.count
      requests.bytes.append(contentsOf: channels[place].assembly.parked)
      parkedBytes -= channels[place].assembly.parked.count
      channels[place].assembly.parked = []
    }
    channels[place].assembly.stage = .idle
    channels[place].published += 1
    let request = channels[place].request(from: start)
    if !request.copies.isEmpty {
      parkedBytes -= channels[place].assembly.copiesBytes
      channels[place].assembly.copiesBytes = 0
      channels[place].assembly.copies = []
    }
    if channels[place].mode == .transaction {
      try addToTransaction(request, from: start, place)
    } else {
      requests.append(request)
    }
  }

  // MARK: Confirm mode

  mutating func selectConfirms(_ method: ConfirmSelect, _ place: Int) throws(Failure) {
    switch channels[place].mode {
    case .transaction:
      throw .fault(Fault(.preconditionFailed, "cannot switch from tx to confirm mode"))
    case .plain:
      channels[place].mode = .confirm
      channels[place].publishedBeforeConfirm = channels[place].published
    case .confirm: break
    }
    if !method.noWait { answerBehindPublishes(ConfirmSelectOK(), place, .confirmSelect) }
  }
}

extension BrokerRequests {
  /// Appends a publish to the run at the end, or begins one.
  mutating func append(_ publish: PublishRequest) {
    publishes.append(publish)
    let end = publishes.count
    if case .publish(let range)? = requests.last, range.upperBound == end - 1 {
      requests[requests.count - 1] = .publish(range.lowerBound..<end)
    } else {
      requests.append(.publish(end - 1..<end))
    }
  }

  /// Appends a settle, joined with the one before where deliveries follow each other.
  mutating func append(_ outcome: SettleOutcome, _ unsettled: Unsettled, of channel: ChannelID) {
    let end = settles.count
    guard case .settle(let range)? = requests.last, range.upperBound == end else {
      appendSettle(outcome, unsettled, of: channel)
      requests.append(.settle(end..<end + 1))
      return
    }
    if appendSettle(outcome, unsettled, of: channel, joiningFrom: range.lowerBound) {
      requests[requests.count - 1] = .settle(range.lowerBound..<end + 1)
    }
  }

  /// True if it is a new one; false if it was joined with the last, which is not before `first`.
  @discardableResult
  mutating func appendSettle(
    _ outcome: SettleOutcome, _ unsettled: Unsettled, of channel: ChannelID,
    joiningFrom first: Int = .max
  ) -> Bool {
    if let last = settles.last, settles.count > first, last.outcome == outcome,
      last.consumer == unsettled.consumer, last.channel == channel,
      last.last.rawValue &+ 1 == unsettled.delivery.rawValue
    {
      settles[settles.count - 1].last = unsettled.delivery
      return false
    }
    settles.append(
      SettleRequest(
        channel: channel, outcome: outcome, consumer: unsettled.consumer,
        first: unsettled.delivery, last: unsettled.delivery))
    return true
  }
}

extension Channel {
  /// The publish whose content begins at `start` of the requests' bytes.
  fileprivate func request(from start: Int) -> PublishRequest {
    let routingKey = start + assembly.exchangeBytes
    let properties = routingKey + assembly.routingKeyBytes
    let headers = assembly.headers
    let body = properties + assembly.propertiesBytes
    return PublishRequest(
      channel: id, sequence: ChannelSequence(published), isMandatory: assembly.isMandatory,
      wantsConfirm: mode == .confirm, isPersistent: assembly.isPersistent,
      priority: assembly.priority, expiration: assembly.expiration, delay: assembly.delay,
      exchange: start..<routingKey, routingKey: routingKey..<properties, copies: assembly.copies,
      properties: properties..<body,
      headers: properties + headers.lowerBound..<properties + headers.upperBound,
      body: body..<body + Int(assembly.bodyBytes))
  }
}
