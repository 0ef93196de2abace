// Frames: what both sides of a client connection send behind the preamble. A frame is a header and
// a payload; the decoder works in place on the connection's unread bytes and copies nothing.
//
//   offset size
//        0    4  payloadBytes  without this header
//        4    1  kind          `FrameKind`
//        5    1  version       of the frame, 1
//        6    2  flags         0, for later
//        8    8  request       chosen by the client, returned by the reply; 0 where none is due
//       16       payload

import Base

/// The number by which a client finds the reply to a request. 0 is none.
@frozen @usableFromInline package struct RequestID: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package static var none: RequestID { RequestID(rawValue: 0) }
}

/// What a frame is. Below 64 clients send, from 64 on servers. Numbers are never used again.
@frozen @usableFromInline package enum FrameKind: UInt8, Sendable, CaseIterable {
  case hello = 1
  case ping = 2
  case openSession = 3
  case attachSession = 4
  case closeSession = 5
  case resolveQueue = 6
  case publish = 7
  case publishOutcome = 8
  case subscribe = 9
  case setCredit = 10
  case unsubscribe = 11
  case settle = 12
  case extend = 13
  case declareQueue = 14
  case deleteQueue = 15
  case purgeQueue = 16
  case listQueues = 17
  case showQueue = 18
  case peek = 19
  case status = 20
  case memberList = 21
  case memberAdd = 22
  case memberRemove = 23
  case transferLeadership = 24
  case showMessage = 25
  case cancelMessage = 26
  case rescheduleMessage = 27
  case redriveQueue = 28
  case transact = 29
  case setUser = 30
  case addVirtualHost = 31
  case listAccess = 32

  case helloReply = 64
  case pong = 65
  case sessionOpened = 66
  case sessionAttached = 67
  case sessionEnded = 68
  case queueReply = 69
  case confirmed = 70
  case publishRefused = 71
  case outcomeReply = 72
  case deliver = 73
  case settled = 74
  case settleRefused = 75
  case consumerCancelled = 76
  case done = 77
  case refused = 78
  case leaderChanged = 79
  case queueSummaries = 80
  case peeked = 81
  case statusReply = 82
  case memberListReply = 83
  case holding = 84
  case lapsed = 85
  case producerFenced = 86
  case messageShown = 87
  case queueRedriven = 88
  case accessReply = 89
  case membersChanged = 90
}

/// Why bytes are no frame, or a frame's payload is not what its kind says. The one who sent it is
/// told and the connection is closed: nothing behind it can be trusted.
@frozen @usableFromInline package enum FrameError: Error, Equatable, Sendable {
  /// The frame announces a payload of `bytes` where `limit` are allowed.
  case oversized(bytes: Int, limit: Int)
  case unknownVersion(UInt8)
  case unknownKind(UInt8)
  /// A kind that the other side may not send.
  case unexpectedKind(FrameKind)
  /// The payload ends within a field: `needed` bytes at `offset` where `available` are left.
  case truncated(FrameKind, offset: Int, needed: Int, available: Int)
  /// The payload goes on for `bytes` behind its last field.
  case trailingBytes(FrameKind, bytes: Int)
  case notUTF8(FrameKind, offset: Int)
  /// A field holds a number that means nothing.
  case invalidValue(FrameKind, field: String, value: UInt64)
}

extension FrameError: CustomStringConvertible {
  @usableFromInline package var description: String {
    switch self {
    case .oversized(let bytes, let limit):
      "frame of \(bytes) bytes is over the limit of \(limit)"
    case .unknownVersion(let version): "frame version \(version) is not spoken here"
    case .unknownKind(let kind): "frame kind \(kind) is unknown"
    case .unexpectedKind(let kind): "frame \(kind) is not expected from this side"
    case .truncated(let kind, let offset, let needed, let available):
      "frame \(kind) ends early: \(needed) bytes needed at \(offset), \(available) left"
    case .trailingBytes(let kind, let bytes): "frame \(kind) has \(bytes) bytes too many"
    case .notUTF8(let kind, let offset): "frame \(kind) has text at \(offset) that is no UTF-8"
    case .invalidValue(let kind, let field, let value):
      "frame \(kind) has \(value) as its \(field)"
    }
  }
}

