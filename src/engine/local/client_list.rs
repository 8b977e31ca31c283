//! CLIENT LIST, INFO and KILL: the proxy's own clients, in Redis's words.
//!
//! Listed are the clients of the RESP port: HTTP clients are nobody that Redis would know. Costs: O(clients), and
//! O(log clients) for each that is named; what a list may be long is bounded by `OUTBOX_MAX_BYTES`.
#![forbid(unsafe_code)]

use super::{SYNTAX, quoting};
use crate::client::{Client, CloseReason, Peer, State};
use crate::engine::{Engine, Place, Port};
use crate::protocol::Parse;
use crate::protocol::resp::number;
use crate::protocol::resp::request::{Request, RequestParser};
use crate::protocol::resp::write;
use crate::session::Session;
use crate::session::channels::Family;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const LONG_LIST: &[u8] = b"ERR nearcache: the list is longer than a client may be owed";

/// The kinds of clients that Redis tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Pubsub,
    Master,
    Replica,
}

impl Kind {
    fn of_name(name: &[u8]) -> Option<Kind> {
        const NAMES: [(&str, Kind); 5] = [
            ("normal", Kind::Normal),
            ("pubsub", Kind::Pubsub),
            ("master", Kind::Master),
            ("replica", Kind::Replica),
            ("slave", Kind::Replica),
        ];
        let known = |(word, _): &&(&str, Kind)| name.eq_ignore_ascii_case(word.as_bytes());
        NAMES.iter().find(known).map(|(_, kind)| *kind)
    }
}

/// Which clients are meant. All that is set must hold.
#[derive(Debug, Clone, Default)]
struct Filter {
    id: Option<u64>,
    kind: Option<Kind>,
    addr: Option<Vec<u8>>,
    laddr: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
    age_secs: Option<u64>,
}

type Refused = Cow<'static, [u8]>;

impl Engine {
    /// `CLIENT INFO`.
    pub(super) fn client_info(&mut self, ix: usize) {
        let line = self.describe(&self.clients[ix]);
        self.reply_text(ix, line.as_bytes());
    }

    /// `CLIENT LIST [TYPE kind] [ID id ...]`.
    pub(super) fn client_list(&mut self, ix: usize, request: &Request<'_>) {
        match self.list(request) {
            Ok(text) => self.reply_text(ix, text.as_bytes()),
            Err(text) => self.reply_error(ix, &text),
        }
    }

    /// What CLIENT INFO or CLIENT LIST says, in the middle of a reply to EXEC. `None`: it is neither, or wrong.
    pub(in crate::engine) fn clients_shown(&self, ix: usize, request: &[u8]) -> Option<String> {
        let mut parser = RequestParser::default();
        let Parse::Done(request) = parser.parse(request, &self.request_limits) else {
            return None;
        };
        match request.args().nth(1)? {
            info if info.eq_ignore_ascii_case(b"info") => Some(self.describe(&self.clients[ix])),
            _ => self.list(&request).ok(),
        }
    }

    fn list(&self, request: &Request<'_>) -> Result<String, Refused> {
        let (filter, ids) = read_list(request)?;
        let meant = self.clients.iter().map(|(_, client)| client);
        let meant = meant.filter(|client| self.is_meant(client, &filter));
        let meant: BTreeMap<u64, &Client> = meant.map(|client| (client.number, client)).collect();
        let listed: Vec<&Client> = match ids {
            // In the order of the ids, as often as they are named.
            Some(ids) => ids.iter().filter_map(|id| meant.get(id).copied()).collect(),
            None => meant.into_values().collect(),
        };
        let mut out = String::new();
        for client in listed {
            out.push_str(&self.describe(client));
            if out.len() > self.config.outbox_max_bytes {
                return Err(LONG_LIST.into());
            }
        }
        Ok(out)
    }

