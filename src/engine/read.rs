//! Cacheable reads: hit, join or fetch (rules L2, L3, L5 and L6), and what a finished fetch leaves.
#![forbid(unsafe_code)]

use super::access::Road;
use super::admission::Admit;
use super::clients::Handled;
use super::coherence::Stale;
use super::http::Facts;
use super::relay::Length;
use super::switches::Rule;
use super::timers::Timer;
use super::{ConnId, Engine, Output, Outstanding};
use crate::cache::{Content, NewContent, Put};
use crate::client::{CloseReason, Hold, HttpAsk, HttpWay, Render};
use crate::config::{Coherence, UpstreamLost};
use crate::fetch::{FetchError, FetchId, Fetched, Flight, Job, Mark, Name, Waiter, waited_longest};
use crate::prefix::Keep;
use crate::protocol::resp::write;
use crate::stats::Counter;
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// From this size on a value is sent by reference instead of being copied for each of its readers.
pub(super) const SHARED_BYTES_MIN: usize = 8 * 1024;

/// Whether a read may be answered from what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// A hit or a join will do.
    Cached,
    /// The reader wants Redis to be asked now (`Cache-Control: no-cache`).
    Forced,
}

/// A read of one key by a client.
#[derive(Debug)]
pub(super) struct Read<'k> {
    pub(super) key: &'k [u8],
    pub(super) hash: u64,
    pub(super) freshness: Freshness,
    /// How an HTTP client wants the answer; `None` for RESP.
    pub(super) http: Option<HttpAsk>,
}

impl Engine {
    /// Rule L5: whether an outstanding relayed command of this client may touch the key.
    pub(super) fn relayed_touches(&self, ix: usize, hash: u64) -> bool {
        let client = &self.clients[ix];
        client.relayed > 0
            && ((client.relayed_all > 0 && self.switches.holds(Rule::ScriptsTouchAll))
                || self
                    .outstanding
                    .get(&(client.id.packed(), hash))
                    .is_some_and(|counts| counts.relayed > 0))
    }

    /// A GET of one key. Rule L5 has been looked at before: nothing outstanding of this client touches the key.
    pub(super) fn read(&mut self, ix: usize, read: Read<'_>) -> Handled {
        let db = self.clients[ix].db;
        if self.ghost.follows(read.hash) {
            self.ghost.note(read.hash, self.now);
        }
        if read.freshness == Freshness::Cached {
            let usable = self.now < self.hits_until;
            match self.cache.get(db, read.key, read.hash, self.now) {
                Some(Content::TooLarge) => return self.relay_read(ix, read, Length::Long),
                Some(_) if usable => {
                    self.stats.count(Counter::Hits);
                    if self.stats.get(Counter::Hits) >= self.sample_due {
                        let number = self.stats.get(Counter::Hits);
                        self.sample_hit(ix, db, read.key, read.hash, number);
                    }
                    self.answer_hit(ix, &read);
                    return Handled::Done;
                }
                // The lease has lapsed: Redis is asked, though what is kept may still be right.
                Some(_) | None => {}
            }
            if let Some(id) = self.fetches.current(db, read.key, read.hash)
                && self.may_join(id)
            {
                return self.join(ix, id, read);
            }
        }
        if read.key.len() > self.config.cache_max_key_bytes {
            return self.relay_read(ix, read, Length::Unknown);
        }
        self.start_fetch(ix, read)
    }

    /// Writes what is kept under the key to the client. It is kept: the caller has just seen it.
    fn answer_hit(&mut self, ix: usize, read: &Read<'_>) {
        if let Some(ask) = &read.http {
            return self.http_hit(ix, ask, read.key, read.hash);
        }
        let client = &mut self.clients[ix];
        let Some(content) = self.cache.peek(client.db, read.key, read.hash, self.now) else {
            return;
        };
        match content {
            Content::Value(value) => match value.shared() {
                Some(shared) => client.reply_shared(shared, 0..shared.len(), &mut self.pool),
                None => client.reply_with(&mut self.pool, |out| value.append_reply(out)),
            },
            Content::Missing => {
                let version = client.version;
                client.reply_with(&mut self.pool, |out| write::null(out, version));
            }
            Content::TooLarge => {}
        }
    }

