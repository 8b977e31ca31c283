//! The vocabulary: what a command is called, how many arguments it takes, which keys it touches, what it does to
//! them, and which way it goes.
//!
//! - [`table`] finds the [`Spec`] of a call; [`row`] is what a server says of a command; [`keys`] finds the keys;
//!   `policy` is our own judgement, command by command; `builtin` is the table of Redis 7.0, used until the server's own
//!   has been read.
//!
//! It never acts: it knows no client, no link, no cache. It never answers "harmless" for want of knowledge: what is not
//! known touches everything, changes everything, and goes on a link of its own that is closed afterwards.
//! Invariant: the touch of a call holds every key that Redis may read or write for it (RULES, `touch()`).
//! Costs: finding a spec hashes the name once and compares once; a call's keys are O(its arguments); no allocation.
#![forbid(unsafe_code)]

mod builtin;
pub mod keys;
mod policy;
pub mod row;
pub mod table;

use keys::{Keys, Touch, is_word};
use policy::Policy;

/// What is known of one command or subcommand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    name: Box<str>,
    arity: Arity,
    flags: Flags,
    keys: Keys,
    policy: Policy,
    place: Place,
}

/// Where a command stands in its table: a small name for it, of use as long as the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(u16);

impl Place {
    /// No command of the table.
    pub const UNKNOWN: Place = Place(u16::MAX);
    /// GET, in any table.
    pub const GET: Place = Place(u16::MAX - 1);
}

/// How many arguments a command takes, its name among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arity {
    /// `-n` means n or more.
    count: i64,
    /// The server itself said so: another number of arguments is refused before anything is executed.
    is_servers_own: bool,
}

/// What a call does to data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Neither reads nor writes a key.
    None,
    /// Reads the keys of its touch (which may be all). Nothing is poisoned when it completes (RULES L13).
    Read,
    /// May change the keys of its touch: they are poisoned when it completes (L9). With `Touch::All` that is everything;
    /// with no key (PUBLISH, FUNCTION LOAD) it is nothing, but the call still has an effect and must never be repeated.
    Write,
    /// May change anything, whatever keys it names (L10). Its touch is `Touch::All`.
    Everything,
}

/// Which way a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// `GET key`: hit, join or fetch.
    Get,
    /// Answered from what is kept if that is enough, else raw on a shared link.
    Kept(KeptRead),
    /// Answered by the proxy.
    Local(LocalCommand),
    /// Raw, on a shared link.
    Relay,
    /// On the client's own link, because it needs or leaves behind state there.
    OwnLink(StateKind),
    /// Refused here, never forwarded.
    Refuse(Refusal),
}

/// Reads that entries are enough for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeptRead {
    /// MGET: all values of one moment.
    Mget,
    /// EXISTS: how many there are.
    Exists,
    /// STRLEN.
    Strlen,
    /// GETRANGE, and SUBSTR, its older name.
    Getrange,
}

/// What the proxy answers itself. A subcommand is named after its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalCommand {
    /// PING.
    Ping,
    /// ECHO.
    Echo,
    /// QUIT.
    Quit,
    /// HELLO.
    Hello,
    /// AUTH: tried upstream on an own link if it is somebody else.
    Auth,
    /// SELECT.
    Select,
    /// RESET.
    Reset,
    /// INFO: relayed, and our own section added.
    Info,
    /// READONLY: says that cluster support is disabled, as every Redis outside a cluster.
    Readonly,
    /// READWRITE, likewise.
    Readwrite,
    /// ASKING, likewise.
    Asking,
    /// CLUSTER with any subcommand, likewise.
    Cluster,
    /// CLIENT ID.
    ClientId,
    /// CLIENT SETNAME.
    ClientSetname,
    /// CLIENT GETNAME.
    ClientGetname,
    /// CLIENT SETINFO (Redis 7.2; client libraries send it to any).
    ClientSetinfo,
    /// CLIENT INFO.
    ClientInfo,
    /// CLIENT LIST.
    ClientList,
    /// CLIENT KILL: the proxy's own clients.
    ClientKill,
    /// CLIENT UNBLOCK: the proxy's own clients, by the ids we gave them.
    ClientUnblock,
    /// CLIENT NO-EVICT.
    ClientNoEvict,
    /// CLIENT NO-TOUCH.
    ClientNoTouch,
    /// CLIENT REPLY.
    ClientReply,
    /// NEARCACHE, which only the proxy knows.
    Nearcache,
}

