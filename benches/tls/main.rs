//! What TLS costs: hits over it beside hits without, and handshakes. `make tls`, on a machine that is otherwise quiet.
//!
//! Rounds are interleaved, so what disturbs the machine for a while disturbs both; ratios are taken within a round, and
//! their median is told with the lowest and the highest. CPU is that of the proxy alone, so the generator, which does
//! the same arithmetic in the same machine, does not count. Every reply is compared byte by byte.
//!
//! `ROUNDS=9`, `SECONDS_EACH=0.5`, `CONNECTIONS=50` and `VALUE=64` (bytes) change what is done.

#[path = "../../tests/support/mod.rs"]
mod support;

use rustls::ClientConfig;
use rustls::client::Resumption;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::ports::free_port;
use support::proxy::Proxy;
use support::redis_server::RedisServer;
use support::resp::encode;
use support::tls::{Authority, Flaw, TlsClient, tcp};

/// Ticks of `/proc` in a second.
const TICKS_PER_SEC: f64 = 100.0;

struct Settings {
    rounds: usize,
    each: Duration,
    connections: usize,
    value_bytes: usize,
}

/// What a run of one kind came to.
#[derive(Clone, Copy)]
struct Figure {
    per_sec: f64,
    cpu_us: f64,
}

/// A connection with TLS or without.
enum Line {
    Plain(TcpStream),
    Tls(Box<TlsClient>),
}

impl Line {
    fn send(&mut self, bytes: &[u8]) {
        match self {
            Line::Plain(stream) => stream.write_all(bytes).expect("it takes bytes"),
            Line::Tls(client) => client.send(bytes),
        }
    }

    fn expect(&mut self, bytes: &[u8], room: &mut Vec<u8>) {
        match self {
            Line::Plain(stream) => {
                room.resize(bytes.len(), 0);
                stream.read_exact(room).expect("it answers");
                assert!(room == bytes, "another reply");
            }
            Line::Tls(client) => client.expect(bytes),
        }
    }
}

fn main() {
    let number = |name: &str, default: f64| {
        let text = std::env::var(name).unwrap_or_default();
        text.parse().unwrap_or(default)
    };
    let settings = Settings {
        rounds: (number("ROUNDS", 9.0) as usize).max(1),
        each: Duration::from_secs_f64(number("SECONDS_EACH", 0.5).clamp(0.05, 600.0)),
        connections: (number("CONNECTIONS", 50.0) as usize).clamp(1, 5000),
        value_bytes: (number("VALUE", 64.0) as usize).clamp(1, 1 << 20),
    };
    let redis = RedisServer::start();
    let authority = Authority::new("the bench's CA");
    let files = authority.issue("proxy", &["localhost"], Flaw::None);
    let port = free_port();
    let proxy = Proxy::to(&redis)
        .env("TLS_RESP_PORT", port)
        .env("TLS_CERT_FILE", &files.cert)
        .env("TLS_KEY_FILE", &files.key)
        .env("CACHE_TTL_SECS", 3600)
        .start();
    hits(&settings, &proxy, port, &authority.client(None));
    handshakes(&settings, &proxy, port, &authority.client(None));
    memory(&proxy, port, &authority.client(None));
}

/// What a thousand clients that have asked once and are silent now take in the proxy, TLS beside plain.
fn memory(proxy: &Proxy, port: u16, config: &Arc<ClientConfig>) {
    const CLIENTS: usize = 1000;
    let served = |mut line: Line| {
        line.send(b"PING\r\n");
        line.expect(b"+PONG\r\n", &mut Vec::new());
        line
    };
    let each = |before: u64| proxy.resident_bytes().saturating_sub(before) / CLIENTS as u64;
    let before = proxy.resident_bytes();
    let _plain: Vec<Line> = (0..CLIENTS)
        .map(|_| served(Line::Plain(tcp(proxy.resp_port))))
        .collect();
    let plain = each(before);
    let before = proxy.resident_bytes();
    let _tls: Vec<Line> = (0..CLIENTS)
        .map(|_| served(Line::Tls(Box::new(TlsClient::connect(port, config)))))
        .collect();
    println!(
        "\nmemory of an idle client: plain {plain} bytes, TLS {} bytes",
        each(before)
    );
}

