# Programs as they stand in tutorials on RabbitMQ, each checking its own result, against any node of a
# running Skein cluster: `python programs.py PORT [NAME…]`. `run` starts a cluster and calls this.

import datetime
import decimal
import os
import sys
import time
import uuid

import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker, NackError, UnroutableError

PORT = int(sys.argv[1])
# How long to wait for what must come, seconds: only a broken cluster takes so long, however slow the
# machine. Nothing here asserts that anything is fast.
PATIENCE = 120


def connect(port=None, user="guest", password="guest", vhost="/"):
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1", port or PORT, vhost, pika.PlainCredentials(user, password),
            heartbeat=60, blocked_connection_timeout=PATIENCE, socket_timeout=PATIENCE,
            stack_timeout=PATIENCE))


def name(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def wait_for(connection, condition):
    """Lets what comes be handled until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        connection.process_data_events(0.1)


def count(channel, queue):
    """How many messages nobody holds."""
    return channel.queue_declare(queue, passive=True).method.message_count


def drain(channel, queue, count):
    """Takes and acknowledges `count` messages."""
    taken = []
    for method, properties, body in channel.consume(queue, inactivity_timeout=PATIENCE):
        if method is None:
            break
        channel.basic_ack(method.delivery_tag)
        taken.append((method, properties, body))
        if len(taken) == count:
            break
    channel.cancel()
    return taken


def fails(code, action, *arguments, **named):
    """Calls `action`, which must close its channel with `code`; returns the text."""
    connection = connect()
    channel = connection.channel()
    try:
        action(channel, *arguments, **named)
    except ChannelClosedByBroker as error:
        check(error.reply_code == code, f"{error.reply_code} {error.reply_text}, not {code}")
        connection.close()
        return error.reply_text
    raise AssertionError(f"no {code}")


# The tutorials of RabbitMQ.


def die_at_work(queue):
    """A worker of its own, which takes four messages, acknowledges one, and is gone."""
    worker = connect().channel()
    worker.basic_qos(prefetch_count=4)
    seen = 0
    for method, _, _ in worker.consume(queue, inactivity_timeout=PATIENCE):
        seen += 1
        if seen == 2:
            worker.basic_ack(method.delivery_tag)
            worker.queue_declare(queue, passive=True)
            return


def work_queue():
    """A durable queue, persistent messages; a consumer that dies and another that gets them."""
    queue = name("task")
    first = connect()
    channel = first.channel()
    channel.queue_declare(queue, durable=True)
    for number in range(10):
        channel.basic_publish(
            "", queue, str(number).encode(), pika.BasicProperties(delivery_mode=2))
    child = os.fork()
    if child == 0:
        try:
            die_at_work(queue)
        finally:
            # The child must not go on as a second parent, whatever happens.
            os._exit(1)
    os.waitpid(child, 0)
    taken = drain(channel, queue, 9)
    check([body for _, _, body in taken] == [b"0"] + [b"%d" % n for n in range(2, 10)],
          [body for _, _, body in taken])
    check(taken[0][0].redelivered and not taken[-1][0].redelivered, "redelivered")
    first.close()


def fair_dispatch():
    queue = name("fair")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    channel.basic_qos(prefetch_count=1)
    held = []
    channel.basic_consume(queue, lambda c, m, p, b: held.append(m.delivery_tag))
    for _ in range(5):
        channel.basic_publish("", queue, b"x")
    wait_for(connection, lambda: held)
    # One that were delivered too much would have come before this answer.
    check(count(channel, queue) == 4, "more than one taken")
    check(len(held) == 1, f"{len(held)} held with prefetch 1")
    channel.basic_ack(held[0])
    wait_for(connection, lambda: len(held) > 1)
    check(count(channel, queue) == 3, "more than one taken after one ack")
    check(len(held) == 2, f"{len(held)} delivered after one ack")
    connection.close()


def publish_subscribe():
    exchange = name("logs")
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare(exchange, "fanout")
    queues = []
    for _ in range(2):
        queue = channel.queue_declare("", exclusive=True).method.queue
        check(queue.startswith("amq.gen-"), queue)
        channel.queue_bind(queue, exchange)
        queues.append(queue)
    channel.basic_publish(exchange, "", b"to all")
    for queue in queues:
        check(drain(channel, queue, 1)[0][2] == b"to all", queue)
    channel.exchange_delete(exchange)
    connection.close()


def routing():
    exchange = name("direct_logs")
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare(exchange, "direct", durable=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    for severity in ["warning", "error"]:
        channel.queue_bind(queue, exchange, severity)
    for severity in ["info", "warning", "error"]:
        channel.basic_publish(exchange, severity, severity.encode())
    check([m.routing_key for m, _, _ in drain(channel, queue, 2)] == ["warning", "error"], "keys")
    check(count(channel, queue) == 0, "one too many")
    channel.exchange_delete(exchange)
    connection.close()


def topics():
    exchange = name("topic_logs")
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare(exchange, "topic")
    wanted = {"#": 4, "kern.*": 2, "*.critical": 2, "kern.#": 3}
    queues = {}
    for key in wanted:
        queues[key] = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queues[key], exchange, key)
    channel.confirm_delivery()
    for key in ["kern.critical", "kern.info", "kern", "cron.critical"]:
        channel.basic_publish(exchange, key, b"")
    for key, number in wanted.items():
        found = count(channel, queues[key])
        check(found == number, f"{key}: {found}")
    channel.exchange_delete(exchange)
    connection.close()


def headers_exchange():
    exchange = name("headers")
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare(exchange, "headers")
    both = channel.queue_declare("", exclusive=True).method.queue
    either = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(both, exchange, "", {"x-match": "all", "a": 1, "b": "x"})
    channel.queue_bind(either, exchange, "", {"x-match": "any", "a": 1, "b": "x"})
    channel.confirm_delivery()
    for headers in [{"a": 1, "b": "x", "c": 2}, {"a": 1}, {"c": 3}]:
        channel.basic_publish(exchange, "", b"", pika.BasicProperties(headers=headers))
    found = (count(channel, both), count(channel, either))
    check(found == (1, 2), found)
    channel.exchange_delete(exchange)
    connection.close()


def rpc():
    connection = connect()
    server = connection.channel()
    queue = name("rpc")
    server.queue_declare(queue)

    addresses = []

    def answer(channel, method, properties, body):
        addresses.append(properties.reply_to)
        channel.basic_publish(
            "", properties.reply_to, str(int(body) * 2).encode(),
            pika.BasicProperties(correlation_id=properties.correlation_id))
        channel.basic_ack(method.delivery_tag)

    server.basic_consume(queue, answer)
    for reply_to in ["", "amq.rabbitmq.reply-to"]:
        client = connection.channel()
        replies = []
        if not reply_to:
            reply_to = client.queue_declare("", exclusive=True).method.queue
        client.basic_consume(
            reply_to, lambda c, m, p, b: replies.append((p.correlation_id, b)), auto_ack=True)
        client.basic_publish(
            "", queue, b"21", pika.BasicProperties(reply_to=reply_to, correlation_id="7"))
        wait_for(connection, lambda: replies)
        check(replies == [("7", b"42")], (reply_to, replies))
        # Servers ask whether the asker is still there.
        check(count(connection.channel(), addresses[-1]) == 0, addresses)
        client.close()
    connection.close()


def confirms():
    queue = name("confirmed")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"1")
    channel.basic_publish("", queue, b"2")
    try:
        channel.basic_publish("", queue, b"3")
        raise AssertionError("a full queue took a message")
    except NackError:
        pass
    try:
        channel.basic_publish("", name("nowhere"), b"x", mandatory=True)
        raise AssertionError("no return")
    except UnroutableError as error:
        check(error.messages[0].method.reply_code == 312, error)
        check(error.messages[0].body == b"x", error)
    connection.close()


# Retries and persistence.


def nack_and_reject():
    queue, dead = name("work"), name("dead")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(dead, durable=True)
    channel.queue_declare(queue, durable=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    channel.basic_publish("", queue, b"again")
    method, _, body = next(channel.consume(queue, inactivity_timeout=PATIENCE))
    check(not method.redelivered, "redelivered at first")
    channel.basic_nack(method.delivery_tag, requeue=True)
    method, _, body = next(channel.consume(queue, inactivity_timeout=PATIENCE))
    check(method.redelivered and body == b"again", "not redelivered")
    channel.basic_reject(method.delivery_tag, requeue=False)
    channel.cancel()
    method, properties, body = drain(channel, dead, 1)[0]
    death = properties.headers["x-death"][0]
    check(body == b"again" and death["reason"] == "rejected" and death["queue"] == queue, death)
    check(death["count"] == 1 and death["exchange"] == "" and death["routing-keys"] == [queue], death)
    check(properties.headers["x-first-death-reason"] == "rejected", properties.headers)
    connection.close()


def dead_letters_again():
    """A dead letter under its queue's own key has no CC any more; published again it remembers."""
    queue, copy, dead = name("work"), name("copy"), name("dead")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(dead, durable=True)
    channel.queue_declare(queue, durable=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    headers = {"CC": [copy], "BCC": ["nobody"]}
    for count in (1, 2):
        channel.basic_publish("", queue, b"x", pika.BasicProperties(headers=headers))
        method, properties, _ = next(channel.consume(queue, inactivity_timeout=PATIENCE))
        check("BCC" not in properties.headers, properties.headers)
        channel.basic_reject(method.delivery_tag, requeue=False)
        channel.cancel()
        _, properties, _ = drain(channel, dead, 1)[0]
        headers = properties.headers
        check("CC" not in headers, headers)
        deaths = headers["x-death"]
        check(len(deaths) == 1 and deaths[0]["count"] == count, deaths)
        if count == 1:
            check(deaths[0]["routing-keys"] == [queue, copy], deaths)
    connection.close()


def delivery_limit():
    """A limit of 3 is 4 deliveries, then the dead-letter exchange."""
    for argument in ["x-delivery-limit", "x-max-delivery-attempts"]:
        queue, dead, exchange = name("limited"), name("dead"), name("dlx")
        connection = connect()
        channel = connection.channel()
        channel.exchange_declare(exchange, "fanout", durable=True)
        channel.queue_declare(dead, durable=True)
        channel.queue_bind(dead, exchange)
        channel.queue_declare(queue, durable=True, arguments={
            "x-queue-type": "quorum", argument: 3, "x-dead-letter-exchange": exchange})
        for number in range(10):
            channel.basic_publish("", queue, b"%d" % number)
        counts = {}
        for method, properties, body in channel.consume(queue, inactivity_timeout=PATIENCE):
            if method is None:
                break
            counts.setdefault(body, []).append((properties.headers or {}).get("x-delivery-count"))
            channel.basic_nack(method.delivery_tag, requeue=True)
            if sum(len(each) for each in counts.values()) == 40:
                break
        check(len(counts) == 10 and all(each == [None, 1, 2, 3] for each in counts.values()), counts)
        begin = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        for _, properties, _ in drain(connection.channel(), dead, 10):
            headers = properties.headers
            death = headers["x-death"][0]
            check(death["reason"] == "delivery_limit" and death["queue"] == queue, death)
            check(death["count"] == 1 and death["exchange"] == "" and death["routing-keys"] == [queue], death)
            check(abs(death["time"].replace(tzinfo=None) - begin) < datetime.timedelta(hours=1), death)
            first = [headers[f"x-first-death-{part}"] for part in ("reason", "queue", "exchange")]
            check(first == ["delivery_limit", queue, ""], first)
        channel.cancel()
        check(count(channel, queue) == 0, "still there")
        channel.exchange_delete(exchange)
        connection.close()


def expiration():
    queue, dead = name("short"), name("dead")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(dead, durable=True)
    channel.queue_declare(queue, durable=True, arguments={
        "x-message-ttl": 200, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    channel.basic_publish("", queue, b"by queue")
    channel.basic_publish("", queue, b"by itself", pika.BasicProperties(expiration="100"))
    found = {body: properties for _, properties, body in drain(channel, dead, 2)}
    check(set(found) == {b"by queue", b"by itself"}, found)
    own = found[b"by itself"]
    check(own.expiration is None, own)
    check(own.headers["x-death"][0]["original-expiration"] == "100", own.headers)
    check(own.headers["x-death"][0]["reason"] == "expired", own.headers)
    connection.close()


def length_limit():
    queue, dead = name("short"), name("dead")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(dead, durable=True)
    channel.queue_declare(queue, durable=True, arguments={
        "x-max-length": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    channel.confirm_delivery()
    for number in range(3):
        channel.basic_publish("", queue, str(number).encode())
    check([b for _, _, b in drain(channel, queue, 2)] == [b"1", b"2"], "not the oldest went")
    _, properties, body = drain(channel, dead, 1)[0]
    check(body == b"0" and properties.headers["x-death"][0]["reason"] == "maxlen", properties)
    connection.close()


def retry_delay():
    """Our own arguments: an exponential wait before the next attempt, and a delayed publish."""
    queue = name("retried")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={
        "x-retry-delay": 300, "x-retry-max-delay": 5000, "x-delivery-limit": 10,
        "x-queue-type": "quorum"})
    channel.basic_publish("", queue, b"x")
    times = []
    for method, _, _ in channel.consume(queue, inactivity_timeout=PATIENCE):
        times.append(time.monotonic())
        if len(times) == 3:
            channel.basic_ack(method.delivery_tag)
            break
        channel.basic_nack(method.delivery_tag, requeue=True)
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    check(gaps[0] >= 0.3 and gaps[1] >= 0.6, gaps)
    begin = time.monotonic()
    channel.basic_publish("", queue, b"y", pika.BasicProperties(headers={"x-delay": 400}))
    method, _, body = next(channel.consume(queue, inactivity_timeout=PATIENCE))
    check(body == b"y" and time.monotonic() - begin >= 0.4, time.monotonic() - begin)
    channel.basic_ack(method.delivery_tag)
    connection.close()


def lease_and_jitter():
    """Our own arguments: who holds a message for too long loses it, and a wait drawn at random."""
    queue = name("leased")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-lease": 300})
    channel.basic_publish("", queue, b"x")
    check(channel.basic_get(queue)[2] == b"x", "got")
    wait_for(connection, lambda: channel.is_closed)
    check(channel.is_closed, "the lease does not end")
    channel = connection.channel()
    method, _, body = channel.basic_get(queue, auto_ack=True)
    check(method.redelivered and body == b"x", "redelivered")

    queue = name("jittered")
    channel.queue_declare(queue, durable=True, arguments={
        "x-retry-delay": 400, "x-retry-max-delay": 400, "x-retry-jitter": decimal.Decimal("0.5")})
    channel.basic_publish("", queue, b"x")
    method, _, _ = next(channel.consume(queue, inactivity_timeout=PATIENCE))
    begin = time.monotonic()
    channel.basic_nack(method.delivery_tag, requeue=True)
    for wait in (0.2, 0.2, 0.2):
        method, _, _ = next(channel.consume(queue, inactivity_timeout=PATIENCE))
        waited, begin = time.monotonic() - begin, time.monotonic()
        check(waited >= wait, waited)
        channel.basic_nack(method.delivery_tag, requeue=True)
    channel.queue_delete(queue)
    connection.close()


def recover():
    queue = name("recovered")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    for number in range(3):
        channel.basic_publish("", queue, b"%d" % number)
    taken = [channel.basic_get(queue) for _ in range(3)]
    check([body for _, _, body in taken] == [b"0", b"1", b"2"], taken)
    channel.basic_ack(taken[1][0].delivery_tag)
    channel.basic_recover(requeue=True)
    again = [channel.basic_get(queue) for _ in range(3)]
    check([each[2] for each in again] == [b"0", b"2", None], again)
    check(all(method.redelivered for method, _, _ in again[:2]), again)
    connection.close()


def long_names():
    """Names, keys and tags of 255 bytes."""
    connection = connect()
    channel = connection.channel()
    queue, exchange, key, tag = [name(kind).ljust(255, kind) for kind in "qxkt"]
    channel.queue_declare(queue, durable=True)
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, key)
    channel.basic_publish(exchange, key, b"x")
    taken = []
    channel.basic_consume(
        queue, lambda _, method, properties, body: taken.append(method), consumer_tag=tag)
    wait_for(connection, lambda: taken)
    method = taken[0]
    check((method.consumer_tag, method.exchange, method.routing_key) == (tag, exchange, key), method)
    channel.basic_ack(method.delivery_tag)
    channel.queue_delete(queue)
    channel.exchange_delete(exchange)
    connection.close()


def priorities():
    queue = name("urgent")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-max-priority": 5})
    channel.confirm_delivery()
    for priority in [0, 5, 3]:
        channel.basic_publish(
            "", queue, str(priority).encode(), pika.BasicProperties(priority=priority))
    check([b for _, _, b in drain(channel, queue, 3)] == [b"5", b"3", b"0"], "order")
    connection.close()


def transactions():
    queue = name("tx")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    channel.tx_select()
    channel.basic_publish("", queue, b"rolled back")
    channel.tx_rollback()
    channel.basic_publish("", queue, b"1")
    channel.basic_publish("", queue, b"2")
    other = connection.channel()
    check(count(other, queue) == 0, "before commit")
    channel.tx_commit()
    check(count(other, queue) == 2, "after commit")
    connection.close()


def auto_ack_and_multiple():
    queue = name("many")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    for number in range(100):
        channel.basic_publish("", queue, str(number).encode())
    seen = []
    for method, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=PATIENCE):
        if method is None:
            break
        seen.append(body)
        if len(seen) == 100:
            break
    channel.cancel()
    check(len(seen) == 100, len(seen))
    check(count(channel, queue) == 0, "left")
    for number in range(50):
        channel.basic_publish("", queue, str(number).encode())
    tags = []
    for method, _, _ in channel.consume(queue, inactivity_timeout=PATIENCE):
        tags.append(method.delivery_tag)
        if len(tags) == 50:
            break
    channel.basic_ack(tags[39], multiple=True)
    channel.basic_nack(tags[49], multiple=True, requeue=True)
    channel.cancel()
    check(len(drain(channel, queue, 10)) == 10 and count(channel, queue) == 0, "nacked")
    connection.close()


def properties_come_back():
    queue = name("properties")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    sent = pika.BasicProperties(
        content_type="application/json", content_encoding="utf-8", delivery_mode=2, priority=4,
        correlation_id="c", reply_to="r", message_id="m", timestamp=1_700_000_000, type="t",
        user_id="guest", app_id="a", cluster_id="k",
        headers={"int": 1, "long": 1 << 40, "text": "ü", "bytes": b"\xff\x00", "none": None,
                 "list": [1, "two", True], "table": {"inner": {"deep": 3}}, "flag": False,
                 "decimal": decimal.Decimal("-1.25")})
    body = bytes(range(256)) * 2000
    channel.basic_publish("", queue, body, sent)
    method, got, back = drain(channel, queue, 1)[0]
    check(back == body and got == sent, (got, sent))
    check(method.exchange == "" and method.routing_key == queue, method)
    connection.close()


def errors():
    queue, missing = name("q"), name("missing")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    exclusive = name("mine")
    channel.queue_declare(exclusive, exclusive=True)
    text = fails(404, lambda c: c.queue_declare(missing, passive=True))
    check(text == f"NOT_FOUND - no queue '{missing}' in vhost '/'", text)
    text = fails(404, lambda c: c.basic_get(missing))
    text = fails(404, lambda c: c.exchange_declare(missing, passive=True))
    check(text == f"NOT_FOUND - no exchange '{missing}' in vhost '/'", text)
    text = fails(406, lambda c: c.queue_declare(queue, durable=False))
    check(text == f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost"
          " '/': received 'false' but current is 'true'", text)
    text = fails(406, lambda c: c.queue_declare(
        queue, durable=True, arguments={"x-message-ttl": 1000}))
    check("received the value '1000' of type 'signedint' but current is none" in text, text)
    text = fails(405, lambda c: c.queue_declare(exclusive, passive=True))
    check(text.startswith("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue"), text)
    text = fails(403, lambda c: c.queue_declare("amq.mine"))
    check("contains reserved prefix 'amq.*'" in text, text)
    fails(403, lambda c: c.exchange_delete("amq.direct"))
    fails(406, lambda c: c.basic_ack(99) or c.queue_declare(queue, passive=True))

    def publish_to_missing(c):
        c.basic_publish(missing, "", b"")
        c.queue_declare(queue, passive=True)

    text = fails(404, publish_to_missing)
    check(text == f"NOT_FOUND - no exchange '{missing}' in vhost '/'", text)
    channel.basic_publish("", queue, b"x")
    fails(406, lambda c: c.queue_delete(queue, if_empty=True))
    check(channel.queue_delete(missing).method.message_count == 0, "delete of nothing")
    connection.close()
    for wrong in [dict(password="no"), dict(user="nobody"), dict(vhost="none")]:
        try:
            connect(**wrong)
            raise AssertionError(f"let in with {wrong}")
        except (ConnectionClosedByBroker, pika.exceptions.ProbableAuthenticationError,
                pika.exceptions.AuthenticationError,
                pika.exceptions.ProbableAccessDeniedError,
                pika.exceptions.AMQPConnectionError):
            pass


def queue_lifecycle():
    queue = name("gone")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue, auto_delete=True)
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame))
    channel.basic_consume(queue, lambda *_: None)
    other = connect()
    check(other.channel().queue_delete(queue).method.message_count == 0, "deleted")
    wait_for(connection, lambda: cancelled)
    check(len(cancelled) == 1, "the consumer was not told")
    channel.queue_declare(queue, auto_delete=True)
    tag = channel.basic_consume(queue, lambda *_: None)
    channel.basic_cancel(tag)
    text = fails(404, lambda c: c.queue_declare(queue, passive=True))
    channel.queue_declare(queue, durable=True)
    for _ in range(3):
        channel.basic_publish("", queue, b"x")
    check(channel.queue_purge(queue).method.message_count == 3, "purged")
    exclusive = other.channel().queue_declare("", exclusive=True).method.queue
    other.close()
    fails(404, lambda c: c.queue_declare(exclusive, passive=True))
    connection.close()


