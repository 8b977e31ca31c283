//! How the bytes of a reply reach the client they are owed to, and what happens when they are more than it may be owed.
//!
//! It never ends a link: a client that cannot take a reply is closed, and the rest of the reply is read and dropped.
//! (That a link is read no faster than its client reads is `pause.rs`.)
#![forbid(unsafe_code)]

use super::Engine;
use crate::client::{CloseReason, Render};
use crate::link::Owed;
use crate::protocol::resp::number;

impl Engine {
    /// A part of a value for an HTTP client, whose answer begins with what only the whole value tells: so it is collected
    /// first, as far as the client may be owed. One that is larger is passed on as it comes, as octets without a tag.
    pub(super) fn http_part(&mut self, ix: usize, owed: &Owed, chunk: &[u8]) {
        let link = &mut self.links[ix];
        if let Some(left) = link.value_left {
            let part = up_to(chunk, left);
            link.value_left = Some(left - part.len() as u64);
            return self.pass(owed, part);
        }
        let Some((client, slot)) = owed.to else {
            return;
        };
        let Some(client) = self.client_index(client) else {
            self.links[ix].collected = Vec::new();
            return;
        };
        let link = &mut self.links[ix];
        link.collected.extend_from_slice(chunk);
        let bytes_max = self.config.outbox_max_bytes;
        let Some((value_bytes, head)) = bulk_head(&link.collected) else {
            if link.collected.len() > bytes_max {
                link.collected = Vec::new();
                self.close_client(client, CloseReason::OutboxOverflow);
            }
            return;
        };
        if value_bytes <= bytes_max as u64 {
            return;
        }
        let collected = std::mem::take(&mut link.collected);
        let part = up_to(&collected[head..], value_bytes);
        let Some(Render::Http(ask)) = self.clients[client].render(slot).cloned() else {
            return;
        };
        let follows = self.http_long_value(client, slot, &ask, value_bytes);
        let part = if follows { part } else { b"" };
        let left = if follows { value_bytes } else { 0 };
        self.links[ix].value_left = Some(left - part.len() as u64);
        self.pass(owed, part);
    }

    pub(super) fn pass(&mut self, owed: &Owed, bytes: &[u8]) {
        let Some((client, slot)) = owed.to else {
            return;
        };
        if self.access.is_waiting() {
            self.access_passed(client, slot, bytes);
        }
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

/// The first of these bytes, at most `n`.
pub(super) fn up_to(bytes: &[u8], n: u64) -> &[u8] {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    &bytes[..bytes.len().min(n)]
}

/// What a bulk that begins so is long, and where its bytes begin. `None`: it is none, or it is too early to say.
fn bulk_head(reply: &[u8]) -> Option<(u64, usize)> {
    let rest = reply.strip_prefix(b"$")?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let len = u64::try_from(number::parse(&rest[..end])?).ok()?;
    let head = end + 3;
    (reply.len() >= head).then_some((len, head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_bulk_is_known_once_it_is_whole() {
        let reply = b"$12\r\nhello";
        for cut in 0..5 {
            assert_eq!(bulk_head(&reply[..cut]), None);
        }
        assert_eq!(bulk_head(&reply[..5]), Some((12, 5)));
        assert_eq!(bulk_head(reply), Some((12, 5)));
        assert_eq!(bulk_head(b"$-1\r\n"), None);
        assert_eq!(bulk_head(b"-ERR no\r\n"), None);
        assert_eq!(
            (up_to(b"abc", 2), up_to(b"abc", 9)),
            (&b"ab"[..], &b"abc"[..])
        );
    }
}
