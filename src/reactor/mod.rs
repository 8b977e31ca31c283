//! One thread, one loop: everything that touches a client or the cache happens in a turn of it.
//!
//! ```text
//!   wait ─▶ clock ─▶ events ─▶ pushes ─▶ completions ─▶ links ─▶ clients ─▶ accept ─▶ timers ─▶ jobs ─▶ writes ─▶ wait ...
//!    ▲       once     noted      first      engine.complete  └ read, engine ┘                      workers  one each
//!    └ until the next deadline, or not at all while any list below holds something
//! ```
//!
//! It never decides: the engine says what to do ([`Output`]), this file does it and reports. It never blocks but in
//! `Poll::poll`, and never reads the clock but once a turn.
//!
//! Invariant: whatever is known to be doable stands in a list (ready, flush, a ready listener, timers left, jobs) or is
//! noted at its socket until the engine asks for it; the poll is edge-triggered and nobody will remind us. The loop waits
//! only when all lists are empty.
//!
//! Budgets, so that one busy peer starves nobody: bytes read per socket and turn, accepts per turn, timers per turn, one
//! write per connection and turn; how many commands a client may run per turn is the engine's. What is left over goes to
//! the end of its list.
//!
//! Costs: a client whose bytes fit one read is served with epoll_wait, read and write, and nothing else: no allocation, no
//! re-registration, no lock (completions are announced by a flag).
#![forbid(unsafe_code)]

mod closing;
mod connecting;
mod descriptors;
mod dialer;
mod drain;
mod figures;
mod handshakes;
mod listeners;
mod notify;
mod owner;
pub mod reload;
mod signals;
mod sockets;
mod straight;
mod unix;
mod wall_clock;

use crate::client::Peer;
use crate::config::Config;
use crate::engine::{ConnId, Engine, Origin, Output, PUSH_BYTES_MAX, Place, Port, Work};
use crate::fetch::{Completion, FetchError, Job};
use crate::fetcher::Fetcher;
use crate::helper;
use crate::mischief::Mischief;
use crate::process;
use crate::socket;
use crate::time::Time;
use crate::tls::Tls;
use crate::transport::{Stream, Transport};
use dialer::Dialer;
use handshakes::Handshakes;
use listeners::{Accepted, Bound, Entrance, Listeners};
use mio::event::Event;
use mio::{Events, Poll, Waker};
use notify::Notify;
use signals::{Asked, Signals};
use sockets::{Flag, Socket, Sockets, Source, Stage};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, warn};
use wall_clock::WallClock;

/// Events taken from the kernel at once; more wait for the next turn. 12 KiB of memory.
const EVENTS_MAX: usize = 1024;
/// Bytes read from one client in a turn: four full reads of a usual receive window's quarter, some 50 µs of parsing.
const CLIENT_READ_BYTES_MAX: usize = 64 * 1024;
/// Bytes read from one link in a turn. A link carries the replies of many clients, so it may be served longer.
const LINK_READ_BYTES_MAX: usize = 4 * CLIENT_READ_BYTES_MAX;
/// Connections accepted in a turn; about 10 µs each.
const ACCEPTS_MAX: usize = 64;
/// Timers fired in a turn, and as many steps of what expires or is given back: some 0.3 µs each.
const TIMERS_MAX: usize = 512;
/// Slices gathered for one write.
const SLICES_MAX: usize = 16;
/// Unread bytes taken from a socket before it is closed.
const DISCARD_BYTES_MAX: usize = 64 * 1024;
/// How long the end waits for workers, which may be inside a Redis call.
const WORKERS_PATIENCE: Duration = Duration::from_millis(100);

const _: () = assert!(LINK_READ_BYTES_MAX >= CLIENT_READ_BYTES_MAX);

/// How the loop came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every client got what was owed to it.
    Drained,
    /// The time for that ran out; so many that were still open have been closed.
    DrainTimedOut(usize),
}

/// The loop and all it owns.
pub struct Reactor {
    poll: Poll,
    engine: Engine,
    fetcher: Fetcher,
    helper: helper::Handle,
    listeners: Listeners,
    handshakes: Handshakes,
    signals: Option<Signals>,
    dialer: Dialer,
    client_dead: Duration,
    /// Connections to Redis, shared and own, that there are descriptors for.
    links_max: (usize, usize),
    sockets: Sockets,
    ready_links: VecDeque<ConnId>,
    ready_clients: VecDeque<ConnId>,
    flush: VecDeque<ConnId>,
    jobs: Vec<Job>,
    completions: Vec<Completion>,
    timers: Work,
    now: Time,
    wall: WallClock,
    drain: Duration,
    drain_accept: bool,
    /// Until then clients are served though the process is to end.
    serve_until: Option<Time>,
    drain_until: Option<Time>,
    waker: Arc<Waker>,
    reloader: Option<reload::Reloader>,
    notify: Notify,
    figures_due: Time,
    mischief: Mischief,
}

