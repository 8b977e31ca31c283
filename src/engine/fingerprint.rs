//! One number for what an engine will do next, so that a search over runs can tell a state it has seen.
//!
//! In it: what each client has sent, is owed and waits for; what each link is to send and owes to whom; what is kept, in
//! the order of recency; the fetches under way, who waits for them and which hold a mark; who waits for a place or for
//! Redis; the state of tracking, the PINGs and pushes under way, the barriers, what waits aside. Names are those of
//! places: fetches count by age, slots from the front of their client, connections by their place in the table. Not in
//! it: counters, generations, numbers that only CLIENT ID shows; clocks, timers and deadlines (an entry counts while it
//! is alive); what follows from the rest (`outstanding`, the parsers' states, places taken). Where an age decides (the
//! lease, joins, entries without tracking) it counts in tenths of the staleness bound, up to the bound.
//!
//! So two engines with equal fingerprints answer the same calls alike for as long as no time passes, or time passes in
//! steps of tenths of the bound and all timers but those of entries come due in each. Nothing here is
//! used while serving. Cost: O(everything).
#![forbid(unsafe_code)]

use super::coherence::Waiting;
use super::{ConnId, Engine, Place};
use crate::cache::Content;
use crate::client::{Client, Framing, Slot};
use crate::fetch::Waiter;
use crate::link::{Arrival, Link, Owed};
use crate::time::Time;
use crate::tracking::State;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// In place of a connection that is gone: nobody hears what is sent to it.
const GONE: u32 = u32::MAX;

impl Engine {
    /// The fingerprint. Take all outputs first: they are not in it.
    pub fn fingerprint(&self) -> u64 {
        debug_assert!(self.outputs.is_empty(), "outputs are part of the state too");
        let mut out = DefaultHasher::new();
        (self.draining, self.closing).hash(&mut out);
        for (place, client) in &self.clients {
            place.hash(&mut out);
            self.hash_client(client, &mut out);
        }
        GONE.hash(&mut out);
        for (place, link) in &self.links {
            place.hash(&mut out);
            self.hash_link(link, &mut out);
        }
        GONE.hash(&mut out);
        for (pool, links) in self.pools.iter().chain(&self.own_links.idle) {
            pool.hash(&mut out);
            self.hash_names(links.iter().copied(), &mut out);
        }
        self.hash_kept(&mut out);
        for (_, flight, marked) in self.fetches.iter_by_age() {
            (flight.db, &flight.key, marked).hash(&mut out);
            self.age_name(flight.dispatched).hash(&mut out);
            flight.waiters.len().hash(&mut out);
            for Waiter { client, slot } in &flight.waiters {
                self.slot_name(*client, *slot).hash(&mut out);
            }
        }
        GONE.hash(&mut out);
        self.hash_names(self.admission.queue(), &mut out);
        self.hash_tracking(&mut out);
        self.upstream.state_name().hash(&mut out);
        (&self.upstream.version, self.upstream.db_known).hash(&mut out);
        self.hash_names(self.upstream.waiting.iter().copied(), &mut out);
        out.finish()
    }

    /// The rest of the fingerprint where commands may read several keys from what is kept: which entries are settled (rule
    /// L14), and what was missed.
    pub fn fingerprint_of_snapshots(&self) -> u64 {
        let mut out = DefaultHasher::new();
        let rounds = self.upstream.barrier_rounds;
        for (db, key) in self.cache.iter_recent() {
            let stamp = self.cache.stamp(db, key, self.hasher.hash(key), self.now);
            let since = stamp.map(|stamp| self.tracking.unsettled_for(stamp.ping, rounds));
            since.hash(&mut out);
        }
        if rounds > 1 {
            self.tracking
                .rounds_behind()
                .for_each(|behind| behind.hash(&mut out));
        }
        GONE.hash(&mut out);
        self.missed.iter().for_each(|miss| miss.hash(&mut out));
        out.finish()
    }

    fn hash_client(&self, client: &Client, out: &mut DefaultHasher) {
        (client.port, client.state, client.hold).hash(out);
        (client.admitted, client.waited_in_vain, client.peer_closed).hash(out);
        (client.flush_listed, client.ready_listed).hash(out);
        client.authenticated.hash(out);
        (client.version, client.db, client.mute, &client.extras).hash(out);
        client.inbox.readable().hash(out);
        if let Framing::Upload(stream) = &client.framing {
            stream.hash(out);
        }
        client.outbox.to_vec().hash(out);
        client.owed.len().hash(out);
        for Slot {
            done,
            lost,
            muted,
            early,
            render,
        } in client.owed.iter()
        {
            (done, lost, muted, early.to_vec(), render).hash(out);
        }
        client.link.map(|link| self.name(link)).hash(out);
        client.own.map(|link| self.name(link)).hash(out);
    }

    fn hash_link(&self, link: &Link, out: &mut DefaultHasher) {
        (link.role, link.state, link.flush_listed, link.reply_begun).hash(out);
        (link.retiring, link.holding, link.paused, link.value_left).hash(out);
        link.outbox.to_vec().hash(out);
        (&link.collected, &link.touched).hash(out);
        link.owed.len().hash(out);
        for owed in &link.owed {
            self.hash_owed(owed, out);
        }
        self.hash_names(link.waiting.iter().copied(), out);
        if let Some(own) = &link.own {
            own.client.map(|client| self.name(client)).hash(out);
            (&own.session, &own.deeds, own.taken, own.tunnel).hash(out);
            for held in &own.held {
                (held.barrier.is_some(), &held.bytes).hash(out);
                match &held.what {
                    Arrival::Reply(owed) | Arrival::Part(owed) => self.hash_owed(owed, out),
                    Arrival::Message => GONE.hash(out),
                }
            }
        }
    }

