//! How a connection ends: its last bytes, TLS's own last word, the socket.
//!
//! It never decides that it ends: the engine says so ([`Output::Shut`](crate::engine::Output::Shut),
//! [`Output::Close`](crate::engine::Output::Close)).
#![forbid(unsafe_code)]

use super::sockets::{Flag, Stage};
use super::{DISCARD_BYTES_MAX, Reactor};
use crate::engine::ConnId;
use std::io;

impl Reactor {
    /// Ends our side; the peer's bytes are read and dropped from here on, those that were paused included.
    pub(super) fn shut(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        match &mut socket.stage {
            Stage::Open(transport) => match transport.shutdown_write() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    socket.flags.put(Flag::TO_SEND, true)
                }
                // It fails otherwise only when the peer is gone already, which the next read says.
                Ok(()) | Err(_) => {}
            },
            // There is nobody yet to say goodbye to.
            Stage::Accepting(_) => return self.engine.peer_closed(id),
            Stage::Resolving | Stage::Connecting(_) | Stage::Securing(_) => {}
        }
        self.list_ready(id);
    }

    pub(super) fn close(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.remove(id) else {
            return;
        };
        let is_broken = socket.flags.is(Flag::BROKEN);
        let transport = match socket.stage {
            Stage::Open(mut transport) => {
                if !is_broken {
                    transport.part();
                }
                Some(transport)
            }
            Stage::Accepting(accepting) => {
                self.handshake_over(id, accepting.deadline);
                Some(accepting.transport)
            }
            Stage::Resolving | Stage::Connecting(_) | Stage::Securing(_) => None,
        };
        if let Some(mut transport) = transport
            && socket.flags.is(Flag::READABLE)
            && !is_broken
        {
            transport.discard_unread(DISCARD_BYTES_MAX);
        }
        self.listeners.descriptor_freed();
    }
}
