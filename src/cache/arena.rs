//! The memory of the entries: cells of a few sizes, each size packed without a gap.
//!
//! A cell is named by its place: a `u32` that counts units of 8 bytes. The memory is one array, cut into slabs of 8 KiB;
//! a slab holds cells of one class (one size). Within a class the cells stand side by side, slab after slab: when one
//! goes, the class's last cell moves into its place. So a class never has more than one slab that is not full, whatever
//! leaves in whatever order, and a slab that has become empty serves any other class at once. A change of the sizes that
//! are stored strands nothing: the room that an entry gives back is room for everybody, but for less than a slab a class.
//!
//! ```text
//! slab        0          1          2          3          4
//!        |aaaaaaaaaa|bbbbb     |aaaaaaaaaa|          |aaaa      |      a: 48 bytes, b: 120 bytes, 3 is vacant
//! ```
//! The array's address space is reserved at its first use and becomes memory slab by slab: it does not move, so growing
//! never pauses to copy. What is free at its end goes back to the system, a mebibyte at a time.
//!
//! It never looks into a cell. Invariant: every slab belongs to one class or is vacant; all slabs of a class but the
//! last are full. Costs: all O(1) but `take` and `free` of a slab, O(log vacant slabs); a cell that goes costs a copy of
//! at most 1 KiB. Memory beside the cells: 5 bytes per slab, at most 2% of a slab behind its last cell, and half a slab
//! per class in use: 0.4 MiB if all of them are.
#![forbid(unsafe_code)]

use super::head::{HEAD_BYTES, Head, HeadMut};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No cell. Larger than any place, so looking it up fails like any other bad id.
pub(super) const NONE: u32 = u32::MAX;
/// Ids count these.
const UNIT_BYTES: usize = 8;
const SLAB_BYTES: usize = 8 * 1024;
const SLAB_UNITS: u32 = (SLAB_BYTES / UNIT_BYTES) as u32;
/// The smallest cell.
pub(super) const CELL_BYTES_MIN: usize = HEAD_BYTES;
/// The largest cell. Beyond it a block of its own wastes less.
pub(super) const CELL_BYTES_MAX: usize = 1024;
/// How much may be in cells: ids are below 2^31, and slabs that are not full need some room too.
pub(super) const CELLS_BYTES_MAX: usize = 15 << 30;
const _: () = assert!(CELLS_BYTES_MAX + (CLASSES + 1) * SLAB_BYTES < UNIT_BYTES << 31);
/// With so much free at its end the array becomes shorter: unmapping takes some 30 µs per mebibyte.
const GIVE_BACK_BYTES: usize = 1 << 20;
/// In the table of slabs: it belongs to no class.
const VACANT: u8 = u8::MAX;

/// Cells of up to 256 bytes come in steps of 8; above, as many steps as there are numbers of cells that fill a slab.
const SMALL_BYTES_MAX: usize = 256;
const SMALL: usize = (SMALL_BYTES_MAX - HEAD_BYTES) / UNIT_BYTES + 1;
const CLASSES: usize = SMALL + SLAB_BYTES / SMALL_BYTES_MAX - SLAB_BYTES / CELL_BYTES_MAX;

/// How long the cells of each class are.
const CELL_BYTES: [u16; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let bytes = if class < SMALL {
            HEAD_BYTES + class * UNIT_BYTES
        } else {
            let in_slab = SLAB_BYTES / SMALL_BYTES_MAX - 1 - (class - SMALL);
            SLAB_BYTES / in_slab / UNIT_BYTES * UNIT_BYTES
        };
        sizes[class] = bytes as u16;
        class += 1;
    }
    assert!(sizes[CLASSES - 1] as usize == CELL_BYTES_MAX);
    sizes
};

/// The class of each number of units.
const CLASS_OF: [u8; CELL_BYTES_MAX / UNIT_BYTES + 1] = {
    let mut classes = [0; CELL_BYTES_MAX / UNIT_BYTES + 1];
    let (mut units, mut class) = (0, 0);
    while units < classes.len() {
        if units * UNIT_BYTES > CELL_BYTES[class] as usize {
            class += 1;
        }
        classes[units] = class as u8;
        units += 1;
    }
    classes
};

/// How long a cell for so many bytes is; they are at most [`CELL_BYTES_MAX`].
pub(super) fn cell_bytes_for(bytes: usize) -> usize {
    usize::from(CELL_BYTES[class_for(bytes)])
}

