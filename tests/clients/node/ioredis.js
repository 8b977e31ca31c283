// ioredis with its defaults: `ioredis.js PORT`.
'use strict';

const { end, library, order, record } = require('./conversation');
const Redis = library('ioredis');

const PORT = Number(process.argv[2]);
const MEGABYTE = Buffer.alloc(1 << 20, Buffer.from(Array.from({ length: 256 }, (_, n) => n)));
const RECOVERY_TRIES = 400;

const client = () => {
  const redis = new Redis(PORT);
  // Without a listener the library writes each lost connection to standard error.
  redis.on('error', () => {});
  return redis;
};

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
  await ask('set again', () => r.set('name', 'Grace', 'EX', 1000));
  await twice('get what was written anew', () => r.get('name'));
  await ask('mset', () => r.mset({ a: 1, b: 'two', c: 3.5 }));
  await twice('mget', () => r.mget('a', 'missing', 'b', 'c', 'a'));
  for (const key of ['a', 'b', 'c']) await twice(`get ${key}`, () => r.get(key));
  await ask('mget of what is known', () => r.mget(['a', 'b', 'c']));
  await ask('incr', () => r.incr('a'));
  await ask('getdel', () => r.getdel('c'));
  await twice('exists', () => r.exists('a', 'a', 'missing'));
  await twice('strlen', () => r.strlen('b'));
  await twice('getrange', () => r.getrange('b', -2, -1));
  await ask('del', () => r.del('a', 'b', 'missing'));
  await twice('get what was deleted', () => r.get('a'));
  await ask('unicode set', () => r.set('clé-ключ-鍵-🔑', 'Grüße, 世界 🌍'));
  await twice('unicode get', () => r.get('clé-ключ-鍵-🔑'));
  const key = Buffer.from([0, 13, 10, 255]);
  await ask('binary set', () => r.set(key, Buffer.from([0, 13, 10, 36, 45, 49, 13, 10, 254, 255])));
  await twice('binary get', () => r.getBuffer(key));
  await ask('1 MB set', () => r.set('big', MEGABYTE));
  await twice('1 MB get', () => r.getBuffer('big'));
  await ask('4 MB set', () => r.set('bigger', Buffer.concat([MEGABYTE, MEGABYTE, MEGABYTE, MEGABYTE])));
  await twice('4 MB get', () => r.getBuffer('bigger'));
}

async function pipelines(r) {
  await ask('pipeline', () =>
    r.pipeline().set('p', 0).incr('p').get('p').get('missing').mget('p', 'missing').hset('hash', 'f', 'v').hgetall('hash').exec());
  await ask('pipeline with an error', () => r.pipeline().set('p', 'x').lpush('p', 1).get('p').exec());
  const long = r.pipeline();
  for (let n = 0; n < 500; n++) long.set(`many${n}`, 'x'.repeat(n)).get(`many${n}`).incr('count');
  await ask('long pipeline', () => long.exec());
  // Commands that are not awaited one by one leave together.
  await ask('together', () => Promise.all(Array.from({ length: 200 }, (_, n) => r.get(`many${n}`))));
  const automatic = new Redis(PORT, { enableAutoPipelining: true });
  await ask('auto-pipelining', () => Promise.all([automatic.set('q', 1), automatic.get('q'), automatic.incr('q'), automatic.get('q')]));
  await automatic.quit();
}

async function types(r) {
  await ask('hgetall', () => r.hgetall('hash'));
  await ask('rpush', () => r.rpush('list', 'a', 'b'));
  await ask('lrange', () => r.lrange('list', 0, -1));
  await ask('sadd', () => r.sadd('set', 'a', 'b'));
  await ask('smembers', async () => (await r.smembers('set')).sort());
  await ask('zadd', () => r.zadd('zset', 1, 'a', 2.5, 'b'));
  await ask('zrange', () => r.zrange('zset', 0, -1, 'WITHSCORES'));
  await ask('xadd', () => r.xadd('stream', '1-1', 'f', 'v'));
  await ask('xrange', () => r.xrange('stream', '-', '+'));
}

async function scans(r) {
  const pipe = r.pipeline();
  for (let n = 0; n < 1000; n++) pipe.set(`scan:${String(n).padStart(4, '0')}`, n);
  await pipe.exec();
  const found = new Set();
  for await (const keys of r.scanStream({ match: 'scan:*', count: 100 })) keys.forEach((key) => found.add(key));
  record('scanStream', found);
  await ask('hscan', () => r.hscan('hash', 0));
  await ask('dbsize', () => r.dbsize());
}

async function scripts(r) {
  await ask('eval', () => r.eval("return {KEYS[1], ARGV[1], 7, false, {1, 'x'}}", 1, 'key', 'arg'));
  const sha = await r.script('LOAD', "return redis.call('incrby', KEYS[1], ARGV[1])");
  record('script load', sha);
  await ask('evalsha', () => r.evalsha(sha, 1, 'number', 5));
  await twice('get what it wrote', () => r.get('number'));
  await ask('evalsha of nothing', () => r.evalsha('0'.repeat(40), 0));
  r.defineCommand('bump', { numberOfKeys: 1, lua: "return redis.call('incrby', KEYS[1], 10)" });
  await ask('defined command', () => r.bump('number'));
  await twice('get what it bumped', () => r.get('number'));
  await ask('script flush', () => r.script('FLUSH'));
  await ask('defined command, loaded again', () => r.bump('number'));
  await twice('get what it bumped then', () => r.get('number'));
  await ask('an error inside', () => r.eval("return redis.call('incr', KEYS[1])", 1, 'hash'));
}

async function errors(r) {
  await twice('get of a hash', () => r.get('hash'));
  await ask('incr of a text', () => r.incr('name'));
  await ask('wrong arity', () => r.call('GET'));
  await ask('no such command', () => r.call('NOSUCHCOMMAND', 'x'));
  await ask('behind the errors', () => r.get('name'));
}

async function databases() {
  const other = new Redis(PORT, { db: 1, connectionName: 'smoke' });
  other.on('error', () => {});
  await ask('other database, name', () => other.client('GETNAME'));
  await twice('other database, get', () => other.get('name'));
  await ask('other database, set', () => other.set('name', 'Other'));
  await twice('other database, get behind it', () => other.get('name'));
  await ask('select', () => other.select(0));
  await twice('first database, get', () => other.get('name'));
  await ask('quit', () => other.quit());
}

async function outages(r) {
  await ask('before the outage', () => r.set('kept', 'no'));
  await twice('before the outage, get', () => r.get('kept'));
  await order('kill');
  // The library keeps a command until it is connected again.
  const during = r.get('kept').catch((error) => error);
  await order('boot');
  record('get while Redis is away', await during);
  await recovered('recovered', r);
  await twice('the new Redis is empty', () => r.get('kept'));
  await order('restart');
  await recovered('recovered from a restart between two commands', r);
  await r.set('loop', 1);
  const running = r.eval("if redis.call('get', KEYS[1]) then while true do end end return 'not again'", 1, 'loop').catch((error) => error);
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
      if (!/Connection is closed|max retries per request/.test(error.message)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  record(label, 'never');
}

async function main() {
  const r = client();
  for (const section of [strings, pipelines, types, scans, scripts, errors]) await section(r);
  await databases();
  await outages(r);
  await r.quit();
  end();
}

main();
