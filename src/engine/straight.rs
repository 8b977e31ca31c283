//! The straight way: what was read is nothing but hits, and the replies are written before anything else is done.
//!
//! Most reads of a busy proxy are of this kind. They touch no outbox, no list of outputs and no pool: the replies are put
//! one behind the other into one buffer of the engine's, which the shell writes at once and whose rest, should the socket
//! not take all, becomes the client's outbox. What is anything else goes the general way, from the first byte that is no
//! hit; so the straight way never decides anything but *hit* or *not this way*, and never changes what is answered.
//!
//! Worth it: a RESP hit alone in its read takes a third of the instructions of the general way, an HTTP hit a fifth.
//!
//! Invariant: between two calls of the engine `replies` belongs to nobody, but between [`Engine::received_straight`]
//! that returned [`AtOnce::Replies`] and the [`Engine::sent_all_at_once`] or [`Engine::sent_at_once`] behind it.
#![forbid(unsafe_code)]

use super::http::{Facts, ttl_secs};
use super::replies::REPLIES_BYTES_MAX;
use super::share::{REPLY_BYTES_PER_TURN, Share};
use super::{ConnId, Engine, Output, Place, Port};
use crate::cache::{self, Content, SMALL_REPLY_ROOM, ValueRef};
use crate::client::{Client, Framing, Mute, Straight};
use crate::command;
use crate::protocol::http::KnownHead;
use crate::protocol::http::hit::{self, Hit};
use crate::protocol::resp::request::GetMemo;
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

/// How far the scratch is answered: up to `at`, with `len` bytes of replies.
#[derive(Debug, Clone, Copy)]
struct Done {
    at: usize,
    len: usize,
}

/// Where the bytes of the read under way go, decided by [`Engine::recv_slice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Receiving {
    /// To the client's inbox, behind what is there.
    Inbox,
    /// To the scratch.
    Scratch,
    /// To the scratch, for a client whose reads may go this straight way.
    Straight(Straight),
}

impl Engine {
    /// As [`Engine::recv_slice`], for a shell that can write at once: where to read to, and what to tell
    /// [`Engine::received_straight`]. `None`: this client's reads go the general way for now.
    // Always inlined into the shell's one call of it, as what follows: a tenth of a hit that is alone in its read.
    #[inline(always)]
    pub fn recv_straight(&mut self, id: ConnId) -> Option<(Straight, &mut [u8])> {
        let (_, way) = self.straight_way(id)?;
        Some((way, &mut self.scratch))
    }

    /// The place of a client whose next read may be nothing but hits, and how that is to be understood: nothing is
    /// outstanding of it that a read could have to wait for (rule L5), it has no state upstream (rule L15), it is to be
    /// answered at all, and the lease holds.
    #[inline(always)]
    pub(super) fn straight_way(&mut self, id: ConnId) -> Option<(usize, Straight)> {
        let Place::Client(index) = id.place else {
            return None;
        };
        let client = self.clients.get(index as usize)?;
        if client.id.generation != id.generation || self.now >= self.hits_until {
            return None;
        }
        let way = match client.straight {
            Some(way) => way,
            None => self.find_straight(index as usize)?,
        };
        debug_assert!(self.may_go_straight(&self.clients[index as usize]));
        Some((index as usize, way))
    }

    /// [`Engine::straight_way`], found out anew.
    #[inline(never)]
    fn find_straight(&mut self, ix: usize) -> Option<Straight> {
        let client = &self.clients[ix];
        let way = match client.port {
            Port::Resp => Straight::Resp,
            Port::Http | Port::Admin | Port::Probe => Straight::Http,
        };
        let may = self.may_go_straight(client);
        self.clients.undisturbed(ix).straight = may.then_some(way);
        may.then_some(way)
    }

    fn may_go_straight(&self, client: &Client) -> bool {
        client.is_at_rest() && self.may_hit(client)
    }

