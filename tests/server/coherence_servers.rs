//! Another Redis behind the same name, the same one in another role, and one that will not track.

use crate::support::coherent::{SLACK, Watched};
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, encode, encode_line};
use crate::support::{PATIENCE, eventually};
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_millis(400);

#[test]
fn a_redis_that_comes_back_with_other_data_is_believed_at_once() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .lost_is_an_error()
        .tracking()
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    redis.call(&["MSET", "k", "0", "gone", "here"]);
    for round in 1..=3 {
        let (old, new) = (
            Reply::bulk((round - 1).to_string()),
            Reply::bulk(round.to_string()),
        );
        watched.warm("k", &old);
        let lost = proxy.counter(info::UPSTREAM_LOST);
        redis.kill();
        redis.boot();
        redis.call(&["SET", "k", &round.to_string()]);
        eventually("the loss is noticed", PATIENCE, || {
            proxy.counter(info::UPSTREAM_LOST) > lost
        });
        watched.recovers("k", &new, &new);
        watched.stays("k", &new);
        proxy.await_coherence("tracking");
        assert_eq!(watched.get("gone"), Reply::NullBulk);
    }
}

#[test]
fn when_the_address_leads_to_another_redis_nothing_of_the_first_is_answered_any_more() {
    let (first, second) = (RedisServer::start(), RedisServer::start());
    first.call(&["MSET", "k", "first", "cold", "first", "j", "first"]);
    second.call(&["MSET", "k", "second", "cold", "second"]);
    let relay = Relay::to(first.port());
    let proxy = Proxy::patiently_through(&relay)
        .lost_is_an_error()
        .tracking()
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    watched.warm("k", &Reply::bulk("first"));
    watched.warm("j", &Reply::bulk("first"));
    assert_eq!(proxy.resp().line("SET written first"), Reply::ok());
    relay.lead_to(second.port());
    // The invalidation link and the link of the SET still reach the first one; the worker must connect anew.
    for worker in relay.connections_with(Way::Up, b"PTTL") {
        relay.cut(worker);
    }
    watched.recovers("cold", &Reply::bulk("second"), &Reply::bulk("second"));
    // Whoever got this reply learnt that it is the second one which is there.
    watched.recovers("k", &Reply::bulk("second"), &Reply::bulk("second"));
    watched.recovers("j", &Reply::NullBulk, &Reply::NullBulk);
    proxy.await_coherence("tracking");
    watched.stays("k", &Reply::bulk("second"));
    let mut client = proxy.resp();
    assert_eq!(client.line("SET written second"), Reply::ok());
    assert_eq!(second.call(&["GET", "written"]), Reply::bulk("second"));
    assert_eq!(first.call(&["GET", "written"]), Reply::bulk("first"));
    watched.sees("k", Reply::bulk("second"), Reply::bulk("third"), || {
        second.call(&["SET", "k", "third"]);
    });
}

#[test]
fn a_master_that_becomes_a_replica_and_a_master_again_is_followed() {
    let (redis, other) = (RedisServer::start(), RedisServer::start());
    other.call(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    redis.call(&["SET", "k", "of the master"]);
    other.call(&["SET", "k", "of the other"]);
    let proxy = Proxy::to(&redis)
        .lost_is_an_error()
        .tracking()
        .start_tracking();
    let mut watched = Watched::by(&proxy);
    watched.warm("k", &Reply::bulk("of the master"));
    let lost = proxy.counter(info::UPSTREAM_LOST);
    assert_eq!(
        redis.call(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]),
        Reply::ok()
    );
    let (old, new) = (Reply::bulk("of the master"), Reply::bulk("of the other"));
    eventually("the replica's data are read", PATIENCE, || {
        let reply = watched.get("k");
        let loading = matches!(&reply, Reply::Error(text) if text.starts_with("LOADING"));
        assert!(
            reply == old || reply == new || loading || reply.is_own_error(),
            "{reply:?}"
        );
        reply == new
    });
    let mut client = proxy.resp();
    let reply = client.line("SET k refused");
    assert!(reply.error().starts_with("READONLY"), "{reply:?}");
    eventually("the change of role is noticed", PATIENCE, || {
        proxy.counter(info::UPSTREAM_LOST) > lost
    });
    proxy.await_coherence("tracking");
    watched.stays("k", &new);
    watched.sees("k", new, Reply::bulk("replicated"), || {
        other.call(&["SET", "k", "replicated"]);
    });
    let lost = proxy.counter(info::UPSTREAM_LOST);
    assert_eq!(redis.call(&["REPLICAOF", "NO", "ONE"]), Reply::ok());
    redis.call(&["SET", "k", "promoted"]);
    watched.recovers("k", &Reply::bulk("replicated"), &Reply::bulk("promoted"));
    eventually("the promotion is noticed", PATIENCE, || {
        proxy.counter(info::UPSTREAM_LOST) > lost
    });
    proxy.await_coherence("tracking");
    watched.recovers("k", &Reply::bulk("promoted"), &Reply::bulk("promoted"));
    assert_eq!(proxy.resp().line("SET k own"), Reply::ok());
    watched.stays("k", &Reply::bulk("own"));
}

