// What this machine can do at most: the same bytes through the same sockets to three files that are
// written (past the page cache, or through it) and synced in the same way, and nothing else. No parsing, no queue,
// no election, no checksum: a client, a leader and two followers, each a thread of its own; the
// client gets a cumulative confirm when a majority has synced. What a real cluster reaches is to be
// seen beside this.

import Base
import CLinux
import Glibc
import Transport

package struct BarePipe: Sendable {
  package enum Log: String, Sendable, CaseIterable {
    /// New files that grow.
    case append
    /// Files that were written before, overwritten in a circle, as a queue in steady state can do.
    case recycled
  }

  /// What came of a run.
  package struct Result: Sendable {
    package var messages: UInt64
    package var nanoseconds: UInt64
    package var confirm: LatencyHistogram
    /// Of the three replicas.
    package var processorTime: UInt64

    package var seconds: Double { Double(nanoseconds) / 1e9 }
  }

  package struct Failure: Error, CustomStringConvertible, Sendable {
    package let description: String

    fileprivate init(_ what: String) {
      description = "\(what): \(String(cString: strerror(errno)))"
    }
  }

  /// What a message has besides its body, bytes.
  package static let headBytes = 24
  fileprivate static let batchBytes = 1 << 20
  fileprivate static let recycledBytes = 256 << 20

  private let bodyBytes: Int
  private let window: Int
  fileprivate let log: Log
  fileprivate let usesPageCache: Bool

  /// - Parameter usesPageCache: the files are written through the page cache, not past it as nodes do.
  package init(bodyBytes: Int, window: Int, log: Log, usesPageCache: Bool = false) {
    self.bodyBytes = bodyBytes
    self.window = window
    self.log = log
    self.usesPageCache = usesPageCache
  }

  /// Sends `messages` through; three files are made in `directory` and stay there.
  package func run(
    messages: UInt64, directory: String, isCancelled: () -> Bool
  ) throws -> Result {
    var files: [Int32] = []
    defer { for file in files { close(file) } }
    for place in 0..<3 { files.append(try logFile("\(directory)/pipe-\(place)")) }
    let pairs = try (0..<3).map { _ in try connectedPair() }
    // A replica closes what it owns when its upstream ends: the whole chain ends with the client's.
    let replicas = [
      Replica(
        upstream: pairs[0].accepted, downstream: [pairs[1].dialled, pairs[2].dialled],
        file: files[0], self),
      Replica(upstream: pairs[1].accepted, downstream: [], file: files[1], self),
      Replica(upstream: pairs[2].accepted, downstream: [], file: files[2], self),
    ]
    var threads: [WorkerThread] = []
    for replica in replicas {
      threads.append(try WorkerThread(name: "pipe") { replica.run() })
    }
    let result: Swift.Result<(UInt64, LatencyHistogram), any Error>
    do {
      result = .success(try send(messages, to: pairs[0].dialled, isCancelled: isCancelled))
    } catch {
      result = .failure(error)
    }
    close(pairs[0].dialled)
    for thread in threads { thread.join() }
    for replica in replicas { if let failure = replica.failure { throw failure } }
    let (nanoseconds, confirm) = try result.get()
    return Result(
      messages: messages, nanoseconds: nanoseconds, confirm: confirm,
      processorTime: replicas.reduce(0) { $0 + $1.processorTime })
  }

  // MARK: The client

  private func send(
    _ messages: UInt64, to socket: Int32, isCancelled: () -> Bool
  ) throws -> (UInt64, LatencyHistogram) {
    _ = fcntl(socket, F_SETFL, O_NONBLOCK)
    let size = UInt64(bodyBytes + Self.headBytes)
    let total = size * messages
    let windowBytes = size * UInt64(window)
    let source = [UInt8](repeating: 0, count: Self.batchBytes)
    var answers = [UInt64](repeating: 0, count: 512)
    var sent: UInt64 = 0
    var confirmed: UInt64 = 0
    var latencies = LatencyHistogram()
    var writes = RingBuffer<(end: UInt64, time: UInt64)>()
    let start = LoadLoop.now()
    while confirmed < total {
      let room = min(windowBytes - (sent - confirmed), total - sent)
      let interest = Int16(POLLIN) | (room > 0 ? Int16(POLLOUT) : 0)
      var waiting = pollfd(fd: socket, events: interest, revents: 0)
      poll(&waiting, 1, 100)
      if isCancelled() { throw LoadError.cancelled }
      if waiting.revents & Int16(POLLOUT) != 0, room > 0 {
        let count = write(socket, source, Int(min(room, UInt64(Self.batchBytes))))
        if count > 0 {
          sent += UInt64(count)
          writes.append((sent, LoadLoop.now()))
        }
      }
      guard waiting.revents & Int16(POLLIN | POLLHUP) != 0 else { continue }
      let count = read(socket, &answers, answers.count * 8)
      guard count >= 8, count % 8 == 0 else { throw Failure("the pipe broke") }
      let before = confirmed
      confirmed = answers[count / 8 - 1]
      note(confirmed, from: before, size: size, in: &writes, &latencies)
    }
    return (LoadLoop.now() - start, latencies)
  }

  /// Records when the messages between two confirms had been sent.
  private func note(
    _ confirmed: UInt64, from before: UInt64, size: UInt64,
    in writes: inout RingBuffer<(end: UInt64, time: UInt64)>, _ latencies: inout LatencyHistogram
  ) {
    let now = LoadLoop.now()
    var from = before
    while from < confirmed, let first = writes.first {
      let end = min(confirmed, first.end)
      let messages = end / size - from / size
      if messages > 0 { latencies.record(now - first.time, times: messages) }
      from = end
      if end == first.end { _ = writes.popFirst() }
    }
  }

  // MARK: Files and sockets

  private func logFile(_ path: String) throws -> Int32 {
    let file = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw Failure(path) }
    if log == .recycled {
      let zeros = [UInt8](repeating: 0, count: Self.batchBytes)
      for _ in 0..<Self.recycledBytes / Self.batchBytes {
        guard write(file, zeros, zeros.count) == zeros.count else {
          close(file)
          throw Failure(path)
        }
      }
      guard fsync(file) == 0 else {
        close(file)
        throw Failure(path)
      }
    }
    if usesPageCache { return file }
    // Some file systems can only go through the page cache; the nodes do that there too.
    let direct = skein_open_direct(path, 1)
    if direct < 0 { return file }
    close(file)
    return direct
  }

  /// Two ends of a TCP connection over the loopback.
  private func connectedPair() throws -> (dialled: Int32, accepted: Int32) {
    let stream = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let listener = socket(AF_INET, stream, 0)
    guard listener >= 0 else { throw Failure("socket") }
    defer { close(listener) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let dialled = socket(AF_INET, stream, 0)
    // SAFETY: a sockaddr_in is what the kernel reads as a sockaddr of its family.
    let isConnected = withUnsafeMutablePointer(to: &address) { own in
      own.withMemoryRebound(to: sockaddr.self, capacity: 1) { general in
        bind(listener, general, size) == 0 && listen(listener, 1) == 0
          && getsockname(listener, general, &size) == 0 && connect(dialled, general, size) == 0
      }
    }
    guard isConnected else { throw Failure("connecting to the loopback") }
    let accepted = accept(listener, nil, nil)
    guard accepted >= 0 else { throw Failure("accept") }
    for end in [dialled, accepted] {
      var one: Int32 = 1
      setsockopt(end, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
    }
    return (dialled, accepted)
  }
}

/// A leader or follower. Its thread uses it alone until it is joined.
private final class Replica: @unchecked Sendable {
  let upstream: Int32
  let downstream: [Int32]
  let file: Int32
  let log: BarePipe.Log
  let writesBlocks: Bool
  private(set) var failure: BarePipe.Failure?
  private(set) var processorTime: UInt64 = 0
  private var stored: UInt64 = 0
  /// What is written past the page cache begins and ends at a block.
  private static let blockBytes = 4096
  private var acknowledged: [UInt64]

  init(upstream: Int32, downstream: [Int32], file: Int32, _ pipe: BarePipe) {
    self.upstream = upstream
    self.downstream = downstream
    self.file = file
    log = pipe.log
    writesBlocks = !pipe.usesPageCache
    acknowledged = downstream.map { _ in 0 }
  }

  func run() {
    do throws(BarePipe.Failure) {
      try replicate()
      awaitFollowers()
      try trim()
    } catch {
      failure = error
    }
    for end in downstream + [upstream] { close(end) }
    var time = timespec()
    if clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0 {
      processorTime = UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
  }

  private func replicate() throws(BarePipe.Failure) {
    // One block more: what the last one has already is written again with what follows.
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: BarePipe.batchBytes + 2 * Self.blockBytes, alignment: Self.blockBytes)
    buffer.initializeMemory(as: UInt8.self, repeating: 0)
    defer { buffer.deallocate() }
    while true {
      let begun = writesBlocks ? Int(stored % UInt64(Self.blockBytes)) : 0
      let fresh = UnsafeMutableRawBufferPointer(rebasing: buffer[begun...])
      let count = read(upstream, fresh.baseAddress, BarePipe.batchBytes)
      if count <= 0 { return }
      for end in downstream { try put(UnsafeRawBufferPointer(rebasing: fresh[..<count]), to: end) }
      var end = begun + count
      if writesBlocks { end = (end + Self.blockBytes - 1) / Self.blockBytes * Self.blockBytes }
      try store(UnsafeRawBufferPointer(rebasing: buffer[..<end]), at: stored - UInt64(begun))
      guard fdatasync(file) == 0 else { throw BarePipe.Failure("fdatasync") }
      stored += UInt64(count)
      if writesBlocks {
        let last = (begun + count) / Self.blockBytes * Self.blockBytes
        buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer[last..<(begun + count)]))
      }
      guard try waitForMajority() else { return }
      // The client may have left.
      if write(upstream, &stored, 8) != 8 { return }
    }
  }

  /// Until each follower has what it was sent: closed before that, a socket discards it.
  private func awaitFollowers() {
    for end in downstream { shutdown(end, Int32(SHUT_WR)) }
    var confirmed: UInt64 = 0
    for end in downstream { while read(end, &confirmed, 8) > 0 {} }
  }

  /// Takes away what filled the last block.
  private func trim() throws(BarePipe.Failure) {
    if log == .recycled { return }
    guard ftruncate(file, off_t(stored)) == 0 else { throw BarePipe.Failure("ftruncate") }
  }

  private func put(_ bytes: UnsafeRawBufferPointer, to end: Int32) throws(BarePipe.Failure) {
    var rest = bytes
    while !rest.isEmpty {
      let count = write(end, rest.baseAddress, rest.count)
      guard count > 0 else { throw BarePipe.Failure("a follower") }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
  }

  private func store(
    _ bytes: UnsafeRawBufferPointer, at begin: UInt64
  ) throws(BarePipe.Failure) {
    var rest = bytes
    var place = begin
    while !rest.isEmpty {
      var here = Int(place)
      var most = rest.count
      if log == .recycled {
        here = Int(place % UInt64(BarePipe.recycledBytes))
        most = min(most, BarePipe.recycledBytes - here)
      }
      let count = pwrite(file, rest.baseAddress, most, here)
      guard count > 0 else { throw BarePipe.Failure("pwrite") }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      place += UInt64(count)
    }
  }

  /// One of two followers and the leader itself. False if a follower is gone.
  private func waitForMajority() throws(BarePipe.Failure) -> Bool {
    while !downstream.isEmpty, acknowledged.allSatisfy({ $0 < stored }) {
      var waiting = downstream.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
      poll(&waiting, nfds_t(waiting.count), -1)
      for place in waiting.indices where waiting[place].revents != 0 {
        var value: UInt64 = 0
        guard recv(downstream[place], &value, 8, Int32(MSG_WAITALL)) == 8 else {
          return false
        }
        acknowledged[place] = value
      }
    }
    return true
  }
}
