//! One client: what it has sent, the replies owed to it in order, what is to be sent to it, and what it waits for.
//!
//! It decides nothing about commands. Invariants: replies leave in the order of the commands (a reply that is early
//! waits in its slot); the front slot is never done; when no slot is owed, a reply goes straight to the outbox.
//! Costs: O(1) per reply; an idle client holds no buffer.
#![forbid(unsafe_code)]

mod owed;

use crate::buffer::Buffer;
use crate::command::Place;
use crate::engine::{ConnId, Port};
use crate::outbox::{Kept, Outbox, Pool};
use crate::protocol::http;
use crate::protocol::resp::request::RequestParser;
use crate::protocol::resp::stream::RequestStream;
use crate::protocol::resp::write::Version;
use crate::time::Time;
pub use owed::Owed;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::sync::Arc;

/// Why a client's connection was ended. The text is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// It said QUIT, or `Connection: close`, or half-closed after its last request.
    Asked,
    /// It broke its protocol.
    ProtocolError,
    /// Its socket failed.
    SocketFailed,
    /// More was to be sent to it than the outbox may hold.
    OutboxOverflow,
    /// Its request was larger than the inbox may hold.
    RequestTooLarge,
    /// It did not finish a request head in time.
    HeadTimeout,
    /// It was silent for too long.
    IdleTimeout,
    /// It did not read what it had asked for.
    SlowReader,
    /// The proxy shuts down.
    Shutdown,
    /// The connection to Redis was lost while a reply to it was owed, or with state of its own on it.
    UpstreamLost,
    /// Another client said so (CLIENT KILL).
    Killed,
    /// It needs a connection of its own to Redis, and there are as many as there may be.
    LinksExhausted,
    /// It held most of what all clients may hold together (`BUFFERS_MAX_BYTES`).
    BuffersFull,
    /// It came by a port for TLS and there was none with it.
    HandshakeFailed,
}

impl CloseReason {
    /// Every one, in their order.
    pub const ALL: [CloseReason; 14] = [
        CloseReason::Asked,
        CloseReason::ProtocolError,
        CloseReason::SocketFailed,
        CloseReason::OutboxOverflow,
        CloseReason::RequestTooLarge,
        CloseReason::HeadTimeout,
        CloseReason::IdleTimeout,
        CloseReason::SlowReader,
        CloseReason::Shutdown,
        CloseReason::UpstreamLost,
        CloseReason::Killed,
        CloseReason::LinksExhausted,
        CloseReason::BuffersFull,
        CloseReason::HandshakeFailed,
    ];

    /// The word in the log line.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Asked => "asked",
            CloseReason::ProtocolError => "protocol_error",
            CloseReason::SocketFailed => "socket_failed",
            CloseReason::OutboxOverflow => "outbox_overflow",
            CloseReason::RequestTooLarge => "request_too_large",
            CloseReason::HeadTimeout => "head_timeout",
            CloseReason::IdleTimeout => "idle_timeout",
            CloseReason::SlowReader => "slow_reader",
            CloseReason::Shutdown => "shutdown",
            CloseReason::UpstreamLost => "upstream_lost",
            CloseReason::Killed => "killed",
            CloseReason::LinksExhausted => "links_exhausted",
            CloseReason::BuffersFull => "buffers_full",
            CloseReason::HandshakeFailed => "handshake_failed",
        }
    }
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Requests are read and answered.
    Open,
    /// No further request is begun; closed once everything owed was sent.
    Finishing(CloseReason),
    /// Everything was sent and our side is shut; what still arrives is read and dropped, so that the peer gets the
    /// last reply and not a reset.
    Lingering,
}

/// Why a client's next command is not handled yet. Whoever ends the reason puts the client on the ready list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Nothing holds it.
    None,
    /// `MAX_CONCURRENT_REQUESTS` is reached; the client stands in the queue.
    Limit,
    /// Rule L7: its next command touches a key that a fetch of its own is under way for.
    OwnFetch,
    /// Rule L4: its next command needs another link than the one its outstanding commands are on.
    Relays,
    /// Too many bytes or replies are owed to it.
    Outbox,
    /// The link it must use has more unsent bytes than it may hold.
    Link,
    /// What Redis is has to be known first (HELLO).
    Upstream,
    /// It has said wrong passwords: a timer ends this.
    Penalty,
    /// It has asked for a prefix to be forgotten, which takes some turns.
    Walk,
}

