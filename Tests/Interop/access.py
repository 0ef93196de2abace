# Users and virtual hosts, made by `skein` and used by pika: who may come, and where to. What `skein` has
# said to be done holds on every node at once, so nothing here asks twice.

import json
import subprocess

import pika
from pika.exceptions import (
    ConnectionClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError)

import cluster

PATIENCE = 120
NODES = (1, 2, 3)


def connect(user, password, vhost="/", node=1):
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            "127.0.0.1", cluster.amqp_port(node), vhost, pika.PlainCredentials(user, password),
            heartbeat=60, socket_timeout=PATIENCE, stack_timeout=PATIENCE,
            blocked_connection_timeout=PATIENCE))


def may_come(*arguments, **where):
    try:
        connect(*arguments, **where).close()
        return True
    except (ProbableAuthenticationError, ConnectionClosedByBroker) as error:
        assert "403" in str(error) and "ACCESS_REFUSED" in str(error), repr(error)
        return False


def may_come_anywhere(*arguments):
    """Whether all nodes let them in, or none does."""
    answers = {node: may_come(*arguments, node=node) for node in NODES}
    assert len(set(answers.values())) == 1, (arguments, answers)
    return answers[1]


def refused(*arguments, entered=None):
    """What `skein` says where it does nothing."""
    result = subprocess.run(
        [cluster.SKEIN, *arguments, "--dir", cluster.DIRECTORY], capture_output=True, text=True,
        input=entered, timeout=PATIENCE)
    assert result.returncode not in (0, 64), (arguments, result)
    assert result.stdout == "", (arguments, result)
    return result.stderr


def users():
    return json.loads(cluster.skein("user", "list", "--json"))["users"]


def come_and_go():
    assert users() == [], users()
    assert "guest" in cluster.skein("user", "list")
    assert not may_come_anywhere("worker", "first")
    # Only the first line is the password.
    cluster.skein("user", "add", "worker", entered="first\r\nsecond\n")
    assert users() == ["worker"], users()
    assert may_come_anywhere("worker", "first")
    for wrong in ("first\r", "second", ""):
        assert not may_come_anywhere("worker", wrong)
    said = refused("user", "add", "worker", entered="other\n")
    assert "user worker is there already" in said, said
    assert may_come_anywhere("worker", "first")

    stays = connect("worker", "first")
    with open(f"{cluster.DIRECTORY}/password", "w") as file:
        file.write("another one")
    said = json.loads(
        cluster.skein(
            "user", "password", "worker", "--password-file", f"{cluster.DIRECTORY}/password",
            "--json"))
    assert said == {"user": "worker"}, said
    assert not may_come_anywhere("worker", "first")
    assert may_come_anywhere("worker", "another one")
    # A connection that there is goes on.
    queue = stays.channel().queue_declare("", exclusive=True).method.queue
    assert queue.startswith("amq.gen-"), queue

    leader = cluster.leader()
    survivor = cluster.survivor_of(leader)
    cluster.kill(leader)
    assert may_come("worker", "another one", node=survivor)
    assert not may_come("worker", "first", node=survivor)
    cluster.skein("user", "add", "meanwhile", entered="x\n")
    cluster.skein("vhost", "add", "meanwhile")
    cluster.restart(leader)
    cluster.await_amqp(leader)
    # It has to catch up.
    connect("meanwhile", "x", vhost="meanwhile", node=leader).close()
    assert not may_come("worker", "first", node=leader)

    for user in ("meanwhile", "worker"):
        said = json.loads(cluster.skein("user", "remove", user, "--json"))
        assert said == {"removed": user}, said
    assert not may_come_anywhere("worker", "another one")
    said = refused("user", "remove", "worker")
    assert "there is no user worker" in said, said
    said = refused("user", "password", "worker", entered="x\n")
    assert "there is no user worker" in said, said
    assert users() == [], users()


def guest():
    assert may_come_anywhere("guest", "guest") and not may_come_anywhere("guest", "")
    said = refused("user", "remove", "guest")
    assert "user add guest" in said, said
    cluster.skein("user", "add", "guest", entered="not guest\n")
    assert not may_come_anywhere("guest", "guest")
    assert may_come_anywhere("guest", "not guest")
    cluster.skein("user", "remove", "guest")
    assert not may_come_anywhere("guest", "not guest")
    assert may_come_anywhere("guest", "guest")


def passwords_that_are_none():
    for entered in ("", "\n", "x" * 1025 + "\n", "x" * 1025):
        said = refused("user", "add", "nobody", entered=entered)
        assert "a password has 1 to 1024 bytes" in said, said
    said = refused("user", "add", "nobody", "--password-file", f"{cluster.DIRECTORY}/missing")
    assert "missing" in said, said
    for name in ("", "x" * 256):
        refused("user", "add", name, entered="x\n")
    assert users() == [], users()


def virtual_hosts():
    there = json.loads(cluster.skein("vhost", "list", "--json"))["vhosts"]
    assert "/" in there and "shop" not in there, there
    for node in NODES:
        try:
            connect("guest", "guest", vhost="shop", node=node)
            raise AssertionError("shop is there before it was added")
        except ProbableAccessDeniedError as error:
            assert "(530) 'NOT_ALLOWED - vhost shop not found'" in str(error), repr(error)
    # To add it again changes nothing.
    for _ in range(2):
        said = json.loads(cluster.skein("vhost", "add", "shop", "--json"))
        assert said == {"vhost": "shop"}, said
        for node in NODES:
            connect("guest", "guest", vhost="shop", node=node).close()
    # Each through one of the nodes, most of which did not decide it.
    for number in range(10):
        cluster.skein("vhost", "add", f"shop {number}")
        connect("guest", "guest", vhost=f"shop {number}", node=1 + number % 3).close()
    now = json.loads(cluster.skein("vhost", "list", "--json"))["vhosts"]
    assert set(now) == {*there, "shop", *(f"shop {number}" for number in range(10))}, now
    for wrong in ("", "a:b", "x" * 101):
        refused("vhost", "add", wrong)

    # One name in both hosts is two queues, and `skein` tells them apart.
    leader = cluster.leader()
    shop = connect("guest", "guest", vhost="shop", node=cluster.survivor_of(leader))
    home = connect("guest", "guest", node=leader)
    for connection, body in ((shop, b"in the shop"), (home, b"at home")):
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("orders", durable=True)
        channel.basic_publish("", "orders", body)
    names = {queue["name"] for queue in json.loads(cluster.skein("queue", "list", "--json"))["queues"]}
    assert {"orders", "//shop:orders"} <= names, names
    for connection, body in ((shop, b"in the shop"), (home, b"at home")):
        channel = connection.channel()
        method, _, got = channel.basic_get("orders")
        assert got == body, got
        channel.basic_ack(method.delivery_tag)
        assert channel.queue_delete("orders").method.message_count == 0
        connection.close()


for story in (come_and_go, guest, passwords_that_are_none, virtual_hosts):
    story()
    print(f"ok      {story.__name__}", flush=True)
