//! Requests of HTTP clients: `/get?key=` is a read like any other, written as HTTP.
#![forbid(unsafe_code)]

use super::clients::Handled;
use super::coherence::Stale;
use super::read::{Freshness, SHARED_BYTES_MIN, error_text};
use super::share::Share;
use super::{Engine, Port};
use crate::cache::Content;
use crate::client::{Client, CloseReason, Framing, Hold, HttpAsk, HttpWay, State};
use crate::fetch::FetchError;
use crate::hash::KeyHasher;
use crate::outbox::Pool;
use crate::protocol::http::response::{
    self, CacheStatus, DATE_BYTES, Envelope, ErrorAnswer, ValueAnswer,
};
use crate::protocol::http::route::{Manner, Policy, Route, route};
use crate::protocol::http::{IfNoneMatch, Refusal, Request, Step};
use crate::stats::Counter;
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// What HTTP says of a value beside its bytes. Found out once for each value, and remembered as its entry's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether the value is UTF-8.
    pub(super) utf8: bool,
    /// What its entity tag is made of: a hash whose two lowest bits are zero to leave room for `KNOWN` and `UTF8`.
    pub(super) etag: u64,
}

impl Facts {
    /// In a tag: the rest of it was filled in.
    const KNOWN: u64 = 1;
    /// In a tag: the value is UTF-8.
    const UTF8: u64 = 2;

    /// Looks at the value. O(its length).
    fn of(value: &[u8], hasher: &KeyHasher) -> Facts {
        Facts {
            utf8: std::str::from_utf8(value).is_ok(),
            etag: hasher.hash(value) & !(Facts::KNOWN | Facts::UTF8),
        }
    }

    /// What an entry's tag says; `None` if nobody has looked at its value.
    pub(super) fn from_tag(tag: u64) -> Option<Facts> {
        (tag & Facts::KNOWN != 0).then_some(Facts {
            utf8: tag & Facts::UTF8 != 0,
            etag: tag & !(Facts::KNOWN | Facts::UTF8),
        })
    }

    /// How an entry remembers it.
    pub(super) fn to_tag(self) -> u64 {
        self.etag | Facts::KNOWN | if self.utf8 { Facts::UTF8 } else { 0 }
    }
}

/// What writing an answer takes beside the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paper<'a> {
    pub(super) policy: &'a Policy,
    pub(super) cache_control: &'a str,
    pub(super) date: &'a [u8; DATE_BYTES],
}

impl Engine {
    /// Handles the requests at the start of `bytes`, as far as `share` goes; returns how many bytes are done with.
    pub(super) fn serve_http(&mut self, ix: usize, bytes: &[u8], share: &mut Share) -> usize {
        let Framing::Http(kept) = &mut self.clients[ix].framing else {
            return bytes.len();
        };
        let mut parser = std::mem::take(&mut **kept);
        let id = self.clients[ix].id;
        let mut at = 0;
        while at < bytes.len() && !self.is_spent(share) && !self.outbox_is_high(ix) {
            let before = parser.clone();
            match parser.next(&bytes[at..], &self.http_limits) {
                Step::More => break,
                Step::Skipped { used } => at += used,
                Step::Expect100 => self.clients[ix].reply(response::CONTINUE, &mut self.pool),
                Step::Bad { refusal, head_only } => {
                    self.stats.count(Counter::ProtocolErrors);
                    self.answer_refusal(ix, refusal, Manner::closing(head_only));
                    self.finish_client(ix, CloseReason::ProtocolError);
                    return bytes.len();
                }
                Step::Request { mut request, used } => {
                    let message = &bytes[at..at + used];
                    // The last answer says that it is the last; what was sent behind this request is answered too.
                    request.keep_alive &= !self.draining || at + used < bytes.len();
                    if self.handle_http(ix, &request, message) == Handled::Held {
                        // The same bytes are parsed again when the hold ends.
                        parser = before;
                        break;
                    }
                    at += used;
                    share.commands -= 1;
                    if self.client_index(id).is_none() || self.clients[ix].state != State::Open {
                        return bytes.len();
                    }
                    self.clients[ix].waited_in_vain = false;
                    if !request.keep_alive {
                        self.finish_client(ix, CloseReason::Asked);
                        return bytes.len();
                    }
                    if matches!(self.clients[ix].hold, Hold::Penalty | Hold::Walk) {
                        break;
                    }
                }
            }
        }
        if let Framing::Http(kept) = &mut self.clients[ix].framing {
            **kept = parser;
        }
        at
    }

