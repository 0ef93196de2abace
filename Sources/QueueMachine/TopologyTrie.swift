// Topic keys (AMQP §3.1.3.3): words between dots; in a binding's key `*` is any one word and `#` any
// number of words, none included. A tree by words, so that a key is matched against 10,000 bindings
// at the cost of its own words. However keys are chosen, each node of the tree is looked at once: what
// is kept for it is the set of all places in the key that its words can lead to.

import Base

/// The bindings of a topic exchange by their keys.
struct TopicTrie: Sendable {
  private struct Node: Sendable {
    /// Where there are several; looked up, or walked where the order means nothing.
    var children: [[UInt8]: Int] = [:]
    /// Where there is one: most nodes have no more, and a table takes more than all the rest of one.
    var onlyChild = TopicTrie.noNode
    /// The numbers of the bindings that end here.
    var bindings: Set<UInt64> = []
    var parent = TopicTrie.noNode
    var word: [UInt8] = []

    var isLeaf: Bool { onlyChild == TopicTrie.noNode && children.isEmpty }
  }

  private static let noNode = -1

  private var nodes = SlotTable(vacant: Node())
  private let root: Int

  init() { root = nodes.insert(Node()) }

  /// Nodes beside the root: with nothing bound, none. It depends on the keys alone.
  var nodeCount: Int { nodes.count - 1 }

  /// How many nodes more there would be with such a key.
  func nodesMissing(for key: [UInt8]) -> Int {
    let words = Self.words(of: key)
    var place = root
    for (count, word) in words.enumerated() {
      guard let child = child(of: place, word) else { return words.count - count }
      place = child
    }
    return 0
  }

  mutating func insert(_ number: UInt64, key: [UInt8]) {
    var place = root
    for word in Self.words(of: key) {
      if let child = child(of: place, word) {
        place = child
      } else {
        var node = Node()
        node.parent = place
        node.word = word
        let child = nodes.insert(node)
        add(child, to: place)
        place = child
      }
    }
    nodes[place].bindings.insert(number)
  }

  mutating func remove(_ number: UInt64, key: [UInt8]) {
    var place = root
    for word in Self.words(of: key) {
      guard let child = child(of: place, word) else { return }
      place = child
    }
    nodes[place].bindings.remove(number)
    while place != root, nodes[place].bindings.isEmpty, nodes[place].isLeaf {
      let parent = nodes[place].parent
      remove(place, from: parent)
      nodes.remove(place)
      place = parent
    }
  }

  private func child(of node: Int, _ word: [UInt8]) -> Int? {
    let only = nodes[node].onlyChild
    if only != Self.noNode { return nodes[only].word == word ? only : nil }
    return nodes[node].children[word]
  }

  private mutating func add(_ child: Int, to node: Int) {
    if nodes[node].isLeaf {
      nodes[node].onlyChild = child
      return
    }
    let only = nodes[node].onlyChild
    if only != Self.noNode {
      nodes[node].children[nodes[only].word] = only
      nodes[node].onlyChild = Self.noNode
    }
    nodes[node].children[nodes[child].word] = child
  }

  private mutating func remove(_ child: Int, from node: Int) {
    if nodes[node].onlyChild == child {
      nodes[node].onlyChild = Self.noNode
      return
    }
    nodes[node].children[nodes[child].word] = nil
    if nodes[node].children.count == 1, let last = nodes[node].children.first?.value {
      nodes[node].onlyChild = last
      nodes[node].children = [:]
    }
  }

  /// Calls `body` with the number of every binding whose key matches, each once, in no particular
  /// order.
  func match(_ key: [UInt8], _ body: (UInt64) -> Void) {
    let words = Self.words(of: key)
    // AMQP's keys have 255 bytes, and so 256 words, at most.
    guard words.count <= WordPlaces.countMax else { return }
    var placesByWord: [[UInt8]: WordPlaces] = [:]
    for (place, word) in words.enumerated() where word != Self.one && word != Self.many {
      // A key's own `*` and `#` are words that only wildcards match.
      placesByWord[word, default: WordPlaces()].insert(place)
    }
    var open: [(node: Int, places: WordPlaces)] = [(root, .beginning)]
    while let (node, places) = open.popLast() {
      if places.hasEnd { nodes[node].bindings.forEach(body) }
      if let more = child(of: node, Self.many) {
        open.append((more, places.andAllBehind(of: words.count)))
      }
      guard places.hasWords else { continue }
      if let other = child(of: node, Self.one) {
        open.append((other, places.behindOneWord(of: words.count)))
      }
      func follow(_ child: Int, _ found: WordPlaces) {
        let matching = places.intersection(found)
        if matching.hasWords { open.append((child, matching.behindOneWord(of: words.count))) }
      }
      let only = nodes[node].onlyChild
      if only != Self.noNode {
        if let found = placesByWord[nodes[only].word] { follow(only, found) }
      } else if placesByWord.count < nodes[node].children.count {
        for (word, found) in placesByWord {
          if let child = nodes[node].children[word] { follow(child, found) }
        }
      } else {
        for (word, child) in nodes[node].children {
          if let found = placesByWord[word] { follow(child, found) }
        }
      }
    }
  }

  private static let one = [UInt8(ascii: "*")]
  private static let many = [UInt8(ascii: "#")]

  static func words(of key: [UInt8]) -> [[UInt8]] {
    key.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).map { [UInt8]($0) }
  }
}

/// A set of places in a key: before each of its words, and its end.
private struct WordPlaces {
  static let countMax = 256

  private var low: UInt128 = 0
  private var high: UInt128 = 0
  private(set) var hasEnd = false

  /// Before the first word. A key always has one, be it empty.
  static var beginning: WordPlaces {
    var places = WordPlaces()
    places.insert(0)
    return places
  }

  /// Whether it has a place before a word.
  var hasWords: Bool { low | high != 0 }

  mutating func insert(_ place: Int) {
    if place < 128 { low |= 1 << place } else { high |= 1 << (place - 128) }
  }

  /// Without the end.
  func intersection(_ other: WordPlaces) -> WordPlaces {
    var places = WordPlaces()
    places.low = low & other.low
    places.high = high & other.high
    return places
  }

  private func contains(_ place: Int) -> Bool {
    (place < 128 ? low >> place : high >> (place - 128)) & 1 != 0
  }

  /// One word further each, in a key of so many words.
  func behindOneWord(of count: Int) -> WordPlaces {
    var places = WordPlaces()
    places.hasEnd = contains(count - 1)
    places.low = low << 1
    places.high = high << 1 | low >> 127
    return places.cut(to: count)
  }

  /// With every place behind its first one, in a key of so many words.
  func andAllBehind(of count: Int) -> WordPlaces {
    var places = WordPlaces()
    places.hasEnd = true
    if low != 0 {
      places.low = ~0 << low.trailingZeroBitCount
      places.high = ~0
    } else if high != 0 {
      places.high = ~0 << high.trailingZeroBitCount
    }
    return places.cut(to: count)
  }

  private func cut(to count: Int) -> WordPlaces {
    var places = self
    if count < 128 { places.low &= (1 << count) - 1 }
    places.high &= count <= 128 ? 0 : count == 256 ? ~0 : (1 << (count - 128)) - 1
    return places
  }
}
