"""redis-py with what needs a connection of its own: transactions, WATCH, messages, blocking commands, a client-side
cache, large values: `redis_py_state.py sync|asyncio PORT`."""

import asyncio
import inspect
import sys
from concurrent.futures import ThreadPoolExecutor

import redis
import redis.asyncio
from conversation import order, record

IS_ASYNC = sys.argv[1] == "asyncio"
PORT = int(sys.argv[2])
FLAVOUR = redis.asyncio if IS_ASYNC else redis
TRIES = 1000
MEGABYTE = 1 << 20


async def use(result):
    return await result if inspect.isawaitable(result) else result


async def later(call):
    """A call that waits for what others do: with the synchronous flavour in a thread."""
    return await call() if IS_ASYNC else await asyncio.to_thread(call)


async def ask(label, call):
    try:
        record(label, await use(call()))
    except redis.RedisError as error:
        record(label, "ConnectionError" if isinstance(error, redis.ConnectionError) else error)


async def twice(label, call):
    await ask(label, call)
    await ask(f"{label}, again", call)


async def poll(label, look):
    """Looks until there is something."""
    for _ in range(TRIES):
        found = await use(look())
        if found:
            return found
        await asyncio.sleep(0.01)
    raise SystemExit(f"never: {label}")


def client(**options):
    return FLAVOUR.Redis(port=PORT, **options)


async def close(*clients):
    for one in clients:
        await use(one.aclose() if IS_ASYNC and hasattr(one, "aclose") else one.close())


async def transactions(r):
    await ask("before", lambda: r.set("t", "old"))
    await twice("get before", lambda: r.get("t"))
    pipe = r.pipeline()
    pipe.set("t", 0).incr("t").get("t").get("missing").mget("t", "missing").hset("hash", "f", "v").hgetall("hash")
    await ask("transaction", pipe.execute)
    await twice("get behind it", lambda: r.get("t"))
    pipe = r.pipeline()
    pipe.set("t", "x").lpush("t", 1).get("t")
    await ask("transaction with an error", lambda: pipe.execute(raise_on_error=False))
    pipe = r.pipeline()
    pipe.set("t", "never").execute_command("GET")
    await ask("transaction that is refused", pipe.execute)
    await twice("get behind the refusal", lambda: r.get("t"))
    pipe = r.pipeline()
    for n in range(300):
        pipe.set(f"many{n}", "x" * n).get(f"many{n}")
    await ask("long transaction", pipe.execute)
    pipe = r.pipeline()
    pipe.eval("return redis.call('set', KEYS[1], 'by a script')", 1, "t")
    await ask("transaction with a script", pipe.execute)
    await twice("get behind the script", lambda: r.get("t"))
    pipe = r.pipeline()
    await ask("empty transaction", pipe.execute)


async def watches(r):
    other = client()
    await use(r.set("w", 1))
    await twice("watched key", lambda: r.get("w"))
    async def read_and_write(disturb):
        pipe = r.pipeline()
        try:
            await use(pipe.watch("w"))
            value = await use(pipe.get("w"))
            if disturb:
                await use(other.set("w", 100))
                await use(other.get("w"))
            pipe.multi()
            pipe.set("w", int(value) + 1)
            return await use(pipe.execute())
        finally:
            await use(pipe.reset())

    await ask("watch, undisturbed", lambda: read_and_write(False))
    await twice("its value", lambda: r.get("w"))
    await ask("watch, disturbed", lambda: read_and_write(True))
    await twice("the other's value", lambda: r.get("w"))
    await ask("watch again", lambda: read_and_write(False))
    pipe = r.pipeline()
    await ask("watch", lambda: pipe.watch("w"))
    await ask("unwatch", lambda: pipe.unwatch())
    await use(pipe.reset())

    async def count_up(times):
        for _ in range(times):
            if IS_ASYNC:
                await r.transaction(raise_by_one_async, "counted")
            else:
                await asyncio.to_thread(r.transaction, raise_by_one, "counted")

    await use(r.set("counted", 0))
    await asyncio.gather(*(count_up(10) for _ in range(4)))
    await twice("counted by four at once", lambda: r.get("counted"))
    await close(other)


