//! Connections that end: each one of the proxy's in turn, and the invalidation link at every byte of what it hears.
//! Whatever was missed meanwhile is never answered with the old value.

use crate::support::coherent::Watched;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::{PATIENCE, eventually, eventually_some};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A user without the right to INFO and COMMAND: the handshake fits into a few hundred bytes.
const TERSE_USER: &str = "ACL SETUSER terse on >pw ~* &* +@all -info -command";
/// Bytes beyond the handshake of that user: a few pushes and PONGs.
const BEYOND: u64 = 120;

/// Closes a connection and changes `k` in one go: Redis looks at no other connection between the two, so whoever was
/// on the closed one is not told.
fn kill_and_set(id: u64, value: &str) -> Vec<u8> {
    [
        encode_line(&format!("CLIENT KILL ID {id}")),
        encode(&["SET", "k", value]),
    ]
    .concat()
}

#[test]
fn a_change_in_the_gap_of_the_invalidation_link_is_not_missed() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut watched = Watched::by(&proxy);
    redis.call(&["SET", "k", "0"]);
    for round in 1..=10 {
        let (old, new) = (
            Reply::bulk((round - 1).to_string()),
            Reply::bulk(round.to_string()),
        );
        watched.warm("k", &old);
        let connections = redis.proxy_connections();
        let links: Vec<u64> = connections
            .iter()
            .filter(|(_, name)| name.ends_with(":inval"))
            .map(|&(id, _)| id)
            .collect();
        assert_eq!(links.len(), 1, "{connections:?}");
        let mut direct = redis.client();
        direct.send(&kill_and_set(links[0], &round.to_string()));
        assert_eq!(direct.replies(2), [Reply::Int(1), Reply::ok()]);
        watched.recovers("k", &old, &new);
        watched.stays("k", &new);
        proxy.await_coherence("tracking");
    }
    assert_eq!(proxy.counter(info::UPSTREAM_LOST), 10);
}

#[test]
fn each_connection_may_be_killed_under_load_and_nothing_stale_is_read() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .lost_is_an_error()
        .tracking()
        .env("LOG_LEVEL", "error")
        .env("VERIFY_SAMPLE", 1)
        .start_tracking();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = StopAtEnd(&over);
        for key in ["a", "b"] {
            scope.spawn(|| {
                let mut direct = redis.client();
                while !over.load(Ordering::Relaxed) {
                    direct.call(&["INCR", key]);
                }
            });
            scope.spawn(|| {
                let mut client = proxy.resp();
                while !over.load(Ordering::Relaxed) {
                    // Keeps a shared link busy. An error is the loss of that link.
                    client.call(&["INCR", key]);
                }
            });
            for _ in 0..2 {
                scope.spawn(|| read_rising(proxy.resp(), key, &over));
            }
        }
        let mut watched = Watched::by(&proxy);
        let mut old = Reply::NullBulk;
        let mut killed: BTreeMap<String, usize> = BTreeMap::new();
        let mut turn = 0;
        eventually(
            "each kind of connection was killed thrice",
            PATIENCE,
            || {
                // Cold keys for both workers, so that both have a connection with a name.
                let mut client = proxy.resp();
                for n in 0..32 {
                    let reply = client.call(&["GET", &format!("cold{turn}-{n}")]);
                    assert!(
                        reply == Reply::NullBulk || reply.is_own_error(),
                        "{reply:?}"
                    );
                }
                for (id, name) in redis.proxy_connections() {
                    turn += 1;
                    let value = format!("{turn} {name}");
                    let mut direct = redis.client();
                    direct.send(&kill_and_set(id, &value));
                    let replies = direct.replies(2);
                    assert_eq!(replies[1], Reply::ok());
                    let new = Reply::bulk(&value);
                    watched.recovers("k", &old, &new);
                    old = new;
                    if replies[0] == Reply::Int(1) {
                        let kind = name.rsplit(':').next().expect("rsplit yields something");
                        *killed
                            .entry(kind.trim_end_matches(char::is_numeric).to_string())
                            .or_default() += 1;
                        *killed.entry(kind.to_string()).or_default() += 1;
                    }
                    proxy.await_coherence("tracking");
                }
                ["fetch0", "fetch1", "inval", "link"]
                    .iter()
                    .all(|&kind| killed.get(kind) >= Some(&3))
            },
        );
        drop(stop);
    });
    assert_eq!(proxy.counter("nearcache_verify_mismatches"), 0);
    for key in ["a", "b"] {
        let mut client = proxy.resp();
        eventually("the last value is read", PATIENCE, || {
            client.call(&["GET", key]) == redis.call(&["GET", key])
        });
    }
}

