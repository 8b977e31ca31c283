//! The sockets clients come in by: one per port and address or path, and what to say when a port is taken.
//!
//! It never opens a client: it hands accepted connections to the reactor, at most as many as that asks for.
//!
//! Invariant: a listener whose readiness is not used up stays `ready`; nobody will remind us of what waits in its backlog.
//! While `paused_until` is set, descriptors or memory have run out and nothing is accepted: the pause ends by time, or
//! when a descriptor is given back. The last descriptors are not for clients: links must be made anew when Redis comes back.
#![forbid(unsafe_code)]

use super::sockets::Source as Event;
use super::unix::{self, Door};
use crate::client::Peer;
use crate::config::Config;
use crate::engine::Port;
use crate::socket::{self, AcceptError};
use crate::time::Time;
use crate::transport::Stream;
use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How long accepting rests after descriptors ran out, unless one is given back earlier.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// At the limit descriptors run out again with every client that leaves; the log is told this often.
const EXHAUSTED_SILENCE: Duration = Duration::from_secs(10);

/// What is spoken behind a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entrance {
    pub(super) port: Port,
    /// Inside TLS.
    pub(super) is_tls: bool,
}

impl Entrance {
    const fn plain(port: Port) -> Entrance {
        let is_tls = false;
        Entrance { port, is_tls }
    }

    const fn tls(port: Port) -> Entrance {
        let is_tls = true;
        Entrance { port, is_tls }
    }

    /// One word for people.
    pub(super) const fn name(self) -> &'static str {
        match (self.port, self.is_tls) {
            (Port::Resp, true) => "tls_resp",
            (Port::Http | Port::Admin | Port::Probe, true) => "tls_http",
            (port, false) => port.name(),
        }
    }
}

#[derive(Debug)]
struct Listener {
    socket: Listening,
    entrance: Entrance,
    address: Bound,
    ready: bool,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    /// With the file that goes when it does.
    Unix {
        socket: UnixListener,
        _door: Door,
    },
}

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// At an address of a network, or of this machine.
    Tcp(SocketAddr),
    /// At a path.
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Tcp(address) => address.fmt(f),
            Bound::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listening {
    fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listening::Tcp(socket) => socket
                .accept()
                .map(|(stream, peer)| (stream.into(), peer.into())),
            Listening::Unix { socket, .. } => socket
                .accept()
                .map(|(stream, _)| (stream.into(), Peer::Unix)),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Listening::Tcp(socket) => socket,
            Listening::Unix { socket, .. } => socket,
        }
    }
}

/// All listeners of the process.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    list: Vec<Listener>,
    /// Where the next accept looks first, so that a flood on one port does not keep the others from being served.
    next: usize,
    /// So many clients may have a descriptor at once.
    pub(super) clients_room: usize,
    paused_until: Option<Time>,
    /// Clients that want TLS wait.
    tls_held: bool,
    /// When the log was last told that descriptors ran out.
    exhausted_said: Option<Time>,
}

/// What [`Listeners::accept`] came to.
#[derive(Debug)]
pub(super) enum Accepted {
    Client(Entrance, Stream, Peer),
    /// Nothing waits, or accepting rests.
    Nothing,
    /// Descriptors or memory ran out; accepting rests from now on. The error comes along now and then.
    Exhausted(Option<io::Error>),
    /// A listener failed for good and has been closed.
    Failed(Bound, io::Error),
}

