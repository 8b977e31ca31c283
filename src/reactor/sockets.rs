//! The sockets the loop holds open, found by the engine's ids, and what the poll has said about each.
//!
//! It never calls the engine and never reads or writes: it remembers. Sockets are registered once, edge-triggered, so the
//! poll reports a readiness once; it stays noted here until a call that comes up short shows that it is used up.
//!
//! Invariant: a socket stands in the ready list exactly when `LISTED`, in the flush list exactly when `FLUSH_LISTED`, so
//! neither list is ever longer than the tables.
//!
//! Costs: every operation is one index into a table and one comparison of generations.
#![forbid(unsafe_code)]

use super::dialer::Target;
use crate::engine::{ConnId, Place};
use crate::time::Time;
use crate::transport::Transport;
use mio::Token;
use mio::event::Event;

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// The addresses of Redis are being looked up.
    Resolving,
    /// A non-blocking connect is under way.
    Connecting(Box<Attempt>),
    /// A link that stands and shakes hands.
    Securing(Box<Attempt>),
    /// A client that shakes hands.
    Accepting(Box<Accepting>),
    /// Bytes may pass.
    Open(Transport),
}

/// A client's handshake.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) transport: Transport,
    /// It fails then.
    pub(super) deadline: Time,
    pub(super) speaks_http: bool,
}

/// A connect to `address`; `rest` is tried if it fails.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) transport: Transport,
    pub(super) address: Target,
    pub(super) rest: Vec<Target>,
}

/// One thing known of a socket: a bit, so that one comparison tells whether it may be served the straight way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(u16);

impl Flag {
    /// There may be something to read (or the end, or an error).
    pub(super) const READABLE: Flag = Flag(1);
    /// The poll said that the peer closed: a short read does not mean that nothing is left, the end still has to be read.
    pub(super) const READ_CLOSED: Flag = Flag(1 << 1);
    /// The end has been read; there is nothing to read any more.
    pub(super) const ENDED: Flag = Flag(1 << 2);
    /// The poll reported an error, or a hang-up after the end.
    pub(super) const BROKEN: Flag = Flag(1 << 3);
    /// The socket takes bytes as far as anybody knows.
    pub(super) const WRITABLE: Flag = Flag(1 << 4);
    /// The engine said `Ready`: it wants to be served before the next read.
    pub(super) const RESUME: Flag = Flag(1 << 5);
    /// The engine said `Flush`, and not everything has been written since.
    pub(super) const TO_SEND: Flag = Flag(1 << 6);
    /// It stands in the ready list.
    pub(super) const LISTED: Flag = Flag(1 << 7);
    /// It stands in the flush list.
    pub(super) const FLUSH_LISTED: Flag = Flag(1 << 8);
}

/// All that is known of a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags(u16);

impl Flags {
    /// Whether a flag is set.
    #[inline]
    pub(super) fn is(self, flag: Flag) -> bool {
        self.0 & flag.0 != 0
    }

    /// Sets a flag or clears it.
    #[inline]
    pub(super) fn put(&mut self, flag: Flag, is_set: bool) {
        self.0 = self.0 & !flag.0 | if is_set { flag.0 } else { 0 };
    }

    /// Clears the only flag beside `WRITABLE`, of a socket that [`Socket::goes_straight`]: the last read took all there was.
    #[inline(always)]
    pub(super) fn is_read(&mut self) {
        self.0 = Flag::WRITABLE.0;
    }

    /// Sets a flag or clears it; how it was.
    #[inline]
    pub(super) fn replace(&mut self, flag: Flag, is_set: bool) -> bool {
        let was_set = self.is(flag);
        self.put(flag, is_set);
        was_set
    }
}

/// One connection's socket and its readiness.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) generation: u32,
    pub(super) stage: Stage,
    pub(super) flags: Flags,
}

// Ten thousand idle clients have one each. (With debug assertions mio keeps more in its streams.)
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Option<Socket>>() <= 24);

impl Socket {
    /// A socket in `stage` of which nothing is known yet, except that a new one takes bytes.
    pub(super) fn new(generation: u32, stage: Stage) -> Socket {
        Socket {
            generation,
            stage,
            flags: Flags(Flag::WRITABLE.0),
        }
    }

