//! How a link to Redis comes to stand: the name, the addresses one after the other, the outcome.
//!
//! It never waits and never gives a link up by itself: how long connecting may take is a timer of the engine's, which
//! closes the link; every other end is reported with `Engine::connected`, once.
#![forbid(unsafe_code)]

use super::Reactor;
use super::dialer::{Dialed, Target};
use super::sockets::{Attempt, Flag, Socket, Source, Stage};
use crate::engine::ConnId;
use crate::transport::Transport;
use std::io;

impl Reactor {
    /// Goes on with the links that waited for the addresses of Redis.
    pub(super) fn take_addresses(&mut self) {
        let Some((waiting, resolved)) = self.dialer.take_resolved() else {
            return;
        };
        for id in waiting {
            if self.sockets.get(id).is_none() {
                continue;
            }
            match &resolved {
                Ok(addresses) => {
                    let targets = addresses.iter().map(|address| Target::Tcp(*address));
                    self.dial(id, targets.collect(), "the name has no address");
                }
                Err(why) => self.link_failed(id, why.clone()),
            }
        }
        self.handle_outputs();
    }

    /// Begins to open a link to Redis. If the engine has something to send before it stands, that is written when the
    /// poll says that it takes bytes, which is also how the loop learns that it stands.
    pub(super) fn connect(&mut self, id: ConnId) {
        self.sockets
            .insert(id.place, Socket::new(id.generation, Stage::Resolving));
        match self.dialer.addresses(id) {
            Dialed::Addresses(addresses) => self.dial(id, addresses, "no address"),
            Dialed::Asked => {}
            Dialed::Refused => self.link_failed(id, "the look-up queue is full".to_owned()),
        }
    }

    /// Tries the addresses in order until one can at least be tried. `why` is what the last one failed of.
    pub(super) fn dial(&mut self, id: ConnId, mut addresses: Vec<Target>, why: &str) {
        let mut why = why.to_owned();
        while !addresses.is_empty() {
            let address = addresses.remove(0);
            let token = Source::Socket(id.place).token();
            let registry = self.poll.registry();
            match address
                .connect()
                .and_then(|stream| Transport::register(stream, registry, token))
            {
                Ok(transport) => {
                    // Worth having, not worth failing for.
                    let _ = transport.set_link_options(self.dialer.link_dead);
                    if let Some(socket) = self.sockets.get(id) {
                        // What the poll said of an earlier address is void; which lists the link is in is not.
                        for flag in [Flag::READABLE, Flag::READ_CLOSED, Flag::BROKEN] {
                            socket.flags.put(flag, false);
                        }
                        socket.stage = Stage::Connecting(Box::new(Attempt {
                            transport,
                            address,
                            rest: addresses,
                        }));
                    }
                    return;
                }
                Err(e) => why = format!("{address}: {e}"),
            }
        }
        self.link_failed(id, why);
    }

    /// The poll said something about a socket that is connecting.
    pub(super) fn finish_connect(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        let stage = std::mem::replace(&mut socket.stage, Stage::Resolving);
        let Stage::Connecting(attempt) = stage else {
            return;
        };
        let Attempt {
            transport,
            address,
            rest,
        } = *attempt;
        let error = match transport.take_error() {
            Ok(Some(e)) | Err(e) => e,
            Ok(None) => match transport.connected() {
                Ok(()) => {
                    let attempt = Attempt {
                        transport,
                        address,
                        rest,
                    };
                    return match self.handshakes.tls.upstream.clone() {
                        None => self.link_stands(id, attempt.transport),
                        Some(tls) => self.secure_link(id, attempt, &tls),
                    };
                }
                Err(e)
                    if e.kind() == io::ErrorKind::NotConnected
                        && !socket.flags.is(Flag::BROKEN) =>
                {
                    // An early event; the one that counts is still to come.
                    socket.stage = Stage::Connecting(Box::new(Attempt {
                        transport,
                        address,
                        rest,
                    }));
                    return;
                }
                Err(e) => e,
            },
        };
        drop(transport);
        self.dial(id, rest, &format!("{address}: {error}"));
        self.handle_outputs();
    }

    /// Bytes may pass on it.
    pub(super) fn link_stands(&mut self, id: ConnId, transport: Transport) {
        if let Some(socket) = self.sockets.get(id) {
            socket.stage = Stage::Open(transport);
            socket.flags.put(Flag::WRITABLE, true);
        }
        self.engine.connected(id, Ok(()));
        self.handle_outputs();
    }

    fn link_failed(&mut self, id: ConnId, why: String) {
        self.sockets.remove(id);
        self.engine.connected(id, Err(why));
    }
}