/// How a reply to a cacheable read is written, as it was when the command was handled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Render {
    /// As this version of RESP.
    Resp(Version),
    /// As an HTTP answer.
    Http(Box<HttpAsk>),
}

/// What an HTTP request for a key wants to know, kept until the answer is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpAsk {
    /// How the answer must be put.
    pub manner: http::route::Manner,
    /// The values of `If-None-Match`.
    pub if_none_match: Option<Vec<u8>>,
    /// How the answer came about, for `Cache-Status`.
    pub way: HttpWay,
}

/// Which way an HTTP request for a key went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpWay {
    /// It started a fetch because nothing was kept.
    Miss,
    /// It started a fetch because it asked for one (`no-cache`).
    Request,
    /// It joined a fetch under way.
    Collapsed,
    /// It was relayed: the value is too large to keep.
    Bypass,
}

/// One reply owed.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Whether the reply is complete. (The front slot never is: it would have left.)
    pub done: bool,
    /// Whether the reply will never come: the connection ends in front of it.
    pub lost: bool,
    /// The part of the reply that came while the slot was not in front.
    pub early: Outbox,
    /// Whether the client does not want the reply (CLIENT REPLY).
    pub muted: bool,
    /// How to write the answer, for slots that wait for a fetch.
    pub render: Option<Render>,
}

/// What few clients have, kept apart so that the others need no room for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Extras {
    /// What CLIENT SETNAME set; empty: nothing.
    pub name: Box<[u8]>,
    /// What CLIENT SETINFO set as LIB-NAME.
    pub lib_name: Box<[u8]>,
    /// What CLIENT SETINFO set as LIB-VER.
    pub lib_ver: Box<[u8]>,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// The address it was accepted on, where that is not its own host's at the port that is configured.
    pub local: Option<SocketAddr>,
    /// It has said the ADMIN_PASSWORD.
    pub admin: bool,
    /// The HELLO whose credentials Redis is being asked about.
    pub hello: Option<HelloRest>,
    /// Wrong passwords it has said.
    pub auth_failures: u32,
    /// The timer that ends its [`Hold::Penalty`].
    pub penalty: Option<u32>,
}

/// Where a client comes from, in half the room where it is one of IPv4.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Of IPv4.
    V4(SocketAddrV4),
    /// Of IPv6.
    V6(Box<SocketAddrV6>),
    /// It came by a Unix socket, and has none.
    Unix,
}

impl Peer {
    /// The address, if it has one.
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Peer::V4(addr) => Some(SocketAddr::V4(*addr)),
            Peer::V6(addr) => Some(SocketAddr::V6(**addr)),
            Peer::Unix => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Peer {
        match addr {
            SocketAddr::V4(addr) => Peer::V4(addr),
            SocketAddr::V6(addr) => Peer::V6(Box::new(addr)),
        }
    }
}

/// What a HELLO sets once its client is known: `None` leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HelloRest {
    /// The version to be answered in.
    pub version: Option<Version>,
    /// The client's name.
    pub name: Option<Box<[u8]>>,
}

/// How reads of a client are answered that may be hits and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Straight {
    /// As requests of the Redis protocol.
    Resp,
    /// As requests of HTTP.
    Http,
}

/// Which replies are kept from a client (CLIENT REPLY).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mute {
    /// None.
    Off,
    /// That of the command after this one.
    Next,
    /// That of the command being handled.
    This,
    /// All.
    All,
}

/// The framing state of the client's protocol.
#[derive(Debug, Clone)]
pub enum Framing {
    /// RESP: in the middle of a request, or not.
    Resp(Option<Box<RequestParser>>),
    /// HTTP. Apart, because it is the larger one and most clients do not speak it.
    Http(Box<http::RequestParser>),
    /// In the middle of a RESP request that is passed on as it comes.
    Upload(Box<RequestStream>),
}

