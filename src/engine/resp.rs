//! Requests of RESP clients: each is a hit, a fetch, a relay, an answer of our own or a refusal.
#![forbid(unsafe_code)]

use super::clients::Handled;
use super::read::Freshness;
use super::relay::{Relayed, Road, Scope};
use super::share::Share;
use super::switches::Rule;
use super::upload::Begun;
use super::{Engine, OUTBOX_HIGH_BYTES};
use crate::cache::Content;
use crate::client::{CloseReason, Framing, Hold, State};
use crate::command::keys::Touch;
use crate::command::{Effect, LocalCommand, Place, Refusal, StateKind, Way};
use crate::link::{Poison, Purpose};
use crate::protocol::Parse;
use crate::protocol::resp::request::{
    Request, RequestError, RequestLimits, RequestParser, Shape, get_at_start,
};
use crate::protocol::resp::write;
use crate::stats::Counter;

/// What a client may send before it has said its password, as in Redis.
const STRANGERS_LIMITS: RequestLimits = RequestLimits {
    bulk_bytes_max: 16 << 10,
    line_bytes_max: 64 << 10,
    args_max: 10,
    request_bytes_max: 256 << 10,
};
const TOO_MANY_FOR_A_STRANGER: &[u8] = b"Protocol error: unauthenticated multibulk length";
const TOO_LONG_FOR_A_STRANGER: &[u8] = b"Protocol error: unauthenticated bulk length";

/// Which commands a client may give before it has said its password. Not by the server's flags: what is relayed goes
/// with the proxy's own rights.
fn may_come_first(way: Way) -> bool {
    use LocalCommand::{Auth, Hello, Quit, Reset};
    match way {
        Way::Local(command) => matches!(command, Auth | Hello | Quit | Reset),
        Way::Refuse(Refusal::CrossProtocol) => true,
        _ => false,
    }
}

/// What the vocabulary says of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judgement {
    pub(super) way: Way,
    pub(super) place: Place,
    pub(super) effect: Effect,
    /// The keys' hashes stand in `Engine::touch` when it is `Scope::Keys`.
    pub(super) scope: Scope,
    pub(super) poison: Poison,
}

impl Engine {
    /// Handles the requests at the start of `bytes`, as far as `share` goes; returns how many bytes are done with.
    pub(super) fn serve_resp(&mut self, ix: usize, bytes: &[u8], share: &mut Share) -> usize {
        let id = self.clients[ix].id;
        let mut at = 0;
        loop {
            at += self.pass_upload(ix, &bytes[at..]);
            let open = self.client_index(id).is_some() && self.clients[ix].state == State::Open;
            if !open || self.is_uploading(ix) {
                return at;
            }
            at += self.serve_requests(ix, &bytes[at..], share);
            let open = self.client_index(id).is_some() && self.clients[ix].state == State::Open;
            if !open || !self.is_uploading(ix) {
                return at;
            }
        }
    }

    /// The same up to a request that is passed on as it comes.
    fn serve_requests(&mut self, ix: usize, bytes: &[u8], share: &mut Share) -> usize {
        let Framing::Resp(kept) = &mut self.clients[ix].framing else {
            return bytes.len();
        };
        let mut parser = kept
            .take()
            .map_or_else(RequestParser::default, |kept| *kept);
        let id = self.clients[ix].id;
        let mut at = 0;
        while at < bytes.len() && !self.is_spent(share) {
            if parser.is_at_start() {
                at += self.serve_hits(ix, &bytes[at..], share);
                if at == bytes.len() || self.is_spent(share) {
                    break;
                }
            }
            if self.outbox_is_high(ix) {
                break;
            }
            let limits = if self.clients[ix].authenticated {
                &self.request_limits
            } else {
                &STRANGERS_LIMITS
            };
            let parsed = parser.parse(&bytes[at..], limits);
            let is_long = match &parsed {
                Parse::More => bytes.len() - at > self.config.shared_request_bytes_max,
                Parse::Bad(error) => *error == RequestError::RequestTooBig,
                Parse::Done(_) => false,
            };
            if is_long && !parser.is_kept_whole {
                match self.begin_upload(ix, &bytes[at..]) {
                    Begun::Yes => return at,
                    Begun::Held => break,
                    Begun::No => parser.is_kept_whole = true,
                }
            }
            match parsed {
                Parse::More => break,
                Parse::Bad(error) => {
                    self.refuse_bytes(ix, &bytes[at..], &error);
                    return bytes.len();
                }
                Parse::Done(request) => {
                    parser = RequestParser::default();
                    let (handled, used) = self
                        .relay_unit(ix, &bytes[at..], &request)
                        .unwrap_or_else(|| (self.handle_resp(ix, &request), request.len()));
                    if handled == Handled::Held {
                        break;
                    }
                    at += used;
                    share.commands -= 1;
                    if self.client_index(id).is_none() || self.clients[ix].state != State::Open {
                        return bytes.len();
                    }
                    self.clients[ix].waited_in_vain = false;
                    self.clients[ix].next_command();
                    if self.clients[ix].hold != Hold::None {
                        break; // its answer decides how the next one is to be handled
                    }
                }
            }
        }
        if !parser.is_at_start() {
            self.clients[ix].framing = Framing::Resp(Some(Box::new(parser)));
        }
        at
    }

