//! One connection of a worker to Redis: encodes a batch, sends it in one write, reads and types the replies.
//!
//! It never retries and is never used again after an error: after a time-out the `redis` crate goes on counting the late
//! replies, and after a parse error it returns parse errors for ever, so the worker drops the connection.
//!
//! Invariant: replies are matched by position alone, so the plan of a batch (which reply comes where) is derived from the
//! same jobs twice, once to encode and once to read, by the same rule: a `SELECT` whenever the database changes.
//!
//! Costs: one buffer per connection, reused; one write per batch; one setsockopt per batch whose time left differs much
//! from the last one's.
#![forbid(unsafe_code)]

use super::wire::{Secured, Wire};
use super::{Settings, lock};
use crate::fetch::{Completion, FetchError, Fetched, Job, RunId};
use crate::protocol::resp::write;
use crate::socket;
use crate::time::Time;
use redis::io::tcp::TcpSettings;
use redis::{
    Client, Connection, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError, Value,
};
use std::collections::VecDeque;
use std::time::Duration;

/// A buffer that grew beyond this is given back after the batch.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

/// A connection that stands.
pub(super) struct Upstream {
    wire: Wire,
    /// The database selected, `None` when a SELECT failed and nobody knows.
    db: Option<u32>,
    greeting: Greeting,
    run_id: Option<RunId>,
    buffer: Vec<u8>,
    timeout: Duration,
    timeout_set: Duration,
}

/// The connection's name and the question who Redis is are sent with its first batch, so that connecting needs no round trip of ours.
enum Greeting {
    ToSend(String),
    Sent,
}

/// Why a batch was not answered to its end. Either way the connection is useless.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Time ran out first.
    TimedOut,
    /// The connection ended, or said what is no answer to what was asked.
    Broken(String),
}

impl Upstream {
    /// Connects (every address of the name in turn, each with the connect time-out) and authenticates.
    pub(super) fn connect(settings: &Settings, name: String) -> Result<Upstream, String> {
        // Not held while connecting: the loop takes it too.
        let tls = lock(&settings.tls).clone();
        let wire = match tls {
            None => Wire::Plain(connect_plainly(settings)?),
            Some(tls) => {
                let (connecting, waiting) = (settings.connect_timeout, settings.timeout);
                let secured = Secured::connect(&settings.url, &tls, connecting, waiting)?;
                Wire::Tls(Box::new(secured))
            }
        };
        Ok(Upstream {
            wire,
            db: Some(0),
            greeting: Greeting::ToSend(name),
            run_id: None,
            buffer: Vec::new(),
            timeout: settings.timeout,
            timeout_set: settings.timeout,
        })
    }

    /// Sends all of `owed` and reads the replies while each comes within the time-out of the one before, until `last`.
    /// Each job that is answered moves, oldest first, from `owed` to `done`; after an error those still in `owed` have
    /// not been answered.
    pub(super) fn exchange(
        &mut self,
        owed: &mut VecDeque<Job>,
        done: &mut Vec<Completion>,
        last: Time,
    ) -> Result<(), Lost> {
        self.encode(owed);
        self.wait_until(last)?;
        let sent = self.wire.send(&self.buffer).map_err(lost);
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        sent?;
        let (mut hint, before) = (None, owed.len());
        self.read_replies(owed, done, last, &mut hint)
            .map_err(|lost| match (lost, hint) {
                // A server that is full or protected says so in answer to whatever comes first, and closes: hand that on.
                (Lost::Broken(_), Some(said)) if owed.len() == before => Lost::Broken(said),
                (lost, _) => lost,
            })
    }

    fn encode(&mut self, jobs: &VecDeque<Job>) {
        if let Greeting::ToSend(name) = &self.greeting {
            write::command(
                &mut self.buffer,
                [&b"CLIENT"[..], b"SETNAME", name.as_bytes()],
            );
            write::command(&mut self.buffer, [&b"INFO"[..], b"server"]);
        }
        let mut db = self.db;
        for job in jobs {
            if db != Some(job.db) {
                let number = job.db.to_string();
                write::command(&mut self.buffer, [b"SELECT", number.as_bytes()]);
                db = Some(job.db);
            }
            // As `write::command` would write the two, which takes three times as long.
            self.buffer.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
            let at = self.buffer.len();
            write::bulk(&mut self.buffer, &job.key);
            let key = at..self.buffer.len();
            self.buffer.extend_from_slice(b"*2\r\n$4\r\nPTTL\r\n");
            self.buffer.extend_from_within(key);
        }
    }