/// One client connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its name in calls.
    pub id: ConnId,
    /// What CLIENT ID says: unique, growing.
    pub number: u64,
    /// The port it came in by.
    pub port: Port,
    /// Its address.
    pub peer: Peer,
    /// Where it is in its life.
    pub state: State,
    /// Why it waits.
    pub hold: Hold,
    /// The admission it was given after waiting for [`Hold::Limit`]: its next command need not wait again.
    pub admitted: bool,
    /// It waited for an admission as long as anyone may: its next command that needs one gets an error.
    pub waited_in_vain: bool,
    /// Nothing is read from it and none of its commands begun, because all buffers together are near their limit and it
    /// holds more than others. Whoever ends that puts it on the ready list.
    pub paused: bool,
    /// Whether it may give commands: it has said the password, or needs none.
    pub authenticated: bool,
    /// The version it is answered in.
    pub version: Version,
    /// The database its commands work in.
    pub db: u32,
    /// What was received and not handled.
    pub inbox: Buffer,
    /// Where in the request at the front of the inbox the parser is.
    pub framing: Framing,
    /// Bytes to send.
    pub outbox: Outbox,
    /// The replies owed, in the order of the commands.
    pub owed: Owed,
    /// The link its outstanding relayed commands are on.
    pub link: Option<ConnId>,
    /// Its own link, while it has state upstream (rule L15).
    pub own: Option<ConnId>,
    /// Relayed commands outstanding.
    pub relayed: u32,
    /// How many of those touch everything.
    pub relayed_all: u32,
    /// Slots that wait for a fetch.
    pub fetching: u32,
    /// Which replies it does not want.
    pub mute: Mute,
    /// The command it sent last.
    pub last: Place,
    /// What few clients have.
    pub extras: Option<Box<Extras>>,
    /// Whether it is known that its reads may be hits and nothing else (`engine/roster.rs`).
    pub straight: Option<Straight>,
    /// Whether it came by a port for TLS.
    pub is_tls: bool,
    /// Whether the peer's FIN was seen.
    pub peer_closed: bool,
    /// Whether `Flush` was said and not yet answered.
    pub flush_listed: bool,
    /// Whether `Ready` was said and not yet answered.
    pub ready_listed: bool,
    /// When it was opened.
    pub opened: Time,
    /// When it last sent or took something, or was opened.
    pub active: Time,
    /// When the first byte of an unfinished request came; never, if there is none.
    pub head_since: Time,
    /// The timer that watches it.
    pub timer: Option<u32>,
}

impl Client {
    /// A client that has just been accepted.
    pub fn new(id: ConnId, number: u64, port: Port, peer: Peer, db: u32, now: Time) -> Client {
        Client {
            id,
            number,
            port,
            peer,
            state: State::Open,
            hold: Hold::None,
            admitted: false,
            waited_in_vain: false,
            paused: false,
            authenticated: true,
            version: Version::Resp2,
            db,
            inbox: Buffer::default(),
            framing: match port {
                Port::Http | Port::Admin | Port::Probe => Framing::Http(Box::default()),
                Port::Resp => Framing::Resp(None),
            },
            outbox: Outbox::default(),
            owed: Owed::default(),
            link: None,
            own: None,
            relayed: 0,
            relayed_all: 0,
            fetching: 0,
            mute: Mute::Off,
            last: Place::UNKNOWN,
            extras: None,
            straight: None,
            is_tls: false,
            peer_closed: false,
            flush_listed: false,
            ready_listed: false,
            opened: now,
            active: now,
            head_since: Time::NEVER,
            timer: None,
        }
    }

    /// Whether nothing stands between the next bytes to be read and a reply that leaves at once: no command or byte of
    /// before, nothing owed, nothing to send.
    #[inline]
    pub fn is_at_rest(&self) -> bool {
        self.state == State::Open
            && self.hold == Hold::None
            && self.inbox.is_empty()
            && self.owed.is_empty()
            && self.outbox.is_empty()
            && !(self.ready_listed
                | self.flush_listed
                | self.admitted
                | self.peer_closed
                | self.paused)
    }

    /// Bytes held for sending: the outbox and the early replies.
    pub fn bytes_owed(&self) -> usize {
        self.outbox.len() + self.owed.early_bytes()
    }

    /// Those of them that are held for this client only: parts of large values are somewhere in any case.
    pub fn bytes_copied(&self) -> usize {
        self.outbox.copied_len() + self.owed.early_copied()
    }

    /// Memory that it holds: what it has sent and is not handled, what it is owed and has not read.
    pub fn memory(&self) -> usize {
        let early: usize = self.owed.iter().map(|slot| slot.early.memory()).sum();
        self.inbox.capacity() + self.outbox.memory() + early
    }

