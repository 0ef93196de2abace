import Base
import Testing
import Wire

@Suite struct UnknownRefusalTests {
  @Test func `A refusal of a later version is read as one`() throws {
    var bytes: [UInt8] = []
    ServerFrame.consumerCancelled(consumer: ConsumerID(1), .queueNotFound).encode(into: &bytes)
    bytes[bytes.count - 1] = 0x12
    let refusal = try bytes.withUnsafeBytes { bytes -> Refusal? in
      let view = try #require(try FrameDecoder.next(in: bytes, limit: 1 << 10))
      guard case .consumerCancelled(_, let refusal) = try ServerFrame(decoding: view) else {
        return nil
      }
      return refusal
    }
    #expect(refusal == .other)
  }
}
