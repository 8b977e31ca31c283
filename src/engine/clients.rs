//! The life of a client: opened, read, served, written, held, closed.
#![forbid(unsafe_code)]

use super::address::Address;
use super::share::Share;
use super::straight::Receiving;
use super::timers::Timer;
use super::{ConnId, Engine, OUTBOX_HIGH_BYTES, OUTBOX_LOW_BYTES, Output, Place, Port, READ_BYTES};
use crate::client::{Client, CloseReason, Hold, Peer, Render, Slot, State};
use crate::stats::Counter;
use crate::time::Time;
use std::net::SocketAddr;
use std::time::Duration;
use tracing::{debug, warn};

/// How long a connection that was ended by us is kept for the peer to read the last reply.
const LINGER: Duration = Duration::from_secs(2);
const REFUSAL_RESP: &[u8] = b"-ERR max number of clients reached\r\n";
const REFUSAL_HTTP: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
X-Content-Type-Options: nosniff\r\nContent-Length: 34\r\nCache-Control: no-store\r\nRetry-After: 1\r\n\
Connection: close\r\n\r\nmax number of clients reached now\n";

/// Who was still connected when the time to drain was nearly over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Had nothing under way: closed.
    pub idle: usize,
    /// Waited for data, or for messages: closed.
    pub waiting: usize,
    /// Is owed something, or has sent something: answered, then closed.
    pub busy: usize,
}

/// What became of the request at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handled {
    /// It is answered or under way.
    Done,
    /// It waits; the client's hold says for what.
    Held,
}

impl Engine {
    /// A client was accepted on `port`. `peer` is its address, for CLIENT LIST and the log. `None`: it is one too many;
    /// write what [`Engine::refusal`] says (best effort) and close.
    pub fn open(&mut self, port: Port, peer: impl Into<Peer>) -> Option<ConnId> {
        let (now_open, most) = match port {
            Port::Admin => (self.admin_clients, self.config.admin_clients_max),
            // As many again: strangers on the one port keep nobody from the other.
            Port::Probe => (self.probe_clients, self.config.admin_clients_max),
            Port::Http | Port::Resp => (self.data_clients(), self.config.max_clients),
        };
        if now_open >= most {
            self.stats.count(Counter::ClientsRefused);
            self.note_event(
                "limit",
                format!(
                    "a client was refused on port {}: {most} are open",
                    port.name()
                ),
            );
            return None;
        }
        let entry = self.clients.vacant_entry();
        let index = entry.key();
        if index == self.client_generations.len() {
            self.client_generations.push(0);
        }
        let place =
            Place::Client(u32::try_from(index).expect("clients are bounded by max_clients"));
        let id = ConnId {
            place,
            generation: self.client_generations[index],
        };
        self.clients_opened += 1;
        let db = self.config.redis_url.db;
        entry.insert(Client::new(
            id,
            self.clients_opened,
            port,
            peer.into(),
            db,
            self.now,
        ));
        // An HTTP client says its password with each request. One of the admin port reads no data, so it must not be
        // taken for one whose reads may be hits.
        self.clients[index].authenticated = match port {
            Port::Http => true,
            Port::Resp => !self.demands_password(),
            Port::Admin | Port::Probe => false,
        };
        match port {
            Port::Admin => self.admin_clients += 1,
            Port::Probe => self.probe_clients += 1,
            Port::Http | Port::Resp => self.stats.count(Counter::ClientsOpened),
        }
        if port != Port::Resp {
            let first = self
                .config
                .http_head_timeout
                .min(self.config.http_idle_timeout);
            self.clients[index].timer = Some(self.timers.set(self.now + first, Timer::Client(id)));
        }
        Some(id)
    }

    /// Clients of the data ports.
    pub(super) fn data_clients(&self) -> usize {
        self.clients.len() - self.admin_clients - self.probe_clients
    }

    /// The address on which a client was accepted, for CLIENT LIST.
    pub fn accepted_on(&mut self, id: ConnId, local: SocketAddr) {
        if let Some(ix) = self.client_index(id)
            && Address::Ip(local) != self.local_of(&self.clients[ix])
        {
            self.clients[ix].extras().local = Some(local);
        }
    }

