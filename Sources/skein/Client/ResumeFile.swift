// `publish --resume`: who publishes, kept in a small file, so that another run goes on under the same
// name. How far the one before got is not in it: the cluster knows, whatever became of the process.

import Base
import SkeinClient

/// One file: the producer's number, the queue, and when it began, a line each.
struct ResumeFile: Sendable {
  let path: String
  let producer: UInt64
  /// It was there already.
  let isOld: Bool
  /// Seconds since 1970.
  let begun: UInt64

  /// As long as the cluster remembers how far a producer got, with an hour to spare.
  private static let memorySeconds: UInt64 = 23 * 3600

  /// Reads the file, or makes it.
  init(path: String, queue: String) throws {
    self.path = path
    guard Files.exists(path) else {
      producer = .random(in: 1 ... .max)
      isOld = false
      begun = Files.secondsSince1970()
      try Files.write("skein resume 1\n\(producer)\n\(begun)\n\(queue)\n", to: path)
      return
    }
    let text = String(decoding: try Files.read(path), as: UTF8.self)
    let lines = text.split(separator: "\n", maxSplits: 4, omittingEmptySubsequences: false)
    guard lines.count == 5, lines[0] == "skein resume 1", let producer = UInt64(lines[1]),
      producer > 0, let begun = UInt64(lines[2])
    else { throw Failure("\(path) is no file of publish --resume") }
    guard lines[3] == queue else {
      throw Failure("\(path) belongs to queue \(lines[3]), not \(queue)")
    }
    self.producer = producer
    self.begun = begun
    isOld = true
  }

  /// Whether the cluster can still tell how far the run before got.
  func check(known: UInt64) throws {
    guard isOld, known == 0, Files.secondsSince1970() > begun + Self.memorySeconds else { return }
    throw Failure(
      "the cluster knows nothing of this producer, and the run before began more than 23 hours ago:"
        + " it cannot be told what was published; remove \(path) to begin anew")
  }

  /// The lines of the run before that the cluster refused and it may not have told anybody of. To be
  /// asked before anything is published: then the answers are forgotten.
  func refused(through known: UInt64, window: UInt64, _ client: SkeinClient) async throws -> Refused
  {
    var refused = Refused()
    var start = known > window ? known - window + 1 : 1
    while start <= known {
      let numbers = start...min(known, start + 99)
      start = numbers.upperBound + 1
      let found = try await withThrowingTaskGroup(of: (UInt64, RefusalReason)?.self) { group in
        for number in numbers {
          let reference = PublishReference(producer: producer, sequence: number)
          group.addTask {
            guard case .refused(let why) = try await client.outcome(of: reference) else {
              return nil
            }
            return (number, why)
          }
        }
        var found: [(UInt64, RefusalReason)] = []
        for try await one in group { if let one { found.append(one) } }
        return found
      }
      for (line, reason) in found.sorted(by: { $0.0 < $1.0 }) {
        refused.lines.append(line)
        refused.reason = "\(reason)"
      }
    }
    return refused
  }

  struct Refused {
    var lines: [UInt64] = []
    var reason = ""

    func check() throws {
      guard let first = lines.first else { return }
      throw Failure(
        "\(lines.count) lines of the run before were refused (\(reason)), the first is line"
          + " \(first); all others are stored")
    }
  }

  /// All is published: the next run begins anew.
  func finish() throws { try Files.remove(path) }
}
