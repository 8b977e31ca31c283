//! What the operator changes while it runs, and which keys are kept at all.

use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::{PATIENCE, eventually};

#[test]
fn sigusr1_switches_the_cache_off_and_on_and_nobody_is_disconnected() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let (mut client, mut http) = (proxy.resp(), proxy.http());
    redis.call(&["SET", "k", "old"]);
    assert_eq!(client.line("GET k"), Reply::bulk("old"));
    for round in 0..3 {
        proxy.signal("USR1");
        proxy.await_coherence("off");
        let (asked, value) = (redis.calls_of("get"), format!("v{round}"));
        redis.call(&["SET", "k", &value]);
        for _ in 0..3 {
            assert_eq!(client.line("GET k"), Reply::bulk(&value));
        }
        assert!(!http.get("k").is_hit());
        assert_eq!(
            redis.calls_of("get") - asked,
            4,
            "off means that Redis is asked each time"
        );
        assert_eq!(proxy.counter(info::ENTRIES), 0);

        proxy.signal("USR1");
        proxy.await_coherence("tracking");
        assert_eq!(client.line("GET k"), Reply::bulk(&value));
        let (hits, _) = proxy.hits_and_misses_of(|| {
            assert_eq!(client.line("GET k"), Reply::bulk(&value));
        });
        assert_eq!(hits, 1, "on again");
    }
}

#[test]
fn only_keys_with_a_prefix_that_says_so_are_kept_and_the_longest_one_decides() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("CACHE_PREFIXES", "user:,lock:soft:")
        .env("BYPASS_PREFIXES", "lock:,user:flag:")
        .start();
    let mut client = proxy.resp();
    for (key, is_kept) in [
        ("user:1", true),
        ("lock:soft:1", true),
        ("lock:hard", false),
        ("user:flag:1", false),
        ("other", false),
    ] {
        redis.call(&["SET", key, "v"]);
        let asked = redis.calls_of("get");
        for _ in 0..4 {
            assert_eq!(client.call(&["GET", key]), Reply::bulk("v"));
        }
        let expected = if is_kept { 1 } else { 4 };
        assert_eq!(redis.calls_of("get") - asked, expected, "{key}");
    }
    assert_eq!(proxy.counter(info::ENTRIES), 2);
}

#[test]
fn a_prefix_can_have_a_time_to_live_of_its_own() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("CACHE_PREFIXES", "brief:=2,long:")
        .env("CACHE_TTL_SECS", 600)
        .start();
    for (key, ttl_most) in [("brief:k", 2), ("long:k", 600)] {
        redis.call(&["SET", key, "v"]);
        let mut http = proxy.http();
        assert!(!http.get(key).is_hit());
        let hit = http.get(key);
        let status = hit.cache_status().to_owned();
        let ttl: u64 = status
            .rsplit_once("ttl=")
            .expect("a hit says how long")
            .1
            .parse()
            .expect("a number");
        assert!(
            ttl <= ttl_most && ttl + ttl_most / 5 + 1 >= ttl_most,
            "{key}: {status}"
        );
    }
}

#[test]
fn the_lag_of_own_writes_and_the_time_of_pings_are_measured() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut client = proxy.resp();
    let figure = |name: &str| proxy.counter(&format!("nearcache_{name}"));
    assert!(figure("ping_count") >= 1, "tracking began with a PING");
    for n in 0..20 {
        assert_eq!(client.line(&format!("SET k {n}")), Reply::ok());
        eventually("the push of the write is measured", PATIENCE, || {
            figure("invalidation_lag_count") > n
        });
    }
    assert!(figure("invalidation_lag_us_p50") <= figure("invalidation_lag_us_p99"));
    assert!(figure("invalidation_lag_us_p99") <= figure("invalidation_lag_us_max"));
}
