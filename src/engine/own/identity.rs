//! Clients by the ids that Redis knows their own links by: CLIENT TRACKING REDIRECT and CLIENT UNBLOCK name other
//! clients, which know themselves by the numbers they have here. And WAIT, which asks about one connection's writes.
//!
//! An id that is nobody's here is given to Redis as one that is nobody's there, so that its answer is Redis's own.
//! Costs: O(clients) for each such command, as for CLIENT LIST.
#![forbid(unsafe_code)]

use super::Engine;
use crate::client::{Client, Hold, State};
use crate::command::keys::is_word;
use crate::command::{LocalCommand, Way};
use crate::engine::Port;
use crate::engine::clients::Handled;
use crate::engine::doors::REFUSED_BY_REDIS;
use crate::engine::relay::{Relayed, Road, Scope};
use crate::link::{Identity, Poison, Purpose, Redirect};
use crate::protocol::resp::number;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::write;
use crate::session::{Deed, Session};
use std::borrow::Cow;

/// An id that Redis gives to nobody.
const NOBODY: u64 = i64::MAX as u64;
/// A message that nobody is meant to read: what it moves is the replication stream.
const WAIT_CHANNEL: &[u8] = b"nearcache:wait";
const BUSY: &[u8] =
    b"ERR nearcache: the client to redirect to is in the middle of a command, try again";

/// Where a client is in Redis.
enum Upstream {
    /// Its own link has this id.
    Is(u64),
    /// It has none, or Redis does not tell.
    Nobody,
    /// Redis has been asked; the client that wants to know waits.
    Asked,
}

impl Engine {
    /// The reply to CLIENT ID, on an own link.
    pub(in crate::engine) fn identified(&mut self, link: usize, reply: &[u8]) {
        let digits = reply
            .strip_prefix(b":")
            .and_then(|rest| rest.strip_suffix(b"\r\n"));
        let id = digits.and_then(number::parse);
        let id = id.and_then(|id| u64::try_from(id).ok());
        self.own_of(link).identity = id.map_or(Identity::Unknown, Identity::Known);
        self.wake_waiting_for(link);
    }

