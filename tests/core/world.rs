//! One engine and everything around it. Each method is one thing that can happen; nothing happens by itself.
//!
//! FIFO per connection and per worker, any order between them. The world watches the contract while it moves: `Flush` and
//! `Ready` are not said twice, nothing is said of a connection that was closed, `Shut` comes when all was sent, and only
//! canonical requests reach Redis.

use super::codec::parse_request;
use super::redis::{Redis, Session, Snapshot, message, push};
use nearcache::config::Config;
use nearcache::engine::{ConnId, Engine, Origin, Output, Place, Port, Work};
use nearcache::fetch::{Completion, FetchError, Fetched, Job, RunId};
use nearcache::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A client's connection, from the client's side.
#[derive(Debug, Clone)]
pub struct Socket {
    pub id: ConnId,
    /// Written by the client, not yet read by the engine.
    pub incoming: VecDeque<u8>,
    /// The client will write nothing more.
    pub fin: bool,
    /// The engine knows that.
    pub fin_seen: bool,
    /// Written by the engine, not yet looked at by the test.
    pub received: Vec<u8>,
    /// The engine has shut its side.
    pub shut: bool,
    /// The engine has closed it, or the client has reset it.
    pub closed: bool,
    /// The engine asked not to be read for until it says `Ready`.
    pub paused: bool,
    flush: bool,
}

/// A connection of the engine to Redis.
#[derive(Debug, Clone)]
pub struct Wire {
    pub connected: bool,
    /// Sent by the engine, not yet executed.
    pub requests: VecDeque<u8>,
    /// Answered by Redis, not yet read by the engine.
    pub replies: VecDeque<u8>,
    pub session: Session,
    /// It is the one that says whether Redis is there, and tracks.
    pub control: bool,
    /// Redis's end is gone: what is in `replies` may still come, nothing more is executed.
    pub cut: bool,
    flush: bool,
}

/// A worker: what it has to do, and what it has done.
#[derive(Debug, Clone, Default)]
pub struct Worker {
    pub jobs: VecDeque<Job>,
    /// The front job's GET was executed and its PTTL was not.
    pub half: Option<Result<Option<Vec<u8>>, String>>,
    pub done: VecDeque<(Job, Completion)>,
    /// Its connection leads to another server, where every key holds `elsewhere`.
    pub elsewhere: bool,
}

/// A finished fetch, for checks of what may have been joined.
#[derive(Debug, Clone)]
pub struct FetchNote {
    pub key: (u32, Vec<u8>),
    pub value: Option<Vec<u8>>,
    pub completed: u64,
}

/// How jobs find their worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// As the engine says: rule L1.
    ByKey,
    /// In turn, to show what rule L1 is for.
    InTurn,
}

#[derive(Clone)]
pub struct World {
    pub engine: Engine,
    pub redis: Redis,
    pub now: Time,
    /// Counts what happened.
    pub step: u64,
    pub sockets: Vec<Socket>,
    pub wires: BTreeMap<ConnId, Wire>,
    /// Connections that are gone, with requests that may still be executed.
    pub orphans: Vec<Wire>,
    pub workers: Vec<Worker>,
    pub ready: VecDeque<ConnId>,
    pub routing: Routing,
    pub fetched: Vec<FetchNote>,
    pub keep_notes: bool,
    /// Print what happens.
    pub trace: bool,
    /// What was in force when Redis executed each PING of the present invalidation link, while it tracked.
    pings: Vec<Option<Snapshot>>,
    pings_before: u64,
    /// What was in force when the tracking that Redis knows of began.
    pub tracking_began: Snapshot,
    /// The number of `Output::Renew` said.
    pub renewals: usize,
    jobs_seen: usize,
}

pub const START: Time = Time::from_millis(1_000_000);

impl World {
    pub fn new(config: Config, seed: u64) -> World {
        let workers = vec![Worker::default(); config.redis_workers];
        let origin = Origin {
            seed: [seed, 2, 3, 4],
            now: START,
            unix_secs: 1_800_000_000,
            pid: 7,
            host: "here",
        };
        let mut world = World {
            engine: Engine::new(config, origin),
            redis: Redis::new(START),
            now: START,
            step: 0,
            sockets: Vec::new(),
            wires: BTreeMap::new(),
            orphans: Vec::new(),
            workers,
            ready: VecDeque::new(),
            routing: Routing::ByKey,
            fetched: Vec::new(),
            keep_notes: true,
            trace: false,
            pings: Vec::new(),
            pings_before: 0,
            tracking_began: Snapshot::new(),
            renewals: 0,
            jobs_seen: 0,
        };
        world.note_outputs();
        world
    }

