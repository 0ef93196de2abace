// The relay of commands to the leader, the reads beside it, and the digest of passwords.

import Base
import Consensus
import QueueMachine
import Testing

@testable import Server

@Suite struct CommandRelayTests {
  let now = MonotonicTime(1_000)

  private func sequences(_ bytes: [UInt8]?) throws -> [UInt64] {
    try (bytes ?? []).withUnsafeBytes {
      try CommandBatch.checkRelays($0, from: NodeID(1)).map(\.sequence)
    }
  }

  private func filled(_ count: Int) -> CommandRelay {
    var relay = CommandRelay(node: NodeID(1), process: 7)
    for number in 0..<count {
      relay.append { CommandWriter.loseSession(SessionID(UInt64(number + 1)), into: &$0) }
      relay.close()
    }
    return relay
  }

  @Test func bundlesGoInOrderAndAreKeptUntilTheyAreApplied() throws {
    var relay = filled(3)
    var sent: [UInt64] = []
    while let bundle = relay.next() {
      sent += try sequences(bundle)
      relay.didSend(now: now)
    }
    #expect(sent == [1, 2, 3])
    relay.applied(process: 7, through: 2, now: now)
    #expect(relay.next() == nil)
    // Another leader gets what is not applied, and nothing else.
    relay.sendAgain()
    #expect(try sequences(relay.next()) == [3])
    // Of another process nothing counts.
    relay.applied(process: 8, through: 3, now: now)
    #expect(relay.waitingBytes > 0)
    relay.applied(process: 7, through: 3, now: now)
    #expect(relay.waitingBytes == 0 && relay.next() == nil)
  }

  /// A node that takes no part any more hears of ended connections still.
  @Test func whatHasEndedGathersNothingAndWantsNoTurn() {
    var relay = filled(2)
    relay.didSend(now: now)
    #expect(relay.nextDeadline < .never)
    relay.append { CommandWriter.loseSession(SessionID(3), into: &$0) }
    relay.end()
    relay.hold()
    relay.append { CommandWriter.loseSession(SessionID(4), into: &$0) }
    relay.release()
    relay.close()
    #expect(!relay.isOpen && relay.next() == nil && relay.waitingBytes == 0)
    #expect(relay.nextDeadline == .never)
  }

  @Test func whatIsNotAppliedForLongGoesAgain() throws {
    var relay = filled(1)
    relay.didSend(now: now)
    relay.tick(now: now + .seconds(1))
    #expect(relay.next() == nil)
    #expect(relay.nextDeadline == now + CommandRelay.patience)
    relay.tick(now: now + CommandRelay.patience)
    #expect(try sequences(relay.next()) == [1])
  }

  @Test func largeBundlesAreClosedUnlessTheyAreHeldTogether() throws {
    var relay = CommandRelay(node: NodeID(1), process: 7)
    func fill() {
      while relay.waitingBytes < 2 * CommandRelay.bundleBytes, relay.hasRoom {
        relay.append { CommandWriter.loseSession(SessionID(1), into: &$0) }
        if relay.openSequence > 3 { break }
      }
    }
    fill()
    #expect(relay.openSequence == 3)
    relay = CommandRelay(node: NodeID(1), process: 7)
    relay.hold()
    for _ in 0..<2 * CommandRelay.bundleBytes / 13 {
      relay.append { CommandWriter.loseSession(SessionID(1), into: &$0) }
    }
    #expect(relay.openSequence == 1)
    relay.release()
    #expect(relay.openSequence == 2)
    #expect(try sequences(relay.next()) == [1])
  }

  /// What stands before it may stop, and then goes again and again.
  @Test(arguments: [false, true]) func aLargeCommandBeginsABundle(isHeld: Bool) throws {
    var relay = CommandRelay(node: NodeID(1), process: 7)
    func append(_ bytes: Int) {
      if isHeld { relay.hold() }
      relay.append {
        for _ in 0...bytes / 13 { CommandWriter.loseSession(SessionID(1), into: &$0) }
      }
      if isHeld { relay.release() }
    }
    append(0)
    append(CommandRelay.largeBytes / 2)
    #expect(relay.openSequence == 1)
    append(CommandRelay.largeBytes * 3 / 2)
    #expect(relay.openSequence == 2 && relay.isOpen)
    #expect(relay.waitingBytes < CommandRelay.largeBytes)
    // A small one behind it goes along, and the first of a bundle needs no other.
    append(0)
    relay.close()
    append(CommandRelay.largeBytes * 2)
    #expect(relay.openSequence == 3 && relay.isOpen)
    append(CommandRelay.bundleBytes)
    #expect(relay.openSequence == 5 && !relay.isOpen)
    var sent: [UInt64] = []
    while let bundle = relay.next() {
      sent += try sequences(bundle)
      relay.didSend(now: now)
    }
    #expect(sent == [1, 2, 3, 4])
  }

  @Test func inboxTakesEachBundleOnce() throws {
    let bundles = bundles(4)
    var inbox = RelayInbox()
    #expect(inbox.take(bundles[0], from: NodeID(1)) == nil)
    #expect(inbox.take(bundles[0] + bundles[1], from: NodeID(1)) == nil)
    // The third was lost on its way: the fourth has to come again behind it.
    #expect(inbox.take(bundles[3], from: NodeID(1)) == nil)
    #expect(inbox.waitingCount(of: NodeID(1)) == 2)
    #expect(inbox.take(bundles[2] + bundles[3], from: NodeID(1)) == nil)
    #expect(inbox.waitingCount(of: NodeID(1)) == 4)
    #expect(inbox.take([1, 2, 3], from: NodeID(1)) != nil)
    #expect(inbox.take(bundles[0], from: NodeID(2)) != nil)
    inbox.forget()
    #expect(inbox.isEmpty)
  }

