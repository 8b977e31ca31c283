//! A model Redis: one thread, atomic commands, expiry to the millisecond, several databases, both versions of RESP,
//! `CLIENT TRACKING ON BCAST`, and a run id that changes when it is restarted.
//!
//! It keeps what the checks need: every value a key ever had ([`Redis::history`]) and, if asked to, every command it
//! executed with its reply ([`Redis::log`]). What tracking connections are to be told stands in [`Redis::changes`] until
//! the world takes it: after each event-loop cycle, so that a push is on its way before the replies of that cycle are.
//! A key that expires is gone at once, but told of only when it is deleted, which may be much later
//! ([`Redis::delete_expired`]).

use super::codec::bulk;
use nearcache::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub const WRONG_TYPE: &[u8] =
    b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

/// The database and the name.
pub type Key = (u32, Vec<u8>);

/// The version of each key that was in force at some moment, less what time alone has ended.
pub type Snapshot = BTreeMap<Key, usize>;

/// What a key holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Data {
    Text(Vec<u8>),
    /// Something GET cannot read.
    List,
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Data::Text(text) => write!(f, "{:.40}", String::from_utf8_lossy(text)),
            Data::List => f.write_str("(list)"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Stored {
    data: Data,
    /// The first instant at which it is gone.
    dies: Option<Time>,
}

/// One state of a key, in force from `at` until the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// `None`: no such key.
    pub data: Option<Data>,
    pub at: Time,
    /// It began when the one before ran out of time.
    pub expired: bool,
}

/// One executed command.
#[derive(Debug, Clone)]
pub struct Execution {
    pub args: Vec<Vec<u8>>,
    pub reply: Vec<u8>,
    /// Which versions it made, by key.
    pub made: Vec<(Key, usize)>,
}

/// The state of one connection at Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Session {
    pub resp3: bool,
    pub db: u32,
    /// The prefixes of the keys whose changes are pushed to it (none: all keys), once it asked for that.
    pub tracking: Option<Vec<Vec<u8>>>,
    /// The commands that wait for EXEC, since MULTI.
    pub queued: Option<Vec<Vec<Vec<u8>>>>,
    /// The keys watched, and their versions then.
    pub watched: Vec<(Key, usize)>,
    /// What it is subscribed to.
    pub channels: Vec<Vec<u8>>,
}

/// What tracking connections are told of a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    Key(Vec<u8>),
    Everything,
}

/// The push that tells a connection of these changes, if any concerns it.
pub fn push(prefixes: &[Vec<u8>], changes: &[Change]) -> Vec<u8> {
    const HEAD: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";
    let mut out = Vec::new();
    let mut keys: Vec<&[u8]> = Vec::new();
    for change in changes {
        match change {
            Change::Everything => out.extend([HEAD, b"_\r\n"].concat()),
            Change::Key(key) => {
                let tracked =
                    prefixes.is_empty() || prefixes.iter().any(|prefix| key.starts_with(prefix));
                if tracked && !keys.contains(&key.as_slice()) {
                    keys.push(key);
                }
            }
        }
    }
    if !keys.is_empty() {
        out.extend_from_slice(HEAD);
        out.extend(format!("*{}\r\n", keys.len()).bytes());
        for key in keys {
            out.extend(bulk(key));
        }
    }
    out
}

#[derive(Debug, Clone, Default)]
pub struct Redis {
    dbs: BTreeMap<u32, BTreeMap<Vec<u8>, Stored>>,
    pub history: BTreeMap<Key, Vec<Version>>,
    pub log: Vec<Execution>,
    pub keep_log: bool,
    /// SET stores the number of writes to its key instead of the value it is given: then a value is its own version,
    /// and runs that differ only in the names of their values come to the same state.
    pub counts_versions: bool,
    pub now: Time,
    made: Vec<(Key, usize)>,
    /// What tracking connections have yet to be told.
    pub changes: Vec<Change>,
    /// The elements that BLPOP takes, whatever its key.
    pub queue: VecDeque<Vec<u8>>,
    /// Channels and messages that subscribers have yet to be told.
    pub published: Vec<[Vec<u8>; 2]>,
    /// Keys that have expired and were not deleted yet.
    expired: Vec<Vec<u8>>,
    /// How often it was restarted: its run id says so.
    pub restarts: u64,
    /// It will not track.
    pub refuses_tracking: bool,
    /// The major version; above 7 a barrier takes two rounds.
    pub major: u32,
}

