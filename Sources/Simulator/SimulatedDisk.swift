// A disk in memory that forgets, tears, fills and damages as real ones do. What a process wrote is
// seen by every later process of the machine; what was synced survives a loss of power; what lies
// between may survive in part, sector by sector.

import Base
import LogStore

/// One file. Only writes that are not synced remember what they replaced, so a sync costs nothing.
final class SimulatedFile {
  /// What was there before a write and what came: a loss of power takes back and puts in parts.
  struct Unsynced {
    var offset: Int
    var before: [UInt8]
    var after: [UInt8]
    var lengthBefore: Int
    var lengthAfter: Int
  }

  static let sectorBytes = 512

  private(set) var bytes: [UInt8] = []
  private(set) var unsynced: [Unsynced] = []
  /// What is on the disk, where that differs from what processes see: a sync failed, and what was
  /// to be written then is in the page cache only until the machine stops. nil otherwise.
  private var onDisk: [UInt8]?
  /// What the last writes replaced, for blocks that come back.
  private(set) var former: [(offset: Int, bytes: [UInt8])] = []
  private static let formerMax = 8

  func write(_ pieces: [[UInt8]], at offset: Int) {
    let count = pieces.reduce(0) { $0 + $1.count }
    let lengthBefore = bytes.count
    let kept = max(0, min(bytes.count, offset + count) - offset)
    let before = kept > 0 ? Array(bytes[offset..<offset + kept]) : []
    if before.count >= Self.sectorBytes {
      if former.count == Self.formerMax { former.removeFirst() }
      former.append((offset, before))
    }
    if bytes.count < offset + count {
      bytes.append(contentsOf: repeatElement(0, count: offset + count - bytes.count))
    }
    var at = offset
    for piece in pieces {
      bytes.replaceSubrange(at..<at + piece.count, with: piece)
      at += piece.count
    }
    let after = pieces.count == 1 ? pieces[0] : Array(pieces.joined())
    unsynced.append(
      Unsynced(
        offset: offset, before: before, after: after, lengthBefore: lengthBefore,
        lengthAfter: bytes.count))
  }

  /// Whether anything but zeros is there.
  func hasContent(in range: Range<Int>) -> Bool {
    bytes.withUnsafeBytes { bytes in
      var rest = bytes[range]
      // Blocks are long, and most of them are empty.
      while rest.count >= 8 {
        let word = bytes.loadUnaligned(fromByteOffset: rest.startIndex, as: UInt64.self)
        if word != 0 { return true }
        rest = rest.dropFirst(8)
      }
      return rest.contains { $0 != 0 }
    }
  }

  /// Where these bytes are first.
  func place(of part: [UInt8]) -> Int? {
    bytes.withUnsafeBytes { bytes in
      guard bytes.count >= part.count else { return nil }
      return (0...bytes.count - part.count).first { at in
        bytes[at] == part[0] && bytes[at..<at + part.count].elementsEqual(part)
      }
    }
  }

  func resize(to length: Int) {
    let lengthBefore = bytes.count
    guard length != lengthBefore else { return }
    let before = length < lengthBefore ? Array(bytes[length...]) : []
    if length < lengthBefore {
      bytes.removeLast(lengthBefore - length)
    } else {
      bytes.append(contentsOf: repeatElement(0, count: length - lengthBefore))
    }
    unsynced.append(
      Unsynced(
        offset: min(length, lengthBefore), before: before, after: [], lengthBefore: lengthBefore,
        lengthAfter: length))
  }

  /// In which process a sync of it failed.
  private(set) var failedProcess = 0

  func synchronize() {
    if var disk = onDisk {
      onDisk = nil
      for write in unsynced { putWhole(write, on: &disk) }
      onDisk = disk
    }
    unsynced.removeAll(keepingCapacity: true)
  }

  /// The sync failed: nothing, or parts, of what was not synced is on the disk, and later syncs do
  /// not know of it.
  func failToSynchronize(_ chance: inout Chance, process: Int = 0) {
    failedProcess = process
    let cache = bytes
    _ = losePower(&chance)
    onDisk = bytes
    bytes = cache
  }

  /// The page cache gives up a range: what a failed sync left there only is gone, unless something there
  /// waits for a sync.
  func forget(_ range: Range<Int>) {
    guard let onDisk, !range.isEmpty, unsynced.isEmpty else { return }
    let end = min(range.upperBound, onDisk.count)
    if range.lowerBound < end {
      bytes.replaceSubrange(range.lowerBound..<end, with: onDisk[range.lowerBound..<end])
    }
    if end < range.upperBound {
      let zeros = repeatElement(UInt8(0), count: range.upperBound - max(end, range.lowerBound))
      bytes.replaceSubrange(max(end, range.lowerBound)..<range.upperBound, with: zeros)
    }
  }

