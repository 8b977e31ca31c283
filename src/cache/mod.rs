//! The cache: entries by database and key, strictly least recently used first out, each with a deadline.
//!
//! It owns what it keeps and decides only what leaves: by time (expired), for room (evicted), when told (removed). It
//! never reads the clock, never hashes (the hash of the key's *name* comes with each call, computed once per request),
//! never speaks to Redis, and never answers with an entry whose deadline has passed, whether or not the timers have
//! come by. `table.rs` holds the entries, in the cells of `arena.rs` (whose heads are in `head.rs`) or with blocks of their
//! own (`block.rs`); `index.rs` finds them, `lru.rs` orders them, `wheel.rs` expires them, all linked through the one head
//! an entry has; `used.rs` shows what was used since; `leaving.rs` frees what takes time, `entry.rs` is what comes in and out.
//!
//! Invariant: the same entries are in the index, in the recency list and in the wheel; there are at most `keys_max` of
//! them; and their costs, with what is lent, are at most `bytes_max`. An id is a place: it holds until the next entry goes.
//!
//! What counts as bytes: an entry costs its cell, its share of the index and its allocations as the allocator rounds
//! them: 44 bytes beyond a key of 16 and a value of 64, and 8 more once it has been read over HTTP. Cells are packed
//! (`arena.rs`): beside them memory holds less than a slab of 8 KiB for each of the 52 sizes in use, however the sizes
//! shift, and each entry that has to make room for another gives all of its own. Two things beside the entries use memory (`leaving.rs`):
//! - *Lent replies.* A value of [`SHARED_VALUE_BYTES_MIN`] or more is counted ([`ValueRef::shared`]); when its entry
//!   goes while an outbox still holds it, its bytes stay in the budget until the last holder has dropped it, as noticed
//!   by the next `advance`, or by the next `put` that needs room. (Clones of the whole cache count as holders.)
//! - *Rubble.* [`Cache::clear`] frees nothing at once: the old memory waits and is given back by `advance`, and by each
//!   `put` to the extent of what it adds. So with it memory never exceeds the budget that the old entries were in.
//!
//! Slabs that are vacant in the midst of the array stay for reuse, as do 4 bytes of index for each of the most entries
//! there ever were, until a `clear`.
//!
//! Costs: `get`, `peek`, `put` without eviction, `remove` O(1); a hit takes about 90 instructions, allocates nothing and
//! writes at most four heads; what goes costs the move of another entry besides. `put` frees as many entries as its bytes
//! need; `advance` at most its budget.
#![forbid(unsafe_code)]

mod arena;
mod block;
mod entry;
mod head;
mod index;
mod leaving;
mod lru;
mod table;
mod used;

