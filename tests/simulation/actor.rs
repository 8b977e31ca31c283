//! One client of the simulation: what it sends, and what it has yet to be told.

use super::driver::codec::{parse_http, reply_len, request};
use super::driver::redis::{Data, Snapshot, WRONG_TYPE};
use super::driver::world::World;
use super::ledger::Ledger;
use super::own::{self, Part};
use fastrand::Rng;
use nearcache::engine::Port;
use nearcache::stats::Counter;
use nearcache::time::Time;
use std::collections::{BTreeMap, VecDeque};

pub const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// What the clients of a run like to do.
#[derive(Debug, Clone, Copy)]
pub struct Taste {
    /// So many of the keys are used.
    pub keys: usize,
    /// Every fourth command is a script.
    pub scripts: bool,
    /// Most of the others are GETs, and others write seldom.
    pub calm: bool,
    /// Some clients have state upstream.
    pub states: bool,
}

/// A key that GET cannot read.
pub const LIST: &str = "list";

/// What a client waits to be told.
#[derive(Debug, Clone)]
pub enum Asked {
    Get(String),
    Http {
        key: String,
        head_only: bool,
    },
    Relayed(Vec<Vec<u8>>),
    /// MGET, EXISTS, STRLEN or GETRANGE, whether it is relayed or not.
    Look(Vec<Vec<u8>>),
    Exactly(Vec<u8>),
    Hello {
        resp3: bool,
    },
    /// The last thing it says: the error it gets begins so.
    Nonsense(&'static [u8]),
    /// GET of the key that is watched.
    Watched,
    /// EXEC of a transaction that sets that key to `tag`, after a GET since WATCH showed `seen`.
    Exec {
        tag: Vec<u8>,
        seen: Option<Option<Vec<u8>>>,
    },
    /// UNWATCH, or DISCARD.
    RoundEnds,
    Subscribed,
    Popped,
}

impl Asked {
    /// Whether a command is sent at most once in a run. Reads of the keys that all use are not.
    pub fn is_unique(args: &[Vec<u8>]) -> bool {
        const REPEATED: [&str; 17] = [
            "TOUCH",
            "GET",
            "INCR",
            "PING",
            "INFO",
            "CLIENT",
            "COMMAND",
            "SELECT",
            "HELLO",
            "AUTH",
            "ECHO",
            "MULTI",
            "WATCH",
            "UNWATCH",
            "SUBSCRIBE",
            "BLPOP",
            "RPUSH",
        ];
        const LOOKS: [&str; 4] = ["MGET", "EXISTS", "STRLEN", "GETRANGE"];
        let is_in = |names: &[&str]| {
            let is = |name: &&str| args[0].eq_ignore_ascii_case(name.as_bytes());
            names.iter().any(is)
        };
        let is_tagged = args.iter().any(|arg| arg.contains(&b'.'));
        !is_in(&REPEATED) && (is_tagged || !is_in(&LOOKS))
    }
}

/// A command under way.
#[derive(Debug, Clone)]
pub struct Sent {
    pub asked: Asked,
    pub at: Time,
    pub step: u64,
    /// What every client knew when it was sent.
    pub floor: BTreeMap<Vec<u8>, usize>,
    /// What the engine had been told of: a hit must show it, a stale answer need not.
    pub told: Snapshot,
    /// What was in force when the tracking that the engine knew of began.
    pub up: Snapshot,
    /// How many stale answers had been given.
    pub stale_hits: u64,
}

pub struct Actor {
    /// Unique in a run.
    pub number: usize,
    pub socket: usize,
    pub port: Port,
    pub awaited: VecDeque<Sent>,
    /// It will send nothing more.
    pub finished: bool,
    /// It may lose replies: it, or its link, was cut off.
    pub forsaken: bool,
    pub part: Part,
    resp3: bool,
    sent: usize,
    flushes: usize,
    pub floor: BTreeMap<Vec<u8>, usize>,
    pub last_read: BTreeMap<Vec<u8>, usize>,
    /// Where its last relayed command stands in Redis's log.
    pub last_execution: Option<usize>,
}

impl Actor {
    pub fn new(number: usize, port: Port, taste: Taste, world: &mut World) -> Actor {
        Actor {
            number,
            socket: world.open(port),
            port,
            awaited: VecDeque::new(),
            finished: false,
            forsaken: false,
            part: Part::of(number, port, taste.states),
            resp3: false,
            sent: 0,
            flushes: 0,
            floor: BTreeMap::new(),
            last_read: BTreeMap::new(),
            last_execution: None,
        }
    }

