//! The whole engine against anything: what clients send, what Redis answers, what is lost, and when.
//!
//! The input is a program: one byte says what happens next, the bytes behind it say to whom and with what. After each step
//! the engine's own [`Engine::check`] walks all of its structures, the outputs are held against the contract of
//! [`Output`], and every byte that a RESP client gets is scanned: while the connection stands it is a sequence of whole
//! replies. At the end everything is taken away, and nothing may be left behind.
//!
//! `wire.rs` is the other side: it answers what it is asked in the kind of reply that the command has, so that the
//! fuzzer gets past the handshake; any other bytes are a step of their own.
#![forbid(unsafe_code)]

mod wire;

use crate::config::{Coherence, Config};
use crate::engine::{ConnId, Engine, Origin, Output, Place, Port};
use crate::fetch::{Completion, FetchError, Fetched, Job, RunId};
use crate::protocol::resp::reply::{ReplyScanner, Scan};
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use wire::Wire;

const CLIENTS_MAX: usize = 5;
/// Steps of one run: inputs are short, and each step checks everything.
const STEPS_MAX: usize = 400;
const START: Time = Time::from_millis(1_000_000);

/// What clients say, beside what the fuzzer makes up. Each is sent as it stands.
const PHRASES: &[&[u8]] = &[
    b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
    b"*2\r\n$3\r\nGET\r\n$1\r\nb\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n",
    b"*2\r\n$3\r\nDEL\r\n$1\r\na\r\n",
    b"*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n",
    b"*3\r\n$4\r\nEVAL\r\n$1\r\nx\r\n$1\r\n0\r\n",
    b"MULTI\r\n",
    b"EXEC\r\n",
    b"DISCARD\r\n",
    b"WATCH a\r\n",
    b"UNWATCH\r\n",
    b"BLPOP l 0\r\n",
    b"SUBSCRIBE c\r\n",
    b"PSUBSCRIBE c*\r\n",
    b"UNSUBSCRIBE\r\n",
    b"PUNSUBSCRIBE c*\r\n",
    b"MONITOR\r\n",
    b"HELLO 3\r\n",
    b"HELLO 2\r\n",
    b"SELECT 1\r\n",
    b"SELECT 0\r\n",
    b"PING\r\n",
    b"RESET\r\n",
    b"QUIT\r\n",
    b"CLIENT TRACKING ON\r\n",
    b"CLIENT TRACKING OFF\r\n",
    b"CLIENT REPLY OFF\r\n",
    b"CLIENT REPLY SKIP\r\n",
    b"CLIENT REPLY ON\r\n",
    b"CLIENT LIST\r\n",
    b"CLIENT ID\r\n",
    b"CLIENT KILL SKIPME no TYPE normal\r\n",
    b"CLIENT UNBLOCK 1\r\n",
    b"INFO\r\n",
    b"INFO nearcache\r\n",
    b"NOSUCH a\r\n",
    b"STRLEN a\r\n",
    b"EXISTS a b\r\n",
    b"GETRANGE a 0 -1\r\n",
    b"FLUSHALL\r\n",
    b"SWAPDB 0 1\r\n",
    b"XREAD BLOCK 0 STREAMS s $\r\n",
    b"WAIT 0 0\r\n",
    b"AUTH x\r\n",
    b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*1\r\n$4\r\nEXEC\r\n",
    b"GET /get?key=a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /get?key=b HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\n\r\n",
    b"HEAD /get?key=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /get?key=a HTTP/1.1\r\nHost: localhost\r\nCache-Control: no-cache\r\n\r\n",
];

struct Input<'d> {
    data: &'d [u8],
}

impl<'d> Input<'d> {
    fn byte(&mut self) -> u8 {
        match self.data.split_first() {
            Some((first, rest)) => {
                self.data = rest;
                *first
            }
            None => 0,
        }
    }

    /// The next bytes, as many as a byte before them says.
    fn bytes(&mut self) -> &'d [u8] {
        let n = usize::from(self.byte()).min(self.data.len());
        let (taken, rest) = self.data.split_at(n);
        self.data = rest;
        taken
    }

    /// How much of something goes: mostly all of it.
    fn amount(&mut self) -> usize {
        match self.byte() {
            few @ 1..=64 => usize::from(few),
            _ => usize::MAX,
        }
    }
}