  /// Power was lost. Of each write that was not synced nothing, all, or some sectors are there.
  func losePower(_ chance: inout Chance) -> PowerLoss {
    let hasDropped = onDisk != nil
    guard !unsynced.isEmpty || hasDropped else { return .nothing }
    let writes = unsynced
    unsynced = []
    if let onDisk {
      bytes = onDisk
      self.onDisk = nil
    } else {
      for write in writes.reversed() { takeBack(write) }
    }
    var loss = hasDropped ? PowerLoss.some : .nothing
    if chance.permille(250) {
      loss = .all
    } else if chance.permille(250) {
      for write in writes { putWhole(write, on: &bytes) }
    } else {
      for write in writes {
        switch chance.below(4) {
        case 0: loss.note(.some)
        case 1: putWhole(write, on: &bytes)
        default: loss.note(putPart(write, &chance))
        }
      }
    }
    return loss
  }

  private func takeBack(_ write: Unsynced) {
    if bytes.count > write.lengthBefore { bytes.removeLast(bytes.count - write.lengthBefore) }
    if bytes.count < write.lengthBefore {
      bytes.append(contentsOf: repeatElement(0, count: write.lengthBefore - bytes.count))
    }
    guard !write.before.isEmpty else { return }
    let end = write.offset + write.before.count
    bytes.replaceSubrange(write.offset..<end, with: write.before)
  }

  private func putWhole(_ write: Unsynced, on bytes: inout [UInt8]) {
    if write.lengthAfter < write.lengthBefore, bytes.count > write.lengthAfter {
      bytes.removeLast(bytes.count - write.lengthAfter)
    }
    let end = write.after.isEmpty ? write.lengthAfter : write.offset + write.after.count
    if bytes.count < end { bytes.append(contentsOf: repeatElement(0, count: end - bytes.count)) }
    bytes.replaceSubrange(write.offset..<write.offset + write.after.count, with: write.after)
  }

  /// Each sector by itself: torn if some are there and some are not.
  private func putPart(_ write: Unsynced, _ chance: inout Chance) -> PowerLoss {
    guard !write.after.isEmpty else {
      if chance.flip() { putWhole(write, on: &bytes) }
      return .some
    }
    // Often a beginning got through, sometimes any sectors.
    let isBeginning = chance.flip()
    let cut = chance.below(write.after.count + 1)
    var at = 0
    var sectors = (there: 0, lost: 0)
    while at < write.after.count {
      let place = write.offset + at
      let end = min(write.after.count, at + Self.sectorBytes - place % Self.sectorBytes)
      let isThere = isBeginning ? end <= cut : chance.flip()
      if isThere {
        patch(Array(write.after[at..<end]), at: place)
        sectors.there += 1
      } else {
        sectors.lost += 1
      }
      at = end
    }
    if sectors.lost == 0 { return .nothing }
    return sectors.there == 0 ? .some : .torn
  }

  private func patch(_ data: [UInt8], at offset: Int) {
    if bytes.count < offset + data.count {
      bytes.append(contentsOf: repeatElement(0, count: offset + data.count - bytes.count))
    }
    bytes.replaceSubrange(offset..<offset + data.count, with: data)
  }

  /// The same bytes in another file, durable there.
  func copied() -> SimulatedFile {
    let file = SimulatedFile()
    file.bytes = bytes
    return file
  }

  /// Changes bytes behind everybody's back, durably.
  func damage(_ change: (inout [UInt8]) -> Void) {
    onDisk = nil
    change(&bytes)
  }
}

/// What became of unsynced writes.
enum PowerLoss: Int {
  case nothing, some, all, torn

  mutating func note(_ other: PowerLoss) { if other.rawValue > rawValue { self = other } }
}

/// The disk of one machine. Used by one thread: the simulation runs every job itself.
final class SimulatedDisk: FileSystem, @unchecked Sendable {
  // Unchecked: nothing of a simulation leaves its thread.
  private(set) var files: [String: SimulatedFile] = [:]
  private var durableFiles: [String: SimulatedFile] = [:]
  /// Changes of names since the directory was synced, oldest first.
  private var unsyncedNames: [[(name: String, file: SimulatedFile?)]] = []
  private var bytesUsed = 0

