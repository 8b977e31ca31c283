//! A driver of the engine with one HTTP client: what the reactor, the kernel and Redis would do, step by step.
//!
//! Redis answers only when a script says so, so what comes out of a script depends on its bytes and not on how they were
//! cut. The driver's own reading of answers shares nothing with the code that writes them.
#![forbid(unsafe_code)]

use crate::config::Config;
use crate::engine::{ConnId, Engine, Origin, Output, Place, Port, Work};
use crate::fetch::{Completion, FetchError, Fetched, Job};
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::time::Duration;

const START: Time = Time::from_millis(1_000_000);
/// Sun, 06 Nov 1994 08:49:37 GMT.
const UNIX_SECS: u64 = 784_111_777;
/// What is left of each key's life in Redis: less than the time to live, so that no jitter is taken off.
const PTTL_MS: i64 = 30_000;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The client sends this.
    Send(Vec<u8>),
    /// The client says that it will send nothing more.
    Finish,
    /// Redis answers all that it was asked, the last question first.
    Answer,
    /// Time passes.
    Wait(Duration),
    /// Redis goes away and takes no connection.
    Lose,
    /// The client stops reading.
    StopReading,
    /// The proxy is asked to end.
    Drain,
}

pub(super) fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(bytes.as_ref().to_vec())
}

pub(super) fn wait_ms(ms: u64) -> Step {
    Step::Wait(Duration::from_millis(ms))
}

/// What Redis says to a GET.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Value(Vec<u8>),
    Error(&'static str),
}

/// How the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Open,
    /// Our sending half is closed.
    Shut,
    Closed,
}

/// One engine, one client, one Redis.
#[derive(Clone)]
pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) client: ConnId,
    /// What Redis holds.
    redis: BTreeMap<Vec<u8>, Held>,
    redis_is_there: bool,
    now: Time,
    /// Sent by the client, and not read yet.
    arriving: VecDeque<u8>,
    /// The client's end is behind what is arriving.
    finishes: bool,
    /// Received by the client.
    pub(super) received: Vec<u8>,
    reads: bool,
    pub(super) end: End,
    jobs: Vec<Job>,
    /// Replies that links are owed by Redis.
    replies: BTreeMap<ConnId, VecDeque<Vec<u8>>>,
    /// The keys that Redis was asked for, by workers and links.
    pub(super) asked: Vec<Vec<u8>>,
}

impl Driver {
    /// A client that has just connected, and a proxy that has reached Redis. `warm` are the keys read before.
    pub(super) fn new(config: Config, redis: &[(&[u8], Held)], warm: &[&[u8]]) -> Driver {
        let origin = Origin {
            seed: [1, 2, 3, 4],
            now: START,
            unix_secs: UNIX_SECS,
            pid: 1,
            host: "here",
        };
        let mut engine = Engine::new(config, origin);
        let open = |engine: &mut Engine| {
            engine
                .open(
                    Port::Http,
                    "127.0.0.1:5"
                        .parse::<std::net::SocketAddr>()
                        .expect("an address"),
                )
                .expect("there is room")
        };
        let client = open(&mut engine);
        let mut driver = Driver {
            engine,
            client,
            redis: redis
                .iter()
                .map(|(key, held)| (key.to_vec(), held.clone()))
                .collect(),
            redis_is_there: true,
            now: START,
            arriving: VecDeque::new(),
            finishes: false,
            received: Vec::new(),
            reads: true,
            end: End::Open,
            jobs: Vec::new(),
            replies: BTreeMap::new(),
            asked: Vec::new(),
        };
        driver.turn();
        for key in warm {
            let key = String::from_utf8(key.to_vec()).expect("warm keys are plain");
            driver.play(&send(format!(
                "GET /get?key={key} HTTP/1.1\r\nHost: h\r\n\r\n"
            )));
            driver.play(&Step::Answer);
        }
        assert_eq!(driver.end, End::Open);
        if !warm.is_empty() {
            driver.engine.failed(client, "done");
            driver.turn();
            driver.client = open(&mut driver.engine);
        }
        driver.end = End::Open;
        driver.received.clear();
        driver.asked.clear();
        driver
    }

