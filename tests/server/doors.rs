//! Who is let in: `CLIENT_PASSWORD`, what a wrong one costs, what `DENY_COMMANDS` refuses, and what another user may not.

use crate::support::http::HttpClient;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode, encode_line};
use crate::support::{PATIENCE, eventually};
use std::time::{Duration, Instant};

const PASSWORD: &str = "open-sesame";
const WRONG: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const DENIED: &str = "NOPERM nearcache: this command is denied here (DENY_COMMANDS)";

/// A proxy with a password of its own in front of a Redis that wants none.
fn guarded(redis: &RedisServer) -> ProxyBuilder {
    Proxy::to(redis)
        .password_is(PASSWORD)
        .env("CLIENT_PASSWORD", PASSWORD)
        .env("AUTH_DELAY_MS", 1)
}

fn lines(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| encode_line(line)).collect()
}

fn status(http: &mut HttpClient, authorization: &str) -> u16 {
    http.send(format!("GET /get?key=k HTTP/1.1\r\nHost: h\r\n{authorization}\r\n").as_bytes());
    http.response().status
}

#[test]
fn without_the_clients_password_nothing_is_served() {
    let redis = RedisServer::start();
    redis.call(&["SET", "k", "v"]);
    let proxy = guarded(&redis).start();
    let mut client = proxy.resp();
    // This Redis takes its default user with any password: it is not asked.
    for (line, error) in [
        ("GET k", "NOAUTH Authentication required."),
        ("AUTH wrong", WRONG),
        ("AUTH default wrong", WRONG),
        ("HELLO 3 AUTH default wrong", WRONG),
        ("AUTH open-sesam", WRONG),
        ("AUTH open-sesamee", WRONG),
        ("GET k", "NOAUTH Authentication required."),
        ("SET k w", "NOAUTH Authentication required."),
        ("MULTI", "NOAUTH Authentication required."),
    ] {
        assert_eq!(client.line(line).error(), error, "{line}");
    }
    assert_eq!(client.call(&["AUTH", PASSWORD]), Reply::ok());
    let (hits, _) = proxy.hits_and_misses_of(|| {
        for _ in 0..3 {
            assert_eq!(client.line("GET k"), Reply::bulk("v"));
        }
    });
    assert!(hits >= 2, "the cache serves it");
    // A wrong password later changes nothing, inside a transaction neither.
    client.send(&lines(&[
        "AUTH wrong",
        "MULTI",
        "AUTH wrong",
        "GET k",
        "EXEC",
    ]));
    let replies = client.replies(5);
    assert_eq!(replies[0].error(), WRONG);
    assert_eq!(replies[2].error(), WRONG);
    assert_eq!(replies[4], Reply::Array(vec![Reply::bulk("v")]));
    assert_eq!(client.line("RESET"), Reply::Simple("RESET".to_owned()));
    assert!(client.line("GET k").error().starts_with("NOAUTH"));
    let mut other = proxy.resp();
    let hello = other.call(&["HELLO", "3", "AUTH", "default", PASSWORD]);
    assert!(matches!(hello, Reply::Map(_)), "{hello:?}");

    let mut http = proxy.http();
    assert_eq!(status(&mut http, ""), 401);
    assert_eq!(status(&mut http, "Authorization: Bearer wrong\r\n"), 401);
    let bearer = format!("Authorization: Bearer {PASSWORD}\r\n");
    assert_eq!(status(&mut http, &bearer), 200);
    // printf 'default:open-sesame' | base64, and without the user.
    let basic = "Authorization: Basic ZGVmYXVsdDpvcGVuLXNlc2FtZQ==\r\n";
    assert_eq!(status(&mut http, basic), 200);
    assert_eq!(
        status(&mut http, "Authorization: Basic Om9wZW4tc2VzYW1l\r\n"),
        200
    );
    assert_eq!(status(&mut http, ""), 401, "what was said is not kept");
    // Five before the right one, two after it, and one by HTTP: without a password is no wrong one.
    assert_eq!(proxy.counter("nearcache_auth_failures"), 8);
    assert!(!proxy.stderr().contains(PASSWORD), "{}", proxy.stderr());
}

