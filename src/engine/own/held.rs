//! What arrived on an own link on its way to the client: at once, or behind the barrier (rule L17).
//!
//! A message, and the reply of a command that waited, tell of what somebody else has done. They are held until every
//! push of before them was handled, and all that arrives behind them on the link waits too, so that the order stays.
//! Where no barrier is to be had everything kept is dropped instead, and what was held goes at once.
//! Invariant: the first thing held waits for a barrier; the bytes held are counted with those of all barriers.
#![forbid(unsafe_code)]

use super::super::coherence::BARRIER_BYTES_MAX;
use super::super::switches::Rule;
use super::Engine;
use crate::client::{CloseReason, State};
use crate::config::Coherence;
use crate::engine::ConnId;
use crate::engine::forget::Flush;
use crate::link::{Arrival, Held, Purpose};

/// How a push begins that says that the connection of a REDIRECT is gone; its id follows.
const BROKEN_REDIRECT: &[u8] = b">2\r\n$21\r\ntracking-redir-broken\r\n";

impl Engine {
    /// Whether what others cause is held (or everything dropped instead). With COHERENCE=ttl their changes are seen when
    /// entries end, whatever is said of them.
    pub(super) fn holds_messages(&self) -> bool {
        self.config.event_barrier
            && self.coherence == Coherence::Tracking
            && self.switches.holds(Rule::HoldMessages)
    }

    /// Brings what has arrived on the link to its client; `held`: behind a barrier of its own.
    pub(super) fn bring(&mut self, ix: usize, what: Arrival, bytes: &[u8], held: bool) {
        let id = self.links[ix].id;
        let behind = !self.own_of(ix).held.is_empty();
        let barrier = if held {
            self.barrier_for(id, bytes.len())
        } else {
            None
        };
        let fits = self.barriers.bytes + bytes.len() <= BARRIER_BYTES_MAX;
        if barrier.is_some() || !held && behind && fits {
            self.barriers.bytes += bytes.len();
            self.own_of(ix).held.push_back(Held {
                barrier,
                what,
                bytes: bytes.to_vec(),
            });
            return;
        }
        if held || behind {
            self.poison_all(Flush::Barrier);
            self.release_held(id);
        }
        self.hand_over(id, what, bytes);
    }

    /// Everything kept was dropped: nothing on this link has to wait any more.
    pub(in crate::engine) fn release_held(&mut self, id: ConnId) {
        while let Some(ix) = self.link_index(id) {
            let Some(held) = self.links[ix]
                .own
                .as_mut()
                .and_then(|own| own.held.pop_front())
            else {
                return;
            };
            self.barriers.bytes -= held.bytes.len();
            self.hand_over(id, held.what, &held.bytes);
        }
    }

    /// The barrier with this number has ended.
    pub(in crate::engine) fn barrier_over(&mut self, id: ConnId, number: u64) {
        let Some(ix) = self.link_index(id) else {
            return;
        };
        match self.own_of(ix).held.front_mut() {
            Some(front) if front.barrier == Some(number) => front.barrier = None,
            // It was let go before.
            _ => return,
        }
        while let Some(ix) = self.link_index(id) {
            let held = &mut self.own_of(ix).held;
            if held.front().is_none_or(|front| front.barrier.is_some()) {
                return;
            }
            let Some(held) = held.pop_front() else {
                return;
            };
            self.barriers.bytes -= held.bytes.len();
            self.hand_over(id, held.what, &held.bytes);
        }
    }

    /// To the client, now.
    fn hand_over(&mut self, link: ConnId, what: Arrival, bytes: &[u8]) {
        match what {
            Arrival::Reply(owed) => {
                match owed.purpose {
                    Purpose::Info => self.pass_info(&owed, bytes),
                    _ => self.pass(&owed, bytes),
                }
                self.settle_relayed(None, &owed);
            }
            Arrival::Part(owed) => self.pass(&owed, bytes),
            Arrival::Message if bytes.starts_with(BROKEN_REDIRECT) => {
                if let Some(ix) = self.link_index(link) {
                    let shown = self.with_our_redirect(ix, bytes);
                    self.pass_message(link, &shown);
                }
            }
            Arrival::Message => self.pass_message(link, bytes),
        }
    }

    /// A message is no reply: nobody asked for it, so it cannot be held back for a client that does not read.
    fn pass_message(&mut self, link: ConnId, bytes: &[u8]) {
        let client = self.link_index(link).and_then(|ix| self.own_of(ix).client);
        let Some(ix) = client.and_then(|client| self.client_index(client)) else {
            return;
        };
        let client = &self.clients[ix];
        if client.state != State::Open {
            return;
        }
        if self.would_owe_too_much(ix, bytes.len(), client.bytes_owed()) {
            return self.close_client(ix, CloseReason::OutboxOverflow);
        }
        self.clients[ix].message(bytes, &mut self.pool);
        self.client_changed(ix);
    }

    /// The link ends: what was held on it is not held any more.
    pub(super) fn forget_held(&mut self, ix: usize) {
        for held in std::mem::take(&mut self.own_of(ix).held) {
            self.barriers.bytes -= held.bytes.len();
        }
    }

    /// Bytes of a connection on which nothing can be told apart.
    pub(super) fn tunnel_received(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(ix) = self.link_index(id) else {
            return;
        };
        let forgets = self.own_of(ix).tunnel.is_some_and(|tunnel| tunnel.forgets);
        if forgets {
            self.poison_all(Flush::Command);
        }
        self.pass_message(id, bytes);
    }
}