    fn handle_http(&mut self, ix: usize, request: &Request<'_>, message: &[u8]) -> Handled {
        match self.clients[ix].port {
            Port::Admin => return self.handle_admin(ix, request),
            Port::Probe => return self.handle_probe(ix, request),
            Port::Http | Port::Resp => {}
        }
        let mut scratch = std::mem::take(&mut self.http_key);
        let policy = std::mem::take(&mut self.http_policy);
        let routed = route(request, &policy, &mut scratch);
        self.http_policy = policy;
        let handled = match routed {
            Route::Answer { refusal, manner } => {
                self.answer_refusal(ix, refusal, manner);
                if refusal == Refusal::Unauthorized && request.authorization.is_some() {
                    self.note_wrong_password(ix);
                }
                Handled::Done
            }
            Route::Get {
                key,
                no_cache,
                if_none_match,
                manner,
            } => {
                let (freshness, way) = if no_cache {
                    (Freshness::Forced, HttpWay::Request)
                } else {
                    (Freshness::Cached, HttpWay::Miss)
                };
                let if_none_match = if_none_match.map(|values| values.to_vec());
                if !self.demands_password() {
                    // A head that holds a password is not remembered: to compare with it would tell of it.
                    self.known_head(ix).learn(message, request, manner);
                }
                self.get(
                    ix,
                    key,
                    freshness,
                    Some(HttpAsk {
                        manner,
                        if_none_match,
                        way,
                    }),
                )
            }
        };
        self.http_key = scratch;
        handled
    }

    pub(super) fn answer_refusal(&mut self, ix: usize, refusal: Refusal, manner: Manner) {
        let (paper, pool, client) = self.paper(ix);
        let envelope = paper.envelope(manner);
        client.reply_with(pool, |out| {
            response::error(out, &ErrorAnswer::from(refusal), &envelope)
        });
    }

    /// A request head did not come in time: 408, before the close.
    pub(super) fn answer_head_timeout(&mut self, ix: usize) {
        self.answer_refusal(ix, Refusal::HeadTimeout, Manner::closing(false));
    }

    /// What writing to one client takes, borrowed apart.
    fn paper(&mut self, ix: usize) -> (Paper<'_>, &mut Pool, &mut Client) {
        let paper = Paper {
            policy: &self.http_policy,
            cache_control: &self.config.http_cache_control,
            date: &self.date,
        };
        (paper, &mut self.pool, &mut self.clients[ix])
    }

    /// An error instead of an answer, for a read that cannot be begun.
    pub(super) fn http_error_now(&mut self, ix: usize, ask: &HttpAsk, status: u16, text: &[u8]) {
        let (paper, pool, client) = self.paper(ix);
        client.reply_with(pool, |out| paper.error(out, ask, status, text));
    }

    /// An error instead of an answer, for a slot that waits.
    pub(super) fn http_error(
        &mut self,
        ix: usize,
        slot: u64,
        ask: &HttpAsk,
        status: u16,
        text: &[u8],
    ) {
        let (paper, pool, client) = self.paper(ix);
        client.fill_with(slot, pool, |out| paper.error(out, ask, status, text));
    }

    /// The answer to a read that is a hit.
    pub(super) fn http_hit(&mut self, ix: usize, ask: &HttpAsk, key: &[u8], hash: u64) {
        let (db, now) = (self.clients[ix].db, self.now);
        let paper = Paper {
            policy: &self.http_policy,
            cache_control: &self.config.http_cache_control,
            date: &self.date,
        };
        let (client, pool) = (&mut self.clients[ix], &mut self.pool);
        match self.cache.peek(db, key, hash, now) {
            Some(Content::Value(value)) => {
                let bytes = value.value();
                let known = Facts::from_tag(value.tag());
                let facts = known.unwrap_or_else(|| Facts::of(bytes, &self.hasher));
                let (status, age_secs) = hit_status(value.deadline(), value.stored_at(), now);
                let answer = paper.value(ask, facts, status, age_secs);
                let mut follows = response::Content::Absent;
                client.reply_with(pool, |out| {
                    follows = response::value_head(out, &answer, bytes.len())
                });
                match (follows, value.shared()) {
                    (response::Content::Absent, _) => {}
                    (response::Content::Follows, Some(shared)) => {
                        let start = shared.len() - 2 - bytes.len();
                        client.reply_shared(shared, start..start + bytes.len(), pool);
                    }
                    (response::Content::Follows, None) => client.reply(bytes, pool),
                }
                if known.is_none() {
                    let evicted = self.cache.set_tag(db, key, hash, facts.to_tag());
                    self.stats.add(Counter::Evictions, u64::from(evicted));
                }
            }
            Some(Content::Missing) => {
                let Some(stamp) = self.cache.stamp(db, key, hash, now) else {
                    return;
                };
                let (status, age_secs) = hit_status(stamp.deadline, stamp.stored_at, now);
                let answer = ErrorAnswer {
                    cache_status: Some(status),
                    age_secs,
                    ..Refusal::NoSuchKey.into()
                };
                client.reply_with(pool, |out| {
                    response::error(out, &answer, &paper.envelope(ask.manner))
                });
            }
            Some(Content::TooLarge) | None => debug_assert!(false, "the caller has seen an entry"),
        }
    }

