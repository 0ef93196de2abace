// What the tests share: a store with a model of what it must hold.

import Base
import Consensus
import Testing

@testable import LogStore

let testDirectory = "/data"
let testIdentity = StoreIdentity(cluster: "test", node: NodeID(1))

func smallOptions() -> StoreOptions {
  var options = StoreOptions()
  options.segmentBytes = 16 << 10
  options.recoveryReadBytes = 8 << 10
  return options
}

/// Bytes that differ from entry to entry and, every 16, from place to place.
func payload(_ index: UInt64, _ term: UInt64, bytes: Int) -> [UInt8] {
  var result: [UInt8] = []
  result.reserveCapacity(bytes + 16)
  while result.count < bytes {
    result.put(index << 8 | term)
    result.put(UInt64(result.count))
  }
  result.removeLast(result.count - bytes)
  return result
}

func entry(
  _ index: UInt64, term: UInt64 = 1, bytes: Int = 100, kind: EntryKind = .commands
) -> Entry {
  Entry(
    position: LogPosition(term: Term(term), index: LogIndex(index)), kind: kind,
    payload: kind == .begin ? [] : payload(index, term, bytes: bytes))
}

func entries(_ range: ClosedRange<UInt64>, term: UInt64 = 1, bytes: Int = 100) -> [Entry] {
  range.map { entry($0, term: term, bytes: bytes) }
}

extension LogStore {
  static func open(
    _ disk: any FileSystem, _ options: StoreOptions = smallOptions()
  ) throws(LogStoreError) -> (store: LogStore, recovery: Recovery) {
    try open(directory: testDirectory, identity: testIdentity, options: options, fileSystem: disk)
  }

  /// Stages, executes and finishes.
  func write(_ operations: [LogOperation]) throws(StorageFailure) {
    try run(stage(withTerm(operations)))
  }

  /// With the term saved first, as consensus does.
  func withTerm(_ operations: [LogOperation]) -> [LogOperation] {
    var term = hardState.term
    for case .append(let entries) in operations {
      term = max(term, entries.map(\.header.term).max() ?? .zero)
    }
    if term == hardState.term { return operations }
    return [.saveHardState(HardState(term: term))] + operations
  }

  func run(_ job: WriteJob?) throws(StorageFailure) {
    guard let job else { return }
    try job.execute()
    try finished(job)
  }

  func append(
    _ range: ClosedRange<UInt64>, term: UInt64 = 1, bytes: Int = 100
  ) throws(StorageFailure) {
    for index in range {
      try write([.append([LogStoreTests.entry(index, term: term, bytes: bytes)])])
    }
  }

  func upkeep() {
    while let job = nextUpkeep() {
      job.execute()
      finished(job)
      if job.failure != nil { return }
    }
  }

  /// Every entry that can be given.
  func all() throws(LogReadError) -> [Entry] {
    if firstIndex > last.index { return [] }
    var result: [Entry] = []
    while (result.last?.index ?? firstIndex.previous) < last.index {
      let from = result.last?.index.next ?? firstIndex
      result += try entries(from: from, through: last.index, maxBytes: 4096)
    }
    return result
  }
}

/// Names of the files in the test directory with a prefix.
func files(_ disk: MemoryFileSystem, _ prefix: String) -> [String] {
  disk.names.keys.filter { $0.hasPrefix(testDirectory + "/" + prefix) }.sorted()
}

extension [RecordReference] {
  /// As the queues tell what is alive: some neighbours at once where that is taken, else one by one.
  var inSpans: LiveSpans {
    { span, each in
      var rest = self[...]
      var most = 1
      while let first = rest.first {
        // Only what ascends is a span.
        var group = rest.prefix(1)
        while group.count < most, group.endIndex < rest.endIndex,
          rest[group.endIndex].entry >= rest[group.endIndex - 1].entry
        {
          group = rest[rest.startIndex...group.endIndex]
        }
        most = most % 7 + 1
        rest = rest.dropFirst(group.count)
        let bytes = group.reduce(0) { $0 + UInt64($1.size) }
        let last = group.last?.entry ?? first.entry
        if !span(RecordSpan(first: first.entry, last: last, count: group.count, bytes: bytes)) {
          group.forEach(each)
        }
      }
    }
  }
}
