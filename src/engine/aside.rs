//! What waits aside for reads that fail (`STALE_IF_ERROR_SECS`, rule L18), invisible to hits.
//!
//! Two ways lead here, both only while nobody can say what has changed. *At DOWN* the whole cache is put aside. *While
//! the lease has lapsed* and the link still stands (a frozen Redis), a fetch removes its key's entry (rule L2) and puts it
//! aside: otherwise the hottest keys would be the ones that are not there when DOWN comes.
//!
//! Why the second is right: the entry stays under every rule it was under in the cache. A push, an own write, a GET beside
//! the fetches, a fetch that succeeds and a flush remove it, each before anybody is told of something newer. So whenever
//! it is answered, instead of an error, nobody was told of anything newer: RYW, CROSS, MONO and GMONO hold as for L18.
//! STALEUP holds because it is dropped when the lease runs again, and at UP. The exploration runs it through both.
//!
//! Bound: both parts together with the cache stay within `CACHE_MAX_BYTES`, by [`Aside::bytes_lapsed`].
#![forbid(unsafe_code)]

use crate::cache::{Cache, Content, Expired, Limits, NewContent, Put};
use crate::time::Time;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Aside {
    /// What was kept at DOWN.
    down: Cache,
    /// What fetches have removed while the lease had lapsed.
    lapsed: Cache,
}

impl Aside {
    pub(super) fn new(limits: Limits, now: Time) -> Aside {
        Aside {
            down: Cache::new(limits, now),
            lapsed: Cache::new(limits, now),
        }
    }

    /// DOWN: all of this waits aside from now on, beside what does already. (No key is in both: what a fetch put aside
    /// only comes back into the cache by a fetch that succeeds, which drops it here.)
    pub(super) fn put_down(&mut self, cache: Cache) {
        self.down = cache;
    }

    /// The entry that a fetch is about to remove from `cache`.
    pub(super) fn put_lapsed(&mut self, cache: &Cache, db: u32, key: &[u8], hash: u64, now: Time) {
        let Some(stamp) = cache.stamp(db, key, hash, now) else {
            return;
        };
        let content = match cache.peek(db, key, hash, now) {
            Some(Content::Value(value)) => NewContent::Value(value.value()),
            Some(Content::Missing) => NewContent::Missing,
            Some(Content::TooLarge) | None => return,
        };
        let put = Put {
            db,
            key,
            hash,
            content,
            stored_at: stamp.stored_at,
            deadline: stamp.deadline,
            tag: 0,
            ping: 0,
        };
        self.lapsed.put(put, now);
    }

    /// The last known state of a key.
    pub(super) fn get(&mut self, db: u32, key: &[u8], hash: u64, now: Time) -> Option<Content<'_>> {
        match self.lapsed.peek(db, key, hash, now) {
            Some(_) => self.lapsed.get(db, key, hash, now),
            None => self.down.get(db, key, hash, now),
        }
    }

    pub(super) fn remove(&mut self, db: u32, key: &[u8], hash: u64) {
        self.down.remove(db, key, hash);
        self.lapsed.remove(db, key, hash);
    }

    pub(super) fn remove_name(&mut self, hash: u64) {
        self.down.remove_name(hash);
        self.lapsed.remove_name(hash);
    }

    pub(super) fn clear(&mut self) {
        self.down.clear();
        self.lapsed.clear();
    }

    /// What is beyond these limits goes.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.down.set_limits(limits);
        self.lapsed.set_limits(limits);
    }

    /// The lease runs again: what fetches have put aside goes.
    pub(super) fn clear_lapsed(&mut self) {
        self.lapsed.clear();
    }

    /// What fetches have put aside costs this.
    pub(super) fn bytes_lapsed(&self) -> usize {
        self.lapsed.bytes()
    }

    pub(super) fn len_down(&self) -> usize {
        self.down.len()
    }

    pub(super) fn len_lapsed(&self) -> usize {
        self.lapsed.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.down.is_empty() && self.lapsed.is_empty()
    }

    /// Frees what has expired, and what `clear` left. Says whether there is more to do.
    pub(super) fn advance(&mut self, now: Time, budget: usize) -> bool {
        let more = |expired: Expired| expired.more;
        more(self.down.advance(now, budget)) | more(self.lapsed.advance(now, budget))
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let deadlines = [self.down.next_deadline(), self.lapsed.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Both parts, for fingerprints.
    pub(super) fn parts(&self) -> [&Cache; 2] {
        [&self.down, &self.lapsed]
    }
}
