//! AUTH: who a client is.
//!
//! If `REDIS_URL` has a password, a client must say it before anything else (`CLIENT_AUTH=none` lets it in without).
//! Credentials equal to those of `REDIS_URL` are the proxy's own: cache and shared links serve the client. Others are
//! Redis's business: it is asked on a link of its own, and its answer is the client's, so every refusal is in its words.
#![forbid(unsafe_code)]

use super::{SYNTAX, quoting};
use crate::client::{Client, HelloRest, Hold, Login};
use crate::config::{ClientAuth, Config, LogLevel};
use crate::engine::Engine;
use crate::engine::clients::Handled;
use crate::engine::relay::{Relayed, Road, Scope};
use crate::link::{Owed, Poison, Purpose};
use crate::protocol::http::credentials::Credentials;
use crate::protocol::http::route::Policy;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::write;
use crate::secret::same;

const WRONG_PASSWORD: &[u8] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const NO_AUTH: &[u8] = b"NOAUTH Authentication required.";
/// Redis quotes as much of a name that it does not know, and of its arguments.
const QUOTED_BYTES_MAX: usize = 128;

/// Credentials as a client said them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'b> {
    /// `None`: AUTH with a password alone, which is the default user's.
    pub(super) user: Option<&'b [u8]>,
    pub(super) password: &'b [u8],
}

/// The policy of the HTTP port.
pub(in crate::engine) fn http_policy(config: &Config) -> Policy {
    let mut policy = Policy::new(&config.http_allowed_origins, &config.http_allowed_hosts);
    let url = &config.redis_url;
    if let (ClientAuth::Redis, Some(password)) = (config.client_auth, &url.password) {
        policy.credentials = Some(Credentials::new(url.username.as_deref(), password));
    }
    policy
}

impl Engine {
    /// Whether a client must say a password before it is served.
    pub(in crate::engine) fn demands_password(&self) -> bool {
        self.config.client_auth == ClientAuth::Redis && self.config.redis_url.password.is_some()
    }

    pub(in crate::engine) fn say_who_is_let_in(&mut self) {
        if self.config.client_auth == ClientAuth::None {
            let whose = self.proxys_user().to_owned();
            let bind = self.config.bind.join(",");
            self.log(
                LogLevel::Warn,
                format!("CLIENT_AUTH=none: clients need no password and act as Redis's user {whose}; who reaches {bind} is let in"),
            );
        }
    }

    /// The name of the user that the proxy itself is.
    pub(super) fn proxys_user(&self) -> &str {
        self.config
            .redis_url
            .username
            .as_deref()
            .unwrap_or("default")
    }

    pub(super) fn auth(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        let arg = |at: usize| request.args().nth(at).unwrap_or_default();
        let said = match request.argc() {
            2 => Said {
                user: None,
                password: arg(1),
            },
            3 => Said {
                user: Some(arg(1)),
                password: arg(2),
            },
            _ => {
                self.reply_error(ix, SYNTAX);
                return Handled::Done;
            }
        };
        if self.is_own(said) {
            self.clients[ix].authenticated = true;
            self.reply_ok(ix);
            return Handled::Done;
        }
        self.ask_redis(ix, said, None)
    }

    /// Whether these are the proxy's own credentials. Without a password in `REDIS_URL` it has none to compare.
    pub(super) fn is_own(&self, said: Said<'_>) -> bool {
        let Some(password) = &self.config.redis_url.password else {
            return false;
        };
        let user = said.user.unwrap_or(b"default");
        same(self.proxys_user().as_bytes(), user) & same(password.as_bytes(), said.password)
    }

