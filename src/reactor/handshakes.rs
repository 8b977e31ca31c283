//! Handshakes of TLS: begun when a client is accepted or a link stands, gone on with when the poll says so, ended by their
//! outcome or by time.
//!
//! It never waits and never serves a byte of the protocol above: a connection that shakes hands is in a stage of its own,
//! which every other part of the loop passes by, so those that do without TLS pay nothing for it.
//!
//! Invariant: a client is in `under_way` exactly while its socket is in [`Stage::Accepting`], with its deadline; there are
//! never more than `TLS_HANDSHAKES_MAX`, and while there are as many the listeners for TLS rest.
//!
//! Costs: the arithmetic of a handshake is some 200 µs with keys on a curve, a millisecond with RSA of 2048 bits.
//! [`STEPS_MAX`] of them are done in a turn, so that hits wait no longer than that; the rest go to the end of the list.
#![forbid(unsafe_code)]

use super::Reactor;
use super::sockets::{Accepting, Attempt, Flag, Socket, Stage};
use crate::config::Config;
use crate::engine::{ConnId, Port};
use crate::time::Time;
use crate::tls;
use crate::tls::failure::Failure;
use crate::tls::session::Step;
use crate::transport::Transport;
use std::collections::BTreeSet;
use std::time::Duration;

/// Steps of handshakes done in a turn.
const STEPS_MAX: usize = 4;

/// The handshakes under way, and what they are made with.
#[derive(Debug)]
pub(super) struct Handshakes {
    pub(super) tls: tls::Tls,
    /// Clients by the end of their patience.
    under_way: BTreeSet<(Time, ConnId)>,
    most: usize,
    timeout: Duration,
    /// What is left of this turn's.
    steps: usize,
}

impl Handshakes {
    pub(super) fn new(config: &Config, tls: tls::Tls) -> Handshakes {
        Handshakes {
            tls,
            under_way: BTreeSet::new(),
            most: config.tls_handshakes_max,
            timeout: config.tls_handshake_timeout,
            steps: STEPS_MAX,
        }
    }

    /// Takes over certificates that were read again. What is named no more stays: so do the ports that need it, until the
    /// next start.
    pub(super) fn take(&mut self, tls: tls::Tls) {
        self.tls = tls::Tls {
            server: tls.server.or(self.tls.server.take()),
            upstream: tls.upstream.or(self.tls.upstream.take()),
        };
    }

    /// Whether no further client may begin one.
    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() >= self.most
    }

    /// When the first of them has taken too long.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.under_way.first().map(|(at, _)| *at)
    }

    pub(super) fn begin_turn(&mut self) {
        self.steps = STEPS_MAX;
    }

    /// Whether one more step may be done in this turn.
    pub(super) fn take_step(&mut self) -> bool {
        let left = self.steps.checked_sub(1);
        self.steps = left.unwrap_or(0);
        left.is_some()
    }

    /// One that was taken had nothing to do.
    pub(super) fn give_step_back(&mut self) {
        self.steps += 1;
    }
}

impl Reactor {
    /// A client that was accepted by a port for TLS begins its handshake. `None`: it has been closed.
    pub(super) fn begin_tls(
        &mut self,
        id: ConnId,
        port: Port,
        mut transport: Transport,
    ) -> Option<Stage> {
        let session = match &self.handshakes.tls.server {
            Some(server) => server.session(port != Port::Resp),
            None => Err("there is no certificate".to_owned()),
        };
        match session {
            Ok(session) => transport.secure(session),
            Err(why) => {
                self.engine.failed(id, &why);
                return None;
            }
        }
        let deadline = self.now + self.handshakes.timeout;
        self.handshakes.under_way.insert((deadline, id));
        if self.handshakes.is_full() {
            self.engine.tls_is_full();
        }
        self.listeners.hold_tls(self.handshakes.is_full());
        let speaks_http = port != Port::Resp;
        Some(Stage::Accepting(Box::new(Accepting {
            transport,
            deadline,
            speaks_http,
        })))
    }

