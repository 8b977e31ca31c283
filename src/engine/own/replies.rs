//! What arrives on an own link: the replies, and what they say of the connection's state.
#![forbid(unsafe_code)]

use super::super::coherence::BARRIER_REPLY_BYTES_MAX;
use super::super::forget::Flush;
use super::Engine;
use crate::engine::ConnId;
use crate::link::{Owed, Poison, Purpose, Taken, Touch};
use crate::protocol::resp::reply::{ReplyScanner, Scan};
use crate::protocol::resp::write;
use crate::session::{Answer, Deed, Everything};

/// A reply that says something of the connection, or to a handshake, is never this long.
const COLLECTED_BYTES_MAX: usize = 8 * 1024 * 1024;
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
            let link = &mut self.links[ix];
            if link.owed.is_empty() {
                return self.link_lost(id, "Redis sent what nobody asked for");
            }
            let (used, scan) = link.scanner.feed(&bytes[at..]);
            let chunk = &bytes[at..at + used];
            at += used;
            let begins = !link.reply_begun;
            link.reply_begun = scan == Scan::More;
            match scan {
                Scan::Bad => return self.link_lost(id, "Redis sent what is not RESP"),
                Scan::More => self.own_part(ix, chunk, begins, false),
                Scan::Done => {
                    link.scanner = ReplyScanner::default();
                    self.own_part(ix, chunk, begins, true);
                }
            }
        }
    }

    /// A part of the front reply, or all of it.
    fn own_part(&mut self, ix: usize, chunk: &[u8], begins: bool, ends: bool) {
        let owed = self.links[ix]
            .owed
            .front()
            .expect("own_received has looked")
            .clone();
        if begins {
            let own = self.own_of(ix);
            let deed = own.deeds.front().filter(|_| owed.to.is_some());
            let whole = deed.is_none_or(|deed| own.session.wants_whole_reply(deed))
                || owed.purpose != Purpose::Pass;
            own.taken = if whole {
                Taken::Collecting
            } else {
                Taken::Passing
            };
        }
        if self.own_of(ix).taken == Taken::Passing {
            return self.own_passing(ix, &owed, chunk, begins, ends);
        }
        let link = &mut self.links[ix];
        if !ends {
            link.collected.extend_from_slice(chunk);
            if link.collected.len() > COLLECTED_BYTES_MAX {
                let id = link.id;
                self.link_lost(id, "a reply is longer than can be");
            }
            return;
        }
        if begins {
            return self.own_whole(ix, &owed, chunk);
        }
        let mut collected = std::mem::take(&mut link.collected);
        collected.extend_from_slice(chunk);
        self.own_whole(ix, &owed, &collected);
    }

    /// A reply that is passed on as it comes.
    fn own_passing(&mut self, ix: usize, owed: &Owed, chunk: &[u8], begins: bool, ends: bool) {
        let head: &[u8] = if begins { chunk } else { b"" };
        let is_exec = self.own_of(ix).deeds.front() == Some(&Deed::Exec);
        if begins || ends {
            // Early enough at its first byte, since it was executed before; once more for what was fetched meanwhile.
            if is_exec {
                self.poison_block(ix);
            } else {
                self.poison_own(ix, owed, head);
            }
        }
        if is_exec {
            self.own_of(ix).session.exec_part(chunk);
        }
        if !ends {
            return self.pass(owed, chunk);
        }
        self.own_answered(ix, owed, head);
        self.drop_touched(ix, owed);
        self.own_over(ix, owed, chunk);
    }

    /// A reply that was collected.
    fn own_whole(&mut self, ix: usize, owed: &Owed, reply: &[u8]) {
        if owed.to.is_none() {
            let id = self.links[ix].id;
            self.links[ix].owed.pop_front();
            return self.greeted(id, owed.purpose, reply);
        }
        let hello = matches!(self.own_of(ix).deeds.front(), Some(Deed::Hello { .. }));
        let answer = self.own_answered(ix, owed, reply);
        match answer {
            Answer::Queued => self.queue_touched(ix, owed),
            Answer::Executed => {
                self.poison_own(ix, owed, reply);
                self.drop_touched(ix, owed);
            }
        }
        match (answer, owed.to.and_then(|(id, _)| self.client_index(id))) {
            (Answer::Executed, Some(client)) if hello => {
                let patched = with_id(reply, self.clients[client].number);
                self.own_over(ix, owed, &patched);
            }
            _ => self.own_over(ix, owed, reply),
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
        let (version, db, name) = (
            own.session.version,
            own.session.db,
            own.session.name.clone(),
        );
        let has_user = own.session.user().is_some();
        if let Some(client) = owed.to.and_then(|(id, _)| self.client_index(id)) {
            let client = &mut self.clients[client];
            (client.version, client.db) = (version, db);
            client.set_name(name.as_deref());
            client.authenticated |= has_user;
        }
        answer
    }

    /// The front command is over: its reply goes to the client, the counts go down.
    fn own_over(&mut self, ix: usize, owed: &Owed, reply: &[u8]) {
        self.links[ix].owed.pop_front();
        match owed.purpose {
            Purpose::Info => self.pass_info(owed, reply),
            _ => self.pass(owed, reply),
        }
        self.settle_relayed(None, owed);
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
