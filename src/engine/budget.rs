//! `BUFFERS_MAX_BYTES`: what all clients and links together may hold of what was received and is to be sent.
//!
//! The pools count every block as it is taken and given back, so the sum is always known. From half of the budget on the
//! cache gives up as much of its room as the buffers have beyond that, so the process grows no further (entries go before
//! anybody suffers). From three quarters on the clients that hold most are *paused*: nothing more is read from them and
//! none of their commands begun, while what they are owed is still sent. Who is paused for `QUEUE_WAIT_MS` without having
//! taken anything, while the buffers stay above half, is closed with a reason. At the whole budget those that hold most
//! are closed at once, until an eighth of it is free. Below half everything is as it was.
//!
//! An allocator keeps what is freed below something that is not. So once the buffers have held more than [`TRIM_BYTES`]
//! and no longer hold half of that, the shell is asked, once, to give the process's free memory back to the system.
//!
//! It never looks at a client that holds nothing: who asks and reads, or sends what is answered, is not touched.
//! Invariant: while anybody is paused, a timer runs that looks again.
//! Costs: a comparison for each read; looking at all clients once for each [`STEPS`]th of the budget that is added.
#![forbid(unsafe_code)]

use super::timers::Timer;
use super::{ConnId, Engine, Output, Port};
use crate::cache::Limits;
use crate::client::{CloseReason, Hold, State};
use crate::link::Role;
use crate::protocol::resp::write;
use crate::stats::Counter;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::warn;

/// So many looks between nothing and the whole budget.
const STEPS: usize = 64;
const FULL_RESP: &[u8] = b"ERR nearcache: the memory for all that is received and sent is used up";
const FULL_HTTP: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
X-Content-Type-Options: nosniff\r\nContent-Length: 27\r\nCache-Control: no-store\r\nRetry-After: 1\r\n\
Connection: close\r\n\r\nout of memory for requests\n";

/// Buffers that have held so much leave memory behind that is worth giving back.
const TRIM_BYTES: usize = 16 << 20;
/// How often it is looked whether they hold it no longer.
const TRIM_PERIOD: Duration = Duration::from_secs(1);

/// How far the buffers are from their limit, as it was seen last.
#[derive(Debug, Clone)]
pub(super) struct Strain {
    /// Whether they were above half of the budget.
    is_on: bool,
    /// With more bytes than this they are looked at again.
    next_look: usize,
    /// Runs while what they held is to be given back.
    trim_timer: Option<u32>,
    /// Bytes of the cache's room that it has given up.
    lent_bytes: usize,
    /// Clients paused.
    paused: usize,
    timer: Option<u32>,
    /// Whether the log has been told since the buffers were below half.
    is_said: bool,
}

impl Strain {
    /// Nothing is held. `max`: the budget.
    pub(super) fn new(max: usize) -> Strain {
        Strain {
            is_on: false,
            next_look: TRIM_BYTES.min(max / 2),
            trim_timer: None,
            lent_bytes: 0,
            paused: 0,
            timer: None,
            is_said: false,
        }
    }
}

