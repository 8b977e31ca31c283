//! What is gone from the cache but not yet from memory: lent replies and rubble.
//!
//! *Lent replies.* A large value is counted, and an outbox may hold it when its entry goes. Its bytes stay in the budget
//! until the last holder has dropped it, which is noticed by the next sweep.
//!
//! *Rubble.* The memory of a cleared cache waits here and is given back in portions: freeing a million entries at once
//! would be a pause of many milliseconds. First the blocks, one by one, then the array of cells from its end.
//!
//! It never holds an entry that anybody can find. Invariant: `lent_bytes` is the cost of the replies in `lent`.
//! Costs: each call O(1), a sweep at most [`SWEEP_MAX`]; a step frees one block, or a portion of the array.
#![forbid(unsafe_code)]

use super::arena;
use super::block::{self, Block, SharedReply};
use slab::Slab;
use std::sync::Arc;

/// Lent replies looked at by one sweep, so that a crowd of slow readers costs no call much.
const SWEEP_MAX: usize = 64;
/// Rubble gives its array back in portions of this size, some 5 µs each: unmapping all at once would be a pause.
const PORTION_BYTES: usize = 64 * 1024;
/// What a portion takes of a budget in which an entry that expires takes one, about 0.3 µs: on a busy machine to unmap 64
/// KiB takes four times as long as on a quiet one.
const PORTION_STEPS: usize = 64;

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving {
    /// Replies that were held by others when their entries went.
    lent: Vec<SharedReply>,
    /// Where the next sweep begins.
    cursor: usize,
    lent_bytes: usize,
    /// Memory of cleared caches, taken apart from the end of the last.
    rubble: Vec<Rubble>,
    /// How much more rubble was freed than [`Leaving::free_bytes`] was asked for.
    credit: usize,
}

#[derive(Debug, Clone)]
struct Rubble {
    cells: Vec<u8>,
    blocks: Slab<Block>,
    /// Blocks from this number on are gone.
    blocks_end: usize,
    heads: Vec<u32>,
}

/// What a step has done.
#[derive(Debug, Clone, Copy)]
struct Step {
    bytes: usize,
    steps: usize,
}

impl Leaving {
    /// The cost of all lent replies.
    pub(super) fn lent_bytes(&self) -> usize {
        self.lent_bytes
    }

    /// Whether there is nothing to be looked after.
    pub(super) fn is_empty(&self) -> bool {
        self.lent.is_empty() && self.rubble.is_empty()
    }

    /// Whether there is something to free.
    pub(super) fn has_rubble(&self) -> bool {
        !self.rubble.is_empty()
    }

    /// Frees the block of an entry that is gone, or puts its reply down as lent. Returns how many bytes are lent.
    pub(super) fn retire(&mut self, block: Block) -> usize {
        if let Block::Large(large) = block
            && Arc::strong_count(&large.reply) > 1
        {
            let bytes = block::reply_cost(large.reply.len());
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
                self.lent_bytes -= block::reply_cost(reply.len());
            } else {
                self.cursor += 1;
            }
        }
    }

    /// Takes over the memory of a cleared cache.
    pub(super) fn put_down(&mut self, (cells, blocks): (Vec<u8>, Slab<Block>), heads: Vec<u32>) {
        self.rubble.push(Rubble {
            cells,
            blocks_end: blocks.capacity(),
            blocks,
            heads,
        });
    }

    /// Frees rubble worth at least `bytes`, with what was freed beyond that before, or all there is.
    pub(super) fn free_bytes(&mut self, bytes: usize) {
        while self.credit < bytes {
            let Some(step) = self.free_step() else {
                self.credit = 0;
                return;
            };
            self.credit += step.bytes;
        }
        self.credit -= bytes;
    }

    /// Frees rubble while `steps` last, which are counted down. A portion may take more than are left.
    pub(super) fn free_within(&mut self, steps: &mut usize) {
        while *steps > 0
            && let Some(step) = self.free_step()
        {
            *steps = steps.saturating_sub(step.steps);
        }
    }

    /// `None` when there is nothing.
    fn free_step(&mut self) -> Option<Step> {
        let rubble = self.rubble.last_mut()?;
        if rubble.blocks_end > 0 {
            rubble.blocks_end -= 1;
            let (mut bytes, number) = (0, rubble.blocks_end);
            if let Some(block) = rubble.blocks.try_remove(number) {
                bytes = block.freed_bytes();
                bytes -= self.retire(block);
            }
            return Some(Step { bytes, steps: 1 });
        }
        let Rubble { cells, heads, .. } = rubble;
        let bytes = cells.len().min(PORTION_BYTES);
        cells.truncate(cells.len() - bytes);
        if cells.is_empty() {
            self.rubble.pop();
        } else {
            cells.shrink_to_fit();
            // As many buckets as there can be cells.
            heads.truncate(cells.len() / arena::CELL_BYTES_MIN);
            heads.shrink_to_fit();
        }
        let steps = (bytes * PORTION_STEPS).div_ceil(PORTION_BYTES).max(1);
        Some(Step { bytes, steps })
    }

    /// Panics where the invariant does not hold.
    pub(super) fn check(&self) {
        let bytes: usize = self
            .lent
            .iter()
            .map(|reply| block::reply_cost(reply.len()))
            .sum();
        assert_eq!(bytes, self.lent_bytes, "bytes lent");
    }
}
