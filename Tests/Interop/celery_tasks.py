# The tasks of `celery_programs.py`.

import os
import time

from celery import Celery
from kombu.transport import pyamqp

import cluster

if os.environ.get("SKEIN_CELERY_QOS") == "global":
    pyamqp.Transport.qos_semantics_matches_spec = lambda *_: False

app = Celery(
    "tasks", backend="rpc://",
    broker=f"amqp://guest:guest@127.0.0.1:{os.environ['SKEIN_CELERY_PORT']}//")
app.conf.task_acks_late = True
app.conf.task_reject_on_worker_lost = True
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 4


@app.task
def add(left, right):
    return left + right


@app.task
def slow(number):
    time.sleep(0.02)
    return number


@app.task(bind=True, max_retries=5)
def flaky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.5)
    return self.request.retries


@app.task(bind=True)
def fatal_once(self, path):
    """Takes its worker along the first time."""
    if not os.path.exists(path):
        with open(path, "w") as file:
            file.write("died")
        os.kill(os.getppid(), 9)
        os._exit(9)
    return self.request.delivery_info.get("redelivered")
