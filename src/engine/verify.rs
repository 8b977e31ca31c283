//! Verify mode: a small share of the hits is also asked from Redis, to count those that were wrong (`VERIFY_SAMPLE`).
//!
//! A check is a job for the key's worker that is no fetch: it takes no mark, keeps nothing, and nobody waits for it. When its
//! answer differs from what was answered here, the change must be heard of: before Redis answered, it had queued a push
//! for whatever it had changed, so the push comes before the answer to any PING sent after that (two rounds on newer
//! servers, rule L10). A check whose key was forgotten meanwhile (a push, an own write, a flush, DOWN) is explained, and so
//! is one whose entry has reached its deadline. What then remains is a mismatch: Redis has changed a key without telling
//! (a SWAPDB by others), or there is a fault here. It is counted and logged, and everything kept is dropped, because
//! whatever has made this entry wrong may have made others wrong.
//!
//! A relayed GET of the key explains a difference too, though it need not: that errs on the quiet side.
//!
//! Costs: on the hit path one comparison for a row of hits, shared with whoever else samples hits (`insight.rs`). At most [`CHECKS_PER_SEC`] checks begin in a
//! second, of values up to [`VALUE_BYTES_MAX`]; a verdict needs no PING of its own, it waits for the next heartbeats.
#![forbid(unsafe_code)]

use super::forget::Flush;
use super::switches::Rule;
use super::{Engine, Output};
use crate::cache::Content;
use crate::config::Coherence;
use crate::fetch::{Completion, FetchId, Job};
use crate::keyname::KeyName;
use crate::stats::Counter;
use crate::time::Time;
use crate::tracking::State;
use std::time::Duration;
use tracing::error;

/// However many hits there are.
const CHECKS_PER_SEC: u32 = 10;
/// Checks under way; above it no further one begins.
const CHECKS_MAX: usize = 32;
/// Larger values are not checked: ten of them in a second would be a load of their own.
const VALUE_BYTES_MAX: usize = 64 * 1024;
const MILLION: u32 = 1_000_000;

/// The checks under way, and when the next one is due.
#[derive(Debug, Clone)]
pub(super) struct Verify {
    /// The number of hits at which the next sample is taken.
    pub(super) due: u64,
    /// Nothing is checked before this instant.
    not_before: Time,
    checks: Vec<Check>,
}

#[derive(Debug, Clone)]
struct Check {
    id: FetchId,
    db: u32,
    hash: u64,
    /// For the log.
    named: Box<str>,
    /// A hash of what was answered, `None` for a missing key.
    answered: Option<u64>,
    stored_at: Time,
    deadline: Time,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// Redis's answer is awaited.
    Asked,
    /// It differs. `needs` is the PING whose answer is awaited, `rounds_left` how many more follow.
    Differs { needs: u64, rounds_left: u8 },
}

impl Verify {
    /// Nothing is checked until [`Engine::plan_check`] was called.
    pub(super) fn new() -> Verify {
        Verify {
            due: u64::MAX,
            not_before: Time::ZERO,
            checks: Vec::new(),
        }
    }

    /// The key may have changed: a difference says nothing.
    #[inline]
    pub(super) fn explain(&mut self, hash: u64) {
        if !self.checks.is_empty() {
            self.checks.retain(|check| check.hash != hash);
        }
    }

    /// The same for every key.
    pub(super) fn explain_all(&mut self) {
        self.checks.clear();
    }

    /// Whether this job is a check whose answer is awaited.
    pub(super) fn awaits(&self, id: FetchId) -> bool {
        self.checks
            .iter()
            .any(|check| check.id == id && check.stage == Stage::Asked)
    }

    /// What tells two states apart, for fingerprints: key, what was answered, how far it is.
    pub(super) fn parts(
        &self,
        answered: u64,
    ) -> impl Iterator<Item = (u64, Option<u64>, Option<(u64, u8)>)> {
        self.checks.iter().map(move |check| {
            let stage = match check.stage {
                Stage::Asked => None,
                Stage::Differs { needs, rounds_left } => {
                    Some((needs.saturating_sub(answered), rounds_left))
                }
            };
            (check.hash, check.answered, stage)
        })
    }
}

