// What is printed: JSON and tables.

import Testing

@testable import skein

@Suite struct OutputTests {
  @Test(
    arguments: [
      (.null, "null"), (.bool(true), "true"), (.integer(-5), "-5"),
      (.unsigned(.max), "18446744073709551615"),
      (.number(1.5), "1.5"), (.number(.infinity), "null"), ("plain", "\"plain\""),
      ("a\"b\\c\n\t\u{1}é", "\"a\\\"b\\\\c\\n\\t\\u0001é\""), ([], "[]"), ([1, 2], "[1,2]"),
      ([:], "{}"), (["b": 1, "a": ["c": .null]], "{\"b\":1,\"a\":{\"c\":null}}"),
    ] as [(JSON, String)])
  func valuesAreWrittenInOrderAndEscaped(value: JSON, text: String) {
    #expect(value.text == text)
  }

  @Test func columnsAreAsWideAsTheyNeed() {
    var table = Table(["queue", ">ready", "note"])
    table.add(["orders", "12", "x"])
    table.add(["o", "3400", ""])
    #expect(
      table.text(colours: false) == """
        queue   ready  note
        orders     12  x
        o        3400

        """)
  }

  @Test func aTableWithoutRowsIsNothing() {
    #expect(Table(["queue"]).text(colours: true) == "")
  }

  @Test func coloursSurroundTheTextAndNotThePadding() {
    var table = Table(["a", "b"])
    table.add([.init(text: "x", style: .good), .init(text: "long", style: .plain)])
    #expect(table.text(colours: true).hasSuffix("\u{1b}[32mx\u{1b}[0m  long\n"))
  }

  @Test(
    arguments: [
      ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="),
      ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
    ])
  func base64IsThatOfRFC4648(text: String, encoded: String) {
    #expect(base64(Array(text.utf8)) == encoded)
  }

  @Test(
    arguments: [
      (0, "1970-01-01 00:00:00.000"), (951_782_400_500, "2000-02-29 00:00:00.500"),
      (1_795_217_773_906, "2026-11-20 23:36:13.906"),
      (4_107_542_399_999, "2100-02-28 23:59:59.999"),
      (4_107_542_400_000, "2100-03-01 00:00:00.000"),
    ] as [(Int, String)])
  func timesAreShownInUniversalTime(milliseconds: Int, text: String) {
    #expect(MessageShow.clock(.milliseconds(milliseconds)) == text)
  }
}
