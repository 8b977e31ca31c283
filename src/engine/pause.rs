//! Replies that are longer than is kept for a client: its link is not read while the client does not read.
//!
//! Only a link on which nobody else waits is ever paused. A shared one is set apart first: no further command of anybody
//! else goes there, and once those that went before are answered it is the client's alone. Until then it is read on, and
//! a client that is owed more than `OUTBOX_MAX_BYTES` meanwhile is closed. What comes without being asked for
//! (messages) cannot be held back and is bounded by the outbox alone.
//! Invariant: a paused link has a client with a long outbox, and when enough of that has left the link is read again. What
//! waits for the reply on that very link does not count: it leaves behind it.
//! Costs: one comparison per read of a link; a walk over what a link owes per read while a client of it is behind.
#![forbid(unsafe_code)]

use super::relay::{Relayed, Scope};
use super::{ConnId, Engine, OUTBOX_HIGH_BYTES, OUTBOX_LOW_BYTES, Output};
use crate::client::Hold;
use crate::engine::clients::Handled;
use crate::link::Role;
use crate::session::Deed;

/// Bytes of pushes handled in a turn, some 350 keys, 910 at most. To forget one takes about a microsecond when a million
/// are kept and none of them is in the CPU's caches, so a push of 100,000 keys holds nobody up for more than a
/// millisecond. What is still in the socket has not been heard: hits are bound by the lease, whose PONG comes behind it.
pub const PUSH_BYTES_MAX: usize = 8 * 1024;

impl Engine {
    /// Where a link's next bytes go; nowhere while its client has enough to read.
    #[inline]
    pub(super) fn link_recv_slice(&mut self, id: ConnId) -> &mut [u8] {
        let Some(ix) = self.link_index(id) else {
            return &mut [];
        };
        let paused = match self.reader_behind(ix) {
            Some(client) => self.is_to_pause(ix, client),
            None => false,
        };
        self.links[ix].paused = paused;
        if paused {
            return &mut [];
        }
        match self.links[ix].role {
            Role::Control => {
                let len = self.scratch.len().min(PUSH_BYTES_MAX);
                &mut self.scratch[..len]
            }
            _ => &mut self.scratch,
        }
    }

    /// The client that what arrives on the link is for, if it has enough to read.
    #[inline]
    fn reader_behind(&self, link: usize) -> Option<ConnId> {
        let (client, _) = self.links[link].owed.front()?.to?;
        let ix = self.client_index(client)?;
        // Not what waits behind this very reply: it cannot leave before it.
        (self.clients[ix].outbox.len() >= OUTBOX_HIGH_BYTES).then_some(client)
    }

    #[cold]
    fn is_to_pause(&mut self, ix: usize, client: ConnId) -> bool {
        let link = &self.links[ix];
        match (link.role, &link.own) {
            (Role::OneShot(_), _) => true,
            (Role::Own(_), Some(own)) => own.tunnel.is_none() && !own.session.is_subscribed(),
            (Role::Shared(pool), _) => {
                // Not when connections run short: those that are set apart are not there for others.
                let spare = self.links.len() - self.own_links.count < self.config.links_max / 2;
                if !link.retiring && spare {
                    let id = link.id;
                    self.links[ix].retiring = true;
                    if let Some(links) = self.pools.get_mut(&pool) {
                        links.retain(|listed| *listed != id);
                    }
                }
                let link = &self.links[ix];
                let is_its =
                    |to: Option<(ConnId, u64)>| to.is_none_or(|(other, _)| other == client);
                link.retiring && link.owed.iter().all(|owed| is_its(owed.to))
            }
            (Role::Own(_) | Role::Control, _) => false,
        }
    }

    /// The client has read, or is gone: its link is read again if it was paused.
    pub(super) fn resume_link(&mut self, link: Option<ConnId>, bytes_to_send: usize) {
        let Some(ix) = link.and_then(|link| self.link_index(link)) else {
            return;
        };
        let link = &mut self.links[ix];
        if link.paused && bytes_to_send < OUTBOX_LOW_BYTES {
            link.paused = false;
            // It was not silent: nobody listened.
            link.heard = self.now;
            self.outputs.push_back(Output::Ready(link.id));
        }
    }

    /// A read whose reply is known to be long goes on a link of the client's own.
    pub(super) fn relay_long(&mut self, ix: usize, command: Relayed<'_>) -> Handled {
        debug_assert_eq!(command.touch, Scope::Keys, "a read names its keys");
        if self.clients[ix].own.is_none()
            && let Err(handled) = self.take_own_link(ix, None)
        {
            return handled;
        }
        let Some(link) = self.own_link(ix) else {
            return Handled::Done;
        };
        self.dispatch_own(ix, link, command, Deed::Nothing);
        Handled::Done
    }

    /// Rule L4: a move to an own link happens with nothing outstanding.
    pub(super) fn waits_to_move(&mut self, ix: usize) -> bool {
        let client = &mut self.clients[ix];
        if client.relayed == 0 && client.fetching == 0 {
            return false;
        }
        client.hold = if client.relayed > 0 {
            Hold::Relays
        } else {
            Hold::OwnFetch
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{NewContent, Put};
    use crate::config::Config;
    use crate::engine::{Origin, Place};
    use crate::stats::Counter;
    use crate::time::Time;
    use std::time::Duration;

    #[test]
    fn a_push_of_a_hundred_thousand_keys_is_handled_in_small_portions() {
        const KEYS: usize = 100_000;
        let now = Time::from_millis(1);
        let origin = Origin {
            seed: [1; 4],
            now,
            unix_secs: 0,
            pid: 1,
            host: "here",
        };
        let mut engine = Engine::new(Config::default(), origin);
        let mut push = format!(">2\r\n$10\r\ninvalidate\r\n*{KEYS}\r\n").into_bytes();
        for n in 0..KEYS {
            // As short as so many can be.
            let key = format!("{n:05}");
            push.extend_from_slice(format!("$5\r\n{key}\r\n").as_bytes());
            let put = Put {
                db: 0,
                key: key.as_bytes(),
                hash: engine.hasher.hash(key.as_bytes()),
                content: NewContent::Value(b"v"),
                stored_at: now,
                deadline: now + Duration::from_secs(60),
                tag: 0,
                ping: 0,
            };
            assert!(engine.cache.put(put, now).kept);
        }
        let id = engine.invalidation_link().expect("it connects at once");
        assert!(matches!(id.place, Place::Link(_)));
        let mut at = 0;
        while at < push.len() {
            let portion = engine.recv_slice(id).len().min(push.len() - at);
            assert!(portion > 0 && portion <= PUSH_BYTES_MAX);
            let before = engine.stats.get(Counter::Invalidations);
            let used = engine.read_push(id, &push[at..at + portion]);
            assert_eq!(used, Some(portion));
            let forgotten = engine.stats.get(Counter::Invalidations) - before;
            assert!(forgotten <= 910, "{forgotten} keys in one portion");
            at += portion;
        }
        assert_eq!(engine.stats.get(Counter::Invalidations), KEYS as u64);
        assert!(engine.cache.is_empty());
        assert!(!engine.tracking.pushes.is_reading());
    }
}
