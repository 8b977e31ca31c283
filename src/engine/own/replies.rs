//! What arrives on an own link: replies, confirmations and messages, and what they say of the connection's state.
#![forbid(unsafe_code)]

use super::super::coherence::BARRIER_REPLY_BYTES_MAX;
use super::super::forget::Flush;
use super::Engine;
use crate::command::LocalCommand;
use crate::engine::ConnId;
use crate::engine::doors::{DENIED, is_wrong_password};
use crate::link::{Arrival, Owed, Poison, Purpose, Taken, Touch};
use crate::protocol::resp::reply::{ReplyScanner, Scan};
use crate::protocol::resp::write::{self, Version};
use crate::session::block::Everything;
use crate::session::{Answer, Deed, Item, Seen};
use std::borrow::Cow;

/// A reply that says something of the connection, or to a handshake, is never this long.
const COLLECTED_BYTES_MAX: usize = 8 * 1024 * 1024;
const NO_KILL_INSIDE: &[u8] =
    b"-ERR nearcache: CLIENT KILL inside a transaction is not possible\r\n";
const UNASKED: &str = "Redis sent what nobody asked for";
const _: () = assert!(BARRIER_REPLY_BYTES_MAX <= COLLECTED_BYTES_MAX);

impl Engine {
    /// Takes what an own link received apart.
    pub(in crate::engine) fn own_received(&mut self, id: ConnId, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            // A reply may have ended the link.
            let Some(ix) = self.link_index(id) else {
                return;
            };
            // What the link itself still has to be told is told first.
            let in_tunnel = self.own_of(ix).tunnel.is_some() && self.links[ix].owed.is_empty();
            if in_tunnel || self.begins_to_tunnel(ix, bytes[at]) {
                return self.tunnel_received(id, &bytes[at..]);
            }
            let link = &mut self.links[ix];
            let (used, scan) = link.scanner.feed(&bytes[at..]);
            let chunk = &bytes[at..at + used];
            at += used;
            let begins = !link.reply_begun;
            link.reply_begun = scan == Scan::More;
            match scan {
                Scan::Bad => return self.link_lost(id, "Redis sent what is not RESP"),
                Scan::More => self.own_chunk(ix, chunk, begins, false),
                Scan::Done => {
                    link.scanner = ReplyScanner::default();
                    self.own_chunk(ix, chunk, begins, true);
                }
            }
        }
    }

    /// Bytes of the item that arrives: `begins` says that they are its first, `ends` that they are its last.
    fn own_chunk(&mut self, ix: usize, chunk: &[u8], begins: bool, ends: bool) {
        if begins {
            self.own_of(ix).taken = Taken::Unknown;
        }
        if self.own_of(ix).taken != Taken::Unknown {
            return self.own_part(ix, chunk, begins, ends);
        }
        // Until it is known what it is, its beginning is collected: rarely more than the first bytes of a read.
        let mut head = std::mem::take(&mut self.links[ix].collected);
        head.extend_from_slice(chunk);
        match self.take_as(ix, &head, ends) {
            Some(taken) => {
                self.own_of(ix).taken = taken;
                self.own_part(ix, &head, true, ends);
            }
            None if self.link_index(self.links[ix].id).is_some() => {
                self.links[ix].collected = head;
            }
            None => {}
        }
    }

    /// How the item that begins with `head` is to be taken; `None`: more of it must be seen.
    fn take_as(&mut self, ix: usize, head: &[u8], whole: bool) -> Option<Taken> {
        let can_hold = self.can_hold();
        let holds_messages = self.holds_messages();
        let link = &self.links[ix];
        let (Some(own), owed) = (link.own.as_ref(), link.owed.front()) else {
            return None;
        };
        let deed = own
            .deeds
            .front()
            .filter(|_| owed.is_some_and(|owed| owed.to.is_some()));
        match own.session.item(deed, head, whole)? {
            Item::Message if holds_messages => return Some(Taken::Message),
            Item::Message => return Some(Taken::MessagePassing),
            Item::Confirmation => return Some(Taken::Confirming),
            Item::Reply => {}
        }
        let (Some(owed), Some(deed)) = (owed, deed) else {
            return Some(Taken::Collecting);
        };
        if owed.purpose != Purpose::Pass || own.session.wants_whole_reply(deed) {
            return Some(Taken::Collecting);
        }
        let script = match deed {
            Deed::Exec => own
                .session
                .block()
                .is_some_and(|block| block.all == Everything::Reported),
            _ => owed.poison == Poison::Barrier,
        };
        let caused = *deed == Deed::Wait && holds_messages;
        Some(if script && can_hold || caused {
            Taken::Holding
        } else if *deed == Deed::Exec && head.starts_with(b"-") {
            // What it says of the transaction must not be cut.
            Taken::Collecting
        } else {
            Taken::Passing
        })
    }

    /// A part of an item, now that it is known how it is taken.
    fn own_part(&mut self, ix: usize, chunk: &[u8], begins: bool, ends: bool) {
        let taken = self.own_of(ix).taken;
        match taken {
            Taken::MessagePassing => {
                if ends {
                    self.wake_waiting_for(ix);
                }
                return self.bring(ix, Arrival::Message, chunk, false);
            }
            Taken::Passing => return self.own_passing(ix, chunk, begins, ends),
            _ => {}
        }
        let link = &mut self.links[ix];
        let id = link.id;
        if ends && begins {
            return self.own_whole(ix, taken, chunk);
        }
        link.collected.extend_from_slice(chunk);
        let max = match taken {
            Taken::Holding | Taken::Message => BARRIER_REPLY_BYTES_MAX,
            _ => COLLECTED_BYTES_MAX,
        };
        let too_long = link.collected.len() > max;
        if !ends && !too_long {
            return;
        }
        let collected = std::mem::take(&mut link.collected);
        match (taken, too_long) {
            (_, false) => self.own_whole(ix, taken, &collected),
            // Too long to be held: everything is forgotten instead, and it flows on.
            (Taken::Message, true) => {
                self.own_of(ix).taken = Taken::MessagePassing;
                self.let_flow(id);
                // What was let go may have been more than the client may be owed.
                if self.link_index(id).is_some() {
                    self.bring(ix, Arrival::Message, &collected, false);
                }
            }
            (Taken::Holding, true) => {
                self.own_of(ix).taken = Taken::Passing;
                self.let_flow(id);
                if self.link_index(id).is_some() {
                    self.own_passing(ix, &collected, true, ends);
                }
            }
            _ => self.link_lost(id, "a reply is longer than can be"),
        }
    }

    fn let_flow(&mut self, id: ConnId) {
        self.poison_all(Flush::Barrier);
        self.release_held(id);
    }

    /// A reply that is passed on as it comes.
    fn own_passing(&mut self, ix: usize, chunk: &[u8], begins: bool, ends: bool) {
        let Some(owed) = self.links[ix].owed.front().cloned() else {
            let id = self.links[ix].id;
            return self.link_lost(id, UNASKED);
        };
        let head: &[u8] = if begins { chunk } else { b"" };
        let is_exec = self.own_of(ix).deeds.front() == Some(&Deed::Exec);
        if begins || ends {
            // Early enough at its first byte, since it was executed before; once more for what was fetched meanwhile.
            if is_exec {
                self.poison_block(ix);
            } else {
                self.poison_own(ix, &owed, head);
            }
        }
        let seen = match is_exec {
            true => self.exec_part(ix, chunk),
            false => Cow::Borrowed(chunk),
        };
        if !ends {
            return self.bring(ix, Arrival::Part(owed), &seen, false);
        }
        self.own_answered(ix, &owed, head);
        self.drop_touched(ix, &owed);
        self.redis_answered(ix, &owed);
        self.links[ix].owed.pop_front();
        self.bring(ix, Arrival::Reply(owed), &seen, false);
    }

    /// A part of the reply to EXEC, as the client is to see it.
    fn exec_part<'p>(&mut self, ix: usize, part: &'p [u8]) -> Cow<'p, [u8]> {
        let Some(pieces) = self.own_of(ix).session.exec_part(part) else {
            return Cow::Borrowed(part);
        };
        let mut seen = Vec::with_capacity(part.len());
        for piece in pieces {
            match piece {
                Seen::AsItIs(range) => seen.extend_from_slice(&part[range]),
                Seen::Instead(deed, element) => seen.extend(self.in_our_terms(ix, &deed, &element)),
            }
        }
        Cow::Owned(seen)
    }

    /// What a client is told of clients, in place of what Redis says of connections.
    fn in_our_terms(&mut self, link: usize, deed: &Deed, reply: &[u8]) -> Vec<u8> {
        let client = self.own_of(link).client;
        let Some(client) = client.and_then(|client| self.client_index(client)) else {
            return reply.to_vec();
        };
        let number = self.clients[client].number;
        let mut told = Vec::new();
        match (deed, reply.first()) {
            (Deed::ShowTracking, _) => return self.with_our_redirect(link, reply),
            (Deed::Hello { .. }, _) => return with_id(reply, number),
            (Deed::ShowId, Some(b':')) => {
                write::decimal(&mut told, i64::try_from(number).unwrap_or(i64::MAX));
                told = [&b":"[..], &told, b"\r\n"].concat();
            }
            // Who is another user sees what Redis lets that one see.
            (Deed::ShowClients(_), _)
                if self
                    .beyond_rights(client, LocalCommand::ClientList)
                    .is_some() =>
            {
                return reply.to_vec();
            }
            (Deed::ShowClients(request), Some(kind @ (b'$' | b'='))) => {
                let version = match kind {
                    b'=' => Version::Resp3,
                    _ => Version::Resp2,
                };
                match self.clients_shown(client, request) {
                    Some(text) => write::text(&mut told, version, text.as_bytes()),
                    None => return reply.to_vec(),
                }
            }
            _ => return reply.to_vec(),
        }
        told
    }

    /// An item that was collected, or came in one piece.
    fn own_whole(&mut self, ix: usize, taken: Taken, bytes: &[u8]) {
        if taken == Taken::Message {
            return self.bring(ix, Arrival::Message, bytes, true);
        }
        let id = self.links[ix].id;
        let Some(owed) = self.links[ix].owed.front().cloned() else {
            return self.link_lost(id, UNASKED);
        };
        if owed.to.is_none() {
            self.links[ix].owed.pop_front();
            self.greeted(id, owed.purpose, bytes);
            return self.wake_if_silent(id);
        }
        if taken == Taken::Confirming
            && let Some((client, slot)) = owed.to
            && let Some(client) = self.client_index(client)
        {
            // To Redis it is a message, not a reply: CLIENT REPLY OFF does not concern it.
            self.clients[client].unmute_slot(slot);
        }
        let own = self.own_of(ix);
        let deed = own.deeds.front().cloned().unwrap_or(Deed::Nothing);
        if taken == Taken::Confirming && !own.session.confirmed(&deed, bytes) {
            return self.bring(ix, Arrival::Part(owed), bytes, false);
        }
        let mut seen = Cow::Borrowed(bytes);
        if deed == Deed::Exec {
            match taken {
                Taken::Holding => self.poison_named(ix),
                _ => self.poison_block(ix),
            }
            seen = self.exec_part(ix, bytes);
        }
        let answer = self.own_answered(ix, &owed, bytes);
        match answer {
            Answer::Queued => self.queue_touched(ix, &owed),
            Answer::Executed => {
                if owed.poison != Poison::Barrier || taken != Taken::Holding {
                    self.poison_own(ix, &owed, bytes);
                }
                self.drop_touched(ix, &owed);
            }
        }
        self.redis_answered(ix, &owed);
        self.links[ix].owed.pop_front();
        let client = owed.to.and_then(|(id, _)| self.client_index(id));
        let held = taken == Taken::Holding;
        match (&deed, client) {
            (Deed::Hello { .. }, Some(client)) if answer == Answer::Executed => {
                let patched = with_id(bytes, self.clients[client].number);
                self.bring(ix, Arrival::Reply(owed), &patched, held);
            }
            _ if owed.purpose == Purpose::Refused && bytes.starts_with(b"-") => {
                self.bring(ix, Arrival::Reply(owed), NO_KILL_INSIDE, held);
            }
            _ if owed.purpose == Purpose::Denied => {
                let text = [b"-", DENIED, b"\r\n"].concat();
                self.bring(ix, Arrival::Reply(owed), &text, held);
            }
            (Deed::ShowTracking, _) if answer == Answer::Executed => {
                let shown = self.with_our_redirect(ix, bytes);
                self.bring(ix, Arrival::Reply(owed), &shown, held);
            }
            _ => self.bring(ix, Arrival::Reply(owed), &seen, held),
        }
    }

    /// The session learns what became of the front command, and the client what became of itself.
    fn own_answered(&mut self, ix: usize, owed: &Owed, reply: &[u8]) -> Answer {
        let own = self.own_of(ix);
        let deed = own.deeds.pop_front().unwrap_or(Deed::Nothing);
        let answer = own.session.answered(&deed, reply);
        if deed == Deed::Nothing {
            return answer;
        }
        let is_login = matches!(deed, Deed::Auth(_) | Deed::Hello { user: Some(_), .. });
        let (version, db, name) = (
            own.session.version,
            own.session.db,
            own.session.name.clone(),
        );
        let has_user = own.session.user().is_some();
        if let Some(at) = owed.to.and_then(|(id, _)| self.client_index(id)) {
            let client = &mut self.clients[at];
            (client.version, client.db) = (version, db);
            client.set_name(name.as_deref());
            client.authenticated |= has_user;
            if is_login && is_wrong_password(reply) {
                self.note_wrong_password(at);
            }
        }
        answer
    }

    /// Rules L5 and L9, for what was executed at once.
    fn poison_own(&mut self, ix: usize, owed: &Owed, reply: &[u8]) {
        if owed.poison == Poison::Barrier {
            return self.poison_all(Flush::Barrier);
        }
        self.poison_front(ix, owed, reply);
    }

    /// Rule L9: what waits in the transaction is forgotten when that is executed.
    fn queue_touched(&mut self, ix: usize, owed: &Owed) {
        let hashes = self.take_touched(ix, owed);
        let session = &mut self.own_of(ix).session;
        match (owed.poison, owed.touch) {
            (Poison::Never, _) => {}
            (Poison::Barrier, _) => session.touch_all(Everything::Reported),
            (_, Touch::All) => session.touch_all(Everything::Unreported),
            (_, Touch::Keys(_)) => session.touch(hashes.into_iter()),
        }
    }

    fn drop_touched(&mut self, ix: usize, owed: &Owed) {
        if let Touch::Keys(n) = owed.touch {
            self.links[ix].touched.drain(..n as usize);
        }
    }

    fn take_touched(&mut self, ix: usize, owed: &Owed) -> Vec<u64> {
        match owed.touch {
            Touch::Keys(n) => self.links[ix].touched.drain(..n as usize).collect(),
            Touch::All => Vec::new(),
        }
    }
}

/// The reply to HELLO, with the id that the client has here in place of its link's.
fn with_id(reply: &[u8], number: u64) -> Vec<u8> {
    const ID: &[u8] = b"\r\n$2\r\nid\r\n:";
    let Some(at) = reply.windows(ID.len()).position(|part| part == ID) else {
        return reply.to_vec();
    };
    let (head, tail) = reply.split_at(at + ID.len());
    let digits = tail.iter().take_while(|byte| **byte != b'\r').count();
    let mut patched = head.to_vec();
    write::decimal(&mut patched, i64::try_from(number).unwrap_or(i64::MAX));
    patched.extend_from_slice(&tail[digits..]);
    patched
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_says_the_id_of_the_client() {
        let of = |id: &str| format!("%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:{id}\r\n");
        assert_eq!(with_id(of("4711").as_bytes(), 3), of("3").into_bytes());
        assert_eq!(with_id(b"-NOPROTO x\r\n", 3), b"-NOPROTO x\r\n");
    }
}
