//! What the proxy answers itself: who the client is, what the connection is, and how the proxy is doing.
#![forbid(unsafe_code)]

use super::Engine;
use super::clients::Handled;
use crate::client::CloseReason;
use crate::command::LocalCommand;
use crate::config::Coherence;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::write::{self, Version};
use crate::stats::{Counter, ROWS};
use std::borrow::Cow;
use std::fmt::Write;

const NO_CLUSTER: &[u8] = b"ERR This instance has cluster support disabled";
const BAD_NAME: &[u8] = b"ERR Client names cannot contain spaces, newlines or special characters.";
const NO_PASSWORD: &[u8] =
    b"ERR AUTH <password> called without any password configured for the default user. \
Are you sure your configuration is correct?";
const WRONG_PASSWORD: &[u8] = b"WRONGPASS invalid username-password pair or user is disabled.";
const SYNTAX: &[u8] = b"ERR syntax error";

impl Engine {
    /// Answers one of the proxy's own commands. Its number of arguments is right.
    pub(super) fn answer_local(
        &mut self,
        ix: usize,
        command: LocalCommand,
        request: &Request<'_>,
    ) -> Handled {
        self.stats.count(Counter::Local);
        let first = request.args().nth(1).unwrap_or_default();
        match command {
            LocalCommand::Ping => self.answer_ping(ix, request),
            LocalCommand::Echo => {
                self.clients[ix].reply_with(&mut self.pool, |out| write::bulk(out, first))
            }
            LocalCommand::Quit => {
                self.clients[ix].reply(b"+OK\r\n", &mut self.pool);
                self.finish_client(ix, CloseReason::Asked);
            }
            LocalCommand::Hello => return self.hello(ix, request),
            LocalCommand::Auth => self.auth(ix, request),
            LocalCommand::Select => self.select(ix, first),
            LocalCommand::Reset => {
                let client = &mut self.clients[ix];
                client.version = Version::Resp2;
                client.db = self.config.redis_url.db;
                client.name = None;
                client.reply(b"+RESET\r\n", &mut self.pool);
            }
            LocalCommand::Readonly
            | LocalCommand::Readwrite
            | LocalCommand::Asking
            | LocalCommand::Cluster => {
                self.reply_error(ix, NO_CLUSTER);
            }
            LocalCommand::ClientId => {
                let number = i64::try_from(self.clients[ix].number).unwrap_or(i64::MAX);
                self.clients[ix].reply_with(&mut self.pool, |out| write::integer(out, number));
            }
            LocalCommand::ClientGetname => self.getname(ix),
            LocalCommand::ClientSetname => {
                let name = request.args().nth(2).unwrap_or_default();
                match self.set_name(ix, name) {
                    Ok(()) => self.clients[ix].reply(b"+OK\r\n", &mut self.pool),
                    Err(text) => self.reply_error(ix, text),
                }
            }
            LocalCommand::ClientSetinfo => {
                self.setinfo(ix, request.args().nth(2).unwrap_or_default())
            }
            LocalCommand::ClientNoEvict | LocalCommand::ClientNoTouch => {
                let mode = request.args().nth(2).unwrap_or_default();
                if mode.eq_ignore_ascii_case(b"on") || mode.eq_ignore_ascii_case(b"off") {
                    self.clients[ix].reply(b"+OK\r\n", &mut self.pool);
                } else {
                    self.reply_error(ix, SYNTAX);
                }
            }
            LocalCommand::Info
            | LocalCommand::ClientInfo
            | LocalCommand::ClientList
            | LocalCommand::ClientKill
            | LocalCommand::ClientUnblock
            | LocalCommand::ClientReply => {
                let name = self
                    .table
                    .find(request.args())
                    .name()
                    .replace('|', " ")
                    .to_uppercase();
                let text =
                    format!("ERR nearcache: command '{name}' is not offered by this version");
                self.reply_error(ix, text.as_bytes());
            }
        }
        Handled::Done
    }