/// Tells the threads of a scope to end, also when the test fails: the scope waits for them.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read_rising(mut client: RespClient, key: &str, over: &AtomicBool) {
    let mut seen = 0;
    while !over.load(Ordering::Relaxed) {
        match client.call(&["GET", key]) {
            Reply::Bulk(text) => {
                let now: u64 = String::from_utf8_lossy(&text)
                    .parse()
                    .expect("a counter holds a number");
                assert!(now >= seen, "{key}: {now} after {seen}");
                seen = now;
            }
            Reply::NullBulk => assert_eq!(seen, 0, "{key} is never deleted"),
            other => assert!(other.is_own_error(), "{other:?}"),
        }
    }
}

/// A proxy behind a relay whose invalidation link can be cut at a chosen byte.
struct Cutter<'a> {
    redis: &'a RedisServer,
    relay: &'a Relay,
    proxy: &'a Proxy,
    watched: Watched<'a>,
    version: u64,
}

impl<'a> Cutter<'a> {
    fn new(redis: &'a RedisServer, relay: &'a Relay, proxy: &'a Proxy) -> Cutter<'a> {
        redis.call(&["SET", "k", "0"]);
        Cutter {
            redis,
            relay,
            proxy,
            watched: Watched::by(proxy),
            version: 0,
        }
    }

    /// The invalidation link is lost; the next one hears `bytes` of what Redis says. A change falls into the gap, and
    /// another one follows when the key is kept again, so that its push may be what is cut.
    fn cut_at(&mut self, bytes: u64) {
        let old = Reply::bulk(self.version.to_string());
        eventually("the key is a hit", PATIENCE, || {
            let proxy = self.proxy;
            let mut reply = Reply::Null;
            let (hits, _) = proxy.hits_and_misses_of(|| reply = self.watched.get("k"));
            assert!(
                reply == old || reply.is_own_error(),
                "cut at {bytes}: {reply:?}"
            );
            hits == 1
        });
        let link = eventually_some("it tracks", PATIENCE, || {
            self.relay.newest_open_with(Way::Up, b"TRACKING")
        });
        let connections = self.relay.connection_count();
        self.relay.cut_next_after(Way::Down, bytes);
        self.relay.cut(link);
        let new = self.change();
        eventually("the loss is noticed", PATIENCE, || {
            self.relay.connection_count() > connections
        });
        self.is_never_old(bytes, &new);
        let newer = self.change();
        self.watched.recovers("k", &new, &newer);
        self.is_never_old(bytes, &newer);
    }

    fn change(&mut self) -> Reply {
        self.version += 1;
        let value = self.version.to_string();
        self.redis.call(&["SET", "k", &value]);
        Reply::bulk(value)
    }

    fn is_never_old(&mut self, bytes: u64, value: &Reply) {
        eventually("it is read again", PATIENCE, || {
            let reply = self.watched.get("k");
            assert!(
                reply == *value || reply.is_own_error(),
                "cut at {bytes}: {reply:?}, not {value:?}"
            );
            reply == *value
        });
    }
}

#[test]
fn the_invalidation_link_may_be_cut_at_every_byte_of_a_short_handshake_and_of_a_push() {
    let redis = RedisServer::start();
    let user: Vec<&str> = TERSE_USER.split(' ').collect();
    redis.call(&user);
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay)
        .lost_is_an_error()
        .tracking()
        .env(
            "REDIS_URL",
            format!("redis://terse:pw@127.0.0.1:{}/0", relay.port()),
        )
        .env("CLIENT_AUTH", "none")
        .env("LOG_LEVEL", "error")
        .start_tracking();
    let link = relay
        .newest_open_with(Way::Up, b"TRACKING")
        .expect("it tracks");
    let handshake = relay.passed_bytes(link, Way::Down);
    assert!(
        (200..1500).contains(&handshake),
        "the handshake has {handshake} bytes"
    );
    let mut cutter = Cutter::new(&redis, &relay, &proxy);
    for bytes in 0..handshake + BEYOND {
        cutter.cut_at(bytes);
    }
}

#[test]
fn the_invalidation_link_may_be_cut_in_a_full_handshake() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::through(&relay)
        .lost_is_an_error()
        .tracking()
        .env("LOG_LEVEL", "error")
        .start_tracking();
    let link = relay
        .newest_open_with(Way::Up, b"TRACKING")
        .expect("it tracks");
    let handshake = relay.passed_bytes(link, Way::Down);
    let mut cutter = Cutter::new(&redis, &relay, &proxy);
    // All over it, and densely around its end.
    for bytes in (0..handshake)
        .step_by(handshake as usize / 30)
        .chain(handshake - 20..handshake + 60)
    {
        cutter.cut_at(bytes);
    }
}
