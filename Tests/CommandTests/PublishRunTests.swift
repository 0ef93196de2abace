// When `skein publish` gives up, and how headers are written.

import SkeinClient
import Testing

@testable import skein

@Suite struct PublishRunTests {
  @Test func sendingOnDoesNotPutTheEndOff() {
    let start = ContinuousClock.now
    var watch = AnswerWatch(limit: .seconds(2))
    #expect(watch.due == nil)
    for second in 0..<10 { watch.noteSent(at: start + .seconds(second)) }
    #expect(watch.due == start + .seconds(2))
    watch.noteAnswered(4, at: start + .seconds(11))
    #expect(watch.due == start + .seconds(13))
    watch.noteAnswered(6, at: start + .seconds(12))
    #expect(watch.due == nil)
    // An answer overtakes the note of its sending.
    watch.noteAnswered(1, at: start + .seconds(13))
    watch.noteSent(at: start + .seconds(14))
    #expect(watch.due == nil)
    watch.noteSent(at: start + .seconds(15))
    #expect(watch.due == start + .seconds(17))
  }

  @Test func headersOfOneNameAreAnArray() {
    let message = Message(
      body: [],
      headers: [MessageHeader("a", "1"), MessageHeader("b", "2"), MessageHeader("a", [0xff])])
    #expect(
      JSON.object(MessageText.contents(message)).text
        == #"{"headers":{"a":["1",{"base64":"/w=="}],"b":"2"},"body":""}"#)
  }
}
