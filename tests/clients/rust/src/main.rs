//! The redis crate with its defaults, `smokes sync|multiplexed|manager|state PORT`: a synchronous connection, an
//! asynchronous one that its users share, and one that connects again by itself; `state` is what needs a connection of its
//! own.
//!
//! What it says to the test that runs it is what `../python/conversation.py` says.

mod state;

use redis::aio::{ConnectionLike as AsyncLike, ConnectionManager};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use std::io::{Write, stdin, stdout};
use std::time::Duration;

const RECOVERY_TRIES: usize = 400;

fn record(label: &str, value: &str) {
    const SHOWN_MAX: usize = 400;
    let value = match value.len() {
        0..=SHOWN_MAX => value.to_string(),
        long => format!("{long} bytes, hash {}", fnv(value.as_bytes())),
    };
    println!("= {label}: {value}");
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf29ce484222325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100000001b3)
    })
}

fn order(what: &str) {
    println!("! {what}");
    stdout().flush().expect("the test listens");
    let mut line = String::new();
    let read = stdin().read_line(&mut line).expect("the test speaks");
    assert!(read > 0, "the test is gone");
}

/// One of the three kinds of connection, asked in the same way.
enum Link {
    Sync(redis::Client, redis::Connection),
    Multiplexed(redis::Client, redis::aio::MultiplexedConnection),
    Manager(ConnectionManager),
}

impl Link {
    async fn open(kind: &str, port: u16, path: &str) -> RedisResult<Link> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/{path}"))?;
        Ok(match kind {
            "sync" => {
                let connection = client.get_connection()?;
                Link::Sync(client, connection)
            }
            "multiplexed" => {
                let connection = client.get_multiplexed_async_connection().await?;
                Link::Multiplexed(client, connection)
            }
            "manager" => Link::Manager(client.get_connection_manager().await?),
            _ => panic!("no such kind of connection: {kind}"),
        })
    }

    async fn ask(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        match self {
            Link::Sync(_, connection) => cmd.query(connection),
            Link::Multiplexed(_, connection) => cmd.query_async(connection).await,
            Link::Manager(manager) => cmd.query_async(manager).await,
        }
    }

    async fn ask_all(&mut self, pipe: &Pipeline) -> RedisResult<Vec<Value>> {
        match self {
            Link::Sync(_, connection) => pipe.query(connection),
            Link::Multiplexed(_, connection) => pipe.query_async(connection).await,
            Link::Manager(manager) => pipe.query_async(manager).await,
        }
    }

    /// What an application does when a connection is gone: it asks the client for another one. The manager does that
    /// by itself.
    async fn reconnect(&mut self) -> RedisResult<()> {
        match self {
            Link::Sync(client, connection) => *connection = client.get_connection()?,
            Link::Multiplexed(client, connection) => {
                *connection = client.get_multiplexed_async_connection().await?;
            }
            Link::Manager(_) => {}
        }
        Ok(())
    }
}

/// The words of a line as a command.
fn line(text: &str) -> Cmd {
    words(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

fn words(args: &[&[u8]]) -> Cmd {
    let mut cmd = Cmd::new();
    for arg in args {
        cmd.arg(*arg);
    }
    cmd
}

fn shown(result: Result<Value, RedisError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) if error.is_connection_dropped() || error.is_connection_refusal() => {
            "the connection is lost".to_string()
        }
        Err(error) => format!("{:?}: {error}", error.kind()),
    }
}

async fn ask(link: &mut Link, text: &str) {
    record(text, &shown(link.ask(&line(text)).await));
}

async fn twice(link: &mut Link, text: &str) {
    ask(link, text).await;
    ask(link, text).await;
}

async fn strings(link: &mut Link) {
    ask(link, "PING").await;
    ask(link, "SET name Ada").await;
    twice(link, "GET name").await;
    twice(link, "GET missing").await;
    ask(link, "SET name Grace EX 1000").await;
    twice(link, "GET name").await;
    ask(link, "MSET a 1 b two c 3.5").await;
    twice(link, "MGET a missing b c a").await;
    for key in ["a", "b", "c"] {
        twice(link, &format!("GET {key}")).await;
    }
    ask(link, "MGET a b c").await;
    for text in ["INCR a", "GETDEL c", "DEL a b missing"] {
        ask(link, text).await;
        twice(link, "GET a").await;
        twice(link, "EXISTS a a missing").await;
        twice(link, "STRLEN b").await;
        twice(link, "GETRANGE b -2 -1").await;
    }
    let big: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let odd: [(&[u8], &[u8]); 4] = [
        ("clé-ключ-鍵-🔑".as_bytes(), "Grüße, 世界 🌍".as_bytes()),
        (b"\0\r\n\xff", b"\0\r\n$-1\r\n\xfe\xff"),
        (b"", b""),
        (b"big", &big),
    ];
    for (key, value) in odd {
        let label = String::from_utf8_lossy(key).escape_debug().to_string();
        let set = shown(link.ask(&words(&[b"SET", key, value])).await);
        record(&format!("SET of {label:?}"), &set);
        for _ in 0..2 {
            let got = shown(link.ask(&words(&[b"GET", key])).await);
            record(&format!("GET of {label:?}"), &got);
        }
    }
}

