//! A byte stream over a mio socket, as the reactor sees it: read, write, error, shutdown. Plain TCP today; TLS will be a
//! second kind behind the same calls, which is why the reactor never touches the socket itself.
//!
//! It never buffers, retries or blocks: each call is one system call, and `WouldBlock` goes to the caller.
//!
//! Invariant: registered with the poll once, for reading and writing, before it is wrapped; closed by dropping it, which
//! also takes it out of the poll.
#![forbid(unsafe_code)]

use crate::socket::{self, Keepalive};
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

/// One end of a connection.
#[derive(Debug)]
pub struct Transport {
    stream: TcpStream,
}

impl Transport {
    /// Takes a connection that was accepted or is being made, and registers it edge-triggered in both directions. It is
    /// never registered again: what the poll said is remembered by the reactor until it is used up.
    pub fn register(
        mut stream: TcpStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Transport> {
        stream.register(registry, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Transport { stream })
    }

    /// Sets what every connection of a client has: no delay for small writes, and a time after which a peer that
    /// acknowledges nothing is dead (zero: the kernel's). With `keepalive` a silent one is asked for a sign of life.
    pub fn set_client_options(&self, keepalive: bool, dead: Duration) -> io::Result<()> {
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
        socket::set_nodelay(self.stream.as_fd())?;
        socket::set_keepalive(self.stream.as_fd(), socket::KEEPALIVE_LINK)?;
        socket::set_user_timeout(self.stream.as_fd(), dead)
    }

    /// Reads what is there, at most `into.len()` bytes. `Ok(0)`: the peer will send nothing more.
    #[inline]
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        socket::recv(self.stream.as_fd(), into)
    }

    /// Writes as much as the socket takes. One slice goes by `send`, which the kernel does a little faster.
    #[inline]
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => self.write_one(one),
            many => self.stream.write_vectored(many),
        }
    }

    /// [`Transport::write`] of one slice.
    #[inline]
    pub fn write_one(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.stream.as_fd(), bytes)
    }

    /// The error that is pending on the socket, which this call clears.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.stream.take_error()
    }

    /// After a non-blocking connect: the peer's address once the connection stands, `NotConnected` until then.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Says goodbye: what the peer sent and nobody will read is taken from the socket first, at most `bytes_max` of it.
    /// A socket that is closed with bytes unread resets the connection, and the reset can overtake our last reply.
    pub fn discard_unread(&mut self, bytes_max: usize) {
        let mut scratch = [0u8; 4096];
        let mut left = bytes_max;
        while left > 0 {
            match self.stream.read(&mut scratch) {
                Ok(n) if n == scratch.len() => left = left.saturating_sub(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }

    /// Tells a client that cannot be taken why, as far as one write goes, and closes.
    pub fn refuse(stream: TcpStream, text: &[u8], discard_bytes_max: usize) {
        let mut transport = Transport { stream };
        // Best effort: it is refused whether or not it learns why.
        let _ = transport.stream.write(text);
        transport.discard_unread(discard_bytes_max);
    }

    /// Ends our sending half: the peer reads what was sent, then the end.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
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
