//! What runs out: file descriptors, clients, requests at the same time.

use crate::support::http::request_for;
use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, RespClient, encode, encode_line};
use crate::support::{PATIENCE, eventually};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn out_of_descriptors_it_serves_who_is_there_without_spinning_and_accepts_again_later() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).after_shell("ulimit -n 64").start();
    redis.call(&["SET", "k", "v"]);
    let mut early = proxy.resp();
    assert_eq!(early.line("GET k"), Reply::bulk("v"));
    assert_eq!(early.line("SET other w"), Reply::ok());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.resp_port));
    let crowd: Vec<_> = (0..200)
        .filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok())
        .collect();
    assert!(crowd.len() > 64, "only {} connected", crowd.len());
    for _ in 0..20 {
        assert_eq!(early.line("GET k"), Reply::bulk("v"));
        assert_eq!(early.line("SET other w"), Reply::ok());
    }
    // Not a wait but the measured time: a listener that is retried without a pause takes all of it.
    let (ticks, since) = (proxy.cpu_ticks(), Instant::now());
    thread::sleep(Duration::from_secs(1));
    let used_ms = (proxy.cpu_ticks() - ticks) * 10;
    assert!(
        u128::from(used_ms) * 2 < since.elapsed().as_millis(),
        "{used_ms} ms of processor time in an idle second"
    );
    drop(crowd);
    eventually("a new client is served", PATIENCE, || {
        let Some(mut late) = RespClient::try_connect(proxy.resp_port) else {
            return false;
        };
        late.try_send(&encode_line("GET k")).is_ok() && late.try_reply() == Ok(Reply::bulk("v"))
    });
    assert_eq!(proxy.http().get("k").body, b"v");
    assert_eq!(early.line("GET k"), Reply::bulk("v"));
}

#[test]
fn clients_never_take_the_descriptors_that_links_need_when_redis_comes_back() {
    let mut redis = RedisServer::start();
    let proxy = Proxy::to(&redis)
        .after_shell("ulimit -n 64")
        .tracking()
        .lost_is_an_error()
        .start_tracking();
    let mut early = proxy.resp();
    assert_eq!(early.line("SET k v"), Reply::ok());
    assert_eq!(early.line("GET k"), Reply::bulk("v"));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy.resp_port));
    let crowd: Vec<_> = (0..200)
        .filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok())
        .collect();
    assert!(crowd.len() > 64, "only {} connected", crowd.len());
    eventually("no more are taken", PATIENCE, || {
        proxy.stderr().contains("cannot accept")
    });
    for round in 1..=3 {
        // All connections to Redis go, the worker's too, and are wanted again while every client stays.
        redis.kill();
        eventually("it is missed", PATIENCE, || {
            early.line("GET k").is_own_error() && early.line("SET k v").is_own_error()
        });
        let (ticks, since) = (proxy.cpu_ticks(), Instant::now());
        thread::sleep(Duration::from_millis(500));
        let used_ms = (proxy.cpu_ticks() - ticks) * 10;
        assert!(
            u128::from(used_ms) * 2 < since.elapsed().as_millis(),
            "{used_ms} ms of processor time while nothing can be done"
        );
        redis.boot();
        let value = round.to_string();
        eventually("it is found", PATIENCE, || {
            early.call(&["SET", "k", &value]) == Reply::ok()
                && early.line("GET k") == Reply::bulk(&value)
        });
        eventually("a transaction finds a connection too", PATIENCE, || {
            early.line("MULTI") == Reply::ok()
        });
        assert_eq!(early.line("DISCARD"), Reply::ok());
    }
    drop(crowd);
}

