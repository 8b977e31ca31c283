//! Misses in flight.
#![forbid(unsafe_code)]

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
    /// When the loop dispatched it; past `dispatched + redis_timeout` nobody waits for it any more.
    pub dispatched: Time,
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
}

/// Why a fetch brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// Redis answered GET with an error: its text without the leading `-` and without CRLF.
    Upstream(String),
    /// No connection to Redis could be made, or it was lost and the one retry failed as well.
    Unreachable(String),
    /// Redis did not answer within the time-out.
    TimedOut,
    /// The worker's queue was full.
    QueueFull,
    /// The worker panicked; a fresh one has taken its place.
    WorkerLost,
}

/// How long a fetch may take, counted from dispatch, when no configuration says otherwise.
pub const REDIS_TIMEOUT_DEFAULT: Duration = Duration::from_millis(3000);
