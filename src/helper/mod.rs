//! The thread for what may block and is no request: log lines, name look-ups, reading the configuration again.
//!
//! It never sees a request, and nobody ever waits for it: who asks gets on, and a full queue drops the line and counts
//! it. The next line that is written says how many were dropped.
//!
//! What is said reaches it by the macros of `tracing` ([`Handle::listen`]).
//!
//! Invariant: `lines.len() ≤ LINES_MAX`, their bytes together ≤ `LINES_BYTES_MAX`, `lookups.len() ≤ LOOKUPS_MAX`, `reads.len() ≤ READS_MAX`.
#![forbid(unsafe_code)]

mod listen;
mod sink;

use crate::config::{AccessLog, Config, LogFormat, LogLevel};
use crate::log::burst::{Bursts, More, Verdict};
use crate::log::line::{Line, Value};
use crate::socket;
use crate::time::Time;
use sink::Sink;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Lines that may wait to be written. A burst (every client closed at once) fits; a disk that hangs does not eat memory.
const LINES_MAX: usize = 4096;
/// Their bytes, all together.
const LINES_BYTES_MAX: usize = 1024 * 1024;
/// Look-ups that may wait. The reactor asks for one name at a time.
const LOOKUPS_MAX: usize = 16;

/// Files that may wait to be read. The reactor asks for one configuration at a time.
const READS_MAX: usize = 4;

/// What a look-up found: the addresses in the resolver's order, or why there are none.
pub type Resolved = Result<Vec<SocketAddr>, String>;

/// The helper thread, as its owner sees it.
#[derive(Debug)]
pub struct Helper {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// How everybody else speaks to the helper.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// How the log fares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Lines that were written, by the log and the access log.
    pub written: u64,
    /// Lines that found the queue full.
    pub dropped: u64,
    /// Events that were only counted because there were many of their kind.
    pub held_back: u64,
    /// Lines that wait.
    pub waiting: u64,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    /// The [`LogLevel`] in force, for all handles.
    level: AtomicU8,
    format: LogFormat,
    has_access_log: bool,
    logs_to_file: bool,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Waiting>,
    lines_bytes: usize,
    /// Since the last line that said so.
    dropped: u64,
    totals: Figures,
    /// Lines were taken out and are on their way.
    is_writing: bool,
    bursts: Bursts,
    lookups: VecDeque<Lookup>,
    reads: VecDeque<Read>,
    stopping: bool,
}

/// A finished line.
#[derive(Debug)]
struct Waiting {
    to: To,
    text: String,
}

/// Which of the two logs a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Log,
    Access,
}

/// Where each of them goes. The access log may go where the log goes.
#[derive(Debug)]
struct Sinks {
    log: Sink,
    access: Option<Sink>,
}

struct Read(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Read")
    }
}

struct Lookup {
    host: String,
    port: u16,
    answer: Box<dyn FnOnce(Resolved) + Send>,
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lookup({}:{})", self.host, self.port)
    }
}

