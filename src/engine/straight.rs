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
use super::replies::REPLIES_BYTES_MAX;
use super::{ConnId, Engine, Output, Place};
use crate::cache::{self, Content, SMALL_REPLY_ROOM, ValueRef};
use crate::client::{Client, Framing, Mute};
use crate::command;
use crate::protocol::http::KnownHead;
use crate::protocol::http::hit::{self, Hit};
use crate::stats::Counter;
use crate::time::Time;

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
            (Receiving::Straight, Place::Client(index)) => {
                let ix = index as usize;
                if self.answer_one(ix, n) {
                    return AtOnce::Replies(self.replies.bytes());
                }
                self.answer_hits(ix, n)
            }
            (Receiving::StraightHttp, Place::Client(index)) => {
                let ix = index as usize;
                if self.answer_http_one(ix, n) {
                    return AtOnce::Replies(self.replies.bytes());
                }
                self.answer_http_hits(ix, n)
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
        if n < self.replies.len() {
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

    /// Answers the scratch if it is one GET, written as the one before was, and a hit on a value in a cell that nobody looks
    /// at: what a client sends that waits for each reply. `false`: nothing has been answered, [`Engine::answer_hits`] is
    /// to be asked, which decides the same. With nothing to be carried from one hit to the next this is two thirds of its
    /// instructions.
    #[inline(never)] // it needs all registers for itself
    fn answer_one(&mut self, ix: usize, n: usize) -> bool {
        let Some(key) = self.get_memo.only(&self.scratch[..n]) else {
            return false;
        };
        let client = &mut self.clients[ix];
        client.active = self.now;
        client.last = command::Place::GET;
        let hash = self.hasher.hash(key);
        let hits = self.stats.get(Counter::Hits) + 1;
        if self.ghost.follows(hash) || hits >= self.sample_due {
            return false;
        }
        let Some(value) = self.cache.get_in_cell(client.db, key, hash, self.now) else {
            return false;
        };
        let Some(len) = cache::write_small_reply(value, self.replies.room()) else {
            return false;
        };
        self.replies.set_len(len);
        self.stats.count(Counter::Hits);
        self.stats.add(Counter::BytesIn, n as u64);
        true
    }

    /// Answers the hits that the scratch begins with into `replies`; returns how many bytes they were.
    #[inline(never)] // it needs all registers for itself: a tenth more instructions per hit otherwise
    fn answer_hits(&mut self, ix: usize, n: usize) -> usize {
        let client = &mut self.clients[ix];
        client.active = self.now;
        // Canonical GETs in a row, as `serve_hits` answers them. A slice that becomes shorter, room of a constant length,
        // and what the loop needs in variables of its own: a fifth fewer instructions.
        let (db, now) = (client.db, self.now);
        let (mut rest, room) = (&self.scratch[..n], self.replies.room());
        let (mut hits, mut len) = (0, 0);
        while let Some((key, behind)) = self.get_memo.get_at_start(rest) {
            let hash = self.hasher.hash(key);
            let Some(Content::Value(value)) = self.cache.get(db, key, hash, now) else {
                break;
            };
            let Some(room) = room[len..].first_chunk_mut::<SMALL_REPLY_ROOM>() else {
                break;
            };
            let Some(reply_len) = cache::write_small_reply(value.value(), room) else {
                break;
            };
            if self.ghost.follows(hash) {
                self.ghost.note(hash, now);
            }
            len += reply_len;
            rest = behind;
            hits += 1;
        }
        let at = n - rest.len();
        self.replies.set_len(len);
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

    /// As [`Engine::answer_one`], for HTTP: the scratch is one request whose head is known but for the key.
    #[inline(never)]
    fn answer_http_one(&mut self, ix: usize, n: usize) -> bool {
        let known = &self.known_heads[ix % KNOWN_HEADS];
        let Some(key) = known.only(&self.scratch[..n]) else {
            return false;
        };
        let client = &mut self.clients[ix];
        client.active = self.now;
        let hash = self.hasher.hash(key);
        let hits = self.stats.get(Counter::Hits) + 1;
        if self.ghost.follows(hash) || hits >= self.sample_due {
            return false;
        }
        let found = self.cache.get(client.db, key, hash, self.now);
        let Some(Content::Value(value)) = found else {
            return false;
        };
        let room = &mut self.replies.room()[..];
        let Some(left) = write_hit(&value, room, &self.hit_middle, self.now) else {
            return false;
        };
        let len = REPLIES_BYTES_MAX - left.len();
        self.replies.set_len(len);
        if let Framing::Http(parser) = &mut client.framing {
            parser.skip_request();
        }
        self.stats.count(Counter::Hits);
        self.stats.add(Counter::BytesIn, n as u64);
        true
    }

    /// The same for HTTP: requests that differ from one that was understood in nothing but the key.
    #[inline(never)]
    fn answer_http_hits(&mut self, ix: usize, n: usize) -> usize {
        let client = &mut self.clients[ix];
        client.active = self.now;
        let bytes = &self.scratch[..n];
        let known = &mut self.known_heads[ix % KNOWN_HEADS];
        let mut room = &mut self.replies.room()[..];
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
            let Some(behind) = write_hit(&value, room, &self.hit_middle, self.now) else {
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
        self.replies.set_len(REPLIES_BYTES_MAX - left);
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

/// Writes the answer to a hit over HTTP; what is left of `room`. `None`: this is for the general way, which looks at a
/// value whose facts are not known, and remembers them.
#[inline(always)]
fn write_hit<'o>(
    value: &ValueRef<'_>,
    room: &'o mut [u8],
    middle: &[u8],
    now: Time,
) -> Option<&'o mut [u8]> {
    let facts = Facts::from_tag(value.tag())?;
    if value.shared().is_some() {
        return None;
    }
    let hit = Hit {
        value: value.value(),
        utf8: facts.utf8,
        etag: facts.etag,
        ttl_secs: ttl_secs(value.deadline(), now),
        age_secs: now.since(value.stored_at()).as_secs(),
    };
    hit::write(room, middle, &hit)
}

#[cfg(test)]
mod tests;
