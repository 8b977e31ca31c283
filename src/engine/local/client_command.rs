//! CLIENT, as far as it is about the asking client: its names, and which replies it wants.
#![forbid(unsafe_code)]

use super::{SYNTAX, quoting};
use crate::client::Mute;
use crate::engine::Engine;
use crate::protocol::resp::write;

/// A name longer than this is refused: Redis has no limit, but it holds each client once and we may hold thousands of
/// idle ones for it.
pub(in crate::engine) const NAME_BYTES_MAX: usize = 4096;
const BAD_NAME: &[u8] = b"ERR Client names cannot contain spaces, newlines or special characters.";
pub(in crate::engine) const LONG_NAME: &[u8] =
    b"ERR nearcache: a client's name is at most 4096 bytes long";

impl Engine {
    pub(super) fn getname(&mut self, ix: usize) {
        let client = &mut self.clients[ix];
        let version = client.version;
        let name = client.name().map(<[u8]>::to_vec);
        client.reply_with(&mut self.pool, |out| match &name {
            Some(name) => write::bulk(out, name),
            None => write::null(out, version),
        });
    }

    pub(super) fn set_name(&mut self, ix: usize, name: &[u8]) -> Result<(), &'static [u8]> {
        if !is_printable(name) {
            return Err(BAD_NAME);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(LONG_NAME);
        }
        self.clients[ix].set_name(Some(name).filter(|name| !name.is_empty()));
        Ok(())
    }

    pub(super) fn setinfo(&mut self, ix: usize, attribute: &[u8], value: &[u8]) {
        let is_name = attribute.eq_ignore_ascii_case(b"lib-name");
        if !is_name && !attribute.eq_ignore_ascii_case(b"lib-ver") {
            return self.reply_error(ix, &quoting(b"ERR Unrecognized option '", attribute, b"'"));
        }
        if !is_printable(value) {
            let text = b" cannot contain spaces, newlines or special characters.";
            return self.reply_error(ix, &quoting(b"ERR ", attribute, text));
        }
        if value.len() > NAME_BYTES_MAX {
            return self.reply_error(ix, LONG_NAME);
        }
        let extras = self.clients[ix].extras();
        match is_name {
            true => extras.lib_name = value.into(),
            false => extras.lib_ver = value.into(),
        }
        self.reply_ok(ix);
    }

    /// CLIENT NO-EVICT and NO-TOUCH: noted. What they would spare a client of Redis's does not exist here: no client is
    /// evicted for its memory, and a hit touches nothing in Redis anyway.
    pub(super) fn note_switch(&mut self, ix: usize, mode: &[u8], is_touch: bool) {
        let Some(on) = on_or_off(mode) else {
            return self.reply_error(ix, SYNTAX);
        };
        if on || self.clients[ix].extras.is_some() {
            let extras = self.clients[ix].extras();
            match is_touch {
                true => extras.no_touch = on,
                false => extras.no_evict = on,
            }
        }
        self.reply_ok(ix);
    }

    /// CLIENT REPLY ON, OFF, SKIP.
    pub(super) fn choose_replies(&mut self, ix: usize, mode: &[u8]) {
        let client = &mut self.clients[ix];
        if mode.eq_ignore_ascii_case(b"skip") {
            if client.mute != Mute::All {
                client.mute = Mute::Next;
            }
            return;
        }
        match on_or_off(mode) {
            Some(true) => {
                client.mute = Mute::Off;
                self.reply_ok(ix);
            }
            Some(false) => client.mute = Mute::All,
            None => self.reply_error(ix, SYNTAX),
        }
    }
}

fn on_or_off(mode: &[u8]) -> Option<bool> {
    if mode.eq_ignore_ascii_case(b"on") {
        Some(true)
    } else if mode.eq_ignore_ascii_case(b"off") {
        Some(false)
    } else {
        None
    }
}

fn is_printable(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}
