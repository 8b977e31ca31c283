//! The order of last use: a doubly linked list through the slots, newest to oldest.
//!
//! It never allocates and never decides what leaves. Invariant: from `newest` along `older` every entry is met once and
//! the last is `oldest`; `newer` is the same way back. Costs: all O(1), three slots written at most.
#![forbid(unsafe_code)]

use super::arena::{NONE, Slots};

/// The two ends, and how far somebody has looked.
#[derive(Debug, Clone)]
pub(super) struct Lru {
    pub(super) newest: u32,
    pub(super) oldest: u32,
    /// All that is newer was used since somebody last looked (`used.rs`); `NONE`: all there is.
    pub(super) looked_at: u32,
}

impl Lru {
    pub(super) const EMPTY: Lru = Lru {
        newest: NONE,
        oldest: NONE,
        looked_at: NONE,
    };

    /// Moves an entry of the list to its new end.
    #[inline(always)]
    pub(super) fn touch(&mut self, slots: &mut Slots, id: u32) {
        if self.looked_at == id {
            self.looked_at = slots.at(id).older;
        }
        if self.newest == id {
            return;
        }
        let slot = slots.at_mut(id);
        let (newer, older) = (slot.newer, slot.older);
        slot.newer = NONE;
        slot.older = self.newest;
        // Not the newest, so it has a newer neighbour.
        slots.at_mut(newer).older = older;
        match slots.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        slots.at_mut(self.newest).newer = id;
        self.newest = id;
    }

    /// Puts an entry that is not in the list at its new end.
    pub(super) fn push(&mut self, slots: &mut Slots, id: u32) {
        let slot = slots.at_mut(id);
        slot.newer = NONE;
        slot.older = self.newest;
        match slots.get_mut(self.newest) {
            Some(newest) => newest.newer = id,
            None => self.oldest = id,
        }
        self.newest = id;
    }

    /// Takes an entry out.
    pub(super) fn unlink(&mut self, slots: &mut Slots, id: u32) {
        let slot = slots.at(id);
        let (newer, older) = (slot.newer, slot.older);
        if self.looked_at == id {
            self.looked_at = older;
        }
        match slots.get_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match slots.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Panics unless the list has `len` entries and is linked both ways.
    pub(super) fn check(&self, slots: &Slots, len: usize) {
        let mut newer = NONE;
        let mut id = self.newest;
        let mut seen = 0;
        let mut looked_at = self.looked_at == NONE;
        while let Some(slot) = slots.get(id) {
            assert_eq!(slot.newer, newer, "slot {id} does not point back");
            seen += 1;
            looked_at |= self.looked_at == id;
            assert!(seen <= len, "the recency list is longer than the count");
            (newer, id) = (id, slot.older);
        }
        assert_eq!(
            (id, self.oldest, seen),
            (NONE, newer, len),
            "the recency list's end and length"
        );
        assert!(looked_at, "what was looked at last is in the list");
    }
}
