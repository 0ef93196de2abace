// `skein doctor`: what is wrong with the cluster, and what its AMQP clients do that they hardly mean.

import Base

enum Doctor {
  static let command = Command(
    path: ["doctor"], summary: "say what is wrong, and what AMQP clients hardly mean as they do it",
    options: [
      .json, .endpoints, .directory,
      Option(
        "timeout", "TIME", "take a node for down that does not answer in this time (default 1s)"),
    ],
    details: """
      Problems are those of `skein status`. Advice is what AMQP accepts without a word: arguments of
      queues that mean nothing, messages not marked as persistent in durable queues, consumers without
      a prefetch limit, messages that are rejected with requeue for ever. Every node tells what it
      saw of its clients since it was started. Ends with 1 if there is a problem; advice is none.
      """,
    run: .asynchronous(run))

  static func run(_ arguments: Arguments) async throws -> ExitCode {
    let question = StatusQuestion(
      endpoints: try Connection.endpoints(arguments),
      timeout: try arguments.duration("timeout", in: .milliseconds(1) ... .seconds(600))
        ?? .seconds(1))
    let report = await question.ask(queues: false)
    try StandardOutput.write(
      arguments.flag("json")
        ? report.diagnosis.text + "\n" : report.diagnosisText(colours: Terminal.hasColours))
    return report.problems.isEmpty ? .fine : .failed
  }
}

extension ClusterReport {
  /// Each once, however many nodes saw it.
  var advice: [String] {
    var known: Set<String> = []
    return nodes.compactMap(\.status).flatMap(\.advice).filter { known.insert($0).inserted }
  }

  var diagnosis: JSON {
    [
      "problems": .array(problems.map { .text($0) }),
      "advice": .array(advice.map { .text($0) }),
    ]
  }

  func diagnosisText(colours: Bool) -> String {
    var text = ""
    for problem in problems {
      text += Style.warning.apply("! \(problem)", colours: colours) + "\n"
    }
    for sentence in advice { text += "- \(sentence)\n" }
    return text.isEmpty ? "nothing is wrong\n" : text
  }
}
