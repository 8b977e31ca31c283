//! One raw connection to Redis: what is to be sent on it, what it owes to whom, where each reply ends.
//!
//! It never decides what a reply means for the cache. Invariants: replies come in the order of the requests, so the
//! front of `owed` owns the bytes that arrive next; the hashes in `touched` belong to `owed`, in the same order.
//! Costs: O(1) per request and reply beside the bytes and the keys.
#![forbid(unsafe_code)]

use crate::command::Place;
use crate::engine::ConnId;
use crate::outbox::Outbox;
use crate::protocol::resp::reply::ReplyScanner;
use crate::protocol::resp::write::Version;
use crate::session::{Deed, Session};
use crate::time::Time;
use std::collections::VecDeque;
use std::io::IoSlice;

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one that says whether Redis is there: it learns the version and the command table, and is pinged.
    Control,
    /// Shared by all clients of this version and database.
    Shared(Pool),
    /// Made for one command that must not go on a shared link; closed after its reply.
    OneShot(Pool),
    /// For one client at a time, while it has state upstream; idle between two.
    Own(Pool),
}

/// Which clients a link can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pool {
    /// The version its replies are written in.
    pub version: Version,
    /// The database it has selected.
    pub db: u32,
}

/// Where a link is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The socket is being connected. Requests wait in the outbox, behind the handshake.
    Connecting,
    /// Connected; the handshake's replies are awaited, requests may already be under way.
    Greeting,
    /// Ready.
    Up,
}

/// What is to be done with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Hand it on untouched.
    Pass,
    /// INFO: hand it on with our section added.
    Info,
    /// GET for an HTTP client: answer as HTTP.
    Http,
    /// SELECT by a client: if Redis accepts it, this is its database from now on.
    Select(u32),
    /// AUTH by a client, with credentials that are not the proxy's own.
    Login,
    /// What is not done inside a transaction: Redis has refused what stood for it, and the client is told why.
    Refused,
    /// What DENY_COMMANDS names inside a transaction: as above.
    Denied,
    /// A step of the handshake that must succeed.
    Required,
    /// A step of the handshake whose answer does not matter.
    Ignored,
    /// INFO server, on the control link.
    Server,
    /// COMMAND, on the control link.
    CommandTable,
    /// HELLO 3, on the control link: an error means that Redis cannot track.
    Resp3,
    /// HELLO without a version, on the control link.
    Hello,
    /// INFO replication, on the control link.
    Replication,
    /// CLIENT ID, on an own link.
    Identity,
    /// CLIENT TRACKING ON, on the control link.
    Tracking,
    /// PING, on the control link.
    Heartbeat,
    /// TOUCH, on a shared link.
    Touch,
}

/// What a command touched, in terms of rules L5, L7 and L9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Touch {
    /// This many hashes at the front of the link's `touched`.
    Keys(u32),
    /// Possibly every key.
    All,
}

/// Whether what a command touched is forgotten when it completes (rules L5, L9, L10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Poison {
    /// It only reads.
    Never,
    /// It is a GET beside the fetches: what it showed may be newer than what is kept (rule L5).
    AfterGet,
    /// Whatever the reply is: a script may write and then answer any error.
    Always,
    /// The command table does not have it: if Redis does not know it either, nothing was executed.
    UnlessUnknown,
    /// It may have changed anything that Redis reports: its reply is held for the barrier, or everything is forgotten.
    Barrier,
}

/// One reply that Redis owes on a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owed {
    /// Who asked, and the slot that waits for it; `None` for the proxy itself.
    pub to: Option<(ConnId, u64)>,
    /// What to do with it.
    pub purpose: Purpose,
    /// The keys it touches.
    pub touch: Touch,
    /// What becomes of what is kept of those when it completes.
    pub poison: Poison,
    /// Whether it counts against `MAX_CONCURRENT_REQUESTS`.
    pub counted: bool,
    /// It is a transaction in one piece, with more replies than one.
    pub unit: Option<Unit>,
    /// When it was sent; never, if how long it takes says nothing.
    pub sent: Time,
    /// Which command it is.
    pub place: Place,
}

impl Owed {
    /// Whether it may take long without anything being wrong, and Redis answers nobody else meanwhile.
    pub fn is_script(&self) -> bool {
        self.poison == Poison::Barrier
    }
}

/// How far the replies to a transaction in one piece have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unit {
    /// Replies that come before that to its EXEC.
    pub before: u32,
    /// Whether any of them has been passed on.
    pub passed: bool,
}

/// What only a link of its own client has.
#[derive(Debug, Clone)]
pub struct Own {
    /// Whose it is; `None` while it is idle.
    pub client: Option<ConnId>,
    /// What Redis calls it.
    pub identity: Identity,
    /// Where its invalidations go, as its client said and as Redis was told.
    pub redirect: Option<Redirect>,
    /// What the connection is in the middle of.
    pub session: Session,
    /// What the commands outstanding do to that, in their order.
    pub deeds: VecDeque<Deed>,
    /// How the item that arrives is taken.
    pub taken: Taken,
    /// What has arrived and waits until every push of before it has been handled, or behind such a thing.
    pub held: VecDeque<Held>,
    /// Bytes pass both ways as they come, until one side closes.
    pub tunnel: Option<Tunnel>,
}

/// The id that Redis has given a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// It was asked.
    Asked,
    /// It said so.
    Known(u64),
    /// It does not say.
    Unknown,
}

/// Another client that gets the invalidations of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// Its number here.
    pub number: u64,
    /// The id of its own link.
    pub id: u64,
}

/// A connection on which replies cannot be told from other things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Commands went in that may read or write keys: all that is kept goes before anything comes out.
    pub forgets: bool,
}