impl Listeners {
    /// Binds every port of the configuration on every address of `BIND`.
    ///
    /// # Errors
    /// One line that names the port, its key and, where that can be found out, the process that has it.
    pub(super) fn bind(config: &Config, registry: &Registry) -> Result<Listeners, String> {
        let ports = [
            (
                Entrance::plain(Port::Http),
                "HTTP_PORT",
                config.http_port,
                &config.bind,
            ),
            (
                Entrance::plain(Port::Resp),
                "RESP_PORT",
                config.resp_port,
                &config.bind,
            ),
            (
                Entrance::tls(Port::Http),
                "TLS_HTTP_PORT",
                config.tls_http_port,
                &config.bind,
            ),
            (
                Entrance::tls(Port::Resp),
                "TLS_RESP_PORT",
                config.tls_resp_port,
                &config.bind,
            ),
            (
                Entrance::plain(Port::Admin),
                "ADMIN_PORT",
                config.admin_port,
                &config.admin_bind,
            ),
            (
                Entrance::plain(Port::Probe),
                "PROBE_PORT",
                config.probe_port,
                &config.probe_bind,
            ),
        ];
        let mut inherited = socket::inherited_listeners()
            .map_err(|e| format!("cannot take the sockets of the service manager: {e}"))?;
        let mut listeners = Listeners {
            clients_room: usize::MAX,
            ..Listeners::default()
        };
        for (entrance, key, number, binds) in ports {
            let Some(number) = number else { continue };
            // What the service manager holds open for this port is used as it is, and nothing else is opened for it.
            let (given, rest) = inherited
                .into_iter()
                .partition(|(_, address): &(_, SocketAddr)| address.port() == number);
            inherited = rest;
            if listeners.take(given, entrance, registry)? {
                continue;
            }
            for bind in binds {
                listeners
                    .bind_name(bind, entrance, number, registry)
                    .map_err(|(address, e)| {
                        if e.kind() != io::ErrorKind::AddrInUse {
                            return format!("cannot listen on {address} ({key}): {e}");
                        }
                        let owner = super::owner::of_port(address.port());
                        let owner = owner.map_or(String::new(), |owner| format!(" by {owner}"));
                        format!("port {} ({key}) is already in use{owner}", address.port())
                    })?;
            }
        }
        if let Some((_, address)) = inherited.first() {
            return Err(format!(
                "the service manager passed a socket on {address}, which is none of HTTP_PORT, RESP_PORT, ADMIN_PORT and PROBE_PORT"
            ));
        }
        for (port, key, path) in [
            (Port::Http, "HTTP_SOCKET", &config.http_socket),
            (Port::Resp, "RESP_SOCKET", &config.resp_socket),
        ] {
            let Some(path) = path else { continue };
            let cannot =
                |why: String| format!("cannot listen on {} ({key}): {why}", path.display());
            let (socket, door) = unix::listen(&config.socket_file(path)).map_err(cannot)?;
            let socket = Listening::Unix {
                socket: UnixListener::from_std(socket),
                _door: door,
            };
            listeners
                .add(
                    socket,
                    Bound::Unix(path.clone()),
                    Entrance::plain(port),
                    registry,
                )
                .map_err(|e| cannot(e.to_string()))?;
        }
        Ok(listeners)
    }

    /// Takes sockets that were open already; says whether there was one.
    fn take(
        &mut self,
        given: Vec<(std::net::TcpListener, SocketAddr)>,
        entrance: Entrance,
        registry: &Registry,
    ) -> Result<bool, String> {
        let any = !given.is_empty();
        for (socket, address) in given {
            let socket = Listening::Tcp(TcpListener::from_std(socket));
            self.add(socket, Bound::Tcp(address), entrance, registry)
                .map_err(|e| format!("cannot use the passed socket on {address}: {e}"))?;
        }
        Ok(any)
    }

