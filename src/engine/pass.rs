//! How the bytes of a reply reach the client they are owed to, and what happens when they are more than it may be owed.
//!
//! It never ends a link: a client that cannot take a reply is closed, and the rest of the reply is read and dropped.
#![forbid(unsafe_code)]

use super::Engine;
use crate::client::{CloseReason, Render};
use crate::link::Owed;

impl Engine {
    /// An HTTP answer begins with its length, so the value is collected first, as far as the client may be owed. What
    /// is larger ends the client, never the link that others share: the rest is read and dropped.
    pub(super) fn collect_for_http(&mut self, ix: usize, owed: &Owed, chunk: &[u8]) {
        let Some(client) = owed.to.and_then(|(client, _)| self.client_index(client)) else {
            self.links[ix].collected = Vec::new();
            return;
        };
        let collected = &mut self.links[ix].collected;
        if collected.len() + chunk.len() > self.config.outbox_max_bytes {
            *collected = Vec::new();
            return self.close_client(client, CloseReason::OutboxOverflow);
        }
        collected.extend_from_slice(chunk);
    }

    pub(super) fn pass(&mut self, owed: &Owed, bytes: &[u8]) {
        let Some((client, slot)) = owed.to else {
            return;
        };
        let Some(ix) = self.client_index(client) else {
            return;
        };
        let client = &mut self.clients[ix];
        if client.is_slot_muted(slot) {
            return;
        }
        if client.bytes_owed() + bytes.len() > self.config.outbox_max_bytes {
            return self.close_client(ix, CloseReason::OutboxOverflow);
        }
        client.fill(slot, bytes, &mut self.pool);
        // A part that fills the front slot may leave before the reply is complete.
        self.client_changed(ix);
    }

    pub(super) fn pass_info(&mut self, owed: &Owed, reply: &[u8]) {
        let section = self.info_section();
        let extended = super::local::extend_info(reply, section.as_bytes());
        self.pass(owed, &extended);
    }

    pub(super) fn pass_http(&mut self, owed: &Owed, reply: &[u8]) {
        let Some((client, slot)) = owed.to else {
            return;
        };
        let Some(ix) = self.client_index(client) else {
            return;
        };
        let client = &mut self.clients[ix];
        if client.bytes_owed() + reply.len() > self.config.outbox_max_bytes {
            return self.close_client(ix, CloseReason::OutboxOverflow);
        }
        if let Some(Render::Http(ask)) = client.render(slot).cloned() {
            self.http_relayed(ix, slot, &ask, reply);
        }
        self.client_changed(ix);
    }
}
