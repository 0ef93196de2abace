// Bundles of commands that a node's AMQP gateway passed on to the leader: each is carried out once
// and in its order, whoever leads and however often it was sent. So a gateway sends everything again
// that its own node has not applied yet whenever the leader changes, and nothing needs an answer of
// its own for that.
//
// An entry may store only so many messages. A bundle that would make more stops there, between two
// records, and is not done: it comes again, with all that its gateway sent behind it, and is carried
// out from that place on. So nothing is lost or overtaken, and a gateway that publishes too much waits.

import Base

/// How far a bundle is carried out that an entry holds.
struct BundlePlace {
  /// Records of the present command that earlier entries have carried out.
  var recordsBefore: UInt32 = 0
  /// Where it stopped, since the entry may do no more: records of the present command that are carried
  /// out.
  var stop: UInt32?
  /// What the entry had published before the bundle.
  let publishedBefore: Int
  /// Through how many publishes of the entry it may go on, and through how many looks at headers.
  let publishedMax: Int
  let looksMax: Int
}

extension MachineState {
  mutating func relay(
    _ bundle: Relay, _ effects: inout EffectList
  ) throws(ByteReaderError) {
    let isStopped = admit(bundle, &effects) && !carryOut(bundle, &effects)
    guard let stream = topology.streams[UInt64(bundle.node.rawValue)],
      stream.process == bundle.process
    else { return }
    if effects.isWanted, effects.node == nil || effects.node == bundle.node {
      effects.effects.append(
        .topology(
          .relayed(process: stream.process, through: stream.sequence, isStopped: isStopped)))
    }
  }

  /// Carries out what is left of the bundle; false if it stopped again.
  private mutating func carryOut(_ bundle: Relay, _ effects: inout EffectList) -> Bool {
    let node = UInt64(bundle.node.rawValue)
    let before = topology.streams[node]?.stop ?? CommandStream.Stop()
    // Half of the room that is left, so that others have some whoever comes first.
    let room = max(0, limits.publishesPerEntry - publishedHere)
    let looksLeft = max(0, limits.headerLooksPerEntry - topology.headerLooks)
    bundlePlace = BundlePlace(
      publishedBefore: publishedHere, publishedMax: publishedHere + room / 2,
      looksMax: topology.headerLooks + (looksLeft + 1) / 2)
    defer { bundlePlace = nil }
    var commands = bundle.commands
    var number: UInt32 = 0
    do {
      while let frame = try commands.next() {
        number += 1
        if number <= before.commands { continue }
        bundlePlace?.recordsBefore = number == before.commands + 1 ? before.records : 0
        var reader = ByteReader(frame.fields)
        try carryOut(frame, &reader, &effects)
        assignDirty(&effects)
        commandOrdinal += 1
        if let records = bundlePlace?.stop {
          let stop = CommandStream.Stop(commands: number - 1, records: records)
          hash.fold(.relayStopped, node, UInt64(stop.commands) << 32 | UInt64(records))
          _ = topology.streams.update(node) { $0.stop = stop }
          return false
        }
      }
    } catch {
      stopForBug("a bundle cannot be read: \(error)")
    }
    hash.fold(.relayed, node, bundle.sequence)
    _ = topology.streams.update(node) { stream in
      stream.sequence = bundle.sequence
      stream.stop = nil
    }
    return true
  }

  /// Leaves the rest of the present command, from a record on, to the entry in which its bundle comes
  /// again. False for one that is in no bundle, or in a transaction, of which all has its place.
  mutating func stopsBundle(at record: UInt32) -> Bool {
    if bundlePlace == nil { return false }
    bundlePlace?.stop = record
    return true
  }

  /// How many messages may be stored now that have so many copies each. The first of a bundle may
  /// take all the room there is.
  func roomForMessages(ofCopies copies: Int) -> Int {
    let room = limits.publishesPerEntry - publishedHere
    guard copies <= room else { return 0 }
    guard let place = bundlePlace else { return room / copies }
    let share = max(0, place.publishedMax - publishedHere) / copies
    return publishedHere > place.publishedBefore ? share : max(1, share)
  }

  // MARK: Transactions

  /// Everything is looked at before anything is changed (G10). What a settle names and nobody holds
  /// any more is no reason to refuse: its lease has ended.
  mutating func commit(_ command: Commit, _ effects: inout EffectList) throws(ByteReaderError) {
    let outcome: TopologyReply
    switch verdict(on: command) {
    case .tooMuchForThisEntry:
      if stopsBundle(at: 0) { return }
      outcome = .failed(.other(.overloaded, detail: "too much is published at once"))
    case .impossible(let failure):
      outcome = .failed(failure)
    case .possible:
      // All of it has its place in this entry.
      let place = bundlePlace
      bundlePlace = nil
      carryOut(command.commands, &effects)
      bundlePlace = place
      headerBytesPromised = 0
      outcome = .done
    }
    reply(.topology(outcome), to: command.head.requester, command.head.tag, &effects)
  }

  /// Carries out commands within a transaction.
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

  private enum Verdict {
    case possible
    /// With what others published in it.
    case tooMuchForThisEntry
    case impossible(TopologyFailure)
  }

  /// Whether the publishes of the transaction can all be carried out.
  private mutating func verdict(on command: Commit) -> Verdict {
    var commands = command.commands
    var room = RoomWanted()
    room.looksBefore = topology.headerLooks
    do {
      while let frame = try commands.next() {
        guard frame.kind == .route else { continue }
        var reader = ByteReader(frame.fields)
        let route = try Route(&reader, at: frame.offset)
        do throws(TopologyFailure) {
          try want(&room, for: route)
        } catch {
          return .impossible(error)
        }
        if room.isForAnotherEntry { return .tooMuchForThisEntry }
      }
    } catch {
      stopForBug("a transaction cannot be read: \(error)")
    }
    if room.messages > limits.publishesPerEntry {
      return .impossible(.other(.overloaded, detail: "the transaction is too large"))
    }
    if room.messages > 0, roomForMessages(ofCopies: room.messages) == 0 {
      return .tooMuchForThisEntry
    }
    if room.headerBytes > 0, !mayKeepHeaders(room.headerBytes) {
      return .impossible(
        .other(.overloaded, detail: "too many headers and keys of messages are kept"))
    }
    headerBytesPromised = room.headerBytes
    return .possible
  }

  /// Whether the bundle is the next of its stream.
  private mutating func admit(_ bundle: Relay, _ effects: inout EffectList) -> Bool {
    let node = UInt64(bundle.node.rawValue)
    invariant(node != 0, "a bundle of node 0")
    if let stream = topology.streams[node], stream.process == bundle.process {
      return bundle.sequence == stream.sequence + 1
    }
    // A new process of the node: the connections of the one before are gone.
    guard bundle.sequence == 1 else { return false }
    endNodeSessions(bundle.node, &effects)
    topology.streams.insert(CommandStream(process: bundle.process, sequence: 0), for: node)
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