    /// The answer to a read that was fetched. `facts` is what is known of the value, and is filled in when it is needed.
    pub(super) fn http_fetched(
        &mut self,
        ix: usize,
        slot: u64,
        ask: &HttpAsk,
        value: Option<&Arc<Vec<u8>>>,
        stored: bool,
        facts: &mut Option<Facts>,
    ) {
        let status = match (ask.way, stored) {
            (HttpWay::Miss, true) => CacheStatus::Stored,
            (way, _) => status_not_stored(way),
        };
        let hasher = &self.hasher;
        let facts = value.map(|value| *facts.get_or_insert_with(|| Facts::of(value, hasher)));
        let (paper, pool, client) = self.paper(ix);
        let (Some(value), Some(facts)) = (value, facts) else {
            let answer = ErrorAnswer {
                cache_status: Some(status),
                ..Refusal::NoSuchKey.into()
            };
            return client.fill_with(slot, pool, |out| {
                response::error(out, &answer, &paper.envelope(ask.manner))
            });
        };
        let answer = paper.value(ask, facts, status, None);
        let mut follows = response::Content::Absent;
        client.fill_with(slot, pool, |out| {
            follows = response::value_head(out, &answer, value.len())
        });
        match follows {
            response::Content::Absent => {}
            response::Content::Follows if value.len() >= SHARED_BYTES_MIN => {
                client.fill_shared(slot, value, pool)
            }
            response::Content::Follows => client.fill(slot, value, pool),
        }
    }

    /// Rule L18: the last known value, said to be stale.
    pub(super) fn http_stale(
        &mut self,
        ix: usize,
        slot: Option<u64>,
        ask: &HttpAsk,
        stale: &Stale,
    ) {
        let status = CacheStatus::Stale {
            for_secs: stale.for_secs,
        };
        let facts = stale
            .value
            .as_deref()
            .map(|value| Facts::of(value, &self.hasher));
        let (paper, pool, client) = self.paper(ix);
        let write = |out: &mut Vec<u8>| match &stale.value {
            Some(value) => {
                let facts = facts.expect("made of the value that is there");
                response::value(out, &paper.value(ask, facts, status, None), value);
            }
            None => {
                let answer = ErrorAnswer {
                    cache_status: Some(status),
                    ..Refusal::NoSuchKey.into()
                };
                response::error(out, &answer, &paper.envelope(ask.manner));
            }
        };
        match slot {
            Some(slot) => client.fill_with(slot, pool, write),
            None => client.reply_with(pool, write),
        }
    }

    /// The answer to a read that was relayed: `reply` is Redis's reply to GET, in RESP2.
    pub(super) fn http_relayed(&mut self, ix: usize, slot: u64, ask: &HttpAsk, reply: &[u8]) {
        match bulk_in(reply) {
            Some(value) => {
                let value = value.map(|value| Arc::new(value.to_vec()));
                self.http_fetched(ix, slot, ask, value.as_ref(), false, &mut None);
            }
            None => {
                let text = reply.strip_prefix(b"-").unwrap_or(reply).trim_ascii_end();
                self.http_error(ix, slot, ask, response::status_for_redis_error(text), text);
            }
        }
    }

