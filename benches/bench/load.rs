//! The load generator: one thread, many connections, every reply compared byte by byte.
//!
//! *Closed loop*: each connection has `depth` requests under way and sends the next `depth` when all are answered.
//! *Open loop*: requests become due at a fixed mean rate (Poisson), whatever the server does, and a latency counts from
//! the instant its request was due: a server that stalls is charged for every request that it kept waiting (no
//! coordinated omission).
//!
//! It never trusts a reply: a wrong, missing or surplus byte ends the run with an error.

use crate::keys::Keys;
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long the server may say nothing while replies are owed.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Read at once.
const READ_BYTES: usize = 64 * 1024;

/// What requests and replies look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `GET` in RESP.
    Resp,
    /// `SET` in RESP.
    RespSet,
    /// `GET` of a path that names the key; the body is the value.
    Http,
    /// `get` of memcached's text protocol.
    Memcached,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Resp => "RESP",
            Protocol::RespSet => "RESP, SET",
            Protocol::Http => "HTTP",
            Protocol::Memcached => "memcached",
        })
    }
}

/// A server as the generator sees it.
#[derive(Debug, Clone)]
pub struct Target {
    pub port: u16,
    /// Every other connection goes there: two servers share the load.
    pub second_port: Option<u16>,
    pub protocol: Protocol,
    /// For HTTP: the path, with `%` where the key goes.
    pub path: &'static str,
    /// The server answers every key with the value of key 0 (a canned reply).
    pub canned: bool,
    /// Whether pipelined requests are answered in their order; webdis answers them in another.
    pub in_order: bool,
}

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many requests under way per connection.
    Closed { depth: usize },
    /// So many requests per second in all.
    Open { rate: f64 },
}

/// What a run showed.
#[derive(Debug)]
pub struct Outcome {
    pub replies: u64,
    pub elapsed: Duration,
    /// In microseconds; in a closed loop from sending, in an open loop from the due time.
    pub latency_us: Histogram<u64>,
}

/// A target's requests and replies for all keys, made before the clock runs.
#[derive(Debug)]
pub struct Script {
    target: Target,
    requests: Vec<Vec<u8>>,
    /// The whole reply, or for HTTP the body.
    replies: Vec<Vec<u8>>,
}

impl Script {
    pub fn new(target: &Target, keys: &Keys) -> Script {
        let request = |key: usize| {
            let name = Keys::name(key);
            match target.protocol {
                Protocol::Resp => format!("*2\r\n$3\r\nGET\r\n${}\r\n{name}\r\n", name.len()),
                Protocol::RespSet => {
                    let value = keys.value(key);
                    let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n", name.len());
                    let length = format!("${}\r\n", value.len());
                    let parts = [head.as_bytes(), length.as_bytes(), &value, b"\r\n"];
                    return parts.concat();
                }
                Protocol::Memcached => format!("get {name}\r\n"),
                Protocol::Http => format!(
                    "GET {} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: nearcache-bench\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
                    target.path.replace('%', &name)
                ),
            }
            .into_bytes()
        };
        let reply = |key: usize| {
            let value = keys.value(if target.canned { 0 } else { key });
            match target.protocol {
                Protocol::Resp => {
                    [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat()
                }
                Protocol::RespSet => b"+OK\r\n".to_vec(),
                Protocol::Memcached => {
                    let head = format!("VALUE {} 0 {}\r\n", Keys::name(key), value.len());
                    [head.as_bytes(), &value, b"\r\nEND\r\n"].concat()
                }
                Protocol::Http => value,
            }
        };
        Script {
            target: target.clone(),
            requests: (0..keys.count).map(request).collect(),
            replies: (0..keys.count).map(reply).collect(),
        }
    }
}

/// One connection and what it waits for.
struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    /// Key and starting instant of each request under way.
    owed: VecDeque<(usize, Instant)>,
    form: Form,
}