    /// A fetch that is older than an entry may become is not joined: its value could be too old when it comes.
    fn may_join(&self, id: FetchId) -> bool {
        if !self.switches.holds(Rule::JoinOnlyYoung) {
            return true;
        }
        self.fetches
            .dispatched(id)
            .is_some_and(|dispatched| self.now < dispatched + self.lifetime_max())
    }

    fn join(&mut self, ix: usize, id: FetchId, read: Read<'_>) -> Handled {
        let waiter = self.owe_fetch(
            ix,
            read.hash,
            read.http.map(|ask| HttpAsk {
                way: HttpWay::Collapsed,
                ..ask
            }),
        );
        self.access_begins(ix, Road::Join, waiter.slot, read.key);
        self.fetches.join(id, waiter);
        self.stats.count(Counter::Joined);
        Handled::Done
    }

    fn start_fetch(&mut self, ix: usize, read: Read<'_>) -> Handled {
        if let Some(why) = self.upstream.away() {
            let error = FetchError::Unreachable(why.to_owned());
            let client = &self.clients[ix];
            let (id, db) = (client.id.packed(), client.db);
            // A fetch of the client's own that is under way may still bring something newer, for an earlier reply.
            let fetching = self
                .outstanding
                .get(&(id, read.hash))
                .is_some_and(|counts| counts.fetching > 0);
            let stale = if fetching {
                None
            } else {
                self.stale_instead(&error, db, read.key, read.hash)
            };
            match stale {
                Some(stale) => self.answer_stale_now(ix, read.http.as_ref(), &stale),
                None => self.answer_error_now(ix, read.http.as_ref(), &error),
            }
            return Handled::Done;
        }
        match self.admit(ix) {
            Admit::Granted => {}
            Admit::Queued => return Handled::Held,
            Admit::Refused => {
                self.answer_error_now(ix, read.http.as_ref(), &FetchError::QueueFull);
                return Handled::Done;
            }
        }
        let name = Name {
            db: self.clients[ix].db,
            key: read.key,
            hash: read.hash,
        };
        let waiter = self.owe_fetch(ix, read.hash, read.http);
        self.access_begins(ix, Road::Miss, waiter.slot, name.key);
        self.begin_fetch(name, vec![waiter]);
        self.note_miss(name.db, name.key, name.hash);
        self.stats.count(Counter::Misses);
        Handled::Done
    }

    /// Hands a fetch to its worker. Its place among those that may be under way is taken.
    pub(super) fn begin_fetch(&mut self, name: Name<'_>, waiters: Vec<Waiter>) {
        let Name { db, key, hash } = name;
        // Rule L2: what is kept goes, so that nobody is answered from before this fetch while it is under way.
        if self.switches.holds(Rule::RemoveAtStart) {
            if self.puts_aside() {
                self.aside.put_lapsed(&self.cache, db, key, hash, self.now);
            }
            self.cache.remove(db, key, hash);
        }
        let timer = self.timers.set(
            self.now + self.config.redis_timeout,
            Timer::Fetch(self.fetches.next_id()),
        );
        let keeps = self.keeps() || !self.switches.holds(Rule::NoMarkWhileDown);
        let mark = if keeps { Mark::Set } else { Mark::None };
        let id = self.fetches.start(name, mark, self.now, timer, waiters);
        self.outputs.push_back(Output::Submit(Job {
            id,
            worker: self.worker_of(hash),
            db,
            key: key.to_vec(),
            dispatched: self.now,
        }));
    }

    /// Rule L1: all fetches of a key are in one queue.
    pub(super) fn worker_of(&self, hash: u64) -> usize {
        (hash % self.config.redis_workers.max(1) as u64) as usize
    }

    fn owe_fetch(&mut self, ix: usize, hash: u64, http: Option<HttpAsk>) -> Waiter {
        let client = &mut self.clients[ix];
        let render = match http {
            Some(ask) => Render::Http(Box::new(ask)),
            None => Render::Resp(client.version),
        };
        let slot = client.owe(Some(render));
        client.fetching += 1;
        self.outstanding
            .entry((client.id.packed(), hash))
            .or_default()
            .fetching += 1;
        Waiter {
            client: client.id,
            slot,
        }
    }

