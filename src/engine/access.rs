//! The access log: a line for each of a sample of commands, with its way, its outcome and how long it took.
//!
//! It never changes what is answered. Hits are drawn by the number of hits, by the comparison that the hit path makes
//! anyway (`insight.rs`); all others by a countdown of their own, where they cost a dispatch. What is drawn and not yet
//! answered waits in a list of at most [`WAITING_MAX`]; what finds it full is not logged. Keys appear as
//! [`KeyName`] writes them.
#![forbid(unsafe_code)]

use super::{ConnId, Engine};
use crate::cache::Content;
use crate::keyname::KeyName;
use crate::log::ACCESS;
use crate::protocol::Parse;
use crate::protocol::resp::request::{RequestLimits, RequestParser};
use crate::stats::Counter;
use crate::time::Time;
use tracing::info;

/// Sampled commands that are not answered yet. A sample is small, and one that takes long is seen in SLOWLOG too.
const WAITING_MAX: usize = 256;
const MILLION: u32 = 1_000_000;

/// Which way a command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Road {
    /// It started a fetch.
    Miss,
    /// It joined one.
    Join,
    /// It was passed on.
    Relay,
}

/// What is drawn, and what was drawn.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    /// The number of hits at which the next is drawn; 0: none ever is.
    due: u64,
    /// Commands that are no hits until the next is drawn; 0: none ever is.
    countdown: u64,
    waiting: Vec<Waiting>,
    /// Hits of this turn, until it is known when they were written.
    answered: Vec<Line>,
    /// State of a generator of its own, so that sampling moves no other draw.
    random: u64,
}

#[derive(Debug, Clone)]
struct Waiting {
    client: ConnId,
    slot: u64,
    line: Line,
}

#[derive(Debug, Clone)]
struct Line {
    client: u64,
    command: String,
    /// As it may be shown.
    key: String,
    way: &'static str,
    status: &'static str,
    bytes: u64,
    began: Time,
}

impl Access {
    /// Whether somebody's answer is waited for.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The number of hits at which one is to be drawn.
    pub(super) fn due(&self) -> u64 {
        match self.due {
            0 => u64::MAX,
            due => due,
        }
    }

    fn is_drawn(&mut self, ppm: u32) -> bool {
        if self.countdown == 0 {
            return false;
        }
        self.countdown -= 1;
        if self.countdown > 0 {
            return false;
        }
        self.countdown = self.gap(ppm);
        self.waiting.len() < WAITING_MAX
    }

    /// One in so many on average, and no two in step with a client's pipeline (xorshift64, Marsaglia 2003).
    fn gap(&mut self, ppm: u32) -> u64 {
        self.random |= 1;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let mean = u64::from(MILLION / ppm.clamp(1, MILLION));
        1 + self.random % (2 * mean - 1)
    }
}

impl Line {
    fn say(&self, took: Option<u64>) {
        let Line { client, bytes, .. } = *self;
        let (command, key) = (self.command.as_str(), self.key.as_str());
        let (way, status) = (self.way, self.status);
        info!(target: ACCESS, client, command, key, way, status, bytes, us = took, "access");
    }
}

impl Engine {
    /// Draws anew, after the start or another configuration.
    pub(super) fn plan_access(&mut self) {
        let ppm = match self.config.access_log {
            crate::config::AccessLog::Off => 0,
            _ => self.config.access_log_sample_ppm,
        };
        self.access.random ^= self.random | 1;
        (self.access.due, self.access.countdown) = match ppm {
            0 => (0, 0),
            ppm => (
                self.stats.get(Counter::Hits) + self.access.gap(ppm),
                self.access.gap(ppm),
            ),
        };
        self.plan_samples();
    }

    /// The hit of this number was drawn, and is answered in this turn.
    pub(super) fn log_hit(&mut self, ix: usize, db: u32, name: &[u8], hash: u64, number: u64) {
        let (status, bytes) = match self.cache.peek(db, name, hash, self.now) {
            Some(Content::Value(value)) => ("ok", value.value().len() as u64),
            _ => ("missing", 0),
        };
        let line = Line {
            client: self.clients[ix].number,
            command: "get".to_owned(),
            key: self.named(name),
            way: "hit",
            status,
            bytes,
            began: self.now,
        };
        match self.access.answered.len() < WAITING_MAX {
            true => {
                self.access.answered.push(line);
                self.is_timing = true;
            }
            false => line.say(None),
        }
        let ppm = self.config.access_log_sample_ppm;
        self.access.due = number + self.access.gap(ppm);
    }

