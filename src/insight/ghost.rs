//! What another capacity would bring: a miss-ratio curve from a sampled ghost list.
//!
//! SHARDS (Waldspurger, Park, Garthwaite, Ahmad, "Efficient MRC Construction with SHARDS", FAST 2015): only keys whose
//! hash is below a threshold are followed, so a stack distance among them, divided by the sampled share, is one among
//! all. The number of keys followed is fixed: above it the threshold falls, and what was counted before is scaled down
//! with it (section 3.2 there). The correction for sampled references that are more or fewer than expected (SHARDS-adj,
//! section 3.3) goes to the smallest distance.
//!
//! A key that was forgotten because it changed, or whose time was over, misses at any capacity: its next read is counted
//! as such, and begins anew. So the curve ends where more memory no longer helps.
//!
//! Stack distances come from a Fenwick tree over the order of use (Bennett and Kruskal 1975), rebuilt when its end is
//! reached.
//!
//! Invariant: `alive[at]` for exactly the places that `keys` names, and the tree holds their sums. Costs: one comparison
//! for a read that is not sampled; O(log keys) and one table look-up for one that is, some
//! 550 instructions for 1 in 512: about one for a hit.
#![forbid(unsafe_code)]

use crate::hash::PrehashedMap;
use crate::time::Time;

/// Followed at most; 8192 is what the paper finds an error of below one percent for.
const KEYS_MAX: usize = 8192;
/// Places in the order of use, before they are made close again.
const PLACES: usize = 4 * KEYS_MAX;
/// One key in so many is followed at first: 2000 of a million. The paper is content with 1 in 1000, and at 1 in 128 all this
/// took half of what insight may cost a hit.
const ONE_IN: u64 = 512;
/// Distances are counted in buckets: 8 for each doubling.
const PARTS_LOG2: u32 = 3;
const BUCKETS: usize = (40 << PARTS_LOG2) + 1;

/// The sampled ghost list.
#[derive(Debug, Clone)]
pub struct Ghost {
    /// Keys whose hash is below it are followed.
    threshold: u64,
    /// Where each stands in the order of use, and until when it is right, by hash.
    keys: PrehashedMap<u64, Seen>,
    /// Fenwick tree over the places; empty until the first sample.
    tree: Vec<u32>,
    next: usize,
    /// Times everything was forgotten.
    flushes: u32,
    /// Sampled reads by the distance they had, scaled to all keys.
    distances: Vec<f64>,
    /// Sampled reads that miss at any capacity.
    cold: f64,
    /// Sampled reads in all.
    sampled: f64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    place: usize,
    /// Its entry is right until then.
    deadline: Time,
    /// [`Ghost::flushes`] at its last read.
    flushes: u32,
}

/// A point of the curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Entries.
    pub entries: u64,
    /// The share of reads that would have been hits.
    pub hit_ratio: f64,
}

impl Default for Ghost {
    fn default() -> Ghost {
        Ghost {
            threshold: u64::MAX / ONE_IN,
            keys: PrehashedMap::default(),
            tree: Vec::new(),
            next: 0,
            flushes: 0,
            distances: Vec::new(),
            cold: 0.0,
            sampled: 0.0,
        }
    }
}

impl Ghost {
    /// Follows no key, and takes no room.
    pub fn none() -> Ghost {
        Ghost {
            threshold: 0,
            ..Ghost::default()
        }
    }

    /// Whether reads of this key are to be noted.
    #[inline(always)]
    pub fn follows(&self, hash: u64) -> bool {
        hash < self.threshold
    }

    /// The share of all keys that is followed.
    pub fn share(&self) -> f64 {
        self.threshold as f64 / u64::MAX as f64
    }

    /// A read of a key that is followed.
    #[cold]
    #[inline(never)]
    pub fn note(&mut self, hash: u64, now: Time) {
        if self.tree.is_empty() {
            self.tree = vec![0; PLACES + 1];
            self.distances = vec![0.0; BUCKETS];
        }
        self.sampled += 1.0;
        let seen = self.keys.get(&hash).copied();
        let flushes = self.flushes;
        let is_right = |seen: &Seen| seen.deadline > now && seen.flushes == flushes;
        match seen {
            Some(seen) => {
                self.add(seen.place, -1);
                if is_right(&seen) {
                    let behind = self.keys.len() as u32 - 1 - self.sum_before(seen.place);
                    let distance = (f64::from(behind) + 1.0) / self.share();
                    self.distances[bucket_of(distance)] += 1.0;
                } else {
                    self.cold += 1.0;
                }
            }
            None => self.cold += 1.0,
        }
        if self.next == PLACES {
            self.make_close(hash);
        }
        let place = self.next;
        self.next += 1;
        self.add(place, 1);
        // Until its fetch says better, a key that has missed is right for ever: the fetch is about to come.
        let deadline = seen
            .filter(is_right)
            .map_or(Time::NEVER, |seen| seen.deadline);
        let seen = Seen {
            place,
            deadline,
            flushes,
        };
        self.keys.insert(hash, seen);
        if self.keys.len() > KEYS_MAX {
            self.follow_fewer();
        }
    }

