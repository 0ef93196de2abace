// One question to one node, on a thread and a connection of its own: for status, which must work
// when there is no leader to follow.

import Base
import Transport
import Wire

enum NodeProbe {
  struct Answer: Sendable {
    let reply: RequestReply
    /// The client addresses of the members that the node knows.
    let addresses: [String]
  }

  static func check(_ endpoint: String) throws(SkeinError) {
    do throws(AddressError) {
      _ = try Endpoint(parsing: endpoint)
    } catch {
      throw .invalidEndpoint(error.description)
    }
  }

  /// Asks `endpoint`, leader or not.
  static func ask(
    _ endpoint: String, _ question: ClientFrame, timeout: Duration
  ) async throws(SkeinError) -> Answer {
    try check(endpoint)
    var bytes = Preamble.clientBytes
    ClientFrame.hello(client: "SkeinClient status").encode(request: RequestID(1), into: &bytes)
    question.encode(request: RequestID(2), into: &bytes)
    let promise = Promise<Result<Answer, SkeinError>>()
    let words = bytes
    do throws(ErrorNumber) {
      _ = try WorkerThread(name: "skein-probe") {
        promise.keep(run(endpoint, words, timeout: timeout.nanoseconds))
      }
    } catch {
      throw .outOfResources("no thread to ask a node: \(error)")
    }
    return try await promise.value(whenCancelled: .failure(.cancelled)).get()
  }

  private static func run(
    _ endpoint: String, _ words: [UInt8], timeout: Nanoseconds
  ) -> Result<Answer, SkeinError> {
    let deadline = MonotonicClock.now() + timeout
    do throws(AddressError) {
      var last = Result<Answer, SkeinError>.failure(.unreachable(endpoint))
      for address in try SocketAddress.resolve(endpoint) {
        do throws(ErrorNumber) {
          last = try talk(endpoint, to: address, words, until: deadline)
        } catch {
          last = .failure(.outOfResources("\(error)"))
        }
        if case .success = last { return last }
      }
      return last
    } catch {
      return .failure(.unreachable("\(error)"))
    }
  }

  private static func talk(
    _ endpoint: String, to address: SocketAddress, _ words: [UInt8], until deadline: MonotonicTime
  ) throws(ErrorNumber) -> Result<Answer, SkeinError> {
    let poller = try Poller()
    let connection = try Connection.connect(
      to: address,
      options: ConnectionOptions(unreadMax: ClientLoop.frameBytesMax + Frame.headerBytes),
      pool: BufferPool(), now: MonotonicClock.now())
    defer { connection.close() }
    try connection.register(with: poller, token: 1, interest: .write)
    var events: [PollEvent] = []
    var addresses: [String] = []
    while true {
      let now = MonotonicClock.now()
      guard now < deadline else { return .failure(.unreachable("\(endpoint) does not answer")) }
      poller.wait(timeout: deadline.since(now), into: &events)
      guard !events.isEmpty else { continue }
      if connection.isConnecting {
        switch connection.finishConnect() {
        case .inProgress: continue
        case .failed(let error): return .failure(.unreachable("\(endpoint): \(error)"))
        case .connected: _ = connection.append(words)
        }
      }
      let isBlocked = connection.flush(now: now) == .blocked
      connection.setInterest(isBlocked ? [.read, .write] : .read, poller: poller)
      let outcome = connection.read(now: now)
      do throws(FrameError) {
        if let reply = try parse(connection, &addresses) {
          return reply.map { Answer(reply: $0, addresses: addresses) }
        }
      } catch {
        return .failure(.protocolViolation("\(endpoint): \(error)"))
      }
      switch outcome {
      case .read, .wouldBlock: continue
      case .full, .closed:
        return .failure(.unreachable("\(endpoint) closed the connection"))
      case .failed(let error): return .failure(.unreachable("\(endpoint): \(error)"))
      }
    }
  }

  /// The answer to the question, if it is there.
  private static func parse(
    _ connection: Connection, _ addresses: inout [String]
  ) throws(FrameError) -> Result<RequestReply, SkeinError>? {
    let unread = connection.unread
    var offset = 0
    defer { connection.consume(offset) }
    while let view = try FrameDecoder.next(
      in: UnsafeRawBufferPointer(rebasing: unread[offset...]), limit: ClientLoop.frameBytesMax)
    {
      let frame = try ServerFrame(decoding: view)
      offset += view.byteCount
      switch frame {
      case .helloReply(let hello): addresses = hello.addresses
      case .refused(let refusal, let detail, _):
        return .failure(.refusal(refusal, detail: detail))
      default:
        if view.request == RequestID(2), let reply = RequestReply(frame) { return .success(reply) }
      }
    }
    return nil
  }
}
