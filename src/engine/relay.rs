//! Relayed commands: what they touch, whether they must wait, which link they take (rules L4, L5, L7, L9, L10).
#![forbid(unsafe_code)]

use super::admission::Admit;
use super::clients::Handled;
use super::read::{Freshness, Read};
use super::switches::Rule;
use super::{ConnId, Engine, access};
use crate::client::{CloseReason, Hold, HttpAsk, HttpWay, Render};
use crate::config::{Coherence, UpstreamLost};
use crate::link::{self, Owed, Poison, Pool, Purpose, Role, Touch, Unit};
use crate::prefix::Keep;
use crate::protocol::resp::write::{self, Version};
use crate::stats::Counter;

/// A link that has more than this to send takes no further command until it has sent some.
const LINK_OUTBOX_HIGH_BYTES: usize = 4 * 1024 * 1024;
/// With this many replies owed on every link of a pool, one more link is made if the pool may grow.
const LINK_OWED_BUSY: usize = 128;

/// One command to be relayed, in canonical form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relayed<'a> {
    /// The bytes to send.
    pub(super) frame: &'a [u8],
    /// What it touches: the hashes in `Engine::touch`, or everything.
    pub(super) touch: Scope,
    /// What becomes of what is kept of that at its completion.
    pub(super) poison: Poison,
    /// What to do with the reply.
    pub(super) purpose: Purpose,
    /// It is a transaction in one piece.
    pub(super) unit: Option<Unit>,
}

/// What a command touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The keys whose hashes stand in `Engine::touch`.
    Keys,
    /// Possibly every key.
    All,
}

/// Which kind of link a command may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Road {
    /// One that others use.
    Shared,
    /// One of its own, closed after the reply.
    OneShot,
    /// The same in database 0, for what concerns none: it needs no SELECT, which Redis refuses while a script runs that
    /// this command is to end.
    Urgent,
}

/// What is known of the reply to a read before it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// Nothing.
    Unknown,
    /// The value is too large to be kept.
    Long,
}

impl Engine {
    /// Sends a command to Redis, or says why not, or holds the client until it may be sent.
    pub(super) fn relay(
        &mut self,
        ix: usize,
        command: Relayed<'_>,
        road: Road,
        http: Option<&HttpAsk>,
    ) -> Handled {
        if self.upstream.away().is_some() {
            self.refuse_away(ix, http, command.unit);
            return Handled::Done;
        }
        if self.waits_for_own_fetch(ix, command.touch) {
            self.clients[ix].hold = Hold::OwnFetch;
            return Handled::Held;
        }
        let client = &self.clients[ix];
        let version = if http.is_some() {
            Version::Resp2
        } else {
            client.version
        };
        let pool = Pool {
            version,
            db: if road == Road::Urgent { 0 } else { client.db },
        };
        let pinned = client.link.filter(|_| self.switches.holds(Rule::PinToLink));
        let link = match (pinned, road) {
            (None, Road::Shared) => self.shared_link(pool),
            (None, _) if self.links_are_all_open() => None,
            (None, Road::OneShot | Road::Urgent) => Some(self.open_link(Role::OneShot(pool))),
            (Some(link), Road::Shared) if self.may_go_on(link, pool) => Some(link),
            // Rule L4: what is outstanding on the other link is waited for.
            (Some(_), _) => {
                self.clients[ix].hold = Hold::Relays;
                return Handled::Held;
            }
        };
        let Some(link) = link.and_then(|link| self.link_index(link)) else {
            let text = "ERR nearcache: too many connections to Redis";
            self.refuse_relay(ix, http, command.unit, text);
            return Handled::Done;
        };
        if self.link_is_full(ix, link) {
            return Handled::Held;
        }
        match self.admit(ix) {
            Admit::Granted => {}
            Admit::Queued => {
                self.close_if_unused(link);
                return Handled::Held;
            }
            Admit::Refused => {
                self.close_if_unused(link);
                let text = "ERR nearcache: too many requests at the same time";
                self.refuse_relay(ix, http, command.unit, text);
                return Handled::Done;
            }
        }
        self.dispatch(ix, link, command, http);
        Handled::Done
    }

    /// Whether the link has as much to send as it may hold; then the client waits for it.
    pub(super) fn link_is_full(&mut self, ix: usize, link: usize) -> bool {
        if self.links[link].outbox.len() < LINK_OUTBOX_HIGH_BYTES {
            return false;
        }
        let id = self.clients[ix].id;
        self.links[link].waiting.push(id);
        self.clients[ix].hold = Hold::Link;
        true
    }

