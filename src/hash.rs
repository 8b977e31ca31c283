//! The keyed hash of key names. Seeded once per process, so that nobody outside can choose keys that collide.
#![forbid(unsafe_code)]

use ahash::RandomState;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

/// Hashes key names to 64 bits under a secret seed (the `ahash` crate).
#[derive(Debug, Clone)]
pub struct KeyHasher(RandomState);

impl KeyHasher {
    /// A hasher whose results depend on `seed`. In production the seed is random per process; tests fix it.
    pub fn new(seed: [u64; 4]) -> KeyHasher {
        let [a, b, c, d] = seed;
        KeyHasher(RandomState::with_seeds(a, b, c, d))
    }

    /// The hash of a key's name. The database is not part of it: an invalidation names no database and must find
    /// the key in all of them with one walk.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        // Not `hash_one`: that also mixes in the length, which `write` does by itself.
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// A map whose keys are hashes or counters of our own: nobody outside chooses them, so mixing is all that is needed.
pub type PrehashedMap<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Mixes the few words it is given with a multiplication (the constant is 2^64 divided by the golden ratio).
#[derive(Debug, Clone, Default)]
pub struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
