// The running digest that replicas compare (G14). Not for secrets: it finds divergence, not malice.

import Base

/// What happened, so that two different decisions with the same numbers differ in the digest.
enum Decision: UInt64 {
  case entry = 1
  case sessionOpened, sessionAttached, sessionDetached, sessionEnded
  case queueDeclared, queueDeleted, queuePurged
  case published, publishRefused, producerForgotten
  case subscribed, creditSet, unsubscribed
  case delivered, acknowledged, returned, failed, deadLettered, dropped, extended, settleRefused
  case delayed, fellDue, cancelled, redriven, transacted
  case exchangeDeclared, exchangeDeleted, bound, unbound, queueOrdered, hostAdded, userSet
  case relayed, routed, unroutable
  case settledLater, relayStopped
}

struct StateHash: Hashable, Sendable {
  private(set) var value: UInt64 = 0x736b_6569_6e31

  init() {}
  init(value: UInt64) { self.value = value }

  @inline(__always)
  mutating func fold(_ number: UInt64) {
    value = (value ^ number) &* 0x9e37_79b9_7f4a_7c15
    value ^= value &>> 29
  }

  @inline(__always)
  mutating func fold(_ decision: Decision, _ first: UInt64, _ second: UInt64 = 0) {
    fold(decision.rawValue)
    fold(first)
    fold(second)
  }
}