/// One frame in the connection's unread bytes, valid until these are consumed.
@frozen @usableFromInline package struct FrameView {
  @usableFromInline package let kind: FrameKind
  @usableFromInline package let request: RequestID
  /// Borrowed.
  @usableFromInline package let payload: UnsafeRawBufferPointer

  // SAFETY: the caller keeps `payload` alive and unchanged while the view is used.
  @inlinable package init(kind: FrameKind, request: RequestID, payload: UnsafeRawBufferPointer) {
    self.kind = kind
    self.request = request
    self.payload = payload
  }

  /// The whole frame, header included: what to consume once it is dealt with.
  @inlinable package var byteCount: Int { Frame.headerBytes &+ payload.count }
}

@frozen @usableFromInline package enum Frame {
  @inlinable package static var headerBytes: Int { 16 }
  @inlinable package static var version: UInt8 { 1 }
  /// Payload bytes that a publish or a deliver may have besides its records.
  @inlinable package static var overheadBytes: Int { 1 << 12 }

  /// Begins a frame at the end of `bytes`; the length is filled in by `finish`.
  ///
  /// - Returns: where the frame begins, for `finish`.
  @inlinable package static func begin(
    _ kind: FrameKind, request: RequestID = .none, in bytes: inout [UInt8]
  ) -> Int {
    let start = bytes.count
    bytes.putFields(headerBytes) { putHeader(kind, request: request, payloadBytes: 0, into: &$0) }
    return start
  }

  /// The header of a frame whose length is known.
  @inlinable package static func putHeader(
    _ kind: FrameKind, request: RequestID = .none, payloadBytes: UInt32,
    into fields: inout FieldWriter
  ) {
    fields.put(payloadBytes)
    fields.put(kind.rawValue)
    fields.put(version)
    fields.put(UInt16(0))
    fields.put(request.rawValue)
  }

  /// Fills in the length of the frame that begins at `start` and ends with `bytes`.
  @inlinable package static func finish(_ start: Int, in bytes: inout [UInt8]) {
    bytes.patch(UInt32(bytes.count - start - headerBytes), at: start)
  }
}

/// Finds frames in a connection's unread bytes.
@frozen @usableFromInline package enum FrameDecoder {
  /// The frame at the beginning of `bytes`, nil while it is not complete.
  ///
  /// - Parameter limit: the largest payload allowed, bytes. It is checked as soon as the header is
  ///   there, so that nobody waits for, or makes room for, what will be refused.
  /// - Throws: `oversized`, `unknownVersion`, `unknownKind`.
  @inlinable package static func next(
    in bytes: UnsafeRawBufferPointer, limit: Int
  ) throws(FrameError) -> FrameView? {
    guard bytes.count >= Frame.headerBytes else { return nil }
    // SAFETY: the header's 16 bytes are there.
    let word = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
    let request = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    let payloadBytes = Int(word & 0xffff_ffff)
    let version = UInt8(truncatingIfNeeded: word >> 40)
    guard version == Frame.version else { throw .unknownVersion(version) }
    guard let kind = FrameKind(rawValue: UInt8(truncatingIfNeeded: word >> 32)) else {
      throw .unknownKind(UInt8(truncatingIfNeeded: word >> 32))
    }
    guard payloadBytes <= limit else { throw .oversized(bytes: payloadBytes, limit: limit) }
    guard bytes.count - Frame.headerBytes >= payloadBytes else { return nil }
    let end = Frame.headerBytes + payloadBytes
    return FrameView(
      kind: kind, request: RequestID(request),
      payload: UnsafeRawBufferPointer(rebasing: bytes[Frame.headerBytes..<end]))
  }

  /// How many bytes the frame at the beginning of `bytes` needs in all, for a receive buffer that
  /// must make room; the header's size while not even that is there.
  package static func bytesNeeded(for bytes: UnsafeRawBufferPointer) -> Int {
    guard bytes.count >= Frame.headerBytes else { return Frame.headerBytes }
    let payload = UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self))
    return Frame.headerBytes + Int(payload)
  }
}
