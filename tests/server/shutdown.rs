//! SIGTERM and SIGINT: clients are served until they leave or `DRAIN_SECS` is over, what is owed is answered, then the
//! process ends with 0; a second signal does not wait.

use crate::support::http::{HttpClient, request_for};
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::{PATIENCE, eventually};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const CLIENTS: usize = 6;
/// Few enough to be one small segment, which arrives whole or not at all.
const BATCH: usize = 40;

#[test]
fn sigterm_under_load_leaves_no_batch_half_answered_and_ends_with_0() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::start(&redis);
    let batches = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (client, batches) = (proxy.resp(), &batches);
            scope.spawn(move || load(client, number, batches));
        }
        eventually("all clients are at work", PATIENCE, || {
            batches.load(Ordering::Relaxed) > CLIENTS * 10
        });
        proxy.signal("TERM");
        let so_far = batches.load(Ordering::Relaxed);
        let status = proxy.wait_for_end();
        proxy.assert_clean(status);
        let since = batches.load(Ordering::Relaxed) - so_far;
        assert!(since > 0, "they were served while it drained");
    });
}

/// Writes, hits and misses in batches until the connection ends, which must be between two batches.
fn load(mut client: RespClient, number: usize, batches: &AtomicUsize) {
    for round in 0_usize.. {
        let (key, value) = (format!("k{number}"), round.to_string());
        let mut batch = Vec::new();
        for n in 0..BATCH / 4 {
            let absent = format!("none{number}-{round}-{n}");
            let four = [
                encode(&["SET", &key, &value]),
                encode(&["GET", &key]),
                encode(&["GET", &absent]),
                encode_line("ECHO x"),
            ];
            batch.extend(four.concat());
        }
        if client.try_send(&batch).is_err() {
            assert!(client.unread().is_empty());
            return;
        }
        let expected = [
            Reply::ok(),
            Reply::bulk(&value),
            Reply::NullBulk,
            Reply::bulk("x"),
        ];
        for n in 0..BATCH {
            match client.try_reply() {
                Ok(reply) => assert_eq!(
                    reply,
                    expected[n % 4],
                    "client {number}, batch {round}, reply {n}"
                ),
                Err(end) => {
                    assert!(
                        !end.contains("time-out"),
                        "client {number}, batch {round}, reply {n}: {end}"
                    );
                    assert_eq!(
                        n, 0,
                        "client {number}, batch {round}: the rest of a begun batch is missing ({end})"
                    );
                    assert!(client.unread().is_empty());
                    return;
                }
            }
        }
        batches.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_is_outstanding_at_redis_when_sigterm_comes_is_still_answered() {
    for signal in ["TERM", "INT"] {
        let redis = RedisServer::start();
        let relay = Relay::to(redis.port());
        let mut proxy = Proxy::patiently_through(&relay)
            .env("DRAIN_SECS", 600)
            .start();
        redis.call(&["MSET", "k", "v", "w", "x"]);
        let (mut fetch, mut write, mut http) = (proxy.resp(), proxy.resp(), proxy.http());
        assert_eq!(write.line("DEL warm"), Reply::Int(0));
        assert_eq!(fetch.line("GET warm"), Reply::NullBulk);
        relay.pause(Way::Down);
        fetch.send(&[encode(&["GET", "k"]), encode_line("ECHO x")].concat());
        write.send(&encode(&["INCR", "count"]));
        http.send(&request_for("GET", "w"));
        eventually("all three are outstanding", PATIENCE, || {
            proxy.counter(info::IN_FLIGHT) == 3
        });
        proxy.signal(signal);
        eventually("nobody is accepted any more", PATIENCE, || {
            RespClient::try_connect(proxy.resp_port).is_none()
        });
        eventually("neither over HTTP", PATIENCE, || {
            HttpClient::try_connect(proxy.http_port).is_none()
        });
        relay.resume(Way::Down);
        assert_eq!(fetch.replies(2), [Reply::bulk("v"), Reply::bulk("x")]);
        assert_eq!(write.reply(), Reply::Int(1));
        assert_eq!(http.response().body, b"x");
        for _ in 0..3 {
            assert_eq!(fetch.line("GET k"), Reply::bulk("v"), "it is served on");
            assert!(matches!(write.line("INCR count"), Reply::Int(_)));
        }
        http.send(&request_for("GET", "k"));
        let last = http.response();
        assert_eq!(last.body, b"v");
        assert_eq!(
            last.header("connection"),
            Some("close"),
            "and told to leave"
        );
        assert_eq!(http.bytes_until_closed(), b"");
        assert!(proxy.has_ended().is_none(), "two are still there");
        drop((fetch, write));
        let status = proxy.wait_for_end();
        proxy.assert_clean(status);
    }
}

#[test]
fn a_client_that_never_reads_does_not_keep_the_process_alive() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::start(&redis);
    redis.call(&["SET", "large", &"x".repeat(1 << 20)]);
    let mut idle = proxy.resp();
    idle.line("PING");
    let mut stuck = proxy.resp();
    stuck.send(&encode_line("GET large").repeat(50));
    eventually("it is being served", PATIENCE, || {
        proxy.counter(info::HITS) + proxy.counter(info::JOINED) > 0
    });
    proxy.stop();
}

#[test]
fn a_second_signal_ends_at_once_what_the_first_is_waiting_for() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let mut proxy = Proxy::patiently_through(&relay)
        .env("DRAIN_SECS", 600)
        .start();
    let mut client = proxy.resp();
    assert_eq!(client.line("GET warm"), Reply::NullBulk);
    relay.pause(Way::Down);
    client.send(&encode(&["GET", "k"]));
    eventually("it is outstanding", PATIENCE, || {
        relay.has_seen(Way::Up, b"\r\nk\r\n")
    });
    proxy.signal("TERM");
    eventually("nobody is accepted any more", PATIENCE, || {
        RespClient::try_connect(proxy.resp_port).is_none()
    });
    assert!(proxy.has_ended().is_none(), "it waits for what is owed");
    proxy.signal("TERM");
    let status = proxy.wait_for_end();
    assert_ne!(status.code(), Some(0), "not a clean end, and it says so");
    assert!(!proxy.stderr().contains("panicked"), "{}", proxy.stderr());
}

