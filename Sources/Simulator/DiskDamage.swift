// Harm to what is durable on one disk, behind everybody's back.

import Base

struct DiskDamage {
  private let simulation: Simulation
  private let node: SimulatedNode
  private static let sector = SimulatedFile.sectorBytes

  init(_ simulation: Simulation, _ node: SimulatedNode) {
    self.simulation = simulation
    self.node = node
  }

  /// - Returns: the file that was harmed, if any was.
  @discardableResult
  func strike() -> String? {
    // Mostly the log, sometimes anything.
    var names = node.disk.names.filter { !$0.hasSuffix("LOCK") }
    if simulation.chance.permille(800) { names = names.filter { $0.contains("segment-") } }
    guard let name = simulation.chance.pick(names), let file = node.disk.files[name],
      !file.bytes.isEmpty
    else { return nil }
    node.harmedAt = simulation.now
    node.wasHarmed = true
    if name.hasSuffix("/identity") { node.isIdentityHarmed = true }
    strike(name, file)
    node.disk.measure()
    return name
  }

  /// A bit of a message flips that was confirmed and that nobody has got yet: it will be read.
  func strikeWaitingMessage() {
    let messages = simulation.ledger.messages
    let waiting = messages.indices.filter {
      messages[$0].confirmed != nil && messages[$0].deliveries.isEmpty
    }
    // Of longer bodies only, which cannot be mistaken for anything else.
    guard let value = simulation.chance.pick(waiting) else { return }
    let body = SimulatedClient.body(value, 8)
    for name in node.disk.names {
      guard let file = node.disk.files[name], let at = file.place(of: body) else { continue }
      node.harmedAt = simulation.now
      node.wasHarmed = true
      tell(.bitFlips, "a bit of message \(value) in \(name) at \(at) flips")
      file.damage { $0[at + 8] ^= UInt8(1) << UInt8(simulation.chance.below(8)) }
      return
    }
  }

  /// The end of a segment has what was to be written before it: records that once counted there.
  func strikeEnd() {
    let names = node.disk.names.filter { $0.contains("segment-") }
    guard let name = simulation.chance.pick(names), let file = node.disk.files[name],
      let last = file.bytes.lastIndex(where: { $0 != 0 }), last >= Self.sector
    else { return }
    node.harmedAt = simulation.now
    node.wasHarmed = true
    let start = last / Self.sector * Self.sector
    let from = simulation.chance.below(start / Self.sector) * Self.sector
    put(name, file, Array(file.bytes[from..<from + Self.sector]), at: start)
    node.disk.measure()
  }

  private func strike(_ name: String, _ file: SimulatedFile) {
    // Files are made longer than what is in them: harm where something is.
    let used = (file.bytes.lastIndex { $0 != 0 } ?? 0) + 1
    let at = simulation.chance.below(used)
    let start = at / Self.sector * Self.sector
    let end = min(file.bytes.count, start + Self.sector)
    switch simulation.chance.below(22) {
    case 0..<8:
      tell(.bitFlips, "a bit of \(name) at \(at) flips")
      let bit = UInt8(1) << UInt8(simulation.chance.below(8))
      file.damage { $0[at] ^= bit }
    case 8..<12:
      tell(.zeroedSectors, "\(name) is zero at \(start)")
      file.damage { for place in start..<end { $0[place] = 0 } }
    case 12..<15: misdirect(name, file, start)
    case 15..<18:
      tell(.truncatedFiles, "\(name) ends at \(at)")
      file.damage { $0.removeLast($0.count - at) }
    case 18..<20: bringBack(name, file)
    default:
      guard node.life == nil else { return }
      tell(.deletedFiles, "\(name) is gone")
      node.disk.lose(name)
    }
  }

  /// A sector has what was to be written elsewhere, in this file or in another.
  private func misdirect(_ name: String, _ file: SimulatedFile, _ start: Int) {
    guard let other = simulation.chance.pick(node.disk.names),
      let source = simulation.chance.flip() ? file : node.disk.files[other],
      !source.bytes.isEmpty
    else { return }
    let from = simulation.chance.below(source.bytes.count) / Self.sector * Self.sector
    let data = Array(source.bytes[from..<min(source.bytes.count, from + Self.sector)])
    if simulation.plan.isHarsher { loseWrite() }
    put(name, file, data, at: start)
  }

  private func put(_ name: String, _ file: SimulatedFile, _ data: [UInt8], at start: Int) {
    tell(.misdirectedWrites, "\(name) at \(start) has what belongs elsewhere")
    file.damage { bytes in
      for (place, byte) in data.enumerated() where start + place < bytes.count {
        bytes[start + place] = byte
      }
    }
  }

  /// What went astray is not where it belongs: there is what was there before. Of segments only, as
  /// with stale sectors.
  private func loseWrite() {
    let names = node.disk.names.filter {
      $0.contains("segment-") && node.disk.files[$0]?.former.isEmpty == false
    }
    guard let name = simulation.laterChance.pick(names), let file = node.disk.files[name],
      let former = simulation.laterChance.pick(file.former)
    else { return }
    tell(.lostWrites, "what was written to \(name) at \(former.offset) went elsewhere")
    putBack(former, in: file)
  }

  private func putBack(_ former: (offset: Int, bytes: [UInt8]), in file: SimulatedFile) {
    file.damage { bytes in
      for (place, byte) in former.bytes.enumerated() where former.offset + place < bytes.count {
        bytes[former.offset + place] = byte
      }
    }
  }

  /// What a write replaced is there again. Not in the state file: whose older save comes back in
  /// both its copies has forgotten a vote, and no disk can tell.
  private func bringBack(_ name: String, _ file: SimulatedFile) {
    guard name.contains("segment-"), let former = simulation.chance.pick(file.former) else {
      return
    }
    tell(.staleSectors, "\(name) at \(former.offset) is as it was before")
    putBack(former, in: file)
  }

  private func tell(_ happening: Happening, _ text: String) {
    simulation.note(happening)
    simulation.noteHarm(of: node)
    simulation.trace { "disk of \(node): \(text)" }
  }
}
