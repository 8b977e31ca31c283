//! The cache: entries by database and key, strictly least recently used first out, each with a deadline.
//!
//! It owns what it keeps and decides only what leaves: by time (expired), for room (evicted), when told (removed). It
//! never reads the clock, never hashes (the hash of the key's *name* comes with each call, computed once per request),
//! never speaks to Redis, and never answers with an entry whose deadline has passed, whether or not the timers have
//! come by. `arena.rs` holds the slots, `index.rs` finds them, `lru.rs` orders them, `wheel.rs` expires them, all
//! linked through the one slot an entry has; `leaving.rs` frees what takes time, `entry.rs` is what comes in and out.
//!
//! Invariant: the same entries are in the index, in the recency list and in the wheel; there are at most `keys_max` of
//! them; and their costs, with what is lent, are at most `bytes_max`.
//!
//! What counts as bytes: an entry costs its slot, its share of the index and its allocations as the allocator rounds
//! them: 84 bytes beyond a key of 16 and a value of 64. Two things beside the entries use memory (`leaving.rs`):
//! - *Lent replies.* A value of [`SHARED_VALUE_BYTES_MIN`] or more is counted ([`ValueRef::shared`]); when its entry
//!   goes while an outbox still holds it, its bytes stay in the budget until the last holder has dropped it, as noticed
//!   by the next `advance`, or by the next `put` that needs room. (Clones of the whole cache count as holders.)
//! - *Rubble.* [`Cache::clear`] frees nothing at once: the old tables wait and are taken apart by `advance`, and by each
//!   `put` to the extent of what it adds. So with them memory never exceeds the budget that the old entries were in.
//!
//! Vacant slots stay for reuse, 68 bytes for each of the most entries there ever were, until a `clear`.
//!
//! Costs: `get`, `peek`, `put` without eviction, `remove` O(1); a hit takes about 90 instructions, allocates nothing and
//! writes at most four slots. `put` frees as many entries as its bytes need; `advance` at most its budget.
#![forbid(unsafe_code)]

mod arena;
mod entry;
mod index;
mod leaving;
mod lru;

use crate::time::Time;
use crate::wheel::{Links, Rings};
use arena::{Block, ENTRY_COST_MIN, NONE, Slot, Slots};
pub use arena::{DB_MAX, KEY_BYTES_MAX, SHARED_VALUE_BYTES_MIN, SharedReply};
pub use entry::{Content, NewContent, Put, Stamp, ValueRef};
use index::Index;
use leaving::Leaving;
use lru::Lru;

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries, of all contents.
    pub keys_max: usize,
    /// Bytes that the entries cost, see the module's documentation.
    pub bytes_max: usize,
}

/// What [`Cache::put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Whether the entry is there now. If not, nothing is under its name.
    pub kept: bool,
    /// How many other entries left for room.
    pub evicted: u32,
}

/// What [`Cache::advance`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// How many entries expired.
    pub count: usize,
    /// The budget ran out first: call again next turn, without waiting.
    pub more: bool,
}

/// The entries. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Cache {
    slots: Slots,
    index: Index,
    lru: Lru,
    rings: Rings,
    limits: Limits,
    len: usize,
    /// The cost of all entries.
    entry_bytes: usize,
    leaving: Leaving,
}

impl Cache {
    /// An empty cache; `start` is the present instant.
    pub fn new(limits: Limits, start: Time) -> Cache {
        let limits = bounded(limits);
        let room = room_for(limits);
        Cache {
            slots: Slots::new(room),
            index: Index::new(room),
            lru: Lru::EMPTY,
            rings: Rings::new(start),
            limits,
            len: 0,
            entry_bytes: 0,
            leaving: Leaving::default(),
        }
    }

