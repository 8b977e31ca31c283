//! Operations on the cache, decoded from bytes, beside a naive one: a list in the order of use.
#![forbid(unsafe_code)]

use crate::cache::{
    Cache, Content, Limits, NewContent, Put, SHARED_VALUE_BYTES_MIN, SharedReply, Stamp, Stored,
};
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

const DBS: u32 = 3;
const KEYS: u8 = 16;
/// More replies than this are never held at a time, and none is taken while `LENT_MAX` are lent, so that each sweep of
/// the cache (64 at most) meets them all.
const HELD_MAX: usize = 16;
const LENT_MAX: usize = 40;
const TICK_US: u64 = 1024;
/// The cache reckons ages modulo 50 days.
const AGE_CHECKED: Duration = Duration::from_secs(40 * 86_400);

/// The wheel comes by after each longer pause, so that it is never late by weeks, which costs entries.
const AWAKE: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, PartialEq)]
enum Known {
    Value(Vec<u8>),
    Missing,
    TooLarge,
}

struct Entry {
    db: u32,
    key: u8,
    known: Known,
    stamp: Stamp,
    cost: usize,
    /// Where its counted reply lies, if it has one.
    shared: Option<usize>,
}

impl Entry {
    fn cost_tagged(&self) -> usize {
        let content = self.known.to_new();
        Cache::cost(name(self.key).len(), &content, 1)
    }
}

impl Known {
    fn to_new(&self) -> NewContent<'_> {
        match self {
            Known::Value(value) => NewContent::Value(value),
            Known::Missing => NewContent::Missing,
            Known::TooLarge => NewContent::TooLarge,
        }
    }
}

/// The naive cache: most recently used first.
struct Model {
    entries: Vec<Entry>,
    limits: Limits,
    /// Address and cost of replies whose entries went while they were held.
    lent: Vec<(usize, usize)>,
    held: Vec<SharedReply>,
}

impl Model {
    fn find(&self, db: u32, key: u8) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| (entry.db, entry.key) == (db, key))
    }

    fn bytes(&self) -> usize {
        let live: usize = self.entries.iter().map(|entry| entry.cost).sum();
        live + self.lent.iter().map(|&(_, cost)| cost).sum::<usize>()
    }

    fn is_held(&self, address: usize) -> bool {
        self.held
            .iter()
            .any(|reply| Arc::as_ptr(reply).addr() == address)
    }

    fn take_out(&mut self, at: usize) -> Entry {
        let entry = self.entries.remove(at);
        if let (Some(address), Known::Value(value)) = (entry.shared, &entry.known)
            && self.is_held(address)
        {
            assert!(value.len() >= SHARED_VALUE_BYTES_MIN);
            let lent = Cache::cost_lent(value.len());
            assert!(lent > value.len() && lent < entry.cost);
            self.lent.push((address, lent));
        }
        entry
    }

    fn sweep(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        self.lent = lent
            .into_iter()
            .filter(|&(address, _)| self.is_held(address))
            .collect();
    }

    fn make_room(&mut self) -> u32 {
        let mut evicted = 0;
        if self.bytes() > self.limits.bytes_max {
            self.sweep();
        }
        while !self.entries.is_empty()
            && (self.entries.len() > self.limits.keys_max || self.bytes() > self.limits.bytes_max)
        {
            self.take_out(self.entries.len() - 1);
            evicted += 1;
        }
        evicted
    }

    fn set_tag(&mut self, db: u32, key: u8, tag: u64) -> u32 {
        let Some(at) = self.find(db, key) else {
            return 0;
        };
        let entry = &mut self.entries[at];
        entry.stamp.tag = tag;
        entry.cost = entry.cost_tagged();
        self.make_room()
    }

    fn put(&mut self, entry: Entry, now: Time) -> Stored {
        if let Some(at) = self.find(entry.db, entry.key) {
            self.take_out(at);
        }
        if entry.cost > self.limits.bytes_max || entry.stamp.deadline <= now {
            return Stored {
                kept: false,
                evicted: 0,
            };
        }
        self.entries.insert(0, entry);
        let evicted = self.make_room();
        let kept = !self.entries.is_empty();
        Stored {
            kept,
            evicted: evicted - u32::from(!kept),
        }
    }
}

