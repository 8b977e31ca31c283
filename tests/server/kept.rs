//! MGET, EXISTS, STRLEN, GETRANGE and SUBSTR answered from what is kept: when, with what, and when not.

use crate::support::proxy::{Proxy, ProxyBuilder, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode_line};
use crate::support::{PATIENCE, eventually};
use std::sync::atomic::{AtomicBool, Ordering};

const OTHER_HITS: &str = "nearcache_other_hits";
const FETCHED_AHEAD: &str = "nearcache_fetched_ahead";

/// With a lease that does not end though the machine is busy: what may be a hit is one.
fn patient(proxy: ProxyBuilder) -> Proxy {
    proxy
        .env("STALENESS_BOUND_MS", 20_000)
        .env("CACHE_NEGATIVE_TTL_SECS", 60)
        .tracking()
        .start_tracking()
}

fn bulks(values: &[&str]) -> Reply {
    Reply::Array(values.iter().map(Reply::bulk).collect())
}

#[test]
fn mget_of_what_is_kept_does_not_reach_redis() {
    let redis = RedisServer::start();
    let proxy = patient(Proxy::to(&redis));
    redis.call(&["MSET", "a", "1", "b", "2"]);
    let mut client = proxy.resp();
    let ask = |client: &mut crate::support::resp::RespClient| {
        let replies = [
            client.line("GET a"),
            client.line("GET b"),
            client.line("GET none"),
        ];
        let expected = [Reply::bulk("1"), Reply::bulk("2"), Reply::NullBulk];
        assert_eq!(replies, expected);
        let reply = client.line("MGET b a none b");
        let two = Reply::bulk("2");
        let expected = vec![two.clone(), Reply::bulk("1"), Reply::NullBulk, two];
        assert_eq!(reply, Reply::Array(expected));
    };
    eventually("a PING has passed, and MGET is a hit", PATIENCE, || {
        ask(&mut client);
        proxy.counter(OTHER_HITS) > 0
    });
    let mut third = proxy.resp();
    assert!(matches!(third.line("HELLO 3"), Reply::Map(_)));
    eventually("and so it is in RESP3", PATIENCE, || {
        let before = proxy.counter(OTHER_HITS);
        let reply = third.line("MGET a none");
        assert_eq!(reply, Reply::Array(vec![Reply::bulk("1"), Reply::Null]));
        proxy.counter(OTHER_HITS) > before
    });

    // An own write is seen at once; a foreign one as soon as it is pushed.
    assert_eq!(client.line("SET a 3"), Reply::ok());
    assert_eq!(client.line("MGET a b"), bulks(&["3", "2"]));
    redis.call(&["SET", "b", "4"]);
    eventually("the foreign write is seen", PATIENCE, || {
        client.line("MGET a b") == bulks(&["3", "4"])
    });
}

#[test]
fn mget_behind_an_own_write_in_one_pipeline_shows_it() {
    let redis = RedisServer::start();
    let proxy = patient(Proxy::to(&redis));
    let mut client = proxy.resp();
    for n in 0..200 {
        let lines = [
            "GET a".to_owned(),
            "GET b".to_owned(),
            format!("MSET a {n} b {n}"),
            "MGET a b".to_owned(),
            "STRLEN a".to_owned(),
            "EXISTS a b".to_owned(),
            "GETRANGE b 0 -1".to_owned(),
        ];
        client.send(
            &lines
                .iter()
                .flat_map(|line| encode_line(line))
                .collect::<Vec<_>>(),
        );
        let replies = client.replies(lines.len());
        let text = n.to_string();
        assert_eq!(replies[3], bulks(&[&text, &text]));
        assert_eq!(replies[4], Reply::Int(text.len() as i64));
        assert_eq!(replies[5], Reply::Int(2));
        assert_eq!(replies[6], Reply::bulk(&text));
    }
}

/// Tells a thread to end, also when the test fails.
struct Done(AtomicBool);
struct End<'d>(&'d AtomicBool);

impl Done {
    fn at_the_end(&self) -> End<'_> {
        End(&self.0)
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn mget_never_shows_half_of_a_foreign_mset() {
    const TURNS: usize = 4000;
    let redis = RedisServer::start();
    let proxy = patient(Proxy::to(&redis));
    redis.call(&["MSET", "a", "0", "b", "0"]);
    let done = Done(AtomicBool::new(false));
    let hits = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut foreign = redis.client();
            let mut n = 0;
            while !done.0.load(Ordering::Relaxed) {
                n += 1;
                let n = n.to_string();
                assert_eq!(foreign.call(&["MSET", "a", &n, "b", &n]), Reply::ok());
                // In bursts, so that now and then a PING passes between two.
                if foreign.line("PING") == Reply::Simple("PONG".to_owned()) && n.ends_with("000") {
                    std::thread::sleep(std::time::Duration::from_millis(1500));
                }
            }
        });
        let _end = done.at_the_end();
        let mut client = proxy.resp();
        let mut turns = 0;
        // As long as it takes for both ways to be seen.
        eventually("MGET was relayed and was a hit", PATIENCE, || {
            for _ in 0..100 {
                turns += 1;
                // A GET behind an MGET that is relayed would be relayed too.
                client.send(&[encode_line("GET a"), encode_line("GET b")].concat());
                client.replies(2);
                let Reply::Array(values) = client.line("MGET a b") else {
                    panic!("an array");
                };
                assert_eq!(values[0], values[1], "turn {turns}");
            }
            turns >= TURNS && proxy.counter(OTHER_HITS) > 0
        });
        proxy.counter(OTHER_HITS)
    });
    assert!(hits > 0 && redis.calls_of("mget") > 0);
}

