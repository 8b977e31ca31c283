//! The keys that something happens to most: a bounded sketch.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams",
//! ICDT 2005): so many counters; a key without one takes over the smallest, with its count as the possible error. A key
//! with more than one part in [`COUNTERS`] of the whole is always here, and no count is too small by more than nothing
//! or too large by more than its error. Counts are halved now and then, so that what is hot now is in front of what was.
//!
//! What it counts is weighted: a sample that stands for a hundred reads counts a hundred.
//!
//! The smallest is found as in the paper's stream summary, without its lists: nothing is below `least`, and of those that
//! have it the first is at `next` or behind it. Counts only grow, so a walk over all is due only when `least` does.
//!
//! Invariant: at most [`COUNTERS`] counters, keys of at most [`NAME_BYTES_MAX`] bytes each, and `places` names them all.
//! Costs: one look-up for a key that has a counter; two more and O(1) on average for one that takes another's over, as
//! every miss does that is the first of its key; O(counters) when the smallest count becomes another.
#![forbid(unsafe_code)]

use crate::hash::PrehashedMap;
use crate::time::Time;
use std::time::Duration;

/// How many keys are counted at one time.
pub const COUNTERS: usize = 128;
/// Of a longer name only so much is remembered; it is told from others by its hash.
pub const NAME_BYTES_MAX: usize = 256;
/// After so long every count is halved.
const HALVES_AFTER: Duration = Duration::from_secs(60);

/// A key and what it has been counted for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hot {
    /// The database.
    pub db: u32,
    /// The name, or its beginning.
    pub name: Vec<u8>,
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
    /// Where the counter of a key is, by its hash and database.
    places: PrehashedMap<(u64, u32), usize>,
    /// No count is below it, once all counters are in use.
    least: u64,
    /// All counters before this one have more.
    next: usize,
    halved: Time,
}

impl HotKeys {
    /// `weight` more for this key.
    pub fn note(&mut self, db: u32, key: &[u8], hash: u64, weight: u64, now: Time) {
        if now.since(self.halved) >= HALVES_AFTER {
            self.halved = now;
            self.halve();
        }
        if let Some(place) = self.places.get(&(hash, db)) {
            let hot = &mut self.counters[*place];
            hot.count = hot.count.saturating_add(weight);
            return;
        }
        let place = match self.counters.len() < COUNTERS {
            true => {
                self.counters.push(Hot::default());
                self.counters.len() - 1
            }
            false => {
                let place = self.smallest();
                let loser = &self.counters[place];
                self.places.remove(&(loser.hash, loser.db));
                place
            }
        };
        let hot = &mut self.counters[place];
        // The memory of the name before is used again.
        hot.name.clear();
        hot.name
            .extend_from_slice(&key[..key.len().min(NAME_BYTES_MAX)]);
        (hot.db, hot.hash, hot.name_bytes) = (db, hash, key.len());
        hot.error = hot.count;
        hot.count = hot.count.saturating_add(weight);
        self.places.insert((hash, db), place);
    }

    /// Where a counter is whose count nothing is below; only while all are in use.
    fn smallest(&mut self) -> usize {
        loop {
            let rest = self.counters.iter().skip(self.next);
            if let Some(more) = rest.clone().position(|hot| hot.count <= self.least) {
                self.next += more;
                return self.next;
            }
            self.next = 0;
            let counts = self.counters.iter().map(|hot| hot.count);
            self.least = counts.min().unwrap_or(0);
        }
    }

    fn halve(&mut self) {
        for hot in &mut self.counters {
            (hot.count, hot.error) = (hot.count / 2, hot.error / 2);
        }
        self.counters.retain(|hot| hot.count > 0);
        (self.least, self.next) = (0, 0);
        self.places.clear();
        let names = self.counters.iter().map(|hot| (hot.hash, hot.db));
        self.places.extend(names.zip(0..));
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

    #[test]
    fn the_smallest_makes_room_whatever_the_order_and_counts_keep_their_bounds() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut hot = HotKeys::default();
        let mut exact = std::collections::HashMap::new();
        let mut now = Time::from_millis(100_000);
        hot.halved = now;
        for step in 0..50_000_u64 {
            // A few keys often, many rarely, some with no weight at all.
            let many = random.u64(1..=2 * COUNTERS as u64);
            let key = random.u64(..many);
            let (db, weight) = (random.u32(..2), random.u64(..4));
            let full = hot.counters.len() == COUNTERS;
            let least = hot.counters.iter().map(|hot| hot.count).min();
            let is_new = !hot.places.contains_key(&(hash(key), db));
            hot.note(db, &key.to_le_bytes(), hash(key), weight, now);
            *exact.entry((hash(key), db)).or_insert(0) += weight;
            assert_eq!(hot.places.len(), hot.counters.len());
            let place = hot.places[&(hash(key), db)];
            let noted = &hot.counters[place];
            assert_eq!((noted.hash, noted.db), (hash(key), db));
            if is_new && full {
                assert_eq!(Some(noted.error), least, "step {step}");
            }
            if step == 30_000 {
                now = now + HALVES_AFTER;
                exact.clear();
                hot.halve();
                hot.halved = now;
                exact.extend(
                    hot.counters
                        .iter()
                        .map(|hot| ((hot.hash, hot.db), hot.count)),
                );
            }
        }
        assert_eq!(hot.counters.len(), COUNTERS);
        for counter in &hot.counters {
            let exact = exact.get(&(counter.hash, counter.db)).copied();
            assert!(exact.unwrap_or(0) <= counter.count);
        }
        let total: u64 = exact.values().sum();
        let counted: u64 = hot.counters.iter().map(|hot| hot.count).sum();
        assert_eq!(counted, total, "what one loses another takes over");
    }
}
