// What a recorder writes, the reader reads.

import Testing

@testable import History

@Suite struct RecorderTests {
  @Test func everyKindOfEventIsReadBack() throws {
    var recorder = HistoryRecorder()
    let declare = HistoryOperation.declare("q")
    recorder.invoke(declare, by: "admin", at: 1)
    let settings = HistoryQueueSettings(
      deadLetter: "dead", retryDelay: 5, retryMax: 50, retryJitterBillionths: 200_000_000,
      maxDeliveries: 3, lease: 1000, priorities: 2, keyed: 4, timeToLive: 9000)
    recorder.ok(declare, by: "admin", at: 2, settings: settings)
    let publish = HistoryOperation.publish(
      "m \"1\" \n\u{1} ü 🦢", to: "q", delay: 3, timeToLive: 4, key: "k", priority: 1)
    recorder.invoke(publish, by: "p", at: 3)
    recorder.ok(publish, by: "p", at: 4, id: "17")
    recorder.deliver(
      HistoryDelivery(
        queue: "q", value: "m \"1\" \n\u{1} ü 🦢", token: 5, attempt: 1, lease: 100, granted: 77,
        id: "17"), to: "c", at: 5)
    recorder.leaderChange(to: "2", at: 6)
    recorder.clientKill("c", at: 6)
    recorder.nemesis("heal", at: 4)
    #expect(recorder.eventCount == 8)
    let bytes = recorder.takeBytes()
    #expect(recorder.bytes.isEmpty)

    let history = try History.parse(bytes)
    #expect(history.eventCount == 8)
    #expect(history.settings[0] == settings)
    #expect(history.events[3].partner == 2)
    #expect(history.values.text(history.messages[1].value) == "m \"1\" \n\u{1} ü 🦢")
    #expect(history.events[4].moment == 77)
    #expect(history.events[4].message == history.events[2].message)
    #expect(history.leaderChanges == [5])
    #expect(history.kills[history.events[4].process] == 6)
    #expect(history.events[7].time == 6)
  }
}
