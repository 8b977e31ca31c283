//! What is refused at the door: commands that nobody may call, wrong passwords, and what is beyond the rights of a client
//! that has logged in as another user of Redis.
//!
//! Who says a wrong password a second time waits before the next request of that connection is handled, each time twice
//! as long; nothing sleeps for it, and nobody else waits. Costs: O(names in `DENY_COMMANDS`) for each command.
#![forbid(unsafe_code)]

use super::clients::Handled;
use super::relay::{Relayed, Scope};
use super::timers::Timer;
use super::{ConnId, Engine};
use crate::client::{CloseReason, Hold, State};
use crate::command::LocalCommand;
use crate::link::{Poison, Purpose};
use crate::protocol::resp::request::Request;
use crate::session::Deed;
use crate::stats::Counter;

/// The answer to a command in `DENY_COMMANDS`.
pub(super) const DENIED: &[u8] = b"NOPERM nearcache: this command is denied here (DENY_COMMANDS)";
/// A call that Redis refuses in any state, so that a transaction with it fails as one with a mistake in it does.
pub(super) const REFUSED_BY_REDIS: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$4\r\nKILL\r\n";
const WRONG_PASSWORD: &[u8] = b"WRONGPASS invalid username-password pair or user is disabled.";
/// The wait after wrong passwords is doubled so often at most.
const DOUBLINGS_MAX: u32 = 6;

/// Whether Redis says that these credentials are wrong. Before Redis 6 it has other words.
pub(super) fn is_wrong_password(reply: &[u8]) -> bool {
    reply.starts_with(b"-WRONGPASS") || reply.starts_with(b"-ERR invalid password")
}

impl Engine {
    /// Whether `DENY_COMMANDS` names this call.
    pub(super) fn is_denied(&self, request: &Request<'_>) -> bool {
        let denied = &self.config.deny_commands;
        if denied.is_empty() {
            return false;
        }
        let mut args = request.args();
        let (name, sub) = (args.next(), args.next());
        let is = |arg: Option<&[u8]>, word: &str| {
            arg.is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
        };
        denied.iter().any(|entry| match entry.split_once('|') {
            Some((container, word)) => is(name, container) && is(sub, word),
            None => is(name, entry),
        })
    }

    /// The answer to that. Inside a transaction Redis is given what it refuses, so that EXEC fails and runs nothing.
    pub(super) fn refuse_denied(&mut self, ix: usize) -> Handled {
        let Some(link) = self.own_link(ix) else {
            self.stats.count(Counter::CommandsDenied);
            self.reply_error(ix, DENIED);
            return Handled::Done;
        };
        let own = self.links[link].own.as_ref();
        let in_multi = own.is_some_and(|own| own.session.is_in_multi());
        if !in_multi {
            self.stats.count(Counter::CommandsDenied);
            return self.refuse_on_own_link(ix, link, DENIED);
        }
        if self.link_is_full(ix, link) {
            return Handled::Held;
        }
        self.stats.count(Counter::CommandsDenied);
        self.touch.clear();
        let command = Relayed {
            frame: REFUSED_BY_REDIS,
            touch: Scope::Keys,
            poison: Poison::Never,
            purpose: Purpose::Denied,
            unit: None,
        };
        self.dispatch_own(ix, link, command, Deed::Nothing);
        Handled::Done
    }

    /// A wrong password that Redis is not asked about.
    pub(super) fn refuse_password(&mut self, ix: usize) -> Handled {
        match self.own_link(ix) {
            Some(link) => {
                self.refuse_on_own_link(ix, link, WRONG_PASSWORD);
            }
            None => self.reply_error(ix, WRONG_PASSWORD),
        }
        self.note_wrong_password(ix);
        Handled::Done
    }

    /// An error of ours to a client with a link of its own. Where what comes is passed on as it comes (MONITOR) nothing
    /// can be said in between: the client is shown out.
    fn refuse_on_own_link(&mut self, ix: usize, link: usize, text: &[u8]) -> Handled {
        let own = self.links[link].own.as_ref();
        if own.is_some_and(|own| own.tunnel.is_some()) {
            self.finish_client(ix, CloseReason::ProtocolError);
        } else {
            self.reply_error(ix, text);
        }
        Handled::Done
    }

    /// The client has said a wrong password, and has been told. Its next request waits, from the second time on.
    pub(super) fn note_wrong_password(&mut self, ix: usize) {
        self.stats.count(Counter::AuthFailures);
        let (delay, draining) = (self.config.auth_delay, self.draining);
        let client = &mut self.clients[ix];
        let extras = client.extras();
        extras.auth_failures = extras.auth_failures.saturating_add(1);
        let Some(doublings) = extras.auth_failures.checked_sub(2) else {
            return;
        };
        // Whoever waits for something else has somebody who will put it on the ready list.
        let is_free = matches!(client.hold, Hold::None | Hold::Relays);
        if client.state != State::Open || !is_free || draining {
            return;
        }
        client.hold = Hold::Penalty;
        let id = client.id;
        let due = self.now + delay * (1 << doublings.min(DOUBLINGS_MAX));
        let timer = self.timers.set(due, Timer::Penalty(id));
        let earlier = self.clients[ix].extras().penalty.replace(timer);
        if let Some(earlier) = earlier {
            self.timers.cancel(earlier);
        }
    }

    pub(super) fn penalty_ends(&mut self, id: ConnId) {
        let Some(ix) = self.client_index(id) else {
            debug_assert!(false, "who is closed has no timer left");
            return;
        };
        self.clients[ix].extras().penalty = None;
        self.unhold(ix, Hold::Penalty);
    }

    /// Redis's words, where a client that Redis knows as another user than the proxy asks the proxy about other clients:
    /// what that user may is not known here.
    pub(super) fn beyond_rights(&self, ix: usize, command: LocalCommand) -> Option<Vec<u8>> {
        let name = match command {
            LocalCommand::ClientKill => "client|kill",
            LocalCommand::ClientList => "client|list",
            LocalCommand::ClientUnblock => "client|unblock",
            LocalCommand::Nearcache => "nearcache",
            _ => return None,
        };
        let own = self.links[self.own_link(ix)?].own.as_ref()?;
        let user = own.session.user()?;
        if user == self.proxys_user().as_bytes() {
            return None;
        }
        let user = String::from_utf8_lossy(user).replace(['\r', '\n'], " ");
        let text = format!("NOPERM User {user} has no permissions to run the '{name}' command");
        Some(text.into_bytes())
    }
}