/// The state that makes a call need a link of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// MULTI: what follows is queued there.
    Multi,
    /// EXEC ends that. Its touch is the union of its block's, which only the engine knows: in the table it is everything.
    Exec,
    /// DISCARD ends that too.
    Discard,
    /// WATCH.
    Watch,
    /// UNWATCH ends that.
    Unwatch,
    /// SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
    Unsubscribe,
    /// It may wait for data as long as its client likes; nothing is left behind once it has answered.
    Blocking,
    /// WAIT, WAITAOF: about the writes of the very connection it is sent on, and waits there.
    Wait,
    /// MONITOR: a stream until close.
    Monitor,
    /// SYNC, PSYNC, REPLCONF: a tunnel until close.
    Replication,
    /// CLIENT TRACKING and CACHING.
    Tracking,
    /// SCRIPT DEBUG: the scripts that follow on this connection run in a debugger.
    ScriptDebug,
    /// Must not queue behind what it is meant to end or to let go, or ends the server: SHUTDOWN, SCRIPT KILL, FUNCTION
    /// KILL and STATS, CLIENT PAUSE and UNPAUSE, FAILOVER. Nothing is left behind.
    Urgent,
    /// Nobody knows what it leaves behind: unknown commands, DEBUG, MODULE LOAD. The link is closed afterwards.
    Unknown,
}

/// Why a call is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// CLIENT MAINT_NOTIFICATIONS: its pushes would reach the wrong party. Answer "unknown subcommand".
    MaintNotifications,
    /// POST or HOST: as a command is HTTP sent by a browser that somebody tricked. Close without an answer, as Redis.
    CrossProtocol,
}

