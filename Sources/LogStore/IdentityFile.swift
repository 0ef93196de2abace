// The file `identity`: whose data the directory holds. Written last when a directory is made, so
// that its presence says that the rest was made.
//
//   offset size
//        0    4  magic "SKI1"
//        4    4  CRC-32C of all that follows
//        8    4  format version
//       12    4  node
//       16    2  bytes of the cluster's name, the name behind it
//
// Later formats keep magic, checksum and version where they are, so that this program can say
// "newer" rather than "damaged".

import Base

enum IdentityFile {
  static let magic: UInt32 = 0x3149_4b53
  static let bytesMax = 1024

  static func encoded(_ identity: StoreIdentity) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.put(magic)
    bytes.put(UInt32(0))
    bytes.put(formatVersion)
    bytes.put(identity.node)
    bytes.putShortText(identity.cluster)
    bytes.sealHeader(at: 0, bytes: bytes.count)
    return bytes
  }

  /// nil if the bytes are damaged.
  static func decode(_ bytes: [UInt8]) -> (version: UInt32, identity: StoreIdentity?)? {
    bytes.withUnsafeBytes { buffer in
      guard buffer.count >= 18,
        let head = checkedHeader(in: buffer, at: 0, bytes: buffer.count, magic: magic)
      else { return nil }
      var reader = ByteReader(head)
      do {
        try reader.skip(8)
        let version = try reader.integer(UInt32.self)
        if version > formatVersion { return (version, nil) }
        let node = try reader.identifier(NodeID.self)
        let cluster = try reader.shortText()
        guard reader.isAtEnd else { return nil }
        return (version, StoreIdentity(cluster: cluster, node: node))
      } catch {
        return nil
      }
    }
  }
}
