//! Misses in flight: what is asked of the workers, who waits for it, and which fetch of a key may be kept.
//!
//! It never touches the cache and never talks to a worker. Two things are kept apart (rules L2, L3 and R2 of the
//! coherence rules): a *flight*, which lives from dispatch until its completion or time-out and has waiters, and the
//! *mark* of a key, which names the one flight that readers may join and whose result may be kept. An invalidation
//! removes the mark; the flight goes on for those who wait already. Invariant: a mark names a live flight of its key.
//! Costs: O(1) for every call but [`Fetches::forget_all`], which is O(marks).
#![forbid(unsafe_code)]

use crate::engine::ConnId;
use crate::hash::PrehashedMap;
use crate::time::Time;
use std::time::Duration;

/// Names one fetch for ever: ids are never used twice within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// What a worker is asked to do: `GET key` and `PTTL key` in database `db`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Comes back in the [`Completion`].
    pub id: FetchId,
    /// Which worker, below the configured number of workers. All fetches of a key go to one worker, in order.
    pub worker: usize,
    /// The database of the key.
    pub db: u32,
    /// The key's name.
    pub key: Vec<u8>,
    /// When the loop dispatched it; past [`waited_longest`] nobody waits for it any more.
    pub dispatched: Time,
}

/// A fetch ends at the latest after so many time-outs, however well its bytes arrive: a value of 512 MiB on 100 Mbit/s
/// takes 43 seconds, 15 of the usual ones.
const TIMEOUTS_MAX: u32 = 20;

/// When nobody waits for a fetch any more, even if Redis is still at its answer.
pub fn waited_longest(dispatched: Time, timeout: Duration) -> Time {
    dispatched + timeout.saturating_mul(TIMEOUTS_MAX)
}

/// What became of a [`Job`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The job's id.
    pub id: FetchId,
    /// What Redis said, or why nothing can be said.
    pub result: Result<Fetched, FetchError>,
}

/// Redis's two answers for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The reply to GET: the value, or `None` for nil.
    pub value: Option<Vec<u8>>,
    /// The reply to PTTL in milliseconds: -2 no such key, -1 no expiry. `None` when PTTL itself failed: then
    /// the value is answered but not kept.
    pub pttl_ms: Option<i64>,
    /// Which server said so, if it says who it is.
    pub run_id: Option<RunId>,
}

/// The name that a Redis process gives itself when it starts (`run_id` in INFO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId([u8; 40]);

impl RunId {
    /// Finds it in the text of `INFO server`.
    pub fn in_info(text: &[u8]) -> Option<RunId> {
        let line = text
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(b"run_id:"))?;
        line.trim_ascii_end().try_into().ok().map(RunId)
    }
}

/// Why a fetch brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// Redis answered GET with an error: its text without the leading `-` and without CRLF.
    Upstream(String),
    /// No connection to Redis could be made: it was not asked.
    Unreachable(String),
    /// The connection was lost while the answer was owed, and the one retry failed as well.
    Lost(String),
    /// Redis did not answer within the time-out.
    TimedOut,
    /// The worker's queue was full.
    QueueFull,
    /// The worker panicked; a fresh one has taken its place.
    WorkerLost,
}

impl FetchError {
    /// A word for each, for figures.
    pub const NAMES: [&str; 6] = [
        "redis_said_so",
        "unreachable",
        "connection_lost",
        "timed_out",
        "queue_full",
        "worker_lost",
    ];

    /// Where its word stands in [`FetchError::NAMES`].
    pub fn place(&self) -> usize {
        match self {
            FetchError::Upstream(_) => 0,
            FetchError::Unreachable(_) => 1,
            FetchError::Lost(_) => 2,
            FetchError::TimedOut => 3,
            FetchError::QueueFull => 4,
            FetchError::WorkerLost => 5,
        }
    }
}

/// A slot of a client that waits for a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// The client.
    pub client: ConnId,
    /// The slot.
    pub slot: u64,
}

/// A key as the cache and the fetches know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'k> {
    /// The database.
    pub db: u32,
    /// The name.
    pub key: &'k [u8],
    /// The hash of the name.
    pub hash: u64,
}

/// Whether a fetch may be joined and kept (rules L2 and L11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It takes the key's mark.
    Set,
    /// Nothing may be kept now: it is for its own waiters only.
    None,
}

