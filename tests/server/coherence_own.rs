//! Own writes: when the writer has its reply, every client of this proxy reads what was written. No polling here.

use crate::support::coherent::Watched;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Connection, Relay, Way};
use crate::support::resp::{Reply, RespClient, encode};
use crate::support::{PATIENCE, eventually};
use std::time::{Duration, Instant};

const UNDECLARED: &str = "return redis.call('SET', 'k', ARGV[1])";

#[test]
fn an_own_write_is_read_by_every_client_as_soon_as_it_is_answered() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let (mut writer, mut other, mut http) = (proxy.resp(), proxy.resp(), proxy.http());
    let hits = proxy.counter(info::HITS);
    for round in 0..210 {
        let value = round.to_string();
        let write: &[&str] = match round % 7 {
            0 => &["SET", "k", &value],
            1 => &["MSET", "j", "x", "k", &value],
            2 => &["EVAL", UNDECLARED, "0", &value],
            3 => &["GETSET", "k", &value],
            // A key is declared, another one written.
            4 => &["EVAL", UNDECLARED, "1", "j", &value],
            5 => &["SETEX", "k", "100", &value],
            _ => &["INCR", "k"],
        };
        let reply = writer.call(write);
        assert!(!matches!(reply, Reply::Error(_)), "{write:?}: {reply:?}");
        assert_eq!(other.line("GET k"), Reply::bulk(&value), "{write:?}");
        assert_eq!(http.get("k").body, value.as_bytes(), "{write:?}");
        assert_eq!(writer.line("GET k"), Reply::bulk(&value), "{write:?}");
    }
    assert!(
        proxy.counter(info::HITS) > hits,
        "some of it came from memory"
    );
    assert!(
        proxy.counter(info::BARRIERS) >= 60,
        "each script waited for its pushes"
    );
}

#[test]
fn an_own_write_that_leaves_nothing_is_read_as_nothing_at_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let (mut writer, mut other) = (proxy.resp(), proxy.resp());
    for write in [
        "DEL k",
        "UNLINK k",
        "GETDEL k",
        "FLUSHALL",
        "FLUSHDB",
        "RENAME k j",
        "EXPIRE k -1",
    ] {
        assert_eq!(writer.line("SET k v"), Reply::ok());
        assert_eq!(other.line("GET k"), Reply::bulk("v"));
        let reply = writer.line(write);
        assert!(!matches!(reply, Reply::Error(_)), "{write}: {reply:?}");
        assert_eq!(other.line("GET k"), Reply::NullBulk, "{write}");
    }
}

#[test]
fn an_own_write_does_not_wait_for_its_push_and_counts_all_the_same() {
    let scene = Scene::new();
    scene.hold_pushes();
    let (mut writer, mut other) = (scene.proxy.resp(), scene.proxy.resp());
    for (write, expected) in [
        ("SET k new", Reply::bulk("new")),
        ("APPEND k er", Reply::bulk("newer")),
        ("MSET j x k 1", Reply::bulk("1")),
        ("INCR k", Reply::bulk("2")),
        ("COPY j k REPLACE", Reply::bulk("x")),
        ("DEL k", Reply::NullBulk),
        ("SET k again", Reply::bulk("again")),
        ("FLUSHALL", Reply::NullBulk),
    ] {
        let reply = writer.line(write);
        assert!(!matches!(reply, Reply::Error(_)), "{write}: {reply:?}");
        for _ in 0..3 {
            assert_eq!(other.line("GET k"), expected, "{write}");
        }
    }
    assert_eq!(
        scene.proxy.counter(info::PUSHES),
        scene.pushes,
        "no push came meanwhile"
    );
}

/// A proxy behind a relay that can hold its pushes up, and a key that is a hit.
struct Scene {
    proxy: Proxy,
    relay: Relay,
    redis: RedisServer,
    pushes: u64,
    barriers: u64,
}

impl Scene {
    fn new() -> Scene {
        let redis = RedisServer::start();
        let relay = Relay::to(redis.port());
        // Hits go on while nothing is heard of Redis.
        let proxy = Proxy::patiently_through(&relay)
            .lost_is_an_error()
            .tracking()
            .env("STALENESS_BOUND_MS", 600_000)
            .env("STALE_IF_ERROR_SECS", 600)
            .start_tracking();
        redis.call(&["SET", "k", "old"]);
        Watched::by(&proxy).warm("k", &Reply::bulk("old"));
        let (pushes, barriers) = (proxy.counter(info::PUSHES), proxy.counter(info::BARRIERS));
        Scene {
            proxy,
            relay,
            redis,
            pushes,
            barriers,
        }
    }

