// node-redis with what needs a connection of its own: `node_redis_state.js PORT`.
'use strict';

const { end, library, order, record } = require('./conversation');
const { BasicClientSideCache, createClient, createClientPool, RESP_TYPES } = library('redis');

const URL = `redis://127.0.0.1:${process.argv[2]}`;
const TRIES = 1000;

async function connected(options) {
  const redis = createClient({ url: URL, ...options });
  redis.on('error', () => {});
  return redis.connect();
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
  await ask('transaction', () => r.multi().set('t', '0').incr('t').get('t').get('missing').hSet('hash', 'f', 'v').hGetAll('hash').exec());
  await twice('behind it', () => r.get('t'));
  await ask('transaction with an error', () => r.multi().set('t', 'x').lPush('t', '1').get('t').exec());
  await ask('transaction that is refused', () => r.multi().set('t', 'never').addCommand(['GET']).exec());
  await twice('behind the refusal', () => r.get('t'));
  const pool = createClientPool({ url: URL });
  pool.on('error', () => {});
  await pool.connect();
  for (const disturbed of [false, true, false]) {
    await ask(`watch, ${disturbed ? '' : 'un'}disturbed`, () =>
      pool.execute(async (one) => {
        await one.watch('t');
        const value = await one.get('t');
        if (disturbed) await r.set('t', 'of another');
        return one.multi().set('t', `${value}!`).get('t').exec();
      }));
    await twice('behind it', () => r.get('t'));
  }
  const add = async () => {
    for (;;) {
      const done = await pool.execute(async (one) => {
        await one.watch('counted');
        const value = Number(await one.get('counted'));
        return one.multi().set('counted', String(value + 1)).exec().catch(() => undefined);
      });
      if (done) return;
    }
  };
  await Promise.all(Array.from({ length: 30 }, add));
  await twice('counted by thirty at once', () => r.get('counted'));
  await pool.close();
}

async function messages(r) {
  for (const RESP of [2, 3]) {
    const sub = await connected({ RESP });
    const heard = [];
    await sub.subscribe(['news', 'weather'], (text, channel) => heard.push([channel, text]));
    await sub.pSubscribe('n*', (text, channel) => heard.push(['n*', channel, text]));
    for (let n = 0; n < 100; n++) await r.publish('weather', String(n));
    await ask(`RESP${RESP}, publish`, () => r.publish('news', 'Grüße'));
    await poll('messages', () => heard.length === 102);
    record(`RESP${RESP}, heard`, heard);
    await ask(`RESP${RESP}, ping`, () => sub.ping());
    if (RESP === 3) await twice('get of a subscriber', () => sub.get('t'));
    await sub.unsubscribe();
    await sub.pUnsubscribe();
    await twice(`RESP${RESP}, a plain client again`, () => sub.get('t'));
    await sub.close();
  }
}

async function blocking(r) {
  const waiter = await connected({});
  await ask('blpop, timed out', () => waiter.blPop('queue', 0.1));
  const blocked = (count) => poll(`${count} blocked`, async () => (await r.info('clients')).includes(`blocked_clients:${count}\r\n`));
  for (const [label, wait, wake] of [
    ['blpop', () => waiter.blPop('queue', 0), () => r.rPush('queue', 'a')],
    ['blmove', () => waiter.blMove('queue', 'moved', 'LEFT', 'RIGHT', 0), () => r.rPush('queue', 'b')],
    ['bzpopmin', () => waiter.bzPopMin('scores', 0), () => r.zAdd('scores', { score: 1, value: 'm' })],
    ['xread', () => waiter.xRead({ key: 'stream', id: '$' }, { BLOCK: 0 }), () => r.xAdd('stream', '1-1', { f: 'v' })],
  ]) {
    const waiting = wait();
    await blocked(1);
    await wake();
    record(`${label}, woken`, await waiting);
  }
  waiter.blPop('queue', 0).catch(() => {});
  await blocked(1);
  waiter.destroy();
  await blocked(0);
  await ask('the list is untouched', () => r.lLen('queue'));
}

async function clientSideCache(r) {
  const cache = new BasicClientSideCache();
  const cached = await connected({ RESP: 3, clientSideCache: cache });
  await r.set('local', 'one');
  await twice('cached by the client', () => cached.get('local'));
  record('its statistics', [cache.stats().hitCount, cache.stats().missCount]);
  await r.set('local', 'two');
  await poll('the change', async () => (await cached.get('local')) === 'two');
  await ask('changed by itself', () => cached.set('local', 'three'));
  await poll('the own change', async () => (await cached.get('local')) === 'three');
  await r.flushDb();
  await poll('the flush', async () => (await cached.get('local')) === null);
  await ask('flushed', () => cached.get('local'));
  await cached.close();
}

async function large(r) {
  const bytes = r.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const value = Buffer.alloc(16 << 20, Buffer.from(Array.from({ length: 251 }, (_, n) => n)));
  await ask('16 MB set', () => r.set('large', value));
  await twice('16 MB get', () => bytes.get('large'));
  await ask('gone', () => r.del('large'));
}

async function outages(r) {
  const sub = await connected({});
  const heard = [];
  await sub.subscribe('news', (text) => heard.push(text));
  await order('restart');
  await poll('a message', async () => {
    await r.publish('news', 'back').catch(() => {});
    return heard.length;
  });
  record('subscribed again', heard[0]);
  await ask('transaction', () => r.multi().set('t', 'again').get('t').exec());
  await sub.close();
}

async function main() {
  const r = await connected({});
  for (const section of [transactions, messages, blocking, clientSideCache, large, outages]) await section(r);
  await r.close();
  end();
}

main();