    /// What is known of `key`, which becomes the most recently used. An entry at or past its deadline is removed.
    // Always inlined: a call would cost a third more, in saved registers and a result that goes through memory.
    #[inline(always)]
    pub fn get(&mut self, db: u32, key: &[u8], hash: u64, now: Time) -> Option<Content<'_>> {
        let id = self.find(db, key, hash)?;
        if self.slots.at(id).deadline <= now {
            self.drop_expired(id);
            return None;
        }
        self.lru.touch(&mut self.slots, id);
        Some(self.slots.at(id).content(now))
    }

    /// What is known of `key`, without a use of it.
    pub fn peek(&self, db: u32, key: &[u8], hash: u64, now: Time) -> Option<Content<'_>> {
        let slot = self.slots.at(self.find(db, key, hash)?);
        (slot.deadline > now).then(|| slot.content(now))
    }

    /// When and as what the entry of `key` was put, whatever its content. Not a use of it.
    pub fn stamp(&self, db: u32, key: &[u8], hash: u64, now: Time) -> Option<Stamp> {
        let slot = self.slots.at(self.find(db, key, hash)?);
        (slot.deadline > now).then(|| slot.stamp(now))
    }

    /// Keeps an entry in place of an earlier one and makes it the most recently used; the least recently used leave
    /// until both limits hold. Not kept, and any earlier one removed, when its deadline has passed, when it alone (with
    /// what is lent) exceeds a limit, or when [`DB_MAX`] or [`KEY_BYTES_MAX`] does not allow it.
    pub fn put(&mut self, put: Put<'_>, now: Time) -> Stored {
        let Put {
            db,
            key,
            hash,
            content,
            stored_at,
            deadline,
            tag,
        } = put;
        let old = self.find(db, key, hash);
        let cost = arena::cost_of(key.len(), &content);
        let name = arena::name_of(db, key.len(), hash);
        let (Some(name), true) = (name, cost <= self.limits.bytes_max && deadline > now) else {
            if let Some(id) = old {
                self.take_out(id);
            }
            return Stored {
                kept: false,
                evicted: 0,
            };
        };
        self.leaving.free_bytes(cost);
        let block = Block::new(key, &content);
        let stored = (stored_at.min(now).micros() >> 10) as u32;
        let id = match old {
            Some(id) => {
                self.rings.cancel(&mut self.slots, id);
                let slot = self.slots.at_mut(id);
                let old_cost = slot.cost();
                let old_block = std::mem::replace(&mut slot.block, block);
                (slot.deadline, slot.stored, slot.tag) = (deadline, stored, tag);
                self.entry_bytes -= old_cost;
                self.leaving.retire(old_block);
                self.lru.touch(&mut self.slots, id);
                id
            }
            None => {
                let (chain, newer, older, timer) = (NONE, NONE, NONE, Links::UNLINKED);
                let id = self.slots.insert(Slot {
                    name,
                    block,
                    deadline,
                    chain,
                    newer,
                    older,
                    stored,
                    timer,
                    tag,
                });
                self.len += 1;
                self.index.insert(&mut self.slots, id, self.len);
                self.lru.push(&mut self.slots, id);
                id
            }
        };
        self.entry_bytes += cost;
        self.rings.schedule(&mut self.slots, id);
        let evicted = self.make_room();
        if self.lru.newest == id {
            Stored {
                kept: true,
                evicted,
            }
        } else {
            // Even alone it did not fit beside what is lent: it was the last to be evicted.
            Stored {
                kept: false,
                evicted: evicted - 1,
            }
        }
    }

    /// Removes the entry of `key`; whether there was one (expired or not).
    pub fn remove(&mut self, db: u32, key: &[u8], hash: u64) -> bool {
        let found = self.find(db, key, hash);
        if let Some(id) = found {
            self.take_out(id);
        }
        found.is_some()
    }

    /// Removes every entry whose key has this hash, in every database, in one walk, and counts them. Looks at the 32
    /// bits of the hash that are stored: with a million entries, one call in 4000 also drops an innocent one.
    pub fn remove_name(&mut self, hash: u64) -> usize {
        let mut removed = 0;
        let mut id = self.index.first(hash as u32);
        while let Some(slot) = self.slots.get(id) {
            let next = slot.chain;
            if slot.hash() == hash as u32 {
                self.take_out(id);
                removed += 1;
            }
            id = next;
        }
        removed
    }

    /// Removes everything, in O(1): see *rubble* in the module's documentation.
    pub fn clear(&mut self) {
        if self.len == 0 {
            return;
        }
        let room = room_for(self.limits);
        let slots = std::mem::replace(&mut self.slots, Slots::new(room));
        let index = std::mem::replace(&mut self.index, Index::new(room));
        self.leaving
            .put_down(slots.into_slots(), index.into_heads());
        self.lru = Lru::EMPTY;
        self.rings.forget();
        self.len = 0;
        self.entry_bytes = 0;
    }

    /// Frees what has expired at `now`, and what `clear` left, in at most `budget` steps.
    pub fn advance(&mut self, now: Time, budget: usize) -> Expired {
        let mut left = budget;
        let mut count = 0;
        while let Some(id) = self.rings.pop_due(&mut self.slots, now, &mut left) {
            self.take_out(id);
            count += 1;
        }
        self.leaving.sweep();
        while left > 0 && self.leaving.free_slot().is_some() {
            left -= 1;
        }
        Expired {
            count,
            more: self.leaving.has_rubble() || self.rings.is_due(now),
        }
    }

    /// When to call [`Cache::advance`] next; in the past when it has work already.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.leaving.has_rubble() {
            Some(Time::ZERO)
        } else {
            self.rings.next_deadline()
        }
    }

    /// How many entries there are; those that expired but were not met since are counted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the entries cost, and what is lent.
    pub fn bytes(&self) -> usize {
        self.entry_bytes + self.leaving.lent_bytes()
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Puts other limits in force; returns how many entries had to leave. They leave at once, and so does all rubble:
    /// this is for a rare reload, not for a busy turn.
    pub fn set_limits(&mut self, limits: Limits) -> u32 {
        self.limits = bounded(limits);
        self.leaving.free_bytes(usize::MAX);
        self.make_room()
    }

    /// Database and key of every entry, most recently used first.
    pub fn iter_recent(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut id = self.lru.newest;
        std::iter::from_fn(move || {
            let slot = self.slots.get(id)?;
            id = slot.older;
            Some((slot.db(), slot.key()))
        })
    }

    /// What an entry with such a key and content would add to [`Cache::bytes`].
    pub fn cost(key_len: usize, content: &NewContent<'_>) -> usize {
        arena::cost_of(key_len, content)
    }

    /// Walks everything and panics where an invariant does not hold.
    pub fn check(&self) {
        self.slots.check(self.len);
        self.index.check(&self.slots, self.len);
        self.lru.check(&self.slots, self.len);
        self.rings.check(&self.slots);
        assert_eq!(self.rings.len(), self.len, "every entry is timed");
        let mut bytes = 0;
        let mut id = self.lru.newest;
        while let Some(slot) = self.slots.get(id) {
            let hash = u64::from(slot.hash());
            assert_eq!(
                self.find(slot.db(), slot.key(), hash),
                Some(id),
                "slot {id} is not what its key finds"
            );
            bytes += slot.cost();
            id = slot.older;
        }
        assert_eq!(bytes, self.entry_bytes, "bytes of entries");
        self.leaving.check();
        assert!(self.len <= self.limits.keys_max, "keys_max");
        assert!(
            self.len == 0 || self.bytes() <= self.limits.bytes_max,
            "bytes_max"
        );
    }

    #[inline(always)]
    fn find(&self, db: u32, key: &[u8], hash: u64) -> Option<u32> {
        let name = arena::name_of(db, key.len(), hash)?;
        let mut id = self.index.first(hash as u32);
        loop {
            let slot = self.slots.get(id)?;
            if slot.name == name && slot.has_key(key) {
                return Some(id);
            }
            id = slot.chain;
        }
    }

    /// Apart from `get`, so that a hit stays short.
    #[cold]
    #[inline(never)]
    fn drop_expired(&mut self, id: u32) {
        self.take_out(id);
    }

    fn take_out(&mut self, id: u32) {
        self.index.remove(&mut self.slots, id);
        self.lru.unlink(&mut self.slots, id);
        self.rings.cancel(&mut self.slots, id);
        let slot = self.slots.remove(id);
        self.len -= 1;
        self.entry_bytes -= slot.cost();
        self.leaving.retire(slot.block);
    }

    /// Evicts until both limits hold.
    fn make_room(&mut self) -> u32 {
        let mut evicted = 0;
        if self.bytes() > self.limits.bytes_max {
            self.leaving.sweep();
        }
        while self.len > 0
            && (self.len > self.limits.keys_max || self.bytes() > self.limits.bytes_max)
        {
            self.take_out(self.lru.oldest);
            evicted += 1;
        }
        evicted
    }
}

