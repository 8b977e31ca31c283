//! What bounds the connections to Redis: how many, how much in one batch, which commands share, how long connecting takes.

use crate::support::proxy::{Proxy, info};
use crate::support::redis_server::RedisServer;
use crate::support::relay::{Relay, Way};
use crate::support::resp::{Reply, encode, encode_line};
use crate::support::{PATIENCE, eventually};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// The connections to Redis that its clients share.
fn shared_links(redis: &RedisServer) -> usize {
    let connections = redis.proxy_connections();
    let shared = connections
        .iter()
        .filter(|(_, name)| name.contains(":link"));
    shared.count()
}

#[test]
fn above_links_max_a_command_that_finds_no_connection_is_told_so_and_the_others_go_on() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    // One is asked whether Redis is there, one is left to be shared.
    let proxy = Proxy::patiently_through(&relay)
        .env("LINKS_MAX", 2)
        .env("LINK_IDLE_SECS", 1)
        .start();
    redis.call(&["SET", "hot", "h"]);
    let (mut first, mut other) = (proxy.resp(), proxy.resp());
    assert_eq!(first.line("GET hot"), Reply::bulk("h"));
    assert!(matches!(other.line("HELLO 3"), Reply::Map(_)));
    eventually("the one connection is in use", PATIENCE, || {
        relay.resume(Way::Down);
        assert!(matches!(first.line("INCR n"), Reply::Int(_)));
        relay.pause(Way::Down);
        first.send(&encode_line("INCR n"));
        proxy.counter(info::IN_FLIGHT) == 1
    });
    // RESP3 replies do not come on a connection that speaks RESP2.
    for _ in 0..3 {
        let refused = other.line("SET k v");
        assert!(refused.is_own_error(), "{refused:?}");
        assert!(
            refused.error().contains("too many connections to Redis"),
            "{refused:?}"
        );
        assert_eq!(other.line("GET hot"), Reply::bulk("h"), "it stays");
    }
    // Who can use the one there is waits its turn.
    let mut second = proxy.resp();
    second.send(&encode_line("INCR m"));
    eventually("it is under way", PATIENCE, || {
        proxy.counter(info::IN_FLIGHT) == 2
    });
    relay.resume(Way::Down);
    assert!(matches!(first.reply(), Reply::Int(_)));
    assert_eq!(second.reply(), Reply::Int(1));
    assert!(shared_links(&redis) <= 1, "{:?}", redis.proxy_connections());
    // Transactions have a bound of their own.
    assert_eq!(second.line("MULTI"), Reply::ok());
    assert_eq!(second.line("DISCARD"), Reply::ok());
    eventually("the idle one has made room", PATIENCE, || {
        other.line("SET k v") == Reply::ok()
    });
    assert_eq!(redis.call(&["GET", "k"]), Reply::bulk("v"));
}

#[test]
fn a_worker_asks_for_as_many_keys_at_once_as_fetch_batch_max_says() {
    const BATCH: usize = 3;
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .env("FETCH_BATCH_MAX", BATCH)
        .start();
    assert_eq!(proxy.resp().line("GET warm"), Reply::NullBulk);
    let worker = relay
        .newest_open_with(Way::Up, b"PTTL")
        .expect("it has fetched");
    let asked = || relay.count_of(Way::Up, b"PTTL");
    assert_eq!(asked(), 1);
    relay.pause_one(worker, Way::Down);
    let mut clients: Vec<_> = (0..11).map(|_| proxy.resp()).collect();
    clients[0].send(&encode_line("GET cold0"));
    eventually("the first is asked for", PATIENCE, || asked() == 2);
    for (n, client) in clients.iter_mut().enumerate().skip(1) {
        client.send(&encode(&["GET", &format!("cold{n}")]));
    }
    eventually("ten wait for the worker", PATIENCE, || {
        proxy.counter(info::IN_FLIGHT) == 11
    });
    // Each answer that is let through lets the worker go on with the next batch: 3, 3, 3 and 1.
    for (batch, expected) in [BATCH, BATCH, BATCH, 1].into_iter().enumerate() {
        let before = asked();
        let answered = relay.passed_bytes(worker, Way::Down);
        eventually("the last batch is answered", PATIENCE, || {
            // $-1 and :-2 for each key, in one piece.
            relay.arrived_bytes(worker, Way::Down) >= answered + 10
        });
        let arrived = relay.arrived_bytes(worker, Way::Down);
        relay.let_pass_up_to(worker, Way::Down, arrived);
        eventually("the next batch is asked for", PATIENCE, || asked() > before);
        assert_eq!(asked() - before, expected, "batch {batch}");
    }
    relay.resume_one(worker, Way::Down);
    for client in &mut clients {
        assert_eq!(client.reply(), Reply::NullBulk);
    }
}

