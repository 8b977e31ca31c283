//! One connection's TLS over a socket that never blocks: bytes of the protocol above in and out, records on the wire.
//!
//! It never waits, never retries a call that would block and never reads the clock. Ciphertext is received into one buffer
//! of the thread's, so a session that is idle keeps what rustls needs of its keys and no more than 4 KiB beside it.
//!
//! ```text
//!   socket ─▶ the thread's buffer ─▶ unfed ─▶ rustls ─▶ reader ─▶ into         read
//!   slices ─▶ one record ─▶ rustls ─▶ socket; then, and only then: sent        write
//! ```
//!
//! Invariants: plaintext counts as sent when its ciphertext has left for the kernel, so whoever holds it goes on holding it
//! until then, and at most one record is held twice; `unfed` holds bytes only between a read whose room was too small and
//! the next one; while [`Session::has_more`] a call of [`Session::read`] would bring something without the socket.
//!
//! Costs: a read is one copy of the ciphertext, its decryption in place and one copy of the plaintext; a write is the
//! encryption, one record a call of `send`.
#![forbid(unsafe_code)]

use super::failure::{Failure, Side, of_error};
use crate::socket;
use rustls::Connection;
use std::cell::Cell;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::BorrowedFd;

/// Received at once: two full records and their headers.
const CIPHERTEXT_BYTES: usize = 2 * (RECORD_BYTES + 256);
/// The most plaintext that fits one record.
const RECORD_BYTES: usize = 16 * 1024;
/// What rustls may hold of ours before it says no: one record beside handshake messages.
const BUFFER_BYTES_MAX: usize = 2 * RECORD_BYTES;
/// Reads in search of a last word.
const LAST_READS_MAX: usize = 16;
/// Slices that go into one record.
const SLICES_MAX: usize = 16;
/// How a TLS connection begins: the type of a handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;
/// The type of a record with an alert.
const ALERT_RECORD: u8 = 0x15;

thread_local! {
    /// Taken while a read is under way: what is received has left it for a session before the read ends.
    static CIPHERTEXT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How far a handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is over; there may be bytes of the protocol above already.
    Done,
    /// Nothing could be done: the peer has to go on, or the socket to take bytes. The poll will say so.
    Waiting,
    /// Something was done, and the socket may hold more, or the end; to be called again without waiting.
    Again,
}

/// See the module.
pub struct Session {
    connection: Connection,
    /// Ciphertext that was received and not looked at.
    unfed: Vec<u8>,
    /// Plaintext that is encrypted and not yet known to have left.
    unsent: usize,
    side: Side,
    /// The first byte has been looked at.
    begun: bool,
    /// The socket has not been found empty since it was last asked for: it may have more.
    untried: bool,
    /// The peer will send nothing more.
    ended: bool,
    /// Our last word is said, or waits to leave.
    closing: bool,
    /// What has gone wrong, once all that was right before it has been read.
    broken: Option<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:?}, unsent={})", self.side, self.unsent)
    }
}

impl Session {
    pub(super) fn new(mut connection: Connection, side: Side) -> Session {
        connection.set_buffer_limit(Some(BUFFER_BYTES_MAX));
        Session {
            connection,
            unfed: Vec::new(),
            unsent: 0,
            side,
            begun: false,
            untried: true,
            ended: false,
            closing: false,
            broken: None,
        }
    }

