//! The life of a link: opened, greeted, read reply by reply, lost or closed. What a reply means for the cache is decided
//! here too: a command's keys are poisoned before its reply is queued (rules L5, L9, L10, L12).
#![forbid(unsafe_code)]

use super::coherence::BARRIER_REPLY_BYTES_MAX;
use super::forget::Flush;
use super::pass::up_to;
use super::relay::LINK_OUTBOX_HIGH_BYTES;
use super::timers::Timer;
use super::{ConnId, Engine, Output, Place};
use crate::client::{CloseReason, Hold};
use crate::command;
use crate::config::Coherence;
use crate::link::{Link, Owed, Poison, Purpose, Role, State, Touch};
use crate::protocol::resp::reply::{ReplyScanner, Scan};
use crate::protocol::resp::write::{self, Version};
use crate::stats::Counter;
use crate::time::Time;

/// A reply that must be seen whole (INFO, COMMAND, the handshake) may be this long.
const COLLECTED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Redis's answers to a name that it does not know: nothing was executed, so nothing can have changed.
const UNKNOWN: [&[u8]; 2] = [b"-ERR unknown command", b"-ERR unknown subcommand"];
/// Redis has become a replica.
const READ_ONLY: &[u8] = b"-READONLY";

impl Engine {
    /// The place of a link in its table, unless the id is stale.
    pub(super) fn link_index(&self, id: ConnId) -> Option<usize> {
        let Place::Link(index) = id.place else {
            return None;
        };
        let link = self.links.get(index as usize)?;
        (link.id == id).then_some(index as usize)
    }

    pub(super) fn link_role(&self, id: ConnId) -> Option<Role> {
        self.link_index(id).map(|ix| self.links[ix].role)
    }

    /// Makes a link and puts its handshake in front of what it will send.
    pub(super) fn open_link(&mut self, role: Role) -> ConnId {
        let entry = self.links.vacant_entry();
        let index = entry.key();
        if index == self.link_generations.len() {
            self.link_generations.push(0);
        }
        let place = Place::Link(u32::try_from(index).expect("links are bounded by links_max"));
        let id = ConnId {
            place,
            generation: self.link_generations[index],
        };
        entry.insert(Link::new(id, role, self.now));
        match role {
            Role::Shared(pool) => self.pools.entry(pool).or_default().push(id),
            Role::Own(_) => self.own_links.count += 1,
            Role::Control | Role::OneShot(_) => {}
        }
        self.greet(index, role);
        let deadline = self.now + self.config.redis_connect_timeout;
        self.links[index].timer = Some(self.timers.set(deadline, Timer::Link(id)));
        self.stats.count(Counter::LinksOpened);
        self.outputs.push_back(Output::Connect(id));
        id
    }

    fn greet(&mut self, ix: usize, role: Role) {
        let url = self.config.redis_url.clone();
        if let Some(password) = &url.password {
            let password = password.text().as_bytes();
            match &url.username {
                Some(user) => {
                    self.ask(ix, Purpose::Required, &[b"AUTH", user.as_bytes(), password])
                }
                None => self.ask(ix, Purpose::Required, &[b"AUTH", password]),
            }
        }
        let (Role::Shared(pool) | Role::OneShot(pool) | Role::Own(pool)) = role else {
            return self.greet_control(ix);
        };
        if pool.version == Version::Resp3 {
            self.ask(ix, Purpose::Required, &[b"HELLO", b"3"]);
        }
        if pool.db != 0 {
            self.ask(
                ix,
                Purpose::Required,
                &[b"SELECT", pool.db.to_string().as_bytes()],
            );
        }
        let kind = if matches!(role, Role::Own(_)) {
            "own"
        } else {
            "link"
        };
        let name = format!("nearcache:{}:{}:{kind}{ix}", self.host, self.pid);
        self.ask(
            ix,
            Purpose::Ignored,
            &[b"CLIENT", b"SETNAME", name.as_bytes()],
        );
        if matches!(role, Role::Own(_)) {
            self.ask(ix, Purpose::Identity, &[b"CLIENT", b"ID"]);
        }
        if pool.db != 0 {
            self.links[ix].gate = Some(self.links[ix].outbox.len() as u64);
        }
    }

