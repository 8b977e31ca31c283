//! Forgetting all keys with a prefix, in steps: a walk over a million entries at once would hold everybody up.
//!
//! The entries are walked bucket by bucket. An entry that was there at the beginning is met: it stays in its bucket, or
//! goes to one that is added behind all others. What is kept meanwhile was fetched after the order came, so it may stay.
//! The answer is given at the end of the walk; until then its client waits, so that whoever has the answer reads nothing
//! of before it. Fetches under way lose their marks at the beginning.
//!
//! Bounds: a client has one walk at most, and one walk is under way; [`BUCKETS_PER_STEP`] are looked at in a turn, some
//! 0.2 ms. Hits pay nothing for it.
#![forbid(unsafe_code)]

use super::forget::Cause;
use super::{ConnId, Engine};
use crate::client::Hold;
use crate::keyname::KeyName;
use crate::protocol::http::page::{Kind, page};
use crate::protocol::http::route::Manner;
use crate::protocol::resp::write;
use std::collections::VecDeque;

/// A bucket has one entry on average.
const BUCKETS_PER_STEP: usize = 4096;

/// Who wants to know, and how.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// A number.
    Resp,
    /// A page.
    Http(Manner),
}

#[derive(Debug, Clone)]
struct Walk {
    prefix: Vec<u8>,
    /// The bucket that comes next; nothing was looked at yet where it is `None`.
    next: Option<usize>,
    dropped: usize,
    client: ConnId,
    slot: u64,
    answer: Answer,
}

/// Those that were asked for, the first under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Walks(VecDeque<Walk>);

impl Walks {
    /// Whether there is nothing to do.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Engine {
    /// A client wants everything forgotten that begins so.
    pub(super) fn begin_walk(&mut self, ix: usize, prefix: &[u8], answer: Answer) {
        let client = &mut self.clients[ix];
        let slot = client.owe(None);
        client.hold = Hold::Walk;
        self.walks.0.push_back(Walk {
            prefix: prefix.to_vec(),
            next: None,
            dropped: 0,
            client: client.id,
            slot,
            answer,
        });
    }

    /// A step of the walk that is under way. The rest is for the next turn.
    pub(super) fn walk_on(&mut self) {
        let Some(walk) = self.walks.0.front_mut() else {
            return;
        };
        let prefix = std::mem::take(&mut walk.prefix);
        let (mut found, mut dropped) = (Vec::new(), 0);
        let from = walk.next.unwrap_or_else(|| {
            // All of them: they are no more than MAX_CONCURRENT_REQUESTS.
            let marked = self.fetches.iter_by_age();
            let names = marked.map(|(_, flight, _)| (flight.key.as_slice(), flight.hash));
            found.extend(names.filter_map(|(key, hash)| key.starts_with(&prefix).then_some(hash)));
            0
        });
        let hasher = &self.hasher;
        let next = self.cache.visit_buckets(from, BUCKETS_PER_STEP, |key| {
            if key.starts_with(&prefix) {
                found.push(hasher.hash(key));
                dropped += 1;
            }
        });
        // Some others may go with them, whose names have the same hash in the table: they are not told of.
        for hash in found {
            self.poison_name(hash, Cause::Asked);
        }
        let Some(walk) = self.walks.0.front_mut() else {
            return;
        };
        walk.dropped += dropped;
        (walk.prefix, walk.next) = (prefix, next);
        if next.is_none() {
            self.end_walk();
        }
    }

    fn end_walk(&mut self) {
        let Some(walk) = self.walks.0.pop_front() else {
            return;
        };
        // What waits aside is not walked: it goes as a whole, and is missed only while Redis is away.
        self.aside.clear();
        let dropped = walk.dropped;
        let named = KeyName::new(&walk.prefix, self.config.log_keys).to_string();
        self.say_forgotten("a prefix", dropped, None, Some(named));
        let Some(ix) = self.client_index(walk.client) else {
            return;
        };
        let date = &self.date;
        self.clients[ix].fill_with(walk.slot, &mut self.pool, |out| match walk.answer {
            Answer::Resp => write::integer(out, dropped as i64),
            Answer::Http(manner) => {
                let text = format!("dropped {dropped} entries\n");
                page(out, manner, date, "200 OK", Kind::Text, text.as_bytes());
            }
        });
        self.reply_is_ready(ix, walk.slot);
        self.clients[ix].finish_slot(walk.slot, &mut self.pool);
        self.unhold(ix, Hold::Walk);
        self.after_reply(ix);
    }
}

#[cfg(test)]
mod tests;
