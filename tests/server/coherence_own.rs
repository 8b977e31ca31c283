//! Own writes: when the writer has its reply, every client of this proxy reads what was written. No polling here.

use crate::support::coherent::Watched;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, encode};
use crate::support::{PATIENCE, eventually};

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

/// A proxy behind a relay, a key that is a hit, and a script whose pushes are under way while its reply has come.
fn script_whose_push_is_late(and_then: impl FnOnce(&Relay, u64)) {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .tracking()
        .env("STALENESS_BOUND_MS", 600_000)
        .start_tracking();
    redis.call(&["SET", "k", "old"]);
    let (mut writer, mut other) = (proxy.resp(), proxy.resp());
    Watched::by(&proxy).warm("k", &Reply::bulk("old"));
    let barriers = proxy.counter(info::BARRIERS);
    let invalidation = relay
        .newest_open_with(Way::Up, b"TRACKING")
        .expect("it tracks");
    relay.pause_one(invalidation, Way::Down);
    writer.send(&encode(&["EVAL", UNDECLARED, "0", "new"]));
    eventually("the script's reply has come and is held", PATIENCE, || {
        proxy.counter(info::BARRIERS) == barriers + 1
    });
    assert_eq!(proxy.counter(info::IN_FLIGHT), 1, "its writer has no reply");
    assert_eq!(redis.call(&["GET", "k"]), Reply::bulk("new"));
    // Nobody was told yet that the script has run.
    let counts = proxy.hits_and_misses_of(|| assert_eq!(other.line("GET k"), Reply::bulk("old")));
    assert_eq!(counts, (1, 0));
    and_then(&relay, invalidation);
    assert_eq!(writer.reply(), Reply::ok());
    assert_eq!(other.line("GET k"), Reply::bulk("new"));
    assert_eq!(proxy.http().get("k").body, b"new");
    assert_eq!(proxy.counter(info::IN_FLIGHT), 0);
}

#[test]
fn a_script_is_answered_only_when_its_pushes_were_handled() {
    script_whose_push_is_late(|relay, invalidation| relay.resume_one(invalidation, Way::Down));
}

#[test]
fn a_script_whose_pushes_are_lost_is_answered_when_everything_was_dropped() {
    script_whose_push_is_late(|relay, invalidation| relay.cut(invalidation));
}
