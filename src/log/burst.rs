//! Keeps a flood of events of one kind from filling the log, and says how many there were.
//!
//! Of each kind the first [`Bursts::set_most`] in [`WINDOW`] are written; the rest are counted, and when the window is
//! over one line says how many. So the first events are never held back, whatever else goes on, and the last word on a
//! flood is a number.
//!
//! Never reads the clock. Bounds: [`KINDS_MAX`] kinds; further ones share a place. Costs: one probe per event.
#![forbid(unsafe_code)]

use crate::config::LogLevel;
use crate::time::Time;
use std::collections::HashMap;
use std::time::Duration;

/// How long events of a kind are counted together.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Kinds that are told apart at the same time. There are some fifty places in the code that say something.
const KINDS_MAX: usize = 256;
/// The place that further kinds share.
const OTHERS: u64 = 0;

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is written.
    Write,
    /// It is the first that is only counted: say with [`Bursts::name`] what its kind is to be called.
    CountFirst,
    /// It is only counted.
    Count,
}

/// A flood that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct More {
    /// Of the events.
    pub level: LogLevel,
    /// Of the first that was only counted.
    pub message: String,
    /// How many were only counted.
    pub count: u64,
}

#[derive(Debug)]
struct Kind {
    since: Time,
    written: u32,
    /// Counted, not written.
    more: Option<More>,
}

/// The kinds of the last moments.
#[derive(Debug)]
pub struct Bursts {
    kinds: HashMap<u64, Kind>,
    /// Floods that were over when the next event of their kind came.
    over: Vec<More>,
    most: u32,
}

impl Default for Bursts {
    fn default() -> Bursts {
        Bursts {
            kinds: HashMap::new(),
            over: Vec::new(),
            most: u32::MAX,
        }
    }
}

impl Bursts {
    /// So many events of a kind are written in each [`WINDOW`].
    pub fn set_most(&mut self, most: u32) {
        self.most = most.max(1);
    }

    /// An event of this kind wants to be written.
    pub fn judge(&mut self, kind: u64, now: Time) -> Verdict {
        let fresh = Kind {
            since: now,
            written: 0,
            more: None,
        };
        let place = self.place(kind, now);
        let kind = self.kinds.entry(place).or_insert(fresh);
        if now.since(kind.since) >= WINDOW {
            self.over.extend(kind.more.take());
            (kind.since, kind.written) = (now, 0);
        }
        if kind.written < self.most {
            kind.written += 1;
            return Verdict::Write;
        }
        match &mut kind.more {
            Some(more) => {
                more.count += 1;
                Verdict::Count
            }
            None => Verdict::CountFirst,
        }
    }

    /// The event for which [`Bursts::judge`] said that it is the first that is only counted.
    pub fn name(&mut self, kind: u64, now: Time, level: LogLevel, message: &str) {
        let place = self.place(kind, now);
        if let Some(kind) = self.kinds.get_mut(&place) {
            let more = kind.more.get_or_insert_with(|| More {
                level,
                message: message.to_owned(),
                count: 0,
            });
            more.count += 1;
        }
    }

    fn place(&mut self, kind: u64, now: Time) -> u64 {
        if self.kinds.contains_key(&kind) {
            return kind;
        }
        if self.kinds.len() >= KINDS_MAX {
            let over = &mut self.over;
            self.kinds.retain(|_, kind| {
                let lasts = now.since(kind.since) < WINDOW;
                if !lasts {
                    over.extend(kind.more.take());
                }
                lasts
            });
        }
        if self.kinds.len() >= KINDS_MAX {
            return OTHERS;
        }
        kind
    }

    /// The floods that are over.
    pub fn take_over(&mut self, now: Time) -> Vec<More> {
        for kind in self.kinds.values_mut() {
            if kind.more.is_some() && now.since(kind.since) >= WINDOW {
                self.over.extend(kind.more.take());
            }
        }
        std::mem::take(&mut self.over)
    }

    /// All floods, over or not: the log ends.
    pub fn take_all(&mut self) -> Vec<More> {
        let under_way = self.kinds.values_mut().filter_map(|kind| kind.more.take());
        self.over.extend(under_way);
        std::mem::take(&mut self.over)
    }

    /// When [`Bursts::take_over`] will have something.
    pub fn next_over(&self) -> Option<Time> {
        if !self.over.is_empty() {
            return Some(Time::ZERO);
        }
        let counting = self.kinds.values().filter(|kind| kind.more.is_some());
        counting.map(|kind| kind.since + WINDOW).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_millis(1_000_000 + ms)
    }

    /// How many of `n` events at this time are written.
    fn written(bursts: &mut Bursts, kind: u64, n: usize, now: Time) -> usize {
        let mut written = 0;
        for _ in 0..n {
            match bursts.judge(kind, now) {
                Verdict::Write => written += 1,
                Verdict::CountFirst => bursts.name(kind, now, LogLevel::Warn, "close"),
                Verdict::Count => {}
            }
        }
        written
    }

    fn more(count: u64) -> More {
        More {
            level: LogLevel::Warn,
            message: "close".to_owned(),
            count,
        }
    }

    #[test]
    fn the_first_are_written_and_the_rest_are_counted_until_the_window_is_over() {
        let mut bursts = Bursts::default();
        bursts.set_most(3);
        assert_eq!(written(&mut bursts, 7, 100, at(0)), 3);
        assert_eq!(written(&mut bursts, 7, 10, at(9_999)), 0);
        assert_eq!(bursts.take_over(at(9_999)), []);
        assert_eq!(bursts.next_over(), Some(at(10_000)));
        assert_eq!(bursts.take_over(at(10_000)), [more(107)]);
        assert_eq!(bursts.next_over(), None);
        assert_eq!(written(&mut bursts, 7, 2, at(10_000)), 2);
        assert_eq!(bursts.take_over(at(60_000)), []);
    }

    #[test]
    fn kinds_do_not_hide_each_other() {
        let mut bursts = Bursts::default();
        bursts.set_most(2);
        assert_eq!(written(&mut bursts, 1, 1000, at(0)), 2);
        assert_eq!(written(&mut bursts, 2, 1, at(0)), 1);
    }

    #[test]
    fn a_flood_that_goes_on_is_told_of_once_in_each_window() {
        let mut bursts = Bursts::default();
        bursts.set_most(2);
        let mut told = Vec::new();
        for ms in (0..30_000).step_by(100) {
            written(&mut bursts, 7, 1, at(ms));
            told.extend(bursts.take_over(at(ms)));
        }
        assert_eq!(told, [more(98), more(98)]);
        assert_eq!(bursts.take_all(), [more(98)]);
    }

    #[test]
    fn more_kinds_than_there_is_room_for_share_a_place_and_are_all_counted() {
        let mut bursts = Bursts::default();
        bursts.set_most(1);
        let (mut lines, mut events) = (0, 0);
        for kind in 1..=2 * KINDS_MAX as u64 {
            lines += written(&mut bursts, kind, 2, at(0));
            events += 2;
        }
        assert!(bursts.kinds.len() <= KINDS_MAX + 1);
        let counted: u64 = bursts.take_all().iter().map(|more| more.count).sum();
        assert_eq!(lines as u64 + counted, events);
        assert_eq!(lines, KINDS_MAX + 1);
        // Later there is room again.
        assert_eq!(written(&mut bursts, 9999, 2, at(20_000)), 1);
        assert!(bursts.kinds.len() <= 2);
    }
}
