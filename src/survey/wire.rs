//! One connection that blocks: a command goes out, its reply comes back, each within a deadline.
//!
//! It never keeps a connection after an error. Invariant: between two calls nothing is owed, and `unread` holds at most
//! what came behind the last reply, which is the beginning of a push.
#![forbid(unsafe_code)]

use crate::config::Config;
use crate::protocol::Parse;
use crate::protocol::resp::reply::{ReplyScanner, Scan};
use crate::protocol::resp::value::{self, Value};
use crate::protocol::resp::write;
use crate::tls::{self, blocking::why_lost};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// COMMAND of a server with many modules is a megabyte; what is longer is no answer to anything asked here.
const REPLY_BYTES_MAX: usize = 8 << 20;
/// Replies to what is asked here are maps of lists of lists at most.
const DEPTH_MAX: usize = 12;

pub(super) struct Wire {
    stream: Stream,
    timeout: Duration,
    unread: Vec<u8>,
}

/// The socket, of either kind, or TLS on one.
enum Stream {
    Tcp(TcpStream),
    Tls(Box<tls::blocking::Stream>),
    Unix(UnixStream),
}

impl Stream {
    fn send(&mut self, bytes: &[u8], within: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_write_timeout(Some(within))?;
                stream.write_all(bytes)
            }
            Stream::Tls(stream) => {
                stream.sock.set_write_timeout(Some(within))?;
                stream.write_all(bytes)?;
                stream.flush()
            }
            Stream::Unix(stream) => {
                stream.set_write_timeout(Some(within))?;
                stream.write_all(bytes)
            }
        }
    }

    fn receive(&mut self, into: &mut [u8], within: Duration) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(within))?;
                stream.read(into)
            }
            Stream::Tls(stream) => {
                stream.sock.set_read_timeout(Some(within))?;
                stream.read(into)
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(within))?;
                stream.read(into)
            }
        }
    }
}

/// A reply, whole.
pub(super) struct Answer(Vec<u8>);

impl Wire {
    /// Connects to the first address of the name that takes the connection; says where that is and over what, too.
    pub(super) fn connect(
        config: &Config,
        tls: Option<&tls::Upstream>,
    ) -> Result<(Wire, String), String> {
        let url = &config.redis_url;
        let timeout = config.redis_timeout;
        let wire = |stream: Stream| Wire {
            stream,
            timeout,
            unread: Vec::new(),
        };
        if let Some(path) = &url.socket {
            let path_shown = path.display().to_string();
            let stream = UnixStream::connect(path).map_err(|e| format!("{path_shown}: {e}"))?;
            return Ok((wire(Stream::Unix(stream)), path_shown));
        }
        if let Some(tls) = tls {
            let patience = config.redis_connect_timeout;
            let (stream, address) = tls.connect(&url.host, url.port, patience)?;
            let version = tls::version_of(&stream.conn);
            let stream = Stream::Tls(Box::new(stream));
            return Ok((wire(stream), format!("{address} over {version}")));
        }
        let addresses = (url.host.as_str(), url.port)
            .to_socket_addrs()
            .map_err(|e| format!("the name {} cannot be resolved: {e}", url.host))?;
        let mut why = format!("the name {} has no address", url.host);
        for address in addresses {
            match TcpStream::connect_timeout(&address, config.redis_connect_timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|e| e.to_string())?;
                    return Ok((wire(Stream::Tcp(stream)), address.to_string()));
                }
                Err(e) => why = format!("{address}: {e}"),
            }
        }
        Err(why)
    }

    /// Sends one command and waits for its reply.
    pub(super) fn ask(&mut self, args: &[&[u8]]) -> Result<Answer, String> {
        let mut request = Vec::new();
        write::command(&mut request, args.iter().copied());
        let deadline = Instant::now() + self.timeout;
        self.stream
            .send(&request, self.timeout)
            .map_err(|e| self.lost(&e))?;
        loop {
            let reply = self.reply(deadline)?;
            // What changes meanwhile is pushed once tracking is on, and is no answer.
            if !reply.starts_with(b">") {
                return Ok(Answer(reply));
            }
        }
    }

    fn reply(&mut self, deadline: Instant) -> Result<Vec<u8>, String> {
        let mut scanner = ReplyScanner::default();
        let mut scanned = 0;
        let mut chunk = [0; 16 * 1024];
        loop {
            let (used, scan) = scanner.feed(&self.unread[scanned..]);
            scanned += used;
            match scan {
                Scan::Done => {
                    let rest = self.unread.split_off(scanned);
                    return Ok(std::mem::replace(&mut self.unread, rest));
                }
                Scan::Bad => {
                    return Err("what answers there does not speak Redis's protocol".into());
                }
                Scan::More if self.unread.len() > REPLY_BYTES_MAX => {
                    return Err("a reply is longer than can be".into());
                }
                Scan::More => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.silent());
            }
            match self.stream.receive(&mut chunk, left) {
                Ok(0) => return Err("the connection was closed by Redis".into()),
                Ok(n) => self.unread.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.lost(&e)),
            }
        }
    }

    fn lost(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.silent(),
            _ => format!("the connection was lost: {}", why_lost(error)),
        }
    }

    fn silent(&self) -> String {
        format!("no answer within {} ms", self.timeout.as_millis())
    }
}

impl Answer {
    /// The error it is, its code included.
    pub(super) fn error(&self) -> Option<String> {
        let text = self.0.strip_prefix(b"-")?;
        Some(String::from_utf8_lossy(text).trim_end().to_owned())
    }

    /// Its text, if it is one.
    pub(super) fn text(&self) -> Option<String> {
        let text = self.value()?.as_bytes()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// What it is.
    pub(super) fn value(&self) -> Option<Value<'_>> {
        match value::decode(&self.0, DEPTH_MAX) {
            Parse::Done((value, _)) => Some(value),
            Parse::More | Parse::Bad(_) => None,
        }
    }
}
