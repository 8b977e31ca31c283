//! `BUFFERS_MAX_BYTES`: what all clients together may have under way, who pays when it is too much, and who does not.

use crate::support::http::HttpClient;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, RespClient, encode_line};
use crate::support::{PATIENCE, eventually};

const MIB: usize = 1 << 20;

/// A client that has sent `bytes` of a request that is never finished.
fn unfinished(proxy: &Proxy, bytes: usize) -> RespClient {
    let mut client = proxy.resp();
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 2 * bytes);
    client.send(&[head.as_bytes(), &vec![b'x'; bytes]].concat());
    client
}

/// What is asked for is answered, by either port, while others are in trouble.
#[track_caller]
fn is_well(resp: &mut RespClient, http: &mut HttpClient) {
    assert_eq!(resp.line("GET hot"), Reply::bulk("h"));
    assert_eq!(resp.line("INCR n").error_or_none(), None);
    assert_eq!(http.get("hot").body, b"h");
}

trait ErrorOrNone {
    fn error_or_none(&self) -> Option<String>;
}

impl ErrorOrNone for Reply {
    fn error_or_none(&self) -> Option<String> {
        matches!(self, Reply::Error(_)).then(|| format!("{self:?}"))
    }
}

#[test]
fn those_who_never_read_are_paused_and_then_closed_and_nobody_else_notices() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("BUFFERS_MAX_BYTES", 4 * MIB)
        .env("QUEUE_WAIT_MS", 300)
        .env("CACHE_MAX_BYTES", 4 * MIB)
        .start();
    let value = "v".repeat(4000);
    redis.call(&["MSET", "hot", "h", "some", &value]);
    let (mut resp, mut http) = (proxy.resp(), proxy.http());
    is_well(&mut resp, &mut http);
    assert_eq!(resp.line("GET some"), Reply::bulk(&value));
    let before = proxy.resident_bytes();
    // 20 MB each: more than the kernel takes for them on both sides.
    let ask = encode_line("GET some").repeat(5000);
    let mut greedy: Vec<RespClient> = (0..24).map(|_| proxy.resp()).collect();
    for client in &mut greedy {
        // It may be closed already.
        let _ = client.try_send(&ask);
        is_well(&mut resp, &mut http);
    }
    eventually("some are closed", PATIENCE, || {
        is_well(&mut resp, &mut http);
        proxy.counter("nearcache_buffers_full") > 0
    });
    eventually("the others hold no more than they may", PATIENCE, || {
        is_well(&mut resp, &mut http);
        let held = proxy.counter("nearcache_buffer_bytes");
        assert!(held <= 4 * MIB as u64 + 256 * 1024, "{held} bytes held");
        proxy.counter("nearcache_paused_now") == 0
    });
    assert!(proxy.counter("nearcache_clients_paused") > 0);
    let grown = proxy.resident_peak_bytes().saturating_sub(before) / MIB as u64;
    assert!(grown < 24, "{grown} MiB more than before");
    eventually("the log says so", PATIENCE, || {
        let said = proxy.stderr();
        said.contains("buffers_max_bytes=4194304") && said.contains("reason=buffers_full")
    });
    drop(greedy);
    eventually("all is given back", PATIENCE, || {
        proxy.counter("nearcache_buffer_bytes") < MIB as u64
    });
    is_well(&mut resp, &mut http);
}

#[test]
fn those_who_send_without_end_are_told_why_they_are_closed_and_the_rest_goes_on() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("BUFFERS_MAX_BYTES", 8 * MIB)
        .env("SHARED_REQUEST_BYTES_MAX", 8 * MIB)
        .env("QUEUE_WAIT_MS", 300)
        .start();
    redis.call(&["SET", "hot", "h"]);
    let (mut resp, mut http) = (proxy.resp(), proxy.http());
    // Less than half of it in all: nobody is bothered, however long it lasts.
    let mut modest: Vec<RespClient> = (0..3).map(|_| unfinished(&proxy, MIB / 2)).collect();
    eventually("they are taken", PATIENCE, || {
        proxy.counter("nearcache_buffer_bytes") >= 3 * MIB as u64 / 2
    });
    is_well(&mut resp, &mut http);
    assert_eq!(proxy.counter("nearcache_paused_now"), 0);
    for client in &mut modest {
        client.send(&vec![b'x'; MIB / 2]);
        client.send(b"\r\n");
        assert_eq!(client.reply(), Reply::ok());
    }
    let mut greedy: Vec<RespClient> = Vec::new();
    for _ in 0..12 {
        let mut client = proxy.resp();
        let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 4 * MIB);
        client.send(head.as_bytes());
        let _ = client.try_send(&vec![b'x'; MIB]);
        greedy.push(client);
        is_well(&mut resp, &mut http);
    }
    eventually("some are closed", PATIENCE, || {
        is_well(&mut resp, &mut http);
        proxy.counter("nearcache_buffers_full") > 0
    });
    eventually("it is over", PATIENCE, || {
        proxy.counter("nearcache_paused_now") == 0
    });
    let mut told = 0;
    for client in &mut greedy {
        let said = client.try_reply_now();
        told += usize::from(said.is_some_and(|said| said.is_own_error()));
    }
    assert!(told > 0, "who is closed is told why");
    assert_eq!(resp.line("GET k").error_or_none(), None);
}

#[test]
fn entries_leave_before_anybody_is_paused_and_have_their_room_back_afterwards() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("BUFFERS_MAX_BYTES", 16 * MIB)
        .env("SHARED_REQUEST_BYTES_MAX", 16 * MIB)
        .env("CACHE_MAX_BYTES", 8 * MIB)
        .start();
    let mut client = proxy.resp();
    let value = "v".repeat(100_000);
    let fill = |client: &mut RespClient| {
        for n in 0..100 {
            let key = format!("k{n}");
            assert_eq!(client.call(&["SET", &key, &value]), Reply::ok());
            assert_eq!(client.call(&["GET", &key]), Reply::bulk(&value));
        }
        proxy.counter(info::BYTES) as usize
    };
    assert!(fill(&mut client) > 7 * MIB);
    let held: Vec<RespClient> = (0..10).map(|_| unfinished(&proxy, MIB - 1000)).collect();
    eventually("entries have left", PATIENCE, || {
        (proxy.counter(info::BYTES) as usize) < 7 * MIB
    });
    assert_eq!(proxy.counter("nearcache_clients_paused"), 0);
    assert!(fill(&mut client) < 7 * MIB, "nor do new ones take the room");
    drop(held);
    eventually("the room is back", PATIENCE, || {
        proxy.counter("nearcache_buffer_bytes") < 8 * MIB as u64
    });
    assert!(fill(&mut client) > 7 * MIB);
}

#[test]
fn the_first_reader_of_a_value_larger_than_the_whole_budget_gets_it() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .env("BUFFERS_MAX_BYTES", "64MiB")
        .env("REDIS_TIMEOUT_MS", 30_000)
        .start();
    let bytes = 80 << 20;
    redis.call(&["SETRANGE", "large", &(bytes - 1).to_string(), "\0"]);
    for _ in 0..2 {
        let Reply::Bulk(value) = proxy.resp().line("GET large") else {
            panic!("a value is a bulk string")
        };
        assert_eq!(value.len(), bytes);
    }
}
