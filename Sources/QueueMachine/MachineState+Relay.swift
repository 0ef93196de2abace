// Bundles of commands that a node's AMQP gateway passed on to the leader: each is carried out once
// and in its order, whoever leads and however often it was sent. So a gateway sends everything again
// that its own node has not applied yet whenever the leader changes, and nothing needs an answer of
// its own for that.

import Base

extension MachineState {
  mutating func relay(
    _ bundle: Relay, _ effects: inout EffectList
  ) throws(ByteReaderError) {
    if admit(bundle, &effects) {
      carryOut(bundle.commands, &effects)
    }
    guard let stream = topology.streams[UInt64(bundle.node.rawValue)],
      stream.process == bundle.process
    else { return }
    if effects.isWanted, effects.node == nil || effects.node == bundle.node {
      effects.effects.append(
        .topology(.relayed(process: stream.process, through: stream.sequence)))
    }
  }

  /// Carries out commands within a command.
  private mutating func carryOut(_ inner: CommandFrames, _ effects: inout EffectList) {
    var commands = inner
    do {
      while let frame = try commands.next() {
        var reader = ByteReader(frame.fields)
        try carryOut(frame, &reader, &effects)
        assignDirty(&effects)
        commandOrdinal += 1
      }
    } catch {
      stopForBug("commands within a command cannot be read: \(error)")
    }
  }

  // MARK: Transactions

  /// Everything is looked at before anything is changed (G10). What a settle names and nobody holds
  /// any more is no reason to refuse: its lease has ended.
  mutating func commit(_ command: Commit, _ effects: inout EffectList) throws(ByteReaderError) {
    let outcome: TopologyReply
    if let failure = failure(of: command) {
      outcome = .failed(failure)
    } else {
      carryOut(command.commands, &effects)
      headerBytesPromised = 0
      outcome = .done
    }
    reply(.topology(outcome), to: command.head.requester, command.head.tag, &effects)
  }

  /// Why the publishes of the transaction cannot all be carried out; nil if they can.
  private mutating func failure(of command: Commit) -> TopologyFailure? {
    var commands = command.commands
    var room = RoomWanted()
    do {
      while let frame = try commands.next() {
        guard frame.kind == .route else { continue }
        var reader = ByteReader(frame.fields)
        let route = try Route(&reader, at: frame.offset)
        do throws(TopologyFailure) {
          try want(&room, for: route)
        } catch {
          return error
        }
      }
    } catch {
      stopForBug("a transaction cannot be read: \(error)")
    }
    let isTooMuch = publishedHere + room.messages > limits.publishesPerEntry
    if isTooMuch { return .other(.overloaded, detail: "the transaction is too large") }
    if room.headerBytes > 0, !mayKeepHeaders(room.headerBytes) {
      return .other(.overloaded, detail: "too many headers of messages are kept")
    }
    headerBytesPromised = room.headerBytes
    return nil
  }

  /// Whether the bundle is the next of its stream.
  private mutating func admit(_ bundle: Relay, _ effects: inout EffectList) -> Bool {
    let node = UInt64(bundle.node.rawValue)
    invariant(node != 0, "a bundle of node 0")
    if let stream = topology.streams[node], stream.process == bundle.process {
      guard bundle.sequence == stream.sequence + 1 else { return false }
    } else {
      // A new process of the node: the connections of the one before are gone.
      guard bundle.sequence == 1 else { return false }
      endNodeSessions(bundle.node, &effects)
    }
    topology.streams.insert(
      CommandStream(process: bundle.process, sequence: bundle.sequence), for: node)
    hash.fold(.relayed, node, bundle.sequence)
    return true
  }

  /// What the sessions hold counts as failed and goes back at once, as far as one entry may move
  /// that much; the rest follows with the next.
  mutating func endNodeSessions(_ node: NodeID, _ effects: inout EffectList) {
    for id in sessionSlots.sortedKeys {
      guard let session = sessionSlots[id], sessions[session].kind == .amqp,
        sessions[session].origin?.node == node
      else { continue }
      sessions[session].timeout = .zero
      detach(session)
    }
    endDueSessions(&effects)
  }

  mutating func loseSession(_ id: SessionID, _ effects: inout EffectList) {
    guard let session = slot(of: id), sessions[session].origin != nil else { return }
    sessions[session].timeout = .zero
    detach(session)
    endDueSessions(&effects)
  }
}
