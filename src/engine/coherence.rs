//! When what is kept may be used, and what must be held back (rules R9, L10, L11, L18 and L19).
//!
//! - *Down*: nothing is kept, no fetch has a mark. With `STALE_IF_ERROR_SECS` the entries of before wait aside, for
//!   reads that fail (L18).
//! - *On*: hits while the lease runs. A script's reply is held until the PONG of a PING sent after it came (L10 (b)).
//! - *Unavailable*: Redis will not track; entries and joins end at the staleness bound from dispatch (L19), and
//!   whatever would be held empties the cache instead.
//!
//! Invariant: `hits_until` is what the states say; the hit path compares one instant. Barriers wait in the order of the
//! PINGs they need.
#![forbid(unsafe_code)]

use super::forget::{Cause, Flush};
use super::switches::Rule;
use super::timers::Timer;
use super::{ConnId, Engine};
use crate::cache::{Cache, Content};
use crate::config::Coherence;
use crate::fetch::FetchError;
use crate::link::{Owed, Purpose, State as LinkState};
use crate::protocol::resp::write::{self, Version};
use crate::stats::Counter;
use crate::time::Time;
use crate::tracking::{Pushed, Reading, State};
use std::collections::VecDeque;
use std::time::Duration;
use tracing::{info, warn};

/// A reply longer than this is not held for a barrier: everything kept is dropped instead.
pub(super) const BARRIER_REPLY_BYTES_MAX: usize = 1024 * 1024;
/// All replies held together; above it, likewise.
pub(super) const BARRIER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How often Redis is asked for a sign of life; a third of a bound that is short.
const HEARTBEAT_MAX: Duration = Duration::from_millis(1000);
/// PINGs under way at one time. Redis answers them in one go when it wakes up.
const PINGS_MAX: u64 = 64;
/// How long after a refusal Redis is asked again to track.
const RETRY: Duration = Duration::from_secs(30);

/// A reply that waits until every push of before it has been handled.
#[derive(Debug, Clone)]
pub(super) struct Barrier {
    /// The number of the PING whose answer ends it.
    needs: u64,
    /// More rounds after that one (servers with I/O threads, rule L10).
    rounds_left: u8,
    what: Waiting,
}

/// Who waits.
#[derive(Debug, Clone, Hash)]
pub(super) enum Waiting {
    /// A reply on a link that others share.
    Reply(Owed, Vec<u8>),
    /// What arrived on an own link, by its number there (`own/held.rs`).
    Link(ConnId, u64),
}

/// All that waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Barriers {
    waiting: VecDeque<Barrier>,
    /// Bytes held, those on own links included.
    pub(super) bytes: usize,
    /// The number of the next barrier of an own link.
    next: u64,
}

impl Barriers {
    /// For the fingerprint: how many PINGs each barrier still waits for, the rounds behind that, and who waits.
    pub(super) fn iter(&self, answered: u64) -> impl Iterator<Item = (u64, u8, &Waiting)> {
        self.waiting.iter().map(move |barrier| {
            let needs = barrier.needs.saturating_sub(answered);
            (needs, barrier.rounds_left, &barrier.what)
        })
    }

    /// The held commands that count against `MAX_CONCURRENT_REQUESTS`.
    pub(super) fn counted(&self) -> usize {
        let counted =
            |barrier: &&Barrier| matches!(&barrier.what, Waiting::Reply(owed, _) if owed.counted);
        self.waiting.iter().filter(counted).count()
    }
}

impl Engine {
    /// Whether fetches may have marks and results may be kept.
    pub(super) fn keeps(&self) -> bool {
        match self.coherence {
            Coherence::Off => false,
            Coherence::Ttl => true,
            Coherence::Tracking => *self.tracking.state() != State::Down,
        }
    }