use crate::time::Time;
use crate::wheel::Rings;
use arena::{CELLS_BYTES_MAX, Moved};
use block::ENTRY_COST_MIN;
pub use block::{SHARED_VALUE_BYTES_MIN, SharedReply};
pub use entry::{
    CellValue, Content, NewContent, Put, SMALL_REPLY_ROOM, Stamp, ValueRef, write_small_reply,
};
use entry::{Clock, tick_of};
pub use head::{DB_MAX, KEY_BYTES_MAX};
use head::{Head, Kind};
use index::Index;
use leaving::Leaving;
use lru::Lru;
use table::Table;
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
    table: Table,
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
        Cache {
            table: Table::new(limits.bytes_max),
            index: Index::new(room_for(limits)),
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
        let (id, head) = self.find(db, key, hash)?;
        let clock = self.clock(now);
        if !is_live(head, clock) {
            self.drop_expired(id);
            return None;
        }
        let (key_len, shape) = (key.len(), head.shape());
        let (newer, older) = (head.newer(), head.older());
        self.lru.touch(&mut self.table, id, newer, older);
        Some(self.table.content_at(id, key_len, shape, clock))
    }

    /// The value of `key` if it is in its cell, as most are; then the same as [`Cache::get`]. `None` says nothing, and has
    /// done nothing: ask that then.
    #[inline(always)]
    pub fn get_in_cell(
        &mut self,
        db: u32,
        key: &[u8],
        hash: u64,
        now: Time,
    ) -> Option<CellValue<'_>> {
        let name = head::name_of(db, key.len(), hash)?;
        let mut id = self.index.first(hash as u32);
        let (head, key_len) = loop {
            let head = self.table.get(id)?;
            if head.name() == name && head.shape().is_plain() && self.table.has_key(id, key) {
                break (head, key.len());
            }
            id = head.chain();
        };
        if !is_live(head, self.clock(now)) {
            return None;
        }
        let value_len = head.shape().value_len();
        let (newer, older) = (head.newer(), head.older());
        self.lru.touch(&mut self.table, id, newer, older);
        Some(CellValue(self.table.value_in_cell(id, key_len, value_len)))
    }

    /// What is known of `key`, without a use of it.
    pub fn peek(&self, db: u32, key: &[u8], hash: u64, now: Time) -> Option<Content<'_>> {
        let (id, clock) = self.find_live(db, key, hash, now)?;
        Some(self.table.content(id, clock))
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
        let (id, clock) = self.find_live(db, key, hash, now)?;
        Some((self.table.content(id, clock), self.table.at(id).ping()))
    }

    /// When and as what the entry of `key` was put, whatever its content. Not a use of it.
    pub fn stamp(&self, db: u32, key: &[u8], hash: u64, now: Time) -> Option<Stamp> {
        let (id, clock) = self.find_live(db, key, hash, now)?;
        Some(self.table.stamp(id, clock))
    }

    /// Changes the number that was put with the entry of `key`, if there is one. Not a use of it. Returns how many entries
    /// had to leave, as the first such number of an entry takes 8 bytes: hardly ever one.
    pub fn set_tag(&mut self, db: u32, key: &[u8], hash: u64, tag: u64) -> u32 {
        let Some((id, _)) = self.find(db, key, hash) else {
            return 0;
        };
        if self.table.set_tag(id, tag) {
            return 0;
        }
        let cost = self.table.cost(id);
        let moved = self.table.enlarge(id);
        self.follow(moved);
        self.entry_bytes += self.table.cost(moved.to) - cost;
        let mut id = moved.to;
        if let Some(other) = self.table.give_old(moved.from) {
            self.follow(other);
            id = if id == other.from { other.to } else { id };
        }
        let has_room = self.table.set_tag(id, tag);
        debug_assert!(has_room, "the cell was chosen for it");
        self.make_room()
    }

    /// Keeps an entry in place of an earlier one and makes it the most recently used; the least recently used leave
    /// until both limits hold. Not kept, and any earlier one removed, when its deadline has passed, when it alone (with
    /// what is lent) exceeds a limit, or when [`DB_MAX`] or [`KEY_BYTES_MAX`] does not allow it.
    pub fn put(&mut self, put: Put<'_>, now: Time) -> Stored {
        if let Some((id, _)) = self.find(put.db, put.key, put.hash) {
            self.take_out(id);
        }
        let clock = self.clock(now);
        let deadline = tick_of(put.deadline).min(clock.now + DEADLINE_TICKS_MAX);
        let cost = block::cost_of(put.key.len(), &put.content, put.tag != 0);
        let name = head::name_of(put.db, put.key.len(), put.hash);
        // The last holds but for a wheel that has stood still for weeks.
        let fits = cost <= self.limits.bytes_max
            && deadline > clock.now
            && deadline - clock.passed <= u64::from(u32::MAX);
        let (Some(name), true) = (name, fits) else {
            return Stored {
                kept: false,
                evicted: 0,
            };
        };
        self.leaving.free_bytes(cost);
        let stored = tick_of(put.stored_at.min(now)) as u32;
        let id = self.table.insert(&put, name, stored, deadline as u32);
        self.len += 1;
        self.entry_bytes += cost;
        self.index.insert(&mut self.table, id, self.len);
        self.lru.push(&mut self.table, id);
        self.rings.schedule(&mut self.table, id);
        let evicted = self.make_room();
        // Even alone it may not fit beside what is lent: then it was the last to be evicted.
        let kept = self.len > 0;
        Stored {
            kept,
            evicted: evicted - u32::from(!kept),
        }
    }

    /// Removes the entry of `key`; whether there was one (expired or not).
    pub fn remove(&mut self, db: u32, key: &[u8], hash: u64) -> bool {
        let Some((id, _)) = self.find(db, key, hash) else {
            return false;
        };
        self.take_out(id);
        true
    }

    /// Removes every entry whose key has this hash, in every database, in one walk, and counts them. Looks at the 32
    /// bits of the hash that are stored: with a million entries, one call in 4000 also drops an innocent one.
    pub fn remove_name(&mut self, hash: u64) -> usize {
        self.remove_named(hash, |_| true)
    }

    /// The same, but for what is known only to be too large to keep: a read of that tells nothing new of it.
    pub fn remove_readable(&mut self, hash: u64) -> usize {
        self.remove_named(hash, |head| head.shape().kind() != Kind::TooLarge)
    }

    #[inline]
    fn remove_named(&mut self, hash: u64, goes: impl Fn(Head<'_>) -> bool) -> usize {
        let mut removed = 0;
        let mut id = self.index.first(hash as u32);
        while let Some(head) = self.table.get(id) {
            let mut next = head.chain();
            if head.hash() == hash as u32 && goes(head) {
                if let Some(moved) = self.take_out(id)
                    && moved.from == next
                {
                    next = moved.to;
                }
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
        let table = std::mem::replace(&mut self.table, Table::new(self.limits.bytes_max));
        let index = std::mem::replace(&mut self.index, Index::new(room_for(self.limits)));
        self.leaving
            .put_down(table.into_parts(), index.into_heads());
        self.lru = Lru::EMPTY;
        self.met = Met::default();
        self.rings.forget();
        self.len = 0;
        self.entry_bytes = 0;
    }

    /// Frees what has expired at `now`, and what `clear` left, in at most `budget` steps (and one portion of memory).
    pub fn advance(&mut self, now: Time, budget: usize) -> Expired {
        let mut left = budget;
        let mut count = 0;
        while let Some(id) = self.rings.pop_due(&mut self.table, now, &mut left) {
            self.take_out(id);
            count += 1;
        }
        // With steps left there was nothing more that is due.
        let more_due = left == 0 && self.rings.is_due(now);
        if !self.leaving.is_empty() {
            self.leaving.sweep();
            self.leaving.free_within(&mut left);
        }
        Expired {
            count,
            more: more_due || self.leaving.has_rubble(),
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

    /// Shows the keys of the entries in `count` buckets from this one on; returns where to go on, `None` at the end. Who
    /// goes on until then has met every entry that was there all the time, whatever came and went in between.
    pub fn visit_buckets(
        &self,
        from: usize,
        count: usize,
        mut visit: impl FnMut(&[u8]),
    ) -> Option<usize> {
        let end = from.saturating_add(count);
        for first in self.index.firsts(from..end) {
            let mut id = first;
            while let Some(head) = self.table.get(id) {
                visit(self.table.key(id));
                id = head.chain();
            }
        }
        (end < self.index.len()).then_some(end)
    }

    /// Database and key of every entry, most recently used first.
    pub fn iter_recent(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut id = self.lru.newest;
        std::iter::from_fn(move || {
            let (at, head) = (id, self.table.get(id)?);
            id = head.older();
            Some((head.db(), self.table.key(at)))
        })
    }

    /// What an entry with such a key, content and tag would add to [`Cache::bytes`].
    pub fn cost(key_len: usize, content: &NewContent<'_>, tag: u64) -> usize {
        block::cost_of(key_len, content, tag != 0)
    }

    /// How much of that stays in the budget while others hold the reply of a value of this length, which is one of
    /// [`SHARED_VALUE_BYTES_MIN`] or more.
    pub fn cost_lent(value_len: usize) -> usize {
        block::reply_cost(block::reply_len(value_len))
    }

    /// Walks everything and panics where an invariant does not hold.
    pub fn check(&self) {
        self.table.check(self.len);
        self.index.check(&self.table, self.len);
        self.lru.check(&self.table, self.len);
        self.rings.check(&self.table);
        assert_eq!(self.rings.len(), self.len, "every entry is timed");
        let (mut bytes, mut blocks) = (0, 0);
        let mut id = self.lru.newest;
        while let Some(head) = self.table.get(id) {
            let hash = u64::from(head.hash());
            assert_eq!(
                self.find(head.db(), self.table.key(id), hash)
                    .map(|found| found.0),
                Some(id),
                "entry {id} is not what its key finds"
            );
            bytes += self.table.cost(id);
            blocks += usize::from(self.table.has_block(id));
            id = head.older();
        }
        assert_eq!(bytes, self.entry_bytes, "bytes of entries");
        assert_eq!(blocks, self.table.blocks_len(), "blocks of entries");
        self.leaving.check();
        assert!(self.len <= self.limits.keys_max, "keys_max");
        assert!(
            self.len == 0 || self.bytes() <= self.limits.bytes_max,
            "bytes_max"
        );
    }

    #[inline(always)]
    fn find(&self, db: u32, key: &[u8], hash: u64) -> Option<(u32, Head<'_>)> {
        let name = head::name_of(db, key.len(), hash)?;
        let mut id = self.index.first(hash as u32);
        loop {
            let head = self.table.get(id)?;
            if head.name() == name && self.table.has_key(id, key) {
                return Some((id, head));
            }
            id = head.chain();
        }
    }

    fn find_live(&self, db: u32, key: &[u8], hash: u64, now: Time) -> Option<(u32, Clock)> {
        let ((id, head), clock) = (self.find(db, key, hash)?, self.clock(now));
        is_live(head, clock).then_some((id, clock))
    }

    #[inline(always)]
    fn clock(&self, now: Time) -> Clock {
        Clock {
            now: tick_of(now),
            passed: self.rings.tick(),
        }
    }

    /// Apart from `get`, so that a hit stays short.
    #[cold]
    #[inline(never)]
    fn drop_expired(&mut self, id: u32) {
        self.take_out(id);
    }

    /// Frees an entry. The one that moved into its place is linked there.
    fn take_out(&mut self, id: u32) -> Option<Moved> {
        self.index.remove(&mut self.table, id);
        self.lru.unlink(&mut self.table, id);
        self.rings.cancel(&mut self.table, id);
        self.met.remove(id);
        self.len -= 1;
        self.entry_bytes -= self.table.cost(id);
        let (moved, block) = self.table.remove(id);
        if let Some(block) = block {
            self.leaving.retire(block);
        }
        if let Some(moved) = moved {
            self.follow(moved);
        }
        moved
    }

    /// An entry is at another place: all that is linked to it follows.
    fn follow(&mut self, moved: Moved) {
        self.index.follow(&mut self.table, moved);
        self.lru.follow(&mut self.table, moved);
        self.rings.follow(&mut self.table, moved.from, moved.to);
        self.met.follow(moved);
    }

    /// Evicts until both limits hold.
    fn make_room(&mut self) -> u32 {
        let mut evicted = 0;
        if self.bytes() > self.limits.bytes_max {
            self.leaving.sweep();
        }
        while self.len > 0
            && (self.len > self.limits.keys_max
                || self.bytes() > self.limits.bytes_max
                || self.table.cells_bytes() > CELLS_BYTES_MAX)
        {
            self.take_out(self.lru.oldest);
            evicted += 1;
        }
        evicted
    }
}

#[inline(always)]
fn is_live(head: Head<'_>, clock: Clock) -> bool {
    entry::tick_after(clock.passed, head.deadline()) > clock.now
}

/// An entry is kept for at most 2^31 ticks, 24 days: a deadline has 32 bits, and the wheel may be late.
const DEADLINE_TICKS_MAX: u64 = 1 << 31;
/// More entries than this are never kept.
const ENTRIES_MAX: usize = i32::MAX as usize - 1;

fn bounded(limits: Limits) -> Limits {
    Limits {
        keys_max: limits.keys_max.min(ENTRIES_MAX),
        ..limits
    }
}

/// How many entries there can be under these limits, one more while `put` is at work.
fn room_for(limits: Limits) -> usize {
    limits.keys_max.min(limits.bytes_max / ENTRY_COST_MIN) + 1
}

#[cfg(test)]
mod tests;