fn class_for(bytes: usize) -> usize {
    usize::from(CLASS_OF[bytes.div_ceil(UNIT_BYTES)])
}

/// A cell that went to another place: all that pointed at `from` has to point at `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) from: u32,
    pub(super) to: u32,
}

/// All cells, by the slice that they are in: what is written to one cannot be taken for a change of where they are, which
/// would be looked up anew each time otherwise.
#[derive(Debug)]
pub(super) struct CellsMut<'a>(&'a mut [u8]);

impl CellsMut<'_> {
    /// The head of a cell, or `None` for [`NONE`].
    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<HeadMut<'_>> {
        head_mut(self.0, id)
    }

    #[inline(always)]
    pub(super) fn at_mut(&mut self, id: u32) -> HeadMut<'_> {
        self.get_mut(id).expect("an id of a cell in use")
    }
}

#[inline(always)]
fn head_mut(bytes: &mut [u8], id: u32) -> Option<HeadMut<'_>> {
    let at = id as usize * UNIT_BYTES;
    let head = bytes.get_mut(at..at + HEAD_BYTES)?;
    head.first_chunk_mut().map(HeadMut)
}

#[derive(Debug, Clone, Default)]
struct Class {
    /// In the order in which they were filled.
    slabs: Vec<u32>,
    /// How many cells of the last one are in use; of the others all are.
    used: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    /// The class of each slab.
    slabs: Vec<u8>,
    classes: Vec<Class>,
    /// Vacant slabs, lowest first, so that the end of the array empties. An entry may be out of date.
    vacant: BinaryHeap<Reverse<u32>>,
    /// How many bytes the array was at most since memory was given back last.
    bytes_touched: usize,
    /// How much address space is to be reserved.
    room: usize,
    /// What all cells in use take.
    used_bytes: usize,
}

impl Arena {
    /// Nothing yet. `bytes_max`: what the cells will take at most, for the reservation.
    pub(super) fn new(bytes_max: usize) -> Arena {
        Arena {
            bytes: Vec::new(),
            slabs: Vec::new(),
            classes: Vec::new(),
            vacant: BinaryHeap::new(),
            bytes_touched: 0,
            room: bytes_max.min(CELLS_BYTES_MAX) + (CLASSES + 1) * SLAB_BYTES,
            used_bytes: 0,
        }
    }