    /// The deadline of a fetch. While Redis answers PINGs what is missing is under way: a large value, or what waits behind
    /// one. Then the worker knows better: it gives up as soon as no byte has come for as long as that.
    pub(super) fn fetch_is_due(&mut self, id: FetchId) {
        self.fetches.set_timer(id, None);
        let Some(dispatched) = self.fetches.dispatched(id) else {
            debug_assert!(false, "what has ended has no timer left");
            return;
        };
        let timeout = self.config.redis_timeout;
        let last = waited_longest(dispatched, timeout);
        let lately = timeout.max(self.config.staleness_bound);
        let heard = self.tracking.fresh_at();
        let heard = heard.is_some_and(|at| self.now < at + lately);
        if !heard || self.now >= last || self.upstream.away().is_some() {
            return self.fetch_completed(id, Err(FetchError::TimedOut));
        }
        let timer = self
            .timers
            .set(last.min(self.now + timeout), Timer::Fetch(id));
        self.fetches.set_timer(id, Some(timer));
    }

    /// The end of a fetch: it is kept if it may be, its waiters are answered.
    pub(super) fn fetch_completed(&mut self, id: FetchId, result: Result<Fetched, FetchError>) {
        let Some((mut flight, current)) = self.fetches.finish(id) else {
            return;
        };
        if let Some(timer) = flight.timer {
            self.timers.cancel(timer);
        }
        let waiters = std::mem::take(&mut flight.waiters);
        match result {
            Ok(fetched) => {
                if !waiters.is_empty() {
                    self.insight.miss.record(self.now.since(flight.dispatched));
                }
                // Rule L18: what waits aside is older than what was just read.
                if self.switches.holds(Rule::SuccessDropsStale) {
                    self.aside.remove(flight.db, &flight.key, flight.hash);
                }
                let stored = self.keep(&flight, current, &fetched);
                let value = fetched.value.map(Arc::new);
                let mut facts = None;
                for waiter in waiters {
                    self.answer_value(waiter, flight.hash, value.as_ref(), stored, &mut facts);
                }
                if let (Some(facts), true) = (facts, stored) {
                    let (key, tag) = (&flight.key, facts.to_tag());
                    let evicted = self.cache.set_tag(flight.db, key, flight.hash, tag);
                    self.stats.add(Counter::Evictions, u64::from(evicted));
                }
                self.release_place();
                self.warm_completed(id, &flight, None);
            }
            Err(error) => {
                self.stats.count(Counter::FetchErrors);
                self.insight.note_fetch_error(&error);
                let stale = self.stale_instead(&error, flight.db, &flight.key, flight.hash);
                for waiter in waiters {
                    match &stale {
                        Some(stale) => self.answer_stale(waiter, flight.hash, stale),
                        None => self.answer_error(waiter, flight.hash, &error),
                    }
                }
                self.release_place();
                self.warm_completed(id, &flight, Some(&error));
            }
        }
    }

    /// Rule L3: keeps what a fetch brought if the key's mark was still its own. Says whether a later read will hit.
    fn keep(&mut self, flight: &Flight, current: bool, fetched: &Fetched) -> bool {
        if !current && self.switches.holds(Rule::MarkIdentity) {
            self.stats.count(Counter::FetchVoided);
            return false;
        }
        if self.coherence == Coherence::Tracking
            && fetched.run_id != self.upstream.run_id
            && self.switches.holds(Rule::SameServer)
        {
            // Another server's data: nobody would tell us of its changes.
            self.stats.count(Counter::FetchVoided);
            self.upstream_differs();
            return false;
        }
        let since = if self.switches.holds(Rule::AgeFromDispatch) {
            flight.dispatched
        } else {
            self.now
        };
        let Some(deadline) = self.deadline(&flight.key, since, fetched) else {
            return false;
        };
        let content = match &fetched.value {
            None => NewContent::Missing,
            Some(value) if value.len() > self.config.cache_max_value_bytes => {
                self.stats.count(Counter::TooLarge);
                NewContent::TooLarge
            }
            Some(value) => NewContent::Value(value),
        };
        let put = Put {
            db: flight.db,
            key: &flight.key,
            hash: flight.hash,
            content,
            stored_at: flight.dispatched,
            deadline,
            tag: 0,
            ping: self.tracking.newest_sent() as u16,
        };
        let stored = self.cache.put(put, self.now);
        self.ghost.fetched(flight.hash, deadline);
        if self.cache.bytes() + self.aside.bytes_lapsed() > self.cache.limits().bytes_max {
            self.aside.clear_lapsed();
        }
        self.stats
            .add(Counter::Evictions, u64::from(stored.evicted));
        stored.kept && !matches!(content, NewContent::TooLarge)
    }

