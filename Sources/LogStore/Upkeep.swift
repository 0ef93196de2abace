// Upkeep of the segment files, on the low-priority thread: dead files become spares or are
// deleted, spares are prepared ahead of need. Nothing that is in force is touched here.

import Base
import Consensus

/// A file that nothing refers to any more.
enum DeadFile: Hashable, Sendable {
  case segment(number: UInt64, life: UInt32, fileBytes: UInt64)
  case other(name: String)

  var name: String {
    switch self {
    case .segment(let number, _, _): FileNames.segment(number)
    case .other(let name): name
    }
  }
}

/// A segment file ready to be used.
struct SpareFile: Hashable, Sendable {
  var number: UInt64
  /// Its next use has the life after this one.
  var life: UInt32
  var fileBytes: UInt64
}

/// Recycles, deletes and prepares files. A failure is noted, not thrown: nothing in force depends
/// on upkeep, and a segment that is not ready is made by the batch that needs it.
package final class UpkeepJob: @unchecked Sendable {
  private let context: JobContext
  private let identity: StoreIdentity
  let recycled: [SpareFile]
  let deleted: [DeadFile]
  let made: [SpareFile]
  /// What is deleted makes room for what is made; else the log waits for nothing but that.
  private let isDiskShort: Bool
  private(set) var spares: [SpareFile] = []
  private(set) var isExecuted = false
  /// What the disk refused, for the log.
  package private(set) var failure: StorageFailure?

  init(
    context: JobContext, identity: StoreIdentity, recycled: [SpareFile], deleted: [DeadFile],
    made: [SpareFile], isDiskShort: Bool
  ) {
    self.context = context
    self.identity = identity
    self.recycled = recycled
    self.deleted = deleted
    self.made = made
    self.isDiskShort = isDiskShort
  }

  package func execute() {
    isExecuted = true
    for spare in recycled {
      attempt { () throws(StorageFailure) in
        try self.writeHeader(of: spare, .readWrite)
        self.spares.append(spare)
      }
    }
    if isDiskShort {
      deleteFiles()
      makeFiles()
    } else {
      makeFiles()
      deleteFiles()
    }
  }

  private func deleteFiles() {
    for file in deleted {
      attempt { () throws(StorageFailure) in
        try self.remove(file.name)
      }
    }
  }

  private func makeFiles() {
    for spare in made {
      attempt { () throws(StorageFailure) in
        do throws(StorageFailure) {
          try self.writeHeader(of: spare, .createNew)
        } catch {
          // On a full disk what was begun must not stay: it would take the last blocks each time.
          try self.remove(FileNames.segment(spare.number))
          throw error
        }
        try self.context.fileSystem.synchronizeDirectory(self.context.directory)
        self.spares.append(spare)
      }
    }
  }

  private func remove(_ name: String) throws(StorageFailure) {
    do throws(StorageFailure) {
      try context.fileSystem.removeLarge(context.directory + "/" + name)
    } catch {
      // A file may have been planned and never made.
      if !error.isNoSuchFile { throw error }
    }
  }

  private func attempt(_ step: () throws(StorageFailure) -> Void) {
    do throws(StorageFailure) {
      try step()
    } catch {
      if failure == nil { failure = error }
    }
  }

  private func writeHeader(of spare: SpareFile, _ mode: OpenMode) throws(StorageFailure) {
    let path = context.directory + "/" + FileNames.segment(spare.number)
    let file = try context.fileSystem.open(path, mode)
    try file.allocate(spare.fileBytes)
    let header = FileHeader(
      use: .spare, identity: identity, life: spare.life, number: spare.number,
      fileBytes: spare.fileBytes)
    try file.write([header.block()], at: 0)
    // How long the file is goes with its last byte: its size may be of a sync that failed.
    try file.write([[0]], at: spare.fileBytes - 1)
    try file.synchronize()
  }
}