impl Connection {
    fn ask(&mut self, script: &Script, key: usize, since: Instant) {
        self.out.extend_from_slice(&script.requests[key]);
        self.owed.push_back((key, since));
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads what is there and takes the replies that are whole; returns how many.
    fn take(
        &mut self,
        script: &Script,
        scratch: &mut [u8],
        latency_us: &mut Histogram<u64>,
    ) -> Result<u64, String> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err("the server closed a connection".to_owned()),
                Ok(n) => {
                    self.input.extend_from_slice(&scratch[..n]);
                    if n < scratch.len() {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("receiving: {e}")),
            }
        }
        let (mut at, mut replies) = (0, 0);
        let now = Instant::now();
        while at < self.input.len() {
            let Some(&(key, since)) = self.owed.front() else {
                return Err("more was sent than was asked for".to_owned());
            };
            let expected = &script.replies[key];
            let rest = &self.input[at..];
            let used = match script.target.protocol {
                Protocol::Resp | Protocol::RespSet | Protocol::Memcached => whole(rest, expected)?,
                Protocol::Http => whole_http(rest, expected, &mut self.form)?,
            };
            let Some(used) = used else { break };
            at += used;
            replies += 1;
            self.owed.pop_front();
            latency_us.saturating_record(now.duration_since(since).as_micros() as u64);
        }
        self.input.drain(..at);
        Ok(replies)
    }
}

/// The length of the reply at the start of `bytes` if it is there in full and as expected.
fn whole(bytes: &[u8], expected: &[u8]) -> Result<Option<usize>, String> {
    let seen = bytes.len().min(expected.len());
    if bytes[..seen] != expected[..seen] {
        return Err(wrong(&bytes[..seen], expected));
    }
    Ok((seen == expected.len()).then_some(seen))
}

/// Where the last head ended and where its Content-Length stood; the next is most often of the same form.
#[derive(Debug, Clone, Copy, Default)]
struct Form {
    head_bytes: usize,
    length_at: usize,
}

fn whole_http(bytes: &[u8], body: &[u8], form: &mut Form) -> Result<Option<usize>, String> {
    let length = format!("{}\r\n", body.len());
    let is_of = |form: Form| {
        form.head_bytes > 0
            && bytes.get(form.head_bytes - 4..form.head_bytes) == Some(b"\r\n\r\n")
            && bytes[form.length_at..].starts_with(length.as_bytes())
    };
    if !is_of(*form) {
        let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = &bytes[..at + 4];
        let name = b"content-length: ";
        let length_at = head
            .windows(name.len())
            .position(|w| w.eq_ignore_ascii_case(name))
            .map(|at| at + name.len());
        *form = Form {
            head_bytes: at + 4,
            length_at: length_at.ok_or_else(|| wrong(head, b"a Content-Length"))?,
        };
        if !is_of(*form) {
            return Err(wrong(head, b"another Content-Length"));
        }
    }
    if !bytes.starts_with(b"HTTP/1.1 200 ") {
        return Err(wrong(bytes, b"HTTP/1.1 200 OK"));
    }
    Ok(whole(&bytes[form.head_bytes..], body)?.map(|used| form.head_bytes + used))
}

fn wrong(got: &[u8], expected: &[u8]) -> String {
    let show = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    format!(
        "a wrong reply: {:?} instead of {:?}",
        show(got),
        show(expected)
    )
}