    /// The key was fetched: what was found is right until then.
    pub fn fetched(&mut self, hash: u64, deadline: Time) {
        if self.follows(hash)
            && let Some(seen) = self.keys.get_mut(&hash)
        {
            seen.deadline = deadline;
        }
    }

    /// The key may have changed: its next read misses at any capacity.
    pub fn forget(&mut self, hash: u64) {
        if self.follows(hash)
            && let Some(seen) = self.keys.get_mut(&hash)
        {
            seen.deadline = Time::ZERO;
        }
    }

    /// The same for all keys.
    pub fn forget_all(&mut self) {
        self.flushes = self.flushes.wrapping_add(1);
    }

    /// How many sampled reads the curve is made of.
    pub fn samples(&self) -> u64 {
        self.sampled as u64
    }

    /// The hit ratio at each of these capacities, `reads` being all that were made. `None` as long as there are too few
    /// samples to say anything.
    pub fn curve(&self, reads: u64, capacities: &[u64]) -> Option<Vec<Point>> {
        const SAMPLES_MIN: f64 = 100.0;
        if self.sampled < SAMPLES_MIN {
            return None;
        }
        // SHARDS-adj: so many references should have been sampled; the difference belongs to the hottest keys.
        let expected = reads as f64 * self.share();
        let missing = expected - self.sampled;
        let all = self.sampled.max(expected);
        let points = capacities.iter().map(|entries| {
            // Of the bucket that the capacity is in, the part below it.
            let end = bucket_of(*entries as f64);
            let parts = f64::from(1 << PARTS_LOG2);
            let edge = |bucket: usize| 2_f64.powf((bucket as f64 - 1.0) / parts);
            let (from, to) = (edge(end), edge(end + 1));
            let part = ((*entries as f64 - from) / (to - from)).clamp(0.0, 1.0);
            let below: f64 = self.distances[..end].iter().sum();
            let within = below + part * self.distances[end] + missing.max(0.0);
            Point {
                entries: *entries,
                hit_ratio: (within / all).clamp(0.0, 1.0),
            }
        });
        Some(points.collect())
    }

    /// Halves the threshold: the keys above it go, and what was counted counts half.
    fn follow_fewer(&mut self) {
        self.threshold /= 2;
        let threshold = self.threshold;
        let gone: Vec<(u64, usize)> = self
            .keys
            .iter()
            .filter(|(hash, _)| **hash >= threshold)
            .map(|(hash, seen)| (*hash, seen.place))
            .collect();
        for (hash, place) in gone {
            self.keys.remove(&hash);
            self.add(place, -1);
        }
        for count in &mut self.distances {
            *count /= 2.0;
        }
        self.cold /= 2.0;
        self.sampled /= 2.0;
    }

    /// Numbers the places anew, without gaps; `leaving` has just left its own.
    fn make_close(&mut self, leaving: u64) {
        self.keys.remove(&leaving);
        let mut order: Vec<(usize, u64)> = self
            .keys
            .iter()
            .map(|(hash, seen)| (seen.place, *hash))
            .collect();
        order.sort_unstable();
        self.tree.fill(0);
        self.next = 0;
        for (_, hash) in order {
            let place = self.next;
            self.next += 1;
            self.add(place, 1);
            if let Some(seen) = self.keys.get_mut(&hash) {
                seen.place = place;
            }
        }
    }

    fn add(&mut self, place: usize, by: i32) {
        let mut at = place + 1;
        while at <= PLACES {
            self.tree[at] = self.tree[at].wrapping_add_signed(by);
            at += at & at.wrapping_neg();
        }
    }

    /// How many keys stand before this place.
    fn sum_before(&self, place: usize) -> u32 {
        let (mut at, mut sum) = (place, 0_u32);
        while at > 0 {
            sum = sum.wrapping_add(self.tree[at]);
            at -= at & at.wrapping_neg();
        }
        sum
    }

    /// Walks the structure and panics where the invariant does not hold. For tests.
    pub fn check(&self) {
        if self.tree.is_empty() {
            return assert!(self.keys.is_empty());
        }
        let mut places: Vec<usize> = self.keys.values().map(|seen| seen.place).collect();
        places.sort_unstable();
        for (before, place) in places.iter().enumerate() {
            assert!(*place < self.next);
            assert_eq!(self.sum_before(*place) as usize, before);
        }
        assert!(self.keys.len() <= KEYS_MAX);
        assert!(self.keys.keys().all(|hash| self.follows(*hash)));
    }
}

