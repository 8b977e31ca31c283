//! Own links: a client gets one when a command of its begins state upstream (rule L15), and keeps it until that state
//! has ended and nothing of the client is outstanding. Meanwhile all its commands go there, and none of its reads hits,
//! joins or starts a fetch. Then the link is idle, for the next client of its version and database.
//!
//! It never moves a client with anything outstanding (rule L4), and never gives on a link of which anything is left:
//! that one is closed. A client whose link is lost is closed too (rule L12), since nobody can rebuild what it held.
//! Invariant: a client names its own link exactly while the link names the client.
//! Costs: O(1) to begin and to end; a connection is made only where no idle one fits.
#![forbid(unsafe_code)]

mod deeds;
mod held;
mod identity;
mod replies;
#[cfg(test)]
mod tests;
mod tunnel;
mod unit;

use super::clients::Handled;
use super::forget::{Cause, Flush};
use super::local::LONG_NAME;
use super::relay::{Relayed, Scope};
use super::resp::{Judgement, has_our_section};
use super::switches::Rule;
use super::{ConnId, Engine, access};
use crate::client::{CloseReason, Hold, State};
use crate::command::{LocalCommand, StateKind, Way};
use crate::link::{Owed, Own, Poison, Pool, Purpose, Role, Taken};
use crate::protocol::resp::request::Request;
use crate::session::Deed;
use crate::session::block::Everything;
use crate::stats::Counter;
use crate::time::Time;
use std::collections::BTreeMap;

/// All links of this kind.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnLinks {
    /// Those without a client, by what they can serve; the one used last is used next.
    pub(super) idle: BTreeMap<Pool, Vec<ConnId>>,
    /// How many there are, idle or not.
    pub(super) count: usize,
}

/// Where a command that the proxy can answer is answered for a client with an own link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By Redis, on the own link.
    Upstream,
    /// Here, once everything before it is answered: it depends on what that does.
    HereInTurn,
}

impl Engine {
    /// The first command of a client's state upstream.
    pub(super) fn begin_own(
        &mut self,
        ix: usize,
        request: &Request<'_>,
        judgement: Judgement,
    ) -> Handled {
        if let Err(handled) = self.take_own_link(ix, Some(judgement.way)) {
            return handled;
        }
        self.handle_own(ix, request, judgement)
    }

    /// Gives the client an own link; where it cannot have one now, says how its command was handled instead. `way`: of
    /// the command that begins state; `None`: nothing begins.
    pub(super) fn take_own_link(&mut self, ix: usize, way: Option<Way>) -> Result<(), Handled> {
        if self.waits_to_move(ix) {
            return Err(Handled::Held);
        }
        if self.upstream.away().is_some() {
            self.refuse_away(ix, None, None);
            self.finish_unless_harmless(ix, way, CloseReason::UpstreamLost);
            return Err(Handled::Done);
        }
        let Some(link) = self.claim_link(ix) else {
            self.stats.count(Counter::RelayErrors);
            self.reply_error(ix, b"ERR nearcache: too many connections to Redis");
            self.finish_unless_harmless(ix, way, CloseReason::LinksExhausted);
            return Err(Handled::Done);
        };
        self.clients[ix].own = Some(link);
        self.name_own_link(ix);
        Ok(())
    }

    /// What begins a transaction must not fail and let go on what was meant to be part of it: the client is closed.
    fn finish_unless_harmless(&mut self, ix: usize, way: Option<Way>, reason: CloseReason) {
        let harmless = [
            StateKind::Blocking,
            StateKind::Subscribe,
            StateKind::Tracking,
            StateKind::Wait,
        ];
        let begins = |way| !harmless.iter().any(|kind| way == Way::OwnLink(*kind));
        if way.is_some_and(begins) {
            self.finish_client(ix, reason);
        }
    }

    /// An idle link that fits the client, or a fresh one.
    fn claim_link(&mut self, ix: usize) -> Option<ConnId> {
        let client = &self.clients[ix];
        let (owner, db) = (client.id, client.db);
        let pool = Pool {
            version: client.version,
            db,
        };
        let idle = self.own_links.idle.get_mut(&pool).and_then(Vec::pop);
        let id = match idle {
            Some(id) => id,
            None => {
                if self.own_links.count >= self.config.own_links_max {
                    self.close_an_idle_link()?;
                }
                self.open_link(Role::Own(pool))
            }
        };
        let link = self.link_index(id)?;
        self.own_of(link).client = Some(owner);
        Some(id)
    }

