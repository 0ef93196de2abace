// Random topologies: the routes of the machine against a list of bindings that is searched from end
// to end, through snapshots.

import Base
import Foundation
import TestSupport
import Testing

@testable import QueueMachine

/// A topology as a list, as plain as can be.
private struct NaiveTopology {
  struct Bound: Hashable {
    var source: String
    var target: BindingTarget
    var key: String
  }
  var exchanges: [String: (kind: ExchangeType, alternate: String)] = [
    "amq.direct": (.direct, ""), "amq.fanout": (.fanout, ""), "amq.topic": (.topic, ""),
  ]
  var queues: Set<String> = []
  var bindings: Set<Bound> = []

  func route(_ exchange: String, _ key: String) -> Set<String> {
    var found: Set<String> = []
    var seen: Set<String> = []
    follow(exchange, key, &found, &seen)
    return found
  }

  private func follow(
    _ exchange: String, _ key: String, _ found: inout Set<String>, _ seen: inout Set<String>
  ) {
    guard let known = exchanges[exchange], seen.insert(exchange).inserted else { return }
    let matching = bindings.filter { $0.source == exchange && matches($0.key, key, known.kind) }
    for binding in matching {
      switch binding.target {
      case .queue(let name): found.insert(name)
      case .exchange(let name): follow(name, key, &found, &seen)
      }
    }
    if matching.isEmpty { follow(known.alternate, key, &found, &seen) }
  }

  private func matches(_ pattern: String, _ key: String, _ kind: ExchangeType) -> Bool {
    switch kind {
    case .fanout: true
    case .topic: Self.matches(words(pattern)[...], words(key)[...])
    default: pattern == key
    }
  }

  private func words(_ text: String) -> [Substring] {
    text.split(separator: ".", omittingEmptySubsequences: false)
  }

  static func matches(_ pattern: ArraySlice<Substring>, _ key: ArraySlice<Substring>) -> Bool {
    guard let first = pattern.first else { return key.isEmpty }
    if first == "#" {
      return matches(pattern.dropFirst(), key)
        || !key.isEmpty && matches(pattern, key.dropFirst())
    }
    guard let word = key.first, first == "*" || first == word else { return false }
    return matches(pattern.dropFirst(), key.dropFirst())
  }

  mutating func remove(exchange: String) {
    exchanges[exchange] = nil
    bindings = bindings.filter { $0.source != exchange && $0.target != .exchange(exchange) }
  }

  mutating func remove(queue: String) {
    queues.remove(queue)
    bindings = bindings.filter { $0.target != .queue(queue) }
  }
}

@Suite(.ownThreads) struct TopologyModelTests {
  @Test func routesAreThoseOfTheModel() throws {
    let environment = ProcessInfo.processInfo.environment
    let seeds = UInt64(environment["SKEIN_SEEDS"] ?? "") ?? 12
    let first = UInt64(environment["SKEIN_SEED"] ?? "") ?? 1
    for seed in first..<first + seeds {
      if let fault = try Self.run(seed: seed, steps: 120) {
        Issue.record(
          "seed \(seed): \(fault) (SKEIN_SEED=\(seed) SKEIN_SEEDS=1 swift test --filter TopologyModelTests)"
        )
        return
      }
    }
  }

  private static func run(seed: UInt64, steps: Int) throws -> String? {
    var random = SeededRandom(seed: seed)
    var model = NaiveTopology()
    let rig = Rig()
    let session = AMQPSession(rig)
    let words = ["a", "b", "*", "#", ""]
    func pick<T>(_ list: [T]) -> T { list[Int.random(in: 0..<list.count, using: &random)] }
    func key(_ count: Int) -> String {
      (0..<Int.random(in: 1...count, using: &random)).map { _ in pick(words) }
        .joined(separator: ".")
    }
    let names = ["amq.direct", "amq.fanout", "amq.topic", "x", "y", "z"]
    let queues = ["p", "q", "r", "s"]
    for step in 0..<steps {
      let target: BindingTarget =
        Bool.random(using: &random) ? .queue(pick(queues)) : .exchange(pick(names))
      let bound = NaiveTopology.Bound(source: pick(names), target: target, key: key(3))
      switch Int.random(in: 0..<10, using: &random) {
      case 0:
        let (name, kind) = (pick(["x", "y", "z"]), pick([ExchangeType.direct, .fanout, .topic]))
        let alternate = pick(["", "", "x", "amq.fanout"])
        if session.exchange(name, kind, alternate: alternate) == .done,
          model.exchanges[name] == nil
        {
          model.exchanges[name] = (kind, alternate)
        }
      case 1:
        let name = pick(queues)
        session.queue(name)
        model.queues.insert(name)
      case 2 where step % 3 == 0:
        let name = pick(["x", "y", "z"])
        session.ask {
          CommandWriter.deleteExchange($0, tag: $1, TopologyName(name), ifUnused: false, into: &$2)
        }
        model.remove(exchange: name)
      case 3 where step % 3 == 0:
        let name = pick(queues)
        rig.ask { CommandWriter.deleteQueue($0, tag: $1, name: name, into: &$2) }
        model.remove(queue: name)
      case 4:
        session.unbind(bound.source, from: bound.target, key: bound.key)
        model.bindings.remove(bound)
      case 5:
        let before = rig.machine.freeze().encoded()
        try rig.restart()
        if rig.machine.freeze().encoded() != before { return "step \(step): snapshot differs" }
      default:
        let isDone = session.bind(bound.source, to: bound.target, key: bound.key) == .done
        let targetIsThere =
          switch bound.target {
          case .queue(let name): model.queues.contains(name)
          case .exchange(let name): model.exchanges[name] != nil
          }
        if isDone != (targetIsThere && model.exchanges[bound.source] != nil) {
          return "step \(step): binding \(bound) was \(isDone)"
        }
        if isDone { model.bindings.insert(bound) }
      }
      for _ in 0..<4 {
        let (exchange, key) = (pick(names), key(4))
        guard let number = rig.machine.state.topology.exchange(exchange, in: .main) else {
          if model.exchanges[exchange] != nil { return "step \(step): no \(exchange)" }
          continue
        }
        let route = rig.machine.state.topology.route(from: number, keys: [[UInt8](key.utf8)]) {
          HeaderIndex()
        }
        let found = Set(route.compactMap { rig.machine.state.topology.queues[UInt64($0)]?.name })
        if found != model.route(exchange, key) {
          return "step \(step): \(exchange) \(key): \(found), not \(model.route(exchange, key))"
        }
      }
    }
    return nil
  }

