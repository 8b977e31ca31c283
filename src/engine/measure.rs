//! Coherence as it is measured while running, without writing anything into the user's Redis.
//!
//! - *Invalidation lag*: from the handling of the reply to one of our own writes to the handling of Redis's push for the same
//!   key. Zero when the push came first. One write at a time is watched, so this costs a comparison per pushed key.
//! - *Whose writes*: a push counts as our own when a command passed on here wrote its key within [`OWN_WITHIN`]. So a
//!   foreign write of the same key in that second counts as our own, and so does whatever is pushed while a script waits
//!   for its pushes.
//! - *PING time*: from sending a heartbeat to its answer, on the connection that carries the pushes.
//!
//! It never changes what is answered. Costs: O(1) per write, push and PONG; a few KiB of memory.
#![forbid(unsafe_code)]

use crate::insight::latency::Latency;
use crate::time::Time;
use std::time::Duration;

/// A write whose push has not come by then will not be told of (it changed nothing): watch another.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pushes remembered, to know of a write at its reply that its push was first.
const RECENT: usize = 16;

/// How long after an own write of its key a push is taken to be of that write.
const OWN_WITHIN: Duration = Duration::from_secs(1);
/// Own writes remembered, by key: a few milliseconds' worth at full load, far longer than a push takes.
const OWN_PLACES: usize = 1024;

/// All that is measured.
#[derive(Debug, Clone)]
pub(super) struct Measures {
    lag: Latency,
    ping: Latency,
    watched: Option<(u64, Time)>,
    recent: [(u64, Time); RECENT],
    next_recent: usize,
    /// Keys written by ourselves and when, each in the place that its hash says; a later one takes the place.
    own: Vec<(u64, Time)>,
}

impl Default for Measures {
    fn default() -> Measures {
        Measures {
            lag: Latency::default(),
            ping: Latency::default(),
            watched: None,
            recent: [(0, Time::ZERO); RECENT],
            next_recent: 0,
            own: vec![(0, Time::ZERO); OWN_PLACES],
        }
    }
}

impl Measures {
    /// A write of this key is on its way to Redis, or was answered.
    pub(super) fn note_own(&mut self, hash: u64, now: Time) {
        self.own[hash as usize % OWN_PLACES] = (hash, now);
    }

    /// Whether a push of this key is of a write of our own, as far as can be told.
    pub(super) fn is_own(&self, hash: u64, now: Time) -> bool {
        let (noted, at) = self.own[hash as usize % OWN_PLACES];
        noted == hash && at > Time::ZERO && now.since(at) <= OWN_WITHIN
    }

    /// The reply to an own write of this key is being handled.
    pub(super) fn own_write(&mut self, hash: u64, now: Time) {
        // A push that came before the reply came after the command was sent.
        let (noted, sent_at) = self.own[hash as usize % OWN_PLACES];
        let pushed_just_now = |(pushed, at): &(u64, Time)| {
            *pushed == hash
                && (now.since(*at) < Duration::from_millis(1) || noted == hash && *at >= sent_at)
        };
        if self.recent.iter().any(pushed_just_now) {
            self.lag.record(Duration::ZERO);
            return;
        }
        if self
            .watched
            .is_none_or(|(_, since)| now.since(since) > PATIENCE)
        {
            self.watched = Some((hash, now));
        }
    }

    /// A push for this key is being handled.
    pub(super) fn push(&mut self, hash: u64, now: Time) {
        if let Some((watched, since)) = self.watched
            && watched == hash
        {
            self.lag.record(now.since(since));
            self.watched = None;
        }
        self.recent[self.next_recent] = (hash, now);
        self.next_recent = (self.next_recent + 1) % RECENT;
    }

    /// A heartbeat that was sent at `sent_at` is answered.
    pub(super) fn pong(&mut self, sent_at: Time, now: Time) {
        self.ping.record(now.since(sent_at));
    }

    /// The lags measured.
    pub(super) fn lag(&self) -> &Latency {
        &self.lag
    }

    /// The times of the heartbeats.
    pub(super) fn ping(&self) -> &Latency {
        &self.ping
    }

    /// Name and value of each figure, times in microseconds.
    pub(super) fn rows(&self) -> impl Iterator<Item = (String, u64)> {
        [("invalidation_lag", &self.lag), ("ping", &self.ping)]
            .into_iter()
            .flat_map(|(name, latency)| {
                let us = |took: Duration| took.as_micros() as u64;
                [
                    (format!("{name}_count"), latency.count()),
                    (format!("{name}_us_p50"), us(latency.quantile(0.5))),
                    (format!("{name}_us_p99"), us(latency.quantile(0.99))),
                    (format!("{name}_us_max"), us(latency.max())),
                ]
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(measures: &Measures, name: &str) -> u64 {
        measures
            .rows()
            .find(|(row, _)| row == name)
            .expect("a row of that name")
            .1
    }

    #[test]
    fn the_lag_is_from_the_reply_to_the_push_of_the_same_key() {
        let ms = Time::from_millis;
        let mut measures = Measures::default();
        measures.own_write(7, ms(10));
        measures.push(8, ms(11));
        assert_eq!(
            figure(&measures, "invalidation_lag_count"),
            0,
            "another key"
        );
        measures.push(7, ms(12));
        measures.push(7, ms(90));
        assert_eq!(
            figure(&measures, "invalidation_lag_count"),
            1,
            "a write is pushed once"
        );
        let max = figure(&measures, "invalidation_lag_us_max");
        assert!((1980..=2020).contains(&max), "{max}");
    }

    #[test]
    fn a_push_is_of_an_own_write_for_a_second_after_it() {
        let ms = Time::from_millis;
        let mut measures = Measures::default();
        assert!(!measures.is_own(0, ms(1)), "nothing was written yet");
        measures.note_own(7, ms(10));
        assert!(measures.is_own(7, ms(1010)));
        assert!(!measures.is_own(7, ms(1011)));
        assert!(
            !measures.is_own(7 + OWN_PLACES as u64, ms(11)),
            "another key of that place"
        );
    }

    #[test]
    fn a_push_that_came_first_is_no_lag_and_a_write_that_changed_nothing_is_given_up() {
        let ms = Time::from_millis;
        let mut measures = Measures::default();
        measures.push(7, ms(10));
        measures.own_write(7, ms(10));
        assert_eq!(figure(&measures, "invalidation_lag_count"), 1);
        assert_eq!(figure(&measures, "invalidation_lag_us_max"), 0);
        measures.note_own(7, ms(12));
        measures.push(7, ms(14));
        measures.own_write(7, ms(19));
        assert_eq!(
            figure(&measures, "invalidation_lag_count"),
            2,
            "the reply was read late"
        );
        measures.own_write(1, ms(20));
        measures.own_write(2, ms(6000));
        measures.push(2, ms(6001));
        assert_eq!(figure(&measures, "invalidation_lag_count"), 3);
    }
}