    fn tell(&self, what: &str, id: &dyn std::fmt::Debug, bytes: &[u8]) {
        if self.trace {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
            println!(
                "{:>6} {:>8} us {what} {id:?} {}",
                self.step,
                self.now.micros(),
                text.escape_debug()
            );
        }
    }

    /// A turn begins a little later.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.redis.advance(self.now);
        self.engine
            .begin_turn(self.now, 1_800_000_000 + self.now.since(START).as_secs());
    }

    /// The end of a cycle of Redis's event loop: tracking connections are told of what has changed, subscribers of what
    /// was published.
    pub fn end_cycle(&mut self) {
        for published in std::mem::take(&mut self.redis.published) {
            for wire in self.wires.values_mut().filter(|wire| !wire.cut) {
                wire.replies.extend(message(&wire.session, &published));
            }
        }
        let changes = std::mem::take(&mut self.redis.changes);
        if changes.is_empty() {
            return;
        }
        for wire in self.wires.values_mut() {
            if let (Some(prefixes), false) = (&wire.session.tracking, wire.cut) {
                wire.replies.extend(push(prefixes, &changes));
            }
        }
    }

    /// Someone else changes keys: these commands in one cycle of Redis.
    pub fn foreign(&mut self, db: u32, commands: &[Vec<Vec<u8>>]) {
        self.step += 1;
        let mut session = Session {
            db,
            ..Session::default()
        };
        for args in commands {
            self.redis.execute(&mut session, args);
            self.tell_execution(Some(args), &"somebody else");
        }
        self.end_cycle();
    }

    /// Redis's end of a link is gone; of what it has answered the first `keep` bytes still come.
    pub fn cut(&mut self, link: ConnId, keep: usize) {
        self.step += 1;
        let Some(wire) = self.wires.get_mut(&link).filter(|wire| wire.connected) else {
            return;
        };
        wire.cut = true;
        wire.replies.truncate(keep);
        wire.requests.clear();
        self.tell("Redis's end is gone of", &link, b"");
    }

    /// Redis is another process from now on, and has lost these keys. `keep` says how much of what is under way on a
    /// link still comes.
    pub fn restart(&mut self, lost: &[(u32, Vec<u8>)], mut keep: impl FnMut(usize) -> usize) {
        let links: Vec<ConnId> = self.wires.keys().copied().collect();
        for link in links {
            let n = keep(self.wires[&link].replies.len());
            self.cut(link, n);
        }
        self.orphans.clear();
        for worker in &mut self.workers {
            // Sent once more, in order, to the new one (rule L1).
            worker.half = None;
        }
        self.redis.restart(lost);
        self.tell("Redis is restarted", &lost.len(), b"");
    }

    /// What was in force when Redis executed the newest PING whose answer the engine has, while Redis tracks.
    pub fn known(&self) -> Option<&Snapshot> {
        let answered = self
            .engine
            .pings_answered()
            .checked_sub(self.pings_before)?;
        self.pings.get(answered.checked_sub(1)? as usize)?.as_ref()
    }

    /// The link that says whether Redis is there, once it has begun to speak.
    pub fn control(&self) -> Option<ConnId> {
        let control = |(id, wire): (&ConnId, &Wire)| wire.control.then_some(*id);
        self.wires.iter().find_map(control)
    }

    /// The turn's timers.
    pub fn advance(&mut self, budget: usize) -> Work {
        let work = self.engine.advance(budget);
        self.note_outputs();
        work
    }

    /// A client connects; its number is its place in `sockets`.
    pub fn open(&mut self, port: Port) -> usize {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000 + self.sockets.len() as u16));
        let id = self
            .engine
            .open(port, peer)
            .expect("the tests stay below the number of clients allowed");
        self.sockets.push(Socket {
            id,
            incoming: VecDeque::new(),
            fin: false,
            fin_seen: false,
            received: Vec::new(),
            shut: false,
            closed: false,
            paused: false,
            flush: false,
        });
        self.note_outputs();
        self.sockets.len() - 1
    }

    /// The engine reads at most `most` bytes of what a client wrote. Whether there was anything to do.
    pub fn client_in(&mut self, client: usize, most: usize) -> bool {
        self.step += 1;
        let socket = &mut self.sockets[client];
        if socket.closed
            || socket.paused
            || (socket.incoming.is_empty() && (!socket.fin || socket.fin_seen))
        {
            return false;
        }
        let id = socket.id;
        if socket.incoming.is_empty() {
            socket.fin_seen = true;
            self.engine.peer_closed(id);
        } else {
            let slice = self.engine.recv_slice(id);
            let n = slice.len().min(most).min(socket.incoming.len());
            if n == 0 {
                socket.paused = true;
                return true;
            }
            let bytes: Vec<u8> = socket.incoming.drain(..n).collect();
            slice[..n].copy_from_slice(&bytes);
            self.tell("engine reads from", &id, &bytes);
            self.engine.received(id, n);
        }
        self.note_outputs();
        true
    }

    /// The engine writes at most `most` bytes to a client.
    pub fn client_out(&mut self, client: usize, most: usize) -> bool {
        self.step += 1;
        let socket = &mut self.sockets[client];
        if !socket.flush || socket.closed {
            return false;
        }
        socket.flush = !write(&mut self.engine, socket.id, most, &mut |bytes| {
            socket.received.extend_from_slice(bytes)
        });
        self.note_outputs();
        true
    }

    /// The client's connection breaks.
    pub fn reset(&mut self, client: usize) {
        self.step += 1;
        if !self.sockets[client].closed {
            self.engine
                .failed(self.sockets[client].id, "connection reset by peer");
            self.note_outputs();
            assert!(self.sockets[client].closed, "a failed client is closed");
        }
    }

    /// A connection to Redis is made, or not.
    pub fn connect(&mut self, link: ConnId, result: Result<(), String>) {
        self.step += 1;
        if let Some(wire) = self.wires.get_mut(&link) {
            assert!(!wire.connected);
            wire.connected = result.is_ok();
            self.engine.connected(link, result);
            self.note_outputs();
        }
    }

    /// The engine writes at most `most` bytes to a link.
    pub fn link_out(&mut self, link: ConnId, most: usize) -> bool {
        self.step += 1;
        let Some(wire) = self.wires.get_mut(&link).filter(|wire| wire.flush) else {
            return false;
        };
        assert!(
            wire.connected,
            "nothing is sent before there is a connection"
        );
        let cut = wire.cut;
        wire.flush = !write(&mut self.engine, link, most, &mut |bytes| {
            if !cut {
                wire.requests.extend(bytes);
            }
        });
        // The name it gives itself in its handshake says what it is for.
        let named = |requests: &[u8]| requests.windows(8).any(|word| word == b":inval\r\n");
        if !wire.control && named(wire.requests.make_contiguous()) {
            wire.control = true;
            self.pings.clear();
            self.pings_before = self.engine.pings_answered();
        }
        self.note_outputs();
        true
    }

    /// Redis executes the next request of a link.
    pub fn link_execute(&mut self, link: ConnId) -> bool {
        self.step += 1;
        let Some(wire) = self.wires.get_mut(&link).filter(|wire| !wire.cut) else {
            return false;
        };
        let tracked = wire.session.tracking.is_some();
        let executed = execute(&mut self.redis, wire);
        if wire.control && self.keep_notes {
            let tracks = wire.session.tracking.is_some();
            if executed.as_ref().is_some_and(|args| args[0] == b"PING") {
                self.pings.push(tracks.then(|| self.redis.snapshot()));
            }
            if tracks && !tracked {
                self.tracking_began = self.redis.snapshot();
            }
        }
        self.tell_execution(executed.as_deref(), &link);
        self.end_cycle();
        executed.is_some()
    }

    fn tell_execution(&self, args: Option<&[Vec<u8>]>, by: &dyn std::fmt::Debug) {
        if let (true, Some(args)) = (self.trace, args) {
            self.tell("Redis executes, from", by, &args.join(&b' '));
        }
    }

    /// Redis executes the next request that came by a connection which is gone.
    pub fn orphan_execute(&mut self, at: usize) {
        self.step += 1;
        let executed = execute(&mut self.redis, &mut self.orphans[at]);
        self.tell_execution(executed.as_deref(), &"a lost link");
        self.end_cycle();
        if executed.is_none() {
            self.orphans.swap_remove(at);
        }
    }

    /// The engine reads at most `most` bytes of what Redis answered.
    pub fn link_in(&mut self, link: ConnId, most: usize) -> bool {
        self.step += 1;
        let Some(wire) = self
            .wires
            .get_mut(&link)
            .filter(|wire| !wire.replies.is_empty())
        else {
            return false;
        };
        let slice = self.engine.recv_slice(link);
        let n = slice.len().min(most).min(wire.replies.len());
        assert!(n > 0, "links are never paused");
        let bytes: Vec<u8> = wire.replies.drain(..n).collect();
        slice[..n].copy_from_slice(&bytes);
        self.tell("engine reads from", &link, &bytes);
        self.engine.received(link, n);
        self.note_outputs();
        true
    }

    /// The connection of a link breaks. What was sent may be executed all the same, as far as it is whole.
    pub fn link_lose(&mut self, link: ConnId, politely: bool) {
        self.step += 1;
        if !self.wires.contains_key(&link) {
            return;
        }
        if politely {
            self.engine.peer_closed(link);
        } else {
            self.engine.failed(link, "connection reset by peer");
        }
        self.note_outputs();
        assert!(!self.wires.contains_key(&link), "a lost link is closed");
    }

    /// Redis executes the GET and the PTTL of a worker's next job; with `half`, one of them per call.
    pub fn worker_execute(&mut self, worker: usize, half: bool) -> bool {
        self.step += 1;
        let at = worker;
        let worker = &mut self.workers[at];
        let Some(job) = worker.jobs.front() else {
            return false;
        };
        if worker.half.is_none() {
            let (id, value) = (job.id, self.redis.read(job.db, &job.key));
            let shown = format!("{value:?}");
            worker.half = Some(value);
            self.tell("Redis executes the GET of", &id, shown.as_bytes());
            if half {
                return true;
            }
        }
        let worker = &mut self.workers[at];
        let value = worker.half.take().expect("the first half was executed");
        let job = worker.jobs.pop_front().expect("it was looked at");
        let pttl_ms = Some(self.redis.pttl(job.db, &job.key));
        let result = match value {
            Ok(_) if worker.elsewhere => Ok(Fetched {
                value: Some(b"elsewhere".to_vec()),
                pttl_ms: Some(-1),
                run_id: RunId::in_info(format!("run_id:{}", "e".repeat(40)).as_bytes()),
            }),
            Ok(value) => Ok(Fetched {
                value,
                pttl_ms,
                run_id: RunId::in_info(self.redis.server_info().as_bytes()),
            }),
            Err(text) => Err(FetchError::Upstream(text)),
        };
        let completion = Completion { id: job.id, result };
        worker.done.push_back((job, completion));
        true
    }

    /// The next result of a worker comes to the engine.
    pub fn worker_complete(&mut self, worker: usize) -> bool {
        self.step += 1;
        let Some((job, completion)) = self.workers[worker].done.pop_front() else {
            return false;
        };
        if let (true, Ok(fetched)) = (self.keep_notes, &completion.result) {
            self.fetched.push(FetchNote {
                key: (job.db, job.key),
                value: fetched.value.clone(),
                completed: self.step,
            });
        }
        self.tell("engine learns of", &completion.id, b"");
        self.engine.complete(completion);
        self.note_outputs();
        true
    }

    /// A worker's connection dies: all it has to do ends with this error, in order, behind what it has done.
    pub fn worker_fail(&mut self, worker: usize, error: &FetchError) {
        self.step += 1;
        let worker = &mut self.workers[worker];
        worker.half = None;
        for job in worker.jobs.drain(..) {
            let completion = Completion {
                id: job.id,
                result: Err(error.clone()),
            };
            worker.done.push_back((job, completion));
        }
    }

    /// The client at the front of the ready list is served.
    pub fn serve_ready(&mut self) -> bool {
        self.step += 1;
        let Some(id) = self.ready.pop_front() else {
            return false;
        };
        if let Some(socket) = self.sockets.iter_mut().find(|socket| socket.id == id) {
            socket.paused = false;
        }
        self.engine.serve(id);
        self.note_outputs();
        true
    }

    /// Takes down what the engine wants.
    pub fn note_outputs(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Submit(job) => self.submit(job),
                Output::Flush(id) => {
                    let flag = match id.place {
                        Place::Client(_) => &mut self.socket(id).flush,
                        Place::Link(_) => {
                            &mut self.wires.get_mut(&id).expect("a link that is open").flush
                        }
                    };
                    assert!(!*flag, "Flush is said once: {id:?}");
                    *flag = true;
                }
                Output::Ready(id) => {
                    assert!(!self.ready.contains(&id), "Ready is said once: {id:?}");
                    self.ready.push_back(id);
                }
                Output::Connect(id) => {
                    let wire = Wire {
                        connected: false,
                        requests: VecDeque::new(),
                        replies: VecDeque::new(),
                        session: Session::default(),
                        control: false,
                        cut: false,
                        flush: false,
                    };
                    assert!(
                        self.wires.insert(id, wire).is_none(),
                        "a link is connected once"
                    );
                }
                Output::Shut(id) => {
                    let mut slices = [IoSlice::new(&[])];
                    assert_eq!(
                        self.engine.send_slices(id, &mut slices),
                        0,
                        "all is sent before Shut"
                    );
                    self.socket(id).shut = true;
                }
                Output::Close(id) => match id.place {
                    Place::Client(_) => self.socket(id).closed = true,
                    Place::Link(_) => {
                        let wire = self.wires.remove(&id).expect("a link is closed once");
                        if !wire.requests.is_empty() && !wire.cut {
                            self.orphans.push(wire);
                        }
                    }
                },
                Output::Renew => self.renewals += 1,
                Output::Recovered | Output::Trim | Output::Set(_) => {}
            }
        }
    }

    fn socket(&mut self, id: ConnId) -> &mut Socket {
        let socket = self
            .sockets
            .iter_mut()
            .find(|socket| socket.id == id && !socket.closed);
        socket.expect("a client that is open")
    }

    fn submit(&mut self, mut job: Job) {
        if self.routing == Routing::InTurn {
            job.worker = self.jobs_seen % self.workers.len();
        }
        self.jobs_seen += 1;
        self.tell("engine starts", &job.id, &job.key);
        let worker = job.worker;
        self.workers[worker].jobs.push_back(job);
    }

    /// Lets everything happen that can, without time passing, until nothing more does.
    pub fn settle(&mut self) {
        loop {
            let mut moved = self.serve_ready();
            for client in 0..self.sockets.len() {
                moved |= self.client_in(client, usize::MAX);
                moved |= self.client_out(client, usize::MAX);
            }
            let links: Vec<ConnId> = self.wires.keys().copied().collect();
            for link in links {
                moved |= self.settle_link(link);
            }
            for worker in 0..self.workers.len() {
                moved |= self.worker_execute(worker, false);
                moved |= self.worker_complete(worker);
            }
            if !moved {
                return;
            }
        }
    }

    fn settle_link(&mut self, link: ConnId) -> bool {
        if self.wires.get(&link).is_some_and(|wire| !wire.connected) {
            self.connect(link, Ok(()));
            return true;
        }
        let mut moved = self.link_out(link, usize::MAX);
        while self.link_execute(link) {
            moved = true;
        }
        moved |= self.link_in(link, usize::MAX);
        if self.wires.get(&link).is_some_and(|wire| wire.cut) {
            self.link_lose(link, false);
            moved = true;
        }
        moved
    }

    /// Whether the engine waits to write to this client.
    pub fn has_output(&self, client: usize) -> bool {
        self.sockets[client].flush && !self.sockets[client].closed
    }

    /// Whether the engine waits to write to this link.
    pub fn link_has_output(&self, link: ConnId) -> bool {
        self.wires.get(&link).is_some_and(|wire| wire.flush)
    }
}

fn execute(redis: &mut Redis, wire: &mut Wire) -> Option<Vec<Vec<u8>>> {
    let (args, len) = parse_request(wire.requests.make_contiguous())?;
    if redis.blocks(&args) {
        return None;
    }
    wire.requests.drain(..len);
    let reply = redis.execute(&mut wire.session, &args);
    wire.replies.extend(reply);
    Some(args)
}

/// One write of at most `most` bytes; whether all that was to be sent is sent.
fn write(engine: &mut Engine, id: ConnId, most: usize, sink: &mut dyn FnMut(&[u8])) -> bool {
    let mut slices = [IoSlice::new(&[]); 4];
    let filled = engine.send_slices(id, &mut slices);
    let mut n = 0;
    for slice in &slices[..filled] {
        let part = slice.len().min(most - n);
        sink(&slice[..part]);
        n += part;
    }
    if n > 0 {
        engine.sent(id, n);
    }
    let mut slices = [IoSlice::new(&[])];
    engine.send_slices(id, &mut slices) == 0
}
