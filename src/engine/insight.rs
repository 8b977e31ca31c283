//! What the engine notes for the operator beside its counters: samples of hits, durations, who is hot, what happened.
//!
//! It never changes what is answered. The hit path pays one comparison with a counter that is there anyway
//! ([`Engine::sample_due`], shared with the checks of `verify.rs`) and one of the key's hash (`insight/ghost.rs`); whatever
//! else is done here is done for samples, misses, relayed commands and changes, which cost far more by themselves.
//!
//! Samples of hits are drawn so that there are ten to fifty in a second, however many hits there are; each
//! stands for as many reads as lie between two.
#![forbid(unsafe_code)]

use super::forget::{Cause, Flush};
use super::{ConnId, Engine, Port};
use crate::cache::Content;
use crate::client::{CloseReason, Hold, State};
use crate::fetch::FetchError;
use crate::insight::events::Events;
use crate::insight::hot::HotKeys;
use crate::insight::latency::Latency;
use crate::link::Owed;
use crate::protocol::resp::request::get_at_start;
use crate::stats::Counter;
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Samples that come faster than this are drawn less often. One costs as much as three hits, so that fifty in a second
/// are nothing even to a slow machine.
const SAMPLES_APART_MIN: Duration = Duration::from_millis(20);
/// Samples that come slower than this are drawn more often.
const SAMPLES_APART_MAX: Duration = Duration::from_millis(100);
/// By how much at a time, as a part of what it was: a burst is to be seen by more samples than a handful.
const STEP: u64 = 8;
/// However many hits there are.
const ONE_IN_MAX: u64 = 1 << 16;
/// One pushed key in so many counts as many for the keys that change most.
const CHANGES_ONE_IN: u64 = 8;
/// Keys whose changes are remembered for EXPLAIN; another key with the same place takes it.
const FORGOTTEN_PLACES: usize = 1024;
/// Changes remembered of each.
const FORGOTTEN_EACH: usize = 4;
/// Slow commands remembered.
const SLOW_MAX: usize = 128;
/// What clients may be doing, in a word each.
const CLIENT_STATES: [&str; 6] = [
    "open",
    "waiting",
    "queued",
    "not_reading",
    "own_link",
    "closing",
];
/// What links may be for, in a word each.
const LINK_ROLES: [&str; 4] = ["invalidation", "shared", "one_shot", "own"];

/// What is noted.
#[derive(Debug, Clone)]
pub(super) struct Insight {
    /// From the turn in which a hit was read to its reply's being written. Sampled.
    pub(super) hit: Latency,
    /// From dispatch to completion of a fetch.
    pub(super) miss: Latency,
    /// From dispatch of a relayed command to the end of its reply.
    pub(super) relay: Latency,
    /// By reason, in the order of [`FetchError::NAMES`].
    fetch_errors: [u64; FetchError::NAMES.len()],
    /// By reason, in the order of [`CloseReason::ALL`].
    closes: [u64; CloseReason::ALL.len()],
    pub(super) events: Events,
    pub(super) slow: VecDeque<Slow>,
    slow_numbered: u64,
    pub(super) reads: HotKeys,
    pub(super) misses: HotKeys,
    pub(super) bytes: HotKeys,
    pub(super) changes: HotKeys,
    /// The number of hits at which the next is sampled.
    due: u64,
    /// One hit in so many is sampled.
    one_in: u64,
    sampled_at: Time,
    /// State of a generator of its own, so that sampling moves no other draw.
    random: u64,
    forgotten: Vec<Forgotten>,
    /// When everything was dropped last, and why.
    flushed: Option<(Time, Flush)>,
    /// A hit was sampled, and how long it takes is not known yet.
    wants_time: bool,
    /// Notes counts and nothing that takes room.
    is_quiet: bool,
}