#[test]
fn who_waits_or_is_idle_stays_until_the_time_is_over() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis).env("DRAIN_SECS", 5).start();
    let (mut listens, mut blocks, mut idle) = (proxy.resp(), proxy.resp(), proxy.resp());
    assert_eq!(idle.line("SET k v"), Reply::ok());
    listens.send(&encode_line("SUBSCRIBE news"));
    listens.bytes_until(b":1\r\n");
    blocks.send(&encode_line("BLPOP list 0"));
    eventually("it blocks", PATIENCE, || {
        redis.call(&["CLIENT", "LIST"]).text().contains("cmd=blpop")
    });
    proxy.signal("TERM");
    eventually("nobody is accepted any more", PATIENCE, || {
        RespClient::try_connect(proxy.resp_port).is_none()
    });
    assert_eq!(redis.call(&["PUBLISH", "news", "late"]), Reply::Int(1));
    listens.bytes_until(b"late\r\n");
    assert_eq!(idle.line("GET k"), Reply::bulk("v"));
    let status = proxy.wait_for_end();
    proxy.assert_clean(status);
    for client in [&mut listens, &mut blocks, &mut idle] {
        assert_eq!(client.bytes_until_closed(), b"");
    }
    let said = proxy.stderr();
    assert!(said.contains("idle=1 waiting=2 busy=0"), "{said}");
}

#[test]
fn new_clients_are_taken_while_it_drains_where_that_was_asked_for() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis)
        .env("DRAIN_SECS", 4)
        .env("DRAIN_ACCEPT", "on")
        .start();
    redis.call(&["SET", "k", "v"]);
    proxy.signal("TERM");
    eventually("it drains", PATIENCE, || {
        proxy.stderr().contains("asked to end")
    });
    assert_eq!(proxy.resp().line("GET k"), Reply::bulk("v"));
    let mut http = proxy.http();
    let response = http.get("k");
    assert_eq!(response.body, b"v");
    assert_eq!(response.header("connection"), Some("close"));
    let status = proxy.wait_for_end();
    proxy.assert_clean(status);
    assert!(RespClient::try_connect(proxy.resp_port).is_none());
}

#[test]
fn however_short_the_time_what_is_idle_is_closed_and_not_cut_off() {
    let redis = RedisServer::start();
    let mut proxy = Proxy::to(&redis).env("DRAIN_SECS", "500ms").start();
    let mut idle = proxy.resp();
    assert_eq!(idle.line("SET k v"), Reply::ok());
    proxy.signal("TERM");
    let status = proxy.wait_for_end();
    proxy.assert_clean(status);
    let log = proxy.stderr();
    assert!(log.contains("idle=1 waiting=0 busy=0"), "{log}");
    assert!(log.contains("every client got what was owed"), "{log}");
}
