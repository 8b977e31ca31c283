//! The last things that happened, for someone who opens the dashboard after the fact.
//!
//! Bounded: the oldest goes. One of the same kind as the last within [`TOGETHER`] is counted with it, so a flood of one
//! kind pushes nothing else out. Never holds a key or a value.
#![forbid(unsafe_code)]

use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// So many are remembered.
const EVENTS_MAX: usize = 64;
/// Longer texts are cut.
const TEXT_BYTES_MAX: usize = 200;
const TOGETHER: Duration = Duration::from_secs(10);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Seconds since 1970, of the last of them.
    pub unix_secs: u64,
    /// Which kind.
    pub kind: &'static str,
    /// In words, of the last of them.
    pub text: String,
    /// How many of this kind came in a row.
    pub count: u64,
    first: Time,
}

/// The newest events.
#[derive(Debug, Clone, Default)]
pub struct Events {
    list: VecDeque<Event>,
}

impl Events {
    /// Remembers one.
    pub fn note(&mut self, now: Time, unix_secs: u64, kind: &'static str, mut text: String) {
        let end = (0..=TEXT_BYTES_MAX.min(text.len()))
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        if let Some(last) = self.list.back_mut()
            && last.kind == kind
            && now.since(last.first) < TOGETHER
        {
            last.count += 1;
            (last.text, last.unix_secs) = (text, unix_secs);
            return;
        }
        if self.list.len() == EVENTS_MAX {
            self.list.pop_front();
        }
        self.list.push_back(Event {
            unix_secs,
            kind,
            text,
            count: 1,
            first: now,
        });
    }

    /// All that are remembered, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Event> {
        self.list.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_a_flood_of_one_kind_is_one_line() {
        let mut events = Events::default();
        let at = Time::from_millis;
        events.note(at(0), 7, "lost", "first".to_owned());
        for n in 0..1000 {
            events.note(at(n), 8, "flush", format!("number {n}"));
        }
        let seen: Vec<_> = events.newest_first().collect();
        assert_eq!(seen.len(), 2);
        assert_eq!((seen[0].count, seen[0].text.as_str()), (1000, "number 999"));
        for n in 0..1000 {
            let kind = if n % 2 == 0 { "a" } else { "b" };
            events.note(at(20_000), 9, kind, "é".repeat(500));
        }
        assert_eq!(events.newest_first().count(), EVENTS_MAX);
        assert!(
            events
                .newest_first()
                .all(|event| event.text.len() <= TEXT_BYTES_MAX)
        );
    }
}