/// A relayed command that took long.
#[derive(Debug, Clone)]
pub(super) struct Slow {
    pub(super) number: u64,
    pub(super) unix_secs: u64,
    pub(super) took: Duration,
    pub(super) command: String,
    pub(super) client: u64,
    pub(super) peer: String,
    pub(super) name: Box<[u8]>,
    /// On which link it was answered, and when.
    turn: (ConnId, Time),
    is_script: bool,
}

/// When and why a key was forgotten lately.
#[derive(Debug, Clone, Default)]
struct Forgotten {
    hash: u64,
    /// The newest first; `None`: there were not so many.
    times: [Option<(Time, Cause)>; FORGOTTEN_EACH],
}

impl Insight {
    pub(super) fn new(seed: u64) -> Insight {
        Insight {
            hit: Latency::default(),
            miss: Latency::default(),
            relay: Latency::default(),
            fetch_errors: [0; FetchError::NAMES.len()],
            closes: [0; CloseReason::ALL.len()],
            events: Events::default(),
            slow: VecDeque::new(),
            slow_numbered: 0,
            reads: HotKeys::default(),
            misses: HotKeys::default(),
            bytes: HotKeys::default(),
            changes: HotKeys::default(),
            due: 1,
            one_in: 1,
            sampled_at: Time::ZERO,
            random: seed | 1,
            forgotten: Vec::new(),
            flushed: None,
            wants_time: false,
            is_quiet: false,
        }
    }

    /// Remembers no keys, for searches that clone the engine a million times.
    pub(super) fn hold_little(&mut self) {
        self.is_quiet = true;
    }

    /// xorshift64 (Marsaglia 2003).
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// A key is forgotten.
    pub(super) fn note_forgotten(&mut self, hash: u64, cause: Cause, at: Time) {
        if self.is_quiet {
            return;
        }
        if self.forgotten.is_empty() {
            self.forgotten = vec![Forgotten::default(); FORGOTTEN_PLACES];
        }
        let place = &mut self.forgotten[hash as usize % FORGOTTEN_PLACES];
        if place.hash != hash {
            *place = Forgotten {
                hash,
                ..Forgotten::default()
            };
        }
        place.times.rotate_right(1);
        place.times[0] = Some((at, cause));
    }

    /// When and why the key was forgotten by itself, the newest first, as far as that is remembered.
    pub(super) fn forgotten(&self, hash: u64) -> impl Iterator<Item = (Time, Cause)> {
        let place = self.forgotten.get(hash as usize % FORGOTTEN_PLACES);
        let found = place.filter(|place| place.hash == hash);
        found.into_iter().flat_map(|place| place.times).flatten()
    }

    /// Everything was dropped.
    pub(super) fn note_flushed(&mut self, why: Flush, at: Time) {
        self.flushed = Some((at, why));
    }

    /// When everything was dropped last, and why.
    pub(super) fn flushed(&self) -> Option<(Time, Flush)> {
        self.flushed
    }

    pub(super) fn note_close(&mut self, reason: CloseReason) {
        self.closes[reason as usize] += 1;
    }

    /// How many clients were closed for each reason, zeros too: what appears with its first count has no rate before its
    /// second.
    pub(super) fn closes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = CloseReason::ALL.iter().map(|reason| reason.name());
        names.zip(self.closes)
    }

    /// How many fetches failed for each reason, in the same way.
    pub(super) fn fetch_errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FetchError::NAMES.into_iter().zip(self.fetch_errors)
    }

    pub(super) fn note_fetch_error(&mut self, error: &FetchError) {
        self.fetch_errors[error.place()] += 1;
    }
}

impl Engine {
    /// The next sample of a hit is the one that is due first, whoever wants it.
    pub(super) fn plan_samples(&mut self) {
        let due = self.verify.due.min(self.insight.due);
        self.sample_due = due.min(self.access.due());
    }

