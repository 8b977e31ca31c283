//! Requests too long to be kept: they are passed on as they come, on a link of the client's own.
//!
//! One begins when more of a request has come than may go on a shared link and it is not complete, or when it says that
//! it is longer than may be kept. From then on the client's bytes go into the link's outbox as a canonical array; when
//! that is full the client is not read until it is empty again. Redis executes nothing before the last byte has come, so
//! nothing is touched before; and then the outline says what was. A client that stalls holds up nobody but its link.
//! What has to be understood before it is passed on (subscriptions, the connection's own state) is not passed on so:
//! it is kept whole, up to `REQUEST_BYTES_MAX`.
//! Invariant: while a request of a client is under way, the last reply that its link owes is to that request.
//! Costs: one copy of each byte; memory for the link's outbox and the outline.
#![forbid(unsafe_code)]

use super::Engine;
use super::clients::Handled;
use super::relay::{Relayed, Scope};
use super::resp::Judgement;
use crate::client::{CloseReason, Framing, State};
use crate::command::{Effect, LocalCommand, StateKind, Way};
use crate::link::{Owed, Poison, Purpose, Touch};
use crate::protocol::Parse;
use crate::protocol::resp::request::RequestError;
use crate::protocol::resp::stream::RequestStream;
use crate::protocol::resp::write;
use crate::session::Deed;
use crate::stats::Counter;

/// So much of a request tells what it is.
const HEAD_BYTES: usize = 64 * 1024;

/// Whether a request is passed on as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// It is: [`Engine::pass_upload`] takes it from its first byte.
    Yes,
    /// The client waits first, as its hold says, or has come to its end.
    Held,
    /// It has to be kept whole.
    No,
}

/// Whether a command may be executed without having been looked at as a whole.
fn may_stream(way: Way) -> bool {
    match way {
        Way::Get | Way::Kept(_) | Way::Relay => true,
        Way::OwnLink(StateKind::Blocking | StateKind::Unknown) => true,
        Way::Local(LocalCommand::Ping | LocalCommand::Echo) => true,
        Way::Local(_) | Way::OwnLink(_) | Way::Refuse(_) => false,
    }
}

impl Engine {
    /// Whether the client is in the middle of a request that is passed on as it comes.
    pub(super) fn is_uploading(&self, ix: usize) -> bool {
        matches!(self.clients[ix].framing, Framing::Upload(_))
    }

    /// A request that begins with `bytes` is too long to be waited for.
    pub(super) fn begin_upload(&mut self, ix: usize, bytes: &[u8]) -> Begun {
        if !self.clients[ix].authenticated || !bytes.starts_with(b"*") {
            return Begun::No;
        }
        // Words like STORE and BLOCK are looked for in it.
        let short_bytes_max = self.config.cache_max_key_bytes.max(64);
        let mut head = RequestStream::new(short_bytes_max);
        let most = bytes.len().min(HEAD_BYTES);
        let (_, parsed) = head.feed(&bytes[..most], &self.request_limits, |_| ());
        if matches!(parsed, Parse::Bad(_)) || head.outline().args().next().is_none() {
            return Begun::No;
        }
        if self.is_denied(&head.outline()) {
            return Begun::No;
        }
        let judgement = self.judge(&head.outline());
        let in_tunnel = self.own_link(ix).is_some_and(|link| {
            let own = self.links[link].own.as_ref();
            own.is_some_and(|own| own.tunnel.is_some())
        });
        if in_tunnel || !may_stream(judgement.way) {
            return Begun::No;
        }
        self.clients[ix].last = judgement.place;
        if self.clients[ix].own.is_none()
            && let Err(handled) = self.take_own_link(ix, None)
        {
            if handled == Handled::Done {
                // It was told why. The rest of what it sends is of no use to anybody.
                self.finish_client(ix, CloseReason::UpstreamLost);
            }
            return Begun::Held;
        }
        let Some(link) = self.own_link(ix) else {
            return Begun::No;
        };
        self.touch.clear();
        let nothing = Relayed {
            frame: b"",
            touch: Scope::Keys,
            poison: Poison::Never,
            purpose: Purpose::Pass,
            unit: None,
        };
        self.dispatch_own(ix, link, nothing, Deed::Nothing);
        let stream = RequestStream::new(short_bytes_max);
        self.clients[ix].framing = Framing::Upload(Box::new(stream));
        Begun::Yes
    }

    /// Passes on what has come of the request under way; returns how many bytes it took. Afterwards either the request
    /// is over, or the client waits, or all bytes are used.
    pub(super) fn pass_upload(&mut self, ix: usize, bytes: &[u8]) -> usize {
        let framing = std::mem::replace(&mut self.clients[ix].framing, Framing::Resp(None));
        let Framing::Upload(mut stream) = framing else {
            self.clients[ix].framing = framing;
            return 0;
        };
        let Some(link) = self.own_link(ix) else {
            debug_assert!(false, "who loses its own link is closed");
            return bytes.len();
        };
        let mut at = 0;
        while at < bytes.len() && !self.link_is_full(ix, link) {
            let part = &bytes[at..bytes.len().min(at + HEAD_BYTES)];
            let (outbox, pool) = (&mut self.links[link].outbox, &mut self.pool);
            let (used, parsed) =
                stream.feed(part, &self.request_limits, |part| outbox.append(part, pool));
            at += used;
            self.flush_link(link);
            match parsed {
                Parse::More => {}
                Parse::Done(()) => {
                    self.upload_ends(ix, link, &stream);
                    self.clients[ix].next_command();
                    return at;
                }
                Parse::Bad(error) => {
                    self.refuse_upload(ix, &error);
                    return bytes.len();
                }
            }
        }
        self.clients[ix].framing = Framing::Upload(stream);
        at
    }

