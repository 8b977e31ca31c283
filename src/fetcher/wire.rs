//! A worker's connection: the `redis` crate's own where Redis is spoken to as it is, the crate's parser over a stream of TLS
//! where it is not.
//!
//! The crate could do TLS too, but in its own way: with a set of certificates of its own, no other name than that of the
//! host, and no word for what went wrong. Here it is what the links use.
#![forbid(unsafe_code)]

use crate::config::RedisUrl;
use crate::tls;
use redis::{Parser, RedisError, RedisResult, Value};
use std::io::Write;
use std::time::Duration;

/// See the module.
pub(super) enum Wire {
    /// The crate's.
    Plain(redis::Connection),
    /// Over TLS.
    Tls(Box<Secured>),
}

/// A stream of TLS and what has been read of it.
pub(super) struct Secured {
    stream: tls::blocking::Stream,
    parser: Parser,
}

impl Wire {
    /// Sends these bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> RedisResult<()> {
        match self {
            Wire::Plain(connection) => connection.send_packed_command(bytes),
            Wire::Tls(secured) => {
                secured.stream.write_all(bytes)?;
                Ok(secured.stream.flush()?)
            }
        }
    }

    /// The next reply.
    pub(super) fn recv(&mut self) -> RedisResult<Value> {
        match self {
            Wire::Plain(connection) => connection.recv_response(),
            Wire::Tls(secured) => secured.parser.parse_value(&mut secured.stream),
        }
    }

    /// How long a read may take.
    pub(super) fn set_read_timeout(&self, timeout: Duration) -> RedisResult<()> {
        match self {
            Wire::Plain(connection) => connection.set_read_timeout(Some(timeout)),
            Wire::Tls(secured) => Ok(secured.stream.sock.set_read_timeout(Some(timeout))?),
        }
    }
}

impl Secured {
    /// Connects (every address of the name in turn, each with the connect time-out, the handshake within it) and
    /// authenticates.
    pub(super) fn connect(
        url: &RedisUrl,
        tls: &tls::Upstream,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Result<Secured, String> {
        let (stream, _) = tls.connect(&url.host, url.port, connect_timeout)?;
        Secured::greet(stream, url, timeout)
    }

    fn greet(
        stream: tls::blocking::Stream,
        url: &RedisUrl,
        timeout: Duration,
    ) -> Result<Secured, String> {
        let words = |e: RedisError| e.to_string();
        let set = |e: std::io::Error| e.to_string();
        stream.sock.set_read_timeout(Some(timeout)).map_err(set)?;
        stream.sock.set_write_timeout(Some(timeout)).map_err(set)?;
        let mut secured = Secured {
            stream,
            parser: Parser::new(),
        };
        if let Some(password) = &url.password {
            let mut command = redis::cmd("AUTH");
            if let Some(username) = &url.username {
                command.arg(username);
            }
            command.arg(password.text());
            let packed = command.get_packed_command();
            secured.stream.write_all(&packed).map_err(set)?;
            secured.stream.flush().map_err(set)?;
            match secured
                .parser
                .parse_value(&mut secured.stream)
                .map_err(words)?
            {
                Value::Okay => {}
                Value::ServerError(e) => return Err(url.without_password(&format!("{e:?}"))),
                _ => return Err("AUTH was answered with something else".to_owned()),
            }
        }
        Ok(secured)
    }
}
