//! The decisions: hit, join, fetch, relay, keep, forget, expire.
//!
//! The engine owns every client, link, entry, fetch and timer. It has no socket, no clock, no thread and no randomness:
//! a driver (the reactor, or a test) calls it with bytes, completions and the time, and carries out what
//! [`Engine::poll_output`] says. The same calls with the same seed give the same bytes.
//!
//! The order of a turn: [`Engine::begin_turn`]; completions and links; clients; [`Engine::advance`]; then the outputs.
//! Where to read on: `read.rs` (GET by either protocol), `kept.rs` (MGET and other reads that are answered here),
//! `relay.rs` (everything else), `own/` (clients with state upstream), `links.rs` (what Redis answers),
//! `upstream.rs` (whether Redis is there), `local.rs` (what the proxy answers itself).
//!
//! Invariants beside those of the parts: an entry of a key exists only while no fetch of it holds its mark; a client on
//! hold has someone who will put it on the ready list; `in_flight` counts exactly the fetches under way, the relayed
//! commands that count, and the admissions given out. [`Engine::check`] walks all of them.
#![forbid(unsafe_code)]

mod access;
mod address;
mod admin;
mod admission;
mod aside;
mod budget;
mod clients;
mod coherence;
mod doors;
mod fingerprint;
mod forget;
mod http;
mod insight;
mod kept;
mod leftovers;
mod links;
mod local;
mod loss;
mod measure;
mod own;
mod pass;
mod pause;
mod read;
mod relay;
mod reload;
mod replies;
mod resp;
mod roster;
mod secure;
mod share;
mod silence;
mod straight;
mod switches;
mod timers;
mod touch;
mod upload;
mod upstream;
mod verify;
mod walk;
mod warm;

use crate::buffer;
use crate::cache::{Cache, Limits};
use crate::client::Client;
use crate::command::table::Table;
use crate::config::{Coherence, Config, Setting};
use crate::fetch::{Completion, Fetches, Job};
use crate::hash::{KeyHasher, PrehashedMap};
use crate::insight::ghost::Ghost;
use crate::link::{self, Link};
use crate::outbox;
use crate::prefix::Prefixes;
use crate::protocol::resp::request::RequestLimits;
use crate::stats::Stats;
use crate::time::Time;
use crate::tracking::Tracking;
pub use admin::{ShellFigures, WorkerFigures, WorkerState};
use admission::Admission;
use aside::Aside;
pub use clients::Drained;
use coherence::Barriers;
use insight::Insight;
use measure::Measures;
use own::OwnLinks;
pub use pause::PUSH_BYTES_MAX;
pub use secure::Refused;
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
pub use straight::AtOnce;
#[doc(hidden)]
pub use switches::Rule;
use timers::{Timer, Timers};
use touch::Toucher;
use upstream::Upstream;
use verify::Verify;
use warm::Warm;

/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// From here on a client's next commands wait until it has read what it asked for.
const OUTBOX_HIGH_BYTES: usize = 1024 * 1024;
/// Below this they go on.
const OUTBOX_LOW_BYTES: usize = OUTBOX_HIGH_BYTES / 2;

/// Blocks kept for reuse by inboxes and outboxes, 4 MiB of each.
const POOL_BLOCKS: usize = 256;

/// Names one connection for as long as the process lives: a slot of the engine's tables, and how often it was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Client or link, and the place in its table. Dense and small: the shell may index a table with it.
    pub place: Place,
    /// Counts the uses of the place; an id of an earlier use is stale and every call with it does nothing.
    pub generation: u32,
}

/// Which table, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A connection that a client opened to us.
    Client(u32),
    /// A connection that we open to Redis.
    Link(u32),
}

/// What a client speaks, decided by the port it came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Port {
    /// HTTP/1.
    Http,
    /// The Redis protocol.
    Resp,
    /// HTTP/1, for whoever runs the proxy.
    Admin,
    /// HTTP/1, for what asks whether it runs: health and metrics, nothing else.
    Probe,
}

impl Port {
    /// Every one.
    pub const ALL: [Port; 4] = [Port::Http, Port::Resp, Port::Admin, Port::Probe];

    /// One word for people and figures.
    pub const fn name(self) -> &'static str {
        match self {
            Port::Http => "http",
            Port::Resp => "resp",
            Port::Admin => "admin",
            Port::Probe => "probe",
        }
    }
}

