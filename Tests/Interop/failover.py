# A client of a node that survives the leader sees a pause and nothing else: no close, no confirm lost
# or doubled, nothing that it holds redelivered.

import time

import pika

import cluster

PATIENCE = 120


def connect(node):
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1", cluster.amqp_port(node), heartbeat=60, socket_timeout=PATIENCE,
            stack_timeout=PATIENCE, blocked_connection_timeout=PATIENCE))


def main():
    for turn in range(2):
        leader = cluster.leader()
        node = cluster.survivor_of(leader)
        queue = f"failover-{turn}"
        publisher = connect(node)
        channel = publisher.channel()
        channel.queue_declare(queue, durable=True)
        channel.confirm_delivery()
        for number in range(50):
            channel.basic_publish("", queue, str(number).encode())
        consumer = connect(node)
        work = consumer.channel()
        work.basic_qos(prefetch_count=10)
        messages = work.consume(queue, inactivity_timeout=PATIENCE)
        held, bodies, redelivered = [], [], 0
        for _ in range(5):
            method, _, body = next(messages)
            held.append(method.delivery_tag)
            bodies.append(int(body))
        begin = time.monotonic()
        cluster.kill(leader)
        channel.basic_publish("", queue, b"50")
        pause = time.monotonic() - begin
        for number in range(51, 200):
            channel.basic_publish("", queue, str(number).encode())
        for tag in held:
            work.basic_ack(tag)
        while len(bodies) < 200:
            method, _, body = next(messages)
            assert method is not None, f"stalled behind {len(bodies)} messages"
            work.basic_ack(method.delivery_tag)
            bodies.append(int(body))
            redelivered += method.redelivered
        assert bodies == list(range(200)), bodies
        assert redelivered == 0, f"{redelivered} redelivered"
        work.cancel()
        consumer.close()
        left = channel.queue_declare(queue, durable=True, passive=True).method.message_count
        assert left == 0, f"{left} left"
        publisher.close()
        cluster.restart(leader)
        print(f"ok      leader {leader} killed, client of node {node}: a pause of {pause:.2f} s")


main()