    fn hash_owed(&self, owed: &Owed, out: &mut DefaultHasher) {
        let to = owed.to.map(|(client, slot)| self.slot_name(client, slot));
        (to, owed.purpose, owed.touch, owed.poison, owed.counted).hash(out);
        owed.unit.hash(out);
    }

    fn hash_kept(&self, out: &mut DefaultHasher) {
        let ages = matches!(self.tracking.state(), State::Unavailable(_));
        let [down, lapsed] = self.aside.parts();
        for cache in [&self.cache, down, lapsed] {
            for (db, key) in cache.iter_recent() {
                let hash = self.hasher.hash(key);
                let Some(content) = cache.peek(db, key, hash, self.now) else {
                    continue;
                };
                let value = match content {
                    Content::Value(value) => Some(Some(value.value())),
                    Content::Missing => Some(None),
                    Content::TooLarge => None,
                };
                (db, key, value).hash(out);
                if let (true, Some(stamp)) = (ages, cache.stamp(db, key, hash, self.now)) {
                    self.age_name(stamp.stored_at).hash(out);
                }
            }
            GONE.hash(out);
        }
        if !self.aside.is_empty() {
            self.age_name(self.known_since).hash(out);
        }
        for check in self.verify.parts(self.tracking.newest_answered()) {
            check.hash(out);
        }
    }

    fn hash_tracking(&self, out: &mut DefaultHasher) {
        (self.coherence as u8, self.tracking.state()).hash(out);
        self.tracking.pushes.hash(out);
        for sent_at in self.tracking.pings() {
            self.age_name(sent_at).hash(out);
        }
        GONE.hash(out);
        let lease = self.hits_until.since(self.now);
        (self.now < self.hits_until, self.tenths(lease)).hash(out);
        if let Some(control) = self.upstream.control().and_then(|id| self.link_index(id)) {
            let sent = self.links[control].sent_bytes;
            (control, self.tracking.unsent_ping(sent).is_some()).hash(out);
        }
        let answered = self.tracking.newest_answered();
        for (needs, rounds_left, what) in self.barriers.iter(answered) {
            (needs, rounds_left).hash(out);
            match what {
                Waiting::Reply(owed, reply) => {
                    reply.hash(out);
                    self.hash_owed(owed, out);
                }
                // Which of the things held there it is follows from their order.
                Waiting::Link(link, _) => self.name(*link).hash(out),
            }
        }
        GONE.hash(out);
    }

    /// How long ago it was.
    fn age_name(&self, at: Time) -> u128 {
        self.tenths(self.now.since(at))
    }

    fn tenths(&self, span: Duration) -> u128 {
        let tenth = (self.config.staleness_bound.as_micros() / 10).max(1);
        ((span.as_micros() + tenth / 2) / tenth).min(11)
    }

    fn hash_names(&self, ids: impl Iterator<Item = ConnId>, out: &mut DefaultHasher) {
        for id in ids {
            self.name(id).hash(out);
        }
        GONE.hash(out);
    }

    /// The place of a connection, while it is there.
    fn name(&self, id: ConnId) -> u32 {
        let (Place::Client(place) | Place::Link(place)) = id.place;
        let lives = self.client_index(id).is_some() || self.link_index(id).is_some();
        if lives { place } else { GONE }
    }

    /// The client, and which of the replies owed to it.
    fn slot_name(&self, client: ConnId, slot: u64) -> (u32, u64) {
        match self.client_index(client) {
            Some(ix) => (
                self.name(client),
                slot.wrapping_sub(self.clients[ix].owed.front_number()),
            ),
            None => (GONE, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::engine::{ConnId, Engine, Origin, Port};
    use crate::time::Time;
    use std::net::{Ipv4Addr, SocketAddr};

    fn engine() -> Engine {
        let origin = Origin {
            seed: [1; 4],
            now: Time::from_millis(1),
            unix_secs: 0,
            pid: 1,
            host: "here",
        };
        let mut engine = Engine::new(Config::default(), origin);
        while engine.poll_output().is_some() {}
        engine
    }

    fn open(engine: &mut Engine) -> ConnId {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        engine.open(Port::Resp, peer).expect("there is room")
    }

    fn say(engine: &mut Engine, id: ConnId, text: &[u8]) -> u64 {
        engine.recv_slice(id)[..text.len()].copy_from_slice(text);
        engine.received(id, text.len());
        while engine.poll_output().is_some() {}
        engine.fingerprint()
    }

    #[test]
    fn it_tells_what_will_matter_and_nothing_else() {
        let mut one = engine();
        let mut two = one.clone();
        assert_eq!(one.fingerprint(), two.fingerprint());
        // A place used before differs in its generation and in what was counted.
        let first = open(&mut two);
        two.failed(first, "gone");
        while two.poll_output().is_some() {}
        assert_eq!(one.fingerprint(), two.fingerprint());
        let (a, b) = (open(&mut one), open(&mut two));
        assert_eq!(one.fingerprint(), two.fingerprint());
        let half = say(&mut one, a, b"GET k");
        assert_ne!(half, two.fingerprint(), "a part of a request");
        let miss = say(&mut one, a, b"\r\n");
        assert_ne!(miss, half, "a fetch under way");
        assert_eq!(say(&mut two, b, b"GET k\r\n"), miss, "however it was cut");
        assert_ne!(say(&mut two, b, b"GET k\r\n"), miss, "one who joins");
    }
}
