//! SELECT: each database has its own entries, links and answers, and a change drops the name in all of them.

use crate::oracle::{Oracle, assert_same_replies};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::{PATIENCE, eventually};

/// A client of the proxy's in this database.
fn client_in(proxy: &Proxy, db: u32) -> RespClient {
    let mut client = proxy.resp();
    assert_eq!(client.line(&format!("SELECT {db}")), Reply::ok());
    client
}

/// Reads `k` until it is a hit.
#[track_caller]
fn warm(proxy: &Proxy, client: &mut RespClient, value: &str) {
    client.call(&["EVAL", "return 0", "0"]);
    eventually("k is a hit", PATIENCE, || {
        let (hits, _) = proxy.hits_and_misses_of(|| {
            assert_eq!(client.line("GET k"), Reply::bulk(value));
        });
        hits == 1
    });
}

#[test]
fn select_says_what_redis_says_whatever_it_is_asked_for() {
    let oracle = Oracle::start();
    let odd = [
        "0",
        "1",
        "15",
        "16",
        "-1",
        "99",
        "01",
        "+1",
        "1.0",
        "",
        " 1",
        "1 ",
        "x",
        "2147483647",
        "2147483648",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
    ];
    // Twice: what was accepted once is answered by the proxy the second time.
    for _ in 0..2 {
        for db in odd {
            let pipeline = [
                encode(&["SELECT", db]),
                encode(&["APPEND", "k", "x"]),
                encode(&["GET", "k"]),
            ]
            .concat();
            oracle.assert_same(db, &pipeline);
        }
    }
    oracle.assert_same("no argument", &encode_line("SELECT"));
    oracle.assert_same("two arguments", &encode_line("SELECT 1 2"));
    oracle.assert_same("inline", b"select 3\r\nSET k inline\r\nGET k\r\n");
}

#[test]
fn every_database_that_redis_has_has_its_own_entries() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let mut direct = redis.client();
    let mut clients: Vec<RespClient> = (0..16).map(|db| client_in(&proxy, db)).collect();
    for db in 0..16 {
        direct.line(&format!("SELECT {db}"));
        direct.line(&format!("SET k of{db}"));
    }
    for round in 0..2 {
        for (db, client) in clients.iter_mut().enumerate() {
            assert_eq!(
                client.line("GET k"),
                Reply::bulk(format!("of{db}")),
                "round {round}"
            );
        }
    }
    for (db, client) in clients.iter_mut().enumerate() {
        warm(&proxy, client, &format!("of{db}"));
        let (hits, misses) = proxy.hits_and_misses_of(|| {
            assert_eq!(client.line("GET k"), Reply::bulk(format!("of{db}")));
        });
        assert_eq!((hits, misses), (1, 0), "database {db}");
    }
    assert_eq!(
        proxy.http().get("k").body,
        b"of0",
        "HTTP stays with the URL's"
    );
}

#[test]
fn another_number_of_databases_is_redis_business() {
    let redis = RedisServer::start_with(&["--databases", "40"]);
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    for (db, accepted) in [(39, true), (40, false), (16, true), (1000, false)] {
        let reply = client.line(&format!("SELECT {db}"));
        match accepted {
            true => assert_eq!(reply, Reply::ok(), "{db}"),
            false => assert_eq!(reply.error(), "ERR DB index is out of range", "{db}"),
        }
    }
    client.line("SET k sixteen");
    assert_eq!(client.line("GET k"), Reply::bulk("sixteen"));
    assert_eq!(client_in(&proxy, 39).line("GET k"), Reply::NullBulk);
    let asked = redis.calls_of("select");
    for _ in 0..20 {
        client_in(&proxy, 12).line("ECHO x");
    }
    assert_eq!(
        redis.calls_of("select"),
        asked,
        "what is known to be there is not asked again"
    );
}

#[test]
fn databases_change_in_the_middle_of_a_pipeline() {
    let oracle = Oracle::start();
    let mut random = fastrand::Rng::with_seed(20_600);
    let (mut ours, mut theirs) = oracle.clients();
    for round in 0..60 {
        let mut pipeline = Vec::new();
        for _ in 0..random.usize(1..60) {
            let key = format!("k{}", random.u8(0..3));
            pipeline.extend(match random.u8(0..12) {
                0 | 1 => encode(&["SELECT", &random.u8(0..17).to_string()]),
                2 => encode(&["SET", &key, &random.u16(..).to_string()]),
                3 => encode(&["DEL", &key]),
                4 => encode(&["COPY", &key, "k0", "DB", &random.u8(0..5).to_string()]),
                5 => encode(&["MOVE", &key, &random.u8(0..5).to_string()]),
                6 => encode(&["HELLO", if random.bool() { "2" } else { "3" }, "FOO"]),
                7 => encode(&["DBSIZE"]),
                _ => encode(&["GET", &key]),
            });
        }
        assert_same_replies(&format!("round {round}"), &mut ours, &mut theirs, &pipeline);
    }
}