    fn bind_name(
        &mut self,
        bind: &str,
        entrance: Entrance,
        mut number: u16,
        registry: &Registry,
    ) -> Result<(), (SocketAddr, io::Error)> {
        let loopback = bind.eq_ignore_ascii_case("localhost");
        let addresses: &[IpAddr] = if loopback {
            &[
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]
        } else {
            let no_name = || {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "BIND takes IP addresses and localhost",
                )
            };
            let unset = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), number);
            &[bind.parse().map_err(|_| (unset, no_name()))?]
        };
        for (i, ip) in addresses.iter().enumerate() {
            let address = SocketAddr::new(*ip, number);
            match self.bind_one(address, entrance, registry) {
                // Port 0 lets the kernel choose, once for both families.
                Ok(bound) => number = bound.port(),
                // `localhost` means both families, but a machine without IPv6 is a machine all the same.
                Err(e) if loopback && i > 0 && no_such_family(&e) => {}
                Err(e) => return Err((address, e)),
            }
        }
        Ok(())
    }

    fn bind_one(
        &mut self,
        address: SocketAddr,
        entrance: Entrance,
        registry: &Registry,
    ) -> io::Result<SocketAddr> {
        let socket = TcpListener::from_std(socket::listen(address)?);
        let address = socket.local_addr()?;
        self.add(
            Listening::Tcp(socket),
            Bound::Tcp(address),
            entrance,
            registry,
        )?;
        Ok(address)
    }

    fn add(
        &mut self,
        mut socket: Listening,
        address: Bound,
        entrance: Entrance,
        registry: &Registry,
    ) -> io::Result<()> {
        let token = Event::Listener(self.list.len()).token();
        socket
            .source()
            .register(registry, token, Interest::READABLE)?;
        self.list.push(Listener {
            socket,
            entrance,
            address,
            ready: false,
        });
        Ok(())
    }

    /// Where clients are taken.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (Entrance, Bound)> {
        self.list
            .iter()
            .map(|listener| (listener.entrance, listener.address.clone()))
    }

    /// Clients that want TLS wait from here on, or not any more.
    pub(super) fn hold_tls(&mut self, is_held: bool) {
        self.tls_held = is_held;
    }

    /// The poll says that connections wait.
    pub(super) fn note(&mut self, index: usize) {
        if let Some(listener) = self.list.get_mut(index) {
            listener.ready = true;
        }
    }

    /// Takes one connection, from each listener that has some in turn, while `clients` are connected.
    pub(super) fn accept(&mut self, now: Time, clients: usize) -> Accepted {
        if self.paused_until.is_some_and(|until| now < until) {
            return Accepted::Nothing;
        }
        self.paused_until = None;
        let count = self.list.len();
        while let Some(index) = (self.next..self.next + count)
            .map(|i| i % count)
            .find(|&i| self.may_accept(&self.list[i]))
        {
            if clients >= self.clients_room {
                return self.rest(now, io::Error::from_raw_os_error(libc::EMFILE));
            }
            let listener = &mut self.list[index];
            let error = match listener.socket.accept() {
                Ok((stream, peer)) => {
                    self.next = index + 1;
                    return Accepted::Client(listener.entrance, stream, peer);
                }
                Err(error) => error,
            };
            match socket::classify_accept_error(&error) {
                AcceptError::Again => listener.ready = false,
                AcceptError::Retry => {}
                AcceptError::Exhausted => return self.rest(now, error),
                AcceptError::Fatal => {
                    // It keeps its place, so that the tokens of the others stay right, but says nothing any more.
                    listener.ready = false;
                    return Accepted::Failed(listener.address.clone(), error);
                }
            }
        }
        Accepted::Nothing
    }

    /// Accepting rests from now on.
    fn rest(&mut self, now: Time, error: io::Error) -> Accepted {
        self.paused_until = Some(now + EXHAUSTED_PAUSE);
        let silent = |said: Time| now.since(said) < EXHAUSTED_SILENCE;
        let say = !self.exhausted_said.is_some_and(silent);
        if say {
            self.exhausted_said = Some(now);
        }
        Accepted::Exhausted(say.then_some(error))
    }

    /// A descriptor was given back.
    pub(super) fn descriptor_freed(&mut self) {
        self.paused_until = None;
    }

    /// Whether there is something to accept in the next turn, without waiting.
    pub(super) fn has_work(&self) -> bool {
        self.paused_until.is_none() && self.list.iter().any(|listener| self.may_accept(listener))
    }

    fn may_accept(&self, listener: &Listener) -> bool {
        listener.ready && !(listener.entrance.is_tls && self.tls_held)
    }

    /// When accepting is to be tried again.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.paused_until
    }

    /// Closes all of them: nobody comes in any more. What waits in their backlogs is reset by the kernel.
    pub(super) fn close(&mut self) {
        self.list.clear();
        self.paused_until = None;
    }
}

