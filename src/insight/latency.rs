//! Durations, counted in buckets whose bounds double.
//!
//! What Prometheus wants (cumulative counts up to fixed bounds) and what people want (percentiles) from one small table:
//! four buckets for each doubling, so a percentile is right to 19 %. Less than a kilobyte, unlike a histogram of two
//! digits, because the engine is cloned a million times by the tests that explore it.
//!
//! Invariant: the counts add up to `count`. Costs: O(1) to record, O(buckets) to read.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Buckets for each doubling, as a power of two.
const PARTS_LOG2: u32 = 2;
const PARTS: usize = 1 << PARTS_LOG2;
/// The last bucket takes what is longer than 2^24 µs, some 17 s.
const DOUBLINGS: usize = 24;
const BUCKETS: usize = DOUBLINGS * PARTS + 2;

/// Durations by length.
#[derive(Debug, Clone, Default)]
pub struct Latency {
    /// By bucket; empty until there is one to count.
    counts: Vec<u64>,
    count: u64,
    sum: Duration,
    max: Duration,
}

impl Latency {
    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if self.counts.is_empty() {
            self.counts = vec![0; BUCKETS];
        }
        self.counts[bucket_of(us)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
        self.max = self.max.max(took);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The length that this share of them does not exceed, rounded up to its bucket's end; zero without any.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && bucket < BUCKETS - 1 {
                return Duration::from_micros(end_of(bucket)).min(self.max);
            }
        }
        self.max
    }

    /// Upper bounds that double from 1 µs, each with how many were not longer. What was longer than the last is in
    /// [`Latency::count`] only.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut seen = 0;
        (0..=DOUBLINGS).map(move |doubling| {
            let from = if doubling == 0 {
                0
            } else {
                (doubling - 1) * PARTS + 1
            };
            let to = doubling * PARTS;
            let counts = self.counts.get(from..=to).unwrap_or_default();
            seen += counts.iter().sum::<u64>();
            (Duration::from_micros(1 << doubling), seen)
        })
    }

    /// The buckets that have counted anything: the longest that belongs into each, `None` for what is longer than all
    /// bounds, and how many are in it. Whoever asks twice knows from the difference what came in between.
    pub fn counted(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let all = self.counts.iter().enumerate();
        all.filter(|(_, count)| **count > 0).map(|(bucket, count)| {
            let is_last = bucket == BUCKETS - 1;
            let end = (!is_last).then(|| Duration::from_micros(end_of(bucket)));
            (end, *count)
        })
    }
}

/// Bucket 0 holds up to 1 µs; bucket `4 d + p` more than `2^d (1 + (p - 1) / 4)` µs and up to `2^d (1 + p / 4)`, rounded up;
/// the last one what is longer than all of these.
fn bucket_of(us: u64) -> usize {
    if us <= 1 {
        return 0;
    }
    let below = (us - 1).min(1 << (DOUBLINGS + 1));
    let doubling = below.ilog2() as usize;
    let part = ((below << PARTS_LOG2) >> doubling) as usize - PARTS;
    (doubling * PARTS + part + 1).min(BUCKETS - 1)
}

/// The longest that belongs into a bucket, in microseconds.
fn end_of(bucket: usize) -> u64 {
    if bucket == 0 {
        return 1;
    }
    let (doubling, part) = ((bucket - 1) / PARTS, (bucket - 1) % PARTS + 1);
    (1 << doubling) + ((part as u64) << doubling).div_ceil(PARTS as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_is_in_a_bucket_that_ends_at_or_behind_it() {
        for us in (0..5000).chain([1 << 20, (1 << 20) + 1, (1 << 24) - 1, 1 << 24]) {
            let bucket = bucket_of(us);
            assert!(us <= end_of(bucket).max(1), "{us} in {bucket}");
            // Small lengths are not divided further than to a microsecond.
            assert!(
                bucket == 0 || us > end_of(bucket - 1) || us < 8,
                "{us} in {bucket}"
            );
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn bounds_are_cumulative_and_whatever_is_longer_counts_in_all() {
        let mut latency = Latency::default();
        for us in [1, 2, 3, 4, 5, 1000, 100_000_000] {
            latency.record(Duration::from_micros(us));
        }
        let at = |us: u64| {
            let bound = Duration::from_micros(us);
            latency
                .cumulative()
                .find(|(le, _)| *le == bound)
                .expect("a bound")
                .1
        };
        assert_eq!(
            (at(1), at(2), at(4), at(8), at(512), at(1024)),
            (1, 2, 4, 5, 5, 6)
        );
        assert_eq!(at(1 << 24), 6);
        assert_eq!(latency.count(), 7);
        assert_eq!(latency.max(), Duration::from_secs(100));
        assert_eq!(latency.sum(), Duration::from_micros(100_001_015));
    }

    #[test]
    fn a_bucket_counts_on_where_four_bytes_end() {
        // Ten thousand a second are so many in five days.
        let many = u64::from(u32::MAX);
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(100));
        let bucket = &mut latency.counts[bucket_of(100)];
        *bucket += many;
        latency.count += many;
        latency.record(Duration::from_micros(100));
        let (_, within) = latency.cumulative().last().expect("there are bounds");
        assert_eq!(within, latency.count());
        assert_eq!(latency.quantile(0.99), Duration::from_micros(100));
    }

    #[test]
    fn what_is_counted_between_two_looks_is_their_difference() {
        let mut latency = Latency::default();
        let us = Duration::from_micros;
        latency.record(us(3));
        let before: Vec<_> = latency.counted().collect();
        assert_eq!(before, [(Some(us(3)), 1)]);
        latency.record(us(3));
        latency.record(us(100_000_000));
        let after: Vec<_> = latency.counted().collect();
        assert_eq!(after, [(Some(us(3)), 2), (None, 1)]);
    }

    #[test]
    fn a_percentile_is_right_to_its_bucket() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.99), Duration::ZERO);
        for us in 1..=1000 {
            latency.record(Duration::from_micros(us));
        }
        for (share, exact) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let found = latency.quantile(share).as_micros() as f64;
            assert!((exact..=exact * 1.26).contains(&found), "{share}: {found}");
        }
        assert_eq!(latency.quantile(1.0), Duration::from_micros(1000));
    }
}
