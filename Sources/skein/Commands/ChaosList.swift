// `skein chaos list`: the scenarios that come with the program.

import Base
import ChaosHarness

enum ChaosList {
  static let command = Command(
    path: ["chaos", "list"], summary: "the scenarios there are", options: [.json],
    run: .blocking(run))

  static func run(_ arguments: Arguments) throws -> ExitCode {
    let scenarios = try ScenarioLibrary.names.map { try ScenarioLibrary.scenario($0) }
    if arguments.flag("json") {
      try StandardOutput.write(JSON.array(scenarios.map(json)).text + "\n")
      return .fine
    }
    var table = Table(["scenario", ">nodes", "what happens", "attacks", "needs"])
    for scenario in scenarios {
      table.add([
        Table.Cell(text: scenario.name, style: .strong), Table.Cell(text: "\(scenario.nodes)"),
        Table.Cell(text: scenario.about),
        Table.Cell(text: scenario.attacks.joined(separator: " "), style: .faint),
        Table.Cell(text: scenario.needs.joined(separator: " "), style: .faint),
      ])
    }
    try StandardOutput.write(table.text(colours: Terminal.hasColours))
    return .fine
  }

  private static func json(_ scenario: Scenario) -> JSON {
    [
      "name": .text(scenario.name), "about": .text(scenario.about),
      "attacks": .array(scenario.attacks.map { .text($0) }),
      "nodes": .integer(exactly: scenario.nodes),
      "seconds": .number(Double(scenario.duration.rawValue) / 1e9),
      "needs": .array(scenario.needs.map { .text($0) }),
      "faults": .array(scenario.faults.map { .text($0.name) }),
    ]
  }
}
