//! What a client was told, and whether that keeps the promises.

use super::driver::codec::{parse_http, reply_len};
use super::driver::redis::Redis;
use super::scenario::{Keys, Op, Promise};
use std::collections::VecDeque;

/// One number for each key.
pub type PerKey = [usize; 2];

/// A command under way.
#[derive(Debug, Clone, Hash)]
pub struct Awaited {
    pub op: usize,
    /// What had been written, as far as anyone was told, when it was said.
    pub cross: PerKey,
    /// What anyone had read.
    pub gmono: PerKey,
    /// What was written before what anyone was told of by a message.
    pub event: PerKey,
    /// What was in force the staleness bound before.
    pub bound: PerKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deed {
    Read,
    /// A read that is no GET: nothing is promised of what comes after it (rule L13).
    Looked,
    Wrote,
}

#[derive(Debug, Clone, Default, Hash)]
pub struct Observer {
    pub said: usize,
    pub awaited: VecDeque<Awaited>,
    /// What its commands showed, in their order: the deed, the key, the version.
    pub seen: Vec<(Deed, usize, usize)>,
    /// What its GETs have shown of the watched key since WATCH.
    pub watched: Option<Vec<usize>>,
    /// Its state upstream is lost, and it with that.
    pub gone: bool,
    /// What reads that are no GET have shown counts too.
    pub monox: bool,
}

/// How errors of the proxy's own begin.
const OWN_ERROR: &[u8] = b"-ERR nearcache: ";

/// A reply, and what it says.
pub struct Heard<'r> {
    pub len: usize,
    reply: &'r [u8],
    /// The values in it.
    values: Vec<Option<Vec<u8>>>,
    /// It is an error of the proxy's own.
    pub failed: bool,
}

impl<'r> Heard<'r> {
    pub fn new(op: Op, bytes: &'r [u8]) -> Heard<'r> {
        if matches!(op, Op::Http | Op::Fresh) {
            let answer = parse_http(bytes, false).expect("answers come whole");
            let values = vec![(answer.status == 200).then_some(answer.body)];
            let failed = answer.status == 503;
            let (len, reply) = (answer.len, &bytes[..0]);
            return Heard {
                len,
                reply,
                values,
                failed,
            };
        }
        let len = replies_len(op, bytes).expect("replies come whole");
        // Of a transaction the last tells, unless the proxy has failed one of them: with its link its client ends.
        let (mut begin, mut end) = (0, reply_len(bytes).unwrap_or(len));
        while end < len && !bytes[begin..].starts_with(OWN_ERROR) {
            begin = end;
            end += reply_len(&bytes[end..]).expect("replies come whole");
        }
        let reply = &bytes[begin..end];
        Heard {
            len,
            reply,
            values: values(reply),
            failed: reply.starts_with(OWN_ERROR),
        }
    }

    /// Whether it can be the reply to that.
    pub fn fits(&self, op: Op) -> bool {
        let reply = self.reply;
        match op {
            Op::Set | Op::Mset | Op::Script | Op::ScriptBoth => reply == b"+OK\r\n",
            Op::Del => reply.starts_with(b":"),
            Op::Copy => reply == b":1\r\n",
            Op::Select | Op::Watch => reply == b"+OK\r\n",
            Op::ExecSet | Op::ExecSetL => reply == b"*1\r\n+OK\r\n" || self.aborted(),
            Op::ExecGet => self.aborted() || self.values[0].is_some(),
            Op::Subscribe => reply.starts_with(b"*3\r\n$9\r\nsubscribe\r\n"),
            Op::Publish => false,
            Op::Other => self.values[0].as_deref() == Some(b"other"),
            Op::Hello => reply.starts_with(b"%"),
            Op::Look => reply.starts_with(b":"),
            Op::Mget => self.values.len() == 2,
            Op::Get | Op::GetL | Op::Range | Op::Http | Op::Fresh => match &self.values[0] {
                Some(value) => value.iter().all(u8::is_ascii_digit),
                None => matches!(reply, b"" | b"_\r\n" | b"$-1\r\n"),
            },
        }
    }

    /// A transaction was not executed, for a watched key has changed.
    pub fn aborted(&self) -> bool {
        self.reply == b"*-1\r\n"
    }

    /// The version of a key that the value at that place shows.
    pub fn version(&self, redis: &Redis, keys: &Keys, key: usize, place: usize) -> usize {
        match &self.values[place] {
            Some(text) => String::from_utf8_lossy(text).parse().unwrap_or(0),
            None => {
                let (db, name) = keys[key];
                let history = &redis.history[&(db, name.into())];
                let mut missing = (1..history.len()).filter(|at| history[*at].data.is_none());
                let version = missing.next().unwrap_or(0);
                assert!(
                    missing.next().is_none(),
                    "one DEL, so that its version is known"
                );
                version
            }
        }
    }
}

impl Observer {
    /// Its write has made these versions.
    pub fn wrote(&mut self, versions: PerKey) -> Result<(), Promise> {
        for (key, version) in versions.into_iter().enumerate() {
            if version == 0 {
                continue;
            }
            let later = |(_, of, earlier): &(Deed, usize, usize)| *of == key && *earlier >= version;
            if self.seen.iter().any(later) {
                return Err(Promise::Order);
            }
            self.seen.push((Deed::Wrote, key, version));
        }
        Ok(())
    }