impl Helper {
    /// Starts the thread. Lines go to `log_file`, or to stderr when there is none. Fails when a file cannot be opened
    /// or the thread cannot be made.
    pub fn start(config: &Config) -> io::Result<Helper> {
        let bytes_max = config.log_file_max_bytes;
        let mut sinks = Sinks {
            log: Sink::open(config.log_file.as_deref(), bytes_max)?,
            access: match &config.access_log {
                AccessLog::Off | AccessLog::Log => None,
                AccessLog::File(path) => Some(Sink::open(Some(path), bytes_max)?),
            },
        };
        let handle = Handle {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                work: Condvar::new(),
                level: AtomicU8::new(config.log_level as u8),
                format: config.log_format,
                has_access_log: config.access_log != AccessLog::Off,
                logs_to_file: config.log_file.is_some(),
            }),
        };
        handle.take(config);
        let shared = handle.shared.clone();
        let thread = std::thread::Builder::new()
            .name("helper".to_owned())
            .spawn(move || run(&shared, &mut sinks))?;
        Ok(Helper { handle, thread })
    }

    /// A handle for another owner.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes what waits and ends the thread, or gives up on it after `patience` (a look-up or a disk may hang).
    pub fn stop(self, patience: Duration) {
        self.handle.shared.lock().stopping = true;
        self.handle.shared.work.notify_one();
        let give_up = Instant::now() + patience;
        while !self.thread.is_finished() {
            if Instant::now() >= give_up {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // A panic of the helper has been printed by the panic hook; there is nothing left to do about it.
        let _ = self.thread.join();
    }
}

impl Handle {
    /// From here on this level and this bound on floods hold, for every holder of a handle.
    pub fn take(&self, config: &Config) {
        let most = u32::try_from(config.log_burst).unwrap_or(u32::MAX);
        self.shared.lock().bursts.set_most(most);
        self.set_level(config.log_level);
    }

    /// From here on only events of this level and louder are written.
    pub fn set_level(&self, level: LogLevel) {
        self.shared.level.store(level as u8, Ordering::Relaxed);
        self.announce_level();
    }

    fn level(&self) -> LogLevel {
        let level = self.shared.level.load(Ordering::Relaxed);
        let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info];
        let found = levels.into_iter().find(|known| *known as u8 == level);
        found.unwrap_or(LogLevel::Debug)
    }

    /// How the log fares.
    pub fn figures(&self) -> Figures {
        let queue = self.shared.lock();
        Figures {
            waiting: queue.lines.len() as u64,
            ..queue.totals
        }
    }

    /// Waits until what was said is written, or for this long. For the last words of a process: it takes no lock that it
    /// would have to wait for.
    fn flush(&self, patience: Duration) {
        let give_up = Instant::now() + patience;
        let is_written = || {
            let queue = self.shared.try_lock();
            queue.is_some_and(|queue| queue.lines.is_empty() && !queue.is_writing)
        };
        while !is_written() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Queues `read`, which reads files and hands on what it found by itself. `false`: the queue is full, and it is dropped.
    pub fn read(&self, read: impl FnOnce() + Send + 'static) -> bool {
        let mut queue = self.shared.lock();
        if queue.reads.len() >= READS_MAX {
            return false;
        }
        queue.reads.push_back(Read(Box::new(read)));
        drop(queue);
        self.shared.work.notify_one();
        true
    }

    /// Queues a look-up of `host`; `answer` is called on the helper's thread. `false`: the queue is full, and `answer`
    /// is dropped without a call.
    pub fn resolve(
        &self,
        host: &str,
        port: u16,
        answer: impl FnOnce(Resolved) + Send + 'static,
    ) -> bool {
        let mut queue = self.shared.lock();
        if queue.lookups.len() >= LOOKUPS_MAX {
            return false;
        }
        queue.lookups.push_back(Lookup {
            host: host.to_owned(),
            port,
            answer: Box::new(answer),
        });
        drop(queue);
        self.shared.work.notify_one();
        true
    }
}

impl Shared {
    /// Every change under this lock is complete in itself, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Queue>> {
        match self.queue.try_lock() {
            Ok(queue) => Some(queue),
            Err(TryLockError::Poisoned(queue)) => Some(queue.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Queues a line, or counts it where there is no room.
    fn push(&self, to: To, level: LogLevel, line: Line) {
        let text = line.finish(wall_clock(), level_name(level));
        let mut queue = self.lock();
        if queue.lines.len() >= LINES_MAX || queue.lines_bytes + text.len() > LINES_BYTES_MAX {
            queue.dropped += 1;
            queue.totals.dropped += 1;
            return;
        }
        queue.lines_bytes += text.len();
        queue.lines.push_back(Waiting { to, text });
        drop(queue);
        self.work.notify_one();
    }

    /// Written by the helper itself, between lines of others.
    fn own_line(&self, level: LogLevel, fill: impl FnOnce(&mut Line)) -> Waiting {
        let mut line = Line::new(self.format);
        fill(&mut line);
        let text = line.finish(wall_clock(), level_name(level));
        Waiting { to: To::Log, text }
    }

    fn more_like_this(&self, more: &More) -> Waiting {
        self.own_line(more.level, |line| {
            let secs = crate::log::burst::WINDOW.as_secs();
            let (message, count) = (&more.message, more.count);
            line.message(&format_args!(
                "{message} ... {count} more like this in the last {secs} s"
            ));
            line.field("more", Value::Whole(count.into()));
        })
    }
}

impl Queue {
    fn judge(&mut self, kind: u64, now: Time) -> Verdict {
        let verdict = self.bursts.judge(kind, now);
        if verdict != Verdict::Write {
            self.totals.held_back += 1;
        }
        verdict
    }
}

impl Sinks {
    fn write(&mut self, line: &Waiting) {
        let sink = match (line.to, &mut self.access) {
            (To::Access, Some(access)) => access,
            _ => &mut self.log,
        };
        sink.write(line.text.as_bytes());
    }
}

fn run(shared: &Shared, sinks: &mut Sinks) {
    let mut lines = VecDeque::new();
    let mut queue = shared.lock();
    loop {
        // Lines first: a look-up may take many seconds, and what led to it should be readable meanwhile.
        let floods = match queue.stopping {
            true => queue.bursts.take_all(),
            false => queue.bursts.take_over(socket::now()),
        };
        if !queue.lines.is_empty() || queue.dropped > 0 || !floods.is_empty() {
            std::mem::swap(&mut lines, &mut queue.lines);
            queue.lines_bytes = 0;
            queue.is_writing = true;
            let dropped = std::mem::take(&mut queue.dropped);
            drop(queue);
            lines.extend(floods.iter().map(|more| shared.more_like_this(more)));
            if dropped > 0 {
                lines.push_back(shared.own_line(LogLevel::Warn, |line| {
                    line.message(&"log lines dropped because the queue was full");
                    line.field("lines", Value::Whole(dropped.into()));
                }));
            }
            let written = lines.len() as u64;
            for line in lines.drain(..) {
                sinks.write(&line);
            }
            queue = shared.lock();
            queue.is_writing = false;
            queue.totals.written += written;
        } else if queue.stopping {
            return;
        } else if let Some(Read(read)) = queue.reads.pop_front() {
            drop(queue);
            read();
            queue = shared.lock();
        } else if let Some(lookup) = queue.lookups.pop_front() {
            drop(queue);
            let found = match (lookup.host.as_str(), lookup.port).to_socket_addrs() {
                Ok(addrs) => Ok(addrs.collect()),
                Err(e) => Err(format!("cannot resolve {}: {e}", lookup.host)),
            };
            (lookup.answer)(found);
            queue = shared.lock();
        } else if let Some(over) = queue.bursts.next_over() {
            let patience = over.since(socket::now());
            let waited = shared.work.wait_timeout(queue, patience);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        } else {
            let waited = shared.work.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One word for people and machines.
const fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "ERROR",
        LogLevel::Warn => "WARN",
        LogLevel::Info => "INFO",
        LogLevel::Debug => "DEBUG",
    }
}

/// The time since 1970.
fn wall_clock() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// `tracing` keeps the loudest level that anybody listens to for the whole process, which listens once. Tests take turns.
#[cfg(test)]
static ONE_LISTENER: Mutex<()> = Mutex::new(());

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc;

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("nearcache-helper-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn start(log_file: Option<&Path>) -> Helper {
        let log_file = log_file.map(Path::to_owned);
        let config = Config {
            log_file,
            log_burst: 1_000_000,
            ..Config::default()
        };
        Helper::start(&config).unwrap()
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_says_so_later() {
        let path = scratch("full");
        let helper = start(Some(&path));
        let handle = helper.handle();
        // Hold the helper in a look-up's answer while lines pile up behind it.
        let (entered_tx, entered) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        assert!(handle.resolve("127.0.0.1", 1, move |_| {
            entered_tx.send(()).unwrap();
            gate.recv().unwrap();
        }));
        entered.recv_timeout(Duration::from_secs(5)).unwrap();
        let alone = ONE_LISTENER.lock();
        tracing::subscriber::with_default(handle.clone(), || {
            for i in 0..LINES_MAX + 10 {
                tracing::info!("{i}");
            }
        });
        drop(alone);
        assert_eq!(handle.shared.lock().lines.len(), LINES_MAX);
        for _ in 0..LOOKUPS_MAX {
            assert!(handle.resolve("127.0.0.1", 1, |_| ()));
        }
        assert!(
            !handle.resolve("127.0.0.1", 1, |_| ()),
            "the look-up queue is bounded too"
        );
        release.send(()).unwrap();
        helper.stop(Duration::from_secs(5));
        let log = std::fs::read_to_string(&path).unwrap();
        assert_eq!(log.lines().count(), LINES_MAX + 1);
        assert!(
            log.lines()
                .last()
                .unwrap()
                .ends_with("the queue was full lines=10")
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn names_are_looked_up() {
        let helper = start(None);
        let (tx, rx) = mpsc::channel();
        assert!(
            helper
                .handle()
                .resolve("localhost", 6379, move |found| tx.send(found).unwrap())
        );
        let found = rx
            .recv_timeout(Duration::from_secs(10))
            .unwrap()
            .expect("localhost resolves");
        assert!(
            found
                .iter()
                .all(|addr| addr.port() == 6379 && addr.ip().is_loopback())
        );
        assert!(!found.is_empty());
        helper.stop(Duration::from_secs(5));
    }
}