/// What the shell must do next. Drained with [`Engine::poll_output`] after every other call.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Hand this to worker `job.worker` before the turn ends.
    Submit(Job),
    /// The connection has bytes to send: gather with [`Engine::send_slices`] and write once at the end of the turn, and
    /// whenever the socket becomes writable, until there is nothing left. Said again only after that.
    Flush(ConnId),
    /// There is work left that needs no new bytes (or reading may go on after a pause): call [`Engine::serve`], then
    /// read the socket if its last readiness was not used up. Put it at the end of the ready list.
    Ready(ConnId),
    /// Open a non-blocking connection to Redis and report with [`Engine::connected`].
    Connect(ConnId),
    /// Redis may be another one behind the same name: workers make fresh connections, the name is resolved again.
    Renew,
    /// Redis answers again: workers that pause after a failed attempt try at once.
    Recovered,
    /// Everything was sent and nothing more will be: shut the socket's write side, and go on reading (the bytes are
    /// dropped) until the peer closes or [`Output::Close`] comes, so that the last reply is not lost to a reset.
    Shut(ConnId),
    /// Close the socket now and forget the id. Nothing more is said of it.
    Close(ConnId),
    /// Much memory was freed: give it back to the system, in the background.
    Trim,
    /// An operator has changed this setting; it is in force here already.
    Set(Setting),
}

/// What a time-bound call left undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// All that was due is done.
    Finished,
    /// The budget ran out first: call again next turn, without waiting.
    Left,
}

/// What the engine takes from outside once, at its start.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Seeds hashing and jitter: random in production, fixed in tests.
    pub seed: [u64; 4],
    /// The first instant.
    pub now: Time,
    /// Seconds since 1970 at `now`, for HTTP's Date.
    pub unix_secs: u64,
    /// The process id, for upstream connection names and `INFO`.
    pub pid: u32,
    /// The name of this machine, for upstream connection names.
    pub host: &'static str,
}

/// How many of a client's outstanding commands touch a key (by the hash of its name).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Outstanding {
    relayed: u32,
    fetching: u32,
}

/// The core of the proxy. See the module documentation for the order in which its calls come.
#[derive(Clone)]
pub struct Engine {
    config: Config,
    hasher: KeyHasher,
    request_limits: RequestLimits,
    http_limits: crate::protocol::http::Limits,
    http_policy: crate::protocol::http::route::Policy,
    admin_policy: crate::protocol::http::admin::AdminPolicy,
    /// Every key of the configuration as it may be shown.
    settings: Vec<Setting>,
    /// Which keys may be kept.
    prefixes: Prefixes,
    now: Time,
    started: Time,
    unix_secs: u64,
    date: [u8; 29],
    pid: u32,
    host: &'static str,
    /// State of the jitter's generator.
    random: u64,
    cache: Cache,
    fetches: Fetches,
    /// What each client has outstanding, by client and key hash.
    outstanding: PrehashedMap<(u64, u64), Outstanding>,
    clients: roster::Roster,
    client_generations: Vec<u32>,
    clients_opened: u64,
    /// Clients of the admin port, which are bounded and counted by themselves.
    admin_clients: usize,
    probe_clients: usize,
    links: Slab<Link>,
    link_generations: Vec<u32>,
    /// The shared links, by the clients they serve.
    pools: BTreeMap<link::Pool, Vec<ConnId>>,
    own_links: OwnLinks,
    upstream: Upstream,
    coherence: Coherence,
    tracking: Tracking,
    barriers: Barriers,
    /// Scripts that are outstanding on links that clients share.
    scripts: u32,
    /// What is known of CLIENT PAUSE.
    pauses: silence::Pauses,
    measures: Measures,
    missed: kept::Missed,
    /// Hits are given before this instant.
    hits_until: Time,
    /// What is known of before Redis went away, for reads that fail (rule L18).
    aside: Aside,
    /// How near all buffers are to their limit.
    strain: budget::Strain,
    /// At DOWN: when it was last known what has changed.
    known_since: Time,
    verify: Verify,
    /// The number of hits at which the next one is sampled, by `verify` or `insight`.
    sample_due: u64,
    /// Apart, because nothing that is often done looks at it.
    insight: Box<Insight>,
    /// A sampled hit is about to be written: the shell is asked for the time.
    is_timing: bool,
    access: access::Access,
    ghost: Ghost,
    warm: Warm,
    walks: walk::Walks,
    shell: ShellFigures,
    toucher: Toucher,
    table: Table,
    /// Relayed reads by command, for INFO.
    relayed_reads: BTreeMap<String, u64>,
    timers: Timers,
    admission: Admission,
    outputs: VecDeque<Output>,
    /// Blocks for outboxes.
    pool: outbox::Pool,
    /// Blocks for inboxes.
    inbox_pool: buffer::Pool,
    /// Where most reads go; taken out while its bytes are handled.
    scratch: Vec<u8>,
    /// What the last `recv_slice` gave.
    receiving: straight::Receiving,
    /// Replies that are to be written at once.
    replies: replies::Replies,
    /// What the GET before was like.
    get_memo: crate::protocol::resp::request::GetMemo,
    /// What the answers to this second's plain hits have in common.
    hit_middle: Vec<u8>,
    /// Heads of HTTP requests that were understood, by client; several clients share a place.
    known_heads: Vec<crate::protocol::http::KnownHead>,
    /// The key hashes of the command being handled.
    touch: Vec<u64>,
    /// The canonical form of the command being handled, where it came in another.
    canonical: Vec<u8>,
    /// The key of the HTTP request being handled, where it had to be decoded.
    http_key: Vec<u8>,
    stats: Stats,
    /// The process is to end: clients are served, and shown out when they leave a moment for it.
    draining: bool,
    /// The time for that is over: what has arrived is answered, and nothing more.
    closing: bool,
    switches: switches::Switches,
}

