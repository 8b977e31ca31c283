//! Many clients at once that do little: what an idle one costs, and what each subscriber gets.

use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::resp::{Reply, encode_line};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

/// Idle clients wanted; fewer where this process, which holds the other ends, may not have as many descriptors.
const IDLE: usize = 10_000;
const SUBSCRIBERS: usize = 2_000;
const MESSAGES: usize = 20;
/// Descriptors that are for something else.
const SPARE: usize = 600;
/// Resident bytes allowed per idle client: its place in the tables of engine and reactor, and growth by doubling.
const IDLE_BYTES_MAX: u64 = 4096;

/// Descriptors that a process started from here may have at once, and so this one.
fn descriptors() -> usize {
    let limits =
        std::fs::read_to_string("/proc/self/limits").expect("Linux says what the limits are");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok())
        .unwrap_or(usize::MAX)
}

fn resident_bytes(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("its size")
        * 1024
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.resp_port)).expect("there is room");
    let patience = Some(crate::support::PATIENCE);
    stream.set_read_timeout(patience).expect("a time-out");
    stream
}

fn expect(stream: &mut TcpStream, bytes: &[u8], who: usize) {
    let mut got = vec![0; bytes.len()];
    stream
        .read_exact(&mut got)
        .unwrap_or_else(|error| panic!("client {who}: {error}"));
    assert_eq!(got, bytes, "client {who}");
}

#[test]
fn ten_thousand_idle_clients_cost_little_and_hits_are_answered_among_them() {
    let redis = RedisServer::start();
    let n = IDLE.min(descriptors().saturating_sub(SPARE));
    let proxy = Proxy::to(&redis)
        .env("MAX_CLIENTS", n + 100)
        .after_shell("ulimit -n $(ulimit -Hn)")
        .start();
    redis.call(&["SET", "k", "v"]);
    let mut busy = proxy.resp();
    assert_eq!(busy.line("GET k"), Reply::bulk("v"));
    let before = resident_bytes(&proxy);
    let mut idle: Vec<TcpStream> = (0..n).map(|_| connect(&proxy)).collect();
    // Each has spoken once: its tables are made, its buffers were used and given back.
    for stream in &mut idle {
        stream.write_all(&encode_line("GET k")).expect("it is open");
    }
    for (who, stream) in idle.iter_mut().enumerate() {
        expect(stream, b"$1\r\nv\r\n", who);
    }
    let each = resident_bytes(&proxy).saturating_sub(before) / n as u64;
    println!("{n} idle clients, {each} resident bytes each");
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes for an idle client");
    let (hits, misses) = proxy.hits_and_misses_of(|| {
        for _ in 0..100 {
            assert_eq!(busy.line("GET k"), Reply::bulk("v"));
        }
    });
    assert_eq!((hits, misses), (100, 0));
    // The oldest and the newest are still served.
    for who in [0, n / 2, n - 1] {
        idle[who]
            .write_all(&encode_line("GET k"))
            .expect("it is open");
        expect(&mut idle[who], b"$1\r\nv\r\n", who);
    }
}

#[test]
fn two_thousand_subscribers_get_every_message_in_order() {
    let redis = RedisServer::start();
    // Each has a connection to Redis of its own beside the one to its client.
    let n = SUBSCRIBERS.min(descriptors().saturating_sub(SPARE) / 2);
    let proxy = Proxy::to(&redis)
        .env("MAX_CLIENTS", n + 100)
        .env("OWN_LINKS_MAX", n + 100)
        .after_shell("ulimit -n $(ulimit -Hn)")
        .start();
    let mut subscribers: Vec<TcpStream> = (0..n).map(|_| connect(&proxy)).collect();
    for (who, stream) in subscribers.iter_mut().enumerate() {
        stream
            .write_all(&encode_line("SUBSCRIBE news"))
            .expect("it is open");
        expect(
            stream,
            b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n",
            who,
        );
    }
    let mut publisher = redis.client();
    let mut expected = Vec::new();
    for at in 0..MESSAGES {
        let heard = publisher.line(&format!("PUBLISH news m{at:03}"));
        assert_eq!(heard, Reply::Int(n as i64));
        expected.extend(format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$4\r\nm{at:03}\r\n").bytes());
    }
    for (who, stream) in subscribers.iter_mut().enumerate() {
        expect(stream, &expected, who);
    }
}
