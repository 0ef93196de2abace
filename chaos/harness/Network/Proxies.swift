// The proxies as the rest of the harness sees them: rules that hold when the call returns.

import Base
import Synchronization
import Transport

package final class Proxies: Sendable {
  private let mailbox: Mailbox<ProxyCommand>
  private let thread: WorkerThread
  private let isStopped = Mutex(false)

  /// - Parameter seed: of the jitter.
  package init(seed: UInt64) throws(ChaosError) {
    do throws(ErrorNumber) {
      let mailbox = try Mailbox<ProxyCommand>()
      self.mailbox = mailbox
      let loop = Handover(try ProxyLoop(mailbox: mailbox, seed: seed))
      thread = try WorkerThread(name: "skein-proxies") { loop.take().run() }
    } catch {
      throw ChaosError("the proxies cannot start: \(error)")
    }
  }

  /// - Returns: where it listens.
  @discardableResult
  package func listen(_ route: ProxyRoute) async throws(ChaosError) -> String {
    var result = await tryToListen(route)
    // A process that is just being started has a copy of every descriptor until it runs its program,
    // also of the listener that was given up here a moment ago.
    for _ in 0..<25 {
      guard case .failure = result else { break }
      do { try await Task.sleep(for: .milliseconds(20)) } catch { break }
      result = await tryToListen(route)
    }
    return try result.get()
  }

  private func tryToListen(_ route: ProxyRoute) async -> Result<String, ChaosError> {
    await withCheckedContinuation { continuation in
      mailbox.post(.listen(route) { continuation.resume(returning: $0) })
    }
  }

  package func stopListening(node: Int) async {
    await done { .stopListening(node: node, $0) }
  }

  /// From now on these rules hold, and no others; what they do not name passes freely.
  package func set(_ rules: [Link: LinkRule]) async {
    await done { .setRules(rules, $0) }
  }

  /// Resets all connections from and to these nodes.
  package func reset(nodes: Set<Int>) async { await done { .reset(nodes: nodes, $0) } }

  /// Closes the called end of all connections from and to these nodes, and does not tell the other.
  package func halfOpen(nodes: Set<Int>) async { await done { .halfOpen(nodes: nodes, $0) } }

  private func done(_ command: (@escaping @Sendable () -> Void) -> ProxyCommand) async {
    await withCheckedContinuation { continuation in
      mailbox.post(command { continuation.resume() })
    }
  }

  /// Closes everything; nothing may be asked afterwards.
  package func stop() {
    let isFirst = isStopped.withLock { isStopped in
      defer { isStopped = true }
      return !isStopped
    }
    guard isFirst else { return }
    mailbox.post(.stop)
    thread.join()
  }
}

/// Gives the loop to its thread, which alone touches it from then on.
private final class Handover: @unchecked Sendable {
  // SAFETY of the Sendable: taken once, by the new thread; the maker keeps no other reference.
  private var loop: ProxyLoop?

  init(_ loop: ProxyLoop) { self.loop = loop }

  func take() -> ProxyLoop {
    guard let taken = loop else { stopForBug("the proxies' loop was taken twice") }
    loop = nil
    return taken
  }
}
