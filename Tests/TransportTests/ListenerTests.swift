// Listening, accepting, and running out of descriptors.

import Base
import Glibc
import Testing

@testable import Transport

@Suite struct ListenerTests {
  @Test func `port 0 becomes a real port, for IPv4 and IPv6`() throws {
    let listener = try Listener(.loopback(port: 0))
    #expect(listener.address.port != 0)
    #expect("\(listener.address)" == "127.0.0.1:\(listener.address.port)")
    do {
      let sixth = try Listener(SocketAddress(parsing: "[::1]:0"))
      #expect("\(sixth.address)" == "[::1]:\(sixth.address.port)")
    } catch ListenError.cannotAssign, ListenError.failed {
      // This machine has no IPv6.
    }
  }

  @Test func `an address in use is named`() throws {
    let first = try Listener(.loopback(port: 0))
    #expect(throws: ListenError.addressInUse(first.address)) { try Listener(first.address) }
    #expect(
      "\(ListenError.addressInUse(first.address))"
        == "cannot listen on \(first.address): the address is in use")
  }

  @Test func `an address of another machine is named`() throws {
    // TEST-NET-1, nobody's (RFC 5737).
    let address = try SocketAddress(parsing: "192.0.2.1:0")
    #expect(throws: ListenError.cannotAssign(address)) { try Listener(address) }
  }

  @Test func `a burst is accepted in portions`() throws {
    let listener = try Listener(.loopback(port: 0))
    let poller = try Poller()
    try poller.add(listener.descriptor, token: 1, interest: .read)
    let pool = BufferPool()
    var clients: [Connection] = []
    for _ in 0..<50 {
      clients.append(
        try Connection.connect(to: listener.address, pool: pool, now: .zeroTime))
    }
    var accepted: [Connection] = []
    var events: [PollEvent] = []
    while accepted.count < 50 {
      poller.wait(timeout: .seconds(10), into: &events)
      try #require(!events.isEmpty)
      let before = accepted.count
      let outcome = listener.accept(limit: 8, pool: pool, now: .zeroTime, into: &accepted)
      #expect(accepted.count - before <= 8)
      #expect((outcome == .more) == (accepted.count - before == 8))
    }
    #expect(
      listener.accept(limit: 8, pool: pool, now: .zeroTime, into: &accepted) == .drained)
    let own = clients.compactMap(\.localAddress)
    #expect(Set(own) == Set(accepted.map(\.peer)) && own.count == 50)
  }

  @Test func `without descriptors those who wait are refused instead of left waiting`() throws {
    let listener = try Listener(.loopback(port: 0))
    // What the system answers, in turn: none left; then, with the reserve given back, two who
    // waited, and nobody.
    var answers: [Int32] = [-EMFILE, 1, 1, -EAGAIN]
    listener.acceptCall = { _ in
      let answer = answers.removeFirst()
      if answer > 0 { return (dup(0), .loopback(port: 1)) }
      errno = -answer
      return (-1, nil)
    }
    var accepted: [Connection] = []
    let outcome = listener.accept(
      limit: 10, pool: BufferPool(), now: .zeroTime, into: &accepted)
    #expect(outcome == .outOfDescriptors(refused: 2))
    #expect(accepted.isEmpty && answers.isEmpty)
  }

  @Test func `refusing is bounded too, and may fail`() throws {
    let listener = try Listener(.loopback(port: 0))
    var calls = 0
    listener.acceptCall = { _ in
      calls += 1
      errno = ENFILE
      return (-1, nil)
    }
    var accepted: [Connection] = []
    func accept() -> AcceptOutcome {
      listener.accept(limit: 3, pool: BufferPool(), now: .zeroTime, into: &accepted)
    }
    #expect(accept() == .outOfDescriptors(refused: 0))
    #expect(calls == 2)
    listener.acceptCall = { _ in
      calls += 1
      if calls > 3 { return (dup(0), .loopback(port: 1)) }
      errno = EMFILE
      return (-1, nil)
    }
    #expect(accept() == .outOfDescriptors(refused: 3))
    #expect(calls == 6)
  }

  @Test func `a connection that broke while it waited is skipped`() throws {
    let listener = try Listener(.loopback(port: 0))
    var answers: [Int32] = [ECONNABORTED, EINTR, EPROTO, EAGAIN]
    listener.acceptCall = { _ in
      errno = answers.removeFirst()
      return (-1, nil)
    }
    var accepted: [Connection] = []
    #expect(
      listener.accept(limit: 10, pool: BufferPool(), now: .zeroTime, into: &accepted)
        == .drained)
    #expect(accepted.isEmpty && answers.isEmpty)
  }
}

@Suite struct SocketAddressTests {
  @Test(arguments: ["127.0.0.1:80", "0.0.0.0:0", "255.1.2.3:65535", "[::1]:7400", "[::]:1"])
  func `a numeric address reads as it was written`(text: String) throws {
    #expect("\(try SocketAddress(parsing: text))" == text)
    #expect(try SocketAddress.resolve(text) == [SocketAddress(parsing: text)])
  }

  @Test func `a name resolves to at least one address with its port`() throws {
    let addresses = try SocketAddress.resolve("localhost:7400")
    #expect(!addresses.isEmpty && addresses.allSatisfy { $0.port == 7400 })
    #expect("\(try Endpoint(parsing: "example.org:1"))" == "example.org:1")
    #expect("\(try Endpoint(parsing: "[fe80::1%lo]:1"))" == "[fe80::1%lo]:1")
  }

  @Test func `what is wrong with a text is named`() {
    func error(_ text: String) -> AddressError? {
      #expect(throws: AddressError.self) { try SocketAddress(parsing: text) }
    }
    #expect(error("") == .missingPort(""))
    #expect(error("host") == .missingPort("host"))
    #expect(error("host:") == .missingPort("host:"))
    #expect(error("[::1]") == .missingPort("[::1]"))
    #expect(error(":80") == .missingHost(":80"))
    #expect(error("[]:80") == .missingHost("[]:80"))
    #expect(error("1.2.3.4:65536") == .invalidPort("1.2.3.4:65536"))
    #expect(error("1.2.3.4:-1") == .invalidPort("1.2.3.4:-1"))
    #expect(error("1.2.3.4:8o") == .invalidPort("1.2.3.4:8o"))
    #expect(error("::1:80") == .bracketsNeeded("::1:80"))
    #expect(error("[::1:80") == .unbalancedBrackets("[::1:80"))
    #expect(error("[::1]80") == .unbalancedBrackets("[::1]80"))
    #expect(error("localhost:80") == .notNumeric("localhost:80"))
    #expect(error("1.2.3:80x") == .invalidPort("1.2.3:80x"))
  }

  @Test func `an unknown name is told apart from a resolver that fails`() {
    // Never a name (RFC 6761); without a network the resolver cannot even be asked.
    let error = #expect(throws: AddressError.self) {
      try SocketAddress.resolve("nobody.invalid:80")
    }
    switch error {
    case .unknownHost("nobody.invalid"), .resolverFailed("nobody.invalid", _): break
    default: Issue.record("\(String(describing: error))")
    }
  }
}
