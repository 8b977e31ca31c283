//! What the operator chooses: off, ttl, only some keys, the last known value while Redis is away.

use crate::support::coherent::Watched;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, encode};
use crate::support::{PATIENCE, eventually};

#[test]
fn with_coherence_off_every_read_reaches_redis() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("COHERENCE", "off").start();
    let mut client = proxy.resp();
    proxy.await_coherence("off");
    for round in 0..5 {
        let value = round.to_string();
        redis.call(&["SET", "k", &value]);
        assert_eq!(client.line("GET k"), Reply::bulk(&value));
        assert_eq!(proxy.resp().line("GET k"), Reply::bulk(&value));
        let response = proxy.http().get("k");
        assert!(
            !response.is_hit() && response.body == value.as_bytes(),
            "{response:?}"
        );
    }
    assert_eq!(redis.calls_of("get"), 15);
    assert_eq!(proxy.counter(info::HITS), 0);
    assert_eq!(proxy.counter(info::ENTRIES), 0);
    assert_eq!(
        redis.calls_of("client|tracking"),
        0,
        "nobody asked to track"
    );
    assert_eq!(
        client.line("EVAL 1"),
        Reply::Error("ERR wrong number of arguments for 'eval' command".to_string())
    );
    assert_eq!(client.line("SET k own"), Reply::ok());
    assert_eq!(proxy.resp().line("GET k"), Reply::bulk("own"));
}

#[test]
fn with_coherence_ttl_a_foreign_write_waits_and_an_own_one_does_not() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("COHERENCE", "ttl")
        .env("CACHE_TTL_SECS", 600)
        .start();
    proxy.await_coherence("ttl");
    let (mut client, mut other) = (proxy.resp(), proxy.resp());
    redis.call(&["SET", "k", "old"]);
    assert_eq!(client.line("GET k"), Reply::bulk("old"));
    redis.call(&["SET", "k", "foreign"]);
    assert_eq!(
        client.line("GET k"),
        Reply::bulk("old"),
        "that is what ttl means"
    );
    assert_eq!(
        redis.calls_of("client|tracking"),
        0,
        "nobody asked to track"
    );
    assert_eq!(proxy.counter(info::PUSHES), 0);
    assert_eq!(client.line("SET k own"), Reply::ok());
    assert_eq!(other.line("GET k"), Reply::bulk("own"));
    assert_eq!(
        client.call(&["EVAL", "redis.call('SET', 'k', 'script')", "0"]),
        Reply::NullBulk
    );
    assert_eq!(other.line("GET k"), Reply::bulk("script"));
}

#[test]
fn keys_outside_the_tracked_prefixes_are_never_kept() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("TRACKING_PREFIXES", "user:,page:")
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    redis.call(&[
        "MSET", "user:1", "u", "page:1", "p", "use", "no", "other:1", "o",
    ]);
    for key in ["other:1", "use", "xuser:1", "user"] {
        for round in 0..3 {
            let value = format!("{key}{round}");
            redis.call(&["SET", key, &value]);
            let gets = redis.calls_of("get");
            let counts = proxy.hits_and_misses_of(|| {
                assert_eq!(watched.get(key), Reply::bulk(&value));
                assert_eq!(watched.get(key), Reply::bulk(&value));
            });
            assert_eq!(counts, (0, 0), "{key} is relayed");
            assert_eq!(redis.calls_of("get"), gets + 2);
        }
    }
    assert_eq!(proxy.counter(info::ENTRIES), 0);
    assert_eq!(
        proxy.counter(info::PUSHES),
        2,
        "of the other keys Redis tells nothing"
    );
    for (key, value) in [("user:1", "u"), ("page:1", "p")] {
        watched.sees(key, Reply::bulk(value), Reply::bulk("new"), || {
            redis.call(&["SET", key, "new"]);
        });
    }
}

