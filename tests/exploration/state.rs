//! One state of a run: the world, what each client has yet to do, and what it has been told.

use super::driver::codec::{reply_len, request};
use super::driver::redis::Session;
use super::driver::world::{Routing, World};
use nearcache::config::Config;
use nearcache::engine::{ConnId, Port, Rule};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a client can say. The key is `k`; its value is the number of writes it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Get,
    Set,
    /// A script that writes `k` and declares nothing.
    Script,
    /// GET of another key.
    Other,
    /// A read that is never from the cache.
    Mget,
    /// From here on the client is answered in RESP3, by other links.
    Hello,
    /// GET over HTTP.
    Http,
    /// The same, past what is kept.
    Fresh,
}

/// Who may do what.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub scripts: &'static [&'static [Op]],
    /// Commands a client may have under way.
    pub depth: usize,
    /// Writes by others, at any moment.
    pub foreign: usize,
    /// Connections to Redis that may break.
    pub losses: usize,
    /// Times that a worker fails with all it has to do.
    pub failures: usize,
    /// `MAX_CONCURRENT_REQUESTS`.
    pub limit: usize,
}

/// What a run must never show. Names as in RULES.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// A GET returns at least what the client wrote before it.
    Ryw,
    /// A GET never shows the client's own later write; its writes are made in its order; replies come in order.
    Order,
    /// A GET sent after anyone was told of a write returns at least that.
    Cross,
    /// A client's GETs never go back.
    Mono,
    /// No GET sent after anyone got a version returns an older one.
    Gmono,
    /// With no other writers: when all is quiet, what is kept is right.
    Quiet,
    /// Every client gets all its replies.
    Stuck,
}

/// One thing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Say(usize),
    Serve,
    Connect(ConnId),
    Execute(ConnId),
    Reply(ConnId),
    Fetch(usize),
    Complete(usize),
    Foreign,
    Lose(ConnId),
    Fail(usize),
    Late(usize),
}

#[derive(Debug, Clone, Hash)]
struct Awaited {
    op: usize,
    /// What had been written, as far as anyone was told, when it was said.
    cross: usize,
    /// What anyone had read.
    gmono: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Deed {
    Read,
    Wrote,
}

#[derive(Debug, Clone, Default, Hash)]
struct Observer {
    said: usize,
    awaited: VecDeque<Awaited>,
    /// What its commands showed, in their order.
    seen: Vec<(Deed, usize)>,
}

#[derive(Clone)]
pub struct State {
    pub world: World,
    pub scenario: Scenario,
    observers: Vec<Observer>,
    /// The versions that the clients' writes have made, by client and command.
    written: BTreeMap<(usize, usize), usize>,
    foreign: usize,
    losses: usize,
    failures: usize,
    cross: usize,
    gmono: usize,
    /// Walk the engine after each step. Not with a rule turned off: its invariants go with it.
    check: bool,
}

impl State {
    pub fn new(scenario: Scenario, broken: Option<Rule>, routing: Routing) -> State {
        let config = Config {
            coherence: nearcache::config::Coherence::Ttl,
            redis_workers: 2,
            shared_links_per_pool: 2,
            max_concurrent_requests: scenario.limit,
            ..Config::default()
        };
        let mut world = World::new(config, 1);
        world.keep_notes = false;
        world.routing = routing;
        let mut session = Session::default();
        world.redis.execute(
            &mut session,
            &[b"SET".to_vec(), b"j".to_vec(), b"other".to_vec()],
        );
        world.redis.counts_versions = true;
        // There is a value from the start: absence is kept for no time here.
        world.redis.execute(
            &mut session,
            &[b"SET".to_vec(), b"k".to_vec(), b"first".to_vec()],
        );
        // Links are made on demand; here they stand already, so that the search is about commands.
        let first = world.open(Port::Resp);
        world.sockets[first].incoming.extend(b"EXISTS x\r\n");
        world.settle();
        if scenario
            .scripts
            .iter()
            .any(|script| script.contains(&Op::Hello))
        {
            world.sockets[first]
                .incoming
                .extend(b"HELLO 3\r\nEXISTS x\r\n");
            world.settle();
        }
        world.reset(first);
        world.sockets.clear();
        for script in scenario.scripts {
            let http = matches!(script[0], Op::Http | Op::Fresh);
            world.open(if http { Port::Http } else { Port::Resp });
        }
        #[cfg(debug_assertions)]
        if let Some(rule) = broken {
            world.engine.break_rule(rule);
        }
        world.redis.keep_log = true;
        State {
            world,
            scenario,
            observers: vec![Observer::default(); scenario.scripts.len()],
            written: BTreeMap::new(),
            foreign: scenario.foreign,
            losses: scenario.losses,
            failures: scenario.failures,
            cross: 0,
            gmono: 0,
            check: broken.is_none() && routing == Routing::ByKey,
        }
    }

