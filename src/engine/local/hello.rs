//! HELLO: which version a client is answered in, and what it learns of the server: what Redis says of itself, but that
//! the id is the client's own here and that no cluster is to be seen.
#![forbid(unsafe_code)]

use super::auth::Said;
use crate::client::HelloRest;
use crate::command::keys::is_word;
use crate::command::row::REPLY_DEPTH_MAX;
use crate::engine::Engine;
use crate::engine::clients::Handled;
use crate::engine::upstream::{Availability, Upstream};
use crate::protocol::Parse;
use crate::protocol::resp::number;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::value::{self, Value};
use crate::protocol::resp::write::{self, Version};
use std::borrow::Cow;

const NO_AUTH: &[u8] = b"NOAUTH HELLO must be called with the client already authenticated, otherwise the \
HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version \
at the same time";

/// What Redis says of itself in answer to HELLO. Nothing, where it does not know HELLO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engine) struct Greeting {
    /// `redis`, or what another server calls itself.
    server: Option<Vec<u8>>,
    /// Its version: not always that of INFO, for servers that have one of their own beside Redis's.
    version: Option<Vec<u8>>,
    /// The list of its modules, as RESP2 and as RESP3.
    modules: Option<[Vec<u8>; 2]>,
}

impl Greeting {
    /// Reads the reply.
    pub(in crate::engine) fn read(reply: &[u8]) -> Greeting {
        let Parse::Done((hello, _)) = value::decode(reply, REPLY_DEPTH_MAX) else {
            return Greeting::default();
        };
        let text = |name: &[u8]| Some(hello.map_get(name)?.as_bytes()?.to_vec());
        let modules = hello.map_get(b"modules").map(|modules| {
            let modules = Value::Array(
                modules
                    .as_array()
                    .unwrap_or_default()
                    .iter()
                    .map(as_map)
                    .collect(),
            );
            [Version::Resp2, Version::Resp3].map(|version| {
                let mut out = Vec::new();
                modules.write(&mut out, version);
                out
            })
        });
        Greeting {
            server: text(b"server"),
            version: text(b"version"),
            modules,
        }
    }

    /// As the answer to a client.
    fn write(&self, out: &mut Vec<u8>, version: Version, number: i64, upstream: &Upstream) {
        let text = |out: &mut Vec<u8>, name: &str, text: &[u8]| {
            write::bulk(out, name.as_bytes());
            write::bulk(out, text);
        };
        let of_info = upstream.version.as_deref().unwrap_or_default();
        write::map_head(out, version, 7);
        text(out, "server", self.server.as_deref().unwrap_or(b"redis"));
        text(
            out,
            "version",
            self.version.as_deref().unwrap_or(of_info.as_bytes()),
        );
        write::bulk(out, b"proto");
        write::integer(out, if version == Version::Resp3 { 3 } else { 2 });
        write::bulk(out, b"id");
        write::integer(out, number);
        text(out, "mode", b"standalone");
        text(out, "role", upstream.role().as_bytes());
        write::bulk(out, b"modules");
        match (&self.modules, version) {
            (Some([resp2, _]), Version::Resp2) => out.extend_from_slice(resp2),
            (Some([_, resp3]), Version::Resp3) => out.extend_from_slice(resp3),
            (None, _) => write::array_head(out, 0),
        }
    }
}

/// A module's description: a map, which RESP2 writes as a flat array.
fn as_map<'b>(module: &Value<'b>) -> Value<'b> {
    match module {
        Value::Array(flat) => Value::Map(
            flat.chunks_exact(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect(),
        ),
        map => map.clone(),
    }
}

/// What a HELLO asks for. Its arguments are right.
#[derive(Debug, Clone, Copy)]
struct Asked<'b> {
    /// `None` changes nothing.
    version: Option<Version>,
    credentials: Option<Said<'b>>,
    name: Option<&'b [u8]>,
}

