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
      var commands = bundle.commands
      do throws(CommandBatchError) {
        while let frame = try commands.next() {
          var reader = ByteReader(frame.fields)
          do throws(ByteReaderError) {
            try carryOut(frame, &reader, &effects)
          } catch {
            stopForBug("bundle \(bundle.sequence) cannot be read: \(error)")
          }
          assignDirty(&effects)
          commandOrdinal += 1
        }
      } catch {
        stopForBug("bundle \(bundle.sequence) cannot be read: \(error)")
      }
    }
    guard let stream = topology.streams[UInt64(bundle.node.rawValue)],
      stream.process == bundle.process
    else { return }
    if effects.isWanted, effects.node == nil || effects.node == bundle.node {
      effects.effects.append(
        .topology(.relayed(process: stream.process, through: stream.sequence)))
    }
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
