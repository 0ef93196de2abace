// basic.consume, cancel, get and qos.
//
// basic.qos global=false is told two ways. The standard says that it holds for the channel, RabbitMQ
// applies it to consumers to come. A program that gives each of its consumers a count of its own
// needs the second, one that changes the count while it consumes (Celery) the first. Here the count
// holds for the channel's consumers at once; if another consumer is opened afterwards, the count was
// meant for that one, and the earlier ones get back what they had.

import Base

extension ConnectionMachine {
  mutating func consume(_ method: BasicConsume, _ place: Int) throws(Failure) {
    let isReply = method.queue.elementsEqual(ReplyQueue.name.utf8)
    let queue = isReply ? ReplyQueue.name : try queueName(method.queue, place)
    if let fault = consumeFault(method, isReply: isReply, place) { throw .fault(fault) }
    let tag =
      method.consumerTag.isEmpty
      ? [UInt8](names.consumerTag().utf8) : [UInt8](method.consumerTag)
    lastConsumer += 1
    let consumer = ChannelConsumer(
      id: ConsumerID(lastConsumer), tag: tag, noAck: method.noAck, isReplyConsumer: isReply,
      ownPrefetch: channels[place].prefetch, prefetch: channels[place].prefetch)
    if isReply {
      ask(
        .consumeReplies(consumer.id), place, .basicConsume, .consume(consumer),
        noWait: method.noWait)
      return
    }
    giveBackPrefetch(place)
    ask(
      .consume(
        ConsumeRequest(
          consumer: consumer.id, queue: queue, noAck: method.noAck,
          isExclusive: method.exclusive, prefetch: consumer.prefetch,
          unknownArguments: table(method.arguments)
            .unknownNames(but: ConsumeRequest.knownArguments))), place, .basicConsume,
      .consume(consumer), noWait: method.noWait)
  }

  private func consumeFault(
    _ method: BasicConsume, isReply: Bool, _ place: Int
  ) -> Fault? {
    let consumers = channels[place].consumers
    if consumers.contains(where: { $0.tag.elementsEqual(method.consumerTag) }) {
      let tag = String(decoding: method.consumerTag, as: UTF8.self)
      return Fault(.notAllowed, "attempt to reuse consumer tag '\(tag)'")
    }
    guard consumers.count < settings.consumersPerChannelMax else {
      return Fault(
        .notAllowed,
        "reached maximum (\(settings.consumersPerChannelMax)) of consumers per channel")
    }
    guard isReply else { return nil }
    if !method.noAck {
      return Fault(.preconditionFailed, "reply consumer cannot acknowledge")
    }
    if channels[place].replyAddress != nil {
      return Fault(.preconditionFailed, "reply consumer already set")
    }
    return nil
  }

  /// Another consumer is opened: what was changed on the fly was meant for it.
  private mutating func giveBackPrefetch(_ place: Int) {
    var changed: [ConsumerPrefetch] = []
    for index in channels[place].consumers.indices {
      let consumer = channels[place].consumers[index]
      guard consumer.prefetch != consumer.ownPrefetch else { continue }
      channels[place].consumers[index].prefetch = consumer.ownPrefetch
      changed.append(ConsumerPrefetch(consumer: consumer.id, count: consumer.ownPrefetch))
    }
    if !changed.isEmpty { order(.setConsumerPrefetch(changed), place) }
  }

  mutating func cancel(_ method: BasicCancel, _ place: Int) throws(Failure) {
    let tag = [UInt8](method.consumerTag)
    guard let consumer = channels[place].consumers.first(where: { $0.tag == tag }) else {
      if !method.noWait {
        answerBehindPublishes(
          BasicCancelOK(consumerTag: method.consumerTag), place, .basicCancel)
      }
      return
    }
    ask(
      .cancel(consumer.id), place, .basicCancel, .cancel(consumer.id), noWait: method.noWait)
  }

  mutating func sendCancelOK(_ tag: [UInt8], _ place: Int) {
    tag.withUnsafeBytes {
      BasicCancelOK(consumerTag: $0).encode(channel: channels[place].number, into: &output)
    }
  }

  /// Forgets the consumer; what it holds can still be settled.
  mutating func removeConsumer(_ id: ConsumerID, _ place: Int) -> ChannelConsumer? {
    guard let index = channels[place].place(of: id) else { return nil }
    consumers.remove(UInt64(id.rawValue))
    let consumer = channels[place].consumers.remove(at: index)
    if consumer.isReplyConsumer { channels[place].replyAddress = nil }
    return consumer
  }

  mutating func get(_ method: BasicGet, _ place: Int) throws(Failure) {
    let queue = try queueName(method.queue, place)
    ask(
      .get(queue: queue, noAck: method.noAck), place, .basicGet, .get(noAck: method.noAck))
  }

  mutating func setQos(_ method: BasicQos, _ place: Int) throws(Failure) {
    guard method.prefetchSize == 0 else {
      throw .fault(Fault(.notImplemented, "prefetch_size!=0 (\(method.prefetchSize))"))
    }
    let count = method.prefetchCount
    if method.global {
      channels[place].channelPrefetch = count
      ask(.setChannelPrefetch(count), place, .basicQos, .ok(.basicQosOK))
      return
    }
    if channels[place].channelPrefetch != 0 {
      // As RabbitMQ does: the last word counts.
      channels[place].channelPrefetch = 0
      order(.setChannelPrefetch(0), place)
    }
    channels[place].prefetch = count
    var changed: [ConsumerPrefetch] = []
    for index in channels[place].consumers.indices {
      let consumer = channels[place].consumers[index]
      guard !consumer.noAck, consumer.prefetch != count else { continue }
      channels[place].consumers[index].prefetch = count
      changed.append(ConsumerPrefetch(consumer: consumer.id, count: count))
    }
    // Clients ask for this to hear first whether their publishes were in order.
    if changed.isEmpty, channels[place].published == 0 {
      BasicQosOK().encode(channel: channels[place].number, into: &output)
    } else {
      ask(.setConsumerPrefetch(changed), place, .basicQos, .ok(.basicQosOK))
    }
  }
}
