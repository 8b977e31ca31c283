//! Which entries were used since somebody last looked.
//!
//! The recency list knows: what was used moved to its new end. `Lru::looked_at` is the newest entry that was not used
//! since; walking from there to the new end meets the others, oldest use first. A round of looking may take long, and
//! entries go on being used and move ahead meanwhile, so a bit for each says which were met in this round.
//!
//! Costs: on a hit one comparison; a round a bit for each 32 bytes of cells.
#![forbid(unsafe_code)]

use super::arena::Moved;
use super::{Cache, Content};
use crate::time::Time;
use std::ops::ControlFlow;

/// The entries met in this round: a bit for each four units of the arena, as no cell is so short.
#[derive(Debug, Clone, Default)]
pub(super) struct Met(Vec<u64>);

impl Met {
    fn place(id: u32) -> (usize, u64) {
        (id as usize / 256, 1 << (id / 4 % 64))
    }

    /// Whether the entry is met for the first time.
    fn insert(&mut self, id: u32) -> bool {
        let (word, bit) = Met::place(id);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let first = self.0[word] & bit == 0;
        self.0[word] |= bit;
        first
    }

    /// An entry has gone.
    pub(super) fn remove(&mut self, id: u32) {
        let (word, bit) = Met::place(id);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    /// An entry is at another place.
    pub(super) fn follow(&mut self, Moved { from, to }: Moved) {
        let (word, bit) = Met::place(from);
        if self.0.get(word).is_some_and(|word| word & bit != 0) {
            self.remove(from);
            self.insert(to);
        }
    }
}

impl Cache {
    /// A round of [`Cache::visit_used`] begins.
    pub fn begin_round(&mut self) {
        self.met.0.clear();
    }

    /// Shows the values used since the round before, or since [`Cache::clear`], that this round has not shown yet, with
    /// database, key and the time of storing; the one used longest ago first. Ends when `visit` says so or `looks` entries
    /// were looked at. Says whether there are more. Not a use of them.
    pub fn visit_used(
        &mut self,
        looks: usize,
        now: Time,
        mut visit: impl FnMut(u32, &[u8], Time) -> ControlFlow<()>,
    ) -> bool {
        for _ in 0..looks {
            let id = match self.table.get(self.lru.looked_at) {
                Some(head) => head.newer(),
                None => self.lru.oldest,
            };
            let Some(head) = self.table.get(id) else {
                return false;
            };
            self.lru.looked_at = id;
            if !self.met.insert(id) {
                continue;
            }
            // Who has expired is shown too.
            if let Content::Value(value) = self.table.content(id, self.clock(now))
                && visit(head.db(), self.table.key(id), value.stored_at()).is_break()
            {
                return true;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Limits, NewContent, Put};

    fn cache(keys: usize) -> Cache {
        let limits = Limits {
            keys_max: 100,
            bytes_max: 1 << 20,
        };
        let mut cache = Cache::new(limits, Time::from_millis(1));
        for n in 0..keys {
            put(&mut cache, n, NewContent::Value(b"v"));
        }
        cache
    }

    fn put(cache: &mut Cache, n: usize, content: NewContent<'_>) {
        let key = format!("k{n}");
        let put = Put {
            db: 0,
            key: key.as_bytes(),
            hash: n as u64,
            content,
            stored_at: Time::from_millis(1),
            deadline: Time::from_millis(60_000),
            tag: 0,
            ping: 0,
        };
        assert!(cache.put(put, Time::from_millis(1)).kept);
    }

    fn hit(cache: &mut Cache, n: usize) {
        let key = format!("k{n}");
        assert!(
            cache
                .get(0, key.as_bytes(), n as u64, Time::from_millis(2))
                .is_some()
        );
    }

    fn used(cache: &mut Cache, at_once: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut more = true;
        while more {
            let mut left = at_once;
            more = cache.visit_used(10, Time::from_millis(2), |_, key, _| {
                let name = std::str::from_utf8(&key[1..]).expect("ASCII");
                found.push(name.parse().expect("a number"));
                left -= 1;
                match left {
                    0 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            });
            cache.check();
        }
        found
    }

    fn round(cache: &mut Cache) -> Vec<usize> {
        cache.begin_round();
        used(cache, 3)
    }

    #[test]
    fn each_round_shows_what_was_used_since_the_one_before() {
        let mut cache = cache(8);
        assert_eq!(round(&mut cache), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(round(&mut cache), [], "nothing was used since");
        // The newest, the one looked at last, and one in between.
        for n in [7, 3, 0] {
            hit(&mut cache, n);
        }
        assert_eq!(round(&mut cache), [7, 3, 0]);
        hit(&mut cache, 0);
        assert_eq!(round(&mut cache), [0], "the newest is used again");
        put(&mut cache, 9, NewContent::Missing);
        put(&mut cache, 10, NewContent::TooLarge);
        assert_eq!(round(&mut cache), [], "there is nothing to touch");
    }

    #[test]
    fn what_is_used_again_and_again_is_shown_once_in_a_round_and_what_goes_is_not_met() {
        let mut cache = cache(4);
        cache.begin_round();
        let mut shown = Vec::new();
        for _ in 0..20 {
            let mut left = 1;
            cache.visit_used(10, Time::from_millis(2), |_, key, _| {
                shown.push(key.to_vec());
                left -= 1;
                ControlFlow::Break(())
            });
            for n in 0..4 {
                hit(&mut cache, n);
            }
        }
        shown.sort();
        assert_eq!(shown, [b"k0", b"k1", b"k2", b"k3"]);
        for n in 0..4 {
            assert!(cache.remove(0, format!("k{n}").as_bytes(), n as u64));
            cache.check();
        }
        assert_eq!(round(&mut cache), []);
        put(&mut cache, 5, NewContent::Value(b"v"));
        assert_eq!(round(&mut cache), [5]);
        cache.clear();
        put(&mut cache, 6, NewContent::Value(b"v"));
        assert_eq!(round(&mut cache), [6], "a cleared cache begins anew");
    }
}