/// Runs the load for `duration` and then waits for what is owed.
pub fn run(
    script: &Script,
    keys: &mut Keys,
    connections: usize,
    pace: Pace,
    duration: Duration,
) -> Result<Outcome, String> {
    let mut poll = Poll::new().map_err(|e| e.to_string())?;
    let mut events = Events::with_capacity(1024);
    let mut open = Vec::with_capacity(connections);
    for n in 0..connections {
        let port = match script.target.second_port {
            Some(second) if n % 2 == 1 => second,
            _ => script.target.port,
        };
        let mut connection = connect(port)?;
        poll.registry()
            .register(
                &mut connection.stream,
                Token(n),
                Interest::READABLE | Interest::WRITABLE,
            )
            .map_err(|e| e.to_string())?;
        open.push(connection);
    }
    let mut scratch = vec![0; READ_BYTES];
    let mut latency_us =
        Histogram::new_with_bounds(1, 60_000_000, 3).expect("a minute in microseconds");
    let start = Instant::now();
    let end = start + duration;
    let mut replies = 0;
    let mut due = start;
    let mut next = 0;
    if let Pace::Closed { depth } = pace {
        for connection in &mut open {
            for _ in 0..depth {
                connection.ask(script, keys.draw(), start);
            }
            connection.flush().map_err(|e| format!("sending: {e}"))?;
        }
    }
    let mut heard = start;
    loop {
        let now = Instant::now();
        if let Pace::Open { rate } = pace {
            while due <= now && due < end {
                let connection = &mut open[next % connections];
                connection.ask(script, keys.draw(), due);
                connection.flush().map_err(|e| format!("sending: {e}"))?;
                next += 1;
                due += Duration::from_secs_f64(keys.exponential() / rate);
            }
        }
        if now >= end && open.iter().all(|connection| connection.owed.is_empty()) {
            break;
        }
        if now.duration_since(heard) > SILENCE_MAX {
            return Err("the server owes replies and says nothing".to_owned());
        }
        let patience = match pace {
            Pace::Open { .. } if due < end => due.saturating_duration_since(now),
            _ => Duration::from_millis(100),
        };
        match poll.poll(&mut events, Some(patience)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            result => result.map_err(|e| e.to_string())?,
        }
        for event in &events {
            let connection = &mut open[event.token().0];
            let taken = connection.take(script, &mut scratch, &mut latency_us)?;
            if taken > 0 {
                replies += taken;
                heard = Instant::now();
                if let Pace::Closed { depth } = pace
                    && connection.owed.is_empty()
                    && heard < end
                {
                    for _ in 0..depth {
                        connection.ask(script, keys.draw(), heard);
                    }
                }
            }
            connection.flush().map_err(|e| format!("sending: {e}"))?;
        }
    }
    Ok(Outcome {
        replies,
        elapsed: start.elapsed(),
        latency_us,
    })
}

/// Asks for every key once, so that what can be kept is kept.
pub fn warm(script: &Script, keys: &Keys) -> Result<(), String> {
    let ports = [Some(script.target.port), script.target.second_port];
    ports
        .into_iter()
        .flatten()
        .try_for_each(|port| warm_one(port, script, keys))
}

fn warm_one(port: u16, script: &Script, keys: &Keys) -> Result<(), String> {
    let mut connection = connect(port)?;
    let mut poll = Poll::new().map_err(|e| e.to_string())?;
    let mut events = Events::with_capacity(4);
    poll.registry()
        .register(
            &mut connection.stream,
            Token(0),
            Interest::READABLE | Interest::WRITABLE,
        )
        .map_err(|e| e.to_string())?;
    let mut scratch = vec![0; READ_BYTES];
    let mut latency_us =
        Histogram::new_with_bounds(1, 60_000_000, 1).expect("a minute in microseconds");
    // In portions, so that what is under way fits the buffers of the sockets.
    let portion = if script.target.in_order { 64 } else { 1 };
    for first in (0..keys.count).step_by(portion) {
        for key in first..keys.count.min(first + portion) {
            connection.ask(script, key, Instant::now());
        }
        let begun = Instant::now();
        loop {
            connection.flush().map_err(|e| format!("sending: {e}"))?;
            connection.take(script, &mut scratch, &mut latency_us)?;
            if connection.owed.is_empty() {
                break;
            }
            if begun.elapsed() > SILENCE_MAX {
                return Err("warming up takes too long".to_owned());
            }
            poll.poll(&mut events, Some(Duration::from_millis(100)))
                .map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn connect(port: u16) -> Result<Connection, String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = std::net::TcpStream::connect(address).map_err(|e| format!("port {port}: {e}"))?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    stream.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok(Connection {
        stream: TcpStream::from_std(stream),
        out: Vec::new(),
        sent: 0,
        input: Vec::new(),
        owed: VecDeque::new(),
        form: Form::default(),
    })
}
