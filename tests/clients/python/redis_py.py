"""redis-py with its defaults: `redis_py.py sync|asyncio PORT`. One scenario for both, since their methods have the same
names; what asyncio returns is awaited, what the other returns is there already."""

import asyncio
import functools
import inspect
import sys
import threading

import redis
import redis.asyncio
from conversation import order, record

IS_ASYNC = sys.argv[1] == "asyncio"
PORT = int(sys.argv[2])
FLAVOUR = redis.asyncio if IS_ASYNC else redis
MEGABYTE = bytes(range(256)) * 4096
# The library retries by itself; this is for what comes behind its last try.
RECOVERY_TRIES = 400


async def use(result):
    return await result if inspect.isawaitable(result) else result


async def collect(iterator):
    if hasattr(iterator, "__aiter__"):
        return [item async for item in iterator]
    return list(iterator)


async def ask(label, call):
    """Records what a call returns or raises, but for errors of connections, whose texts name ports."""
    record(label, await outcome(call))


async def outcome(call):
    try:
        return await use(call())
    except redis.ConnectionError:
        return "ConnectionError"
    except redis.RedisError as error:
        return error


async def twice(label, call):
    """The second time it may come from the proxy's memory."""
    await ask(label, call)
    await ask(f"{label}, again", call)


async def strings(r):
    await ask("ping", lambda: r.ping())
    await ask("set", lambda: r.set("name", "Ada"))
    await twice("get", lambda: r.get("name"))
    await twice("get what is missing", lambda: r.get("missing"))
    await ask("set again", lambda: r.set("name", "Grace"))
    await twice("get what was written anew", lambda: r.get("name"))
    await ask("set nx", lambda: r.set("name", "no", nx=True))
    await ask("set xx get", lambda: r.set("name", "Alan", xx=True, get=True))
    await twice("get behind it", lambda: r.get("name"))
    await ask("mset", lambda: r.mset({"a": 1, "b": "two", "c": 3.5}))
    await twice("mget", lambda: r.mget("a", "missing", "b", "c", "a"))
    for key in "abc":
        await twice(f"get {key}", lambda: r.get(key))
    await ask("mget of what is known", lambda: r.mget(["a", "b", "c"]))
    await ask("incr", lambda: r.incr("a"))
    await ask("incrbyfloat", lambda: r.incrbyfloat("c", 0.25))
    await ask("append", lambda: r.append("b", " more"))
    await twice("strlen", lambda: r.strlen("b"))
    await twice("getrange", lambda: r.getrange("b", -4, -1))
    await twice("exists", lambda: r.exists("a", "a", "missing"))
    await ask("getdel", lambda: r.getdel("c"))
    await ask("exists not", lambda: r.exists("c"))
    await ask("expire", lambda: r.expire("a", 1000))
    await ask("ttl", lambda: r.ttl("a"))
    await ask("persist", lambda: r.persist("a"))
    await ask("setex in the past", lambda: r.set("gone", "x", pxat=1))
    await ask("get what has expired", lambda: r.get("gone"))
    await ask("del", lambda: r.delete("a", "b", "missing"))
    await twice("get what was deleted", lambda: r.get("a"))
    await ask("setbit", lambda: r.setbit("bits", 7, 1))
    await ask("bitcount", lambda: r.bitcount("bits"))
    await ask("type", lambda: r.type("name"))


async def odd_values(r):
    await ask("unicode set", lambda: r.set("clé-ключ-鍵-🔑", "Grüße, 世界 🌍"))
    await twice("unicode get", lambda: r.get("clé-ключ-鍵-🔑"))
    await ask("binary set", lambda: r.set(b"\x00\r\n\xff key", b"\x00\r\n$-1\r\n\xfe\xff"))
    await twice("binary get", lambda: r.get(b"\x00\r\n\xff key"))
    await ask("empty set", lambda: r.set("", ""))
    await twice("empty get", lambda: r.get(""))
    await ask("1 MB set", lambda: r.set("big", MEGABYTE))
    await twice("1 MB get", lambda: r.get("big"))
    await ask("1 MB less a byte", lambda: r.set("big", MEGABYTE[1:]))
    await twice("1 MB less a byte, get", lambda: r.get("big"))
    await ask("4 MB set", lambda: r.set("bigger", MEGABYTE * 4))
    await twice("4 MB get", lambda: r.get("bigger"))
    await ask("sizes", lambda: r.mget("big", "bigger", "missing"))
    text = FLAVOUR.Redis(port=PORT, decode_responses=True)
    await twice("decoded", lambda: text.get("clé-ключ-鍵-🔑"))
    await ask("not decodable", lambda: text.dump("missing"))
    await use(text.aclose() if IS_ASYNC else text.close())


