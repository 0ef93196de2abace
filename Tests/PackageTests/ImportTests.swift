// Who may import whom: DESIGN's table, the manifest and the imports that the sources really make
// must agree. The pure core stays free of clocks, threads and I/O because nothing that could bring
// them can be imported there.

import Foundation
import Testing

@Suite struct ImportTests {
  /// What each target may import of this package (docs/architecture.md explains the layers).
  static let table: [String: Set<String>] = [
    "CLinux": [],
    "Base": ["CLinux"],
    "Consensus": ["Base"],
    "QueueMachine": ["Base"],
    "Node": ["Base", "Consensus", "QueueMachine"],
    "History": ["Base"],
    "Wire": ["Base"],
    "AMQP": ["Base", "QueueMachine"],
    "LogStore": ["Base", "Consensus", "CLinux"],
    "Transport": ["Base", "CLinux"],
    "Server": [
      "CLinux", "Base", "Consensus", "QueueMachine", "Node", "Wire", "AMQP", "LogStore",
      "Transport",
    ],
    "SkeinClient": ["Base", "Wire", "Transport"],
    "Bench": ["CLinux", "Base", "Wire", "Transport"],
    "Simulator": ["Base", "Consensus", "QueueMachine", "Node", "LogStore", "History"],
    "ChaosHarness": ["Base", "Transport", "AMQP", "SkeinClient", "History"],
    "skein": [
      "CLinux", "Base", "Consensus", "QueueMachine", "Node", "Wire", "AMQP", "LogStore",
      "Transport", "Server", "SkeinClient", "History", "Simulator", "ChaosHarness", "Bench",
    ],
  ]

  /// What each target may import of the toolchain. Nothing where everything must be decided by
  /// values that are passed in.
  static let system: [String: Set<String>] = [
    "CLinux": [], "Consensus": [], "QueueMachine": [], "Node": [], "History": [], "Wire": [],
    "AMQP": [],
    "Base": ["Glibc", "Synchronization"],
    "LogStore": ["Glibc", "Synchronization"],
    "Transport": ["Glibc", "Synchronization"],
    "Server": ["Glibc", "Synchronization"],
    "SkeinClient": ["Glibc", "Synchronization", "Dispatch", "Foundation", "FoundationEssentials"],
    "Bench": ["Glibc"],
    "Simulator": ["Foundation", "FoundationEssentials"],
    "ChaosHarness": ["Glibc", "Synchronization", "Dispatch", "Foundation", "FoundationEssentials"],
    "skein": ["Glibc", "Synchronization", "Dispatch"],
  ]

  @Test func theManifestDependsOnNothingElseThanTheTableAllows() throws {
    let manifest = try Project.text("Package.swift")
    var found: [String: Set<String>] = [:]
    let declaration =
      /(?:layer\(|executableTarget\()\s*(?:name: )?"(\w+)"(?:,\s*(?:imports|dependencies): \[([^\]]*)\])?/
    for match in manifest.matches(of: declaration) {
      let names = (match.2 ?? "").matches(of: /"(\w+)"/).map { String($0.1) }
      found[String(match.1)] = Set(names)
    }
    #expect(Set(found.keys) == Set(Self.table.keys))
    for (target, names) in found {
      let extra = names.subtracting(Self.table[target] ?? [])
      #expect(extra.isEmpty, "\(target) must not depend on \(extra.sorted())")
    }
    #expect(!manifest.contains(".package("), "Skein has no dependencies")
  }

  @Test(arguments: table.keys.sorted())
  func sourcesImportNothingElseThanTheTableAllows(target: String) throws {
    var allowed = Self.table[target, default: []].union(Self.system[target, default: []])
    // The same library by another name, on another Linux.
    if allowed.contains("Glibc") { allowed.insert("Musl") }
    let folder = target == "ChaosHarness" ? "chaos/harness" : "Sources/\(target)"
    for file in try Project.files(in: folder, withSuffix: ".swift") {
      let imports = try Project.text(file).matches(
        of:
          /(?m)^[ \t]*(?:(?:@\w+|package|public)[ \t]+)*import[ \t]+(?:(?:struct|enum|func)[ \t]+)?(\w+)/
      )
      for match in imports {
        let name = String(match.1)
        #expect(allowed.contains(name), "\(file) must not import \(name)")
      }
    }
  }
}