    /// `CLIENT KILL addr`, or `CLIENT KILL` with filters: how many were closed.
    pub(super) fn client_kill(&mut self, ix: usize, request: &Request<'_>) {
        let is_old = request.argc() == 3;
        let (filter, spare_me) = match self.read_kill(request) {
            Ok(read) => read,
            Err(text) => return self.reply_error(ix, &text),
        };
        let meant: Vec<usize> = self
            .clients
            .iter()
            .filter(|(_, client)| client.state == State::Open && self.is_meant(client, &filter))
            .map(|(other, _)| other)
            .filter(|other| !(spare_me && *other == ix))
            .collect();
        if is_old && meant.is_empty() {
            return self.reply_error(ix, b"ERR No such client");
        }
        for &other in meant.iter().filter(|other| **other != ix) {
            self.close_client(other, CloseReason::Killed);
        }
        if is_old {
            self.reply_ok(ix);
        } else {
            let count = i64::try_from(meant.len()).unwrap_or(i64::MAX);
            self.clients[ix].reply_with(&mut self.pool, |out| write::integer(out, count));
        }
        if meant.contains(&ix) {
            self.finish_client(ix, CloseReason::Killed);
        }
    }

    fn is_meant(&self, client: &Client, filter: &Filter) -> bool {
        let is = |wanted: &Option<Vec<u8>>, found: &dyn Fn() -> String| {
            wanted
                .as_ref()
                .is_none_or(|wanted| *wanted == found().into_bytes())
        };
        client.port == Port::Resp
            && filter.id.is_none_or(|id| id == client.number)
            && filter.kind.is_none_or(|kind| kind == self.kind_of(client))
            && is(&filter.addr, &|| self.peer_of(client).to_string())
            && is(&filter.laddr, &|| self.local_of(client).to_string())
            && is(&filter.user, &|| self.user_of(client).into_owned())
            && filter
                .age_secs
                .is_none_or(|least| self.now.since(client.opened).as_secs() >= least)
    }

    fn kind_of(&self, client: &Client) -> Kind {
        match self.session_of(client) {
            Some(session) if session.is_subscribed() => Kind::Pubsub,
            _ => Kind::Normal,
        }
    }

    /// One line, as Redis 7.2 writes it.
    fn describe(&self, client: &Client) -> String {
        let extras = client.extras.as_deref();
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let mut flags = String::new();
        if matches!(client.peer, Peer::Unix) {
            flags.push('U');
        }
        if extras.is_some_and(|extras| extras.no_evict) {
            flags.push('e');
        }
        if extras.is_some_and(|extras| extras.no_touch) {
            flags.push('T');
        }
        if matches!(client.state, State::Finishing(_)) {
            flags.push('c');
        }
        let session = self.session_of(client);
        for (flag, holds) in [
            ('P', session.is_some_and(Session::is_subscribed)),
            (
                'x',
                session.is_some_and(|session| session.queued().is_some()),
            ),
            ('b', session.is_some_and(Session::waits)),
            ('t', session.is_some_and(Session::tracks)),
        ] {
            if holds {
                flags.push(flag);
            }
        }
        let subscribed = |family| session.map_or(0, |session| session.subscriptions(family));
        let queued = session.and_then(Session::queued);
        let queued = queued.map_or_else(|| "-1".to_owned(), |queued| queued.to_string());
        if flags.is_empty() {
            flags.push('N');
        }
        let Place::Client(place) = client.id.place else {
            return String::new();
        };
        let (inbox, room) = (client.inbox.len(), client.inbox.capacity());
        let owed = client.bytes_owed();
        let size = size_of::<Client>() + room + owed;
        let mut out = String::new();
        // Where Redis counts what the proxy does not have (reply lists, transactions of its own) stands what Redis
        // would say of a client without any.
        write!(
            out,
            "id={} addr={} laddr={} fd={place} name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} \
             multi={queued} qbuf={inbox} qbuf-free={} argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={owed} oll=0 omem=0 \
             tot-mem={size} events={} cmd={} user={} redir={} resp={} lib-name={} lib-ver={}",
            client.number,
            self.peer_of(client),
            self.local_of(client),
            text(extras.map(|extras| &*extras.name)),
            self.now.since(client.opened).as_secs(),
            self.now.since(client.active).as_secs(),
            client.db,
            subscribed(Family::Channel),
            subscribed(Family::Pattern),
            subscribed(Family::Shard),
            room.saturating_sub(inbox),
            if client.outbox.is_empty() { "r" } else { "rw" },
            self.table.name_at(client.last).unwrap_or("NULL"),
            self.user_of(client),
            self.redirects_to(client),
            if client.version == write::Version::Resp3 { 3 } else { 2 },
            text(extras.map(|extras| &*extras.lib_name)),
            text(extras.map(|extras| &*extras.lib_ver)),
        )
        .expect("a string takes everything");
        out.push('\n');
        out
    }

