//! What may block and is no request, on two threads: log lines on one, errands (name look-ups, reading the configuration
//! again) on the other, since a pipe that nobody empties holds up whoever writes to it for ever.
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
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// The helper's threads, as their owner sees them.
#[derive(Debug)]
pub struct Helper {
    handle: Handle,
    log: JoinHandle<()>,
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
    /// There are lines to write, or the end has come.
    said: Condvar,
    /// There are errands to do, or the end has come.
    sent: Condvar,
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
    /// Starts the threads. Lines go to `log_file`, or to stderr when there is none. Fails when a file cannot be opened
    /// or a thread cannot be made.
    pub fn start(config: &Config) -> io::Result<Helper> {
        let bytes_max = config.log_file_max_bytes;
        let sinks = Sinks {
            log: Sink::open(config.log_file.as_deref(), bytes_max)?,
            access: match &config.access_log {
                AccessLog::Off | AccessLog::Log => None,
                AccessLog::File(path) => Some(Sink::open(Some(path), bytes_max)?),
            },
        };
        Helper::start_with(config, sinks)
    }

    fn start_with(config: &Config, mut sinks: Sinks) -> io::Result<Helper> {
        let handle = Handle {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                said: Condvar::new(),
                sent: Condvar::new(),
                level: AtomicU8::new(config.log_level as u8),
                format: config.log_format,
                has_access_log: config.access_log != AccessLog::Off,
                logs_to_file: config.log_file.is_some(),
            }),
        };
        handle.take(config);
        let (writer, errands) = (handle.shared.clone(), handle.shared.clone());
        let log = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&writer, &mut sinks))?;
        std::thread::Builder::new()
            .name("helper".to_owned())
            .spawn(move || run_errands(&errands))?;
        Ok(Helper { handle, log })
    }

    /// A handle for another owner.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes what waits and ends the log's thread, or gives up on it after `patience` (a disk may hang). The errands end
    /// by themselves, or with the process.
    pub fn stop(self, patience: Duration) {
        self.handle.shared.lock().stopping = true;
        self.handle.shared.said.notify_one();
        self.handle.shared.sent.notify_one();
        let give_up = Instant::now() + patience;
        while !self.log.is_finished() {
            if Instant::now() >= give_up {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // A panic of it has been printed by the panic hook; there is nothing left to do about it.
        let _ = self.log.join();
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
        self.shared.sent.notify_one();
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
        self.shared.sent.notify_one();
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
        self.said.notify_one();
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

fn write_lines(shared: &Shared, sinks: &mut Sinks) {
    let mut lines = VecDeque::new();
    let mut queue = shared.lock();
    loop {
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
        } else if let Some(over) = queue.bursts.next_over() {
            let patience = over.since(socket::now());
            let waited = shared.said.wait_timeout(queue, patience);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        } else {
            let waited = shared.said.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run_errands(shared: &Shared) {
    let mut queue = shared.lock();
    loop {
        if queue.stopping {
            return;
        } else if let Some(Read(read)) = queue.reads.pop_front() {
            drop(queue);
            unharmed(read);
            queue = shared.lock();
        } else if let Some(lookup) = queue.lookups.pop_front() {
            drop(queue);
            unharmed(move || {
                let found = match (lookup.host.as_str(), lookup.port).to_socket_addrs() {
                    Ok(addrs) => Ok(addrs.collect()),
                    Err(e) => Err(format!("cannot resolve {}: {e}", lookup.host)),
                };
                (lookup.answer)(found);
            });
            queue = shared.lock();
        } else {
            let waited = shared.sent.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A panic ends what was to be done and not the helper, whom everybody else goes on needing. The hook has told of it.
fn unharmed(work: impl FnOnce()) {
    // What it owns is gone with it.
    let _ = catch_unwind(AssertUnwindSafe(work));
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
    use std::sync::mpsc;

    fn start() -> Helper {
        Helper::start(&Config::default()).unwrap()
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_says_so_later() {
        let text = Arc::new(Mutex::new(Vec::new()));
        let config = Config {
            log_burst: 1_000_000,
            ..Config::default()
        };
        let sinks = Sinks {
            log: Sink::Held(text.clone()),
            access: None,
        };
        let held = text.lock().unwrap();
        let helper = Helper::start_with(&config, sinks).unwrap();
        let handle = helper.handle();
        let alone = ONE_LISTENER.lock();
        tracing::subscriber::with_default(handle.clone(), || {
            tracing::info!("the first");
            // Its writer is held up, and looks at no line that comes behind it.
            while !handle.shared.lock().is_writing {
                std::thread::yield_now();
            }
            for i in 0..LINES_MAX + 10 {
                tracing::info!("{i}");
            }
        });
        drop(alone);
        assert_eq!(handle.shared.lock().lines.len(), LINES_MAX);
        // A log that hangs keeps nobody from an errand.
        let (tx, rx) = mpsc::channel();
        assert!(handle.resolve("127.0.0.1", 1, move |_| tx.send(()).unwrap()));
        rx.recv().unwrap();
        drop(held);
        helper.stop(Duration::from_secs(60));
        let log = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        assert_eq!(log.lines().count(), LINES_MAX + 2);
        let last = log.lines().last().unwrap();
        assert!(last.ends_with("the queue was full lines=10"), "{last}");
    }

    #[test]
    fn errands_that_wait_are_bounded_and_one_that_panics_harms_no_other() {
        let helper = start();
        let handle = helper.handle();
        let (entered_tx, entered) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        assert!(handle.read(move || {
            entered_tx.send(()).unwrap();
            gate.recv().unwrap();
            // Without the hook, which would print it.
            std::panic::resume_unwind(Box::new("an errand that panics"));
        }));
        entered.recv().unwrap();
        for _ in 1..LOOKUPS_MAX {
            assert!(handle.resolve("127.0.0.1", 1, |_| ()));
        }
        let (tx, rx) = mpsc::channel();
        assert!(handle.resolve("127.0.0.1", 1, move |_| tx.send(()).unwrap()));
        assert!(!handle.resolve("127.0.0.1", 1, |_| ()), "it is full");
        for _ in 0..READS_MAX {
            assert!(handle.read(|| ()));
        }
        assert!(!handle.read(|| ()), "and so is this one");
        release.send(()).unwrap();
        rx.recv().unwrap();
        helper.stop(Duration::from_secs(60));
    }

    #[test]
    fn names_are_looked_up() {
        let helper = start();
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
