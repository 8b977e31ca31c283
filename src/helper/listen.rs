//! Hears what is said by the macros of `tracing` and `log`, ours and those of the crates we use, and panics.
//!
//! It never blocks on a disk or a terminal: a line is written down here and handed to the helper's queue. Only a panic is
//! printed at once, since it may be the last thing that happens.
//!
//! Costs: an event below the level is one comparison in the macro. One that is written: two short locks, its formatting,
//! and a wake-up if the helper sleeps. One that is held back as part of a flood: one lock.
#![forbid(unsafe_code)]

use super::{Handle, To};
use crate::config::LogLevel;
use crate::log::burst::Verdict;
use crate::log::line::{Line, Value};
use crate::log::{ACCESS, KIND_FIELDS};
use crate::socket;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::panic::PanicHookInfo;
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// Where our own events come from; the target of others is a field of their lines.
const OURS: &str = "nearcache";
/// How long a panic waits for the lines before it.
const PANIC_PATIENCE: Duration = Duration::from_millis(100);
/// Of a backtrace, which is printed where `RUST_BACKTRACE` asks for it.
const BACKTRACE_BYTES_MAX: usize = 32 * 1024;

impl Handle {
    /// From here on everything that is said in this process is heard here.
    ///
    /// # Errors
    /// Somebody else listens already.
    pub fn listen(&self) -> Result<(), String> {
        tracing::subscriber::set_global_default(self.clone()).map_err(|e| e.to_string())?;
        log::set_boxed_logger(Box::new(self.clone())).map_err(|e| e.to_string())?;
        self.announce_level();
        let handle = self.clone();
        std::panic::set_hook(Box::new(move |panic| handle.report_panic(panic)));
        Ok(())
    }

    /// Macros learn which levels are wanted, so that the others cost them nothing.
    pub(super) fn announce_level(&self) {
        // Asked by a thread that nobody listens to, the macros of all threads would fall silent.
        if !tracing::dispatcher::get_default(|heard_by| heard_by.is::<Handle>()) {
            return;
        }
        tracing::callsite::rebuild_interest_cache();
        log::set_max_level(match self.level() {
            LogLevel::Error => log::LevelFilter::Error,
            LogLevel::Warn => log::LevelFilter::Warn,
            LogLevel::Info => log::LevelFilter::Info,
            LogLevel::Debug => log::LevelFilter::Debug,
        });
    }

    /// Writes one event, or counts it with those of its kind. `fill` gives its message and fields.
    fn say(&self, level: LogLevel, kind: u64, fill: &dyn Fn(&mut Line)) {
        let now = socket::now();
        let verdict = self.shared.lock().judge(kind, now);
        if verdict == Verdict::Count {
            return;
        }
        let mut line = Line::new(self.shared.format);
        fill(&mut line);
        if verdict == Verdict::CountFirst {
            let mut queue = self.shared.lock();
            queue.bursts.name(kind, now, level, line.words());
            drop(queue);
            // It may sleep without a time to wake up at.
            return self.shared.work.notify_one();
        }
        self.shared.push(To::Log, level, line);
    }

    /// As the log would have it, on standard error and at once; to the file too, if there is one.
    fn report_panic(&self, panic: &PanicHookInfo<'_>) {
        let thread = std::thread::current();
        let trace = Backtrace::capture();
        let line = || {
            let mut line = Line::new(self.shared.format);
            line.message(&"panicked");
            let name = thread.name().unwrap_or("unnamed");
            line.field("thread", Value::Text(&name));
            if let Some(place) = panic.location() {
                line.field("at", Value::Text(place));
            }
            let payload = panic.payload();
            let said = payload.downcast_ref::<&str>().copied();
            let said = said.or(payload.downcast_ref::<String>().map(String::as_str));
            let why = said.unwrap_or("no text");
            line.field("why", Value::Text(&why));
            if trace.status() == BacktraceStatus::Captured {
                line.long_field("backtrace", &trace, BACKTRACE_BYTES_MAX);
            }
            line
        };
        // The lock may be held by this very thread, and the helper may be the one that panics: nothing here waits for
        // either.
        self.flush(PANIC_PATIENCE);
        let text = line().finish(super::wall_clock(), super::level_name(LogLevel::Error));
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        if self.shared.logs_to_file && self.shared.try_lock().is_some() {
            self.shared.push(To::Log, LogLevel::Error, line());
            self.flush(PANIC_PATIENCE);
        }
    }
}