    fn invalidation(&self) -> Connection {
        self.relay
            .newest_open_with(Way::Up, b"TRACKING")
            .expect("it tracks")
    }

    fn hold_pushes(&self) {
        self.relay.pause_one(self.invalidation(), Way::Down);
    }

    /// A script writes the key; its reply has reached the proxy and waits there for the pushes.
    fn script(&self) -> RespClient {
        let mut writer = self.proxy.resp();
        writer.send(&encode(&["EVAL", UNDECLARED, "0", "new"]));
        eventually("the script's reply has come and is held", PATIENCE, || {
            self.proxy.counter(info::BARRIERS) == self.barriers + 1
        });
        assert_eq!(self.redis.call(&["GET", "k"]), Reply::bulk("new"));
        self.is_held();
        writer
    }

    /// The earliest and the latest instant at which the newest answered PING can have been sent.
    fn fresh_between(&self) -> (Instant, Instant) {
        let asked = Instant::now();
        let age = self.proxy.counter(info::STALENESS_NOW);
        let (least, most) = (Duration::from_millis(age), Duration::from_millis(age + 1));
        (asked - most, Instant::now() - least)
    }

    /// The writer has no reply, so the others may read what was there before.
    fn is_held(&self) {
        assert_eq!(
            self.proxy.counter(info::IN_FLIGHT),
            1,
            "the script's reply is held"
        );
        let mut other = self.proxy.resp();
        let counts = self
            .proxy
            .hits_and_misses_of(|| assert_eq!(other.line("GET k"), Reply::bulk("old")));
        assert_eq!(counts, (1, 0));
    }

    /// The writer has its reply, so everybody reads what it wrote.
    fn is_answered(&self, mut writer: RespClient) {
        assert_eq!(writer.reply(), Reply::ok());
        assert_eq!(self.proxy.resp().line("GET k"), Reply::bulk("new"));
        assert_eq!(self.proxy.http().get("k").body, b"new");
        assert_eq!(self.proxy.counter(info::IN_FLIGHT), 0);
    }
}

#[test]
fn a_script_is_answered_only_when_its_pushes_were_handled() {
    let scene = Scene::new();
    scene.hold_pushes();
    let writer = scene.script();
    scene.relay.resume_one(scene.invalidation(), Way::Down);
    scene.is_answered(writer);
}

#[test]
fn a_script_whose_pushes_are_lost_is_answered_when_everything_was_dropped() {
    let scene = Scene::new();
    scene.hold_pushes();
    let writer = scene.script();
    scene.relay.cut(scene.invalidation());
    scene.is_answered(writer);
}

#[test]
fn a_script_whose_pushes_are_lost_with_redis_leaves_nothing_stale() {
    let mut scene = Scene::new();
    scene.hold_pushes();
    let mut writer = scene.script();
    scene.redis.kill();
    scene.relay.cut(scene.invalidation());
    assert_eq!(writer.reply(), Reply::ok(), "it was executed");
    // Whoever hears of that reply must not be told what was there before it (rule L18).
    let reply = scene.proxy.resp().line("GET k");
    assert!(reply.is_own_error(), "{reply:?}");
}

#[test]
fn the_answer_to_a_ping_of_before_the_script_lets_nothing_go() {
    let scene = Scene::new();
    let invalidation = scene.invalidation();
    let pongs = || scene.relay.count_of(Way::Down, b"+PONG\r\n");
    scene.hold_pushes();
    let before = pongs();
    eventually("a heartbeat is answered", PATIENCE, || pongs() > before);
    let up_to_that = scene.relay.arrived_bytes(invalidation, Way::Down);
    let writer = scene.script();
    let (_, old) = scene.fresh_between();
    scene
        .relay
        .let_pass_up_to(invalidation, Way::Down, up_to_that);
    eventually("that answer was handled", PATIENCE, || {
        scene.fresh_between().0 > old
    });
    scene.is_held();
    scene.relay.resume_one(invalidation, Way::Down);
    scene.is_answered(writer);
}