impl ConnId {
    /// The id as one word, unique among the clients (or among the links) of a process.
    fn packed(self) -> u64 {
        let (Place::Client(index) | Place::Link(index)) = self.place;
        u64::from(self.generation) << 32 | u64::from(index)
    }
}

impl Engine {
    /// An engine with nothing open. Its first outputs connect it to Redis.
    pub fn new(config: Config, origin: Origin) -> Engine {
        let limits = Limits {
            keys_max: config.cache_capacity,
            bytes_max: config.cache_max_bytes,
        };
        let mut engine = Engine {
            hasher: KeyHasher::new(origin.seed),
            request_limits: RequestLimits {
                request_bytes_max: config.request_bytes_max,
                ..RequestLimits::default()
            },
            http_limits: crate::protocol::http::Limits::DEFAULT,
            http_policy: local::http_policy(&config),
            admin_policy: admin::admin_policy(&config),
            settings: Vec::new(),
            prefixes: Prefixes::new(&config.cache_prefixes, &config.bypass_prefixes),
            now: origin.now,
            started: origin.now,
            unix_secs: origin.unix_secs,
            date: crate::protocol::http::response::date(origin.unix_secs),
            pid: origin.pid,
            host: origin.host,
            random: origin.seed[0],
            cache: Cache::new(limits, origin.now),
            fetches: Fetches::default(),
            outstanding: PrehashedMap::default(),
            clients: roster::Roster::default(),
            client_generations: Vec::new(),
            clients_opened: 0,
            admin_clients: 0,
            probe_clients: 0,
            links: Slab::new(),
            link_generations: Vec::new(),
            pools: BTreeMap::new(),
            own_links: OwnLinks::default(),
            upstream: Upstream::default(),
            coherence: config.coherence,
            tracking: Tracking::default(),
            barriers: Barriers::default(),
            scripts: 0,
            pauses: silence::Pauses::default(),
            measures: Measures::default(),
            missed: kept::Missed::default(),
            hits_until: Time::ZERO,
            aside: Aside::new(limits, origin.now),
            strain: budget::Strain::new(config.buffers_max_bytes),
            known_since: origin.now,
            verify: Verify::new(),
            sample_due: 0,
            insight: Box::new(Insight::new(origin.seed[1])),
            is_timing: false,
            access: access::Access::default(),
            ghost: Ghost::default(),
            warm: Warm::default(),
            walks: walk::Walks::default(),
            shell: ShellFigures::default(),
            toucher: Toucher::new(origin.now),
            table: Table::builtin(),
            relayed_reads: BTreeMap::new(),
            timers: Timers::new(origin.now),
            admission: Admission::new(config.max_concurrent_requests),
            outputs: VecDeque::new(),
            pool: outbox::Pool::new(POOL_BLOCKS),
            inbox_pool: buffer::Pool::new(POOL_BLOCKS),
            scratch: vec![0; READ_BYTES],
            receiving: straight::Receiving::Scratch,
            replies: replies::Replies::default(),
            get_memo: Default::default(),
            hit_middle: Vec::new(),
            known_heads: vec![Default::default(); straight::KNOWN_HEADS],
            touch: Vec::new(),
            canonical: Vec::new(),
            http_key: Vec::new(),
            stats: Stats::default(),
            draining: false,
            closing: false,
            switches: switches::Switches::default(),
            config,
        };
        engine.set_date();
        engine.refresh_lease();
        engine.plan_check();
        engine.plan_access();
        engine.plan_touching();
        engine.say_who_is_let_in();
        engine.connect_control();
        engine
    }

