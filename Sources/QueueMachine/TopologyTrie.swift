// Topic keys (AMQP §3.1.3.3): words between dots; in a binding's key `*` is any one word and `#` any
// number of words, none included. A tree by words, so that a key is matched against 10,000 bindings
// at the cost of its own words.

import Base

/// The bindings of a topic exchange by their keys.
struct TopicTrie: Sendable {
  private struct Node: Sendable {
    /// Looked up only.
    var children: [[UInt8]: Int] = [:]
    /// Of the numbers of the bindings that end here, in the order of their making.
    var bindings: [UInt64] = []
    var parent = -1
    var word: [UInt8] = []
  }

  private var nodes = SlotTable(vacant: Node())
  private let root: Int

  init() { root = nodes.insert(Node()) }

  /// Nodes beside the root: with nothing bound, none.
  var nodeCount: Int { nodes.count - 1 }

  mutating func insert(_ number: UInt64, key: [UInt8]) {
    var place = root
    for word in Self.words(of: key) {
      if let child = nodes[place].children[word] {
        place = child
      } else {
        var node = Node()
        node.parent = place
        node.word = word
        let child = nodes.insert(node)
        nodes[place].children[word] = child
        place = child
      }
    }
    nodes[place].bindings.append(number)
  }

  mutating func remove(_ number: UInt64, key: [UInt8]) {
    var place = root
    for word in Self.words(of: key) {
      guard let child = nodes[place].children[word] else { return }
      place = child
    }
    nodes[place].bindings.removeAll { $0 == number }
    while place != root, nodes[place].bindings.isEmpty, nodes[place].children.isEmpty {
      let parent = nodes[place].parent
      nodes[parent].children[nodes[place].word] = nil
      nodes.remove(place)
      place = parent
    }
  }

  /// Calls `body` with the number of every binding whose key matches, each once, in no particular
  /// order.
  func match(_ key: [UInt8], _ body: (UInt64) -> Void) {
    let words = Self.words(of: key)
    // Several `#` give many ways to the same place: each place is seen once per number of words.
    var seen = Set<Int>()
    var open: [(node: Int, word: Int)] = [(root, 0)]
    while let (node, word) = open.popLast() {
      guard seen.insert(node * (words.count + 1) + word).inserted else { continue }
      if word == words.count { nodes[node].bindings.forEach(body) }
      if let more = nodes[node].children[Self.many] {
        for next in word...words.count { open.append((more, next)) }
      }
      guard word < words.count else { continue }
      if let other = nodes[node].children[Self.one] { open.append((other, word + 1)) }
      // A key's own `*` and `#` are words like others, but lead to the same children.
      if words[word] != Self.one, words[word] != Self.many,
        let child = nodes[node].children[words[word]]
      {
        open.append((child, word + 1))
      }
    }
  }

  private static let one = [UInt8(ascii: "*")]
  private static let many = [UInt8(ascii: "#")]

  static func words(of key: [UInt8]) -> [[UInt8]] {
    key.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).map { [UInt8]($0) }
  }
}
