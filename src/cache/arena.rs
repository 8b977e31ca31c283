//! The slots of the cache: one of 64 bytes per entry, named by a `u32`, and the block of bytes it points to.
//!
//! A slot holds the links of every structure the entry is part of (index chain, recency list, timer list), so that no
//! structure allocates for itself. Vacant slots are chained for reuse. The table's address space is reserved at once
//! and becomes memory page by page as slots are first used: it never moves, so growing never pauses to copy.
//!
//! ```text
//! slot   name 8 | block 16 | deadline 8 | chain, newer, older, stored 4 each | timer 8 | tag 6, ping 2
//! block  small: key ++ reply in one allocation     large: key, and the reply apart, counted
//! ```
//! A small block without a reply says that the key is missing in Redis; one stray byte in its place says too large.
//!
//! It never decides which entry lives. Invariant: a slot is vacant exactly when its timer is not linked.
//! Costs: all O(1). What a removed entry leaves is its slot, kept for the next.
#![forbid(unsafe_code)]

use super::{Content, NewContent, Stamp, ValueRef};
use crate::time::Time;
use crate::wheel::{Links, Timers};
use std::sync::Arc;

/// No slot. Larger than any table, so looking it up fails like any other bad index.
pub(super) const NONE: u32 = u32::MAX;
/// Values from this length on are kept in a counted block of their own, so that an outbox can send them without a copy.
pub const SHARED_VALUE_BYTES_MIN: usize = 8 * 1024;
/// Keys longer than this are not kept: a slot has 16 bits for the length.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// Databases above this are not kept: a slot has 16 bits for the number.
pub const DB_MAX: u32 = u16::MAX as u32;
const TAG_BITS: u32 = 48;
/// The largest tag: 16 bits of its word belong to `ping`.
pub const TAG_MAX: u64 = (1 << TAG_BITS) - 1;
/// Written in place of a reply: the value is too large to keep. No reply is this short.
const TOO_LARGE: &[u8] = b"!";

/// A ready-made reply that others may hold while the entry goes.
pub type SharedReply = Arc<Vec<u8>>;

/// One entry. The fields in the order a hit needs them: with the allocator's 16 bytes in front of a large table, the
/// first 48 bytes of each slot are in one cache line.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Slot {
    /// See [`name_of`].
    pub(super) name: u64,
    pub(super) block: Block,
    pub(super) deadline: Time,
    /// The next slot in the same bucket of the index, or the next vacant slot.
    pub(super) chain: u32,
    /// The neighbour in the recency list that was used after this one.
    pub(super) newer: u32,
    /// The neighbour that was used before this one.
    pub(super) older: u32,
    /// The instant of storing in units of 1.024 ms, modulo 2^32.
    pub(super) stored: u32,
    pub(super) timer: Links,
    pub(super) label: Label,
}

/// The two numbers that come with an entry: a tag of 48 bits, and 16 bits of `ping` above it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Label(u64);

impl Label {
    pub(super) fn new(tag: u64, ping: u16) -> Label {
        debug_assert!(tag <= TAG_MAX, "a tag has 48 bits");
        Label(tag & TAG_MAX | u64::from(ping) << TAG_BITS)
    }

    #[inline(always)]
    pub(super) fn tag(self) -> u64 {
        self.0 & TAG_MAX
    }

    #[inline(always)]
    pub(super) fn ping(self) -> u16 {
        (self.0 >> TAG_BITS) as u16
    }
}

const _: () = assert!(size_of::<Slot>() == 64);

/// What the index compares before it looks at the key: the low 32 bits of the hash, database and key length.
/// `None`: such a key is never kept.
#[inline(always)]
pub(super) fn name_of(db: u32, key_len: usize, hash: u64) -> Option<u64> {
    if db > DB_MAX || key_len > KEY_BYTES_MAX {
        return None;
    }
    Some(hash << 32 | u64::from(db) << 16 | key_len as u64)
}

