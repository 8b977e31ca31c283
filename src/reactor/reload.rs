//! SIGHUP: the configuration is read again, by the helper, and what a running process can take is taken.
//!
//! One reading is under way at most; who asks meanwhile gets another one behind it, since the file may have changed
//! after it was read. What cannot be read changes nothing.
#![forbid(unsafe_code)]

use super::Reactor;
use crate::config::{Loaded, Setting};
use crate::helper;
use crate::tls::Tls;
use mio::Waker;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{error, info, warn};

/// A configuration as it is read now, with the certificates that it names, or what is wrong with them, a line for each.
pub type Read = Result<(Loaded, Tls), Vec<String>>;

/// Reads it, on the helper's thread.
pub type Reader = Arc<dyn Fn() -> Read + Send + Sync>;

/// Where the configuration comes from, and what is in force.
pub(super) struct Reloader {
    reader: Reader,
    running: Loaded,
    answer: Arc<Mutex<Option<Read>>>,
    waker: Arc<Waker>,
    helper: helper::Handle,
    is_reading: bool,
    asked_again: bool,
}

impl Reloader {
    pub(super) fn new(
        reader: Reader,
        running: Loaded,
        waker: Arc<Waker>,
        helper: helper::Handle,
    ) -> Reloader {
        Reloader {
            reader,
            running,
            answer: Arc::default(),
            waker,
            helper,
            is_reading: false,
            asked_again: false,
        }
    }

    fn ask(&mut self) {
        if self.is_reading {
            self.asked_again = true;
            return;
        }
        let (reader, answer, waker) =
            (self.reader.clone(), self.answer.clone(), self.waker.clone());
        self.is_reading = self.helper.read(move || {
            let read = reader();
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
            // Fails only if the poll is gone, and then nobody waits for the answer either.
            let _ = waker.wake();
        });
    }

    fn take(&mut self) -> Option<Read> {
        if !self.is_reading {
            return None;
        }
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let read = answer.take()?;
        drop(answer);
        self.is_reading = false;
        Some(read)
    }
}

impl Reactor {
    /// SIGHUP reads the configuration anew with `reader`; `running` is the one in force.
    pub fn reload_with(&mut self, reader: Reader, running: Loaded) {
        let (waker, helper) = (self.waker.clone(), self.helper.clone());
        self.engine.show_settings(&running.settings);
        self.reloader = Some(Reloader::new(reader, running, waker, helper));
    }

    /// The engine has put this in force: what is read at the next reload is compared with it.
    pub(super) fn take_setting(&mut self, setting: &Setting) {
        let Some(reloader) = &mut self.reloader else {
            return;
        };
        reloader.running.take_setting(setting);
        self.drain = reloader.running.config.drain;
        self.helper.take(&reloader.running.config);
    }

    pub(super) fn ask_for_reload(&mut self) {
        if let Some(reloader) = &mut self.reloader {
            reloader.ask();
        }
    }

    /// Puts in force what was read meanwhile, if anything was.
    pub(super) fn take_reload(&mut self) {
        let Some(reloader) = &mut self.reloader else {
            return;
        };
        let Some(read) = reloader.take() else {
            return;
        };
        if std::mem::take(&mut reloader.asked_again) {
            reloader.ask();
        }
        match read {
            Err(lines) => {
                for line in lines {
                    error!(problem = line, "reload refused, nothing changes");
                }
            }
            Ok((loaded, tls)) => {
                self.handshakes.take(tls);
                self.fetcher.secure(self.handshakes.tls.upstream.clone());
                self.reload(&loaded);
            }
        }
    }

    fn reload(&mut self, read: &Loaded) {
        let Some(reloader) = &mut self.reloader else {
            return;
        };
        let level_before = reloader.running.config.log_level;
        let changes = reloader.running.take_reloadable(read);
        let config = reloader.running.config.clone();
        let level = config.log_level;
        (self.drain, self.drain_accept) = (config.drain, config.drain_accept);
        let settings = reloader.running.settings.clone();
        self.engine.reload(config.clone());
        self.engine.show_settings(&settings);
        self.handle_outputs();
        // What changes is said as long as either level would have it said.
        self.helper.set_level(level.max(level_before));
        for problem in &read.warnings {
            warn!(problem, "configuration");
        }
        for change in &changes {
            let (setting, old, new) = (change.name, change.old.as_str(), change.new.as_str());
            if change.is_taken {
                info!(setting, old, new, "reload");
            } else {
                // What is masked looks the same.
                warn!(setting, old, new, "reload: this needs a restart");
            }
        }
        let taken = changes.iter().filter(|change| change.is_taken).count();
        info!(
            changed = taken,
            need_restart = changes.len() - taken,
            "reloaded"
        );
        self.helper.take(&config);
    }
}