const OK: &[u8] = b"+OK\r\n";
const SYNTAX: &[u8] = b"-ERR syntax error\r\n";
const NOT_INTEGER: &[u8] = b"-ERR value is not an integer or out of range\r\n";

impl Redis {
    /// An empty one.
    pub fn new(now: Time) -> Redis {
        Redis {
            now,
            major: 7,
            ..Redis::default()
        }
    }

    /// Another process in its place: no connection is left, and what `lost` names is not there any more.
    pub fn restart(&mut self, lost: &[Key]) {
        self.restarts += 1;
        for (db, name) in lost {
            self.remove(*db, name);
        }
        self.changes.clear();
        self.expired.clear();
    }

    /// What is in force now. Of what has expired the version before: nobody is told of that in time.
    pub fn snapshot(&self) -> Snapshot {
        let in_force = |(key, versions): (&Key, &Vec<Version>)| {
            let version = versions.iter().rposition(|version| !version.expired);
            (key.clone(), version.unwrap_or(0))
        };
        self.history.iter().map(in_force).collect()
    }

    /// The reply to INFO server, without its head.
    pub fn server_info(&self) -> String {
        format!(
            "# Server\r\nredis_version:{}.0.15\r\nrun_id:{:040x}\r\n",
            self.major, self.restarts
        )
    }

    /// Deletes what has expired, and tells of it.
    pub fn delete_expired(&mut self) {
        let expired = std::mem::take(&mut self.expired);
        self.changes.extend(expired.into_iter().map(Change::Key));
    }

    /// Time passes: what expires meanwhile is gone.
    pub fn advance(&mut self, now: Time) {
        self.now = now;
        let mut dead: Vec<(Time, Key)> = Vec::new();
        for (db, keys) in &self.dbs {
            for (name, stored) in keys {
                if let Some(dies) = stored.dies.filter(|dies| *dies <= now) {
                    dead.push((dies, (*db, name.clone())));
                }
            }
        }
        dead.sort();
        for (dies, key) in dead {
            self.dbs.entry(key.0).or_default().remove(&key.1);
            self.note(key, None, dies, true);
        }
    }

    fn note(&mut self, key: Key, data: Option<Data>, at: Time, expired: bool) {
        if expired {
            self.expired.push(key.1.clone());
        } else {
            self.changes.push(Change::Key(key.1.clone()));
        }
        let versions = self.history.entry(key.clone()).or_default();
        if versions.is_empty() {
            versions.push(Version {
                data: None,
                at: Time::ZERO,
                expired: false,
            });
        }
        versions.push(Version { data, at, expired });
        let made = versions.len() - 1;
        self.made.push((key, made));
    }

    /// The number of the version in force; 0 before the first write.
    pub fn version(&self, key: &Key) -> usize {
        self.history
            .get(key)
            .map_or(0, |versions| versions.len() - 1)
    }

    /// The state of `key` with that number.
    pub fn data(&self, key: &Key, version: usize) -> Option<&Data> {
        self.history.get(key)?.get(version)?.data.as_ref()
    }

    fn get(&self, db: u32, name: &[u8]) -> Option<&Stored> {
        self.dbs.get(&db)?.get(name)
    }

    fn put(&mut self, db: u32, name: &[u8], value: &[u8], dies: Option<Time>) {
        let key = (db, name.to_vec());
        let value = if self.counts_versions {
            (self.version(&key) + 1).to_string().into_bytes()
        } else {
            value.to_vec()
        };
        self.put_data(key, Data::Text(value), dies);
    }

    /// Sets what a key holds, from nowhere.
    pub fn put_data(&mut self, key: Key, data: Data, dies: Option<Time>) {
        let stored = Stored {
            data: data.clone(),
            dies,
        };
        self.dbs
            .entry(key.0)
            .or_default()
            .insert(key.1.clone(), stored);
        self.note(key, Some(data), self.now, false);
    }

    fn remove(&mut self, db: u32, name: &[u8]) -> bool {
        let was = self.dbs.entry(db).or_default().remove(name).is_some();
        if was {
            self.note((db, name.to_vec()), None, self.now, false);
        }
        was
    }

    /// Memory is short: keys go until at most `keys_max` are left, each told of as Redis tells of it. `choose` names one
    /// of so many, as an approximated LRU might.
    pub fn evict(&mut self, keys_max: usize, mut choose: impl FnMut(usize) -> usize) {
        loop {
            let keys: Vec<Key> = self
                .dbs
                .iter()
                .flat_map(|(db, keys)| keys.keys().map(|name| (*db, name.clone())))
                .collect();
            if keys.len() <= keys_max {
                return;
            }
            let (db, name) = &keys[choose(keys.len())];
            self.remove(*db, name);
        }
    }