    /// The users that clients can be, as far as it is known here.
    fn users(&self) -> BTreeSet<Vec<u8>> {
        let names = self.clients.iter().map(|(_, client)| self.user_of(client));
        let ours = [self.proxys_user().into(), "default".into()];
        let names = names.chain(ours);
        names
            .map(|name: Cow<'_, str>| name.into_owned().into_bytes())
            .collect()
    }

    fn read_kill(&self, request: &Request<'_>) -> Result<(Filter, bool), Refused> {
        let mut filter = Filter::default();
        let mut args = request.args().skip(2);
        if request.argc() == 3 {
            filter.addr = args.next().map(<[u8]>::to_vec);
            return Ok((filter, false));
        }
        let (mut spare_me, mut users) = (true, None);
        while let Some(option) = args.next() {
            let value = args.next().ok_or(Cow::Borrowed(SYNTAX))?;
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            if is("id") {
                let id = number::parse(value).filter(|id| *id > 0);
                let id = id.and_then(|id| u64::try_from(id).ok());
                let id = id.ok_or(Cow::Borrowed(
                    &b"ERR client-id should be greater than 0"[..],
                ))?;
                filter.id = Some(id);
            } else if is("type") {
                filter.kind = Some(read_kind(value)?);
            } else if is("addr") {
                filter.addr = Some(value.to_vec());
            } else if is("laddr") {
                filter.laddr = Some(value.to_vec());
            } else if is("user") {
                // Who the users of Redis are is not known here, but which of them any client can be is.
                let known = users.get_or_insert_with(|| self.users());
                if !known.contains(value) {
                    return Err(quoting(b"ERR No such user '", value, b"'").into());
                }
                filter.user = Some(value.to_vec());
            } else if is("skipme") {
                spare_me = match value {
                    yes if yes.eq_ignore_ascii_case(b"yes") => true,
                    no if no.eq_ignore_ascii_case(b"no") => false,
                    _ => return Err(SYNTAX.into()),
                };
            } else if is("maxage") {
                let age = number::parse(value).filter(|age| *age > 0);
                let age = age.and_then(|age| u64::try_from(age).ok());
                let age = age.ok_or(Cow::Borrowed(&b"ERR maxage should be greater than 0"[..]))?;
                filter.age_secs = Some(age);
            } else {
                return Err(SYNTAX.into());
            }
        }
        Ok((filter, spare_me))
    }
}

fn read_kind(name: &[u8]) -> Result<Kind, Refused> {
    Kind::of_name(name).ok_or_else(|| quoting(b"ERR Unknown client type '", name, b"'").into())
}

/// Which clients are to be listed, and, where they are named, in which order.
fn read_list(request: &Request<'_>) -> Result<(Filter, Option<Vec<u64>>), Refused> {
    let (mut filter, mut named) = (Filter::default(), None);
    let mut args = request.args().skip(2);
    let Some(option) = args.next() else {
        return Ok((filter, named));
    };
    if option.eq_ignore_ascii_case(b"type") && request.argc() == 4 {
        filter.kind = Some(read_kind(args.next().unwrap_or_default())?);
    } else if option.eq_ignore_ascii_case(b"id") && request.argc() > 3 {
        let ids = args.map(|id| number::parse(id).map(|id| u64::try_from(id).unwrap_or(0)));
        let ids: Option<Vec<u64>> = ids.collect();
        named = Some(ids.ok_or(Cow::Borrowed(&b"ERR Invalid client ID"[..]))?);
    } else {
        return Err(SYNTAX.into());
    }
    Ok((filter, named))
}
