// Time as values. Nothing here reads a clock: monotonic time enters the pure layers as an
// argument, machine time comes out of the log.

/// A span of time, nanoseconds.
@frozen @usableFromInline package struct Nanoseconds: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package static var zero: Nanoseconds { Nanoseconds(rawValue: 0) }
  @inlinable package static func milliseconds(_ count: UInt64) -> Nanoseconds {
    Nanoseconds(rawValue: count * 1_000_000)
  }
  @inlinable package static func seconds(_ count: UInt64) -> Nanoseconds {
    Nanoseconds(rawValue: count * 1_000_000_000)
  }
}

/// A reading of one process's monotonic clock, nanoseconds from an arbitrary start. Readings of
/// different processes have nothing in common.
@frozen @usableFromInline package struct MonotonicTime: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package static var never: MonotonicTime { MonotonicTime(rawValue: .max) }
  @inlinable package static func + (time: MonotonicTime, span: Nanoseconds) -> MonotonicTime {
    let (sum, overflow) = time.rawValue.addingReportingOverflow(span.rawValue)
    return overflow ? .never : MonotonicTime(rawValue: sum)
  }
  /// The span from `earlier`, zero if that is later.
  @inlinable package func since(_ earlier: MonotonicTime) -> Nanoseconds {
    Nanoseconds(rawValue: rawValue > earlier.rawValue ? rawValue - earlier.rawValue : 0)
  }
}

/// The queues' clock: the stamp that the leader gave to an entry, nanoseconds since 1970 when the
/// cluster began, from then on by the leaders' monotonic clocks. It never goes back and no jump of
/// a wall clock moves it (DESIGN: time is in the log).
@frozen @usableFromInline package struct MachineTime: Identifier {
  @usableFromInline package let rawValue: UInt64
  @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable package static var zero: MachineTime { MachineTime(rawValue: 0) }
  @inlinable package static var never: MachineTime { MachineTime(rawValue: .max) }
  @inlinable package static func + (time: MachineTime, span: Nanoseconds) -> MachineTime {
    let (sum, overflow) = time.rawValue.addingReportingOverflow(span.rawValue)
    return overflow ? .never : MachineTime(rawValue: sum)
  }
  /// The span from `earlier`, zero if that is later.
  @inlinable package func since(_ earlier: MachineTime) -> Nanoseconds {
    Nanoseconds(rawValue: rawValue > earlier.rawValue ? rawValue - earlier.rawValue : 0)
  }
}