/// What arrived on an own link and has not been brought to its client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// The number of the barrier it waits for; `None`: it only waits behind something that does.
    pub barrier: Option<u64>,
    /// What it is.
    pub what: Arrival,
    /// As it came.
    pub bytes: Vec<u8>,
}

/// What has arrived on an own link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// A reply, or the last part of one.
    Reply(Owed),
    /// A part of a reply, with more to come.
    Part(Owed),
    /// A message, or a part of one.
    Message,
}

/// How an item that arrives on an own link is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Taken {
    /// It has not begun.
    Unknown,
    /// As a reply that is passed on as it comes.
    Passing,
    /// As a reply that has to be seen whole to be understood.
    Collecting,
    /// As a reply that is collected to be held for the barrier.
    Holding,
    /// As one of the confirmations that make a reply.
    Confirming,
    /// As a message that is collected to be held for the barrier.
    Message,
    /// As a message that is passed on as it comes.
    MessagePassing,
}

/// One connection to Redis that the loop owns.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its name in calls.
    pub id: ConnId,
    /// What it is for.
    pub role: Role,
    /// Where it is in its life.
    pub state: State,
    /// Requests to send.
    pub outbox: Outbox,
    /// Bytes sent since it was connected.
    pub sent_bytes: u64,
    /// Until the handshake is answered no more is sent than so many bytes in all, since what follows would do harm if the
    /// handshake failed: in another database.
    pub gate: Option<u64>,
    /// Scripts and their like among what is owed: nobody knows how long they take.
    pub scripts: u32,
    /// Replies awaited.
    pub owed: VecDeque<Owed>,
    /// The key hashes of what is owed.
    pub touched: VecDeque<u64>,
    /// What an own link has besides.
    pub own: Option<Box<Own>>,
    /// Finds where replies end.
    pub scanner: ReplyScanner,
    /// Whether it is of a Redis that is not ours any more: closed when it owes nothing.
    pub retiring: bool,
    /// Whether the front reply has begun to arrive.
    pub reply_begun: bool,
    /// Whether it is not read, since its client does not read.
    pub paused: bool,
    /// Whether the front reply is collected to be held for the barrier.
    pub holding: bool,
    /// The front reply is a value on its way to an HTTP client: so many of its bytes are still to be passed on.
    pub value_left: Option<u64>,
    /// The front reply so far, where it must be seen whole.
    pub collected: Vec<u8>,
    /// What of that counts among the buffers.
    pub collected_bytes: usize,
    /// Clients that wait for its outbox to shrink.
    pub waiting: Vec<ConnId>,
    /// Whether `Flush` was said and not yet answered.
    pub flush_listed: bool,
    /// When bytes last came, or the first of what is owed was asked for.
    pub heard: Time,
    /// When the last reply was complete.
    pub answered: Time,
    /// When the last one was that did not come together with it.
    pub answered_before: Time,
    /// Its timer: connect time-out, then death and idleness.
    pub timer: Option<u32>,
}

impl Own {
    fn new(pool: Pool) -> Own {
        Own {
            client: None,
            identity: Identity::Asked,
            redirect: None,
            session: Session::new(pool.version, pool.db),
            deeds: VecDeque::new(),
            taken: Taken::Unknown,
            held: VecDeque::new(),
            tunnel: None,
        }
    }
}

impl Link {
    /// A link that is yet to be connected.
    pub fn new(id: ConnId, role: Role, now: Time) -> Link {
        Link {
            id,
            role,
            state: State::Connecting,
            outbox: Outbox::default(),
            sent_bytes: 0,
            gate: None,
            scripts: 0,
            owed: VecDeque::new(),
            touched: VecDeque::new(),
            own: match role {
                Role::Own(pool) => Some(Box::new(Own::new(pool))),
                Role::Control | Role::Shared(_) | Role::OneShot(_) => None,
            },
            scanner: ReplyScanner::default(),
            retiring: false,
            reply_begun: false,
            paused: false,
            holding: false,
            value_left: None,
            collected: Vec::new(),
            collected_bytes: 0,
            waiting: Vec::new(),
            flush_listed: false,
            heard: now,
            answered: now,
            answered_before: now,
            timer: None,
        }
    }

    /// Fills `slices` with what may be sent now, front first, and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Some(gate) = self.gate else {
            return self.outbox.slices(slices);
        };
        let most = usize::try_from(gate.saturating_sub(self.sent_bytes)).unwrap_or(usize::MAX);
        let front = self.outbox.front(most);
        match slices.first_mut() {
            Some(slice) if !front.is_empty() => {
                *slice = IoSlice::new(front);
                1
            }
            _ => 0,
        }
    }

    /// Whether anything may be sent now.
    pub fn has_to_send(&self) -> bool {
        !self.outbox.is_empty() && self.gate.is_none_or(|gate| self.sent_bytes < gate)
    }

    /// Panics where an invariant does not hold.
    pub fn check(&self) {
        self.outbox.check();
        let scripts = self.owed.iter().filter(|owed| owed.is_script());
        if self.own.is_none() {
            assert_eq!(scripts.count(), self.scripts as usize, "scripts owed");
        }
        let hashes: usize = self
            .owed
            .iter()
            .map(|owed| {
                if let Touch::Keys(n) = owed.touch {
                    n as usize
                } else {
                    0
                }
            })
            .sum();
        assert_eq!(hashes, self.touched.len(), "each hash belongs to a request");
        if let Some(own) = &self.own {
            let asked = self.owed.iter().filter(|owed| owed.to.is_some()).count();
            assert_eq!(asked, own.deeds.len(), "each deed belongs to a request");
        }
        assert!(
            !self.reply_begun || !self.owed.is_empty() || self.own.is_some(),
            "a reply arrives that nobody asked for"
        );
    }
}
