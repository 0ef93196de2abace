// Opening a data directory: the lock, the identity, what is in force, what is damaged, and the cut
// of what cannot be used. The order of the steps that write matters and is said at each: a crash
// between any two of them leads to the same result at the next start.

import Base
import Consensus

extension LogStore {
  /// Opens or makes the data directory and reads all of it.
  ///
  /// - Throws: `LogStoreError` if the directory must not or cannot be used. Damage is no error, it
  ///   is reported in `Recovery.damage`.
  package static func open(
    directory: String, identity: StoreIdentity, options: StoreOptions = StoreOptions(),
    fileSystem: any FileSystem
  ) throws(LogStoreError) -> (store: LogStore, recovery: Recovery) {
    let opening = Opening(
      directory: directory, identity: identity, options: options, fileSystem: fileSystem)
    try opening.checkOptions()
    try opening.takeDirectory()
    do throws(StorageFailure) {
      return try opening.recover()
    } catch {
      if let refusal = opening.refusal { throw refusal }
      throw .storage(error)
    }
  }
}

/// One opening. Its steps are its methods, in order.
final class Opening {
  private let directory: String
  private let identity: StoreIdentity
  private let options: StoreOptions
  private let fileSystem: any FileSystem
  private let buffer = ScanBuffer()
  private var lock: (any DirectoryLock)?
  private var names: [String] = []
  private(set) var refusal: LogStoreError?

  private var recovery = Recovery()
  private var state: StateRecord
  private var slots: StateSlots
  private var isStateLost = false
  private var manifest: Manifest
  private var segments: [UInt64: SegmentFileInfo] = [:]
  private var fileBytes: [UInt64: UInt64] = [:]
  private var spares: [SpareFile] = []
  private var dead: [DeadFile] = []
  private var log = LogFiles()
  private var snapshotFile: StoreState.SnapshotFile?
  private var runs: [TermRun] = []
  private var synced = SyncedEnd()
  /// Entries that are not whole, mended or not, as far as the snapshot covers them.
  private var holes = EntryRanges()

  init(
    directory: String, identity: StoreIdentity, options: StoreOptions, fileSystem: any FileSystem
  ) {
    self.directory = directory
    self.identity = identity
    self.options = options
    self.fileSystem = fileSystem
    state = StateRecord(node: identity.node)
    slots = StateSlots(record: state, durableSlot: 1)
    manifest = Manifest(node: identity.node)
  }

  private func path(_ name: String) -> String { directory + "/" + name }

  func checkOptions() throws(LogStoreError) {
    let range = StoreOptions.segmentBytesMin...StoreOptions.segmentBytesMax
    guard range.contains(options.segmentBytes), options.segmentBytes % 4096 == 0 else {
      throw .badOption(
        "segment size \(options.segmentBytes) must be a multiple of 4096 from "
          + "\(range.lowerBound) to \(range.upperBound)")
    }
    guard identity.cluster.utf8.count <= 255 else {
      throw .badOption("cluster name of \(identity.cluster.utf8.count) bytes, at most 255")
    }
    guard identity.node.rawValue > 0 else { throw .badOption("node id 0, the first is 1") }
  }

  /// Makes sure that the directory is Skein's and nobody else's. A directory that is not is left
  /// untouched.
  func takeDirectory() throws(LogStoreError) {
    do throws(StorageFailure) {
      try fileSystem.createDirectory(directory)
      names = try fileSystem.list(directory)
    } catch {
      throw .directoryUnusable(path: directory, reason: "\(error)")
    }
    try checkOwner()
    do throws(StorageFailure) {
      switch try fileSystem.lock(path(FileNames.lock)) {
      case .taken(let lock): self.lock = lock
      case .heldByAnother(let process): throw StorageFailure(.lock, "", code: process ?? 0)
      }
    } catch {
      if error.operation == .lock && error.path.isEmpty {
        throw .locked(path: directory, process: error.code == 0 ? nil : error.code)
      }
      throw .directoryUnusable(path: directory, reason: "\(error)")
    }
  }

  private func checkOwner() throws(LogStoreError) {
    if names.contains(FileNames.identity) { return }
    let hasData = names.contains { name in
      [FileNames.segmentPrefix, FileNames.keptPrefix, FileNames.snapshotPrefix]
        .contains { FileNames.number(of: name, $0) != nil }
    }
    if hasData { throw .identityDamaged(path: path(FileNames.identity)) }
    let own = [FileNames.lock, FileNames.state, "lost+found"] + FileNames.manifests
    let foreign = names.filter {
      !own.contains($0) && !$0.hasSuffix(FileNames.temporarySuffix)
    }
    if !foreign.isEmpty { throw .notSkein(path: directory, found: foreign) }
  }

