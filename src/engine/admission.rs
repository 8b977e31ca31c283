//! `MAX_CONCURRENT_REQUESTS`: how many fetches and relayed commands may be between dispatch and reply at one time.
//!
//! Hits, joins and what the proxy answers itself are not counted. Above the limit clients wait in the order of arrival,
//! each with the oldest command it could not dispatch; a client that waits is given its place before newcomers.
//! Invariant: nobody waits while a place is free. Costs: O(1), but O(queue) when a waiting client is closed.
#![forbid(unsafe_code)]

use super::timers::Timer;
use super::{ConnId, Engine};
use crate::client::Hold;
use crate::stats::Counter;
use std::collections::VecDeque;

/// The places, and who waits for one.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    in_flight: usize,
    max: usize,
    queue: VecDeque<(ConnId, u32)>,
}

/// What a client that wants a place is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admit {
    /// The place is taken; [`Engine::release_place`] gives it back.
    Granted,
    /// The client waits in the queue.
    Queued,
    /// It has waited long enough: the command gets an error.
    Refused,
}

impl Admission {
    pub(super) fn new(max: usize) -> Admission {
        Admission {
            in_flight: 0,
            max: max.max(1),
            queue: VecDeque::new(),
        }
    }

    /// Another number of places. Those taken stay taken.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
    }

    /// Places taken.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Clients waiting.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Who waits, longest first.
    pub(super) fn queue(&self) -> impl Iterator<Item = ConnId> {
        self.queue.iter().map(|(client, _)| *client)
    }

    /// Whether this client waits.
    pub(super) fn is_queued(&self, id: ConnId) -> bool {
        self.queue().any(|client| client == id)
    }
}

impl Engine {
    /// Takes a place for the client's next command, or puts the client in the queue.
    pub(super) fn admit(&mut self, ix: usize) -> Admit {
        let client = &mut self.clients[ix];
        if client.admitted {
            client.admitted = false;
            return Admit::Granted;
        }
        if client.waited_in_vain {
            client.waited_in_vain = false;
            return Admit::Refused;
        }
        if self.admission.in_flight < self.admission.max && self.admission.queue.is_empty() {
            self.admission.in_flight += 1;
            return Admit::Granted;
        }
        client.hold = Hold::Limit;
        let id = client.id;
        let timer = self
            .timers
            .set(self.now + self.config.queue_wait, Timer::Queue(id));
        self.admission.queue.push_back((id, timer));
        self.stats.count(Counter::Queued);
        Admit::Queued
    }

    /// Takes a place for work that nobody waits for, if that keeps nobody out: while at most half of them are taken.
    pub(super) fn take_spare_place(&mut self) -> bool {
        let spare = self.admission.in_flight < self.admission.max / 2;
        self.admission.in_flight += usize::from(spare);
        spare
    }

    /// Gives a place back, and to whoever waits longest.
    pub(super) fn release_place(&mut self) {
        self.admission.in_flight -= 1;
        self.admit_waiting();
    }

    /// Gives free places to those that wait longest.
    pub(super) fn admit_waiting(&mut self) {
        while self.admission.in_flight < self.admission.max {
            let Some((id, timer)) = self.admission.queue.pop_front() else {
                return;
            };
            self.timers.cancel(timer);
            let ix = self
                .client_index(id)
                .expect("a client that is closed leaves the queue");
            self.admission.in_flight += 1;
            self.clients[ix].admitted = true;
            self.unhold(ix, Hold::Limit);
        }
    }

    /// The client needs no place any more, whether it holds one or waits for one.
    pub(super) fn leave_admission(&mut self, ix: usize) {
        if let Some(timer) = self.leave_queue(ix) {
            self.timers.cancel(timer);
        }
        if self.clients[ix].admitted {
            self.clients[ix].admitted = false;
            self.release_place();
        }
    }

    /// The client waits for no place any more. Returns the timer that it waited with.
    fn leave_queue(&mut self, ix: usize) -> Option<u32> {
        let client = &mut self.clients[ix];
        if client.hold != Hold::Limit {
            return None;
        }
        client.hold = Hold::None;
        let id = client.id;
        let queue = &mut self.admission.queue;
        let at = queue.iter().position(|(waiting, _)| *waiting == id)?;
        queue.remove(at).map(|(_, timer)| timer)
    }

    /// The client at the front of its patience: its command gets an error, the next one takes its turn.
    pub(super) fn queue_timer_fired(&mut self, id: ConnId) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        // Its timer is the one that has fired.
        self.leave_queue(ix);
        self.leave_admission(ix);
        self.stats.count(Counter::QueueTimeouts);
        self.clients[ix].waited_in_vain = true;
        self.list_ready(ix);
    }
}
