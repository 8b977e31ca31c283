//! Large requests: passed on as they come, in bounded memory, at the pace of who sends and of Redis, and nobody waits.

use crate::large::{
    ask, assert_bounded, assert_others_are_served, connect, start_measuring, take, take_exactly,
};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode, encode_line};
use crate::support::{PATIENCE, eventually};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

const VALUE_BYTES: usize = 200 * 1024 * 1024;
/// More than may go on a shared connection, so that it does not wait until it is whole.
const LONG: usize = 3 * 1024 * 1024;

/// The `n`th byte of a value that no piece in a wrong place would look like.
fn byte_at(n: usize) -> u8 {
    (n ^ (n >> 8) ^ (n >> 16) ^ (n >> 24)) as u8
}

/// The bytes of such a value from `at` on, at most so many.
fn block(at: usize, most: usize) -> Vec<u8> {
    (at..VALUE_BYTES.min(at + most)).map(byte_at).collect()
}

fn begin_set(stream: &mut TcpStream, key: &str) {
    let head = format!(
        "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${VALUE_BYTES}\r\n",
        key.len()
    );
    stream.write_all(head.as_bytes()).expect("it is read");
}

/// Sends the value from `from` up to `to`.
fn send_value(stream: &mut TcpStream, from: usize, to: usize) {
    let mut at = from;
    while at < to {
        let part = block(at, (256 * 1024).min(to - at));
        stream.write_all(&part).expect("it is read");
        at += part.len();
    }
}

/// Whether any client's own connection to Redis is there.
fn own_links(redis: &RedisServer) -> usize {
    let clients = redis.call(&["CLIENT", "LIST"]).text();
    clients.lines().filter(|line| line.contains(":own")).count()
}

#[test]
fn a_large_value_goes_up_and_comes_back_byte_for_byte() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("REDIS_TIMEOUT_MS", 30_000).start();
    let mut client = connect(proxy.resp_port);
    let before = start_measuring(&proxy);
    begin_set(&mut client, "up");
    send_value(&mut client, 0, VALUE_BYTES);
    client.write_all(b"\r\n").expect("it is read");
    ask(&mut client, "STRLEN up");
    take_exactly(&mut client, format!("+OK\r\n:{VALUE_BYTES}\r\n").as_bytes());
    assert_bounded(&proxy, before);
    let mut get = || {
        ask(&mut client, "GET up");
        take_exactly(&mut client, format!("${VALUE_BYTES}\r\n").as_bytes());
        take(&mut client, VALUE_BYTES, byte_at);
        take_exactly(&mut client, b"\r\n");
    };
    // The first read finds out that it is too large to keep, and may hold it whole to that end.
    get();
    let before = start_measuring(&proxy);
    get();
    assert_bounded(&proxy, before);
}

#[test]
fn who_stalls_in_the_middle_of_sending_holds_up_nobody_and_can_go_on() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let before = start_measuring(&proxy);
    let mut slow = connect(proxy.resp_port);
    ask(&mut slow, "SET other v");
    begin_set(&mut slow, "up");
    send_value(&mut slow, 0, VALUE_BYTES / 2);
    take_exactly(&mut slow, b"+OK\r\n");
    assert_others_are_served(&proxy);
    assert_eq!(redis.call(&["EXISTS", "up"]), Reply::Int(0));
    send_value(&mut slow, VALUE_BYTES / 2, VALUE_BYTES);
    slow.write_all(b"\r\n").expect("it is read");
    ask(&mut slow, "GET other");
    take_exactly(&mut slow, b"+OK\r\n$1\r\nv\r\n");
    assert_eq!(
        redis.call(&["STRLEN", "up"]),
        Reply::Int(VALUE_BYTES as i64)
    );
    assert_bounded(&proxy, before);
}

#[test]
fn who_leaves_in_the_middle_of_sending_has_sent_nothing() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    for _ in 0..3 {
        let mut gone = connect(proxy.resp_port);
        begin_set(&mut gone, "up");
        send_value(&mut gone, 0, VALUE_BYTES / 20);
        eventually("Redis hears of it", PATIENCE, || own_links(&redis) == 1);
        drop(gone);
        eventually("and then of its end", PATIENCE, || own_links(&redis) == 0);
    }
    assert_eq!(redis.call(&["EXISTS", "up"]), Reply::Int(0));
    assert_eq!(proxy.resp().line("GET up"), Reply::NullBulk);
}

#[test]
fn while_redis_does_not_take_it_the_client_waits_and_nothing_grows() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let before = start_measuring(&proxy);
    let mut client = connect(proxy.resp_port);
    begin_set(&mut client, "up");
    send_value(&mut client, 0, LONG);
    eventually("it is under way", PATIENCE, || own_links(&redis) == 1);
    redis.freeze();
    let brief = Some(Duration::from_millis(300));
    client.set_write_timeout(brief).expect("a time-out");
    let mut at = LONG;
    loop {
        let part = block(at, 256 * 1024);
        assert!(!part.is_empty(), "somebody took all of it");
        match client.write(&part) {
            Ok(n) => at += n,
            Err(error) => {
                let full = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                assert!(full.contains(&error.kind()), "{error}");
                break;
            }
        }
    }
    redis.thaw();
    client.set_write_timeout(None).expect("no time-out");
    send_value(&mut client, at, VALUE_BYTES);
    client.write_all(b"\r\n").expect("it is read");
    take_exactly(&mut client, b"+OK\r\n");
    assert_bounded(&proxy, before);
}