    /// Until when the result may be kept: from dispatch, so that it never outlives what Redis said, capped by the
    /// global time to live less a jitter, so that hot keys do not all come to an end together.
    fn deadline(&mut self, key: &[u8], dispatched: Time, fetched: &Fetched) -> Option<Time> {
        let by_rule = match self.prefixes.find(key) {
            Keep::Yes => self.lifetime_max(),
            Keep::AtMost(ttl) => ttl.min(self.lifetime_max()),
            Keep::No => return None,
        };
        let cap = match &fetched.value {
            Some(_) => by_rule,
            None => self.config.cache_negative_ttl.min(by_rule),
        };
        let lifetime = match (&fetched.value, fetched.pttl_ms?) {
            (None, -2) => cap,
            (Some(_), -1) => cap,
            (Some(_), ms) if ms >= 0 => cap.min(Duration::from_millis(ms.unsigned_abs())),
            // GET and PTTL saw different things: the key changed between them.
            _ => return None,
        };
        let jitter = if lifetime == cap {
            self.random() % 1024 * (cap.as_micros() as u64 / 10) / 1024
        } else {
            0
        };
        let lifetime = lifetime - Duration::from_micros(jitter);
        (!lifetime.is_zero()).then_some(dispatched + lifetime)
    }

    /// The waiter's fetch is over, as far as the counts go. `None` when the client is gone.
    fn settle_waiter(&mut self, waiter: Waiter, hash: u64) -> Option<usize> {
        self.uncount(waiter.client, hash, |counts| counts.fetching -= 1);
        let ix = self.client_index(waiter.client)?;
        self.clients[ix].fetching -= 1;
        Some(ix)
    }

    fn answer_value(
        &mut self,
        waiter: Waiter,
        hash: u64,
        value: Option<&Arc<Vec<u8>>>,
        stored: bool,
        facts: &mut Option<Facts>,
    ) {
        let Some(ix) = self.settle_waiter(waiter, hash) else {
            return;
        };
        let slot = waiter.slot;
        let render = self.clients[ix].render(slot).cloned();
        let client = &mut self.clients[ix];
        match render {
            Some(Render::Http(ask)) => self.http_fetched(ix, slot, &ask, value, stored, facts),
            Some(Render::Resp(version)) => match value {
                None => client.fill_with(slot, &mut self.pool, |out| write::null(out, version)),
                Some(value) if value.len() >= SHARED_BYTES_MIN => {
                    client.fill_with(slot, &mut self.pool, |out| {
                        write::bulk_head(out, value.len())
                    });
                    client.fill_shared(slot, value, &mut self.pool);
                    client.fill(slot, b"\r\n", &mut self.pool);
                }
                Some(value) => {
                    client.fill_with(slot, &mut self.pool, |out| write::bulk(out, value))
                }
            },
            None => debug_assert!(
                false,
                "a slot that waits for a fetch knows how to be written"
            ),
        }
        let value_bytes = value.map_or(0, |value| value.len());
        if self.access.is_waiting() {
            let status = if value.is_some() { "ok" } else { "missing" };
            self.access_found(waiter.client, slot, status, value_bytes);
        }
        self.end_wait(ix, slot, value_bytes);
    }

