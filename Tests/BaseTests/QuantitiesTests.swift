// Spans of time and amounts as text: what is accepted, what is refused, and that what is printed
// can be read back.

import Base
import Testing

@Suite struct QuantitiesTests {
  @Test(arguments: [
    ("500ms", 500_000_000), ("10s", 10_000_000_000), ("5m", 300_000_000_000),
    ("1h", 3_600_000_000_000), ("1d", 86_400_000_000_000), ("1.5s", 1_500_000_000),
    ("1h30m", 5_400_000_000_000), ("0", 0), ("0s", 0), ("250us", 250_000), ("7ns", 7),
  ])
  func durationsAreRead(text: String, nanoseconds: UInt64) {
    #expect(DurationText.parse(text) == Nanoseconds(nanoseconds))
  }

  @Test(arguments: [
    "", "s", "10", "10 s", "-1s", "1.s", ".5s", "1.5ns", "10x", "300000000d", "s10",
  ])
  func whatIsNoDurationIsRefused(text: String) {
    #expect(DurationText.parse(text) == nil)
  }

  @Test(
    arguments: [
      (0, "0s"), (500_000_000, "500ms"), (1_500_000_000, "1500ms"), (10_000_000_000, "10s"),
      (5_400_000_000_000, "1h30m"), (86_400_000_000_001, "1d1ns"),
    ] as [(UInt64, String)])
  func durationsAreWrittenSoThatTheyCanBeRead(nanoseconds: UInt64, text: String) {
    #expect(DurationText.format(Nanoseconds(nanoseconds)) == text)
    #expect(DurationText.parse(text) == Nanoseconds(nanoseconds))
  }

  @Test(
    arguments: [
      ("0", 0), ("17", 17), ("17B", 17), ("64KiB", 65_536), ("16MiB", 16 << 20),
      ("1.5MiB", 3 << 19),
      ("2GiB", 2 << 30), ("1TiB", 1 << 40), ("5kB", 5000), ("5MB", 5_000_000),
    ] as [(String, UInt64)])
  func amountsOfBytesAreRead(text: String, bytes: UInt64) {
    #expect(ByteCountText.parse(text) == bytes)
  }

  @Test(arguments: ["", "MiB", "1.5B", "-1", "16 MiB", "16mib", "1e3", "99999999999TiB"])
  func whatIsNoAmountOfBytesIsRefused(text: String) {
    #expect(ByteCountText.parse(text) == nil)
  }

  @Test(arguments: [(0, "0B"), (1500, "1500B"), (65_536, "64KiB"), (16 << 20, "16MiB")])
  func amountsOfBytesAreWrittenSoThatTheyCanBeRead(bytes: UInt64, text: String) {
    #expect(ByteCountText.format(bytes) == text)
    #expect(ByteCountText.parse(text) == bytes)
  }

  @Test(
    arguments: [
      (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_468_006, "1.4 MiB"), (235_520, "230 KiB"),
    ] as [(UInt64, String)])
  func amountsAreRoundedForReading(bytes: UInt64, text: String) {
    #expect(ByteCountText.rounded(bytes) == text)
  }

  @Test func countsTakeThousandsAndMillions() {
    #expect(CountText.parse("100") == 100)
    #expect(CountText.parse("20k") == 20_000)
    #expect(CountText.parse("1.5M") == 1_500_000)
    #expect(CountText.parse("1.5") == nil)
    #expect(CountText.parse("k") == nil)
  }
}