  /// Answers this many more changing calls, then none: the process died in the middle.
  var callsLeft: Int?
  /// Answers until something is to be synced, then nothing any more.
  var diesAtSync = false
  /// A call came after the process had died.
  private(set) var hasRefused = false
  /// So many syncs from now fail.
  var failingSyncs = 0
  /// So many syncs of the directory from now fail.
  var failingDirectorySyncs = 0
  private(set) var directorySyncsFailed: UInt64 = 0
  /// Writes to the log that put zeros over something behind them.
  private(set) var blockEndsZeroed: UInt64 = 0
  /// Decides what a sync that fails wrote all the same.
  private var chance: Chance
  /// Writes of what was said to be read again soon.
  private(set) var writesToBeRead: UInt64 = 0
  var capacity = Int.max { didSet { isFull = false } }
  /// Something was refused for lack of space since the capacity was set.
  private var isFull = false
  private(set) var timesFull: UInt64 = 0
  private(set) var syncsFailed: UInt64 = 0
  /// Counts the processes that used it.
  private var process = 1
  /// It has refused something to the process that uses it.
  private(set) var hasFailedProcess = false
  /// A file that a process synced after it had failed to do so.
  private(set) var syncedAgain: String?

  init(seed: UInt64 = 0) { chance = Chance(seed: seed) }

  /// Sorted, so that nothing depends on the order of a hash table.
  var names: [String] { files.keys.sorted() }

  private func step(_ operation: StorageFailure.Operation, _ path: String) throws(StorageFailure) {
    if diesAtSync && operation == .synchronize { callsLeft = 0 }
    guard let left = callsLeft else { return }
    guard left > 0 else {
      hasRefused = true
      hasFailedProcess = true
      throw StorageFailure(operation, path, code: StorageFailure.ioCode, detail: "process died")
    }
    callsLeft = left - 1
  }

  /// A process opens its files: it knows nothing of what an earlier one could not sync.
  func beginProcess() {
    process += 1
    hasFailedProcess = false
  }

  /// Another process may use it, as long as it likes.
  func revive() {
    callsLeft = nil
    diesAtSync = false
    hasRefused = false
  }

  private func grow(_ file: SimulatedFile, to length: Int, _ path: String) throws(StorageFailure) {
    let growth = max(0, length - file.bytes.count)
    guard bytesUsed + growth <= capacity else {
      if !isFull { timesFull += 1 }
      isFull = true
      hasFailedProcess = true
      throw StorageFailure(.write, path, code: StorageFailure.noSpaceCode)
    }
    bytesUsed += growth
  }

  private func rename(_ changes: [(name: String, file: SimulatedFile?)]) {
    for change in changes { files[change.name] = change.file }
    unsyncedNames.append(changes)
  }

  // MARK: Harm

  /// Power was lost: unsynced names go from some point on, unsynced bytes in part.
  func losePower(_ chance: inout Chance) -> PowerLoss {
    var loss = PowerLoss.nothing
    let kept = chance.below(unsyncedNames.count + 1)
    if kept < unsyncedNames.count { loss = .some }
    files = durableFiles
    for changes in unsyncedNames.prefix(kept) {
      for change in changes { files[change.name] = change.file }
    }
    durableFiles = files
    unsyncedNames = []
    for name in names {
      guard let file = files[name] else { continue }
      loss.note(file.losePower(&chance))
    }
    measure()
    return loss
  }

  /// Everything is gone: a new disk.
  func wipe() {
    files = [:]
    durableFiles = [:]
    unsyncedNames = []
    measure()
  }

  /// The file's name is gone, durably.
  func lose(_ name: String) {
    files[name] = nil
    durableFiles[name] = nil
    unsyncedNames = unsyncedNames.map { changes in changes.filter { $0.name != name } }
    measure()
  }

  /// Another disk with what a process would see on this one.
  func copied() -> SimulatedDisk {
    let disk = SimulatedDisk()
    for (name, file) in files { disk.files[name] = file.copied() }
    disk.durableFiles = disk.files
    disk.measure()
    return disk
  }

  func measure() { bytesUsed = files.values.reduce(0) { $0 + $1.bytes.count } }

  var used: Int { bytesUsed }

  // MARK: FileSystem

  final class Handle: FileHandle, @unchecked Sendable {
    let path: String
    let file: SimulatedFile
    let disk: SimulatedDisk
    /// Written in whole blocks, as `LinuxLogFile` does.
    let isLog: Bool
    private var expectsReads = false
    private static let blockBytes = 4096

    init(_ path: String, _ file: SimulatedFile, _ disk: SimulatedDisk, isLog: Bool) {
      self.path = path
      self.file = file
      self.disk = disk
      self.isLog = isLog
    }

    func willNotRead(_ bytes: UInt64, at offset: UInt64) {
      file.forget(Int(offset)..<min(file.bytes.count, Int(offset + bytes)))
    }

    func expectReads(_ areExpected: Bool) { expectsReads = areExpected }

    func write(_ pieces: [[UInt8]], at offset: UInt64) throws(StorageFailure) {
      try disk.step(.write, path)
      if expectsReads { disk.writesToBeRead += 1 }
      let count = pieces.reduce(0) { $0 + $1.count }
      let end = Int(offset) + count
      try disk.grow(file, to: end, path)
      let zeros = zerosToWrite(behind: end)
      if zeros > 0 { disk.blockEndsZeroed += 1 }
      file.write(
        zeros > 0 ? pieces + [[UInt8](repeating: 0, count: zeros)] : pieces, at: Int(offset))
    }

