// Rules of the house that a machine can check.

import Foundation
import Testing

/// The files of this project.
enum Project {
  static let root = String(#filePath.dropLast("/Tests/PackageTests/HouseTests.swift".count))

  static func text(_ path: String) throws -> String {
    try String(contentsOfFile: "\(root)/\(path)", encoding: .utf8)
  }

  /// Paths of all files below `folder`, from the root.
  static func files(in folder: String, withSuffix suffix: String) throws -> [String] {
    try FileManager.default.subpathsOfDirectory(atPath: "\(root)/\(folder)")
      .filter { $0.hasSuffix(suffix) }.map { "\(folder)/\($0)" }.sorted()
  }
}

@Suite struct HouseTests {
  @Test func theTopLevelHoldsWhatTheDesignNames() throws {
    let known: Set = [
      "Package.swift", "Sources", "Tests", "cluster", "chaos", "docs", "README.md", "LICENSE",
    ]
    let found = try FileManager.default.contentsOfDirectory(atPath: Project.root)
      .filter { !$0.hasPrefix(".") }
    #expect(Set(found).subtracting(known).isEmpty)
    #expect(known.subtracting(found).isEmpty)
  }

  @Test func theReadMeIsShort() throws {
    let lines = try Project.text("README.md").split(
      separator: "\n", omittingEmptySubsequences: false)
    #expect(lines.count <= 151)
  }

  @Test(arguments: ["TODO", "FIXME", "XXX", "try!"])
  func sourcesAreFreeOf(word: String) throws {
    for folder in ["Sources", "chaos/harness"] {
      for file in try Project.files(in: folder, withSuffix: ".swift") {
        #expect(try !Project.text(file).contains(word), "\(file) contains \(word)")
      }
    }
  }

  @Test func everySourceSaysFirstWhatLivesInIt() throws {
    for folder in ["Sources", "chaos/harness"] {
      for file in try Project.files(in: folder, withSuffix: ".swift") {
        #expect(try Project.text(file).hasPrefix("//"), "\(file) has no comment at its head")
      }
    }
  }

  @Test func everyTargetHasAReadMe() throws {
    for target in ImportTests.table.keys {
      let folder = target == "ChaosHarness" ? "chaos/harness" : "Sources/\(target)"
      #expect(FileManager.default.fileExists(atPath: "\(Project.root)/\(folder)/README.md"))
    }
  }

  /// Links between the project's own pages lead somewhere.
  @Test func linksBetweenPagesLeadSomewhere() throws {
    var pages = ["README.md"]
    for folder in ["docs", "cluster", "chaos", "Sources"] {
      pages += try Project.files(in: folder, withSuffix: ".md")
    }
    for page in pages {
      let folder = page.split(separator: "/").dropLast().joined(separator: "/")
      for match in try Project.text(page).matches(of: /\]\(([^)#]+)(?:#[^)]*)?\)/) {
        let target = String(match.1)
        guard !target.contains("://") else { continue }
        let path = "\(Project.root)/\(folder)/\(target)"
        #expect(FileManager.default.fileExists(atPath: path), "\(page) links to \(target)")
      }
    }
  }
}