impl Reactor {
    /// Binds the ports, starts the workers and the engine. Nothing is served before [`Reactor::run`].
    ///
    /// # Errors
    /// One line for the operator: a port that is taken, a limit of the system that was hit.
    pub fn new(mut config: Config, tls: Tls, helper: helper::Handle) -> Result<Reactor, String> {
        let clients_room = descriptors::share_out(&mut config);
        let poll = Poll::new().map_err(|e| format!("cannot make a poll: {e}"))?;
        let waker = Waker::new(poll.registry(), Source::Waker.token())
            .map_err(|e| format!("cannot make a waker: {e}"))?;
        let waker = Arc::new(waker);
        let mut listeners = Listeners::bind(&config, poll.registry())?;
        listeners.clients_room = clients_room;
        let fetcher = Fetcher::start(&config, tls.upstream.clone(), waker.clone())
            .map_err(|e| format!("cannot start a worker: {e}"))?;
        let dialer = Dialer::new(&config, waker.clone(), helper.clone());
        let handshakes = Handshakes::new(&config, tls);
        let (now, drain, drain_accept) = (socket::now(), config.drain, config.drain_accept);
        let client_dead = config.client_dead;
        let links_max = (config.links_max, config.own_links_max);
        let mut wall = WallClock::new(now);
        let origin = Origin {
            seed: socket::random_seed(),
            now,
            unix_secs: wall.unix_secs(now),
            pid: std::process::id(),
            host: socket::host_name(),
        };
        Ok(Reactor {
            poll,
            engine: Engine::new(config, origin),
            fetcher,
            helper,
            listeners,
            handshakes,
            signals: None,
            waker,
            reloader: None,
            notify: Notify::from_environment(now),
            figures_due: now,
            dialer,
            client_dead,
            links_max,
            sockets: Sockets::default(),
            mischief: Mischief::ordered(),
            ready_links: VecDeque::new(),
            ready_clients: VecDeque::new(),
            flush: VecDeque::new(),
            jobs: Vec::new(),
            completions: Vec::new(),
            timers: Work::Finished,
            now,
            wall,
            drain,
            drain_accept,
            serve_until: None,
            drain_until: None,
        })
    }

    /// SIGTERM and SIGINT begin the drain; the second of them ends the process at once, with 128 plus its number.
    ///
    /// # Errors
    /// When the system refuses the handlers or the pipe.
    pub fn catch_signals(&mut self) -> io::Result<()> {
        self.signals = Some(Signals::install(self.poll.registry())?);
        Ok(())
    }

    /// Where clients are taken, each with a word for what is spoken there.
    pub fn addresses(&self) -> Vec<(&'static str, Bound)> {
        let addresses = self.listeners.addresses();
        addresses
            .map(|(entrance, address)| (entrance.name(), address))
            .collect()
    }

    /// Serves until a signal asks for the end and the drain is over.
    ///
    /// # Errors
    /// Only when waiting for events fails, which no load and no peer can cause.
    pub fn run(mut self) -> io::Result<Ended> {
        self.handle_outputs();
        self.notify.ready();
        let mut events = Events::with_capacity(EVENTS_MAX);
        let ended = loop {
            self.turn(&mut events)?;
            if let Some(ended) = self.drained() {
                break ended;
            }
        };
        self.check();
        self.fetcher.stop(WORKERS_PATIENCE);
        Ok(ended)
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let patience = self.patience();
        match self.poll.poll(events, patience) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        self.now = socket::now();
        self.notify.beat(self.now);
        self.handshakes.begin_turn();
        self.engine
            .begin_turn(self.now, self.wall.unix_secs(self.now));
        self.note_events(events);
        self.tell_figures();
        let invalidation_link = self.serve_invalidations();
        self.take_completions();
        self.take_addresses();
        self.take_reload();
        for _ in 0..self.ready_links.len() {
            let Some(id) = self.ready_links.pop_front() else {
                break;
            };
            match Some(id) == invalidation_link {
                true => self.ready_links.push_back(id),
                false => self.serve(id),
            }
        }
        self.serve_straight(events);
        for _ in 0..self.ready_clients.len() {
            let Some(id) = self.ready_clients.pop_front() else {
                break;
            };
            self.serve(id);
        }
        self.accept();
        self.end_slow_handshakes();
        self.timers = self.engine.advance(TIMERS_MAX);
        self.handle_outputs();
        self.submit_jobs();
        for _ in 0..self.flush.len() {
            let Some(id) = self.flush.pop_front() else {
                break;
            };
            self.write(id);
        }
        // What was sent may have let a paused client go on to a miss.
        self.submit_jobs();
        Ok(())
    }

