//! One run: everything that can happen, drawn from a seed, and what must hold after each turn and at the end.

use super::actor::{Actor, KEYS, LIST, Taste};
use super::driver::codec::{bulk, reply_len, request};
use super::driver::redis::Data;
use super::driver::world::World;
use super::ledger::Ledger;
use super::own::{CHANNEL, LOCKED, Part, QUEUE};
use fastrand::Rng;
use nearcache::config::{ClientAuth, Coherence, Config, UpstreamLost};
use nearcache::engine::{ConnId, Port, Rule};
use nearcache::fetch::FetchError;
use nearcache::stats::Counter;
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn draw<T: Copy>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

fn config(random: &mut Rng, faults: bool) -> Config {
    let mut config = Config {
        coherence: if random.u8(..4) == 0 {
            Coherence::Ttl
        } else {
            Coherence::Tracking
        },
        // The actors say no password, whether the upstream wants one or not.
        client_auth: ClientAuth::None,
        staleness_bound: Duration::from_millis(draw(random, &[10, 50, 300, 3000])),
        cache_capacity: draw(random, &[1, 2, 3, 1000]),
        cache_max_value_bytes: draw(random, &[16, 5000, 1 << 20]),
        cache_max_key_bytes: draw(random, &[1, 1000]),
        cache_ttl: draw(random, &[5, 50, 500, 60_000].map(Duration::from_millis)),
        cache_negative_ttl: draw(random, &[0, 3, 5000].map(Duration::from_millis)),
        redis_workers: random.usize(1..4),
        shared_links_per_pool: random.usize(1..4),
        max_concurrent_requests: draw(random, &[1, 2, 3, 8, 10_000]),
        replies_owed_max: draw(random, &[1, 2, 10, 10_000]),
        shared_request_bytes_max: draw(random, &[60, 1 << 20]),
        redis_timeout: HOUR,
        redis_connect_timeout: HOUR,
        link_dead: HOUR,
        link_idle: draw(random, &[10, 500, 60_000].map(Duration::from_millis)),
        verify_sample_ppm: draw(random, &[0, 300_000, 1_000_000]),
        upstream_touch: Duration::from_millis(draw(random, &[0, 0, 20])),
        warm_reconnect: draw(random, &[0, 1, 100]),
        queue_wait: HOUR,
        http_head_timeout: HOUR,
        http_idle_timeout: HOUR,
        ..Config::default()
    };
    config.redis_url.db = draw(random, &[0, 3]);
    if random.bool() {
        config.redis_url.password = Some(nearcache::secret::Secret::new("secret"));
    }
    if random.u8(..6) == 0 {
        config.tracking_prefixes = vec!["a".to_owned(), "b".to_owned()];
    }
    if faults {
        config.stale_if_error = Duration::from_secs(draw(random, &[0, 1, 60]));
        let span = |ms: u64| Duration::from_millis(ms);
        config.redis_timeout = span(draw(random, &[5, 50, 3000]));
        config.redis_connect_timeout = span(draw(random, &[20, 1000]));
        config.link_dead = span(draw(random, &[50, 15_000]));
        config.queue_wait = span(draw(random, &[3, 30, 5000]));
        config.outbox_max_bytes = draw(random, &[200, 30_000, 32 << 20]);
        // At times less than a few clients need.
        config.buffers_max_bytes = draw(random, &[48 << 10, 128 << 10, 1 << 20, 256 << 20]);
        config.links_max = draw(random, &[2, 3, 1000]);
        config.http_idle_timeout = span(draw(random, &[100, 75_000]));
        config.http_head_timeout = span(draw(random, &[50, 10_000]));
    }
    config
}

