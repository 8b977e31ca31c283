//! A TCP relay between the proxy and Redis that a test can pause, slow down, cut and look into.
//!
//! Invariant: bytes leave in the order they came, unchanged; pausing and delay change when, a cut changes how many.
//! Costs: two threads per connection; what has passed is kept for looking at, at most [`KEPT_BYTES_MAX`] per direction
//! and connection.
//! ```text
//! proxy ──▶ [Up: arrived | gate, delay, cut | passed] ──▶ Redis
//! proxy ◀── [Down: passed | cut, delay, gate | arrived] ◀── Redis
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::PATIENCE;
use super::ports::free_port;

/// More than a test looks into; what comes behind is counted only.
const KEPT_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES: usize = 64 * 1024;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the proxy to Redis.
    Up,
    /// From Redis to the proxy.
    Down,
}

/// Names a connection: they are counted from 1 in the order of their arrival.
pub type Connection = u64;

/// A listening relay; dropping it cuts everything.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Told whenever a gate may have opened.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where new connections lead: a loopback port.
    target: u16,
    mode: Mode,
    paused: [bool; 2],
    delay: [Duration; 2],
    /// The next connection is cut when so many bytes have passed.
    cut_next: Option<(Way, u64)>,
    /// Of ended connections too: a test looks at what they have said.
    connections: BTreeMap<Connection, Pair>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Mode {
    #[default]
    Open,
    Refusing,
    Over,
}

struct Pair {
    /// Both sockets, until it ends.
    ends: Option<[TcpStream; 2]>,
    is_open: bool,
    lanes: [Lane; 2],
}

/// One direction of one connection.
#[derive(Default)]
struct Lane {
    paused: bool,
    /// While paused, so much may pass in all.
    open_up_to: u64,
    arrived: Vec<u8>,
    arrived_bytes: u64,
    passed_bytes: u64,
    /// The connection is cut when so many bytes have passed in all.
    cut_at: Option<u64>,
}

impl Relay {
    /// Relays to this loopback port, whether or not anybody listens there yet.
    pub fn to(port: u16) -> Relay {
        // Not a port of the kernel's choice: see `ports`.
        loop {
            let candidate = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            if let Ok(listener) = TcpListener::bind(candidate) {
                return Relay::behind(listener, candidate, port);
            }
        }
    }

    /// The same on another address of this machine, and a port that is free there.
    pub fn at(ip: [u8; 4], own_port: u16, port: u16) -> Relay {
        let address = SocketAddr::from((ip, own_port));
        let listener = TcpListener::bind(address).expect("it is free on this address");
        Relay::behind(listener, address, port)
    }

