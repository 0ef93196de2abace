// swift-tools-version: 6.2
// What planted bugs are put into and the simulator that looks for them, without the rest of Skein: a
// changed file is compiled and linked in seconds. `run` copies the sources beside this.

import PackageDescription

func layer(_ name: String, _ imports: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: imports, exclude: ["README.md"])
}

func tests(
  _ name: String, _ imports: [Target.Dependency], _ resources: [Resource] = []
) -> Target {
  .testTarget(name: name, dependencies: imports + ["TestSupport"], resources: resources)
}

let package = Package(
  name: "planted",
  targets: [
    layer("CLinux"),
    layer("Base", ["CLinux"]),
    layer("Consensus", ["Base"]),
    layer("QueueMachine", ["Base"]),
    layer("Node", ["Base", "Consensus", "QueueMachine"]),
    layer("History"),
    layer("LogStore", ["Base", "Consensus", "CLinux"]),
    layer("Simulator", ["Base", "Consensus", "QueueMachine", "Node", "LogStore", "History"]),
    .executableTarget(name: "simulate", dependencies: ["Simulator"]),
    .testTarget(name: "TestSupport"),
    tests("ConsensusTests", ["Base", "Consensus"], [.copy("Scenarios")]),
    tests("QueueMachineTests", ["Base", "QueueMachine"]),
    tests("LogStoreTests", ["Base", "Consensus", "LogStore"]),
    tests("NodeTests", ["Base", "Consensus", "QueueMachine", "Node"]),
  ],
  swiftLanguageModes: [.v6]
)
