//! AUTH: who a client is.
//!
//! If there is a `CLIENT_PASSWORD`, or a password in `REDIS_URL`, a client must say one of them before anything else
//! (`CLIENT_AUTH=none` lets it in without the second). Credentials equal to those of `REDIS_URL` are the proxy's own: cache and shared links serve the client. Others are
//! tried on a link of the client's own, where it has that user's rights from then on, without the cache; so every refusal
//! is in Redis's words, and changes nothing.
#![forbid(unsafe_code)]

use super::hello::said_in_hello;
use super::{SYNTAX, quoting};
use crate::client::{Client, HelloRest, Hold};
use crate::command::{LocalCommand, Way};
use crate::config::{ClientAuth, Config};
use crate::engine::Engine;
use crate::engine::clients::Handled;
use crate::engine::doors::is_wrong_password;
use crate::engine::relay::{Relayed, Road, Scope};
use crate::engine::resp::Judgement;
use crate::link::{Owed, Poison, Purpose};
use crate::protocol::http::credentials::Credentials;
use crate::protocol::http::route::Policy;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::write;
use crate::secret::same;
use std::borrow::Cow;
use tracing::{info, warn};

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
    if !config.demands_password() {
        return policy;
    }
    let url = &config.redis_url;
    let of_redis = url.password.as_ref();
    let of_redis =
        of_redis.map(|password| Credentials::new(url.username.as_deref(), password.text()));
    let ours = config.client_password.as_ref();
    let ours = ours.map(|password| Credentials::new(None, password.text()));
    policy.credentials = match (of_redis, ours) {
        (Some(one), Some(other)) => Some(one.or(other)),
        (one, other) => one.or(other),
    };
    policy
}

impl Engine {
    /// Whether a client must say a password before it is served.
    pub(in crate::engine) fn demands_password(&self) -> bool {
        self.config.demands_password()
    }

    pub(in crate::engine) fn say_who_is_let_in(&mut self) {
        if self.demands_password() {
            return;
        }
        let user = self.proxys_user();
        let bind = self.config.bind.join(",");
        if self.config.bound_beyond_loopback().is_some() {
            warn!(
                user,
                bind,
                "ALLOW_UNAUTHENTICATED=yes: clients need no password and act as the proxy's user in Redis"
            );
        } else if self.config.client_auth == ClientAuth::None {
            warn!(
                user,
                bind,
                "CLIENT_AUTH=none: clients need no password and act as the proxy's user in Redis"
            );
        } else {
            info!(
                user,
                bind,
                "listening on this machine only: clients need no password and act as the proxy's user in Redis"
            );
        }
    }

    /// The name of the user that the proxy itself is.
    pub(in crate::engine) fn proxys_user(&self) -> &str {
        self.config
            .redis_url
            .username
            .as_deref()
            .unwrap_or("default")
    }

    pub(super) fn auth(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        let Some(said) = said_in_auth(request) else {
            self.reply_error(ix, SYNTAX);
            return Handled::Done;
        };
        if self.is_own(said) {
            self.clients[ix].authenticated = true;
            self.reply_ok(ix);
            return Handled::Done;
        }
        self.ask_redis(ix, said, None)
    }

    /// Whether these are the proxy's own credentials: those of `REDIS_URL`, or `CLIENT_PASSWORD` for the default user.
    pub(super) fn is_own(&self, said: Said<'_>) -> bool {
        let user = said.user.unwrap_or(b"default");
        let is = |name: &str, password: Option<&str>| {
            let password = password.map(|password| same(password.as_bytes(), said.password));
            same(name.as_bytes(), user) & password.unwrap_or(false)
        };
        let ours = self.config.client_password.as_ref();
        let of_redis = self.config.redis_url.password.as_ref();
        is(self.proxys_user(), of_redis.map(|password| password.text()))
            | is("default", ours.map(|password| password.text()))
    }

    /// Whether this AUTH or HELLO is wrong, and Redis is not to be asked: with a `CLIENT_PASSWORD` that is so for the
    /// user that clients are let in as, whom Redis may take with any password, or without one.
    pub(in crate::engine) fn is_wrong_here(&self, request: &Request<'_>, way: Way) -> bool {
        if self.config.client_password.is_none() {
            return false;
        }
        said(request, way).is_some_and(|said| {
            let user = said.user.unwrap_or(b"default");
            let is_ours = user == b"default" || user == self.proxys_user().as_bytes();
            is_ours && !self.is_own(said)
        })
    }