#[test]
fn clients_in_different_databases_share_the_workers() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("REDIS_WORKERS", 1).start();
    let mut direct = redis.client();
    for db in 0..4 {
        direct.line(&format!("SELECT {db}"));
        for key in 0..100 {
            direct.line(&format!("SET k{key} {db}:{key}"));
        }
    }
    let mut clients: Vec<RespClient> = (0..4).map(|db| client_in(&proxy, db)).collect();
    let gets: Vec<u8> = (0..100)
        .flat_map(|key| encode_line(&format!("GET k{key}")))
        .collect();
    redis.freeze(); // so that the jobs of all of them stand in one queue
    for client in &mut clients {
        client.send(&gets);
    }
    redis.thaw();
    for (db, client) in clients.iter_mut().enumerate() {
        for key in 0..100 {
            assert_eq!(client.reply(), Reply::bulk(format!("{db}:{key}")));
        }
    }
}

/// What a client does in database 0, and what is read in databases 0 and 1 afterwards; "zero" and "one" before.
const OWN_CHANGES: [(&str, Option<&str>, Option<&str>); 8] = [
    ("COPY k k DB 1 REPLACE", Some("zero"), Some("zero")),
    ("SWAPDB 0 1", Some("one"), Some("zero")),
    ("SET k new", Some("new"), Some("one")),
    ("FLUSHDB", None, Some("one")),
    ("FLUSHALL", None, None),
    ("DEL k", None, Some("one")),
    ("MOVE k 1", Some("zero"), Some("one")),
    ("RENAME k other", None, Some("one")),
];

fn as_reply(value: Option<&str>) -> Reply {
    value.map_or(Reply::NullBulk, Reply::bulk)
}

#[test]
fn an_own_change_is_seen_in_every_database_at_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let (mut zero, mut one) = (client_in(&proxy, 0), client_in(&proxy, 1));
    for (change, in_zero, in_one) in OWN_CHANGES {
        zero.line("SET k zero");
        one.line("SET k one");
        warm(&proxy, &mut zero, "zero");
        warm(&proxy, &mut one, "one");
        zero.line(change);
        // Without a pause, by either client and by HTTP.
        assert_eq!(one.line("GET k"), as_reply(in_one), "{change}");
        assert_eq!(zero.line("GET k"), as_reply(in_zero), "{change}");
        assert_eq!(
            proxy.http().get("k").status,
            if in_zero.is_some() { 200 } else { 404 },
            "{change}"
        );
        zero.line("DEL other");
    }
    // The target of a MOVE, which must not exist.
    zero.line("SET k moved");
    one.line("DEL k");
    assert_eq!(zero.line("GET k"), Reply::bulk("moved"));
    assert_eq!(one.line("GET k"), Reply::NullBulk);
    assert_eq!(zero.line("MOVE k 1"), Reply::Int(1));
    assert_eq!(one.line("GET k"), Reply::bulk("moved"));
    assert_eq!(zero.line("GET k"), Reply::NullBulk);
    // Scripts go where they like.
    assert_eq!(
        zero.call(&[
            "EVAL",
            "redis.call('SELECT', 1) redis.call('SET', 'k', 's') return 1",
            "0"
        ]),
        Reply::Int(1)
    );
    assert_eq!(one.line("GET k"), Reply::bulk("s"));
}

#[test]
fn a_foreign_change_in_any_database_is_seen() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let (mut zero, mut one) = (client_in(&proxy, 0), client_in(&proxy, 1));
    for (change, in_zero, in_one) in OWN_CHANGES {
        if change.starts_with("SWAPDB") {
            continue; // Redis tells nobody of it (the README says so)
        }
        redis.call(&["FLUSHALL"]);
        zero.line("SET k zero");
        one.line("SET k one");
        warm(&proxy, &mut zero, "zero");
        warm(&proxy, &mut one, "one");
        redis.call(&change.split(' ').collect::<Vec<_>>());
        eventually(change, PATIENCE, || {
            zero.line("GET k") == as_reply(in_zero) && one.line("GET k") == as_reply(in_one)
        });
    }
}

#[test]
fn select_waits_for_a_redis_that_is_silent_and_says_so_when_it_is_away() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    redis.freeze();
    client.send(&[encode_line("SELECT 5"), encode_line("SET k five")].concat());
    assert_eq!(proxy.resp().line("ECHO x"), Reply::bulk("x"));
    redis.thaw();
    assert_eq!(client.replies(2), [Reply::ok(), Reply::ok()]);
    redis.kill();
    proxy.await_redis("away");
    let mut other = proxy.resp();
    other.send(&encode_line("SELECT 9"));
    assert_eq!(other.bytes_until_closed(), b"");
    assert_eq!(
        client.line("SELECT 3"),
        Reply::ok(),
        "known to be there: nobody needs to be asked"
    );
    redis.boot();
    proxy.await_redis("up");
    assert_eq!(client.line("SET k three"), Reply::ok());
    assert_eq!(client_in(&proxy, 3).line("GET k"), Reply::bulk("three"));
}
