// Tables for people: columns as wide as they need, numbers to the right.

struct Table {
  enum Alignment { case left, right }

  private let titles: [String]
  private let alignments: [Alignment]
  private var rows: [[Cell]] = []

  struct Cell {
    var text: String
    var style: Style = .plain
  }

  /// Titles that begin with `>` have their column to the right.
  init(_ titles: [String]) {
    alignments = titles.map { $0.hasPrefix(">") ? .right : .left }
    self.titles = titles.map { $0.hasPrefix(">") ? String($0.dropFirst()) : $0 }
  }

  mutating func add(_ cells: [Cell]) { rows.append(cells) }

  mutating func add(_ texts: [String]) { rows.append(texts.map { Cell(text: $0) }) }

  /// The lines, each ended; no lines at all for a table without rows.
  func text(colours: Bool) -> String {
    if rows.isEmpty { return "" }
    var widths = titles.map(\.count)
    for row in rows {
      for (column, cell) in row.enumerated() {
        widths[column] = max(widths[column], cell.text.count)
      }
    }
    var text = line(titles.map { Cell(text: $0, style: .faint) }, widths, colours)
    for row in rows { text += line(row, widths, colours) }
    return text
  }

  private func line(_ cells: [Cell], _ widths: [Int], _ colours: Bool) -> String {
    var cells = cells[...]
    // Nothing behind the last word of a line.
    while cells.last?.text.isEmpty == true { cells.removeLast() }
    var line = ""
    for (column, cell) in cells.enumerated() {
      if column > 0 { line += "  " }
      let padding = String(repeating: " ", count: widths[column] - cell.text.count)
      let styled = cell.style.apply(cell.text, colours: colours)
      switch alignments[column] {
      case .right: line += padding + styled
      case .left: line += column == cells.count - 1 ? styled : styled + padding
      }
    }
    return line + "\n"
  }
}

/// How a word looks on a terminal.
enum Style {
  case plain, faint, strong, good, warning, bad

  /// `text` with the terminal's codes around it, if `colours`.
  func apply(_ text: String, colours: Bool) -> String {
    let code =
      switch self {
      case .plain: ""
      case .faint: "2"
      case .strong: "1"
      case .good: "32"
      case .warning: "33"
      case .bad: "31"
      }
    return !colours || code.isEmpty ? text : "\u{1b}[\(code)m\(text)\u{1b}[0m"
  }
}

/// Seconds with as many decimals as tell something.
func rounded(_ seconds: Double) -> String {
  let thousandths = UInt64((seconds * 1000).rounded())
  if thousandths >= 100_000 { return "\(thousandths / 1000)" }
  let decimals = "\(thousandths % 1000)"
  let padded = String(repeating: "0", count: 3 - decimals.count) + decimals
  return "\(thousandths / 1000).\(padded.prefix(thousandths >= 10_000 ? 1 : 3))"
}
