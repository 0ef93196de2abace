// The node process, seen from the command line: `skein node` calls `Server.run`.

package enum Server {
  /// Runs the node until it is told to stop; returns the exit code of the process.
  package static func run(configuration: ServerConfiguration) -> Int32 {
    // The server is not there yet; a node that cannot run says so by its exit code.
    1
  }
}
