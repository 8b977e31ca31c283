//! Instants as the core knows them: microseconds of CLOCK_BOOTTIME, handed in by the reactor once a turn.
//!
//! The core never reads a clock. CLOCK_BOOTTIME goes on while the machine sleeps, as Redis's expiry does
//! (`std::time::Instant` stands still then), so a deadline taken from a Redis TTL stays right across a suspend.
#![forbid(unsafe_code)]

use std::ops::{Add, Sub};
use std::time::Duration;

/// An instant in microseconds since the machine was booted, suspended time included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The boot of the machine.
    pub const ZERO: Time = Time(0);
    /// Later than every instant that can happen.
    pub const NEVER: Time = Time(u64::MAX);

    /// An instant `us` microseconds after boot.
    pub const fn from_micros(us: u64) -> Time {
        Time(us)
    }

    /// An instant `ms` milliseconds after boot.
    pub const fn from_millis(ms: u64) -> Time {
        Time(ms.saturating_mul(1000))
    }

    /// Microseconds since boot.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to here, zero when `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates at [`Time::NEVER`].
    fn add(self, by: Duration) -> Time {
        let us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(us))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    /// Saturates at [`Time::ZERO`].
    fn sub(self, by: Duration) -> Time {
        let us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Time(self.0.saturating_sub(us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Time::NEVER + Duration::from_secs(1), Time::NEVER);
        assert_eq!(Time::ZERO - Duration::from_secs(1), Time::ZERO);
        assert_eq!(Time::from_millis(5) + Duration::MAX, Time::NEVER);
        assert_eq!(
            Time::from_millis(5).since(Time::from_millis(7)),
            Duration::ZERO
        );
        assert_eq!(
            Time::from_millis(7).since(Time::from_millis(5)),
            Duration::from_millis(2)
        );
    }
}
