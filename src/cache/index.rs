//! From a key's hash to its slot: chained buckets that grow one at a time.
//!
//! Linear hashing after W. Litwin, "Linear Hashing: A New Tool for File and Table Addressing" (VLDB 1980): with every
//! entry beyond the number of buckets one bucket is added, and one old bucket is split in two. So there is never a
//! rehash of the whole table. Keys of one name in several databases share a chain, and so one walk meets them all.
//!
//! It never looks at keys. Invariant: every entry is in the chain of the bucket its hash names, once.
//! Costs: on average 1.5 slots are looked at on a hit; 4 bytes per entry, and the chain link in the slot. Buckets are
//! not taken away when entries go. Hashes are keyed, so long chains cannot be provoked.
#![forbid(unsafe_code)]

use super::arena::{NONE, Slots};

/// The buckets: the first slot of each chain.
#[derive(Debug, Clone)]
pub(super) struct Index {
    heads: Vec<u32>,
    /// The number of buckets rounded up to a power of two, less one.
    mask: u32,
}

impl Index {
    /// No buckets yet, and address space for `len_max`.
    pub(super) fn new(len_max: usize) -> Index {
        let mut heads = Vec::new();
        // Without the reservation it grows by moving, which is only slower.
        let _ = heads.try_reserve_exact(len_max);
        Index { heads, mask: 0 }
    }

    /// The first slot of the chain in which an entry with this hash would be.
    #[inline(always)]
    pub(super) fn first(&self, hash: u32) -> u32 {
        self.heads.get(self.bucket(hash)).copied().unwrap_or(NONE)
    }

    #[inline(always)]
    fn bucket(&self, hash: u32) -> usize {
        let bucket = (hash & self.mask) as usize;
        // A bucket that is still to be added: its entries are with the one it will be split from.
        if bucket >= self.heads.len() {
            bucket & (self.mask >> 1) as usize
        } else {
            bucket
        }
    }

    /// Adds a slot; `len` is how many entries there are with it.
    pub(super) fn insert(&mut self, slots: &mut Slots, id: u32, len: usize) {
        if len > self.heads.len() {
            self.grow(slots);
        }
        let bucket = self.bucket(slots.at(id).hash());
        slots.at_mut(id).chain = self.heads[bucket];
        self.heads[bucket] = id;
    }

    /// Takes a slot out.
    pub(super) fn remove(&mut self, slots: &mut Slots, id: u32) {
        let next = slots.at(id).chain;
        let bucket = self.bucket(slots.at(id).hash());
        if self.heads[bucket] == id {
            self.heads[bucket] = next;
            return;
        }
        let mut before = self.heads[bucket];
        while slots.at(before).chain != id {
            before = slots.at(before).chain;
        }
        slots.at_mut(before).chain = next;
    }

    /// Adds one bucket and moves to it what belongs there.
    fn grow(&mut self, slots: &mut Slots) {
        let added = self.heads.len() as u32;
        self.heads.push(NONE);
        self.mask = (self.heads.len().next_power_of_two() - 1) as u32;
        if added == 0 {
            return;
        }
        let split = (added & (self.mask >> 1)) as usize;
        let mut id = std::mem::replace(&mut self.heads[split], NONE);
        while id != NONE {
            let slot = slots.at_mut(id);
            let bucket = if slot.hash() & self.mask == added {
                added as usize
            } else {
                split
            };
            let next = std::mem::replace(&mut slot.chain, self.heads[bucket]);
            self.heads[bucket] = id;
            id = next;
        }
    }

    /// The buckets, for whoever frees them.
    pub(super) fn into_heads(self) -> Vec<u32> {
        self.heads
    }

    /// Panics unless `len` entries are chained, each in its bucket.
    pub(super) fn check(&self, slots: &Slots, len: usize) {
        assert!(self.heads.len() >= len, "more entries than buckets");
        let mut seen = 0;
        for (bucket, &first) in self.heads.iter().enumerate() {
            let mut id = first;
            while let Some(slot) = slots.get(id) {
                assert_eq!(
                    self.bucket(slot.hash()),
                    bucket,
                    "slot {id} is in a wrong bucket"
                );
                assert!(slot.timer.is_linked(), "slot {id} is chained and vacant");
                seen += 1;
                assert!(seen <= len, "more entries chained than there are");
                id = slot.chain;
            }
            assert_eq!(id, NONE, "the chain of bucket {bucket} leads nowhere");
        }
        assert_eq!(seen, len, "entries chained");
    }
}