    /// The hit path: canonical GETs in a row, answered with one hash, one look-up and one copy each. Stops at the first
    /// that needs more than that. Worth its own loop: see the figure of `make icount`.
    #[inline]
    fn serve_hits(&mut self, ix: usize, bytes: &[u8], share: &mut Share) -> usize {
        if !self.may_hit(&self.clients[ix]) {
            return 0;
        }
        let client = &mut self.clients[ix];
        let (mut at, mut hits) = (0, 0);
        while hits < share.commands && !share.is_spent(self.pool.copied_bytes()) {
            let Some((key, used)) = get_at_start(&bytes[at..]) else {
                break;
            };
            let hash = self.hasher.hash(key);
            let Some(Content::Value(value)) = self.cache.get(client.db, key, hash, self.now) else {
                break;
            };
            if client.bytes_owed() >= OUTBOX_HIGH_BYTES {
                break;
            }
            match value.shared() {
                None => client.reply_with(&mut self.pool, |out| value.append_reply(out)),
                Some(shared) => client.reply_shared(shared, 0..shared.len(), &mut self.pool),
            }
            if self.ghost.follows(hash) {
                self.ghost.note(hash, self.now);
            }
            at += used;
            hits += 1;
        }
        if hits > 0 {
            client.last = Place::GET;
        }
        share.commands -= hits;
        self.stats.add(Counter::Hits, hits as u64);
        if self.stats.get(Counter::Hits) >= self.sample_due {
            self.sample_of_row(ix, &bytes[..at], hits as u64);
        }
        at
    }

    /// Bytes that no request can begin with: Redis's words, then the end of the connection.
    fn refuse_bytes(&mut self, ix: usize, bytes: &[u8], error: &RequestError) {
        self.stats.count(Counter::ProtocolErrors);
        let mut text = b"ERR ".to_vec();
        let is_plain = self.clients[ix].authenticated
            || RequestParser::default().parse(bytes, &self.request_limits) == Parse::Bad(*error);
        text.extend_from_slice(&match error {
            RequestError::CountInvalid if !is_plain => TOO_MANY_FOR_A_STRANGER.into(),
            RequestError::LengthInvalid if !is_plain => TOO_LONG_FOR_A_STRANGER.into(),
            _ => error.text(),
        });
        let reason = match error {
            RequestError::RequestTooBig => CloseReason::RequestTooLarge,
            _ => CloseReason::ProtocolError,
        };
        self.clients[ix].reply_with(&mut self.pool, |out| write::error(out, &text));
        self.finish_client(ix, reason);
    }

