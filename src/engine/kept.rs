//! Reads beside GET that are answered from what is kept: MGET, EXISTS, STRLEN, GETRANGE and SUBSTR.
//!
//! Rules L5 and L6 hold for them as for GET; where they are not answered here they are relayed, and leave what is kept
//! alone (L13): a hit may be older than what a relayed one has just shown. Several keys in one command are answered only as they were together at one moment (L14): all entries came
//! before the sending of a PING of the invalidation link that is answered, so whatever Redis had changed of them until
//! then has been pushed to us. Only while Redis tracks. What a command missed twice lately is fetched for the next one,
//! as if a client of ours had asked for it.
//!
//! Costs: two look-ups per key, no allocation beside the reply.
#![forbid(unsafe_code)]

use super::Engine;
use super::clients::Handled;
use super::relay::Road;
use super::resp::Judgement;
use super::switches::Rule;
use crate::cache::{Content, ValueRef};
use crate::command::KeptRead;
use crate::config::Coherence;
use crate::fetch::Name;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::{number, write};
use crate::stats::Counter;
use crate::time::Time;
use crate::tracking::State;
use std::time::Duration;

/// A command with more keys goes to Redis: it would hold up the other clients for longer than a turn should take.
const KEYS_MAX: usize = 4096;
/// At most so many of the keys that one command missed are fetched.
const AHEAD_MAX: usize = 64;
/// A key counts as missed twice when the second time is in the same span of so long as the first, or in the next one.
const SPAN: Duration = Duration::from_secs(15);
/// One bit for each key missed in a span, by its hash. Two keys with one bit are taken for one, which only fetches one
/// of them too early; after a quarter of all bits a span ends before its time, so that this is seldom.
const BITS: usize = 1 << 16;
const WORDS: usize = BITS / u64::BITS as usize;

/// Keys that were missed lately: this span's, and those of the one before. 16 KiB.
#[derive(Debug, Clone)]
pub(super) struct Missed {
    now: Box<[u64]>,
    before: Box<[u64]>,
    began: Time,
    count: usize,
}

impl Default for Missed {
    fn default() -> Missed {
        Missed {
            now: vec![0; WORDS].into(),
            before: vec![0; WORDS].into(),
            began: Time::ZERO,
            count: 0,
        }
    }
}

impl Missed {
    /// The key is missed now. Whether it was lately too; then it is forgotten, for it will be there.
    fn is_again(&mut self, hash: u64, now: Time) -> bool {
        if now >= self.began + SPAN || self.count >= BITS / 4 {
            let is_over = now >= self.began + 2 * SPAN;
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.fill(0);
            if is_over {
                self.before.fill(0);
            }
            (self.began, self.count) = (now, 0);
        }
        let at = (hash >> 32) as usize % BITS;
        let (word, bit) = (at / 64, 1u64 << (at % 64));
        let again = (self.now[word] | self.before[word]) & bit != 0;
        self.before[word] &= !bit;
        self.now[word] &= !bit;
        if !again {
            self.now[word] |= bit;
            self.count += 1;
        }
        again
    }

    /// For fingerprints: what is remembered. How long ago is left out.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, u64)> {
        let words = self.now.iter().chain(self.before.iter()).copied();
        words.enumerate().filter(|(_, word)| *word != 0)
    }
}

impl Engine {
    /// One of these reads; the hashes of its keys stand in `Engine::touch`.
    pub(super) fn kept_read(
        &mut self,
        ix: usize,
        read: KeptRead,
        request: &Request<'_>,
        judgement: Judgement,
    ) -> Handled {
        if self.answer_kept(ix, read, request) {
            self.stats.count(Counter::Hits);
            self.stats.count(Counter::OtherHits);
            return Handled::Done;
        }
        let handled = self.relay_command(ix, request, judgement, Road::Shared);
        if handled == Handled::Done && read == KeptRead::Mget {
            self.fetch_ahead(ix, request);
        }
        handled
    }

    /// Answers it from what is kept, if that may be.
    fn answer_kept(&mut self, ix: usize, read: KeptRead, request: &Request<'_>) -> bool {
        let keys = match read {
            KeptRead::Mget | KeptRead::Exists => request.argc() - 1,
            KeptRead::Strlen | KeptRead::Getrange => 1,
        };
        if self.now >= self.hits_until || keys != self.touch.len() || keys > KEYS_MAX {
            return false;
        }
        let behind = |hash: &u64| self.relayed_touches(ix, *hash);
        if self.switches.holds(Rule::RelayBehindRelayed) && self.touch.iter().any(behind) {
            return false;
        }
        let Some(reply_bytes) = self.kept_bytes(ix, request) else {
            return false;
        };
        let owed = self.clients[ix].bytes_owed();
        match read {
            KeptRead::Mget if owed + reply_bytes > self.config.outbox_max_bytes => return false,
            KeptRead::Mget => self.write_values(ix, request),
            KeptRead::Exists => self.write_count(ix, request),
            KeptRead::Strlen => self.write_length(ix, request),
            KeptRead::Getrange => return self.write_range(ix, request),
        }
        true
    }

