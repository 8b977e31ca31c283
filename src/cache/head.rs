//! The head of a cell: 40 bytes with everything the cache knows of an entry beside its key and its value.
//!
//! ```text
//! name 8 | chain 4 | deadline 4 | newer 4 | older 4 | timer 4 + 4 | stored 4 | ping 2 | shape 2
//! name   hash 32, database 16, key length 16
//! shape  what follows the key 2, whether a tag follows that 1, length of the value 13
//! ```
//! The links of every structure the entry is part of (index chain, recency list, timer list) are here, so that no
//! structure allocates for itself. Fields in the order a hit needs them.
//!
//! It never looks outside its 40 bytes. Costs: every field is one load or one store; the places are constants.
#![forbid(unsafe_code)]

use crate::wheel::Links;

/// How long a head is.
pub(super) const HEAD_BYTES: usize = 40;
/// Keys longer than this are not kept: a head has 16 bits for the length.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// Databases above this are not kept: a head has 16 bits for the number.
pub const DB_MAX: u32 = u16::MAX as u32;

const NAME: usize = 0;
const CHAIN: usize = 8;
const DEADLINE: usize = 12;
const NEWER: usize = 16;
const OLDER: usize = 20;
const TIMER_PREV: usize = 24;
const TIMER_NEXT: usize = 28;
const STORED: usize = 32;
const PING: usize = 36;
const SHAPE: usize = 38;
const _: () = assert!(SHAPE + 2 == HEAD_BYTES);

/// What the index compares before it looks at the key: the low 32 bits of the hash, database and key length.
/// `None`: such a key is never kept.
#[inline(always)]
pub(super) fn name_of(db: u32, key_len: usize, hash: u64) -> Option<u64> {
    // Both limits are 16 bits: one comparison.
    const _: () = assert!(DB_MAX as usize == KEY_BYTES_MAX);
    if db as usize | key_len > KEY_BYTES_MAX {
        return None;
    }
    Some(hash << 32 | u64::from(db) << 16 | key_len as u64)
}

/// What a cell holds behind its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The key and its value.
    Value,
    /// The key, which Redis does not have.
    Missing,
    /// The key, whose value is too large to keep.
    TooLarge,
    /// The number of a block in which the key and its value are.
    Block,
}

/// The kind, the length of the value that is in the cell, and whether a tag is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape(u16);

impl Shape {
    const LEN_BITS: u32 = 13;
    const LEN_MASK: u16 = (1 << Shape::LEN_BITS) - 1;
    const TAGGED: u16 = 1 << Shape::LEN_BITS;
    const KIND_SHIFT: u32 = Shape::LEN_BITS + 1;

    /// `value_len`: of a value that is in the cell; it fits, as a cell is shorter than that.
    pub(super) fn new(kind: Kind, value_len: usize, tagged: bool) -> Shape {
        debug_assert!(value_len <= usize::from(Shape::LEN_MASK));
        let tagged = if tagged { Shape::TAGGED } else { 0 };
        Shape((kind as u16) << Shape::KIND_SHIFT | tagged | value_len as u16 & Shape::LEN_MASK)
    }

    pub(super) fn with_tag(self) -> Shape {
        Shape(self.0 | Shape::TAGGED)
    }

    #[inline(always)]
    pub(super) fn kind(self) -> Kind {
        match self.0 >> Shape::KIND_SHIFT {
            0 => Kind::Value,
            1 => Kind::Missing,
            2 => Kind::TooLarge,
            _ => Kind::Block,
        }
    }

    /// Whether the kind is [`Kind::Block`]: one comparison.
    #[inline(always)]
    pub(super) fn is_block(self) -> bool {
        self.0 >= (Kind::Block as u16) << Shape::KIND_SHIFT
    }

    /// Whether the kind is [`Kind::Value`]: one comparison.
    #[inline(always)]
    pub(super) fn is_plain(self) -> bool {
        const _: () = assert!(Kind::Value as u16 == 0);
        self.0 < 1 << Shape::KIND_SHIFT
    }

    #[inline(always)]
    pub(super) fn is_tagged(self) -> bool {
        self.0 & Shape::TAGGED != 0
    }

    #[inline(always)]
    pub(super) fn value_len(self) -> usize {
        usize::from(self.0 & Shape::LEN_MASK)
    }
}

/// A head to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'c>(pub(super) &'c [u8; HEAD_BYTES]);