  /// Everything behind the lock.
  func recover() throws(StorageFailure) -> (store: LogStore, recovery: Recovery) {
    if !names.contains(FileNames.identity) {
      try checkNothingForgotten()
      try makeDirectory()
      recovery.isFresh = true
    } else {
      try checkIdentity()
      // The process before may have died between a new name and its way to the disk.
      try fileSystem.synchronizeDirectory(directory)
    }
    try removeTemporaries()
    try readState()
    let found = try readManifest()
    try readHeads()
    if found { try readSnapshot() }
    return try assemble(isManifestFound: found)
  }

  private func refuse(_ error: LogStoreError) -> StorageFailure {
    refusal = error
    return StorageFailure(.verify, directory, code: 0)
  }
}

// Identity and the small files.
extension Opening {
  /// A directory without identity may be one whose making was interrupted, not one that voted.
  private func checkNothingForgotten() throws(StorageFailure) {
    guard names.contains(FileNames.state) else { return }
    let file = try fileSystem.open(path(FileNames.state), .read)
    let bytes = try WholeFile.read(file, readBytes: 1 << 20)
    if StateSlots.copies(in: bytes).contains(where: { $0.record.save > 1 }) {
      throw refuse(.identityDamaged(path: path(FileNames.identity)))
    }
  }

  /// The identity comes last: where it is, the rest is.
  private func makeDirectory() throws(StorageFailure) {
    try writeNewState(save: 1)
    manifest.edition = 1
    try ManifestFiles.write(manifest, directory, fileSystem)
    try replaceFile(
      FileNames.identity, IdentityFile.encoded(identity), directory, fileSystem)
    try fileSystem.synchronizeDirectory(directory)
  }

  private func writeNewState(save: UInt64) throws(StorageFailure) {
    var bytes = [UInt8](repeating: 0, count: Int(StateSlots.fileBytes))
    state.save = save
    let encoded = state.encoded()
    for copy in 0..<2 {
      let at = Int(StateSlots.offset(slot: 0, copy: copy))
      bytes.replaceSubrange(at..<at + encoded.count, with: encoded)
    }
    try replaceFile(FileNames.state, bytes, directory, fileSystem)
    try fileSystem.synchronizeDirectory(directory)
  }

  private func checkIdentity() throws(StorageFailure) {
    let name = path(FileNames.identity)
    let file = try fileSystem.open(name, .read)
    let bytes = try file.readUpTo(IdentityFile.bytesMax, at: 0)
    guard let (version, found) = IdentityFile.decode(bytes) else {
      throw refuse(.identityDamaged(path: name))
    }
    guard let found else {
      throw refuse(.newerFormat(path: name, found: version, known: formatVersion))
    }
    if found.cluster != identity.cluster {
      throw refuse(
        .foreignCluster(path: directory, found: found.cluster, expected: identity.cluster))
    }
    if found.node != identity.node {
      throw refuse(.foreignNode(path: directory, found: found.node, expected: identity.node))
    }
  }

  private func removeTemporaries() throws(StorageFailure) {
    names = try fileSystem.list(directory)
    for name in names where name.hasSuffix(FileNames.temporarySuffix) {
      try fileSystem.remove(path(name))
    }
  }

  private func readState() throws(StorageFailure) {
    var copies: [(record: StateRecord, slot: Int, copy: Int)] = []
    var isCut = false
    if names.contains(FileNames.state) {
      let file = try fileSystem.open(path(FileNames.state), .read)
      let bytes = try WholeFile.read(file, readBytes: 1 << 20)
      copies = StateSlots.copies(in: bytes).filter { $0.record.node == identity.node }
      // The file has its length from the beginning: a shorter one was cut, and no write was torn.
      isCut = bytes.count < StateSlots.fileBytes
      for slot in 0..<2 {
        for copy in 0..<2 where !copies.contains(where: { ($0.slot, $0.copy) == (slot, copy) }) {
          let at = Int(StateSlots.offset(slot: slot, copy: copy))
          let isWritten = bytes.dropFirst(at).prefix(StateRecord.bytes).contains { $0 != 0 }
          if isWritten && !copies.isEmpty {
            recovery.damage.append(
              DamageReport(
                text: "state file: copy \(copy) of slot \(slot) is damaged or torn",
                consequence: .nothingLost))
          }
        }
      }
    }
    guard var newest = copies.first else {
      isStateLost = true
      recovery.damage.append(
        DamageReport(
          text: "state file \(path(FileNames.state)) is missing or damaged in all its copies",
          consequence: .hardStateLost))
      state.isMemoryLost = true
      try writeNewState(save: 2)
      slots = StateSlots(record: state, durableSlot: 0)
      return
    }
    if newest.record.version > formatVersion {
      throw refuse(
        .newerFormat(
          path: path(FileNames.state), found: newest.record.version, known: formatVersion))
    }
    if isCut, !copies.contains(where: { $0.slot != newest.slot }) {
      recovery.damage.append(
        DamageReport(
          text: "state file \(path(FileNames.state)) was cut short, and the newest save with it,"
            + " perhaps", consequence: .hardStateLost))
      newest.record.isMemoryLost = true
      newest.record.save += 1
    }
    try settle(newest, isCut: isCut)
    state = newest.record
    slots = StateSlots(record: state, durableSlot: newest.slot)
  }