    /// Goes on with the handshake, by one read of the socket at most. After a failure the peer has been told as far as
    /// TLS has a word for it, and the session is of no use.
    pub fn shake(&mut self, fd: BorrowedFd<'_>) -> Result<Step, Failure> {
        match self.flush(fd) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waiting),
            Err(e) => return Err(Failure::gone(&e.to_string())),
        }
        if !self.connection.is_handshaking() {
            return Ok(Step::Done);
        }
        let mut buffer = take_buffer();
        let step = self.shake_with(fd, &mut buffer);
        CIPHERTEXT.set(buffer);
        step
    }

    fn shake_with(&mut self, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Step, Failure> {
        let n = match socket::recv(fd, buffer) {
            Ok(0) => return Err(Failure::closed(self.begun)),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waiting),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(Step::Again),
            Err(e) => return Err(Failure::gone(&e.to_string())),
        };
        if !self.begun && !is_handshake(buffer[0]) {
            return Err(Failure::not_tls(self.side, &buffer[..n]));
        }
        self.begun = true;
        let mut rest = &buffer[..n];
        // Plaintext that follows a handshake in the same read can fill rustls's own buffer: the rest is fed when it is read.
        while !rest.is_empty() && self.connection.is_handshaking() {
            if let Err(error) = self.feed(&mut rest) {
                // The alert, if there is one. Who does not take it will see the end.
                let _ = self.flush(fd);
                return Err(of_error(&error, self.side));
            }
        }
        self.unfed.extend_from_slice(rest);
        match self.flush(fd) {
            Ok(()) if !self.connection.is_handshaking() => Ok(Step::Done),
            Ok(()) => Ok(Step::Again),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Step::Waiting),
            Err(e) => Err(Failure::gone(&e.to_string())),
        }
    }

    /// Gives rustls some of the ciphertext.
    fn feed(&mut self, rest: &mut &[u8]) -> Result<(), rustls::Error> {
        // It fails only when what came before has not been looked at, or not been read; both are seen to first.
        let took = self.connection.read_tls(rest).unwrap_or(0);
        self.connection.process_new_packets()?;
        match took {
            0 => Err(rustls::Error::General(
                "a record that is too long".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Reads what is there, at most `into.len()` bytes, which are more than none. `Ok(0)`: the peer will send nothing more,
    /// whether it has said so or only closed; the protocols above know by themselves whether something is missing.
    pub fn read(&mut self, fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
        self.untried = true;
        let mut got = self.take_plaintext(into);
        if got == into.len() {
            return Ok(got);
        }
        let mut buffer = take_buffer();
        self.read_with(fd, &mut buffer, into, &mut got);
        CIPHERTEXT.set(buffer);
        match &self.broken {
            _ if got > 0 => Ok(got),
            Some(why) => Err(io::Error::other(why.clone())),
            None if self.ended => Ok(0),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn read_with(
        &mut self,
        fd: BorrowedFd<'_>,
        buffer: &mut [u8],
        into: &mut [u8],
        got: &mut usize,
    ) {
        loop {
            self.feed_unfed(into, got);
            if *got == into.len() || self.ended || self.broken.is_some() {
                return;
            }
            // A read that came up short has emptied the socket, unless the poll has said that it is closed: then the
            // caller comes again, with nothing read, and is told of the end.
            if *got > 0 && !self.untried {
                return;
            }
            match socket::recv(fd, buffer) {
                Ok(0) => {
                    (self.untried, self.ended) = (false, true);
                    return;
                }
                Ok(n) => {
                    self.untried = n == buffer.len();
                    let mut rest = &buffer[..n];
                    self.feed_all(&mut rest, into, got);
                    self.unfed.extend_from_slice(rest);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.untried = false;
                    if e.kind() != io::ErrorKind::WouldBlock {
                        self.broken = Some(e.to_string());
                    }
                    return;
                }
            }
        }
    }

    fn feed_unfed(&mut self, into: &mut [u8], got: &mut usize) {
        if self.unfed.is_empty() {
            return;
        }
        let unfed = std::mem::take(&mut self.unfed);
        let mut rest = &unfed[..];
        self.feed_all(&mut rest, into, got);
        self.unfed = rest.to_vec();
    }

    /// Decrypts `rest` as far as there is room for it.
    fn feed_all(&mut self, rest: &mut &[u8], into: &mut [u8], got: &mut usize) {
        while !rest.is_empty() && *got < into.len() && !self.ended && self.broken.is_none() {
            if let Err(error) = self.feed(rest) {
                self.broken = Some(of_error(&error, self.side).text);
            }
            *got += self.take_plaintext(&mut into[*got..]);
        }
        if self.ended || self.broken.is_some() {
            *rest = &[];
        }
    }

    /// What is decrypted already.
    fn take_plaintext(&mut self, into: &mut [u8]) -> usize {
        let mut got = 0;
        while got < into.len() {
            match self.connection.reader().read(&mut into[got..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => got += n,
                Err(_) => break,
            }
        }
        got
    }

    /// Whether a read could bring something that the poll will not speak of.
    pub fn has_more(&self) -> bool {
        self.untried
            || !self.unfed.is_empty()
            || self.ended
            || self.broken.is_some()
            || self.has_plaintext()
    }

    fn has_plaintext(&self) -> bool {
        // Full or not is all that rustls tells without a read; it wants no more ciphertext while it holds any plaintext.
        !self.connection.wants_read()
    }

    /// Sends as much as the socket takes; how much of it has left. What was encrypted and has not left is at the beginning
    /// of the next call's slices again.
    pub fn write(&mut self, fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut sent = 0;
        loop {
            match self.flush(fd) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && sent > 0 => return Ok(sent),
                Err(e) => return Err(e),
            }
            let left = self.unsent.min(total - sent);
            self.unsent -= left;
            sent += left;
            if sent == total {
                return Ok(sent);
            }
            self.unsent = self.encrypt(slices, sent)?;
        }
    }

    /// Makes one record of what follows the first `from` bytes; how many bytes are in it.
    fn encrypt(&mut self, slices: &[IoSlice<'_>], mut from: usize) -> io::Result<usize> {
        let mut parts = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut room) = (0, RECORD_BYTES);
        for slice in slices {
            if from >= slice.len() {
                from -= slice.len();
                continue;
            }
            let part = &slice[from..];
            let part = &part[..part.len().min(room)];
            from = 0;
            if part.is_empty() || count == SLICES_MAX {
                break;
            }
            room -= part.len();
            parts[count] = IoSlice::new(part);
            count += 1;
        }
        let taken = match &parts[..count] {
            [one] => self.connection.writer().write(one)?,
            many => self.connection.writer().write_vectored(many)?,
        };
        match taken {
            0 => Err(io::Error::other("TLS takes no more bytes")),
            _ => Ok(taken),
        }
    }

    /// Sends what is encrypted.
    pub fn flush(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Wire(fd)) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Says that nothing more will be sent (`close_notify`). `WouldBlock`: it waits to leave, by [`Session::flush`].
    pub fn close(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if !self.closing {
            self.closing = true;
            self.connection.send_close_notify();
        }
        self.flush(fd)
    }

    /// Whether the last word has been said and only has to leave.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// The peer's last word, where the poll says that the connection is gone: an alert may stand before its end.
    pub fn last_word(&mut self, fd: BorrowedFd<'_>) -> Option<String> {
        let mut room = [0; 4096];
        for _ in 0..LAST_READS_MAX {
            match self.read(fd, &mut room) {
                Ok(n) if n > 0 => {}
                _ => return self.broken.clone(),
            }
        }
        None
    }

    /// Whether the peer has sent anything.
    pub fn has_begun(&self) -> bool {
        self.begun
    }
}

/// Whether a connection that begins with this byte could be one of TLS.
pub(super) fn is_handshake(first: u8) -> bool {
    // A server may refuse with an alert at once.
    matches!(first, HANDSHAKE_RECORD | ALERT_RECORD)
}

fn take_buffer() -> Vec<u8> {
    let mut buffer = CIPHERTEXT.take();
    buffer.resize(CIPHERTEXT_BYTES, 0);
    buffer
}

/// The socket, as rustls writes to it.
struct Wire<'a>(BorrowedFd<'a>);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    /// Two ends that have shaken hands over a socket whose buffers are what the kernel gives.
    fn pair() -> [(Session, UnixStream); 2] {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let name = "localhost".try_into().unwrap();
        let client = ClientConnection::new(Arc::new(client), name).unwrap();
        let server = ServerConnection::new(Arc::new(server)).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let mut ends = [
            (Session::new(client.into(), Side::Client), near),
            (Session::new(server.into(), Side::Server), far),
        ];
        for (_, socket) in &ends {
            socket.set_nonblocking(true).unwrap();
        }
        let mut done = [false; 2];
        for _ in 0..100 {
            for (at, (session, socket)) in ends.iter_mut().enumerate() {
                done[at] = session.shake(socket.as_fd()).unwrap() == Step::Done;
            }
            if done == [true; 2] {
                return ends;
            }
        }
        panic!("no handshake in a hundred steps");
    }

    /// As the reactor reads: to the end of what is there, in rooms of any size. What it got, and whether that was the end.
    fn read_all(
        session: &mut Session,
        socket: &UnixStream,
        rng: &mut fastrand::Rng,
    ) -> (Vec<u8>, bool) {
        let mut got = Vec::new();
        let mut room = vec![0; 70_000];
        loop {
            let len = if rng.bool() {
                rng.usize(1..100)
            } else {
                rng.usize(1..room.len())
            };
            match session.read(socket.as_fd(), &mut room[..len]) {
                Ok(0) => return (got, true),
                Ok(n) => {
                    got.extend_from_slice(&room[..n]);
                    if !session.has_more() {
                        let nothing = session.read(socket.as_fd(), &mut room).unwrap_err();
                        assert_eq!(
                            nothing.kind(),
                            io::ErrorKind::WouldBlock,
                            "the poll would not speak of it"
                        );
                        return (got, false);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return (got, false),
                Err(e) => panic!("{e}"),
            }
        }
    }

    #[test]
    fn what_is_written_in_any_slices_is_read_in_any_rooms() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut ends = pair();
            let total = rng.usize(1..2_000_000);
            let bytes: Vec<u8> = (0..total).map(|at| (at % 253) as u8).collect();
            for (from, to) in [(0, 1), (1, 0)] {
                let (mut sent, mut got) = (0, Vec::new());
                while got.len() < total {
                    // As an outbox hands them out: the same bytes again until they are counted.
                    let mut ends_of_slices: Vec<usize> = (0..rng.usize(1..30))
                        .map(|_| rng.usize(sent..=total))
                        .collect();
                    ends_of_slices.push(total.min(sent + 40_000));
                    ends_of_slices.sort_unstable();
                    let mut at = sent;
                    let slices: Vec<IoSlice<'_>> = ends_of_slices
                        .iter()
                        .map(|&end| IoSlice::new(&bytes[std::mem::replace(&mut at, end)..end]))
                        .collect();
                    let (session, socket) = &mut ends[from];
                    if sent < total {
                        match session.write(socket.as_fd(), &slices) {
                            Ok(n) => sent += n,
                            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock, "{e}"),
                        }
                    }
                    let (session, socket) = &mut ends[to];
                    let (more, ended) = read_all(session, socket, &mut rng);
                    assert!(!ended);
                    got.extend_from_slice(&more);
                }
                assert!(got == bytes, "seed {seed}");
                assert_eq!(sent, total);
            }
            let (session, socket) = &mut ends[0];
            session.close(socket.as_fd()).unwrap();
            let (session, socket) = &mut ends[1];
            assert_eq!(read_all(session, socket, &mut rng), (Vec::new(), true));
            // Its own half is open still.
            assert_eq!(
                session
                    .write(socket.as_fd(), &[IoSlice::new(b"bye")])
                    .unwrap(),
                3
            );
            let (session, socket) = &mut ends[0];
            assert_eq!(read_all(session, socket, &mut rng).0, b"bye");
        }
    }

    #[test]
    fn what_came_before_a_record_that_is_wrong_is_read_first() {
        let mut ends = pair();
        let (session, socket) = &mut ends[0];
        session
            .write(socket.as_fd(), &[IoSlice::new(b"good")])
            .unwrap();
        // A record of application data that nobody has encrypted.
        (&*socket)
            .write_all(b"\x17\x03\x03\x00\x20nobody has encrypted these bytes")
            .unwrap();
        let (session, socket) = &mut ends[1];
        let mut room = [0; 100];
        assert_eq!(session.read(socket.as_fd(), &mut room).unwrap(), 4);
        assert!(session.has_more());
        let error = session.read(socket.as_fd(), &mut room).unwrap_err();
        assert!(error.to_string().contains("broke TLS"), "{error}");
    }

    #[test]
    fn an_end_without_a_word_is_an_end() {
        let mut ends = pair();
        let (session, socket) = &mut ends[0];
        session
            .write(socket.as_fd(), &[IoSlice::new(b"last")])
            .unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let (session, socket) = &mut ends[1];
        let mut room = [0; 100];
        assert_eq!(session.read(socket.as_fd(), &mut room).unwrap(), 4);
        // The poll says that it is closed, and so the reactor reads on.
        assert_eq!(read_all(session, socket, &mut rng), (Vec::new(), true));
    }
}