    /// Whether the poll says that there is something to read and room to write, and nothing else, as nearly always, and
    /// nothing else is known of the socket: nothing of before to be done first, and no end to come. Then it need not be
    /// noted before it is used up.
    #[inline(always)]
    pub(super) fn goes_straight(&self, event: &Event) -> bool {
        event.is_writable()
            && event.is_readable()
            && !event.is_error()
            && !event.is_read_closed()
            && self.flags.0 | Flag::READABLE.0 == Flag::READABLE.0 | Flag::WRITABLE.0
    }

    /// Remembers what the poll says.
    pub(super) fn note(&mut self, event: &Event) {
        let says = |says: bool, flag: Flag| if says { flag.0 } else { 0 };
        let readable = event.is_readable() || event.is_read_closed();
        let broken = event.is_error() || self.flags.is(Flag::ENDED) && event.is_write_closed();
        self.flags.0 |= says(readable && !self.flags.is(Flag::ENDED), Flag::READABLE)
            | says(event.is_read_closed(), Flag::READ_CLOSED)
            | says(event.is_writable(), Flag::WRITABLE)
            | says(broken, Flag::BROKEN);
    }

    /// Whether serving the socket could do something.
    fn has_work(&self) -> bool {
        self.flags.0 & (Flag::READABLE.0 | Flag::BROKEN.0 | Flag::RESUME.0) != 0
            || matches!(
                self.stage,
                Stage::Connecting(_) | Stage::Securing(_) | Stage::Accepting(_)
            )
    }
}

/// Both tables.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    clients: Vec<Option<Socket>>,
    links: Vec<Option<Socket>>,
}

/// Which lists an event asks a socket to be put on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) ready: Option<ConnId>,
    pub(super) flush: Option<ConnId>,
}

impl Sockets {
    /// Notes an event and returns the lists the socket has to be added to. Events are handled before anything is opened
    /// or closed in a turn, so the place alone names the socket: nobody else can have taken it meanwhile.
    pub(super) fn note(&mut self, place: Place, event: &Event) -> Calls {
        let Some(socket) = self.slot(place) else {
            return Calls::default();
        };
        socket.note(event);
        self.calls(place)
    }

    /// Puts the socket down for the lists on which it has to be, and returns them.
    pub(super) fn calls(&mut self, place: Place) -> Calls {
        let Some(socket) = self.slot(place) else {
            return Calls::default();
        };
        let id = ConnId {
            place,
            generation: socket.generation,
        };
        let flush = socket.flags.is(Flag::WRITABLE)
            && socket.flags.is(Flag::TO_SEND)
            && !socket.flags.replace(Flag::FLUSH_LISTED, true);
        let ready = socket.has_work() && !socket.flags.replace(Flag::LISTED, true);
        Calls {
            ready: ready.then_some(id),
            flush: flush.then_some(id),
        }
    }

    pub(super) fn insert(&mut self, place: Place, socket: Socket) {
        let (table, index) = match place {
            Place::Client(index) => (&mut self.clients, index as usize),
            Place::Link(index) => (&mut self.links, index as usize),
        };
        if table.len() <= index {
            table.resize_with(index + 1, || None);
        }
        table[index] = Some(socket);
    }

    /// The socket of `id`, unless that has been closed (and perhaps replaced).
    #[inline]
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Socket> {
        self.slot(id.place)
            .filter(|socket| socket.generation == id.generation)
    }

