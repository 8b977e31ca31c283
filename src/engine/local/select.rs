//! SELECT: which database a client's commands work in.
//!
//! Redis knows how many there are, the proxy learns it by asking: the first SELECT of a number goes upstream, on a link
//! of its own, and the client waits for the answer. What was once accepted is answered here from then on, so a pool of
//! connections costs Redis one SELECT and not one for each.
#![forbid(unsafe_code)]

use crate::client::Hold;
use crate::engine::Engine;
use crate::engine::clients::Handled;
use crate::engine::relay::{Relayed, Road, Scope};
use crate::link::{Owed, Poison, Purpose};
use crate::protocol::resp::number;
use crate::protocol::resp::request::Request;

impl Engine {
    pub(super) fn select(&mut self, ix: usize, db: &[u8], request: &Request<'_>) -> Handled {
        let number = number::parse(db).and_then(|number| u32::try_from(number).ok());
        if let Some(number) = number
            && number <= self.upstream.db_known.max(self.config.redis_url.db)
        {
            self.clients[ix].db = number;
            self.clients[ix].reply(b"+OK\r\n", &mut self.pool);
            return Handled::Done;
        }
        self.touch.clear();
        let command = Relayed {
            frame: request.bytes(),
            touch: Scope::Keys,
            poison: Poison::Never,
            // What is no number of a database is relayed for Redis's words about it.
            purpose: number.map_or(Purpose::Pass, Purpose::Select),
            unit: None,
        };
        let handled = self.relay(ix, command, Road::OneShot, None);
        if self.clients[ix].relayed > 0 {
            // What follows belongs to the old database or to the new one: the answer tells.
            self.clients[ix].hold = Hold::Relays;
        }
        handled
    }

    /// Redis's answer to a SELECT.
    pub(in crate::engine) fn selected(&mut self, owed: &Owed, db: u32, reply: &[u8]) {
        if reply.starts_with(b"+OK") {
            self.upstream.db_known = self.upstream.db_known.max(db);
            if let Some(ix) = owed.to.and_then(|(client, _)| self.client_index(client)) {
                self.clients[ix].db = db;
            }
        }
        self.pass(owed, reply);
    }
}
