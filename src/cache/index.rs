//! From a key's hash to its entry: chained buckets that grow one at a time.
//!
//! Linear hashing after W. Litwin, "Linear Hashing: A New Tool for File and Table Addressing" (VLDB 1980): with every
//! entry beyond the number of buckets one bucket is added, and one old bucket is split in two. So there is never a
//! rehash of the whole table. Keys of one name in several databases share a chain, and so one walk meets them all.
//!
//! It never looks at keys. Invariant: every entry is in the chain of the bucket its hash names, once.
//! Costs: on average 1.5 entries are looked at on a hit; 4 bytes per entry, and the chain link in its head. Buckets are
//! not taken away when entries go. Hashes are keyed, so long chains cannot be provoked.
#![forbid(unsafe_code)]

use super::arena::{Moved, NONE};
use super::table::Table;

/// The buckets: the first entry of each chain.
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

    /// The first entry of the chain in which an entry with this hash would be.
    #[inline(always)]
    pub(super) fn first(&self, hash: u32) -> u32 {
        self.heads.get(self.bucket(hash)).copied().unwrap_or(NONE)
    }

    /// How many buckets there are.
    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    /// The first entries of these chains, as far as there are so many buckets. An entry leaves its bucket only for one
    /// that is added behind all others.
    pub(super) fn firsts(&self, buckets: std::ops::Range<usize>) -> impl Iterator<Item = u32> {
        let here = self.heads.iter().copied().skip(buckets.start);
        here.take(buckets.len())
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

    /// Adds an entry; `len` is how many entries there are with it.
    pub(super) fn insert(&mut self, table: &mut Table, id: u32, len: usize) {
        if len > self.heads.len() {
            self.grow(table);
        }
        let bucket = self.bucket(table.at(id).hash());
        table.at_mut(id).set_chain(self.heads[bucket]);
        self.heads[bucket] = id;
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, table: &mut Table, id: u32) {
        let next = table.at(id).chain();
        let bucket = self.bucket(table.at(id).hash());
        if self.heads[bucket] == id {
            self.heads[bucket] = next;
            return;
        }
        let mut before = self.heads[bucket];
        while table.at(before).chain() != id {
            before = table.at(before).chain();
        }
        table.at_mut(before).set_chain(next);
    }

    /// An entry is at another place: its chain leads there.
    pub(super) fn follow(&mut self, table: &mut Table, moved: Moved) {
        let bucket = self.bucket(table.at(moved.to).hash());
        if self.heads[bucket] == moved.from {
            self.heads[bucket] = moved.to;
            return;
        }
        let mut before = self.heads[bucket];
        while table.at(before).chain() != moved.from {
            before = table.at(before).chain();
        }
        table.at_mut(before).set_chain(moved.to);
    }

    /// Adds one bucket and moves to it what belongs there.
    fn grow(&mut self, table: &mut Table) {
        let added = self.heads.len() as u32;
        self.heads.push(NONE);
        self.mask = (self.heads.len().next_power_of_two() - 1) as u32;
        if added == 0 {
            return;
        }
        let split = (added & (self.mask >> 1)) as usize;
        let mut id = std::mem::replace(&mut self.heads[split], NONE);
        while id != NONE {
            let head = table.at(id);
            let bucket = if head.hash() & self.mask == added {
                added as usize
            } else {
                split
            };
            let next = head.chain();
            table.at_mut(id).set_chain(self.heads[bucket]);
            self.heads[bucket] = id;
            id = next;
        }
    }

    /// Entries in the longest chain, for tests.
    #[cfg(test)]
    pub(super) fn longest_chain(&self, table: &Table) -> usize {
        let length = |&first: &u32| {
            std::iter::successors(table.get(first), |head| table.get(head.chain())).count()
        };
        self.heads.iter().map(length).max().unwrap_or(0)
    }

    /// The buckets, for whoever frees them.
    pub(super) fn into_heads(self) -> Vec<u32> {
        self.heads
    }

    /// Panics unless `len` entries are chained, each in its bucket.
    pub(super) fn check(&self, table: &Table, len: usize) {
        assert!(self.heads.len() >= len, "more entries than buckets");
        let mut seen = 0;
        for (bucket, &first) in self.heads.iter().enumerate() {
            let mut id = first;
            while let Some(head) = table.get(id) {
                assert_eq!(
                    self.bucket(head.hash()),
                    bucket,
                    "entry {id} is in a wrong bucket"
                );
                assert!(
                    head.timer().is_linked(),
                    "entry {id} is chained and not timed"
                );
                seen += 1;
                assert!(seen <= len, "more entries chained than there are");
                id = head.chain();
            }
            assert_eq!(id, NONE, "the chain of bucket {bucket} leads nowhere");
        }
        assert_eq!(seen, len, "entries chained");
    }
}

#[cfg(test)]
mod tests {
    use crate::cache::{Cache, Limits, NewContent, Put};
    use crate::hash::KeyHasher;
    use crate::time::Time;

    const START: Time = Time::from_millis(1);
    const LATER: Time = Time::from_millis(60_000);

    /// FNV-1a, which is what one would attack: it has no key.
    fn unkeyed(key: &[u8]) -> u64 {
        key.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    #[test]
    fn keys_chosen_to_collide_share_no_chain_under_a_keyed_hash() {
        const KEYS: usize = 2000;
        let keyed = KeyHasher::new([1, 2, 3, 4]);
        let limits = Limits {
            keys_max: 10_000,
            bytes_max: 1 << 24,
        };
        let longest = |keys: &[String], hash: &dyn Fn(&[u8]) -> u64| {
            let mut cache = Cache::new(limits, START);
            for key in keys {
                let put = Put {
                    db: 0,
                    key: key.as_bytes(),
                    hash: hash(key.as_bytes()),
                    content: NewContent::Value(b"v"),
                    stored_at: START,
                    deadline: LATER,
                    tag: 0,
                    ping: 0,
                };
                cache.put(put, START);
            }
            assert_eq!(cache.len(), keys.len());
            cache.check();
            cache.index.longest_chain(&cache.table)
        };
        let all = (0_u64..).map(|n| format!("key:{n}"));
        let hostile: Vec<String> = all
            .clone()
            .filter(|key| unkeyed(key.as_bytes()).trailing_zeros() >= 11)
            .take(KEYS)
            .collect();
        let harmless: Vec<String> = all.take(KEYS).collect();
        assert_eq!(longest(&hostile, &unkeyed), KEYS, "the attack is one");
        let (hostile, harmless) = (
            longest(&hostile, &|key| keyed.hash(key)),
            longest(&harmless, &|key| keyed.hash(key)),
        );
        // 2000 entries in as many buckets at random: the fullest has 7 or so.
        assert!(hostile <= 12 && harmless <= 12, "{hostile}, {harmless}");
    }
}