    /// Writes some commands.
    pub fn speak(&mut self, world: &mut World, ledger: &Ledger, taste: Taste, random: &mut Rng) {
        for _ in 0..random.usize(1..8) {
            if self.finished {
                return;
            }
            self.sent += 1;
            let tag = format!("{}.{}", self.number, self.sent);
            let said = own::speak(self, &tag, random).unwrap_or_else(|| {
                vec![match self.port {
                    Port::Resp => self.resp_command(ledger, taste, random),
                    Port::Http | Port::Admin | Port::Probe => self.http_request(taste, random),
                }]
            });
            for (bytes, asked) in said {
                let socket = &mut world.sockets[self.socket];
                socket.incoming.extend(bytes);
                let sent = Sent {
                    asked,
                    at: world.now,
                    step: world.step,
                    floor: ledger.floor.clone(),
                    told: world.known().unwrap_or(&ledger.told).clone(),
                    up: ledger.up.clone(),
                    stale_hits: world.engine.stats().get(Counter::StaleHits),
                };
                self.awaited.push_back(sent);
            }
        }
        // Half-closed: what was asked is owed all the same.
        if !self.finished && self.may_finish() && random.u8(..40) == 0 {
            self.finished = true;
            world.sockets[self.socket].fin = true;
        }
    }

    /// Whether a half-closed connection would still get all its replies: nobody waits for data on behalf of one.
    fn may_finish(&self) -> bool {
        !matches!(self.part, Part::Listens(_) | Part::Waits(true))
    }

    fn key(taste: Taste, random: &mut Rng) -> String {
        let few = if random.bool() { 1 } else { taste.keys };
        KEYS[random.usize(..few)].to_owned()
    }

    fn http_request(&mut self, taste: Taste, random: &mut Rng) -> (Vec<u8>, Asked) {
        let key = if random.u8(..20) == 0 {
            LIST.to_owned()
        } else {
            Actor::key(taste, random)
        };
        let head_only = random.u8(..4) == 0;
        let method = if head_only { "HEAD" } else { "GET" };
        let mut text = format!("{method} /get?key={key} HTTP/1.1\r\nHost: x\r\n");
        if random.u8(..4) == 0 {
            text.push_str("Cache-Control: no-cache\r\n");
        }
        if random.u8(..30) == 0 {
            text.push_str("Connection: close\r\n");
            self.finished = true;
        }
        text.push_str("\r\n");
        (text.into_bytes(), Asked::Http { key, head_only })
    }

