// Frames and the fields in them (AMQP 0-9-1 §4.2), everything big-endian:
//
//     frame           type u8, channel u16, payload bytes u32, payload, end 0xCE
//     method          class u16, method u16, fields
//     content header  class u16, weight u16 (0), body bytes u64, property flags u16, properties
//     body            bytes
//     heartbeat       nothing, on channel 0

import Base

/// What frames are made of.
package enum Frame {
  package static let method: UInt8 = 1
  package static let header: UInt8 = 2
  package static let body: UInt8 = 3
  package static let heartbeat: UInt8 = 8
  package static let end: UInt8 = 0xce
  /// Type, channel, payload size.
  package static let headerBytes = 7
  /// Everything but the payload.
  package static let overheadBytes = 8
  /// No peer may ask for smaller frames.
  package static let frameBytesMin: UInt32 = 4096
  /// Class, weight, body size, and the flags of the properties behind them.
  package static let contentHeaderBytes = 12

  /// What a client says first, and what it is told if it said anything else.
  package static let protocolHeader: [UInt8] = [0x41, 0x4d, 0x51, 0x50, 0, 0, 9, 1]
}

/// The first bytes of a frame.
@frozen @usableFromInline struct FrameHeader {
  @usableFromInline var type: UInt8
  @usableFromInline var channel: UInt16
  @usableFromInline var payloadBytes: Int

  /// Reads `Frame.headerBytes` bytes at `offset`, which must be there.
  @inlinable init(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
    // SAFETY: the caller saw that so many bytes are there.
    type = bytes[offset]
    channel = UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: offset &+ 1, as: UInt16.self))
    payloadBytes = Int(
      UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset &+ 3, as: UInt32.self)))
  }
}

/// Arguments that are not what the method says.
package enum MethodError: Error, Hashable, Sendable {
  /// A field goes beyond the end.
  case truncated
  /// Bytes follow the last field.
  case trailing
  /// A table is none.
  case table(FieldTableError)
}

/// A method's fields, as the generated structs have them. Byte fields are borrowed.
package protocol MethodFields {
  static var id: MethodID { get }
  /// Reads the fields, which must be all that `reader` has.
  init(_ reader: inout MethodReader) throws(MethodError)
  /// Appends the method's frame.
  func encode(channel: UInt16, into output: inout [UInt8])
}

/// Reads a method's fields one after the other from bytes that outlive it.
package struct MethodReader {
  private let bytes: UnsafeRawBufferPointer
  private var offset = 0

  // SAFETY: the caller keeps `bytes` alive and unchanged while the reader and what it gave are used.
  package init(_ bytes: UnsafeRawBufferPointer) {
    self.bytes = bytes
  }

  private mutating func integer<Integer: FixedWidthInteger>() throws(MethodError) -> Integer {
    let size = MemoryLayout<Integer>.size
    guard bytes.count &- offset >= size else { throw .truncated }
    // SAFETY: the integer lies within `bytes`.
    let value = bytes.loadUnaligned(fromByteOffset: offset, as: Integer.self)
    offset &+= size
    return Integer(bigEndian: value)
  }

  package mutating func octet() throws(MethodError) -> UInt8 { try integer() }
  package mutating func short() throws(MethodError) -> UInt16 { try integer() }
  package mutating func long() throws(MethodError) -> UInt32 { try integer() }
  package mutating func longlong() throws(MethodError) -> UInt64 { try integer() }
  package mutating func timestamp() throws(MethodError) -> UInt64 { try integer() }

  private mutating func take(_ count: Int) throws(MethodError) -> UnsafeRawBufferPointer {
    guard bytes.count &- offset >= count else { throw .truncated }
    defer { offset &+= count }
    return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset &+ count])
  }

  package mutating func shortstr() throws(MethodError) -> UnsafeRawBufferPointer {
    let count: UInt8 = try integer()
    return try take(Int(count))
  }

  package mutating func longstr() throws(MethodError) -> UnsafeRawBufferPointer {
    let count: UInt32 = try integer()
    return try take(Int(count))
  }

  /// A table without its length, seen to be one.
  package mutating func table() throws(MethodError) -> UnsafeRawBufferPointer {
    let table = try longstr()
    do throws(FieldTableError) {
      try FieldTableCheck.check(table)
    } catch {
      throw .table(error)
    }
    return table
  }

  /// To be called last: nothing may be left.
  package func end() throws(MethodError) {
    guard offset == bytes.count else { throw .trailing }
  }
}

extension Array where Element == UInt8 {
  /// Begins a method's frame; `endFrame` gets what this returns.
  mutating func beginMethod(_ id: MethodID, channel: UInt16) -> Int {
    let start = count
    append(Frame.method)
    putBig(channel)
    putBig(UInt32(0))
    putBig(id.rawValue)
    return start
  }

  mutating func endFrame(_ start: Int) {
    patchBig(UInt32(count - start - Frame.headerBytes), at: start + 3)
    append(Frame.end)
  }

  mutating func putShortString(_ bytes: UnsafeRawBufferPointer) {
    invariant(bytes.count <= 255, "a short string of \(bytes.count) bytes")
    append(UInt8(bytes.count))
    append(contentsOf: bytes)
  }

  mutating func putLongString(_ bytes: UnsafeRawBufferPointer) {
    putBig(UInt32(bytes.count))
    append(contentsOf: bytes)
  }

  /// A frame without payload that shows that we are there.
  package mutating func putHeartbeat() {
    append(Frame.heartbeat)
    putBig(UInt16(0))
    putBig(UInt32(0))
    append(Frame.end)
  }
}
