//! The end of a link that still owes replies: each command outstanding on it ends here, once (rules L9 and L12).
//!
//! Nothing is sent again: what was sent may have been executed.
#![forbid(unsafe_code)]

use super::forget::Flush;
use super::relay::write_errors;
use super::silence::SILENT;
use super::upstream::BUSY;
use super::{ConnId, Engine};
use crate::client::Render;
use crate::config::UpstreamLost;
use crate::link::{Owed, Poison, Purpose, Role, State, Touch};
use crate::stats::Counter;
use std::collections::VecDeque;

const OUTCOME_UNKNOWN: &str = "ERR nearcache: the connection to Redis was lost; whether the command was executed is not known";

/// What has come of the reply that a link owed first when it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    Nothing,
    /// A part of it.
    Reply,
    /// A part of a value whose length an HTTP client knows already.
    Body,
}

impl Engine {
    /// Rule L12: every command outstanding on the link ends with an error; nothing is sent again.
    pub(super) fn link_lost(&mut self, id: ConnId, why: &str) {
        let Some(ix) = self.link_index(id) else {
            return;
        };
        let is_own = self.links[ix].own.is_some();
        if is_own
            && !self.links[ix]
                .own
                .as_ref()
                .is_some_and(|own| own.held.is_empty())
        {
            // What was received before counts.
            self.poison_all(Flush::Barrier);
            self.release_held(id);
            if self.link_index(id).is_none() {
                return;
            }
        }
        let role = self.links[ix].role;
        let begun = self.links[ix].reply_begun;
        let is_in_body = self.links[ix].value_left.is_some();
        let greeted = self.links[ix].state == State::Up;
        // Commands go out right behind the handshake, so from the connection on they may have been executed.
        let sent = self.links[ix].state != State::Connecting && self.links[ix].gate.is_none();
        let mut owed = std::mem::take(&mut self.links[ix].owed);
        let mut touched = std::mem::take(&mut self.links[ix].touched);
        let owner = self.links[ix].own.as_ref().and_then(|own| own.client);
        self.poison_block(ix);
        self.close_link(ix);
        self.stats.count(Counter::LinksLost);
        if role == Role::Control {
            self.tracking_down();
        }
        for (at, owed) in owed.drain(..).enumerate() {
            let passed = match (at, begun) {
                (0, true) if is_in_body => Passed::Body,
                (0, true) => Passed::Reply,
                _ => Passed::Nothing,
            };
            self.lost_command(&owed, &mut touched, (why, sent), passed, is_own);
        }
        if let Some(client) = owner {
            self.own_link_lost(client);
        }
        if role == Role::Control {
            self.control_lost(why, greeted);
        }
    }

    fn lost_command(
        &mut self,
        owed: &Owed,
        touched: &mut VecDeque<u64>,
        (why, sent): (&str, bool),
        passed: Passed,
        is_own: bool,
    ) {
        let Some((client, slot)) = owed.to else {
            return;
        };
        let hashes = self.poison_lost(owed, touched);
        if !is_own {
            for hash in hashes {
                self.uncount(client, hash, |counts| counts.relayed -= 1);
            }
        }
        self.stats.count(Counter::RelayErrors);
        // Redis would have said so of the command itself, had it come that far.
        let is_busy = !sent && BUSY.iter().any(|word| why.starts_with(word));
        let text = if sent {
            format!("{OUTCOME_UNKNOWN} ({why})")
        } else if is_busy {
            why.to_owned()
        } else {
            format!("ERR nearcache: Redis is not reachable: {why}")
        };
        if self.access.is_waiting() {
            self.access_found(client, slot, "error", 0);
        }
        if let Some(ix) = self.client_index(client) {
            // Where a part of the reply has left already, only the end of the connection can say that no more comes.
            let begun = passed != Passed::Nothing || owed.unit.is_some_and(|unit| unit.passed);
            let cut = begun && owed.purpose == Purpose::Pass
                || self.config.upstream_lost == UpstreamLost::Close && !is_busy;
            if passed == Passed::Body {
                self.cut_client(ix, slot);
            } else if let Some(Render::Http(ask)) = self.clients[ix].render(slot).cloned() {
                let body = text.strip_prefix("ERR nearcache: ").unwrap_or(&text);
                let status = if why == SILENT { 504 } else { 503 };
                self.http_error(ix, slot, &ask, status, body.as_bytes());
            } else if cut {
                self.cut_client(ix, slot);
            } else {
                self.clients[ix].fill_with(slot, &mut self.pool, |out| {
                    write_errors(out, owed.unit, text.as_bytes())
                });
            }
        }
        self.settle_relayed(None, owed);
    }

    /// Rules L9 and L12: a command whose reply is lost may have been executed. Takes its hashes from the front.
    pub(super) fn poison_lost(&mut self, owed: &Owed, touched: &mut VecDeque<u64>) -> Vec<u64> {
        let Touch::Keys(n) = owed.touch else {
            if owed.poison != Poison::Never {
                self.poison_all(Flush::of_command(owed.poison));
            }
            return Vec::new();
        };
        let hashes: Vec<u64> = touched.drain(..n as usize).collect();
        if owed.poison != Poison::Never {
            for hash in &hashes {
                self.poison_touched(*hash, owed.poison);
            }
        }
        hashes
    }
}