    fn answer_error(&mut self, waiter: Waiter, hash: u64, error: &FetchError) {
        let Some(ix) = self.settle_waiter(waiter, hash) else {
            return;
        };
        let slot = waiter.slot;
        if self.access.is_waiting() {
            self.access_found(waiter.client, slot, "error", 0);
        }
        match self.clients[ix].render(slot).cloned() {
            Some(Render::Http(ask)) => self.http_fetch_error(ix, Some(slot), &ask, error),
            _ if matches!(error, FetchError::Lost(_) | FetchError::Unreachable(_))
                && self.config.upstream_lost == UpstreamLost::Close =>
            {
                self.cut_client(ix, slot)
            }
            _ => self.clients[ix].fill_with(slot, &mut self.pool, |out| {
                write::error(out, error_text(error).as_bytes())
            }),
        }
        self.end_wait(ix, slot, 0);
    }

    /// Rule L18: the last known value instead of an error.
    fn answer_stale(&mut self, waiter: Waiter, hash: u64, stale: &Stale) {
        let Some(ix) = self.settle_waiter(waiter, hash) else {
            return;
        };
        let slot = waiter.slot;
        if self.access.is_waiting() {
            self.access_found(waiter.client, slot, "stale", 0);
        }
        match self.clients[ix].render(slot).cloned() {
            Some(Render::Http(ask)) => self.http_stale(ix, Some(slot), &ask, stale),
            Some(Render::Resp(version)) => {
                self.clients[ix].fill_with(slot, &mut self.pool, |out| stale.write(out, version));
            }
            None => debug_assert!(
                false,
                "a slot that waits for a fetch knows how to be written"
            ),
        }
        self.end_wait(ix, slot, 0);
    }

    fn answer_stale_now(&mut self, ix: usize, http: Option<&HttpAsk>, stale: &Stale) {
        if let Some(ask) = http {
            return self.http_stale(ix, None, ask, stale);
        }
        let client = &mut self.clients[ix];
        let version = client.version;
        client.reply_with(&mut self.pool, |out| stale.write(out, version));
    }

    fn end_wait(&mut self, ix: usize, slot: u64, value_bytes: usize) {
        if self.access.is_waiting() {
            self.access_ends(self.clients[ix].id, slot);
        }
        self.reply_is_ready(ix, slot);
        self.clients[ix].finish_slot(slot, &mut self.pool);
        self.unhold(ix, Hold::OwnFetch);
        self.after_large_reply(ix, value_bytes);
    }

    /// Answers a read that cannot even be begun, in the order of the client's replies.
    fn answer_error_now(&mut self, ix: usize, http: Option<&HttpAsk>, error: &FetchError) {
        self.stats.count(Counter::FetchErrors);
        self.insight.note_fetch_error(error);
        match http {
            Some(ask) => self.http_fetch_error(ix, None, ask, error),
            None if matches!(error, FetchError::Unreachable(_))
                && self.config.upstream_lost == UpstreamLost::Close =>
            {
                self.finish_client(ix, CloseReason::UpstreamLost)
            }
            None => self.clients[ix].reply_with(&mut self.pool, |out| {
                write::error(out, error_text(error).as_bytes())
            }),
        }
    }

    /// One command fewer of this client touches the key.
    pub(super) fn uncount(
        &mut self,
        client: ConnId,
        hash: u64,
        change: impl FnOnce(&mut Outstanding),
    ) {
        if let std::collections::hash_map::Entry::Occupied(mut entry) =
            self.outstanding.entry((client.packed(), hash))
        {
            change(entry.get_mut());
            if *entry.get() == Outstanding::default() {
                entry.remove();
            }
        } else {
            debug_assert!(false, "what is uncounted was counted");
        }
    }
}

/// What a RESP client is told; an HTTP client gets the same words with a status.
pub(super) fn error_text(error: &FetchError) -> String {
    match error {
        FetchError::Upstream(text) => text.clone(),
        FetchError::Unreachable(why) | FetchError::Lost(why) => {
            format!("ERR nearcache: Redis is not reachable: {why}")
        }
        FetchError::TimedOut => "ERR nearcache: Redis did not answer in time".to_owned(),
        FetchError::QueueFull => "ERR nearcache: too many requests at the same time".to_owned(),
        FetchError::WorkerLost => "ERR nearcache: the worker failed; try again".to_owned(),
    }
}
