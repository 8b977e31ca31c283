//! The table of entries: a cell for each, named by a `u32`, and a block of its own where key and value do not fit it.
//!
//! ```text
//! cell   head 40 | key | value              (| tag 8)      what is small: one place in memory, one cache line or two
//!        head 40 | key                      (| tag 8)      Redis has no such key, or its value is too large to keep
//!        head 40 | number of a block 4      (| tag 8)      key and value are there
//! ```
//! A tag is there only if one was put: eight bytes that an entry which only speaks RESP never pays.
//!
//! Ids are places. When an entry goes, another may move into its place ([`Moved`]); whoever links entries follows.
//! It never decides which entry lives, and never links one to another. Costs: all O(1) but for copying the value.
#![forbid(unsafe_code)]

use super::arena::{Arena, CellsMut, Moved};
use super::block::{self, BLOCK_ID_BYTES, Block, Place, SharedReply, TAG_BYTES};
use super::entry::{Clock, Content, Put, Stamp, ValueRef, tick_after};
use super::head::{HEAD_BYTES, Head, HeadMut, Kind, Shape};
use crate::wheel::{Links, Timers};
use slab::Slab;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Table {
    cells: Arena,
    blocks: Slab<Block>,
}

impl Table {
    /// An empty table whose entries will cost at most this much.
    pub(super) fn new(bytes_max: usize) -> Table {
        Table {
            cells: Arena::new(bytes_max),
            blocks: Slab::new(),
        }
    }

    /// What the cells take.
    pub(super) fn cells_bytes(&self) -> usize {
        self.cells.used_bytes()
    }