/// Runs the operations that `data` spells; panics where the two caches differ.
pub fn run(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut now = Time::from_millis(1_000_000);
    let limits = limits(bytes.next().unwrap_or(0));
    let mut cache = Cache::new(limits, now);
    let mut model = Model {
        entries: Vec::new(),
        limits,
        lent: Vec::new(),
        held: Vec::new(),
    };
    while let Some(op) = bytes.next() {
        let mut byte = || bytes.next().unwrap_or(0);
        match op % 16 {
            0..=2 => {
                let (db, key) = which(byte());
                let at = model.find(db, key);
                let got = cache.get(db, &name(key), hash(key), now).map(known);
                let expected = at.filter(|&at| model.entries[at].stamp.deadline > now);
                assert_eq!(got, expected.map(|at| model.entries[at].known.clone()));
                if let Some(at) = at {
                    let live = expected.is_some();
                    let entry = if live {
                        model.entries.remove(at)
                    } else {
                        model.take_out(at)
                    };
                    if live {
                        model.entries.insert(0, entry);
                    }
                }
            }
            3..=6 => {
                let (db, key) = which(byte());
                put(
                    &mut cache,
                    &mut model,
                    db,
                    key,
                    [byte(), byte(), byte()],
                    now,
                );
            }
            7 => {
                let (db, key) = which(byte());
                let at = model.find(db, key);
                assert_eq!(cache.remove(db, &name(key), hash(key)), at.is_some());
                at.map(|at| model.take_out(at));
            }
            8 => {
                let (_, key) = which(byte());
                let mut removed = 0;
                while let Some(at) = model
                    .entries
                    .iter()
                    .position(|e| hash(e.key) as u32 == hash(key) as u32)
                {
                    model.take_out(at);
                    removed += 1;
                }
                assert_eq!(cache.remove_name(hash(key)), removed);
            }
            9 => {
                let passes = Duration::from_micros(u64::from(byte()) << (byte() % 40));
                now = now + passes;
                if passes > AWAKE {
                    advance(&mut cache, &mut model, now, usize::MAX);
                }
            }
            10 | 11 => {
                let budget = if op % 16 == 10 {
                    usize::MAX
                } else {
                    usize::from(byte() % 8)
                };
                advance(&mut cache, &mut model, now, budget);
            }
            12 => match byte() % 4 {
                0 => {
                    // When held replies are met in the rubble is not modelled; the cache's own tests show it.
                    model.held.clear();
                    model.entries.clear();
                    cache.clear();
                }
                1 => cache = cache.clone(),
                2 => {
                    let (db, key) = which(byte());
                    let tag = u64::from(byte());
                    let evicted = cache.set_tag(db, &name(key), hash(key), tag);
                    assert_eq!(evicted, model.set_tag(db, key, tag));
                }
                _ => {
                    model.limits = self::limits(byte());
                    assert_eq!(cache.set_limits(model.limits), model.make_room());
                }
            },
            13 => {
                let (db, key) = which(byte());
                if let Some(Content::Value(value)) = cache.peek(db, &name(key), hash(key), now)
                    && let Some(shared) = value.shared()
                    && model.held.len() < HELD_MAX
                    && model.lent.len() < LENT_MAX
                {
                    model.held.push(shared.clone());
                }
            }
            14 => {
                if !model.held.is_empty() {
                    let at = usize::from(byte()) % model.held.len();
                    model.held.swap_remove(at);
                }
            }
            _ => {
                let (db, key) = which(byte());
                let live = model
                    .find(db, key)
                    .map(|at| &model.entries[at])
                    .filter(|e| e.stamp.deadline > now);
                let got = cache.peek(db, &name(key), hash(key), now).map(known);
                assert_eq!(got, live.map(|entry| entry.known.clone()));
                check_stamp(
                    cache.stamp(db, &name(key), hash(key), now),
                    live.map(|entry| entry.stamp),
                    now,
                );
            }
        }
        cache.check();
        let order: Vec<(u32, Vec<u8>)> = cache
            .iter_recent()
            .map(|(db, key)| (db, key.to_vec()))
            .collect();
        let expected: Vec<(u32, Vec<u8>)> = model
            .entries
            .iter()
            .map(|entry| (entry.db, name(entry.key)))
            .collect();
        assert_eq!(order, expected);
        assert_eq!(
            (cache.len(), cache.bytes()),
            (model.entries.len(), model.bytes())
        );
    }
}

fn put(
    cache: &mut Cache,
    model: &mut Model,
    db: u32,
    key: u8,
    [kind, time, tag]: [u8; 3],
    now: Time,
) {
    const LENS: [usize; 8] = [
        0,
        5,
        64,
        900,
        970,
        SHARED_VALUE_BYTES_MIN - 1,
        SHARED_VALUE_BYTES_MIN,
        9000,
    ];
    let known = match kind % 10 {
        8 => Known::Missing,
        9 => Known::TooLarge,
        len => Known::Value(vec![tag; LENS[usize::from(len)]]),
    };
    let content = known.to_new();
    let deadline = match time {
        0 => now,
        255 => Time::NEVER,
        _ => now + Duration::from_micros(u64::from(time) << (time % 36)),
    };
    let stored_at = now - Duration::from_micros(u64::from(kind) << 8);
    let name = name(key);
    let put = Put {
        db,
        key: &name,
        hash: hash(key),
        content,
        stored_at,
        deadline,
        tag: u64::from(tag),
        ping: u16::from(time),
    };
    let stored = cache.put(put, now);
    let shared = match cache.peek(db, &name, hash(key), now) {
        Some(Content::Value(value)) => value.shared().map(|reply| Arc::as_ptr(reply).addr()),
        _ => None,
    };
    let cost = Cache::cost(name.len(), &content, u64::from(tag));
    let stamp = Stamp {
        stored_at,
        deadline: rounded(deadline, now),
        tag: u64::from(tag),
        ping: u16::from(time),
    };
    assert_eq!(
        stored,
        model.put(
            Entry {
                db,
                key,
                known,
                stamp,
                cost,
                shared
            },
            now
        )
    );
}