def large_messages():
    """20 MiB, as client libraries test with, and as much as is taken; one byte more is refused."""
    most = 32 << 20
    connection = connect()
    channel = connection.channel()
    channel.confirm_delivery()
    queue = channel.queue_declare("", exclusive=True).method.queue
    bodies = [os.urandom(20 << 20), os.urandom(most)]
    for body in bodies:
        channel.basic_publish("", queue, body)
    check(channel.basic_get(queue)[2] == bodies[0], "got, as it was")
    connection.close()
    text = fails(311, lambda c: (c.confirm_delivery(), c.basic_publish("", name("none"), bytes(most + 1))))
    check(f"message size {most + 1} is larger than configured max size {most}" in text, text)

    # All of a transaction goes into one step.
    connection = connect()
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.tx_select()
    channel.basic_publish("", queue, bodies[1])
    channel.basic_publish("", queue, b"behind it")
    channel.tx_commit()
    check([body for _, _, body in drain(channel, queue, 2)] == [bodies[1], b"behind it"], "consumed")
    connection.close()


PROGRAMS = [
    work_queue, fair_dispatch, publish_subscribe, routing, topics, headers_exchange, rpc, confirms,
    nack_and_reject, dead_letters_again, delivery_limit, expiration, length_limit, retry_delay,
    lease_and_jitter, recover, long_names, priorities,
    transactions, auto_ack_and_multiple, properties_come_back, errors, queue_lifecycle,
    large_messages,
]

if __name__ == "__main__":
    wanted = sys.argv[2:]
    passed, failed = 0, 0
    for program in PROGRAMS:
        if wanted and program.__name__ not in wanted:
            continue
        begin = time.monotonic()
        try:
            program()
            passed += 1
            print(f"ok      {program.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Exception as error:  # Every program's own failure is told, and the next one runs.
            failed += 1
            print(f"FAILED  {program.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
