//! The thread for what may block and is no request: log lines, name look-ups, reading the configuration again.
//!
//! It never sees a request, and nobody ever waits for it: who asks gets on, and a full queue drops the line and counts
//! it. The next line that is written says how many were dropped.
//!
//! A log file that reaches `LOG_FILE_MAX_BYTES` is renamed to `<name>.1`, replacing the last one of that name, so the log
//! never takes more than twice as much.
//!
//! Invariant: `lines.len() ≤ LINES_MAX`, their bytes together ≤ `LINES_BYTES_MAX`, `lookups.len() ≤ LOOKUPS_MAX`, `reads.len() ≤ READS_MAX`.
//!
//! Costs: a log call takes one lock, one copy of the text and, if the helper sleeps, one wake-up. A line whose level is
//! below the configured one costs a comparison.
#![forbid(unsafe_code)]

use crate::config::{Config, LogLevel};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Lines that may wait to be written. A burst (every client closed at once) fits; a disk that hangs does not eat memory.
const LINES_MAX: usize = 4096;
/// Their bytes, all together.
const LINES_BYTES_MAX: usize = 1024 * 1024;
/// One line's text; the rest is cut off.
const LINE_BYTES_MAX: usize = 4096;
/// Look-ups that may wait. The reactor asks for one name at a time.
const LOOKUPS_MAX: usize = 16;

/// Files that may wait to be read. The reactor asks for one configuration at a time.
const READS_MAX: usize = 4;

const _: () = assert!(LINE_BYTES_MAX < LINES_BYTES_MAX);

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

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    /// The [`LogLevel`] in force, for all handles.
    level: AtomicU8,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Line>,
    lines_bytes: usize,
    lines_dropped: u64,
    lookups: VecDeque<Lookup>,
    reads: VecDeque<Read>,
    stopping: bool,
}

#[derive(Debug)]
struct Line {
    at: SystemTime,
    level: LogLevel,
    text: String,
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
    /// Starts the thread. Lines of `log_level` and louder go to `log_file`, or to stderr when there is none. Fails when
    /// the file cannot be opened or the thread cannot be made.
    pub fn start(config: &Config) -> io::Result<Helper> {
        let mut sink = match &config.log_file {
            None => Sink::Stderr,
            Some(path) => Sink::File(LogFile::open(path, config.log_file_max_bytes as u64)?),
        };
        let handle = Handle {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                work: Condvar::new(),
                level: AtomicU8::new(config.log_level as u8),
            }),
        };
        let shared = handle.shared.clone();
        let thread = std::thread::Builder::new()
            .name("helper".to_owned())
            .spawn(move || run(&shared, &mut sink))?;
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
    /// Queues one line. Control characters are escaped, so that no peer can forge a line of its own.
    pub fn log(&self, level: LogLevel, text: impl Into<String>) {
        if level as u8 > self.shared.level.load(Ordering::Relaxed) {
            return;
        }
        let text = clean(text.into());
        let mut queue = self.shared.lock();
        if queue.lines.len() >= LINES_MAX || queue.lines_bytes + text.len() > LINES_BYTES_MAX {
            queue.lines_dropped += 1;
            return;
        }
        queue.lines_bytes += text.len();
        queue.lines.push_back(Line {
            at: SystemTime::now(),
            level,
            text,
        });
        drop(queue);
        self.shared.work.notify_one();
    }

    /// From here on only lines of this level and louder are written, for every holder of a handle.
    pub fn set_level(&self, level: LogLevel) {
        self.shared.level.store(level as u8, Ordering::Relaxed);
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
}