    /// What a client that cannot be taken is told before its socket is closed.
    pub fn refusal(&self, port: Port) -> &'static [u8] {
        match port {
            Port::Http | Port::Admin | Port::Probe => REFUSAL_HTTP,
            Port::Resp => REFUSAL_RESP,
        }
    }

    /// The place of a client in its table, unless the id is stale.
    #[inline]
    pub(super) fn client_index(&self, id: ConnId) -> Option<usize> {
        let Place::Client(index) = id.place else {
            return None;
        };
        let client = self.clients.get(index as usize)?;
        (client.id.generation == id.generation).then_some(index as usize)
    }

    pub(super) fn client_recv_slice(&mut self, id: ConnId) -> &mut [u8] {
        if let Some((_, way)) = self.straight_way(id) {
            self.receiving = Receiving::Straight(way);
            return &mut self.scratch;
        }
        match self.client_index(id) {
            Some(ix) => self.room_behind(ix),
            None => &mut [],
        }
    }

    /// Room for the next bytes of a client that is not at rest.
    fn room_behind(&mut self, ix: usize) -> &mut [u8] {
        let client = &mut self.clients[ix];
        if client.state != State::Open {
            return &mut self.scratch;
        }
        if client.hold != Hold::None || client.ready_listed || client.paused {
            return &mut [];
        }
        if client.inbox.is_empty() {
            return &mut self.scratch;
        }
        self.receiving = Receiving::Inbox;
        let want = client.inbox.len().clamp(4096, self.scratch.len());
        let limit = self.inbox_limit(ix);
        self.clients[ix]
            .inbox
            .space(want, limit, &mut self.inbox_pool)
    }

    /// `n` bytes were received, of which those before `from` are answered: the client has `share` for the rest.
    pub(super) fn received_from(&mut self, id: ConnId, from: usize, n: usize, share: Share) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        self.stats.add(Counter::BytesIn, (n - from) as u64);
        let client = &mut self.clients[ix];
        if client.state != State::Open {
            return;
        }
        client.active = self.now;
        if self.receiving == Receiving::Inbox {
            client.inbox.commit(n);
            self.serve_inbox(ix, share);
            self.buffers_grew();
            return;
        }
        let scratch = std::mem::take(&mut self.scratch);
        let used = from + self.serve_bytes(ix, &scratch[from..n], share);
        if used < n
            && let Some(client) = self.open_client(id)
        {
            let limit = self.inbox_limit(client);
            let kept =
                self.clients[client]
                    .inbox
                    .append(&scratch[used..n], limit, &mut self.inbox_pool);
            debug_assert!(
                kept.is_ok(),
                "an inbox that was empty holds what one read brings"
            );
        }
        self.scratch = scratch;
        self.after_serving(id);
        self.buffers_grew();
    }

    /// Goes on with what was received earlier, after [`Output::Ready`].
    pub fn serve(&mut self, id: ConnId) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        self.clients[ix].ready_listed = false;
        if self.clients[ix].state == State::Open {
            self.serve_inbox(ix, Share::since(self.pool.copied_bytes()));
            self.buffers_grew();
        }
    }

    /// What a client's inbox may hold: the largest request, and one read beyond it.
    fn inbox_limit(&self, ix: usize) -> usize {
        let largest = match self.clients[ix].port {
            Port::Resp => self.config.request_bytes_max,
            Port::Http | Port::Admin | Port::Probe => self.http_limits.message_bytes_max(),
        };
        largest + READ_BYTES
    }

    fn open_client(&self, id: ConnId) -> Option<usize> {
        self.client_index(id)
            .filter(|ix| self.clients[*ix].state == State::Open)
    }

    fn serve_inbox(&mut self, ix: usize, share: Share) {
        let id = self.clients[ix].id;
        let mut inbox = std::mem::take(&mut self.clients[ix].inbox);
        let used = self.serve_bytes(ix, inbox.readable(), share);
        inbox.consume(used);
        match self.open_client(id) {
            Some(ix) => {
                inbox.release(&mut self.inbox_pool);
                self.clients[ix].inbox = inbox;
            }
            None => inbox.discard(&mut self.inbox_pool),
        }
        self.after_serving(id);
    }

    /// Handles the requests in `bytes` as far as the client's share goes; returns how many bytes are done with.
    fn serve_bytes(&mut self, ix: usize, bytes: &[u8], mut share: Share) -> usize {
        if self.clients[ix].hold != Hold::None || self.clients[ix].paused {
            return 0;
        }
        let id = self.clients[ix].id;
        let used = match self.clients[ix].port {
            Port::Resp => self.serve_resp(ix, bytes, &mut share),
            Port::Http | Port::Admin | Port::Probe => self.serve_http(ix, bytes, &mut share),
        };
        if let Some(ix) = self.open_client(id) {
            if self.clients[ix].admitted {
                self.leave_admission(ix);
            }
            if self.is_spent(&share) && used < bytes.len() && self.clients[ix].hold == Hold::None {
                self.list_ready(ix);
            }
            // A request that was finished gives the one behind it its own time.
            let earlier = match self.clients[ix].head_since {
                since if !share.is_begun() => since.min(self.now),
                _ => self.now,
            };
            let unfinished = used < bytes.len();
            self.clients[ix].head_since = if unfinished { earlier } else { Time::NEVER };
        }
        used
    }

    /// What follows from having served: replies leave, and a client that will send no more is shown out.
    fn after_serving(&mut self, id: ConnId) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        let client = &self.clients[ix];
        let waits = client.hold != Hold::None || client.ready_listed || client.paused;
        if client.state == State::Open && !waits {
            if client.peer_closed {
                self.finish_client(ix, CloseReason::Asked);
            } else if self.closing {
                self.finish_client(ix, CloseReason::Shutdown);
            }
        }
        self.client_changed(ix);
    }

    /// Whether the client must read before its next command is handled; then it is held.
    pub(super) fn outbox_is_high(&mut self, ix: usize) -> bool {
        let owed_max = self.config.replies_owed_max;
        let client = &mut self.clients[ix];
        if client.bytes_owed() < OUTBOX_HIGH_BYTES && client.owed.len() < owed_max {
            return false;
        }
        client.hold = Hold::Outbox;
        true
    }

    /// The client's outbox or owed replies changed: flush, resume, or show it out.
    pub(super) fn client_changed(&mut self, ix: usize) {
        let owed_max = self.config.replies_owed_max;
        let client = &mut self.clients[ix];
        if !client.outbox.is_empty() && !client.flush_listed {
            client.flush_listed = true;
            self.outputs.push_back(Output::Flush(client.id));
        }
        if client.hold == Hold::Outbox
            && client.bytes_owed() < OUTBOX_LOW_BYTES
            && client.owed.len() <= owed_max / 2
        {
            self.unhold(ix, Hold::Outbox);
        }
        let client = &mut self.clients[ix];
        if let State::Finishing(reason) = client.state
            && client.is_settled()
        {
            if client.peer_closed {
                self.close_client(ix, reason);
            } else {
                self.linger(ix);
            }
        }
    }

    fn linger(&mut self, ix: usize) {
        let client = &mut self.clients[ix];
        let id = client.id;
        client.state = State::Lingering;
        self.outputs.push_back(Output::Shut(id));
        if let Some(timer) = client.timer.take() {
            self.timers.cancel(timer);
        }
        self.clients[ix].timer = Some(self.timers.set(self.now + LINGER, Timer::Client(id)));
    }

    pub(super) fn client_sent(&mut self, id: ConnId, n: usize) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        self.stats.add(Counter::BytesOut, n as u64);
        let client = &mut self.clients[ix];
        client.active = self.now;
        client.outbox.sent(n, &mut self.pool);
        if client.outbox.is_empty() {
            client.flush_listed = false;
        }
        let (link, bytes_to_send) = (client.link, client.outbox.len());
        if client.hold == Hold::Outbox || client.state != State::Open {
            self.client_changed(ix);
        }
        if link.is_some() {
            self.resume_link(link, bytes_to_send);
        }
        self.buffers_shrank();
    }

    pub(super) fn client_peer_closed(&mut self, id: ConnId) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        self.clients[ix].peer_closed = true;
        if self.waits_upstream(ix) {
            // As with Redis itself, nobody waits for data on behalf of a client that has hung up.
            return self.close_client(ix, CloseReason::Asked);
        }
        match self.clients[ix].state {
            State::Lingering => self.close_client(ix, CloseReason::Asked),
            State::Open | State::Finishing(_) => self.after_serving(id),
        }
    }

    /// Ends a hold for this reason, if that is what the client waits for.
    pub(super) fn unhold(&mut self, ix: usize, hold: Hold) {
        if self.clients[ix].hold == hold {
            self.clients[ix].hold = Hold::None;
            self.list_ready(ix);
        }
    }

    pub(super) fn list_ready(&mut self, ix: usize) {
        let client = &mut self.clients[ix];
        if !client.ready_listed {
            client.ready_listed = true;
            self.outputs.push_back(Output::Ready(client.id));
        }
    }

    /// No further request of the client is begun; it is closed once everything owed was sent.
    pub(super) fn finish_client(&mut self, ix: usize, reason: CloseReason) {
        self.leave_admission(ix);
        self.unpause(ix);
        let id = self.clients[ix].id;
        if self.clients[ix].state == State::Open {
            self.break_upload(ix);
        }
        if self.client_index(id).is_none() {
            return;
        }
        let client = &mut self.clients[ix];
        if client.state == State::Open {
            client.state = State::Finishing(reason);
            client.hold = Hold::None;
            if reason == CloseReason::Shutdown
                && let Some(Slot {
                    render: Some(Render::Http(ask)),
                    ..
                }) = client.owed.back_mut()
            {
                // The last answer says that it is the last (RFC 9112 section 9.6). Who has half-closed knows it.
                ask.manner.keep_alive = false;
            }
            let mut inbox = std::mem::take(&mut client.inbox);
            inbox.discard(&mut self.inbox_pool);
        }
        self.log_close(ix, reason);
    }

    /// The reply in this slot was lost with the connection to Redis that owed it: the client is shown out behind the
    /// replies before it, as Redis's own death would have done.
    pub(super) fn cut_client(&mut self, ix: usize, slot: u64) {
        self.clients[ix].lose_slot(slot);
        self.finish_client(ix, CloseReason::UpstreamLost);
    }

    fn log_close(&self, ix: usize, reason: CloseReason) {
        let client = &self.clients[ix];
        let (number, peer, why) = (client.number, self.peer_of(client), reason.name());
        match reason {
            // The loss of Redis has its own line, once and not for each client.
            CloseReason::Asked
            | CloseReason::Shutdown
            | CloseReason::SocketFailed
            | CloseReason::Killed
            | CloseReason::HandshakeFailed
            | CloseReason::UpstreamLost => {
                debug!(client = number, %peer, reason = why, "close");
            }
            _ => warn!(client = number, %peer, reason = why, "close"),
        }
    }

    /// Ends the connection now. What Redis still owes it is read and dropped when it comes; its writes are still
    /// followed to their end.
    pub(super) fn close_client(&mut self, ix: usize, reason: CloseReason) {
        if self.clients[ix].state == State::Open {
            self.log_close(ix, reason);
        }
        if self.access.is_waiting() {
            self.access_left(self.clients[ix].id);
        }
        self.leave_admission(ix);
        self.unpause(ix);
        self.drop_own_link(ix);
        let Place::Client(index) = self.clients[ix].id.place else {
            return;
        };
        let mut client = self.clients.remove(ix);
        self.client_generations[index as usize] =
            self.client_generations[index as usize].wrapping_add(1);
        if let Some(timer) = client.timer {
            self.timers.cancel(timer);
        }
        if let Some(timer) = client.extras.as_ref().and_then(|extras| extras.penalty) {
            self.timers.cancel(timer);
        }
        client.inbox.discard(&mut self.inbox_pool);
        client.outbox.clear(&mut self.pool);
        client.owed.clear(&mut self.pool);
        self.resume_link(client.link, 0);
        self.outputs.push_back(Output::Close(client.id));
        self.insight.note_close(reason);
        match client.port {
            Port::Admin => self.admin_clients -= 1,
            Port::Probe => self.probe_clients -= 1,
            Port::Http | Port::Resp => self.stats.count(Counter::ClientsClosed),
        }
        if reason == CloseReason::OutboxOverflow {
            self.stats.count(Counter::OutboxOverflows);
        }
    }

    /// The client's timer fired: close it if its time is really over, else run the timer to the next moment that could be.
    pub(super) fn client_timer_fired(&mut self, id: ConnId) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        self.clients[ix].timer = None;
        let client = &self.clients[ix];
        let head_since = Some(client.head_since).filter(|since| *since < Time::NEVER);
        let head_due = head_since.map(|since| since + self.config.http_head_timeout);
        let idle_due = client.active + self.config.http_idle_timeout;
        let next = match client.state {
            State::Lingering => return self.close_client(ix, CloseReason::Asked),
            _ if !client.outbox.is_empty() && idle_due <= self.now => {
                return self.close_client(ix, CloseReason::SlowReader);
            }
            // What is owed keeps a connection alive; so does a hold, which somebody else ends.
            _ if !client.is_settled() || client.hold != Hold::None || client.paused => {
                self.now + self.config.http_head_timeout
            }
            State::Open if head_due.is_some_and(|due| due <= self.now) => {
                return self.time_out_client(ix, CloseReason::HeadTimeout);
            }
            State::Open if head_due.is_none() && idle_due <= self.now => {
                return self.time_out_client(ix, CloseReason::IdleTimeout);
            }
            _ => head_due
                .unwrap_or(idle_due)
                .max(self.now + Duration::from_millis(1)),
        };
        // A request head may begin at any moment, so its time-out is looked for at its own pace.
        let next = next.min(self.now + self.config.http_head_timeout);
        self.clients[ix].timer = Some(self.timers.set(next, Timer::Client(id)));
    }

    fn time_out_client(&mut self, ix: usize, reason: CloseReason) {
        if reason == CloseReason::HeadTimeout {
            self.answer_head_timeout(ix);
        }
        self.finish_client(ix, reason);
        self.client_changed(ix);
    }

    /// The process is to end, but not yet: clients are served until they leave. HTTP's are told to with their next
    /// answer; the Redis protocol has no such word.
    pub fn begin_drain(&mut self) {
        self.draining = true;
        self.clients.each(|_| {});
    }

    /// The time is nearly over: no request is begun that has not arrived yet; clients are closed as soon as nothing is owed
    /// to them, the idle ones last.
    pub fn drain(&mut self) -> Drained {
        (self.draining, self.closing) = (true, true);
        self.clients.each(|_| {});
        let mut drained = Drained::default();
        let clients = self.clients.iter().map(|(_, client)| client);
        let (idle, busy): (Vec<&Client>, Vec<&Client>) =
            clients.partition(|client| client.is_settled() && client.inbox.is_empty());
        let busy_first = busy.into_iter().map(|client| (client.id, false));
        let idle = idle.into_iter().map(|client| (client.id, true));
        for (id, is_idle) in busy_first.chain(idle).collect::<Vec<_>>() {
            match self.client_index(id) {
                // Nobody knows how long it would wait.
                Some(ix) if self.waits_upstream(ix) || self.is_subscribed(ix) => {
                    drained.waiting += 1;
                    self.close_client(ix, CloseReason::Shutdown);
                }
                Some(ix) => {
                    drained.idle += usize::from(is_idle);
                    drained.busy += usize::from(!is_idle);
                    self.unhold(ix, Hold::Penalty);
                    self.after_serving(id);
                }
                None => {}
            }
        }
        drained
    }

    fn is_subscribed(&self, ix: usize) -> bool {
        let link = self.own_link(ix).map(|link| &self.links[link]);
        let own = link.and_then(|link| link.own.as_ref());
        own.is_some_and(|own| own.session.is_subscribed())
    }

    /// Clients that are still owed something, or have not been told of the end.
    pub fn unfinished_count(&self) -> usize {
        let clients = self.clients.iter();
        clients
            .filter(|(_, client)| client.state != State::Lingering)
            .count()
    }

    /// Clients connected.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// After [`Engine::drain`]: whether every client has been sent all it is owed and is gone.
    pub fn is_drained(&self) -> bool {
        self.draining && self.clients.is_empty()
    }
}
