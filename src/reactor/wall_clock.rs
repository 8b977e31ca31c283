//! What time of day it is, as HTTP's Date says it.
#![forbid(unsafe_code)]

use crate::time::Time;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall-clock seconds for HTTP's Date, derived from the loop's own clock and compared with the system's once a second, so
/// that a turn reads one clock only. A step of the system's clock shows after at most that second.
#[derive(Debug)]
pub(super) struct WallClock {
    pub(super) at: Time,
    pub(super) unix: Duration,
}

impl WallClock {
    pub(super) fn new(now: Time) -> WallClock {
        WallClock {
            at: now,
            unix: system_time(),
        }
    }

    pub(super) fn unix_secs(&mut self, now: Time) -> u64 {
        if now.since(self.at) >= Duration::from_secs(1) {
            *self = WallClock::new(now);
        }
        (self.unix + now.since(self.at)).as_secs()
    }
}

fn system_time() -> Duration {
    // A clock before 1970 is no reason to fail; Date says 1970 then.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