    /// Whether this AUTH or HELLO is for Redis to judge, on a link of the client's own.
    ///
    /// Not so without a password in `REDIS_URL`, for the user that the proxy is then: whatever Redis says, there is
    /// nothing that this client could do on such a link and not on a shared one.
    pub(in crate::engine) fn names_another_user(&self, request: &Request<'_>, way: Way) -> bool {
        said(request, way).is_some_and(|said| {
            let user = said.user.unwrap_or(b"default");
            let is_proxys = user == self.proxys_user().as_bytes();
            let needs_none = self.config.redis_url.password.is_none();
            !(self.is_own(said) || needs_none && is_proxys)
        })
    }

    /// AUTH or HELLO with credentials that are not the proxy's own. If Redis takes them, the client keeps its link: it
    /// has that user's rights there, and no cache. If not, nothing has changed.
    pub(in crate::engine) fn log_in_upstream(
        &mut self,
        ix: usize,
        request: &Request<'_>,
        judgement: Judgement,
    ) -> Handled {
        if self.upstream.away().is_some() {
            self.refuse_away(ix, None, None);
            return Handled::Done;
        }
        let handled = self.begin_own(ix, request, judgement);
        let client = &mut self.clients[ix];
        if client.own.is_some() && client.relayed > 0 {
            // Who the client is decides about what follows.
            client.hold = Hold::Relays;
        }
        handled
    }

    /// A password for the user that the proxy is without one: Redis is asked what it says to that.
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
            unit: None,
        };
        let handled = self.relay(ix, command, Road::OneShot, None);
        let client = &mut self.clients[ix];
        if client.relayed > 0 && handled == Handled::Done {
            // That of a HELLO whose answer was lost is not this one's.
            if hello.is_some() || client.extras.is_some() {
                client.extras().hello = hello;
            }
            client.hold = Hold::Relays;
        }
        handled
    }

    /// Redis's answer to that.
    pub(in crate::engine) fn login_answered(&mut self, owed: &Owed, reply: &[u8]) {
        let Some(ix) = owed.to.and_then(|(client, _)| self.client_index(client)) else {
            return;
        };
        let extras = self.clients[ix].extras.as_mut();
        let hello = extras.and_then(|extras| extras.hello.take());
        match hello {
            Some(HelloRest { version, name }) if reply.starts_with(b"+OK") => {
                let greeting = self.greeting(ix, version, name.as_deref());
                self.pass(owed, &greeting);
            }
            _ => self.pass(owed, reply),
        }
        // Passing it on may have been the end of the client.
        let client = owed.to.and_then(|(client, _)| self.client_index(client));
        if let (Some(ix), true) = (client, is_wrong_password(reply)) {
            self.note_wrong_password(ix);
        }
    }

    /// Whom Redis takes the client for.
    pub(super) fn user_of(&self, client: &Client) -> Cow<'_, str> {
        let own = client.own.and_then(|link| self.link_index(link));
        let own = own.and_then(|link| self.links[link].own.as_ref());
        match own.and_then(|own| own.session.user()) {
            Some(user) => String::from_utf8_lossy(user),
            None if client.authenticated => self.proxys_user().into(),
            None => "default".into(),
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

/// The credentials in this AUTH or HELLO. `None`: in neither, or its arguments are wrong.
fn said<'b>(request: &Request<'b>, way: Way) -> Option<Said<'b>> {
    match way {
        Way::Local(LocalCommand::Auth) => said_in_auth(request),
        Way::Local(LocalCommand::Hello) => said_in_hello(request),
        _ => None,
    }
}

fn said_in_auth<'b>(request: &Request<'b>) -> Option<Said<'b>> {
    let arg = |at: usize| request.args().nth(at).unwrap_or_default();
    match request.argc() {
        2 => Some(Said {
            user: None,
            password: arg(1),
        }),
        3 => Some(Said {
            user: Some(arg(1)),
            password: arg(2),
        }),
        _ => None,
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
