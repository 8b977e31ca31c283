//! One worker: takes a batch from its queue, has it answered, hands the completions over, and keeps its connection.
//!
//! It never decides what is fetched or kept, and never gives up on Redis: while it is away the worker tries again by
//! itself, with a growing and jittered pause of at most [`RETRY_MS_MAX`], whether jobs come or not.
//!
//! Invariant: a job is in exactly one place: the queue, `owed` (taken, unanswered, oldest first) or `done`.
#![forbid(unsafe_code)]

use super::upstream::{Lost, Upstream};
use super::{Completions, Queue, Settings, Taken};
use crate::fetch::{Completion, FetchError, Job, waited_longest};
use crate::socket;
use crate::time::Time;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

/// The first pause between attempts; it doubles with each failure.
const RETRY_MS_MIN: u64 = 10;
/// The longest pause.
const RETRY_MS_MAX: u64 = 250;

pub(super) struct Worker {
    index: usize,
    settings: Settings,
    queue: Arc<Queue>,
    completions: Arc<Completions>,
    link: Link,
    owed: VecDeque<Job>,
    /// How many at the front of `owed` were sent on a connection that is lost.
    lost: usize,
    /// When the last batch was answered to its end.
    heard: Time,
    done: Vec<Completion>,
    jitter: u64,
}

enum Link {
    /// Usable as far as anybody knows; a close by the server shows at the next use.
    Up(Box<Upstream>),
    /// None, and no attempt has failed since there was one: the next thing to do is to connect.
    Lost,
    /// The last attempt failed; jobs fail without being queued until one succeeds.
    Away {
        failures: u32,
        retry_at: Time,
        why: String,
    },
}

