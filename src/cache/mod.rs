//! The cache: entries by database and key, strictly least recently used first out, each with a deadline.
//!
//! It owns what it keeps and decides only what leaves: by time (expired), for room (evicted), when told (removed). It
//! never reads the clock, never hashes (the hash of the key's *name* comes with each call, computed once per request),
//! never speaks to Redis, and never answers with an entry whose deadline has passed, whether or not the timers have
//! come by. `arena.rs` holds the slots, `index.rs` finds them, `lru.rs` orders them, `wheel.rs` expires them, all
//! linked through the one slot an entry has; `used.rs` shows what was used since; `leaving.rs` frees what takes time, `entry.rs` is what comes in and out.
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
mod used;

use crate::time::Time;
use crate::wheel::{Links, Rings};
use arena::{Block, ENTRY_COST_MIN, Label, NONE, Slot, Slots};
pub use arena::{DB_MAX, KEY_BYTES_MAX, SHARED_VALUE_BYTES_MIN, SharedReply, TAG_MAX};
pub use entry::{Content, NewContent, Put, Stamp, ValueRef};
use index::Index;
use leaving::Leaving;
use lru::Lru;
use used::Met;

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
    /// What the present round of [`Cache::visit_used`] has met.
    met: Met,
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
            met: Met::default(),
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

    /// As [`Cache::peek`], with the number of [`Put::ping`].
    #[inline]
    pub fn peek_with_ping(
        &self,
        db: u32,
        key: &[u8],
        hash: u64,
        now: Time,
    ) -> Option<(Content<'_>, u16)> {
        let slot = self.slots.at(self.find(db, key, hash)?);
        (slot.deadline > now).then(|| (slot.content(now), slot.label.ping()))
    }

    /// When and as what the entry of `key` was put, whatever its content. Not a use of it.
    pub fn stamp(&self, db: u32, key: &[u8], hash: u64, now: Time) -> Option<Stamp> {
        let slot = self.slots.at(self.find(db, key, hash)?);
        (slot.deadline > now).then(|| slot.stamp(now))
    }

    /// Changes the number that was put with the entry of `key`, if there is one. Not a use of it.
    pub fn set_tag(&mut self, db: u32, key: &[u8], hash: u64, tag: u64) {
        if let Some(id) = self.find(db, key, hash) {
            let slot = self.slots.at_mut(id);
            slot.label = Label::new(tag, slot.label.ping());
        }
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
            ping,
        } = put;
        let label = Label::new(tag, ping);
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
                (slot.deadline, slot.stored, slot.label) = (deadline, stored, label);
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
                    label,
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
        self.remove_named(hash, |_| true)
    }

    /// The same, but for what is known only to be too large to keep: a read of that tells nothing new of it.
    pub fn remove_readable(&mut self, hash: u64) -> usize {
        self.remove_named(hash, |slot| !slot.is_too_large())
    }

    #[inline]
    fn remove_named(&mut self, hash: u64, goes: impl Fn(&Slot) -> bool) -> usize {
        let mut removed = 0;
        let mut id = self.index.first(hash as u32);
        while let Some(slot) = self.slots.get(id) {
            let next = slot.chain;
            if slot.hash() == hash as u32 && goes(slot) {
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
        self.met = Met::default();
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
mod tests;
