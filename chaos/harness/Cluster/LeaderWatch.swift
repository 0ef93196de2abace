// Who leads, and who takes part no more, by what the nodes themselves write into their logs: to the
// millisecond, and without asking anybody, so that watching does not disturb what is watched.

import Base
import Glibc
import Synchronization

/// A node began to lead.
package struct Leadership: Equatable, Sendable {
  package let node: Int
  package let term: UInt64
  /// By the node's own log.
  package let time: Nanoseconds
  /// When it died or said that it leads no more; nil if it never did.
  package var end: Nanoseconds?
}

package final class LeaderWatch: Sendable {
  private let places: ClusterPlaces
  private let recording: Recording
  private let state = Mutex(State())

  private struct State {
    var offsets: [Int: Int] = [:]
    var carry: [Int: [UInt8]] = [:]
    var changes: [Leadership] = []
    /// The term in which each node says that it leads.
    var leading: [Int: UInt64] = [:]
    /// Nodes that live and take no part any more, though nothing was done to them that explains it; and
    /// those that led a term with another.
    var halts: [NodeExit] = []
    /// Nodes that may stop taking part: their disk is being harmed, or they are being removed.
    var excused: Set<Int> = []
    /// Nodes that may speak of damage: their disk was harmed some time, or it was said once already.
    var damaged: Set<Int> = []
  }

  /// How often the logs are looked at.
  private static let interval = Duration.milliseconds(5)

  init(places: ClusterPlaces, recording: Recording) {
    self.places = places
    self.recording = recording
  }

  /// Follows the logs until the task is cancelled.
  func run() async {
    while !Task.isCancelled {
      look()
      do { try await Task.sleep(for: Self.interval) } catch { break }
    }
    look()
  }

  /// All changes so far, in order.
  package var changes: [Leadership] { state.withLock { $0.changes } }

  /// Who leads with the highest term; nil if nobody says so.
  package var leader: Leadership? {
    look()
    return state.withLock { state in
      guard let top = state.leading.max(by: { $0.value < $1.value }) else { return nil }
      return state.changes.last { $0.node == top.key && $0.term == top.value }
    }
  }

  /// The node is dead: it leads no more, and could not say so.
  func died(_ node: Int) {
    look()
    state.withLock { state in leadsNoMore(node, at: recording.clock.now, &state) }
  }

  // MARK: Halts

  /// Nodes whose processes live and take no part any more: their states had diverged (G14), a sync had
  /// failed (G12). A kill or a restart would hide it, so it counts from the moment it is said. Nodes that
  /// led a term in which another had led are among them.
  var halts: [NodeExit] {
    look()
    return state.withLock { $0.halts }
  }

  /// What the node stops for from now on has its reason in what is done to it.
  func excuse(_ node: Int) {
    look()
    state.withLock { state in _ = state.excused.insert(node) }
  }

  /// From now on the node may find damage on its disk. One that finds some without this takes what a crash
  /// left for damage, or has relied on what it never synced (G11).
  func diskIsHarmed(_ node: Int) {
    look()
    state.withLock { state in _ = state.damaged.insert(node) }
  }

  func excuseNoMore(_ node: Int) {
    look()
    state.withLock { state in _ = state.excused.remove(node) }
  }

  /// A node whose log is to be followed.
  func add(_ node: Int) {
    state.withLock { state in
      if state.offsets[node] == nil { state.offsets[node] = 0 }
    }
  }

  private func look() {
    state.withLock { state in
      for node in state.offsets.keys.sorted() { look(at: node, &state) }
    }
  }

  private func look(at node: Int, _ state: inout State) {
    let offset = state.offsets[node, default: 0]
    let bytes: [UInt8]
    do {
      bytes = try ClusterFiles.read(places.logFile(node), from: offset)
    } catch {
      // It is made when the node starts.
      return
    }
    if bytes.isEmpty { return }
    state.offsets[node] = offset + bytes.count
    var text = state.carry[node, default: []]
    text += bytes
    var start = 0
    while let end = text[start...].firstIndex(of: 0x0a) {
      take(String(decoding: text[start..<end], as: UTF8.self), of: node, &state)
      start = end + 1
    }
    state.carry[node] = Array(text[start...])
  }

  private func take(_ line: String, of node: Int, _ state: inout State) {
    guard let known = LogLine(line) else { return }
    let time = recording.clock.time(ofWall: known.time)
    switch known.event {
    case .leads(let term):
      leadsNoMore(node, at: time, &state)
      // Raft's election safety (thesis §3.4): somebody voted twice, whatever came of it.
      if let other = state.changes.first(where: { $0.term == term && $0.node != node }) {
        let cause = "leads term \(term), in which node \(other.node) had led"
        state.halts.append(
          NodeExit(node: node, time: time, cause: cause, log: line, isAlive: true))
      }
      state.leading[node] = term
      state.changes.append(Leadership(node: node, term: term, time: time))
      // In a history times never fall: there it stands when it was read.
      recording.leaderChange(to: node)
    case .leadsNoMore: leadsNoMore(node, at: time, &state)
    case .damaged(let text):
      guard state.damaged.insert(node).inserted else { return }
      state.halts.append(
        NodeExit(
          node: node, time: time, cause: "finds damage on a disk that nobody harmed: \(text)",
          log: line, isAlive: true, promise: "G11"))
    case .halted(let reason):
      if state.excused.contains(node) { return }
      state.halts.append(
        NodeExit(
          node: node, time: time, cause: "stopped taking part: \(reason)", log: line, isAlive: true)
      )
    }
  }

  private func leadsNoMore(_ node: Int, at time: Nanoseconds, _ state: inout State) {
    guard let term = state.leading.removeValue(forKey: node),
      let place = state.changes.lastIndex(where: { $0.node == node && $0.term == term })
    else { return }
    state.changes[place].end = time
  }
}

