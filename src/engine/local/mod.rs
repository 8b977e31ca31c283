//! What the proxy answers itself: who the client is, what the connection is, and how the proxy is doing.
//!
//! Here is which command is answered by what; `hello.rs`, `auth.rs`, `select.rs`, `client_command.rs` and `info.rs` do it.
#![forbid(unsafe_code)]

mod auth;
mod client_command;
mod hello;
mod info;
mod select;

use super::Engine;
use super::clients::Handled;
use crate::client::CloseReason;
use crate::command::LocalCommand;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::write::{self, Version};
use crate::stats::Counter;
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
            LocalCommand::Select => return self.select(ix, first, request),
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
}