#[test]
fn a_command_above_shared_request_bytes_max_travels_on_a_connection_of_its_clients_own() {
    let redis = RedisServer::start();
    let relay = Relay::to(redis.port());
    let proxy = Proxy::patiently_through(&relay)
        .env("SHARED_REQUEST_BYTES_MAX", "1KiB")
        .start();
    let (mut client, mut other) = (proxy.resp(), proxy.resp());
    let value_of = |mark: &str, bytes: usize| format!("{mark}{}", "x".repeat(bytes));
    assert_eq!(
        client.call(&["SET", "k", &value_of("<short>", 10)]),
        Reply::ok()
    );
    let shared = relay.connections_with(Way::Up, b"<short>");
    assert_eq!(shared.len(), 1);
    let fits = value_of("<fits>", 900);
    assert_eq!(client.call(&["SET", "k", &fits]), Reply::ok());
    assert_eq!(relay.connections_with(Way::Up, b"<fits>"), shared);
    // Half of it is on its way to Redis, whose connection waits for the rest: nobody else waits behind it.
    let long = value_of("<long>", 2000);
    let bytes = encode(&["SET", "k", &long]);
    client.send(&bytes[..1500]);
    eventually("half of it has left", PATIENCE, || {
        relay.has_seen(Way::Up, b"<long>")
    });
    assert_eq!(other.line("INCR n"), Reply::Int(1));
    assert_eq!(relay.connections_with(Way::Up, b"INCR"), shared);
    let own = relay.connections_with(Way::Up, b"<long>");
    assert!(own.len() == 1 && own != shared, "{own:?} {shared:?}");
    client.send(&bytes[1500..]);
    assert_eq!(client.reply(), Reply::ok());
    assert_eq!(client.line("GET k"), Reply::bulk(&long));
    // Afterwards it is like before.
    assert_eq!(
        client.call(&["SET", "k", &value_of("<again>", 10)]),
        Reply::ok()
    );
    assert_eq!(relay.connections_with(Way::Up, b"<again>"), shared);
}

#[test]
fn a_redis_that_cannot_be_connected_to_is_given_up_in_time_and_found_when_it_can() {
    let mut redis = RedisServer::not_started();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port()));
    let listener = TcpListener::bind(address).expect("the port is free");
    // Nobody accepts: when the backlog is full the kernel drops what comes, as a firewall does.
    let mut crowd = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        crowd.push(stream);
    }
    let proxy = Proxy::to(&redis)
        .env("REDIS_CONNECT_TIMEOUT_MS", 200)
        .env("REDIS_TIMEOUT_MS", 600_000)
        .env("LINK_DEAD_MS", 600_000)
        .lost_is_an_error()
        .start();
    // The kernel itself would try for two minutes.
    proxy.await_redis("away");
    eventually("the worker has given up too", PATIENCE, || {
        proxy.stderr().contains("connect timed out")
    });
    let mut client = proxy.resp();
    assert!(client.line("GET k").is_own_error());
    assert!(client.line("SET k v").is_own_error());
    assert_eq!(proxy.http().get("k").status, 503);
    drop((listener, crowd));
    redis.boot();
    proxy.await_redis("up");
    eventually("all of it works", PATIENCE, || {
        client.line("SET k v") == Reply::ok() && client.line("GET k") == Reply::bulk("v")
    });
}
