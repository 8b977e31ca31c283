//! The straight way of a client that asks for what is kept: its event, one read, the engine, one write.
//!
//! It never queues: whatever does not go through at once (a socket that is not at rest, a read that ends or fails, a
//! request that is more than a hit, a socket that does not take all) is put on the lists of the general way, in
//! `mod.rs`, and served in the same turn. So it changes what a hit costs and nothing else.
#![forbid(unsafe_code)]

use super::Reactor;
use super::sockets::{Flag, Source, Stage};
use crate::engine::{AtOnce, ConnId, Place};
use crate::socket;
use mio::Events;
use mio::event::Event;
use std::io;

impl Reactor {
    /// Serves the clients that the poll spoke of. Nothing has been opened since, so a place alone names its socket.
    // Not inlined: the rest of a turn has no use for the registers that this takes.
    #[inline(never)]
    pub(super) fn serve_straight(&mut self, events: &Events) {
        for event in events {
            if let Some(index) = Source::client(event.token()) {
                self.serve_event(index, event);
            }
        }
    }

    #[inline(always)]
    fn serve_event(&mut self, index: u32, event: &Event) {
        let place = Place::Client(index);
        let Some(socket) = self.sockets.slot(place) else {
            return;
        };
        socket.note(event);
        if !socket.is_straight() {
            return self.list(place);
        }
        let Stage::Open(transport) = &mut socket.stage else {
            return self.list(place);
        };
        let id = ConnId {
            place,
            generation: socket.generation,
        };
        let room = self.engine.recv_slice(id);
        let len = room.len();
        if len == 0 {
            // Paused; `Ready` will come, and then it is still noted that there is something to read.
            return;
        }
        let n = match transport.read(room) {
            Ok(n) if n > 0 => n,
            result => {
                self.read_nothing(id, result);
                return self.list(place);
            }
        };
        let more = transport.may_have_more(n, len);
        if !more {
            socket.flags.is_read();
        }
        match self.engine.received_at_once(id, n) {
            AtOnce::Outputs => self.handle_outputs(),
            AtOnce::Replies(replies) => match transport.write_one(replies) {
                Ok(sent) if sent == replies.len() => self.engine.sent_at_once(id, sent),
                written => self.keep_unwritten(id, written),
            },
        }
        if self.engine.is_timing() {
            self.engine.timed(socket::now());
        }
        if more {
            self.list(place);
        }
    }

    /// The socket did not take all of the replies: the general way goes on with the rest.
    #[cold]
    fn keep_unwritten(&mut self, id: ConnId, written: io::Result<usize>) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        match written {
            Ok(sent) => {
                // A short write means that the socket is full; the poll will say when it is not.
                socket.flags.put(Flag::WRITABLE, false);
                self.engine.sent_at_once(id, sent);
            }
            Err(e) => {
                // Full, or interrupted: the writes at the end of the turn find out which.
                self.engine.sent_at_once(id, 0);
                if !matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) {
                    socket.flags.put(Flag::TO_SEND, false);
                    socket.flags.put(Flag::READABLE, false);
                    self.engine.failed(id, &e.to_string());
                }
            }
        }
        self.handle_outputs();
    }

    /// Puts a socket on the lists of the general way, as far as there is something to be done for it.
    fn list(&mut self, place: Place) {
        let calls = self.sockets.calls(place);
        self.ready_clients.extend(calls.ready);
        self.flush.extend(calls.flush);
    }
}
