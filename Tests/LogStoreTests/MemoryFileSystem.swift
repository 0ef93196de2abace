// A disk in memory that loses, tears and damages what a real one may.

import Base

@testable import LogStore

/// What becomes of writes that were not synced when the machine stops.
enum CrashKind: CaseIterable, Sendable {
  case allLost, allKept, torn
}

/// Used by one thread; the tests run jobs inline.
final class MemoryFileSystem: FileSystem, @unchecked Sendable {
  enum Change {
    case write(UInt64, [UInt8])
    case size(Int)
  }

  final class File {
    var current: [UInt8] = []
    var durable: [UInt8] = []
    var unsynced: [Change] = []

    func apply(_ change: Change, to bytes: inout [UInt8]) {
      switch change {
      case .write(let offset, let data):
        let end = Int(offset) + data.count
        if bytes.count < end {
          bytes.append(contentsOf: repeatElement(0, count: end - bytes.count))
        }
        bytes.replaceSubrange(Int(offset)..<end, with: data)
      case .size(let size):
        if size < bytes.count {
          bytes.removeLast(bytes.count - size)
        } else {
          bytes.append(contentsOf: repeatElement(0, count: size - bytes.count))
        }
      }
    }

    func change(_ change: Change) {
      apply(change, to: &current)
      unsynced.append(change)
    }
  }

  var names: [String: File] = [:]
  var durableNames: [String: File] = [:]
  var locked: Set<String> = []
  /// Changing calls so far.
  var operations = 0
  /// Stop answering after this many changing calls.
  var stopAfter: Int?
  /// This sync from now fails once, and so does nothing else.
  var failSyncIn: Int?
  var bytesFree = UInt64.max
  var syncs = 0
  /// What it was told to read ahead.
  var advised: [Range<Int>] = []
  /// Files that it was told not to keep in memory.
  var forgotten: [String] = []
  /// Files written to, once for each write, by who expects reads.
  var writtenToBeRead: [String] = []
  var bytesRead = 0

  func step(_ operation: StorageFailure.Operation, _ path: String) throws(StorageFailure) {
    operations += 1
    if let stopAfter, operations > stopAfter {
      throw StorageFailure(operation, path, code: 5, detail: "stopped")
    }
  }

  func take(_ bytes: UInt64, _ path: String) throws(StorageFailure) {
    guard bytes <= bytesFree else { throw StorageFailure(.write, path, code: 28) }
    if bytesFree != .max { bytesFree -= bytes }
  }

  /// The disk as it is found after a power cut.
  func crashed(_ kind: CrashKind, seed: UInt64 = 1) -> MemoryFileSystem {
    var random = SeededRandom(seed: seed)
    let after = MemoryFileSystem()
    let keepsNames: Bool
    switch kind {
    case .allLost: keepsNames = false
    case .allKept: keepsNames = true
    case .torn: keepsNames = Bool.random(using: &random)
    }
    for (name, file) in (keepsNames ? names : durableNames).sorted(by: { $0.key < $1.key }) {
      let copy = File()
      switch kind {
      case .allLost: copy.durable = file.durable
      case .allKept: copy.durable = file.current
      case .torn:
        copy.durable = file.durable
        for change in file.unsynced where Bool.random(using: &random) {
          switch change {
          case .size: file.apply(change, to: &copy.durable)
          case .write(let offset, let data):
            let isWhole = Bool.random(using: &random)
            let count = isWhole ? data.count : Int.random(in: 0...data.count, using: &random)
            let from = isWhole ? 0 : Int.random(in: 0...count, using: &random)
            file.apply(
              .write(offset + UInt64(from), Array(data[from..<count])), to: &copy.durable)
          }
        }
      }
      copy.current = copy.durable
      after.names[name] = copy
    }
    after.durableNames = after.names
    return after
  }

  /// The disk after the process was killed: everything written is there.
  func killed() -> MemoryFileSystem { crashed(.allKept) }

  func bytes(_ path: String) -> [UInt8] { names[path]?.current ?? [] }

  /// Changes bytes behind everybody's back.
  func damage(_ path: String, _ change: (inout [UInt8]) -> Void) {
    guard let file = names[path] else { return }
    change(&file.current)
    file.durable = file.current
  }

  func flip(_ path: String, at offset: Int) { damage(path) { $0[offset] ^= 0x10 } }

  final class Handle: FileHandle {
    let path: String
    nonisolated(unsafe) let file: File
    let system: MemoryFileSystem
    private nonisolated(unsafe) var expectsReads = false