    /// The longest life of an entry, and of a fetch that is still joined, from its dispatch. While nobody tells of
    /// changes (Redis will not track, or the lease has lapsed) that is the bound: nothing else makes an end of it.
    pub(super) fn lifetime_max(&self) -> Duration {
        let told = match (self.coherence, self.tracking.state()) {
            (Coherence::Tracking, State::Unavailable(_)) => false,
            (Coherence::Tracking, State::On) => self.now < self.hits_until,
            _ => true,
        };
        if told || !self.switches.holds(Rule::BoundedLife) {
            self.config.cache_ttl
        } else {
            self.config.cache_ttl.min(self.config.staleness_bound)
        }
    }

    /// After a change of state: until when hits may be given.
    pub(super) fn refresh_lease(&mut self) {
        self.hits_until = match self.coherence {
            Coherence::Off => Time::ZERO,
            Coherence::Ttl => Time::NEVER,
            Coherence::Tracking => self.tracking.lease_until(self.config.staleness_bound),
        };
        if self.hits_until > Time::ZERO && !self.switches.holds(Rule::LeaseEnds) {
            self.hits_until = Time::NEVER;
        }
        if self.now < self.hits_until && self.switches.holds(Rule::DropLapsedAtRenewal) {
            self.aside.clear_lapsed();
        }
    }

    /// Whether the link stands that pushes come on, but nothing was heard on it for so long that hits have ended.
    fn has_lapsed(&self) -> bool {
        self.coherence == Coherence::Tracking
            && *self.tracking.state() == State::On
            && self.now >= self.hits_until
    }

    /// Whether an entry that a fetch removes is put aside for the case that the fetch fails (`aside.rs`).
    pub(super) fn puts_aside(&self) -> bool {
        !self.config.stale_if_error.is_zero() && self.has_lapsed()
    }

    /// While the link stands, or at the moment it is lost: when it was last known what has changed.
    fn known_at(&self) -> Time {
        self.tracking.fresh_at().unwrap_or(self.known_since)
    }