impl Worker {
    pub(super) fn new(
        index: usize,
        settings: Settings,
        queue: Arc<Queue>,
        completions: Arc<Completions>,
    ) -> Worker {
        Worker {
            index,
            settings,
            queue,
            completions,
            link: Link::Lost,
            owed: VecDeque::new(),
            lost: 0,
            heard: Time::ZERO,
            done: Vec::new(),
            jitter: socket::random_seed()[0],
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let until = match &self.link {
                Link::Up(_) => None,
                Link::Lost => Some(Time::ZERO),
                Link::Away { retry_at, .. } => Some(*retry_at),
            };
            if self
                .queue
                .take(&mut self.owed, self.settings.batch_max, until)
                == Taken::Stop
            {
                return;
            }
            // The connection's state after a panic is unknown, so it goes; the rest of the worker is its queues, whose
            // changes are complete in themselves. What stays is as good as a fresh worker.
            if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
                self.link = Link::Lost;
                self.lost = 0;
                self.fail_owed(|| FetchError::WorkerLost);
                error!(worker = self.index, "a worker panicked, starting afresh");
            }
            self.completions.deliver(&mut self.done);
        }
    }

    /// Sees `owed` answered, and the connection restored if it is time for that.
    fn work(&mut self) {
        let mut attempts_left = 2;
        loop {
            if matches!(self.link, Link::Away { .. }) && self.queue.take_try_now() {
                // What is owed came after the news; if the attempt fails, it ends as the rest does.
                self.connect();
            }
            if let Link::Away { retry_at, why, .. } = &self.link {
                let (why, due) = (why.clone(), *retry_at <= socket::now());
                // Jobs that waited fail before an attempt that may take long.
                let waited = self.owed.split_off(std::mem::take(&mut self.lost));
                self.fail_owed(|| FetchError::Lost(why.clone()));
                self.owed = waited;
                self.fail_owed(|| FetchError::Unreachable(why.clone()));
                self.completions.deliver(&mut self.done);
                if due {
                    self.connect();
                }
                return;
            }
            if self.queue.take_renew() && matches!(self.link, Link::Up(_)) {
                self.link = Link::Lost;
            }
            self.expire_owed();
            if matches!(self.link, Link::Lost) {
                self.connect();
                continue;
            }
            let (Link::Up(upstream), Some(newest)) = (&mut self.link, self.owed.back()) else {
                return;
            };
            for job in &self.owed {
                self.settings.mischief.on_a_worker(&job.key);
            }
            attempts_left -= 1;
            // What waited behind a slow answer has its time from now on, not from its dispatch.
            let last = waited_longest(newest.dispatched, self.settings.timeout);
            let outcome = upstream.exchange(&mut self.owed, &mut self.done, last);
            self.lost = match outcome {
                Err(Lost::Broken(_)) => self.owed.len(),
                Ok(()) | Err(Lost::TimedOut) => 0,
            };
            match outcome {
                Ok(()) => {
                    self.heard = socket::now();
                    return;
                }
                Err(Lost::TimedOut) => {
                    self.link = Link::Lost;
                    let count = self.owed.len();
                    self.fail_owed(|| FetchError::TimedOut);
                    warn!(
                        worker = self.index,
                        fetches = count,
                        "Redis did not answer a worker in time"
                    );
                    return;
                }
                // Most likely it died while idle: send what is unanswered once more.
                Err(Lost::Broken(_)) if attempts_left > 0 => self.link = Link::Lost,
                Err(Lost::Broken(why)) => self.go_away(why),
            }
        }
    }

    fn connect(&mut self) {
        match Upstream::connect(
            &self.settings,
            format!("{}{}", self.settings.name, self.index),
        ) {
            Ok(upstream) => {
                self.queue.open();
                if matches!(self.link, Link::Away { .. }) {
                    info!(worker = self.index, "a worker reaches Redis again");
                }
                self.link = Link::Up(Box::new(upstream));
            }
            Err(why) => self.go_away(self.settings.url.without_password(&why)),
        }
    }

    /// An attempt failed: pause before the next, and fail jobs at once meanwhile.
    fn go_away(&mut self, why: String) {
        let failures = match &self.link {
            Link::Away { failures, .. } => failures.saturating_add(1),
            Link::Up(_) | Link::Lost => 1,
        };
        if failures == 1 {
            warn!(worker = self.index, why, "a worker does not reach Redis");
        }
        self.queue.close(&why, &mut self.owed);
        let pause = Duration::from_millis(retry_pause_ms(failures, self.random()));
        self.link = Link::Away {
            failures,
            retry_at: socket::now() + pause,
            why,
        };
    }

    /// Jobs nobody waits for any more are not sent. Those that waited behind an answer which took its time are waited for.
    fn expire_owed(&mut self) {
        let (now, heard, timeout) = (socket::now(), self.heard, self.settings.timeout);
        let is_over = |job: &Job| match job.dispatched {
            before if before <= heard => waited_longest(before, timeout) <= now,
            since => since + timeout <= now,
        };
        while self.owed.front().is_some_and(is_over) {
            let job = self.owed.pop_front().expect("front() was there");
            self.lost = self.lost.saturating_sub(1);
            self.done.push(Completion {
                id: job.id,
                result: Err(FetchError::TimedOut),
            });
        }
    }

    fn fail_owed(&mut self, error: impl Fn() -> FetchError) {
        for job in self.owed.drain(..) {
            self.done.push(Completion {
                id: job.id,
                result: Err(error()),
            });
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): good enough to spread attempts.
    fn random(&mut self) -> u64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.jitter;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The pause after the `failures`-th failure in a row: between half of the doubling bound and all of it.
fn retry_pause_ms(failures: u32, random: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    let bound = (RETRY_MS_MIN << doublings).min(RETRY_MS_MAX);
    bound / 2 + random % (bound / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_spread_and_stay_bounded() {
        for failures in 1..40 {
            for random in [0, 1, 7, u64::MAX / 3, u64::MAX] {
                let ms = retry_pause_ms(failures, random);
                assert!(
                    (RETRY_MS_MIN / 2..=RETRY_MS_MAX).contains(&ms),
                    "failures={failures} ms={ms}"
                );
            }
        }
        assert_eq!(retry_pause_ms(1, 0), 5);
        assert_eq!(retry_pause_ms(3, 0), 20);
        assert_eq!(retry_pause_ms(30, 0), 125);
        assert_eq!(retry_pause_ms(30, 125), 250);
    }
}
