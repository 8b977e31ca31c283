// ioredis with what needs a connection of its own: `ioredis_state.js PORT`.
'use strict';

const { end, library, order, record } = require('./conversation');
const Redis = library('ioredis');

const PORT = Number(process.argv[2]);
const TRIES = 1000;

function client(options) {
  const redis = new Redis(PORT, options);
  redis.on('error', () => {});
  return redis;
}

async function ask(label, call) {
  record(label, await call().catch((error) => error));
}

async function twice(label, call) {
  await ask(label, call);
  await ask(`${label}, again`, call);
}

async function poll(label, look) {
  for (let tries = 0; tries < TRIES; tries++) {
    const found = await look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`never: ${label}`);
}

async function transactions(r) {
  await r.set('t', 'old');
  await twice('before', () => r.get('t'));
  await ask('transaction', () => r.multi().set('t', 0).incr('t').get('t').get('missing').hset('hash', 'f', 'v').hgetall('hash').exec());
  await twice('behind it', () => r.get('t'));
  await ask('transaction with an error', () => r.multi().set('t', 'x').lpush('t', 1).get('t').exec());
  await ask('transaction that is refused', () => r.multi().set('t', 'never').call('GET').exec());
  await twice('behind the refusal', () => r.get('t'));
  await ask('multi', () => r.multi({ pipeline: false }));
  await ask('queued', () => r.set('t', 'slowly'));
  await ask('queued too', () => r.get('t'));
  await ask('exec', () => r.exec());
  await twice('behind exec', () => r.get('t'));
  await ask('multi', () => r.multi({ pipeline: false }));
  await ask('queued', () => r.set('t', 'never'));
  await ask('discard', () => r.discard());
  await twice('behind discard', () => r.get('t'));
  const other = client();
  for (const disturbed of [false, true, false]) {
    await ask('watch', () => r.watch('t'));
    await ask('its value', () => r.get('t'));
    if (disturbed) await ask('disturbed', () => other.set('t', 'of another'));
    await ask('its value now', () => r.get('t'));
    await ask(`transaction, ${disturbed ? '' : 'un'}disturbed`, () => r.multi().append('t', '!').exec());
    await twice('behind it', () => r.get('t'));
  }
  await other.quit();
}

async function messages(r) {
  const sub = client();
  const heard = [];
  sub.on('message', (channel, text) => heard.push([channel, text]));
  sub.on('pmessage', (pattern, channel, text) => heard.push([pattern, channel, text]));
  await ask('subscribe', () => sub.subscribe('news', 'weather'));
  await ask('psubscribe', () => sub.psubscribe('n*'));
  await ask('ping of a subscriber', () => sub.ping());
  await ask('get of a subscriber', () => sub.get('t'));
  for (let n = 0; n < 100; n++) await r.publish('weather', n);
  await ask('publish', () => r.publish('news', 'Grüße'));
  await poll('messages', () => heard.length === 102);
  record('heard', heard);
  await ask('unsubscribe', () => sub.unsubscribe('weather'));
  await ask('leave', async () => [await sub.unsubscribe('news'), await sub.punsubscribe('n*')]);
  await twice('a plain client again', () => sub.get('t'));
  await sub.quit();
}

async function blocking(r) {
  const waiter = client();
  await ask('blpop, timed out', () => waiter.blpop('queue', 0.1));
  const blocked = (count) => poll(`${count} blocked`, async () => (await r.info('clients')).includes(`blocked_clients:${count}\r\n`));
  for (const [label, wait, wake] of [
    ['blpop', () => waiter.blpop('queue', 0), () => r.rpush('queue', 'a')],
    ['brpoplpush', () => waiter.brpoplpush('queue', 'moved', 0), () => r.rpush('queue', 'b')],
    ['bzpopmin', () => waiter.bzpopmin('scores', 0), () => r.zadd('scores', 1, 'm')],
    ['xread', () => waiter.xread('BLOCK', 0, 'STREAMS', 'stream', '$'), () => r.xadd('stream', '1-1', 'f', 'v')],
  ]) {
    const waiting = wait();
    await blocked(1);
    await wake();
    record(`${label}, woken`, await waiting);
  }
  // Pipelined behind a blocking command: it waits its turn.
  const both = Promise.all([waiter.blpop('queue', 0), waiter.get('t'), waiter.incr('behind')]);
  await blocked(1);
  await r.rpush('queue', 'c');
  record('behind a blocking command', await both);
  waiter.blpop('queue', 0).catch(() => {});
  await blocked(1);
  waiter.disconnect();
  await blocked(0);
  await ask('the list is untouched', () => r.llen('queue'));
}

async function monitoring(r) {
  const monitor = await client().monitor();
  const seen = new Promise((resolve) => {
    monitor.on('monitor', (time, args) => args[1] === 'monitored' && resolve(args));
  });
  await r.set('monitored', 'yes');
  record('monitor', await seen);
  monitor.disconnect();
}

async function large(r) {
  const value = Buffer.alloc(16 << 20, Buffer.from(Array.from({ length: 251 }, (_, n) => n)));
  await ask('16 MB set', () => r.set('large', value));
  await twice('16 MB get', () => r.getBuffer('large'));
  await ask('gone', () => r.del('large'));
}

async function outages(r) {
  const sub = client();
  const heard = [];
  sub.on('message', (channel, text) => heard.push(text));
  await sub.subscribe('news');
  const waiter = client();
  const waiting = waiter.blpop('queue', 0);
  await poll('blocked', async () => (await r.info('clients')).includes('blocked_clients:1\r\n'));
  await order('restart');
  // The library subscribes and waits again by itself.
  await poll('a message', async () => {
    await r.publish('news', 'back').catch(() => {});
    return heard.length;
  });
  record('subscribed again', heard[0]);
  await ask('push', () => r.rpush('queue', 'again'));
  record('waits again', await waiting);
  await ask('transaction', () => r.multi().set('t', 'again').get('t').exec());
  await Promise.all([sub.quit(), waiter.quit()]);
}

async function main() {
  const r = client();
  for (const section of [transactions, messages, blocking, monitoring, large, outages]) await section(r);
  await r.quit();
  end();
}

main();
