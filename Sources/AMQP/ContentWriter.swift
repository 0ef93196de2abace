// Frames of messages that go to the client: the method, the content header and the body in pieces,
// written straight behind what there is to send.

import Base

/// Fills a few hundred bytes of memory that the caller lends, with the fields of one frame or two.
struct ScratchWriter {
  private let memory: UnsafeMutableRawBufferPointer
  private(set) var count = 0

  // SAFETY: the caller keeps `memory` alive while the writer is used.
  init(_ memory: UnsafeMutableRawBufferPointer) {
    self.memory = memory
  }

  /// The longest method (three short strings, 32 bytes of numbers) and the fixed part of a content
  /// header, with what is around them.
  static let bytesMax = 3 * 256 + 32 + 12 + 2 * Frame.overheadBytes + Frame.overheadBytes

  var written: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: memory[..<count])
  }

  mutating func put<Integer: FixedWidthInteger>(_ value: Integer) {
    // SAFETY: `bytesMax` is enough for all that is written; `storeBytes` checks it in debug builds.
    memory.storeBytes(of: value.bigEndian, toByteOffset: count, as: Integer.self)
    count &+= MemoryLayout<Integer>.size
  }

  mutating func put(flag: Bool) { put(UInt8(flag ? 1 : 0)) }

  mutating func put(short bytes: UnsafeRawBufferPointer) {
    invariant(bytes.count <= 255, "a short string of \(bytes.count) bytes")
    put(UInt8(bytes.count))
    UnsafeMutableRawBufferPointer(rebasing: memory[count...]).copyMemory(from: bytes)
    count &+= bytes.count
  }

  mutating func put(short bytes: [UInt8]) { bytes.withUnsafeBytes { put(short: $0) } }

  mutating func putFrameHeader(_ type: UInt8, channel: UInt16, payloadBytes: Int) {
    put(type)
    put(channel)
    put(UInt32(payloadBytes))
  }

  mutating func patch(_ value: UInt32, at offset: Int) {
    memory.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }

  mutating func clear() { count = 0 }
}

extension Array where Element == UInt8 {
  /// Appends the frames of a message.
  ///
  /// - Parameters:
  ///   - frameBytesMax: of a whole frame.
  ///   - method: writes the method's fields.
  mutating func putMessage(
    _ id: MethodID, channel: UInt16, _ content: BrokerContent, frameBytesMax: Int,
    _ method: (inout ScratchWriter) -> Void
  ) {
    withUnsafeTemporaryAllocation(byteCount: ScratchWriter.bytesMax, alignment: 8) { memory in
      var writer = ScratchWriter(memory)
      writer.putFrameHeader(Frame.method, channel: channel, payloadBytes: 0)
      writer.put(id.rawValue)
      method(&writer)
      writer.patch(UInt32(writer.count - Frame.headerBytes), at: 3)
      writer.put(Frame.end)
      writer.putFrameHeader(
        Frame.header, channel: channel,
        payloadBytes: Frame.contentHeaderBytes + content.properties.count)
      writer.put(id.classID)
      writer.put(UInt16(0))
      writer.put(UInt64(content.body.count))
      append(contentsOf: writer.written)
      append(contentsOf: content.properties)
      var offset = 0
      while offset < content.body.count {
        // The end of the frame before and the beginning of this one go together.
        let count = Swift.min(content.body.count - offset, frameBytesMax - Frame.overheadBytes)
        writer.clear()
        writer.put(Frame.end)
        writer.putFrameHeader(Frame.body, channel: channel, payloadBytes: count)
        append(contentsOf: writer.written)
        append(contentsOf: UnsafeRawBufferPointer(rebasing: content.body[offset..<offset + count]))
        offset += count
      }
      append(Frame.end)
    }
  }
}
