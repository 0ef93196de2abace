# A real Celery worker: retries with a countdown, ETA, results by rpc://, a worker killed in the middle
# of a task that is acknowledged late, and 500 tasks while the leader dies.

import os
import signal
import subprocess
import sys
import tempfile

import cluster

leader = cluster.leader()
node = cluster.survivor_of(leader)
os.environ["SKEIN_CELERY_PORT"] = str(cluster.amqp_port(node))

import celery_tasks as tasks  # It reads the port.

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 240


def worker(qos=""):
    """A worker; with qos="global" it speaks as to RabbitMQ 3, which takes basic.qos otherwise."""
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-c", "2", "-l", "WARNING",
         "--without-mingle"],
        cwd=HERE, env=dict(os.environ, SKEIN_CELERY_QOS=qos), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True)


def end(worker):
    """Ends a worker and whatever processes of its pool outlived it."""
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(timeout=20)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(worker.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    worker.wait()


def restarts(workers):
    """Workers end as they do on a deployment, in the middle of their work, and others take over."""
    for qos in ("", "global"):
        results = [tasks.slow.delay(number) for number in range(60)]
        assert results[5].get(timeout=PATIENCE) == 5
        last = workers[-1]
        last.terminate()
        workers.append(worker(qos))
        later = [tasks.slow.apply_async((number,), countdown=0.5) for number in range(60, 80)]
        assert [r.get(timeout=PATIENCE) for r in results + later] == list(range(80))
        last.wait(timeout=PATIENCE)
        print(f"ok      80 tasks while a worker is restarted, basic.qos global={qos == 'global'}")


def main():
    # Out of time is no reason to leave workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    first = worker()
    workers = [first]
    try:
        results = [tasks.add.delay(number, number) for number in range(50)]
        assert [r.get(timeout=PATIENCE) for r in results] == [2 * n for n in range(50)]
        print("ok      50 tasks with results by rpc://")
        assert tasks.flaky.delay().get(timeout=PATIENCE) == 2
        print("ok      retries with a countdown")
        assert tasks.add.apply_async((1, 2), countdown=1).get(timeout=PATIENCE) == 3
        print("ok      a task with an ETA")
        with tempfile.TemporaryDirectory() as directory:
            result = tasks.fatal_once.delay(os.path.join(directory, "died"))
            first.wait(timeout=PATIENCE)
            workers.append(worker("global"))
            assert result.get(timeout=PATIENCE) is True, "not redelivered"
        print("ok      a worker killed in the middle of a task; another one gets it, redelivered")
        restarts(workers)
        results = []
        for number in range(500):
            results.append(tasks.add.delay(number, 1))
            if number == 200:
                cluster.kill(leader)
        assert [r.get(timeout=PATIENCE) for r in results] == list(range(1, 501))
        cluster.restart(leader)
        print(f"ok      500 tasks through node {node} while leader {leader} died: none lost")
    finally:
        for each in workers:
            end(each)


main()