    /// What all cells in use take.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// What the array takes, vacant slabs in its midst included.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes_touched
    }

    /// The head of a cell, or `None` for [`NONE`].
    #[inline(always)]
    pub(super) fn get(&self, id: u32) -> Option<Head<'_>> {
        let at = id as usize * UNIT_BYTES;
        let head = self.bytes.get(at..at + HEAD_BYTES)?;
        head.first_chunk().map(Head)
    }

    #[inline(always)]
    pub(super) fn at(&self, id: u32) -> Head<'_> {
        self.get(id).expect("an id of a cell in use")
    }

    /// For who changes several heads.
    #[inline(always)]
    pub(super) fn cells_mut(&mut self) -> CellsMut<'_> {
        CellsMut(&mut self.bytes)
    }

    /// The head of a cell, or `None` for [`NONE`].
    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<HeadMut<'_>> {
        head_mut(&mut self.bytes, id)
    }

    #[inline(always)]
    pub(super) fn at_mut(&mut self, id: u32) -> HeadMut<'_> {
        self.get_mut(id).expect("an id of a cell in use")
    }

    /// `len` bytes of a cell, `skip` bytes behind its head.
    #[inline(always)]
    pub(super) fn behind(&self, id: u32, skip: usize, len: usize) -> &[u8] {
        let at = id as usize * UNIT_BYTES + HEAD_BYTES + skip;
        &self.bytes[at..at + len]
    }

    /// The same, to be written.
    pub(super) fn behind_mut(&mut self, id: u32, skip: usize, len: usize) -> &mut [u8] {
        let at = id as usize * UNIT_BYTES + HEAD_BYTES + skip;
        &mut self.bytes[at..at + len]
    }

    /// How long a cell in use is.
    pub(super) fn cell_bytes(&self, id: u32) -> usize {
        usize::from(CELL_BYTES[self.class_of(id)])
    }

    fn class_of(&self, id: u32) -> usize {
        usize::from(self.slabs[(id / SLAB_UNITS) as usize])
    }

    /// Takes a cell for `bytes`, its head included. What is in it is of no meaning.
    pub(super) fn take(&mut self, bytes: usize) -> u32 {
        let class = class_for(bytes);
        let cell_bytes = usize::from(CELL_BYTES[class]);
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Class::default);
        }
        let is_full = self.classes[class].used as usize == SLAB_BYTES / cell_bytes;
        if is_full || self.classes[class].slabs.is_empty() {
            let slab = self.take_slab(class as u8);
            let class = &mut self.classes[class];
            class.slabs.push(slab);
            class.used = 0;
        }
        let class = &mut self.classes[class];
        class.used += 1;
        let id = class.last(cell_bytes).expect("it has just got one");
        self.used_bytes += cell_bytes;
        let end = id as usize * UNIT_BYTES + cell_bytes;
        if self.bytes.len() < end {
            self.grow(end);
        }
        id
    }

    fn grow(&mut self, end: usize) {
        if self.bytes.capacity() < end {
            self.reserve();
        }
        self.bytes.resize(end, 0);
        self.bytes_touched = self.bytes_touched.max(end);
    }

    fn take_slab(&mut self, class: u8) -> u32 {
        while let Some(Reverse(slab)) = self.vacant.pop() {
            if let Some(owner) = self.slabs.get_mut(slab as usize)
                && *owner == VACANT
            {
                *owner = class;
                return slab;
            }
        }
        self.slabs.push(class);
        (self.slabs.len() - 1) as u32
    }

    /// Gives a cell back. The last of its class takes its place, if it was not that one.
    pub(super) fn give(&mut self, id: u32) -> Option<Moved> {
        let class = self.class_of(id);
        let cell_bytes = usize::from(CELL_BYTES[class]);
        self.used_bytes -= cell_bytes;
        let cells = &mut self.classes[class];
        let last = cells.last(cell_bytes).expect("this one is in use");
        let moved = (last != id).then_some(Moved { from: last, to: id });
        if moved.is_some() {
            let from = last as usize * UNIT_BYTES;
            self.bytes
                .copy_within(from..from + cell_bytes, id as usize * UNIT_BYTES);
        }
        cells.used -= 1;
        if cells.used == 0
            && let Some(slab) = cells.slabs.pop()
        {
            if !cells.slabs.is_empty() {
                cells.used = (SLAB_BYTES / cell_bytes) as u32;
            }
            self.slabs[slab as usize] = VACANT;
            self.vacant.push(Reverse(slab));
            self.shorten();
        }
        moved
    }

    /// Takes vacant slabs off the end of the array, and gives their memory back when it is worth the call.
    fn shorten(&mut self) {
        while self.slabs.last() == Some(&VACANT) {
            self.slabs.pop();
        }
        self.bytes.truncate(self.slabs.len() * SLAB_BYTES);
        if self.slabs.is_empty() {
            self.vacant.clear();
        }
        if self.bytes_touched - self.bytes.len() >= GIVE_BACK_BYTES {
            self.bytes.shrink_to_fit();
            self.bytes_touched = self.bytes.len();
            self.reserve();
        }
    }

    /// Address space only. If so much cannot be had the array grows by moving, which is only slower.
    fn reserve(&mut self) {
        let more = self.room.saturating_sub(self.bytes.len());
        let _ = self.bytes.try_reserve_exact(more);
    }

    /// The array, for whoever frees it.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Panics unless the invariant holds and exactly `live` cells are in use.
    pub(super) fn check(&self, live: usize) {
        let (mut cells, mut used_bytes, mut owned) = (0, 0, 0);
        for (class, of_class) in self.classes.iter().enumerate() {
            let cell_bytes = usize::from(CELL_BYTES[class]);
            let in_slab = SLAB_BYTES / cell_bytes;
            for slab in &of_class.slabs {
                assert_eq!(
                    usize::from(self.slabs[*slab as usize]),
                    class,
                    "slab {slab}"
                );
            }
            owned += of_class.slabs.len();
            let full = of_class.slabs.len().saturating_sub(1);
            assert!((of_class.used as usize) <= in_slab);
            assert_eq!(
                of_class.used == 0,
                of_class.slabs.is_empty(),
                "an empty slab is kept"
            );
            cells += full * in_slab + of_class.used as usize;
            used_bytes += (full * in_slab + of_class.used as usize) * cell_bytes;
        }
        assert_eq!((cells, used_bytes), (live, self.used_bytes), "cells in use");
        let vacant = self.slabs.iter().filter(|slab| **slab == VACANT).count();
        assert_eq!(
            vacant + owned,
            self.slabs.len(),
            "slabs of a class and vacant"
        );
        assert_ne!(self.slabs.last(), Some(&VACANT), "a vacant slab at the end");
        assert!(self.bytes.len() <= self.slabs.len() * SLAB_BYTES);
        assert!(self.bytes_touched < self.bytes.len() + GIVE_BACK_BYTES + SLAB_BYTES);
        for (slab, owner) in self.slabs.iter().enumerate() {
            let is_listed = self.vacant.iter().any(|vacant| vacant.0 as usize == slab);
            assert!(*owner != VACANT || is_listed, "slab {slab} is lost");
        }
    }
}

