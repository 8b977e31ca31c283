//! What systemd is told (`sd_notify`): that clients are taken, that the loop turns, that the end has begun.
//!
//! Nothing happens where `NOTIFY_SOCKET` is not set. It never blocks: a message that cannot be sent at once is dropped, and
//! the next beat says the same. Costs: one comparison a turn.
#![forbid(unsafe_code)]

use crate::time::Time;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The line to the service manager.
#[derive(Debug, Default)]
pub(super) struct Notify {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that the loop turns.
    every: Option<Duration>,
    next: Option<Time>,
}

impl Notify {
    /// As the environment says.
    pub(super) fn from_environment(now: Time) -> Notify {
        let name = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        let Some(socket) = connect(&name) else {
            return Notify::default();
        };
        let number = |key: &str| std::env::var(key).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        // Twice as often as needed: one beat may come late.
        let every = number("WATCHDOG_USEC")
            .filter(|us| ours && *us > 0)
            .map(|us| Duration::from_micros(us / 2));
        Notify {
            socket: Some(socket),
            every,
            next: every.map(|_| now),
        }
    }

    /// Clients are taken.
    pub(super) fn ready(&self) {
        self.say("READY=1\nSTATUS=taking clients");
    }

    /// The end has begun.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=showing clients out");
    }

    /// The loop turns.
    #[inline]
    pub(super) fn beat(&mut self, now: Time) {
        if self.next.is_some_and(|next| now >= next) {
            self.say("WATCHDOG=1");
            self.next = self.every.map(|every| now + every);
        }
    }

    /// When the next beat is due.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.next
    }

    fn say(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // Nobody can be told that nobody listens.
            let _ = socket.send(text.as_bytes());
        }
    }
}

fn connect(name: &str) -> Option<UnixDatagram> {
    if name.is_empty() {
        return None;
    }
    let socket = UnixDatagram::unbound().ok()?;
    match name.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name).ok()?;
            socket.connect_addr(&address).ok()?;
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => return None,
        None => socket.connect(name).ok()?,
    }
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}
