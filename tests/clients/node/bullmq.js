// BullMQ with its defaults, a queue and its worker in one process: `bullmq.js PORT`.
'use strict';

const { end, library, order, record } = require('./conversation');
const { FlowProducer, Queue, QueueEvents, Worker } = library('bullmq');

const connection = { host: '127.0.0.1', port: Number(process.argv[2]) };
const JOBS = 50;

async function main() {
  const queue = new Queue('smoke', { connection });
  const events = new QueueEvents('smoke', { connection });
  const worker = new Worker(
    'smoke',
    async (job) => {
      if (job.name === 'square') return job.data.n * job.data.n;
      if (job.name === 'sum') return Object.values(await job.getChildrenValues()).reduce((a, b) => a + b, 0);
      if (job.name === 'second try' && job.attemptsMade > 0) return job.attemptsMade;
      throw new Error('as it should be');
    },
    { connection },
  );
  for (const part of [queue, events, worker]) part.on('error', () => {});
  await heard(queue, events);
  const jobs = await queue.addBulk(Array.from({ length: JOBS }, (_, n) => ({ name: 'square', data: { n } })));
  record('fifty jobs', await Promise.all(jobs.map((job) => job.waitUntilFinished(events))));
  const late = await queue.add('square', { n: 9 }, { delay: 50 });
  record('a delayed job', await late.waitUntilFinished(events));
  const retried = await queue.add('second try', {}, { attempts: 2 });
  record('a job with a second try', await retried.waitUntilFinished(events));
  const failing = await queue.add('broken', {});
  record('a failing job', await failing.waitUntilFinished(events).catch((error) => error));
  const urgent = await queue.add('square', { n: 11 }, { priority: 1 });
  record('a job with a priority', await urgent.waitUntilFinished(events));
  const flows = new FlowProducer({ connection });
  flows.on('error', () => {});
  const children = [3, 4].map((n) => ({ name: 'square', queueName: 'smoke', data: { n } }));
  const flow = await flows.add({ name: 'sum', queueName: 'smoke', children });
  record('a flow', await flow.job.waitUntilFinished(events));
  record('counts', await queue.getJobCounts('completed', 'failed', 'waiting', 'active', 'delayed'));
  await order('restart');
  const next = await queue.add('square', { n: 12 });
  record('behind a restart', await finished(queue, next.id));
  await connected(await events.backend.client);
  await Promise.all([worker.close(), events.close(), flows.close()]);
  await queue.close();
  end();
}

/**
 * QueueEvents reads its stream from wherever the end is when its first XREAD arrives, and says nothing of when that is: of
 * a job that ends before, no event is heard. The proxy connects to Redis for that XREAD, while the jobs' connections are up.
 */
async function heard(queue, events) {
  const resumed = new Promise((resolve) => events.once('resumed', () => resolve(true)));
  const later = () => new Promise((resolve) => setTimeout(resolve, 50, false));
  do {
    await queue.pause();
    await queue.resume();
  } while (!(await Promise.race([resumed, later()])));
}

/**
 * ioredis, told to disconnect while it waits to connect again, never says that it has ended, and BullMQ's close waits for
 * that for ever. With the proxy the job can be done before the events' connection is back: only connections with state of
 * their own are closed when Redis dies.
 */
async function connected(client) {
  while (client.status !== 'ready') await new Promise((resolve) => setTimeout(resolve, 50));
}

/** Asks until it is done: events of the time without Redis are lost. */
async function finished(queue, id) {
  for (let tries = 0; tries < 600; tries++) {
    const job = await queue.getJob(id).catch(() => undefined);
    if (job && (await job.getState()) === 'completed') return (await queue.getJob(id)).returnvalue;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return 'never';
}

main();
