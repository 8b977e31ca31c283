//! How long something is kept. Writes go past the proxy here, so that only time can bring the new value to light.

use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::Reply;
use crate::support::{PATIENCE, eventually};

#[test]
fn an_entry_expires_by_the_global_time_to_live_and_never_comes_back() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_TTL_SECS", 1).start();
    let mut client = proxy.resp();
    redis.call(&["SET", "k", "old"]);
    assert_eq!(client.line("GET k"), Reply::bulk("old"));
    redis.call(&["SET", "k", "new"]);
    eventually("the new value shows", PATIENCE, || {
        let value = client.line("GET k");
        assert!(
            value == Reply::bulk("old") || value == Reply::bulk("new"),
            "{value:?}"
        );
        value == Reply::bulk("new")
    });
    for _ in 0..50 {
        assert_eq!(client.line("GET k"), Reply::bulk("new"));
    }
}

#[test]
fn an_absence_expires_by_its_own_time_to_live() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_NEGATIVE_TTL_SECS", 1).start();
    let mut client = proxy.resp();
    assert_eq!(client.line("GET k"), Reply::NullBulk);
    redis.call(&["SET", "k", "v"]);
    eventually("the value shows", PATIENCE, || {
        client.line("GET k") == Reply::bulk("v")
    });
}

#[test]
fn no_entry_outlives_its_time_to_live_at_redis() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let (mut client, mut direct) = (proxy.resp(), redis.client());
    for round in 0..3 {
        let value = format!("v{round}");
        direct.call(&["SET", "k", &value, "PX", "300"]);
        // What is asked of Redis first must not be there any longer when the proxy is asked afterwards.
        eventually("the key expires", PATIENCE, || {
            let at_redis = direct.line("GET k");
            let here = client.line("GET k");
            assert!(
                here == Reply::NullBulk || here == Reply::bulk(&value),
                "{here:?}"
            );
            assert!(
                at_redis != Reply::NullBulk || here == Reply::NullBulk,
                "a hit after the end of the key's life"
            );
            at_redis == Reply::NullBulk
        });
        for _ in 0..20 {
            assert_eq!(client.line("GET k"), Reply::NullBulk);
            assert_eq!(proxy.http().get("k").status, 404);
        }
    }
    assert!(proxy.counter(info::HITS) > 0, "it was kept while it lived");
}

#[test]
fn the_memory_of_expired_entries_is_freed_without_anybody_asking_for_them() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("CACHE_TTL_SECS", 1).start();
    let mut client = proxy.resp();
    let mut most = 0;
    for n in 0..100 {
        redis.call(&["SET", &format!("k{n}"), "v"]);
        client.line(&format!("GET k{n}"));
        most = most.max(proxy.counter(info::ENTRIES));
    }
    assert!(most > 1);
    eventually("all entries are gone", PATIENCE, || {
        proxy.counter(info::ENTRIES) == 0
    });
    assert_eq!(proxy.counter(info::BYTES), 0);
}

#[test]
fn an_expire_or_persist_through_the_proxy_counts_at_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    assert_eq!(client.line("SET k v"), Reply::ok());
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    assert_eq!(client.line("PEXPIRE k 1"), Reply::Int(1));
    let mut direct = redis.client();
    eventually("the key expires at Redis", PATIENCE, || {
        direct.line("EXISTS k") == Reply::Int(0)
    });
    assert_eq!(client.line("GET k"), Reply::NullBulk);
    assert_eq!(client.line("SET k v EX 100"), Reply::ok());
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
    assert_eq!(client.line("PERSIST k"), Reply::Int(1));
    assert_eq!(client.line("TTL k"), Reply::Int(-1));
    assert_eq!(client.line("EXPIRE k -1"), Reply::Int(1));
    assert_eq!(client.line("GET k"), Reply::NullBulk);
}
