//! What is gone from the cache but not yet from memory: lent replies and rubble.
//!
//! *Lent replies.* A large value is counted, and an outbox may hold it when its entry goes. Its bytes stay in the budget
//! until the last holder has dropped it, which is noticed by the next sweep.
//!
//! *Rubble.* The tables of a cleared cache wait here and are taken apart a slot at a time: freeing a million entries at
//! once would be a pause of many milliseconds.
//!
//! It never holds an entry that anybody can find. Invariant: `lent_bytes` is the cost of the replies in `lent`.
//! Costs: each call O(1), a sweep at most [`SWEEP_MAX`], and `free_bytes` as many slots as the bytes need.
#![forbid(unsafe_code)]

use super::arena::{self, Block, SharedReply, Slot};
use std::sync::Arc;

/// Lent replies looked at by one sweep, so that a crowd of slow readers costs no call much.
const SWEEP_MAX: usize = 64;
/// Rubble gives its tables back in portions of this many slots, 1 MiB: unmapping all at once would be a pause.
const SHRINK_SLOTS: usize = 16 * 1024;

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving {
    /// Replies that were held by others when their entries went.
    lent: Vec<SharedReply>,
    /// Where the next sweep begins.
    cursor: usize,
    lent_bytes: usize,
    /// Tables of cleared caches, taken apart from the end of the last.
    rubble: Vec<Rubble>,
}

#[derive(Debug, Clone)]
struct Rubble {
    slots: Vec<Slot>,
    heads: Vec<u32>,
}

impl Leaving {
    /// The cost of all lent replies.
    pub(super) fn lent_bytes(&self) -> usize {
        self.lent_bytes
    }

    /// Whether [`Leaving::free_slot`] has something to free.
    pub(super) fn has_rubble(&self) -> bool {
        !self.rubble.is_empty()
    }

    /// Frees the block of an entry that is gone, or puts its reply down as lent. Returns how many bytes are lent.
    pub(super) fn retire(&mut self, block: Block) -> usize {
        if let Block::Large(large) = block
            && Arc::strong_count(&large.reply) > 1
        {
            let bytes = arena::reply_cost(large.reply.len());
            self.lent_bytes += bytes;
            self.lent.push(large.reply);
            return bytes;
        }
        0
    }

    /// Frees lent replies that nobody else holds any more.
    pub(super) fn sweep(&mut self) {
        for _ in 0..self.lent.len().min(SWEEP_MAX) {
            if self.cursor >= self.lent.len() {
                self.cursor = 0;
            }
            if Arc::strong_count(&self.lent[self.cursor]) == 1 {
                let reply = self.lent.swap_remove(self.cursor);
                self.lent_bytes -= arena::reply_cost(reply.len());
            } else {
                self.cursor += 1;
            }
        }
    }

    /// Takes over the tables of a cleared cache.
    pub(super) fn put_down(&mut self, slots: Vec<Slot>, heads: Vec<u32>) {
        self.rubble.push(Rubble { slots, heads });
    }

    /// Frees rubble worth at least `bytes`, or all there is.
    pub(super) fn free_bytes(&mut self, bytes: usize) {
        let mut freed = 0;
        while freed < bytes
            && let Some(more) = self.free_slot()
        {
            freed += more;
        }
    }

    /// Frees one slot of rubble; returns how many bytes that gave back, `None` when there is none.
    pub(super) fn free_slot(&mut self) -> Option<usize> {
        let Rubble { slots, heads } = self.rubble.last_mut()?;
        let slot = slots.pop();
        if slots.is_empty() {
            self.rubble.pop();
        } else if slots.len() % SHRINK_SLOTS == 0 {
            slots.shrink_to_fit();
            heads.truncate(slots.len());
            heads.shrink_to_fit();
        }
        // A vacant slot gives nothing back.
        let Some(slot) = slot.filter(|slot| slot.timer.is_linked()) else {
            return Some(0);
        };
        let cost = slot.cost();
        Some(cost - self.retire(slot.block))
    }

    /// Panics where the invariant does not hold.
    pub(super) fn check(&self) {
        let bytes: usize = self
            .lent
            .iter()
            .map(|reply| arena::reply_cost(reply.len()))
            .sum();
        assert_eq!(bytes, self.lent_bytes, "bytes lent");
    }
}