    /// What was answered at once was written at this time; or it is the end of the turn, and when is not known.
    pub(super) fn say_hits(&mut self, written: Option<Time>) {
        for line in std::mem::take(&mut self.access.answered) {
            line.say(written.map(|written| written.since(line.began).as_micros() as u64));
        }
    }

    /// A command that is no hit begins: its reply will be in the client's newest slot. For a relay `bytes` are the
    /// request, else the key.
    #[inline]
    pub(super) fn access_begins(&mut self, ix: usize, road: Road, slot: u64, bytes: &[u8]) {
        if self.access.is_drawn(self.config.access_log_sample_ppm) {
            self.access_drawn(ix, road, slot, bytes);
        }
    }

    #[cold]
    fn access_drawn(&mut self, ix: usize, road: Road, slot: u64, bytes: &[u8]) {
        let (command, key) = match road {
            Road::Miss | Road::Join => ("get".to_owned(), self.named(bytes)),
            Road::Relay => self.command_and_key(bytes),
        };
        let client = &self.clients[ix];
        self.access.waiting.push(Waiting {
            client: client.id,
            slot,
            line: Line {
                client: client.number,
                command,
                key,
                way: match road {
                    Road::Miss => "miss",
                    Road::Join => "join",
                    Road::Relay => "relay",
                },
                status: "unknown",
                bytes: 0,
                began: self.now,
            },
        });
    }

    fn named(&self, key: &[u8]) -> String {
        KeyName::new(key, self.config.log_keys).to_string()
    }

    /// What the table knows a request as, and its first key. Other arguments may be anything, a password too.
    fn command_and_key(&self, frame: &[u8]) -> (String, String) {
        let parsed = RequestParser::default().parse(frame, &RequestLimits::default());
        let Parse::Done(request) = parsed else {
            return ("unknown".to_owned(), String::new());
        };
        let spec = self.table.find(request.args());
        let name = self.table.name_at(spec.place()).unwrap_or("unknown");
        let mut first = None;
        spec.touch(request.args(), request.argc(), &mut |name| {
            first.get_or_insert_with(|| self.named(name));
        });
        (name.to_owned(), first.unwrap_or_default())
    }

    /// Bytes of a reply in this slot went to the client.
    #[cold]
    pub(super) fn access_passed(&mut self, client: ConnId, slot: u64, bytes: &[u8]) {
        if let Some(line) = self.access_line(client, slot) {
            if line.bytes == 0 {
                line.status = match bytes.first() {
                    Some(b'-' | b'!') => "error",
                    _ => "ok",
                };
            }
            line.bytes += bytes.len() as u64;
        }
    }

    /// The value (or not) of a fetch goes to the client.
    #[cold]
    pub(super) fn access_found(
        &mut self,
        client: ConnId,
        slot: u64,
        status: &'static str,
        bytes: usize,
    ) {
        if let Some(line) = self.access_line(client, slot) {
            (line.status, line.bytes) = (status, bytes as u64);
        }
    }

    fn access_line(&mut self, client: ConnId, slot: u64) -> Option<&mut Line> {
        let mut waiting = self.access.waiting.iter_mut();
        let found = waiting.find(|waiting| waiting.client == client && waiting.slot == slot);
        found.map(|waiting| &mut waiting.line)
    }

    /// The reply in this slot is complete.
    #[cold]
    pub(super) fn access_ends(&mut self, client: ConnId, slot: u64) {
        let is_it = |waiting: &Waiting| waiting.client == client && waiting.slot == slot;
        if let Some(at) = self.access.waiting.iter().position(is_it) {
            let line = self.access.waiting.swap_remove(at).line;
            line.say(Some(self.now.since(line.began).as_micros() as u64));
        }
    }

    /// The client is gone before its replies.
    #[cold]
    pub(super) fn access_left(&mut self, client: ConnId) {
        let all = std::mem::take(&mut self.access.waiting);
        let is_its = |waiting: &Waiting| waiting.client == client;
        let (left, stay): (Vec<Waiting>, Vec<Waiting>) = all.into_iter().partition(is_its);
        self.access.waiting = stay;
        for Waiting { mut line, .. } in left {
            line.status = "gone";
            line.say(Some(self.now.since(line.began).as_micros() as u64));
        }
    }
}
