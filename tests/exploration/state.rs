//! One state of a run: the world, what each client has yet to do, and what it has been told.

mod hearing;

use super::driver::codec::{reply_len, request};
use super::driver::world::{Routing, World};
use super::observer::{Awaited, Observer, PerKey, bulk, messages};
use super::scenario::{Mode, Op, Promise, Scenario};
use nearcache::config::{Coherence, Config, UpstreamLost};
use nearcache::engine::{ConnId, Port, Rule};
use nearcache::stats::Counter;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The staleness bound.
const BOUND: Duration = Duration::from_millis(1000);
/// A little more than a third of it: a heartbeat is due, or an attempt to reconnect.
const WAIT: Duration = Duration::from_millis(350);
/// An entry without tracking outlives one of these and not two.
const TICK: Duration = Duration::from_millis(600);
const HOUR: Duration = Duration::from_secs(3600);

/// One thing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Say(usize),
    Serve,
    Connect(ConnId),
    Refuse(ConnId),
    Execute(ConnId),
    Reply(ConnId),
    Fetch(usize),
    Complete(usize),
    Foreign,
    Lose(ConnId),
    /// Redis's end of the invalidation link is gone; so many of its messages still come.
    Cut(ConnId, usize),
    /// The engine learns of it.
    Down(ConnId),
    Fail(usize),
    Late(usize),
    Lapse,
    Wait,
    Tick,
}

impl Step {
    /// Whether a run may end without it.
    pub fn is_optional(self) -> bool {
        use Step::{Cut, Fail, Foreign, Lapse, Lose, Refuse, Tick, Wait};
        matches!(
            self,
            Foreign | Lose(_) | Cut(..) | Refuse(_) | Fail(_) | Lapse | Wait | Tick
        )
    }
}

#[derive(Clone)]
pub struct State {
    pub world: World,
    pub scenario: Scenario,
    observers: Vec<Observer>,
    /// The versions that the clients' writes have made, by client and command.
    written: BTreeMap<(usize, usize), PerKey>,
    /// What was in force when a client's command was executed.
    in_force: BTreeMap<(usize, usize), PerKey>,
    /// What was in force when each message was published, and what those passed on tell of.
    published: Vec<PerKey>,
    event: PerKey,
    foreign_done: usize,
    cross: PerKey,
    gmono: PerKey,
    /// The versions when the tracking that the engine knows of began, and when that which Redis knows of did.
    up: PerKey,
    up_next: PerKey,
    /// A connection to Redis was lost.
    lost: bool,
    /// Writes are made of which nobody tells the engine.
    untold: bool,
    /// Walk the engine after each step. Not with a rule turned off: its invariants go with it.
    check: bool,
}

