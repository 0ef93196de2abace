// What kind of place the output goes to.

import Glibc

enum Terminal {
  static var isOutput: Bool { isatty(STDOUT_FILENO) == 1 }
  static var isErrorOutput: Bool { isatty(STDERR_FILENO) == 1 }

  /// Colours only on a terminal, and not where the user wants none (no-color.org).
  static var hasColours: Bool {
    isOutput && (environment("NO_COLOR") ?? "").isEmpty && environment("TERM") != "dumb"
  }

  /// Lines and columns; 24 and 80 where that is unknown.
  static var size: (lines: Int, columns: Int) {
    var size = winsize()
    guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_row > 0, size.ws_col > 0
    else { return (24, 80) }
    return (Int(size.ws_row), Int(size.ws_col))
  }

  /// A variable of the environment, nil if it is not set.
  static func environment(_ name: String) -> String? {
    getenv(name).map { String(cString: $0) }
  }
}