    /// All of the request has been handed on: what it was is known now, before Redis has seen the end of it.
    fn upload_ends(&mut self, ix: usize, link: usize, stream: &RequestStream) {
        let request = stream.outline();
        let judgement = self.judge(&request);
        let is_seen = !stream.is_cut() || self.table.find(request.args()).has_first_key_only();
        let (scope, poison) = match judgement {
            Judgement { way: Way::Get, .. } if is_seen => (Scope::Keys, Poison::AfterGet),
            Judgement { effect, .. } if !is_seen => match effect {
                // What makes it a write may stand behind the cut.
                Effect::None | Effect::Read if self.table.find(request.args()).may_store() => {
                    (Scope::All, Poison::Always)
                }
                Effect::None | Effect::Read => (Scope::All, Poison::Never),
                Effect::Write | Effect::Everything => (Scope::All, Poison::Always),
            },
            Judgement { scope, poison, .. } => (scope, poison),
        };
        let deed = self.deed_of(link, &request, judgement);
        let touch = self.note_touch(ix, link, scope, poison);
        let Some(owed) = self.links[link].owed.back_mut() else {
            debug_assert!(false, "the reply to the request under way is owed");
            return;
        };
        (owed.touch, owed.poison) = (touch, poison);
        self.links[link].heard = self.now;
        if let Some(own) = &mut self.links[link].own {
            own.session.sent(&deed);
            if let Some(last) = own.deeds.back_mut() {
                *last = deed;
            }
        }
        if judgement.effect == Effect::Read {
            self.count_relayed_read_of(&request);
        }
    }

    /// What comes is no request: the client is told so in its turn, and the half of it that Redis has ends with its link.
    fn refuse_upload(&mut self, ix: usize, error: &RequestError) {
        self.stats.count(Counter::ProtocolErrors);
        let text = [b"ERR ", &*error.text()].concat();
        let id = self.clients[ix].id;
        if let Some(owed) = self.take_back_upload(ix) {
            if let Some((_, slot)) = owed.to {
                let client = &mut self.clients[ix];
                client.fill_with(slot, &mut self.pool, |out| write::error(out, &text));
            }
            self.settle_relayed(None, &owed);
        }
        // What it is owed may have been too much already.
        if self.client_index(id).is_some() {
            self.finish_client(ix, CloseReason::ProtocolError);
        }
    }

    /// The client ends in the middle of a request: no reply to it will come. It may be closed by this: what it is owed may
    /// have been too much already.
    pub(super) fn break_upload(&mut self, ix: usize) {
        if !self.is_uploading(ix) {
            return;
        }
        self.clients[ix].framing = Framing::Resp(None);
        if let Some(owed) = self.take_back_upload(ix) {
            if let Some((_, slot)) = owed.to {
                self.clients[ix].lose_slot(slot);
            }
            self.settle_relayed(None, &owed);
        }
    }

    /// What the link owes for the request under way, which Redis will never see the end of.
    fn take_back_upload(&mut self, ix: usize) -> Option<Owed> {
        let link = self.own_link(ix)?;
        let owed = self.links[link].owed.pop_back()?;
        let own = self.links[link].own.as_mut()?;
        own.deeds.pop_back();
        own.session.stain();
        Some(owed)
    }

    /// Whether the link is given a request as it comes.
    pub(super) fn is_uploaded_to(&self, link: usize) -> bool {
        let own = self.links[link].own.as_ref();
        let client = own.and_then(|own| self.client_index(own.client?));
        client.is_some_and(|client| self.is_uploading(client))
    }

    /// Redis has answered a request that it has not seen the end of, so that nobody knows what it makes of the rest.
    pub(super) fn is_answered_early(&mut self, ix: usize) -> bool {
        let early = self.is_uploading(ix) && self.clients[ix].state == State::Open;
        if early {
            self.clients[ix].framing = Framing::Resp(None);
            self.drop_own_link(ix);
            self.finish_client(ix, CloseReason::UpstreamLost);
        }
        early
    }

    /// The hashes of `Engine::touch` become those of the last command that the link was given.
    pub(super) fn note_touch(
        &mut self,
        ix: usize,
        link: usize,
        scope: Scope,
        poison: Poison,
    ) -> Touch {
        match scope {
            Scope::All => {
                self.clients[ix].relayed_all += 1;
                Touch::All
            }
            // Not in `outstanding`: all that follows goes the same way, whatever it touches.
            Scope::Keys if poison == Poison::Never => Touch::Keys(0),
            Scope::Keys => {
                if poison != Poison::AfterGet {
                    for hash in &self.touch {
                        self.measures.note_own(*hash, self.now);
                    }
                }
                self.links[link].touched.extend(&self.touch);
                Touch::Keys(
                    u32::try_from(self.touch.len()).expect("a request's length bounds its keys"),
                )
            }
        }
    }
}