    /// Other credentials, in AUTH or in HELLO: Redis says what it thinks of them.
    pub(super) fn ask_redis(
        &mut self,
        ix: usize,
        said: Said<'_>,
        hello: Option<HelloRest>,
    ) -> Handled {
        let mut frame = Vec::new();
        match said.user {
            Some(user) => write::command(&mut frame, [b"AUTH", user, said.password]),
            None => write::command(&mut frame, [b"AUTH", said.password]),
        }
        self.touch.clear();
        let command = Relayed {
            frame: &frame,
            touch: Scope::Keys,
            poison: Poison::Never,
            purpose: Purpose::Login,
            road: Road::OneShot,
        };
        let before = self.clients[ix].relayed;
        let handled = self.relay(ix, command, None);
        let user = said.user.unwrap_or(b"default");
        let is_own_user =
            self.config.redis_url.password.is_none() && user == self.proxys_user().as_bytes();
        let client = &mut self.clients[ix];
        if client.relayed > before {
            client.extras().login = Some(Login { is_own_user, hello });
            // Who the client is decides about what follows.
            client.hold = Hold::Relays;
        }
        handled
    }

    /// Redis's answer to credentials that are not the proxy's own.
    pub(in crate::engine) fn login_answered(&mut self, owed: &Owed, reply: &[u8]) {
        let Some(ix) = owed.to.and_then(|(client, _)| self.client_index(client)) else {
            return;
        };
        let login = self.clients[ix].extras().login.take();
        match login {
            _ if !reply.starts_with(b"+OK") => self.pass(owed, reply),
            Some(login) if login.is_own_user => {
                self.clients[ix].authenticated = true;
                match login.hello {
                    None => self.pass(owed, reply),
                    Some(HelloRest { version, name }) => {
                        let greeting = self.greeting(ix, version, name.as_deref());
                        self.pass(owed, &greeting);
                    }
                }
            }
            // Right, but of somebody else: that takes a link of this client's own, with that user's rights and without
            // the cache. Until there is one the client stays who it was.
            _ => self.pass(owed, WRONG_PASSWORD),
        }
    }

    /// Whom Redis takes the client for.
    pub(super) fn user_of(&self, client: &Client) -> &str {
        match client.authenticated {
            true => self.proxys_user(),
            false => "default",
        }
    }

    /// A command of a client that has not said its password. As in Redis its name and the number of its arguments are
    /// looked at first.
    pub(in crate::engine) fn refuse_stranger(&mut self, ix: usize, request: &Request<'_>) {
        let spec = self.table.find(request.args());
        let text = if !spec.is_known() {
            let is_container = self.table.find(request.args().take(1)).is_known();
            unknown(request, is_container && request.argc() > 1)
        } else if !spec.arity_ok(request.argc()) {
            let name = spec.name().as_bytes();
            quoting(b"ERR wrong number of arguments for '", name, b"' command")
        } else {
            NO_AUTH.to_vec()
        };
        self.reply_error(ix, &text);
    }
}

/// Redis's words about a command, or a subcommand, that it does not know.
fn unknown(request: &Request<'_>, is_subcommand: bool) -> Vec<u8> {
    let mut args = request.args();
    let cut = |text: &[u8], room: usize| text[..text.len().min(room)].to_vec();
    let name = args.next().unwrap_or_default();
    if is_subcommand {
        let sub = cut(args.next().unwrap_or_default(), QUOTED_BYTES_MAX);
        let container = name.to_ascii_uppercase();
        let behind = [b"'. Try ", &container[..], b" HELP."].concat();
        return quoting(b"ERR unknown subcommand '", &sub, &behind);
    }
    let mut quoted = Vec::new();
    for arg in args {
        if quoted.len() >= QUOTED_BYTES_MAX {
            break;
        }
        quoted.push(b'\'');
        let room = (QUOTED_BYTES_MAX + 1).saturating_sub(quoted.len());
        quoted.extend(quoting(b"", &cut(arg, room), b""));
        quoted.extend_from_slice(b"' ");
    }
    let behind = [b"', with args beginning with: ", &quoted[..]].concat();
    quoting(
        b"ERR unknown command '",
        &cut(name, QUOTED_BYTES_MAX),
        &behind,
    )
}