/// One fetch under way.
#[derive(Debug, Clone)]
pub struct Flight {
    /// The database of the key.
    pub db: u32,
    /// The key's name.
    pub key: Vec<u8>,
    /// Its hash.
    pub hash: u64,
    /// When it was handed to its worker.
    pub dispatched: Time,
    /// Who waits, in the order of arrival.
    pub waiters: Vec<Waiter>,
    /// The timer of its deadline; `None` once that has fired.
    pub timer: Option<u32>,
    /// Whether the key's mark names this flight.
    marked: bool,
    /// The next marked flight whose key has the same hash.
    next: Option<FetchId>,
}

/// All fetches under way.
#[derive(Debug, Clone, Default)]
pub struct Fetches {
    flights: PrehashedMap<u64, Flight>,
    /// The first marked flight for each hash of a key name.
    marks: PrehashedMap<u64, FetchId>,
    started: u64,
}

impl Fetches {
    /// How many are under way.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// The id that the next [`Fetches::start`] gives.
    pub fn next_id(&self) -> FetchId {
        FetchId(self.started)
    }

    /// An id for a job that is no flight: no [`Fetches::start`] gives it.
    pub fn take_id(&mut self) -> FetchId {
        self.started += 1;
        FetchId(self.started - 1)
    }

    /// Begins a flight. With [`Mark::Set`] the key's mark names it from now on; an older flight of the key loses the mark.
    pub fn start(
        &mut self,
        key: Name<'_>,
        mark: Mark,
        now: Time,
        timer: u32,
        waiters: Vec<Waiter>,
    ) -> FetchId {
        let Name { db, key, hash } = key;
        if let Some(old) = self.current(db, key, hash) {
            self.unmark(old);
        }
        let id = self.next_id();
        self.started += 1;
        let marked = mark == Mark::Set;
        let next = if marked {
            self.marks.insert(hash, id)
        } else {
            None
        };
        let flight = Flight {
            db,
            key: key.to_vec(),
            hash,
            dispatched: now,
            waiters,
            timer: Some(timer),
            marked,
            next,
        };
        self.flights.insert(id.0, flight);
        id
    }

    /// The flight that holds the key's mark.
    pub fn current(&self, db: u32, key: &[u8], hash: u64) -> Option<FetchId> {
        let mut at = self.marks.get(&hash).copied();
        while let Some(id) = at {
            let flight = &self.flights[&id.0];
            if flight.db == db && flight.key == key {
                return Some(id);
            }
            at = flight.next;
        }
        None
    }

    /// The flight's timer has fired; another takes its place, or none.
    pub fn set_timer(&mut self, id: FetchId, timer: Option<u32>) {
        if let Some(flight) = self.flights.get_mut(&id.0) {
            flight.timer = timer;
        }
    }

    /// When the flight was dispatched.
    pub fn dispatched(&self, id: FetchId) -> Option<Time> {
        Some(self.flights.get(&id.0)?.dispatched)
    }

    /// One more waits for a flight that is under way.
    pub fn join(&mut self, id: FetchId, waiter: Waiter) {
        if let Some(flight) = self.flights.get_mut(&id.0) {
            flight.waiters.push(waiter);
        }
    }

    /// Ends a flight: its record, and whether it still held the mark of its key. `None` when it ended before.
    pub fn finish(&mut self, id: FetchId) -> Option<(Flight, bool)> {
        let current = self.flights.get(&id.0)?.marked;
        if current {
            self.unmark(id);
        }
        self.flights.remove(&id.0).map(|flight| (flight, current))
    }

    /// Removes the marks of a key name in every database (a name with the same hash loses its mark too, harmlessly).
    pub fn forget_name(&mut self, hash: u64) {
        let mut at = self.marks.remove(&hash);
        while let Some(id) = at {
            let flight = self
                .flights
                .get_mut(&id.0)
                .expect("a mark names a live flight");
            flight.marked = false;
            at = flight.next.take();
        }
    }

    /// Removes every mark.
    pub fn forget_all(&mut self) {
        let heads: Vec<u64> = self.marks.keys().copied().collect();
        for hash in heads {
            self.forget_name(hash);
        }
    }

    /// The flights with their ids and whether they hold their mark, oldest first. O(n log n), for fingerprints and tests.
    pub fn iter_by_age(&self) -> impl Iterator<Item = (FetchId, &Flight, bool)> {
        let mut ids: Vec<u64> = self.flights.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter()
            .map(|id| (FetchId(id), &self.flights[&id], self.flights[&id].marked))
    }