fn run(shared: &Shared, sink: &mut Sink) {
    let mut lines = VecDeque::new();
    let mut queue = shared.lock();
    loop {
        // Lines first: a look-up may take many seconds, and what led to it should be readable meanwhile.
        if !queue.lines.is_empty() || queue.lines_dropped > 0 {
            std::mem::swap(&mut lines, &mut queue.lines);
            queue.lines_bytes = 0;
            let dropped = std::mem::take(&mut queue.lines_dropped);
            drop(queue);
            for line in lines.drain(..) {
                sink.write(&line);
            }
            if dropped > 0 {
                let text = format!("log lines dropped because the queue was full: {dropped}");
                sink.write(&Line {
                    at: SystemTime::now(),
                    level: LogLevel::Warn,
                    text,
                });
            }
            queue = shared.lock();
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
        } else {
            queue = shared
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Stderr,
    File(LogFile),
}

impl Sink {
    fn write(&mut self, line: &Line) {
        let text = format!(
            "{} {} {}\n",
            Timestamp(line.at),
            level_name(line.level),
            line.text
        );
        let failed = match self {
            Sink::Stderr => None,
            Sink::File(file) => file
                .write(text.as_bytes())
                .err()
                .map(|e| (file.path.clone(), e)),
        };
        if let Some((path, error)) = failed {
            // Once: from here on the log goes to stderr.
            *self = Sink::Stderr;
            eprintln!(
                "nearcache: cannot write {}: {error}; logging to stderr",
                path.display()
            );
        }
        if matches!(self, Sink::Stderr) {
            // Nobody can be told that stderr is gone.
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
    }
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl LogFile {
    fn open(path: &Path, bytes_max: u64) -> io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile {
            path: path.to_owned(),
            file,
            bytes,
            bytes_max,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, &older)?;
            *self = LogFile::open(&self.path, self.bytes_max)?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

const fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "ERROR",
        LogLevel::Warn => "WARN",
        LogLevel::Info => "INFO",
        LogLevel::Debug => "DEBUG",
    }
}

/// Escapes control characters and bounds the length.
fn clean(text: String) -> String {
    if text.len() <= LINE_BYTES_MAX && !text.chars().any(char::is_control) {
        return text;
    }
    let mut out = String::with_capacity(text.len().min(LINE_BYTES_MAX));
    for c in text.chars() {
        if out.len() + c.len_utf8() > LINE_BYTES_MAX {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Writes an instant as `2026-11-22T15:57:03.123Z`.
struct Timestamp(SystemTime);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, secs) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil_date(days);
        let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
        let ms = since.subsec_millis();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
        )
    }
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar. Counts from 1 March of year 0, so
/// that the leap day is the last of its year (after Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097; // 400 years
    let shifted = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let (era, day_of_era) = (shifted / DAYS_PER_ERA, shifted % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("nearcache-helper-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn start(log_level: LogLevel, log_file: Option<&Path>) -> io::Result<Helper> {
        let log_file = log_file.map(Path::to_owned);
        Helper::start(&Config {
            log_level,
            log_file,
            ..Config::default()
        })
    }

    #[test]
    fn timestamps_agree_with_the_calendar() {
        let check = |secs: u64, expected: &str| {
            let at = UNIX_EPOCH + Duration::from_millis(secs * 1000 + 7);
            assert_eq!(Timestamp(at).to_string(), expected);
        };
        check(0, "1970-01-01T00:00:00.007Z");
        check(951_782_399, "2000-02-28T23:59:59.007Z");
        check(951_782_400, "2000-02-29T00:00:00.007Z");
        check(951_868_800, "2000-03-01T00:00:00.007Z");
        check(1_735_689_599, "2024-12-31T23:59:59.007Z");
        check(4_107_542_400, "2100-03-01T00:00:00.007Z");
    }

    #[test]
    fn lines_reach_the_file_in_order_and_quiet_levels_do_not() {
        let path = scratch("lines");
        let helper = start(LogLevel::Info, Some(&path)).unwrap();
        let handle = helper.handle();
        handle.log(LogLevel::Info, "first");
        handle.log(LogLevel::Debug, "not wanted");
        handle.log(LogLevel::Error, "second\r\nforged line");
        helper.stop(Duration::from_secs(5));
        let log = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert!(lines[0].ends_with("Z INFO first"), "{log}");
        assert!(
            lines[1].ends_with(r"Z ERROR second\r\nforged line"),
            "{log}"
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_says_so_later() {
        let path = scratch("full");
        let helper = start(LogLevel::Info, Some(&path)).unwrap();
        let handle = helper.handle();
        // Hold the helper in a look-up's answer while lines pile up behind it.
        let (entered_tx, entered) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        assert!(handle.resolve("127.0.0.1", 1, move |_| {
            entered_tx.send(()).unwrap();
            gate.recv().unwrap();
        }));
        entered.recv_timeout(Duration::from_secs(5)).unwrap();
        for i in 0..LINES_MAX + 10 {
            handle.log(LogLevel::Info, i.to_string());
        }
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
                .ends_with("the queue was full: 10")
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_log_file_is_rotated_once_it_is_full() {
        let path = scratch("rotate");
        let mut file = LogFile::open(&path, 10).unwrap();
        for line in ["12345\n", "6789\n", "abcdefghijkl\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        let older = PathBuf::from(format!("{}.1", path.display()));
        assert_eq!(std::fs::read_to_string(&older).unwrap(), "6789\n");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "abcdefghijkl\n",
            "a line longer than the bound is kept"
        );
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(older).unwrap();
    }

    #[test]
    fn long_lines_are_cut() {
        let cut = clean("é".repeat(LINE_BYTES_MAX));
        assert!(cut.len() <= LINE_BYTES_MAX + '…'.len_utf8());
        assert!(cut.ends_with('…'));
    }

    #[test]
    fn names_are_looked_up() {
        let helper = start(LogLevel::Error, None).unwrap();
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