/// A Redis that is asked as this user, and entries that live at most the bound.
fn bounded_as(redis: &RedisServer, rights: &str) -> Proxy {
    let setuser = format!("ACL SETUSER limited on >pw ~* &* +@all {rights}");
    assert_eq!(redis.client().line(setuser.trim_end()), Reply::ok());
    let url = format!("redis://limited:pw@127.0.0.1:{}/0", redis.port());
    let proxy = Proxy::to(redis)
        .tracking()
        .env("REDIS_URL", url)
        .env("CLIENT_AUTH", "none")
        .env("STALENESS_BOUND_MS", BOUND.as_millis())
        .start();
    proxy.await_coherence("bounded");
    foreign_writes_are_seen_within_the_bound(redis, &proxy);
    own_writes_are_seen_at_once(&proxy);
    proxy
}

fn foreign_writes_are_seen_within_the_bound(redis: &RedisServer, proxy: &Proxy) {
    let mut watched = Watched::by(proxy);
    redis.call(&["SET", "k", "0"]);
    let hits = proxy.counter(info::HITS);
    for round in 1..=4 {
        let (old, new) = (
            Reply::bulk((round - 1).to_string()),
            Reply::bulk(round.to_string()),
        );
        watched.recovers("k", &old, &old);
        redis.call(&["SET", "k", &round.to_string()]);
        let written = Instant::now();
        eventually("the new value is read", PATIENCE, || {
            let asked = written.elapsed();
            let reply = watched.get("k");
            assert!(
                reply == new || reply == old && asked < BOUND + SLACK,
                "{reply:?} after {asked:?}"
            );
            reply == new
        });
        watched.stays("k", &new);
    }
    assert!(proxy.counter(info::HITS) > hits, "something was kept");
    assert_eq!(proxy.counter(info::PUSHES), 0);
}

/// Scripts too, though no barrier is to be had.
fn own_writes_are_seen_at_once(proxy: &Proxy) {
    let (mut writer, mut other) = (proxy.resp(), proxy.resp());
    for round in 0..30 {
        let value = format!("own{round}");
        let script = "return redis.call('SET', 'k', ARGV[1])";
        let reply = match round % 2 {
            0 => writer.call(&["SET", "k", &value]),
            _ => writer.call(&["EVAL", script, "0", &value]),
        };
        assert_eq!(reply, Reply::ok());
        assert_eq!(other.line("GET k"), Reply::bulk(&value));
        assert_eq!(other.line("GET k"), Reply::bulk(&value));
    }
}

#[test]
fn a_user_without_the_right_to_track_has_the_bound_and_a_new_connection_with_it_tracks() {
    let redis = RedisServer::start();
    let proxy = bounded_as(&redis, "-client|tracking");
    let mut direct = redis.client();
    assert_eq!(direct.line("ACL SETUSER limited +@all"), Reply::ok());
    let inval = redis
        .proxy_connections()
        .into_iter()
        .find(|(_, name)| name.ends_with(":inval"));
    let (id, _) = inval.expect("there is an invalidation link");
    direct.send(
        &[
            encode_line(&format!("CLIENT KILL ID {id}")),
            encode(&["SET", "k", "gap"]),
        ]
        .concat(),
    );
    assert_eq!(direct.replies(2), [Reply::Int(1), Reply::ok()]);
    proxy.await_coherence("tracking");
    let mut watched = Watched::by(&proxy);
    watched.recovers("k", &Reply::bulk("gap"), &Reply::bulk("gap"));
    watched.sees("k", Reply::bulk("gap"), Reply::bulk("tracked"), || {
        redis.call(&["SET", "k", "tracked"]);
    });
}

#[test]
fn a_server_that_does_not_know_resp3_has_the_bound() {
    let redis = RedisServer::start_with(&["--rename-command", "HELLO", ""]);
    bounded_as(&redis, "");
}

#[test]
fn a_server_that_does_not_know_how_to_track_has_the_bound() {
    let redis = RedisServer::start_with(&["--rename-command", "CLIENT", ""]);
    bounded_as(&redis, "");
}
