# A real Celery worker: retries with a countdown, ETA, results by rpc://, a worker killed in the middle
# of a task that is acknowledged late, and 500 tasks while the leader dies.

import os
import subprocess
import sys
import tempfile

import cluster

leader = cluster.leader()
node = cluster.survivor_of(leader)
os.environ["SKEIN_CELERY_PORT"] = str(cluster.amqp_port(node))

import celery_tasks as tasks  # It reads the port.

HERE = os.path.dirname(os.path.abspath(__file__))


def worker():
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-c", "2", "-l", "WARNING",
         "--without-mingle"],
        cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def main():
    first = worker()
    workers = [first]
    try:
        results = [tasks.add.delay(number, number) for number in range(50)]
        assert [r.get(timeout=60) for r in results] == [2 * n for n in range(50)]
        print("ok      50 tasks with results by rpc://")
        assert tasks.flaky.delay().get(timeout=30) == 2
        print("ok      retries with a countdown")
        assert tasks.add.apply_async((1, 2), countdown=1).get(timeout=30) == 3
        print("ok      a task with an ETA")
        with tempfile.TemporaryDirectory() as directory:
            result = tasks.fatal_once.delay(os.path.join(directory, "died"))
            first.wait(timeout=30)
            workers.append(worker())
            assert result.get(timeout=60) is True, "not redelivered"
        print("ok      a worker killed in the middle of a task; another one gets it, redelivered")
        results = []
        for number in range(500):
            results.append(tasks.add.delay(number, 1))
            if number == 200:
                cluster.kill(leader)
        assert [r.get(timeout=120) for r in results] == list(range(1, 501))
        cluster.restart(leader)
        print(f"ok      500 tasks through node {node} while leader {leader} died: none lost")
    finally:
        for each in workers:
            if each.poll() is None:
                each.terminate()
                try:
                    each.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    each.kill()


main()
