//! A RESP client that sends exactly the bytes it is given, and a decoder of replies.
//!
//! Never: a retry, a reconnect, or a reply that is guessed; bytes that are no reply are a panic.
//! Costs: a reply is decoded from its first byte each time more has arrived, fine for replies of a test's size.

use super::{PATIENCE, show};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};

/// One reply, in RESP2 or RESP3.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR ...`, without the `-`.
    Error(String),
    /// `:1`
    Int(i64),
    /// `$3`
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `_`
    Null,
    /// `*2`
    Array(Vec<Reply>),
    /// `%1`: keys and values by turns.
    Map(Vec<Reply>),
    /// `~2`
    Set(Vec<Reply>),
    /// `>2`
    Push(Vec<Reply>),
    /// `,1.5`, `#t`, `(123`: the marker and its text.
    Scalar(char, String),
    /// `=15`
    Verbatim(Vec<u8>),
}

impl Reply {
    /// A bulk string of this text.
    pub fn bulk(text: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(text.as_ref().to_vec())
    }

    /// `+OK`
    pub fn ok() -> Reply {
        Reply::Simple("OK".to_string())
    }

    /// The text of a bulk, verbatim or simple string; panics for others.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Reply::Bulk(bytes) | Reply::Verbatim(bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            Reply::Simple(text) => text.clone(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// The text of an error; panics for others.
    #[track_caller]
    pub fn error(&self) -> &str {
        match self {
            Reply::Error(text) => text,
            other => panic!("no error: {other:?}"),
        }
    }

    /// Whether it is the proxy's own word that something could not be done.
    pub fn is_own_error(&self) -> bool {
        matches!(self, Reply::Error(text) if text.starts_with("ERR nearcache: "))
    }
}

/// A command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args.iter().map(AsRef::as_ref) {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A command given as one line, cut at spaces. For commands whose arguments have none.
pub fn encode_line(line: &str) -> Vec<u8> {
    encode(&line.split(' ').collect::<Vec<_>>())
}

/// One TCP connection.
pub struct RespClient {
    stream: TcpStream,
    received: Vec<u8>,
    /// How much of `received` was given out as replies.
    taken: usize,
}

impl RespClient {
    /// Connects over IPv4 loopback; panics when nobody listens.
    #[track_caller]
    pub fn connect(port: u16) -> RespClient {
        RespClient::try_connect(port).unwrap_or_else(|| panic!("nobody listens on port {port}"))
    }