    /// Does one step, whole.
    pub(super) fn play(&mut self, step: &Step) {
        match step {
            Step::Send(bytes) => self.arriving.extend(bytes),
            Step::Finish => self.finishes = true,
            // What was answered may let another question go, on another connection.
            Step::Answer => {
                while self.answer() {
                    self.turn();
                }
            }
            Step::Wait(time) => return self.wait(*time),
            Step::Lose => {
                self.redis_is_there = false;
                let links: Vec<ConnId> = self.replies.keys().copied().collect();
                for link in links {
                    self.engine.failed(link, "connection refused");
                }
            }
            Step::StopReading => self.reads = false,
            Step::Drain => drop(self.engine.drain()),
        }
        self.turn();
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let tick = self.now + Duration::from_millis(1);
            let next = self.engine.next_deadline().unwrap_or(until);
            self.now = next.clamp(tick, until.max(tick));
            self.turn();
        }
    }

    /// One turn of a reactor, as often as there is something left to do.
    fn turn(&mut self) {
        let unix_secs = UNIX_SECS + self.now.since(START).as_secs();
        self.engine.begin_turn(self.now, unix_secs);
        loop {
            let read = self.read();
            let timers = self.engine.advance(1000);
            let outputs = self.outputs();
            if !read && !outputs && timers == Work::Finished {
                break;
            }
        }
        self.engine.check();
    }

    /// Moves what has arrived into the engine, as far as it takes it.
    fn read(&mut self) -> bool {
        let mut moved = false;
        while !self.arriving.is_empty() && self.end != End::Closed {
            let room = self.engine.recv_slice(self.client);
            let n = room.len().min(self.arriving.len());
            if n == 0 {
                break;
            }
            for (to, from) in room.iter_mut().zip(self.arriving.drain(..n)) {
                *to = from;
            }
            self.engine.received(self.client, n);
            moved = true;
        }
        if self.finishes
            && self.end != End::Closed
            && !self.engine.recv_slice(self.client).is_empty()
        {
            self.finishes = false;
            self.engine.peer_closed(self.client);
            moved = true;
        }
        moved
    }

    fn outputs(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.engine.poll_output() {
            any = true;
            match output {
                Output::Submit(job) => {
                    self.asked.push(job.key.clone());
                    self.jobs.push(job);
                }
                Output::Flush(id) if id == self.client => {
                    if self.reads {
                        let sent = self.take(id);
                        self.received.extend(sent);
                    }
                }
                Output::Flush(id) => self.flush_link(id),
                Output::Ready(id) => self.engine.serve(id),
                Output::Connect(id) if self.redis_is_there => {
                    self.replies.insert(id, VecDeque::new());
                    self.engine.connected(id, Ok(()));
                }
                Output::Connect(id) => {
                    self.engine.connected(id, Err("connection refused".into()));
                }
                Output::Shut(_) => self.end = End::Shut,
                Output::Close(id) if id == self.client => self.end = End::Closed,
                Output::Close(id) => drop(self.replies.remove(&id)),
                Output::Renew | Output::Recovered | Output::Trim | Output::Set(_) => {}
            }
        }
        any
    }

    /// All that a connection has to send.
    fn take(&mut self, id: ConnId) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = self.engine.send_slices(id, &mut slices);
            if count == 0 {
                return all;
            }
            let before = all.len();
            slices[..count]
                .iter()
                .for_each(|slice| all.extend_from_slice(slice));
            let sent = all.len() - before;
            self.engine.sent(id, sent);
        }
    }

    /// Answers what a link asks for itself; a GET waits for [`Step::Answer`].
    fn flush_link(&mut self, id: ConnId) {
        let bytes = self.take(id);
        for command in commands(&bytes) {
            let reply = match &command[0][..] {
                b"GET" => {
                    self.asked.push(command[1].clone());
                    match self.redis.get(&command[1]) {
                        Some(Held::Value(value)) => {
                            [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
                        }
                        Some(Held::Error(text)) => format!("-{text}\r\n").into_bytes(),
                        None => b"$-1\r\n".to_vec(),
                    }
                }
                b"PING" => b"+PONG\r\n".to_vec(),
                b"INFO" => b"$30\r\nredis_version:7.0.15\r\nrun_id:a\r\n".to_vec(),
                b"COMMAND" => b"*0\r\n".to_vec(),
                _ => b"+OK\r\n".to_vec(),
            };
            let waits = command[0] == b"GET";
            let queue = self.replies.get_mut(&id).expect("the link is connected");
            queue.push_back(reply);
            if !waits && queue.len() == 1 {
                self.answer_link(id);
            }
        }
    }

    fn answer_link(&mut self, id: ConnId) -> bool {
        let mut any = false;
        while let Some(reply) = self.replies.get_mut(&id).and_then(VecDeque::pop_front) {
            for piece in reply.chunks(4096) {
                self.engine.recv_slice(id)[..piece.len()].copy_from_slice(piece);
                self.engine.received(id, piece.len());
            }
            any = true;
        }
        any
    }

    /// Answers what has been asked. Whether anything was.
    fn answer(&mut self) -> bool {
        let mut any = !self.jobs.is_empty();
        while let Some(job) = self.jobs.pop() {
            let result = match self.redis.get(&job.key) {
                Some(Held::Error(text)) => Err(FetchError::Upstream((*text).to_owned())),
                Some(Held::Value(value)) => Ok(Fetched {
                    value: Some(value.clone()),
                    pttl_ms: Some(PTTL_MS),
                    run_id: None,
                }),
                None => Ok(Fetched {
                    value: None,
                    pttl_ms: Some(-2),
                    run_id: None,
                }),
            };
            self.engine.complete(Completion { id: job.id, result });
        }
        let links: Vec<ConnId> = self.replies.keys().copied().collect();
        for link in links {
            debug_assert!(matches!(link.place, Place::Link(_)));
            any |= self.answer_link(link);
        }
        any
    }
}