impl Slot {
    #[inline(always)]
    pub(super) fn hash(&self) -> u32 {
        (self.name >> 32) as u32
    }

    pub(super) fn db(&self) -> u32 {
        (self.name >> 16) as u32 & DB_MAX
    }

    #[inline(always)]
    fn key_len(&self) -> usize {
        self.name as usize & KEY_BYTES_MAX
    }

    pub(super) fn key(&self) -> &[u8] {
        match &self.block {
            Block::Small(bytes) => &bytes[..self.key_len()],
            Block::Large(large) => &large.key,
        }
    }

    /// Whether this is the entry of `key`, given that it has the length of the slot's key.
    #[inline(always)]
    pub(super) fn has_key(&self, key: &[u8]) -> bool {
        let own = match &self.block {
            Block::Small(bytes) => bytes.get(..key.len()),
            Block::Large(large) => large.key.get(..key.len()),
        };
        own.is_some_and(|own| same(own, key))
    }

    #[inline(always)]
    pub(super) fn content(&self, now: Time) -> Content<'_> {
        let reply = match &self.block {
            Block::Small(bytes) => &bytes[self.key_len()..],
            Block::Large(large) => &large.reply,
        };
        if reply.len() > TOO_LARGE.len() {
            Content::Value(ValueRef {
                slot: self,
                reply,
                now,
            })
        } else if reply.is_empty() {
            Content::Missing
        } else {
            Content::TooLarge
        }
    }

    pub(super) fn is_too_large(&self) -> bool {
        // The instant is only handed on to values.
        matches!(self.content(Time::ZERO), Content::TooLarge)
    }

    pub(super) fn stamp(&self, now: Time) -> Stamp {
        let now_ticks = now.micros() >> 10;
        let age_ticks = (now_ticks as u32).wrapping_sub(self.stored);
        let stored_ticks = now_ticks.saturating_sub(u64::from(age_ticks));
        Stamp {
            stored_at: Time::from_micros(stored_ticks << 10),
            deadline: self.deadline,
            tag: self.label.tag(),
            ping: self.label.ping(),
        }
    }

    /// Everything the entry costs, in bytes.
    pub(super) fn cost(&self) -> usize {
        ENTRY_BYTES + self.block.cost(self.key_len())
    }
}

/// The slot, and the entry's share of the index.
const ENTRY_BYTES: usize = size_of::<Slot>() + size_of::<u32>();
/// What the cheapest entry costs: 16 is the least that can be asked of an allocator, 16 its own share.
pub(super) const ENTRY_COST_MIN: usize = ENTRY_BYTES;

/// What an entry with such a key and content costs: slot, index, and its allocations as the allocator rounds them.
pub(super) fn cost_of(key_len: usize, content: &NewContent<'_>) -> usize {
    ENTRY_BYTES
        + match content {
            NewContent::Value(value) if value.len() >= SHARED_VALUE_BYTES_MIN => {
                large_cost(key_len, reply_len(value.len()))
            }
            NewContent::Value(value) => allocation_cost(key_len + reply_len(value.len())),
            NewContent::Missing => allocation_cost(key_len),
            NewContent::TooLarge => allocation_cost(key_len + TOO_LARGE.len()),
        }
}

/// What glibc takes for an allocation: 8 bytes in front, rounded up to 16, at least 32; whole pages when it is large.
/// Other allocators differ by little.
fn allocation_cost(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..0x20000 => (bytes + 8).next_multiple_of(16).max(32),
        _ => (bytes + 16).next_multiple_of(4096),
    }
}

fn large_cost(key_len: usize, reply_len: usize) -> usize {
    allocation_cost(size_of::<Large>()) + allocation_cost(key_len) + reply_cost(reply_len)
}

/// The part of a large block that can outlive its entry: the bytes, and the counts in front of the `Vec`.
pub(super) fn reply_cost(reply_len: usize) -> usize {
    allocation_cost(2 * size_of::<usize>() + size_of::<Vec<u8>>()) + allocation_cost(reply_len)
}