  /// Makes the newest save durable whatever became of it in the run before: it may never have been
  /// synced, and after a failed sync another one would say that all is well. So it is written again.
  /// Where it is on the disk this changes no byte, where it is not the other slot is durable: a
  /// crash in the middle takes nothing away.
  private func settle(
    _ newest: (record: StateRecord, slot: Int, copy: Int), isCut: Bool
  ) throws(StorageFailure) {
    let file = try fileSystem.open(path(FileNames.state), .readWrite)
    for copy in 0..<2 {
      let at = StateSlots.offset(slot: newest.slot, copy: copy)
      try file.write([newest.record.encoded()], at: at)
    }
    try file.synchronize()
    if isCut {
      // Only now: the length is what says that something is missing.
      try file.truncate(to: UInt64(StateSlots.fileBytes))
      try file.synchronize()
    }
  }

  /// False if there is none: nothing says what is in force.
  private func readManifest() throws(StorageFailure) -> Bool {
    let found = try ManifestFiles.read(directory, fileSystem)
    if let manifest = found.manifest, manifest.version > formatVersion {
      throw refuse(
        .newerFormat(
          path: path(FileNames.manifests[0]), found: manifest.version, known: formatVersion))
    }
    for name in found.damaged + found.missing {
      recovery.damage.append(
        DamageReport(
          text: "\(name) is damaged or missing",
          consequence: found.manifest == nil ? .everythingLost : .nothingLost))
    }
    guard let manifest = found.manifest, manifest.node == identity.node else { return false }
    self.manifest = manifest
    if !found.damaged.isEmpty || !found.missing.isEmpty || found.differ {
      try ManifestFiles.write(manifest, directory, fileSystem)
    }
    return true
  }
}

// Files with a number in their name.
extension Opening {
  /// Reads the heads of all segment files and sorts them by use.
  private func readHeads() throws(StorageFailure) {
    for name in names {
      guard let number = FileNames.number(of: name, FileNames.segmentPrefix) else { continue }
      let file = try fileSystem.open(path(name), .read)
      let header = FileHeader.read(
        try file.readUpTo(FileHeader.blockBytes, at: 0), number: number)
      guard let header, header.identity == identity else {
        dead.append(.other(name: name))
        continue
      }
      if header.version > formatVersion {
        throw refuse(
          .newerFormat(path: path(name), found: header.version, known: formatVersion))
      }
      let size = try file.size()
      switch header.use {
      case .spare, .kept:
        if size == options.segmentBytes && header.use == .spare
          && spares.count < options.sparesMax
        {
          spares.append(SpareFile(number: number, life: header.life, fileBytes: size))
        } else {
          dead.append(.other(name: name))
        }
      case .log: addSegment(header, number: number)
      }
    }
  }

  /// Of two files that say they are the same segment the one counts whose head names it, and of these
  /// the one that was begun last.
  private func addSegment(_ header: FileHeader, number: UInt64) {
    let info = SegmentFileInfo(
      number: number, hasOwnHead: header.number == number, segment: header.segment,
      life: header.life, fileBytes: header.fileBytes,
      nextIndex: header.nextIndex, previousTerm: header.previousTerm)
    guard let old = segments[header.segment] else {
      segments[header.segment] = info
      return
    }
    recovery.damage.append(
      DamageReport(
        text: "files \(FileNames.segment(old.number)) and \(FileNames.segment(number)) both say "
          + "they are segment \(header.segment)", consequence: .nothingLost))
    func rank(_ info: SegmentFileInfo) -> (Int, UInt32) { (info.hasOwnHead ? 1 : 0, info.life) }
    let isOlder = rank(info) < rank(old) || (rank(info) == rank(old) && number >= old.number)
    let loser = isOlder ? info : old
    segments[header.segment] = isOlder ? old : info
    dead.append(.other(name: FileNames.segment(loser.number)))
  }

  /// Whether the log makes the snapshot superfluous: it begins with the first entry, and no entry
  /// was given up because a snapshot covered it. What was mended is still found damaged where it lies.
  private var isLogWhole: Bool {
    manifest.streamIndex == LogIndex(1) && manifest.lost.isEmpty
  }

  private func readSnapshot() throws(StorageFailure) {
    guard manifest.snapshotNumber != 0 else { return }
    let name = FileNames.snapshot(manifest.snapshotNumber)
    do throws(SnapshotFileError) {
      let file: any FileHandle
      do throws(StorageFailure) {
        file = try fileSystem.open(path(name), .read)
      } catch {
        throw .storage(error)
      }
      let (info, bytes) = try SnapshotFileReader.verify(file)
      guard info.position == manifest.snapshot else {
        throw .damaged("it covers \(info.position), not \(manifest.snapshot)")
      }
      snapshotFile = StoreState.SnapshotFile(
        number: manifest.snapshotNumber, info: info, fileBytes: bytes)
    } catch {
      if case .storage(let failure) = error, !failure.isNoSuchFile { throw failure }
      recovery.damage.append(
        DamageReport(
          text: "snapshot \(name) cannot be used: \(error.text)",
          consequence: isLogWhole ? .nothingLost : .everythingLost))
    }
  }
}

