# aio-pika with robust connections: 1,000 messages while the leader dies, through a node that survives
# and through the one that dies.

import asyncio
import logging

import aio_pika

import cluster

# Connections are lost here on purpose; the library tells each at length.
logging.disable(logging.CRITICAL)


async def flow(ports, name, during):
    """Publishes with confirms and consumes at the same time; every message comes at least once."""
    urls = [f"amqp://guest:guest@127.0.0.1:{port}/" for port in ports]
    publisher = await aio_pika.connect_robust(urls[0], timeout=60, reconnect_interval=0.5)
    consumer = await aio_pika.connect_robust(urls[-1], timeout=60, reconnect_interval=0.5)
    channel = await publisher.channel()
    exchange = await channel.declare_exchange(name, aio_pika.ExchangeType.TOPIC, durable=True)
    source = await (await consumer.channel()).declare_queue(name, durable=True)
    await source.bind(exchange, "number.*")
    seen = set()
    done = asyncio.Event()

    async def take(message):
        async with message.process(ignore_processed=True):
            seen.add(int(message.body))
            if len(seen) == 1_000:
                done.set()

    await source.consume(take)
    for number in range(1_000):
        if number == 400:
            await asyncio.get_running_loop().run_in_executor(None, during)
        message = aio_pika.Message(
            str(number).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            headers={"number": number, "list": [1, "two"]})
        while True:
            try:
                confirmation = await exchange.publish(message, "number.any", timeout=60)
                break
            except (ConnectionError, asyncio.TimeoutError, aio_pika.exceptions.AMQPError,
                    aio_pika.exceptions.ChannelInvalidStateError, RuntimeError):
                # Unconfirmed: sent again once the connection is back.
                await asyncio.sleep(0.2)
        assert confirmation is not None
    await asyncio.wait_for(done.wait(), 120)
    assert seen == set(range(1_000))
    await publisher.close()
    await consumer.close()


async def main():
    port = cluster.amqp_port
    await flow([port(1), port(3)], "aio-quiet", lambda: None)
    print("ok      aio-pika, nothing happens")
    leader = cluster.leader()
    node = cluster.survivor_of(leader)
    await flow([port(node)], "aio-survivor", lambda: cluster.kill(leader))
    cluster.restart(leader)
    print(f"ok      aio-pika through node {node} while leader {leader} dies")
    leader = cluster.leader()

    def die_and_return():
        cluster.kill(leader)
        cluster.restart(leader)

    await flow([port(leader)], "aio-dying", die_and_return)
    print(f"ok      aio-pika through leader {leader}, which dies and comes back")


asyncio.run(main())