    /// The control link learns what Redis is, then asks it to track, then for the first sign of life.
    fn greet_control(&mut self, ix: usize) {
        let tracks = self.coherence == Coherence::Tracking;
        if tracks {
            self.ask(ix, Purpose::Resp3, &[b"HELLO", b"3"]);
        } else {
            self.ask(ix, Purpose::Hello, &[b"HELLO"]);
        }
        let name = format!("nearcache:{}:{}:inval", self.host, self.pid);
        self.ask(
            ix,
            Purpose::Ignored,
            &[b"CLIENT", b"SETNAME", name.as_bytes()],
        );
        self.ask(ix, Purpose::Server, &[b"INFO", b"server"]);
        self.ask(ix, Purpose::Replication, &[b"INFO", b"replication"]);
        self.ask(ix, Purpose::CommandTable, &[b"COMMAND"]);
        if tracks {
            self.ask_for_tracking(ix);
        }
        self.ping(ix);
    }

    /// Sends a command of the proxy's own on a link.
    pub(super) fn ask(&mut self, ix: usize, purpose: Purpose, args: &[&[u8]]) {
        let link = &mut self.links[ix];
        if link.owed.is_empty() {
            link.heard = self.now;
        }
        link.owed.push_back(Owed {
            to: None,
            purpose,
            touch: Touch::Keys(0),
            poison: Poison::Never,
            counted: false,
            unit: None,
            sent: Time::NEVER,
            place: command::Place::UNKNOWN,
        });
        link.outbox.append_with(&mut self.pool, |out| {
            write::command(out, args.iter().copied())
        });
        self.flush_link(ix);
    }

    pub(super) fn flush_link(&mut self, ix: usize) {
        let link = &mut self.links[ix];
        if link.state != State::Connecting && !link.flush_listed && link.has_to_send() {
            link.flush_listed = true;
            self.outputs.push_back(Output::Flush(link.id));
        }
    }

    /// The outcome of [`Output::Connect`].
    pub fn connected(&mut self, id: ConnId, result: Result<(), String>) {
        let Some(ix) = self.link_index(id) else {
            return;
        };
        if let Err(why) = result {
            return self.link_lost(id, &why);
        }
        let link = &mut self.links[ix];
        link.state = State::Greeting;
        link.heard = self.now;
        self.run_link_timer(ix);
        self.flush_link(ix);
    }

    pub(super) fn link_sent(&mut self, id: ConnId, n: usize) {
        let Some(ix) = self.link_index(id) else {
            return;
        };
        let link = &mut self.links[ix];
        link.outbox.sent(n, &mut self.pool);
        link.sent_bytes += n as u64;
        if link.own.is_some() && self.is_uploaded_to(ix) {
            // Redis takes it: that is life enough.
            self.links[ix].heard = self.now;
        }
        let link = &mut self.links[ix];
        if !link.has_to_send() {
            link.flush_listed = false;
        }
        // Half, so that whoever waits goes on before those that come anew have filled it again.
        if link.outbox.len() <= LINK_OUTBOX_HIGH_BYTES / 2 {
            for client in std::mem::take(&mut self.links[ix].waiting) {
                if let Some(client) = self.client_index(client) {
                    self.unhold(client, Hold::Link);
                }
            }
        }
    }

    /// Finds the replies in what a link received and brings each to whom it is owed.
    pub(super) fn link_received(&mut self, id: ConnId, n: usize) {
        let Some(ix) = self.link_index(id) else {
            return;
        };
        self.links[ix].heard = self.now;
        let scratch = std::mem::take(&mut self.scratch);
        if self.links[ix].own.is_some() {
            self.own_received(id, &scratch[..n]);
        } else {
            self.read_replies(id, &scratch[..n]);
        }
        self.scratch = scratch;
        if let Some(ix) = self.link_index(id) {
            self.recount_collected(ix);
        }
        self.buffers_grew();
    }

