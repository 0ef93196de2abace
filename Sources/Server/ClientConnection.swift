// What the gateway knows of one client's connection. The rules are in `ClientGateway`; here is only
// what must be remembered between events.

import Base
import QueueMachine
import Transport
import Wire

final class ClientConnection {
  enum Phase {
    /// Nothing of the preamble, or not all of it, has come.
    case preamble
    /// The preamble was right; `hello` must come.
    case hello
    case open
    /// The node is stopping: no more requests are taken, those taken are answered.
    case draining
    /// Everything was said: to be flushed, then the output is shut down.
    case lastWords
    /// The output is shut down; what still comes is dropped until the peer closes.
    case lingering
    /// Gone.
    case closed
  }

  /// The one session of the connection.
  enum SessionState {
    case none
    case opening(RequestID)
    case attaching(RequestID, SessionID)
    case attached(SessionID)
    case closing(RequestID, SessionID)
    /// There was one, and the client was told that it does not go on here: what it sent before it
    /// heard of that is dropped, since its outcome counts as unknown.
    case lost
  }

  /// Why nothing is read.
  enum Pause {
    case none
    /// The replica takes no more (G13): the client is pushed back by TCP.
    case noRoom
    /// The client does not read its answers.
    case outputFull
    /// A large answer is due; a second one is not begun before the client has room for it.
    case answerDue
    /// Too much waits for this node already.
    case crowded

    /// Whether what the client sent waits for this node to take it, not for the client's next bytes.
    var isForThisNode: Bool { self == .noRoom || self == .answerDue }
  }

  /// A request whose reply the queue machine will give.
  struct TaggedRequest {
    var tag: RequestTag
    var request: RequestID
    /// The consumer whose deliveries are void once the reply is there.
    var returningConsumer: ConsumerID?
  }

  let connection: Connection
  /// The poller's token and the connection's number in `SessionOrigin`; never used twice, not even
  /// by the next process of this node.
  let token: UInt64
  let acceptedAt: MonotonicTime

  var phase = Phase.preamble
  var session = SessionState.none
  var pause = Pause.none
  /// When reading went on last after a pause: silence is not counted from before.
  var resumedAt: MonotonicTime
  /// When the last words have to be over; `.never` before.
  var lingerDeadline = MonotonicTime.never

  /// What it has sent of frames that are not taken yet, as the gateway has counted it; see `countBegun`.
  var begunBytes = 0
  /// What it has waiting to be sent, as the gateway has counted it.
  var countedOutput = 0
  /// Before then nothing is looked up for it: what is next was not to be had.
  var deliverRetry = MonotonicTime(0)

  /// By ascending tag.
  var tagged: [TaggedRequest] = []
  /// Requests taken and not answered, tagged ones included.
  var waitingRequests = 0
  /// Of these, one whose answer may be large: there is never a second.
  var awaitsLargeAnswer = false
  /// Messages published and not answered.
  var unansweredPublishes = 0
  /// Why publishes taken were wrong, for their answers: of the last few only.
  private var publishFaults: [(first: PublishSequence, detail: String)] = []
  /// The last settle or extend taken, and the last one answered.
  var lastCommand = CommandSequence.zero
  var answeredCommand = CommandSequence.zero

  /// Confirms of this turn so far, one run: `confirmedCount` publishes from `confirmedFirst`.
  var confirmedFirst = PublishSequence.zero
  var confirmedMessage = MessageID(0)
  var confirmedCopies: UInt32 = 1
  var confirmedCount: UInt32 = 0
  /// The settled watermark of this turn; 0 for none.
  var settledThrough = CommandSequence.zero

  var outbox = Outbox()
  /// It stands in the gateway's list of connections with something in the outbox.
  var isDelivering = false
  /// It stands in the gateway's list of connections to flush.
  var isTouched = false

  init(_ connection: Connection, token: UInt64, now: MonotonicTime) {
    self.connection = connection
    self.token = token
    acceptedAt = now
    resumedAt = now
  }

  /// Whether frames are to be taken from what was read.
  var takesFrames: Bool {
    switch phase {
    case .hello, .open: pause == .none
    case .preamble, .draining, .lastWords, .lingering, .closed: false
    }
  }

  /// Whether anything can be said to the client.
  var takesAnswers: Bool {
    switch phase {
    case .preamble, .hello, .open, .draining: true
    case .lastWords, .lingering, .closed: false
    }
  }

  var isEnding: Bool { !takesAnswers }

  /// Whether everything that the client asked for was answered.
  var isAnswered: Bool {
    switch session {
    case .opening, .attaching, .closing: false
    case .none, .attached, .lost:
      unansweredPublishes == 0 && waitingRequests == 0 && answeredCommand >= lastCommand
    }
  }

  /// Forgets what the session was about to be told.
  func loseSession() {
    session = .lost
    outbox.removeAll()
    confirmedCount = 0
    settledThrough = .zero
    unansweredPublishes = 0
    publishFaults = []
    lastCommand = .zero
    answeredCommand = .zero
  }

  func note(_ detail: String, of first: PublishSequence) {
    if publishFaults.count == ClientGatewayLimits.publishFaults { publishFaults.removeFirst() }
    publishFaults.append((first, detail))
  }

  /// The sentence noted about the publish, once; empty if there is none.
  func takeDetail(of first: PublishSequence) -> String {
    guard let place = publishFaults.firstIndex(where: { $0.first == first }) else { return "" }
    return publishFaults.remove(at: place).detail
  }

  /// Takes the tagged request out; nil for a tag that this connection did not give.
  func takeTagged(_ tag: RequestTag) -> TaggedRequest? {
    guard let place = tagged.firstIndex(where: { $0.tag == tag }) else { return nil }
    return tagged.remove(at: place)
  }
}