impl Subscriber for Handle {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.enabled(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return false;
        }
        match metadata.target() {
            ACCESS => self.shared.has_access_log,
            _ => level_of(*metadata.level()).is_some_and(|level| level <= self.level()),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let level = match self.level() {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        Some(match self.shared.has_access_log {
            true => level.max(LevelFilter::INFO),
            false => level,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let Some(level) = level_of(*metadata.level()) else {
            return;
        };
        let fill = |line: &mut Line| {
            event.record(&mut Fields(line));
            note_target(line, metadata.target());
        };
        if metadata.target() == ACCESS {
            let mut line = Line::new(self.shared.format);
            fill(&mut line);
            return self.shared.push(To::Access, level, line);
        }
        let mut kind = DefaultHasher::new();
        metadata.callsite().hash(&mut kind);
        if KIND_FIELDS
            .iter()
            .any(|name| metadata.fields().field(name).is_some())
        {
            event.record(&mut KindOf(&mut kind));
        }
        self.say(level, kind.finish(), &fill);
    }

    // Spans are not used here; those of other crates are not enabled.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// What crates say that do not know `tracing`.
impl log::Log for Handle {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        level_of_log(metadata.level()).is_some_and(|level| level <= self.level())
    }

    fn log(&self, record: &log::Record<'_>) {
        let Some(level) = level_of_log(record.level()).filter(|level| *level <= self.level())
        else {
            return;
        };
        let mut kind = DefaultHasher::new();
        (record.target(), record.file(), record.line()).hash(&mut kind);
        self.say(level, kind.finish(), &|line| {
            line.message(record.args());
            note_target(line, record.target());
        });
    }

    fn flush(&self) {}
}

fn note_target(line: &mut Line, target: &str) {
    if target != ACCESS && target.split("::").next() != Some(OURS) {
        line.field("from", Value::Text(&target));
    }
}

/// `None`: quieter than anything that can be asked for.
fn level_of(level: Level) -> Option<LogLevel> {
    Some(match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => return None,
    })
}

fn level_of_log(level: log::Level) -> Option<LogLevel> {
    Some(match level {
        log::Level::Error => LogLevel::Error,
        log::Level::Warn => LogLevel::Warn,
        log::Level::Info => LogLevel::Info,
        log::Level::Debug => LogLevel::Debug,
        log::Level::Trace => return None,
    })
}

/// Writes the fields of an event into a line.
struct Fields<'a>(&'a mut Line);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value<'_>) {
        match (field.name(), &value) {
            ("message", Value::Text(words)) => self.0.message(words),
            (name, _) => self.0.field(name, value),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::Number(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Whole(value.into()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Whole(value.into()));
    }
    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, Value::Whole(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Truth(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::Text(&value));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, Value::Text(&value));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Also what was to be displayed: `%x` comes as something whose Debug is the Display of x.
        self.put(field, Value::Text(&format_args!("{value:?}")));
    }
}

/// Adds to a hash what tells events of one place in the code apart.
struct KindOf<'a>(&'a mut DefaultHasher);

impl Visit for KindOf<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if KIND_FIELDS.contains(&field.name()) {
            value.hash(self.0);
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if KIND_FIELDS.contains(&field.name()) {
            format!("{value:?}").hash(self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, LogFormat, LogLevel};
    use crate::helper::Helper;
    use std::path::PathBuf;
    use std::time::Duration;

    /// What the log holds after this was said to it.
    fn logged(name: &str, config: Config, say: impl FnOnce(&Helper)) -> String {
        let name = format!("nearcache-listen-{}-{name}", std::process::id());
        let path: PathBuf = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let helper = Helper::start(&Config {
            log_file: Some(path.clone()),
            ..config
        })
        .unwrap();
        let _alone = super::super::ONE_LISTENER.lock();
        tracing::subscriber::with_default(helper.handle(), || say(&helper));
        helper.stop(Duration::from_secs(10));
        let log = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        log
    }

    #[test]
    fn events_come_with_their_fields_and_quiet_levels_do_not_come() {
        let log = logged("fields", Config::default(), |_| {
            tracing::info!(client = 7_u64, why = %"x y", is = true, "one");
            tracing::debug!("not wanted");
            tracing::error!(reason = "r", age = -1_i32, "two\nforged");
            tracing::warn!(target: "other::place", "three");
        });
        let lines: Vec<&str> = log.lines().map(|line| &line[25..]).collect();
        let expected = [
            "INFO one client=7 why=\"x y\" is=true",
            "ERROR two\\nforged reason=r age=-1",
            "WARN three from=other::place",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_level_changes_while_running() {
        let log = logged("level", Config::default(), |helper| {
            let config = |log_level| Config {
                log_level,
                ..Config::default()
            };
            helper.handle().take(&config(LogLevel::Debug));
            tracing::debug!("heard");
            helper.handle().take(&config(LogLevel::Error));
            tracing::warn!("not heard");
        });
        assert!(log.ends_with(" DEBUG heard\n"), "{log}");
    }

    #[test]
    fn a_flood_of_one_kind_ends_in_a_number_and_hides_no_other() {
        let config = Config {
            log_burst: 3,
            ..Config::default()
        };
        let log = logged("flood", config, |helper| {
            for client in 0..1000 {
                for reason in ["idle", "late"] {
                    tracing::warn!(client, reason, "close");
                }
                if client == 500 {
                    tracing::warn!(client, reason = "rare", "close");
                }
            }
            assert_eq!(helper.handle().figures().held_back, 2 * 997);
        });
        assert_eq!(log.matches("reason=idle").count(), 3, "{log}");
        assert_eq!(log.matches("reason=late").count(), 3, "{log}");
        assert_eq!(log.matches("client=500 reason=rare").count(), 1, "{log}");
        let more = "WARN close ... 997 more like this in the last 10 s more=997\n";
        assert_eq!(log.matches(more).count(), 2, "{log}");
    }

    #[test]
    fn what_says_log_is_heard_too() {
        use log::Log;
        let log = logged("log", Config::default(), |helper| {
            let handle = helper.handle();
            for level in [log::Level::Warn, log::Level::Debug] {
                handle.log(
                    &log::Record::builder()
                        .level(level)
                        .target("rustls::conn")
                        .args(format_args!("bad certificate"))
                        .build(),
                );
            }
        });
        assert!(
            log.ends_with("WARN bad certificate from=rustls::conn\n"),
            "{log}"
        );
        assert_eq!(log.lines().count(), 1);
    }

    #[test]
    fn json_lines_are_json() {
        let config = Config {
            log_format: LogFormat::Json,
            ..Config::default()
        };
        let log = logged("json", config, |_| {
            tracing::info!(client = 7_u64, name = ?"\u{1}\"", "said");
        });
        let expected = r#","level":"INFO","message":"said","client":7,"name":"\"\\u{1}\\\"\""}"#;
        assert!(log.trim_end().ends_with(expected), "{log}");
    }
}