  /// One that was carried out in part goes again, by itself at first: what is behind it is in vain
  /// until it is done.
  @Test func aStoppedBundleGoesAgainAlone() throws {
    var relay = filled(8)
    func sent() throws -> [UInt64] {
      var all: [UInt64] = []
      while let bundle = relay.next() {
        all += try sequences(bundle)
        relay.didSend(now: now)
      }
      return all
    }
    #expect(try sent() == [1, 2, 3, 4, 5, 6, 7, 8])
    relay.stopped(process: 8, now: now)
    #expect(try sent() == [])
    relay.applied(process: 7, through: 1, now: now)
    relay.stopped(process: 7, now: now)
    #expect(try sent() == [2])
    relay.stopped(process: 7, now: now)
    #expect(try sent() == [2])
    relay.applied(process: 7, through: 2, now: now)
    #expect(try sent() == [3, 4])
    relay.applied(process: 7, through: 4, now: now)
    #expect(try sent() == [5, 6, 7, 8])
  }

  private func bundles(_ count: Int) -> [[UInt8]] {
    var relay = filled(count)
    var bundles: [[UInt8]] = []
    while let bundle = relay.next() {
      bundles.append(bundle)
      relay.didSend(now: now)
    }
    return bundles
  }

  @Test func inboxTakesAStoppedBundleOnceMore() throws {
    let bundles = bundles(4)
    let node = NodeID(1)
    var inbox = RelayInbox()
    #expect(inbox.take(bundles[0] + bundles[1] + bundles[2], from: node) == nil)
    let stopped = RelayProgress(process: 7, through: 1, isStopped: true)
    let other = RelayProgress(process: 8, through: 1, isStopped: true)
    // Only what stopped, and of that process: then what came behind it comes again too.
    #expect(inbox.take(bundles[0], from: node, applied: stopped) == nil)
    #expect(inbox.take(bundles[1], from: node, applied: other) == nil)
    #expect(inbox.waitingCount(of: node) == 3)
    #expect(inbox.take(bundles[1], from: node, applied: stopped) == nil)
    #expect(inbox.waitingCount(of: node) == 1)
    #expect(inbox.take(bundles[3], from: node, applied: stopped) == nil)
    #expect(inbox.waitingCount(of: node) == 1)
    #expect(inbox.take(bundles[2] + bundles[3], from: node, applied: stopped) == nil)
    #expect(inbox.waitingCount(of: node) == 3)
  }

  /// A bundle that stopped sets the inbox back, though it and those behind it may be proposed once more
  /// already: when these are applied, their node goes on behind them.
  @Test func inboxGoesOnBehindWhatWasAppliedMeanwhile() {
    let bundles = bundles(6)
    let node = NodeID(1)
    var inbox = RelayInbox()
    #expect(inbox.take(bundles[0] + bundles[1] + bundles[2], from: node) == nil)
    let stopped = RelayProgress(process: 7, through: 0, isStopped: true)
    #expect(inbox.take(bundles[0], from: node, applied: stopped) == nil)
    #expect(inbox.waitingCount(of: node) == 1)
    let applied = RelayProgress(process: 7, through: 3, isStopped: false)
    // What comes late is done, and so is what waits.
    #expect(inbox.take(bundles[1], from: node, applied: applied) == nil)
    #expect(inbox.waitingCount(of: node) == 0)
    #expect(inbox.take(bundles[3] + bundles[4], from: node, applied: applied) == nil)
    #expect(inbox.waitingCount(of: node) == 2)
    // Of another process it says nothing.
    let other = RelayProgress(process: 8, through: 9, isStopped: false)
    #expect(inbox.take(bundles[5], from: node, applied: other) == nil)
    #expect(inbox.waitingCount(of: node) == 3)
    // A new leader may have applied less than the node.
    inbox.forget()
    #expect(inbox.take(bundles[5], from: node, applied: applied) == nil)
    #expect(inbox.waitingCount(of: node) == 1)
  }

  /// The same leader again, which has forgotten all: what was on its way overtakes what is sent again.
  @Test func inboxTakesWhatWasOvertaken() {
    let bundles = bundles(5)
    let node = NodeID(1)
    var inbox = RelayInbox()
    let applied = RelayProgress(process: 7, through: 1, isStopped: false)
    #expect(inbox.take(bundles[2], from: node, applied: applied) == nil)
    #expect(inbox.waitingCount(of: node) == 1)
    // Done already.
    #expect(inbox.take(bundles[0], from: node, applied: applied) == nil)
    #expect(inbox.waitingCount(of: node) == 1)
    for bundle in bundles[1...4] {
      #expect(inbox.take(bundle, from: node, applied: applied) == nil)
    }
    #expect(inbox.waitingCount(of: node) == 4)
    // Once more is once too often.
    #expect(inbox.take(bundles[2] + bundles[4], from: node, applied: applied) == nil)
    #expect(inbox.waitingCount(of: node) == 4)
  }

  @Test func theLastBundleWithCommandsIsTheOpenOneOrTheOneBefore() {
    var relay = CommandRelay(node: NodeID(1), process: 7)
    #expect(relay.lastSequence == 0)
    relay.append { CommandWriter.loseSession(SessionID(1), into: &$0) }
    #expect(relay.lastSequence == 1)
    relay.close()
    #expect(relay.lastSequence == 1)
  }

  @Test(arguments: [
    ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
  ])
  func digestsAreThoseOfTheStandard(message: String, digest: String) {
    let bytes = SHA256.digest([UInt8](message.utf8))
    let text = bytes.map { byte in
      let digits = String(byte, radix: 16)
      return digits.count == 1 ? "0\(digits)" : digits
    }.joined()
    #expect(text == digest)
  }
}