impl Engine {
    /// Bytes that all buffers hold.
    #[inline]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.pool.in_use_bytes() + self.inbox_pool.in_use_bytes()
    }

    /// Clients paused now.
    pub(super) fn paused_clients(&self) -> usize {
        self.strain.paused
    }

    /// Buffers may have grown.
    #[inline]
    pub(super) fn buffers_grew(&mut self) {
        if self.buffer_bytes() > self.strain.next_look {
            self.relieve_buffers();
        }
    }

    /// Buffers may have shrunk.
    #[inline]
    pub(super) fn buffers_shrank(&mut self) {
        if self.strain.is_on && self.buffer_bytes() < self.config.buffers_max_bytes / 2 {
            self.end_strain();
        }
    }

    #[cold]
    #[inline(never)]
    fn relieve_buffers(&mut self) {
        let max = self.config.buffers_max_bytes;
        if self.strain.trim_timer.is_none() {
            let deadline = self.now + TRIM_PERIOD;
            self.strain.trim_timer = Some(self.timers.set(deadline, Timer::Trim));
        }
        if self.buffer_bytes() <= max / 2 {
            self.strain.next_look = max / 2;
            return;
        }
        // The fetch that finds a value too large to keep holds it whole, and is no fault of its readers. One is let pass.
        let spared = self.pool.largest_loose_bytes();
        let used = self.buffer_bytes() - spared;
        self.strain.is_on = true;
        if used <= max / 2 {
            self.strain.next_look = self.buffer_bytes() + max / STEPS;
            return;
        }
        self.borrow_from_cache(used - max / 2);
        if used >= max {
            self.close_greediest(used - (max - max / 8));
        } else if used >= max - max / 4 {
            self.pause_greediest(used - max / 2);
        }
        let next = self.buffer_bytes() + max / STEPS;
        self.strain.next_look = next.min(max + spared);
        self.buffers_shrank();
    }

    /// Limits of the cache without what it has given up.
    pub(super) fn cache_limits(&self) -> Limits {
        Limits {
            keys_max: self.config.cache_capacity,
            bytes_max: self.config.cache_max_bytes - self.strain.lent_bytes,
        }
    }

    /// Another `CACHE_MAX_BYTES`: what it gives up is at most half of it.
    pub(super) fn recount_lent_room(&mut self) {
        self.strain.lent_bytes = self.strain.lent_bytes.min(self.config.cache_max_bytes / 2);
    }

    fn borrow_from_cache(&mut self, bytes: usize) {
        let bytes = bytes.min(self.config.cache_max_bytes / 2);
        if bytes > self.strain.lent_bytes {
            self.strain.lent_bytes = bytes;
            self.set_cache_limits(self.cache_limits());
        }
    }

    /// Who holds how much, most first: the client's own memory and that of the link that is only for it.
    fn by_greed(&self) -> Vec<(usize, ConnId)> {
        let held = |id: usize| {
            let client = &self.clients[id];
            let links = [client.own, client.link];
            let only_its = |link: &ConnId| {
                let link = &self.links[self.link_index(*link)?];
                let shared = matches!(link.role, Role::Shared(_) | Role::Control);
                (!shared).then(|| link.outbox.memory() + link.collected_bytes)
            };
            let link = links.iter().flatten().find_map(only_its);
            client.memory() + link.unwrap_or(0)
        };
        let mut list: Vec<(usize, ConnId)> = self
            .clients
            .iter()
            .map(|(ix, client)| (held(ix), client.id))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        list.sort_unstable_by_key(|(bytes, id)| (Reverse(*bytes), *id));
        list
    }

    /// Pauses those that hold most, until all who are paused hold `bytes`.
    fn pause_greediest(&mut self, bytes: usize) {
        let mut held = 0;
        let mut paused = 0;
        for (client_bytes, id) in self.by_greed() {
            if held >= bytes {
                break;
            }
            held += client_bytes;
            if let Some(ix) = self.client_index(id)
                && self.clients[ix].state == State::Open
                && !self.clients[ix].paused
            {
                // Its command waits from here on, so a place that it has is for others.
                self.leave_admission(ix);
                self.clients[ix].paused = true;
                self.stats.count(Counter::ClientsPaused);
                self.strain.paused += 1;
                paused += 1;
            }
        }
        if self.strain.timer.is_none() && self.strain.paused > 0 {
            let deadline = self.now + self.config.queue_wait;
            self.strain.timer = Some(self.timers.set(deadline, Timer::Buffers));
        }
        if paused > 0 {
            self.say_strain("those that hold most are paused");
        }
    }

    fn say_strain(&mut self, what: &str) {
        if std::mem::replace(&mut self.strain.is_said, true) {
            return;
        }
        warn!(
            bytes = self.buffer_bytes(),
            buffers_max_bytes = self.config.buffers_max_bytes,
            "buffers are near BUFFERS_MAX_BYTES, {what}"
        );
    }

    /// Closes those that hold most, until `bytes` of theirs are free.
    fn close_greediest(&mut self, bytes: usize) {
        self.strain.is_said = false;
        self.say_strain("those that hold most are closed");
        let wanted = self.buffer_bytes().saturating_sub(bytes);
        for (_, id) in self.by_greed() {
            if self.buffer_bytes() <= wanted {
                return;
            }
            self.close_for_room(id);
        }
        // What is left is to be sent on connections that several clients share, and Redis does not take it.
        while self.buffer_bytes() > wanted {
            let fullest = self
                .links
                .iter()
                .max_by_key(|(_, link)| link.outbox.memory());
            let Some((_, link)) = fullest.filter(|(_, link)| link.outbox.memory() > 0) else {
                return;
            };
            self.link_lost(link.id, "Redis takes nothing, and the memory is used up");
        }
    }

    /// Closes a client and the link that is only for it.
    fn close_for_room(&mut self, id: ConnId) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        self.stats.count(Counter::BuffersFull);
        let link = self.clients[ix].link;
        let client = &mut self.clients[ix];
        let listens = client.state == State::Open
            && client.outbox.is_empty()
            && client.owed.is_empty()
            && client.own.is_none();
        if listens {
            match client.port {
                Port::Resp => client.reply_with(&mut self.pool, |out| write::error(out, FULL_RESP)),
                Port::Http | Port::Admin | Port::Probe => client.reply(FULL_HTTP, &mut self.pool),
            }
            self.finish_client(ix, CloseReason::BuffersFull);
            self.client_changed(ix);
        } else {
            self.close_client(ix, CloseReason::BuffersFull);
        }
        if let Some(link) = link
            && matches!(self.link_role(link), Some(Role::OneShot(_)))
        {
            self.link_lost(link, "its client was closed for room");
        }
    }

    /// Time to look at those that are paused.
    pub(super) fn buffers_timer_fired(&mut self) {
        self.strain.timer = None;
        let patience = self.config.queue_wait;
        for (_, id) in self.by_greed() {
            if self.buffer_bytes() < self.config.buffers_max_bytes / 2 {
                break;
            }
            let idle = |ix: &usize| {
                let client = &self.clients[*ix];
                client.paused && client.active + patience <= self.now
            };
            if self.client_index(id).filter(idle).is_some() {
                self.close_for_room(id);
            }
        }
        if self.strain.paused > 0 {
            let timer = self.timers.set(self.now + patience, Timer::Buffers);
            self.strain.timer = Some(timer);
        }
        self.buffers_shrank();
    }

    /// Time to look whether what the buffers held can be given back.
    pub(super) fn trim_timer_fired(&mut self) {
        self.strain.trim_timer = None;
        if self.buffer_bytes() > TRIM_BYTES / 2 {
            let timer = self.timers.set(self.now + TRIM_PERIOD, Timer::Trim);
            self.strain.trim_timer = Some(timer);
            return;
        }
        self.outputs.push_back(Output::Trim);
        if !self.strain.is_on {
            self.strain = Strain::new(self.config.buffers_max_bytes);
        }
    }

    /// Below half: who was paused goes on, the cache has all its room again.
    #[cold]
    fn end_strain(&mut self) {
        let lent = self.strain.lent_bytes;
        if let Some(timer) = self.strain.timer {
            self.timers.cancel(timer);
        }
        let was_paused = self.strain.paused > 0;
        let trim_timer = self.strain.trim_timer;
        self.strain = Strain::new(self.config.buffers_max_bytes);
        self.strain.trim_timer = trim_timer;
        if lent > 0 {
            self.set_cache_limits(self.cache_limits());
        }
        if !was_paused {
            return;
        }
        let paused = self.clients.iter().filter(|(_, client)| client.paused);
        let ids: Vec<ConnId> = paused.map(|(_, client)| client.id).collect();
        for id in ids {
            if let Some(ix) = self.client_index(id) {
                self.clients[ix].paused = false;
                if self.clients[ix].hold == Hold::None {
                    self.list_ready(ix);
                }
            }
        }
    }

    /// A client that may have been paused is closed, or will begin nothing more.
    pub(super) fn unpause(&mut self, ix: usize) {
        if std::mem::take(&mut self.clients[ix].paused) {
            self.strain.paused -= 1;
        }
    }

    /// What the link at this place keeps of a reply that must be seen whole is counted anew.
    pub(super) fn recount_collected(&mut self, ix: usize) {
        let link = &mut self.links[ix];
        let held = link.collected.capacity();
        self.pool.recount(link.collected_bytes, held);
        link.collected_bytes = held;
    }

    /// Panics where an invariant does not hold.
    pub(super) fn check_buffers(&self) {
        let mut values = BTreeMap::new();
        let (mut inboxes, mut outboxes, mut paused) = (0, 0, 0);
        for (_, client) in &self.clients {
            inboxes += client.inbox.capacity();
            paused += usize::from(client.paused);
            outboxes += client.outbox.held_bytes(&mut values);
            for slot in client.owed.iter() {
                outboxes += slot.early.held_bytes(&mut values);
            }
        }
        for (_, link) in &self.links {
            outboxes += link.outbox.held_bytes(&mut values) + link.collected_bytes;
        }
        outboxes += values.values().sum::<usize>();
        assert_eq!(self.inbox_pool.in_use_bytes(), inboxes, "bytes of inboxes");
        assert_eq!(self.pool.in_use_bytes(), outboxes, "bytes of outboxes");
        assert_eq!(self.strain.paused, paused, "clients paused");
        assert!(
            self.strain.trim_timer.is_some() || self.strain.next_look <= TRIM_BYTES,
            "much was held and nobody will give it back"
        );
        assert!(
            paused == 0 || self.strain.timer.is_some(),
            "somebody is paused and nobody will look"
        );
    }
}