/// One thing that can happen.
#[derive(Debug, Clone, Copy)]
enum Action {
    Speak(usize),
    In(usize),
    Out(usize),
    Connect(ConnId),
    LinkOut(ConnId),
    LinkExecute(ConnId),
    LinkIn(ConnId),
    Execute(usize),
    Complete(usize),
    Serve,
    Orphan,
    Foreign,
    /// Redis deletes what has expired, and evicts where its memory is short.
    Delete,
    /// The engine learns that a link is cut.
    Lost(ConnId),
}

pub struct Run {
    pub world: World,
    pub ledger: Ledger,
    actors: Vec<Actor>,
    pub random: Rng,
    faults: bool,
    /// How many bytes pass at once, at most.
    chop: usize,
    /// Redis refuses connections.
    down: bool,
    actors_made: usize,
    foreign: u64,
    /// For so many turns nothing moves on the invalidation link.
    stalled: usize,
    /// The engine's word for the state it is in, and how often it was each.
    state: &'static str,
    pub states: BTreeMap<&'static str, u64>,
    stale_hits: u64,
    /// How much sooner than others the invalidation link moves.
    eager: usize,
    taste: Taste,
    broken: bool,
    /// It reports to Redis what is in use.
    touches: bool,
    /// Redis evicts down to so many keys.
    redis_keys_max: Option<usize>,
}

impl Run {
    pub fn new(seed: u64, broken: Option<Rule>) -> Run {
        let mut random = Rng::with_seed(seed);
        let faults = random.bool();
        let mut config = config(&mut random, faults);
        // A client that stays sees more of what comes after a loss, so broken rules are looked for with those only.
        config.upstream_lost = match broken.is_none() && seed % 2 == 1 {
            true => UpstreamLost::Close,
            false => UpstreamLost::Error,
        };
        let bound = match config.coherence {
            Coherence::Tracking => config.cache_ttl.min(config.staleness_bound),
            Coherence::Ttl | Coherence::Off => config.cache_ttl,
        };
        let mut ledger = Ledger::new(config.redis_url.db, bound);
        ledger.holds_events = config.coherence == Coherence::Tracking;
        let touches = !config.upstream_touch.is_zero();
        let mut world = World::new(config, seed);
        #[cfg(debug_assertions)]
        if let Some(rule) = broken {
            world.engine.break_rule(rule);
        }
        world.redis.keep_log = true;
        world.redis.refuses_tracking = random.u8(..6) == 0;
        world.redis.major = draw(&mut random, &[7, 8]);
        if random.u8(..4) > 0 {
            world.settle();
        }
        world
            .redis
            .put_data((ledger.db, LIST.into()), Data::List, None);
        Run {
            world,
            ledger,
            actors: Vec::new(),
            chop: draw(&mut random, &[1, 7, 100, 100_000]),
            eager: draw(&mut random, &[0, 3, 6]),
            taste: Taste {
                keys: draw(&mut random, &[1, 2, KEYS.len()]),
                scripts: random.u8(..4) == 0,
                calm: random.bool(),
                states: seed % 5 < 2,
            },
            random,
            faults,
            down: false,
            actors_made: 0,
            foreign: 0,
            stalled: 0,
            state: "",
            states: BTreeMap::new(),
            stale_hits: 0,
            broken: broken.is_some(),
            touches,
            // One is the list that GET cannot read, as long as it lasts.
            redis_keys_max: (broken.is_none() && seed.is_multiple_of(3)).then_some(2),
        }
    }

