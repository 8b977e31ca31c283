//! The straight way of a client that asks for what is kept: its event, one read, the engine, one write.
//!
//! It never queues: whatever does not go through at once (a socket that is not at rest, a read that ends or fails, a
//! request that is more than a hit, a socket that does not take all) is put on the lists of the general way, in
//! `mod.rs`, and served in the same turn. So it changes what a hit costs and nothing else.
#![forbid(unsafe_code)]

use super::Reactor;
use super::sockets::{Flag, Flags, Source, Stage};
use crate::client::Straight;
use crate::engine::{AtOnce, ConnId, Engine, Place};
use crate::socket;
use crate::transport::{Line, Secured, Through};
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
        if !socket.goes_straight(event) {
            return self.note_and_list(place, event);
        }
        let id = ConnId {
            place,
            generation: socket.generation,
        };
        let Stage::Open(transport) = &mut socket.stage else {
            return self.note_and_list(place, event);
        };
        let (flags, engine) = (&mut socket.flags, &mut self.engine);
        let left = match transport.line() {
            Line::Plain(line) => exchange(line, engine, flags, id),
            Line::Secured(line) => exchange_secured(line, engine, flags, id),
        };
        if !matches!(left, Left::Nothing) {
            self.go_on(index, left, event);
        }
        if self.engine.is_timing() {
            self.engine.timed(socket::now());
        }
    }

    /// What the straight way has left.
    // By the place alone: an id that is handed on would live in memory, for every hit.
    #[inline(never)]
    fn go_on(&mut self, index: u32, left: Left, event: &Event) {
        let place = Place::Client(index);
        let Some(socket) = self.sockets.slot(place) else {
            return;
        };
        let id = ConnId {
            place,
            generation: socket.generation,
        };
        match left {
            Left::Nothing => {}
            Left::Everything => self.note_and_list(place, event),
            Left::Outputs => self.handle_outputs(),
            Left::More(way, n) => {
                if let AtOnce::Replies(_) = self.engine.received_straight(id, way, n) {
                    self.engine.sent_at_once(id, 0);
                }
                self.handle_outputs();
                self.note_and_list(place, event);
            }
            Left::Reading(result) => {
                self.note_and_list(place, event);
                self.read_nothing(id, result);
            }
            Left::Writing(result) => self.keep_unwritten(id, result),
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

    /// Remembers what the poll said, and puts the socket on the lists of the general way.
    #[inline(never)]
    fn note_and_list(&mut self, place: Place, event: &Event) {
        let calls = self.sockets.note(place, event);
        self.ready_clients.extend(calls.ready);
        self.flush.extend(calls.flush);
    }
}

/// What the straight way leaves to the general one.
enum Left {
    Nothing,
    /// It was not taken: nothing has been read.
    Everything,
    /// What the engine says.
    Outputs,
    /// So many bytes that were read, and those behind them that are still to be.
    More(Straight, usize),
    /// What follows a read that brought nothing.
    Reading(io::Result<usize>),
    /// What follows a write that did not take all.
    Writing(io::Result<usize>),
}

/// One read, the engine, one write. Inlined for what has no TLS: a twentieth of a hit that is alone in its read.
#[inline(always)]
fn exchange(mut line: impl Through, engine: &mut Engine, flags: &mut Flags, id: ConnId) -> Left {
    let Some((way, room)) = engine.recv_straight(id) else {
        return Left::Everything;
    };
    let len = room.len();
    let n = match line.read(room) {
        Ok(n) if n > 0 => n,
        result => return Left::Reading(result),
    };
    if line.may_have_more(n, len) {
        return Left::More(way, n);
    }
    flags.is_read();
    match engine.received_straight(id, way, n) {
        AtOnce::Outputs => Left::Outputs,
        AtOnce::Replies(replies) => match line.write(replies) {
            Ok(sent) if sent == replies.len() => {
                engine.sent_all_at_once(sent);
                Left::Nothing
            }
            result => Left::Writing(result),
        },
    }
}

#[inline(never)]
fn exchange_secured(line: Secured<'_>, engine: &mut Engine, flags: &mut Flags, id: ConnId) -> Left {
    exchange(line, engine, flags, id)
}