    /// The same, `None` when nobody listens.
    pub fn try_connect(port: u16) -> Option<RespClient> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(RespClient {
            stream,
            received: Vec::new(),
            taken: 0,
        })
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes)
            .unwrap_or_else(|e| panic!("sending {}: {e}", show(bytes)));
    }

    /// The same, for a connection that may have ended.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent (FIN); replies are still read.
    pub fn finish_sending(&self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("an open connection can be half closed");
    }

    /// Leaves with a reset: waits for a reply and closes without reading it, which TCP reports to the other side.
    #[track_caller]
    pub fn reset(self) {
        let waiting = self.stream.peek(&mut [0]);
        assert_eq!(waiting.expect("a reply comes"), 1, "a reply comes");
    }

    /// Sends one command and reads one reply.
    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        self.send(&encode(args));
        self.reply()
    }

    /// The same for a line cut at spaces.
    #[track_caller]
    pub fn line(&mut self, line: &str) -> Reply {
        self.send(&encode_line(line));
        self.reply()
    }

    /// The next reply.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        match self.try_reply() {
            Ok(reply) => reply,
            Err(end) => panic!(
                "{end} instead of a reply; unread: {}",
                show(&self.received[self.taken..])
            ),
        }
    }

    /// The next reply, if it is there already.
    pub fn try_reply_now(&mut self) -> Option<Reply> {
        self.stream.set_nonblocking(true).ok()?;
        let reply = self.try_reply().ok();
        self.stream.set_nonblocking(false).ok()?;
        reply
    }

    /// The next `n` replies.
    #[track_caller]
    pub fn replies(&mut self, n: usize) -> Vec<Reply> {
        (0..n).map(|_| self.reply()).collect()
    }

    /// The next reply, or how the connection ended (end of file, reset) or why it seems to hang (time-out).
    pub fn try_reply(&mut self) -> Result<Reply, String> {
        loop {
            if let Some((reply, len)) = decode(&self.received[self.taken..]) {
                self.taken += len;
                return Ok(reply);
            }
            self.read_some()?;
        }
    }

    /// The bytes that have come up to and including `end`, as they came.
    #[track_caller]
    pub fn bytes_until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut looked_at = self.taken;
        loop {
            if let Some(at) = self.received[looked_at..]
                .windows(end.len())
                .position(|window| window == end)
            {
                let stop = looked_at + at + end.len();
                let bytes = self.received[self.taken..stop].to_vec();
                self.taken = stop;
                return bytes;
            }
            looked_at = self.received.len().saturating_sub(end.len()).max(looked_at);
            if let Err(e) = self.read_some() {
                panic!(
                    "{e} before {}; unread: {}",
                    show(end),
                    show(&self.received[self.taken..])
                );
            }
        }
    }

    /// Everything up to the end of the connection, which must come. A reset counts as an end.
    #[track_caller]
    pub fn bytes_until_closed(&mut self) -> Vec<u8> {
        while self.is_open_after_read() {}
        self.received.split_off(std::mem::take(&mut self.taken))
    }

    #[track_caller]
    fn is_open_after_read(&mut self) -> bool {
        match self.read_some() {
            Ok(()) => true,
            Err(end) if end.starts_with("time-out") => {
                panic!("still open; unread: {}", show(&self.received[self.taken..]))
            }
            Err(_) => false,
        }
    }

    /// Bytes that were received and belong to no reply yet: after the end of the connection there must be none.
    pub fn unread(&self) -> &[u8] {
        &self.received[self.taken..]
    }

    /// The port of its own side.
    pub fn local_port(&self) -> u16 {
        let address = self.stream.local_addr();
        address.expect("it is connected").port()
    }

    /// How many bytes have come in all.
    pub fn received_bytes(&self) -> usize {
        self.received.len()
    }

    fn read_some(&mut self) -> Result<(), String> {
        let mut chunk = [0; 64 * 1024];
        let read = loop {
            match self.stream.read(&mut chunk) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => Err("end of file".to_string()),
            Ok(n) => {
                self.received.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(format!("time-out after {PATIENCE:?}"))
            }
            Err(e) => Err(e.to_string()),
        }
    }
}

/// The reply that `bytes` begin with and its length; `None` while it is incomplete.
pub fn decode(bytes: &[u8]) -> Option<(Reply, usize)> {
    let line_end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(&bytes[1..line_end]).into_owned();
    let head = line_end + 2;
    let number = || {
        line.parse::<i64>()
            .unwrap_or_else(|_| panic!("no number: {}", show(bytes)))
    };
    let marker = bytes[0];
    match marker {
        b'+' => Some((Reply::Simple(line), head)),
        b'-' => Some((Reply::Error(line), head)),
        b':' => Some((Reply::Int(number()), head)),
        b'_' => Some((Reply::Null, head)),
        b',' | b'#' | b'(' => Some((Reply::Scalar(char::from(marker), line), head)),
        b'$' if line == "-1" => Some((Reply::NullBulk, head)),
        b'*' if line == "-1" => Some((Reply::NullArray, head)),
        b'$' | b'=' => {
            let end = head + usize::try_from(number()).expect("a length is not negative");
            let body = bytes.get(head..end)?.to_vec();
            let tail = bytes.get(end..end + 2)?;
            assert_eq!(
                tail,
                b"\r\n",
                "a string ends where its length says: {}",
                show(bytes)
            );
            Some((
                if marker == b'$' {
                    Reply::Bulk(body)
                } else {
                    Reply::Verbatim(body)
                },
                end + 2,
            ))
        }
        b'*' | b'~' | b'>' => {
            let (items, len) = decode_items(bytes, head, number())?;
            let reply = match marker {
                b'*' => Reply::Array(items),
                b'~' => Reply::Set(items),
                _ => Reply::Push(items),
            };
            Some((reply, len))
        }
        b'%' => {
            decode_items(bytes, head, number() * 2).map(|(items, len)| (Reply::Map(items), len))
        }
        _ => panic!("no reply: {}", show(bytes)),
    }
}

fn decode_items(bytes: &[u8], mut at: usize, count: i64) -> Option<(Vec<Reply>, usize)> {
    let mut items = Vec::new();
    for _ in 0..count {
        let (item, len) = decode(&bytes[at..])?;
        items.push(item);
        at += len;
    }
    Some((items, at))
}
