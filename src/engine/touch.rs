//! Telling Redis which keys are in use (`UPSTREAM_TOUCH_SECS`).
//!
//! Redis never sees a read that is a hit. With allkeys-lru or -lfu it would take the hottest keys for the coldest and evict
//! them first. So every round the entries hit since the round before are named to Redis in `TOUCH` commands, which change
//! nothing and notify nobody. An entry that was fetched within the round needs none: its GET was a use.
//!
//! Never a storm: a batch of at most [`KEYS_MAX`] keys at a time, the next one when Redis has answered and [`PAUSE`] is
//! over, each entry once in a round. A use that cannot be reported (no link, an error) is not tried again: the next round
//! reports what is in use then.
#![forbid(unsafe_code)]

use super::timers::Timer;
use super::{ConnId, Engine};
use crate::link::{Pool, Purpose};
use crate::protocol::resp::write::Version;
use crate::stats::Counter;
use crate::time::Time;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;
use tracing::warn;

/// Keys in one batch: about 0.1 ms of Redis's time.
const KEYS_MAX: usize = 512;
/// Their bytes.
const KEY_BYTES_MAX: usize = 64 * 1024;
/// Entries looked at for one batch.
const LOOKS_MAX: usize = 4096;
/// Between two batches: at most some 50,000 keys in a second, a hundredth of what Redis can do.
const PAUSE: Duration = Duration::from_millis(10);

/// The round under way.
#[derive(Debug, Clone)]
pub(super) struct Toucher {
    /// When the round began, and the one before it.
    began: Time,
    before: Time,
    is_open: bool,
    /// Links that owe the answer to a batch.
    asked: Vec<ConnId>,
    /// That Redis refuses was said.
    refused: bool,
}

impl Toucher {
    pub(super) fn new(now: Time) -> Toucher {
        Toucher {
            began: now,
            before: now,
            is_open: false,
            asked: Vec::new(),
            refused: false,
        }
    }
}

impl Engine {
    /// At the start: the first round begins after one interval.
    pub(super) fn plan_touching(&mut self) {
        let interval = self.config.upstream_touch;
        if !interval.is_zero() {
            self.timers.set(self.now + interval, Timer::Touch);
        }
    }

    /// Time for the next batch, or for the next round.
    pub(super) fn touch_timer_fired(&mut self) {
        let interval = self.config.upstream_touch;
        if interval.is_zero() {
            return;
        }
        if !self.toucher.is_open {
            self.toucher.before = self.toucher.began;
            self.toucher.began = self.now;
            self.toucher.is_open = true;
            self.cache.begin_round();
        }
        self.toucher.is_open = self.touch_batch();
        let due = if self.toucher.is_open {
            self.now + PAUSE
        } else {
            (self.toucher.began + interval).max(self.now + PAUSE)
        };
        self.timers.set(due, Timer::Touch);
    }

    /// Sends one batch; whether the round goes on.
    fn touch_batch(&mut self) -> bool {
        let links = std::mem::take(&mut self.toucher.asked);
        let stand = links
            .into_iter()
            .filter(|id| self.link_index(*id).is_some());
        self.toucher.asked = stand.collect();
        if !self.toucher.asked.is_empty() {
            return true;
        }
        if self.upstream.away().is_some() || !self.keeps() || self.draining {
            return false;
        }
        let since = self.toucher.before;
        let mut batch: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        let (mut keys, mut bytes) = (0, 0);
        let more = self
            .cache
            .visit_used(LOOKS_MAX, self.now, |db, key, stored_at| {
                if stored_at >= since {
                    return ControlFlow::Continue(());
                }
                batch.entry(db).or_default().push(key.to_vec());
                (keys, bytes) = (keys + 1, bytes + key.len());
                if keys >= KEYS_MAX || bytes >= KEY_BYTES_MAX {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        for (db, keys) in batch {
            let pool = Pool {
                version: Version::Resp2,
                db,
            };
            let Some(id) = self.shared_link(pool) else {
                continue;
            };
            let Some(ix) = self.link_index(id) else {
                continue;
            };
            let args: Vec<&[u8]> = [&b"TOUCH"[..]]
                .into_iter()
                .chain(keys.iter().map(Vec::as_slice))
                .collect();
            self.ask(ix, Purpose::Touch, &args);
            self.stats.add(Counter::Touched, keys.len() as u64);
            self.toucher.asked.push(id);
        }
        more
    }

    /// Redis's answer to a batch.
    pub(super) fn touch_answered(&mut self, id: ConnId, reply: &[u8]) {
        self.toucher.asked.retain(|asked| *asked != id);
        if reply.starts_with(b"-") && !std::mem::replace(&mut self.toucher.refused, true) {
            let text = String::from_utf8_lossy(&reply[1..]);
            warn!(
                why = text.trim_end(),
                "Redis refuses TOUCH, it may evict the keys that are read most here"
            );
        }
    }
}