    /// All that can happen now.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let world = &self.world;
        for (at, observer) in self.observers.iter().enumerate() {
            let more = observer.said < self.scenario.scripts[at].len();
            let room = observer.awaited.len() < self.scenario.depth;
            let socket = &world.sockets[at];
            if more && room && !socket.closed && !socket.paused && socket.incoming.is_empty() {
                steps.push(Step::Say(at));
            }
        }
        if !world.ready.is_empty() {
            steps.push(Step::Serve);
        }
        for (link, wire) in &world.wires {
            if !wire.connected {
                steps.push(Step::Connect(*link));
            }
            if !wire.requests.is_empty() {
                steps.push(Step::Execute(*link));
            }
            if !wire.replies.is_empty() {
                steps.push(Step::Reply(*link));
            }
            if self.losses > 0 && wire.connected {
                steps.push(Step::Lose(*link));
            }
        }
        for (at, worker) in world.workers.iter().enumerate() {
            if !worker.jobs.is_empty() {
                steps.push(Step::Fetch(at));
                if self.failures > 0 {
                    steps.push(Step::Fail(at));
                }
            }
            if !worker.done.is_empty() {
                steps.push(Step::Complete(at));
            }
        }
        if self.foreign > 0 {
            steps.push(Step::Foreign);
        }
        for (at, wire) in world.orphans.iter().enumerate() {
            if !wire.requests.is_empty() {
                steps.push(Step::Late(at));
            }
        }
        steps
    }

    /// Lets it happen, and what follows at once: sockets take all they are given.
    pub fn step(&mut self, step: Step) -> Result<(), Promise> {
        let world = &mut self.world;
        match step {
            Step::Say(client) => self.say(client),
            Step::Serve => {
                let id = world.ready.front().copied();
                world.serve_ready();
                if let Some(at) = world
                    .sockets
                    .iter()
                    .position(|socket| Some(socket.id) == id)
                {
                    world.client_in(at, usize::MAX);
                }
            }
            Step::Connect(link) => world.connect(link, Ok(())),
            Step::Execute(link) => drop(world.link_execute(link)),
            Step::Reply(link) => {
                let len = reply_len(
                    world
                        .wires
                        .get_mut(&link)
                        .map_or(&[], |wire| wire.replies.make_contiguous()),
                );
                world.link_in(link, len.expect("Redis answers whole replies"));
            }
            Step::Fetch(worker) => drop(world.worker_execute(worker, false)),
            Step::Complete(worker) => drop(world.worker_complete(worker)),
            Step::Foreign => {
                self.foreign -= 1;
                let args = [b"SET".to_vec(), b"k".to_vec(), b"foreign".to_vec()];
                world.redis.execute(&mut Session::default(), &args);
            }
            Step::Lose(link) => {
                self.losses -= 1;
                world.link_lose(link, false);
            }
            Step::Fail(worker) => {
                self.failures -= 1;
                world.worker_fail(worker, &nearcache::fetch::FetchError::WorkerLost);
            }
            Step::Late(at) => world.orphan_execute(at),
        }
        self.note_writes();
        self.flush();
        if self.check {
            self.world.engine.check();
        }
        self.listen()
    }