    /// Panics where the invariant does not hold.
    pub fn check(&self) {
        let mut marked = 0;
        for (hash, head) in &self.marks {
            let mut at = Some(*head);
            while let Some(id) = at {
                let flight = &self.flights[&id.0];
                assert!(flight.marked && flight.hash == *hash);
                assert_eq!(
                    self.current(flight.db, &flight.key, *hash),
                    Some(id),
                    "two marks for one key"
                );
                marked += 1;
                at = flight.next;
            }
        }
        assert_eq!(
            marked,
            self.flights.values().filter(|flight| flight.marked).count()
        );
    }

    fn unmark(&mut self, id: FetchId) {
        let flight = self
            .flights
            .get_mut(&id.0)
            .expect("only live flights are unmarked");
        let (hash, next) = (flight.hash, flight.next.take());
        flight.marked = false;
        let head = self.marks[&hash];
        if head == id {
            match next {
                Some(next) => self.marks.insert(hash, next),
                None => self.marks.remove(&hash),
            };
            return;
        }
        let mut at = head;
        loop {
            let flight = self
                .flights
                .get_mut(&at.0)
                .expect("a chain holds live flights");
            if flight.next == Some(id) {
                flight.next = next;
                return;
            }
            at = flight
                .next
                .expect("a marked flight is in the chain of its hash");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Place;

    fn waiter(slot: u64) -> Waiter {
        Waiter {
            client: ConnId {
                place: Place::Client(0),
                generation: 0,
            },
            slot,
        }
    }

    fn begin(fetches: &mut Fetches, db: u32, key: &[u8], first: Waiter) -> FetchId {
        fetches.start(
            Name { db, key, hash: 7 },
            Mark::Set,
            Time::ZERO,
            0,
            vec![first],
        )
    }

    #[test]
    fn a_fetch_without_a_mark_is_neither_joined_nor_kept() {
        let mut fetches = Fetches::default();
        let name = Name {
            db: 0,
            key: b"k",
            hash: 7,
        };
        let id = fetches.start(name, Mark::None, Time::ZERO, 0, vec![waiter(0)]);
        fetches.check();
        assert_eq!(fetches.current(0, b"k", 7), None);
        assert!(!fetches.finish(id).expect("under way").1);
    }

    #[test]
    fn a_server_is_known_by_the_run_id_in_its_info() {
        let info =
            |id: &str| format!("# Server\r\nredis_version:7.0.15\r\nrun_id:{id}\r\ntcp_port:1\r\n");
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let found = RunId::in_info(info(&a).as_bytes());
        assert!(found.is_some());
        assert_ne!(found, RunId::in_info(info(&b).as_bytes()));
        assert_eq!(RunId::in_info(info("short").as_bytes()), None);
        assert_eq!(RunId::in_info(b"-NOPERM"), None);
    }

    #[test]
    fn an_invalidated_flight_is_answered_but_not_kept() {
        let mut fetches = Fetches::default();
        let id = begin(&mut fetches, 0, b"k", waiter(0));
        fetches.forget_name(7);
        fetches.check();
        assert_eq!(fetches.current(0, b"k", 7), None);
        let (flight, current) = fetches.finish(id).expect("still under way");
        assert!(!current);
        assert_eq!(flight.waiters, [waiter(0)]);
        assert!(fetches.finish(id).is_none(), "a flight ends once");
    }

    #[test]
    fn names_with_one_hash_keep_their_own_marks_until_it_is_forgotten() {
        let mut fetches = Fetches::default();
        let ids: Vec<FetchId> = [(0, b"a"), (1, b"a"), (0, b"b"), (2, b"b")]
            .iter()
            .map(|(db, key)| begin(&mut fetches, *db, *key, waiter(0)))
            .collect();
        fetches.check();
        assert_eq!(fetches.current(0, b"b", 7), Some(ids[2]));
        assert!(fetches.finish(ids[1]).expect("under way").1);
        fetches.check();
        assert_eq!(fetches.current(1, b"a", 7), None);
        assert_eq!(fetches.current(0, b"a", 7), Some(ids[0]));
        fetches.forget_name(7);
        fetches.check();
        assert!(!fetches.finish(ids[0]).expect("under way").1);
    }

    #[test]
    fn a_fresh_fetch_takes_the_mark_from_an_older_one() {
        let mut fetches = Fetches::default();
        let old = begin(&mut fetches, 0, b"k", waiter(0));
        let new = begin(&mut fetches, 0, b"k", waiter(1));
        fetches.check();
        assert_eq!(fetches.current(0, b"k", 7), Some(new));
        assert!(!fetches.finish(old).expect("under way").1);
        assert!(fetches.finish(new).expect("under way").1);
        assert!(fetches.is_empty());
        fetches.check();
    }
}
