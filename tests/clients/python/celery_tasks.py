"""Celery with Redis as its broker and for its results, both with their defaults: a worker and those who ask it, in one
process: `celery_tasks.py PORT`."""

import sys
import time

from celery import Celery, chord, group
from celery.contrib.testing.worker import start_worker
from conversation import order, record

PORT = sys.argv[1]
URL = f"redis://127.0.0.1:{PORT}/0"
PATIENCE = 60
app = Celery("smoke", broker=URL, backend=URL)


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def broken():
    raise ValueError("as it should be")


@app.task(bind=True, max_retries=3)
def second_try(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return self.request.retries


def main():
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=PATIENCE) as worker:
        results = [add.delay(n, n) for n in range(50)]
        record("fifty tasks", [result.get(timeout=PATIENCE) for result in results])
        record("a group", group(add.s(n, 1) for n in range(10))().get(timeout=PATIENCE))
        record("a chain", (add.s(1, 2) | add.s(3) | add.s(4))().get(timeout=PATIENCE))
        record("a chord", chord([add.s(n, n) for n in range(10)])(total.s()).get(timeout=PATIENCE))
        record("a retry", second_try.delay().get(timeout=PATIENCE))
        record("a failure", broken.delay().get(timeout=PATIENCE, propagate=False))
        # What is queued in a Redis that keeps nothing is lost with it; the worker itself goes on, but for a worker that
        # loses its connection before it has acknowledged a task: kombu 5 fails with an AttributeError then.
        record("acknowledged", all_is_acknowledged(worker))
        order("restart")
        record("behind a restart", behind_a_restart())
    record("the end", True)


def all_is_acknowledged(worker):
    """Waits until the worker has read that each task it was handed is no longer its own."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        qos = worker.consumer.task_consumer.channel.qos
        if not set(qos._delivered) - set(qos._dirty):
            return True
        time.sleep(0.01)
    return False


def behind_a_restart():
    """Asks until there is an answer: a task may be put into a queue that nobody reads yet."""
    for _ in range(PATIENCE):
        try:
            return add.delay(20, 22).get(timeout=2)
        except Exception:  # whichever a lost connection is in the broker and in the backend
            continue
    return "never"


main()