    fn enabled(&self) -> Vec<Action> {
        let mut all = Vec::new();
        for (at, actor) in self.actors.iter().enumerate() {
            let socket = &self.world.sockets[actor.socket];
            if socket.closed {
                continue;
            }
            if !actor.finished && actor.awaited.len() < 16 {
                all.push(Action::Speak(at));
            }
            if !socket.paused && (!socket.incoming.is_empty() || socket.fin && !socket.fin_seen) {
                all.extend([Action::In(at); 3]);
            }
            if self.world.has_output(actor.socket) {
                all.extend([Action::Out(at); 2]);
            }
        }
        for (link, wire) in &self.world.wires {
            if wire.control && self.stalled > 0 {
                continue;
            }
            if wire.control {
                // It has much to say, and the rest of the run is about what it says.
                let busy = [
                    self.world
                        .link_has_output(*link)
                        .then_some(Action::LinkOut(*link)),
                    (!wire.requests.is_empty()).then_some(Action::LinkExecute(*link)),
                    (!wire.replies.is_empty()).then_some(Action::LinkIn(*link)),
                ];
                all.extend(busy.into_iter().flatten().cycle().take(self.eager));
            }
            if wire.cut {
                all.push(Action::Lost(*link));
            }
            if !wire.connected {
                all.push(Action::Connect(*link));
            }
            if self.world.link_has_output(*link) && wire.connected {
                all.extend([Action::LinkOut(*link); 2]);
            }
            if !wire.requests.is_empty() {
                all.extend([Action::LinkExecute(*link); 2]);
            }
            if !wire.replies.is_empty() {
                all.extend([Action::LinkIn(*link); 2]);
            }
        }
        for (at, worker) in self.world.workers.iter().enumerate() {
            if !worker.jobs.is_empty() {
                all.push(Action::Execute(at));
            }
            if !worker.done.is_empty() {
                all.push(Action::Complete(at));
            }
        }
        if !self.world.ready.is_empty() {
            all.extend([Action::Serve; 2]);
        }
        if !self.world.orphans.is_empty() {
            all.push(Action::Orphan);
        }
        all.extend([Action::Foreign, Action::Delete]);
        all
    }

    fn chopped(&mut self) -> usize {
        self.random.usize(1..=self.chop)
    }

    fn act(&mut self) {
        let enabled = self.enabled();
        let action = draw(&mut self.random, &enabled);
        let mut most = self.chopped();
        if let Action::LinkIn(link) | Action::LinkOut(link) = action
            && let Some(wire) = self.world.wires.get_mut(&link)
            && wire.control
        {
            most = match self.random.u8(..4) {
                0 => most,
                1 => usize::MAX,
                // To the end of a message, if it begins with one.
                _ => match wire.replies.front() {
                    Some(b'>' | b'+' | b'$') => {
                        reply_len(wire.replies.make_contiguous()).unwrap_or(most)
                    }
                    _ => usize::MAX,
                },
            };
        }
        let (world, random) = (&mut self.world, &mut self.random);
        match action {
            Action::Speak(at) => {
                let actor = &mut self.actors[at];
                actor.speak(world, &self.ledger, self.taste, random);
                // Often handled at the very instant it is sent, where the bounds are tightest.
                if random.bool() {
                    world.client_in(actor.socket, usize::MAX);
                }
            }
            Action::In(at) => drop(world.client_in(self.actors[at].socket, most)),
            Action::Out(at) => drop(world.client_out(self.actors[at].socket, most)),
            Action::Connect(link) => {
                let fails = self.down || self.faults && random.u8(..10) == 0;
                let result = if fails {
                    Err("connection refused".to_owned())
                } else {
                    Ok(())
                };
                world.connect(link, result);
            }
            Action::LinkOut(link) => drop(world.link_out(link, most)),
            Action::LinkExecute(link) => drop(world.link_execute(link)),
            Action::LinkIn(link) => drop(world.link_in(link, most)),
            Action::Execute(at) if self.down && random.bool() => {
                let error = FetchError::Unreachable("connection refused".to_owned());
                world.worker_fail(at, &error);
            }
            Action::Execute(at) => drop(world.worker_execute(at, true)),
            Action::Complete(at) => drop(world.worker_complete(at)),
            Action::Serve => drop(world.serve_ready()),
            Action::Orphan => {
                let at = random.usize(..world.orphans.len());
                if random.bool() {
                    world.orphan_execute(at);
                } else if random.u8(..4) == 0 {
                    world.orphans.swap_remove(at);
                }
            }
            Action::Foreign => {
                if random.u8(..if self.taste.calm { 20 } else { 4 }) == 0 {
                    self.foreign_writes();
                }
            }
            Action::Delete => {
                if random.u8(..8) == 0 {
                    world.redis.delete_expired();
                    if let Some(keys_max) = self.redis_keys_max {
                        world.redis.evict(keys_max, |n| random.usize(..n));
                    }
                    world.end_cycle();
                }
            }
            Action::Lost(link) => world.link_lose(link, random.bool()),
        }
    }

