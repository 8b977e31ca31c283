//! What a transaction has queued so far: how much, which keys it touches, and what it does to its connection.
//!
//! Costs: one word per key and one deed per command that does something to the connection, up to the bounds below.
#![forbid(unsafe_code)]

use super::Deed;
use std::collections::VecDeque;

/// A transaction that touches more keys than this counts as touching all.
const BLOCK_KEYS_MAX: usize = 64 * 1024;
/// What it does to the connection is followed up to so many commands (3 MiB of them) and bytes of their arguments. Beyond
/// that its end makes of the connection what nobody here knows, and all that comes from then on is passed on as it comes.
const BLOCK_DEEDS_MAX: usize = 64 * 1024;
const BLOCK_DEED_BYTES_MAX: usize = 1 << 20;

/// What a transaction has queued.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Block {
    /// The hashes of the keys that its end makes worth forgetting.
    pub touched: Vec<u64>,
    /// More than those: possibly everything.
    pub all: Everything,
    /// The reply to EXEC cannot be told from what surrounds it.
    pub confuses: bool,
    /// Commands queued.
    pub(super) queued: u64,
    /// What they do to the connection, with their places among them, the first in front.
    deeds: VecDeque<(u64, Deed)>,
    /// What the arguments of those take.
    deed_bytes: usize,
}

/// Whether a transaction may have touched everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Everything {
    /// It touches the keys that are named.
    #[default]
    No,
    /// It may change anything that Redis reports.
    Reported,
    /// It may change what Redis does not report.
    Unreported,
}

impl Block {
    /// One more command waits in it.
    pub(super) fn queue(&mut self, deed: &Deed) {
        match deed {
            Deed::Subscribe(_) | Deed::Unsubscribe(..) | Deed::Confuse => self.confuses = true,
            // These make no difference when they are executed here.
            Deed::Nothing | Deed::Wait | Deed::Exec | Deed::Discard => {}
            _ if self.confuses => {}
            _ => self.remember(deed),
        }
        self.queued += 1;
    }

    fn remember(&mut self, deed: &Deed) {
        self.deed_bytes += bytes_of(deed);
        if self.deeds.len() == BLOCK_DEEDS_MAX || self.deed_bytes > BLOCK_DEED_BYTES_MAX {
            self.confuses = true;
            self.deeds = VecDeque::new();
            return;
        }
        self.deeds.push_back((self.queued, deed.clone()));
    }

    /// Whether any of what is left of it does something to the connection.
    pub(super) fn has_deeds(&self) -> bool {
        !self.deeds.is_empty()
    }

    /// The places of the commands whose replies are not to be seen as Redis gives them, first to last.
    pub(super) fn places_shown(&self) -> impl Iterator<Item = u64> {
        let is_shown = |deed: &Deed| {
            matches!(
                deed,
                Deed::ShowTracking | Deed::ShowId | Deed::ShowClients(_) | Deed::Hello { .. }
            )
        };
        let shown = self.deeds.iter().filter(move |(_, deed)| is_shown(deed));
        shown.map(|(at, _)| *at)
    }

    /// What the command at this place does. Places are asked for in their order.
    pub(super) fn take_deed(&mut self, at: u64) -> Option<Deed> {
        self.deeds.front().filter(|(place, _)| *place == at)?;
        self.deeds.pop_front().map(|(_, deed)| deed)
    }

    /// A command that has just been queued touches these keys.
    pub(super) fn touch(&mut self, hashes: impl Iterator<Item = u64>) {
        self.touched.extend(hashes);
        if self.touched.len() > BLOCK_KEYS_MAX {
            self.touched.sort_unstable();
            self.touched.dedup();
            if self.touched.len() > BLOCK_KEYS_MAX / 2 {
                self.touched = Vec::new();
                self.all = self.all.max(Everything::Reported);
            }
        }
    }
}

/// What the arguments take that a deed keeps.
fn bytes_of(deed: &Deed) -> usize {
    let len = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |text| text.len());
    match deed {
        Deed::Name(text) | Deed::Auth(text) | Deed::ShowClients(text) => text.len(),
        Deed::Hello { name, user, .. } => len(name) + len(user),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_up_to_a_bound() {
        let mut block = Block::default();
        block.touch([1, 2].into_iter());
        assert_eq!(
            (&block.touched[..], block.all),
            (&[1, 2][..], Everything::No)
        );
        block.touch(0..BLOCK_KEYS_MAX as u64);
        assert_eq!((block.touched.len(), block.all), (0, Everything::Reported));
    }

    /// Queues these; says how many are remembered, and whether the reply to EXEC will confuse.
    fn queue(deeds: impl Iterator<Item = Deed>) -> (usize, bool) {
        let mut block = Block::default();
        let mut count = 0;
        for deed in deeds {
            block.queue(&deed);
            count += 1;
        }
        assert_eq!(block.queued, count);
        (block.deeds.len(), block.confuses)
    }

    #[test]
    fn more_deeds_than_can_be_remembered_confuse() {
        let many = |n| queue(std::iter::repeat_n(Deed::Select(1), n));
        assert_eq!(many(BLOCK_DEEDS_MAX), (BLOCK_DEEDS_MAX, false));
        assert_eq!(many(BLOCK_DEEDS_MAX + 1), (0, true));
        let name = |bytes| Deed::Name(vec![b'x'; bytes].into());
        let long = name(BLOCK_DEED_BYTES_MAX);
        assert_eq!(queue([long.clone()].into_iter()), (1, false));
        let hello = Deed::Hello {
            version: None,
            name: Some(b"x".as_slice().into()),
            user: None,
        };
        assert_eq!(queue([long, hello, name(1)].into_iter()), (0, true));
        assert_eq!(
            queue([Deed::Wait, Deed::ShowTracking, Deed::Nothing].into_iter()),
            (1, false)
        );
        assert_eq!(queue([Deed::Subscribe(1)].into_iter()), (0, true));
    }

    #[test]
    fn deeds_are_taken_by_their_places() {
        let mut block = Block::default();
        for deed in [Deed::Nothing, Deed::Select(3), Deed::Nothing, Deed::Unwatch] {
            block.queue(&deed);
        }
        let taken: Vec<_> = (0..5).map(|at| block.take_deed(at)).collect();
        let expected = [None, Some(Deed::Select(3)), None, Some(Deed::Unwatch), None];
        assert_eq!(taken, expected);
        assert!(!block.has_deeds());
    }
}