/// As the cache keeps a deadline: rounded down, and no later than it can reckon.
fn rounded(deadline: Time, now: Time) -> Time {
    let tick = (deadline.micros() / TICK_US).min(now.micros() / TICK_US + (1 << 31));
    Time::from_micros(tick * TICK_US)
}

fn advance(cache: &mut Cache, model: &mut Model, now: Time, budget: usize) {
    let expired = cache.advance(now, budget);
    let live: Vec<(u32, Vec<u8>)> = cache
        .iter_recent()
        .map(|(db, key)| (db, key.to_vec()))
        .collect();
    let mut count = 0;
    while let Some(at) = model
        .entries
        .iter()
        .position(|entry| !live.contains(&(entry.db, name(entry.key))))
    {
        assert!(model.take_out(at).stamp.deadline <= now, "expired early");
        count += 1;
    }
    model.sweep();
    assert_eq!(expired.count, count);
    assert!(count <= budget);
    if !expired.more {
        let late = |entry: &Entry| now.since(entry.stamp.deadline) > Duration::from_micros(TICK_US);
        assert!(!model.entries.iter().any(late), "expired late");
        assert!(cache.next_deadline().is_none_or(|at| at > now));
    }
}

fn check_stamp(got: Option<Stamp>, expected: Option<Stamp>, now: Time) {
    let (Some(got), Some(expected)) = (got, expected) else {
        assert_eq!(got, expected);
        return;
    };
    let plain = |stamp: &Stamp| (stamp.deadline, stamp.tag, stamp.ping);
    assert_eq!(plain(&got), plain(&expected));
    if now.since(expected.stored_at) < AGE_CHECKED {
        assert!(got.stored_at <= expected.stored_at);
        assert!(expected.stored_at.since(got.stored_at) < Duration::from_micros(TICK_US));
    }
}

fn known(content: Content<'_>) -> Known {
    match content {
        Content::Missing => Known::Missing,
        Content::TooLarge => Known::TooLarge,
        Content::Value(value) => {
            let bytes = value.value();
            let reply = [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
            let mut written = Vec::new();
            value.append_reply(&mut written);
            assert_eq!(written, reply);
            let mut room = vec![b'?'; reply.len() + 8];
            assert_eq!(value.write_reply(&mut room).map(|left| left.len()), Some(8));
            assert_eq!(room[..reply.len()], reply);
            assert!(value.write_reply(&mut room[..reply.len() - 1]).is_none());
            assert_eq!(
                value.shared().is_some(),
                bytes.len() >= SHARED_VALUE_BYTES_MIN
            );
            assert!(value.shared().is_none_or(|shared| **shared == reply));
            Known::Value(bytes.to_vec())
        }
    }
}

fn which(byte: u8) -> (u32, u8) {
    (u32::from(byte / KEYS) % DBS, byte % KEYS)
}

/// Names of lengths on both sides of every border, some being the beginning of others.
fn name(key: u8) -> Vec<u8> {
    let len = [0, 1, 7, 7, 8, 8, 9, 15, 16, 16, 17, 17, 33, 100, 2, 3][usize::from(key % KEYS)];
    let mut name = vec![b'k'; len];
    if let Some(last) = name.last_mut() {
        *last = b'a' + key;
    }
    name
}

/// Hashes as an enemy would like them: four keys with one, four alike in the bits that are stored, the rest spread.
fn hash(key: u8) -> u64 {
    match key % KEYS {
        0..4 => 7,
        key @ 4..8 => u64::from(key) << 32 | 9,
        key => u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15),
    }
}

fn limits(byte: u8) -> Limits {
    Limits {
        keys_max: [100, 10, 3, 1, 0][usize::from(byte % 5)],
        bytes_max: [1 << 20, 30_000, 5000, 1000, 300, 0][usize::from(byte / 5 % 6)],
    }
}

/// The samples of a fuzz target; none where the corpus is not shipped.
#[cfg(test)]
pub(super) fn corpus(target: &str) -> Vec<Vec<u8>> {
    let fuzz = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let Ok(files) = std::fs::read_dir(fuzz.join("corpus").join(target)) else {
        assert!(!fuzz.join("corpus").exists(), "no samples for {target}");
        return Vec::new();
    };
    let samples: Vec<_> = files
        .map(|file| std::fs::read(file.expect("listable").path()).expect("readable"))
        .collect();
    assert!(!samples.is_empty(), "no samples for {target}");
    samples
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeded_operations_agree_with_the_list() {
        for seed in 0..3000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let data: Vec<u8> = (0..rng.usize(0..800)).map(|_| rng.u8(..)).collect();
            println!("seed {seed}");
            super::run(&data);
        }
    }

    #[test]
    fn the_corpus_agrees_with_the_list() {
        for sample in super::corpus("cache_ops") {
            super::run(&sample);
        }
    }
}