    /// One request, whatever its shape.
    fn handle_resp(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        match request.shape() {
            Shape::Empty => Handled::Done,
            Shape::Canonical => self.handle_canonical(ix, request),
            Shape::Sloppy | Shape::Inline => {
                let mut canonical = std::mem::take(&mut self.canonical);
                canonical.clear();
                request.encode_canonical(&mut canonical);
                let parsed = RequestParser::default().parse(&canonical, &self.request_limits);
                let handled = match parsed {
                    Parse::Done(request) => self.handle_canonical(ix, &request),
                    // Unquoting never makes a request longer than the limits that it was read under.
                    Parse::More | Parse::Bad(_) => {
                        self.refuse_bytes(ix, &[], &RequestError::RequestTooBig);
                        Handled::Done
                    }
                };
                self.canonical = canonical;
                handled
            }
        }
    }

    fn handle_canonical(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        let judgement = self.judge(request);
        self.clients[ix].last = judgement.place;
        if !self.clients[ix].authenticated && !may_come_first(judgement.way) {
            self.refuse_stranger(ix, request);
            return Handled::Done;
        }
        if self.waits_for_message(ix) {
            return Handled::Held;
        }
        if self.is_denied(request) {
            return self.refuse_denied(ix);
        }
        if self.is_wrong_here(request, judgement.way) {
            return self.refuse_password(ix);
        }
        if self.clients[ix].own.is_some() && !matches!(judgement.way, Way::Refuse(_)) {
            let reads = judgement.way == Way::Get && !self.switches.holds(Rule::OwnLinkOnly);
            if !reads {
                return self.handle_own(ix, request, judgement);
            }
        }
        if self.names_another_user(request, judgement.way) {
            return self.log_in_upstream(ix, request, judgement);
        }
        match judgement.way {
            Way::Get => match request.args().nth(1) {
                // Nothing of it is ever kept, so it goes as it came: its name is long enough to be worth not being
                // hashed and copied once more.
                Some(key) if key.len() > self.config.cache_max_key_bytes => {
                    let holds = self.switches.holds(Rule::PoisonAfterGet);
                    let judgement = Judgement {
                        poison: if holds {
                            Poison::AfterGet
                        } else {
                            Poison::Never
                        },
                        ..judgement
                    };
                    self.relay_command(ix, request, judgement, Road::Shared)
                }
                Some(key) => self.get(ix, key, Freshness::Cached, None),
                None => self.relay_command(ix, request, judgement, Road::Shared),
            },
            Way::Kept(read) => self.kept_read(ix, read, request, judgement),
            Way::Local(LocalCommand::Info) => self.info(ix, request),
            Way::Local(command) => self.answer_local(ix, command, request),
            Way::Relay => self.relay_command(ix, request, judgement, Road::Shared),
            Way::OwnLink(StateKind::Unknown) => {
                self.relay_command(ix, request, judgement, Road::OneShot)
            }
            Way::OwnLink(StateKind::Urgent) => {
                self.note_pause(request);
                self.relay_command(ix, request, judgement, Road::Urgent)
            }
            // Without state they have nothing to end: Redis says so, on any connection.
            Way::OwnLink(StateKind::Exec | StateKind::Discard | StateKind::Unwatch) => {
                let judgement = Judgement {
                    effect: Effect::None,
                    scope: Scope::Keys,
                    poison: Poison::Never,
                    ..judgement
                };
                self.relay_command(ix, request, judgement, Road::Shared)
            }
            Way::OwnLink(_) => self.begin_own(ix, request, judgement),
            Way::Refuse(Refusal::CrossProtocol) => {
                self.stats.count(Counter::ProtocolErrors);
                self.finish_client(ix, CloseReason::ProtocolError);
                Handled::Done
            }
            Way::Refuse(Refusal::MaintNotifications) => {
                let name = request.args().nth(1).unwrap_or_default();
                let text = [
                    &b"ERR unknown subcommand '"[..],
                    name,
                    b"'. Try CLIENT HELP.",
                ];
                self.reply_error(ix, &text.concat());
                Handled::Done
            }
        }
    }