/// Key and reply of an entry.
#[derive(Debug, Clone)]
pub(super) enum Block {
    /// The key, and right behind it the reply: one allocation, one copy to answer.
    Small(Box<[u8]>),
    /// A value of [`SHARED_VALUE_BYTES_MIN`] or more.
    Large(Box<Large>),
}

const _: () = assert!(size_of::<Block>() == 16);

#[derive(Debug, Clone)]
pub(super) struct Large {
    key: Box<[u8]>,
    pub(super) reply: SharedReply,
}

impl Block {
    pub(super) fn new(key: &[u8], content: &NewContent<'_>) -> Block {
        match content {
            NewContent::Value(value) if value.len() >= SHARED_VALUE_BYTES_MIN => {
                let mut reply = Vec::with_capacity(reply_len(value.len()));
                write_reply(&mut reply, value);
                Block::Large(Box::new(Large {
                    key: key.into(),
                    reply: Arc::new(reply),
                }))
            }
            NewContent::Value(value) => {
                let mut bytes = Vec::with_capacity(key.len() + reply_len(value.len()));
                bytes.extend_from_slice(key);
                write_reply(&mut bytes, value);
                Block::Small(bytes.into_boxed_slice())
            }
            NewContent::Missing => Block::Small(key.into()),
            NewContent::TooLarge => Block::Small([key, TOO_LARGE].concat().into_boxed_slice()),
        }
    }

    fn cost(&self, key_len: usize) -> usize {
        match self {
            Block::Small(bytes) => allocation_cost(bytes.len()),
            Block::Large(large) => large_cost(key_len, large.reply.len()),
        }
    }
}

/// The length of `$<len>\r\n<value>\r\n`.
fn reply_len(value_len: usize) -> usize {
    1 + value_len.checked_ilog10().map_or(1, |log| log as usize + 1) + 2 + value_len + 2
}

fn write_reply(out: &mut Vec<u8>, value: &[u8]) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(b'$');
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether two slices of one length are equal. Most keys have 8 to 16 bytes: two words that may overlap. Longer ones go
/// word by word; a call to `bcmp` would cost more for keys of usual length, and the registers saved for it would cost
/// every hit.
#[inline(always)]
fn same(a: &[u8], b: &[u8]) -> bool {
    let len = a.len();
    debug_assert_eq!(len, b.len());
    if len < 8 {
        return a.iter().eq(b);
    }
    word(a, 0) == word(b, 0)
        && word(a, len - 8) == word(b, len - 8)
        && (len <= 16
            || a.as_chunks::<8>()
                .0
                .iter()
                .zip(b.as_chunks::<8>().0)
                .all(|(a, b)| word(a, 0) == word(b, 0)))
}

/// Eight bytes as a number. The caller has checked the length, so no check is left of this one.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("a slice of eight"))
}

/// The table of slots.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    vacant: u32,
}

impl Slots {
    /// An empty table with room for `len_max` slots. If so much address space cannot be had it grows by moving.
    pub(super) fn new(len_max: usize) -> Slots {
        let mut slots = Vec::new();
        let _ = slots.try_reserve_exact(len_max);
        Slots {
            slots,
            vacant: NONE,
        }
    }

    /// The slot, or `None` for [`NONE`].
    #[inline(always)]
    pub(super) fn get(&self, id: u32) -> Option<&Slot> {
        self.slots.get(id as usize)
    }

    #[inline(always)]
    pub(super) fn at(&self, id: u32) -> &Slot {
        &self.slots[id as usize]
    }

    /// The slot, or `None` for [`NONE`].
    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Slot> {
        self.slots.get_mut(id as usize)
    }

    #[inline(always)]
    pub(super) fn at_mut(&mut self, id: u32) -> &mut Slot {
        &mut self.slots[id as usize]
    }