    /// Whether `LINKS_MAX` is reached. Own links have a bound of their own.
    fn links_are_all_open(&self) -> bool {
        self.links.len() - self.own_links.count >= self.config.links_max
    }

    /// Rule L7: whether a fetch that this client waits for is of a key that the command may touch.
    fn waits_for_own_fetch(&self, ix: usize, touch: Scope) -> bool {
        let client = &self.clients[ix];
        if client.fetching == 0 || !self.switches.holds(Rule::WaitForOwnFetch) {
            return false;
        }
        let client_id = client.id.packed();
        let fetched = |hash: &u64| {
            self.outstanding
                .get(&(client_id, *hash))
                .is_some_and(|counts| counts.fetching > 0)
        };
        match touch {
            Scope::All => self.switches.holds(Rule::ScriptsTouchAll),
            Scope::Keys => self.touch.iter().any(fetched),
        }
    }

    /// Whether a client with commands outstanding on this link may send another one on it. (On a retiring link too: order
    /// comes first.)
    fn may_go_on(&self, link: ConnId, pool: Pool) -> bool {
        self.link_role(link) == Some(Role::Shared(pool))
    }

    /// The least busy shared link of the pool; a fresh one while all are busy and the pool may grow.
    pub(super) fn shared_link(&mut self, pool: Pool) -> Option<ConnId> {
        let links = self.pools.get(&pool).map_or(&[][..], Vec::as_slice);
        // Behind a script nobody would hear that Redis is busy with it, and PING or GET would wait for its end.
        let load = |id: &ConnId| {
            self.link_index(*id).map_or((true, usize::MAX), |ix| {
                (self.links[ix].scripts > 0, self.links[ix].owed.len())
            })
        };
        let best = links.iter().copied().min_by_key(load);
        // While writes are paused one of them holds up what stands behind it on its link, and nothing else.
        let is_taken = best.is_some_and(|best| load(&best) > (false, 0));
        if self.pauses.are_on(self.now) && is_taken && !self.links_are_all_open() {
            return Some(self.open_link(Role::OneShot(pool)));
        }
        match best {
            Some(link)
                if load(&link) < (false, LINK_OWED_BUSY)
                    || links.len() >= self.config.shared_links_per_pool =>
            {
                Some(link)
            }
            _ if self.links_are_all_open() => best,
            _ => Some(self.open_link(Role::Shared(pool))),
        }
    }

    /// A link that was made for a command which then did not take it.
    fn close_if_unused(&mut self, link: usize) {
        let unused = |link: &link::Link| link.owed.iter().all(|owed| owed.to.is_none());
        if matches!(self.links[link].role, Role::OneShot(_)) && unused(&self.links[link]) {
            self.close_link(link);
        }
    }

    fn dispatch(
        &mut self,
        ix: usize,
        link_ix: usize,
        command: Relayed<'_>,
        http: Option<&HttpAsk>,
    ) {
        let client = &mut self.clients[ix];
        let link = &mut self.links[link_ix];
        let slot = client.owe(http.map(|ask| Render::Http(Box::new(ask.clone()))));
        client.relayed += 1;
        client.link = Some(link.id);
        let touch = match command.touch {
            Scope::All => {
                client.relayed_all += 1;
                Touch::All
            }
            Scope::Keys => {
                let writes = matches!(command.poison, Poison::Always | Poison::UnlessUnknown);
                for hash in &self.touch {
                    if writes {
                        self.measures.note_own(*hash, self.now);
                    }
                    self.outstanding
                        .entry((client.id.packed(), *hash))
                        .or_default()
                        .relayed += 1;
                    link.touched.push_back(*hash);
                }
                Touch::Keys(
                    u32::try_from(self.touch.len()).expect("a request's length bounds its keys"),
                )
            }
        };
        if link.owed.is_empty() {
            link.heard = self.now;
        }
        link.owed.push_back(Owed {
            to: Some((client.id, slot)),
            purpose: command.purpose,
            touch,
            poison: command.poison,
            counted: true,
            unit: command.unit,
            sent: self.now,
            place: client.last,
        });
        if link.owed.back().is_some_and(Owed::is_script) {
            link.scripts += 1;
            self.scripts += 1;
        }
        link.outbox.append(command.frame, &mut self.pool);
        self.stats.count(Counter::Relayed);
        self.access_begins(ix, access::Road::Relay, slot, command.frame);
        self.flush_link(link_ix);
    }