    /// The request as Redis is to see it: with the ids it knows in place of ours. `Err`: it cannot go now, or not at all.
    pub(super) fn in_upstream_ids<'a>(
        &mut self,
        ix: usize,
        link: usize,
        request: &'a Request<'_>,
        deed: &Deed,
        way: Way,
    ) -> Result<Cow<'a, [u8]>, Handled> {
        let bytes = Cow::Borrowed(request.bytes());
        if way == Way::Local(LocalCommand::ClientUnblock) {
            return self.replace_id(ix, request, 2, Engine::waiting_upstream);
        }
        let in_multi = self.own_of(link).session.is_in_multi();
        if way == Way::Local(LocalCommand::ClientGetname)
            && let (true, Some(name)) = (in_multi, self.clients[ix].name())
        {
            // Redis knows the link by more than the client's name; an echo of that has the same form.
            let mut frame = Vec::new();
            write::command(&mut frame, [&b"ECHO"[..], name]);
            return Ok(Cow::Owned(frame));
        }
        if way == Way::Local(LocalCommand::ClientKill) && in_multi {
            // Whom it means is known here, and when is known there; and what it says to Redis may mean the proxy itself.
            // A call that Redis refuses stands for it, so that the transaction fails as one with a mistake in it does.
            return Ok(Cow::Borrowed(REFUSED_BY_REDIS));
        }
        match (deed, redirect_in(request)) {
            (Deed::Track(true), Some(at)) => {
                self.replace_id(ix, request, at, Engine::kept_upstream)
            }
            (Deed::Track(false), Some(at)) => self.replace_id(ix, request, at, Engine::itself),
            (Deed::Track(true), None) => {
                self.own_of(link).redirect = None;
                Ok(bytes)
            }
            _ => Ok(bytes),
        }
    }

    /// Where an id is named to no end, Redis wants to know that it is somebody's.
    fn itself(&mut self, ix: usize, _target: usize) -> Result<Upstream, ()> {
        Ok(self.upstream_of(ix, ix))
    }

    /// The request with an upstream id where the number of a client stands.
    fn replace_id<'a>(
        &mut self,
        ix: usize,
        request: &'a Request<'_>,
        at: usize,
        look: fn(&mut Engine, usize, usize) -> Result<Upstream, ()>,
    ) -> Result<Cow<'a, [u8]>, Handled> {
        let text = request.args().nth(at).unwrap_or_default();
        let Some(number) = number::parse(text) else {
            // Redis says what is wrong with it.
            return Ok(Cow::Borrowed(request.bytes()));
        };
        let number = u64::try_from(number).unwrap_or(0);
        let found = match self.client_numbered(number) {
            Some(target) => look(self, ix, target),
            None => Ok(Upstream::Nobody),
        };
        let id = match found {
            Ok(Upstream::Is(id)) => id,
            Ok(Upstream::Nobody) => NOBODY,
            Ok(Upstream::Asked) => return Err(Handled::Held),
            Err(()) => {
                self.reply_error(ix, BUSY);
                return Err(Handled::Done);
            }
        };
        if let (true, Some(link)) = (at > 2, self.own_link(ix)) {
            self.own_of(link).redirect = Some(Redirect { number, id });
        }
        let id = id.to_string();
        let args: Vec<&[u8]> = request
            .args()
            .enumerate()
            .map(|(n, arg)| if n == at { id.as_bytes() } else { arg })
            .collect();
        let mut frame = Vec::with_capacity(request.len() + id.len());
        write::command(&mut frame, args);
        Ok(Cow::Owned(frame))
    }

    /// Who has said no password is nobody yet: what others do must not get it a link.
    fn client_numbered(&self, number: u64) -> Option<usize> {
        let is_it = |client: &Client| {
            let is_somebody = client.authenticated && client.state == State::Open;
            client.number == number && client.port == Port::Resp && is_somebody
        };
        let found = self.clients.iter().find(|(_, client)| is_it(client));
        found.map(|(at, _)| at)
    }

    /// What Redis calls the own link of the client `target`; `ix` waits if it has not said so yet.
    fn upstream_of(&mut self, ix: usize, target: usize) -> Upstream {
        let Some(link) = self.own_link(target) else {
            return Upstream::Nobody;
        };
        match self.own_of(link).identity {
            Identity::Known(id) => Upstream::Is(id),
            Identity::Unknown => Upstream::Nobody,
            Identity::Asked => {
                let client = &mut self.clients[ix];
                client.hold = Hold::Link;
                self.links[link].waiting.push(client.id);
                Upstream::Asked
            }
        }
    }

    /// The same where the client waits for data.
    fn waiting_upstream(&mut self, ix: usize, target: usize) -> Result<Upstream, ()> {
        if !self.waits_upstream(target) {
            return Ok(Upstream::Nobody);
        }
        Ok(self.upstream_of(ix, target))
    }

    /// The same for a client that is to get the invalidations of another. It may not have a link of its own yet: it gets
    /// one, and keeps it until it ends or says RESET, since only Redis knows when nobody redirects to it any more.
    fn kept_upstream(&mut self, ix: usize, target: usize) -> Result<Upstream, ()> {
        if self.own_link(target).is_none() {
            let client = &self.clients[target];
            // Rule L4: a move to an own link happens with nothing outstanding.
            let busy = client.relayed > 0 || client.fetching > 0;
            let waits = client.hold != Hold::None || client.admitted;
            if busy || waits || self.upstream.away().is_some() {
                return Err(());
            }
            let link = self.claim_link(target).ok_or(())?;
            self.clients[target].own = Some(link);
            self.name_own_link(target);
        }
        if let Some(link) = self.own_link(target) {
            self.own_of(link).session.keep();
        }
        Ok(self.upstream_of(ix, target))
    }

    /// What CLIENT LIST shows of the client's state upstream.
    pub(in crate::engine) fn session_of(&self, client: &Client) -> Option<&Session> {
        let link = &self.links[self.link_index(client.own?)?];
        Some(&link.own.as_ref()?.session)
    }

    /// Where the client's invalidations go, as CLIENT LIST says it: -1 if it does not track, 0: to itself.
    pub(in crate::engine) fn redirects_to(&self, client: &Client) -> i64 {
        let link = client.own.and_then(|own| self.link_index(own));
        let own = link.and_then(|link| self.links[link].own.as_ref());
        match own {
            Some(own) if own.session.tracks() => own.redirect.map_or(0, |redirect| {
                i64::try_from(redirect.number).unwrap_or(i64::MAX)
            }),
            _ => -1,
        }
    }

    /// A reply or push of Redis about a redirection, with our number of the client in it.
    pub(super) fn with_our_redirect(&mut self, link: usize, bytes: &[u8]) -> Vec<u8> {
        let Some(redirect) = self.own_of(link).redirect else {
            return bytes.to_vec();
        };
        let theirs = format!(":{}\r\n", redirect.id).into_bytes();
        let Some(at) = bytes.windows(theirs.len()).position(|part| part == theirs) else {
            return bytes.to_vec();
        };
        let ours = format!(":{}\r\n", redirect.number).into_bytes();
        [&bytes[..at], &ours, &bytes[at + theirs.len()..]].concat()
    }

    /// CLIENT UNBLOCK by a client without an own link, of one that waits on its own. `None`: that one does not wait.
    pub(in crate::engine) fn unblock_upstream(
        &mut self,
        ix: usize,
        request: &Request<'_>,
    ) -> Option<Handled> {
        let number = number::parse(request.args().nth(2)?)?;
        let target = self.client_numbered(u64::try_from(number).ok()?)?;
        if !self.waits_upstream(target) {
            return None;
        }
        let frame = match self.replace_id(ix, request, 2, Engine::waiting_upstream) {
            Ok(frame) => frame,
            Err(handled) => return Some(handled),
        };
        self.touch.clear();
        let command = Relayed {
            frame: &frame,
            touch: Scope::Keys,
            poison: Poison::Never,
            purpose: Purpose::Pass,
            unit: None,
        };
        match self.own_link(ix) {
            Some(link) => {
                self.dispatch_own(ix, link, command, Deed::Nothing);
                Some(Handled::Done)
            }
            None => Some(self.relay(ix, command, Road::Shared, None)),
        }
    }

    /// WAIT and WAITAOF ask how far the last write of their own connection has come, and the client's may have gone on
    /// another one. All of those are answered, so a place in the replication stream that is behind everything is behind
    /// them too: a message nobody reads takes one. Replicas get it, no data changes; where it is refused, Redis
    /// before 7.2 takes the place of any command.
    pub(super) fn stand_behind_all_writes(&mut self, link: usize) {
        self.ask(link, Purpose::Ignored, &[b"PUBLISH", WAIT_CHANNEL, b""]);
    }
}