async def pipelines(r):
    pipe = r.pipeline(transaction=False)
    pipe.set("p", 0).incr("p").get("p").get("missing").mget("p", "missing").hset("h", "f", "v").hgetall("h")
    await ask("pipeline", pipe.execute)
    pipe = r.pipeline(transaction=False)
    for n in range(500):
        pipe.set(f"many{n}", "x" * n).get(f"many{n}").incr("count")
    await ask("long pipeline", pipe.execute)
    pipe = r.pipeline(transaction=False)
    pipe.set("p", "x").lpush("p", 1).get("p")
    await ask("pipeline with an error", lambda: pipe.execute(raise_on_error=False))
    pipe = r.pipeline(transaction=False)
    for n in range(200):
        pipe.get(f"many{n}")
    await ask("pipeline of reads", pipe.execute)
    pipe = r.pipeline(transaction=False)
    await ask("empty pipeline", pipe.execute)


async def types(r):
    await ask("hset", lambda: r.hset("hash", mapping={"f": "v", "g": 2, "": "empty"}))
    await ask("hgetall", lambda: r.hgetall("hash"))
    await ask("hmget", lambda: r.hmget("hash", "f", "missing"))
    await ask("rpush", lambda: r.rpush("list", "a", "b", b"\xff"))
    await ask("lrange", lambda: r.lrange("list", 0, -1))
    await ask("lpop", lambda: r.lpop("list", 2))
    await ask("sadd", lambda: r.sadd("set", "a", "b", "c"))
    await ask("smembers", lambda: r.smembers("set"))
    await ask("sismember", lambda: r.sismember("set", "a"))
    await ask("zadd", lambda: r.zadd("zset", {"a": 1, "b": 2.5, "c": float("inf")}))
    await ask("zrange", lambda: r.zrange("zset", 0, -1, withscores=True))
    await ask("zscore", lambda: r.zscore("zset", "b"))
    await ask("xadd", lambda: r.xadd("stream", {"f": "v"}, id="1-1"))
    await ask("xrange", lambda: r.xrange("stream"))
    await ask("geoadd", lambda: r.geoadd("geo", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")))
    await ask("geodist", lambda: r.geodist("geo", "Palermo", "Catania", "km"))
    await ask("pfadd", lambda: r.pfadd("hll", *range(100)))
    await ask("pfcount", lambda: r.pfcount("hll"))
    await ask("sort", lambda: r.sort("set", alpha=True, desc=True))
    await ask("object encoding", lambda: r.object("encoding", "hash"))
    await ask("copy", lambda: r.copy("hash", "copied"))
    await ask("rename", lambda: r.rename("copied", "renamed"))
    await ask("dump and restore", lambda: restore(r))


async def restore(r):
    return await use(r.restore("restored", 0, await use(r.dump("hash"))))


async def scans(r):
    pipe = r.pipeline(transaction=False)
    for n in range(1000):
        pipe.set(f"scan:{n:04}", n)
    await use(pipe.execute())
    record("scan_iter", sorted(await collect(r.scan_iter(match="scan:*", count=100))))
    record("scan_iter of a type", sorted(await collect(r.scan_iter(match="scan:00*", _type="string"))))
    record("hscan_iter", sorted(await collect(r.hscan_iter("hash"))))
    record("sscan_iter", sorted(await collect(r.sscan_iter("set"))))
    record("zscan_iter", sorted(await collect(r.zscan_iter("zset"))))
    await ask("keys", lambda: keys(r))
    await ask("dbsize", lambda: r.dbsize())


async def keys(r):
    return sorted(await use(r.keys("scan:000*")))


async def scripts(r):
    await ask("eval", lambda: r.eval("return {KEYS[1], ARGV[1], 7, false, {1, 'x'}}", 1, "key", "arg"))
    await ask("get", lambda: r.set("scripted", "old"))
    await twice("before", lambda: r.get("scripted"))
    await ask("eval that writes", lambda: r.eval("return redis.call('set', KEYS[1], ARGV[1])", 1, "scripted", "new"))
    await twice("behind", lambda: r.get("scripted"))
    sha = await use(r.script_load("return redis.call('incrby', KEYS[1], ARGV[1])"))
    record("script load", sha)
    await ask("evalsha", lambda: r.evalsha(sha, 1, "number", 5))
    await ask("script exists", lambda: r.script_exists(sha, "0" * 40))
    await ask("evalsha of nothing", lambda: r.evalsha("0" * 40, 0))
    registered = r.register_script("redis.call('set', 'undeclared', ARGV[1]); return redis.call('get', 'undeclared')")
    await ask("registered script", lambda: registered(args=["v"]))
    await twice("what it wrote", lambda: r.get("undeclared"))
    await ask("script flush", lambda: r.script_flush())
    await ask("registered script, loaded again", lambda: registered(args=["w"]))
    await twice("what it wrote then", lambda: r.get("undeclared"))
    await ask("an error inside", lambda: r.eval("return redis.call('incr', KEYS[1])", 1, "hash"))
    await ask("an error returned", lambda: r.eval("return redis.error_reply('MYKIND of error')", 0))
    await ask("no Lua", lambda: r.eval("this is not Lua", 0))


async def errors(r):
    await ask("get of a hash", lambda: r.get("hash"))
    await ask("get of a hash, again", lambda: r.get("hash"))
    await ask("incr of a text", lambda: r.incr("name"))
    await ask("incrby beyond", lambda: r.incrby("number", 2**63 - 1))
    await ask("lpush on a string", lambda: r.lpush("name", 1))
    await ask("wrong arity", lambda: r.execute_command("GET"))
    await ask("wrong option", lambda: r.execute_command("SET", "k", "v", "NOSUCH"))
    await ask("no such command", lambda: r.execute_command("NOSUCHCOMMAND", "x"))
    await ask("behind the errors", lambda: r.get("name"))


async def server(r):
    info = await use(r.info())
    record("info", (info["redis_version"], info["redis_mode"], info["role"]))
    record("info of a section", sorted(await use(r.info("keyspace"))))
    await ask("config get", lambda: r.config_get("maxmemory-policy"))
    await ask("echo", lambda: r.echo("hello"))
    await ask("command count", lambda: r.command_count())
    await ask("time", lambda: is_time(r))
    await ask("memory usage", lambda: r.memory_usage("missing"))
    await ask("slowlog", lambda: r.slowlog_reset())
    await ask("client setname", lambda: r.client_setname("smoke"))
    await ask("client getname", lambda: r.client_getname())
    await ask("client id", lambda: is_number(r))


async def is_time(r):
    seconds, micros = await use(r.time())
    return seconds > 0 and 0 <= micros < 1_000_000


async def is_number(r):
    return await use(r.client_id()) > 0


async def databases():
    other = FLAVOUR.Redis(port=PORT, db=1)
    await ask("other database, get", lambda: other.get("name"))
    await ask("other database, set", lambda: other.set("name", "Other"))
    await twice("other database, get behind it", lambda: other.get("name"))
    first = FLAVOUR.Redis(port=PORT)
    await twice("first database, get", lambda: first.get("name"))
    await ask("other database, flushdb", lambda: other.flushdb())
    await twice("other database, flushed", lambda: other.get("name"))
    await twice("first database, get again", lambda: first.get("name"))
    for client in (other, first):
        await use(client.aclose() if IS_ASYNC else client.close())


async def many_clients(r):
    """A pool in use by eight at once."""
    async def one(n):
        return [await use(r.set(f"own{n}", n)), await use(r.get(f"own{n}")), await use(r.incr(f"own{n}"))]

    if IS_ASYNC:
        results = await asyncio.gather(*(one(n) for n in range(8)))
    else:
        results = [None] * 8

        def run(n):
            results[n] = asyncio.run(one(n))

        threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    record("eight at once", list(results))


async def recovered(label, r):
    """Tries until Redis is back: errors of a connection may come before that, and others may not."""
    for _ in range(RECOVERY_TRIES):
        try:
            # Each worker of the proxy finds Redis again by itself, within 250 ms: this asks them for both keys.
            await use(r.get("kept"))
            await use(r.set("back", label))
            back = await use(r.get("back"))
            record(label, back)
            return
        except redis.ConnectionError:
            pass
        await asyncio.sleep(0.05)
    record(label, "never")


async def outages(r):
    await ask("before the outage", lambda: r.set("kept", "no"))
    await twice("before the outage, get", lambda: r.get("kept"))
    order("kill")
    await ask("get while Redis is away", lambda: r.get("kept"))
    order("boot")
    await recovered("recovered", r)
    await twice("the new Redis is empty", lambda: r.get("kept"))
    order("restart")
    await recovered("recovered from a restart between two commands", r)
    # Redis dies in the middle of a command. The library sends it again, in vain; a new Redis would have no such key.
    await use(r.set("loop", "1"))
    endless = "if redis.call('get', KEYS[1]) then while true do end end return 'not again'"
    call = functools.partial(r.eval, endless, 1, "loop")
    running = asyncio.create_task(outcome(call if IS_ASYNC else functools.partial(asyncio.to_thread, call)))
    await asyncio.to_thread(order, "kill while busy")
    record("a command under way when Redis died", await running)
    order("boot")
    await recovered("recovered from that", r)


async def main():
    r = FLAVOUR.Redis(port=PORT)
    for section in (strings, odd_values, pipelines, types, scans, scripts, errors, server):
        await section(r)
    await databases()
    await many_clients(r)
    await outages(r)
    await use(r.aclose() if IS_ASYNC else r.close())
    record("the end", True)


asyncio.run(main())
