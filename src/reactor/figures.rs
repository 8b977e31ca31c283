//! How the shell fares, for whoever asks the engine: once a second, so that it costs a turn a comparison.
#![forbid(unsafe_code)]

use super::Reactor;
use crate::engine::{ShellFigures, WorkerFigures, WorkerState};
use crate::fetcher::Activity;
use std::time::Duration;

/// At most so old are they when they are shown.
const TOLD_EVERY: Duration = Duration::from_secs(1);

impl Reactor {
    pub(super) fn tell_figures(&mut self) {
        if self.now < self.figures_due {
            return;
        }
        self.figures_due = self.now + TOLD_EVERY;
        let log = self.helper.figures();
        let workers = self.fetcher.figures().into_iter();
        let figures = ShellFigures {
            workers: workers
                .map(|(activity, queued)| WorkerFigures {
                    state: match activity {
                        Activity::Idle => WorkerState::Idle,
                        Activity::Busy => WorkerState::Busy,
                        Activity::Away => WorkerState::Away,
                    },
                    queued,
                })
                .collect(),
            completions_waiting: self.fetcher.completions_waiting(),
            log_waiting: log.waiting,
            log_written: log.written,
            log_dropped: log.dropped,
            log_held_back: log.held_back,
        };
        self.engine.note_shell(figures);
    }
}
