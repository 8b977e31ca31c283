//! What the proxy asks of Redis by itself: keys in use are reported, and fetched again after a loss.

use crate::support::coherent::Watched;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::Relay;
use crate::support::resp::{Reply, encode};
use crate::support::{PATIENCE, eventually};

const WARMED: &str = "nearcache_warmed";
const TOUCHED: &str = "nearcache_touched";

/// Connections end and none can be made until the proxy has given Redis up.
fn blip(relay: &Relay, proxy: &Proxy, meanwhile: impl FnOnce()) {
    relay.refuse(true);
    relay.cut_all();
    proxy.await_redis("away");
    meanwhile();
    relay.refuse(false);
    proxy.await_coherence("tracking");
}

#[test]
fn after_a_blip_the_keys_used_last_are_fetched_again_and_are_hits_with_their_new_values() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay)
        .tracking()
        .env("WARM_RECONNECT", 50)
        .start_tracking();
    let keys: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
    let mut client = proxy.resp();
    for key in &keys {
        redis.call(&["SET", key, "v"]);
    }
    Watched::by(&proxy).settle();
    for key in &keys {
        assert_eq!(client.call(&["GET", key]), Reply::bulk("v"));
    }
    for round in 1..=3 {
        let changed = Reply::bulk(format!("changed {round}"));
        blip(&relay, &proxy, || {
            redis.call(&["SET", "k59", &format!("changed {round}")]);
        });
        eventually("all are fetched again", PATIENCE, || {
            proxy.counter(WARMED) == 50 * round && proxy.counter(info::IN_FLIGHT) == 0
        });
        assert_eq!(proxy.counter(info::ENTRIES), 50);
        let mut client = proxy.resp();
        let counts = proxy.hits_and_misses_of(|| {
            for key in &keys[10..] {
                let expected = if key == "k59" {
                    changed.clone()
                } else {
                    Reply::bulk("v")
                };
                assert_eq!(client.call(&["GET", key]), expected, "{key}");
            }
        });
        assert_eq!(counts, (50, 0), "nobody waits for Redis");
    }
    assert_eq!(
        proxy.resp().line("GET k0"),
        Reply::bulk("v"),
        "the rest comes when it is asked for"
    );
}

#[test]
fn by_default_nothing_is_fetched_that_nobody_asks_for() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay).tracking().start_tracking();
    redis.call(&["SET", "k", "v"]);
    Watched::by(&proxy).warm("k", &Reply::bulk("v"));
    let gets = redis.calls_of("get");
    blip(&relay, &proxy, || {});
    let mut pings = proxy.counter("nearcache_ping_count");
    pings += 1;
    eventually("there was time for it", PATIENCE, || {
        proxy.counter("nearcache_ping_count") > pings
    });
    assert_eq!(redis.calls_of("get"), gets);
    assert_eq!(proxy.counter(info::ENTRIES), 0);
}

/// A number that INFO has.
fn number_in_info(redis: &RedisServer, section: &str, name: &str) -> u64 {
    let text = redis.call(&["INFO", section]).text();
    let row = format!("{name}:");
    let value = text.lines().find_map(|line| line.strip_prefix(&row));
    value.expect("INFO has it").parse().expect("a number")
}

/// For how many seconds nobody has used the key, as Redis sees it.
fn idle_secs(redis: &RedisServer, key: &str) -> i64 {
    match redis.call(&["OBJECT", "IDLETIME", key]) {
        Reply::Int(secs) => secs,
        other => panic!("{other:?}"),
    }
}

/// Sets so many keys of a kilobyte each, a hundred at a time, until `enough` says so.
fn fill(redis: &RedisServer, name: &str, most: usize, enough: impl Fn() -> bool) {
    let (mut direct, value) = (redis.client(), "x".repeat(1000));
    for batch in 0..most / 100 {
        if enough() {
            return;
        }
        let set = |n| encode(&["SET", &format!("{name}:{n}"), &value]);
        let batch: Vec<u8> = (batch * 100..batch * 100 + 100).flat_map(set).collect();
        direct.send(&batch);
        assert!(
            direct
                .replies(100)
                .iter()
                .all(|reply| *reply == Reply::ok())
        );
    }
}

#[test]
fn redis_does_not_evict_the_key_that_is_read_most_once_it_is_told() {
    const CAPACITY: usize = 1000;
    let redis = RedisServer::start();
    let telling = Proxy::to(&redis)
        .tracking()
        .env("UPSTREAM_TOUCH_SECS", "0.1")
        .start_tracking();
    let silent = Proxy::tracking(&redis);
    redis.call(&["MSET", "told", "v", "untold", "v"]);
    let value = Reply::bulk("v");
    Watched::by(&telling).warm("told", &value);
    Watched::by(&silent).warm("untold", &value);
    let (mut reader, mut other) = (telling.resp(), silent.resp());
    let mut read_both = || {
        assert_eq!(reader.line("GET told"), value);
        assert_eq!(other.line("GET untold"), value);
    };
    // Redis's LRU clock counts in seconds: what was filled in is younger than the one key and older than the other.
    eventually("the clock has moved", PATIENCE, || {
        read_both();
        idle_secs(&redis, "untold") >= 2
    });
    fill(&redis, "old", CAPACITY, || false);
    eventually("the clock has moved again", PATIENCE, || {
        read_both();
        idle_secs(&redis, "old:999") >= 2 && idle_secs(&redis, "told") == 0
    });
    redis.call(&["CONFIG", "SET", "maxmemory-samples", "64"]);
    redis.call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let most = number_in_info(&redis, "memory", "used_memory") + 100_000;
    redis.call(&["CONFIG", "SET", "maxmemory", &most.to_string()]);
    let half_is_gone = || number_in_info(&redis, "stats", "evicted_keys") > CAPACITY as u64 / 2;
    fill(&redis, "new", 5 * CAPACITY, half_is_gone);
    assert!(half_is_gone(), "Redis had to evict");
    assert_eq!(redis.call(&["EXISTS", "told"]), Reply::Int(1));
    assert_eq!(
        redis.call(&["EXISTS", "untold"]),
        Reply::Int(0),
        "that is what it is for"
    );
    assert!(telling.counter(TOUCHED) > 0);
    assert_eq!(silent.counter(TOUCHED), 0);
}

#[test]
fn only_what_is_read_is_reported_each_key_once_in_a_round() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("UPSTREAM_TOUCH_SECS", "0.05")
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    for key in ["read", "idle"] {
        redis.call(&["SET", key, "v"]);
        watched.warm(key, &Reply::bulk("v"));
    }
    let calls = redis.calls_of("touch");
    eventually("some rounds have told of it", PATIENCE, || {
        watched.get("read");
        redis.calls_of("touch") >= calls + 5
    });
    // Nothing is read any more: what was read last is reported, then nothing.
    let mut last = proxy.counter(TOUCHED);
    let mut same = 0;
    eventually("nothing more is told", PATIENCE, || {
        let now = proxy.counter(TOUCHED);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= 30
    });
    assert!(idle_secs(&redis, "idle") >= idle_secs(&redis, "read"));
    let pushes = proxy.counter(info::PUSHES);
    watched.settle();
    assert_eq!(proxy.counter(info::PUSHES), pushes, "TOUCH tells nobody");
}