    /// The value as GET answers it, `Err` with the error's text.
    pub fn read(&self, db: u32, name: &[u8]) -> Result<Option<Vec<u8>>, String> {
        match self.get(db, name) {
            None => Ok(None),
            Some(Stored {
                data: Data::Text(value),
                ..
            }) => Ok(Some(value.clone())),
            Some(Stored {
                data: Data::List, ..
            }) => {
                let text = String::from_utf8_lossy(&WRONG_TYPE[1..])
                    .trim_end()
                    .to_owned();
                Err(text)
            }
        }
    }

    /// The reply to PTTL.
    pub fn pttl(&self, db: u32, name: &[u8]) -> i64 {
        match self.get(db, name) {
            None => -2,
            Some(Stored { dies: None, .. }) => -1,
            // A key lives through the whole of its last millisecond.
            Some(Stored {
                dies: Some(dies), ..
            }) => (dies.micros() / 1000) as i64 - 1 - (self.now.micros() / 1000) as i64,
        }
    }

    /// Whether the connection waits, with this command and all behind it.
    pub fn blocks(&self, args: &[Vec<u8>]) -> bool {
        args[0].eq_ignore_ascii_case(b"BLPOP") && self.queue.is_empty()
    }

    /// Executes one command and returns the reply.
    pub fn execute(&mut self, session: &mut Session, args: &[Vec<u8>]) -> Vec<u8> {
        self.made.clear();
        if let (Some(queued), false) = (&mut session.queued, ends_transaction(&args[0])) {
            queued.push(args.to_vec());
            return b"+QUEUED\r\n".to_vec();
        }
        // A transaction is one execution, by the words of all its commands.
        let block = session.queued.iter().flatten().flatten().cloned();
        let args = &args.iter().cloned().chain(block).collect::<Vec<_>>();
        let reply = match args[0].to_ascii_uppercase().as_slice() {
            b"MULTI" => {
                session.queued = Some(Vec::new());
                OK.to_vec()
            }
            b"EXEC" => self.execute_block(session),
            b"DISCARD" => {
                (session.queued, session.watched) = (None, Vec::new());
                OK.to_vec()
            }
            b"WATCH" => {
                for name in &args[1..] {
                    let key = (session.db, name.clone());
                    let version = self.version(&key);
                    session.watched.push((key, version));
                }
                OK.to_vec()
            }
            b"UNWATCH" => {
                session.watched.clear();
                OK.to_vec()
            }
            b"SUBSCRIBE" => subscribe(session, &args[1..]),
            _ => self.reply_to(session, args),
        };
        if self.keep_log {
            self.log.push(Execution {
                args: args.to_vec(),
                reply: reply.clone(),
                made: std::mem::take(&mut self.made),
            });
        }
        reply
    }

    /// EXEC.
    fn execute_block(&mut self, session: &mut Session) -> Vec<u8> {
        let watched = std::mem::take(&mut session.watched);
        let Some(block) = session.queued.take() else {
            return b"-ERR EXEC without MULTI\r\n".to_vec();
        };
        if watched.iter().any(|(key, was)| self.version(key) != *was) {
            let nil: &[u8] = if session.resp3 { b"_\r\n" } else { b"*-1\r\n" };
            return nil.to_vec();
        }
        let mut out = format!("*{}\r\n", block.len()).into_bytes();
        for args in block {
            out.extend(self.reply_to(session, &args));
        }
        out
    }

    /// The last execution's versions, where no log is kept.
    pub fn made(&self) -> &[(Key, usize)] {
        &self.made
    }

