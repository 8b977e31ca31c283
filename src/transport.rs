//! A byte stream over a mio socket, as the reactor sees it: read, write, error, shutdown. The socket is one of TCP or of the
//! Unix domain; TLS is a layer on either, behind the same calls, which is why the reactor never touches the socket.
//!
//! It never retries or blocks: without TLS it never buffers either, each call is one system call, and `WouldBlock` goes to
//! the caller. What TLS buffers is said in `tls/session.rs`.
//!
//! Invariant: registered with the poll once, for reading and writing, before it is wrapped; closed by dropping it, which
//! also takes it out of the poll.
#![forbid(unsafe_code)]

use crate::socket::{self, Keepalive};
use crate::tls::failure::Failure;
use crate::tls::session::{Session, Step};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A connected socket, or one that is being connected.
#[derive(Debug)]
pub enum Stream {
    /// Over a network, or this machine's own.
    Tcp(TcpStream),
    /// Within this machine.
    Unix(UnixStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        Stream::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Stream {
        Stream::Unix(stream)
    }
}

impl AsFd for Stream {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(slices),
            Stream::Unix(stream) => stream.write_vectored(slices),
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
    tls: Option<Box<Session>>,
}

/// What a transport's bytes pass through, for who reads and writes in one go and would ask at each step.
#[derive(Debug)]
pub enum Line<'a> {
    /// The socket as it is.
    Plain(Plain<'a>),
    /// TLS.
    Secured(Secured<'a>),
}

/// See [`Line`].
#[derive(Debug)]
pub struct Plain<'a>(BorrowedFd<'a>);

/// See [`Line`].
#[derive(Debug)]
pub struct Secured<'a>(&'a mut Session, BorrowedFd<'a>);

/// As the functions of [`Transport`] of the same names.
pub trait Through {
    /// See [`Transport::read`].
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// See [`Transport::may_have_more`].
    fn may_have_more(&self, n: usize, len: usize) -> bool;
    /// See [`Transport::write_one`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

impl Through for Plain<'_> {
    #[inline(always)]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        socket::recv(self.0, into)
    }

    #[inline(always)]
    fn may_have_more(&self, n: usize, len: usize) -> bool {
        n == len
    }

    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.0, bytes)
    }
}

impl Through for Secured<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(self.1, into)
    }

    fn may_have_more(&self, _n: usize, _len: usize) -> bool {
        self.0.has_more()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(self.1, &[IoSlice::new(bytes)])
    }
}

