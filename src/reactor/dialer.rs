//! Where the links find Redis: an address given as such, or a name that the helper looks up.
//!
//! It never connects and never caches an answer: each look-up serves the links that asked while it was under way, and
//! the next link asks again, so a name that moves is followed.
//!
//! Invariant: a look-up is under way exactly while `waiting` is not empty.
#![forbid(unsafe_code)]

use crate::config::Config;
use crate::engine::ConnId;
use crate::helper::{self, Resolved};
use crate::transport::Stream;
use mio::Waker;
use mio::net::{TcpStream, UnixStream};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Finds addresses for links.
#[derive(Debug)]
pub(super) struct Dialer {
    host: String,
    port: u16,
    literal: Option<Target>,
    /// Bounds how long bytes sent on a link may stay unacknowledged.
    pub(super) link_dead: Duration,
    waiting: Vec<ConnId>,
    answer: Arc<Mutex<Option<Resolved>>>,
    waker: Arc<Waker>,
    helper: helper::Handle,
}

/// What can be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Tcp(SocketAddr),
    /// A Unix socket, at this path.
    Unix(PathBuf),
}

impl Target {
    /// Begins to connect.
    pub(super) fn connect(&self) -> io::Result<Stream> {
        match self {
            Target::Tcp(address) => TcpStream::connect(*address).map(Stream::from),
            Target::Unix(path) => UnixStream::connect(path).map(Stream::from),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => address.fmt(f),
            Target::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What [`Dialer::addresses`] can say at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dialed {
    Addresses(Vec<Target>),
    /// The answer comes with [`Dialer::take_resolved`].
    Asked,
    /// The helper's queue is full.
    Refused,
}

impl Dialer {
    pub(super) fn new(config: &Config, waker: Arc<Waker>, helper: helper::Handle) -> Dialer {
        let (host, port) = (config.redis_url.host.clone(), config.redis_url.port);
        let literal = match &config.redis_url.socket {
            Some(path) => Some(Target::Unix(path.clone())),
            None => host
                .parse::<IpAddr>()
                .ok()
                .map(|ip| Target::Tcp(SocketAddr::new(ip, port))),
        };
        let (waiting, answer) = (Vec::new(), Arc::default());
        Dialer {
            host,
            port,
            literal,
            link_dead: config.link_dead,
            waiting,
            answer,
            waker,
            helper,
        }
    }

    /// The addresses to try for `id`, in order.
    pub(super) fn addresses(&mut self, id: ConnId) -> Dialed {
        if let Some(address) = &self.literal {
            return Dialed::Addresses(vec![address.clone()]);
        }
        if self.waiting.is_empty() {
            let (answer, waker) = (self.answer.clone(), self.waker.clone());
            let asked = self.helper.resolve(&self.host, self.port, move |resolved| {
                *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved);
                // Fails only if the poll is gone, and then nobody waits for the answer either.
                let _ = waker.wake();
            });
            if !asked {
                return Dialed::Refused;
            }
        }
        self.waiting.push(id);
        Dialed::Asked
    }

    /// The links that waited, and what the look-up found. `None` while there is no answer.
    pub(super) fn take_resolved(&mut self) -> Option<(Vec<ConnId>, Resolved)> {
        if self.waiting.is_empty() {
            return None;
        }
        let resolved = self
            .answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        Some((std::mem::take(&mut self.waiting), resolved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogLevel, RedisUrl};
    use crate::engine::Place;
    use crate::helper::Helper;
    use crate::reactor::sockets::Source;
    use mio::{Events, Poll};

    fn id(index: u32) -> ConnId {
        ConnId {
            place: Place::Link(index),
            generation: 1,
        }
    }

    fn dialer(host: &str, poll: &Poll, helper: &Helper) -> Dialer {
        let redis_url = RedisUrl {
            host: host.to_owned(),
            port: 6379,
            socket: None,
            tls: false,
            db: 0,
            username: None,
            password: None,
        };
        let waker = Arc::new(Waker::new(poll.registry(), Source::Waker.token()).unwrap());
        Dialer::new(
            &Config {
                redis_url,
                ..Config::default()
            },
            waker,
            helper.handle(),
        )
    }

    #[test]
    fn literals_need_no_look_up() {
        let poll = Poll::new().unwrap();
        let helper = Helper::start(&Config {
            log_level: LogLevel::Error,
            ..Config::default()
        })
        .unwrap();
        for (host, address) in [("127.0.0.1", "127.0.0.1:6379"), ("::1", "[::1]:6379")] {
            let poll = Poll::new().unwrap();
            let dialed = dialer(host, &poll, &helper).addresses(id(0));
            let address = Target::Tcp(address.parse().unwrap());
            assert_eq!(dialed, Dialed::Addresses(vec![address]));
        }
        assert!(
            dialer("127.0.0.1", &poll, &helper)
                .take_resolved()
                .is_none()
        );
    }

    #[test]
    fn links_that_ask_for_a_name_share_one_look_up() {
        let mut poll = Poll::new().unwrap();
        let helper = Helper::start(&Config {
            log_level: LogLevel::Error,
            ..Config::default()
        })
        .unwrap();
        let mut dialer = dialer("localhost", &poll, &helper);
        assert_eq!(dialer.addresses(id(0)), Dialed::Asked);
        assert_eq!(dialer.addresses(id(7)), Dialed::Asked);
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(10)))
            .unwrap();
        let (waiting, resolved) = dialer.take_resolved().expect("the helper woke the poll");
        assert_eq!(waiting, [id(0), id(7)]);
        assert!(
            resolved
                .unwrap()
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 6379)
        );
        assert!(dialer.take_resolved().is_none());
    }
}
