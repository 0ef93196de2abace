// The way of the AMQP gateway's commands into the log, whoever leads: they are gathered into numbered
// bundles, given to the leader (which may be this node), and kept until this node itself has applied
// them. Whenever the leader or the connection to it changes, everything kept is sent again; the
// machine carries each bundle out once (`MachineState+Relay`). So nothing is lost or doubled by a
// change of leader, and no command needs an answer for that.

import Base
import Node
import QueueMachine

struct CommandRelay {
  /// A bundle is closed when it is this large. What belongs into one entry is in one bundle.
  static let bundleBytes = 256 << 10
  /// A command of more bytes, or what is held together, begins a bundle: what stands before it in one
  /// may stop, and then all of the bundle goes again for each entry that it takes.
  static let largeBytes = 64 << 10
  /// Bytes that may wait to be applied; above it the gateway reads no more from its clients (G13).
  static let waitingBytesMax = 16 << 20
  /// When nothing of what was sent was applied for so long, it is sent again.
  static let patience = Nanoseconds.seconds(2)

  private struct Bundle {
    var sequence: UInt64
    var bytes: [UInt8]
  }

  let node: NodeID
  /// Names this node's stream of bundles; another one begins with every process.
  private(set) var process: UInt64
  private var nextSequence: UInt64 = 1
  /// The bundle that is being gathered: its commands, behind the bundle's own beginning.
  private var open: [UInt8] = []
  private var openStart = 0
  /// Where its first command begins.
  private var openCommands = 0
  /// By sequence, from the first that is not applied.
  private var bundles = RingBuffer<Bundle>()
  private(set) var waitingBytes = 0
  /// Given to the present leader through here.
  private var sentThrough: UInt64 = 0
  /// Bundles that may be on their way: few after one was stopped, since those behind it are in vain.
  private var window = UInt64.max
  private(set) var appliedThrough: UInt64 = 0
  /// Where in `open` begins what belongs into one entry, however much it is; nil if nothing does.
  private var heldStart: Int?
  /// Nothing goes to a leader any more.
  private var isEnded = false
  /// When something was last sent anew or applied.
  private var lastProgress = MonotonicTime(0)

  init(node: NodeID, process: UInt64) {
    self.node = node
    self.process = process
  }

  /// Whether more commands may be taken from clients.
  var hasRoom: Bool { waitingBytes + open.count < Self.waitingBytesMax }

  /// The sequence of the bundle that the next command goes into.
  var openSequence: UInt64 { nextSequence }

  /// The sequence of the last bundle that has commands; 0 if there is none.
  var lastSequence: UInt64 { isOpen ? nextSequence : nextSequence - 1 }

  /// Whether something was gathered that is not in a closed bundle yet.
  var isOpen: Bool { !open.isEmpty }

  /// Gathers commands that belong into one entry; `encode` appends them with `CommandWriter`.
  mutating func append(_ encode: (inout [UInt8]) -> Void) {
    if isEnded { return }
    beginBundle()
    let start = open.count
    encode(&open)
    if heldStart == nil { closeIfLarge(since: start) }
  }

  /// Until `release` all commands go into one bundle, and so into one entry.
  mutating func hold() {
    if isEnded { return }
    beginBundle()
    heldStart = open.count
  }

  mutating func release() {
    guard let start = heldStart else { return }
    heldStart = nil
    closeIfLarge(since: start)
  }

  private mutating func beginBundle() {
    guard open.isEmpty else { return }
    openStart = CommandWriter.beginRelay(
      from: node, process: process, sequence: nextSequence, into: &open)
    openCommands = open.count
  }

  /// Closes the bundle if it is large enough, before what was gathered since `start` if that is large.
  private mutating func closeIfLarge(since start: Int) {
    if start > openCommands, open.count - start > Self.largeBytes {
      let commands = [UInt8](open[start...])
      open.removeSubrange(start...)
      close()
      beginBundle()
      open.append(contentsOf: commands)
    }
    if open.count >= Self.bundleBytes { close() }
  }

  /// The node takes no part any more: what was gathered goes nowhere, and nothing more is gathered.
  mutating func end() {
    isEnded = true
    open = []
    heldStart = nil
    bundles = RingBuffer()
    waitingBytes = 0
  }

  /// Whether the stream has begun.
  var isInUse: Bool { nextSequence > 1 || isOpen }

  /// Closes the bundle that is being gathered.
  mutating func close() {
    guard !open.isEmpty else { return }
    CommandWriter.endRelay(openStart, into: &open)
    var bytes: [UInt8] = []
    swap(&bytes, &open)
    assert(isSound(bytes), "bundle \(nextSequence) of node \(node) cannot be read")
    waitingBytes += bytes.count
    bundles.append(Bundle(sequence: nextSequence, bytes: bytes))
    nextSequence += 1
  }

  /// A bundle that its leader cannot read would be in the way of all others for ever. It would be our
  /// bug, which tests find.
  private func isSound(_ bytes: [UInt8]) -> Bool {
    bytes.withUnsafeBytes {
      do throws(CommandBatchError) {
        return try CommandBatch.checkRelays($0, from: node).count == 1
      } catch {
        return false
      }
    }
  }

  /// The next bundle for the present leader; nil if it was given all.
  func next() -> [UInt8]? { placeOfNext.map { bundles[$0].bytes } }

  var hasNext: Bool { placeOfNext != nil }

  private var placeOfNext: Int? {
    guard let first = bundles.first else { return nil }
    let next = max(sentThrough + 1, first.sequence)
    guard next - first.sequence < window else { return nil }
    let place = Int(next - first.sequence)
    return place < bundles.count ? place : nil
  }

  /// The bundle that `next` gave is on its way.
  mutating func didSend(now: MonotonicTime) {
    guard let first = bundles.first else { return }
    if sentThrough + 1 <= first.sequence { lastProgress = now }
    sentThrough = max(sentThrough + 1, first.sequence)
  }

  /// This node has applied its bundles through `sequence`.
  mutating func applied(process: UInt64, through sequence: UInt64, now: MonotonicTime) {
    guard process == self.process, sequence > appliedThrough else { return }
    appliedThrough = sequence
    lastProgress = now
    window = window > UInt64.max / 2 ? .max : window * 2
    while let first = bundles.first, first.sequence <= sequence {
      waitingBytes -= first.bytes.count
      _ = bundles.popFirst()
    }
  }

  /// The bundle behind what is applied was carried out in part, since an entry may store only so many
  /// messages: it goes again, and by itself, with what was sent behind it to follow.
  mutating func stopped(process: UInt64, now: MonotonicTime) {
    guard process == self.process else { return }
    window = 1
    lastProgress = now
    sendAgain()
  }

  /// The leader, or the connection to it, is another one: all that is not applied goes again.
  mutating func sendAgain() { sentThrough = appliedThrough }

  /// Sends again what seems to have been lost.
  mutating func tick(now: MonotonicTime) {
    guard !bundles.isEmpty, sentThrough > appliedThrough,
      now.since(lastProgress) >= Self.patience
    else { return }
    lastProgress = now
    sendAgain()
  }

  var nextDeadline: MonotonicTime {
    sentThrough > appliedThrough && !bundles.isEmpty ? lastProgress + Self.patience : .never
  }

  /// Begins a new stream: everything that was not applied counts as lost, and so do the sessions.
  mutating func restart(process: UInt64) {
    self = CommandRelay(node: node, process: process)
  }
}
