//! Fetching again what was used last, once Redis tracks again (`WARM_RECONNECT`).
//!
//! At DOWN the names of the entries used last are remembered, and nothing else of them. When the lease runs again they
//! are fetched, the latest used first, a few at a time: fetches like any other, that nobody waits for at first and anybody
//! may join. So Redis, just back, sees a short queue instead of every miss at once. What cannot be fetched because Redis
//! is gone once more is tried again after the next sign of life.
//!
//! Off by default: the moment after an outage is when Redis is most delicate, and coalescing already makes of all misses
//! of a key one fetch; whoever knows that the hot set is worth it says how large it is.
//!
//! Bounds: as many names as configured; [`AT_ONCE`] fetches, and only while half of the places for requests are free.
//! Cost: at DOWN the copying of the names, about 0.2 ms for each thousand.
#![forbid(unsafe_code)]

use super::Engine;
use crate::cache::Content;
use crate::config::Coherence;
use crate::fetch::{FetchError, FetchId, Flight, Name};
use crate::stats::Counter;
use crate::tracking::State;

/// Fetches under way at one time.
const AT_ONCE: usize = 16;

/// What is yet to be fetched.
#[derive(Debug, Clone, Default)]
pub(super) struct Warm {
    /// Databases and names, the latest used last.
    names: Vec<(u32, Vec<u8>)>,
    under_way: Vec<FetchId>,
}

impl Engine {
    /// DOWN: what is kept is about to go. A loss before all was fetched adds what is left of the loss before.
    pub(super) fn remember_names(&mut self) {
        let most = self.config.warm_reconnect;
        if most == 0 {
            return;
        }
        let mut names = Vec::new();
        for (db, key) in self.cache.iter_recent().take(most) {
            let known = self.cache.peek(db, key, self.hasher.hash(key), self.now);
            // A value too large to keep is not worth asking for.
            if matches!(known, Some(Content::Value(_) | Content::Missing)) {
                names.push((db, key.to_vec()));
            }
        }
        let left = std::mem::take(&mut self.warm.names);
        names.extend(left.into_iter().rev());
        names.truncate(most);
        names.reverse();
        self.warm.names = names;
    }

    /// Nothing of before is to be fetched.
    pub(super) fn forget_names(&mut self) {
        self.warm.names.clear();
    }

    /// Starts as many of the fetches as may be under way.
    pub(super) fn warm_more(&mut self) {
        if self.warm.names.is_empty() {
            return;
        }
        let told = self.coherence == Coherence::Tracking && *self.tracking.state() == State::On;
        if !told || self.now >= self.hits_until || self.upstream.away().is_some() || self.draining {
            return;
        }
        while self.warm.under_way.len() < AT_ONCE
            && let Some((db, key)) = self.warm.names.pop()
        {
            let hash = self.hasher.hash(&key);
            let known = self.cache.peek(db, &key, hash, self.now).is_some()
                || self.fetches.current(db, &key, hash).is_some();
            if known || !self.is_cacheable(&key) || key.len() > self.config.cache_max_key_bytes {
                continue;
            }
            if !self.take_spare_place() {
                self.warm.names.push((db, key));
                return;
            }
            let name = Name {
                db,
                key: &key,
                hash,
            };
            self.warm.under_way.push(self.fetches.next_id());
            self.begin_fetch(name, Vec::new());
        }
    }

    /// A fetch is over; if it was one of these the next one begins.
    pub(super) fn warm_completed(
        &mut self,
        id: FetchId,
        flight: &Flight,
        error: Option<&FetchError>,
    ) {
        let Some(at) = self.warm.under_way.iter().position(|one| *one == id) else {
            return;
        };
        self.warm.under_way.swap_remove(at);
        match error {
            None => self.stats.count(Counter::Warmed),
            // Redis has said no: it would again.
            Some(FetchError::Upstream(_)) => {}
            Some(_) => return self.warm.names.push((flight.db, flight.key.clone())),
        }
        self.warm_more();
    }
}
