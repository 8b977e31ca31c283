//! What a command does to the connection it is executed on, by its name and arguments.
#![forbid(unsafe_code)]

use super::Engine;
use crate::command::keys::is_word;
use crate::command::{Effect, StateKind, Way};
use crate::engine::local::NAME_BYTES_MAX;
use crate::engine::resp::Judgement;
use crate::protocol::resp::request::Request;
use crate::protocol::resp::write::Version;
use crate::session::Deed;
use crate::session::channels::Family;

impl Engine {
    /// What the request does to this link if it succeeds.
    pub(in crate::engine) fn deed_of(
        &mut self,
        link: usize,
        request: &Request<'_>,
        judgement: Judgement,
    ) -> Deed {
        let deed = self.deed(request, judgement.way);
        let session = &self.own_of(link).session;
        if deed == Deed::Nothing && session.is_in_multi() && session.is_subscribed() {
            // Redis 7.0 puts what the client publishes to itself in the middle of EXEC's reply.
            let name = self.table.find(request.args()).name();
            if judgement.effect == Effect::Everything || matches!(name, "publish" | "spublish") {
                return Deed::Confuse;
            }
        }
        deed
    }

    fn deed(&self, request: &Request<'_>, way: Way) -> Deed {
        let name = self.table.find(request.args()).name();
        match (name, way) {
            // With arguments it is refused, wherever it stands.
            ("multi", _) if request.argc() == 1 => Deed::Multi,
            // Whatever its number of arguments: Redis 7 ends the transaction.
            ("exec", _) => Deed::Exec,
            ("discard", _) => Deed::Discard,
            ("watch", _) => Deed::Watch,
            ("unwatch", _) => Deed::Unwatch,
            ("select", _) => match request.args().nth(1).and_then(number) {
                Some(db) => Deed::Select(db),
                // Redis refuses it, or reads it in a way of its own.
                None => Deed::Stain,
            },
            ("hello", _) => hello(request),
            ("client|setname", _) => match request.args().nth(2).unwrap_or_default() {
                long if long.len() > NAME_BYTES_MAX => Deed::Confuse,
                name => Deed::Name(name.into()),
            },
            ("replconf" | "script|debug", _) => Deed::Last,
            ("subscribe" | "psubscribe" | "ssubscribe", _) => Deed::Subscribe(channels(request)),
            ("unsubscribe", _) => Deed::Unsubscribe(Family::Channel, channels(request)),
            ("punsubscribe", _) => Deed::Unsubscribe(Family::Pattern, channels(request)),
            ("sunsubscribe", _) => Deed::Unsubscribe(Family::Shard, channels(request)),
            ("client|tracking", _) => {
                let mode = request.args().nth(2).unwrap_or_default();
                Deed::Track(is_word(mode, b"on"))
            }
            ("client|getredir" | "client|trackinginfo", _) => Deed::ShowTracking,
            ("client|id", _) => Deed::ShowId,
            ("client|info" | "client|list", _) => Deed::ShowClients(request.bytes().into()),
            ("client|reply", _) => Deed::Confuse,
            ("auth", _) => match request.argc() {
                3 => Deed::Auth(request.args().nth(1).unwrap_or_default().into()),
                _ => Deed::Auth(b"default".as_slice().into()),
            },
            ("client|no-evict" | "client|no-touch" | "client|setinfo", _) => Deed::Stain,
            (_, Way::OwnLink(StateKind::Blocking | StateKind::Wait)) => Deed::Wait,
            (_, Way::OwnLink(StateKind::Unknown)) => Deed::Stain,
            _ => Deed::Nothing,
        }
    }
}

fn channels(request: &Request<'_>) -> u32 {
    u32::try_from(request.argc() - 1).expect("a request's length bounds its arguments")
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn hello(request: &Request<'_>) -> Deed {
    let mut args = request.args().skip(1);
    let version = match args.next() {
        Some(b"2") => Some(Version::Resp2),
        Some(b"3") => Some(Version::Resp3),
        _ => None,
    };
    let (mut name, mut user) = (None, None);
    while let Some(option) = args.next() {
        if is_word(option, b"auth") {
            user = args.next().map(Box::from);
            args.next();
        } else if is_word(option, b"setname") {
            name = args.next();
        }
    }
    if name.is_some_and(|name| name.len() > NAME_BYTES_MAX) {
        // Inside a transaction, where it cannot be refused: it is not worth remembering.
        return Deed::Confuse;
    }
    let name = name.map(Box::from);
    Deed::Hello {
        version,
        name,
        user,
    }
}
