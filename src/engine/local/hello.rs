//! HELLO: which version a client is answered in, and what it learns of the server.
#![forbid(unsafe_code)]

use super::auth::WRONG_PASSWORD;
use crate::engine::Engine;
use crate::engine::clients::Handled;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::write::{self, Version};
use std::borrow::Cow;

impl Engine {
    /// `HELLO [version [AUTH user password] [SETNAME name]]`. Nothing changes unless all of it is right.
    pub(super) fn hello(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        let Some(server_version) = self.upstream.version.clone() else {
            if let Some(why) = self.upstream.away() {
                let text = format!("ERR nearcache: Redis is not reachable: {why}");
                self.reply_error(ix, text.as_bytes());
                return Handled::Done;
            }
            return self.hold_for_upstream(ix);
        };
        match self.read_hello(ix, request) {
            Err(text) => self.reply_error(ix, &text),
            Ok(version) => {
                let client = &mut self.clients[ix];
                client.version = version;
                let number = i64::try_from(client.number).unwrap_or(i64::MAX);
                client.reply_with(&mut self.pool, |out| {
                    write_hello(out, version, &server_version, number)
                });
            }
        }
        Handled::Done
    }

    fn read_hello(
        &mut self,
        ix: usize,
        request: &Request<'_>,
    ) -> Result<Version, Cow<'static, [u8]>> {
        let mut args = request.args().skip(1);
        let version = match args.next() {
            None => self.clients[ix].version,
            Some(b"2") => Version::Resp2,
            Some(b"3") => Version::Resp3,
            Some(text) => {
                let number = std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse::<i64>().ok());
                return Err(match number {
                    Some(_) => Cow::Borrowed(b"NOPROTO unsupported protocol version"),
                    None => {
                        Cow::Borrowed(b"ERR Protocol version is not an integer or out of range")
                    }
                });
            }
        };
        let mut name = None;
        while let Some(option) = args.next() {
            if option.eq_ignore_ascii_case(b"auth") {
                let (Some(user), Some(password)) = (args.next(), args.next()) else {
                    return Err(hello_syntax(option));
                };
                if !self.credentials_match(user, password) {
                    return Err(Cow::Borrowed(WRONG_PASSWORD));
                }
            } else if option.eq_ignore_ascii_case(b"setname") {
                name = Some(args.next().ok_or_else(|| hello_syntax(option))?);
            } else {
                return Err(hello_syntax(option));
            }
        }
        if let Some(name) = name {
            self.set_name(ix, name).map_err(Cow::Borrowed)?;
        }
        Ok(version)
    }
}

fn hello_syntax(option: &[u8]) -> Cow<'static, [u8]> {
    let mut text = b"ERR Syntax error in HELLO option '".to_vec();
    text.extend(option.iter().take(128));
    text.push(b'\'');
    Cow::Owned(text)
}

fn write_hello(out: &mut Vec<u8>, version: Version, server_version: &str, number: i64) {
    write::map_head(out, version, 7);
    for (name, text) in [("server", "redis"), ("version", server_version)] {
        write::bulk(out, name.as_bytes());
        write::bulk(out, text.as_bytes());
    }
    write::bulk(out, b"proto");
    write::integer(out, if version == Version::Resp3 { 3 } else { 2 });
    write::bulk(out, b"id");
    write::integer(out, number);
    for (name, text) in [("mode", "standalone"), ("role", "master")] {
        write::bulk(out, name.as_bytes());
        write::bulk(out, text.as_bytes());
    }
    write::bulk(out, b"modules");
    write::array_head(out, 0);
}
