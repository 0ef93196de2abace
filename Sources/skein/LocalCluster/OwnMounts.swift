// A mount namespace of this process's own: what is mounted there, and the names of the network namespaces, go
// with the process and those that it started, however they end.

import Glibc

enum OwnMounts {
  private static let variable = "SKEIN_HAS_OWN_MOUNTS"
  private static let namespaceNames = "/run/netns"

  /// Begins this program anew, with the same words and under the same process id, in a mount namespace of
  /// its own; returns there. Needs root.
  static func enter(executable: String) throws {
    if Terminal.environment(variable) == "\(getpid())" {
      unsetenv(variable)
      return
    }
    setenv(variable, "\(getpid())", 1)
    // What was blocked would stay so: on threads of the pool that is nearly every signal.
    var none = sigset_t()
    sigemptyset(&none)
    pthread_sigmask(SIG_SETMASK, &none, nil)
    let words =
      ["unshare", "--mount", "--propagation", "private", executable]
      + CommandLine.arguments.dropFirst()
    let arguments = CStrings(words)
    execvp(words[0], arguments.pointers)
    throw Failure(
      "unshare(1), of util-linux, cannot be started: \(String(cString: strerror(errno)))")
  }

  /// `ip netns` keeps its names in a directory that all share; from now on this process has its own.
  static func hideNamespaceNames() throws {
    mkdir(namespaceNames, 0o755)
    guard mount("tmpfs", namespaceNames, "tmpfs", 0, nil) == 0 else {
      throw Failure("\(namespaceNames): \(String(cString: strerror(errno)))")
    }
  }
}