#[test]
fn the_clients_password_stands_beside_that_of_redis() {
    let redis = RedisServer::start();
    redis.call(&[
        "ACL", "SETUSER", "alice", "on", ">wonder", "+@all", "~*", "&*",
    ]);
    redis.call(&["CONFIG", "SET", "requirepass", "upstream"]);
    let url = format!("redis://:upstream@127.0.0.1:{}/0", redis.port());
    for client_auth in ["redis", "none"] {
        let proxy = guarded(&redis)
            .env("REDIS_URL", &url)
            .env("CLIENT_AUTH", client_auth)
            .start();
        for call in [
            &["AUTH", PASSWORD][..],
            &["AUTH", "default", PASSWORD],
            &["AUTH", "upstream"],
            &["AUTH", "alice", "wonder"],
        ] {
            let mut client = proxy.resp();
            assert!(client.line("SET k v").error().starts_with("NOAUTH"));
            assert_eq!(client.call(call), Reply::ok(), "{call:?}");
            assert_eq!(client.line("SET k v"), Reply::ok(), "{call:?}");
        }
        let mut client = proxy.resp();
        assert_eq!(client.line("AUTH wonder").error(), WRONG);
        assert_eq!(client.line("AUTH alice wrong").error(), WRONG);
        assert!(client.line("GET k").error().starts_with("NOAUTH"));
        assert_eq!(proxy.counter("nearcache_auth_failures"), 2);
        for token in [PASSWORD, "upstream"] {
            let bearer = format!("Authorization: Bearer {token}\r\n");
            assert_eq!(status(&mut proxy.http(), &bearer), 200, "{token}");
        }
    }
}

#[test]
fn wrong_passwords_slow_their_own_connection_down_and_no_other() {
    let redis = RedisServer::start();
    let proxy = guarded(&redis).env("AUTH_DELAY_MS", 100).start();
    let begun = Instant::now();
    let mut guesser = proxy.resp();
    let guesses = ["AUTH a", "AUTH b", "HELLO 2 AUTH default c", "AUTH d"];
    guesser.send(&[lines(&guesses), encode(&["AUTH", PASSWORD])].concat());
    for _ in guesses {
        assert_eq!(guesser.reply().error(), WRONG);
    }
    assert_eq!(guesser.reply(), Reply::ok(), "the right one in the end");
    // Never earlier: nothing after the first, then 100, 200 and 400 milliseconds.
    assert!(begun.elapsed() >= Duration::from_millis(700));

    let begun = Instant::now();
    let mut http = proxy.http();
    for _ in 0..3 {
        assert_eq!(status(&mut http, "Authorization: Bearer x\r\n"), 401);
    }
    let bearer = format!("Authorization: Bearer {PASSWORD}\r\n");
    assert_eq!(status(&mut http, &bearer), 404);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn who_waits_for_wrong_passwords_holds_up_nobody_and_no_shutdown() {
    let redis = RedisServer::start();
    let mut proxy = guarded(&redis).env("AUTH_DELAY_MS", "1h").start();
    let mut guesser = proxy.resp();
    guesser.send(&lines(&["AUTH a", "AUTH b", "AUTH c"]));
    assert_eq!(guesser.reply().error(), WRONG);
    assert_eq!(guesser.reply().error(), WRONG);
    let mut leaving = proxy.resp();
    leaving.send(&lines(&["AUTH a", "AUTH b", "AUTH c"]));
    leaving.replies(2);
    drop(leaving);
    let mut other = proxy.resp();
    assert_eq!(other.call(&["AUTH", PASSWORD]), Reply::ok());
    for _ in 0..100 {
        assert!(matches!(other.line("INCR n"), Reply::Int(_)));
    }
    assert_eq!(guesser.unread(), b"", "an hour is not over");
    proxy.stop();
}

#[test]
fn sighup_takes_another_password_but_not_none() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .password_is("first-one")
        .config_file("CLIENT_PASSWORD=first-one\n")
        .start();
    let mut before = proxy.resp();
    assert_eq!(before.line("AUTH first-one"), Reply::ok());
    let reload = |file: &str, outcome: &str| {
        let from = proxy.stderr().len();
        proxy.set_config_file(Some(file));
        proxy.signal("HUP");
        let since = || proxy.stderr()[from..].to_owned();
        eventually(outcome, PATIENCE, || since().contains(outcome));
    };
    let check = |password: &str, is_right: bool| {
        let reply = proxy.resp().call(&["AUTH", password]);
        assert_eq!(reply == Reply::ok(), is_right, "{password}: {reply:?}");
        let bearer = format!("Authorization: Bearer {password}\r\n");
        let expected = if is_right { 404 } else { 401 };
        assert_eq!(status(&mut proxy.http(), &bearer), expected, "{password}");
    };
    check("first-one", true);
    reload(
        "CLIENT_PASSWORD=second-one\n",
        "reloaded changed=1 need_restart=0",
    );
    check("first-one", false);
    check("second-one", true);
    assert_eq!(
        before.line("GET k"),
        Reply::NullBulk,
        "who is in stays in, as with Redis"
    );
    reload("CACHE_CAPACITY=7\n", "changed=1 need_restart=1");
    check("second-one", true);
    reload("CLIENT_PASSWORD=***\n", "reload refused");
    check("second-one", true);
    check("***", false);
    let log = proxy.stderr();
    assert!(
        !log.contains("first-one") && !log.contains("second-one"),
        "{log}"
    );
}

