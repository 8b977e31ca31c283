//! The load: rounds in which each connection sends `depth` requests at once, then each reply is compared.
//!
//! It never has more than one round outstanding, so it needs no poll: what a round sends fits the socket buffers.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const KEYS: usize = 1000;
/// Length of the values, as in the figures of the README.
const VALUE_BYTES: usize = 64;
/// A request of five lines, from behind the key.
const HTTP_TAIL: &str = " HTTP/1.1\r\nHost: localhost:6000\r\nUser-Agent: agent-0000\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n";
/// How long one reply may take, from a proxy slowed down fifty times.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Which port, and the form of requests and replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Resp,
    /// Requests that differ in the key alone, as those of one program do.
    Http,
    /// Requests none of which has the head of the one before.
    HttpNew,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Resp => "resp",
            Protocol::Http => "http",
            Protocol::HttpNew => "http-new",
        }
    }
}

/// What is sent, and how many requests of a connection are under way at once.
pub struct Load {
    pub protocol: Protocol,
    pub connections: usize,
    pub depth: usize,
    /// Requests sent so far, for what differs from one to the next.
    pub sent: Cell<usize>,
}

impl Load {
    /// The most requests not above `wanted` that are whole rounds.
    pub fn whole_rounds(&self, wanted: usize) -> usize {
        let round = self.connections * self.depth;
        wanted / round * round
    }

    /// Reads every key once, so that it is in the cache.
    pub fn warm(&self, port: u16) -> Result<(), String> {
        let mut connection = connect(port)?;
        for key in 0..KEYS {
            self.send(&mut connection, &[key])?;
            self.receive(&mut connection, key)?;
        }
        Ok(())
    }

    /// Sends `hits` requests (whole rounds) and checks every reply.
    pub fn run(&self, port: u16, hits: usize) -> Result<(), String> {
        let mut connections = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            connections.push(connect(port)?);
        }
        for first in (0..hits).step_by(self.connections * self.depth) {
            let keys_of = |connection: usize| -> Vec<usize> {
                (0..self.depth)
                    .map(|i| (first + connection * self.depth + i) % KEYS)
                    .collect()
            };
            for (n, connection) in connections.iter_mut().enumerate() {
                self.send(connection, &keys_of(n))?;
            }
            for (n, connection) in connections.iter_mut().enumerate() {
                for key in keys_of(n) {
                    self.receive(connection, key)?;
                }
            }
        }
        Ok(())
    }

    fn send(&self, connection: &mut BufReader<TcpStream>, keys: &[usize]) -> Result<(), String> {
        let mut bytes = Vec::with_capacity(keys.len() * 80);
        for key in keys {
            let key = name(*key);
            match self.protocol {
                Protocol::Resp => write!(bytes, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()),
                Protocol::Http => write!(bytes, "GET /get?key={key}{HTTP_TAIL}"),
                Protocol::HttpNew => {
                    let agent = format!(
                        "agent-{:04}",
                        self.sent.replace(self.sent.get() + 1) % 10_000
                    );
                    let tail = HTTP_TAIL.replace("agent-0000", &agent);
                    write!(bytes, "GET /get?key={key}{tail}")
                }
            }
            .map_err(|e| e.to_string())?;
        }
        connection
            .get_mut()
            .write_all(&bytes)
            .map_err(|e| format!("sending: {e}"))
    }

    /// Reads one reply and compares it with what the key holds.
    fn receive(&self, connection: &mut BufReader<TcpStream>, key: usize) -> Result<(), String> {
        let expected = value(key);
        let length = match self.protocol {
            Protocol::Resp => {
                let head = line(connection)?;
                head.strip_prefix('$')
                    .and_then(|n| n.parse().ok())
                    .ok_or(format!("a reply that begins {head:?}"))?
            }
            Protocol::Http | Protocol::HttpNew => http_length(connection)?,
        };
        if length != VALUE_BYTES {
            return Err(format!("a value of {length} bytes for {}", name(key)));
        }
        let mut got = vec![0; length];
        connection
            .read_exact(&mut got)
            .map_err(|e| format!("receiving: {e}"))?;
        if got != expected.as_bytes() {
            return Err(format!(
                "the wrong value for {}: {:?}",
                name(key),
                String::from_utf8_lossy(&got)
            ));
        }
        match self.protocol {
            Protocol::Resp if !line(connection)?.is_empty() => {
                Err("no CRLF after a value".to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Stores every key in Redis.
pub fn fill(port: u16) -> Result<(), String> {
    let mut redis = connect(port)?;
    for key in 0..KEYS {
        let (key, value) = (name(key), value(key));
        let set = format!(
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
            key.len(),
            value.len()
        );
        redis
            .get_mut()
            .write_all(set.as_bytes())
            .map_err(|e| format!("filling Redis: {e}"))?;
        let reply = line(&mut redis)?;
        if reply != "+OK" {
            return Err(format!("Redis answers SET with {reply:?}"));
        }
    }
    Ok(())
}

fn name(key: usize) -> String {
    format!("key:{key:012}")
}

/// Differs from key to key in every part, so that a reply of another key cannot pass.
fn value(key: usize) -> String {
    let seed = name(key);
    let rest =
        (0..VALUE_BYTES - seed.len()).map(|i| char::from(b'a' + ((key * 7 + i * 3) % 26) as u8));
    seed.chars().chain(rest).collect()
}

fn connect(port: u16) -> Result<BufReader<TcpStream>, String> {
    let stream =
        TcpStream::connect(("127.0.0.1", port)).map_err(|e| format!("port {port}: {e}"))?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    stream
        .set_read_timeout(Some(REPLY_TIMEOUT))
        .map_err(|e| e.to_string())?;
    Ok(BufReader::with_capacity(64 * 1024, stream))
}

/// One line without its CRLF.
fn line(connection: &mut BufReader<TcpStream>) -> Result<String, String> {
    let mut bytes = Vec::new();
    connection
        .read_until(b'\n', &mut bytes)
        .map_err(|e| format!("receiving: {e}"))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.strip_suffix("\r\n")
        .map(str::to_string)
        .ok_or_else(|| format!("a line without its end: {text:?}"))
}

/// Reads the head of a reply that must be 200, and returns the length of its body.
fn http_length(connection: &mut BufReader<TcpStream>) -> Result<usize, String> {
    let status = line(connection)?;
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(format!("an HTTP reply that begins {status:?}"));
    }
    let mut length = None;
    loop {
        let header = line(connection)?;
        if header.is_empty() {
            return length.ok_or_else(|| "an HTTP reply without Content-Length".to_string());
        }
        let (field, value) = header
            .split_once(':')
            .ok_or_else(|| format!("a header without a colon: {header:?}"))?;
        if field.eq_ignore_ascii_case("content-length") {
            length = Some(
                value
                    .trim()
                    .parse()
                    .map_err(|_| format!("a bad header: {header:?}"))?,
            );
        }
    }
}