    /// Its read has shown this version.
    pub fn read(
        &mut self,
        shown: Deed,
        awaited: &Awaited,
        key: usize,
        version: usize,
    ) -> Result<(), Promise> {
        for (deed, of, earlier) in &self.seen {
            let counts = self.monox || *deed != Deed::Looked;
            if *of == key && version < *earlier && counts {
                return Err(match deed {
                    Deed::Wrote => Promise::Ryw,
                    Deed::Read => Promise::Mono,
                    Deed::Looked => Promise::Monox,
                });
            }
        }
        if version < awaited.cross[key] {
            return Err(Promise::Cross);
        }
        if version < awaited.gmono[key] {
            return Err(Promise::Gmono);
        }
        if version < awaited.event[key] {
            return Err(Promise::EventOrder);
        }
        self.seen.push((shown, key, version));
        Ok(())
    }
}

/// The length of all replies to that, `None` while some are missing.
pub fn replies_len(op: Op, bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    for _ in 0..op.replies() {
        len += reply_len(&bytes[len..])?;
    }
    Some(len)
}

/// The number in the message that `bytes` begin with, and the message's length.
pub fn message(bytes: &[u8]) -> Option<(usize, usize)> {
    const HEAD: &[u8] = b"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n";
    let text = bulk(bytes.strip_prefix(HEAD)?)?;
    let number = String::from_utf8_lossy(&text).parse().ok()?;
    Some((number, reply_len(bytes)?))
}

/// The values of a bulk reply, or of an array of them.
fn values(reply: &[u8]) -> Vec<Option<Vec<u8>>> {
    let array = reply.strip_prefix(b"*2\r\n");
    let mut rest = match array.or(reply.strip_prefix(b"*1\r\n")) {
        None => return vec![bulk(reply)],
        Some(rest) => rest,
    };
    let mut values = Vec::new();
    while let (false, Some(len)) = (rest.is_empty(), reply_len(rest)) {
        values.push(bulk(&rest[..len]));
        rest = &rest[len..];
    }
    values
}

/// The value of a bulk reply.
pub fn bulk(reply: &[u8]) -> Option<Vec<u8>> {
    if !reply.starts_with(b"$") || reply.starts_with(b"$-") {
        return None;
    }
    let head = reply.windows(2).position(|two| two == b"\r\n")? + 2;
    let len: usize = std::str::from_utf8(&reply[1..head - 2])
        .ok()?
        .parse()
        .ok()?;
    Some(reply.get(head..head + len)?.to_vec())
}

/// The lengths of the messages under way on the invalidation link: pushes and PONGs, and the answer to the request to
/// track. What comes before one of these counts with it.
pub fn messages(mut replies: &[u8]) -> Vec<usize> {
    let (mut lens, mut len, mut after) = (Vec::new(), 0, b' ');
    while let (false, Some(n)) = (replies.is_empty(), reply_len(replies)) {
        let kind = replies[0];
        len += n;
        let matters = kind == b'>'
            || replies.starts_with(b"+PONG")
            || replies.starts_with(b"+OK") && after != b'%'
            || replies.starts_with(b"-NOPERM this user has no permissions to run the 'client|");
        if matters {
            lens.push(std::mem::take(&mut len));
        }
        after = kind;
        replies = &replies[n..];
    }
    if len > 0 {
        lens.push(len);
    }
    lens
}
