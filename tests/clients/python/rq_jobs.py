"""RQ with its defaults, its worker in this process: `rq_jobs.py PORT`."""

import operator
import sys

from conversation import record
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job

PORT = int(sys.argv[1])


def main():
    connection = Redis(port=PORT)
    queue = Queue(connection=connection)
    jobs = [queue.enqueue(operator.mul, n, n) for n in range(50)]
    bad = queue.enqueue(operator.truediv, 1, 0)
    behind = queue.enqueue(operator.add, 1, 2, depends_on=jobs[-1])
    record("queued", queue.count)
    worker = SimpleWorker([queue], connection=connection)
    record("worked", worker.work(burst=True, logging_level="CRITICAL"))
    record("results", [job.return_value() for job in jobs])
    record("the one that depends", behind.return_value())
    record("the one that fails", (bad.get_status(), bad.latest_result().exc_string.splitlines()[-1]))
    record("fetched anew", Job.fetch(jobs[7].id, connection=connection).return_value())
    record("registries", (len(queue.finished_job_registry), len(queue.failed_job_registry), queue.count))
    record("the end", True)


main()
