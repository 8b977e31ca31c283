//! The straight way: what was read is nothing but hits, and the replies are written before anything else is done.
//!
//! Most reads of a busy proxy are of this kind. They touch no outbox, no list of outputs and no pool: the replies are put
//! one behind the other into one buffer of the engine's, which the shell writes at once and whose rest, should the socket
//! not take all, becomes the client's outbox. What is anything else goes the general way, from the first byte that is no
//! hit; so the straight way never decides anything but *hit* or *not this way*, and never changes what is answered.
//!
//! Worth it: a RESP hit alone in its read takes a third of the instructions of the general way, an HTTP hit a fifth.
//!
//! Invariant: between two calls of the engine `replies` belongs to nobody, but between [`Engine::received_at_once`] that
//! returned [`AtOnce::Replies`] and the [`Engine::sent_at_once`] behind it.
#![forbid(unsafe_code)]

use super::http::{Facts, ttl_secs};
use super::{ConnId, Engine, Output, Place};
use crate::cache::Content;
use crate::client::{Client, Framing, Mute};
use crate::command;
use crate::protocol::http::KnownHead;
use crate::protocol::http::hit::{self, Hit};
use crate::stats::Counter;

/// How many known heads are kept: more HTTP clients than this share them, 1 KiB each at most. Clients of one program
/// send one head, so sharing costs only those of different programs something.
pub(super) const KNOWN_HEADS: usize = 64;

/// What follows a read.
#[derive(Debug, PartialEq, Eq)]
pub enum AtOnce<'a> {
    /// All that was read is answered with these bytes. Write them now, once, and say with [`Engine::sent_at_once`] how far
    /// that went. There are no outputs.
    Replies(&'a [u8]),
    /// As after [`Engine::received`]: see what [`Engine::poll_output`] says.
    Outputs,
}

/// Where the bytes of the read under way go, decided by [`Engine::recv_slice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Receiving {
    /// To the client's inbox, behind what is there.
    Inbox,
    /// To the scratch.
    Scratch,
    /// To the scratch, for a client at rest whose reads may be hits: they may go the straight way.
    Straight,
    /// The same for a client that speaks HTTP.
    StraightHttp,
}