struct Peer {
    id: ConnId,
    port: Port,
    incoming: VecDeque<u8>,
    paused: bool,
    flush: bool,
    closed: bool,
    scanner: ReplyScanner,
    /// It may have asked for the stream of a replica, which is not RESP.
    tunnel: bool,
    recent: Vec<u8>,
    says_multi: bool,
    says_more: bool,
}

struct World {
    engine: Engine,
    now: Time,
    peers: Vec<Peer>,
    wires: BTreeMap<ConnId, Wire>,
    jobs: VecDeque<Job>,
    ready: VecDeque<ConnId>,
}

/// Runs the program that `data` is; panics where a promise is broken.
pub fn run(data: &[u8]) {
    let mut input = Input { data };
    let mut world = World::new(input.byte());
    for _ in 0..STEPS_MAX {
        if input.data.is_empty() {
            break;
        }
        world.step(&mut input);
        world.note_outputs();
        world.engine.check();
    }
    world.take_everything_away();
}

fn config(choice: u8) -> Config {
    Config {
        coherence: match choice & 3 {
            0 => Coherence::Ttl,
            1 => Coherence::Off,
            _ => Coherence::Tracking,
        },
        stale_if_error: Duration::from_secs(if choice & 4 == 0 { 0 } else { 30 }),
        max_concurrent_requests: if choice & 8 == 0 { 3 } else { 1000 },
        shared_links_per_pool: if choice & 16 == 0 { 1 } else { 4 },
        links_max: if choice & 32 == 0 { 6 } else { 100 },
        outbox_max_bytes: if choice & 64 == 0 { 4096 } else { 1 << 20 },
        cache_capacity: 8,
        redis_workers: 1,
        ..Config::default()
    }
}

impl World {
    fn new(choice: u8) -> World {
        let origin = Origin {
            seed: [1, 2, 3, 4],
            now: START,
            unix_secs: 1_800_000_000,
            pid: 7,
            host: "here",
        };
        let mut world = World {
            engine: Engine::new(config(choice), origin),
            now: START,
            peers: Vec::new(),
            wires: BTreeMap::new(),
            jobs: VecDeque::new(),
            ready: VecDeque::new(),
        };
        world.note_outputs();
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 24 {
            0 => self.open(Port::Resp),
            1 => self.open(Port::Http),
            2 | 3 => {
                let (peer, phrase) = (self.peer(input), usize::from(input.byte()));
                self.say(peer, PHRASES[phrase % PHRASES.len()]);
            }
            4 => {
                let (peer, bytes) = (self.peer(input), input.bytes());
                self.say(peer, bytes);
            }
            5 => {
                let (peer, most) = (self.peer(input), input.amount());
                self.client_in(peer, most);
            }
            6 => {
                let (peer, most) = (self.peer(input), input.amount());
                self.client_out(peer, most);
            }
            7 => {
                if let Some(id) = self.peer(input).map(|at| self.peers[at].id) {
                    self.engine.peer_closed(id);
                }
            }
            8 => {
                if let Some(id) = self.peer(input).map(|at| self.peers[at].id) {
                    self.engine.failed(id, "reset");
                }
            }
            9 => {
                let (wire, fails) = (self.wire(input), input.byte() == 1);
                self.connect(wire, fails);
            }
            10 => {
                let (wire, most) = (self.wire(input), input.amount());
                self.link_out(wire, most);
            }
            11 | 12 => {
                let (wire, mood) = (self.wire(input), input.byte());
                if let Some(wire) = wire.and_then(|id| self.wires.get_mut(&id)) {
                    wire.answer(mood);
                }
            }
            13 => {
                let (wire, bytes) = (self.wire(input), input.bytes());
                if let Some(wire) = wire.and_then(|id| self.wires.get_mut(&id)) {
                    wire.replies.extend(bytes);
                }
            }
            14 => {
                let (wire, most) = (self.wire(input), input.amount());
                self.link_in(wire, most);
            }
            15 => {
                if let Some(id) = self.wire(input) {
                    self.engine.peer_closed(id);
                }
            }
            16 => {
                let (at, mood) = (input.byte(), input.byte());
                self.complete(usize::from(at), mood);
            }
            17 => {
                let exponent = u32::from(input.byte() % 27);
                self.pass(Duration::from_micros(1 << exponent));
            }
            18 => {
                self.serve();
            }
            19 => {
                let (wire, key) = (self.wire(input), input.byte());
                if let Some(wire) = wire.and_then(|id| self.wires.get_mut(&id)) {
                    wire.push(key);
                }
            }
            20 => match input.byte() {
                1 => self.engine.switch_cache(),
                2 => self.engine.set_coherence(Coherence::Tracking),
                3 => drop(self.engine.drain()),
                4 => self.engine.begin_drain(),
                _ => {}
            },
            _ => self.settle(input.byte()),
        }
    }