    /// As [`Engine::received`], after [`Engine::recv_straight`] has said this way.
    #[inline(always)]
    pub fn received_straight(&mut self, id: ConnId, way: Straight, n: usize) -> AtOnce<'_> {
        let (Place::Client(index) | Place::Link(index)) = id.place;
        match way {
            Straight::Resp => self.answer_one(index as usize, n),
            Straight::Http => self.answer_http_one(index as usize, n),
        }
    }

    /// As [`Engine::received`], where the last [`Engine::recv_slice`] was for this client too.
    pub(super) fn received_at_once(&mut self, id: ConnId, n: usize) -> AtOnce<'_> {
        match self.receiving {
            Receiving::Straight(way) => self.received_straight(id, way, n),
            Receiving::Inbox | Receiving::Scratch => {
                self.received_from(id, 0, n, Share::since(self.pool.copied_bytes()));
                AtOnce::Outputs
            }
        }
    }

    /// All bytes of the last [`AtOnce::Replies`] were written.
    #[inline(always)]
    pub fn sent_all_at_once(&mut self, n: usize) {
        self.stats.add(Counter::BytesOut, n as u64);
    }

    /// `n` bytes of the last [`AtOnce::Replies`] were written, and no more.
    #[cold]
    pub fn sent_at_once(&mut self, id: ConnId, n: usize) {
        self.stats.add(Counter::BytesOut, n as u64);
        if n < self.replies.len() {
            self.keep_replies(id, n);
        }
    }

    /// What was read is more than one hit: the hits it begins with, and the general way for what is behind them.
    #[inline(never)]
    fn answer_many(&mut self, ix: usize, way: Straight, n: usize) -> AtOnce<'_> {
        let used = match way {
            Straight::Resp => self.answer_hits(ix, n),
            Straight::Http => self.answer_http_hits(ix, n),
        };
        if used == n {
            return AtOnce::Replies(self.replies.bytes());
        }
        // The general way for what is behind the hits, with what they leave of the client's share.
        self.receiving = Receiving::Straight(way);
        let (id, share) = (self.clients[ix].id, Share::since(self.pool.copied_bytes()));
        if used > 0 {
            self.keep_replies(id, 0);
        }
        self.received_from(id, used, n, share);
        AtOnce::Outputs
    }

    /// The replies from `from` on go to the client's outbox.
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
    /// at: what a client sends that waits for each reply. Anything else is for [`Engine::answer_many`]. With nothing to be
    /// carried from one hit to the next this is two thirds of its instructions.
    #[inline(never)] // it needs all registers for itself
    fn answer_one(&mut self, ix: usize, n: usize) -> AtOnce<'_> {
        let Some(key) = self.get_memo.only(&self.scratch[..n]) else {
            return self.answer_many(ix, Straight::Resp, n);
        };
        let client = self.clients.undisturbed(ix);
        client.active = self.now;
        client.last = command::Place::GET;
        let hash = self.hasher.hash(key);
        let hits = self.stats.get(Counter::Hits) + 1;
        if self.ghost.follows(hash) || hits >= self.sample_due {
            return self.answer_many(ix, Straight::Resp, n);
        }
        let Some(value) = self.cache.get_in_cell(client.db, key, hash, self.now) else {
            return self.answer_many(ix, Straight::Resp, n);
        };
        self.stats.count(Counter::Hits);
        self.stats.add(Counter::BytesIn, n as u64);
        AtOnce::Replies(self.replies.put(|room| value.write_reply(room)))
    }

    /// Answers the hits that the scratch begins with into `replies`; returns how many bytes they were.
    fn answer_hits(&mut self, ix: usize, n: usize) -> usize {
        let client = self.clients.undisturbed(ix);
        client.active = self.now;
        let (db, before) = (client.db, self.stats.get(Counter::Hits));
        let mut done = Done { at: 0, len: 0 };
        loop {
            done = self.answer_row(db, n, done);
            match self.answer_unlike(db, n, done) {
                Some(further) => done = further,
                None => break,
            }
        }
        self.replies.set_len(done.len);
        let hits = self.stats.get(Counter::Hits);
        if hits > before {
            self.clients.undisturbed(ix).last = command::Place::GET;
        }
        self.stats.add(Counter::BytesIn, done.at as u64);
        if hits >= self.sample_due {
            let bytes = self.scratch[..done.at].to_vec();
            self.sample_of_row(ix, &bytes, hits - before);
        }
        done.at
    }

    /// Answers GETs in a row that are written as the one before was, and hits on values in cells. Nearly all are; with
    /// what they have in common known before the loop it takes three quarters of the instructions of [`Engine::answer_unlike`].
    #[inline(never)] // it needs all registers for itself
    fn answer_row(&mut self, db: u32, n: usize, done: Done) -> Done {
        let (mut rest, mut len) = (&self.scratch[done.at..n], done.len);
        let room = self.replies.room();
        while len <= REPLIES_BYTES_MAX - SMALL_REPLY_ROOM {
            let Some((key, behind)) = self.get_memo.alike(rest) else {
                match self.get_memo.learn(rest) {
                    true => continue,
                    false => break,
                }
            };
            let hash = self.hasher.hash(key);
            let Some(value) = self.cache.get_in_cell(db, key, hash, self.now) else {
                break;
            };
            let Some(room) = room[len..].first_chunk_mut::<SMALL_REPLY_ROOM>() else {
                break;
            };
            len += value.write_reply(room);
            if self.ghost.follows(hash) {
                self.ghost.note(hash, self.now);
            }
            self.stats.count(Counter::Hits);
            rest = behind;
        }
        Done {
            at: n - rest.len(),
            len,
        }
    }

    /// Answers the GETs that are hits, but not like those of a row, up to the next that is. `None`: the first is no hit.
    fn answer_unlike(&mut self, db: u32, n: usize, from: Done) -> Option<Done> {
        let (mut rest, mut len) = (&self.scratch[from.at..n], from.len);
        let room = self.replies.room();
        while let Some((key, behind)) = self.get_memo.get_at_start(rest) {
            let hash = self.hasher.hash(key);
            let Some(Content::Value(value)) = self.cache.get(db, key, hash, self.now) else {
                break;
            };
            let Some(room) = room[len..].first_chunk_mut::<SMALL_REPLY_ROOM>() else {
                break;
            };
            let Some(reply_len) = cache::write_small_reply(value.value(), room) else {
                break;
            };
            if self.ghost.follows(hash) {
                self.ghost.note(hash, self.now);
            }
            self.stats.count(Counter::Hits);
            len += reply_len;
            rest = behind;
            if GetMemo::fits(key.len()) && value.is_in_cell() {
                break;
            }
        }
        let at = n - rest.len();
        (at > from.at).then_some(Done { at, len })
    }

    /// As [`Engine::answer_one`], for HTTP: the scratch is one request whose head is known but for the key.
    #[inline(never)]
    fn answer_http_one(&mut self, ix: usize, n: usize) -> AtOnce<'_> {
        let known = &self.known_heads[ix % KNOWN_HEADS];
        let Some(key) = known.only(&self.scratch[..n]) else {
            return self.answer_many(ix, Straight::Http, n);
        };
        let client = self.clients.undisturbed(ix);
        client.active = self.now;
        let hash = self.hasher.hash(key);
        let hits = self.stats.get(Counter::Hits) + 1;
        if self.ghost.follows(hash) || hits >= self.sample_due {
            return self.answer_many(ix, Straight::Http, n);
        }
        let found = self.cache.get(client.db, key, hash, self.now);
        let Some(Content::Value(value)) = found else {
            return self.answer_many(ix, Straight::Http, n);
        };
        let room = &mut self.replies.room()[..];
        let Some(left) = write_hit(&value, room, &self.hit_middle, self.now) else {
            return self.answer_many(ix, Straight::Http, n);
        };
        let len = REPLIES_BYTES_MAX - left.len();
        if let Framing::Http(parser) = &mut client.framing {
            parser.skip_request();
        }
        self.stats.count(Counter::Hits);
        self.stats.add(Counter::BytesIn, n as u64);
        self.replies.set_len(len);
        AtOnce::Replies(self.replies.bytes())
    }

    /// The same for HTTP: requests that differ from one that was understood in nothing but the key.
    #[inline(never)]
    fn answer_http_hits(&mut self, ix: usize, n: usize) -> usize {
        let client = self.clients.undisturbed(ix);
        client.active = self.now;
        let bytes = &self.scratch[..n];
        let known = &mut self.known_heads[ix % KNOWN_HEADS];
        let mut room = &mut self.replies.room()[..REPLY_BYTES_PER_TURN];
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
        self.replies.set_len(REPLY_BYTES_PER_TURN - left);
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
