//! How much is kept: the budgets in keys and bytes, and what is too large to be kept at all.

use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient};

/// Reads a key that holds `value` and says whether that was a hit. For tests with one client at a time.
#[track_caller]
fn is_hit(proxy: &Proxy, client: &mut RespClient, key: &str, value: &str) -> bool {
    let counts =
        proxy.hits_and_misses_of(|| assert_eq!(client.call(&["GET", key]), Reply::bulk(value)));
    assert!(
        counts == (1, 0) || counts == (0, 1),
        "one read is one hit or one miss: {counts:?}"
    );
    counts == (1, 0)
}

#[test]
fn the_key_that_was_not_used_for_longest_is_evicted_first() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_CAPACITY", 3).start();
    redis.call(&["MSET", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5"]);
    let mut client = proxy.resp();
    let mut steps = |expected: &[(&str, &str, bool)]| {
        for &(key, value, hit) in expected {
            assert_eq!(
                is_hit(&proxy, &mut client, key, value),
                hit,
                "{key} in {expected:?}"
            );
            assert!(proxy.counter(info::ENTRIES) <= 3);
        }
    };
    steps(&[("a", "1", false), ("b", "2", false), ("c", "3", false)]);
    // The read of a makes b the oldest; d pushes it out.
    steps(&[
        ("a", "1", true),
        ("d", "4", false),
        ("a", "1", true),
        ("c", "3", true),
        ("d", "4", true),
    ]);
    // The order is now a, c, d from the oldest; b and e push out a and c.
    steps(&[
        ("b", "2", false),
        ("e", "5", false),
        ("d", "4", true),
        ("b", "2", true),
        ("e", "5", true),
    ]);
    steps(&[("a", "1", false), ("c", "3", false)]);
}

#[test]
fn a_read_over_http_counts_as_use() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_CAPACITY", 2).start();
    redis.call(&["MSET", "a", "1", "b", "2", "c", "3"]);
    let mut http = proxy.http();
    assert!(!http.get("a").is_hit());
    assert!(!http.get("b").is_hit());
    assert!(http.get("a").is_hit());
    assert!(!http.get("c").is_hit());
    assert!(http.get("a").is_hit(), "b was older");
    assert!(!http.get("b").is_hit());
}

#[test]
fn the_budget_in_bytes_is_never_exceeded() {
    const BYTES_MAX: u64 = 1 << 20;
    const VALUE_BYTES: usize = 100_000;
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_MAX_BYTES", BYTES_MAX).start();
    let mut client = proxy.resp();
    let value_of =
        |n: usize| n.to_string().repeat(VALUE_BYTES).into_bytes()[..VALUE_BYTES].to_vec();
    for n in 0..30 {
        let key = format!("k{n}");
        assert_eq!(
            client.call(&[b"SET", key.as_bytes(), &value_of(n)]),
            Reply::ok()
        );
        assert_eq!(client.call(&["GET", &key]), Reply::bulk(value_of(n)));
        let bytes = proxy.counter(info::BYTES);
        assert!(bytes <= BYTES_MAX, "{bytes} bytes after {key}");
        assert!(
            bytes >= VALUE_BYTES as u64,
            "a kept value costs what it is long: {bytes}"
        );
    }
    let entries = proxy.counter(info::ENTRIES);
    assert!(
        (5..=10).contains(&entries),
        "{entries} entries of {VALUE_BYTES} bytes in {BYTES_MAX}"
    );
    let counts =
        proxy.hits_and_misses_of(|| assert_eq!(client.line("GET k29"), Reply::bulk(value_of(29))));
    assert_eq!(counts, (1, 0), "the newest is there");
    let counts =
        proxy.hits_and_misses_of(|| assert_eq!(client.line("GET k0"), Reply::bulk(value_of(0))));
    assert_eq!(counts, (0, 1), "the oldest is not");
}

#[test]
fn a_value_over_the_limit_is_relayed_each_time_and_right() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_MAX_VALUE_BYTES", 1000).start();
    let mut client = proxy.resp();
    let (large, small) = ("L".repeat(1001), "s".repeat(1000));
    redis.call(&["MSET", "large", &large, "small", &small]);
    for round in 0..5 {
        assert_eq!(client.line("GET large"), Reply::bulk(&large));
        assert_eq!(proxy.http().get("large").body, large.as_bytes());
        assert_eq!(is_hit(&proxy, &mut client, "small", &small), round > 0);
    }
    let gets = redis.calls_of("get");
    assert_eq!(gets, 10 + 1, "each read of the large one reaches Redis");
    // It follows the key's life: smaller, and it is kept; larger again, and it is not.
    assert_eq!(client.line("SET large now-small"), Reply::ok());
    assert_eq!(client.line("GET large"), Reply::bulk("now-small"));
    assert!(is_hit(&proxy, &mut client, "large", "now-small"));
    assert_eq!(client.call(&["SET", "large", &large]), Reply::ok());
    assert_eq!(client.line("GET large"), Reply::bulk(&large));
    assert_eq!(client.line("GET large"), Reply::bulk(&large));
}

#[test]
fn values_of_many_megabytes_pass_both_ways() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let value: Vec<u8> = (0..8 << 20).map(|n: u32| (n ^ (n >> 8)) as u8).collect();
    let mut client = proxy.resp();
    assert_eq!(client.call(&[b"SET", b"k".as_slice(), &value]), Reply::ok());
    for _ in 0..3 {
        assert!(client.line("GET k") == Reply::bulk(&value), "over RESP");
        assert!(proxy.http().get("k").body == value, "over HTTP");
    }
    assert!(redis.call(&["GET", "k"]) == Reply::bulk(&value), "at Redis");
}

#[test]
fn a_key_over_the_limit_is_never_kept_and_right() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_NEGATIVE_TTL_SECS", 60).start();
    let mut client = proxy.resp();
    let key = "k".repeat(16 * 1024 + 1);
    for _ in 0..3 {
        assert_eq!(client.call(&["GET", &key]), Reply::NullBulk);
    }
    redis.call(&["SET", &key, "v"]);
    for _ in 0..3 {
        assert_eq!(client.call(&["GET", &key]), Reply::bulk("v"));
    }
    assert_eq!(proxy.counter(info::HITS), 0);
    assert_eq!(proxy.counter(info::ENTRIES), 0);
}

#[test]
fn a_cache_of_one_key_works() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_CAPACITY", 1).start();
    redis.call(&["MSET", "a", "1", "b", "2"]);
    let mut client = proxy.resp();
    assert!(!is_hit(&proxy, &mut client, "a", "1"));
    assert!(is_hit(&proxy, &mut client, "a", "1"));
    assert!(!is_hit(&proxy, &mut client, "b", "2"));
    assert!(!is_hit(&proxy, &mut client, "a", "1"));
    assert_eq!(proxy.counter(info::ENTRIES), 1);
}
