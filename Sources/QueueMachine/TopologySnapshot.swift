// The topology in a snapshot, behind the queues and sessions:
//
//   u32 next exchange, u64 next binding, u32 next virtual host
//   u32 virtual hosts but "/": id, name        u32 users, by name: name, salt, hash
//   u32 exchanges, by number:  number, host, name, kind, flags, alternate
//   u32 queues, by id:         id, host, name, flags, owner, arguments, dead-letter exchange and key
//   u32 bindings, by exchange and number: exchange, number, target, flags, key, arguments
//   u32 streams, by node:      node, process, sequence, u8 whether the next one stopped, and then
//                              u32 commands and u32 records of it that are carried out
//
// What leads to a queue or an exchange, counts and the arrangement for routing are derived.

import Base

extension Topology {
  func encode(into bytes: inout [UInt8], pass: (inout [UInt8]) -> Void) {
    bytes.put(nextExchange)
    bytes.put(nextBinding)
    bytes.put(nextHost)
    bytes.put(UInt32(hosts.count - 1))
    for host in hosts.dropFirst() {
      bytes.put(host.id)
      bytes.putShortText(host.name)
    }
    bytes.put(UInt32(users.count))
    for user in users {
      bytes.putShortText(user.name)
      bytes.putLongBytes(user.salt)
      bytes.putLongBytes(user.hash)
    }
    bytes.put(UInt32(exchanges.count))
    for number in exchanges.sortedKeys {
      if let exchange = exchanges[number] { put(exchange, &bytes) }
      pass(&bytes)
    }
    bytes.put(UInt32(queues.count))
    for id in queues.sortedKeys {
      if let extras = queues[id] { put(extras, of: UInt32(id), &bytes) }
      pass(&bytes)
    }
    bytes.put(UInt32(bindingCount))
    for number in exchanges.sortedKeys {
      guard let exchange = exchanges[number] else { continue }
      for binding in exchange.bindings.keys.sorted() {
        if let binding = exchange.bindings[binding] { put(binding, of: exchange.number, &bytes) }
        pass(&bytes)
      }
    }
    bytes.put(UInt32(streams.count))
    for node in streams.sortedKeys {
      guard let stream = streams[node] else { continue }
      bytes.put(UInt32(node))
      bytes.put(stream.process)
      bytes.put(stream.sequence)
      bytes.put(UInt8(stream.stop == nil ? 0 : 1))
      if let stop = stream.stop {
        bytes.put(stop.commands)
        bytes.put(stop.records)
      }
    }
  }

  private func put(_ exchange: Exchange, _ bytes: inout [UInt8]) {
    let settings = exchange.settings
    bytes.put(exchange.number)
    bytes.put(exchange.host)
    bytes.putShortText(exchange.name)
    bytes.put(settings.kind.rawValue)
    bytes.put(Self.flags(settings.isDurable, settings.isAutoDelete, settings.isInternal))
    bytes.putShortText(settings.alternate)
  }

  private func put(_ extras: QueueExtras, of id: UInt32, _ bytes: inout [UInt8]) {
    bytes.put(id)
    bytes.put(extras.host)
    bytes.putShortText(extras.name)
    bytes.put(
      Self.flags(
        extras.isDurable, extras.isAutoDelete, extras.isNative, extras.deadLetterExchange != nil,
        extras.deadLetterKey != nil))
    bytes.put(extras.owner)
    bytes.putLongBytes(extras.arguments)
    bytes.putShortText(extras.deadLetterExchange ?? "")
    bytes.putLongBytes(extras.deadLetterKey ?? [])
  }

  private func put(_ binding: Binding, of exchange: UInt32, _ bytes: inout [UInt8]) {
    bytes.put(exchange)
    bytes.put(binding.number)
    bytes.put(binding.target)
    bytes.put(Self.flags(binding.leadsToExchange))
    bytes.putLongBytes(binding.key)
    bytes.putLongBytes(binding.arguments)
  }

  private static func flags(_ bits: Bool...) -> UInt8 {
    bits.enumerated().reduce(0) { $0 | ($1.element ? 1 << UInt8($1.offset) : 0) }
  }

  /// - Parameter isQueue: whether the machine has a queue of that id.
  init(decoding reader: inout ByteReader, isQueue: (UInt32) -> Bool) throws {
    self.init()
    exchanges.removeAll()
    exchangeNumbers = [:]
    nextExchange = try reader.integer()
    nextBinding = try reader.integer()
    nextHost = try reader.integer()
    for _ in 0..<(try reader.integer(UInt32.self)) {
      hosts.append((try reader.identifier(), try reader.shortText()))
    }
    for _ in 0..<(try reader.integer(UInt32.self)) {
      users.append(
        User(
          name: try reader.shortText(), salt: try reader.longBytes(),
          hash: try reader.longBytes()))
    }
    for _ in 0..<(try reader.integer(UInt32.self)) { try readExchange(&reader) }
    for _ in 0..<(try reader.integer(UInt32.self)) { try readQueue(&reader, isQueue) }
    for _ in 0..<(try reader.integer(UInt32.self)) { try readBinding(&reader) }
    for _ in 0..<(try reader.integer(UInt32.self)) {
      let node = try reader.integer(UInt32.self)
      guard node != 0 else { throw SnapshotFault.reference }
      var stream = CommandStream(process: try reader.integer(), sequence: try reader.integer())
      if try reader.integer(UInt8.self) != 0 {
        stream.stop = CommandStream.Stop(
          commands: try reader.integer(), records: try reader.integer())
      }
      streams.insert(stream, for: UInt64(node))
    }
  }

