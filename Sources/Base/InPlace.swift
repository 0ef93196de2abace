// Why a large struct that nobody copies would be copied all the same, and what prevents it.

import Synchronization

/// A field of this type has the compiler pass the noncopyable struct around it by its address.
///
/// A struct that consists of loadable fields only is loaded and put on the stack, whole, for most calls
/// of a method that does not change it, even where it cannot be copied: 3.5 KB for a replica, many
/// times a turn. An atomic has to stay where it is, and so has whatever contains one.
package struct InPlace: ~Copyable, Sendable {
  private let pin = Atomic<UInt8>(0)

  package init() {}
}