    fn say(&mut self, client: usize) {
        let observer = &mut self.observers[client];
        let op = observer.said;
        observer.said += 1;
        observer.awaited.push_back(Awaited {
            op,
            cross: self.cross,
            gmono: self.gmono,
        });
        let tag = format!("{client}.{op}");
        let http = |fields: &str| {
            format!("GET /get?key=k HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
        };
        let bytes = match self.scenario.scripts[client][op] {
            Op::Get => request(&["GET", "k"]),
            Op::Set => request(&["SET", "k", &tag]),
            Op::Script => request(&["EVAL", &format!("SET k {tag}"), "0"]),
            Op::Other => request(&["GET", "j"]),
            Op::Mget => request(&["MGET", "k"]),
            Op::Hello => request(&["HELLO", "3"]),
            Op::Http => http(""),
            Op::Fresh => http("Cache-Control: no-cache\r\n"),
        };
        self.world.sockets[client].incoming.extend(bytes);
        self.world.client_in(client, usize::MAX);
    }

    /// Which versions the clients' commands have made.
    fn note_writes(&mut self) {
        for execution in std::mem::take(&mut self.world.redis.log) {
            let text = execution
                .args
                .get(if execution.args[0] == b"EVAL" { 1 } else { 2 });
            let text = text
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .unwrap_or_default();
            let tag = text.rsplit(' ').next().unwrap_or_default();
            if let (Some((client, op)), Some((_, version))) =
                (tag.split_once('.'), execution.made.first())
            {
                let parse = |text: &str| text.parse().expect("a tag is two numbers");
                self.written.insert((parse(client), parse(op)), *version);
            }
        }
    }

    fn flush(&mut self) {
        for client in 0..self.world.sockets.len() {
            while self.world.client_out(client, usize::MAX) {}
        }
        let links: Vec<ConnId> = self
            .world
            .wires
            .iter()
            .filter(|(_, wire)| wire.connected)
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            while self.world.link_out(link, usize::MAX) {}
        }
    }

    fn listen(&mut self) -> Result<(), Promise> {
        for client in 0..self.observers.len() {
            let received = std::mem::take(&mut self.world.sockets[client].received);
            let mut at = 0;
            while at < received.len() {
                let awaited = self.observers[client]
                    .awaited
                    .pop_front()
                    .ok_or(Promise::Order)?;
                at += self.hear(client, &awaited, &received[at..])?;
            }
            if self.world.sockets[client].closed {
                return Err(Promise::Stuck);
            }
        }
        Ok(())
    }

    /// One reply: whether it keeps the promises, and its length.
    fn hear(&mut self, client: usize, awaited: &Awaited, bytes: &[u8]) -> Result<usize, Promise> {
        let op = self.scenario.scripts[client][awaited.op];
        let (len, value, failed) = if matches!(op, Op::Http | Op::Fresh) {
            let answer =
                super::driver::codec::parse_http(bytes, false).expect("answers come whole");
            let value = if answer.status == 200 {
                answer.body
            } else {
                b"0".to_vec()
            };
            (answer.len, value, answer.status == 503)
        } else {
            let len = reply_len(bytes).expect("replies come whole");
            let failed = bytes.starts_with(b"-ERR nearcache: ");
            (len, bulk(&bytes[..len]).unwrap_or_default(), failed)
        };
        if failed {
            assert!(
                self.scenario.losses + self.scenario.failures > 0,
                "errors need a reason"
            );
            return Ok(len);
        }
        let reply = &bytes[..len];
        let fits = match op {
            Op::Set | Op::Script => reply == b"+OK\r\n",
            Op::Other => value == b"other",
            Op::Hello => reply.starts_with(b"%"),
            Op::Mget => reply.starts_with(b"*1\r\n"),
            Op::Get | Op::Http | Op::Fresh => {
                value.iter().all(u8::is_ascii_digit) && !reply.starts_with(b"+")
            }
        };
        if !fits {
            return Err(Promise::Order);
        }
        match op {
            Op::Set | Op::Script => {
                let version = self.written.get(&(client, awaited.op)).copied();
                self.wrote(client, version.expect("what was answered was executed"))?;
            }
            Op::Get | Op::Http | Op::Fresh => {
                let text = String::from_utf8_lossy(&value).into_owned();
                self.read(client, awaited, text.parse().unwrap_or(0))?;
            }
            Op::Other | Op::Hello | Op::Mget => {}
        }
        Ok(len)
    }