/// Redis's flags of a command, as far as anybody here asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Reads data.
    pub const READONLY: Flags = Flags(1 << 0);
    /// Changes data; refused by a read-only replica.
    pub const WRITE: Flags = Flags(1 << 1);
    /// Refused when memory is short.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// For administrators.
    pub const ADMIN: Flags = Flags(1 << 3);
    /// Not to be called by scripts: mostly what needs a connection of its own.
    pub const NOSCRIPT: Flags = Flags(1 << 4);
    /// Publish and subscribe.
    pub const PUBSUB: Flags = Flags(1 << 5);
    /// Possible while Redis loads its data.
    pub const LOADING: Flags = Flags(1 << 6);
    /// Possible on a replica without its master.
    pub const STALE: Flags = Flags(1 << 7);
    /// May block its client.
    pub const BLOCKING: Flags = Flags(1 << 8);
    /// Possible before AUTH.
    pub const NO_AUTH: Flags = Flags(1 << 9);
    /// Possible while a script is busy.
    pub const ALLOW_BUSY: Flags = Flags(1 << 10);
    /// Not possible inside MULTI.
    pub const NO_MULTI: Flags = Flags(1 << 11);
    /// Comes from a module.
    pub const MODULE: Flags = Flags(1 << 12);
    /// May change data and does reach replicas, though it is called a read.
    pub const MAY_REPLICATE: Flags = Flags(1 << 13);

    /// The flags of these names; others are ignored.
    pub fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> Flags {
        let bits = names.map(|name| match name {
            "readonly" => Flags::READONLY.0,
            "write" => Flags::WRITE.0,
            "denyoom" => Flags::DENYOOM.0,
            "admin" => Flags::ADMIN.0,
            "noscript" => Flags::NOSCRIPT.0,
            "pubsub" => Flags::PUBSUB.0,
            "loading" => Flags::LOADING.0,
            "stale" => Flags::STALE.0,
            "blocking" => Flags::BLOCKING.0,
            "no_auth" => Flags::NO_AUTH.0,
            "allow_busy" => Flags::ALLOW_BUSY.0,
            "no_multi" => Flags::NO_MULTI.0,
            "module" => Flags::MODULE.0,
            "may_replicate" => Flags::MAY_REPLICATE.0,
            _ => 0,
        });
        Flags(bits.fold(0, |all, bit| all | bit))
    }

    /// Whether it has at least one of `any`.
    #[inline]
    pub fn has(self, any: Flags) -> bool {
        self.0 & any.0 != 0
    }

    /// Both together.
    pub const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl Spec {
    /// The name in lower case, `client|list` for a subcommand; empty for a command that is not in the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its place in the table.
    #[inline]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether it is in the table.
    pub fn is_known(&self) -> bool {
        !self.name.is_empty()
    }

    /// Whether a call with `argc` arguments, the name among them, has as many as the command takes.
    #[inline]
    pub fn arity_ok(&self, argc: usize) -> bool {
        let count = self.arity.count.unsigned_abs();
        let argc = argc as u64;
        if self.arity.count >= 0 {
            argc == count
        } else {
            argc >= count
        }
    }

    /// Whether its only key, if any, is the argument behind its name: then no other has to be looked at for it.
    pub fn has_first_key_only(&self) -> bool {
        matches!(self.keys, Keys::None | Keys::First)
    }

    /// Whether it is a write if it says STORE anywhere.
    pub fn may_store(&self) -> bool {
        self.policy.depends == Depends::OnStore
    }

    /// Redis's flags.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// The way of a call.
    ///
    /// A number of arguments that the server is known to refuse goes to a shared link, whatever the command: it is
    /// refused there before anything is executed, and the words are the server's own. Only a [`Refusal`] stands. `args` yields all `argc`
    /// arguments, the name first.
    #[inline]
    pub fn way<'b, A>(&self, args: A, argc: usize) -> Way
    where
        A: Iterator<Item = &'b [u8]>,
    {
        if !self.arity_ok(argc) {
            match self.policy.way {
                Way::Refuse(_) => {}
                Way::Get | Way::Kept(_) | Way::Local(_) => return Way::Relay,
                _ if self.arity.is_servers_own => return Way::Relay,
                _ => {} // the server may be newer than our built-in table, and accept it
            }
        }
        // Anywhere: a stream called "block" costs a link of its own, a BLOCK not found would stall a link of others.
        if self.policy.depends == Depends::OnBlock && has_word(args, b"block") {
            return Way::OwnLink(StateKind::Blocking);
        }
        self.policy.way
    }

    /// The effect of a call. One that the server is known to refuse for its number of arguments has none.
    #[inline]
    pub fn effect<'b, A>(&self, args: A, argc: usize) -> Effect
    where
        A: Iterator<Item = &'b [u8]>,
    {
        if self.is_refused(argc) {
            return Effect::None;
        }
        if self.policy.depends == Depends::OnStore && !has_word(args, b"store") {
            return Effect::Read;
        }
        self.policy.effect
    }

    /// Visits the keys of a call, or says that it touches all (then some may have been visited too, or not). A key may
    /// be visited twice. A call that the server is known to refuse for its number of arguments touches none; if only our
    /// built-in table finds fault, the server may be newer than it, and all keys are touched.
    #[inline]
    pub fn touch<'b, A>(&self, args: A, argc: usize, visit: &mut impl FnMut(&'b [u8])) -> Touch
    where
        A: Iterator<Item = &'b [u8]> + Clone,
    {
        if !self.arity_ok(argc) && self.keys != Keys::None {
            return if self.is_refused(argc) {
                Touch::Keys
            } else {
                Touch::All
            };
        }
        self.keys.walk(args, argc, visit)
    }

    /// Whether everything must be removed from the cache when the call completes, because tracking does not report all
    /// it may do (SWAPDB, unknown commands), or because nothing is left to keep (FLUSHALL).
    ///
    /// Where it is false and the touch is `All`, holding the reply for the PING barrier is enough (L10 (b)), except that
    /// EVAL, EVALSHA and FCALL may call SWAPDB inside (seen with 7.0.15): that is, like SWAPDB by somebody else,
    /// not reported by tracking.
    pub fn flush_at_completion(&self, argc: usize) -> bool {
        self.policy.flush && !self.is_refused(argc)
    }

    /// Redis refuses it for its number of arguments, before it executes anything.
    #[inline]
    fn is_refused(&self, argc: usize) -> bool {
        self.arity.is_servers_own && !self.arity_ok(argc)
    }
}

/// Which argument changes the judgement of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depends {
    /// None.
    Never,
    /// XREAD and XREADGROUP block only with BLOCK.
    OnBlock,
    /// SORT writes only with STORE.
    OnStore,
}

fn has_word<'b>(mut args: impl Iterator<Item = &'b [u8]>, word: &[u8]) -> bool {
    args.any(|arg| is_word(arg, word))
}