    /// Looks the call up: its way, its effect, and the hashes of its keys.
    pub(super) fn judge(&mut self, request: &Request<'_>) -> Judgement {
        let (args, argc) = (request.args(), request.argc());
        let spec = self.table.find(args.clone());
        let (touch, hasher) = (&mut self.touch, &self.hasher);
        touch.clear();
        let effect = spec.effect(args.clone(), argc);
        let touched = match effect {
            Effect::None => Touch::Keys,
            Effect::Everything => Touch::All,
            Effect::Read | Effect::Write => {
                spec.touch(args.clone(), argc, &mut |key| touch.push(hasher.hash(key)))
            }
        };
        let scope = match touched {
            Touch::Keys => Scope::Keys,
            Touch::All => Scope::All,
        };
        let (way, place) = (spec.way(args, argc), spec.place());
        let poison = match (effect, scope) {
            _ if way == Way::OwnLink(StateKind::Unknown) => Poison::UnlessUnknown,
            (Effect::None | Effect::Read, _) => Poison::Never,
            (Effect::Write, Scope::Keys) => Poison::Always,
            (Effect::Write | Effect::Everything, _) if spec.flush_at_completion(argc) => {
                Poison::Always
            }
            (Effect::Write | Effect::Everything, _) => Poison::Barrier,
        };
        Judgement {
            way,
            place,
            effect,
            scope,
            poison,
        }
    }

    pub(super) fn relay_command(
        &mut self,
        ix: usize,
        request: &Request<'_>,
        judgement: Judgement,
        road: Road,
    ) -> Handled {
        let road = if request.len() > self.config.shared_request_bytes_max {
            Road::OneShot
        } else {
            road
        };
        let poison = match (judgement.poison, judgement.effect) {
            (Poison::Always, Effect::Write) if !self.switches.holds(Rule::PoisonAfterWrite) => {
                Poison::Never
            }
            (_, Effect::Everything) if !self.switches.holds(Rule::PoisonAfterScript) => {
                Poison::Never
            }
            (poison, _) => poison,
        };
        let command = Relayed {
            frame: request.bytes(),
            touch: judgement.scope,
            poison,
            purpose: Purpose::Pass,
            unit: None,
        };
        let handled = self.relay(ix, command, road, None);
        if handled == Handled::Done && judgement.effect == Effect::Read {
            self.count_relayed_read_of(request);
        }
        handled
    }

    pub(super) fn count_relayed_read_of(&mut self, request: &Request<'_>) {
        let name = self.table.find(request.args()).name();
        match self.relayed_reads.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.relayed_reads.insert(name.to_owned(), 1);
            }
        }
        self.stats.count(Counter::RelayedReads);
    }

    /// INFO: the upstream's, with our section where it belongs; `INFO nearcache` needs no Redis.
    fn info(&mut self, ix: usize, request: &Request<'_>) -> Handled {
        let is = |arg: &[u8], word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
        let sections = || request.args().skip(1);
        if request.argc() == 2 && sections().all(|section| is(section, "nearcache")) {
            let section = self.info_section();
            let client = &mut self.clients[ix];
            let version = client.version;
            client.reply_with(&mut self.pool, |out| {
                write::text(out, version, section.as_bytes())
            });
            return Handled::Done;
        }
        self.touch.clear();
        let purpose = if has_our_section(request) {
            Purpose::Info
        } else {
            Purpose::Pass
        };
        let command = Relayed {
            frame: request.bytes(),
            touch: Scope::Keys,
            poison: Poison::Never,
            purpose,
            unit: None,
        };
        self.relay(ix, command, Road::Shared, None)
    }

    /// Answers a command with an error, in the order of the client's replies.
    pub(super) fn reply_error(&mut self, ix: usize, text: &[u8]) {
        self.clients[ix].reply_with(&mut self.pool, |out| write::error(out, text));
    }

    /// The client cannot go on before it is known what Redis is.
    pub(super) fn hold_for_upstream(&mut self, ix: usize) -> Handled {
        self.clients[ix].hold = Hold::Upstream;
        let id = self.clients[ix].id;
        self.upstream.waiting.push(id);
        Handled::Held
    }
}

/// Whether INFO asks for a section that we add ours to.
pub(super) fn has_our_section(request: &Request<'_>) -> bool {
    let sections = ["nearcache", "default", "all", "everything"];
    let names_one = |arg: &[u8]| {
        sections
            .iter()
            .any(|section| arg.eq_ignore_ascii_case(section.as_bytes()))
    };
    request.argc() == 1 || request.args().skip(1).any(names_one)
}
