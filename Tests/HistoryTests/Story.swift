// Histories written by hand, one short line an event:
//
//     TIME PROCESS TYPE F QUEUE VALUE [key=value …]        a value of - is none
//     TIME nemesis info FAULT - VALUE

import Base

@testable import History

/// One event of a test's history, to be changed freely before it is written.
struct StoryEvent {
  var time: UInt64
  var process: String
  var type: String
  var f: String
  var queue: String?
  var value: String?
  /// The other keys, in order, with their JSON.
  var rest: [(key: String, json: String)] = []

  subscript(key: String) -> String? {
    get { rest.first { $0.key == key }?.json }
    set {
      rest.removeAll { $0.key == key }
      if let newValue { rest.append((key, newValue)) }
    }
  }

  var token: UInt64? { self["token"].flatMap { UInt64($0) } }

  init(
    _ time: UInt64, _ process: String, _ type: String, _ f: String, _ queue: String?,
    _ value: String?, _ rest: [(key: String, json: String)] = []
  ) {
    self.time = time
    self.process = process
    self.type = type
    self.f = f
    self.queue = queue
    self.value = value
    self.rest = rest
  }

  init(line: Substring) {
    let words = line.split(separator: " ").map(String.init)
    self.init(
      UInt64(words[0])!, words[1], words[2], words[3], words[4] == "-" ? nil : words[4],
      words.count > 5 && words[5] != "-" ? words[5] : nil)
    var settings: [String] = []
    for word in words.dropFirst(6) {
      let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
      let isText = ["id", "key", "error", "config.deadLetter"].contains(parts[0])
      let json = isText ? "\"\(parts[1])\"" : parts[1]
      if parts[0].hasPrefix("config.") {
        settings.append("\"\(parts[0].dropFirst(7))\":\(json)")
      } else {
        rest.append((parts[0], json))
      }
    }
    if !settings.isEmpty { rest.append(("config", "{\(settings.joined(separator: ","))}")) }
  }

  func json(_ index: Int) -> String {
    var text = "{\"index\":\(index),\"time\":\(time),\"process\":\"\(process)\""
    text += ",\"type\":\"\(type)\",\"f\":\"\(f)\""
    if let queue { text += ",\"queue\":\"\(queue)\"" }
    if let value { text += ",\"value\":\"\(value)\"" }
    for (key, json) in rest { text += ",\"\(key)\":\(json)" }
    return text + "}\n"
  }
}

struct Story {
  var events: [StoryEvent]

  init(_ events: [StoryEvent] = []) { self.events = events }

  init(_ text: String) {
    events = text.split(separator: "\n").map { StoryEvent(line: $0) }
  }

  var bytes: [UInt8] {
    Array(events.enumerated().map { $1.json($0) }.joined().utf8)
  }

  func verdict(strict: Bool = true) throws -> Verdict {
    var checker = Checker(try History.parse(bytes), isStrict: strict)
    return checker.judge()
  }

  func edn() throws -> String {
    var checker = Checker(try History.parse(bytes), isStrict: true)
    var bytes: [UInt8] = []
    checker.exportEDN { bytes += $0 }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// The same events among those of other messages in the same queues that are all in order.
  func inNoise(seed: UInt64) -> Story {
    var random = SeededRandom(seed: seed)
    var noisy = Story()
    var message = 0
    var hasDrainBegun = false
    let queues = Set(events.filter { $0.f == "publish" }.compactMap(\.queue)).sorted()
    for event in events {
      hasDrainBegun = hasDrainBegun || event.f == "drain"
      for _ in 0..<(hasDrainBegun || queues.isEmpty ? 0 : Int.random(in: 0...12, using: &random)) {
        message += 1
        noisy.addNoise(
          "noise-\(message)", in: queues.randomElement(using: &random)!, at: event.time, &random)
      }
      noisy.events.append(event)
    }
    return noisy
  }

  private mutating func addNoise(
    _ value: String, in queue: String, at time: UInt64, _ random: inout SeededRandom
  ) {
    events.append(StoryEvent(time, "noise-p", "invoke", "publish", queue, value))
    events.append(
      StoryEvent(time, "noise-p", "ok", "publish", queue, value, [("id", "\"\(value)\"")]))
    var token = 1
    func rest() -> [(key: String, json: String)] { [("token", "\(token)")] }
    func deliver() -> StoryEvent {
      StoryEvent(
        time, "noise-c", "ok", "deliver", queue, value,
        rest() + [("attempt", "\(token)"), ("lease", "1000000")])
    }
    events.append(deliver())
    if Bool.random(using: &random) {
      for type in ["invoke", "ok"] {
        events.append(
          StoryEvent(
            time, "noise-c", type, "nack", queue, value,
            rest() + (type == "invoke" ? [("delay", "0")] : [])))
      }
      token += 1
      events.append(deliver())
    }
    for type in ["invoke", "ok"] {
      events.append(StoryEvent(time, "noise-c", type, "ack", queue, value, rest()))
    }
  }
}

extension Verdict {
  /// The names of what is violated.
  var violated: [String] { violations.filter { $0.count > 0 }.map(\.kind.name) }
}