/// A line such as `2026-11-20T22:00:00.123Z node 2 info: leads term 7`, if it is about leading, about
/// taking part no more, or about damage.
struct LogLine: Equatable {
  enum Event: Equatable {
    case leads(term: UInt64)
    case leadsNoMore
    /// The process lives, to say why it takes no part any more.
    case halted(reason: String)
    /// It found something on its disk that should not be so.
    case damaged(String)
  }

  /// Since 1970.
  let time: Nanoseconds
  let event: Event

  init?(_ line: String) {
    let words = line.split(separator: " ", maxSplits: 4)
    guard words.count == 5, words[1] == "node", let time = Self.time(words[0])
    else { return nil }
    let halt = "stopped taking part: "
    let damage = "damage: "
    if words[3] == "warning:", words[4].hasPrefix(damage) {
      event = .damaged(String(words[4].dropFirst(damage.count)))
    } else if words[3] == "error:", words[4].hasPrefix(halt) {
      event = .halted(reason: String(words[4].dropFirst(halt.count)))
    } else if words[3] != "info:" {
      return nil
    } else if words[4].hasPrefix("leads term "), let term = UInt64(words[4].dropFirst(11)) {
      event = .leads(term: term)
    } else if words[4].hasPrefix("does not lead") || words[4] == "stopped" {
      event = .leadsNoMore
    } else {
      return nil
    }
    self.time = time
  }

  /// RFC 3339 with milliseconds, UTC.
  private static func time(_ text: Substring) -> Nanoseconds? {
    let numbers = text.split { !$0.isNumber }.compactMap { Int($0) }
    guard numbers.count == 7 else { return nil }
    var parts = tm()
    parts.tm_year = Int32(numbers[0] - 1900)
    parts.tm_mon = Int32(numbers[1] - 1)
    parts.tm_mday = Int32(numbers[2])
    parts.tm_hour = Int32(numbers[3])
    parts.tm_min = Int32(numbers[4])
    parts.tm_sec = Int32(numbers[5])
    let seconds = timegm(&parts)
    guard seconds >= 0 else { return nil }
    return Nanoseconds(rawValue: UInt64(seconds) * 1_000_000_000 + UInt64(numbers[6]) * 1_000_000)
  }
}