    fn reply_to(&mut self, session: &mut Session, args: &[Vec<u8>]) -> Vec<u8> {
        let name = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
        let db = session.db;
        let nil: &[u8] = if session.resp3 { b"_\r\n" } else { b"$-1\r\n" };
        let arg = |at: usize| args[at].as_slice();
        let value_reply = |value: Result<Option<Vec<u8>>, String>| match value {
            Ok(None) => nil.to_vec(),
            Ok(Some(value)) => bulk(&value),
            Err(text) => format!("-{text}\r\n").into_bytes(),
        };
        match (name.as_str(), args.len()) {
            ("HELLO", _) => {
                if let Some(version) = args.get(1) {
                    session.resp3 = version == b"3";
                }
                let head: &[u8] = if session.resp3 { b"%1\r\n" } else { b"*2\r\n" };
                [head, b"$6\r\nserver\r\n$5\r\nredis\r\n"].concat()
            }
            ("CLIENT", 4..) if arg(1).eq_ignore_ascii_case(b"TRACKING") => {
                if self.refuses_tracking || !session.resp3 {
                    return b"-NOPERM this user has no permissions to run the 'client|tracking' command\r\n"
                        .to_vec();
                }
                assert!(arg(2) == b"ON" && arg(3) == b"BCAST");
                let prefixes = args[4..].chunks(2);
                let prefixes = prefixes.map(|pair| {
                    assert_eq!(pair[0], b"PREFIX");
                    pair[1].clone()
                });
                session.tracking = Some(prefixes.collect());
                OK.to_vec()
            }
            ("ECHO", 2) => bulk(&args[1]),
            ("RPUSH", 3) => {
                self.queue.push_back(args[2].clone());
                integer(self.queue.len())
            }
            ("BLPOP", 3) => {
                let element = self
                    .queue
                    .pop_front()
                    .expect("it blocks while there is none");
                [&b"*2\r\n"[..], &bulk(&args[1]), &bulk(&element)].concat()
            }
            ("AUTH" | "QUIT", _) | ("CLIENT", 2..) => OK.to_vec(),
            ("SELECT", 2) => match String::from_utf8_lossy(arg(1)).parse() {
                Ok(db @ 0..16) => {
                    session.db = db;
                    OK.to_vec()
                }
                Ok(_) => b"-ERR DB index is out of range\r\n".to_vec(),
                Err(_) => b"-ERR value is not an integer or out of range\r\n".to_vec(),
            },
            ("INFO", 2) if arg(1).eq_ignore_ascii_case(b"replication") => bulk(
                format!(
                    "# Replication\r\nrole:master\r\nmaster_replid:{:040x}\r\n",
                    !self.restarts
                )
                .as_bytes(),
            ),
            ("INFO", _) => bulk(self.server_info().as_bytes()),
            ("COMMAND", 1) => {
                b"-NOPERM this user has no permissions to run the 'command' command\r\n".to_vec()
            }
            ("PING", 1) => b"+PONG\r\n".to_vec(),
            ("PUBLISH", 3) => {
                self.published.push([args[1].clone(), args[2].clone()]);
                integer(0) // how many heard it is nobody's concern here
            }
            ("GET", 2) => value_reply(self.read(db, arg(1))),
            ("SET", 3) => {
                self.put(db, arg(1), arg(2), None);
                OK.to_vec()
            }
            ("SET", 5) if arg(3).eq_ignore_ascii_case(b"PX") => {
                let ms: u64 = String::from_utf8_lossy(arg(4))
                    .parse()
                    .expect("milliseconds");
                let dies = Time::from_millis(self.now.micros() / 1000 + ms + 1);
                self.put(db, arg(1), arg(2), Some(dies));
                OK.to_vec()
            }
            ("SET", 4) if arg(3).eq_ignore_ascii_case(b"NX") => {
                if self.get(db, arg(1)).is_some() {
                    return nil.to_vec();
                }
                self.put(db, arg(1), arg(2), None);
                OK.to_vec()
            }
            ("SET", 4..) => SYNTAX.to_vec(),
            ("DEL", 2..) => {
                let removed = args[1..]
                    .iter()
                    .filter(|name| self.remove(db, name))
                    .count();
                integer(removed)
            }
            ("EXISTS" | "TOUCH", 2..) => integer(
                args[1..]
                    .iter()
                    .filter(|name| self.get(db, name).is_some())
                    .count(),
            ),
            ("INCR", 2) => match self.read(db, arg(1)) {
                Err(text) => format!("-{text}\r\n").into_bytes(),
                Ok(value) => {
                    let value = value.unwrap_or(b"0".to_vec());
                    let Ok(number) = String::from_utf8_lossy(&value).parse::<u32>() else {
                        return NOT_INTEGER.to_vec();
                    };
                    let dies = self.get(db, arg(1)).and_then(|stored| stored.dies);
                    self.put(db, arg(1), (number + 1).to_string().as_bytes(), dies);
                    integer(number as usize + 1)
                }
            },
            ("MSET", 3..) if args.len() % 2 == 1 => {
                for pair in args[1..].chunks(2) {
                    self.put(db, &pair[0], &pair[1], None);
                }
                OK.to_vec()
            }
            ("MGET", 2..) => {
                let mut out = format!("*{}\r\n", args.len() - 1).into_bytes();
                for name in &args[1..] {
                    let value = self.read(db, name).unwrap_or(None);
                    out.extend(value_reply(Ok(value)));
                }
                out
            }
            ("STRLEN", 2) => match self.read(db, arg(1)) {
                Err(text) => format!("-{text}\r\n").into_bytes(),
                Ok(value) => integer(value.map_or(0, |value| value.len())),
            },
            ("GETRANGE", 4) => match self.read(db, arg(1)) {
                Err(text) => format!("-{text}\r\n").into_bytes(),
                Ok(value) => {
                    let last: usize = String::from_utf8_lossy(arg(3)).parse().expect("an offset");
                    let value = value.unwrap_or_default();
                    bulk(&value[..value.len().min(last + 1)])
                }
            },
            ("COPY", 5 | 6) if arg(3).eq_ignore_ascii_case(b"DB") => {
                let to: u32 = String::from_utf8_lossy(arg(4))
                    .parse()
                    .expect("a database number");
                let Some(stored) = self.get(db, arg(1)).cloned() else {
                    return integer(0);
                };
                if self.get(to, arg(2)).is_some() && args.len() == 5 {
                    return integer(0);
                }
                match stored.data {
                    Data::Text(value) => self.put(to, arg(2), &value, stored.dies),
                    list => self.put_data((to, arg(2).to_vec()), list, stored.dies),
                }
                integer(1)
            }
            // Scripts: `SET key value`, `MSET key value key value`, whatever keys are declared; `SETERR` answers an error
            // of its own.
            ("EVAL", 3..) => {
                let script = String::from_utf8_lossy(arg(1)).into_owned();
                let words: Vec<&str> = script.split(' ').collect();
                match words[..] {
                    ["SET", key, value] => {
                        self.put(db, key.as_bytes(), value.as_bytes(), None);
                        OK.to_vec()
                    }
                    ["MSET", key, value, other, more] => {
                        self.put(db, key.as_bytes(), value.as_bytes(), None);
                        self.put(db, other.as_bytes(), more.as_bytes(), None);
                        OK.to_vec()
                    }
                    ["SETERR", key, value] => {
                        self.put(db, key.as_bytes(), value.as_bytes(), None);
                        b"-ERR unknown command is what this script says\r\n".to_vec()
                    }
                    _ => b"-ERR Error compiling script\r\n".to_vec(),
                }
            }
            ("FLUSHALL", 1..=2) => {
                let all: Vec<Key> = self
                    .dbs
                    .iter()
                    .flat_map(|(db, keys)| keys.keys().map(|name| (*db, name.clone())))
                    .collect();
                for (db, name) in all {
                    self.remove(db, &name);
                }
                self.changes = vec![Change::Everything];
                OK.to_vec()
            }
            (
                "PING" | "GET" | "SET" | "DEL" | "EXISTS" | "INCR" | "MSET" | "MGET" | "STRLEN"
                | "GETRANGE" | "COPY",
                _,
            ) => format!(
                "-ERR wrong number of arguments for '{}' command\r\n",
                name.to_lowercase()
            )
            .into_bytes(),
            _ => {
                let args: String = args[1..]
                    .iter()
                    .map(|arg| format!("'{}' ", String::from_utf8_lossy(arg)))
                    .collect();
                let name = String::from_utf8_lossy(arg(0));
                format!("-ERR unknown command '{name}', with args beginning with: {args}\r\n")
                    .into_bytes()
            }
        }
    }

    /// What is hashed when runs are compared: the keys as they are now.
    pub fn state(&self) -> impl std::hash::Hash + use<> {
        self.dbs.clone()
    }
}

/// Whether it is not queued in a transaction.
fn ends_transaction(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"exec") || name.eq_ignore_ascii_case(b"discard")
}

fn subscribe(session: &mut Session, channels: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for channel in channels {
        session.channels.push(channel.clone());
        let head: &[u8] = if session.resp3 { b">3\r\n" } else { b"*3\r\n" };
        let count = integer(session.channels.len());
        out.extend([head, &bulk(b"subscribe"), &bulk(channel), &count].concat());
    }
    out
}

/// The message, as a subscriber is told.
pub fn message(session: &Session, [channel, text]: &[Vec<u8>; 2]) -> Vec<u8> {
    if !session.channels.contains(channel) {
        return Vec::new();
    }
    let head: &[u8] = if session.resp3 { b">3\r\n" } else { b"*3\r\n" };
    [head, &bulk(b"message"), &bulk(channel), &bulk(text)].concat()
}

fn integer(n: usize) -> Vec<u8> {
    format!(":{n}\r\n").into_bytes()
}

/// A duration in milliseconds.
pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