    /// Whether all keys of the command are known here, and together (rule L14): then how long their values are as
    /// replies.
    fn kept_bytes(&self, ix: usize, request: &Request<'_>) -> Option<usize> {
        const NULL_BYTES: usize = 5;
        let db = self.clients[ix].db;
        let first = self.touch.first()?;
        let several = self.touch.iter().any(|hash| hash != first);
        if several && !self.has_snapshots() {
            return None;
        }
        let rounds = self.upstream.barrier_rounds;
        let tests = several && self.switches.holds(Rule::SettledTogether);
        let mut bytes = 0;
        for (key, hash) in request.args().skip(1).zip(&self.touch) {
            let (content, ping) = self.cache.peek_with_ping(db, key, *hash, self.now)?;
            if tests && !self.tracking.is_settled(ping, rounds) {
                return None;
            }
            bytes += match content {
                Content::Value(value) => value.reply_len(),
                Content::Missing => NULL_BYTES,
                Content::TooLarge => return None,
            };
        }
        Some(bytes)
    }

    /// Whether entries can be known to have been right at one moment.
    fn has_snapshots(&self) -> bool {
        self.coherence == Coherence::Tracking && *self.tracking.state() == State::On
    }

    fn write_values(&mut self, ix: usize, request: &Request<'_>) {
        let client = &mut self.clients[ix];
        let (db, version) = (client.db, client.version);
        let keys = request.argc() - 1;
        client.reply_with(&mut self.pool, |out| write::array_head(out, keys));
        for (key, hash) in request.args().skip(1).zip(&self.touch) {
            match self.cache.get(db, key, *hash, self.now) {
                Some(Content::Value(value)) => match value.shared() {
                    None => client.reply_with(&mut self.pool, |out| value.append_reply(out)),
                    Some(shared) => client.reply_shared(shared, 0..shared.len()),
                },
                Some(Content::Missing) => {
                    client.reply_with(&mut self.pool, |out| write::null(out, version));
                }
                Some(Content::TooLarge) | None => {
                    debug_assert!(false, "kept_bytes has seen all of them in this turn");
                }
            }
        }
    }

    fn write_count(&mut self, ix: usize, request: &Request<'_>) {
        let db = self.clients[ix].db;
        let mut count = 0;
        for (key, hash) in request.args().skip(1).zip(&self.touch) {
            let content = self.cache.get(db, key, *hash, self.now);
            count += i64::from(matches!(content, Some(Content::Value(_))));
        }
        self.clients[ix].reply_with(&mut self.pool, |out| write::integer(out, count));
    }