    fn wrote(&mut self, client: usize, version: usize) -> Result<(), Promise> {
        let seen = &mut self.observers[client].seen;
        if seen.iter().any(|(_, earlier)| *earlier >= version) {
            return Err(Promise::Order);
        }
        seen.push((Deed::Wrote, version));
        self.cross = self.cross.max(version);
        Ok(())
    }

    fn read(&mut self, client: usize, awaited: &Awaited, version: usize) -> Result<(), Promise> {
        let seen = &mut self.observers[client].seen;
        for (deed, earlier) in seen.iter() {
            if version < *earlier {
                return Err(match deed {
                    Deed::Wrote => Promise::Ryw,
                    Deed::Read => Promise::Mono,
                });
            }
        }
        if version < awaited.cross {
            return Err(Promise::Cross);
        }
        if version < awaited.gmono {
            return Err(Promise::Gmono);
        }
        seen.push((Deed::Read, version));
        self.gmono = self.gmono.max(version);
        Ok(())
    }

    /// Nothing more can happen: everyone must have been answered, and what is kept must be right if nobody else wrote.
    pub fn at_rest(&mut self) -> Result<(), Promise> {
        let done = |(at, observer): (usize, &Observer)| {
            observer.awaited.is_empty() && observer.said == self.scenario.scripts[at].len()
        };
        if !self.observers.iter().enumerate().all(done) {
            return Err(Promise::Stuck);
        }
        if self.scenario.foreign + self.scenario.losses > 0 {
            return Ok(());
        }
        let world = &mut self.world;
        let probe = world.open(Port::Resp);
        world.sockets[probe].incoming.extend(request(&["GET", "k"]));
        world.settle();
        let version = world.redis.version(&(0, b"k".to_vec()));
        let right = if version == 0 {
            None
        } else {
            Some(version.to_string().into_bytes())
        };
        if bulk(&world.sockets[probe].received) == right {
            Ok(())
        } else {
            Err(Promise::Quiet)
        }
    }

    /// What tells this state from others.
    pub fn fingerprint(&self) -> u64 {
        let mut out = DefaultHasher::new();
        let world = &self.world;
        world.engine.fingerprint().hash(&mut out);
        world.redis.state().hash(&mut out);
        for socket in &world.sockets {
            (&socket.incoming, socket.paused, socket.closed).hash(&mut out);
        }
        for (link, wire) in &world.wires {
            (
                link.place,
                wire.connected,
                &wire.requests,
                &wire.replies,
                &wire.session,
            )
                .hash(&mut out);
        }
        for wire in &world.orphans {
            wire.requests.hash(&mut out);
        }
        // Fetches are told apart by age, as the engine's fingerprint does.
        let mut ids: Vec<u64> = Vec::new();
        for worker in &world.workers {
            ids.extend(worker.jobs.iter().map(|job| job.id.0));
            ids.extend(worker.done.iter().map(|(job, _)| job.id.0));
        }
        ids.sort_unstable();
        let age = |id: u64| ids.binary_search(&id).ok();
        for worker in &world.workers {
            worker.jobs.len().hash(&mut out);
            for job in &worker.jobs {
                (age(job.id.0), &job.key).hash(&mut out);
            }
            for (job, completion) in &worker.done {
                let value = completion
                    .result
                    .as_ref()
                    .ok()
                    .map(|fetched| &fetched.value);
                (age(job.id.0), &job.key, value).hash(&mut out);
            }
        }
        for id in &world.ready {
            id.place.hash(&mut out);
        }
        (&self.observers, &self.written).hash(&mut out);
        (
            self.foreign,
            self.losses,
            self.failures,
            self.cross,
            self.gmono,
        )
            .hash(&mut out);
        out.finish()
    }
}

/// The value of a bulk reply.
fn bulk(reply: &[u8]) -> Option<Vec<u8>> {
    if !reply.starts_with(b"$") || reply.starts_with(b"$-") {
        return None;
    }
    let head = reply.windows(2).position(|two| two == b"\r\n")? + 2;
    Some(reply[head..reply.len() - 2].to_vec())
}
