//! TLS to Redis for threads that may block: the workers, and whoever looks at a Redis from the command line.
//!
//! It blocks in the socket's own time-outs only, which follow from the deadline it is given.
#![forbid(unsafe_code)]

use super::Upstream;
use super::failure::{Failure, Side, of_error};
use crate::engine::Refused;
use crate::socket;
use crate::time::Time;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

/// A connection that stands.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A socket's time-out cannot be nothing.
const LEAST: Duration = Duration::from_millis(1);

impl Upstream {
    /// Shakes hands on a connection that has just been made, until `deadline`. The time-outs of the socket are the
    /// caller's to set again.
    ///
    /// # Errors
    /// Why there is no TLS on it, in words.
    pub fn shake(&self, stream: TcpStream, deadline: Time) -> Result<Stream, Failure> {
        let connection = self
            .connection()
            .map_err(|why| Failure::new(Refused::Broken, &why))?;
        let mut stream = StreamOwned::new(connection, stream);
        let mut begun = false;
        while stream.conn.is_handshaking() || stream.conn.wants_write() {
            let left = deadline.since(socket::now());
            if left.is_zero() {
                return Err(Failure::no_answer());
            }
            step(&mut stream, left.max(LEAST), &mut begun)?;
        }
        Ok(stream)
    }
}

/// Sends what there is to send, or reads once.
fn step(stream: &mut Stream, patience: Duration, begun: &mut bool) -> Result<(), Failure> {
    let lost = |e: io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::no_answer(),
        _ => Failure::gone(&e.to_string()),
    };
    stream
        .sock
        .set_write_timeout(Some(patience))
        .map_err(lost)?;
    stream.sock.set_read_timeout(Some(patience)).map_err(lost)?;
    if stream.conn.wants_write() {
        return match stream.conn.write_tls(&mut stream.sock) {
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            written => written.map(drop).map_err(lost),
        };
    }
    let mut first = [0];
    let is_first = !*begun && matches!(stream.sock.peek(&mut first), Ok(1));
    if is_first && !super::session::is_handshake(first[0]) {
        return Err(Failure::not_tls(Side::Client, &first));
    }
    match stream.conn.read_tls(&mut stream.sock) {
        Ok(0) => return Err(Failure::closed(*begun)),
        Ok(_) => *begun = true,
        Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(()),
        Err(e) => return Err(lost(e)),
    }
    if let Err(error) = stream.conn.process_new_packets() {
        // The alert, as far as one write goes.
        let _ = stream.conn.write_tls(&mut stream.sock);
        return Err(of_error(&error, Side::Client));
    }
    Ok(())
}