impl Transport {
    /// Which of the two its bytes pass through.
    #[inline(always)]
    pub fn line(&mut self) -> Line<'_> {
        match &mut self.tls {
            None => Line::Plain(Plain(self.stream.as_fd())),
            Some(session) => Line::Secured(Secured(session, self.stream.as_fd())),
        }
    }

    /// Takes a connection that was accepted or is being made, and registers it edge-triggered in both directions. It is
    /// never registered again: what the poll said is remembered by the reactor until it is used up.
    pub fn register(
        stream: impl Into<Stream>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Transport> {
        let mut stream = stream.into();
        let interest = Interest::READABLE | Interest::WRITABLE;
        stream.source().register(registry, token, interest)?;
        Ok(Transport { stream, tls: None })
    }

    /// Sets what every connection of a client has: no delay for small writes, and a time after which a peer that
    /// acknowledges nothing is dead (zero: the kernel's). With `keepalive` a silent one is asked for a sign of life. A Unix
    /// socket has none of these, and needs none: its peer cannot vanish without the kernel's knowing.
    pub fn set_client_options(&self, keepalive: bool, dead: Duration) -> io::Result<()> {
        if matches!(self.stream, Stream::Unix(_)) {
            return Ok(());
        }
        let fd = self.stream.as_fd();
        socket::set_nodelay(fd)?;
        if dead.is_zero() {
            return Ok(());
        }
        if keepalive {
            socket::set_keepalive(fd, Keepalive::within(dead))?;
        }
        socket::set_user_timeout(fd, dead)
    }

    /// Sets what every link to Redis has. `dead` bounds how long sent bytes may stay unacknowledged.
    pub fn set_link_options(&self, dead: Duration) -> io::Result<()> {
        if matches!(self.stream, Stream::Unix(_)) {
            return Ok(());
        }
        socket::set_nodelay(self.stream.as_fd())?;
        socket::set_keepalive(self.stream.as_fd(), socket::KEEPALIVE_LINK)?;
        socket::set_user_timeout(self.stream.as_fd(), dead)
    }

    /// From here on all bytes pass through this session, whose handshake comes first.
    pub fn secure(&mut self, session: Session) {
        self.tls = Some(Box::new(session));
    }

    /// Goes on with the handshake.
    pub fn shake(&mut self) -> Result<Step, Failure> {
        match &mut self.tls {
            None => Ok(Step::Done),
            Some(session) => session.shake(self.stream.as_fd()),
        }
    }

    /// What is said of a handshake that has taken too long.
    pub fn too_slow(&self) -> Failure {
        Failure::too_slow(self.tls.as_ref().is_some_and(|session| session.has_begun()))
    }

    /// Says something without TLS to a peer that does not speak it, as far as one write goes.
    pub fn say_plainly(&mut self, text: &[u8]) {
        if !text.is_empty() {
            // Best effort: it is refused whether or not it learns why.
            let _ = socket::send(self.stream.as_fd(), text);
        }
    }

    /// Reads what is there, at most `into.len()` bytes. `Ok(0)`: the peer will send nothing more.
    #[inline]
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.line() {
            Line::Plain(mut line) => line.read(into),
            Line::Secured(mut line) => line.read(into),
        }
    }

    /// After a read of `n` bytes into room for `len`: whether there may be more that the poll will not speak of.
    #[inline]
    pub fn may_have_more(&self, n: usize, len: usize) -> bool {
        match &self.tls {
            None => n == len,
            Some(session) => session.has_more(),
        }
    }

    /// How many more bytes may be read in this turn, of `budget` before `n` came. With TLS none: what they cost is not in
    /// their number.
    #[inline]
    pub fn budget_after(&self, budget: usize, n: usize) -> usize {
        match &self.tls {
            None => budget - n,
            Some(_) => 0,
        }
    }

    /// Writes as much as the socket takes; with TLS, the next call begins with the bytes that this one did not count. One
    /// slice goes by `send`, which the kernel does a little faster.
    #[inline]
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (slices, &mut self.tls) {
            ([one], _) => self.write_one(one),
            (many, None) => self.stream.write_vectored(many),
            (many, Some(session)) => session.write(self.stream.as_fd(), many),
        }
    }

    /// [`Transport::write`] of one slice.
    #[inline]
    pub fn write_one(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.line() {
            Line::Plain(mut line) => line.write(bytes),
            Line::Secured(mut line) => line.write(bytes),
        }
    }

    /// Sends what TLS itself still has to say behind the last byte. `WouldBlock`: when the socket takes bytes again.
    pub fn finish_write(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.tls else {
            return Ok(());
        };
        session.flush(self.stream.as_fd())?;
        match session.is_closing() {
            true => self.shutdown_stream(),
            false => Ok(()),
        }
    }

    /// What the peer has said about the end of TLS, if the connection is gone.
    pub fn last_word(&mut self) -> Option<String> {
        self.tls.as_mut()?.last_word(self.stream.as_fd())
    }

    /// Says goodbye before the socket is closed, as far as one write goes.
    pub fn part(&mut self) {
        if let Some(session) = &mut self.tls {
            // Who is gone need not be told.
            let _ = session.close(self.stream.as_fd());
        }
    }

    /// The error that is pending on the socket, which this call clears.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match &self.stream {
            Stream::Tcp(stream) => stream.take_error(),
            Stream::Unix(stream) => stream.take_error(),
        }
    }

    /// After a non-blocking connect: whether the connection stands; `NotConnected` until then.
    pub fn connected(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.peer_addr().map(drop),
            Stream::Unix(stream) => stream.peer_addr().map(drop),
        }
    }

    /// Says goodbye: what the peer sent and nobody will read is taken from the socket first, at most `bytes_max` of it.
    /// A socket that is closed with bytes unread resets the connection, and the reset can overtake our last reply.
    pub fn discard_unread(&mut self, bytes_max: usize) {
        let mut scratch = [0u8; 4096];
        let mut left = bytes_max;
        while left > 0 {
            match socket::recv(self.stream.as_fd(), &mut scratch) {
                Ok(n) if n == scratch.len() => left = left.saturating_sub(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }

    /// Tells a client that cannot be taken why, as far as one write goes, and closes.
    pub fn refuse(stream: impl Into<Stream>, text: &[u8], discard_bytes_max: usize) {
        let stream = stream.into();
        let mut transport = Transport { stream, tls: None };
        // Best effort: it is refused whether or not it learns why.
        let _ = transport.write_one(text);
        transport.discard_unread(discard_bytes_max);
    }

    /// Ends our sending half: the peer reads what was sent, then the end. `WouldBlock`: TLS has yet to say so, and
    /// [`Transport::finish_write`] is to be called when the socket takes bytes.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            session.close(self.stream.as_fd())?;
        }
        self.shutdown_stream()
    }

    fn shutdown_stream(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::io::Read;
    use std::net::TcpListener;

    fn pair() -> (Poll, Transport, std::net::TcpStream) {
        let poll = Poll::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let transport =
            Transport::register(TcpStream::from_std(accepted), poll.registry(), Token(1)).unwrap();
        (poll, transport, peer)
    }

    #[test]
    fn bytes_pass_in_both_directions_and_one_event_announces_them() {
        let (mut poll, mut transport, mut peer) = pair();
        transport
            .set_client_options(true, Duration::from_secs(600))
            .unwrap();
        assert_eq!(
            transport.read(&mut [0; 8]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert_eq!(transport.write(&[IoSlice::new(b"one")]).unwrap(), 3);
        assert_eq!(
            transport
                .write(&[IoSlice::new(b" two"), IoSlice::new(b" three")])
                .unwrap(),
            10
        );
        transport.shutdown_write().unwrap();
        let mut got = String::new();
        peer.read_to_string(&mut got).unwrap();
        assert_eq!(got, "one two three");
        peer.write_all(b"back").unwrap();
        let mut events = Events::with_capacity(8);
        let mut buffer = [0; 8];
        loop {
            poll.poll(&mut events, Some(Duration::from_secs(5)))
                .unwrap();
            assert!(!events.is_empty(), "the bytes come within 5 s");
            match transport.read(&mut buffer) {
                Ok(n) => break assert_eq!(&buffer[..n], b"back"),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(transport.take_error().unwrap().is_none());
    }

    #[test]
    fn unread_bytes_are_discarded_so_that_the_last_reply_arrives() {
        let (_poll, mut transport, mut peer) = pair();
        peer.write_all(&[b'x'; 20_000]).unwrap();
        // On loopback the bytes are in our receive queue when write_all returns.
        assert_eq!(
            transport.write(&[IoSlice::new(b"-ERR bye\r\n")]).unwrap(),
            10
        );
        transport.discard_unread(64 * 1024);
        drop(transport);
        let mut got = String::new();
        peer.read_to_string(&mut got).expect("no reset");
        assert_eq!(got, "-ERR bye\r\n");
    }
}