async fn pipelines(link: &mut Link) {
    let mut pipe = redis::pipe();
    for text in [
        "SET p 0",
        "INCR p",
        "GET p",
        "GET missing",
        "HSET hash f v",
        "HGETALL hash",
        "MGET p missing",
    ] {
        pipe.add_command(line(text));
    }
    record("pipeline", &format!("{:?}", link.ask_all(&pipe).await));
    let mut pipe = redis::pipe();
    for n in 0..500 {
        pipe.add_command(line(&format!("SET many{n} {n}")));
        pipe.add_command(line(&format!("GET many{n}")));
        pipe.add_command(line("INCR count"));
    }
    record("long pipeline", &format!("{:?}", link.ask_all(&pipe).await));
    let mut pipe = redis::pipe();
    for text in ["SET p x", "LPUSH p 1", "GET p"] {
        pipe.add_command(line(text));
    }
    record(
        "pipeline with an error",
        &format!("{:?}", link.ask_all(&pipe).await),
    );
}

async fn types_scripts_errors(link: &mut Link) {
    for text in [
        "HGETALL hash",
        "RPUSH list a b",
        "LRANGE list 0 -1",
        "SADD set a",
        "SMEMBERS set",
        "ZADD zset 1 a 2.5 b",
        "ZRANGE zset 0 -1 WITHSCORES",
        "ZSCORE zset b",
        "XADD stream 1-1 f v",
        "XRANGE stream - +",
        "DBSIZE",
        "GET hash",
        "GET hash",
        "INCR name",
        "GET",
        "NOSUCHCOMMAND x",
        "GET name",
    ] {
        ask(link, text).await;
    }
    for body in [
        "return {KEYS[1], ARGV[1], 7, false, {1, 'x'}}",
        "return redis.call('incr', KEYS[1])",
    ] {
        let mut eval = redis::cmd("EVAL");
        eval.arg(body).arg(1).arg("hash").arg("x");
        record("EVAL", &shown(link.ask(&eval).await));
    }
    let script = redis::Script::new("return redis.call('incrby', KEYS[1], ARGV[1])");
    for round in 0..3 {
        let mut call = script.key("number");
        call.arg(5);
        let result: RedisResult<i64> = match link {
            Link::Sync(_, connection) => call.invoke(connection),
            Link::Multiplexed(_, connection) => call.invoke_async(connection).await,
            Link::Manager(manager) => call.invoke_async(manager).await,
        };
        record("script", &format!("{result:?}"));
        twice(link, "GET number").await;
        if round == 1 {
            ask(link, "SCRIPT FLUSH").await;
        }
    }
    scans(link).await;
}

async fn scans(link: &mut Link) {
    let mut pipe = redis::pipe();
    for n in 0..1000 {
        pipe.add_command(line(&format!("SET scan:{n} {n}")));
    }
    link.ask_all(&pipe).await.expect("they are plain writes");
    let mut keys: Vec<String> = match link {
        Link::Sync(_, connection) => {
            let found = redis::Commands::scan_match(connection, "scan:*").expect("SCAN works");
            found.map(|key| key.expect("a key is text")).collect()
        }
        Link::Multiplexed(_, connection) => scan(connection).await,
        Link::Manager(manager) => scan(manager).await,
    };
    keys.sort();
    record("SCAN", &keys.join(" "));
}

async fn scan<C: AsyncLike + Send + Sync>(connection: &mut C) -> Vec<String> {
    let mut found = redis::AsyncCommands::scan_match::<_, String>(connection, "scan:*")
        .await
        .expect("SCAN works");
    let mut keys = Vec::new();
    while let Some(key) = found.next_item().await {
        keys.push(key.expect("a key is text"));
    }
    keys
}

/// Another database, and RESP3 by the address.
async fn addresses(kind: &str, port: u16) {
    for path in ["1", "?protocol=resp3", "1?protocol=resp3"] {
        let mut other = match Link::open(kind, port, path).await {
            Ok(other) => other,
            Err(error) => {
                record(path, &error.to_string());
                continue;
            }
        };
        for text in [
            "GET name",
            "GET name",
            "SET name Other",
            "GET name",
            "GET missing",
            "HSET h f v",
            "HGETALL h",
            "CLIENT GETNAME",
        ] {
            ask(&mut other, text).await;
        }
    }
}

async fn outages(link: &mut Link) {
    ask(link, "SET kept no").await;
    twice(link, "GET kept").await;
    order("kill");
    let during = link.ask(&line("GET kept")).await;
    record("while Redis is away", &shown(during));
    order("boot");
    recovered(link, "recovered").await;
    twice(link, "GET kept").await;
    order("restart");
    recovered(link, "recovered from a restart").await;
    ask(link, "SET loop 1").await;
    let mut endless = redis::cmd("EVAL");
    endless.arg("while true do end").arg(0);
    // The order waits for Redis to be busy, so it is given by a thread.
    let killer = std::thread::spawn(|| order("kill while busy"));
    let result = link.ask(&endless).await;
    killer.join().expect("the test does it");
    record("a command under way when Redis died", &shown(result));
    order("boot");
    recovered(link, "recovered from that").await;
}

async fn recovered(link: &mut Link, label: &str) {
    for _ in 0..RECOVERY_TRIES {
        // Each worker of the proxy finds Redis again by itself, within 250 ms: this asks them for both keys.
        let mut result = link.ask(&line("GET kept")).await;
        for text in ["SET back yes", "GET back"] {
            if result.is_ok() {
                result = link.ask(&line(text)).await;
            }
        }
        match result {
            Ok(_) => return record(label, &shown(result)),
            Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => {
                return record(label, &error.to_string());
            }
            // A connection that cannot be had yet is asked for again.
            Err(_) => drop(link.reconnect().await),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    record(label, "never");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (kind, port) = (&args[1], args[2].parse().expect("a port"));
    if kind == "state" {
        state::all(port);
        return record("the end", "yes");
    }
    let mut link = Link::open(kind, port, "").await.expect("it connects");
    strings(&mut link).await;
    pipelines(&mut link).await;
    types_scripts_errors(&mut link).await;
    addresses(kind, port).await;
    outages(&mut link).await;
    record("the end", "yes");
}