    init(_ path: String, _ file: File, _ system: MemoryFileSystem) {
      self.path = path
      self.file = file
      self.system = system
    }

    func write(_ pieces: [[UInt8]], at offset: UInt64) throws(StorageFailure) {
      try system.step(.write, path)
      if expectsReads { system.writtenToBeRead.append(path) }
      var data: [UInt8] = []
      for piece in pieces { data.append(contentsOf: piece) }
      let growth = max(0, Int(offset) + data.count - file.current.count)
      try system.take(UInt64(growth), path)
      file.change(.write(offset, data))
    }

    func read(
      into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(StorageFailure) -> Int {
      guard Int(offset) < file.current.count else { return 0 }
      let count = min(buffer.count, file.current.count - Int(offset))
      system.bytesRead += count
      buffer.copyBytes(from: file.current[Int(offset)..<Int(offset) + count])
      return count
    }

    func willRead(_ bytes: UInt64, at offset: UInt64) {
      system.advised.append(Int(offset)..<Int(offset + bytes))
    }

    /// As Linux does it: what a failed sync left in the page cache only is gone.
    func willNotRead(_ bytes: UInt64, at offset: UInt64) {
      system.forgotten.append(path)
      guard file.unsynced.isEmpty else { return }
      let end = min(Int(offset + bytes), file.current.count)
      for at in Int(offset)..<max(Int(offset), end) {
        file.current[at] = at < file.durable.count ? file.durable[at] : 0
      }
    }

    func expectReads(_ areExpected: Bool) { expectsReads = areExpected }

    func synchronize() throws(StorageFailure) {
      try system.step(.synchronize, path)
      system.syncs += 1
      if let left = system.failSyncIn {
        system.failSyncIn = left == 0 ? nil : left - 1
        if left == 0 {
          // As Linux does it: what was to be written is given up, later syncs do not know of it,
          // and the page cache shows it until the machine stops.
          file.unsynced = []
          throw StorageFailure(.synchronize, path, code: 5)
        }
      }
      for change in file.unsynced { file.apply(change, to: &file.durable) }
      file.unsynced = []
    }

    func allocate(_ bytes: UInt64) throws(StorageFailure) {
      try system.step(.allocate, path)
      if Int(bytes) > file.current.count {
        try system.take(bytes - UInt64(file.current.count), path)
        file.change(.size(Int(bytes)))
      }
    }

    func truncate(to bytes: UInt64) throws(StorageFailure) {
      try system.step(.truncate, path)
      file.change(.size(Int(bytes)))
    }

    func size() throws(StorageFailure) -> UInt64 { UInt64(file.current.count) }
  }

  func open(_ path: String, _ mode: OpenMode) throws(StorageFailure) -> any FileHandle {
    if let file = names[path] {
      if case .createNew = mode { throw StorageFailure(.open, path, code: 17) }
      return Handle(path, file, self)
    }
    switch mode {
    case .read, .readWrite: throw StorageFailure(.open, path, code: 2)
    case .createIfMissing, .createNew:
      try step(.open, path)
      let file = File()
      names[path] = file
      return Handle(path, file, self)
    }
  }

  func createDirectory(_ path: String) throws(StorageFailure) {}

  func list(_ directory: String) throws(StorageFailure) -> [String] {
    names.keys.filter { $0.hasPrefix(directory + "/") }
      .map { String($0.dropFirst(directory.count + 1)) }.sorted()
  }

  func rename(_ old: String, to new: String) throws(StorageFailure) {
    try step(.rename, old)
    guard let file = names[old] else { throw StorageFailure(.rename, old, code: 2) }
    names[old] = nil
    names[new] = file
  }

  func remove(_ path: String) throws(StorageFailure) {
    try step(.remove, path)
    guard names[path] != nil else { throw StorageFailure(.remove, path, code: 2) }
    names[path] = nil
  }

  func synchronizeDirectory(_ path: String) throws(StorageFailure) {
    try step(.synchronizeDirectory, path)
    durableNames = names
  }

  final class Lock: DirectoryLock {
    let path: String
    nonisolated(unsafe) weak var system: MemoryFileSystem?
    init(_ path: String, _ system: MemoryFileSystem) {
      self.path = path
      self.system = system
    }
    deinit { system?.locked.remove(path) }
  }

  func lock(_ path: String) throws(StorageFailure) -> LockOutcome {
    if locked.contains(path) { return .heldByAnother(process: 42) }
    locked.insert(path)
    return .taken(Lock(path, self))
  }

  func freeBytes(_ directory: String) throws(StorageFailure) -> UInt64 { bytesFree }
}
