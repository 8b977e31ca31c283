//! Commands that wait: for data, as long as they asked, and not after their client has gone.

use crate::oracle::Oracle;
use crate::script::assert_same_script;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode_line};
use crate::support::{PATIENCE, eventually};

/// Each blocking command, what wakes it, and what makes it usable at all.
const ALL: [(&str, &str); 10] = [
    ("BLPOP none l 0", "RPUSH l v"),
    ("BRPOP none l 0", "RPUSH l v"),
    ("BLMOVE l m LEFT RIGHT 0", "RPUSH l v"),
    ("BRPOPLPUSH l m 0", "RPUSH l v"),
    ("BLMPOP 0 2 none l LEFT COUNT 2", "RPUSH l v"),
    ("BZPOPMIN z 0", "ZADD z 1 v"),
    ("BZPOPMAX none z 0", "ZADD z 1 v"),
    ("BZMPOP 0 1 z MIN", "ZADD z 1 v"),
    ("XREAD BLOCK 0 STREAMS s 0", "XADD s 5-0 f v"),
    ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "XADD s 6-0 f v"),
];

fn blocked(redis: &RedisServer) -> usize {
    let list = redis.call(&["CLIENT", "LIST"]).text();
    list.lines()
        .filter(|line| line.contains(" flags=b"))
        .count()
}

#[test]
fn each_blocking_command_is_woken_by_somebody_elses_write() {
    let oracle = Oracle::start();
    for version in ["a HELLO 2", "a HELLO 3"] {
        for (command, write) in ALL {
            let (wait, wake) = (format!("a> {command}"), format!("b {write}"));
            let afresh = ["b DEL l m z s", "b XGROUP CREATE s g $ MKSTREAM"];
            let script = [version, &wait, "= 1", &wake, "a< 1", "a PING", "a GET none"];
            assert_same_script(&oracle, &[&afresh[..], &script].concat());
        }
    }
}

#[test]
fn each_blocking_command_ends_when_its_time_is_over() {
    let oracle = Oracle::start();
    for line in [
        "BLPOP none 0.01",
        "BRPOP none 0.01",
        "BLMOVE none m LEFT RIGHT 0.01",
        "BRPOPLPUSH none m 0.01",
        "BLMPOP 0.01 2 none none LEFT",
        "BZPOPMIN none 0.01",
        "BZPOPMAX none 0.01",
        "BZMPOP 0.01 1 none MIN",
        "XREAD BLOCK 10 STREAMS none $",
        "XREADGROUP GROUP g c BLOCK 10 STREAMS s >",
        "XREADGROUP GROUP g c BLOCK 10 STREAMS none >",
        "BLPOP none -1",
        "BLPOP none x",
        "BLPOP none",
    ] {
        let line = format!("a {line}");
        let afresh = ["b DEL s", "b XGROUP CREATE s g $ MKSTREAM"];
        let script = [&*line, "a PING", "a HELLO 3", &line, "a PING"];
        assert_same_script(&oracle, &[&afresh[..], &script].concat());
    }
}

#[test]
fn data_that_is_there_already_is_taken_at_once_and_in_order() {
    let oracle = Oracle::start();
    let lines = [
        "RPUSH l a b c",
        "BLPOP l 0",
        "LLEN l",
        "BLPOP l 0",
        "GET none",
        "BRPOP l 0",
        "LLEN l",
        "SET k v",
        "GET k",
    ];
    let bytes = lines.map(encode_line).concat();
    oracle.assert_same("pipelined", &bytes);
    oracle.assert_same("again", &bytes);
}

#[test]
fn what_is_sent_behind_a_wait_is_answered_after_it() {
    let oracle = Oracle::start();
    let script = [
        "a> BLPOP l 0",
        "a> GET k",
        "a> SET k v",
        "a> PING",
        "a> CLIENT GETNAME",
        "= 1",
        "b RPUSH l x",
        "a< 5",
        "a> BLPOP l 0",
        "= 1",
        "a> QUIT",
        "b RPUSH l y",
        "a< 2",
        "a $",
    ];
    assert_same_script(&oracle, &script);
}

#[test]
fn a_client_that_hangs_up_ends_its_wait_upstream() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    for (command, _) in ALL {
        if command.contains("GROUP") {
            redis.call(&["XGROUP", "CREATE", "s", "g", "$", "MKSTREAM"]);
        }
        let mut client = proxy.resp();
        client.send(&encode_line(command));
        eventually("it waits", PATIENCE, || blocked(&redis) == 1);
        drop(client);
        eventually("nobody waits", PATIENCE, || blocked(&redis) == 0);
    }
    // With its side half closed only, Redis counts it as gone as well.
    let mut client = proxy.resp();
    client.send(&encode_line("BLPOP l 0"));
    eventually("it waits", PATIENCE, || blocked(&redis) == 1);
    client.finish_sending();
    assert_eq!(client.bytes_until_closed(), b"");
    redis.call(&["RPUSH", "l", "kept"]);
    assert_eq!(redis.call(&["LLEN", "l"]), Reply::Int(1));
}

#[test]
fn a_client_that_hangs_up_behind_commands_that_have_to_wait_ends_its_wait_too() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    // What the proxy answers in its turn keeps it from reading on.
    client.send(&["BLPOP l 0", "CLIENT ID", "PING"].map(encode_line).concat());
    eventually("it waits", PATIENCE, || blocked(&redis) == 1);
    drop(client);
    eventually("nobody waits", PATIENCE, || blocked(&redis) == 0);
}

#[test]
fn a_wait_outlasts_the_time_after_which_a_silent_connection_is_given_up() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("LINK_DEAD_MS", 100)
        .env("LINK_IDLE_SECS", "0.1")
        .start();
    let (mut client, mut other) = (proxy.resp(), proxy.resp());
    client.send(&encode_line("BLPOP l 0"));
    eventually("it waits", PATIENCE, || blocked(&redis) == 1);
    let until = std::time::Instant::now() + std::time::Duration::from_millis(500);
    eventually("five times as long", PATIENCE, || {
        other.line("PING");
        std::time::Instant::now() > until
    });
    other.line("RPUSH l v");
    assert_eq!(
        client.reply(),
        Reply::Array(vec![Reply::bulk("l"), Reply::bulk("v")])
    );
}

#[test]
fn those_who_wait_never_keep_out_who_would_wake_them() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("MAX_CONCURRENT_REQUESTS", 1).start();
    let mut waiting: Vec<_> = (0..10).map(|_| proxy.resp()).collect();
    for client in &mut waiting {
        client.send(&encode_line("BLPOP l 0"));
    }
    eventually("all wait", PATIENCE, || blocked(&redis) == 10);
    assert_eq!(proxy.counter(info::IN_FLIGHT), 0);
    let mut other = proxy.resp();
    for at in 0..10 {
        assert_eq!(other.line(&format!("RPUSH l {at}")), Reply::Int(1));
        eventually("one is woken", PATIENCE, || {
            redis.call(&["LLEN", "l"]) == Reply::Int(0)
        });
    }
    for client in &mut waiting {
        assert!(matches!(client.reply(), Reply::Array(_)));
    }
}

#[test]
fn the_proxy_ends_at_once_though_clients_wait() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    client.send(&encode_line("BLPOP l 0"));
    eventually("it waits", PATIENCE, || blocked(&redis) == 1);
    drop(proxy);
    assert_eq!(client.bytes_until_closed(), b"");
}