  private mutating func readExchange(_ reader: inout ByteReader) throws {
    var exchange = Exchange()
    exchange.number = try reader.integer()
    exchange.host = try reader.identifier()
    exchange.name = try reader.shortText()
    exchange.settings.kind = try reader.kind()
    let flags = try reader.integer(UInt8.self)
    exchange.settings.isDurable = flags & 1 != 0
    exchange.settings.isAutoDelete = flags & 2 != 0
    exchange.settings.isInternal = flags & 4 != 0
    exchange.settings.alternate = try reader.shortText()
    guard (1..<nextExchange).contains(exchange.number) else { throw SnapshotFault.reference }
    exchanges.insert(exchange, for: UInt64(exchange.number))
    exchangeNumbers[ScopedName(host: exchange.host, name: exchange.name)] = exchange.number
  }

  private mutating func readQueue(
    _ reader: inout ByteReader, _ isQueue: (UInt32) -> Bool
  ) throws {
    let id = try reader.identifier(QueueID.self)
    guard id.rawValue != 0, isQueue(id.rawValue) else { throw SnapshotFault.reference }
    var extras = QueueExtras()
    extras.host = try reader.identifier()
    extras.name = try reader.shortText()
    let flags = try reader.integer(UInt8.self)
    extras.isDurable = flags & 1 != 0
    extras.isAutoDelete = flags & 2 != 0
    extras.isNative = flags & 4 != 0
    extras.owner = try reader.identifier()
    extras.arguments = try reader.longBytes()
    let exchange = try reader.shortText()
    extras.deadLetterExchange = flags & 8 != 0 ? exchange : nil
    let key = try reader.longBytes()
    extras.deadLetterKey = flags & 16 != 0 ? key : nil
    insert(extras, for: id)
  }

  private mutating func readBinding(_ reader: inout ByteReader) throws {
    let exchange = try reader.integer(UInt32.self)
    let number = try reader.integer(UInt64.self)
    let target = try reader.integer(UInt32.self)
    let leadsToExchange = try reader.integer(UInt8.self) & 1 != 0
    let binding = Binding(
      number: number, target: target, leadsToExchange: leadsToExchange,
      key: try reader.longBytes(), arguments: try reader.longBytes())
    guard exchange != 0, target != 0, number < nextBinding, exchanges.contains(UInt64(exchange)),
      leadsToExchange ? exchanges.contains(UInt64(target)) : queues.contains(UInt64(target))
    else { throw SnapshotFault.reference }
    add(binding, to: exchange)
  }
}

// What must hold between entries.
extension MachineState {
  func checkTopology() {
    invariant(doomedQueues.isEmpty, "queues left undeleted")
    var bindings = 0
    var incoming = 0
    var bytes = 0
    var routes = RouteSize()
    for number in topology.exchanges.sortedKeys {
      guard let exchange = topology.exchanges[number] else { continue }
      routes += exchange.routes.size
      invariant(
        topology.exchange(exchange.name, in: exchange.host) == exchange.number,
        "exchange \(exchange.name) misnamed")
      invariant(exchange.bindings.count == exchange.numbers.count, "bindings of \(exchange.name)")
      bindings += exchange.bindings.count
      let behind = exchange.bindings.values.count { $0.leadsToExchange }
      invariant(behind == exchange.exchangesBehind, "exchanges behind \(exchange.name)")
      incoming += exchange.incoming.count
      for binding in exchange.bindings.values {
        let way = IncomingBinding(exchange: exchange.number, number: binding.number)
        bytes += binding.arguments.count
        let isKnown =
          binding.leadsToExchange
          ? topology.exchanges[UInt64(binding.target)]?.incoming.contains(way)
          : topology.queues[UInt64(binding.target)]?.bindings.contains(way)
        invariant(isKnown == true, "binding \(binding.number) leads nowhere")
      }
    }
    var exclusive = 0
    for id in topology.queues.sortedKeys {
      guard let extras = topology.queues[id] else { continue }
      guard let slot = queueSlots[id] else { stopForBug("no queue \(id) of the topology's") }
      invariant(
        queues[slot].name == topology.queueName(extras.name, in: extras.host), "queue \(id) named")
      incoming += extras.bindings.count
      bytes += extras.arguments.count
      if extras.owner != .none {
        exclusive += 1
        invariant(
          topology.exclusive[extras.owner.rawValue]?.contains(UInt32(id)) == true,
          "queue \(id) unknown to its owner")
        invariant(self.slot(of: extras.owner) != nil, "queue \(id) outlived its owner")
      }
    }
    let owned = topology.exclusive.sortedKeys.reduce(0) {
      $0 + (topology.exclusive[$1]?.count ?? 0)
    }
    invariant(owned == exclusive, "\(owned) of \(exclusive) exclusive queues")
    invariant(bindings == topology.bindingCount, "\(bindings) bindings")
    invariant(bindings == incoming, "\(incoming) of \(bindings) bindings lead somewhere")
    invariant(routes == topology.routeSize, "\(routes) are \(topology.routeSize)")
    invariant(bytes == topology.argumentBytes, "\(bytes) bytes of arguments")
    invariant(topology.exchangeNumbers.count == topology.exchanges.count, "exchange names")
  }
}