/// Where the id stands in a CLIENT TRACKING that redirects. Its options are walked as Redis walks them; a second REDIRECT
/// is refused there.
fn redirect_in(request: &Request<'_>) -> Option<usize> {
    let mut options = request.args().enumerate().skip(3);
    while let Some((at, option)) = options.next() {
        if is_word(option, b"redirect") {
            return Some(at + 1).filter(|at| *at < request.argc());
        }
        if is_word(option, b"prefix") {
            options.next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Parse;
    use crate::protocol::resp::request::{RequestLimits, RequestParser};

    fn check(call: &str, expected: Option<usize>) {
        let mut frame = Vec::new();
        let words: Vec<&[u8]> = call.split(' ').map(str::as_bytes).collect();
        write::command(&mut frame, words);
        let mut parser = RequestParser::default();
        let Parse::Done(request) = parser.parse(&frame, &RequestLimits::default()) else {
            panic!("{call} is a request");
        };
        assert_eq!(redirect_in(&request), expected, "{call}");
    }

    #[test]
    fn the_id_of_a_redirect_is_found_where_redis_finds_it() {
        check("CLIENT TRACKING ON", None);
        check("CLIENT TRACKING ON BCAST", None);
        check("CLIENT TRACKING ON redirect 5", Some(4));
        check("CLIENT TRACKING ON NOLOOP REDIRECT 5 OPTIN", Some(5));
        check("CLIENT TRACKING ON REDIRECT\0 5", Some(4));
        check(
            "CLIENT TRACKING ON BCAST PREFIX redirect REDIRECT 5",
            Some(7),
        );
        check("CLIENT TRACKING ON PREFIX\0x REDIRECT REDIRECT 5", Some(6));
        check("CLIENT TRACKING ON REDIRECT", None);
        check("CLIENT TRACKING ON PREFIX", None);
    }
}
