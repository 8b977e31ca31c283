//! The replies owed to a client, in the order of its commands.
//!
//! Slots are numbered; the number names a slot until its reply is complete. Invariant: without slots there is no memory,
//! and numbering begins anew, for nothing can name a slot that is gone.
#![forbid(unsafe_code)]

use super::Slot;
use crate::outbox::{Outbox, Pool};
use std::collections::VecDeque;

/// The slots. Eight bytes for a client that is owed nothing.
#[derive(Debug, Clone, Default)]
pub struct Owed(Option<Box<Slots>>);

#[derive(Debug, Clone, Default)]
struct Slots {
    slots: VecDeque<Slot>,
    /// The number of the front slot.
    front: u64,
    /// Bytes in the early parts of slots.
    early_bytes: usize,
    /// Those of them that are copies.
    early_copied: usize,
}

impl Owed {
    /// Whether nothing is owed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many replies are owed.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |owed| owed.slots.len())
    }

    /// The slots, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter().flat_map(|owed| owed.slots.iter())
    }

    /// The slot whose reply leaves next.
    pub fn front(&self) -> Option<&Slot> {
        self.0.as_ref()?.slots.front()
    }

    /// The slot behind all others.
    pub fn back(&self) -> Option<&Slot> {
        self.0.as_ref()?.slots.back()
    }

    /// The same, to be changed.
    pub fn back_mut(&mut self) -> Option<&mut Slot> {
        self.0.as_mut()?.slots.back_mut()
    }

    /// The slot at this place.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Slot> {
        self.0.as_mut()?.slots.get_mut(at)
    }

    /// The slot at this place.
    pub fn get(&self, at: usize) -> Option<&Slot> {
        self.0.as_ref()?.slots.get(at)
    }

    /// The number of the front slot.
    pub fn front_number(&self) -> u64 {
        self.0.as_ref().map_or(0, |owed| owed.front)
    }

    /// Bytes in the early parts of slots.
    #[inline]
    pub fn early_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |owed| owed.early_bytes)
    }

    /// Those of them that are here only.
    pub fn early_copied(&self) -> usize {
        self.0.as_ref().map_or(0, |owed| owed.early_copied)
    }

    /// Changes a slot's early part by `change`, and counts its bytes.
    pub(super) fn change_early(&mut self, at: usize, change: impl FnOnce(&mut Slot)) {
        let Some(owed) = &mut self.0 else { return };
        let Some(slot) = owed.slots.get_mut(at) else {
            return;
        };
        let (before, copied_before) = (slot.early.len(), slot.early.copied_len());
        change(slot);
        owed.early_bytes = owed.early_bytes + slot.early.len() - before;
        owed.early_copied = owed.early_copied + slot.early.copied_len() - copied_before;
    }

    /// What has come of the reply in the slot at this place, which keeps nothing of it.
    pub fn take_early(&mut self, at: usize) -> Outbox {
        let mut early = Outbox::default();
        self.change_early(at, |slot| early = std::mem::take(&mut slot.early));
        early
    }

    /// Adds a slot and returns its number.
    pub(super) fn push(&mut self, slot: Slot) -> u64 {
        let owed = self.0.get_or_insert_default();
        owed.slots.push_back(slot);
        owed.front + (owed.slots.len() as u64 - 1)
    }

    /// Nothing is owed any more.
    pub fn clear(&mut self, pool: &mut Pool) {
        for slot in self.0.take().into_iter().flat_map(|owed| owed.slots) {
            let mut early = slot.early;
            early.clear(pool);
        }
    }

    /// Takes the front slot away.
    pub(super) fn pop_front(&mut self) {
        let Some(owed) = &mut self.0 else { return };
        if let Some(slot) = owed.slots.pop_front() {
            owed.early_bytes -= slot.early.len();
            owed.early_copied -= slot.early.copied_len();
            owed.front += 1;
        }
        if owed.slots.is_empty() {
            self.0 = None;
        }
    }
}