    /// How long the next poll may wait: not at all while anything is left to do.
    fn patience(&self) -> Option<Duration> {
        let busy = !self.ready_links.is_empty()
            || !self.ready_clients.is_empty()
            || !self.flush.is_empty()
            || !self.jobs.is_empty()
            || self.timers == Work::Left
            || self.listeners.has_work();
        if busy {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.engine.next_deadline(),
            self.listeners.next_deadline(),
            self.handshakes.next_deadline(),
            self.serve_until,
            self.notify.next_deadline(),
            self.drain_until,
        ];
        let soonest = deadlines
            .map(|deadline| deadline.unwrap_or(Time::NEVER))
            .into_iter()
            .fold(Time::NEVER, Time::min);
        // `now` is this turn's beginning, so a wait may end late by the length of the turn. Nothing that has to be exact
        // depends on a timer: an entry past its deadline is not served whether or not its timer has fired.
        (soonest < Time::NEVER).then(|| soonest.since(self.now))
    }

    /// Reads the invalidation link, before anything that might be answered from what it takes away, and before fetches
    /// whose results it voids. To its end, but for a push of very many keys: it has had its share of this turn then. The
    /// link, if it was read.
    fn serve_invalidations(&mut self) -> Option<ConnId> {
        let id = self.engine.invalidation_link()?;
        let is_listed = |socket: &mut Socket| socket.flags.is(Flag::LISTED);
        let is_ready = self.sockets.get(id).is_some_and(is_listed);
        if is_ready {
            self.ready_links.retain(|listed| *listed != id);
            self.serve(id);
        }
        is_ready.then_some(id)
    }

    /// Notes what the poll said of all but clients, before anything is opened or closed.
    fn note_events(&mut self, events: &Events) {
        let mut asked = Asked::default();
        if events.iter().all(|event| Source::is_client(event.token())) {
            return;
        }
        for event in events {
            if Source::is_client(event.token()) {
                continue;
            }
            match Source::of(event.token()) {
                // Woken by a worker or the helper: both are looked at in every turn.
                Source::Waker => {}
                Source::Signals => {
                    asked = self.signals.as_mut().map(Signals::take).unwrap_or_default()
                }
                Source::Listener(index) => self.listeners.note(index),
                Source::Socket(_) => self.note_socket(event),
            }
        }
        if asked.switch {
            self.engine.switch_cache();
            self.handle_outputs();
        }
        if asked.reload {
            self.ask_for_reload();
        }
        if asked.end && self.drain_until.is_none() {
            self.begin_drain();
        }
    }

    /// Notes what the poll said of a socket and puts it on the lists that follow from it.
    fn note_socket(&mut self, event: &Event) {
        let Source::Socket(place) = Source::of(event.token()) else {
            return;
        };
        let calls = self.sockets.note(place, event);
        if let Some(id) = calls.ready {
            ready_list(&mut self.ready_links, &mut self.ready_clients, id).push_back(id);
        }
        self.flush.extend(calls.flush);
    }