    /// A row of `hits` canonical GETs was answered from `bytes`, and one of them is due.
    #[cold]
    #[inline(never)]
    pub(super) fn sample_of_row(&mut self, ix: usize, bytes: &[u8], hits: u64) {
        let mut number = self.stats.get(Counter::Hits) - hits;
        let mut at = 0;
        while let Some((key, used)) = bytes.get(at..).and_then(get_at_start) {
            number += 1;
            if number >= self.sample_due {
                let db = self.clients[ix].db;
                self.sample_hit(ix, db, key, self.hasher.hash(key), number);
            }
            at += used;
        }
        self.plan_samples();
    }

    /// A hit that is due, the one of this number: it is about to be answered, or was just now.
    #[cold]
    #[inline(never)]
    pub(super) fn sample_hit(&mut self, ix: usize, db: u32, key: &[u8], hash: u64, number: u64) {
        let hits = self.stats.get(Counter::Hits);
        if hits >= self.verify.due {
            self.check_hit(db, key, hash);
        }
        if hits >= self.insight.due {
            self.look_at_hit(db, key, hash);
        }
        if number >= self.access.due() {
            self.log_hit(ix, db, key, hash, number);
        }
        self.plan_samples();
    }

    fn look_at_hit(&mut self, db: u32, key: &[u8], hash: u64) {
        let value_bytes = match self.cache.peek(db, key, hash, self.now) {
            Some(Content::Value(value)) => value.value().len(),
            _ => 0,
        };
        let (now, insight) = (self.now, &mut self.insight);
        let weight = insight.one_in;
        if !insight.is_quiet {
            insight.reads.note(db, key, hash, weight, now);
            let bytes = weight.saturating_mul(value_bytes as u64);
            insight.bytes.note(db, key, hash, bytes, now);
        }
        self.is_timing = true;
        insight.wants_time = true;
        let apart = now.since(insight.sampled_at);
        insight.sampled_at = now;
        if apart < SAMPLES_APART_MIN {
            insight.one_in = (weight + weight / STEP + 1).min(ONE_IN_MAX);
        } else if apart > SAMPLES_APART_MAX {
            insight.one_in = (weight - weight / STEP).saturating_sub(1).max(1);
        }
        // One in so many on average, and no two in step with a client's pipeline.
        let gap = 1 + insight.random() % (2 * insight.one_in - 1);
        insight.due = self.stats.get(Counter::Hits) + gap;
    }

    /// Whether a sampled hit was among what is written now: then say with [`Engine::timed`] when that was done.
    #[inline(always)]
    pub fn is_timing(&self) -> bool {
        self.is_timing
    }

    /// The sampled hit was written.
    #[cold]
    pub fn timed(&mut self, written: Time) {
        self.is_timing = false;
        if std::mem::take(&mut self.insight.wants_time) {
            self.insight.hit.record(written.since(self.now));
        }
        self.say_hits(Some(written));
    }

    /// A miss: a read that started a fetch.
    pub(super) fn note_miss(&mut self, db: u32, key: &[u8], hash: u64) {
        if self.insight.is_quiet {
            return;
        }
        let now = self.now;
        self.insight.misses.note(db, key, hash, 1, now);
        self.insight.reads.note(db, key, hash, 1, now);
    }

    /// Redis tells of a change of this key.
    pub(super) fn note_pushed(&mut self, key: &[u8], hash: u64) {
        if self.insight.is_quiet {
            return;
        }
        if self
            .stats
            .get(Counter::Pushes)
            .is_multiple_of(CHANGES_ONE_IN)
        {
            let now = self.now;
            let db = self.config.redis_url.db;
            self.insight
                .changes
                .note(db, key, hash, CHANGES_ONE_IN, now);
        }
    }

