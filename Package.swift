// swift-tools-version: 6.2
// The targets of Skein and who may import whom. docs/architecture.md explains the layers;
// Tests/PackageTests compares this table with the imports that the sources really make.

import PackageDescription

/// One library target under `Sources/`, its folder's README and what else is no code kept out of
/// the build.
func layer(
  _ name: String, imports: [Target.Dependency] = [], path: String? = nil, without: [String] = [],
  sources: [String]? = nil, resources: [Resource]? = nil
) -> Target {
  .target(
    name: name, dependencies: imports, path: path, exclude: ["README.md"] + without,
    sources: sources, resources: resources)
}

/// The tests of one target, which may also look at what that target imports.
func tests(_ name: String, imports: [Target.Dependency], resources: [Resource] = []) -> Target {
  .testTarget(name: name, dependencies: imports + ["TestSupport"], resources: resources)
}

let package = Package(
  name: "skein",
  products: [
    .executable(name: "skein", targets: ["skein"]),
    .library(name: "SkeinClient", targets: ["SkeinClient"]),
  ],
  targets: [
    // Ground.
    layer("CLinux"),
    layer("Base", imports: ["CLinux"]),
    // Pure domain: no clock, no randomness of their own, no I/O.
    layer("Consensus", imports: ["Base"]),
    layer("QueueMachine", imports: ["Base"]),
    layer("Node", imports: ["Base", "Consensus", "QueueMachine"]),
    layer("History"),
    // Protocols: bytes in, values out.
    layer("Wire", imports: ["Base"]),
    layer("AMQP", imports: ["Base", "QueueMachine"], without: ["Generator"]),
    // I/O.
    layer("LogStore", imports: ["Base", "Consensus", "CLinux"]),
    layer("Transport", imports: ["Base", "CLinux"]),
    // Shells.
    layer(
      "Server",
      imports: [
        "CLinux", "Base", "Consensus", "QueueMachine", "Node", "Wire", "AMQP", "LogStore",
        "Transport",
      ]),
    layer("SkeinClient", imports: ["Base", "Wire", "Transport"]),
    layer("Bench", imports: ["CLinux", "Base", "Wire", "Transport"]),
    layer(
      "Simulator",
      imports: ["Base", "Consensus", "QueueMachine", "Node", "LogStore", "History"]),
    layer(
      "ChaosHarness", imports: ["Base", "Transport", "AMQP", "SkeinClient", "History"],
      path: "chaos",
      without: ["harness/README.md"], sources: ["harness"],
      resources: [.embedInCode("scenarios")]),
    .executableTarget(
      name: "skein",
      dependencies: [
        "CLinux", "Base", "Wire", "Transport", "Server", "SkeinClient", "History", "Simulator",
        "ChaosHarness", "Bench",
      ],
      exclude: ["README.md"]),

    // What several of the following use, and no tests. As a test target it is built with them only.
    .testTarget(name: "TestSupport"),
    tests("BaseTests", imports: ["Base"]),
    tests("ConsensusTests", imports: ["Base", "Consensus"], resources: [.copy("Scenarios")]),
    tests("QueueMachineTests", imports: ["Base", "QueueMachine"]),
    tests("LogStoreTests", imports: ["Base", "Consensus", "LogStore"]),
    tests("NodeTests", imports: ["Base", "Consensus", "QueueMachine", "Node"]),
    tests("WireTests", imports: ["Base", "Wire"]),
    tests("AMQPTests", imports: ["Base", "AMQP"]),
    tests("TransportTests", imports: ["Base", "Transport"]),
    tests(
      "ServerTests",
      imports: [
        "Base", "Consensus", "QueueMachine", "Node", "Wire", "Transport", "Server", "SkeinClient",
      ]),
    tests("SkeinClientTests", imports: ["Base", "Wire", "Transport", "SkeinClient"]),
    tests("HistoryTests", imports: ["Base", "History"]),
    tests(
      "CommandTests",
      imports: ["Base", "Wire", "Server", "SkeinClient", "History", "Bench", "skein"]),
    tests("BenchTests", imports: ["Base", "Wire", "Transport", "Bench"]),
    tests("SimulatorTests", imports: ["Base", "History", "LogStore", "Simulator"]),
    tests(
      "ChaosTests",
      imports: [
        "Base", "Consensus", "Node", "Wire", "Transport", "LogStore", "History", "SkeinClient",
        "ChaosHarness",
      ]),
    tests("PackageTests", imports: []),
  ],
  swiftLanguageModes: [.v6]
)