fn no_such_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    fn config(bind: &str) -> Config {
        let any = Some(0);
        Config {
            http_port: any,
            resp_port: any,
            admin_port: None,
            bind: vec![bind.to_owned()],
            ..Config::default()
        }
    }

    #[test]
    fn each_port_gets_its_clients_on_every_address() {
        let mut poll = Poll::new().unwrap();
        let mut listeners = Listeners::bind(&config("localhost"), poll.registry()).unwrap();
        let addresses: Vec<_> = listeners.addresses().collect();
        assert!(
            addresses.len() == 4 || addresses.len() == 2,
            "2 ports on 1 or 2 families: {addresses:?}"
        );
        let mut events = Events::with_capacity(8);
        for (entrance, address) in addresses {
            let Bound::Tcp(address) = address else {
                panic!("no path is configured: {address}")
            };
            let _client = std::net::TcpStream::connect(address).unwrap();
            let (got, from) = loop {
                poll.poll(&mut events, Some(Duration::from_secs(5)))
                    .unwrap();
                for event in &events {
                    match Event::of(event.token()) {
                        Event::Listener(index) => listeners.note(index),
                        other => panic!("{other:?}"),
                    }
                }
                match listeners.accept(Time::ZERO, 0) {
                    Accepted::Client(got, _, from) => break (got, from),
                    Accepted::Nothing => {}
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(got, entrance);
            assert_eq!(from.addr().map(|from| from.ip()), Some(address.ip()));
            assert!(
                listeners.has_work(),
                "it stays ready until accept says that nothing waits"
            );
            assert!(matches!(listeners.accept(Time::ZERO, 0), Accepted::Nothing));
            assert!(!listeners.has_work());
        }
    }

    #[test]
    fn a_taken_port_is_named_with_its_key_and_owner() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        let poll = Poll::new().unwrap();
        let config = Config {
            http_port: None,
            resp_port: Some(number),
            ..config("127.0.0.1")
        };
        let error = Listeners::bind(&config, poll.registry()).unwrap_err();
        assert!(
            error.starts_with(&format!("port {number} (RESP_PORT) is already in use")),
            "{error}"
        );
        #[cfg(target_os = "linux")]
        assert!(
            error.contains(&format!("by process {}", std::process::id())),
            "{error}"
        );
    }

    #[test]
    fn a_name_that_is_no_address_is_refused() {
        let poll = Poll::new().unwrap();
        let error = Listeners::bind(&config("example.org"), poll.registry()).unwrap_err();
        assert!(error.contains("BIND"), "{error}");
    }

    #[test]
    fn beyond_the_room_for_clients_nobody_is_taken_though_somebody_waits() {
        let poll = Poll::new().unwrap();
        let mut listeners = Listeners::bind(&config("127.0.0.1"), poll.registry()).unwrap();
        listeners.clients_room = 3;
        let (_, address) = listeners.addresses().next().unwrap();
        let Bound::Tcp(address) = address else {
            panic!("no path is configured: {address}")
        };
        let _waits = std::net::TcpStream::connect(address).unwrap();
        listeners.note(0);
        let said = listeners.accept(Time::ZERO, 3);
        assert!(matches!(said, Accepted::Exhausted(Some(_))), "{said:?}");
        assert!(!listeners.has_work());
        listeners.descriptor_freed();
        let silent = listeners.accept(Time::ZERO, 3);
        assert!(matches!(silent, Accepted::Exhausted(None)), "{silent:?}");
        listeners.descriptor_freed();
        let taken = listeners.accept(Time::ZERO, 2);
        assert!(matches!(taken, Accepted::Client(..)), "{taken:?}");
    }

    #[test]
    fn a_pause_ends_by_time_or_by_a_freed_descriptor() {
        let poll = Poll::new().unwrap();
        let mut listeners = Listeners::bind(&config("127.0.0.1"), poll.registry()).unwrap();
        listeners.note(0);
        let until = Time::from_millis(100);
        listeners.paused_until = Some(until);
        assert!(
            !listeners.has_work(),
            "a paused listener does not make the loop spin"
        );
        assert_eq!(listeners.next_deadline(), Some(until));
        listeners.descriptor_freed();
        assert!(listeners.has_work());
        listeners.paused_until = Some(until);
        assert!(matches!(listeners.accept(until, 0), Accepted::Nothing));
        assert_eq!(listeners.next_deadline(), None);
    }
}
