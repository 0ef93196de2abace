import Testing

@testable import Base

@Suite struct ByteWriterTests {
  @Test("Fields put together are those put one by one, behind what is there")
  func fieldsTogether() {
    var oneByOne: [UInt8] = [9]
    var together: [UInt8] = [9]
    for number in 0..<100 as Range<UInt64> {
      oneByOne.put(UInt8(number))
      oneByOne.put(NodeID(UInt32(number) * 77))
      oneByOne.put(number &* 0x0123_4567_89ab_cdef)
      oneByOne.put(UInt16(number))
      together.putFields(15) { fields in
        fields.put(UInt8(number))
        fields.put(NodeID(UInt32(number) * 77))
        fields.put(number &* 0x0123_4567_89ab_cdef)
        fields.put(UInt16(number))
      }
    }
    #expect(together == oneByOne)
    #expect(together.count == 1501)
    together.putFields(0) { _ in }
    #expect(together == oneByOne)
  }

  @Test("Fields that are patched together stand where they were put one by one")
  func fieldsPatched() {
    var bytes = [UInt8](repeating: 7, count: 12)
    bytes.patchFields(6, at: 4) { fields in
      fields.put(UInt16(0x0201))
      fields.put(UInt32(0x0605_0403))
    }
    #expect(bytes == [7, 7, 7, 7, 1, 2, 3, 4, 5, 6, 7, 7])
  }

  @Test("Fields of another size than was said stop the process")
  func wrongSize() async {
    await #expect(processExitsWith: .failure) {
      var bytes: [UInt8] = []
      bytes.putFields(7) { $0.put(UInt64(1)) }
    }
    await #expect(processExitsWith: .failure) {
      var bytes: [UInt8] = []
      bytes.putFields(9) { $0.put(UInt64(1)) }
    }
    await #expect(processExitsWith: .failure) {
      var bytes = [UInt8](repeating: 0, count: 8)
      bytes.patchFields(4, at: 0) { $0.put(UInt64(1)) }
    }
    await #expect(processExitsWith: .failure) {
      var bytes = [UInt8](repeating: 0, count: 8)
      bytes.patchFields(8, at: 1) { $0.put(UInt64(1)) }
    }
  }
}