    fn resp_command(
        &mut self,
        ledger: &Ledger,
        taste: Taste,
        random: &mut Rng,
    ) -> (Vec<u8>, Asked) {
        let key = Actor::key(taste, random);
        let tag = format!("{}.{}", self.number, self.sent);
        let padding = if random.u8(..30) == 0 {
            10_000
        } else {
            random.usize(..20)
        };
        let value = format!("{tag}{}", "x".repeat(padding));
        let absent = format!("t{tag}");
        let relayed = |args: &[&str]| {
            let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
            (request(&args), Asked::Relayed(args))
        };
        let look = |args: &[&str]| {
            let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
            (request(&args), Asked::Look(args))
        };
        let exactly =
            |args: &[&str], reply: String| (request(args), Asked::Exactly(reply.into_bytes()));
        let script = taste.scripts && random.u8(..4) == 0;
        let most = if taste.calm && random.u8(..3) > 0 {
            45
        } else {
            100
        };
        match random.u8(..most) {
            _ if script => relayed(&["EVAL", &format!("SET {key} {value}"), "0"]),
            0..45 => {
                let key = match random.u8(..30) {
                    0 => LIST.to_owned(),
                    1..4 => own::LOCKED.to_owned(),
                    _ => key,
                };
                let bytes = match random.u8(..6) {
                    0 => format!("get  {key}\r\n").into_bytes(),
                    1 => format!("\r\n*2\r\n$3\r\ngEtxx${}\r\n{key}!\n", key.len()).into_bytes(),
                    _ => request(&["GET", &key]),
                };
                (bytes, Asked::Get(key))
            }
            45..58 => relayed(&["SET", &key, &value]),
            58..62 => relayed(&["SET", &key, &value, "PX", &random.u32(1..40).to_string()]),
            62..64 => relayed(&["set", &key, &value, "nx"]),
            64..69 => relayed(&["DEL", &key, &absent]),
            69..72 => relayed(&["INCR", &format!("n{}", self.number)]),
            72..75 => relayed(&[
                "MSET",
                &key,
                &value,
                &Actor::key(taste, random),
                &format!("{value}m"),
            ]),
            75..77 => relayed(&["MGET", &key, &Actor::key(taste, random), &absent]),
            77..79 => look(&["MGET", &key, &Actor::key(taste, random)]),
            79 => relayed(&["EXISTS", &key, &absent]),
            80 => look(&["EXISTS", &key, &key]),
            81 => look(&["STRLEN", &key]),
            82 => look(&["GETRANGE", &key, "0", "99999"]),
            83..86 => relayed(&["EVAL", &format!("SET {key} {value}"), "0"]),
            86..87 => relayed(&["EVAL", &format!("SETERR {key} {value}"), "1", "other"]),
            87..88 => relayed(&["COPY", &key, &absent, "DB", &(ledger.db + 1).to_string()]),
            88 if random.bool() => relayed(&[&format!("no-such-command-{tag}")]),
            88 if self.flushes < 8 && self.number < 32 => {
                // Told apart by the case of its eight letters.
                let bits = self.number * 8 + self.flushes;
                self.flushes += 1;
                let name: String = "flushall"
                    .chars()
                    .enumerate()
                    .map(|(at, c)| {
                        if bits >> at & 1 == 1 {
                            c.to_ascii_uppercase()
                        } else {
                            c
                        }
                    })
                    .collect();
                relayed(&[&name])
            }
            89..91 => exactly(&["PING"], "+PONG\r\n".to_owned()),
            91..93 => exactly(&["ECHO", &tag], format!("${}\r\n{tag}\r\n", tag.len())),
            93..94 => exactly(&["SELECT", &ledger.db.to_string()], "+OK\r\n".to_owned()),
            94..96 => relayed(&["STRLEN", &format!("n{}.{}", self.number, self.sent)]),
            96..98 => {
                let resp3 = random.bool();
                (
                    request(&["HELLO", if resp3 { "3" } else { "2" }]),
                    Asked::Hello { resp3 },
                )
            }
            98 if random.u8(..3) == 0 => {
                self.finished = true;
                exactly(&["QUIT"], "+OK\r\n".to_owned())
            }
            99 if random.u8(..3) == 0 => {
                self.finished = true;
                let (bytes, error): (&[u8], &[u8]) = if random.bool() {
                    (
                        b"*1\r\n!\r\n*1\r\n$4\r\nPING\r\n",
                        b"-ERR Protocol error: expected '$', got '!'\r\n",
                    )
                } else {
                    (
                        b"*x\r\nPING\r\n",
                        b"-ERR Protocol error: invalid multibulk length\r\n",
                    )
                };
                (bytes.to_vec(), Asked::Nonsense(error))
            }
            _ => exactly(&["CLIENT", "SETNAME", &tag], "+OK\r\n".to_owned()),
        }
    }

    /// Takes what has arrived and compares it with what was asked.
    pub fn listen(&mut self, world: &mut World, ledger: &mut Ledger, faults: bool) {
        let received = std::mem::take(&mut world.sockets[self.socket].received);
        let mut at = 0;
        while at < received.len() {
            if let Some(len) = own::hear_message(self, world, ledger, &received[at..]) {
                at += len;
                continue;
            }
            let Some(sent) = self.awaited.front().cloned() else {
                if faults && is_closed_for_room(&received[at..]) {
                    at = received.len();
                    break;
                }
                if matches!(self.part, Part::Listens(_)) && reply_len(&received[at..]).is_none() {
                    break; // a message that is not whole
                }
                panic!(
                    "client {} was told what it never asked: {}",
                    self.number,
                    shown(&received[at..])
                );
            };
            let Some(len) = self.hear(world, ledger, &sent, &received[at..], faults) else {
                break;
            };
            ledger.replies += 1;
            self.awaited.pop_front();
            at += len;
        }
        let socket = &mut world.sockets[self.socket];
        socket.received = received[at..].to_vec();
        if socket.shut {
            socket.fin = true;
        }
        if socket.shut || socket.closed {
            let tells = matches!(self.part, Part::Listens(_)); // a message may have been cut off
            let whole = self.awaited.is_empty() && (socket.received.is_empty() || tells);
            assert!(
                whole || self.forsaken || faults,
                "client {} lost {:?}",
                self.number,
                self.awaited
            );
            assert!(
                self.finished || self.forsaken || faults,
                "client {} was closed for no reason",
                self.number
            );
        }
    }