    /// Somebody else writes, once or more in one cycle of Redis.
    fn foreign_writes(&mut self) {
        let mut commands = Vec::new();
        for _ in 0..draw(&mut self.random, &[1, 1, 1, 3]) {
            self.foreign += 1;
            let key = draw(&mut self.random, &KEYS[..self.taste.keys]);
            let value = format!("f{}", self.foreign);
            let locked = self.random.u8(..6) == 0;
            let key = if locked { LOCKED } else { key };
            let args: Vec<&str> = match self.random.u8(..24) {
                0..3 => vec!["DEL", key, &value],
                3..6 => vec!["SET", key, &value, "PX", "9"],
                6..8 => vec!["MSET", key, &value, KEYS[0], &value],
                8 => vec!["FLUSHALL", &value],
                _ => vec!["SET", key, &value],
            };
            commands.push(args.iter().map(|arg| arg.as_bytes().to_vec()).collect());
            // Behind some of them, in the same cycle, come the news of it.
            let news = match self.random.u8(..4) {
                0 => ["PUBLISH", CHANNEL, &value],
                1 => ["RPUSH", QUEUE, &value],
                _ => continue,
            };
            commands.push(news.iter().map(|arg| arg.as_bytes().to_vec()).collect());
        }
        self.world.foreign(self.ledger.db, &commands);
    }

    fn fault(&mut self) {
        let (world, random) = (&mut self.world, &mut self.random);
        match random.u8(..11) {
            8 => {
                let db = self.ledger.db;
                let keys = KEYS.iter().filter(|_| random.bool());
                let lost: Vec<_> = keys.map(|key| (db, key.as_bytes().to_vec())).collect();
                let random = &mut self.random;
                world.restart(&lost, |len| random.usize(..=len));
            }
            9 => {
                if let Some(control) = world.control() {
                    let keep = random.usize(..=world.wires[&control].replies.len());
                    world.cut(control, keep);
                    self.down |= random.u8(..4) == 0;
                }
            }
            10 => {
                if random.u8(..4) == 0 {
                    world.engine.switch_cache();
                    world.note_outputs();
                } else {
                    world.redis.refuses_tracking ^= random.u8(..4) == 0;
                }
            }
            0..2 => {
                let links: Vec<ConnId> = world.wires.keys().copied().collect();
                if !links.is_empty() {
                    let politely = random.bool();
                    world.link_lose(draw(random, &links), politely);
                }
            }
            2..4 => {
                let worker = random.usize(..world.workers.len());
                let error = match random.u8(..4) {
                    0 => FetchError::WorkerLost,
                    1 => FetchError::TimedOut,
                    2 => FetchError::QueueFull,
                    _ => FetchError::Lost("connection reset by peer".to_owned()),
                };
                world.worker_fail(worker, &error);
            }
            4..6 => {
                let actor = random.usize(..self.actors.len());
                self.actors[actor].forsaken = true;
                self.actors[actor].finished = true;
                world.reset(self.actors[actor].socket);
            }
            6 => self.down = false,
            _ => {
                if random.u8(..10) == 0 {
                    self.down = true;
                }
            }
        }
    }

