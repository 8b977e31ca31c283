//! The keyed hash of key names. Seeded once per process, so that nobody outside can choose keys that collide.
#![forbid(unsafe_code)]

use ahash::RandomState;

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
        self.0.hash_one(key)
    }
}
