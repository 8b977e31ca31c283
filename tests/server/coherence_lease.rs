//! The lease: when nothing is heard of Redis any more, hits end within the staleness bound, and come back with it.

use crate::support::coherent::{SLACK, Watched};
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, encode};
use crate::support::{PATIENCE, eventually};
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_millis(400);

#[test]
fn hits_end_within_the_bound_while_pushes_are_held_up_and_come_back_afterwards() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay)
        .tracking()
        .env("STALENESS_BOUND_MS", BOUND.as_millis())
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    for round in 0..3 {
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        redis.call(&["SET", "k", &old]);
        watched.recovers(
            "k",
            &Reply::bulk(format!("fresh{}", round - 1)),
            &Reply::bulk(&old),
        );
        watched.warm("k", &Reply::bulk(&old));
        let invalidation = relay
            .newest_open_with(Way::Up, b"TRACKING")
            .expect("it tracks");
        relay.pause_one(invalidation, Way::Down);
        redis.call(&["SET", "k", &new]);
        let written = Instant::now();
        eventually("the new value is read", PATIENCE, || {
            let asked = written.elapsed();
            let reply = watched.get("k");
            assert!(
                reply == Reply::bulk(&new) || reply == Reply::bulk(&old),
                "{reply:?}"
            );
            assert!(
                reply == Reply::bulk(&new) || asked < BOUND + SLACK,
                "old after {asked:?}"
            );
            reply == Reply::bulk(&new)
        });
        // Nothing is heard, so nothing is a hit, and every read has the truth of its moment.
        let fresh = format!("fresh{round}");
        let counts = proxy.hits_and_misses_of(|| {
            for value in ["1", "2", "3", &fresh] {
                redis.call(&["SET", "k", value]);
                assert_eq!(watched.get("k"), Reply::bulk(value));
                assert_eq!(watched.get("k"), Reply::bulk(value));
            }
        });
        assert_eq!(counts, (0, 8));
        assert_eq!(proxy.info()[info::COHERENCE], "tracking_lapsed");
        assert_eq!(proxy.info()[info::STALENESS_NOW], "no_hits");
        relay.resume_one(invalidation, Way::Down);
        watched.warm("k", &Reply::bulk(&fresh));
        assert_eq!(proxy.info()[info::COHERENCE], "tracking");
    }
    assert_eq!(
        proxy.counter(info::UPSTREAM_LOST),
        0,
        "no connection was given up meanwhile"
    );
}

#[test]
fn a_frozen_redis_yields_no_hit_older_than_the_bound() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("STALENESS_BOUND_MS", BOUND.as_millis())
        .env("REDIS_TIMEOUT_MS", 300)
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    redis.call(&["SET", "k", "v"]);
    watched.warm("k", &Reply::bulk("v"));
    redis.freeze();
    let frozen = Instant::now();
    eventually("hits have ended", PATIENCE, || {
        let asked = frozen.elapsed();
        let reply = watched.get("k");
        assert!(
            reply.is_own_error() || reply == Reply::bulk("v") && asked < BOUND + SLACK,
            "{reply:?} after {asked:?}"
        );
        reply.is_own_error()
    });
    let counts = proxy.hits_and_misses_of(|| {
        // All of them share a fetch or two, which time out.
        let mut clients: Vec<_> = (0..10).map(|_| proxy.resp()).collect();
        for client in &mut clients {
            client.send(&encode(&["GET", "k"]));
        }
        for client in &mut clients {
            let reply = client.reply();
            assert!(reply.is_own_error(), "{reply:?}");
        }
        assert_eq!(proxy.http().get("k").status, 504);
    });
    assert_eq!(counts.0, 0);
    assert_eq!(proxy.info()[info::COHERENCE], "tracking_lapsed");
    redis.thaw();
    redis.call(&["SET", "k", "w"]);
    // What Redis pushed in its first moments is behind the writes that wait there too.
    watched.recovers("k", &Reply::bulk("v"), &Reply::bulk("w"));
    watched.warm("k", &Reply::bulk("w"));
}