/// More entries than this are never kept: ids stay below 2^31, with one to spare while `put` is at work.
const ENTRIES_MAX: usize = i32::MAX as usize - 1;

fn bounded(limits: Limits) -> Limits {
    Limits {
        keys_max: limits.keys_max.min(ENTRIES_MAX),
        ..limits
    }
}

/// How many slots can be in use under these limits, one more while `put` is at work.
fn room_for(limits: Limits) -> usize {
    limits.keys_max.min(limits.bytes_max / ENTRY_COST_MIN) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const START: Time = Time::from_millis(1_000_000);
    const LATER: Time = Time::from_millis(1_060_000);
    const ROOMY: Limits = Limits {
        keys_max: 1_000_000,
        bytes_max: 1 << 28,
    };

    /// A stand-in for the keyed hash.
    fn hash(key: &[u8]) -> u64 {
        key.iter().fold(1, |hash: u64, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        }) >> 7
    }

    fn put(cache: &mut Cache, db: u32, key: &[u8], content: NewContent<'_>) -> Stored {
        let put = Put {
            db,
            key,
            hash: hash(key),
            content,
            stored_at: START,
            deadline: LATER,
            tag: 7,
        };
        let stored = cache.put(put, START);
        cache.check();
        stored
    }

    fn value(cache: &mut Cache, db: u32, key: &[u8]) -> Option<Vec<u8>> {
        match cache.get(db, key, hash(key), START)? {
            Content::Value(value) => Some(value.value().to_vec()),
            other => panic!("{other:?}"),
        }
    }

    fn keys(cache: &Cache) -> Vec<&[u8]> {
        cache.iter_recent().map(|(_, key)| key).collect()
    }

    #[test]
    fn a_hit_has_the_ready_reply_and_what_was_put_with_it() {
        let mut cache = Cache::new(ROOMY, START);
        put(&mut cache, 0, b"name", NewContent::Value(b"Ada\r\n"));
        let later = START + Duration::from_secs(5);
        let Some(Content::Value(hit)) = cache.get(0, b"name", hash(b"name"), later) else {
            panic!("no value")
        };
        assert_eq!(
            (hit.reply(), hit.value()),
            (&b"$5\r\nAda\r\n\r\n"[..], &b"Ada\r\n"[..])
        );
        assert_eq!((hit.deadline(), hit.tag(), hit.shared()), (LATER, 7, None));
        assert!(
            START.since(hit.stored_at()) < Duration::from_millis(2) && hit.stored_at() <= START
        );
        assert!(
            cache.get(1, b"name", hash(b"name"), later).is_none(),
            "another database"
        );
    }

    #[test]
    fn missing_and_too_large_are_known_per_key() {
        let mut cache = Cache::new(ROOMY, START);
        put(&mut cache, 0, b"", NewContent::Missing);
        put(&mut cache, 0, b"big", NewContent::TooLarge);
        assert!(matches!(
            cache.get(0, b"", hash(b""), START),
            Some(Content::Missing)
        ));
        assert!(matches!(
            cache.peek(0, b"big", hash(b"big"), START),
            Some(Content::TooLarge)
        ));
        assert_eq!(
            cache.stamp(0, b"", hash(b""), START).map(|stamp| stamp.tag),
            Some(7)
        );
        put(&mut cache, 0, b"", NewContent::Value(b""));
        assert_eq!(value(&mut cache, 0, b""), Some(Vec::new()));
    }

    #[test]
    fn at_its_deadline_an_entry_was_never_stored_though_no_timer_has_fired() {
        let mut cache = Cache::new(ROOMY, START);
        put(&mut cache, 0, b"k", NewContent::Value(b"v"));
        let last = LATER - Duration::from_micros(1);
        assert!(cache.get(0, b"k", hash(b"k"), last).is_some());
        assert!(
            cache.peek(0, b"k", hash(b"k"), LATER).is_none()
                && cache.stamp(0, b"k", hash(b"k"), LATER).is_none()
        );
        assert_eq!(cache.len(), 1);
        assert!(cache.get(0, b"k", hash(b"k"), LATER).is_none());
        assert_eq!(
            (cache.len(), cache.bytes(), cache.next_deadline()),
            (0, 0, None)
        );
        cache.check();
    }

    #[test]
    fn the_least_recently_used_leaves_and_a_peek_is_no_use() {
        let mut cache = Cache::new(
            Limits {
                keys_max: 3,
                ..ROOMY
            },
            START,
        );
        for key in [b"a", b"b", b"c"] {
            put(&mut cache, 0, key, NewContent::Value(b"v"));
        }
        assert!(value(&mut cache, 0, b"a").is_some());
        assert!(cache.peek(0, b"b", hash(b"b"), START).is_some());
        assert_eq!(
            put(&mut cache, 0, b"d", NewContent::Value(b"v")),
            Stored {
                kept: true,
                evicted: 1
            }
        );
        assert_eq!(keys(&cache), [b"d", b"a", b"c"]);
    }

    #[test]
    fn an_entry_larger_than_the_budget_is_not_kept_and_removes_the_older() {
        let mut cache = Cache::new(
            Limits {
                bytes_max: 1000,
                ..ROOMY
            },
            START,
        );
        put(&mut cache, 0, b"k", NewContent::Value(b"v"));
        put(&mut cache, 0, b"other", NewContent::Value(b"v"));
        let stored = put(&mut cache, 0, b"k", NewContent::Value(&[b'v'; 1000]));
        assert_eq!(
            (stored, keys(&cache)),
            (
                Stored {
                    kept: false,
                    evicted: 0
                },
                vec![&b"other"[..]]
            )
        );
    }

    #[test]
    fn keys_and_databases_beyond_a_slot_are_neither_kept_nor_taken_for_others() {
        let mut cache = Cache::new(ROOMY, START);
        let longest = vec![b'k'; KEY_BYTES_MAX];
        assert!(put(&mut cache, DB_MAX, &longest, NewContent::Value(b"v")).kept);
        assert!(
            !put(
                &mut cache,
                0,
                &[longest.clone(), vec![b'k']].concat(),
                NewContent::Value(b"v")
            )
            .kept
        );
        assert!(!put(&mut cache, DB_MAX + 1, b"k", NewContent::Value(b"v")).kept);
        // The same length modulo 2^16, the same hash, and the same bytes as key and reply in one block.
        put(&mut cache, 0, b"", NewContent::Value(&vec![b'v'; 5000]));
        let alias = vec![b'k'; KEY_BYTES_MAX + 1];
        assert!(cache.get(0, &alias, hash(b""), START).is_none());
        assert!(cache.get(1 << 16, b"", hash(b""), START).is_none());
    }

    #[test]
    fn a_name_is_removed_in_every_database_and_no_other_with_it() {
        let mut cache = Cache::new(ROOMY, START);
        for db in 0..3 {
            put(&mut cache, db, b"user:1", NewContent::Value(b"v"));
            put(&mut cache, db, b"user:2", NewContent::Missing);
        }
        assert_eq!(cache.remove_name(hash(b"user:1")), 3);
        assert_eq!(cache.remove_name(hash(b"user:1")), 0);
        assert_eq!(keys(&cache), [b"user:2"; 3]);
        assert!(
            cache.remove(1, b"user:2", hash(b"user:2"))
                && !cache.remove(1, b"user:2", hash(b"user:2"))
        );
        cache.check();
    }

    #[test]
    fn a_large_reply_stays_in_the_budget_until_its_last_holder_is_gone() {
        let large = vec![b'v'; SHARED_VALUE_BYTES_MIN];
        for clear in [false, true] {
            let mut cache = Cache::new(ROOMY, START);
            put(&mut cache, 0, b"k", NewContent::Value(&large));
            let Some(Content::Value(hit)) = cache.get(0, b"k", hash(b"k"), START) else {
                panic!("no value")
            };
            let held = hit.shared().expect("it is large").clone();
            if clear {
                cache.clear();
                cache.advance(START, 10);
            } else {
                cache.remove(0, b"k", hash(b"k"));
            }
            cache.check();
            assert_eq!((cache.len(), cache.bytes() > large.len()), (0, true));
            assert!(held.ends_with(b"v\r\n"));
            cache.advance(START, 10);
            assert!(cache.bytes() > large.len(), "it is still held");
            drop(held);
            cache.advance(START, 10);
            assert_eq!(cache.bytes(), 0);
            cache.check();
        }
    }

    #[test]
    fn beside_what_is_lent_an_entry_may_find_no_room() {
        let large = vec![b'v'; 10_000];
        let mut cache = Cache::new(
            Limits {
                bytes_max: 15_000,
                ..ROOMY
            },
            START,
        );
        put(&mut cache, 0, b"a", NewContent::Value(&large));
        let Some(Content::Value(hit)) = cache.get(0, b"a", hash(b"a"), START) else {
            panic!("no value")
        };
        let held = hit.shared().expect("it is large").clone();
        assert_eq!(
            put(&mut cache, 0, b"b", NewContent::Value(&large)),
            Stored {
                kept: false,
                evicted: 1
            }
        );
        drop(held);
        assert_eq!(
            put(&mut cache, 0, b"b", NewContent::Value(&large)),
            Stored {
                kept: true,
                evicted: 0
            }
        );
    }

    #[test]
    fn clear_frees_in_portions_and_puts_make_up_for_what_they_add() {
        let mut cache = Cache::new(ROOMY, START);
        for i in 0..100u32 {
            put(&mut cache, 0, &i.to_le_bytes(), NewContent::Value(b"v"));
        }
        cache.clear();
        assert_eq!(
            (cache.len(), cache.bytes(), cache.next_deadline()),
            (0, 0, Some(Time::ZERO))
        );
        for i in 0..30u32 {
            put(&mut cache, 1, &i.to_le_bytes(), NewContent::Value(b"v"));
        }
        assert_eq!(
            cache.advance(START, 69),
            Expired {
                count: 0,
                more: true
            }
        );
        assert_eq!(
            cache.advance(START, 1),
            Expired {
                count: 0,
                more: false
            }
        );
        assert_eq!(
            (
                cache.len(),
                cache.next_deadline().is_some_and(|at| at > START)
            ),
            (30, true)
        );
        cache.check();
    }

    #[test]
    fn a_hundred_thousand_are_all_found_and_expire_in_portions() {
        let mut cache = Cache::new(ROOMY, START);
        for i in 0..100_000u64 {
            let key = format!("key:{i}").into_bytes();
            let deadline = LATER + Duration::from_micros(i * 10);
            let content = NewContent::Value(&key);
            cache.put(
                Put {
                    db: 0,
                    key: &key,
                    hash: hash(&key),
                    content,
                    stored_at: START,
                    deadline,
                    tag: i,
                },
                START,
            );
        }
        cache.check();
        for i in 0..100_000u64 {
            let key = format!("key:{i}").into_bytes();
            assert_eq!(value(&mut cache, 0, &key), Some(key));
        }
        let mut total = 0;
        let now = LATER + Duration::from_millis(502);
        loop {
            let expired = cache.advance(now, 1000);
            total += expired.count;
            if !expired.more {
                break;
            }
        }
        assert!((50_000..=50_201).contains(&total), "{total} expired");
        assert!(cache.next_deadline().expect("half are left") > now);
        cache.check();
    }

    #[test]
    fn smaller_limits_evict_down_and_a_clone_goes_its_own_way() {
        let mut cache = Cache::new(ROOMY, START);
        for i in 0..10u32 {
            put(&mut cache, 0, &i.to_le_bytes(), NewContent::Value(b"v"));
        }
        let mut other = cache.clone();
        assert_eq!(
            cache.set_limits(Limits {
                keys_max: 4,
                ..ROOMY
            }),
            6
        );
        assert_eq!(
            other.set_limits(Limits {
                bytes_max: 250,
                ..ROOMY
            }),
            8
        );
        cache.check();
        other.check();
        assert_eq!((cache.len(), other.len()), (4, 2));
        assert_eq!(
            cache.set_limits(Limits {
                keys_max: 0,
                ..ROOMY
            }),
            4
        );
        assert_eq!(
            put(&mut cache, 0, b"k", NewContent::Missing),
            Stored {
                kept: false,
                evicted: 0
            }
        );
    }
}
