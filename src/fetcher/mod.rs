//! The worker pool that asks Redis for what is not here: `GET` and `PTTL`, over the `redis` crate's blocking connections.
//!
//! Who runs what: the loop calls [`Fetcher::submit`], [`Fetcher::kick`] and [`Fetcher::drain`]; each worker thread owns
//! one queue and one connection and sees nothing but jobs in and completions out. A worker may block in its queue and in
//! its Redis calls, the loop in none of this: it holds a lock for the time of a push or a swap.
//!
//! Order promised: the jobs of one worker are executed by Redis and completed in the order of their submission. A
//! connection that is lost has its unanswered jobs sent once more, in that order and before newer ones (rule L1 of the
//! coherence rules). The exception carries no value: while Redis is known to be away, a job fails at once.
//!
//! Every job is completed exactly once, unless the pool is stopped first.
//!
//! Bounds: `fetch_queue_max` jobs wait per worker; one more is handed back to the caller. Completions are at most the
//! jobs under way.
//!
//! Costs: a submission is a lock and a move; a wake-up is paid only for a sleeping worker, once per turn. Batches grow
//! with load: a worker takes all that waits, up to `fetch_batch_max` jobs and [`BATCH_KEY_BYTES_MAX`].
#![forbid(unsafe_code)]

mod upstream;
mod wire;
mod worker;

use crate::config::{Config, RedisUrl};
use crate::fetch::{Completion, FetchError, Job};
use crate::mischief::Mischief;
use crate::socket;
use crate::time::Time;
use crate::tls;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use worker::Worker;

/// Key bytes in one batch, so that many long keys do not make one huge write. A single longer key goes alone.
const BATCH_KEY_BYTES_MAX: usize = 1024 * 1024;

/// The pool, as the loop sees it.
#[derive(Debug)]
pub struct Fetcher {
    workers: Vec<Seat>,
    completions: Arc<Completions>,
    tls: Arc<Mutex<Option<tls::Upstream>>>,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It waits for jobs.
    Idle,
    /// It has some.
    Busy,
    /// It does not reach Redis and pauses before the next attempt.
    Away,
}

/// One worker's place: its queue, its thread, and whether [`Fetcher::kick`] owes it a wake-up.
#[derive(Debug)]
struct Seat {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
    asleep: bool,
}

/// What the workers need of the configuration.
#[derive(Clone)]
struct Settings {
    url: RedisUrl,
    /// How to meet it over TLS, as the files were read last.
    tls: Arc<Mutex<Option<tls::Upstream>>>,
    timeout: Duration,
    connect_timeout: Duration,
    batch_max: usize,
    /// What the workers' connections are called, before their numbers.
    name: String,
    mischief: Mischief,
}

impl Fetcher {
    /// Starts the workers; each connects at once and goes on trying for ever. `waker` is woken when completions wait.
    /// Fails only when a thread cannot be made.
    pub fn start(
        config: &Config,
        tls: Option<tls::Upstream>,
        waker: Arc<mio::Waker>,
    ) -> io::Result<Fetcher> {
        let tls = Arc::new(Mutex::new(tls));
        let settings = Settings {
            url: config.redis_url.clone(),
            tls: tls.clone(),
            timeout: config.redis_timeout,
            connect_timeout: config.redis_connect_timeout,
            batch_max: config.fetch_batch_max.max(1),
            name: format!(
                "nearcache:{}:{}:fetch",
                socket::host_name(),
                std::process::id()
            ),
            mischief: Mischief::ordered(),
        };
        let completions = Arc::new(Completions {
            list: Mutex::default(),
            waiting: AtomicBool::new(false),
            waker,
        });
        let mut workers = Vec::new();
        for index in 0..config.redis_workers.max(1) {
            let queue = Arc::new(Queue::new(config.fetch_queue_max.max(1)));
            let worker = Worker::new(index, settings.clone(), queue.clone(), completions.clone());
            let name = format!("fetch{index}");
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || worker.run())?;
            workers.push(Seat {
                queue,
                thread,
                asleep: false,
            });
        }
        Ok(Fetcher {
            workers,
            completions,
            tls,
        })
    }

    /// Connections made from here on are made with these certificates.
    pub fn secure(&self, tls: Option<tls::Upstream>) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// Queues a job for its worker. The worker need not notice before [`Fetcher::kick`]. Gives the job back when the
    /// worker's queue is full. While Redis is known to be away the job is completed as unreachable instead.
    pub fn submit(&mut self, job: Job) -> Result<(), Job> {
        let index = job.worker % self.workers.len();
        let seat = &mut self.workers[index];
        match seat.queue.push(job) {
            Pushed::Queued { asleep } => {
                seat.asleep |= asleep;
                Ok(())
            }
            Pushed::Full(job) => Err(job),
            Pushed::Away(job, why) => {
                let result = Err(FetchError::Unreachable(why));
                self.completions
                    .deliver(&mut vec![Completion { id: job.id, result }]);
                Ok(())
            }
        }
    }

    /// Every worker makes a fresh connection before its next batch: the name may have come to mean another Redis.
    pub fn renew(&mut self) {
        for seat in &self.workers {
            seat.queue.lock().renew = true;
        }
    }

    /// Redis is there again, as somebody else has seen: workers that pause between attempts try at once, and jobs wait for
    /// the outcome instead of failing.
    pub fn recovered(&mut self) {
        for seat in &self.workers {
            let mut state = seat.queue.lock();
            if state.away.take().is_some() {
                state.try_now = true;
                seat.queue.work.notify_one();
            }
        }
    }

    /// Wakes the workers that slept when jobs were submitted. Called once, after the last submission of a turn, so that
    /// these jobs go out in one batch.
    pub fn kick(&mut self) {
        for seat in &mut self.workers {
            if std::mem::take(&mut seat.asleep) {
                seat.queue.work.notify_one();
            }
        }
    }

    /// Moves the completions that wait to the end of `into`.
    pub fn drain(&mut self, into: &mut Vec<Completion>) {
        if self.completions.waiting.load(Ordering::Acquire) {
            let mut list = self.completions.lock();
            into.append(&mut list);
            self.completions.waiting.store(false, Ordering::Release);
        }
    }

    /// What each worker does and how much waits for it; a lock for each.
    pub fn figures(&self) -> Vec<(Activity, usize)> {
        let of = |seat: &Seat| {
            let state = seat.queue.lock();
            let activity = match (&state.away, state.asleep) {
                (Some(_), _) => Activity::Away,
                (None, true) => Activity::Idle,
                (None, false) => Activity::Busy,
            };
            (activity, state.jobs.len())
        };
        self.workers.iter().map(of).collect()
    }

    /// Completions that wait for [`Fetcher::drain`].
    pub fn completions_waiting(&self) -> usize {
        self.completions.lock().len()
    }

    /// Ends the workers. One that is inside a Redis call ends after it; the wait for them all is at most `patience`,
    /// after which they are left to the end of the process.
    pub fn stop(self, patience: Duration) {
        for seat in &self.workers {
            seat.queue.lock().stopping = true;
            seat.queue.work.notify_one();
        }
        let give_up = Instant::now() + patience;
        for seat in self.workers {
            while !seat.thread.is_finished() && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(2));
            }
            if seat.thread.is_finished() {
                // The worker catches the panics of its batches; another one has been printed by the panic hook.
                let _ = seat.thread.join();
            }
        }
    }
}

