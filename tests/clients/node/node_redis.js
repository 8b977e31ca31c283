// node-redis with its defaults: `node_redis.js PORT`.
'use strict';

const { end, library, order, record } = require('./conversation');
const { createClient, createClientPool, RESP_TYPES, defineScript } = library('redis');

const PORT = Number(process.argv[2]);
const URL = `redis://127.0.0.1:${PORT}`;
const MEGABYTE = Buffer.alloc(1 << 20, Buffer.from(Array.from({ length: 256 }, (_, n) => n)));
const CLOSED = 'Socket closed unexpectedly';
const RECOVERY_TRIES = 400;

async function connected(options) {
  const redis = createClient({ url: URL, ...options });
  // The library ends the process when nobody listens.
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

async function strings(r) {
  await ask('ping', () => r.ping());
  await ask('set', () => r.set('name', 'Ada'));
  await twice('get', () => r.get('name'));
  await twice('get what is missing', () => r.get('missing'));
  await ask('set again', () => r.set('name', 'Grace', { expiration: { type: 'EX', value: 1000 } }));
  await twice('get what was written anew', () => r.get('name'));
  await ask('mset', () => r.mSet({ a: '1', b: 'two', c: '3.5' }));
  await twice('mget', () => r.mGet(['a', 'missing', 'b', 'c', 'a']));
  for (const key of ['a', 'b', 'c']) await twice(`get ${key}`, () => r.get(key));
  await ask('mget of what is known', () => r.mGet(['a', 'b', 'c']));
  await ask('incr', () => r.incr('a'));
  await ask('getdel', () => r.getDel('c'));
  await twice('exists', () => r.exists(['a', 'a', 'missing']));
  await twice('strlen', () => r.strLen('b'));
  await twice('getrange', () => r.getRange('b', -2, -1));
  await ask('del', () => r.del(['a', 'b', 'missing']));
  await twice('get what was deleted', () => r.get('a'));
  await ask('unicode set', () => r.set('clé-ключ-鍵-🔑', 'Grüße, 世界 🌍'));
  await twice('unicode get', () => r.get('clé-ключ-鍵-🔑'));
  const bytes = r.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const key = Buffer.from([0, 13, 10, 255]);
  await ask('binary set', () => r.set(key, Buffer.from([0, 13, 10, 36, 45, 49, 13, 10, 254, 255])));
  await twice('binary get', () => bytes.get(key));
  await ask('1 MB set', () => r.set('big', MEGABYTE));
  await twice('1 MB get', () => bytes.get('big'));
  await ask('4 MB set', () => r.set('bigger', Buffer.concat([MEGABYTE, MEGABYTE, MEGABYTE, MEGABYTE])));
  await twice('4 MB get', () => bytes.get('bigger'));
}

async function pipelines(r) {
  await ask('pipeline', () =>
    r.multi().set('p', '0').incr('p').get('p').get('missing').mGet(['p', 'missing']).hSet('hash', 'f', 'v').hGetAll('hash').execAsPipeline());
  await ask('pipeline with an error', () => r.multi().set('p', 'x').lPush('p', '1').get('p').execAsPipeline());
  const calls = [];
  for (let n = 0; n < 500; n++) calls.push(r.set(`many${n}`, 'x'.repeat(n)), r.get(`many${n}`), r.incr('count'));
  await ask('long pipeline', () => Promise.all(calls));
  await ask('together', () => Promise.all(Array.from({ length: 200 }, (_, n) => r.get(`many${n}`))));
  const pool = createClientPool({ url: URL });
  pool.on('error', () => {});
  await pool.connect();
  await ask('pool', () => Promise.all(Array.from({ length: 50 }, (_, n) => pool.get(`many${n}`))));
  await pool.close();
}

async function types(r) {
  await ask('hgetall', () => r.hGetAll('hash'));
  await ask('rpush', () => r.rPush('list', ['a', 'b']));
  await ask('lrange', () => r.lRange('list', 0, -1));
  await ask('sadd', () => r.sAdd('set', ['a', 'b']));
  await ask('smembers', async () => (await r.sMembers('set')).sort());
  await ask('zadd', () => r.zAdd('zset', [{ score: 1, value: 'a' }, { score: 2.5, value: 'b' }]));
  await ask('zrange', () => r.zRangeWithScores('zset', 0, -1));
  await ask('zscore', () => r.zScore('zset', 'b'));
  await ask('xadd', () => r.xAdd('stream', '1-1', { f: 'v' }));
  await ask('xrange', () => r.xRange('stream', '-', '+'));
  await ask('config get', () => r.configGet('maxmemory-policy'));
  await ask('info', async () => (await r.info('server')).includes('redis_version:'));
}

async function scans(r) {
  await Promise.all(Array.from({ length: 1000 }, (_, n) => r.set(`scan:${String(n).padStart(4, '0')}`, String(n))));
  const found = new Set();
  for await (const keys of r.scanIterator({ MATCH: 'scan:*', COUNT: 100 })) keys.forEach((key) => found.add(key));
  record('scanIterator', found);
  await ask('hscan', () => r.hScan('hash', '0'));
  await ask('dbsize', () => r.dbSize());
}

async function scripts(r) {
  await ask('eval', () => r.eval("return {KEYS[1], ARGV[1], 7, false, {1, 'x'}}", { keys: ['key'], arguments: ['arg'] }));
  const sha = await r.scriptLoad("return redis.call('incrby', KEYS[1], ARGV[1])");
  record('script load', sha);
  await ask('evalsha', () => r.evalSha(sha, { keys: ['number'], arguments: ['5'] }));
  await twice('get what it wrote', () => r.get('number'));
  await ask('evalsha of nothing', () => r.evalSha('0'.repeat(40), { keys: [] }));
  const bump = defineScript({
    NUMBER_OF_KEYS: 1,
    SCRIPT: "return redis.call('incrby', KEYS[1], 10)",
    parseCommand: (parser, key) => parser.pushKey(key),
    transformReply: undefined,
  });
  const scripted = await connected({ scripts: { bump } });
  await ask('defined script', () => scripted.bump('number'));
  await twice('get what it bumped', () => r.get('number'));
  await ask('script flush', () => r.scriptFlush());
  await ask('defined script, loaded again', () => scripted.bump('number'));
  await twice('get what it bumped then', () => r.get('number'));
  await scripted.close();
  await ask('an error inside', () => r.eval("return redis.call('incr', KEYS[1])", { keys: ['hash'] }));
}

async function errors(r) {
  await twice('get of a hash', () => r.get('hash'));
  await ask('incr of a text', () => r.incr('name'));
  await ask('wrong arity', () => r.sendCommand(['GET']));
  await ask('no such command', () => r.sendCommand(['NOSUCHCOMMAND', 'x']));
  await ask('behind the errors', () => r.get('name'));
}

async function protocols() {
  for (const RESP of [2, 3]) {
    const r = await connected({ RESP, name: `smoke${RESP}` });
    await ask(`RESP${RESP}, name`, () => r.clientGetName());
    await twice(`RESP${RESP}, get`, () => r.get('name'));
    await twice(`RESP${RESP}, missing`, () => r.get('missing'));
    await ask(`RESP${RESP}, hgetall`, () => r.hGetAll('hash'));
    await ask(`RESP${RESP}, zscore`, () => r.zScore('zset', 'b'));
    await r.close();
  }
}

async function databases() {
  const other = await connected({ database: 1 });
  await twice('other database, get', () => other.get('name'));
  await ask('other database, set', () => other.set('name', 'Other'));
  await twice('other database, get behind it', () => other.get('name'));
  await ask('select', () => other.select(0));
  await twice('first database, get', () => other.get('name'));
  await other.close();
}

async function outages(r) {
  await ask('before the outage', () => r.set('kept', 'no'));
  await twice('before the outage, get', () => r.get('kept'));
  await order('kill');
  // The library keeps a command while it is not connected, but not what it had sent when the connection ended.
  const during = r.get('kept').catch((error) => (error.message === CLOSED ? 'the connection ended' : error));
  await order('boot');
  record('get while Redis is away', await during);
  await recovered('recovered', r);
  await twice('the new Redis is empty', () => r.get('kept'));
  await order('restart');
  await recovered('recovered from a restart between two commands', r);
  await r.set('loop', '1');
  const endless = "if redis.call('get', KEYS[1]) then while true do end end return 'not again'";
  const running = r.eval(endless, { keys: ['loop'] }).catch((error) => error);
  await order('kill while busy');
  await order('boot');
  record('a command under way when Redis died', await running);
  await recovered('recovered from that', r);
}

async function recovered(label, r) {
  for (let tries = 0; tries < RECOVERY_TRIES; tries++) {
    try {
      // Each worker of the proxy finds Redis again by itself, within 250 ms: this asks them for both keys.
      await r.get('kept');
      await r.set('back', label);
      return record(label, await r.get('back'));
    } catch (error) {
      if (error.message !== CLOSED) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  record(label, 'never');
}

async function main() {
  const r = await connected({});
  for (const section of [strings, pipelines, types, scans, scripts, errors]) await section(r);
  await protocols();
  await databases();
  await outages(r);
  await r.close();
  end();
}

main();