    fn read_replies(&mut self, id: ConnId, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            // A reply may have ended the link.
            let Some(ix) = self.link_index(id) else {
                return;
            };
            let link = &mut self.links[ix];
            let at_boundary = !link.reply_begun;
            if link.role == Role::Control
                && at_boundary
                && (self.tracking.pushes.is_reading() || bytes[at] == b'>')
            {
                match self.read_push(id, &bytes[at..]) {
                    Some(used) => at += used,
                    None => return,
                }
                continue;
            }
            if link.owed.is_empty() || at_boundary && bytes[at] == b'>' {
                return self.link_lost(id, "Redis sent what nobody asked for");
            }
            let (used, scan) = link.scanner.feed(&bytes[at..]);
            let chunk = &bytes[at..at + used];
            at += used;
            let begins = !link.reply_begun;
            link.reply_begun = scan == Scan::More;
            let unit = link.owed.front().and_then(|owed| owed.unit);
            if unit.is_some_and(|unit| unit.before > 0) && scan != Scan::Bad {
                self.unit_part(ix, chunk, scan == Scan::Done);
                continue;
            }
            match scan {
                Scan::Bad => return self.link_lost(id, "Redis sent what is not RESP"),
                Scan::More => self.reply_part(ix, chunk, begins),
                Scan::Done => {
                    link.scanner = ReplyScanner::default();
                    self.reply_ends(ix, chunk, begins);
                }
            }
        }
    }

    /// A part of the replies to a transaction in one piece, before that to its EXEC: nothing has been executed yet.
    fn unit_part(&mut self, ix: usize, chunk: &[u8], ends: bool) {
        let link = &mut self.links[ix];
        if ends {
            link.scanner = ReplyScanner::default();
        }
        let Some(owed) = link.owed.front_mut() else {
            return;
        };
        if let Some(unit) = &mut owed.unit {
            unit.before -= u32::from(ends);
            unit.passed = true;
        }
        let owed = owed.clone();
        self.pass(&owed, chunk);
    }

    /// A part of the front reply that is not its end.
    fn reply_part(&mut self, ix: usize, chunk: &[u8], begins: bool) {
        let owed = self.links[ix]
            .owed
            .front()
            .expect("read_replies has looked")
            .clone();
        if begins {
            self.links[ix].holding = self.is_to_be_held(&owed);
            if !self.links[ix].holding {
                // The command was executed before its first byte was sent, so this is early enough; the end does it
                // again for what was fetched meanwhile.
                self.poison_front(ix, &owed, chunk);
            }
        }
        let link = &mut self.links[ix];
        // An error is seen whole, since what it says may be of the connection.
        let is_error = if begins {
            chunk.starts_with(b"-")
        } else {
            !link.collected.is_empty()
        };
        if owed.purpose == Purpose::Pass && !link.holding && !is_error {
            return self.pass(&owed, chunk);
        }
        if owed.purpose == Purpose::Http {
            return self.http_part(ix, &owed, chunk);
        }
        link.collected.extend_from_slice(chunk);
        if owed.purpose == Purpose::Pass && link.collected.len() > BARRIER_REPLY_BYTES_MAX {
            // Too long to be held: everything is forgotten instead, and the reply flows on. (Or too long for an error.)
            let held = std::mem::take(&mut link.holding);
            let collected = std::mem::take(&mut link.collected);
            if held {
                self.poison_all(Flush::Barrier);
            }
            self.pass(&owed, &collected);
        } else if link.collected.len() > COLLECTED_BYTES_MAX {
            let id = link.id;
            self.link_lost(id, "a reply is longer than can be");
        }
    }

    /// The front reply is complete with this chunk.
    fn reply_ends(&mut self, ix: usize, chunk: &[u8], whole: bool) {
        let owed = self.links[ix]
            .owed
            .front()
            .expect("read_replies has looked")
            .clone();
        let began_to_hold = std::mem::take(&mut self.links[ix].holding);
        let holds = if whole {
            self.is_to_be_held(&owed)
        } else {
            began_to_hold
        };
        if !holds {
            self.poison_front(ix, &owed, if whole { chunk } else { b"" });
        }
        self.redis_answered(ix, &owed);
        self.links[ix].owed.pop_front();
        if owed.is_script() {
            self.links[ix].scripts -= 1;
            self.scripts -= 1;
        }
        let mut collected = std::mem::take(&mut self.links[ix].collected);
        let value_left = self.links[ix].value_left.take();
        let passed = owed.purpose == Purpose::Pass && !whole && !holds && collected.is_empty();
        let streamed = passed || value_left.is_some();
        let reply: &[u8] = if whole || streamed {
            chunk
        } else {
            collected.extend_from_slice(chunk);
            &collected
        };
        let id = self.links[ix].id;
        let said = if streamed { b"" } else { reply };
        if holds && self.hold_reply(&owed, reply) {
            self.close_if_done(ix);
            return self.heed(id, &owed, said);
        }
        match owed.purpose {
            Purpose::Pass => self.pass(&owed, reply),
            Purpose::Info => self.pass_info(&owed, reply),
            Purpose::Http => match value_left {
                Some(left) => self.pass(&owed, up_to(reply, left)),
                None => {
                    if let (Some((client, slot)), true) = (owed.to, self.access.is_waiting()) {
                        self.access_passed(client, slot, reply);
                    }
                    self.pass_http(&owed, reply)
                }
            },
            Purpose::Login => self.login_answered(&owed, reply),
            Purpose::Select(db) => self.selected(&owed, db, reply),
            Purpose::Refused
            | Purpose::Denied
            | Purpose::Required
            | Purpose::Ignored
            | Purpose::Resp3
            | Purpose::Hello
            | Purpose::Server
            | Purpose::Replication
            | Purpose::CommandTable
            | Purpose::Identity
            | Purpose::Tracking
            | Purpose::Heartbeat
            | Purpose::Touch => self.greeted(id, owed.purpose, reply),
        }
        if owed.to.is_some() {
            self.settle_relayed(Some(ix), &owed);
            self.close_if_done(ix);
            self.heed(id, &owed, said);
        }
    }

    /// What the reply to a client's command says of the connection it came by.
    fn heed(&mut self, id: ConnId, owed: &Owed, reply: &[u8]) {
        // A script that is promised to write nothing can say so too.
        if owed.poison != Poison::Never && reply.starts_with(READ_ONLY) {
            self.upstream_is_read_only();
        }
        if owed.unit.is_some() && !ends_a_transaction(reply) {
            self.link_lost(id, "Redis did not end a transaction");
        }
    }

    /// A link made for one command ends with its reply, a retiring one with its last.
    fn close_if_done(&mut self, ix: usize) {
        let link = &self.links[ix];
        if matches!(link.role, Role::OneShot(_)) || link.retiring && link.owed.is_empty() {
            self.close_link(ix);
        }
    }

    /// Rule L10: whether the reply waits for the barrier.
    fn is_to_be_held(&self, owed: &Owed) -> bool {
        owed.poison == Poison::Barrier && owed.purpose == Purpose::Pass && self.can_hold()
    }

    /// Rules L5, L9 and L10: what the front command touched is forgotten before its reply is queued.
    pub(super) fn poison_front(&mut self, ix: usize, owed: &Owed, reply: &[u8]) {
        self.check_pause(owed, reply);
        match owed.poison {
            Poison::Never => return,
            Poison::UnlessUnknown if is_unknown(reply) => return,
            Poison::UnlessUnknown | Poison::Always | Poison::AfterGet | Poison::Barrier => {}
        }
        match owed.touch {
            Touch::All => self.poison_all(Flush::of_command(owed.poison)),
            Touch::Keys(n) => {
                let writes = owed.poison != Poison::AfterGet;
                if n > 0 && writes && self.can_hold() {
                    self.measures.own_write(self.links[ix].touched[0], self.now);
                }
                for at in 0..n as usize {
                    let hash = self.links[ix].touched[at];
                    if writes {
                        self.measures.note_own(hash, self.now);
                    }
                    self.poison_touched(hash, owed.poison);
                }
            }
        }
    }

    /// A relayed command is over: the counts go down, the reply in its slot is complete. `link` is where its hashes stand
    /// at the front; `None` when the caller has taken care of them.
    pub(super) fn settle_relayed(&mut self, link: Option<usize>, owed: &Owed) {
        let Some((client, slot)) = owed.to else {
            return;
        };
        if let (Some(link), Touch::Keys(n)) = (link, owed.touch) {
            for _ in 0..n {
                let hash = self.links[link]
                    .touched
                    .pop_front()
                    .expect("each hash belongs to a request");
                self.uncount(client, hash, |counts| counts.relayed -= 1);
            }
        }
        if self.access.is_waiting() {
            self.access_ends(client, slot);
        }
        if let Some(ix) = self.client_index(client) {
            self.relay_ends(owed);
            let client = &mut self.clients[ix];
            client.relayed -= 1;
            if owed.touch == Touch::All {
                client.relayed_all -= 1;
            }
            if client.relayed == 0 {
                client.link = None;
            }
            self.reply_is_ready(ix, slot);
            self.clients[ix].finish_slot(slot, &mut self.pool);
            if self.clients[ix].relayed == 0 {
                if self.clients[ix].own.is_some() {
                    self.leave_own_link(ix);
                }
                self.unhold(ix, Hold::Relays);
            }
            self.after_reply(ix);
        }
        if owed.counted {
            self.release_place();
        }
    }

    /// A client got a reply, or the end of one.
    pub(super) fn after_reply(&mut self, ix: usize) {
        self.after_large_reply(ix, 0);
    }

    /// The same where `value_bytes` of it are a value that is shared, not copied, and was not to be known before: however
    /// large it is, it is no reason to close anybody.
    pub(super) fn after_large_reply(&mut self, ix: usize, value_bytes: usize) {
        let others = self.clients[ix].bytes_owed().saturating_sub(value_bytes);
        if others > self.config.outbox_max_bytes && self.would_owe_too_much(ix, 0, others) {
            return self.close_client(ix, CloseReason::OutboxOverflow);
        }
        self.client_changed(ix);
    }

    /// Whether the client is to be closed rather than owed `more` bytes besides. What is copied for it is bounded by
    /// `OUTBOX_MAX_BYTES`. Values that it shares with the cache or with others are not: a pipeline of reads that nothing
    /// was known of may bring any number of them at once, however willing the client is to read; `owed`, all together, stays
    /// below what all clients may hold.
    pub(super) fn would_owe_too_much(&self, ix: usize, more: usize, owed: usize) -> bool {
        let copied = self.clients[ix].bytes_copied() + more;
        copied > self.config.outbox_max_bytes || owed + more > self.config.buffers_max_bytes
    }

    /// Redis is another one now: no command takes the shared links of before, and each closes when it owes nothing.
    pub(super) fn retire_links(&mut self) {
        let shared = std::mem::take(&mut self.pools);
        let idle = std::mem::take(&mut self.own_links.idle);
        for id in shared.into_values().chain(idle.into_values()).flatten() {
            let Some(ix) = self.link_index(id) else {
                continue;
            };
            self.links[ix].retiring = true;
            if self.links[ix].owed.is_empty() {
                self.close_link(ix);
            }
        }
        for (_, link) in &mut self.links {
            link.retiring |= link.own.is_some();
        }
        self.outputs.push_back(Output::Renew);
    }

    /// Ends a link on which nothing is owed any more.
    pub(super) fn close_link(&mut self, ix: usize) {
        let Place::Link(index) = self.links[ix].id.place else {
            return;
        };
        let mut link = self.links.remove(ix);
        self.link_generations[index as usize] =
            self.link_generations[index as usize].wrapping_add(1);
        let listed = match link.role {
            Role::Shared(pool) => self.pools.get_mut(&pool),
            Role::Own(pool) => {
                self.own_links.count -= 1;
                self.own_links.idle.get_mut(&pool)
            }
            Role::Control | Role::OneShot(_) => None,
        };
        if let Some(links) = listed {
            links.retain(|id| *id != link.id);
        }
        if let Some(timer) = link.timer {
            self.timers.cancel(timer);
        }
        self.scripts -= link.scripts;
        link.outbox.clear(&mut self.pool);
        self.pool.recount(link.collected_bytes, 0);
        for client in link.waiting {
            if let Some(client) = self.client_index(client) {
                self.unhold(client, Hold::Link);
            }
        }
        self.outputs.push_back(Output::Close(link.id));
        self.stats.count(Counter::LinksClosed);
    }
}

/// Whether Redis does not know what it was asked for. (It began "Unknown subcommand" before Redis 7.)
fn is_unknown(reply: &[u8]) -> bool {
    let begins_with = |text: &&[u8]| {
        let begin = reply.get(..text.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(text))
    };
    UNKNOWN.iter().any(begins_with)
}

/// Whether the reply to EXEC says that its connection is in no transaction any more.
fn ends_a_transaction(reply: &[u8]) -> bool {
    !reply.starts_with(b"-")
        || reply.starts_with(b"-EXECABORT")
        || reply.starts_with(b"-ERR EXEC without MULTI")
}