#[test]
fn keys_that_mget_misses_twice_are_fetched_for_the_next_one() {
    let redis = RedisServer::start();
    let proxy = patient(Proxy::to(&redis));
    let keys: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    let mget = format!("MGET {}", keys.join(" "));
    let mut client = proxy.resp();
    assert!(matches!(client.line(&mget), Reply::Array(_)));
    // Two keys may share a bit of the sketch, seldom.
    let once = proxy.counter(FETCHED_AHEAD);
    assert!(once < 10, "once is not enough");
    eventually("twice is", PATIENCE, || {
        assert!(matches!(client.line(&mget), Reply::Array(_)));
        proxy.counter(FETCHED_AHEAD) > once
    });
    let fetched = proxy.counter(FETCHED_AHEAD);
    assert!(
        (50..=64).contains(&(fetched - once)),
        "no more for one command"
    );
    eventually("they are kept", PATIENCE, || {
        proxy.counter(info::ENTRIES) == fetched
    });
    // Then the rest, and then nobody has to ask Redis.
    eventually("the whole MGET is a hit", PATIENCE, || {
        assert!(matches!(client.line(&mget), Reply::Array(values) if values.len() == 100));
        proxy.counter(OTHER_HITS) > 0
    });
    assert_eq!(proxy.counter(info::MISSES), 0, "they are counted apart");
}

#[test]
fn what_is_kept_of_one_key_answers_exists_strlen_and_getrange() {
    let redis = RedisServer::start();
    let proxy = patient(Proxy::to(&redis));
    redis.call(&["SET", "k", "hello"]);
    let mut client = proxy.resp();
    assert_eq!(client.line("GET k"), Reply::bulk("hello"));
    assert_eq!(client.line("GET none"), Reply::NullBulk);
    let answers = [
        ("EXISTS k", Reply::Int(1)),
        ("EXISTS k k k", Reply::Int(3)),
        ("EXISTS none", Reply::Int(0)),
        ("STRLEN k", Reply::Int(5)),
        ("STRLEN none", Reply::Int(0)),
        ("GETRANGE k 1 3", Reply::bulk("ell")),
        ("GETRANGE k -2 -1", Reply::bulk("lo")),
        ("GETRANGE none 0 -1", Reply::bulk("")),
        ("SUBSTR k 0 0", Reply::bulk("h")),
        ("MGET k", bulks(&["hello"])),
    ];
    let names = ["exists", "strlen", "getrange", "substr", "mget"];
    for (line, expected) in &answers {
        assert_eq!(client.line(line), *expected, "{line}");
    }
    for name in names {
        assert_eq!(redis.calls_of(name), 0, "{name}");
    }
    assert_eq!(proxy.counter(OTHER_HITS), answers.len() as u64);
    // What is not known here is for Redis to say.
    assert_eq!(client.line("EXISTS k other"), Reply::Int(1));
    assert_eq!(redis.calls_of("exists"), 1);
    redis.call(&["RPUSH", "list", "x"]);
    assert!(client.line("GET list").error().starts_with("WRONGTYPE"));
    assert!(client.line("STRLEN list").error().starts_with("WRONGTYPE"));
    assert_eq!(client.line("EXISTS list"), Reply::Int(1));
}

#[test]
fn without_tracking_several_keys_are_for_redis_to_answer() {
    let redis = RedisServer::start();
    redis.call(&["MSET", "a", "1", "b", "2"]);
    let proxy = Proxy::to(&redis).env("COHERENCE", "ttl").start();
    let mut client = proxy.resp();
    for _ in 0..3 {
        assert_eq!(client.line("GET a"), Reply::bulk("1"));
        assert_eq!(client.line("GET b"), Reply::bulk("2"));
        assert_eq!(client.line("MGET a b"), bulks(&["1", "2"]));
        assert_eq!(client.line("EXISTS a b"), Reply::Int(2));
    }
    assert_eq!((redis.calls_of("mget"), redis.calls_of("exists")), (3, 3));
    assert_eq!(proxy.counter(OTHER_HITS), 0);
    assert_eq!(client.line("STRLEN a"), Reply::Int(1));
    assert_eq!(proxy.counter(OTHER_HITS), 1, "one key needs no moment");
}