    /// Whether what is answered now is kept from the client.
    #[inline]
    pub fn is_muted(&self) -> bool {
        matches!(self.mute, Mute::This | Mute::All)
    }

    /// A command is handled: what was muted for one command only is not any more.
    #[inline]
    pub fn next_command(&mut self) {
        self.mute = match self.mute {
            Mute::Next => Mute::This,
            Mute::This => Mute::Off,
            stays => stays,
        };
    }

    /// What CLIENT SETNAME set.
    pub fn name(&self) -> Option<&[u8]> {
        let name = &*self.extras.as_ref()?.name;
        (!name.is_empty()).then_some(name)
    }

    /// As CLIENT SETNAME; `None`: without a name.
    pub fn set_name(&mut self, name: Option<&[u8]>) {
        if name.is_some() || self.extras.is_some() {
            self.extras().name = name.unwrap_or_default().into();
        }
    }

    /// What few clients have: made if it was not there.
    pub fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_with(Box::default)
    }

    /// Takes a place in the order of replies; the number names it until the reply is complete.
    pub fn owe(&mut self, render: Option<Render>) -> u64 {
        self.owed.push(Slot {
            done: false,
            lost: false,
            muted: self.is_muted(),
            early: Outbox::default(),
            render,
        })
    }

    /// Appends a reply that is complete at once: to the outbox, or behind the replies that are owed before it.
    #[inline]
    pub fn reply_with(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_muted() {
            return;
        }
        if self.owed.is_empty() {
            self.outbox.append_with(pool, write);
        } else {
            let at = self.early_slot();
            self.owed
                .change_early(at, |slot| slot.early.append_with(pool, write));
        }
    }

    /// As [`Client::reply_with`], for bytes that are ready.
    #[inline]
    pub fn reply(&mut self, bytes: &[u8], pool: &mut Pool) {
        if self.is_muted() {
            return;
        }
        if self.owed.is_empty() {
            self.outbox.append(bytes, pool);
        } else {
            let at = self.early_slot();
            self.owed
                .change_early(at, |slot| slot.early.append(bytes, pool));
        }
    }

    /// As [`Client::reply`], for a part of a large value in the cache, which is not copied.
    pub fn reply_shared(&mut self, shared: &Arc<Vec<u8>>, part: Range<usize>, pool: &mut Pool) {
        if self.is_muted() {
            return;
        }
        let shared = Arc::clone(shared);
        if self.owed.is_empty() {
            self.outbox.append_shared(shared, part, Kept::ByCache, pool);
        } else {
            let at = self.early_slot();
            self.owed.change_early(at, |slot| {
                slot.early.append_shared(shared, part, Kept::ByCache, pool);
            });
        }
    }

    /// Appends what is no reply: it stands between the replies before it, which have left, and the one that comes next.
    pub fn message(&mut self, bytes: &[u8], pool: &mut Pool) {
        self.outbox.append(bytes, pool);
    }

    /// Where the slot behind all that is owed is, for replies that are complete at once; consecutive ones share it.
    fn early_slot(&mut self) -> usize {
        if self.owed.back().is_none_or(|slot| !slot.done) {
            self.owe(None);
        }
        if let Some(slot) = self.owed.back_mut() {
            slot.done = true;
        }
        self.owed.len() - 1 // one was pushed just now or was there
    }

    /// Whether the reply in slot `number` is kept from the client.
    pub fn is_slot_muted(&self, number: u64) -> bool {
        self.slot(number).is_some_and(|slot| slot.muted)
    }

    /// What comes for slot `number` is no reply, which CLIENT REPLY would keep from the client.
    pub fn unmute_slot(&mut self, number: u64) {
        if let Some(slot) = self.place(number).and_then(|at| self.owed.get_mut(at)) {
            slot.muted = false;
        }
    }

    /// Whether the slot `number` is still owed.
    fn place(&self, number: u64) -> Option<usize> {
        let at = usize::try_from(number.checked_sub(self.owed.front_number())?).ok()?;
        (at < self.owed.len()).then_some(at)
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        self.owed.get(self.place(number)?)
    }

    /// How the reply in slot `number` is to be written.
    pub fn render(&self, number: u64) -> Option<&Render> {
        self.slot(number)?.render.as_ref()
    }

    /// Adds bytes to the reply in slot `number`.
    pub fn fill(&mut self, number: u64, bytes: &[u8], pool: &mut Pool) {
        match self.place(number) {
            Some(_) if self.is_slot_muted(number) => {}
            Some(0) => self.outbox.append(bytes, pool),
            Some(at) => self
                .owed
                .change_early(at, |slot| slot.early.append(bytes, pool)),
            None => debug_assert!(false, "a reply for a slot that is not owed"),
        }
    }

    /// As [`Client::fill`] with what `write` appends.
    pub fn fill_with(&mut self, number: u64, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        match self.place(number) {
            Some(_) if self.is_slot_muted(number) => {}
            Some(0) => self.outbox.append_with(pool, write),
            Some(at) => self
                .owed
                .change_early(at, |slot| slot.early.append_with(pool, write)),
            None => debug_assert!(false, "a reply for a slot that is not owed"),
        }
    }

    /// As [`Client::fill`] for a large value that was fetched, which is not copied.
    pub fn fill_shared(&mut self, number: u64, shared: &Arc<Vec<u8>>, pool: &mut Pool) {
        let (shared, part) = (Arc::clone(shared), 0..shared.len());
        match self.place(number) {
            Some(_) if self.is_slot_muted(number) => {}
            Some(0) => self
                .outbox
                .append_shared(shared, part, Kept::ByNobody, pool),
            Some(at) => self.owed.change_early(at, |slot| {
                slot.early.append_shared(shared, part, Kept::ByNobody, pool);
            }),
            None => debug_assert!(false, "a reply for a slot that is not owed"),
        }
    }

    /// The reply in slot `number` is complete; it and whatever waited only for it goes to the outbox.
    pub fn finish_slot(&mut self, number: u64, pool: &mut Pool) {
        let Some(at) = self.place(number) else {
            debug_assert!(false, "a reply ends for a slot that is not owed");
            return;
        };
        let Some(slot) = self.owed.get_mut(at).filter(|slot| !slot.lost) else {
            return;
        };
        slot.done = true;
        while self.owed.front().is_some_and(|slot| slot.done) {
            self.owed.pop_front();
            let early = self.owed.take_early(0);
            if !early.is_empty() {
                self.outbox.append_all(early, pool);
            }
        }
    }

    /// The reply in slot `number` will never come. What is owed before it is still awaited; nothing behind it is sent.
    pub fn lose_slot(&mut self, number: u64) {
        if let Some(at) = self.place(number)
            && let Some(slot) = self.owed.get_mut(at)
        {
            slot.lost = true;
        }
    }

    /// Whether nothing more is owed, or can come, and nothing is to be sent.
    pub fn is_settled(&self) -> bool {
        self.owed.front().is_none_or(|slot| slot.lost) && self.outbox.is_empty()
    }

    /// Panics where an invariant does not hold.
    pub fn check(&self) {
        self.outbox.check();
        assert!(
            self.owed.front().is_none_or(|slot| !slot.done),
            "a complete reply has not left"
        );
        assert!(
            self.owed.front().is_none_or(|slot| slot.early.is_empty()),
            "the front slot keeps bytes back"
        );
        let early: usize = self.owed.iter().map(|slot| slot.early.len()).sum();
        assert_eq!(early, self.owed.early_bytes());
        let copied = self.owed.iter().map(|slot| slot.early.copied_len());
        assert_eq!(copied.sum::<usize>(), self.owed.early_copied());
        assert_eq!(
            self.link.is_some(),
            self.relayed > 0,
            "a link is kept exactly while something is outstanding on it"
        );
        assert!(self.relayed_all <= self.relayed);
        let waiting = self
            .owed
            .iter()
            .filter(|slot| !slot.done && !slot.lost)
            .count();
        assert_eq!(
            waiting,
            (self.relayed + self.fetching) as usize,
            "each open slot waits for one thing"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_client_has_is_small() {
        // Ten thousand idle clients take ten thousand of these, and a connection pool makes them idle most of the time.
        // With its place in the table of generations; `tests/heap.rs` counts what is really allocated.
        let bytes = size_of::<Client>() + size_of::<u32>();
        assert!(bytes <= 256, "{bytes} bytes");
        assert!(size_of::<Slot>() <= 80, "{} bytes", size_of::<Slot>());
    }
}