    /// A GET that goes to Redis as it is: its value is too large to keep, its name too long, or rule L5 wants it. At its
    /// completion the key is poisoned (rule L5).
    pub(super) fn relay_read(&mut self, ix: usize, read: Read<'_>, length: Length) -> Handled {
        self.touch.clear();
        self.touch.push(read.hash);
        let mut frame = std::mem::take(&mut self.canonical);
        frame.clear();
        write::command(&mut frame, [&b"GET"[..], read.key]);
        let http = read.http.map(|ask| HttpAsk {
            way: HttpWay::Bypass,
            ..ask
        });
        let purpose = if http.is_some() {
            Purpose::Http
        } else {
            Purpose::Pass
        };
        let command = Relayed {
            frame: &frame,
            touch: Scope::Keys,
            poison: if self.switches.holds(Rule::PoisonAfterGet) {
                Poison::AfterGet
            } else {
                Poison::Never
            },
            purpose,
            unit: None,
        };
        let handled = match (length, &http) {
            (Length::Unknown, _) => self.relay(ix, command, Road::Shared, http.as_ref()),
            // It is collected before it is answered, so that a link cannot wait for its client.
            (Length::Long, Some(ask)) => self.relay(ix, command, Road::OneShot, Some(ask)),
            (Length::Long, None) => self.relay_long(ix, command),
        };
        self.canonical = frame;
        if handled == Handled::Done {
            self.count_relayed_read("get");
        }
        handled
    }

    /// A GET in either protocol: rule L5 first, then the cache.
    pub(super) fn get(
        &mut self,
        ix: usize,
        key: &[u8],
        freshness: Freshness,
        http: Option<HttpAsk>,
    ) -> Handled {
        let hash = self.hasher.hash(key);
        let read = Read {
            key,
            hash,
            freshness,
            http,
        };
        let behind =
            self.relayed_touches(ix, hash) && self.switches.holds(Rule::RelayBehindRelayed);
        if behind || !self.is_cacheable(key) {
            return self.relay_read(ix, read, Length::Unknown);
        }
        self.read(ix, read)
    }

    /// Whether anything of this key may be kept at all. Where not, its reads are relayed.
    pub(super) fn is_cacheable(&self, key: &[u8]) -> bool {
        let tracked = &self.config.tracking_prefixes;
        let is_told_of = match self.coherence {
            Coherence::Off => false,
            Coherence::Ttl => true,
            Coherence::Tracking => {
                tracked.is_empty()
                    || tracked
                        .iter()
                        .any(|prefix| key.starts_with(prefix.as_bytes()))
            }
        };
        is_told_of && self.prefixes.find(key) != Keep::No
    }

    pub(super) fn count_relayed_read(&mut self, name: &str) {
        self.stats.count(Counter::RelayedReads);
        match self.relayed_reads.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.relayed_reads.insert(name.to_owned(), 1);
            }
        }
    }

    /// What needs Redis while it is away. A Redis client is closed behind the replies before it, as it could not have
    /// connected to Redis itself: client libraries try again after that, while some give up for good on an error reply
    /// (Celery's worker ends on one to its BRPOP).
    pub(super) fn refuse_away(&mut self, ix: usize, http: Option<&HttpAsk>, unit: Option<Unit>) {
        if http.is_none() && self.config.upstream_lost == UpstreamLost::Close {
            self.stats.count(Counter::RelayErrors);
            return self.finish_client(ix, CloseReason::UpstreamLost);
        }
        let why = self.upstream.away().unwrap_or_default();
        let text = format!("ERR nearcache: Redis is not reachable: {why}");
        self.refuse_relay(ix, http, unit, &text);
    }

    /// Answers a command that cannot be relayed, in the order of the client's replies.
    fn refuse_relay(&mut self, ix: usize, http: Option<&HttpAsk>, unit: Option<Unit>, text: &str) {
        self.stats.count(Counter::RelayErrors);
        match http {
            Some(ask) => {
                let body = text.strip_prefix("ERR nearcache: ").unwrap_or(text);
                self.http_error_now(ix, ask, 503, body.as_bytes());
            }
            None => self.clients[ix].reply_with(&mut self.pool, |out| {
                write_errors(out, unit, text.as_bytes());
            }),
        }
    }
}

/// One error, or for a transaction in one piece one for each of its commands.
pub(super) fn write_errors(out: &mut Vec<u8>, unit: Option<Unit>, text: &[u8]) {
    for _ in 0..=unit.map_or(0, |unit| unit.before) {
        write::error(out, text);
    }
}