    /// PING is answered here only while Redis answers.
    fn answer_ping(&mut self, ix: usize, request: &Request<'_>) {
        if let Some(why) = self.upstream.away() {
            let text = format!("ERR nearcache: Redis is not reachable: {why}");
            return self.reply_error(ix, text.as_bytes());
        }
        if request.argc() > 2 {
            return self.reply_error(ix, b"ERR wrong number of arguments for 'ping' command");
        }
        let client = &mut self.clients[ix];
        match request.args().nth(1) {
            None => client.reply(b"+PONG\r\n", &mut self.pool),
            Some(text) => client.reply_with(&mut self.pool, |out| write::bulk(out, text)),
        }
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`. Nothing changes unless all of it is right.
    fn hello(&mut self, ix: usize, request: &Request<'_>) -> Handled {
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

    fn auth(&mut self, ix: usize, request: &Request<'_>) {
        let (user, password) = match request.argc() {
            2 => (&b"default"[..], request.args().nth(1).unwrap_or_default()),
            3 => (
                request.args().nth(1).unwrap_or_default(),
                request.args().nth(2).unwrap_or_default(),
            ),
            _ => return self.reply_error(ix, SYNTAX),
        };
        if request.argc() == 2 && self.config.redis_url.password.is_none() {
            return self.reply_error(ix, NO_PASSWORD);
        }
        if self.credentials_match(user, password) {
            self.clients[ix].reply(b"+OK\r\n", &mut self.pool);
        } else {
            self.reply_error(ix, WRONG_PASSWORD);
        }
    }

    /// Whether these are the credentials this proxy itself has. Without a password in `REDIS_URL` the default user needs
    /// none, as in Redis. Compared in a time that depends on the lengths only.
    fn credentials_match(&self, user: &[u8], password: &[u8]) -> bool {
        let url = &self.config.redis_url;
        let user_is_right = same(
            url.username.as_deref().unwrap_or("default").as_bytes(),
            user,
        );
        let password_is_right = url
            .password
            .as_ref()
            .is_none_or(|ours| same(ours.as_bytes(), password));
        user_is_right & password_is_right
    }

    fn select(&mut self, ix: usize, db: &[u8]) {
        let number = std::str::from_utf8(db)
            .ok()
            .and_then(|text| text.parse::<u32>().ok());
        let served = self.config.redis_url.db;
        match number {
            Some(number) if number == served => self.clients[ix].reply(b"+OK\r\n", &mut self.pool),
            Some(_) => {
                let text = format!("ERR nearcache: this version serves database {served} only");
                self.reply_error(ix, text.as_bytes());
            }
            None => self.reply_error(ix, b"ERR value is not an integer or out of range"),
        }
    }

    fn getname(&mut self, ix: usize) {
        let client = &mut self.clients[ix];
        let (name, version) = (client.name.clone(), client.version);
        client.reply_with(&mut self.pool, |out| match &name {
            Some(name) => write::bulk(out, name),
            None => write::null(out, version),
        });
    }

    fn set_name(&mut self, ix: usize, name: &[u8]) -> Result<(), &'static [u8]> {
        if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
            return Err(BAD_NAME);
        }
        self.clients[ix].name = (!name.is_empty()).then(|| name.into());
        Ok(())
    }

    fn setinfo(&mut self, ix: usize, attribute: &[u8]) {
        if attribute.eq_ignore_ascii_case(b"lib-name") || attribute.eq_ignore_ascii_case(b"lib-ver")
        {
            return self.clients[ix].reply(b"+OK\r\n", &mut self.pool);
        }
        let mut text = b"ERR Unrecognized option '".to_vec();
        text.extend(attribute.iter().take(128));
        text.push(b'\'');
        self.reply_error(ix, &text);
    }

    /// Our section of INFO.
    pub(super) fn info_section(&self) -> String {
        let mut out = String::from("# Nearcache\r\n");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            write!(out, "nearcache_{name}:{value}\r\n").expect("a string takes everything");
        };
        line("version", &env!("CARGO_PKG_VERSION"));
        line("pid", &self.pid);
        line("uptime_in_seconds", &self.now.since(self.started).as_secs());
        line("state", &self.upstream.state_name());
        line("coherence", &self.coherence_name());
        line("staleness_bound_ms", &self.bound().as_millis());
        match self.worst_staleness() {
            Some(worst) => line("staleness_now_ms", &worst.as_millis()),
            None => line("staleness_now_ms", &"no_hits"),
        }
        line("entries", &self.cache.len());
        line("bytes", &self.cache.bytes());
        line("clients", &self.clients.len());
        line("links", &self.links.len());
        line("in_flight", &self.admission.in_flight());
        line("queued_now", &self.admission.waiting());
        line("timers", &self.timers.len());
        for row in ROWS {
            line(row.name, &self.stats.get(row.counter));
        }
        if self.coherence == Coherence::Tracking {
            for (name, value) in self.measures.rows() {
                line(&name, &value);
            }
        }
        for (name, count) in &self.relayed_reads {
            line(&format!("relayed_reads_{}", name.replace('|', "_")), count);
        }
        out
    }
}

fn same(ours: &[u8], theirs: &[u8]) -> bool {
    let difference = ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b));
    ours.len() == theirs.len() && difference == 0
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

/// The reply to INFO with `section` behind what Redis said; an error is left as it is.
pub(super) fn extend_info(reply: &[u8], section: &[u8]) -> Vec<u8> {
    let (Some(head), true) = (
        reply.windows(2).position(|pair| pair == b"\r\n"),
        reply.ends_with(b"\r\n"),
    ) else {
        return reply.to_vec();
    };
    let kind = reply[0];
    if !matches!(kind, b'$' | b'=') || reply.len() < head + 4 {
        return reply.to_vec();
    }
    let text = &reply[head + 2..reply.len() - 2];
    let mut out = Vec::with_capacity(reply.len() + section.len() + 16);
    out.push(kind);
    write::decimal(&mut out, (text.len() + 2 + section.len()) as i64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(section);
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_extended_in_either_form_and_errors_are_not() {
        assert_eq!(
            extend_info(b"$3\r\na:1\r\n", b"# N\r\n"),
            b"$10\r\na:1\r\n# N\r\n\r\n"
        );
        assert_eq!(
            extend_info(b"=7\r\ntxt:a:1\r\n", b"# N\r\n"),
            b"=14\r\ntxt:a:1\r\n# N\r\n\r\n"
        );
        assert_eq!(extend_info(b"-NOAUTH x\r\n", b"# N\r\n"), b"-NOAUTH x\r\n");
        assert_eq!(extend_info(b"$-1\r\n", b"# N\r\n"), b"$-1\r\n");
    }

    #[test]
    fn credentials_are_the_same_only_when_every_byte_is() {
        assert!(same(b"secret", b"secret"));
        assert!(!same(b"secret", b"secres"));
        assert!(!same(b"secret", b"secre"));
        assert!(!same(b"", b"x"));
    }
}