def raise_by_one(pipe):
    value = int(pipe.get("counted"))
    pipe.multi()
    pipe.set("counted", value + 1)


async def raise_by_one_async(pipe):
    value = int(await pipe.get("counted"))
    pipe.multi()
    pipe.set("counted", value + 1)


async def message(sub):
    """The next message that is none of the housekeeping, and not None."""
    got = await poll("a message", lambda: sub.get_message(timeout=0.05))
    return {key: got[key] for key in ("type", "pattern", "channel", "data")}


async def messages(r):
    for protocol in (2, 3):
        sub = client(protocol=protocol).pubsub()
        await use(sub.subscribe("news", "weather"))
        await use(sub.psubscribe("n*"))
        for _ in range(3):
            await ask(f"RESP{protocol}, subscribed", lambda: message(sub))
        await ask("publish", lambda: r.publish("news", b"\x00one\r\n"))
        await ask("publish elsewhere", lambda: r.publish("weather", "Grüße"))
        await ask("publish to nobody", lambda: r.publish("silence", "x"))
        for _ in range(3):
            await ask(f"RESP{protocol}, message", lambda: message(sub))
        await ask("numsub", lambda: r.pubsub_numsub("news", "silence"))
        await ask("numpat", lambda: r.pubsub_numpat())
        await use(sub.ping("alive"))
        await ask(f"RESP{protocol}, pong", lambda: message(sub))
        await use(sub.unsubscribe("news"))
        await ask(f"RESP{protocol}, unsubscribed", lambda: message(sub))
        for n in range(200):
            await use(r.publish("weather", n))
        record("all in order", [(await message(sub))["data"] for _ in range(200)])
        await use(sub.punsubscribe())
        await use(sub.unsubscribe())
        for _ in range(2):
            await ask(f"RESP{protocol}, left", lambda: message(sub))
        await close(sub)
    # What was written before the message is seen by who got it.
    sub = client().pubsub()
    await use(sub.subscribe("written"))
    await message(sub)
    await use(r.set("written", "old"))
    await twice("written", lambda: r.get("written"))
    other = client()
    await use(other.set("written", "new"))
    await use(other.publish("written", "now"))
    await message(sub)
    await twice("written, behind the message", lambda: r.get("written"))
    await close(sub, other)


async def blocked_clients(r, count):
    async def look():
        return (await use(r.info("clients")))["blocked_clients"] == count

    await poll(f"{count} are blocked", look)


async def blocking(r):
    waiter = client()
    await ask("blpop, timed out", lambda: waiter.blpop("queue", timeout=1))
    await use(r.rpush("queue", "ready"))
    await ask("blpop, at once", lambda: waiter.blpop(["none", "queue"], timeout=0))
    wakers = {
        "blpop": (lambda: waiter.blpop("queue", timeout=0), lambda: r.rpush("queue", "a")),
        "brpop": (lambda: waiter.brpop("queue", timeout=0), lambda: r.lpush("queue", "b")),
        "blmove": (lambda: waiter.blmove("queue", "moved", 0), lambda: r.lpush("queue", "c")),
        "bzpopmin": (lambda: waiter.bzpopmin("scores", timeout=0), lambda: r.zadd("scores", {"m": 1})),
        "xread": (lambda: waiter.xread({"stream": "$"}, block=0), lambda: r.xadd("stream", {"f": "v"}, id="1-1")),
    }
    for name, (wait, wake) in wakers.items():
        waiting = asyncio.create_task(later(wait))
        await blocked_clients(r, 1)
        await use(wake())
        record(f"{name}, woken", await waiting)
    await ask("moved", lambda: r.lrange("moved", 0, -1))
    many = [client() for _ in range(10)]
    waiting = []
    for n, one in enumerate(many):
        waiting.append(asyncio.create_task(later(lambda one=one: one.blpop("queue", timeout=0))))
        await blocked_clients(r, n + 1)
    await use(r.rpush("queue", *range(10)))
    record("ten, in the order they came", await asyncio.gather(*waiting))
    # The wait ends upstream when its client is gone.
    await close(*many)
    await blocked_clients(r, 0)
    await ask("wait", lambda: r.wait(0, 10))
    lock = r.lock("lock", timeout=10)
    await ask("lock", lambda: lock.acquire(blocking=False))
    await ask("lock of another", lambda: other_lock(r))
    await ask("unlock", lambda: lock.release())
    await close(waiter)