    fn peer(&self, input: &mut Input<'_>) -> Option<usize> {
        let open: Vec<usize> = (0..self.peers.len())
            .filter(|at| !self.peers[*at].closed)
            .collect();
        let choice = usize::from(input.byte());
        open.get(choice % open.len().max(1)).copied()
    }

    fn wire(&self, input: &mut Input<'_>) -> Option<ConnId> {
        let choice = usize::from(input.byte()) % self.wires.len().max(1);
        self.wires.keys().nth(choice).copied()
    }

    fn open(&mut self, port: Port) {
        if self.peers.iter().filter(|peer| !peer.closed).count() >= CLIENTS_MAX {
            return;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let id = self.engine.open(port, address).expect("far from the limit");
        self.peers.push(Peer {
            id,
            port,
            incoming: VecDeque::new(),
            paused: false,
            flush: false,
            closed: false,
            scanner: ReplyScanner::default(),
            tunnel: false,
            says_multi: false,
            says_more: false,
            recent: Vec::new(),
        });
    }

    fn say(&mut self, peer: Option<usize>, bytes: &[u8]) {
        let Some(peer) = peer.map(|at| &mut self.peers[at]) else {
            return;
        };
        peer.incoming.extend(bytes);
        peer.recent.extend(bytes.iter().map(u8::to_ascii_uppercase));
        let says = |word: &[u8]| peer.recent.windows(word.len()).any(|part| part == word);
        peer.says_multi |= says(b"MULTI");
        // Inside a transaction these make replies and messages indistinguishable.
        peer.says_more |= says(b"SCRIBE") || says(b"REPLY");
        peer.tunnel |= says(b"SYNC") || says(b"MONITOR") || peer.says_multi && peer.says_more;
        let keep = peer.recent.len().saturating_sub(b"MONITOR".len() - 1);
        peer.recent.drain(..keep);
    }

    fn client_in(&mut self, peer: Option<usize>, most: usize) -> bool {
        let Some(peer) = peer.map(|at| &mut self.peers[at]) else {
            return false;
        };
        if peer.closed || peer.paused || peer.incoming.is_empty() {
            return false;
        }
        let slice = self.engine.recv_slice(peer.id);
        let n = slice.len().min(most).min(peer.incoming.len());
        if n == 0 {
            peer.paused = true;
            return false;
        }
        for (to, from) in slice.iter_mut().zip(peer.incoming.drain(..n)) {
            *to = from;
        }
        self.engine.received(peer.id, n);
        true
    }

    fn client_out(&mut self, peer: Option<usize>, most: usize) -> bool {
        let Some(peer) = peer.map(|at| &mut self.peers[at]) else {
            return false;
        };
        if peer.closed || !peer.flush {
            return false;
        }
        let mut sent = Vec::new();
        peer.flush = !send(&mut self.engine, peer.id, most, &mut sent);
        if peer.port == Port::Resp && !peer.tunnel {
            let mut at = 0;
            while at < sent.len() {
                let (used, scan) = peer.scanner.feed(&sent[at..]);
                assert!(
                    scan != Scan::Bad,
                    "a client was sent what is not RESP: {:?}",
                    String::from_utf8_lossy(&sent)
                );
                at += used;
                if scan == Scan::Done {
                    peer.scanner = ReplyScanner::default();
                }
            }
        }
        true
    }

    fn connect(&mut self, link: Option<ConnId>, fails: bool) {
        let Some(link) = link else { return };
        if let Some(wire) = self.wires.get_mut(&link).filter(|wire| !wire.connected) {
            wire.connected = !fails;
            let result = if fails {
                Err("refused".to_owned())
            } else {
                Ok(())
            };
            self.engine.connected(link, result);
        }
    }

    fn link_out(&mut self, link: Option<ConnId>, most: usize) -> bool {
        let Some((link, wire)) = link.and_then(|id| Some((id, self.wires.get_mut(&id)?))) else {
            return false;
        };
        if !wire.flush {
            return false;
        }
        assert!(wire.connected, "nothing is sent before it is connected");
        wire.flush = !send(&mut self.engine, link, most, &mut wire.requests);
        true
    }

    fn link_in(&mut self, link: Option<ConnId>, most: usize) -> bool {
        let Some((link, wire)) = link.and_then(|id| Some((id, self.wires.get_mut(&id)?))) else {
            return false;
        };
        if !wire.connected || wire.paused || wire.replies.is_empty() {
            return false;
        }
        let slice = self.engine.recv_slice(link);
        let n = slice.len().min(most).min(wire.replies.len());
        if n == 0 {
            wire.paused = true;
            return false;
        }
        for (to, from) in slice.iter_mut().zip(wire.replies.drain(..n)) {
            *to = from;
        }
        self.engine.received(link, n);
        true
    }

    fn complete(&mut self, at: usize, mood: u8) {
        if self.jobs.is_empty() {
            return;
        }
        let job = self
            .jobs
            .remove(at % self.jobs.len())
            .expect("it is in the range");
        let value = |len: usize| Some(vec![b'v'; len]);
        let found = |value, pttl_ms| {
            Ok(Fetched {
                value,
                pttl_ms,
                run_id: RunId::in_info(wire::SERVER_INFO),
            })
        };
        let result = match mood {
            0 => Err(FetchError::TimedOut),
            1 => Err(FetchError::Upstream("WRONGTYPE no".to_owned())),
            2 => Err(FetchError::Unreachable("gone".to_owned())),
            3 => found(None, Some(-2)),
            4 => found(value(3), None),
            5 => found(value(20_000), Some(-1)),
            6 => found(value(2 << 20), Some(-1)),
            7 => found(value(3), Some(1)),
            _ => found(value(1), Some(-1)),
        };
        self.engine.complete(Completion { id: job.id, result });
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let unix_secs = 1_800_000_000 + self.now.since(START).as_secs();
        self.engine.begin_turn(self.now, unix_secs);
        let work = self.engine.advance(1000);
        if let Some(deadline) = self.engine.next_deadline() {
            assert!(
                deadline > self.now || work == crate::engine::Work::Left,
                "a deadline has passed and nobody looks at it"
            );
        }
    }

    fn serve(&mut self) -> bool {
        let Some(id) = self.ready.pop_front() else {
            return false;
        };
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) {
            peer.paused = false;
        }
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.paused = false;
        }
        self.engine.serve(id);
        true
    }

    fn note_outputs(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Submit(job) => self.jobs.push_back(job),
                Output::Flush(id) => {
                    let flag = match id.place {
                        Place::Client(_) => &mut self.open_peer(id).flush,
                        Place::Link(_) => &mut self.open_wire(id).flush,
                    };
                    assert!(!*flag, "Flush is said once");
                    *flag = true;
                }
                Output::Ready(id) => {
                    assert!(!self.ready.contains(&id), "Ready is said once");
                    self.ready.push_back(id);
                }
                Output::Connect(id) => {
                    let before = self.wires.insert(id, Wire::default());
                    assert!(before.is_none(), "a link is connected once");
                }
                Output::Shut(id) => {
                    let mut slices = [IoSlice::new(&[])];
                    let left = self.engine.send_slices(id, &mut slices);
                    assert_eq!(left, 0, "all is sent before Shut");
                    self.open_peer(id);
                }
                Output::Close(id) => match id.place {
                    Place::Client(_) => self.open_peer(id).closed = true,
                    Place::Link(_) => {
                        self.wires.remove(&id).expect("a link is closed once");
                    }
                },
                Output::Renew | Output::Recovered | Output::Trim | Output::Set(_) => {}
            }
        }
    }

    fn open_peer(&mut self, id: ConnId) -> &mut Peer {
        let peer = self
            .peers
            .iter_mut()
            .find(|peer| peer.id == id && !peer.closed);
        peer.expect("nothing is said of a client that is closed")
    }

    fn open_wire(&mut self, id: ConnId) -> &mut Wire {
        let wire = self.wires.get_mut(&id);
        wire.expect("nothing is said of a link that is closed")
    }

    /// Everything that can happen does, a few times over.
    fn settle(&mut self, mood: u8) {
        for _ in 0..8 {
            let mut moved = self.serve();
            self.note_outputs();
            for at in 0..self.peers.len() {
                moved |= self.client_in(Some(at), usize::MAX);
                self.note_outputs();
                moved |= self.client_out(Some(at), usize::MAX);
                self.note_outputs();
            }
            let links: Vec<ConnId> = self.wires.keys().copied().collect();
            for link in links {
                self.connect(Some(link), false);
                self.note_outputs();
                moved |= self.link_out(Some(link), usize::MAX);
                self.note_outputs();
                if let Some(wire) = self.wires.get_mut(&link) {
                    while wire.answer(mood) {
                        moved = true;
                    }
                }
                moved |= self.link_in(Some(link), usize::MAX);
                self.note_outputs();
            }
            while !self.jobs.is_empty() {
                self.complete(0, mood);
                moved = true;
                self.note_outputs();
            }
            if !moved {
                return;
            }
        }
    }

    /// The clients go, the links go, the jobs fail: then nothing is left.
    fn take_everything_away(mut self) {
        for at in 0..self.peers.len() {
            if !self.peers[at].closed {
                self.engine.failed(self.peers[at].id, "the end");
                self.note_outputs();
                assert!(self.peers[at].closed, "a failed client is closed");
            }
        }
        let links: Vec<ConnId> = self.wires.keys().copied().collect();
        for link in links {
            if self.wires.contains_key(&link) {
                self.engine.failed(link, "the end");
                self.note_outputs();
                assert!(!self.wires.contains_key(&link), "a lost link is closed");
            }
        }
        while !self.jobs.is_empty() {
            self.complete(0, 0);
            self.note_outputs();
        }
        self.engine.check();
        self.engine.check_nothing_is_left();
    }
}