    /// Goes on with the handshake of a client, unless this turn has had enough of them.
    pub(super) fn shake(&mut self, id: ConnId) {
        if !self.handshakes.take_step() {
            return self.list_ready(id);
        }
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        let Stage::Accepting(accepting) = &mut socket.stage else {
            return;
        };
        match accepting.transport.shake() {
            Ok(Step::Waiting) => self.handshakes.give_step_back(),
            Ok(Step::Again) => self.list_ready(id),
            Ok(Step::Done) => {
                let stage = std::mem::replace(&mut socket.stage, Stage::Resolving);
                if let Stage::Accepting(accepting) = stage {
                    self.stands(id, *accepting);
                }
            }
            Err(failure) => self.refuse_client(id, &failure),
        }
    }

    /// The client is one like any other from here on.
    fn stands(&mut self, id: ConnId, accepting: Accepting) {
        self.handshake_over(id, accepting.deadline);
        if let Some(socket) = self.sockets.get(id) {
            socket.stage = Stage::Open(accepting.transport);
            // Its first request may have come with its last word of the handshake.
            socket.flags.put(Flag::READABLE, true);
            socket.flags.put(Flag::WRITABLE, true);
        }
        self.engine.tls_stands(id);
        self.handle_outputs();
        self.list_ready(id);
    }

    /// A link to Redis stands and begins its handshake. Its time is that for connecting, which the engine watches.
    pub(super) fn secure_link(&mut self, id: ConnId, mut attempt: Attempt, tls: &tls::Upstream) {
        match tls.session() {
            Ok(session) => attempt.transport.secure(session),
            Err(why) => return self.dial(id, attempt.rest, &why),
        }
        if let Some(socket) = self.sockets.get(id) {
            socket.stage = Stage::Securing(Box::new(attempt));
        }
        self.shake_link(id);
    }

    /// Goes on with the handshake of a link, unless this turn has had enough of them.
    pub(super) fn shake_link(&mut self, id: ConnId) {
        if !self.handshakes.take_step() {
            return self.list_ready(id);
        }
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        let Stage::Securing(attempt) = &mut socket.stage else {
            return;
        };
        let step = attempt.transport.shake();
        match step {
            Ok(Step::Waiting) => return self.handshakes.give_step_back(),
            Ok(Step::Again) => return self.list_ready(id),
            Ok(Step::Done) | Err(_) => {}
        }
        let stage = std::mem::replace(&mut socket.stage, Stage::Resolving);
        let Stage::Securing(attempt) = stage else {
            return;
        };
        let attempt = *attempt;
        match step {
            Ok(_) => {
                // Its first reply may have come with the last word of the handshake.
                socket.flags.put(Flag::READABLE, true);
                self.link_stands(id, attempt.transport);
                self.list_ready(id);
            }
            Err(failure) => {
                let why = format!("{}: {}", attempt.address, failure.text);
                drop(attempt.transport);
                self.dial(id, attempt.rest, &why);
                self.handle_outputs();
            }
        }
    }

    /// The handshakes whose time is over fail.
    pub(super) fn end_slow_handshakes(&mut self) {
        while let Some((at, id)) = self.handshakes.under_way.first().copied() {
            if at > self.now {
                return;
            }
            let accepting = self.sockets.get(id).map(|socket| &socket.stage);
            let Some(Stage::Accepting(accepting)) = accepting else {
                // It cannot be: whoever ends the stage says so.
                self.handshake_over(id, at);
                continue;
            };
            let failure = accepting.transport.too_slow();
            self.refuse_client(id, &failure);
        }
    }

    fn refuse_client(&mut self, id: ConnId, failure: &Failure) {
        if let Some(Socket {
            stage: Stage::Accepting(accepting),
            ..
        }) = self.sockets.get(id)
        {
            let answer = failure.plain_answer(accepting.speaks_http);
            accepting.transport.say_plainly(answer);
        }
        self.engine.tls_failed(id, failure.reason, &failure.text);
        self.handle_outputs();
    }

    /// The client does not shake hands any more.
    pub(super) fn handshake_over(&mut self, id: ConnId, deadline: Time) {
        self.handshakes.under_way.remove(&(deadline, id));
        self.listeners.hold_tls(self.handshakes.is_full());
    }
}
