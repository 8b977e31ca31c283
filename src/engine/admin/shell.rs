//! What only the shell knows of itself and an operator wants to see: its threads and their queues.
//!
//! The shell hands it over once a second ([`Engine::note_shell`]); nothing else of the engine looks at it.
#![forbid(unsafe_code)]

use super::json::Json;
use super::metrics::Page;
use crate::engine::Engine;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It waits for something to do.
    Idle,
    /// It has a batch, or is about to take one.
    Busy,
    /// It has no connection to Redis and pauses between attempts; what it is given fails at once.
    Away,
}

impl WorkerState {
    const ALL: [WorkerState; 3] = [WorkerState::Idle, WorkerState::Busy, WorkerState::Away];

    /// One word for people and figures.
    const fn name(self) -> &'static str {
        match self {
            WorkerState::Idle => "idle",
            WorkerState::Busy => "busy",
            WorkerState::Away => "away",
        }
    }
}

/// One worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerFigures {
    /// What it does.
    pub state: WorkerState,
    /// Fetches that wait for it.
    pub queued: usize,
}

/// The shell, as of a moment ago.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShellFigures {
    /// Each of them.
    pub workers: Vec<WorkerFigures>,
    /// Answers of workers that the loop has not taken yet.
    pub completions_waiting: usize,
    /// Lines of the log that wait for the disk or the terminal.
    pub log_waiting: u64,
    /// Lines written.
    pub log_written: u64,
    /// Lines that found the queue full.
    pub log_dropped: u64,
    /// Events that were only counted, since there were many of their kind.
    pub log_held_back: u64,
}

/// A number of the log: its name, its kind, what to think of it, and where it is found.
type LogRow = (
    &'static str,
    &'static str,
    &'static str,
    fn(&ShellFigures) -> u64,
);

const LOG_ROWS: [LogRow; 4] = [
    (
        "log_lines_waiting",
        "gauge",
        "Lines of the log that wait to be written. More than a few: the disk or the terminal is slower than the log.",
        |shell| shell.log_waiting,
    ),
    (
        "log_lines_written_total",
        "counter",
        "Lines written by the log and the access log.",
        |shell| shell.log_written,
    ),
    (
        "log_lines_dropped_total",
        "counter",
        "Lines that found the queue of the log full and are lost. Should not grow: a faster disk, a quieter LOG_LEVEL, or a smaller ACCESS_LOG_SAMPLE.",
        |shell| shell.log_dropped,
    ),
    (
        "log_events_held_back_total",
        "counter",
        "Events that were counted in the log and not written, because there were more than LOG_BURST of their kind in ten seconds. The log says which.",
        |shell| shell.log_held_back,
    ),
];

impl Engine {
    /// The shell says how it fares, about once a second.
    pub fn note_shell(&mut self, figures: ShellFigures) {
        self.shell = figures;
    }

    pub(super) fn write_shell(&self, page: &mut Page) {
        let shell = &self.shell;
        page.family("workers_by_state", "gauge", "Threads that fetch misses, by what they do. All busy all the time: more REDIS_WORKERS may help if Redis has time left; away: that worker does not reach Redis.");
        for state in WorkerState::ALL {
            let count = shell.workers.iter().filter(|w| w.state == state).count();
            page.sample("workers_by_state", &[("state", state.name())], count);
        }
        page.family("fetch_queue_length", "gauge", "Fetches that wait for this worker. Long for one alone: one key, or a few, that hash to it; long for all: Redis is too slow for the misses. At fetch_queue_max a miss is refused.");
        for (number, worker) in shell.workers.iter().enumerate() {
            let number = number.to_string();
            page.sample("fetch_queue_length", &[("worker", &number)], worker.queued);
        }
        page.single("completions_waiting", "gauge", "Answers of workers that the loop has not taken yet. More than a few for long: the loop is busy, see the hit latency.", shell.completions_waiting);
        for (name, kind, help, value) in LOG_ROWS {
            page.single(name, kind, help, value(shell));
        }
    }

    pub(super) fn write_shell_json(&self, json: &mut Json) {
        let shell = &self.shell;
        json.key("workers").array(|json| {
            for worker in &shell.workers {
                json.object(|json| {
                    json.key("state").text(worker.state.name());
                    json.key("queued").whole(worker.queued as u64);
                });
            }
        });
        json.key("completions_waiting")
            .whole(shell.completions_waiting as u64);
        json.key("log").object(|json| {
            for (name, _, _, value) in LOG_ROWS {
                json.key(name).whole(value(shell));
            }
        });
    }
}