#[test]
fn one_client_too_many_is_told_so_and_a_place_that_is_left_is_given_again() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).env("MAX_CLIENTS", 4).start();
    eventually("four are taken", PATIENCE, || {
        let mut clients: Vec<RespClient> = (0..4)
            .filter_map(|_| RespClient::try_connect(proxy.resp_port))
            .collect();
        // The clients that watched the start may not be gone yet.
        let served = |client: &mut RespClient| {
            client.try_send(&encode_line("PING")).is_ok()
                && client.try_reply() == Ok(Reply::Simple("PONG".to_string()))
        };
        if clients.len() < 4 || !clients.iter_mut().all(served) {
            return false;
        }
        let mut fifth = proxy.resp();
        let said = String::from_utf8_lossy(&fifth.bytes_until_closed()).into_owned();
        assert!(
            said.starts_with("-ERR ") && said.ends_with("\r\n"),
            "{said}"
        );
        assert!(said.contains("max number of clients reached"), "{said}");
        let mut refused = proxy.http();
        let answer = refused.response();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert!(refused.bytes_until_closed().is_empty());
        // Who is there already notices nothing.
        assert!(clients.iter_mut().all(served));
        true
    });
    eventually("places are free again", PATIENCE, || {
        let mut late = proxy.resp();
        late.try_send(&encode_line("PING")).is_ok()
            && late.try_reply() == Ok(Reply::Simple("PONG".to_string()))
    });
    assert!(proxy.counter("nearcache_clients_refused") >= 2);
    eventually("one of HTTP is served too", PATIENCE, || {
        proxy.http().get("k").status == 404
    });
}

/// A proxy that lets one request through at a time, with `hot` = `h` kept, and a relay to hold that one up.
fn start_narrow(queue_wait_ms: u32) -> (Proxy, Relay, RedisServer) {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .env("MAX_CONCURRENT_REQUESTS", 1)
        .env("QUEUE_WAIT_MS", queue_wait_ms)
        .start();
    redis.call(&["MSET", "hot", "h", "first", "1", "second", "2"]);
    let mut client = proxy.resp();
    assert_eq!(client.line("GET hot"), Reply::bulk("h"));
    assert_eq!(client.line("DEL nothing"), Reply::Int(0));
    (proxy, relay, redis)
}

/// Sends a `GET` of this key that stays outstanding at Redis.
fn occupy(proxy: &Proxy, relay: &Relay, key: &str) -> RespClient {
    relay.pause(Way::Down);
    let mut client = proxy.resp();
    client.send(&encode(&["GET", key]));
    eventually("the request is at Redis", PATIENCE, || {
        relay.has_seen(Way::Up, format!("\r\n{key}\r\n").as_bytes())
    });
    client
}

#[test]
fn above_the_limit_requests_wait_in_order_while_hits_and_joins_are_answered() {
    let (proxy, relay, _redis) = start_narrow(60_000);
    let mut first = occupy(&proxy, &relay, "first");
    let mut second = proxy.resp();
    second.send(&encode(&["GET", "second"]));
    let mut third = proxy.resp();
    third.send(&encode(&["INCR", "third"]));
    eventually("two wait", PATIENCE, || {
        proxy.counter(info::QUEUED_NOW) == 2
    });
    let mut joining = proxy.resp();
    joining.send(&encode(&["GET", "first"]));
    eventually("it has joined", PATIENCE, || {
        proxy.counter(info::JOINED) == 1
    });
    for _ in 0..5 {
        assert_eq!(proxy.resp().line("GET hot"), Reply::bulk("h"));
        assert!(proxy.http().get("hot").is_hit());
        assert_eq!(proxy.resp().line("ECHO x"), Reply::bulk("x"));
    }
    assert!(!relay.has_seen(Way::Up, b"\r\nsecond\r\n"), "one at a time");
    assert!(!relay.has_seen(Way::Up, b"\r\nthird\r\n"), "one at a time");
    relay.resume(Way::Down);
    assert_eq!(first.reply(), Reply::bulk("1"));
    assert_eq!(joining.reply(), Reply::bulk("1"));
    assert_eq!(second.reply(), Reply::bulk("2"));
    assert_eq!(third.reply(), Reply::Int(1));
}

