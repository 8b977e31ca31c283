//! SIGTERM and SIGINT: the first asks the loop to end, the second ends the process at once. SIGUSR1 switches the cache
//! off, and on again. SIGHUP asks for the configuration to be read again.
//!
//! The handlers only set a flag and write a byte to a socket that the poll watches; everything else happens in a turn.
//! The second signal is answered inside the handler, so it works even if the loop hangs: the process exits with 128 plus
//! the signal's number (143 for SIGTERM, 130 for SIGINT), as a shell would report it.
#![forbid(unsafe_code)]

use super::sockets::Source;
use mio::net::UnixStream;
use mio::{Interest, Registry};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The loop's end of the pipe.
#[derive(Debug)]
pub(super) struct Signals {
    receiver: UnixStream,
    end: Arc<AtomicBool>,
    switch: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

/// What was asked for since the loop looked last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The process is to end.
    pub(super) end: bool,
    /// The cache is to be switched off, or on.
    pub(super) switch: bool,
    /// The configuration is to be read again.
    pub(super) reload: bool,
}

impl Signals {
    /// Takes over the signals for the rest of the process.
    pub(super) fn install(registry: &Registry) -> io::Result<Signals> {
        let (sender, receiver) = std::os::unix::net::UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let mut receiver = UnixStream::from_std(receiver);
        registry.register(&mut receiver, Source::Signals.token(), Interest::READABLE)?;
        let armed = Arc::new(AtomicBool::new(false));
        let switch = Arc::new(AtomicBool::new(false));
        let reload = Arc::new(AtomicBool::new(false));
        for (signal, flag) in [(SIGUSR1, &switch), (SIGHUP, &reload)] {
            flag::register(signal, flag.clone())?;
            low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag down and raises it, the second finds it up.
            flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
            flag::register(signal, armed.clone())?;
            low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Signals {
            receiver,
            end: armed,
            switch,
            reload,
        })
    }

    /// Empties the pipe; what was asked for.
    pub(super) fn take(&mut self) -> Asked {
        let mut bytes = [0; 16];
        while matches!(self.receiver.read(&mut bytes), Ok(n) if n > 0) {}
        Asked {
            end: self.end.load(Ordering::Relaxed),
            switch: self.switch.swap(false, Ordering::Relaxed),
            reload: self.reload.swap(false, Ordering::Relaxed),
        }
    }
}