// The log.
extension Opening {
  private func makeScan(first: UInt64, index: LogIndex, term: Term, _ end: SyncedEnd) -> StreamScan
  {
    StreamScan(
      directory: directory, fileSystem: fileSystem, readBytes: options.recoveryReadBytes,
      buffer: buffer, files: segments, first: first,
      lowest: log.sparse.last.map { $0.range.last.next } ?? LogIndex(1), nextIndex: index,
      previousTerm: term,
      snapshotIndex: snapshotFile?.info.position.index ?? .zero, synced: end,
      newestSynced: state.newestSegment)
  }

  private func assemble(
    isManifestFound: Bool
  ) throws(StorageFailure) -> (store: LogStore, recovery: Recovery) {
    if isManifestFound { try readSparse() }
    let scan = makeScan(
      first: manifest.streamFirst, index: manifest.streamIndex,
      term: manifest.streamPreviousTerm, state.synced)
    try scan.run()
    let known = scan.synced
    if scan.isSegmentMissing { try removeFilesOfUnknownLife() }
    noteLostHardState(scan)
    recovery.isMemoryLost = state.isMemoryLost || scan.isExtentUnknown || !isManifestFound
    state.isMemoryLost = recovery.isMemoryLost
    let isLogUsable = isManifestFound && (snapshotFile != nil || isLogWhole)
    if isLogUsable {
      try useLog(scan, known)
    } else {
      try dropEverything(scan, known)
    }
    let store = try makeStore()
    fillRecovery(store)
    return (store, recovery)
  }

  /// A segment that is missing may be in a file whose head is an older one, of a spare file or of a segment
  /// before the stream. Used again it would get the life that it has had, and, since segments go on from
  /// where the log is cut, the number too: what lies in it would count. So such files are removed, before
  /// anything says that there is no such segment.
  private func removeFilesOfUnknownLife() throws(StorageFailure) {
    var numbers = spares.map(\.number)
    spares = []
    let listed = Set(manifest.files.filter { $0.form == .segment }.map(\.segment))
    for info in segments.values
    where info.segment < manifest.streamFirst && !listed.contains(info.segment) {
      numbers.append(info.number)
      segments[info.segment] = nil
    }
    dead.removeAll { file in
      guard case .other(let name) = file,
        let number = FileNames.number(of: name, FileNames.segmentPrefix)
      else { return false }
      numbers.append(number)
      return true
    }
    if numbers.isEmpty { return }
    for number in numbers.sorted() {
      try fileSystem.remove(path(FileNames.segment(number)))
    }
    try fileSystem.synchronizeDirectory(directory)
  }

  /// A record of a term that the hard state has not heard of: the hard state went first, so the
  /// newest save was lost.
  private func noteLostHardState(_ scan: StreamScan) {
    let seen = max(
      max(scan.highestTerm, state.hardState.floor.term), snapshotFile?.info.position.term ?? .zero)
    guard seen > state.hardState.term else { return }
    if !isStateLost {
      recovery.damage.append(
        DamageReport(
          text: "the state file is of term \(state.hardState.term), the log of term \(seen)",
          consequence: .hardStateLost))
    }
    state.isMemoryLost = true
    state.hardState.term = seen
    state.hardState.vote = nil
  }

  private func readSparse() throws(StorageFailure) {
    log.lost = EntryRanges(manifest.lost)
    log.mended = EntryRanges(manifest.mended)
    var broken = log.lost
    for file in manifest.files {
      switch file.form {
      case .segment: try readSparseSegment(file, &broken)
      case .kept, .patch: try readKept(file, &broken)
      }
    }
    log.damaged = broken
    log.sparse.sort { $0.range.first < $1.range.first }
  }

  private func readSparseSegment(
    _ file: Manifest.File, _ broken: inout EntryRanges
  ) throws(StorageFailure) {
    guard let info = segments[file.segment], info.life == file.life else {
      return loseFile(file, FileNames.segment(file.number), &broken)
    }
    let everything = SyncedEnd(
      place: LogPlace(segment: .max, offset: .max), position: .zero)
    let scan = StreamScan(
      directory: directory, fileSystem: fileSystem, readBytes: options.recoveryReadBytes,
      buffer: buffer, files: [info.segment: info], first: info.segment, lowest: file.range.first,
      nextIndex: info.nextIndex,
      previousTerm: info.previousTerm, snapshotIndex: LogIndex(.max), synced: everything,
      newestSynced: 0)
    try scan.runSparse(file.range, used: file.bytes)
    report(scan.defects, lostFrom: nil)
    for range in scan.damaged.ranges { broken.insert(range) }
    for range in scan.suspected.ranges { log.lost.insert(range) }
    guard var segment = scan.segments.first, !segment.slots.isEmpty else {
      return loseFile(file, FileNames.segment(file.number), &broken)
    }
    segment.isEnded = true
    // Whole perhaps, but something else may have replaced them.
    for slot in segment.slots.indices
    where log.lost.contains(segment.firstEntry.advanced(by: slot)) {
      segment.slots[slot] = EntrySlot(offset: 0, payloadBytes: 0)
    }
    log.sparse.append(.segment(segment))
  }

