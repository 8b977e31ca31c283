//! The clients by their places, and of which of them it is known that nothing stands between their next bytes and a hit.
//!
//! Whether a read may go the straight way (`straight.rs`) depends on a dozen of a client's fields. To look at them for
//! each hit that is alone in its read costs a tenth of it, and the answer is nearly always that of the time before. So the
//! answer is kept with the client, and nobody has to think of it: who could change a client borrows it here, and every
//! such borrow makes the answer unknown.
//!
//! Invariant: a client's `straight` is `Some` only if nothing has borrowed it for a change since that was found out, but
//! for [`Roster::undisturbed`], whose callers change no field that the answer depends on.
#![forbid(unsafe_code)]

use crate::client::Client;
use slab::{Slab, VacantEntry};
use std::ops::{Index, IndexMut};

/// The table. As a `Slab`, but for what is said above.
#[derive(Debug, Clone, Default)]
pub(super) struct Roster(Slab<Client>);

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(super) fn get(&self, ix: usize) -> Option<&Client> {
        self.0.get(ix)
    }

    pub(super) fn vacant_entry(&mut self) -> VacantEntry<'_, Client> {
        self.0.vacant_entry()
    }

    pub(super) fn remove(&mut self, ix: usize) -> Client {
        self.0.remove(ix)
    }

    pub(super) fn iter(&self) -> slab::Iter<'_, Client> {
        self.0.iter()
    }

    /// What was found out of this client stays known: only to note that it was served, or what was found out.
    #[inline(always)]
    pub(super) fn undisturbed(&mut self, ix: usize) -> &mut Client {
        &mut self.0[ix]
    }

    /// Changes all of them, or only what was found out: it depends on something beside them that has changed.
    pub(super) fn each(&mut self, mut change: impl FnMut(&mut Client)) {
        for (_, client) in &mut self.0 {
            client.straight = None;
            change(client);
        }
    }
}

impl Index<usize> for Roster {
    type Output = Client;

    #[inline]
    fn index(&self, ix: usize) -> &Client {
        &self.0[ix]
    }
}

impl IndexMut<usize> for Roster {
    #[inline]
    fn index_mut(&mut self, ix: usize) -> &mut Client {
        let client = &mut self.0[ix];
        client.straight = None;
        client
    }
}

impl<'a> IntoIterator for &'a Roster {
    type Item = (usize, &'a Client);
    type IntoIter = slab::Iter<'a, Client>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
