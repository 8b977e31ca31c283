//! Connections on which replies cannot be told from what else comes: MONITOR, a replica's, and one that subscribed
//! inside a transaction. Bytes pass both ways as they come until one side closes or the client says RESET.
//!
//! Since nobody knows which command a byte answers, everything kept is dropped before any byte is passed on, once a
//! command went in that may read or write keys.
#![forbid(unsafe_code)]

use super::Engine;
use crate::client::Hold;
use crate::command::{LocalCommand, StateKind, Way};
use crate::engine::clients::Handled;
use crate::engine::forget::Flush;
use crate::link::Tunnel;
use crate::protocol::resp::request::Request;
use crate::session::Deed;

impl Engine {
    /// Whether the reply to the command has no end.
    pub(super) fn is_to_tunnel(&self, kind: StateKind, request: &Request<'_>) -> bool {
        match kind {
            StateKind::Monitor => true,
            StateKind::Replication => {
                let name = self.table.find(request.args()).name();
                matches!(name, "sync" | "psync")
            }
            _ => false,
        }
    }

    /// From this command on, once everything before it is answered.
    pub(super) fn begin_tunnel(
        &mut self,
        ix: usize,
        link: usize,
        request: &Request<'_>,
    ) -> Handled {
        if self.clients[ix].relayed > 0 {
            self.clients[ix].hold = Hold::Relays;
            return Handled::Held;
        }
        // Redis refuses SYNC while it has anything to say, such as what it answers to the beginning of the connection.
        if !self.links[link].owed.is_empty() {
            self.clients[ix].hold = Hold::Link;
            let client = self.clients[ix].id;
            self.links[link].waiting.push(client);
            return Handled::Held;
        }
        self.enter_tunnel(link, Tunnel { forgets: false });
        self.append_raw(link, request.bytes());
        Handled::Done
    }

    fn enter_tunnel(&mut self, link: usize, tunnel: Tunnel) {
        let own = self.own_of(link);
        own.tunnel = Some(tunnel);
        own.session.answered(&Deed::Last, b"+OK\r\n");
    }

    fn append_raw(&mut self, link: usize, bytes: &[u8]) {
        self.links[link].outbox.append(bytes, &mut self.pool);
        self.flush_link(link);
    }

    /// A command of a client whose replies are not told apart any more.
    pub(super) fn send_into_tunnel(
        &mut self,
        ix: usize,
        link: usize,
        request: &Request<'_>,
        way: Way,
    ) -> Handled {
        if self.link_is_full(ix, link) {
            return Handled::Held;
        }
        let harmless = matches!(
            way,
            Way::OwnLink(StateKind::Monitor | StateKind::Replication)
                | Way::Local(LocalCommand::Ping | LocalCommand::Quit)
        );
        if let Some(tunnel) = &mut self.own_of(link).tunnel {
            tunnel.forgets |= !harmless;
        }
        self.append_raw(link, request.bytes());
        Handled::Done
    }

    /// Whether a reply begins with `first` that cannot be told from what follows it: that of a transaction in which the
    /// client subscribed, turned its replies off, or did more to the connection than is remembered.
    pub(super) fn begins_to_tunnel(&mut self, link: usize, first: u8) -> bool {
        let own = self.own_of(link);
        let confuses = own.session.block().is_some_and(|block| block.confuses);
        let is_exec = confuses && first == b'*' && own.deeds.front() == Some(&Deed::Exec);
        if !is_exec || self.links[link].reply_begun {
            return false;
        }
        let id = self.links[link].id;
        self.poison_all(Flush::Command);
        self.release_held(id);
        if self.link_index(id).is_none() {
            return true;
        }
        self.own_of(link).deeds.clear();
        self.enter_tunnel(link, Tunnel { forgets: true });
        self.links[link].touched.clear();
        // What comes next is what they are answered with, in their order.
        for owed in std::mem::take(&mut self.links[link].owed) {
            self.settle_relayed(None, &owed);
        }
        true
    }
}
