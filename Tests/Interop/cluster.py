# The cluster that `run` has started.

import json
import os
import socket
import subprocess
import time

SKEIN = os.environ["SKEIN_BINARY"]
DIRECTORY = os.environ["SKEIN_CLUSTER"]
BASE_PORT = int(os.environ["SKEIN_BASE_PORT"])


def amqp_port(node):
    return BASE_PORT + 80 + node


def skein(*arguments, entered=None):
    """What it says; `entered` is its standard input."""
    result = subprocess.run(
        [SKEIN, *arguments, "--dir", DIRECTORY], capture_output=True, text=True, input=entered,
        timeout=120)
    if result.returncode != 0 and arguments[0] != "status":
        raise RuntimeError(f"skein {' '.join(arguments)}: {result.stdout}{result.stderr}")
    return result.stdout


def leader():
    """The node that leads; waits while none does."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        node = json.loads(skein("status", "--json"))["leader"]
        if node is not None:
            return node
        time.sleep(0.2)
    raise RuntimeError("no node leads")


def kill(node):
    skein("cluster", "kill", str(node))


def restart(node):
    skein("cluster", "restart", str(node))


def await_amqp(node):
    """Until the node's process takes connections."""
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", amqp_port(node)), timeout=120).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def survivor_of(node):
    """A node that is not the one that is about to die."""
    return 1 + node % 3