#[test]
fn what_a_long_request_writes_is_forgotten_and_nothing_else() {
    let redis = RedisServer::start();
    let proxy = Proxy::tracking(&redis);
    let long = "x".repeat(LONG);
    let mut writer = proxy.resp();
    let mut reader = proxy.resp();
    redis.call(&["MSET", "a", "1", "b", "2", "c", "3"]);
    let expect = |reader: &mut crate::support::resp::RespClient, values: [&str; 3]| {
        for (key, value) in ["a", "b", "c"].into_iter().zip(values) {
            assert_eq!(
                reader.line(&format!("GET {key}")),
                Reply::bulk(value),
                "{key}"
            );
        }
    };
    expect(&mut reader, ["1", "2", "3"]);
    let hits = proxy.hits_and_misses_of(|| expect(&mut reader, ["1", "2", "3"]));
    assert_eq!(hits, (3, 0));
    assert_eq!(
        writer.call(&["MSET", "a", "10", "long", &long, "b", "20"]),
        Reply::ok()
    );
    assert_eq!(
        proxy.hits_and_misses_of(|| expect(&mut reader, ["10", "20", "3"])),
        (1, 2),
        "c was not touched"
    );
    // In a transaction, and with what follows in one go.
    let mut pipeline = encode_line("MULTI");
    pipeline.extend(encode(&["MSET", "long", &long, "a", "100"]));
    pipeline.extend(encode_line("GET a"));
    pipeline.extend(encode_line("EXEC"));
    pipeline.extend(encode_line("GET a"));
    writer.send(&pipeline);
    let queued = Reply::Simple("QUEUED".to_owned());
    let done = Reply::Array(vec![Reply::ok(), Reply::bulk("100")]);
    let expected = [
        Reply::ok(),
        queued.clone(),
        queued,
        done,
        Reply::bulk("100"),
    ];
    assert_eq!(writer.replies(5), expected);
    expect(&mut reader, ["100", "20", "3"]);
    // A script: whatever it says it touches. And a reply that nobody wants.
    let script = format!("redis.call('set', 'c', '30') -- {long}");
    let mut pipeline = encode_line("CLIENT REPLY SKIP");
    pipeline.extend(encode(&["EVAL", &script, "0"]));
    pipeline.extend(encode(&["ECHO", &long]));
    writer.send(&pipeline);
    assert!(writer.reply() == Reply::bulk(&long), "the echo comes first");
    expect(&mut reader, ["100", "20", "30"]);
    proxy.await_coherence("tracking");
}

#[test]
fn many_arguments_pass_as_one_long_one_does() {
    const ELEMENTS: usize = 1_000_000;
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let mut client = proxy.resp();
    let mut args = vec!["RPUSH".to_owned(), "list".to_owned()];
    args.extend((0..ELEMENTS).map(|n| format!("{n:06}")));
    assert_eq!(client.call(&args), Reply::Int(ELEMENTS as i64));
    assert_eq!(client.line("LINDEX list -1"), Reply::bulk("999999"));
    // Keys beyond those that are remembered: everything is forgotten.
    let mut args = vec!["MSET".to_owned()];
    args.extend((0..200_000).flat_map(|n| [format!("key{n:06}"), "v".to_owned()]));
    args.extend(["last".to_owned(), "new".to_owned()]);
    redis.call(&["SET", "last", "old"]);
    assert_eq!(proxy.resp().line("GET last"), Reply::bulk("old"));
    assert_eq!(client.call(&args), Reply::ok());
    assert_eq!(proxy.resp().line("GET last"), Reply::bulk("new"));
}

#[test]
fn a_long_request_that_is_none_is_refused_as_redis_refuses_it() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis);
    let long = "x".repeat(LONG);
    let begun = format!("*5\r\n$4\r\nMSET\r\n$1\r\nk\r\n${LONG}\r\n{long}\r\n");
    for (wrong, said) in [
        (
            "!1\r\nx\r\n",
            "-ERR Protocol error: expected '$', got '!'\r\n",
        ),
        ("$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (
            "$600000000\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
    ] {
        for server in [proxy.resp_port, redis.port()] {
            let mut client = crate::support::resp::RespClient::connect(server);
            client.send(&encode_line("SET before v"));
            client.send(format!("{begun}{wrong}").as_bytes());
            assert_eq!(client.reply(), Reply::ok());
            let end = client.bytes_until_closed();
            assert_eq!(String::from_utf8_lossy(&end), said, "after {wrong:?}");
        }
    }
    assert_eq!(redis.call(&["EXISTS", "k"]), Reply::Int(0));
    eventually("no half request is left", PATIENCE, || {
        own_links(&redis) == 0
    });
    // What Redis refuses is refused in its words, and the client goes on.
    let mut client = proxy.resp();
    assert_eq!(
        client.call(&["NOSUCH", &long]).error()[..19],
        *"ERR unknown command"
    );
    assert_eq!(client.call(&["GET", &long]), Reply::NullBulk);
    let wrong = client.call(&["GET", "k", &long]);
    assert!(wrong.error().contains("wrong number of arguments"));
    assert_eq!(client.line("SET k v"), Reply::ok());
}
