//! What the engine times, other than cache entries: one wheel, one owner per timer.
#![forbid(unsafe_code)]

use super::ConnId;
use crate::fetch::FetchId;
use crate::time::Time;
use crate::wheel::Wheel;
use slab::Slab;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Timer {
    /// The deadline of a fetch.
    Fetch(FetchId),
    /// A client's time-outs, looked at when it fires: no request touches the timer.
    Client(ConnId),
    /// The longest wait for `MAX_CONCURRENT_REQUESTS`.
    Queue(ConnId),
    /// A link's connect time-out, death or idleness, looked at when it fires.
    Link(ConnId),
    /// Time to try Redis again.
    Reconnect,
    /// Time to ask whether Redis is there.
    Heartbeat,
    /// Time to ask again for what Redis refused.
    TrackingRetry,
    /// Time to look at the clients that are paused.
    Buffers,
    /// Time to look whether memory can be given back.
    Trim,
    /// The end of a client's wait after wrong passwords.
    Penalty(ConnId),
    /// Time to report to Redis what is in use.
    Touch,
}

/// All running timers. O(1) to set and to cancel.
#[derive(Debug, Clone)]
pub(super) struct Timers {
    wheel: Wheel,
    owners: Slab<Timer>,
}

impl Timers {
    pub(super) fn new(now: Time) -> Timers {
        Timers {
            wheel: Wheel::new(now),
            owners: Slab::new(),
        }
    }

    /// Runs a timer that fires at `deadline` or a little later, never earlier.
    pub(super) fn set(&mut self, deadline: Time, timer: Timer) -> u32 {
        let id = u32::try_from(self.owners.insert(timer))
            .expect("timers are bounded by clients, links and fetches");
        self.wheel.schedule(id, deadline);
        id
    }

    /// Stops a timer; one that has fired or was stopped must not be named again.
    pub(super) fn cancel(&mut self, id: u32) {
        self.wheel.cancel(id);
        self.owners.remove(id as usize);
    }

    /// The next timer that is due. It is gone when it is returned.
    pub(super) fn pop_due(&mut self, now: Time, budget: &mut usize) -> Option<Timer> {
        let id = self.wheel.pop_due(now, budget)?;
        Some(self.owners.remove(id as usize))
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.wheel.next_deadline()
    }

    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn check(&self) {
        self.wheel.check();
        assert_eq!(
            self.wheel.len(),
            self.owners.len(),
            "each timer has an owner"
        );
    }
}
