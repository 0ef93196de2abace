// Whether this machine can listen where the configuration says: found out by trying, and given back
// at once.

import Base
import Transport

extension ServerConfiguration {
  /// Why a port is not to be had.
  package struct AddressFault: Hashable, Sendable, CustomStringConvertible {
    /// Of the configuration, such as `listen.peers`.
    package let key: String
    package let words: String
    /// Somebody has the port now; all else is a mistake in the configuration.
    package let isInUse: Bool

    package var description: String { "\(key): \(words)" }
  }

  /// What keeps this machine from listening on its own addresses; empty is well.
  package func addressFaults() -> [AddressFault] {
    [
      ("listen.peers", peerListen), ("listen.clients", clientListen), ("listen.amqp", amqpListen),
    ].compactMap { key, endpoint in
      guard let endpoint else { return nil }
      do throws(AddressError) {
        // Where the server listens too: on the first address of a name.
        guard let address = try SocketAddress.resolve(endpoint).first else { return nil }
        return Self.fault(key, address)
      } catch {
        return AddressFault(key: key, words: error.description, isInUse: false)
      }
    }
  }

  private static func fault(_ key: String, _ address: SocketAddress) -> AddressFault? {
    do throws(ListenError) {
      _ = try Listener(address)
      return nil
    } catch {
      var isInUse = false
      if case .addressInUse = error { isInUse = true }
      return AddressFault(key: key, words: error.description, isInUse: isInUse)
    }
  }
}
