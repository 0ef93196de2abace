// Starting a program by posix_spawn(3).

import Glibc

/// Starts a program. Signals are as usual in it, whatever they are here.
/// - Parameters:
///   - newSession: it outlives this process and the terminal.
///   - environment: `NAME=value` texts, in place of ours where the name is the same.
func spawn(
  _ words: [String], executable: String, actions: inout posix_spawn_file_actions_t,
  newSession: Bool, environment: [String] = []
) throws -> pid_t {
  var attributes = posix_spawnattr_t()
  posix_spawnattr_init(&attributes)
  defer { posix_spawnattr_destroy(&attributes) }
  var none = sigset_t()
  sigemptyset(&none)
  posix_spawnattr_setsigmask(&attributes, &none)
  var standard = sigset_t()
  sigemptyset(&standard)
  sigaddset(&standard, SIGPIPE)
  posix_spawnattr_setsigdefault(&attributes, &standard)
  var flags = Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)
  // POSIX_SPAWN_SETSID of spawn.h, behind a GNU switch there.
  if newSession { flags |= 0x80 }
  posix_spawnattr_setflags(&attributes, Int16(flags))

  let arguments = CStrings(words)
  let variables = CStrings(merged(environment))
  var pid: pid_t = 0
  let result = posix_spawn(
    &pid, executable, &actions, &attributes, arguments.pointers, variables.pointers)
  guard result == 0 else {
    throw Failure("\(executable) cannot be started: \(String(cString: strerror(result)))")
  }
  return pid
}

/// Our environment with `changes` in it.
private func merged(_ changes: [String]) -> [String] {
  let names = Set(changes.map { $0.prefix { $0 != "=" } })
  var variables: [String] = []
  var next = environ
  while let variable = next.pointee {
    let text = String(cString: variable)
    if !names.contains(text.prefix { $0 != "=" }) { variables.append(text) }
    next += 1
  }
  return variables + changes
}

/// Texts as C wants a list of them: pointers, the last one null.
private final class CStrings {
  let pointers: [UnsafeMutablePointer<CChar>?]

  init(_ texts: [String]) {
    // SAFETY: each copy is freed once, in deinit; nobody keeps the pointers longer.
    pointers = texts.map { strdup($0) } + [nil]
  }

  deinit {
    for pointer in pointers { free(pointer) }
  }
}
