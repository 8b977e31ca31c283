//! The keys that something happens to most: a bounded sketch.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams",
//! ICDT 2005): so many counters; a key without one takes over the smallest, with its count as the possible error. A key
//! with more than one part in [`COUNTERS`] of the whole is always here, and no count is too small by more than nothing
//! or too large by more than its error. Counts are halved now and then, so that what is hot now is in front of what was.
//!
//! What it counts is weighted: a sample that stands for a hundred reads counts a hundred.
//!
//! Invariant: at most [`COUNTERS`] counters, keys of at most [`NAME_BYTES_MAX`] bytes each. Costs: O(counters) for each
//! sample, some 100 ns; nothing without one.
#![forbid(unsafe_code)]

use crate::time::Time;
use std::time::Duration;

/// How many keys are counted at one time.
pub const COUNTERS: usize = 128;
/// Of a longer name only so much is remembered; it is told from others by its hash.
pub const NAME_BYTES_MAX: usize = 256;
/// After so long every count is halved.
const HALVES_AFTER: Duration = Duration::from_secs(60);

/// A key and what it has been counted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hot {
    /// The database.
    pub db: u32,
    /// The name, or its beginning.
    pub name: Box<[u8]>,
    /// How long the name is.
    pub name_bytes: usize,
    /// The estimate.
    pub count: u64,
    /// How much of it may be of other keys.
    pub error: u64,
    hash: u64,
}

/// The keys with the largest counts.
#[derive(Debug, Clone, Default)]
pub struct HotKeys {
    counters: Vec<Hot>,
    halved: Time,
}

impl HotKeys {
    /// `weight` more for this key.
    pub fn note(&mut self, db: u32, key: &[u8], hash: u64, weight: u64, now: Time) {
        if now.since(self.halved) >= HALVES_AFTER {
            self.halved = now;
            self.halve();
        }
        let is_it = |hot: &&mut Hot| hot.hash == hash && hot.db == db;
        if let Some(hot) = self.counters.iter_mut().find(is_it) {
            hot.count = hot.count.saturating_add(weight);
            return;
        }
        let mut hot = Hot {
            db,
            name: key[..key.len().min(NAME_BYTES_MAX)].into(),
            name_bytes: key.len(),
            count: weight,
            error: 0,
            hash,
        };
        if self.counters.len() < COUNTERS {
            self.counters.push(hot);
            return;
        }
        let least = self.counters.iter_mut().min_by_key(|hot| hot.count);
        if let Some(least) = least {
            hot.error = least.count;
            hot.count = least.count.saturating_add(weight);
            *least = hot;
        }
    }

    fn halve(&mut self) {
        for hot in &mut self.counters {
            (hot.count, hot.error) = (hot.count / 2, hot.error / 2);
        }
        self.counters.retain(|hot| hot.count > 0);
    }

    /// The first `n`, the largest count first.
    pub fn top(&self, n: usize) -> Vec<&Hot> {
        let mut all: Vec<&Hot> = self.counters.iter().collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        all.truncate(n);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn frequent_keys_are_found_among_many_rare_ones_and_errors_are_stated() {
        let mut hot = HotKeys::default();
        let now = Time::from_millis(1);
        hot.halved = now;
        let mut total = 0;
        for round in 0..2000_u64 {
            for frequent in 0..5_u64 {
                let name = format!("hot{frequent}");
                hot.note(0, name.as_bytes(), hash(frequent), 10 + frequent, now);
                total += 10 + frequent;
            }
            let rare = 1000 + round;
            hot.note(0, b"rare", hash(rare), 1, now);
            total += 1;
        }
        let top = hot.top(5);
        let names: Vec<_> = top
            .iter()
            .map(|hot| String::from_utf8_lossy(&hot.name))
            .collect();
        assert_eq!(names, ["hot4", "hot3", "hot2", "hot1", "hot0"]);
        for (n, hot) in top.iter().enumerate() {
            let exact = 2000 * (14 - n as u64);
            assert!(hot.count >= exact && hot.count - hot.error <= exact);
            assert!(hot.error <= total / COUNTERS as u64);
        }
        assert_eq!(hot.counters.len(), COUNTERS);
    }

    #[test]
    fn what_was_hot_fades_and_long_names_are_cut_and_told_apart() {
        let mut hot = HotKeys::default();
        let now = Time::from_millis(100_000);
        hot.note(0, &[b'a'; 1000], 1, 8, now);
        hot.note(0, &[b'a'; 1001], 2, 4, now);
        hot.note(3, &[b'a'; 1001], 2, 1, now);
        assert_eq!(hot.top(9).len(), 3);
        assert_eq!(
            (hot.top(1)[0].name.len(), hot.top(1)[0].name_bytes),
            (NAME_BYTES_MAX, 1000)
        );
        hot.note(0, b"new", 5, 1, now + HALVES_AFTER);
        let counts: Vec<u64> = hot.top(9).iter().map(|hot| hot.count).collect();
        assert_eq!(counts, [4, 2, 1], "halved, and what was 1 is gone");
    }
}
