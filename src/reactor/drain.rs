//! The end: clients are served until they leave or the time for it is over, then what has arrived is answered.
//!
//! It never loses a reply that is owed: who is still connected at the very end had read nothing for that long.
#![forbid(unsafe_code)]

use super::{Ended, Reactor};
use std::time::Duration;
use tracing::info;

/// The last of the drain time, in which what has arrived is answered and no more is taken; at most two fifths of it.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// What remains of the drain time for the workers and the helper to end in; at most half of the closing time.
const DRAIN_RESERVE: Duration = Duration::from_millis(300);

impl Reactor {
    /// From here on clients are served until they leave, or the time for that is over.
    pub(super) fn begin_drain(&mut self) {
        info!(
            clients = self.engine.client_count(),
            drain = ?self.drain,
            "asked to end, clients are served until they leave"
        );
        self.notify.stopping();
        let closing = CLOSING_TIME.min(self.drain * 2 / 5);
        let reserve = DRAIN_RESERVE.min(closing / 2);
        self.serve_until = Some(self.now + self.drain.saturating_sub(closing));
        self.drain_until = Some(self.now + self.drain.saturating_sub(reserve));
        if !self.drain_accept {
            self.listeners.close();
        }
        self.engine.begin_drain();
        self.handle_outputs();
    }

    /// How the drain has ended, if it has.
    pub(super) fn drained(&mut self) -> Option<Ended> {
        let until = self.drain_until?;
        if self.serve_until.is_some_and(|until| self.now >= until) {
            self.serve_until = None;
            self.listeners.close();
            let drained = self.engine.drain();
            self.handle_outputs();
            info!(
                idle = drained.idle,
                waiting = drained.waiting,
                busy = drained.busy,
                "the time to drain is nearly over, who is idle or waits is closed and the busy are answered"
            );
        }
        // Who is to come is waited for.
        let accepting = self.drain_accept && self.serve_until.is_some();
        if self.engine.is_drained() && !accepting {
            return Some(Ended::Drained);
        }
        if self.now < until {
            return None;
        }
        Some(match self.engine.unfinished_count() {
            0 => Ended::Drained,
            cut => Ended::DrainTimedOut(cut),
        })
    }

    /// Where assertions are on, the end of every run shows that nothing has been lost sight of: the tests of the real
    /// binary demand an end without a panic.
    pub(super) fn check(&mut self) {
        self.handle_outputs();
        if cfg!(debug_assertions) {
            self.engine.check();
            let engine = (self.engine.client_count(), self.engine.link_count());
            assert_eq!(
                self.sockets.counts(),
                engine,
                "each connection has a socket"
            );
        }
    }
}
