//! What must be gone when everybody has gone.
#![forbid(unsafe_code)]

use super::Engine;
use crate::stats::Counter;

impl Engine {
    /// Panics where something of a client or a command is left although every client is gone, every link was lost and
    /// every job is done. For tests.
    pub fn check_nothing_is_left(&self) {
        assert!(self.clients.is_empty(), "clients");
        assert!(self.outstanding.is_empty(), "keys of commands outstanding");
        assert!(self.fetches.is_empty(), "fetches");
        assert_eq!(self.admission.in_flight(), 0, "requests in flight");
        assert_eq!(self.admission.waiting(), 0, "clients in the queue");
        assert_eq!(self.barriers.counted(), 0, "replies held");
        assert_eq!(
            self.stats.get(Counter::ClientsOpened),
            self.stats.get(Counter::ClientsClosed),
            "clients opened and closed"
        );
    }
}
