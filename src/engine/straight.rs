//! The straight way: what was read is nothing but hits, and the replies are written before anything else is done.
//!
//! Most reads of a busy proxy are of this kind. They touch no outbox, no list of outputs and no pool: the replies are put
//! one behind the other into one buffer of the engine's, which the shell writes at once and whose rest, should the socket
//! not take all, becomes the client's outbox. What is anything else goes the general way, from the first byte that is no
//! hit; so the straight way never decides anything but *hit* or *not this way*, and never changes what is answered.
//!
//! Invariant: between two calls of the engine `replies` belongs to nobody, but between [`Engine::received_at_once`] that
//! returned [`AtOnce::Replies`] and the [`Engine::sent_at_once`] behind it.
#![forbid(unsafe_code)]

use super::{ConnId, Engine, Output, Place, Port};
use crate::cache::Content;
use crate::client::Client;
use crate::protocol::resp::request::get_at_start;
use crate::stats::Counter;

/// With so many bytes of replies a read goes the general way, which knows how to hold a client.
pub(super) const REPLIES_BYTES_MAX: usize = 64 * 1024;

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
}

impl Engine {
    /// As [`Engine::received`], for a shell that can write at once. Only for a client of which no write is due.
    #[inline]
    pub fn received_at_once(&mut self, id: ConnId, n: usize) -> AtOnce<'_> {
        let used = match (self.receiving, id.place) {
            (Receiving::Straight, Place::Client(index)) => self.answer_hits(index as usize, n),
            _ => 0,
        };
        if used > 0 && used == n {
            return AtOnce::Replies(&self.replies);
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
        client.outbox.append(&self.replies[from..], &mut self.pool);
        client.flush_listed = true;
        self.replies.clear();
        self.outputs.push_back(Output::Flush(id));
    }

    /// Answers the hits that the scratch begins with into `replies`; returns how many bytes they were.
    #[inline(always)]
    fn answer_hits(&mut self, ix: usize, n: usize) -> usize {
        let client = &mut self.clients[ix];
        if client.port != Port::Resp {
            return 0;
        }
        client.active = self.now;
        let bytes = &self.scratch[..n];
        let replies = &mut self.replies;
        replies.clear();
        // Canonical GETs in a row, as `serve_hits` answers them.
        let (mut at, mut hits) = (0, 0);
        while let Some((key, used)) = get_at_start(&bytes[at..]) {
            let hash = self.hasher.hash(key);
            let Some(Content::Value(value)) = self.cache.get(client.db, key, hash, self.now) else {
                break;
            };
            let reply = value.reply();
            if replies.len() + reply.len() > REPLIES_BYTES_MAX || value.shared().is_some() {
                break;
            }
            replies.extend_from_slice(reply);
            at += used;
            hits += 1;
        }
        self.stats.add(Counter::Hits, hits);
        self.stats.add(Counter::BytesIn, at as u64);
        at
    }