/// One write of at most `most` bytes; whether all that was to be sent is sent.
fn send(engine: &mut Engine, id: ConnId, most: usize, to: &mut impl Extend<u8>) -> bool {
    let mut slices = [IoSlice::new(&[]); 4];
    let filled = engine.send_slices(id, &mut slices);
    let mut n = 0;
    for slice in &slices[..filled] {
        let part = slice.len().min(most - n);
        to.extend(slice[..part].iter().copied());
        n += part;
    }
    if n > 0 {
        engine.sent(id, n);
    }
    let mut slices = [IoSlice::new(&[])];
    engine.send_slices(id, &mut slices) == 0
}

#[cfg(test)]
mod tests {
    use super::run;
    use fastrand::Rng;
    use std::path::Path;

    #[test]
    fn the_samples_hold() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/engine");
        let files = std::fs::read_dir(&folder).expect("the samples are part of the repository");
        let samples: Vec<Vec<u8>> = files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(samples.len() >= 4, "{} samples", samples.len());
        for sample in samples {
            run(&sample);
        }
    }

    /// Programs in which most steps lead somewhere.
    #[test]
    fn random_programs_hold() {
        for seed in 0..400 {
            let mut random = Rng::with_seed(seed);
            let mut program = vec![random.u8(..)];
            program.extend([0, 0, 0, 0, 1, 0, 21, 9]);
            for _ in 0..random.usize(20..120) {
                let step = match random.u8(0..10) {
                    0..=3 => 2,
                    4 | 5 => 21,
                    _ => random.u8(..),
                };
                program.extend([step, random.u8(..), random.u8(..)]);
            }
            run(&program);
        }
    }
}