impl Engine {
    /// Draws the hit at which the next sample is taken: on average one in so many, at least one away.
    pub(super) fn plan_check(&mut self) {
        let ppm = self.config.verify_sample_ppm;
        if ppm == 0 {
            self.verify.due = u64::MAX;
            return self.plan_samples();
        }
        let mean = u64::from(MILLION / ppm.min(MILLION));
        let gap = 1 + self.random() % (2 * mean - 1);
        self.verify.due = self.stats.get(Counter::Hits) + gap;
        self.plan_samples();
    }

    /// The sampled hit: this is about to be answered from memory.
    #[cold]
    #[inline(never)]
    pub(super) fn check_hit(&mut self, db: u32, key: &[u8], hash: u64) {
        self.plan_check();
        let told = self.coherence == Coherence::Tracking && *self.tracking.state() == State::On;
        if !told || self.now < self.verify.not_before || self.verify.checks.len() >= CHECKS_MAX {
            return;
        }
        let Some(stamp) = self.cache.stamp(db, key, hash, self.now) else {
            return;
        };
        let answered = match self.cache.peek(db, key, hash, self.now) {
            Some(Content::Value(value)) if value.value().len() <= VALUE_BYTES_MAX => {
                Some(self.hasher.hash(value.value()))
            }
            Some(Content::Missing) => None,
            _ => return,
        };
        self.verify.not_before = self.now + Duration::from_secs(1) / CHECKS_PER_SEC;
        let id = self.fetches.take_id();
        self.verify.checks.push(Check {
            id,
            db,
            hash,
            named: KeyName::new(key, self.config.log_keys).to_string().into(),
            answered,
            stored_at: stamp.stored_at,
            deadline: stamp.deadline,
            stage: Stage::Asked,
        });
        self.outputs.push_back(Output::Submit(Job {
            id,
            worker: self.worker_of(hash),
            db,
            key: key.to_vec(),
            dispatched: self.now,
        }));
    }

    /// Redis's answer to a check.
    pub(super) fn check_answered(&mut self, completion: Completion) {
        let found = |check: &Check| check.id == completion.id;
        let Some(at) = self.verify.checks.iter().position(found) else {
            return;
        };
        // What Redis does not say, or another Redis says, is no verdict.
        let Ok(fetched) = completion.result else {
            self.verify.checks.swap_remove(at);
            return;
        };
        if fetched.run_id != self.upstream.run_id {
            self.verify.checks.swap_remove(at);
            return self.upstream_differs();
        }
        let now_there = fetched.value.map(|value| self.hasher.hash(&value));
        let check = &mut self.verify.checks[at];
        if now_there != check.answered && check.deadline > self.now {
            let fresh = self.switches.holds(Rule::JudgeAfterPing);
            check.stage = Stage::Differs {
                needs: self.tracking.newest_sent() + u64::from(fresh),
                rounds_left: self.upstream.barrier_rounds - 1,
            };
            return;
        }
        self.stats.count(Counter::VerifyChecks);
        self.verify.checks.swap_remove(at);
    }

    /// A PONG was handled, and every push before it: what differs and was not explained is wrong.
    pub(super) fn judge_checks(&mut self) {
        let (answered, next) = (
            self.tracking.newest_answered(),
            self.tracking.newest_sent() + 1,
        );
        let mut wrong = None;
        for check in &mut self.verify.checks {
            let Stage::Differs { needs, rounds_left } = &mut check.stage else {
                continue;
            };
            if *needs > answered {
                continue;
            }
            if *rounds_left > 0 {
                (*needs, *rounds_left) = (next, *rounds_left - 1);
                continue;
            }
            self.stats.count(Counter::VerifyChecks);
            self.stats.count(Counter::VerifyMismatches);
            wrong = Some(check.clone());
        }
        let Some(check) = wrong else {
            return;
        };
        let (named, db) = (&check.named, check.db);
        let age = self.now.since(check.stored_at).as_millis();
        let answered = match check.answered {
            Some(_) => "a value",
            None => "its absence",
        };
        error!(
            key = %named,
            db,
            answered,
            age_ms = age as u64,
            "verify: a hit was not what Redis has, and Redis told of no change; everything kept is dropped"
        );
        self.poison_all(Flush::Mismatch);
    }
}