    /// How many are there, of clients and of links. O(places).
    pub(super) fn counts(&self) -> (usize, usize) {
        let count = |table: &[Option<Socket>]| table.iter().flatten().count();
        (count(&self.clients), count(&self.links))
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Socket> {
        self.get(id)?;
        match id.place {
            Place::Client(index) => self.clients[index as usize].take(),
            Place::Link(index) => self.links[index as usize].take(),
        }
    }

    #[inline]
    pub(super) fn slot(&mut self, place: Place) -> Option<&mut Socket> {
        match place {
            Place::Client(index) => self.clients.get_mut(index as usize)?.as_mut(),
            Place::Link(index) => self.links.get_mut(index as usize)?.as_mut(),
        }
    }
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Waker,
    Signals,
    Listener(usize),
    Socket(Place),
}

/// Tokens hold a place in their upper bits and the kind of the source in the lowest two.
const KIND_BITS: usize = 2;
/// Zero, because nearly all are, and each event is asked twice: see `note_events`.
const KIND_CLIENT: usize = 0;
const KIND_LINK: usize = 1;
const KIND_LISTENER: usize = 2;
const KIND_SPECIAL: usize = 3;
const SPECIAL_WAKER: usize = 0;
const SPECIAL_SIGNALS: usize = 1;

/// Places count connections that are open at the same time, far below the 2^30 that fit a token of 32 bits; mio reserves
/// no token of its own.
impl Source {
    pub(super) const fn token(self) -> Token {
        let (value, kind) = match self {
            Source::Waker => (SPECIAL_WAKER, KIND_SPECIAL),
            Source::Signals => (SPECIAL_SIGNALS, KIND_SPECIAL),
            Source::Listener(index) => (index, KIND_LISTENER),
            Source::Socket(Place::Client(index)) => (index as usize, KIND_CLIENT),
            Source::Socket(Place::Link(index)) => (index as usize, KIND_LINK),
        };
        Token(value << KIND_BITS | kind)
    }

    /// Whether the source is a client's socket: nearly all are.
    #[inline]
    pub(super) const fn is_client(token: Token) -> bool {
        token.0 & ((1 << KIND_BITS) - 1) == KIND_CLIENT
    }

    /// The place of the client whose socket it is, if it is one.
    #[inline]
    pub(super) const fn client(token: Token) -> Option<u32> {
        match Source::is_client(token) {
            true => Some((token.0 >> KIND_BITS) as u32),
            false => None,
        }
    }

    #[inline]
    pub(super) const fn of(token: Token) -> Source {
        let value = token.0 >> KIND_BITS;
        match token.0 & ((1 << KIND_BITS) - 1) {
            KIND_LISTENER => Source::Listener(value),
            KIND_CLIENT => Source::Socket(Place::Client(value as u32)),
            KIND_LINK => Source::Socket(Place::Link(value as u32)),
            _ if value == SPECIAL_SIGNALS => Source::Signals,
            _ => Source::Waker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_source() {
        let places = [0, 1, 77, (1 << 30) - 1];
        let mut all = vec![
            Source::Waker,
            Source::Signals,
            Source::Listener(0),
            Source::Listener(3),
        ];
        all.extend(places.map(|i| Source::Socket(Place::Client(i))));
        all.extend(places.map(|i| Source::Socket(Place::Link(i))));
        for (i, a) in all.iter().enumerate() {
            assert_eq!(Source::of(a.token()), *a);
            let is_client = matches!(a, Source::Socket(Place::Client(_)));
            assert_eq!(Source::is_client(a.token()), is_client);
            let client = Source::client(a.token()).map(|i| Source::Socket(Place::Client(i)));
            assert_eq!(client, is_client.then_some(*a));
            assert!(all[..i].iter().all(|b| b.token() != a.token()));
        }
    }

    #[test]
    fn an_id_of_an_earlier_use_finds_nothing() {
        let mut sockets = Sockets::default();
        let place = Place::Link(5);
        let (old, new) = (
            ConnId {
                place,
                generation: 1,
            },
            ConnId {
                place,
                generation: 2,
            },
        );
        sockets.insert(place, Socket::new(1, Stage::Resolving));
        assert!(sockets.get(old).is_some());
        assert!(
            sockets
                .get(ConnId {
                    place: Place::Client(5),
                    generation: 1
                })
                .is_none()
        );
        assert!(sockets.remove(new).is_none());
        assert!(sockets.remove(old).is_some());
        sockets.insert(place, Socket::new(2, Stage::Resolving));
        assert!(sockets.get(old).is_none());
        assert!(sockets.remove(old).is_none());
        assert!(sockets.get(new).is_some());
    }
}