/// One worker's queue.
#[derive(Debug)]
struct Queue {
    state: Mutex<QueueState>,
    work: Condvar,
    jobs_max: usize,
}

#[derive(Debug, Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    /// The worker waits on `Queue::work` and nobody has promised to wake it.
    asleep: bool,
    /// Why Redis cannot be reached, as of the last attempt. While it is set no job is queued.
    away: Option<String>,
    /// The connection is of no use for what is queued from now on.
    renew: bool,
    /// The pause between attempts is over before its time.
    try_now: bool,
    stopping: bool,
}

#[derive(Debug)]
enum Pushed {
    Queued { asleep: bool },
    Full(Job),
    Away(Job, String),
}

/// Why [`Queue::take`] returned.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Jobs,
    TimeToTry,
    Stop,
}

impl Queue {
    fn new(jobs_max: usize) -> Queue {
        Queue {
            state: Mutex::default(),
            work: Condvar::new(),
            jobs_max,
        }
    }

    fn push(&self, job: Job) -> Pushed {
        let mut state = self.lock();
        if let Some(why) = &state.away {
            let why = why.clone();
            return Pushed::Away(job, why);
        }
        if state.jobs.len() >= self.jobs_max {
            return Pushed::Full(job);
        }
        state.jobs.push_back(job);
        Pushed::Queued {
            asleep: std::mem::take(&mut state.asleep),
        }
    }

    /// Waits for jobs, but no longer than `until`, and moves the oldest, one batch of them, to the end of `into`.
    fn take(&self, into: &mut VecDeque<Job>, jobs_max: usize, until: Option<Time>) -> Taken {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return Taken::Stop;
            }
            if !state.jobs.is_empty() {
                let mut key_bytes = 0;
                let fits = |job: &&Job| {
                    key_bytes += job.key.len();
                    key_bytes <= BATCH_KEY_BYTES_MAX
                };
                let count = state
                    .jobs
                    .iter()
                    .take(jobs_max)
                    .take_while(fits)
                    .count()
                    .max(1);
                into.extend(state.jobs.drain(..count));
                return Taken::Jobs;
            }
            let patience = match until {
                None => Duration::MAX,
                Some(at) => at.since(socket::now()),
            };
            if patience.is_zero() || until.is_some() && state.try_now {
                return Taken::TimeToTry;
            }
            state.asleep = true;
            state = if patience == Duration::MAX {
                self.work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner)
            } else {
                self.work
                    .wait_timeout(state, patience)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            };
            state.asleep = false;
        }
    }

    /// From now on jobs fail at once; those that wait are moved to the end of `into`.
    fn close(&self, why: &str, into: &mut VecDeque<Job>) {
        let mut state = self.lock();
        state.away = Some(why.to_owned());
        into.append(&mut state.jobs);
    }

    /// Whether the connection is to be made afresh; asked once per batch.
    fn take_renew(&self) -> bool {
        std::mem::take(&mut self.lock().renew)
    }

    /// Whether a pause is to be cut short; asked once per attempt.
    fn take_try_now(&self) -> bool {
        std::mem::take(&mut self.lock().try_now)
    }

    /// Jobs are queued again.
    fn open(&self) {
        let mut state = self.lock();
        (state.away, state.try_now) = (None, false);
    }

    /// Every change under this lock is complete in itself, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way back, shared by all workers.
#[derive(Debug)]
struct Completions {
    list: Mutex<Vec<Completion>>,
    /// Whether `list` holds something, so that a turn without completions takes no lock.
    waiting: AtomicBool,
    waker: Arc<mio::Waker>,
}

impl Completions {
    /// Hands all of `from` to the loop and wakes it, unless an earlier wake-up has not been answered yet.
    fn deliver(&self, from: &mut Vec<Completion>) {
        if from.is_empty() {
            return;
        }
        let mut list = self.lock();
        let first = list.is_empty();
        list.append(from);
        self.waiting.store(true, Ordering::Release);
        drop(list);
        if first {
            // Fails only if the poll is gone, and then nobody waits for completions either.
            let _ = self.waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Completion>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