    /// The turn begins: `now` is the time of everything until the next call, `unix_secs` the wall clock for Date.
    pub fn begin_turn(&mut self, now: Time, unix_secs: u64) {
        debug_assert!(now >= self.now, "time does not go back");
        self.now = now;
        if unix_secs != self.unix_secs {
            self.unix_secs = unix_secs;
            self.set_date();
        }
    }

    /// Writes the second down as HTTP's answers will say it.
    fn set_date(&mut self) {
        self.date = crate::protocol::http::response::date(self.unix_secs);
        let cache_control = &self.config.http_cache_control;
        self.hit_middle = crate::protocol::http::hit::middle(&self.date, cache_control);
    }

    /// Where to read the connection's next bytes to. Empty: do not read now (paused; a `Ready` will say when to go on).
    /// What the slice holds is left over from other reads; only what [`Engine::received`] counts is looked at.
    pub fn recv_slice(&mut self, id: ConnId) -> &mut [u8] {
        self.receiving = straight::Receiving::Scratch;
        match id.place {
            Place::Client(_) => self.client_recv_slice(id),
            Place::Link(_) => self.link_recv_slice(id),
        }
    }

    /// `n` bytes were read into the slice that the last [`Engine::recv_slice`] of this id returned.
    pub fn received(&mut self, id: ConnId, n: usize) {
        match id.place {
            Place::Client(_) => {
                if let AtOnce::Replies(_) = self.received_at_once(id, n) {
                    self.sent_at_once(id, 0);
                }
            }
            Place::Link(_) => self.link_received(id, n),
        }
    }

    /// Fills `slices` with what is to be sent, front first; returns how many were filled (0: nothing to send).
    pub fn send_slices<'a>(&'a self, id: ConnId, slices: &mut [IoSlice<'a>]) -> usize {
        match id.place {
            Place::Client(_) => self
                .client_index(id)
                .map_or(0, |ix| self.clients[ix].outbox.slices(slices)),
            Place::Link(_) => self
                .link_index(id)
                .map_or(0, |ix| self.links[ix].slices(slices)),
        }
    }

    /// `n` bytes of those slices were written.
    pub fn sent(&mut self, id: ConnId, n: usize) {
        match id.place {
            Place::Client(_) => self.client_sent(id, n),
            Place::Link(_) => self.link_sent(id, n),
        }
    }

    /// The peer will send nothing more (its FIN). What is owed to a client is still sent.
    pub fn peer_closed(&mut self, id: ConnId) {
        match id.place {
            Place::Client(_) => self.client_peer_closed(id),
            Place::Link(_) => self.link_lost(id, "Redis closed the connection"),
        }
    }

    /// The peer has closed its side, though not all it sent before was read, since reading is paused.
    pub fn hung_up(&mut self, id: ConnId) {
        if let Some(ix) = self.client_index(id)
            && self.waits_upstream(ix)
        {
            self.close_client(ix, crate::client::CloseReason::Asked);
        }
    }

    /// The socket failed (reset, broken pipe, time-out): nothing more can be sent or read. The engine answers with
    /// [`Output::Close`].
    pub fn failed(&mut self, id: ConnId, why: &str) {
        match id.place {
            Place::Client(_) => {
                if let Some(ix) = self.client_index(id) {
                    self.close_client(ix, crate::client::CloseReason::SocketFailed);
                }
            }
            Place::Link(_) => self.link_lost(id, why),
        }
    }

    /// Fires the timers that are due, at most `budget` of them.
    pub fn advance(&mut self, budget: usize) -> Work {
        let mut left = budget;
        while left > 0 {
            let before = left;
            let Some(timer) = self.timers.pop_due(self.now, &mut left) else {
                break;
            };
            left = left.min(before - 1);
            self.fire(timer);
        }
        self.buffers_shrank();
        if self.is_timing {
            self.say_hits(None);
        }
        let expired = self.cache.advance(self.now, budget);
        let more_aside = self.aside.advance(self.now, budget);
        self.stats
            .add(crate::stats::Counter::Expirations, expired.count as u64);
        if !self.walks.is_empty() {
            self.walk_on();
        }
        if left == 0 || expired.more || more_aside || !self.walks.is_empty() {
            Work::Left
        } else {
            Work::Finished
        }
    }

    /// When [`Engine::advance`] wants to be called next, `None` when nothing is timed.
    pub fn next_deadline(&self) -> Option<Time> {
        let soonest = self
            .timers
            .next_deadline()
            .unwrap_or(Time::NEVER)
            .min(self.cache.next_deadline().unwrap_or(Time::NEVER))
            .min(self.aside.next_deadline().unwrap_or(Time::NEVER));
        (soonest < Time::NEVER).then_some(soonest)
    }