#[test]
fn a_hot_key_of_a_frozen_redis_is_answered_stale_and_never_as_a_hit() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .tracking()
        .env("STALENESS_BOUND_MS", BOUND.as_millis())
        .env("STALE_IF_ERROR_SECS", 600)
        .env("REDIS_TIMEOUT_MS", 200)
        .env("LINK_DEAD_MS", 4000)
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    redis.call(&["MSET", "hot", "v", "cold", "v"]);
    watched.warm("hot", &Reply::bulk("v"));
    watched.warm("cold", &Reply::bulk("v"));
    redis.freeze();
    eventually("hits have ended", PATIENCE, || {
        assert_eq!(watched.get("hot"), Reply::bulk("v"));
        proxy.info()[info::COHERENCE] == "tracking_lapsed"
    });
    // Read all the time, so fetches remove it all the time; the link is given up meanwhile.
    let mut http = proxy.http();
    let (hits, _) = proxy.hits_and_misses_of(|| {
        eventually("the link is given up", PATIENCE, || {
            assert_eq!(watched.get("hot"), Reply::bulk("v"));
            let response = http.get("hot");
            assert!(
                response.cache_status().contains("hit; ttl=-"),
                "{response:?}"
            );
            proxy.info()[info::COHERENCE] == "tracking_down"
        });
        for key in ["hot", "cold", "hot"] {
            assert_eq!(watched.get(key), Reply::bulk("v"), "{key}");
        }
    });
    assert_eq!(hits, 0, "these are no hits");
    assert!(proxy.counter(info::STALE_HITS) >= 4);
    redis.thaw();
    redis.call(&["SET", "hot", "w"]);
    watched.recovers("hot", &Reply::bulk("v"), &Reply::bulk("w"));
    proxy.await_coherence("tracking");
    watched.recovers("hot", &Reply::bulk("w"), &Reply::bulk("w"));
    watched.stays("hot", &Reply::bulk("w"));
}

#[test]
fn a_read_that_joins_a_fetch_is_not_answered_with_what_is_older_than_the_bound() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .tracking()
        .env("STALENESS_BOUND_MS", BOUND.as_millis())
        .start_tracking();
    redis.call(&["MSET", "warm", "w", "k", "old"]);
    assert_eq!(proxy.resp().line("GET warm"), Reply::bulk("w"));
    let invalidation = relay
        .newest_open_with(Way::Up, b"TRACKING")
        .expect("it tracks");
    let worker = relay
        .newest_open_with(Way::Up, b"\r\nwarm\r\n")
        .expect("a worker has fetched");
    // A fetch has its answer, which is under way for long; then the key changes and nobody hears of it.
    relay.pause_one(worker, Way::Down);
    let mut early = proxy.resp();
    early.send(&encode(&["GET", "k"]));
    eventually("Redis has answered the fetch", PATIENCE, || {
        relay.has_seen(Way::Down, b"$3\r\nold\r\n")
    });
    relay.pause_one(invalidation, Way::Down);
    redis.call(&["SET", "k", "new"]);
    let written = Instant::now();
    eventually("the bound has passed", PATIENCE, || {
        written.elapsed() > BOUND + SLACK && proxy.info()[info::STALENESS_NOW] == "no_hits"
    });
    let mut late = proxy.resp();
    late.send(&encode(&["GET", "k"]));
    eventually("the late read is under way", PATIENCE, || {
        proxy.counter(info::JOINED) + proxy.counter(info::MISSES) >= 3
    });
    relay.resume_one(worker, Way::Down);
    assert_eq!(
        early.reply(),
        Reply::bulk("old"),
        "it was asked before the write"
    );
    assert_eq!(
        late.reply(),
        Reply::bulk("new"),
        "it was asked long after the write"
    );
}