    /// Whether a read of this client may be a hit without a look at its key: the lease holds, and nothing of it is
    /// outstanding that the read could have to wait for (rule L5), nor has it state upstream (rule L15).
    #[inline]
    pub(super) fn may_hit(&self, client: &Client) -> bool {
        client.relayed == 0 && client.own.is_none() && self.now < self.hits_until && !self.draining
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;
    use crate::cache::{NewContent, Put};
    use crate::config::Config;
    use crate::time::Time;
    use std::io::IoSlice;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    /// An engine that keeps `k1` and `k2`, as if Redis were there.
    fn engine() -> Engine {
        let now = Time::from_millis(1);
        let origin = Origin {
            seed: [1; 4],
            now,
            unix_secs: 0,
            pid: 1,
        };
        let mut engine = Engine::new(Config::default(), origin);
        engine.hits_until = now + Duration::from_secs(60);
        for (key, value) in [(b"k1", &b"one"[..]), (b"k2", b"two")] {
            let put = Put {
                db: 0,
                key,
                hash: engine.hasher.hash(key),
                content: NewContent::Value(value),
                stored_at: now,
                deadline: now + Duration::from_secs(60),
                tag: 0,
                ping: 0,
            };
            assert!(engine.cache.put(put, now).kept);
        }
        while engine.poll_output().is_some() {}
        engine
    }

    fn read(engine: &mut Engine, id: ConnId, bytes: &[u8]) -> Option<Vec<u8>> {
        engine.recv_slice(id)[..bytes.len()].copy_from_slice(bytes);
        match engine.received_at_once(id, bytes.len()) {
            AtOnce::Replies(replies) => Some(replies.to_vec()),
            AtOnce::Outputs => None,
        }
    }

    /// What the engine wants sent the general way, if it said so.
    fn flushed(engine: &mut Engine, id: ConnId) -> Option<Vec<u8>> {
        let mut said = false;
        while let Some(output) = engine.poll_output() {
            said |= output == Output::Flush(id);
        }
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = engine.send_slices(id, &mut slices);
        said.then(|| {
            slices[..filled]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect()
        })
    }

    const GET_K1: &[u8] = b"*2\r\n$3\r\nGET\r\n$2\r\nk1\r\n";
    const GET_K2: &[u8] = b"*2\r\n$3\r\nget\r\n$2\r\nk2\r\n";

    #[test]
    fn hits_are_answered_at_once_and_in_order() {
        let mut engine = engine();
        let id = engine.open(Port::Resp, PEER).unwrap();
        let replies = read(&mut engine, id, &[GET_K1, GET_K2, GET_K1].concat());
        let expected = b"$3\r\none\r\n$3\r\ntwo\r\n$3\r\none\r\n";
        assert_eq!(replies.as_deref(), Some(&expected[..]));
        engine.sent_at_once(id, expected.len());
        assert_eq!(flushed(&mut engine, id), None);
        engine.check();
    }

    #[test]
    fn what_the_socket_does_not_take_is_sent_the_general_way() {
        let mut engine = engine();
        let id = engine.open(Port::Resp, PEER).unwrap();
        assert!(read(&mut engine, id, &[GET_K1, GET_K2].concat()).is_some());
        engine.sent_at_once(id, 4);
        assert_eq!(flushed(&mut engine, id).unwrap(), b"one\r\n$3\r\ntwo\r\n");
        // What comes before that was sent waits its turn.
        assert_eq!(read(&mut engine, id, GET_K1), None);
        engine.sent(id, 5);
        assert_eq!(
            flushed(&mut engine, id),
            None,
            "said once until it is empty"
        );
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(engine.send_slices(id, &mut slices), 1);
        assert_eq!(&*slices[0], b"$3\r\ntwo\r\n$3\r\none\r\n");
        engine.sent(id, 18);
        assert!(read(&mut engine, id, GET_K2).is_some(), "at rest again");
    }

    #[test]
    fn behind_the_first_that_is_no_hit_everything_goes_the_general_way() {
        let mut engine = engine();
        let id = engine.open(Port::Resp, PEER).unwrap();
        assert_eq!(
            read(&mut engine, id, &[GET_K1, b"PING\r\n", GET_K2].concat()),
            None
        );
        let expected = b"$3\r\none\r\n+PONG\r\n$3\r\ntwo\r\n";
        assert_eq!(flushed(&mut engine, id).unwrap(), expected);
        engine.sent(id, expected.len());
        // A part of a request is kept, and what follows it is not taken for a beginning.
        assert_eq!(
            read(&mut engine, id, &[GET_K1, &GET_K2[..9]].concat()),
            None
        );
        assert_eq!(flushed(&mut engine, id).unwrap(), b"$3\r\none\r\n");
        engine.sent(id, 9);
        assert_eq!(read(&mut engine, id, &GET_K2[9..]), None);
        assert_eq!(flushed(&mut engine, id).unwrap(), b"$3\r\ntwo\r\n");
        engine.check();
    }

    #[test]
    fn only_hits_of_the_redis_protocol_under_the_lease_go_straight() {
        let mut engine = engine();
        let http = engine.open(Port::Http, PEER).unwrap();
        assert_eq!(read(&mut engine, http, GET_K1), None);
        let id = engine.open(Port::Resp, PEER).unwrap();
        engine.hits_until = engine.now;
        assert_eq!(read(&mut engine, id, GET_K1), None);
    }
}
