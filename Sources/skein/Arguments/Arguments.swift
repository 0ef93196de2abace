// The arguments of one call, parsed by the command's tables, and typed access to them. Every
// message names the option and says what would be right.

import Base

struct Arguments: Sendable {
  let command: Command
  /// Values by option, in order; a flag that was given has one empty value.
  private var values: [String: [String]] = [:]
  private(set) var operands: [String] = []
  private(set) var wantsHelp = false

  /// Takes `words` (those behind the command's name) apart.
  init(_ command: Command, _ words: [String]) throws(UsageError) {
    self.command = command
    var rest = words[...]
    var onlyOperands = false
    while let word = rest.popFirst() {
      if onlyOperands || !word.hasPrefix("-") || word == "-" {
        operands.append(word)
      } else if word == "--" {
        onlyOperands = true
      } else if word == "-h" {
        wantsHelp = true
      } else {
        try take(option: word, &rest)
      }
    }
    wantsHelp = wantsHelp || flag("help")
    if !wantsHelp { try checkOperands() }
  }

  private mutating func take(
    option word: String, _ rest: inout ArraySlice<String>
  ) throws(UsageError) {
    let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    let name = String(parts[0].drop { $0 == "-" })
    guard word.hasPrefix("--"), let option = command.allOptions.first(where: { $0.name == name })
    else {
      let nearest = nearestName(to: name, in: command.allOptions.map(\.name))
      throw usage("unknown option \(parts[0])" + (nearest.map { ", did you mean --\($0)?" } ?? ""))
    }
    var value = parts.count == 2 ? String(parts[1]) : nil
    if option.value == nil {
      if value != nil { throw usage("--\(name) takes no value") }
      value = ""
    } else if value == nil {
      value = rest.popFirst()
    }
    guard let value else { throw usage("--\(name) needs a value (\(option.value ?? ""))") }
    if !option.repeats, values[name] != nil, option.value != nil {
      throw usage("--\(name) is given twice")
    }
    values[name, default: []].append(value)
  }

  private func checkOperands() throws(UsageError) {
    let least = command.operands.count { $0.occurrence == .once }
    if operands.count < least {
      throw usage("the \(command.operands[operands.count].name) is missing")
    }
    let most =
      command.operands.contains { $0.occurrence == .anyNumber } ? Int.max : command.operands.count
    if operands.count > most { throw usage("\"\(operands[most])\" is one argument too many") }
  }

  /// An error about this command's arguments.
  func usage(_ message: String) -> UsageError { UsageError(message, command: command.name) }

  // MARK: Access

  func flag(_ name: String) -> Bool { !all(name).isEmpty }

  func text(_ name: String) -> String? { all(name).first }

  func all(_ name: String) -> [String] {
    invariant(
      command.allOptions.contains { $0.name == name }, "\(command.name) has no option --\(name)")
    return values[name] ?? []
  }

  /// A whole number, with `k` or `M` behind it if wanted.
  func count(_ name: String, in range: ClosedRange<UInt64>) throws(UsageError) -> UInt64? {
    guard let text = text(name) else { return nil }
    guard let value = CountText.parse(text) else {
      throw usage("--\(name): \"\(text)\" is no whole number")
    }
    guard range.contains(value) else {
      let expected =
        range.upperBound == .max
        ? "at least \(range.lowerBound)" : "from \(range.lowerBound) to \(range.upperBound)"
      throw usage("--\(name) must be \(expected), not \(text)")
    }
    return value
  }

  func duration(
    _ name: String, in range: ClosedRange<Nanoseconds>
  ) throws(UsageError) -> Nanoseconds? {
    guard let text = text(name) else { return nil }
    guard let value = DurationText.parse(text) else {
      throw usage("--\(name): \"\(text)\" is no time such as 500ms, 10s, 5m, 1h or 1d")
    }
    guard range.contains(value) else {
      let low = DurationText.format(range.lowerBound)
      let high = DurationText.format(range.upperBound)
      throw usage("--\(name) must be from \(low) to \(high), not \(text)")
    }
    return value
  }

  func decimal(_ name: String, in range: ClosedRange<Double>) throws(UsageError) -> Double? {
    guard let text = text(name) else { return nil }
    guard let value = Double(text), value.isFinite else {
      throw usage("--\(name): \"\(text)\" is no number")
    }
    guard range.contains(value) else {
      throw usage("--\(name) must be from \(range.lowerBound) to \(range.upperBound), not \(text)")
    }
    return value
  }

  /// An operand that is the id of a node.
  func nodeOperand(_ position: Int) throws(UsageError) -> NodeID? {
    guard position < operands.count else { return nil }
    guard let id = UInt32(operands[position]), id > 0 else {
      throw usage("\"\(operands[position])\" is no node's number")
    }
    return NodeID(id)
  }

  /// The longest that may pass without an answer.
  func timeout() throws(UsageError) -> Nanoseconds {
    try duration("timeout", in: .milliseconds(1) ... .seconds(86_400)) ?? .seconds(10)
  }
}
