//! The decisions (contract only, so far).
#![forbid(unsafe_code)]

use crate::config::Config;
use crate::fetch::{Completion, Job};
use crate::time::Time;
use std::io::IoSlice;

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
}

/// What the shell must do next. Drained with [`Engine::poll_output`] after every other call.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Hand this to worker `job.worker` before the turn ends.
    Submit(Job),
    /// The connection has bytes to send: gather with [`Engine::send_slices`] and write once at the end of the turn, or
    /// when the socket becomes writable. Said once until the outbox has been empty again.
    Flush(ConnId),
    /// There is work left that needs no new bytes (or reading may go on after a pause): call [`Engine::serve`], then
    /// read the socket if its last readiness was not used up. Put it at the end of the ready list.
    Ready(ConnId),
    /// Open a non-blocking connection to Redis and report with [`Engine::connected`].
    Connect(ConnId),
    /// Close the socket now and forget the id. Nothing more is said of it.
    Close(ConnId),
    /// Something worth a log line, said once.
    Log(crate::config::LogLevel, String),
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
}

/// The core of the proxy. See the module documentation for the order in which its calls come.
pub struct Engine {}

#[allow(unused_variables)]
impl Engine {
    /// An engine with nothing open. Its first outputs connect it to Redis.
    pub fn new(config: Config, origin: Origin) -> Engine {
        Engine {}
    }
    /// The turn begins: `now` is the time of everything until the next call, `unix_secs` the wall clock for Date.
    pub fn begin_turn(&mut self, now: Time, unix_secs: u64) {}
    /// A client was accepted on `port`. `peer` is its address, for CLIENT LIST and the log. `None`: it is one too many;
    /// write what [`Engine::refusal`] says (best effort) and close.
    pub fn open(&mut self, port: Port, peer: std::net::SocketAddr) -> Option<ConnId> {
        None
    }
    /// What a client that cannot be taken is told before its socket is closed.
    pub fn refusal(&self, port: Port) -> &'static [u8] {
        b""
    }
    /// Where to read the connection's next bytes to. Empty: do not read now (paused; a `Ready` will say when to go on).
    /// The slice is zeroed memory of some other read; only what [`Engine::received`] counts is looked at.
    pub fn recv_slice(&mut self, id: ConnId) -> &mut [u8] {
        &mut []
    }
    /// `n` bytes were read into the slice that the last [`Engine::recv_slice`] of this id returned.
    pub fn received(&mut self, id: ConnId, n: usize) {}
    /// Goes on with what was received earlier, after [`Output::Ready`].
    pub fn serve(&mut self, id: ConnId) {}
    /// Fills `slices` with what is to be sent, front first; returns how many were filled (0: nothing to send).
    pub fn send_slices<'a>(&'a self, id: ConnId, slices: &mut [IoSlice<'a>]) -> usize {
        0
    }
    /// `n` bytes of those slices were written.
    pub fn sent(&mut self, id: ConnId, n: usize) {}
    /// The peer will send nothing more (its FIN). What is owed to it is still sent.
    pub fn peer_closed(&mut self, id: ConnId) {}
    /// The socket failed (reset, broken pipe, time-out): nothing more can be sent or read. The engine answers with
    /// [`Output::Close`].
    pub fn failed(&mut self, id: ConnId, why: &str) {}
    /// The outcome of [`Output::Connect`].
    pub fn connected(&mut self, id: ConnId, result: Result<(), String>) {}
    /// A worker is done with a job.
    pub fn complete(&mut self, completion: Completion) {}
    /// Fires the timers that are due, at most `budget` of them.
    pub fn advance(&mut self, budget: usize) -> Work {
        Work::Finished
    }
    /// When [`Engine::advance`] wants to be called next, `None` when nothing is timed.
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }
    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
    /// Shutting down: no request is begun that has not arrived yet; clients are closed as soon as nothing is owed to them.
    pub fn drain(&mut self) {}
    /// After [`Engine::drain`]: whether every client is gone.
    pub fn is_drained(&self) -> bool {
        true
    }
    /// Walks every structure and panics where an invariant does not hold. For tests; O(everything).
    pub fn check(&self) {}
}