    /// The engine's own word for how it keeps things coherent, and what must hold then.
    fn watch(&mut self) {
        let engine = &self.world.engine;
        let state = engine.coherence_state();
        let down = "tracking_down";
        if self.state == down && state != down {
            self.ledger.up = self.world.tracking_began.clone();
        }
        let stale_hits = engine.stats().get(Counter::StaleHits);
        assert!(
            stale_hits == self.stale_hits
                || [self.state, state]
                    .iter()
                    .any(|state| [down, "tracking_lapsed"].contains(state)),
            "stale answers are for the time without Redis"
        );
        let (aside_down, aside_lapsed) = engine.aside_lens();
        assert!(aside_down == 0 || state == down, "rule L18");
        assert!(aside_lapsed == 0 || state != "tracking", "rule L18");
        assert_eq!(
            engine.stats().get(Counter::VerifyMismatches),
            0,
            "a hit was wrong"
        );
        if self.state != state {
            *self.states.entry(state).or_default() += 1;
        }
        (self.state, self.stale_hits) = (state, stale_hits);
        if let Some(known) = self.world.known() {
            self.ledger.told = known.clone();
        }
    }

    /// With a rule turned off the engine's own invariants go with it.
    fn check(&self) {
        if !self.broken {
            self.world.engine.check();
        }
    }

    fn listen(&mut self) {
        self.watch();
        for actor in &mut self.actors {
            actor.listen(&mut self.world, &mut self.ledger, self.faults);
        }
    }

    pub fn newcomers(&mut self) {
        let sockets = &self.world.sockets;
        self.actors.retain(|actor| !sockets[actor.socket].closed);
        let wanted = 2 + (self.actors_made % 3);
        while self.actors.len() < wanted {
            let port = if self.random.u8(..4) == 0 {
                Port::Http
            } else {
                Port::Resp
            };
            self.actors.push(Actor::new(
                self.actors_made,
                port,
                self.taste,
                &mut self.world,
            ));
            self.actors_made += 1;
        }
    }

    pub fn turn(&mut self) {
        let random = &mut self.random;
        if self.down && random.u8(..20) == 0 {
            self.down = false;
        }
        if self.state == "off" && random.u8(..20) == 0 {
            self.world.engine.switch_cache();
            self.world.note_outputs();
        }
        let time = match random.u8(..100) {
            // Long enough for the lease to end.
            0..20 if self.stalled > 0 => {
                self.ledger.bound.as_micros() as u64 * random.u64(300..1200) / 1000
            }
            0..85 => random.u64(..500),
            85..92 => random.u64(..20_000),
            // About as long as entries live.
            92..99 => {
                let ttl = self.ledger.bound.min(Duration::from_millis(500));
                ttl.as_micros() as u64 * random.u64(800..1100) / 1000
            }
            _ => random.u64(..1_000_000),
        };
        self.world.pass(Duration::from_micros(time));
        self.stalled = match self.stalled {
            0 if self.random.u8(..60) == 0 => self.random.usize(1..30),
            turns => turns.saturating_sub(1),
        };
        for _ in 0..self.random.usize(1..8) {
            if self.faults && self.random.u8(..100) == 0 {
                self.fault();
            } else {
                self.act();
            }
            self.listen();
        }
        self.world.advance(draw(&mut self.random, &[1, 3, 1000]));
        self.listen();
        self.check();
    }

    /// Everything that is under way comes to its end.
    pub fn rest(&mut self) {
        self.down = false;
        for _ in 0..2000 {
            self.world.settle();
            self.listen();
            self.check();
            let waiting = |actor: &Actor| {
                !actor.awaited.is_empty() && !self.world.sockets[actor.socket].closed
            };
            if !self.actors.iter().any(waiting) {
                return;
            }
            let waits = |actor: &&Actor| waiting(actor) && actor.part == Part::Waits(true);
            for _ in 0..self.actors.iter().filter(waits).count() {
                self.foreign += 1;
                let element = format!("f{}", self.foreign);
                let args = ["RPUSH", QUEUE, &element].map(|arg| arg.as_bytes().to_vec());
                self.world.foreign(self.ledger.db, &[args.to_vec()]);
            }
            self.world.pass(Duration::from_millis(10));
            self.world.advance(1000);
        }
        let waiting: Vec<_> = self
            .actors
            .iter()
            .map(|actor| (actor.number, &actor.awaited))
            .collect();
        panic!("somebody waits for ever: {waiting:#?}");
    }

