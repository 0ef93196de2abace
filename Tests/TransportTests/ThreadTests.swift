// What crosses threads: mailboxes, work queues, worker threads, signals.

import Base
import Glibc
import Synchronization
import Testing

@testable import Transport

@Suite struct MailboxTests {
  private func isReadable(_ descriptor: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
  }

  @Test func `messages of all threads arrive once, each thread's in order`() throws {
    let mailbox = try Mailbox<(sender: Int, number: Int)>()
    let poller = try Poller()
    try poller.add(mailbox.descriptor, token: 1, interest: .read)
    let senders = try (0..<4).map { sender in
      try WorkerThread(name: "sender \(sender)") {
        for number in stride(from: 0, to: 3000, by: 3) {
          mailbox.post((sender, number))
          mailbox.post(contentsOf: [(sender, number + 1), (sender, number + 2)])
        }
      }
    }
    var next = [0, 0, 0, 0]
    var events: [PollEvent] = []
    var messages: [(sender: Int, number: Int)] = []
    while next != [3000, 3000, 3000, 3000] {
      poller.wait(timeout: .seconds(10), into: &events)
      try #require(!events.isEmpty, "woken for \(next) of 3000 each")
      mailbox.take(into: &messages)
      for message in messages {
        #expect(message.number == next[message.sender])
        next[message.sender] += 1
      }
    }
    for sender in senders { sender.join() }
    #expect(!isReadable(mailbox.descriptor))
  }

  @Test func `a receiver that says when it sleeps misses nothing either`() throws {
    let mailbox = try Mailbox<Int>()
    let poller = try Poller()
    try poller.add(mailbox.descriptor, token: 1, interest: .read)
    let sender = try WorkerThread(name: "sender") {
      for number in 0..<20_000 { mailbox.post(number) }
    }
    var expected = 0
    var events: [PollEvent] = []
    var messages: [Int] = []
    while expected < 20_000 {
      let sleeps = mailbox.maySleep()
      poller.wait(timeout: sleeps ? .seconds(10) : .zero, into: &events)
      if sleeps { try #require(!events.isEmpty, "woken for \(expected)") }
      mailbox.takeAwake(into: &messages)
      for message in messages {
        #expect(message == expected)
        expected += 1
      }
    }
    sender.join()
  }

  @Test func `only the first post wakes, and taking ends it`() throws {
    let mailbox = try Mailbox<Int>()
    #expect(!isReadable(mailbox.descriptor))
    mailbox.post(1)
    mailbox.post(contentsOf: [2, 3])
    mailbox.post(contentsOf: [])
    #expect(isReadable(mailbox.descriptor))
    var messages = [99]
    mailbox.take(into: &messages)
    #expect(messages == [1, 2, 3] && !isReadable(mailbox.descriptor))
    mailbox.take(into: &messages)
    #expect(messages.isEmpty)
  }

  @Test func `a receiver that is awake is not woken`() throws {
    let mailbox = try Mailbox<Int>()
    var messages: [Int] = []
    mailbox.takeAwake(into: &messages)
    mailbox.post(1)
    #expect(!isReadable(mailbox.descriptor))
    #expect(!mailbox.maySleep())
    mailbox.takeAwake(into: &messages)
    #expect(messages == [1])
    #expect(mailbox.maySleep())
    mailbox.post(2)
    #expect(isReadable(mailbox.descriptor))
    mailbox.takeAwake(into: &messages)
    #expect(messages == [2] && !isReadable(mailbox.descriptor))
  }

  @Test func `at its bound a mailbox refuses what may be refused`() throws {
    let mailbox = try Mailbox<Int>(bound: 2)
    #expect(mailbox.tryPost(1) && mailbox.tryPost(2) && !mailbox.tryPost(3))
    mailbox.post(4)
    var messages: [Int] = []
    mailbox.take(into: &messages)
    #expect(messages == [1, 2, 4])
    #expect(mailbox.tryPost(5))
  }
}

@Suite struct WorkQueueTests {
  @Test func `a worker gets every job once and in order, and then the end`() throws {
    let queue = WorkQueue<Int>()
    let done = Mutex<[Int]>([])
    let worker = try WorkerThread(name: "worker") {
      while let jobs = queue.take() { done.withLock { $0 += jobs } }
    }
    for number in stride(from: 0, to: 3000, by: 3) {
      queue.post(number)
      queue.post(contentsOf: [number + 1, number + 2])
    }
    queue.close()
    queue.close()
    worker.join()
    worker.join()
    #expect(done.withLock { $0 } == Array(0..<3000))
    #expect(queue.take() == nil && queue.count == 0)
  }

