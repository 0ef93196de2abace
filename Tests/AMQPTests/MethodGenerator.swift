// Makes `Sources/AMQP/Methods.swift` from the table beside it. Here rather than in a script of its
// own, so that it is compiled, and the test that compares is the one that writes.

/// What the table says.
struct MethodTable {
  struct Field {
    var type: String
    var name: String
  }

  struct Method {
    var className: String
    var classID: Int
    var name: String
    var id: Int
    var hasContent: Bool
    var fields: [Field] = []

    /// `basicGetOK` for `basic.get-ok`.
    var caseName: String { className + Self.camel(name) }
    var typeName: String { Self.camel(className + "-" + name) }

    static func camel(_ name: String) -> String {
      name.split(separator: "-").map { part in
        part == "ok" ? "OK" : part.prefix(1).uppercased() + part.dropFirst()
      }.joined()
    }
  }

  var methods: [Method] = []
  var properties: [Field] = []

  init(_ text: String) {
    var className = ""
    var classID = 0
    for line in text.split(separator: "\n") where !line.hasPrefix("#") {
      let words = line.split(separator: " ").map(String.init)
      switch words[0] {
      case "class":
        classID = Int(words[1])!
        className = words[2]
      case "method":
        methods.append(
          Method(
            className: className, classID: classID, name: words[2], id: Int(words[1])!,
            hasContent: words.count > 3))
      case "field": methods[methods.count - 1].fields.append(Field(type: words[1], name: words[2]))
      case "property": properties.append(Field(type: words[1], name: words[2]))
      default: fatalError("unknown line in the method table: \(line)")
      }
    }
  }
}

enum MethodGenerator {
  static func swiftSource(_ table: MethodTable) -> String {
    var text = """
      // Generated from Sources/AMQP/Generator/methods.txt, which says how. Not to be edited.
      //
      // Every method as its number (`MethodID`) and as a struct that is read from and written to the
      // payload of a method frame. Byte fields are borrowed: they point into the frame that was read.

      /// A method: class number in the upper 16 bits, method number in the lower.
      package enum MethodID: UInt32, Hashable, Sendable, CaseIterable {

      """
    for method in table.methods {
      text += "  case \(method.caseName) = 0x\(hexadecimal(method))\n"
    }
    text += """

        package var classID: UInt16 { UInt16(rawValue >> 16) }
        package var methodID: UInt16 { UInt16(truncatingIfNeeded: rawValue) }

        /// A content header and body frames follow.
        package var hasContent: Bool {
          switch self {
          case \(table.methods.filter(\.hasContent).map { ".\($0.caseName)" }.joined(separator: ", ")): true
          default: false
          }
        }

        /// As in the standard: `queue.declare-ok`.
        package var name: String {
          switch self {

      """
    for method in table.methods {
      text += "    case .\(method.caseName): \"\(method.className).\(method.name)\"\n"
    }
    text += "    }\n  }\n}\n"
    for method in table.methods { text += "\n" + structure(method) }
    text += "\n" + propertyFlags(table)
    return text
  }

  private static func hexadecimal(_ method: MethodTable.Method) -> String {
    let digits = String(method.classID << 16 | method.id, radix: 16)
    let padded = String(repeating: "0", count: 8 - digits.count) + digits
    return padded.prefix(4) + "_" + padded.suffix(4)
  }

  static let types = [
    "octet": "UInt8", "short": "UInt16", "long": "UInt32", "longlong": "UInt64",
    "timestamp": "UInt64", "bit": "Bool", "shortstr": "UnsafeRawBufferPointer",
    "longstr": "UnsafeRawBufferPointer", "table": "UnsafeRawBufferPointer",
  ]

  private static func structure(_ method: MethodTable.Method) -> String {
    let fields = method.fields
    var text = "/// \(method.className).\(method.name)\n"
    text += "package struct \(method.typeName): MethodFields {\n"
    text += "  package static let id = MethodID.\(method.caseName)\n"
    for field in fields { text += "  package var \(field.name): \(types[field.type]!)\n" }
    if !fields.isEmpty { text += "\n" }
    let parameters = fields.map { "\($0.name): \(types[$0.type]!)" }.joined(separator: ", ")
    text += "  package init(\(parameters)) {\n"
    for field in fields { text += "    self.\(field.name) = \(field.name)\n" }
    text += "  }\n\n"
    text += decoding(fields) + "\n" + encoding(method) + "}\n"
    return text
  }

  /// Runs of bits share octets, from the lowest bit on.
  private static func groups(_ fields: [MethodTable.Field]) -> [[MethodTable.Field]] {
    var groups: [[MethodTable.Field]] = []
    for field in fields {
      if field.type == "bit", let last = groups.last, last[0].type == "bit", last.count < 8 {
        groups[groups.count - 1].append(field)
      } else {
        groups.append([field])
      }
    }
    return groups
  }

  private static func decoding(_ fields: [MethodTable.Field]) -> String {
    var text = "  /// Reads the fields, which must be all that `reader` has.\n"
    text += "  package init(_ reader: inout MethodReader) throws(MethodError) {\n"
    for (number, group) in groups(fields).enumerated() {
      if group[0].type == "bit" {
        text += "    let bits\(number) = try reader.octet()\n"
        for (bit, field) in group.enumerated() {
          text += "    \(field.name) = bits\(number) & \(1 << bit) != 0\n"
        }
      } else {
        text += "    \(group[0].name) = try reader.\(group[0].type)()\n"
      }
    }
    text += "    try reader.end()\n  }\n"
    return text
  }

  private static func encoding(_ method: MethodTable.Method) -> String {
    var text = "  /// Appends the method's frame.\n"
    text += "  package func encode(channel: UInt16, into output: inout [UInt8]) {\n"
    text += "    let start = output.beginMethod(Self.id, channel: channel)\n"
    for group in groups(method.fields) {
      switch group[0].type {
      case "bit":
        let octet = group.enumerated().map { "(\($0.element.name) ? \(1 << $0.offset) : 0)" }
        text += "    output.putBig(UInt8(\(octet.joined(separator: " | "))))\n"
      case "shortstr": text += "    output.putShortString(\(group[0].name))\n"
      case "longstr", "table": text += "    output.putLongString(\(group[0].name))\n"
      default: text += "    output.putBig(\(group[0].name))\n"
      }
    }
    text += "    output.endFrame(start)\n  }\n"
    return text
  }

  private static func propertyFlags(_ table: MethodTable) -> String {
    var text = "/// The flags of basic's 14 properties, in whose order they follow.\n"
    text += "package enum PropertyFlag {\n"
    for (number, property) in table.properties.enumerated() {
      text += "  /// \(property.type)\n"
      text += "  package static let \(property.name): UInt16 = 1 << \(15 - number)\n"
    }
    text += "}\n"
    return text
  }
}