impl State {
    pub fn new(scenario: Scenario, broken: &[Rule], routing: Routing) -> State {
        let coherence = if scenario.mode == Mode::Ttl {
            Coherence::Ttl
        } else {
            Coherence::Tracking
        };
        let config = Config {
            coherence,
            staleness_bound: BOUND,
            stale_if_error: if scenario.stale { HOUR } else { Duration::ZERO },
            verify_sample_ppm: if scenario.verify { 1_000_000 } else { 0 },
            warm_reconnect: scenario.warm,
            // So that a client sees what comes after a loss.
            upstream_lost: UpstreamLost::Error,
            redis_workers: 2,
            shared_links_per_pool: 2,
            max_concurrent_requests: scenario.limit,
            redis_timeout: HOUR,
            redis_connect_timeout: HOUR,
            link_dead: HOUR,
            link_idle: HOUR,
            http_head_timeout: HOUR,
            http_idle_timeout: HOUR,
            ..Config::default()
        };
        let mut world = World::new(config, 1);
        world.engine.hold_little();
        world.keep_notes = false;
        world.routing = routing;
        world.redis.major = if scenario.mode == Mode::TwoRounds {
            8
        } else {
            7
        };
        world.redis.refuses_tracking =
            matches!(scenario.mode, Mode::Bounded | Mode::BoundedThenTracking);
        let set = |key: &str| request_args(&["SET", key, "other"]);
        world.foreign(0, &[set("j")]);
        world.redis.counts_versions = true;
        // There are values from the start: absence is kept for no time where nobody tells of changes.
        world.foreign(0, &[set("k"), set("l")]);
        let selects = |script: &&[Op]| script.contains(&Op::Select);
        let selects = scenario.scripts.iter().any(selects);
        if selects {
            world.foreign(1, &[set("k")]);
        }
        // Links are made on demand; here they stand already, so that the search is about commands.
        let first = world.open(Port::Resp);
        world.sockets[first].incoming.extend(b"EXISTS x\r\n");
        world.settle();
        let says_hello = |script: &&[Op]| script.contains(&Op::Hello);
        if scenario.scripts.iter().any(says_hello) {
            let again = b"HELLO 3\r\nEXISTS x\r\n";
            world.sockets[first].incoming.extend(again);
            world.settle();
        }
        if selects {
            world.sockets[first].incoming.extend(b"SELECT 1\r\n");
            world.settle();
        }
        if scenario.has_state() {
            world.sockets[first]
                .incoming
                .extend(b"WATCH x\r\nUNWATCH\r\n");
            world.settle();
        }
        world.reset(first);
        world.sockets.clear();
        if scenario.mode == Mode::BoundedThenTracking {
            // It is asked again after thirty seconds: by the first `Wait`.
            for _ in 0..29 {
                world.pass(Duration::from_secs(1));
                world.advance(1000);
                world.settle();
            }
            world.pass(Duration::from_millis(900));
            world.redis.refuses_tracking = false;
        }
        for script in scenario.scripts {
            let http = matches!(script[0], Op::Http | Op::Fresh);
            world.open(if http { Port::Http } else { Port::Resp });
        }
        #[cfg(debug_assertions)]
        for rule in broken {
            world.engine.break_rule(*rule);
        }
        world.redis.keep_log = true;
        let mut state = State {
            world,
            scenario,
            observers: vec![
                Observer {
                    monox: scenario.monox,
                    ..Observer::default()
                };
                scenario.scripts.len()
            ],
            written: BTreeMap::new(),
            in_force: BTreeMap::new(),
            published: Vec::new(),
            event: [0; 2],
            foreign_done: 0,
            cross: [0; 2],
            gmono: [0; 2],
            up: [0; 2],
            up_next: [0; 2],
            lost: false,
            untold: scenario.mode == Mode::Ttl
                && (scenario.losses > 0 || !scenario.foreign.is_empty()),
            check: broken.is_empty() && routing == Routing::ByKey,
        };
        let expected = match scenario.mode {
            Mode::Ttl => "ttl",
            Mode::Tracking | Mode::TwoRounds => "tracking",
            Mode::Bounded | Mode::BoundedThenTracking => "bounded",
        };
        assert_eq!(state.world.engine.coherence_state(), expected);
        state.up = state.versions();
        state
    }

    fn versions(&self) -> PerKey {
        let redis = &self.world.redis;
        let keys = self.scenario.keys();
        keys.map(|(db, name)| redis.version(&(db, name.into())))
    }