fn hits(settings: &Settings, proxy: &Proxy, port: u16, config: &Arc<ClientConfig>) {
    let value = "x".repeat(settings.value_bytes);
    let mut client = proxy.resp();
    client.call(&["SET", "key:000001", &value]);
    client.call(&["GET", "key:000001"]);
    println!(
        "hits: values of {} bytes, {} connections, {} rounds of {:?}\n",
        settings.value_bytes, settings.connections, settings.rounds, settings.each
    );
    println!(
        "| pipeline | plain/s | TLS/s | TLS over plain (lowest to highest) | CPU us plain | CPU us TLS |"
    );
    println!("|---|---|---|---|---|---|");
    let mut plain: Vec<Line> = (0..settings.connections)
        .map(|_| Line::Plain(tcp(proxy.resp_port)))
        .collect();
    let mut tls: Vec<Line> = (0..settings.connections)
        .map(|_| Line::Tls(Box::new(TlsClient::connect(port, config))))
        .collect();
    for depth in [1, 16] {
        let batch = encode(&["GET", "key:000001"]).repeat(depth);
        let replies = format!("${}\r\n{value}\r\n", value.len())
            .repeat(depth)
            .into_bytes();
        let mut rounds = Vec::new();
        for _ in 0..settings.rounds {
            let one = run(settings, proxy, &mut plain, &batch, &replies, depth);
            let other = run(settings, proxy, &mut tls, &batch, &replies, depth);
            rounds.push((one, other));
        }
        let ratios = sorted(
            rounds
                .iter()
                .map(|(plain, tls)| tls.per_sec / plain.per_sec),
        );
        let of =
            |figure: &dyn Fn(&(Figure, Figure)) -> f64| median(&sorted(rounds.iter().map(figure)));
        println!(
            "| {depth} | {:.0} | {:.0} | {:.2} ({:.2} to {:.2}) | {:.2} | {:.2} |",
            of(&|(plain, _)| plain.per_sec),
            of(&|(_, tls)| tls.per_sec),
            median(&ratios),
            ratios[0],
            ratios[ratios.len() - 1],
            of(&|(plain, _)| plain.cpu_us),
            of(&|(_, tls)| tls.cpu_us),
        );
    }
}

/// All connections have `depth` requests under way, and the next when those are answered.
fn run(
    settings: &Settings,
    proxy: &Proxy,
    lines: &mut [Line],
    batch: &[u8],
    replies: &[u8],
    depth: usize,
) -> Figure {
    let (begin, ticks) = (Instant::now(), proxy.cpu_ticks());
    let (mut count, mut room) = (0, Vec::new());
    while begin.elapsed() < settings.each {
        lines.iter_mut().for_each(|line| line.send(batch));
        lines
            .iter_mut()
            .for_each(|line| line.expect(replies, &mut room));
        count += depth * lines.len();
    }
    figure(count, begin.elapsed(), proxy.cpu_ticks() - ticks)
}

fn handshakes(settings: &Settings, proxy: &Proxy, port: u16, config: &Arc<ClientConfig>) {
    println!("\nhandshakes, one after the other (TLS 1.3, a key on P-256)\n");
    println!("| kind | per second | CPU us | per second of the proxy's CPU |");
    println!("|---|---|---|---|");
    let mut afresh = (**config).clone();
    afresh.resumption = Resumption::disabled();
    for (kind, config) in [("full", Arc::new(afresh)), ("resumed", config.clone())] {
        let rounds = (0..settings.rounds).map(|_| {
            let (begin, ticks) = (Instant::now(), proxy.cpu_ticks());
            let mut count = 0;
            while begin.elapsed() < settings.each {
                // Served once, so that the ticket for the next one has come.
                assert!(TlsClient::connect(port, &config).is_served());
                count += 1;
            }
            figure(count, begin.elapsed(), proxy.cpu_ticks() - ticks)
        });
        let rounds: Vec<Figure> = rounds.collect();
        let per_sec = median(&sorted(rounds.iter().map(|figure| figure.per_sec)));
        let cpu_us = median(&sorted(rounds.iter().map(|figure| figure.cpu_us)));
        println!(
            "| {kind} | {per_sec:.0} | {cpu_us:.0} | {:.0} |",
            1e6 / cpu_us
        );
    }
}

fn figure(count: usize, elapsed: Duration, ticks: u64) -> Figure {
    Figure {
        per_sec: count as f64 / elapsed.as_secs_f64(),
        cpu_us: ticks as f64 / TICKS_PER_SEC * 1e6 / count.max(1) as f64,
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