    /// One reply, its length if it is whole.
    fn hear(
        &mut self,
        world: &World,
        ledger: &mut Ledger,
        sent: &Sent,
        bytes: &[u8],
        faults: bool,
    ) -> Option<usize> {
        if let Asked::Http { key, head_only } = &sent.asked {
            return self.hear_http(world, ledger, sent, key, *head_only, bytes, faults);
        }
        let len = reply_len(bytes)?;
        let reply = &bytes[..len];
        if reply.starts_with(b"-ERR nearcache: ") {
            assert!(
                faults,
                "client {} got {} to {:?}",
                self.number,
                shown(reply),
                sent.asked
            );
            ledger.errors += 1;
            return Some(len);
        }
        match &sent.asked {
            Asked::Get(key) => {
                let nil: &[u8] = if self.resp3 { b"_\r\n" } else { b"$-1\r\n" };
                let data = match reply {
                    reply if reply == nil => None,
                    reply if reply == WRONG_TYPE => Some(Data::List),
                    reply => {
                        assert_eq!(
                            reply[0],
                            b'$',
                            "client {} got {} to GET",
                            self.number,
                            shown(reply)
                        );
                        let head = reply
                            .windows(2)
                            .position(|two| two == b"\r\n")
                            .expect("it is whole")
                            + 2;
                        Some(Data::Text(reply[head..len - 2].to_vec()))
                    }
                };
                // RESP has no word for it: any stale answer meanwhile may have been this one.
                let stale = world.engine.stats().get(Counter::StaleHits) > sent.stale_hits;
                ledger.value(world, self, sent, key.as_bytes(), data.as_ref(), stale);
            }
            Asked::Look(args) => ledger.looked(world, self, sent, args, reply),
            Asked::Relayed(args) => ledger.relayed(world, self, args, reply),
            Asked::Exactly(expected) => {
                assert_eq!(shown(reply), shown(expected), "client {}", self.number)
            }
            Asked::Nonsense(expected) => {
                assert_eq!(shown(reply), shown(expected), "client {}", self.number)
            }
            Asked::Hello { resp3 } => {
                // The proxy's own, or that of the Redis of this run, for a client with a link of its own.
                let heads = match resp3 {
                    true => [&b"%7\r\n"[..], b"%1\r\n"],
                    false => [&b"*14\r\n"[..], b"*2\r\n"],
                };
                assert!(
                    heads.iter().any(|head| reply.starts_with(head)),
                    "client {} got {} to HELLO",
                    self.number,
                    shown(reply)
                );
                self.resp3 = *resp3;
            }
            Asked::Watched => {
                let nil: &[u8] = if self.resp3 { b"_\r\n" } else { b"$-1\r\n" };
                let value = (reply != nil).then(|| own::last_bulk(reply));
                let data = own::data_of(value);
                let key = own::LOCKED.as_bytes();
                ledger.value(world, self, sent, key, data.as_ref(), false);
                own::hear(self, world, ledger, &sent.asked, reply);
            }
            Asked::Exec { .. } | Asked::RoundEnds | Asked::Subscribed | Asked::Popped => {
                own::hear(self, world, ledger, &sent.asked, reply);
            }
            Asked::Http { .. } => {}
        }
        Some(len)
    }

    #[allow(clippy::too_many_arguments)] // the parts of one call, taken apart once
    fn hear_http(
        &mut self,
        world: &World,
        ledger: &mut Ledger,
        sent: &Sent,
        key: &str,
        head_only: bool,
        bytes: &[u8],
        faults: bool,
    ) -> Option<usize> {
        // What was not read to its end is not known to be a HEAD.
        let late = bytes.starts_with(b"HTTP/1.1 408");
        let answer = parse_http(bytes, head_only && !late)?;
        let data = match answer.status {
            // The body is not there after HEAD; then only the order of the answers is checked.
            200 if head_only => return Some(answer.len),
            200 => Some(Data::Text(answer.body.clone())),
            404 => None,
            409 => Some(Data::List),
            // A head that does not come in time is answered and is the last.
            408 if faults => {
                (self.finished, self.forsaken) = (true, true);
                ledger.errors += 1;
                return Some(answer.len);
            }
            status => {
                assert!(
                    faults && matches!(status, 503 | 504),
                    "client {} got {answer:?}",
                    self.number
                );
                ledger.errors += 1;
                return Some(answer.len);
            }
        };
        assert!(
            answer.fields.contains("Cache-Status: nearcache; "),
            "{answer:?}"
        );
        let stale = answer.fields.contains("nearcache; hit; ttl=-");
        ledger.value(world, self, sent, key.as_bytes(), data.as_ref(), stale);
        Some(answer.len)
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned()
}

/// Whether this is (a part of) what a client is told that has begun a request, or an empty line before one, and is closed
/// because all buffers together are full.
fn is_closed_for_room(bytes: &[u8]) -> bool {
    let texts: [&[u8]; 2] = [
        b"out of memory for requests\n",
        b"-ERR nearcache: the memory for all that is received and sent is used up\r\n",
    ];
    let is_in = |long: &[u8], short: &[u8]| long.windows(short.len()).any(|part| part == short);
    texts
        .iter()
        .any(|text| is_in(bytes, text.trim_ascii()) || is_in(text, bytes))
}