#[test]
fn denied_commands_never_reach_redis() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("DENY_COMMANDS", "FlushAll,Config Set,MGET,subscribe,append")
        .env("SHARED_REQUEST_BYTES_MAX", 2048)
        .start();
    redis.call(&["SET", "k", "v"]);
    let mut client = proxy.resp();
    for line in [
        "FLUSHALL",
        "flushall",
        "fLuShAlL ASYNC",
        "CONFIG SET maxmemory 1",
        "config sEt maxmemory 1",
        "MGET k k",
        "SUBSCRIBE c",
    ] {
        assert_eq!(client.line(line).error(), DENIED, "{line}");
        client.send(format!("{line}\r\n").as_bytes());
        assert_eq!(client.reply().error(), DENIED, "inline {line}");
    }
    let large = "x".repeat(1 << 20);
    assert_eq!(client.call(&["APPEND", "k", &large]).error(), DENIED);
    assert!(matches!(
        client.line("CONFIG GET maxmemory"),
        Reply::Array(_)
    ));
    // In a state of its own, between other commands.
    client.send(&lines(&["WATCH k", "FLUSHALL", "UNWATCH", "GET k"]));
    let replies = client.replies(4);
    assert_eq!(replies[1].error(), DENIED);
    assert_eq!(replies[3], Reply::bulk("v"));
    for command in ["flushall", "config|set", "mget", "append"] {
        assert_eq!(redis.calls_of(command), 0, "{command}");
    }
    assert_eq!(proxy.counter("nearcache_commands_denied"), 16);
}

#[test]
fn a_transaction_with_a_denied_command_runs_nothing() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("DENY_COMMANDS", "flushall,config|set")
        .start();
    let mut client = proxy.resp();
    for denied in ["FLUSHALL", "flushall", "CONFIG SET maxmemory 1"] {
        let block = ["MULTI", "SET k v", denied, "INCR n", "EXEC"];
        // In one piece, and command by command.
        client.send(&lines(&block));
        let at_once = client.replies(block.len());
        let one_by_one: Vec<Reply> = block.iter().map(|line| client.line(line)).collect();
        for replies in [at_once, one_by_one] {
            assert_eq!(replies[0], Reply::ok());
            assert_eq!(replies[1], Reply::Simple("QUEUED".to_owned()));
            assert_eq!(replies[2].error(), DENIED, "{denied}");
            assert_eq!(replies[3], Reply::Simple("QUEUED".to_owned()));
            assert!(replies[4].error().starts_with("EXECABORT"), "{replies:?}");
        }
    }
    assert_eq!(redis.call(&["EXISTS", "k", "n"]), Reply::Int(0));
    assert_eq!(redis.calls_of("flushall"), 0);
    client.send(&lines(&["MULTI", "INCR n", "EXEC"]));
    assert_eq!(client.replies(3)[2], Reply::Array(vec![Reply::Int(1)]));
}