impl Engine {
    /// As [`Engine::received`], for a shell that can write at once. Only for a client of which no write is due.
    // Always inlined into the shell's one call of it, as `recv_slice` is: a tenth of a hit that is alone in its read.
    #[inline(always)]
    pub fn received_at_once(&mut self, id: ConnId, n: usize) -> AtOnce<'_> {
        let used = match (self.receiving, id.place) {
            (Receiving::Straight, Place::Client(index)) => self.answer_hits(index as usize, n),
            (Receiving::StraightHttp, Place::Client(index)) => {
                self.answer_http_hits(index as usize, n)
            }
            _ => 0,
        };
        if used > 0 && used == n {
            return AtOnce::Replies(self.replies.bytes());
        }
        self.received_behind(id, used, n);
        AtOnce::Outputs
    }

    /// `n` bytes of the last [`AtOnce::Replies`] were written.
    #[inline]
    pub fn sent_at_once(&mut self, id: ConnId, n: usize) {
        self.stats.add(Counter::BytesOut, n as u64);
        if n < self.replies.bytes().len() {
            self.keep_replies(id, n);
        }
    }

    /// The general way for what is behind the hits.
    #[inline(never)]
    fn received_behind(&mut self, id: ConnId, used: usize, n: usize) {
        if used > 0 {
            self.keep_replies(id, 0);
        }
        self.received_from(id, used, n);
    }

    /// The replies from `from` on go to the client's outbox.
    #[cold]
    fn keep_replies(&mut self, id: ConnId, from: usize) {
        let Some(ix) = self.client_index(id) else {
            return;
        };
        let client = &mut self.clients[ix];
        let rest = &self.replies.bytes()[from..];
        client.outbox.append(rest, &mut self.pool);
        client.flush_listed = true;
        self.outputs.push_back(Output::Flush(id));
        self.buffers_grew();
    }

    /// Answers the hits that the scratch begins with into `replies`; returns how many bytes they were.
    #[inline(never)] // it needs all registers for itself: a tenth more instructions per hit otherwise
    fn answer_hits(&mut self, ix: usize, n: usize) -> usize {
        let client = &mut self.clients[ix];
        client.active = self.now;
        // Canonical GETs in a row, as `serve_hits` answers them. Slices that become shorter, and what the loop needs in
        // variables of its own: a tenth fewer instructions.
        let (db, now) = (client.db, self.now);
        let (mut rest, mut room) = (&self.scratch[..n], self.replies.room());
        let (mut hits, mut left) = (0, room.len());
        while let Some((key, behind)) = self.get_memo.get_at_start(rest) {
            let hash = self.hasher.hash(key);
            let Some(Content::Value(value)) = self.cache.get(db, key, hash, now) else {
                break;
            };
            if value.shared().is_some() {
                break;
            }
            let Some(room_behind) = value.write_reply(room) else {
                break;
            };
            if self.ghost.follows(hash) {
                self.ghost.note(hash, now);
            }
            left = room_behind.len();
            (room, rest) = (room_behind, behind);
            hits += 1;
        }
        let at = n - rest.len();
        self.replies.set_left(left);
        if hits > 0 {
            client.last = command::Place::GET;
        }
        self.stats.add(Counter::Hits, hits);
        self.stats.add(Counter::BytesIn, at as u64);
        if self.stats.get(Counter::Hits) >= self.sample_due {
            let bytes = self.scratch[..at].to_vec();
            self.sample_of_row(ix, &bytes, hits);
        }
        at
    }

    /// The same for HTTP: requests that differ from one that was understood in nothing but the key.
    #[inline(never)]
    fn answer_http_hits(&mut self, ix: usize, n: usize) -> usize {
        let client = &mut self.clients[ix];
        client.active = self.now;
        let bytes = &self.scratch[..n];
        let known = &mut self.known_heads[ix % KNOWN_HEADS];
        let mut room = self.replies.room();
        let (mut at, mut hits, mut last, mut left) = (0, 0, 0, room.len());
        loop {
            let rest = &bytes[at..];
            if rest.is_empty() {
                break;
            }
            let Some((key, used)) = known.get_at_start(rest) else {
                // What was studied is known the next time round.
                match known.study(rest, &self.http_limits, &self.http_policy) {
                    true => continue,
                    false => break,
                }
            };
            let hash = self.hasher.hash(key);
            let Some(Content::Value(value)) = self.cache.get(client.db, key, hash, self.now) else {
                break;
            };
            let bytes = value.value();
            // The general way looks at a value whose facts are not known, and remembers them.
            let Some(facts) = Facts::from_tag(value.tag()) else {
                break;
            };
            if value.shared().is_some() {
                break;
            }
            let hit = Hit {
                value: bytes,
                utf8: facts.utf8,
                etag: facts.etag,
                ttl_secs: ttl_secs(value.deadline(), self.now),
                age_secs: self.now.since(value.stored_at()).as_secs(),
            };
            let Some(behind) = hit::write(room, &self.hit_middle, &hit) else {
                break;
            };
            if self.ghost.follows(hash) {
                self.ghost.note(hash, self.now);
            }
            left = behind.len();
            room = behind;
            last = at;
            at += used;
            hits += 1;
        }
        self.replies.set_left(left);
        if let (1.., Framing::Http(parser)) = (hits, &mut client.framing) {
            parser.skip_request();
        }
        self.stats.add(Counter::Hits, hits);
        self.stats.add(Counter::BytesIn, at as u64);
        if self.stats.get(Counter::Hits) >= self.sample_due
            && let Some((key, _)) = known.get_at_start(&self.scratch[last..at])
        {
            let (db, key) = (self.clients[ix].db, key.to_vec());
            let number = self.stats.get(Counter::Hits);
            self.sample_hit(ix, db, &key, self.hasher.hash(&key), number);
        }
        at
    }

    /// The head that was understood last, of this client or one that shares its place.
    pub(super) fn known_head(&mut self, ix: usize) -> &mut KnownHead {
        &mut self.known_heads[ix % KNOWN_HEADS]
    }

    /// Whether a read of this client may be a hit without a look at its key: the lease holds, and nothing of it is
    /// outstanding that the read could have to wait for (rule L5), nor has it state upstream (rule L15), and it is to be
    /// answered at all.
    #[inline]
    pub(super) fn may_hit(&self, client: &Client) -> bool {
        client.relayed == 0
            && client.own.is_none()
            && self.now < self.hits_until
            && client.authenticated
            && client.mute == Mute::Off
            && !self.draining
    }
}

#[cfg(test)]
mod tests;