/// The commands in what a link sent: arrays of bulk strings, complete.
fn commands(mut bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    fn number(bytes: &mut &[u8], mark: u8) -> usize {
        let end = bytes
            .iter()
            .position(|&byte| byte == b'\n')
            .expect("a line");
        assert_eq!(bytes[0], mark);
        let text = std::str::from_utf8(&bytes[1..end - 1]).expect("digits");
        *bytes = &bytes[end + 1..];
        text.parse().expect("a number")
    }
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let count = number(&mut bytes, b'*');
        let mut args = Vec::new();
        for _ in 0..count {
            let len = number(&mut bytes, b'$');
            args.push(bytes[..len].to_vec());
            bytes = &bytes[len + 2..];
        }
        all.push(args);
    }
    all
}

/// One answer as the client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The value of a field that is there at most once.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self
            .fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let first = values.next();
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        first.map(|(_, value)| value.as_str())
    }

    /// The answer at the start of `bytes`, and what is behind it.
    pub(super) fn read(bytes: &[u8], with_body: bool) -> (Answer, &[u8]) {
        let head_bytes = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no complete head: {}", bytes.escape_ascii()));
        let head = std::str::from_utf8(&bytes[..head_bytes]).expect("a head is text");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("split yields something");
        let status = status_line.strip_prefix("HTTP/1.1 ").expect("a version");
        let status: u16 = status[..3].parse().expect("a status");
        let fields: Vec<(String, String)> = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").expect("a field line");
                (name.to_owned(), value.to_owned())
            })
            .collect();
        let mut answer = Answer {
            status,
            fields,
            body: Vec::new(),
        };
        let body_bytes = match (with_body, status) {
            (false, _) | (_, 100 | 304) => 0,
            _ => {
                let length = answer.field("Content-Length").expect("a length");
                length.parse().expect("a number")
            }
        };
        let rest = &bytes[head_bytes + 4..];
        assert!(
            rest.len() >= body_bytes,
            "a body is cut: {}",
            bytes.escape_ascii()
        );
        answer.body = rest[..body_bytes].to_vec();
        (answer, &rest[body_bytes..])
    }
}