    /// Makes room for another link. `None`: none is idle.
    fn close_an_idle_link(&mut self) -> Option<()> {
        let links = self.own_links.idle.values().find_map(|links| links.first());
        let link = self.link_index(*links?)?;
        self.close_link(link);
        Some(())
    }

    /// Whether a message is passed to the client as it comes and has not ended. Nothing of ours may get into it, so the
    /// client waits for its end, which is the link's to tell.
    pub(super) fn waits_for_message(&mut self, ix: usize) -> bool {
        let Some(link) = self.own_link(ix) else {
            return false;
        };
        let is_inside = self.links[link].reply_begun;
        if !is_inside || self.own_of(link).taken != Taken::MessagePassing {
            return false;
        }
        let client = &mut self.clients[ix];
        client.hold = Hold::Link;
        self.links[link].waiting.push(client.id);
        true
    }

    /// Redis has nothing more to say on the link: a client that waits for that goes on.
    fn wake_if_silent(&mut self, id: ConnId) {
        if let Some(link) = self.link_index(id)
            && self.links[link].owed.is_empty()
        {
            self.wake_waiting_for(link);
        }
    }

    /// The clients that wait for the link look again.
    fn wake_waiting_for(&mut self, link: usize) {
        for client in std::mem::take(&mut self.links[link].waiting) {
            if let Some(client) = self.client_index(client) {
                self.unhold(client, Hold::Link);
            }
        }
    }

    /// What an own link has besides what every link has.
    fn own_of(&mut self, link: usize) -> &mut Own {
        self.links[link]
            .own
            .as_mut()
            .expect("only links of this role are named by clients and idle lists")
    }

    /// The place of the client's own link.
    pub(super) fn own_link(&self, ix: usize) -> Option<usize> {
        self.link_index(self.clients[ix].own?)
    }

    /// Redis's CLIENT LIST and SLOWLOG tell whose link it is, by the name that the client has given itself.
    fn name_own_link(&mut self, ix: usize) {
        let Some(link) = self.own_link(ix) else {
            return;
        };
        let name: Option<Box<[u8]>> = self.clients[ix].name().map(Box::from);
        if self.own_of(link).session.name == name {
            return;
        }
        let ours = format!("nearcache:{}:{}:own", self.host, self.pid);
        let whose = match &name {
            Some(name) => [b":", &**name].concat(),
            None => link.to_string().into_bytes(),
        };
        let shown = cleaned([ours.into_bytes(), whose].concat());
        self.ask(link, Purpose::Ignored, &[b"CLIENT", b"SETNAME", &shown]);
        self.own_of(link).session.name = name;
    }

    /// A command of a client that has an own link.
    pub(super) fn handle_own(
        &mut self,
        ix: usize,
        request: &Request<'_>,
        judgement: Judgement,
    ) -> Handled {
        let Some(link) = self.own_link(ix) else {
            debug_assert!(false, "a client names a link that is gone");
            return Handled::Done;
        };
        if judgement.way == Way::OwnLink(StateKind::Urgent) {
            self.note_pause(request);
        }
        let settled = self.clients[ix].relayed == 0;
        let own = self.own_of(link);
        let in_multi = own.session.is_in_multi();
        if own.tunnel.is_some() && judgement.way != Way::Local(LocalCommand::Reset) {
            return self.send_into_tunnel(ix, link, request, judgement.way);
        }
        if judgement.way == Way::Local(LocalCommand::Quit) {
            return self.quit_upstream(ix, link, request);
        }
        if let Way::Local(command) = judgement.way {
            let not_here = in_multi || settled && own.session.refuses_most();
            match place(command, not_here) {
                Place::Upstream => {}
                Place::HereInTurn if !settled => {
                    self.clients[ix].hold = Hold::Relays;
                    return Handled::Held;
                }
                Place::HereInTurn => {
                    return self.answer_own_here(ix, command, request);
                }
            }
        }
        if self.link_is_full(ix, link) {
            return Handled::Held;
        }
        if let (Way::OwnLink(kind), false) = (judgement.way, in_multi)
            && self.is_to_tunnel(kind, request)
        {
            return self.begin_tunnel(ix, link, request);
        }
        let deed = self.deed_of(link, request, judgement);
        let is_hello = judgement.way == Way::Local(LocalCommand::Hello);
        if deed == Deed::Confuse && is_hello && !in_multi {
            self.reply_error(ix, LONG_NAME);
            if settled {
                self.leave_own_link(ix);
            }
            return Handled::Done;
        }
        let frame = match self.in_upstream_ids(ix, link, request, &deed, judgement.way) {
            Ok(frame) => frame,
            Err(handled) => return handled,
        };
        if judgement.way == Way::OwnLink(StateKind::Wait) && !in_multi {
            self.stand_behind_all_writes(link);
        }
        let purpose = match judgement.way {
            Way::Local(LocalCommand::Info) if !in_multi && has_our_section(request) => {
                Purpose::Info
            }
            Way::Local(LocalCommand::ClientKill) if in_multi => Purpose::Refused,
            _ => Purpose::Pass,
        };
        let get = if in_multi {
            Rule::PoisonAfterExecGet
        } else {
            Rule::PoisonAfterOwnGet
        };
        let (touch, poison) = match (judgement.way, &deed) {
            // What it touches is what its transaction does, which the replies before its own will tell.
            (_, Deed::Exec) => (Scope::Keys, Poison::Never),
            (Way::Get, _) if self.switches.holds(get) => (Scope::Keys, Poison::AfterGet),
            _ => (judgement.scope, judgement.poison),
        };
        let command = Relayed {
            frame: &frame,
            touch,
            poison,
            purpose,
            unit: None,
        };
        self.dispatch_own(ix, link, command, deed);
        Handled::Done
    }

