//! An HTTP/1 client that sends exactly the bytes it is given and reads one response after the other.

use super::{PATIENCE, show};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};

/// One response with its body.
#[derive(Debug, Clone)]
pub struct Response {
    /// 200, 404 ...
    pub status: u16,
    /// `HTTP/1.1 200 OK`
    pub status_line: String,
    /// In the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// `Content-Length` bytes, or none when the response has no body by nature.
    pub body: Vec<u8>,
}

impl Response {
    /// The values of a header that may be there more than once.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        let named = self
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a header that is there at most once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        first
    }

    /// `Cache-Status`, which every answer about a key has.
    #[track_caller]
    pub fn cache_status(&self) -> &str {
        self.header("cache-status")
            .unwrap_or_else(|| panic!("no Cache-Status: {self:?}"))
    }

    /// Whether it was answered from the proxy's memory.
    #[track_caller]
    pub fn is_hit(&self) -> bool {
        self.cache_status()
            .split(';')
            .any(|part| part.trim() == "hit")
    }
}

/// The target that asks for a key: each byte that is no letter or digit is percent-encoded.
pub fn target_of(key: impl AsRef<[u8]>) -> String {
    let mut target = "/get?key=".to_string();
    for &byte in key.as_ref() {
        if byte.is_ascii_alphanumeric() {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
    target
}

/// A complete HTTP/1.1 request for a key.
pub fn request_for(method: &str, key: impl AsRef<[u8]>) -> Vec<u8> {
    format!(
        "{method} {} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        target_of(key)
    )
    .into_bytes()
}

/// One TCP connection.
pub struct HttpClient {
    stream: TcpStream,
    received: Vec<u8>,
}

impl HttpClient {
    /// Connects over IPv4 loopback; panics when nobody listens.
    #[track_caller]
    pub fn connect(port: u16) -> HttpClient {
        HttpClient::try_connect(port).unwrap_or_else(|| panic!("nobody listens on port {port}"))
    }

    /// The same, `None` when nobody listens.
    pub fn try_connect(port: u16) -> Option<HttpClient> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(HttpClient {
            stream,
            received: Vec::new(),
        })
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .unwrap_or_else(|e| panic!("sending {}: {e}", show(bytes)));
    }

    /// Says that nothing more will be sent (FIN); responses are still read.
    pub fn finish_sending(&self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("an open connection can be half closed");
    }

    /// Sends to a connection that the other side may have closed already, and finishes.
    pub fn try_send_and_finish(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// `GET /get?key=` for this key.
    #[track_caller]
    pub fn get(&mut self, key: impl AsRef<[u8]>) -> Response {
        self.send(&request_for("GET", key));
        self.response()
    }

    /// `HEAD /get?key=` for this key.
    #[track_caller]
    pub fn head(&mut self, key: impl AsRef<[u8]>) -> Response {
        self.send(&request_for("HEAD", key));
        self.response_to_head()
    }

    /// `GET` of any target.
    #[track_caller]
    pub fn get_target(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        self.response()
    }

    /// The next response, with its body.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.read_response(true)
    }

    /// The next response, to a HEAD: `Content-Length` is there, the body is not.
    #[track_caller]
    pub fn response_to_head(&mut self) -> Response {
        self.read_response(false)
    }

    #[track_caller]
    fn read_response(&mut self, with_body: bool) -> Response {
        let head_end = loop {
            if let Some(at) = self
                .received
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break at;
            }
            self.must_read_some();
        };
        let head = String::from_utf8(self.received[..head_end].to_vec()).expect("a head is text");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("split yields something").to_string();
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|s| s.parse().ok());
        let status: u16 =
            status.unwrap_or_else(|| panic!("no status line: {}", show(&self.received)));
        let headers = lines.map(|line| {
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("no header: {line}"));
            (name.to_ascii_lowercase(), value.trim().to_string())
        });
        let mut response = Response {
            status,
            status_line,
            headers: headers.collect(),
            body: Vec::new(),
        };
        let body_len = if with_body && status != 304 && status >= 200 {
            let length = response
                .header("content-length")
                .expect("a response says how long its body is");
            length.parse().expect("Content-Length is a number")
        } else {
            0
        };
        let end = head_end + 4 + body_len;
        while self.received.len() < end {
            self.must_read_some();
        }
        response.body = self.received[head_end + 4..end].to_vec();
        self.received.drain(..end);
        response
    }

    /// Reads to the end of the connection, which must come; returns what came before it.
    #[track_caller]
    pub fn bytes_until_closed(&mut self) -> Vec<u8> {
        loop {
            match self.read_some() {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!(
                        "still open after {PATIENCE:?}; unread: {}",
                        show(&self.received)
                    )
                }
                Err(_) => return std::mem::take(&mut self.received),
            }
        }
    }

    #[track_caller]
    fn must_read_some(&mut self) {
        if let Err(e) = self.read_some() {
            panic!(
                "{e} instead of a response; unread: {}",
                show(&self.received)
            );
        }
    }

    fn read_some(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => {
                self.received.extend_from_slice(&chunk[..n]);
                Ok(())
            }
        }
    }
}