  @Test func `a sleeping worker is woken by a job and by the end`() throws {
    let queue = WorkQueue<Int>()
    let answers = try Mailbox<Int>()
    let poller = try Poller()
    try poller.add(answers.descriptor, token: 1, interest: .read)
    let worker = try WorkerThread(name: "worker") {
      var batch: [Int] = []
      while queue.take(into: &batch) { answers.post(contentsOf: batch.map { $0 * 2 }) }
      answers.post(-1)
    }
    var events: [PollEvent] = []
    var messages: [Int] = []
    for round in 1...20 {
      while !queue.isWorkerAsleep { sched_yield() }
      queue.post(round)
      poller.wait(timeout: .seconds(10), into: &events)
      answers.take(into: &messages)
      #expect(messages == [round * 2])
    }
    while !queue.isWorkerAsleep { sched_yield() }
    queue.close()
    poller.wait(timeout: .seconds(10), into: &events)
    answers.take(into: &messages)
    #expect(messages == [-1])
    worker.join()
  }
}

@Suite struct WorkerThreadTests {
  @Test func `a thread has its name, cut to 15 bytes, and blocks signals`() throws {
    let seen = Mutex<(name: String, blocksTerm: Bool)>(("", false))
    let thread = try WorkerThread(name: "storage-and-more") {
      var name = [UInt8](repeating: 0, count: 32)
      let file = open("/proc/thread-self/comm", O_RDONLY)
      let count = read(file, &name, name.count)
      closeDescriptor(file)
      var mask = sigset_t()
      pthread_sigmask(SIG_BLOCK, nil, &mask)
      let text = String(decoding: name.prefix(max(0, count - 1)), as: UTF8.self)
      let found = (text, sigismember(&mask, SIGTERM) == 1)
      seen.withLock { $0 = found }
    }
    thread.join()
    #expect(seen.withLock { $0.name } == "storage-and-mor")
    #expect(seen.withLock { $0.blocksTerm })
  }
}

@Suite struct SignalTests {
  @Test func `a signal is an event, and the mask is put back`() throws {
    // Of this thread alone: a signal to the process could end the test run.
    let outcome = Mutex<[Int32]>([])
    let thread = try WorkerThread(name: "signals") {
      var found: [Int32] = []
      do {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGUSR1)
        pthread_sigmask(SIG_UNBLOCK, &set, nil)
        let poller = try Poller()
        var events: [PollEvent] = []
        do {
          let source = try SignalSource([SIGUSR1, SIGUSR2])
          try poller.add(source.descriptor, token: 9, interest: .read)
          #expect(source.next() == nil)
          pthread_kill(pthread_self(), SIGUSR1)
          pthread_kill(pthread_self(), SIGUSR2)
          poller.wait(timeout: .seconds(10), into: &events)
          #expect(events.map(\.token) == [9])
          while let signal = source.next() { found.append(signal) }
        }
        var mask = sigset_t()
        pthread_sigmask(SIG_BLOCK, nil, &mask)
        #expect(sigismember(&mask, SIGUSR1) == 0)
      } catch {
        Issue.record("\(error)")
      }
      outcome.withLock { $0 = found }
    }
    thread.join()
    #expect(outcome.withLock { Set($0) } == [SIGUSR1, SIGUSR2])
  }

  @Test func `writing to a closed pipe is an error after SIGPIPE is ignored`() {
    Signals.ignoreSIGPIPE()
    var ends: [Int32] = [0, 0]
    #expect(pipe(&ends) == 0)
    closeDescriptor(ends[0])
    #expect(write(ends[1], "x", 1) == -1 && errno == EPIPE)
    closeDescriptor(ends[1])
  }
}