/// A clone reserves nothing, so that the tests which explore all interleavings can hold many.
impl Clone for Arena {
    fn clone(&self) -> Arena {
        Arena {
            bytes: self.bytes.clone(),
            slabs: self.slabs.clone(),
            classes: self.classes.clone(),
            vacant: self.vacant.clone(),
            bytes_touched: self.bytes.len(),
            room: 0,
            used_bytes: self.used_bytes,
        }
    }
}

impl Class {
    /// The last cell in use.
    fn last(&self, cell_bytes: usize) -> Option<u32> {
        let slab = *self.slabs.last()?;
        Some(slab * SLAB_UNITS + (self.used - 1) * (cell_bytes / UNIT_BYTES) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_smallest_cell_that_holds_it_and_little_is_wasted() {
        for bytes in HEAD_BYTES..=CELL_BYTES_MAX {
            let cell = cell_bytes_for(bytes);
            assert!(cell >= bytes && cell.is_multiple_of(UNIT_BYTES));
            let smaller = CELL_BYTES.iter().find(|size| usize::from(**size) >= bytes);
            assert_eq!(smaller.map(|size| usize::from(*size)), Some(cell));
            assert!(
                cell - bytes < UNIT_BYTES.max(bytes / 7),
                "{bytes} in {cell}"
            );
            let behind = SLAB_BYTES % cell;
            assert!(
                behind <= SLAB_BYTES / 32,
                "{behind} bytes behind cells of {cell}"
            );
        }
    }

    /// Takes and gives cells at random, and finds in each what was written there last, wherever it has moved.
    #[test]
    fn cells_keep_their_bytes_wherever_they_move() {
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut arena = Arena::new(1 << 20);
            let mut live: Vec<(u32, u64)> = Vec::new();
            for step in 0..1500 {
                let grows = random.usize(..100) < if step % 500 < 250 { 80 } else { 20 };
                if grows {
                    let id = arena.take(random.usize(HEAD_BYTES..=CELL_BYTES_MAX));
                    let name = random.u64(..);
                    arena.at_mut(id).set_name(name);
                    assert!(live.iter().all(|(other, _)| *other != id));
                    live.push((id, name));
                } else if !live.is_empty() {
                    let (id, _) = live.swap_remove(random.usize(..live.len()));
                    if let Some(moved) = arena.give(id) {
                        assert_eq!(moved.to, id);
                        let found = live.iter_mut().find(|(other, _)| *other == moved.from);
                        found.expect("what moves is in use").0 = id;
                    }
                }
                arena.check(live.len());
            }
            for (id, name) in &live {
                assert_eq!(arena.at(*id).name(), *name);
            }
        }
    }

    #[test]
    fn what_is_free_at_the_end_is_given_back_and_what_is_in_the_midst_serves_other_sizes() {
        let mut arena = Arena::new(64 << 20);
        let ids: Vec<u32> = (0..100_000).map(|_| arena.take(120)).collect();
        let full = arena.held_bytes();
        assert!((12_000_000..12_200_000).contains(&full), "{full}");
        // The last of the class fills each hole, so the places that remain are the first.
        for id in &ids[..90_000] {
            arena.give(ids[0].min(*id));
        }
        arena.check(10_000);
        assert!(arena.held_bytes() < 1_200_000 + GIVE_BACK_BYTES + SLAB_BYTES);
        let mut others = Vec::new();
        while arena.used_bytes() < 12_000_000 {
            others.push(arena.take(264));
        }
        arena.check(10_000 + others.len());
        assert!(
            arena.held_bytes() < full + 300_000,
            "{}",
            arena.held_bytes()
        );
    }
}
