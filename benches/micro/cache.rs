//! The cache by itself: hits, misses, puts, removals, and the longest pause of what happens at once.

use crate::{each, longest, timed};
use fastrand::Rng;
use nearcache::cache::{Cache, Content, Limits, NewContent, Put};
use nearcache::hash::KeyHasher;
use nearcache::time::Time;
use std::time::Duration;

const CALLS: usize = 200_000;
const START: Time = Time::from_millis(1_000_000);
const MANY: usize = 1_000_000;
/// The steps of one turn of the loop (`TIMERS_MAX` in `src/reactor/mod.rs`).
const STEPS: usize = 512;

struct Filled {
    cache: Cache,
    names: Vec<[u8; 16]>,
    hashes: Vec<u64>,
}

impl Filled {
    fn new(keys: usize, bytes_max: usize) -> Filled {
        let limits = Limits {
            keys_max: 2 * keys,
            bytes_max,
        };
        let hasher = KeyHasher::new([1, 2, 3, 4]);
        let names: Vec<[u8; 16]> = (0..keys)
            .map(|key| format!("key:{key:012}").into_bytes())
            .map(|name| name.try_into().expect("sixteen bytes"))
            .collect();
        let hashes = names.iter().map(|name| hasher.hash(name)).collect();
        Filled {
            cache: Cache::new(limits, START),
            names,
            hashes,
        }
    }

    fn put(&mut self, key: usize, value: &[u8], ttl: Duration) {
        let put = Put {
            db: 0,
            key: &self.names[key],
            hash: self.hashes[key],
            content: NewContent::Value(value),
            stored_at: START,
            deadline: START + ttl,
            tag: 0,
            ping: 0,
        };
        self.cache.put(put, START);
    }

    fn put_all(&mut self, value: &[u8], ttl: Duration) {
        for key in 0..self.names.len() {
            self.put(key, value, ttl);
        }
    }

    fn hit(&mut self, key: usize, out: &mut [u8]) -> usize {
        match self.cache.get(0, &self.names[key], self.hashes[key], START) {
            Some(Content::Value(value)) => value.write_reply(out).map_or(0, |left| left.len()),
            _ => 0,
        }
    }
}

pub fn run() {
    const MINUTE: Duration = Duration::from_secs(60);
    let mut random = Rng::with_seed(1);
    for keys in [1000, MANY] {
        let mut filled = Filled::new(keys, 1 << 30);
        filled.put_all(&[7; 64], MINUTE);
        let order: Vec<usize> = (0..CALLS).map(|_| random.usize(..keys)).collect();
        let mut out = [0; 256];
        each(
            &format!("cache: a hit among {keys}, copied out"),
            CALLS,
            |i| filled.hit(order[i], &mut out),
        );
        each(&format!("cache: a miss among {keys}"), CALLS, |i| {
            let hash = filled.hashes[order[i]].rotate_left(7);
            filled
                .cache
                .get(0, b"key:no-such-name", hash, START)
                .is_some()
        });
        each(&format!("cache: remove and put among {keys}"), CALLS, |i| {
            let key = order[i];
            let (name, hash) = (filled.names[key], filled.hashes[key]);
            filled.cache.remove(0, &name, hash);
            filled.put(key, &[7; 64], MINUTE);
        });
    }
    let mut filled = Filled::new(MANY, 32 << 20);
    filled.put_all(&[7; 64], MINUTE);
    each("cache: put into a full one, which evicts", CALLS, |i| {
        filled.put(i, &[7; 64], MINUTE);
    });
    each("cache: put of another size into a full one", CALLS, |i| {
        filled.put(i, &[7; 64 + 150][..64 + 150 * (i % 2)], MINUTE);
    });
}

/// The longest single call in what happens to a million entries at once. All of it is done several times, and each call
/// counts as long as it took when it took least: a pause of our own is there every time, another's is not.
pub fn pauses() {
    const RUNS: usize = 5;
    let mut least = happenings();
    for _ in 1..RUNS {
        for ((what, least), (again, took)) in least.iter_mut().zip(happenings()) {
            assert_eq!(
                (*what, least.len()),
                (again, took.len()),
                "a run is as another"
            );
            for (least, took) in least.iter_mut().zip(took) {
                *least = took.min(*least);
            }
        }
    }
    for (what, took) in least {
        longest(&format!("pauses: {what}, the least of {RUNS} runs"), took);
    }
}

/// What happens, and how long each call took.
fn happenings() -> [(&'static str, Vec<Duration>); 5] {
    const SECOND: Duration = Duration::from_secs(1);
    let mut filled = Filled::new(MANY, 1 << 30);
    let put = |key| timed(|| filled.put(key, &[7; 64], SECOND)).0;
    let growth = (0..MANY).map(put).collect();
    let expiry = until_done(&mut filled.cache, START + SECOND);
    filled.put_all(&[7; 64], SECOND);
    let (hashes, cache) = (&filled.hashes[..100_000], &mut filled.cache);
    let mut invalidate = |names: &[u64]| {
        timed(|| {
            for hash in names {
                cache.remove_name(*hash);
            }
        })
    };
    let invalidation = hashes
        .chunks(350)
        .map(|names| invalidate(names).0)
        .collect();
    filled.put_all(&[7; 64], SECOND);
    let flush = vec![timed(|| filled.cache.clear()).0];
    let giving_back = until_done(&mut filled.cache, START);
    [
        ("growth to a million entries, per put", growth),
        ("a million expire, per turn of 512 steps", expiry),
        (
            "100,000 keys invalidated, per read of 8 KiB (350 keys)",
            invalidation,
        ),
        ("the flush of a million", flush),
        ("its memory given back, per turn of 512 steps", giving_back),
    ]
}

/// Turns until nothing is left to do at `now`.
fn until_done(cache: &mut Cache, now: Time) -> Vec<Duration> {
    let mut turns = Vec::new();
    loop {
        let (took, expired) = timed(|| cache.advance(now, STEPS));
        turns.push(took);
        if !expired.more {
            return turns;
        }
    }
}