  private func readKept(
    _ file: Manifest.File, _ broken: inout EntryRanges
  ) throws(StorageFailure) {
    let name = FileNames.kept(file.number)
    guard names.contains(name) else { return loseFile(file, name, &broken) }
    let handle = try fileSystem.open(path(name), .read)
    let kept = try KeptFile.scan(
      handle, number: file.number, range: file.range, bytes: file.bytes,
      readBytes: options.recoveryReadBytes
    ) { text, range in
      recovery.damage.append(DamageReport(text: text, consequence: .recordsLost(range)))
    }
    loseRecords(file.form == .patch ? standsFor(kept.damaged) : kept.damaged, file.form, &broken)
    if file.form == .patch { log.patches.append(kept) } else { log.sparse.append(.kept(kept)) }
  }

  private func loseFile(_ file: Manifest.File, _ name: String, _ broken: inout EntryRanges) {
    recovery.damage.append(
      DamageReport(
        text: "\(name) is missing or damaged as a whole", consequence: .recordsLost(file.range)))
    let range = EntryRanges([file.range])
    let lost = file.form == .patch ? standsFor(range) : range
    for range in lost.ranges { log.lost.insert(range) }
    loseRecords(lost, file.form, &broken)
  }

  private func loseRecords(
    _ lost: EntryRanges, _ form: Manifest.Form, _ broken: inout EntryRanges
  ) {
    for range in lost.ranges {
      broken.insert(range)
      if form == .patch { log.mended.remove(range) }
    }
  }

  /// Of the entries in a patch those that it stands for: newer patches, which are listed before it, have
  /// theirs.
  private func standsFor(_ entries: EntryRanges) -> EntryRanges {
    var result = entries.subtracting(entries.subtracting(log.mended))
    for newer in log.patches { result.remove(newer.range) }
    return result
  }

  private func report(_ defects: [StreamScan.Defect], lostFrom: LogIndex?) {
    let snapshotIndex = snapshotFile?.info.position.index ?? .zero
    for defect in defects {
      var consequences = defect.lost.through(snapshotIndex).ranges.map {
        DamageReport.Consequence.recordsLost($0)
      }
      if let range = defect.lost.ranges.first(where: { $0.last > snapshotIndex }) {
        consequences.append(.logCutFrom(max(range.first, snapshotIndex.next)))
      } else if defect.lost.isEmpty {
        let cut = defect.isTail ? lostFrom : nil
        consequences.append(cut.map { .logCutFrom($0) } ?? .nothingLost)
      }
      recovery.damage += consequences.map { DamageReport(text: defect.text, consequence: $0) }
    }
  }
}

// What is done about it.
extension Opening {
  private func useLog(_ scan: StreamScan, _ known: SyncedEnd) throws(StorageFailure) {
    let base = snapshotFile?.info.position ?? .zero
    forgetFilesOfStream(from: base.index.next)
    let reached = LogPosition(term: scan.lastTerm, index: scan.nextIndex.previous)
    let isReplaced = dropReplaced(scan, base)
    let firstLost = scan.damaged.ranges.first { $0.last > base.index }
      .map { max($0.first, base.index.next) }
    let scannedLast = scan.nextIndex.previous
    report(scan.defects, lostFrom: firstLost ?? max(scannedLast, base.index).next)
    var place = scan.end
    let hasLoss =
      firstLost != nil || known.place > scan.end || scan.isExtentUnknown || isReplaced
    let whole = scan.damaged
    if let firstLost { place = scan.cut(before: firstLost) }
    for range in whole.through(base.index).ranges { log.damaged.insert(range) }
    for range in scan.suspected.through(base.index).ranges { log.lost.insert(range) }

    var last = LogPosition(term: scan.lastTerm, index: scan.nextIndex.previous)
    let isBelowSnapshot = last.index < base.index
    if last.index <= base.index { last = base }
    // Cut to nothing, the stream would go on with what its first segment was begun with.
    let isCutAway = scan.firstInHand == nil && manifest.streamIndex > base.index.next
    // What was acknowledged and is not in hand any more must not be voted away. The last batch may
    // have been acknowledged too, although nothing says so yet.
    let acknowledged = max(known.position, reached)
    if hasLoss && acknowledged > last {
      state.hardState.floor = max(state.hardState.floor, acknowledged)
    }
    if hasLoss { try keepLosses() }
    try cutFiles(at: place, isTorn: scan.isTorn)
    takeStream(scan)
    try rewriteTail(from: known.place)
    recovery.last = last
    if isBelowSnapshot || isCutAway { try leaveStream(base, scan) }
    try finishState(last)
    let found = scan.memberships.filter { $0.index > base.index && $0.index <= last.index }
    for (index, payload) in found {
      let membership = payload.withUnsafeBytes { bytes -> Membership? in
        var reader = ByteReader(bytes)
        do {
          return try Membership(decoding: &reader)
        } catch {
          // The payload's checksum is right: whoever wrote the entry wrote no membership.
          return nil
        }
      }
      invariant(membership != nil, "entry \(index) is no membership")
      if let membership {
        recovery.memberships.append(MembershipRecord(index: index, membership: membership))
      }
    }
    runs = scan.runs.filter { $0.first <= last.index }
    holes = whole.through(base.index)
    if isBelowSnapshot { runs = [] }
  }