    /// Others may know the client by its link: it is redirected to, subscribed, blocked upon. So it has gone in Redis's
    /// eyes too by the time it is told so, and nothing that anybody does then still finds it.
    fn quit_upstream(&mut self, ix: usize, link: usize, request: &Request<'_>) -> Handled {
        let command = Relayed {
            frame: request.bytes(),
            touch: Scope::Keys,
            poison: Poison::Never,
            purpose: Purpose::Pass,
            unit: None,
        };
        self.dispatch_own(ix, link, command, Deed::Nothing);
        // Redis closes it when it has answered, and the client may be done with its state by then.
        self.own_of(link).session.stain();
        self.finish_client(ix, CloseReason::Asked);
        Handled::Done
    }

    fn answer_own_here(
        &mut self,
        ix: usize,
        command: LocalCommand,
        request: &Request<'_>,
    ) -> Handled {
        if let Some(refused) = self.beyond_rights(ix, command) {
            self.reply_error(ix, &refused);
            return Handled::Done;
        }
        if command == LocalCommand::Reset {
            self.drop_own_link(ix);
        }
        let id = self.clients[ix].id;
        let handled = self.answer_local(ix, command, request);
        if let Some(ix) = self.client_index(id) {
            self.name_own_link(ix);
        }
        handled
    }

    pub(super) fn dispatch_own(
        &mut self,
        ix: usize,
        link_ix: usize,
        command: Relayed<'_>,
        deed: Deed,
    ) {
        let touch = self.note_touch(ix, link_ix, command.touch, command.poison);
        let client = &mut self.clients[ix];
        let link = &mut self.links[link_ix];
        let slot = client.owe(None);
        client.relayed += 1;
        client.link = Some(link.id);
        if link.owed.is_empty() {
            link.heard = self.now;
        }
        link.owed.push_back(Owed {
            to: Some((client.id, slot)),
            purpose: command.purpose,
            touch,
            poison: command.poison,
            counted: false,
            unit: None,
            // What waits takes as long as nothing comes.
            sent: match deed {
                Deed::Wait => Time::NEVER,
                _ => self.now,
            },
            place: client.last,
        });
        link.outbox.append(command.frame, &mut self.pool);
        let own = self.own_of(link_ix);
        own.session.sent(&deed);
        own.deeds.push_back(deed);
        self.stats.count(Counter::Relayed);
        self.access_begins(ix, access::Road::Relay, slot, command.frame);
        self.flush_link(link_ix);
    }

    /// Whether a command of the client may wait upstream for as long as it likes.
    pub(super) fn waits_upstream(&self, ix: usize) -> bool {
        let own = self.own_link(ix).map(|link| self.links[link].own.as_ref());
        own.flatten().is_some_and(|own| own.session.waits())
    }

    /// Nothing of the client is outstanding: if nothing of its state is left either, it is done with the link.
    pub(super) fn leave_own_link(&mut self, ix: usize) {
        if self.is_answered_early(ix) {
            return;
        }
        let Some(link) = self.own_link(ix) else {
            self.clients[ix].own = None;
            return;
        };
        let session = &mut self.own_of(link).session;
        session.settled();
        if !session.is_clean() {
            return;
        }
        let pool = Pool {
            version: session.version,
            db: session.db,
        };
        let reusable = session.is_reusable() && !self.links[link].retiring && !self.draining;
        self.clients[ix].own = None;
        if !reusable {
            return self.close_link(link);
        }
        self.own_of(link).client = None;
        self.links[link].role = Role::Own(pool);
        let id = self.links[link].id;
        self.own_links.idle.entry(pool).or_default().push(id);
    }