    /// The log's last block is filled with zeros, where it is all within the file. Where zeros are
    /// already, that changes nothing.
    private func zerosToWrite(behind end: Int) -> Int {
      let blockEnd = (end + Self.blockBytes - 1) / Self.blockBytes * Self.blockBytes
      guard isLog, blockEnd <= file.bytes.count, file.hasContent(in: end..<blockEnd) else {
        return 0
      }
      return blockEnd - end
    }

    func read(
      into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
    ) throws(StorageFailure) -> Int {
      guard Int(offset) < file.bytes.count else { return 0 }
      let count = min(buffer.count, file.bytes.count - Int(offset))
      file.bytes.withUnsafeBytes { bytes in
        buffer.copyMemory(
          from: UnsafeRawBufferPointer(rebasing: bytes[Int(offset)..<Int(offset) + count]))
      }
      return count
    }

    func synchronize() throws(StorageFailure) {
      try disk.step(.synchronize, path)
      if disk.failingSyncs > 0 {
        disk.failingSyncs -= 1
        disk.syncsFailed += 1
        disk.hasFailedProcess = true
        file.failToSynchronize(&disk.chance, process: disk.process)
        throw StorageFailure(.synchronize, path, code: StorageFailure.ioCode)
      }
      if file.failedProcess == disk.process { disk.syncedAgain = path }
      file.synchronize()
    }

    func allocate(_ bytes: UInt64) throws(StorageFailure) {
      try disk.step(.allocate, path)
      guard Int(bytes) > file.bytes.count else { return }
      try disk.grow(file, to: Int(bytes), path)
      file.resize(to: Int(bytes))
    }

    func truncate(to bytes: UInt64) throws(StorageFailure) {
      try disk.step(.truncate, path)
      file.resize(to: Int(bytes))
    }

    func size() throws(StorageFailure) -> UInt64 { UInt64(file.bytes.count) }
  }

  func open(_ path: String, _ mode: OpenMode) throws(StorageFailure) -> any FileHandle {
    try open(path, mode, isLog: false)
  }

  func openLog(_ path: String, _ mode: OpenMode) throws(StorageFailure) -> any FileHandle {
    try open(path, mode, isLog: true)
  }

  private func open(
    _ path: String, _ mode: OpenMode, isLog: Bool
  ) throws(StorageFailure) -> any FileHandle {
    if let file = files[path] {
      if case .createNew = mode { throw StorageFailure(.open, path, code: 17) }
      return Handle(path, file, self, isLog: isLog)
    }
    switch mode {
    case .read, .readWrite:
      throw StorageFailure(.open, path, code: StorageFailure.noSuchFileCode)
    case .createIfMissing, .createNew:
      try step(.open, path)
      let file = SimulatedFile()
      rename([(path, file)])
      return Handle(path, file, self, isLog: isLog)
    }
  }

  func createDirectory(_ path: String) throws(StorageFailure) {}

  func list(_ directory: String) throws(StorageFailure) -> [String] {
    let prefix = directory + "/"
    return files.keys.filter { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
      .sorted()
  }

  func rename(_ old: String, to new: String) throws(StorageFailure) {
    try step(.rename, old)
    guard let file = files[old] else {
      throw StorageFailure(.rename, old, code: StorageFailure.noSuchFileCode)
    }
    rename([(old, nil), (new, file)])
  }

  func remove(_ path: String) throws(StorageFailure) {
    try step(.remove, path)
    guard let file = files[path] else {
      throw StorageFailure(.remove, path, code: StorageFailure.noSuchFileCode)
    }
    bytesUsed -= file.bytes.count
    rename([(path, nil)])
  }

  func synchronizeDirectory(_ path: String) throws(StorageFailure) {
    try step(.synchronizeDirectory, path)
    if failingDirectorySyncs > 0 {
      // Which of the names are on the disk all the same, a loss of power decides.
      failingDirectorySyncs -= 1
      directorySyncsFailed += 1
      hasFailedProcess = true
      throw StorageFailure(.synchronizeDirectory, path, code: StorageFailure.ioCode)
    }
    durableFiles = files
    unsyncedNames = []
  }

  final class Lock: DirectoryLock {}

  /// A process that died holds no lock, and the simulation starts no second one.
  func lock(_ path: String) throws(StorageFailure) -> LockOutcome { .taken(Lock()) }

  func freeBytes(_ directory: String) throws(StorageFailure) -> UInt64 {
    UInt64(max(0, capacity - bytesUsed))
  }
}
