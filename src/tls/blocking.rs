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
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A connection that stands.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A socket's time-out cannot be nothing.
const LEAST: Duration = Duration::from_millis(1);

impl Upstream {
    /// Connects to the first address of the name that takes the connection and proves who it is, each within `patience`,
    /// and says which that was. The time-outs of the socket are the caller's to set.
    ///
    /// # Errors
    /// What was wrong with the last of them.
    pub fn connect(
        &self,
        host: &str,
        port: u16,
        patience: Duration,
    ) -> Result<(Stream, SocketAddr), String> {
        let addresses = (host, port)
            .to_socket_addrs()
            .map_err(|e| format!("cannot resolve {host}: {e}"))?;
        let mut why = format!("the name {host} has no address");
        for address in addresses {
            let deadline = socket::now() + patience;
            let stream = TcpStream::connect_timeout(&address, patience)
                .map_err(|e| e.to_string())
                .and_then(|stream| {
                    // Worth having, not worth failing for.
                    let _ = stream.set_nodelay(true);
                    self.shake(stream, deadline).map_err(|failure| failure.text)
                });
            match stream {
                Ok(stream) => return Ok((stream, address)),
                Err(text) => why = format!("{address}: {text}"),
            }
        }
        Err(why)
    }

    /// Shakes hands on a connection that has just been made, until `deadline`.
    fn shake(&self, stream: TcpStream, deadline: Time) -> Result<Stream, Failure> {
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

/// Why a connection that stood is gone. With TLS 1.3 a certificate of ours is refused after the handshake only.
pub fn why_lost(error: &io::Error) -> String {
    let said = error.get_ref().and_then(|e| e.downcast_ref());
    said.map_or_else(
        || error.to_string(),
        |e: &rustls::Error| of_error(e, Side::Client).text,
    )
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