    /// What the engine says of itself when nothing is under way.
    pub fn check_rest(&mut self) {
        // The control link comes back within 250 ms, and timers that have lost their purpose have fired.
        for _ in 0..300 {
            self.world.pass(Duration::from_millis(10));
            self.world.advance(10_000);
            self.world.settle();
            self.listen();
        }
        let probe = self.world.open(Port::Resp);
        self.world.sockets[probe]
            .incoming
            .extend(request(&["INFO", "nearcache"]));
        self.world.settle();
        let text = String::from_utf8_lossy(&self.world.sockets[probe].received).into_owned();
        assert!(reply_len(text.as_bytes()).is_some());
        let field = |name: &str| -> usize {
            let row = format!("nearcache_{name}:");
            let line = text.lines().find_map(|line| line.strip_prefix(&row));
            line.and_then(|value| value.parse().ok())
                .expect("INFO has the row")
        };
        assert_eq!(field("in_flight"), 0);
        assert_eq!(field("queued_now"), 0);
        assert_eq!(field("links"), self.world.wires.len());
        let open = self.world.sockets.iter().filter(|socket| !socket.closed);
        assert_eq!(field("clients"), open.count());
        let http = self
            .actors
            .iter()
            .filter(|actor| actor.port == Port::Http && !self.world.sockets[actor.socket].closed);
        let retry = usize::from(self.world.engine.coherence_state() == "bounded");
        assert_eq!(
            field("timers"),
            self.world.wires.len() + http.count() + 1 + retry + usize::from(self.touches),
            "one per link, one per HTTP client, the heartbeat, the next request to track, the next TOUCH"
        );
        assert!(self.world.ready.is_empty());
        self.check_kept();
    }

    /// What was pushed is pushed: nothing wrong is kept for ever. Twice, since the second may be a hit where the first
    /// was not.
    fn check_kept(&mut self) {
        if self.world.engine.coherence() == Coherence::Ttl {
            return;
        }
        let db = self.ledger.db;
        for key in KEYS.iter().chain(&KEYS) {
            let probe = self.world.open(Port::Resp);
            self.world.sockets[probe]
                .incoming
                .extend(request(&["GET", key]));
            self.world.settle();
            let received = &self.world.sockets[probe].received;
            let right = self.world.redis.read(db, key.as_bytes());
            let right = match right.expect("it is a string") {
                Some(value) => bulk(&value),
                None => b"$-1\r\n".to_vec(),
            };
            // A value may be longer than a client of this run is allowed to be owed, and a link may be one too many.
            let closed = self.world.sockets[probe].closed && received.is_empty();
            let refused = received.starts_with(b"-ERR nearcache: too many connections");
            assert!(
                *received == right || self.faults && (closed || refused),
                "{key} is wrong for ever: {:?} instead of {:?}",
                String::from_utf8_lossy(received),
                String::from_utf8_lossy(&right),
            );
        }
    }

    /// The engine is told to end while things are under way.
    pub fn drain(&mut self) {
        for actor in &mut self.actors {
            // What the engine has not read yet need not be answered.
            actor.forsaken = true;
            actor.finished = true;
        }
        self.world.engine.begin_drain();
        self.world.note_outputs();
        for _ in 0..self.random.usize(..30) {
            self.turn();
        }
        self.world.engine.drain();
        self.world.note_outputs();
        for _ in 0..2000 {
            self.world.settle();
            self.listen();
            self.check();
            if self.world.engine.is_drained() {
                return;
            }
            self.world.pass(Duration::from_millis(10));
            self.world.advance(1000);
        }
        panic!("the engine does not come to its end");
    }
}