    fn read_replies(
        &mut self,
        owed: &mut VecDeque<Job>,
        done: &mut Vec<Completion>,
        last: Time,
        hint: &mut Option<String>,
    ) -> Result<(), Lost> {
        if let Greeting::ToSend(_) = self.greeting {
            // Best effort: a user without the right to name its connection still may read keys.
            if let Value::ServerError(e) = self.reply(last)? {
                *hint = Some(error_text(&e));
            }
            // Likewise INFO: then nobody can say that this is the server that tracks, unless that one is as silent.
            if let Value::BulkString(text) = self.reply(last)? {
                self.run_id = RunId::in_info(&text);
            }
            self.greeting = Greeting::Sent;
        }
        let mut planned = self.db;
        let mut select_error: Option<String> = None;
        while let Some(job) = owed.front() {
            if planned != Some(job.db) {
                planned = Some(job.db);
                (self.db, select_error) = match self.reply(last)? {
                    Value::Okay => (planned, None),
                    Value::ServerError(e) => (None, Some(error_text(&e))),
                    other => return Err(confused("SELECT", &other)),
                };
            }
            let value = match self.reply(last)? {
                Value::BulkString(bytes) => Ok(Some(bytes)),
                Value::Nil => Ok(None),
                Value::ServerError(e) => Err(error_text(&e)),
                other => return Err(confused("GET", &other)),
            };
            let pttl_ms = match self.reply(last)? {
                Value::Int(ms) => Some(ms),
                Value::ServerError(_) => None,
                other => return Err(confused("PTTL", &other)),
            };
            // After a SELECT that failed these are answers of some other database: the error stands for them.
            let result = match (&select_error, value) {
                (Some(text), _) => Err(FetchError::Upstream(text.clone())),
                (None, Err(text)) => Err(FetchError::Upstream(text)),
                (None, Ok(value)) => Ok(Fetched {
                    value,
                    pttl_ms,
                    run_id: self.run_id,
                }),
            };
            done.push(Completion { id: job.id, result });
            owed.pop_front();
        }
        Ok(())
    }

    fn reply(&mut self, last: Time) -> Result<Value, Lost> {
        self.wait_until(last)?;
        self.wire.recv().map_err(lost)
    }

    /// Sees to it that reading ends when nothing comes for the time-out, and near `last`. The crate offers a time-out per
    /// read only, which is what is wanted of a large value: the silence counts, not the whole. It is set anew when it
    /// would miss `last` by more than a sixteenth of the whole, so nearly all batches set nothing. A server that drips
    /// one reply byte by byte can stretch that one reply; its waiters have been answered by the loop's timer.
    fn wait_until(&mut self, last: Time) -> Result<(), Lost> {
        let left = last.since(socket::now()).min(self.timeout);
        if left.is_zero() {
            return Err(Lost::TimedOut);
        }
        if left.abs_diff(self.timeout_set) > self.timeout / 16 {
            self.timeout_set = left.max(Duration::from_millis(1));
            self.wire.set_read_timeout(self.timeout_set).map_err(lost)?;
        }
        Ok(())
    }
}

/// As the crate does it: every address of the name in turn, each with the connect time-out.
fn connect_plainly(settings: &Settings) -> Result<Connection, String> {
    let url = &settings.url;
    let mut redis = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP2)
        .set_skip_set_lib_name();
    if let Some(username) = &url.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = &url.password {
        redis = redis.set_password(password.text());
    }
    let connect = || -> Result<Connection, RedisError> {
        let info = match &url.socket {
            Some(path) => ConnectionAddr::Unix(path.clone()).into_connection_info()?,
            None => (url.host.as_str(), url.port).into_connection_info()?,
        };
        let info = info
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(redis);
        let connection =
            Client::open(info)?.get_connection_with_timeout(settings.connect_timeout)?;
        connection.set_read_timeout(Some(settings.timeout))?;
        connection.set_write_timeout(Some(settings.timeout))?;
        Ok(connection)
    };
    connect().map_err(|e| {
        if e.is_timeout() {
            "connect timed out".into()
        } else {
            e.to_string()
        }
    })
}

/// An error reply as Redis sent it. The crate splits it at the first space into code and details.
fn error_text(error: &redis::ServerError) -> String {
    match error.details() {
        None => error.code().to_owned(),
        Some(details) => format!("{} {details}", error.code()),
    }
}

fn lost(error: RedisError) -> Lost {
    if error.is_timeout() {
        Lost::TimedOut
    } else {
        Lost::Broken(format!("connection lost: {error}"))
    }
}

fn confused(asked: &str, reply: &Value) -> Lost {
    // Not the reply itself: it may be large and is none of the log's business.
    let kind = match reply {
        Value::Int(_) => "an integer",
        Value::BulkString(_) => "a bulk string",
        Value::SimpleString(_) | Value::Okay => "a status",
        Value::Nil => "nil",
        Value::Array(_) => "an array",
        _ => "a reply of RESP3",
    };
    Lost::Broken(format!("{asked} was answered with {kind}"))
}