impl Head<'_> {
    /// See [`name_of`].
    #[inline(always)]
    pub(super) fn name(self) -> u64 {
        u64::from_ne_bytes(field(self.0, NAME))
    }

    #[inline(always)]
    pub(super) fn hash(self) -> u32 {
        (self.name() >> 32) as u32
    }

    pub(super) fn db(self) -> u32 {
        (self.name() >> 16) as u32 & DB_MAX
    }

    #[inline(always)]
    pub(super) fn key_len(self) -> usize {
        self.name() as usize & KEY_BYTES_MAX
    }

    /// The next cell in the same bucket of the index.
    #[inline(always)]
    pub(super) fn chain(self) -> u32 {
        u32::from_ne_bytes(field(self.0, CHAIN))
    }

    /// The tick from which on the entry acts as if it had never been, modulo 2^32.
    #[inline(always)]
    pub(super) fn deadline(self) -> u32 {
        u32::from_ne_bytes(field(self.0, DEADLINE))
    }

    /// The neighbour in the recency list that was used after this one.
    #[inline(always)]
    pub(super) fn newer(self) -> u32 {
        u32::from_ne_bytes(field(self.0, NEWER))
    }

    /// The neighbour that was used before this one.
    #[inline(always)]
    pub(super) fn older(self) -> u32 {
        u32::from_ne_bytes(field(self.0, OLDER))
    }

    pub(super) fn timer(self) -> Links {
        Links {
            prev: u32::from_ne_bytes(field(self.0, TIMER_PREV)),
            next: u32::from_ne_bytes(field(self.0, TIMER_NEXT)),
        }
    }

    /// The tick at which the value was true, modulo 2^32.
    #[inline(always)]
    pub(super) fn stored(self) -> u32 {
        u32::from_ne_bytes(field(self.0, STORED))
    }

    #[inline(always)]
    pub(super) fn ping(self) -> u16 {
        u16::from_ne_bytes(field(self.0, PING))
    }

    #[inline(always)]
    pub(super) fn shape(self) -> Shape {
        Shape(u16::from_ne_bytes(field(self.0, SHAPE)))
    }
}

/// A head to be changed.
#[derive(Debug)]
pub(super) struct HeadMut<'c>(pub(super) &'c mut [u8; HEAD_BYTES]);

impl HeadMut<'_> {
    pub(super) fn set_name(&mut self, name: u64) {
        set(self.0, NAME, name.to_ne_bytes());
    }

    #[inline(always)]
    pub(super) fn set_chain(&mut self, id: u32) {
        set(self.0, CHAIN, id.to_ne_bytes());
    }

    pub(super) fn set_deadline(&mut self, tick: u32) {
        set(self.0, DEADLINE, tick.to_ne_bytes());
    }

    #[inline(always)]
    pub(super) fn set_newer(&mut self, id: u32) {
        set(self.0, NEWER, id.to_ne_bytes());
    }

    #[inline(always)]
    pub(super) fn set_older(&mut self, id: u32) {
        set(self.0, OLDER, id.to_ne_bytes());
    }

    pub(super) fn set_timer_prev(&mut self, prev: u32) {
        set(self.0, TIMER_PREV, prev.to_ne_bytes());
    }

    pub(super) fn set_timer_next(&mut self, next: u32) {
        set(self.0, TIMER_NEXT, next.to_ne_bytes());
    }

    pub(super) fn set_stored(&mut self, tick: u32) {
        set(self.0, STORED, tick.to_ne_bytes());
    }

    pub(super) fn set_ping(&mut self, ping: u16) {
        set(self.0, PING, ping.to_ne_bytes());
    }

    pub(super) fn set_shape(&mut self, shape: Shape) {
        set(self.0, SHAPE, shape.0.to_ne_bytes());
    }
}

#[inline(always)]
fn field<const N: usize>(head: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
    head[at..at + N]
        .try_into()
        .expect("every field lies within the head")
}

#[inline(always)]
fn set<const N: usize>(head: &mut [u8; HEAD_BYTES], at: usize, bytes: [u8; N]) {
    head[at..at + N].copy_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_keeps_to_its_place() {
        let mut bytes = [0; HEAD_BYTES];
        let mut head = HeadMut(&mut bytes);
        head.set_name(u64::MAX - 1);
        head.set_chain(2);
        head.set_deadline(3);
        head.set_newer(4);
        head.set_older(5);
        head.set_timer_prev(6);
        head.set_timer_next(7);
        head.set_stored(8);
        head.set_ping(9);
        head.set_shape(Shape::new(Kind::Block, 10, false));
        let head = Head(&bytes);
        assert_eq!(
            (head.name(), head.chain(), head.deadline()),
            (u64::MAX - 1, 2, 3)
        );
        assert_eq!((head.newer(), head.older()), (4, 5));
        assert_eq!(head.timer(), Links { prev: 6, next: 7 });
        assert_eq!((head.stored(), head.ping()), (8, 9));
        assert_eq!(head.shape(), Shape::new(Kind::Block, 10, false));
    }

    #[test]
    fn a_shape_says_what_it_was_made_of() {
        for kind in [Kind::Value, Kind::Missing, Kind::TooLarge, Kind::Block] {
            for len in [0, 1, 1000, usize::from(Shape::LEN_MASK)] {
                let plain = Shape::new(kind, len, false);
                assert_eq!(
                    (plain.kind(), plain.value_len(), plain.is_tagged()),
                    (kind, len, false)
                );
                assert_eq!(plain.with_tag(), Shape::new(kind, len, true));
                assert!(plain.with_tag().is_tagged() && plain.with_tag().kind() == kind);
            }
        }
    }
}