async def other_lock(r):
    return await use(r.lock("lock", timeout=10).acquire(blocking=False))


async def monitor(r):
    if IS_ASYNC:
        return
    with r.monitor() as watching:
        await use(client().set("monitored", "yes"))
        for _ in range(TRIES):
            seen = watching.next_command()
            if seen["command"].startswith("SET monitored"):
                record("monitor", (seen["db"], seen["command"]))
                return


async def client_side_cache(r):
    # Older versions offer it with some of their parsers only, asyncio not at all.
    if IS_ASYNC or int(redis.__version__.split(".")[0]) < 8:
        return
    from redis.cache import CacheConfig

    # The library wants 7.4 "to maximize compatibility with all Redis products"; Redis itself has tracked since 6.
    from redis.connection import CacheProxyConnection

    CacheProxyConnection.MIN_ALLOWED_VERSION = "6.0.0"
    cached = client(protocol=3, cache_config=CacheConfig())
    await use(r.set("local", "one"))
    await twice("cached by the client", lambda: cached.get("local"))
    cache = cached.get_cache()
    record("it keeps", cache.size)
    await use(r.set("local", "two"))
    await poll("the change", lambda: cached.get("local") == b"two")
    await twice("changed by another", lambda: cached.get("local"))
    await ask("changed by itself", lambda: cached.set("local", "three"))
    await poll("the own change", lambda: cached.get("local") == b"three")
    await use(r.flushdb())
    await poll("the flush", lambda: cached.get("local") is None)
    await ask("flushed", lambda: cached.get("local"))
    await close(cached)


async def large_values(r):
    value = bytes(range(256)) * 4096 * 16
    await ask("16 MB set", lambda: r.set("large", value))
    await twice("16 MB get", lambda: r.get("large"))
    await ask("16 MB in a transaction", r.pipeline().set("large", value[1:]).get("large").execute)
    # Once is enough.
    if not IS_ASYNC and int(redis.__version__.split(".")[0]) >= 8:
        await ask("48 MB set", lambda: r.set("large", value * 3))
        await ask("48 MB get", lambda: r.get("large"))
    await ask("many elements", lambda: r.rpush("elements", *range(100_000)))
    await ask("many elements, read", lambda: number_of_elements(r))
    await ask("gone", lambda: r.delete("large", "elements"))


async def number_of_elements(r):
    items = await use(r.lrange("elements", 0, -1))
    return len(items), sum(map(int, items))


async def outages(r):
    sub = client().pubsub()
    await use(sub.subscribe("news"))
    await message(sub)
    waiter = client()
    waiting = asyncio.create_task(outcome(lambda: waiter.blpop("none", timeout=0)))
    await blocked_clients(r, 1)
    await asyncio.to_thread(order, "kill")
    record("a command that waited when Redis died", await waiting)
    order("boot")
    await ask("subscribed again", lambda: poll("a message", lambda: heard(r, sub)))
    await poll("a transaction works", lambda: works(r))
    await ask("the transaction", lambda: r.get("again"))
    await close(sub, waiter)


async def outcome(call):
    try:
        return await later(call)
    except redis.ConnectionError:
        return "ConnectionError"


async def heard(r, sub):
    try:
        await use(r.publish("news", "back"))
        got = await use(sub.get_message(timeout=0.05))
        return got and got["type"] == "message" and got["data"]
    except redis.ConnectionError:
        return None


async def works(r):
    try:
        return await use(r.pipeline().set("again", "yes").get("again").execute())
    except redis.ConnectionError:
        return None


async def main():
    # More threads than processors: they only wait.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    r = client()
    for section in (transactions, watches, messages, blocking, monitor, client_side_cache, large_values, outages):
        await section(r)
    await close(r)
    record("the end", True)


asyncio.run(main())