  /// Log matching says that entries are the same up to one of the same term. Where the log has another at
  /// the snapshot's end, or begins behind it, nobody knows how far back a truncation went that is lost.
  ///
  /// - Returns: whether all of the log was dropped.
  private func dropReplaced(_ scan: StreamScan, _ base: LogPosition) -> Bool {
    let index = min(base.index, scan.nextIndex.previous)
    var text =
      "the log's entry \(index) is not of term \(base.term) as the snapshot's last one, \(base.index):"
      + " what replaced it is lost"
    if let first = scan.firstInHand, first > base.index.next,
      !scan.damaged.contains(base.index.next)
    {
      text = "the log begins with entry \(first), the snapshot ends with \(base.index)"
    } else {
      // Nobody else could replace what the only voter has.
      let isAlone = snapshotFile?.info.membership.voters == [identity.node]
      let isMissing = index < base.index
      if isMissing && isAlone || !scan.mayBeReplaced(before: base) { return false }
    }
    _ = scan.cut(before: scan.lowest)
    if scan.lowest <= base.index {
      let lost = EntryRange(first: scan.lowest, last: base.index)
      recovery.damage.append(DamageReport(text: text, consequence: .recordsLost(lost)))
    }
    recovery.damage.append(
      DamageReport(text: text, consequence: .logCutFrom(base.index.next)))
    return true
  }

  /// What lies behind the snapshot is in the stream or nowhere. A repair from before the first snapshot may
  /// have left a file for some of it: the log was cut there since, and has these entries again. What became
  /// of that file says nothing about them.
  private func forgetFilesOfStream(from index: LogIndex) {
    log.damaged = log.damaged.through(index.previous)
    log.lost = log.lost.through(index.previous)
    for place in recovery.damage.indices {
      guard case .recordsLost(let range) = recovery.damage[place].consequence, range.first >= index
      else { continue }
      recovery.damage[place].consequence = .nothingLost
    }
  }

  /// The log ends at or before the snapshot's end: its segments become files before the stream, and the
  /// stream begins anew behind the snapshot.
  private func leaveStream(_ base: LogPosition, _ scan: StreamScan) throws(StorageFailure) {
    if scan.nextIndex <= base.index {
      let first = scan.firstInHand == nil ? scan.lowest : scan.nextIndex
      log.damaged.insert(EntryRange(first: first, last: base.index))
    }
    for range in log.damaged.ranges { log.lost.insert(range) }
    for segment in log.stream where !segment.slots.isEmpty {
      var ended = segment
      ended.isEnded = true
      log.sparse.append(.segment(ended))
    }
    log.stream = []
    manifest.streamFirst = nextSegment
    manifest.streamIndex = base.index.next
    manifest.streamPreviousTerm = base.term
    manifest.lost = log.lost.ranges
    manifest.mended = log.mended.ranges
    manifest.files =
      log.sparse.map { StoreState.listed($0) }
      + log.patches.map { StoreState.listed($0, .patch) }
    manifest.edition += 1
    try ManifestFiles.write(manifest, directory, fileSystem)
  }

  private var nextSegment: UInt64 {
    max(log.stream.last?.segment ?? 0, (segments.keys.max() ?? 0), manifest.streamFirst - 1) + 1
  }

  private func takeStream(_ scan: StreamScan) {
    log.stream = scan.segments
    // Nothing is written to a segment behind a gap or with a foreign end.
    if let last = log.stream.last, last.segment != scan.end.segment {
      log.stream[log.stream.count - 1].isEnded = true
    }
    for at in log.stream.indices.dropLast() { log.stream[at].isEnded = true }
  }

  /// The cut takes away what told of damage to entries that the snapshot covers.
  private func keepLosses() throws(StorageFailure) {
    for range in log.damaged.ranges { log.lost.insert(range) }
    if log.lost.ranges == manifest.lost && log.mended.ranges == manifest.mended { return }
    manifest.lost = log.lost.ranges
    manifest.mended = log.mended.ranges
    manifest.edition += 1
    try ManifestFiles.write(manifest, directory, fileSystem)
  }