    pub(super) fn insert(&mut self, slot: Slot) -> u32 {
        let id = self.vacant;
        if id == NONE {
            self.slots.push(slot);
            return (self.slots.len() - 1) as u32;
        }
        self.vacant = self.at(id).chain;
        *self.at_mut(id) = slot;
        id
    }

    /// Vacates a slot and hands out what was in it.
    pub(super) fn remove(&mut self, id: u32) -> Slot {
        let vacant = Slot {
            name: 0,
            block: Block::Small(Box::default()),
            deadline: Time::ZERO,
            chain: self.vacant,
            newer: NONE,
            older: NONE,
            stored: 0,
            timer: Links::UNLINKED,
            label: Label::default(),
        };
        self.vacant = id;
        std::mem::replace(self.at_mut(id), vacant)
    }

    /// All slots, vacant ones too, for whoever frees them.
    pub(super) fn into_slots(self) -> Vec<Slot> {
        self.slots
    }

    /// Panics unless exactly `live` slots are in use and all others wait for reuse.
    pub(super) fn check(&self, live: usize) {
        let linked = self
            .slots
            .iter()
            .filter(|slot| slot.timer.is_linked())
            .count();
        assert_eq!(linked, live, "slots in use");
        let mut vacant = 0;
        let mut id = self.vacant;
        while let Some(slot) = self.get(id) {
            assert!(!slot.timer.is_linked(), "slot {id} is vacant and timed");
            vacant += 1;
            assert!(
                vacant + live <= self.slots.len(),
                "the vacant slots go in a circle"
            );
            id = slot.chain;
        }
        assert_eq!(vacant + live, self.slots.len(), "slots in use and vacant");
    }
}

impl Timers for Slots {
    fn deadline(&self, id: u32) -> Time {
        self.at(id).deadline
    }
    fn links(&self, id: u32) -> Links {
        self.at(id).timer
    }
    fn links_mut(&mut self, id: u32) -> &mut Links {
        &mut self.at_mut(id).timer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_length_compare_equal_only_when_they_are() {
        for len in 0..40 {
            let key: Vec<u8> = (0..len).collect();
            assert!(same(&key, &key.clone()));
            for at in 0..key.len() {
                let mut other = key.clone();
                other[at] ^= 0x80;
                assert!(!same(&key, &other), "{len} bytes, differing at {at}");
            }
        }
    }

    #[test]
    fn a_reply_is_as_long_as_was_reckoned() {
        for len in [0, 1, 9, 10, 99, 100, 9_999, 10_000, 123_456] {
            let mut reply = Vec::new();
            write_reply(&mut reply, &vec![b'v'; len]);
            assert_eq!(reply.len(), reply_len(len));
            assert!(
                reply.starts_with(format!("${len}\r\n").as_bytes()) && reply.ends_with(b"\r\n")
            );
        }
    }

    #[test]
    fn the_cost_known_before_is_the_cost_of_the_block() {
        let value = vec![b'v'; 200_000];
        let contents = [
            0,
            1,
            64,
            SHARED_VALUE_BYTES_MIN - 1,
            SHARED_VALUE_BYTES_MIN,
            value.len(),
        ]
        .map(|len| NewContent::Value(&value[..len]));
        for content in contents
            .into_iter()
            .chain([NewContent::Missing, NewContent::TooLarge])
        {
            for key in [&b""[..], b"k", b"0123456789abcdef", &value[..1000]] {
                let block = Block::new(key, &content);
                assert_eq!(
                    ENTRY_BYTES + block.cost(key.len()),
                    cost_of(key.len(), &content)
                );
                assert!(cost_of(key.len(), &content) >= ENTRY_COST_MIN);
            }
        }
    }

    #[test]
    fn sixteen_and_sixty_four_bytes_cost_eighty_four_more() {
        // 64 slot + 4 index + 9 allocator and rounding + 7 `$64\r\n` and `\r\n`.
        assert_eq!(cost_of(16, &NewContent::Value(&[b'v'; 64])), 16 + 64 + 84);
    }
}