    /// The value of a command's only key, which becomes the most recently used. `None`: there is no such key.
    fn only_value(&mut self, ix: usize, request: &Request<'_>) -> Option<ValueRef<'_>> {
        let db = self.clients[ix].db;
        let (key, hash) = (request.args().nth(1)?, *self.touch.first()?);
        match self.cache.get(db, key, hash, self.now) {
            Some(Content::Value(value)) => Some(value),
            Some(Content::Missing | Content::TooLarge) | None => None,
        }
    }

    fn write_length(&mut self, ix: usize, request: &Request<'_>) {
        let value = self.only_value(ix, request);
        let len = value.map_or(0, |value| value.value().len());
        self.clients[ix].reply_with(&mut self.pool, |out| write::integer(out, len as i64));
    }

    /// `false`: what the two numbers are is for Redis to say.
    fn write_range(&mut self, ix: usize, request: &Request<'_>) -> bool {
        let mut numbers = request.args().skip(2).map(number::parse);
        let (Some(Some(first)), Some(Some(last))) = (numbers.next(), numbers.next()) else {
            return false;
        };
        let db = self.clients[ix].db;
        let (Some(key), Some(hash)) = (request.args().nth(1), self.touch.first().copied()) else {
            return false;
        };
        // Not `only_value`: the reply is copied from the entry itself.
        let client = &mut self.clients[ix];
        let value = match self.cache.get(db, key, hash, self.now) {
            Some(Content::Value(value)) => value.value(),
            _ => b"",
        };
        match range_of(value, first, last) {
            Some(part) => client.reply_with(&mut self.pool, |out| write::bulk(out, part)),
            None => return false,
        }
        true
    }

    /// Keys that an MGET missed, and had missed lately before, are fetched for the next one: in the background, while
    /// nobody else would have to wait for it.
    fn fetch_ahead(&mut self, ix: usize, request: &Request<'_>) {
        let keys = request.argc() - 1;
        if self.now >= self.hits_until
            || self.upstream.away().is_some()
            || self.draining
            || keys != self.touch.len()
            || keys > KEYS_MAX
        {
            return;
        }
        let db = self.clients[ix].db;
        let touch = std::mem::take(&mut self.touch);
        let mut left = AHEAD_MAX;
        for (key, hash) in request.args().skip(1).zip(&touch) {
            // Any single queue is no longer than all together.
            let busy = self.fetches.len() >= self.config.fetch_queue_max / 2;
            if left == 0 || busy {
                break;
            }
            let known = self.cache.peek(db, key, *hash, self.now).is_some()
                || self.fetches.current(db, key, *hash).is_some();
            if known
                || key.len() > self.config.cache_max_key_bytes
                || !self.is_cacheable(key)
                || !self.missed.is_again(*hash, self.now)
            {
                continue;
            }
            if !self.take_spare_place() {
                break;
            }
            let hash = *hash;
            self.begin_fetch(Name { db, key, hash }, Vec::new());
            self.stats.count(Counter::FetchedAhead);
            left -= 1;
        }
        self.touch = touch;
    }
}

/// The part of `value` that GETRANGE gives: from `first` to `last`, both counted from the end where negative. `None`
/// where servers differ: a `last` from before the beginning is the first byte up to Redis 7, later nothing.
fn range_of(value: &[u8], first: i64, last: i64) -> Option<&[u8]> {
    let len = value.len() as i64;
    if len == 0 || first < 0 && last < 0 && first > last {
        return Some(b"");
    }
    if last < -len {
        return None;
    }
    let from_start = |at: i64| if at < 0 { (at + len).max(0) } else { at };
    let (first, last) = (from_start(first), from_start(last).min(len - 1));
    if first > last {
        return Some(b"");
    }
    value.get(first as usize..=last as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_that_of_redis() {
        let check = |first, last, expected: Option<&str>| {
            assert_eq!(
                range_of(b"abcde", first, last),
                expected.map(str::as_bytes),
                "{first} {last}"
            );
        };
        check(0, -1, Some("abcde"));
        check(1, 3, Some("bcd"));
        check(-3, -2, Some("cd"));
        check(-100, 1, Some("ab"));
        check(0, 100, Some("abcde"));
        check(4, 4, Some("e"));
        check(5, 9, Some(""));
        check(3, 1, Some(""));
        check(-1, -2, Some(""));
        check(0, -5, Some("a"));
        check(0, -6, None);
        check(-9, -7, None);
        check(i64::MIN, i64::MAX, Some("abcde"));
        check(i64::MAX, i64::MIN, None);
        assert_eq!(range_of(b"", 0, -9), Some(&b""[..]));
    }

    #[test]
    fn a_key_is_missed_again_only_lately_and_then_forgotten() {
        let at = |secs: u64| Time::from_millis(secs * 1000);
        let mut missed = Missed::default();
        let hash = 0x1234_5678_0000_0007;
        assert!(!missed.is_again(hash, at(100)));
        assert!(missed.is_again(hash, at(114)));
        assert!(!missed.is_again(hash, at(114)), "it was fetched");
        assert!(missed.is_again(hash, at(128)), "in the next span");
        assert!(!missed.is_again(hash, at(129)));
        assert!(!missed.is_again(hash, at(160)), "too long ago");
    }

    #[test]
    fn many_keys_at_once_are_all_found_again_and_too_many_are_forgotten() {
        let hasher = crate::hash::KeyHasher::new([1, 2, 3, 4]);
        let hash = |n: u32| hasher.hash(&n.to_le_bytes());
        let mut missed = Missed::default();
        let now = Time::from_millis(100_000);
        let first: Vec<u32> = (0..4000)
            .filter(|n| !missed.is_again(hash(*n), now))
            .collect();
        assert!(first.len() > 3500, "few bits are shared: {}", first.len());
        let again = (0..4000).filter(|n| missed.is_again(hash(*n), now)).count();
        assert!(again > 3500, "{again}");
        assert!(!missed.is_again(hash(9999), now));
        for n in 10_000..60_000 {
            missed.is_again(hash(n), now);
        }
        assert!(
            !missed.is_again(hash(9999), now),
            "spans end when they are full"
        );
    }
}