  /// Removes what lies behind the end, so that it never counts again. The floor is on disk before.
  private func cutFiles(at place: LogPlace, isTorn: Bool) throws(StorageFailure) {
    let later = segments.values.filter { $0.segment > place.segment }
      .sorted { $0.segment > $1.segment }
    let zeroes = try state.isCutting ? restBytes(at: place) : remains(at: place)
    recovery.tornBytes = isTorn ? UInt64(zeroes) : 0
    let isCut = !later.isEmpty || zeroes > 0
    // Should the zeros not get to the disk, the next start cannot tell by looking: it is told.
    state.isCutting = isCut
    if isCut || state != slots.record { try saveState() }
    if !later.isEmpty {
      // The highest goes first, so that a crash leaves no gap.
      for info in later {
        try fileSystem.remove(path(FileNames.segment(info.number)))
        try fileSystem.synchronizeDirectory(directory)
        segments[info.segment] = nil
      }
    }
    if let info = segments[place.segment] {
      let file = try fileSystem.open(path(FileNames.segment(info.number)), .readWrite)
      let isShort = try file.size() < info.fileBytes
      if zeroes == 0 && !isShort { return }
      if isShort { try file.allocate(info.fileBytes) }
      var at = 0
      while at < zeroes {
        let count = min(1 << 20, zeroes - at)
        let offset = UInt64(place.offset) + UInt64(at)
        try file.write([[UInt8](repeating: 0, count: count)], at: offset)
        at += count
      }
      try file.synchronize()
    }
  }

  /// Makes what lies behind the last place known to be synced durable before anything is built upon
  /// it. To sync would not do: after a sync that failed the page cache shows what no disk has, and
  /// the next sync does not write it. So the same bytes are written again.
  private func rewriteTail(from known: LogPlace) throws(StorageFailure) {
    for segment in log.stream where segment.segment >= known.segment {
      // A segment's head goes with its first records.
      let isKnown =
        segment.segment == known.segment && known.offset > UInt32(FileHeader.blockBytes)
      let first = isKnown ? UInt64(known.offset) : 0
      let file = try fileSystem.open(path(FileNames.segment(segment.number)), .readWrite)
      try rewrite(file, from: first, to: UInt64(segment.used))
      try rewriteLength(file)
      try file.synchronize()
    }
  }

  private func rewrite(
    _ file: any FileHandle, from first: UInt64, to end: UInt64
  ) throws(StorageFailure) {
    var at = first
    while at < end {
      let bytes = try file.readUpTo(Int(min(1 << 20, end - at)), at: at)
      if bytes.isEmpty { break }
      try file.write([bytes], at: at)
      at += UInt64(bytes.count)
    }
  }

  /// How long a file is goes with its last byte: a file found shorter than its head says counts as
  /// damaged.
  private func rewriteLength(_ file: any FileHandle) throws(StorageFailure) {
    let end = try file.size()
    if end > 0 { try rewrite(file, from: end - 1, to: end) }
  }

  /// How many bytes behind `place` reach to the last record that could be read there.
  private func remains(at place: LogPlace) throws(StorageFailure) -> Int {
    guard let info = segments[place.segment] else { return 0 }
    let file = try fileSystem.open(path(FileNames.segment(info.number)), .read)
    try buffer.fill(from: file, readBytes: options.recoveryReadBytes)
    let bytes = buffer.content
    var end = 0
    var at = Int(place.offset)
    while at + RecordHeader.bytes <= bytes.count {
      // SAFETY: four bytes at `at` lie within the buffer, checked by the loop.
      if bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self).littleEndian
        == RecordHeader.magic,
        let head = RecordHeader(in: bytes, at: at), head.life == info.life,
        head.place.segment == info.segment
      {
        end = min(at + head.recordBytes, bytes.count)
      }
      at += RecordHeader.alignment
    }
    return max(0, end - Int(place.offset))
  }

  /// How many bytes the segment's file has behind `place`.
  private func restBytes(at place: LogPlace) throws(StorageFailure) -> Int {
    guard let info = segments[place.segment] else { return 0 }
    let file = try fileSystem.open(path(FileNames.segment(info.number)), .read)
    return max(0, Int(try file.size()) - Int(place.offset))
  }

  private func saveState() throws(StorageFailure) {
    let file = try fileSystem.open(path(FileNames.state), .readWrite)
    // Both slots: an older save must not bring back a synced place that was cut.
    for _ in 0..<2 {
      let write = slots.save(state)
      try write.write(to: file)
      try file.synchronize()
    }
    state = slots.record
  }

  /// From here on the log is synced to its new end.
  private func finishState(_ last: LogPosition) throws(StorageFailure) {
    synced = SyncedEnd(
      place: LogPlace(segment: nextSegment, offset: UInt32(FileHeader.blockBytes)),
      position: last)
    if let open = log.stream.last, !open.isEnded { synced.place = open.end }
    let newest = log.stream.last?.segment ?? manifest.streamFirst - 1
    if state.synced.place > synced.place || state.newestSegment > newest
      || state.hardState != slots.record.hardState
      || state.isMemoryLost != slots.record.isMemoryLost || state.isCutting
    {
      state.synced = synced
      state.newestSegment = newest
      state.isCutting = false
      try saveState()
    }
  }

  /// Nothing can be built upon: the node begins with an empty log and a floor.
  private func dropEverything(_ scan: StreamScan, _ known: SyncedEnd) throws(StorageFailure) {
    if !recovery.damage.contains(where: { $0.consequence == .everythingLost }) {
      recovery.damage.append(
        DamageReport(
          text: "the log begins with entry \(manifest.streamIndex), and no snapshot says what came"
            + " before it or was lost from it",
          consequence: .everythingLost))
    }
    let floor = max(max(known.position, manifest.snapshot), state.synced.position)
    state.hardState.floor = max(state.hardState.floor, floor)
    state.hardState.term = max(state.hardState.term, state.hardState.floor.term)
    try saveState()
    let edition = manifest.edition
    let first = nextSegment
    manifest = Manifest(node: identity.node)
    manifest.edition = edition + 1
    manifest.streamFirst = first
    try ManifestFiles.write(manifest, directory, fileSystem)
    snapshotFile = nil
    log = LogFiles()
    recovery.last = .zero
    try finishState(.zero)
  }
}