    fn take_completions(&mut self) {
        self.fetcher.drain(&mut self.completions);
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.engine.complete(completion);
            self.handle_outputs();
        }
        self.completions = completions;
    }

    /// Serves one connection from the ready list: what it was refused room for first, then its socket.
    fn serve(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        socket.flags.put(Flag::LISTED, false);
        match &socket.stage {
            Stage::Connecting(_) => self.finish_connect(id),
            Stage::Accepting(_) => self.shake(id),
            Stage::Securing(_) => self.shake_link(id),
            Stage::Resolving | Stage::Open(_) => {}
        }
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        if !matches!(socket.stage, Stage::Open(_)) {
            return;
        }
        if socket.flags.is(Flag::BROKEN) {
            return self.fail_broken(id);
        }
        if socket.flags.replace(Flag::RESUME, false) {
            self.engine.serve(id);
            self.handle_outputs();
        }
        self.read(id);
        // Still readable: either the budget ran out, so go on next turn, or reading is paused, and `Ready` will come.
    }

    fn read(&mut self, id: ConnId) {
        let mut budget = match id.place {
            Place::Client(_) => CLIENT_READ_BYTES_MAX,
            Place::Link(_) if self.engine.invalidation_link() == Some(id) => PUSH_BYTES_MAX,
            Place::Link(_) => LINK_READ_BYTES_MAX,
        };
        loop {
            let Some(socket) = self.sockets.get(id) else {
                return;
            };
            let Stage::Open(transport) = &mut socket.stage else {
                return;
            };
            if !socket.flags.is(Flag::READABLE) {
                return;
            }
            if budget == 0 {
                return self.list_ready(id);
            }
            let room = self.engine.recv_slice(id);
            let len = room.len().min(budget);
            if len == 0 {
                if socket.flags.is(Flag::READ_CLOSED) {
                    self.engine.hung_up(id);
                    self.handle_outputs();
                }
                return;
            }
            match transport.read(&mut room[..len]) {
                Ok(n) if n > 0 => {
                    budget = transport.budget_after(budget, n);
                    let more = transport.may_have_more(n, len);
                    let more = more || socket.flags.is(Flag::READ_CLOSED);
                    socket.flags.put(Flag::READABLE, more);
                    self.engine.received(id, n);
                    self.handle_outputs();
                }
                result => {
                    let is_left = is_interrupted(&result);
                    self.read_nothing(id, result);
                    if is_left {
                        return self.list_ready(id);
                    }
                }
            }
        }
    }

    /// What follows a read that brought nothing: the end, an error, or too early a call.
    fn read_nothing(&mut self, id: ConnId, result: io::Result<usize>) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        match result {
            Ok(_) => {
                socket.flags.put(Flag::READABLE, false);
                socket.flags.put(Flag::ENDED, true);
                self.engine.peer_closed(id);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                socket.flags.put(Flag::READABLE, false)
            }
            // It stays readable.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                socket.flags.put(Flag::READABLE, false);
                self.engine.failed(id, &e.to_string());
            }
        }
        self.handle_outputs();
    }

    /// The poll reported an error; the socket says which.
    fn fail_broken(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        let Stage::Open(transport) = &mut socket.stage else {
            return;
        };
        let last_word = transport.last_word();
        let why = match transport.take_error() {
            _ if last_word.is_some() => last_word.unwrap_or_default(),
            Ok(Some(e)) | Err(e) => e.to_string(),
            Ok(None) => "closed by its peer".to_owned(),
        };
        socket.flags.put(Flag::READABLE, false);
        self.engine.failed(id, &why);
        self.handle_outputs();
    }

    /// Writes once what the connection has to send.
    fn write(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        socket.flags.put(Flag::FLUSH_LISTED, false);
        let Stage::Open(transport) = &mut socket.stage else {
            return;
        };
        if !socket.flags.is(Flag::WRITABLE) || !socket.flags.is(Flag::TO_SEND) {
            return;
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.engine.send_slices(id, &mut slices);
        if count == 0 {
            let is_full = |e: io::Error| e.kind() == io::ErrorKind::WouldBlock;
            let waits = transport.finish_write().is_err_and(is_full);
            socket.flags.put(Flag::TO_SEND, waits);
            return;
        }
        let bytes: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        match transport.write(&slices[..count]) {
            Ok(sent) => {
                // A short write means that the socket is full; the poll will say when it is not.
                socket.flags.put(Flag::WRITABLE, sent == bytes);
                // All slices used: there may be more, for which the next turn is early enough.
                socket
                    .flags
                    .put(Flag::TO_SEND, sent < bytes || count == SLICES_MAX);
                if socket.flags.is(Flag::WRITABLE) && socket.flags.is(Flag::TO_SEND) {
                    socket.flags.put(Flag::FLUSH_LISTED, true);
                    self.flush.push_back(id);
                }
                self.engine.sent(id, sent);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                socket.flags.put(Flag::WRITABLE, false)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                socket.flags.put(Flag::FLUSH_LISTED, true);
                self.flush.push_back(id);
            }
            Err(e) => {
                socket.flags.put(Flag::TO_SEND, false);
                socket.flags.put(Flag::READABLE, false);
                self.engine.failed(id, &e.to_string());
            }
        }
        self.handle_outputs();
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            match self.listeners.accept(self.now, self.engine.client_count()) {
                Accepted::Client(entrance, stream, peer) => self.open(entrance, stream, peer),
                Accepted::Nothing => break,
                Accepted::Exhausted(e) => {
                    if let Some(e) = e {
                        warn!(why = %e, "cannot accept, clients wait");
                    }
                    break;
                }
                Accepted::Failed(address, e) => {
                    error!(%address, why = %e, "cannot accept any more");
                }
            }
        }
    }

    fn open(&mut self, entrance: Entrance, stream: Stream, peer: Peer) {
        let port = entrance.port;
        let Some(id) = self.engine.open(port, peer) else {
            // Who wants TLS would not understand it.
            let text = match entrance.is_tls {
                true => b"",
                false => self.engine.refusal(port),
            };
            Transport::refuse(stream, text, DISCARD_BYTES_MAX);
            return self.handle_outputs();
        };
        if entrance.is_tls {
            self.engine.wants_tls(id);
        }
        if let Stream::Tcp(stream) = &stream
            && let Ok(local) = stream.local_addr()
        {
            self.engine.accepted_on(id, local);
        }
        // HTTP has an idle time-out of its own.
        let keepalive = port == Port::Resp;
        let token = Source::Socket(id.place).token();
        match Transport::register(stream, self.poll.registry(), token) {
            Ok(transport) => {
                // Refused only for a peer that is gone already, and then the first read says so.
                let _ = transport.set_client_options(keepalive, self.client_dead);
                let stage = match entrance.is_tls {
                    true => self.begin_tls(id, port, transport),
                    false => Some(Stage::Open(transport)),
                };
                if let Some(stage) = stage {
                    let socket = Socket::new(id.generation, stage);
                    self.sockets.insert(id.place, socket);
                }
            }
            Err(e) => self.engine.failed(id, &e.to_string()),
        }
        self.handle_outputs();
    }

    fn submit_jobs(&mut self) {
        // A job that is refused is answered, which may begin another.
        while !self.jobs.is_empty() {
            let mut jobs = std::mem::take(&mut self.jobs);
            for job in jobs.drain(..) {
                self.mischief.on_the_loop(&job.key);
                if let Err(job) = self.fetcher.submit(job) {
                    self.engine.complete(Completion {
                        id: job.id,
                        result: Err(FetchError::QueueFull),
                    });
                    self.handle_outputs();
                }
            }
            if self.jobs.is_empty() {
                // Keeps the allocation.
                self.jobs = jobs;
                break;
            }
        }
        self.fetcher.kick();
    }

    /// Does what the engine says, until it says nothing more.
    fn handle_outputs(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Submit(job) => self.jobs.push(job),
                Output::Flush(id) => {
                    if let Some(socket) = self.sockets.get(id) {
                        socket.flags.put(Flag::TO_SEND, true);
                        if !socket.flags.replace(Flag::FLUSH_LISTED, true) {
                            self.flush.push_back(id);
                        }
                    }
                }
                Output::Ready(id) => {
                    if let Some(socket) = self.sockets.get(id) {
                        socket.flags.put(Flag::RESUME, true);
                        self.list_ready(id);
                    }
                }
                Output::Connect(id) => self.connect(id),
                // Links look the name up again by themselves, each time.
                Output::Renew => self.fetcher.renew(),
                Output::Recovered => self.fetcher.recovered(),
                Output::Shut(id) => self.shut(id),
                Output::Close(id) => self.close(id),
                // Should the helper have no room for it, the next time will do.
                Output::Trim => drop(self.helper.read(process::give_memory_back)),
                Output::Set(setting) => self.take_setting(&setting),
            }
        }
    }

    fn list_ready(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get(id) else {
            return;
        };
        if !socket.flags.replace(Flag::LISTED, true) {
            ready_list(&mut self.ready_links, &mut self.ready_clients, id).push_back(id);
        }
    }
}

fn is_interrupted(result: &io::Result<usize>) -> bool {
    matches!(result, Err(e) if e.kind() == io::ErrorKind::Interrupted)
}

/// The list in which a connection waits to be served. (A function of the lists, so that other fields stay borrowable.)
fn ready_list<'a>(
    links: &'a mut VecDeque<ConnId>,
    clients: &'a mut VecDeque<ConnId>,
    id: ConnId,
) -> &'a mut VecDeque<ConnId> {
    match id.place {
        Place::Client(_) => clients,
        Place::Link(_) => links,
    }
}

#[cfg(test)]
mod tests;