    /// The client is gone, or wants to be as new: what it has outstanding ends with the link (rule L12).
    pub(super) fn drop_own_link(&mut self, ix: usize) {
        if let Some(link) = self.clients[ix].own.take() {
            self.end_own_link(link);
        }
    }

    /// Closes an own link. What is outstanding on it may have been executed: what that touches is forgotten.
    pub(super) fn end_own_link(&mut self, id: ConnId) {
        let Some(link) = self.link_index(id) else {
            return;
        };
        let owed = std::mem::take(&mut self.links[link].owed);
        let mut touched = std::mem::take(&mut self.links[link].touched);
        self.forget_held(link);
        self.poison_block(link);
        self.close_link(link);
        for owed in owed {
            self.poison_lost(&owed, &mut touched);
            debug_assert!(!owed.counted, "what goes on own links takes no place");
        }
    }

    /// Rule L9: what the transaction that ends now has touched is forgotten.
    pub(super) fn poison_block(&mut self, link: usize) {
        let Some(own) = &self.links[link].own else {
            return;
        };
        let Some(block) = own.session.block() else {
            return;
        };
        if !self.switches.holds(Rule::PoisonAfterExec) {
            return;
        }
        match block.all {
            Everything::No => {}
            Everything::Reported => return self.poison_all(Flush::Barrier),
            Everything::Unreported => return self.poison_all(Flush::Command),
        }
        for hash in block.touched.clone() {
            self.measures.note_own(hash, self.now);
            self.poison_name(hash, Cause::Own);
        }
    }

    /// The same where the barrier takes care of what is not named.
    fn poison_named(&mut self, link: usize) {
        let Some(block) = self.own_of(link).session.block() else {
            return;
        };
        if block.all == Everything::Unreported {
            return self.poison_all(Flush::Command);
        }
        for hash in block.touched.clone() {
            self.poison_name(hash, Cause::Own);
        }
    }

    /// Panics where an invariant does not hold.
    pub(super) fn check_own_links(&self) {
        let is_own = |id: &ConnId| {
            let link = self.link_index(*id).map(|ix| &self.links[ix]);
            link.and_then(|link| link.own.as_ref())
        };
        for (_, client) in &self.clients {
            let Some(link) = &client.own else { continue };
            let own = is_own(link).expect("a client's own link is one");
            assert_eq!(own.client, Some(client.id), "a link has one client");
        }
        let links = self.links.iter().filter_map(|(_, link)| link.own.as_ref());
        assert_eq!(links.count(), self.own_links.count);
        for id in self.own_links.idle.values().flatten() {
            let own = is_own(id).expect("an idle link is an own link");
            assert!(own.client.is_none() && own.session.is_clean());
        }
    }

    /// After the loss of a client's own link: it ends as it would have ended with Redis.
    pub(super) fn own_link_lost(&mut self, client: ConnId) {
        let Some(ix) = self.client_index(client) else {
            return;
        };
        self.clients[ix].own = None;
        if self.clients[ix].state == State::Open {
            self.finish_client(ix, CloseReason::UpstreamLost);
        }
        self.client_changed(ix);
    }
}

/// A name that Redis takes: it refuses blanks, control characters and what is not ASCII.
fn cleaned(mut name: Vec<u8>) -> Vec<u8> {
    for byte in &mut name {
        if !byte.is_ascii_graphic() {
            *byte = b'_';
        }
    }
    name
}

/// Where the proxy's own commands are answered for a client with an own link.
fn place(command: LocalCommand, not_here: bool) -> Place {
    match command {
        LocalCommand::Quit => Place::Upstream,
        // Redis executes it inside a transaction too.
        LocalCommand::Reset => Place::HereInTurn,
        _ if not_here => Place::Upstream,
        LocalCommand::Ping
        | LocalCommand::Echo
        | LocalCommand::Hello
        | LocalCommand::Auth
        | LocalCommand::Select
        | LocalCommand::Info
        | LocalCommand::Readonly
        | LocalCommand::Readwrite
        | LocalCommand::Asking
        | LocalCommand::Cluster => Place::Upstream,
        LocalCommand::ClientId
        | LocalCommand::ClientSetname
        | LocalCommand::ClientGetname
        | LocalCommand::ClientSetinfo
        | LocalCommand::ClientInfo
        | LocalCommand::ClientList
        | LocalCommand::ClientKill
        | LocalCommand::ClientUnblock
        | LocalCommand::ClientNoEvict
        | LocalCommand::ClientNoTouch
        | LocalCommand::ClientReply
        | LocalCommand::Nearcache => Place::HereInTurn,
    }
}