    /// The next thing to do, oldest first.
    #[inline]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// A worker is done with a job. A completion whose fetch has timed out already is ignored.
    pub fn complete(&mut self, completion: Completion) {
        if self.verify.awaits(completion.id) {
            return self.check_answered(completion);
        }
        self.fetch_completed(completion.id, completion.result);
        self.buffers_grew();
    }

    /// Walks every structure and panics where an invariant does not hold. For tests; O(everything).
    pub fn check(&self) {
        self.cache.check();
        self.fetches.check();
        self.timers.check();
        let (mut relayed, mut fetching, mut keys) = (0, 0, 0);
        for (_, client) in &self.clients {
            client.check();
            fetching += client.fetching;
            if client.hold == crate::client::Hold::Limit {
                assert!(
                    self.admission.is_queued(client.id),
                    "a client waits for an admission nobody will give"
                );
            }
        }
        for (_, link) in &self.links {
            link.check();
            assert!(
                !link.paused || link.owed.iter().any(|owed| owed.to.is_some()),
                "a link is paused for nobody"
            );
            relayed += link.owed.iter().filter(|owed| owed.counted).count();
            if link.own.is_none() {
                keys += link.touched.len();
            }
        }
        self.check_own_links();
        self.check_buffers();
        self.check_balances();
        let admitted = self
            .clients
            .iter()
            .filter(|(_, client)| client.admitted)
            .count();
        assert_eq!(
            self.admission.in_flight(),
            relayed + self.barriers.counted() + self.fetches.len() + admitted,
            "requests in flight"
        );
        let counted: u32 = self.outstanding.values().map(|counts| counts.relayed).sum();
        assert_eq!(counted as usize, keys, "keys touched by relayed commands");
        let waiters: usize = self
            .fetches
            .iter_by_age()
            .map(|(_, flight, _)| flight.waiters.len())
            .sum();
        let waited: u32 = self
            .outstanding
            .values()
            .map(|counts| counts.fetching)
            .sum();
        assert_eq!(waited as usize, waiters, "keys waited for");
        assert!(
            fetching as usize <= waiters,
            "a client waits for a fetch that does not exist"
        );
        assert!(
            self.outstanding
                .values()
                .all(|counts| *counts != Outstanding::default())
        );
        for (_, flight, marked) in self.fetches.iter_by_age() {
            let kept = self
                .cache
                .peek(flight.db, &flight.key, flight.hash, self.now)
                .is_some();
            assert!(
                !(marked && kept),
                "rule L2: an entry exists while a fetch of its key holds the mark"
            );
        }
    }

    /// Panics unless opened less closed is what lives, and every timer is somebody's.
    fn check_balances(&self) {
        use crate::stats::Counter;
        let live = |opened, closed| self.stats.get(opened) - self.stats.get(closed);
        let clients = live(Counter::ClientsOpened, Counter::ClientsClosed);
        assert_eq!(clients, self.data_clients() as u64, "clients");
        let links = live(Counter::LinksOpened, Counter::LinksClosed);
        assert_eq!(links, self.links.len() as u64, "links");
        let of_client = |client: &Client| {
            let penalty = client.extras.as_ref().and_then(|extras| extras.penalty);
            [client.timer, penalty]
        };
        let clients = self.clients.iter();
        let of_clients = clients.flat_map(|(_, client)| of_client(client));
        let of_links = self.links.iter().map(|(_, link)| link.timer);
        let timed = of_clients.chain(of_links).flatten().count()
            + self.fetches.len()
            + self.admission.waiting();
        // Those of the engine itself: reconnect or heartbeat, tracking, touching, buffers.
        let own = self.timers.len().checked_sub(timed);
        assert!(own.is_some_and(|own| own <= 5), "{own:?} timers of nobody");
    }

    /// Connections to Redis.
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Fetch(id) => self.fetch_is_due(id),
            Timer::Client(id) => self.client_timer_fired(id),
            Timer::Queue(id) => self.queue_timer_fired(id),
            Timer::Link(id) => self.link_timer_fired(id),
            Timer::Penalty(id) => self.penalty_ends(id),
            Timer::Reconnect => self.connect_control(),
            Timer::Heartbeat => self.heartbeat(),
            Timer::TrackingRetry => self.retry_tracking(),
            Timer::Buffers => self.buffers_timer_fired(),
            Timer::Trim => self.trim_timer_fired(),
            Timer::Touch => self.touch_timer_fired(),
        }
    }

    /// The next number of the jitter's generator (splitmix64, Steele, Lea and Flood 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