#[test]
fn another_user_of_redis_has_no_power_over_the_proxys_clients() {
    let redis = RedisServer::start();
    redis.call(&[
        "ACL", "SETUSER", "bob", "on", ">builder", "-@all", "+get", "~b*",
    ]);
    let proxy = Proxy::start(&redis);
    let mut victim = proxy.resp();
    assert_eq!(victim.line("GET k"), Reply::NullBulk);
    let mut bob = proxy.resp();
    assert_eq!(bob.line("AUTH bob builder"), Reply::ok());
    for (line, name) in [
        ("CLIENT KILL TYPE normal", "client|kill"),
        ("CLIENT KILL USER default", "client|kill"),
        ("CLIENT LIST", "client|list"),
        ("CLIENT UNBLOCK 1", "client|unblock"),
    ] {
        let expected = format!("NOPERM User bob has no permissions to run the '{name}' command");
        assert_eq!(bob.line(line).error(), expected, "{line}");
    }
    assert_eq!(victim.line("GET k"), Reply::NullBulk, "still there");
    // Who is the proxy's own user again has its rights again.
    assert_eq!(bob.line("RESET"), Reply::Simple("RESET".to_owned()));
    assert!(bob.line("CLIENT LIST").text().contains(" user=default "));
}

#[test]
fn no_request_opens_a_door_that_the_configuration_holds_shut() {
    let redis = RedisServer::start();
    let proxy = guarded(&redis)
        .with_admin()
        .env("ADMIN_PASSWORD", "admins-own")
        .env("DENY_COMMANDS", "flushall")
        .env("AUTH_DELAY_MS", 100)
        .start();
    let post = |http: &mut HttpClient, target: &str, password: &str| {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nAuthorization: Bearer {password}\r\n\r\n"
        );
        http.send(head.as_bytes());
        http.response().status
    };
    let mut admin = proxy.admin();
    for target in [
        "/config?DENY_COMMANDS=",
        "/config?DENY_COMMANDS=keys",
        "/config?CLIENT_PASSWORD=mine",
        "/config?ADMIN_PASSWORD=mine",
        "/config?AUTH_DELAY_MS=1",
    ] {
        assert_eq!(post(&mut admin, target, "admins-own"), 400, "{target}");
    }
    assert_eq!(
        post(&mut admin, "/config?CACHE_TTL_SECS=7", "admins-own"),
        200
    );
    let mut client = proxy.resp();
    assert_eq!(client.call(&["AUTH", PASSWORD]), Reply::ok());
    assert_eq!(client.line("FLUSHALL").error(), DENIED);
    // Guessing at the admin port costs as much as elsewhere: nothing, 100 and 200 milliseconds.
    let before = proxy.counter("nearcache_auth_failures");
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(post(&mut admin, "/config?CACHE_TTL_SECS=8", "guess"), 401);
    }
    assert_eq!(
        post(&mut admin, "/config?CACHE_TTL_SECS=8", "admins-own"),
        200
    );
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(proxy.counter("nearcache_auth_failures") - before, 3);
}

#[test]
fn without_a_password_the_log_says_who_is_let_in() {
    let redis = RedisServer::start();
    let said = |proxy: &Proxy, text: &str| {
        eventually(text, PATIENCE, || proxy.stderr().contains(text));
    };
    let proxy = Proxy::start(&redis);
    said(
        &proxy,
        " INFO listening on this machine only: clients need no password",
    );
    let proxy = Proxy::to(&redis)
        .env("BIND", "0.0.0.0")
        .env("ALLOW_UNAUTHENTICATED", "yes")
        .start();
    said(
        &proxy,
        " WARN ALLOW_UNAUTHENTICATED=yes: clients need no password",
    );
    let proxy = guarded(&redis).env("BIND", "0.0.0.0").start();
    assert!(proxy.resp().line("GET k").error().starts_with("NOAUTH"));
}