  @Test func tenThousandBindingsAreNotSearched() {
    var trie = TopicTrie()
    for number in 1...10_000 {
      trie.insert(UInt64(number), key: [UInt8]("shop.\(number % 100).order.\(number).#".utf8))
    }
    trie.insert(10_001, key: [UInt8]("shop.*.order.*".utf8))
    var found: [UInt64] = []
    trie.match([UInt8]("shop.7.order.4207.new".utf8)) { found.append($0) }
    #expect(found == [4_207])
    trie.match([UInt8]("shop.7.order.4207".utf8)) { found.append($0) }
    #expect(Set(found) == [4_207, 10_001] && found.count == 3)
    for number in 1...10_000 {
      trie.remove(UInt64(number), key: [UInt8]("shop.\(number % 100).order.\(number).#".utf8))
    }
    trie.remove(10_001, key: [UInt8]("shop.*.order.*".utf8))
    #expect(trie.nodeCount == 0)
  }

  /// A key made to be matched in very many ways costs its words times the bindings' nodes, no more.
  @Test func manyWaysToMatchCostLittle() {
    var trie = TopicTrie()
    let pattern = Array(repeating: "#", count: 60).joined(separator: ".")
    trie.insert(1, key: [UInt8]((pattern + ".x").utf8))
    var found = 0
    let key = Array(repeating: "a", count: 100).joined(separator: ".")
    trie.match([UInt8](key.utf8)) { _ in found += 1 }
    #expect(found == 0)
    trie.match([UInt8]((key + ".x").utf8)) { _ in found += 1 }
    #expect(found == 1)
  }

  /// Keys of every length that AMQP has, where the set of places that words lead to crosses from one
  /// half of its bits to the other.
  @Test(arguments: [1, 2, 127, 128, 129, 255, 256]) func keysOfManyWords(count: Int) {
    var trie = TopicTrie()
    let empty = [UInt8](repeating: UInt8(ascii: "."), count: count - 1)
    trie.insert(1, key: [UInt8]("#".utf8))
    trie.insert(2, key: empty)
    trie.insert(3, key: empty + [UInt8](".#".utf8))
    trie.insert(4, key: [UInt8]("#.#".utf8) + empty)
    trie.insert(5, key: [UInt8](Array(repeating: "*", count: count).joined(separator: ".").utf8))
    trie.insert(6, key: [UInt8]("*.".utf8) + empty)
    trie.insert(7, key: [UInt8]("#.*".utf8))
    var found: Set<UInt64> = []
    trie.match(empty) { #expect(found.insert($0).inserted) }
    #expect(found == [1, 2, 3, 4, 5, 7])
    found = []
    trie.match(empty + [UInt8](".end".utf8)) { #expect(found.insert($0).inserted) }
    // AMQP has no key of so many words.
    if count == 256 { return #expect(found == []) }
    #expect(found == (count == 1 ? [1, 3, 4, 7] : [1, 3, 7]))
  }

  /// Whatever is bound and asked: the tree against a matcher that tries every way.
  @Test(arguments: [UInt64](1...20)) func treeAgreesWithTryingEveryWay(seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let words = ["a", "b", "", "*", "#", "#"]
    func key(_ most: Int) -> [String] {
      (0..<1 + Int(random.next() % UInt64(most))).map { _ in words[Int(random.next() % 6)] }
    }
    func matches(_ pattern: ArraySlice<String>, _ key: ArraySlice<String>) -> Bool {
      guard let first = pattern.first else { return key.isEmpty }
      if first == "#" {
        return (key.startIndex...key.endIndex).contains {
          matches(pattern.dropFirst(), key[$0...])
        }
      }
      guard let word = key.first else { return false }
      return (first == "*" || first == word) && matches(pattern.dropFirst(), key.dropFirst())
    }
    var trie = TopicTrie()
    let patterns = (0..<40).map { _ in key(5) }
    for (number, pattern) in patterns.enumerated() {
      trie.insert(UInt64(number), key: [UInt8](pattern.joined(separator: ".").utf8))
    }
    for _ in 0..<100 {
      let key = key(6)
      var found: Set<Int> = []
      trie.match([UInt8](key.joined(separator: ".").utf8)) { found.insert(Int($0)) }
      let wanted = patterns.indices.filter { matches(patterns[$0][...], key[...]) }
      #expect(found == Set(wanted), "seed \(seed): \(key)")
    }
  }
}