    fn behind(listener: TcpListener, address: SocketAddr, port: u16) -> Relay {
        let state = State {
            target: port,
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Relay { address, shared }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on nothing passes this way, on any connection, new ones included; the sender is held back in the end.
    pub fn pause(&self, way: Way) {
        self.shared.lock().paused[way as usize] = true;
    }

    /// Lets pass what has waited and what comes.
    pub fn resume(&self, way: Way) {
        self.shared.lock().paused[way as usize] = false;
        self.shared.changed.notify_all();
    }

    /// Pauses one connection only.
    pub fn pause_one(&self, connection: Connection, way: Way) {
        self.shared.lane(connection, way, |lane| lane.paused = true);
    }

    /// Undoes [`Relay::pause_one`].
    pub fn resume_one(&self, connection: Connection, way: Way) {
        self.shared
            .lane(connection, way, |lane| lane.paused = false);
        self.shared.changed.notify_all();
    }

    /// How many bytes of this connection have arrived this way, passed on or not.
    pub fn arrived_bytes(&self, connection: Connection, way: Way) -> u64 {
        self.shared.lane(connection, way, |lane| lane.arrived_bytes)
    }

    /// Lets the first so many bytes of a paused connection pass, as [`Relay::arrived_bytes`] counted them earlier; what
    /// has come later waits.
    pub fn let_pass_up_to(&self, connection: Connection, way: Way, bytes: u64) {
        self.shared
            .lane(connection, way, |lane| lane.open_up_to = bytes);
        self.shared.changed.notify_all();
    }

    /// Each chunk waits so long before it passes (a far-away Redis).
    pub fn delay(&self, way: Way, delay: Duration) {
        self.shared.lock().delay[way as usize] = delay;
    }

    /// Cuts one connection when `bytes` more have passed this way: the rest is lost, both ends are closed.
    pub fn cut_after(&self, connection: Connection, way: Way, bytes: u64) {
        self.shared.lane(connection, way, |lane| {
            lane.cut_at = Some(lane.passed_bytes + bytes)
        });
    }

    /// Cuts the next connection that is made, and only that one, when `bytes` have passed this way.
    pub fn cut_next_after(&self, way: Way, bytes: u64) {
        self.shared.lock().cut_next = Some((way, bytes));
    }

    /// From now on new connections lead to this port: the address has come to mean another server. Those that are open
    /// stay where they are.
    pub fn lead_to(&self, port: u16) {
        self.shared.lock().target = port;
    }

    /// The same for all that are open now.
    pub fn cut_all_after(&self, way: Way, bytes: u64) {
        for pair in self
            .shared
            .lock()
            .connections
            .values_mut()
            .filter(|pair| pair.is_open)
        {
            let lane = &mut pair.lanes[way as usize];
            lane.cut_at = Some(lane.passed_bytes + bytes);
        }
    }

    /// Closes all connections now; new ones are taken.
    pub fn cut_all(&self) {
        self.shared
            .lock()
            .connections
            .values_mut()
            .for_each(Pair::close);
        self.shared.changed.notify_all();
    }

    /// Closes one connection now.
    pub fn cut(&self, connection: Connection) {
        self.shared
            .lock()
            .connections
            .get_mut(&connection)
            .expect("there is such a connection")
            .close();
        self.shared.changed.notify_all();
    }

    /// New connections are closed as soon as they are accepted, as by a dying Redis.
    pub fn refuse(&self, refuse: bool) {
        self.shared.lock().mode = if refuse { Mode::Refusing } else { Mode::Open };
    }

    /// How many connections there have been.
    pub fn connection_count(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.shared
            .lock()
            .connections
            .values()
            .filter(|pair| pair.is_open)
            .count()
    }

    /// The connections on which these bytes have arrived this way, passed on or not.
    pub fn connections_with(&self, way: Way, needle: &[u8]) -> Vec<Connection> {
        let state = self.shared.lock();
        let with = state
            .connections
            .iter()
            .filter(|(_, pair)| occurrences(&pair.lanes[way as usize].arrived, needle) > 0);
        with.map(|(&connection, _)| connection).collect()
    }

    /// The newest of them that is open.
    pub fn newest_open_with(&self, way: Way, needle: &[u8]) -> Option<Connection> {
        let state = self.shared.lock();
        let mut newest_first = state.connections.iter().rev();
        newest_first
            .find(|(_, pair)| {
                pair.is_open && occurrences(&pair.lanes[way as usize].arrived, needle) > 0
            })
            .map(|(&connection, _)| connection)
    }

    /// How many bytes of this connection were let through this way.
    pub fn passed_bytes(&self, connection: Connection, way: Way) -> u64 {
        self.shared.lane(connection, way, |lane| lane.passed_bytes)
    }

    /// How often these bytes have arrived this way, passed on or not.
    pub fn count_of(&self, way: Way, needle: &[u8]) -> usize {
        let state = self.shared.lock();
        state
            .connections
            .values()
            .map(|pair| occurrences(&pair.lanes[way as usize].arrived, needle))
            .sum()
    }

    /// Whether these bytes have arrived this way, passed on or not.
    pub fn has_seen(&self, way: Way, needle: &[u8]) -> bool {
        self.count_of(way, needle) > 0
    }

    /// How many bytes have arrived this way, on all connections.
    pub fn bytes(&self, way: Way) -> u64 {
        self.shared
            .lock()
            .connections
            .values()
            .map(|pair| pair.lanes[way as usize].arrived_bytes)
            .sum()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().mode = Mode::Over;
        self.cut_all();
        // Wakes the accepting thread, which sees the mode and ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lane<T>(&self, connection: Connection, way: Way, act: impl FnOnce(&mut Lane) -> T) -> T {
        let mut state = self.lock();
        let pair = state
            .connections
            .get_mut(&connection)
            .expect("there is such a connection");
        act(&mut pair.lanes[way as usize])
    }

    /// Records what has arrived and waits for the gate. How many of the bytes may pass; `None` when it is all over.
    fn admit(&self, connection: Connection, way: Way, chunk: &[u8]) -> Option<(usize, Duration)> {
        self.lane(connection, way, |lane| lane.arrive(chunk));
        let mut state = self.lock();
        loop {
            let gate_closed = state.paused[way as usize];
            let delay = state.delay[way as usize];
            let pair = state
                .connections
                .get_mut(&connection)
                .expect("connections are never forgotten");
            if !pair.is_open {
                return None;
            }
            let lane = &mut pair.lanes[way as usize];
            // Whole chunks: one that arrived later than the mark was set ends beyond it.
            let is_let_pass = lane.passed_bytes + chunk.len() as u64 <= lane.open_up_to;
            if !gate_closed && (!lane.paused || is_let_pass) {
                return Some((lane.pass(chunk.len()), delay));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

impl Lane {
    fn arrive(&mut self, chunk: &[u8]) {
        let room = KEPT_BYTES_MAX.saturating_sub(self.arrived.len());
        self.arrived
            .extend_from_slice(&chunk[..chunk.len().min(room)]);
        self.arrived_bytes += chunk.len() as u64;
    }

    fn pass(&mut self, len: usize) -> usize {
        let allowed = self
            .cut_at
            .map_or(u64::MAX, |cut| cut.saturating_sub(self.passed_bytes));
        let passing = (len as u64).min(allowed);
        self.passed_bytes += passing;
        usize::try_from(passing).expect("not more than a chunk")
    }
}

impl Pair {
    fn close(&mut self) {
        self.is_open = false;
        for end in self.ends.take().into_iter().flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming().flatten() {
        let target = {
            let state = shared.lock();
            match state.mode {
                Mode::Over => return,
                Mode::Refusing => continue,
                Mode::Open => SocketAddr::from((Ipv4Addr::LOCALHOST, state.target)),
            }
        };
        // Nobody there: closing at once is what the proxy would see a moment later.
        let Ok(far) = TcpStream::connect_timeout(&target, PATIENCE) else {
            continue;
        };
        let _ = near.set_nodelay(true);
        let _ = far.set_nodelay(true);
        let handle =
            |stream: &TcpStream| stream.try_clone().expect("a socket handle can be doubled");
        let pair = Pair {
            ends: Some([handle(&near), handle(&far)]),
            is_open: true,
            lanes: Default::default(),
        };
        let connection = {
            let mut state = shared.lock();
            let connection = state.connections.len() as Connection + 1;
            let mut pair = pair;
            if let Some((way, bytes)) = state.cut_next.take() {
                pair.lanes[way as usize].cut_at = Some(bytes);
            }
            state.connections.insert(connection, pair);
            connection
        };
        let (up_from, up_to) = (handle(&near), handle(&far));
        let up = Arc::clone(shared);
        thread::spawn(move || pump(&up, connection, Way::Up, up_from, up_to));
        let down = Arc::clone(shared);
        thread::spawn(move || pump(&down, connection, Way::Down, far, near));
    }
}

fn pump(shared: &Shared, connection: Connection, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let len = from.read(&mut chunk).unwrap_or(0);
        // An end of file waits at the gate as bytes do.
        let Some((allowed, delay)) = shared.admit(connection, way, &chunk[..len]) else {
            return;
        };
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        let written = to.write_all(&chunk[..allowed]);
        if allowed < len || written.is_err() {
            break;
        }
        if len == 0 {
            let _ = to.shutdown(Shutdown::Write);
            if way == Way::Up {
                return;
            }
            break;
        }
        let reached = shared.lane(connection, way, |lane| {
            lane.cut_at.is_some_and(|cut| lane.passed_bytes >= cut)
        });
        if reached {
            break;
        }
    }
    // Redis has closed, or the cut was reached, or one end is gone: the other end learns of it.
    let mut state = shared.lock();
    state
        .connections
        .get_mut(&connection)
        .expect("connections are never forgotten")
        .close();
    shared.changed.notify_all();
}

fn occurrences(bytes: &[u8], needle: &[u8]) -> usize {
    bytes
        .windows(needle.len())
        .filter(|window| *window == needle)
        .count()
}