#[test]
fn redis_commands_on_the_http_port_are_refused_and_end_the_connection() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    for input in [
        encode_line("SET k v"),
        b"SET k v\r\n".to_vec(),
        b"PING\r\nSET k v\r\n".to_vec(),
        b"GET /get?key=x\r\nSET k v\r\n\r\n".to_vec(),
    ] {
        let mut http = proxy.http();
        http.send(&input);
        http.finish_sending();
        let said = http.bytes_until_closed();
        assert!(said.starts_with(b"HTTP/1.1 400 "), "{}", show(&said));
    }
    // A key is data, whatever it holds: it reaches Redis as one argument.
    let mut http = proxy.http();
    let key = "a\r\nSET k v\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    assert_eq!(http.get(key).status, 404);
    assert_eq!(redis.call(&["EXISTS", "k"]), Reply::Int(0));
    redis.call(&["SET", key, "\r\nHTTP/1.1 200 OK\r\n\r\n"]);
    assert_eq!(
        proxy.resp().call(&["GET", key]).text(),
        "\r\nHTTP/1.1 200 OK\r\n\r\n"
    );
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn nothing_is_injected_into_redis_by_a_key_or_a_value() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).start();
    let frame = encode(&["SET", "injected", "x"]);
    let evil: Vec<u8> = [b"k\r\n", &frame[..], b"\0\xff$-1\r\n:1\r\n>2\r\n"].concat();
    let large = [&evil[..], &vec![b'v'; 300_000]].concat();
    let mut client = proxy.resp();
    // Fetched, then a hit; relayed; in a transaction; too large for a shared link.
    for value in [&evil, &large] {
        let set = client.call(&[&b"SET"[..], &evil, value]);
        assert_eq!(set, Reply::ok());
        for _ in 0..2 {
            let got = client.call(&[&b"GET"[..], &evil]);
            assert_eq!(got, Reply::Bulk(value.clone()));
        }
        let several = client.call(&[&b"MGET"[..], &evil, &evil]);
        let value = || Reply::Bulk(value.clone());
        assert_eq!(several, Reply::Array(vec![value(), value()]));
    }
    assert_eq!(client.line("MULTI"), Reply::ok());
    client.call(&[&b"APPEND"[..], &evil, &evil]);
    assert!(matches!(client.line("EXEC"), Reply::Array(_)));
    // An inline command is written anew, with what its quotes stand for.
    client.send(b"SET \"inline\\r\\nSET injected x\\r\\n\" \"v\\r\\n*1\\r\\n\"\r\n");
    let reply = client.reply();
    assert_eq!(reply, Reply::ok());
    assert_eq!(
        redis.call(&["GET", "inline\r\nSET injected x\r\n"]),
        Reply::bulk("v\r\n*1\r\n")
    );
    // A name is no key, and is Redis's to refuse or the proxy's own.
    let named = client.call(&[&b"CLIENT"[..], b"SETNAME", b"a\r\nSET injected x"]);
    assert!(matches!(named, Reply::Error(_)), "{named:?}");
    let unknown = client.call(&[&b"NOSUCH\r\nSET injected x\r\n"[..], &evil]);
    assert!(matches!(unknown, Reply::Error(_)), "{unknown:?}");
    let mut http = proxy.http();
    let target = "/get?key=k%0D%0A*3%0D%0A$3%0D%0ASET%0D%0A$8%0D%0Ainjected%0D%0A$1%0D%0Ax%0D%0A";
    assert_eq!(http.get_target(target).status, 404);
    assert_eq!(client.line("PING"), Reply::Simple("PONG".to_owned()));
    assert_eq!(redis.call(&["EXISTS", "injected"]), Reply::Int(0));
    assert_eq!(redis.call(&["DBSIZE"]), Reply::Int(2));
}