    /// What the array of cells takes, with what is vacant in it.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.cells.held_bytes()
    }

    /// The head, or `None` for [`super::arena::NONE`].
    #[inline(always)]
    pub(super) fn get(&self, id: u32) -> Option<Head<'_>> {
        self.cells.get(id)
    }

    #[inline(always)]
    pub(super) fn at(&self, id: u32) -> Head<'_> {
        self.cells.at(id)
    }

    /// The head, or `None` for [`super::arena::NONE`].
    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<HeadMut<'_>> {
        self.cells.get_mut(id)
    }

    /// For who changes several heads.
    #[inline(always)]
    pub(super) fn cells_mut(&mut self) -> CellsMut<'_> {
        self.cells.cells_mut()
    }

    #[inline(always)]
    pub(super) fn at_mut(&mut self, id: u32) -> HeadMut<'_> {
        self.cells.at_mut(id)
    }

    /// Adds an entry, linked to nothing. `name` is that of [`super::head::name_of`]; the times are ticks modulo 2^32.
    pub(super) fn insert(&mut self, put: &Put<'_>, name: u64, stored: u32, deadline: u32) -> u32 {
        let Put { key, content, .. } = put;
        let tag = (put.tag != 0).then(|| put.tag.to_ne_bytes());
        let value = content.value();
        let place = Place::of(key.len(), content);
        let need = block::cell_need(key.len(), content) + tag.map_or(0, |tag| tag.len());
        let id = self.cells.take(need);
        let block = match place {
            Place::Cell => None,
            Place::Joined => Some(Block::joined(key, value)),
            Place::Shared => Some(Block::large(key, value)),
        };
        let (kind, value_len) = match (&block, content) {
            (Some(_), _) => (Kind::Block, 0),
            (None, super::NewContent::Value(value)) => (Kind::Value, value.len()),
            (None, super::NewContent::Missing) => (Kind::Missing, 0),
            (None, super::NewContent::TooLarge) => (Kind::TooLarge, 0),
        };
        let mut head = self.cells.at_mut(id);
        head.set_name(name);
        head.set_stored(stored);
        head.set_deadline(deadline);
        head.set_ping(put.ping);
        head.set_shape(Shape::new(kind, value_len, tag.is_some()));
        head.set_timer_prev(Links::UNLINKED.prev);
        match block {
            Some(block) => {
                let number = (self.blocks.insert(block) as u32).to_ne_bytes();
                let place = self.cells.behind_mut(id, 0, BLOCK_ID_BYTES);
                place.copy_from_slice(&number);
            }
            None => {
                let place = self.cells.behind_mut(id, 0, key.len() + value.len());
                let (for_key, for_value) = place.split_at_mut(key.len());
                for_key.copy_from_slice(key);
                for_value.copy_from_slice(value);
            }
        }
        if let Some(tag) = tag {
            let at = self.tag_at(id);
            self.cells
                .behind_mut(id, at, TAG_BYTES)
                .copy_from_slice(&tag);
        }
        id
    }

    /// Takes an entry out that nothing is linked to any more. Says which entry moved into its place, and what block is left.
    pub(super) fn remove(&mut self, id: u32) -> (Option<Moved>, Option<Block>) {
        let block = match self.at(id).shape().kind() {
            Kind::Block => Some(self.blocks.remove(self.block_number(id))),
            Kind::Value | Kind::Missing | Kind::TooLarge => None,
        };
        (self.cells.give(id), block)
    }

    /// Where in memory key and value are, for a value that is in its cell; see [`Table::has_key`] for the other.
    pub(super) fn key(&self, id: u32) -> &[u8] {
        let head = self.at(id);
        match head.shape().kind() {
            Kind::Block => self.block(id).key(head.key_len()),
            _ => self.cells.behind(id, 0, head.key_len()),
        }
    }

    /// Whether this is the entry of `key`, given that it has the length of the entry's key.
    #[inline(always)]
    pub(super) fn has_key(&self, id: u32, key: &[u8]) -> bool {
        match self.at(id).shape().is_block() {
            true => self.block_has_key(id, key),
            false => same(self.cells.behind(id, 0, key.len()), key),
        }
    }

    /// Apart, so that a hit stays short.
    #[inline(never)]
    fn block_has_key(&self, id: u32, key: &[u8]) -> bool {
        same(self.block(id).key(key.len()), key)
    }

    #[inline(always)]
    pub(super) fn content(&self, id: u32, clock: Clock) -> Content<'_> {
        let head = self.at(id);
        self.content_at(id, head.key_len(), head.shape(), clock)
    }

    /// The same for a caller who has looked at the head before it was changed.
    #[inline(always)]
    pub(super) fn content_at(
        &self,
        id: u32,
        key_len: usize,
        shape: Shape,
        clock: Clock,
    ) -> Content<'_> {
        let value = match shape.kind() {
            Kind::Value => self.cells.behind(id, key_len, shape.value_len()),
            Kind::Missing => return Content::Missing,
            Kind::TooLarge => return Content::TooLarge,
            Kind::Block => self.block(id).value(key_len),
        };
        Content::Value(ValueRef {
            value,
            table: self,
            id,
            clock,
        })
    }

    /// A value of which the caller knows that it is in its cell.
    #[inline(always)]
    pub(super) fn value_in_cell(&self, id: u32, key_len: usize, value_len: usize) -> &[u8] {
        self.cells.behind(id, key_len, value_len)
    }

    /// The counted reply of an entry that has one.
    #[inline(never)]
    pub(super) fn shared(&self, id: u32) -> Option<&SharedReply> {
        self.block(id).shared()
    }

    pub(super) fn stamp(&self, id: u32, clock: Clock) -> Stamp {
        let head = self.at(id);
        Stamp {
            stored_at: clock.stored(head.stored()),
            deadline: clock.deadline(head.deadline()),
            tag: self.tag(id),
            ping: head.ping(),
        }
    }

    /// Everything the entry costs, in bytes.
    pub(super) fn cost(&self, id: u32) -> usize {
        let head = self.at(id);
        let block = match head.shape().kind() {
            Kind::Block => self.block(id).cost(head.key_len()),
            _ => 0,
        };
        block::cost_in_cell(self.cells.cell_bytes(id)) + block
    }

    /// Changes the tag if there is room for one in the cell; whether there was.
    pub(super) fn set_tag(&mut self, id: u32, tag: u64) -> bool {
        let at = self.tag_at(id);
        if HEAD_BYTES + at + TAG_BYTES > self.cells.cell_bytes(id) {
            return false;
        }
        let shape = self.at(id).shape().with_tag();
        self.at_mut(id).set_shape(shape);
        let place = self.cells.behind_mut(id, at, TAG_BYTES);
        place.copy_from_slice(&tag.to_ne_bytes());
        true
    }

    /// Copies an entry to a larger cell, in which a tag has room. The old one is left, to be given back by
    /// [`Table::give_old`] when all that was linked to it is linked to the new one.
    pub(super) fn enlarge(&mut self, id: u32) -> Moved {
        let bytes = self.tag_at(id);
        let to = self.cells.take(HEAD_BYTES + bytes + TAG_BYTES);
        let head = *self.at(id).0;
        *self.at_mut(to).0 = head;
        let rest = self.cells.behind(id, 0, bytes).to_vec();
        self.cells.behind_mut(to, 0, bytes).copy_from_slice(&rest);
        Moved { from: id, to }
    }

    /// See [`Table::enlarge`]. Another entry may move into the place of the old.
    pub(super) fn give_old(&mut self, id: u32) -> Option<Moved> {
        self.cells.give(id)
    }

    /// The tag, or zero.
    #[inline]
    pub(super) fn tag(&self, id: u32) -> u64 {
        if !self.at(id).shape().is_tagged() {
            return 0;
        }
        let tag = self.cells.behind(id, self.tag_at(id), TAG_BYTES);
        u64::from_ne_bytes(*tag.first_chunk().expect("as long as asked for"))
    }

    /// Where the tag is or would be: how many bytes are between the head and it.
    fn tag_at(&self, id: u32) -> usize {
        let head = self.at(id);
        match head.shape().kind() {
            Kind::Block => BLOCK_ID_BYTES,
            _ => head.key_len() + head.shape().value_len(),
        }
    }

    fn block_number(&self, id: u32) -> usize {
        let bytes = self.cells.behind(id, 0, BLOCK_ID_BYTES);
        let number = bytes.first_chunk().expect("as long as asked for");
        u32::from_ne_bytes(*number) as usize
    }

    #[inline(never)]
    fn block(&self, id: u32) -> &Block {
        &self.blocks[self.block_number(id)]
    }

    /// Memory and blocks, for whoever frees them.
    pub(super) fn into_parts(self) -> (Vec<u8>, Slab<Block>) {
        (self.cells.into_bytes(), self.blocks)
    }

    /// Panics unless exactly `live` entries are here and no block is without one.
    pub(super) fn check(&self, live: usize) {
        self.cells.check(live);
    }

    /// How many entries have blocks.
    pub(super) fn blocks_len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn has_block(&self, id: u32) -> bool {
        self.at(id).shape().kind() == Kind::Block
    }
}

impl Timers for Table {
    fn tick(&self, id: u32, passed: u64) -> u64 {
        tick_after(passed, self.at(id).deadline())
    }
    fn links(&self, id: u32) -> Links {
        self.at(id).timer()
    }
    fn set_prev(&mut self, id: u32, prev: u32) {
        self.at_mut(id).set_timer_prev(prev);
    }
    fn set_next(&mut self, id: u32, next: u32) {
        self.at_mut(id).set_timer_next(next);
    }
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
}