    /// The head of the answer with a value that is passed on as it comes: nothing is known of it but its length. Whether
    /// the value follows.
    pub(super) fn http_long_value(
        &mut self,
        ix: usize,
        slot: u64,
        ask: &HttpAsk,
        value_bytes: u64,
    ) -> bool {
        let unknown = Facts {
            utf8: false,
            etag: 0,
        };
        let (paper, pool, client) = self.paper(ix);
        let answer = ValueAnswer {
            etag: None,
            ..paper.value(ask, unknown, status_not_stored(ask.way), None)
        };
        let mut follows = response::Content::Absent;
        let value_bytes = usize::try_from(value_bytes).unwrap_or(usize::MAX);
        client.fill_with(slot, pool, |out| {
            follows = response::value_head(out, &answer, value_bytes)
        });
        follows == response::Content::Follows
    }

    pub(super) fn http_fetch_error(
        &mut self,
        ix: usize,
        slot: Option<u64>,
        ask: &HttpAsk,
        error: &FetchError,
    ) {
        let text = error_text(error);
        let status = status_of(error);
        let body = text
            .strip_prefix("ERR nearcache: ")
            .unwrap_or(&text)
            .as_bytes();
        match slot {
            Some(slot) => self.http_error(ix, slot, ask, status, body),
            None => self.http_error_now(ix, ask, status, body),
        }
    }
}

impl Paper<'_> {
    fn envelope(&self, manner: Manner) -> Envelope<'_> {
        Envelope {
            manner,
            allow_origin: self.policy.allow_origin(manner.grant),
            date: self.date,
        }
    }

    fn value<'a>(
        &'a self,
        ask: &'a HttpAsk,
        facts: Facts,
        status: CacheStatus,
        age_secs: Option<u64>,
    ) -> ValueAnswer<'a> {
        ValueAnswer {
            envelope: self.envelope(ask.manner),
            utf8: facts.utf8,
            etag: Some(facts.etag),
            if_none_match: ask.if_none_match.as_deref().map(IfNoneMatch::of_value),
            cache_status: status,
            age_secs,
            cache_control: self.cache_control,
        }
    }

    fn error(&self, out: &mut Vec<u8>, ask: &HttpAsk, status: u16, text: &[u8]) {
        let answer = ErrorAnswer {
            retry_after_secs: (status == 503).then_some(1),
            cache_status: Some(status_not_stored(ask.way)),
            ..ErrorAnswer::new(status, text)
        };
        response::error(out, &answer, &self.envelope(ask.manner));
    }
}

/// How the cache took part in an answer that is not kept.
fn status_not_stored(way: HttpWay) -> CacheStatus {
    match way {
        HttpWay::Miss => CacheStatus::NotStored,
        HttpWay::Request => CacheStatus::Forced,
        HttpWay::Collapsed => CacheStatus::Collapsed,
        HttpWay::Bypass => CacheStatus::Bypass,
    }
}

/// How long an entry goes on to live. The cache keeps deadlines rounded down to 1.024 ms, which must not show as a second.
#[inline]
pub(super) fn ttl_secs(deadline: Time, now: Time) -> u64 {
    const ROUNDING: Duration = Duration::from_micros(1023);
    (deadline + ROUNDING).since(now).as_secs()
}

/// How the cache took part in a hit, and how old the answer is.
fn hit_status(deadline: Time, stored_at: Time, now: Time) -> (CacheStatus, Option<u64>) {
    let ttl_secs = ttl_secs(deadline, now);
    let status = CacheStatus::Hit { ttl_secs };
    (status, Some(now.since(stored_at).as_secs()))
}

/// 503: Redis cannot be asked now; 504: it was asked and did not answer in time; else as Redis's error says.
fn status_of(error: &FetchError) -> u16 {
    match error {
        FetchError::Upstream(text) => response::status_for_redis_error(text.as_bytes()),
        FetchError::TimedOut => 504,
        FetchError::Unreachable(_)
        | FetchError::Lost(_)
        | FetchError::QueueFull
        | FetchError::WorkerLost => 503,
    }
}

/// The value of a bulk reply in RESP2, `Some(None)` for nil; `None` for an error.
fn bulk_in(reply: &[u8]) -> Option<Option<&[u8]>> {
    if !reply.starts_with(b"$") {
        return None;
    }
    if reply.starts_with(b"$-1") {
        return Some(None);
    }
    let head = reply.iter().position(|byte| *byte == b'\n')?;
    reply.get(head + 1..reply.len().checked_sub(2)?).map(Some)
}

#[cfg(test)]
mod tests;
