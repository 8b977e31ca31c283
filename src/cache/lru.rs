//! The order of last use: a doubly linked list through the table, newest to oldest.
//!
//! It never allocates and never decides what leaves. Invariant: from `newest` along `older` every entry is met once and
//! the last is `oldest`; `newer` is the same way back. Costs: all O(1), three table written at most.
#![forbid(unsafe_code)]

use super::arena::{Moved, NONE};
use super::table::Table;

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

    /// Moves an entry of the list to its new end; `newer` and `older` are its neighbours, which the caller has seen.
    #[inline(always)]
    pub(super) fn touch(&mut self, table: &mut Table, id: u32, newer: u32, older: u32) {
        if self.looked_at == id {
            self.looked_at = older;
        }
        if self.newest == id {
            return;
        }
        let mut cells = table.cells_mut();
        let newest = std::mem::replace(&mut self.newest, id);
        let mut head = cells.at_mut(id);
        head.set_newer(NONE);
        head.set_older(newest);
        // Not the newest, so it has a newer neighbour.
        cells.at_mut(newer).set_older(older);
        match cells.get_mut(older) {
            Some(mut older) => older.set_newer(newer),
            None => self.oldest = newer,
        }
        cells.at_mut(newest).set_newer(id);
    }

    /// Puts an entry that is not in the list at its new end.
    pub(super) fn push(&mut self, table: &mut Table, id: u32) {
        let mut head = table.at_mut(id);
        head.set_newer(NONE);
        head.set_older(self.newest);
        match table.get_mut(self.newest) {
            Some(mut newest) => newest.set_newer(id),
            None => self.oldest = id,
        }
        self.newest = id;
    }

    /// Takes an entry out.
    pub(super) fn unlink(&mut self, table: &mut Table, id: u32) {
        let head = table.at(id);
        let (newer, older) = (head.newer(), head.older());
        if self.looked_at == id {
            self.looked_at = older;
        }
        match table.get_mut(newer) {
            Some(mut newer) => newer.set_older(older),
            None => self.newest = older,
        }
        match table.get_mut(older) {
            Some(mut older) => older.set_newer(newer),
            None => self.oldest = newer,
        }
    }

    /// An entry is at another place: its neighbours name that.
    pub(super) fn follow(&mut self, table: &mut Table, Moved { from, to }: Moved) {
        let head = table.at(to);
        let (newer, older) = (head.newer(), head.older());
        if self.looked_at == from {
            self.looked_at = to;
        }
        match table.get_mut(newer) {
            Some(mut newer) => newer.set_older(to),
            None => self.newest = to,
        }
        match table.get_mut(older) {
            Some(mut older) => older.set_newer(to),
            None => self.oldest = to,
        }
    }

    /// Panics unless the list has `len` entries and is linked both ways.
    pub(super) fn check(&self, table: &Table, len: usize) {
        let mut newer = NONE;
        let mut id = self.newest;
        let mut seen = 0;
        let mut looked_at = self.looked_at == NONE;
        while let Some(head) = table.get(id) {
            assert_eq!(head.newer(), newer, "entry {id} does not point back");
            seen += 1;
            looked_at |= self.looked_at == id;
            assert!(seen <= len, "the recency list is longer than the count");
            (newer, id) = (id, head.older());
        }
        assert_eq!(
            (id, self.oldest, seen),
            (NONE, newer, len),
            "the recency list's end and length"
        );
        assert!(looked_at, "what was looked at last is in the list");
    }
}