    /// All that can happen now.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let (world, scenario) = (&self.world, &self.scenario);
        for (at, observer) in self.observers.iter().enumerate() {
            let more = observer.said < scenario.scripts[at].len();
            let room = observer.awaited.len() < scenario.depth;
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
                if scenario.refusals > 0 {
                    steps.push(Step::Refuse(*link));
                }
            }
            if !wire.requests.is_empty() {
                steps.push(Step::Execute(*link));
            }
            if !wire.replies.is_empty() {
                steps.push(Step::Reply(*link));
            } else if wire.cut {
                steps.push(Step::Down(*link));
            }
            if scenario.losses > 0 && wire.connected && !wire.control {
                steps.push(Step::Lose(*link));
            }
            if scenario.cuts > 0 && wire.control && !wire.cut {
                let messages = messages(&Vec::from(wire.replies.clone())).len();
                steps.extend((0..=messages).map(|keep| Step::Cut(*link, keep)));
            }
        }
        for (at, worker) in world.workers.iter().enumerate() {
            if !worker.jobs.is_empty() {
                steps.push(Step::Fetch(at));
                if scenario.failures > 0 {
                    steps.push(Step::Fail(at));
                }
            }
            if !worker.done.is_empty() {
                steps.push(Step::Complete(at));
            }
        }
        if self.foreign_done < scenario.foreign.len() {
            steps.push(Step::Foreign);
        }
        for (at, wire) in world.orphans.iter().enumerate() {
            if !wire.requests.is_empty() {
                steps.push(Step::Late(at));
            }
        }
        let timed = [
            (scenario.lapses, Step::Lapse),
            (scenario.waits, Step::Wait),
            (scenario.ticks, Step::Tick),
        ];
        let left = timed.into_iter().filter(|(left, _)| *left > 0);
        steps.extend(left.map(|(_, step)| step));
        steps
    }

    /// Lets it happen, and what follows at once: sockets take all they are given.
    pub fn step(&mut self, step: Step) -> Result<(), Promise> {
        let stale_hits = self.world.engine.stats().get(Counter::StaleHits);
        let was_down = self.is_down();
        self.do_step(step);
        self.note_writes();
        self.flush();
        if self.check {
            self.world.engine.check();
        }
        if was_down && !self.is_down() {
            self.up = self.up_next;
        }
        let (aside_down, aside_lapsed) = self.world.engine.aside_lens();
        let state = self.world.engine.coherence_state();
        if !self.is_down() && aside_down > 0 || state == "tracking" && aside_lapsed > 0 {
            return Err(Promise::StaleUp);
        }
        let mismatches = self.world.engine.stats().get(Counter::VerifyMismatches);
        if mismatches > 0 {
            return Err(Promise::Verify);
        }
        let stale = self.world.engine.stats().get(Counter::StaleHits) > stale_hits;
        self.listen(stale)
    }

    fn is_down(&self) -> bool {
        self.world.engine.coherence_state() == "tracking_down"
    }

    fn do_step(&mut self, step: Step) {
        let (world, scenario) = (&mut self.world, &mut self.scenario);
        match step {
            Step::Say(client) => self.say(client),
            Step::Serve => {
                let id = world.ready.front().copied();
                world.serve_ready();
                let socket = world
                    .sockets
                    .iter()
                    .position(|socket| Some(socket.id) == id);
                if let Some(at) = socket {
                    world.client_in(at, usize::MAX);
                }
            }
            Step::Connect(link) => world.connect(link, Ok(())),
            Step::Refuse(link) => {
                scenario.refusals -= 1;
                world.connect(link, Err("connection refused".to_owned()));
            }
            Step::Execute(link) => self.execute(link),
            Step::Reply(link) => {
                let wire = world
                    .wires
                    .get_mut(&link)
                    .expect("a step for a link that is");
                let replies = wire.replies.make_contiguous();
                let len = if wire.control {
                    messages(replies)[0]
                } else {
                    reply_len(replies).expect("Redis answers whole replies")
                };
                world.link_in(link, len);
            }
            Step::Fetch(worker) => drop(world.worker_execute(worker, false)),
            Step::Complete(worker) => drop(world.worker_complete(worker)),
            Step::Foreign => {
                let number = self.published.len().to_string();
                if scenario.foreign[self.foreign_done] == Op::Publish {
                    let keys = scenario.keys();
                    let redis = &world.redis;
                    let versions = keys.map(|(db, name)| redis.version(&(db, name.into())));
                    self.published.push(versions);
                }
                let args: &[&str] = match scenario.foreign[self.foreign_done] {
                    Op::Set => &["SET", "k", "foreign"],
                    Op::Mset => &["MSET", "k", "foreign", "l", "foreign"],
                    Op::Del => &["DEL", "k"],
                    Op::Publish => &["PUBLISH", "ch", &number],
                    other => unreachable!("{other:?} is not for others"),
                };
                self.foreign_done += 1;
                world.foreign(0, &[request_args(args)]);
            }
            Step::Lose(link) => {
                scenario.losses -= 1;
                self.lost = true;
                world.link_lose(link, false);
            }
            Step::Cut(link, keep) => {
                scenario.cuts -= 1;
                let wire = world
                    .wires
                    .get_mut(&link)
                    .expect("a step for a link that is");
                let ends = messages(wire.replies.make_contiguous());
                world.cut(link, ends[..keep].iter().sum());
            }
            Step::Down(link) => world.link_lose(link, false),
            Step::Fail(worker) => {
                scenario.failures -= 1;
                world.worker_fail(worker, &nearcache::fetch::FetchError::WorkerLost);
            }
            Step::Late(at) => world.orphan_execute(at),
            Step::Lapse => {
                scenario.lapses -= 1;
                world.pass(BOUND);
            }
            Step::Wait => {
                scenario.waits -= 1;
                world.pass(WAIT);
                world.advance(1000);
            }
            Step::Tick => {
                scenario.ticks -= 1;
                world.pass(TICK);
            }
        }
    }

    /// Redis executes the next request. On the invalidation link, all up to one that matters: what stands before the
    /// request to track, or beside a PING, meets nothing.
    fn execute(&mut self, link: ConnId) {
        loop {
            let wire = &self.world.wires[&link];
            let (control, tracked) = (wire.control, wire.session.tracking.is_some());
            if wire.requests.is_empty() {
                return;
            }
            self.world.link_execute(link);
            let wire = &self.world.wires[&link];
            if !tracked && wire.session.tracking.is_some() {
                self.up_next = self.versions();
                return;
            }
            let matters = wire.replies.iter().rev().take(7).rev().eq(b"+PONG\r\n");
            if !control || matters {
                return;
            }
        }
    }

    fn say(&mut self, client: usize) {
        let now = self.world.now;
        let history = &self.world.redis.history;
        let bound = self.scenario.keys().map(|(db, name)| {
            let versions = &history[&(db, name.into())];
            let old = versions
                .iter()
                .rposition(|version| version.at + BOUND <= now);
            if self.scenario.mode == Mode::Ttl {
                0
            } else {
                old.unwrap_or(0)
            }
        });
        let observer = &mut self.observers[client];
        let op = observer.said;
        observer.said += 1;
        observer.awaited.push_back(Awaited {
            op,
            cross: self.cross,
            gmono: self.gmono,
            event: self.event,
            bound,
        });
        let tag = format!("{client}.{op}");
        let http = |fields: &str| {
            format!("GET /get?key=k HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
        };
        let bytes = match self.scenario.scripts[client][op] {
            Op::Get => request(&["GET", "k"]),
            Op::GetL => request(&["GET", "l"]),
            Op::Set => request(&["SET", "k", &tag]),
            Op::Mset => request(&["MSET", "k", &tag, "l", &tag]),
            Op::Del => request(&["DEL", "k", &tag]),
            Op::Script => request(&["EVAL", &format!("SET k {tag}"), "0"]),
            Op::ScriptBoth => request(&["EVAL", &format!("MSET k {tag} l {tag}"), "1", "k"]),
            Op::Copy => request(&["COPY", "k", "k", "DB", "1", "REPLACE"]),
            Op::Select => request(&["SELECT", "1"]),
            Op::Other => request(&["GET", "j"]),
            Op::Watch => request(&["WATCH", "k"]),
            Op::ExecSet => transaction(&["SET", "k", &tag]),
            Op::ExecSetL => transaction(&["SET", "l", &tag]),
            Op::ExecGet => transaction(&["GET", "k"]),
            Op::Subscribe => request(&["SUBSCRIBE", "ch"]),
            Op::Publish => unreachable!("others publish"),
            Op::Look => request(&["EXISTS", "k", "never"]),
            Op::Mget => request(&["MGET", "k", "l"]),
            Op::Range => request(&["GETRANGE", "k", "0", "99"]),
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
            let words = execution
                .args
                .iter()
                .flat_map(|arg| arg.split(|byte| *byte == b' '));
            let mut tags = words.filter_map(|word| {
                let (client, op) = std::str::from_utf8(word).ok()?.split_once('.')?;
                Some((client.parse().ok()?, op.parse().ok()?))
            });
            let copy = || {
                self.scenario
                    .copy()
                    .filter(|_| execution.args[0] == b"COPY")
            };
            let Some(tag) = tags.next_back().or_else(copy) else {
                continue;
            };
            let mut versions = [0; 2];
            for ((db, name), version) in &execution.made {
                let is_it = |key: &(u32, &str)| key.0 == *db && key.1.as_bytes() == name;
                if let Some(key) = self.scenario.keys().iter().position(is_it) {
                    versions[key] = *version;
                }
            }
            self.written.insert(tag, versions);
            if execution.args[0] == b"EXEC" {
                // One step executes one request: these are the versions it has met, or made.
                let met = self.versions();
                let before = [0, 1].map(|key| match versions[key] {
                    0 => met[key],
                    made => made - 1,
                });
                self.in_force.insert(tag, before);
            }
        }
    }

    fn flush(&mut self) {
        for client in 0..self.world.sockets.len() {
            while self.world.client_out(client, usize::MAX) {}
        }
        let connected = self.world.wires.iter().filter(|(_, wire)| wire.connected);
        let links: Vec<ConnId> = connected.map(|(id, _)| *id).collect();
        for link in links {
            while self.world.link_out(link, usize::MAX) {}
        }
    }

    /// Nothing more has to happen: everyone must have been answered.
    pub fn at_rest(&self) -> Result<(), Promise> {
        let done = |(at, observer): (usize, &Observer)| {
            observer.awaited.is_empty() && observer.said == self.scenario.scripts[at].len()
        };
        if self.observers.iter().enumerate().all(done) {
            Ok(())
        } else {
            Err(Promise::Stuck)
        }
    }

    /// Nothing is under way: what is kept must be right.
    pub fn quiet(&self) -> Result<(), Promise> {
        if self.untold {
            return Ok(());
        }
        if matches!(self.world.engine.coherence_state(), "tracking" | "ttl") {
            self.clone().probe()?;
        }
        // Later, with the lease renewed, or the link up again, or what is kept without tracking gone.
        let mut later = self.clone();
        for _ in 0..3 {
            later.world.pass(WAIT);
            later.world.advance(1000);
            later.world.settle();
        }
        later.probe()
    }

    /// Whether a further GET shows what is in force.
    fn probe(&mut self) -> Result<(), Promise> {
        let world = &mut self.world;
        for (db, key) in self.scenario.keys() {
            let probe = world.open(Port::Resp);
            if db > 0 {
                world.sockets[probe].incoming.extend(b"SELECT 1\r\n");
                world.settle();
                world.sockets[probe].received.clear();
            }
            world.sockets[probe].incoming.extend(request(&["GET", key]));
            world.settle();
            let right = world.redis.read(db, key.as_bytes());
            let right = right.expect("it is a string");
            if bulk(&world.sockets[probe].received) != right {
                return Err(Promise::Event);
            }
        }
        Ok(())
    }

    /// What tells this state from others.
    pub fn fingerprint(&self) -> u64 {
        let mut out = DefaultHasher::new();
        let world = &self.world;
        world.engine.fingerprint().hash(&mut out);
        if self.scenario.reads_both() {
            world.engine.fingerprint_of_snapshots().hash(&mut out);
        }
        world.redis.state().hash(&mut out);
        for socket in &world.sockets {
            socket.received.hash(&mut out);
            (&socket.incoming, socket.paused, socket.closed).hash(&mut out);
        }
        for (link, wire) in &world.wires {
            (link.place, wire.connected, wire.cut).hash(&mut out);
            (&wire.requests, &wire.replies, &wire.session).hash(&mut out);
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
        (&self.in_force, &self.published, self.event).hash(&mut out);
        let scenario = &self.scenario;
        let left = [
            scenario.losses,
            scenario.cuts,
            scenario.refusals,
            scenario.failures,
            scenario.lapses,
            scenario.waits,
            scenario.ticks,
        ];
        (left, self.foreign_done).hash(&mut out);
        (self.cross, self.gmono, self.up, self.up_next).hash(&mut out);
        if scenario.mode != Mode::Ttl {
            for versions in world.redis.history.values() {
                for version in versions {
                    world.now.since(version.at).min(BOUND).hash(&mut out);
                }
            }
        }
        out.finish()
    }
}

fn transaction(args: &[&str]) -> Vec<u8> {
    [request(&["MULTI"]), request(args), request(&["EXEC"])].concat()
}

fn request_args(args: &[&str]) -> Vec<Vec<u8>> {
    args.iter().map(|arg| arg.as_bytes().to_vec()).collect()
}
