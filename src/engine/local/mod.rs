//! What the proxy answers itself: who the client is, what the connection is, and how the proxy is doing.
//!
//! Here is which command is answered by what; `hello.rs`, `auth.rs`, `select.rs`, `client_command.rs`,
//! `client_list.rs`, `info.rs` and `nearcache.rs` do it.
#![forbid(unsafe_code)]

mod auth;
mod client_command;
mod client_list;
mod hello;
mod info;
mod nearcache;
mod select;

use super::Engine;
use super::clients::Handled;
use super::relay::Road;
use crate::client::{CloseReason, Mute};
use crate::command::LocalCommand;
use crate::protocol::resp::number;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::write::{self, Version};
use crate::stats::Counter;
pub(super) use auth::http_policy;
pub(super) use client_command::{LONG_NAME, NAME_BYTES_MAX};
pub(super) use hello::Greeting;
pub(super) use info::extend_info;

const NO_CLUSTER: &[u8] = b"ERR This instance has cluster support disabled";
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
        let second = request.args().nth(2).unwrap_or_default();
        match command {
            LocalCommand::Ping => return self.answer_ping(ix, request),
            LocalCommand::Echo => {
                self.clients[ix].reply_with(&mut self.pool, |out| write::bulk(out, first))
            }
            LocalCommand::Quit => {
                self.reply_ok(ix);
                self.finish_client(ix, CloseReason::Asked);
            }
            LocalCommand::Hello => return self.hello(ix, request),
            LocalCommand::Auth => return self.auth(ix, request),
            LocalCommand::Select => return self.select(ix, first, request),
            LocalCommand::Reset => self.reset(ix),
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
            LocalCommand::ClientSetname => match self.set_name(ix, second) {
                Ok(()) => self.reply_ok(ix),
                Err(text) => self.reply_error(ix, text),
            },
            LocalCommand::ClientSetinfo => {
                let value = request.args().nth(3).unwrap_or_default();
                self.setinfo(ix, second, value);
            }
            LocalCommand::ClientNoEvict => self.note_switch(ix, second, false),
            LocalCommand::ClientNoTouch => self.note_switch(ix, second, true),
            LocalCommand::ClientReply => self.choose_replies(ix, second),
            LocalCommand::ClientInfo => self.client_info(ix),
            LocalCommand::ClientList => self.client_list(ix, request),
            LocalCommand::ClientKill => self.client_kill(ix, request),
            LocalCommand::ClientUnblock => return self.client_unblock(ix, request),
            LocalCommand::Nearcache => self.nearcache(ix, request),
            LocalCommand::Info => debug_assert!(false, "INFO goes upstream"),
        }
        Handled::Done
    }

    /// PING is answered here only while Redis answers. While it runs a script it may not, and says so itself.
    fn answer_ping(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        if self.upstream.away().is_some() {
            self.refuse_away(ix, None, None);
            return Handled::Done;
        }
        if self.scripts > 0 || self.upstream.is_busy() {
            let judgement = self.judge(request);
            return self.relay_command(ix, request, judgement, Road::Shared);
        }
        if request.argc() > 2 {
            self.reply_error(ix, b"ERR wrong number of arguments for 'ping' command");
            return Handled::Done;
        }
        let client = &mut self.clients[ix];
        match request.args().nth(1) {
            None => client.reply(b"+PONG\r\n", &mut self.pool),
            Some(text) => client.reply_with(&mut self.pool, |out| write::bulk(out, text)),
        }
        Handled::Done
    }

    /// RESET: the connection is as it was when it was opened. Replies that are owed are still sent.
    fn reset(&mut self, ix: usize) {
        let demands_password = self.demands_password();
        let client = &mut self.clients[ix];
        client.version = Version::Resp2;
        client.db = self.config.redis_url.db;
        client.mute = Mute::Off;
        client.authenticated = !demands_password;
        if let Some(extras) = &mut client.extras {
            extras.admin = false;
        }
        // The names of the library stay: it is still the one behind the connection.
        client.set_name(None);
        client.reply(b"+RESET\r\n", &mut self.pool);
    }

    /// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`: a client that waits does so on its own link, which Redis knows by another id.
    fn client_unblock(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        if let Err(text) = read_unblock(request) {
            self.reply_error(ix, &text);
            return Handled::Done;
        }
        match self.unblock_upstream(ix, request) {
            Some(handled) => handled,
            None => {
                self.clients[ix].reply_with(&mut self.pool, |out| write::integer(out, 0));
                Handled::Done
            }
        }
    }

    fn reply_ok(&mut self, ix: usize) {
        self.clients[ix].reply(b"+OK\r\n", &mut self.pool);
    }

    /// A text for people, in the client's version.
    fn reply_text(&mut self, ix: usize, text: &[u8]) {
        let client = &mut self.clients[ix];
        let version = client.version;
        client.reply_with(&mut self.pool, |out| write::text(out, version, text));
    }
}

/// What is wrong with a CLIENT UNBLOCK, in Redis's words.
fn read_unblock(request: &Request<'_>) -> Result<(), Vec<u8>> {
    if request.argc() > 4 {
        let name = request.args().nth(1).unwrap_or_default();
        let before = b"ERR unknown subcommand or wrong number of arguments for '";
        return Err(quoting(before, name, b"'. Try CLIENT HELP."));
    }
    let mut args = request.args().skip(2);
    let id = number::parse(args.next().unwrap_or_default());
    let reason = args.next();
    let is_reason =
        |word: &[u8]| word.eq_ignore_ascii_case(b"timeout") || word.eq_ignore_ascii_case(b"error");
    if !reason.is_none_or(is_reason) {
        return Err(b"ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".to_vec());
    }
    match id {
        Some(_) => Ok(()),
        None => Err(b"ERR value is not an integer or out of range".to_vec()),
    }
}

/// An error that quotes what the client sent, as Redis quotes it: up to the first NUL, where its strings end.
fn quoting(before: &[u8], quoted: &[u8], behind: &[u8]) -> Vec<u8> {
    let end = quoted.iter().position(|byte| *byte == 0);
    [before, &quoted[..end.unwrap_or(quoted.len())], behind].concat()
}
