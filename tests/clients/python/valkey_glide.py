"""valkey-glide with its defaults, whose core is a multiplexed connection in RESP3: `valkey_glide.py PORT`."""

import asyncio
import sys

from conversation import order, record
from glide import (
    Batch,
    ClosingError,
    ConnectionError,
    GlideClient,
    GlideClientConfiguration,
    Logger,
    LogLevel,
    NodeAddress,
    RequestError,
    Script,
    TimeoutError,
)

PORT = int(sys.argv[1])
MEGABYTE = bytes(range(256)) * 4096
RECOVERY_TRIES = 400
LOST = (ConnectionError, ClosingError, TimeoutError)


async def connect(database=0):
    # A time-out is no matter of the protocol, and this machine may be busy.
    addresses = [NodeAddress("127.0.0.1", PORT)]
    return await GlideClient.create(GlideClientConfiguration(addresses, database_id=database, request_timeout=10_000))


async def ask(label, call):
    try:
        record(label, await call())
    except LOST:
        record(label, "the connection is lost")
    except RequestError as error:
        record(label, error)


async def twice(label, call):
    await ask(label, call)
    await ask(f"{label}, again", call)


async def strings(r):
    await ask("ping", r.ping)
    await ask("set", lambda: r.set("name", "Ada"))
    await twice("get", lambda: r.get("name"))
    await twice("get what is missing", lambda: r.get("missing"))
    await ask("set again", lambda: r.set("name", "Grace"))
    await twice("get what was written anew", lambda: r.get("name"))
    await ask("mset", lambda: r.mset({"a": "1", "b": "two", "c": "3.5"}))
    await twice("mget", lambda: r.mget(["a", "missing", "b", "c", "a"]))
    for key in "abc":
        await twice(f"get {key}", lambda: r.get(key))
    await ask("mget of what is known", lambda: r.mget(["a", "b", "c"]))
    await ask("incr", lambda: r.incr("a"))
    await twice("exists", lambda: r.exists(["a", "a", "missing"]))
    await twice("strlen", lambda: r.strlen("b"))
    await ask("del", lambda: r.delete(["a", "b", "missing"]))
    await twice("get what was deleted", lambda: r.get("a"))
    await ask("unicode set", lambda: r.set("clé-ключ-鍵-🔑", "Grüße, 世界 🌍"))
    await twice("unicode get", lambda: r.get("clé-ключ-鍵-🔑"))
    await ask("binary set", lambda: r.set(b"\x00\r\n\xff", b"\x00\r\n$-1\r\n\xfe\xff"))
    await twice("binary get", lambda: r.get(b"\x00\r\n\xff"))
    await ask("1 MB set", lambda: r.set("big", MEGABYTE))
    await twice("1 MB get", lambda: r.get("big"))


async def types(r):
    pipe = Batch(is_atomic=False)
    pipe.set("p", "0").incr("p").get("p").get("missing").mget(["p", "missing"]).hset("hash", {"f": "v"}).hgetall("hash")
    await ask("pipeline", lambda: r.exec(pipe, raise_on_error=True))
    wrong = Batch(is_atomic=False)
    wrong.set("p", "x").lpush("p", ["1"]).get("p")
    await ask("pipeline with an error", lambda: r.exec(wrong, raise_on_error=False))
    await ask("together", lambda: asyncio.gather(*(r.set(f"many{n}", str(n)) for n in range(200))))
    await ask("together, get", lambda: asyncio.gather(*(r.get(f"many{n}") for n in range(200))))
    await ask("hgetall", lambda: r.hgetall("hash"))
    await ask("rpush", lambda: r.rpush("list", ["a", "b"]))
    await ask("lrange", lambda: r.lrange("list", 0, -1))
    await ask("sadd", lambda: r.sadd("set", ["a", "b"]))
    await ask("smembers", lambda: r.smembers("set"))
    await ask("zadd", lambda: r.zadd("zset", {"a": 1.0, "b": 2.5}))
    await ask("zscore", lambda: r.zscore("zset", "b"))
    await ask("config get", lambda: r.config_get(["maxmemory-policy"]))
    await ask("scan", lambda: scan(r))
    await ask("custom command", lambda: r.custom_command(["OBJECT", "ENCODING", "hash"]))
    await ask("dbsize", r.dbsize)


async def scan(r):
    cursor, keys = b"0", []
    while True:
        cursor, found = await r.scan(cursor, match="many*", count=50)
        keys += found
        if cursor == b"0":
            return sorted(keys)


async def scripts_and_errors(r):
    script = Script("return {KEYS[1], ARGV[1], 7, false, redis.call('incrby', 'undeclared', 5)}")
    await ask("script", lambda: r.invoke_script(script, keys=["key"], args=["arg"]))
    await twice("what it wrote", lambda: r.get("undeclared"))
    await ask("script flush", r.script_flush)
    await ask("script, loaded again", lambda: r.invoke_script(script, keys=["key"], args=["arg"]))
    await twice("what it wrote then", lambda: r.get("undeclared"))
    await twice("get of a hash", lambda: r.get("hash"))
    await ask("incr of a text", lambda: r.incr("name"))
    await ask("no such command", lambda: r.custom_command(["NOSUCHCOMMAND", "x"]))
    await ask("behind the errors", lambda: r.get("name"))


async def databases():
    other = await connect(1)
    await twice("other database, get", lambda: other.get("name"))
    await ask("other database, set", lambda: other.set("name", "Other"))
    await twice("other database, get behind it", lambda: other.get("name"))
    await ask("select", lambda: other.select(0))
    await twice("first database, get", lambda: other.get("name"))
    await other.close()


async def outages(r):
    await ask("before the outage", lambda: r.set("kept", "no"))
    await twice("before the outage, get", lambda: r.get("kept"))
    order("kill")
    order("boot")
    await recovered("recovered", r)
    await twice("the new Redis is empty", lambda: r.get("kept"))
    order("restart")
    await recovered("recovered from a restart between two commands", r)
    endless = asyncio.create_task(ask("a command under way when Redis died", lambda: r.custom_command(["EVAL", "while true do end", "0"])))
    await asyncio.to_thread(order, "kill while busy")
    await endless
    order("boot")
    await recovered("recovered from that", r)


async def recovered(label, r):
    for _ in range(RECOVERY_TRIES):
        try:
            # Each worker of the proxy finds Redis again by itself, within 250 ms: this asks them for both keys.
            await r.get("kept")
            await r.set("back", label)
            record(label, await r.get("back"))
            return
        except LOST:
            pass
        await asyncio.sleep(0.05)
    record(label, "never")


async def main():
    Logger.set_logger_config(LogLevel.OFF)
    r = await connect()
    for section in (strings, types, scripts_and_errors):
        await section(r)
    await databases()
    await outages(r)
    await r.close()
    record("the end", True)


asyncio.run(main())
