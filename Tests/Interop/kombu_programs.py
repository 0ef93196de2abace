# kombu with its four types of exchange, and its simple queues, through all three nodes.

import kombu

import cluster

PATIENCE = 120


def types(connection):
    for kind, binding, arguments in [
        ("direct", "a.b", None), ("topic", "a.#", None), ("fanout", "", None),
        ("headers", "", {"x-match": "all", "colour": "red"}),
    ]:
        exchange = kombu.Exchange(f"kombu-{kind}", kind, durable=True)
        queue = kombu.Queue(
            f"kombu-{kind}", exchange, routing_key=binding, binding_arguments=arguments)
        taken = []
        producer = connection.Producer(serializer="json")
        for number in range(20):
            # Declared again before each publish, as kombu's users do.
            producer.publish(
                {"number": number}, exchange=exchange, routing_key="a.b", declare=[exchange, queue],
                headers={"colour": "red"})

        def take(body, message):
            taken.append(body["number"])
            message.ack()

        with connection.Consumer(queue, callbacks=[take]):
            while len(taken) < 20:
                connection.drain_events(timeout=PATIENCE)
        assert taken == list(range(20)), taken
        queue.bind(connection.default_channel).delete()


def simple(connection):
    queue = connection.SimpleQueue("kombu-simple")
    queue.put({"hello": 1})
    assert queue.qsize() == 1, queue.qsize()
    message = queue.get(timeout=PATIENCE)
    assert message.payload == {"hello": 1}, message.payload
    message.ack()
    queue.put({"again": 2})
    message = queue.get(timeout=PATIENCE)
    message.requeue()
    message = queue.get(timeout=PATIENCE)
    assert message.delivery_info["redelivered"], message.delivery_info
    message.reject()
    assert queue.qsize() == 0, queue.qsize()
    queue.close()


for node in (1, 2, 3):
    with kombu.Connection(
        f"amqp://guest:guest@127.0.0.1:{cluster.amqp_port(node)}//", heartbeat=10
    ) as connection:
        types(connection)
        simple(connection)
    with kombu.Connection(
        f"amqp://guest:guest@127.0.0.1:{cluster.amqp_port(node)}//", login_method="AMQPLAIN"
    ) as connection:
        simple(connection)
    print(f"ok      kombu through node {node}")
