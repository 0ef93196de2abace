// CRC-32C, the checksum of log records, snapshots and peer frames.

import CLinux

/// A CRC-32C (RFC 3720 B.4) of some bytes. Detects damage, not malice.
@frozen @usableFromInline package struct Checksum: Hashable, Sendable {
  @usableFromInline package let rawValue: UInt32
  @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The checksum of `bytes`, going on from `seed` where they follow bytes already summed.
  @inlinable package init(
    of bytes: UnsafeRawBufferPointer, after seed: Checksum = Checksum(rawValue: 0)
  ) {
    // SAFETY: the shim reads exactly `count` bytes; a nil base comes with count 0.
    self.rawValue = skein_crc32c(seed.rawValue, bytes.baseAddress, bytes.count)
  }

  @inlinable package init(of bytes: [UInt8]) {
    self = bytes.withUnsafeBytes { Checksum(of: $0) }
  }
}