/// The bucket of a distance: 0 for less than 1.
fn bucket_of(distance: f64) -> usize {
    if distance < 1.0 {
        return 0;
    }
    let parts = f64::from(1 << PARTS_LOG2);
    ((distance.log2() * parts) as usize + 1).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// splitmix64, so that hashes are spread as those of real keys.
    fn hash(n: u64) -> u64 {
        let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    struct Random(u64);

    impl Random {
        fn next(&mut self, below: u64) -> u64 {
            self.0 += 1;
            hash(self.0) % below
        }
    }

    fn read(ghost: &mut Ghost, key: u64) {
        let hash = hash(key);
        if ghost.follows(hash) {
            ghost.note(hash, Time::from_millis(1));
        }
    }

    /// Follows more than usual, so that fewer reads do.
    fn one_in(keys: u64) -> Ghost {
        Ghost {
            threshold: u64::MAX / keys,
            ..Ghost::default()
        }
    }

    #[test]
    fn uniform_reads_of_n_keys_hit_in_proportion_to_the_capacity() {
        let (keys, reads) = (100_000, 1_000_000);
        let (mut ghost, mut random) = (one_in(128), Random(7));
        for _ in 0..reads {
            let key = random.next(keys);
            read(&mut ghost, key);
        }
        ghost.check();
        let capacities = [keys / 4, keys / 2, keys, 2 * keys];
        let curve = ghost.curve(reads, &capacities).expect("there are samples");
        // A tenth of the reads are first ones and miss at any capacity.
        for (point, expected) in curve.iter().zip([0.25 * 0.9, 0.5 * 0.9, 0.9, 0.9]) {
            assert!(
                (point.hit_ratio - expected).abs() < 0.05,
                "{point:?} {expected}"
            );
        }
    }

    #[test]
    fn more_keys_than_can_be_followed_lower_the_share_and_keep_the_curve() {
        let (keys, reads) = (4_000_000, 8_000_000);
        let (mut ghost, mut random) = (one_in(128), Random(3));
        for _ in 0..reads {
            // Two thirds of the reads go to the first fortieth of the keys.
            let hot = random.next(3) > 0;
            let key = random.next(if hot { keys / 40 } else { keys });
            read(&mut ghost, key);
        }
        ghost.check();
        assert!(ghost.share() < 1.0 / 128.0, "{}", ghost.share());
        let curve = ghost
            .curve(reads, &[1000, keys / 40, keys])
            .expect("samples");
        assert!(curve[0].hit_ratio < 0.1, "{curve:?}");
        assert!((0.25..0.65).contains(&curve[1].hit_ratio), "{curve:?}");
        assert!((0.7..0.95).contains(&curve[2].hit_ratio), "{curve:?}");
        assert!(
            curve
                .windows(2)
                .all(|pair| pair[0].hit_ratio <= pair[1].hit_ratio)
        );
    }

    #[test]
    fn a_changed_or_expired_key_misses_at_any_capacity() {
        let mut ghost = Ghost::default();
        let followed: Vec<u64> = (0..)
            .map(hash)
            .filter(|h| ghost.follows(*h))
            .take(10)
            .collect();
        let now = Time::from_millis(5);
        for round in 0..30 {
            for hash in &followed {
                ghost.note(*hash, now);
                match round % 2 {
                    0 => ghost.forget(*hash),
                    _ => ghost.fetched(*hash, Time::from_millis(5)),
                }
            }
        }
        let curve = ghost.curve(0, &[1 << 30]).expect("samples");
        assert_eq!(curve[0].hit_ratio, 0.0);
        ghost.forget_all();
        ghost.check();
    }

    #[test]
    fn distances_are_those_of_a_naive_list() {
        let mut ghost = Ghost {
            threshold: u64::MAX,
            ..Ghost::default()
        };
        let (mut naive, mut random): (Vec<u64>, Random) = (Vec::new(), Random(11));
        let mut within = 0;
        // More reads than places, so that these are numbered anew.
        let reads = 3 * PLACES as u64;
        for _ in 0..reads {
            let key = hash(random.next(1000));
            if let Some(at) = naive.iter().rposition(|k| *k == key) {
                within += u64::from(naive.len() - at <= 256);
                naive.remove(at);
            }
            naive.push(key);
            ghost.note(key, Time::from_millis(1));
        }
        ghost.check();
        let curve = ghost.curve(reads, &[256]).expect("samples");
        let exact = within as f64 / reads as f64;
        assert!(
            (curve[0].hit_ratio - exact).abs() < 0.03,
            "{curve:?} {exact}"
        );
    }
}