// What comes out.
extension Opening {
  private func makeStore() throws(StorageFailure) -> LogStore {
    sweep()
    // The sync of a spare file's first records makes its length durable too, if it is to be written.
    for spare in spares {
      let name = FileNames.segment(spare.number)
      do throws(StorageFailure) {
        try rewriteLength(fileSystem.open(path(name), .readWrite))
      } catch {
        spares.removeAll { $0.number == spare.number }
        dead.append(.other(name: name))
      }
    }
    guard let lock else { throw StorageFailure(.lock, directory, code: 0) }
    log.damaged = log.damaged.subtracting(log.mended)
    let context = JobContext(
      directory: directory, fileSystem: fileSystem,
      stateFile: try fileSystem.open(path(FileNames.state), .readWrite))
    var start = StoreState(
      identity: identity, options: options, context: context, stateSlots: slots)
    start.log = log
    start.runs = runs
    start.base = LogPosition(
      term: manifest.streamPreviousTerm, index: manifest.streamIndex.previous)
    start.last = recovery.last
    start.firstIndex = firstIndex()
    start.synced = synced
    start.isMemoryLost = state.isMemoryLost
    start.manifestEdition = manifest.edition
    start.snapshotFile = snapshotFile
    start.nextSegment = nextSegment
    start.nextNumber = (names.compactMap(Self.number(of:)).max() ?? 0) + 1
    start.spares = spares
    start.dead = dead
    return LogStore(start, lock: lock)
  }

  private static func number(of name: String) -> UInt64? {
    FileNames.number(of: name, FileNames.segmentPrefix)
      ?? FileNames.number(of: name, FileNames.keptPrefix)
      ?? FileNames.number(of: name, FileNames.snapshotPrefix)
  }

  /// The entries from here to the last are whole and consecutive.
  private func firstIndex() -> LogIndex {
    guard let first = log.stream.first(where: { !$0.slots.isEmpty }) else {
      return recovery.last.index.next
    }
    let lost = log.lost.ranges.last?.last.next ?? .zero
    return max(first.firstEntry, max(lost, holes.ranges.last?.last.next ?? .zero))
  }

  /// Whatever is not in force is dead: left over from a crash or cut off.
  private func sweep() {
    let inForce = Set(
      log.stream.map(\.segment)
        + log.sparse.compactMap {
          if case .segment(let segment) = $0 { segment.segment } else { nil }
        })
    for info in segments.values.sorted(by: { $0.number < $1.number })
    where !inForce.contains(info.segment) {
      dead.append(.segment(number: info.number, life: info.life, fileBytes: info.fileBytes))
    }
    let kept = Set(
      log.patches.map(\.number)
        + log.sparse.compactMap { if case .kept(let kept) = $0 { kept.number } else { nil } })
    for name in names {
      if let number = FileNames.number(of: name, FileNames.keptPrefix) {
        if !kept.contains(number) { dead.append(.other(name: name)) }
      } else if let number = FileNames.number(of: name, FileNames.snapshotPrefix) {
        if number != snapshotFile?.number { dead.append(.other(name: name)) }
      }
    }
  }

  private func fillRecovery(_ store: LogStore) {
    recovery.hardState = store.hardState
    recovery.snapshot = store.snapshot
    recovery.firstIndex = store.firstIndex
    recovery.damagedEntries = log.damaged.ranges
    let first = store.firstIndex
    guard first <= recovery.last.index else { return }
    let before = runs.last { $0.first <= first }
    recovery.termRuns = before.map { [TermRun(first: first, term: $0.term)] } ?? []
    recovery.termRuns += runs.filter { $0.first > first }
  }
}