    /// The state in one word, for INFO and the log.
    pub(super) fn coherence_name(&self) -> &'static str {
        match (self.coherence, self.tracking.state()) {
            (Coherence::Off, _) => "off",
            (Coherence::Ttl, _) => "ttl",
            (Coherence::Tracking, State::Down) => "tracking_down",
            (Coherence::Tracking, State::Unavailable(_)) => "bounded",
            (Coherence::Tracking, State::On) if self.now < self.hits_until => "tracking",
            (Coherence::Tracking, State::On) => "tracking_lapsed",
        }
    }

    /// How old a hit given now could be, `None` where no hit is given.
    pub(super) fn worst_staleness(&self) -> Option<Duration> {
        if self.now >= self.hits_until {
            return None;
        }
        match (self.coherence, self.tracking.state()) {
            (Coherence::Tracking, State::On) => {
                self.tracking.fresh_at().map(|at| self.now.since(at))
            }
            _ => Some(self.lifetime_max()),
        }
    }

    /// The bound that the configuration promises.
    pub(super) fn bound(&self) -> Duration {
        match self.coherence {
            Coherence::Off => Duration::ZERO,
            Coherence::Ttl => self.config.cache_ttl,
            Coherence::Tracking => self.config.staleness_bound,
        }
    }

    /// Goes over to another mode while running. Everything kept is dropped; no client notices but by the time it takes.
    pub fn set_coherence(&mut self, mode: Coherence) {
        if mode == self.coherence {
            return;
        }
        warn!(from = ?self.coherence, to = ?mode, "coherence is switched");
        let tracked = self.coherence == Coherence::Tracking || mode == Coherence::Tracking;
        self.coherence = mode;
        self.poison_all(Flush::Switch);
        self.forget_names();
        if tracked && let Some(control) = self.upstream.control() {
            // Tracking begins and ends with its connection.
            self.link_lost(control, "the coherence mode has changed");
        }
        self.refresh_lease();
    }

    /// Off if anything is kept, else back to the configured mode (tracking, where that is off).
    pub fn switch_cache(&mut self) {
        self.set_coherence(match (self.coherence, self.config.coherence) {
            (Coherence::Tracking | Coherence::Ttl, _) => Coherence::Off,
            (Coherence::Off, Coherence::Off) => Coherence::Tracking,
            (Coherence::Off, configured) => configured,
        });
    }

    /// The link that pushes come on, to be read first in every turn.
    pub fn invalidation_link(&self) -> Option<ConnId> {
        self.upstream.control()
    }

    /// The mode in force.
    pub fn coherence(&self) -> Coherence {
        self.coherence
    }

    /// Rules R9 and L11: the invalidation link is gone. Nothing kept may be used, nothing under way may be kept, and
    /// whoever waits for a barrier is let go, since everything was dropped.
    pub(super) fn tracking_down(&mut self) {
        if *self.tracking.state() != State::Down && self.coherence == Coherence::Tracking {
            let limits = self.cache.limits();
            let on = *self.tracking.state() == State::On;
            self.remember_names();
            if on {
                self.known_since = self.known_at();
            }
            if !self.switches.holds(Rule::DropEntriesAtDown) {
                // A test wants to see what comes of it.
            } else if on && !self.config.stale_if_error.is_zero() && !self.cache.is_empty() {
                let kept = std::mem::replace(&mut self.cache, Cache::new(limits, self.now));
                self.aside.put_down(kept);
            } else {
                self.cache.clear();
            }
            if self.switches.holds(Rule::DropMarksAtDown) {
                self.fetches.forget_all();
            }
            self.note_flush(Flush::Down);
        }
        self.tracking.down();
        self.refresh_lease();
        if !self.barriers.waiting.is_empty() {
            // The pushes that the barriers waited for are lost: also what waits aside may be too old (L18).
            if self.switches.holds(Rule::FlushAtLostBarrier) {
                self.poison_all(Flush::Barrier);
            }
            for barrier in std::mem::take(&mut self.barriers.waiting) {
                self.let_go(barrier.what);
            }
        }
    }

    /// Redis answered CLIENT TRACKING ON.
    pub(super) fn tracking_answered(&mut self, reply: &[u8]) {
        // Rule L19: what was kept before tracking began goes, marks included; so does what waits aside (L18).
        if self.switches.holds(Rule::DropEntriesAtUp) {
            self.cache.clear();
        }
        if self.switches.holds(Rule::DropMarksAtUp) {
            self.fetches.forget_all();
        }
        if self.switches.holds(Rule::DropStaleAtUp) {
            self.aside.clear();
        }
        self.note_flush(Flush::Up);
        self.known_since = self.now;
        if reply.starts_with(b"+OK") {
            self.tracking.on();
            info!("tracking is on");
        } else {
            let why = String::from_utf8_lossy(reply.strip_prefix(b"-").unwrap_or(reply))
                .trim_end()
                .to_owned();
            self.tracking_unavailable(why);
        }
        self.refresh_lease();
    }

    /// Redis will not track, as `why` says; asked again after a while.
    pub(super) fn tracking_unavailable(&mut self, why: String) {
        if *self.tracking.state() != State::Unavailable(why.clone()) {
            let bound = self.config.staleness_bound.as_millis();
            warn!(
                why,
                entries_live_ms = bound as u64,
                "Redis will not track, entries live shortly"
            );
        }
        self.tracking.unavailable(why);
        let due = self.now + RETRY;
        self.upstream.tracking_retry = Some(self.timers.set(due, Timer::TrackingRetry));
        self.refresh_lease();
    }

    /// Asks once more for what was refused.
    pub(super) fn retry_tracking(&mut self) {
        self.upstream.tracking_retry = None;
        let Some(ix) = self.upstream.control().and_then(|id| self.link_index(id)) else {
            return;
        };
        if matches!(self.tracking.state(), State::Unavailable(_))
            && self.links[ix].state == LinkState::Up
        {
            self.ask_for_tracking(ix);
        }
    }

    /// CLIENT TRACKING ON BCAST, for the configured prefixes or for all keys.
    pub(super) fn ask_for_tracking(&mut self, ix: usize) {
        let prefixes = self.config.tracking_prefixes.clone();
        let mut args: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
        for prefix in &prefixes {
            args.push(b"PREFIX");
            args.push(prefix.as_bytes());
        }
        self.ask(ix, Purpose::Tracking, &args);
    }

    /// Reads the push at the start of `bytes`; returns how many bytes it took, `None` when the link ended of it.
    pub(super) fn read_push(&mut self, id: ConnId, bytes: &[u8]) -> Option<usize> {
        let mut reader = std::mem::take(&mut self.tracking.pushes);
        let key_bytes_max = self.config.cache_max_key_bytes;
        let (used, reading) = reader.feed(bytes, key_bytes_max, |pushed| match pushed {
            Pushed::Key(key) => {
                let hash = self.hasher.hash(key);
                self.stats.count(Counter::Pushes);
                self.note_pushed(key, hash);
                // What a script has written is not known: its pushes come while its reply is held.
                let own = self.measures.is_own(hash, self.now) || !self.barriers.waiting.is_empty();
                let (counter, cause) = if own {
                    (Counter::PushesOwn, Cause::Own)
                } else {
                    (Counter::PushesForeign, Cause::Foreign)
                };
                self.stats.count(counter);
                self.measures.push(hash, self.now);
                self.poison_name(hash, cause);
            }
            Pushed::Everything => {
                self.stats.count(Counter::Pushes);
                self.poison_all(Flush::Pushed);
            }
        });
        self.tracking.pushes = reader;
        if reading == Reading::Bad {
            self.link_lost(id, "Redis pushed what is no invalidation");
            return None;
        }
        Some(used)
    }

    /// How often the heartbeat is.
    pub(super) fn heartbeat_pause(&self) -> Duration {
        match self.coherence {
            Coherence::Tracking => HEARTBEAT_MAX.min(self.config.staleness_bound / 3),
            _ => HEARTBEAT_MAX,
        }
    }

    /// Sends a PING on the control link and counts it.
    pub(super) fn ping(&mut self, ix: usize) -> u64 {
        let link = &self.links[ix];
        let before = link.sent_bytes + link.outbox.len() as u64;
        self.tracking.ping_sent(self.now, before);
        self.ask(ix, Purpose::Heartbeat, &[b"PING"]);
        self.tracking.newest_sent()
    }

    /// The PING that a barrier for something received just now needs: one whose first byte has not left (rule: a PING
    /// already under way never counts), else a fresh one. `None` where no barrier is to be had.
    fn barrier_ping(&mut self) -> Option<u64> {
        if self.coherence != Coherence::Tracking || *self.tracking.state() != State::On {
            return None;
        }
        let ix = self.link_index(self.upstream.control()?)?;
        if self.tracking.awaits_pong() && !self.switches.holds(Rule::BarrierNeedsFreshPing) {
            return Some(self.tracking.newest_sent());
        }
        if let Some(ping) = self.tracking.unsent_ping(self.links[ix].sent_bytes) {
            return Some(ping);
        }
        let in_flight = self.tracking.newest_sent() - self.tracking.newest_answered();
        (in_flight < PINGS_MAX).then(|| self.ping(ix))
    }

    /// Rule L10: a reply to a command that may have changed anything is held for the barrier; where none is to be had
    /// everything kept is dropped, and `false` says that the reply may go.
    pub(super) fn hold_reply(&mut self, owed: &Owed, reply: &[u8]) -> bool {
        let fits = self.barriers.bytes + reply.len() <= BARRIER_BYTES_MAX;
        let needs = if fits { self.barrier_ping() } else { None };
        let Some(needs) = needs else {
            self.poison_all(Flush::Barrier);
            return false;
        };
        self.barriers.bytes += reply.len();
        self.wait_for(needs, Waiting::Reply(owed.clone(), reply.to_vec()));
        true
    }

    /// Rule L17: a barrier for something of this size that has just arrived on an own link; its number. `None`: none is
    /// to be had.
    pub(super) fn barrier_for(&mut self, link: ConnId, bytes: usize) -> Option<u64> {
        let fits = self.barriers.bytes + bytes <= BARRIER_BYTES_MAX;
        let needs = if fits { self.barrier_ping() } else { None }?;
        self.barriers.next += 1;
        self.wait_for(needs, Waiting::Link(link, self.barriers.next));
        Some(self.barriers.next)
    }

    fn wait_for(&mut self, needs: u64, what: Waiting) {
        let rounds_left = self.upstream.barrier_rounds - 1;
        let barrier = Barrier {
            needs,
            rounds_left,
            what,
        };
        self.barriers.waiting.push_back(barrier);
        self.stats.count(Counter::Barriers);
    }

    /// Whether a reply that begins now can be held.
    pub(super) fn can_hold(&self) -> bool {
        self.coherence == Coherence::Tracking && *self.tracking.state() == State::On
    }

    /// A PONG: the lease goes on, and barriers that waited for it end or begin their second round.
    pub(super) fn pong(&mut self) {
        let Some(sent_at) = self.tracking.pong() else {
            return;
        };
        self.measures.pong(sent_at, self.now);
        self.refresh_lease();
        self.judge_checks();
        self.warm_more();
        let answered = self.tracking.newest_answered();
        while self
            .barriers
            .waiting
            .front()
            .is_some_and(|barrier| barrier.needs <= answered)
        {
            let Some(mut barrier) = self.barriers.waiting.pop_front() else {
                return;
            };
            if barrier.rounds_left > 0
                && let Some(needs) = self.barrier_ping()
            {
                barrier.needs = needs;
                barrier.rounds_left -= 1;
                self.barriers.waiting.push_back(barrier);
                continue;
            }
            if barrier.rounds_left > 0 {
                self.poison_all(Flush::Barrier);
            }
            self.let_go(barrier.what);
        }
    }

    fn let_go(&mut self, what: Waiting) {
        match what {
            Waiting::Reply(owed, reply) => {
                self.barriers.bytes -= reply.len();
                self.pass(&owed, &reply);
                self.settle_relayed(None, &owed);
            }
            Waiting::Link(link, number) => self.barrier_over(link, number),
        }
    }

    /// Rule L18: what a read that failed with `error` may be answered with instead, and for how long it has been stale.
    pub(super) fn stale_instead(
        &mut self,
        error: &FetchError,
        db: u32,
        key: &[u8],
        hash: u64,
    ) -> Option<Stale> {
        let gone = match error {
            FetchError::Unreachable(_)
            | FetchError::Lost(_)
            | FetchError::TimedOut
            | FetchError::WorkerLost => true,
            FetchError::Upstream(text) => {
                text.starts_with("LOADING") || text.starts_with("MASTERDOWN")
            }
            FetchError::QueueFull => false,
        };
        let down = self.coherence == Coherence::Tracking && *self.tracking.state() == State::Down;
        let since = if down {
            self.known_since
        } else {
            self.known_at()
        };
        let age = self.now.since(since);
        if !gone || !(down || self.has_lapsed()) || age > self.config.stale_if_error {
            return None;
        }
        let value = match self.aside.get(db, key, hash, self.now)? {
            Content::Value(value) => Some(value.value().to_vec()),
            Content::Missing => None,
            Content::TooLarge => return None,
        };
        self.stats.count(Counter::StaleHits);
        Some(Stale {
            value,
            for_secs: age.as_secs(),
        })
    }
}

/// An answer from before Redis went away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stale {
    /// The value, `None` for a key known to be missing.
    pub(super) value: Option<Vec<u8>>,
    /// How long nobody has been able to say that it still holds, in seconds.
    pub(super) for_secs: u64,
}

impl Stale {
    /// As a RESP reply.
    pub(super) fn write(&self, out: &mut Vec<u8>, version: Version) {
        match &self.value {
            Some(value) => write::bulk(out, value),
            None => write::null(out, version),
        }
    }
}
