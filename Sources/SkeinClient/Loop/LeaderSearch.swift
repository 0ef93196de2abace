// Which node to try next, and when: pure bookkeeping of the loop's search for the leader.

import Base

struct LeaderSearch {
  enum Phase {
    /// No connection; the next attempt is at `deadline`.
    case searching
    /// The three of an attempt, over at `deadline`.
    case connecting
    case greeting
    /// Connected to a node that knows no leader yet and will say when it does.
    case waiting
    /// Connected to the leader.
    case ready
  }

  var phase = Phase.searching
  var deadline = MonotonicTime.never
  /// The endpoint of the attempt or connection.
  private(set) var target = ""
  /// Those that were named as members last come first.
  private var addresses: [String] = []
  /// How many of them the last word named.
  private var named = 0
  /// Those that the program named.
  private var given: [String] = []
  /// Those that had their turn in this round. A word that changes the order of the others takes nobody's
  /// turn: members that were removed name lists without themselves, and would send it to and fro for ever.
  private var tried: Set<String> = []
  /// Was connected to as the leader last, and has not had its turn since.
  private var lost: String?
  /// Where a node said that the leader is.
  private var hint: String?
  /// Named as leaders but not to be reached in this round: an out-of-date word is not followed.
  private var unreachable: Set<String> = []
  private var hintsInRound = 0
  private var backoff = Nanoseconds.zero
  /// What each endpoint's last attempt met, in the order of the endpoints.
  private var problems: [String: String] = [:]

  /// Words of nodes followed before it is waited as after a round: two that name each other as the
  /// leader must not be asked without end.
  private static let hintsPerRound = 4
  /// Of all the members that a cluster ever had, no more are tried beside those given.
  private static let membersMax = 32

  mutating func begin(addresses: [String], backoff: Nanoseconds, now: MonotonicTime) {
    self.addresses = addresses
    given = addresses
    named = addresses.count
    self.backoff = backoff
    deadline = now
  }

  /// Takes a node's word of who is there. Those that were known before stay behind them: its word may be
  /// out of date, and who believed nothing else would forget those that are there now.
  mutating func learn(_ members: [String]) {
    var known: [String] = []
    func add(_ some: some Sequence<String>) {
      for address in some where !address.isEmpty && !known.contains(address) {
        known.append(address)
      }
    }
    add(members.prefix(Self.membersMax))
    if !known.isEmpty { named = known.count }
    add(addresses)
    named = min(named, known.count)
    while known.count > given.count + Self.membersMax,
      let last = known.lastIndex(where: { !given.contains($0) })
    {
      known.remove(at: last)
    }
    addresses = known
    problems = problems.filter { known.contains($0.key) }
  }

  /// The next to have its turn. A node that names others every time makes no round longer than all that are
  /// kept.
  private var untried: String? {
    tried.count < given.count + Self.membersMax ? addresses.first { !tried.contains($0) } : nil
  }

  var knownAddresses: [String] { addresses }

  /// The endpoint to try now.
  mutating func takeTarget() -> String {
    if let hint {
      self.hint = nil
      hintsInRound += 1
      target = hint
    } else {
      if untried == nil { tried = [] }
      target = untried ?? target
    }
    tried.insert(target)
    if target == lost { lost = nil }
    return target
  }

  /// Whether the word that the leader is at `address` is worth following.
  func isWorthFollowing(_ address: String) -> Bool {
    !address.isEmpty && address != target && !unreachable.contains(address)
      && hintsInRound < Self.hintsPerRound
  }

  mutating func follow(_ address: String, now: MonotonicTime) {
    hint = address
    phase = .searching
    deadline = now
  }

  /// The attempt or the connection came to nothing: says when to try the next.
  mutating func fail(_ problem: String, now: MonotonicTime, backoffMax: Nanoseconds) {
    problems[target] = problem
    unreachable.insert(target)
    if phase == .ready { lose() }
    phase = .searching
    deadline = now
    // One that is lost again and again is no more asked without a wait than those that cannot be reached.
    guard
      hint == nil, untried == nil || untried == lost || hintsInRound >= Self.hintsPerRound
    else { return }
    deadline = now + nextBackoff(max: backoffMax)
    hintsInRound = 0
    unreachable = []
  }

  /// Other members come first: the one that was lost is the least likely to lead. Those that once were
  /// members come behind it.
  private mutating func lose() {
    lost = target
    guard let place = addresses.firstIndex(of: target) else { return }
    addresses.remove(at: place)
    addresses.insert(target, at: place < named ? named - 1 : named)
  }

  mutating func nextBackoff(max: Nanoseconds) -> Nanoseconds {
    defer { backoff = min(max, Nanoseconds(rawValue: backoff.rawValue * 2)) }
    return min(max, backoff)
  }

  mutating func succeed(backoffMin: Nanoseconds) {
    phase = .ready
    deadline = .never
    tried = []
    hintsInRound = 0
    unreachable = []
    problems = [:]
    backoff = backoffMin
  }

  /// A newly elected leader is worth trying even if it was not to be reached before.
  mutating func trust(_ address: String) {
    unreachable.remove(address)
    hintsInRound = 0
  }

  /// For people: what each endpoint's last attempt met.
  var report: String {
    let parts = addresses.compactMap { address in
      problems[address].map { "\(address): \($0)" }
    }
    return parts.isEmpty ? "no endpoint has answered" : parts.joined(separator: "; ")
  }
}