#[test]
fn while_redis_is_away_the_last_known_values_are_served_and_said_to_be_stale() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .lost_is_an_error()
        .tracking()
        .env("STALE_IF_ERROR_SECS", 600)
        .env("CACHE_NEGATIVE_TTL_SECS", 60)
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    redis.call(&["SET", "k", "v"]);
    watched.warm("none", &Reply::NullBulk);
    watched.warm("k", &Reply::bulk("v"));
    redis.kill();
    eventually("it is lost", PATIENCE, || {
        proxy.info()[info::STALENESS_NOW] == "no_hits"
    });
    let mut http = proxy.http();
    for _ in 0..3 {
        let counts = proxy.hits_and_misses_of(|| {
            assert_eq!(watched.get("k"), Reply::bulk("v"));
            assert_eq!(watched.get("none"), Reply::NullBulk);
            let response = http.get("k");
            assert_eq!((response.status, &response.body[..]), (200, &b"v"[..]));
            assert!(
                response.cache_status().contains("hit; ttl=-"),
                "{response:?}"
            );
            let response = http.get("none");
            assert!(
                response.status == 404 && response.cache_status().contains("hit; ttl=-"),
                "{response:?}"
            );
        });
        assert_eq!(counts.0, 0, "these are no hits");
    }
    assert!(proxy.counter(info::STALE_HITS) >= 12);
    let reply = watched.get("never read");
    assert!(reply.is_own_error(), "{reply:?}");
    assert_eq!(http.get("never read").status, 503);
    assert!(proxy.resp().line("SET k w").is_own_error());
    // Back, with other data: nothing from before is served again, not even when it is lost once more.
    redis.boot();
    proxy.await_coherence("tracking");
    redis.kill();
    eventually("it is lost", PATIENCE, || {
        proxy.info()[info::STALENESS_NOW] == "no_hits"
    });
    for key in ["k", "none"] {
        let reply = watched.get(key);
        assert!(reply.is_own_error(), "{key}: {reply:?}");
    }
}

#[test]
fn a_stale_value_is_not_served_after_its_time() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .lost_is_an_error()
        .tracking()
        .env("STALE_IF_ERROR_SECS", 1)
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    redis.call(&["SET", "k", "v"]);
    watched.warm("k", &Reply::bulk("v"));
    redis.kill();
    eventually("its time is over", PATIENCE, || {
        let reply = watched.get("k");
        assert!(
            reply.is_own_error() || reply == Reply::bulk("v"),
            "{reply:?}"
        );
        reply.is_own_error()
    });
    for _ in 0..20 {
        assert!(watched.get("k").is_own_error());
    }
}

#[test]
fn a_key_whose_own_write_was_lost_has_no_stale_value() {
    let mut redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .lost_is_an_error()
        .tracking()
        .env("STALE_IF_ERROR_SECS", 600)
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    redis.call(&["MSET", "written", "old", "kept", "v"]);
    let mut writer = proxy.resp();
    assert_eq!(writer.line("SET elsewhere x"), Reply::ok());
    watched.warm("written", &Reply::bulk("old"));
    watched.warm("kept", &Reply::bulk("v"));
    let link = relay
        .newest_open_with(Way::Up, b"elsewhere")
        .expect("the write went over a link");
    // The write does not arrive, and the end of its connection is not heard of yet.
    relay.pause_one(link, Way::Up);
    relay.pause_one(link, Way::Down);
    writer.send(&encode(&["SET", "written", "new"]));
    eventually("the write is under way", PATIENCE, || {
        relay.has_seen(Way::Up, b"\r\nnew\r\n")
    });
    redis.kill();
    eventually("it is lost", PATIENCE, || {
        proxy.info()[info::STALENESS_NOW] == "no_hits"
    });
    assert_eq!(watched.get("kept"), Reply::bulk("v"));
    assert_eq!(
        watched.get("written"),
        Reply::bulk("old"),
        "its writer knows no better yet"
    );
    relay.cut(link);
    let reply = writer.reply();
    assert!(reply.is_own_error(), "{reply:?}");
    // Nobody knows whether it was executed: neither value is served, to no client.
    for _ in 0..10 {
        let reply = watched.get("written");
        assert!(reply.is_own_error(), "{reply:?}");
        assert_eq!(watched.get("kept"), Reply::bulk("v"));
    }
}