impl Engine {
    /// `HELLO [version [AUTH user password] [SETNAME name]]`. Nothing changes unless all of it is right.
    pub(super) fn hello(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        // Who may not ask INFO has it from HELLO, or not at all.
        if self.upstream.version.is_none() && self.upstream.availability != Availability::Up {
            if self.upstream.away().is_some() {
                self.refuse_away(ix, None, None);
                return Handled::Done;
            }
            if self.upstream.availability == Availability::Busy {
                self.reply_error(
                    ix,
                    b"ERR nearcache: Redis is busy and has not said its version yet",
                );
                return Handled::Done;
            }
            return self.hold_for_upstream(ix);
        }
        match read(request) {
            Err(text) => self.reply_error(ix, &text),
            Ok(asked) => {
                if let (Some(Version::Resp3), Some(why)) =
                    (asked.version, &self.upstream.hello_refused)
                {
                    // No link could speak as this client would then expect: it is told what Redis itself would say.
                    let why = why.clone();
                    self.reply_error(ix, &why);
                    return Handled::Done;
                }
                match asked.credentials {
                    Some(said) if self.is_own(said) => self.clients[ix].authenticated = true,
                    Some(said) => {
                        let rest = HelloRest {
                            version: asked.version,
                            name: asked.name.map(Box::from),
                        };
                        return self.ask_redis(ix, said, Some(rest));
                    }
                    None if !self.clients[ix].authenticated => {
                        self.reply_error(ix, NO_AUTH);
                        return Handled::Done;
                    }
                    None => {}
                }
                let greeting = self.greeting(ix, asked.version, asked.name);
                self.clients[ix].reply(&greeting, &mut self.pool);
            }
        }
        Handled::Done
    }

    /// The reply to a HELLO of a client that may be greeted; its name is the last thing that may be wrong.
    pub(super) fn greeting(
        &mut self,
        ix: usize,
        version: Option<Version>,
        name: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(name) = name
            && let Err(text) = self.set_name(ix, name)
        {
            write::error(&mut out, text);
            return out;
        }
        let client = &mut self.clients[ix];
        client.version = version.unwrap_or(client.version);
        let (version, number) = (client.version, client.number);
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let upstream = &self.upstream;
        upstream.greeting.write(&mut out, version, number, upstream);
        out
    }
}

/// Reads the arguments in Redis's order, for the sake of which error comes first.
fn read<'b>(request: &Request<'b>) -> Result<Asked<'b>, Cow<'static, [u8]>> {
    let mut args = request.args().skip(1);
    let version = match args.next().map(number::parse) {
        None => None,
        Some(Some(2)) => Some(Version::Resp2),
        Some(Some(3)) => Some(Version::Resp3),
        Some(Some(_)) => return Err(Cow::Borrowed(b"NOPROTO unsupported protocol version")),
        Some(None) => {
            return Err(Cow::Borrowed(
                b"ERR Protocol version is not an integer or out of range",
            ));
        }
    };
    let mut asked = Asked {
        version,
        credentials: None,
        name: None,
    };
    while let Some(option) = args.next() {
        if is_word(option, b"auth") {
            let (Some(user), Some(password)) = (args.next(), args.next()) else {
                return Err(syntax_error(option));
            };
            asked.credentials = Some(Said {
                user: Some(user),
                password,
            });
        } else if is_word(option, b"setname") {
            asked.name = Some(args.next().ok_or_else(|| syntax_error(option))?);
        } else {
            return Err(syntax_error(option));
        }
    }
    Ok(asked)
}

/// The credentials in a HELLO whose arguments are right.
pub(super) fn said_in_hello<'b>(request: &Request<'b>) -> Option<Said<'b>> {
    read(request).ok()?.credentials
}

fn syntax_error(option: &[u8]) -> Cow<'static, [u8]> {
    Cow::Owned(super::quoting(
        b"ERR Syntax error in HELLO option '",
        option,
        b"'",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_told_in_the_clients_version_whatever_redis_was_asked_in() {
        let flat = b"*4\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n$7\r\nmodules\r\n*1\r\n*4\r\n$4\r\nname\r\n$2\r\nbf\r\n$3\r\nver\r\n:2\r\n";
        let map = b"%2\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n$7\r\nmodules\r\n*1\r\n%2\r\n$4\r\nname\r\n$2\r\nbf\r\n$3\r\nver\r\n:2\r\n";
        let (flat, map) = (Greeting::read(flat), Greeting::read(map));
        assert_eq!(flat, map);
        assert_eq!(
            map.modules,
            Some([
                b"*1\r\n*4\r\n$4\r\nname\r\n$2\r\nbf\r\n$3\r\nver\r\n:2\r\n".to_vec(),
                b"*1\r\n%2\r\n$4\r\nname\r\n$2\r\nbf\r\n$3\r\nver\r\n:2\r\n".to_vec()
            ])
        );
        assert_eq!(map.version.as_deref(), Some(&b"7.4.0"[..]));
        assert_eq!(
            Greeting::read(b"-ERR unknown command 'HELLO'\r\n"),
            Greeting::default()
        );
    }
}