#[test]
fn who_waits_too_long_gets_an_error_and_the_outstanding_one_its_value() {
    let (proxy, relay, _redis) = start_narrow(200);
    let mut first = occupy(&proxy, &relay, "first");
    let mut second = proxy.resp();
    second.send(&[encode(&["GET", "second"]), encode(&["GET", "hot"])].concat());
    let mut third = proxy.resp();
    third.send(&[encode(&["SET", "third", "3"]), encode(&["GET", "hot"])].concat());
    let mut http = proxy.http();
    http.send(&[request_for("GET", "second"), request_for("GET", "hot")].concat());
    for client in [&mut second, &mut third] {
        let reply = client.reply();
        assert!(reply.is_own_error(), "{reply:?}");
        assert_eq!(
            client.reply(),
            Reply::bulk("h"),
            "the next command is answered as if nothing had been"
        );
    }
    let response = http.response();
    assert_eq!(response.status, 503, "{response:?}");
    assert!(http.response().is_hit());
    relay.resume(Way::Down);
    assert_eq!(first.reply(), Reply::bulk("1"));
    assert!(
        !relay.has_seen(Way::Up, b"\r\nthird\r\n"),
        "what was given up is not executed later"
    );
    assert_eq!(second.line("GET second"), Reply::bulk("2"));
    assert_eq!(third.line("SET third 3"), Reply::ok());
}

#[test]
fn clients_that_leave_the_queue_keep_nobody_waiting() {
    let (proxy, relay, redis) = start_narrow(60_000);
    let mut first = occupy(&proxy, &relay, "first");
    for _ in 0..10 {
        let mut client = proxy.resp();
        client.send(&[encode(&["GET", "hot"]), encode(&["INCR", "left"])].concat());
        client.reset();
    }
    let mut last = proxy.resp();
    last.send(&encode(&["INCR", "last"]));
    eventually("those who left are forgotten", PATIENCE, || {
        proxy.counter(info::QUEUED_NOW) == 1
    });
    relay.resume(Way::Down);
    assert_eq!(first.reply(), Reply::bulk("1"));
    assert_eq!(last.reply(), Reply::Int(1));
    assert_eq!(
        redis.call(&["EXISTS", "left"]),
        Reply::Int(0),
        "what nobody waits for is not begun"
    );
}

#[test]
fn half_closed_clients_in_the_queue_are_answered() {
    let (proxy, relay, _redis) = start_narrow(60_000);
    let mut first = occupy(&proxy, &relay, "first");
    let mut second = proxy.resp();
    second.send(&encode(&["INCR", "n"]));
    second.finish_sending();
    eventually("it waits", PATIENCE, || {
        proxy.counter(info::QUEUED_NOW) == 1
    });
    relay.resume(Way::Down);
    assert_eq!(first.reply(), Reply::bulk("1"));
    assert_eq!(second.reply(), Reply::Int(1));
    assert_eq!(second.bytes_until_closed(), b"");
}

#[test]
fn with_the_limit_at_one_a_long_pipeline_of_many_clients_gets_through() {
    let (proxy, _relay, _redis) = start_narrow(60_000);
    let mut clients: Vec<RespClient> = (0..8).map(|_| proxy.resp()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let own = format!("own{n}");
        let pipeline: Vec<u8> = (0..100)
            .flat_map(|step| {
                [
                    encode(&["SET", &own, &step.to_string()]),
                    encode(&["GET", &own]),
                    encode_line("INCR shared"),
                ]
                .concat()
            })
            .collect();
        client.send(&pipeline);
    }
    for client in &mut clients {
        let mut last_count = 0;
        for step in 0..100 {
            assert_eq!(
                client.replies(2),
                [Reply::ok(), Reply::bulk(step.to_string())]
            );
            let Reply::Int(count) = client.reply() else {
                panic!("INCR answers a number")
            };
            assert!(count > last_count, "{count} after {last_count}");
            last_count = count;
        }
    }
    assert_eq!(proxy.resp().line("GET shared"), Reply::bulk("800"));
}
