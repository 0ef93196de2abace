// What the checker found: the verdict with its violations, their witnesses, and counts.

/// The ways in which a history can break a promise.
package enum ViolationKind: Int, CaseIterable, Sendable {
  case lost, resurrected, unexpected, heldTwice, failoverDuplicate, early, tokenRegress
  case staleAccepted, leaseCut, outOfOrder, deadLetterDoubled, confirmedTwice, attempts

  package var name: String {
    switch self {
    case .lost: "lost"
    case .resurrected: "resurrected"
    case .unexpected: "unexpected"
    case .heldTwice: "held-twice"
    case .failoverDuplicate: "failover-duplicate"
    case .early: "early"
    case .tokenRegress: "token-regress"
    case .staleAccepted: "stale-accepted"
    case .leaseCut: "lease-cut"
    case .outOfOrder: "out-of-order"
    case .deadLetterDoubled: "dead-letter-doubled"
    case .confirmedTwice: "confirmed-twice"
    case .attempts: "attempts"
    }
  }
}

/// Why a message was delivered again.
package enum RedeliveryCause: Int, CaseIterable, Sendable {
  case nack, release, consumerDied, leaseOverran, unknownAck, leaderChange

  package var name: String {
    switch self {
    case .nack: "nack"
    case .release: "release"
    case .consumerDied: "consumerDied"
    case .leaseOverran: "leaseOverran"
    case .unknownAck: "unknownAck"
    case .leaderChange: "leaderChange"
    }
  }
}

package enum Validity: Equatable, Sendable {
  case valid, violated
  /// Nothing wrong was seen, but the history does not show enough.
  case unknown
}

package struct Violation: Equatable, Sendable {
  package var kind: ViolationKind
  /// Distinct messages.
  package var count = 0
  /// The values of the first 20.
  package var ids: [String] = []
  /// Events that tell the story of the first few, as JSON objects.
  package var witness: [String] = []
}

package struct HistoryCounts: Equatable, Sendable {
  package var events = 0
  /// Distinct messages of which a publish was invoked.
  package var published = 0
  /// Publish invokes, retries among them.
  package var attempts = 0
  /// Distinct messages with a confirmed publish.
  package var confirmed = 0
  /// Distinct messages that came out.
  package var delivered = 0
  package var deliveries = 0
  /// Distinct messages with a confirmed ack.
  package var acked = 0
  /// Messages whose publish has no known outcome, and that came out.
  package var recovered = 0
  /// Redeliveries by `RedeliveryCause`.
  package var redelivered = [Int](repeating: 0, count: RedeliveryCause.allCases.count)
  /// Confirmed messages that were delivered, dead-lettered or legitimately gone.
  package var accounted = 0
  /// Messages that were delivered more than once, and those of them that ended in a confirmed ack.
  package var retried = 0
  package var retriedAndAcked = 0

  /// Nil if nothing was confirmed.
  package var persisted: Double? { confirmed == 0 ? nil : Double(accounted) / Double(confirmed) }
  /// Nil if nothing was delivered more than once.
  package var retriesEnded: Double? {
    retried == 0 ? nil : Double(retriedAndAcked) / Double(retried)
  }

  package subscript(cause: RedeliveryCause) -> Int {
    get { redelivered[cause.rawValue] }
    set { redelivered[cause.rawValue] = newValue }
  }
}

/// How long nothing was confirmed after faults: of each fault, the longest gap between two confirms
/// until the next fault. Milliseconds.
package struct Unavailability: Equatable, Sendable {
  package struct Gaps: Equatable, Sendable {
    package var count: Int
    package var median: Double
    package var max: Double
  }

  /// Nil if there was no fault.
  package var all: Gaps?
  /// By name of the fault, sorted.
  package var byFault: [(name: String, gaps: Gaps)] = []

  package static func == (left: Unavailability, right: Unavailability) -> Bool {
    left.all == right.all && left.byFault.elementsEqual(right.byFault) { $0 == $1 }
  }
}

package struct Verdict: Equatable, Sendable {
  package var validity: Validity
  /// Why the verdict is not `valid` although nothing is violated: sentences.
  package var unknownReasons: [String]
  /// All, in the order of `ViolationKind`.
  package var violations: [Violation]
  package var counts: HistoryCounts
  package var unavailability: Unavailability
  /// Whether a redelivery after a leader change is a violation.
  package var isStrict: Bool

  package subscript(kind: ViolationKind) -> Violation { violations[kind.rawValue] }

  /// How a process that gives this verdict ends: 0 valid, 2 violated, 3 unknown.
  package var exitCode: Int32 {
    switch validity {
    case .valid: 0
    case .violated: 2
    case .unknown: 3
    }
  }
}

extension Verdict {
  /// `verdict.json`, in one line without a line break.
  package var json: String {
    var line = JSONLine()
    line.begin()
    line.name("valid")
    switch validity {
    case .valid: line.raw("true")
    case .violated: line.raw("false")
    case .unknown: line.raw("\"unknown\"")
    }
    line.array("unknown", unknownReasons) { $0.text($1) }
    line.name("strict")
    line.raw(isStrict ? "true" : "false")
    line.object("violations") { line in
      for violation in violations { Self.write(violation, to: &line) }
    }
    line.object("counts") { write(counts, to: &$0) }
    line.object("unavailabilityMs") { write(unavailability, to: &$0) }
    line.end()
    return String(decoding: line.bytes, as: UTF8.self)
  }

  private static func write(_ violation: Violation, to line: inout JSONLine) {
    line.object(violation.kind.name) { line in
      line.put("count", UInt64(violation.count))
      line.array("ids", violation.ids) { $0.text($1) }
      line.array("witness", violation.witness) { $0.raw($1) }
    }
  }

  private func write(_ counts: HistoryCounts, to line: inout JSONLine) {
    line.put("events", UInt64(counts.events))
    line.put("published", UInt64(counts.published))
    line.put("attempts", UInt64(counts.attempts))
    line.put("confirmed", UInt64(counts.confirmed))
    line.put("delivered", UInt64(counts.delivered))
    line.put("deliveries", UInt64(counts.deliveries))
    line.put("acked", UInt64(counts.acked))
    line.put("recovered", UInt64(counts.recovered))
    line.object("redelivered") { line in
      for cause in RedeliveryCause.allCases { line.put(cause.name, UInt64(counts[cause])) }
    }
    put("pPersist", counts.persisted, to: &line)
    put("pRetry", counts.retriesEnded, to: &line)
  }

  private func write(_ unavailability: Unavailability, to line: inout JSONLine) {
    put("p50", unavailability.all?.median, to: &line)
    put("max", unavailability.all?.max, to: &line)
    line.object("byFault") { line in
      for (name, gaps) in unavailability.byFault {
        line.object(name) { line in
          line.put("count", UInt64(gaps.count))
          put("p50", gaps.median, to: &line)
          put("max", gaps.max, to: &line)
        }
      }
    }
  }

  private func put(_ name: String, _ number: Double?, to line: inout JSONLine) {
    line.name(name)
    line.raw(number.map { "\($0)" } ?? "null")
  }
}
