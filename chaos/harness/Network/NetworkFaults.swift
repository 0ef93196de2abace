// Which links a fault of the network harms, and how: pure.

import Base

enum NetworkFaults {
  /// - Parameters:
  ///   - nodes: the fault's targets.
  ///   - leader: who leads, for the faults that split a cluster.
  /// - Returns: the rules, and what they do, for people.
  static func rules(
    _ fault: PlannedFault, nodes: [Int], members: [Int], leader: Int?
  ) -> (rules: [Link: LinkRule], detail: String) {
    var random = SeededRandom(seed: fault.draw)
    var rules: [Link: LinkRule] = [:]
    var detail = ""
    let targets = Set(nodes)
    switch fault.line.kind {
    case .isolate, .isolatePeers:
      cut(between: targets, and: Set(members).subtracting(targets), &rules)
      if fault.line.kind == .isolate { cutClients(of: targets, &rules) }
    case .cutClients: cutClients(of: targets, &rules)
    case .oneWayIn, .oneWayOut:
      for link in peerLinks(of: targets, members) {
        guard case .node(let from) = link.from else { continue }
        let isOut = targets.contains(from)
        if isOut == (fault.line.kind == .oneWayOut) { rules[link] = .cut }
      }
    case .halves:
      let shuffled = members.shuffled(using: &random)
      let half = Set(shuffled.prefix(members.count / 2))
      let rest = Set(members).subtracting(half)
      cut(between: half, and: rest, &rules)
      detail = "\(text(half)) from \(text(rest))"
    case .ring:
      let ring = members.shuffled(using: &random)
      detail = cutRing(ring, &rules)
    case .star:
      let centre = leader ?? members.shuffled(using: &random).first
      for one in members where one != centre {
        cut(between: [one], and: Set(members).subtracting([one, centre ?? one]), &rules)
      }
      detail = "around \(centre ?? 0)"
    case .latency, .throttle, .loss, .reorder, .duplicate:
      let rule = rule(fault.line)
      for link in peerLinks(of: targets, members) + clientLinks(of: targets) { rules[link] = rule }
    default: break
    }
    return (rules, detail)
  }

  /// Of the faults that harm each link of their targets in the same way.
  private static func rule(_ line: FaultLine) -> LinkRule {
    var rule = LinkRule()
    switch line.kind {
    case .latency:
      rule.delay = line.delay
      rule.jitter = line.jitter
    case .throttle: rule.bytesPerSecond = line.bytesPerSecond
    case .loss: rule.lossPercent = line.percent
    case .duplicate: rule.duplicatePercent = line.percent
    case .reorder:
      // Only those that are delayed can be overtaken.
      rule.delay = line.delay
      rule.reorderPercent = line.percent
    default: break
    }
    return rule
  }

  /// Everybody sees a majority, and no two the same: each node loses the one opposite in a ring. With
  /// three nodes that is one link.
  private static func cutRing(_ ring: [Int], _ rules: inout [Link: LinkRule]) -> String {
    guard ring.count > 2 else { return "" }
    if ring.count == 3 {
      cut(between: [ring[0]], and: [ring[1]], &rules)
      return "\(ring[0]) and \(ring[1]) see only \(ring[2])"
    }
    let seen = ring.count / 2 + 1
    // Neighbours on both sides, with the node itself a majority.
    let reach = seen / 2
    for (place, node) in ring.enumerated() {
      for (otherPlace, other) in ring.enumerated() where other != node {
        let distance = (otherPlace - place + ring.count) % ring.count
        if min(distance, ring.count - distance) > reach {
          cut(between: [node], and: [other], &rules)
        }
      }
    }
    return "in the order " + ring.map { "\($0)" }.joined(separator: ", ")
  }

  private static func cut(
    between some: Set<Int>, and others: Set<Int>, _ rules: inout [Link: LinkRule]
  ) {
    for one in some {
      for other in others where other != one {
        rules[Link(from: .node(one), to: .node(other))] = .cut
        rules[Link(from: .node(other), to: .node(one))] = .cut
      }
    }
  }

  private static func cutClients(of nodes: Set<Int>, _ rules: inout [Link: LinkRule]) {
    for link in clientLinks(of: nodes) { rules[link] = .cut }
  }

  private static func clientLinks(of nodes: Set<Int>) -> [Link] {
    nodes.sorted().flatMap {
      [Link(from: .clients, to: .node($0)), Link(from: .node($0), to: .clients)]
    }
  }

  /// The links between one of `nodes` and any other member, both ways.
  private static func peerLinks(of nodes: Set<Int>, _ members: [Int]) -> [Link] {
    var links: [Link] = []
    for one in members {
      for other in members where one != other && (nodes.contains(one) || nodes.contains(other)) {
        links.append(Link(from: .node(one), to: .node(other)))
      }
    }
    return links
  }

  private static func text(_ nodes: Set<Int>) -> String {
    nodes.sorted().map { "\($0)" }.joined(separator: ", ")
  }
}