    /// Redis has answered this command, the front one of its link. Slow is what took long since the replies before, which
    /// had Redis until then.
    pub(super) fn redis_answered(&mut self, link: usize, owed: &Owed) {
        let link = &mut self.links[link];
        let id = link.id;
        if link.answered < self.now {
            (link.answered_before, link.answered) = (link.answered, self.now);
        }
        let took = self.now.since(owed.sent.max(link.answered_before));
        if took >= self.config.slow_relay
            && owed.sent != Time::NEVER
            && let Some(ix) = owed.to.and_then(|(client, _)| self.client_index(client))
        {
            self.note_slow(ix, took, owed, id);
        }
    }

    /// The reply to it goes to its client, or it is known that none comes.
    pub(super) fn relay_ends(&mut self, owed: &Owed) {
        if owed.sent != Time::NEVER {
            self.insight.relay.record(self.now.since(owed.sent));
        }
    }

    /// Replies that come together tell of one delay: Redis writes them down together, so it is not known which command it
    /// was long about. A script among them is the likeliest, else the first.
    #[cold]
    fn note_slow(&mut self, ix: usize, took: Duration, owed: &Owed, link: ConnId) {
        let client = &self.clients[ix];
        let (turn, is_script) = ((link, self.now), owed.is_script());
        if let Some(last) = self.insight.slow.back()
            && last.turn == turn
        {
            if last.is_script || !is_script {
                return;
            }
            self.insight.slow.pop_back();
            self.insight.slow_numbered -= 1;
        }
        let peer = self.peer_of(client).to_string();
        let insight = &mut self.insight;
        if insight.slow.len() == SLOW_MAX {
            insight.slow.pop_front();
        }
        insight.slow.push_back(Slow {
            number: insight.slow_numbered,
            unix_secs: self.unix_secs,
            took,
            command: self
                .table
                .name_at(owed.place)
                .unwrap_or("unknown")
                .to_owned(),
            client: client.number,
            peer,
            name: client.name().unwrap_or_default().into(),
            turn,
            is_script,
        });
        insight.slow_numbered += 1;
    }

    /// Something happened that the dashboard shows.
    pub(super) fn note_event(&mut self, kind: &'static str, text: String) {
        if self.insight.is_quiet {
            return;
        }
        let (now, unix_secs) = (self.now, self.unix_secs);
        self.insight.events.note(now, unix_secs, kind, text);
    }

    /// How many reads the ghost list has seen or passed over.
    pub(super) fn reads_followed(&self) -> u64 {
        let get = |counter| self.stats.get(counter);
        (get(Counter::Hits) - get(Counter::OtherHits)) + get(Counter::Misses) + get(Counter::Joined)
    }

    /// How many clients of each port are in each state, zeros too.
    pub(super) fn clients_by_state(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let ports = Port::ALL.iter().map(|port| port.name());
        let mut counts: BTreeMap<_, _> = ports
            .flat_map(|port| CLIENT_STATES.map(|state| ((port, state), 0)))
            .collect();
        for (_, client) in &self.clients {
            let state = match (client.state, client.hold) {
                (State::Open, Hold::None) if client.own.is_some() => "own_link",
                (State::Open, Hold::None) => "open",
                (State::Open, Hold::Limit) => "queued",
                (State::Open, Hold::Outbox) => "not_reading",
                (State::Open, _) => "waiting",
                _ => "closing",
            };
            *counts.entry((client.port.name(), state)).or_default() += 1;
        }
        counts
    }

    /// How many links of each kind are in each state, zeros too.
    pub(super) fn links_by_role(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut counts: BTreeMap<_, _> = LINK_ROLES
            .iter()
            .flat_map(|role| ["connecting", "up"].map(|state| ((*role, state), 0)))
            .collect();
        for (_, link) in &self.links {
            let role = match link.role {
                crate::link::Role::Control => "invalidation",
                crate::link::Role::Shared(_) => "shared",
                crate::link::Role::OneShot(_) => "one_shot",
                crate::link::Role::Own(_) => "own",
            };
            let state = match link.state {
                crate::link::State::Up => "up",
                _ => "connecting",
            };
            *counts.entry((role, state)).or_default() += 1;
        }
        counts
    }
}
