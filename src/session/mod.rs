//! What one connection to Redis is in the middle of, as the commands sent on it and the replies to them tell: a
//! transaction, watched keys, subscriptions, tracking, a wait.
//!
//! It holds no socket and knows no client. Replies come in the order of the commands, so what was [`Session::answered`]
//! is certain; only `multi_sent` runs ahead of the replies, as a guess that decides no more than who answers a PING.
//! Invariant: [`Session::is_clean`] holds only while the next user of the connection would find nothing of the last.
//! Costs: O(1) per command and reply; what a transaction keeps is bounded by `block.rs`.
#![forbid(unsafe_code)]

pub mod block;
pub mod channels;
mod elements;

use crate::protocol::resp::write::Version;
use block::{Block, Everything};
use channels::{Channels, Push};
use elements::{Elements, Told};
use std::ops::Range;

/// What a command does to the connection it is executed on, if it succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Nothing that outlasts its reply.
    Nothing,
    /// MULTI.
    Multi,
    /// EXEC.
    Exec,
    /// DISCARD.
    Discard,
    /// WATCH.
    Watch,
    /// UNWATCH.
    Unwatch,
    /// SELECT of this database.
    Select(u32),
    /// HELLO: the version and the name it asks for, and whether it says who the client is.
    Hello {
        /// None: the version stays.
        version: Option<Version>,
        /// None: the name stays.
        name: Option<Box<[u8]>>,
        /// The user it logs in, whose rights are not to be given to whoever comes next.
        user: Option<Box<[u8]>>,
    },
    /// CLIENT SETNAME.
    Name(Box<[u8]>),
    /// SUBSCRIBE and its like, for this many channels.
    Subscribe(u32),
    /// UNSUBSCRIBE and its like: from so many channels of a family, or from all of them.
    Unsubscribe(channels::Family, u32),
    /// CLIENT TRACKING ON or OFF.
    Track(bool),
    /// CLIENT GETREDIR and TRACKINGINFO: the reply names another connection.
    ShowTracking,
    /// CLIENT ID: Redis's reply is the id of the connection, which is not the client's.
    ShowId,
    /// CLIENT INFO and CLIENT LIST, with this request: Redis's reply knows connections, not clients.
    ShowClients(Box<[u8]>),
    /// Inside a transaction it makes replies and messages indistinguishable, as a subscription does, or it does what is
    /// not worth remembering: from EXEC on nothing is told apart.
    Confuse,
    /// It may wait for data as long as its client likes, and silence means nothing.
    Wait,
    /// It leaves behind what lasts until the connection ends.
    Last,
    /// It leaves behind what nobody knows: the connection serves no other client after this one.
    Stain,
    /// AUTH of this user: lasts until the connection ends.
    Auth(Box<[u8]>),
}

/// What became of a command, as its reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was executed, or refused.
    Executed,
    /// It waits in the transaction.
    Queued,
}

/// What an item that arrives is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// The reply to the oldest command outstanding.
    Reply,
    /// A part of such a reply, of which there is one for each channel.
    Confirmation,
    /// Nobody's reply: somebody else has published or changed something.
    Message,
}

/// A piece of what a client sees of the reply to its EXEC.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// These bytes of the part that has come.
    AsItIs(Range<usize>),
    /// In place of an element, what the proxy makes of it.
    Instead(Deed, Vec<u8>),
}

/// The state of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// The version its replies are in.
    pub version: Version,
    /// Its database.
    pub db: u32,
    /// The name it has upstream.
    pub name: Option<Box<[u8]>>,
    /// The transaction it is in.
    multi: Option<Block>,
    /// The same, as it will be when all that was sent has been executed; a MULTI that fails makes it wrong until nothing
    /// is outstanding.
    multi_sent: bool,
    watches: bool,
    tracks: bool,
    channels: Channels,
    /// Confirmations that the oldest command outstanding still gets, once the first has come.
    confirmations_left: Option<u32>,
    stained: bool,
    /// What lasts until the connection ends.
    lasts: bool,
    /// The user that its client has logged in as.
    user: Option<Box<[u8]>>,
    /// Commands outstanding that may wait for long.
    waits: u32,
    /// Looks into the reply to EXEC, where that matters; with the places of what the client is not to see as it is.
    elements: Option<(Elements, Vec<u64>)>,
}

impl Session {
    /// A fresh connection.
    pub fn new(version: Version, db: u32) -> Session {
        Session {
            version,
            db,
            name: None,
            multi: None,
            multi_sent: false,
            watches: false,
            tracks: false,
            channels: Channels::default(),
            confirmations_left: None,
            stained: false,
            lasts: false,
            user: None,
            waits: 0,
            elements: None,
        }
    }

    /// Whether the client's next command will be queued, as far as that is known.
    pub fn is_in_multi(&self) -> bool {
        self.multi_sent || self.multi.is_some()
    }

    /// The user that its client has logged in as; `None`: the proxy's own.
    pub fn user(&self) -> Option<&[u8]> {
        self.user.as_deref()
    }

    /// Whether nothing of the client's state is left, with nothing outstanding.
    pub fn is_clean(&self) -> bool {
        self.multi.is_none()
            && !self.watches
            && !self.tracks
            && !self.lasts
            && self.user.is_none()
            && self.channels.is_empty()
    }

    /// Whether Redis refuses all but a few commands, since it could not tell replies from messages either.
    pub fn refuses_most(&self) -> bool {
        self.version == Version::Resp2 && !self.channels.is_empty()
    }

    /// Whether it is subscribed to anything.
    pub fn is_subscribed(&self) -> bool {
        !self.channels.is_empty()
    }

    /// Channels of a family that it is subscribed to.
    pub fn subscriptions(&self, family: channels::Family) -> u32 {
        self.channels.count(family)
    }

    /// Commands in the transaction it is in.
    pub fn queued(&self) -> Option<u64> {
        self.multi.as_ref().map(|block| block.queued)
    }

    /// Whether Redis remembers what it reads.
    pub fn tracks(&self) -> bool {
        self.tracks
    }

    /// What the item is that begins with `head`; `front` is the oldest command outstanding. `None`: more of it has to
    /// be seen.
    pub fn item(&self, front: Option<&Deed>, head: &[u8], whole: bool) -> Option<Item> {
        let expected = matches!(front, Some(Deed::Subscribe(_) | Deed::Unsubscribe(..)));
        let is_push = match head.first() {
            Some(b'>') => self.version == Version::Resp3,
            Some(b'*') => self.version == Version::Resp2 && (expected || self.is_subscribed()),
            _ => false,
        };
        if !is_push {
            return Some(Item::Reply);
        }
        let push = match channels::push(head) {
            None if !whole && head.len() < channels::HEAD_BYTES_MAX => return None,
            push => push,
        };
        Some(match push {
            Some(Push::Confirmation) if expected => Item::Confirmation,
            Some(Push::Message) => Item::Message,
            // In RESP3 nothing else is a push; in RESP2 it is the reply to PING.
            _ if self.version == Version::Resp3 => Item::Message,
            _ => Item::Reply,
        })
    }

    /// One confirmation of the oldest command outstanding. Whether it was the last.
    pub fn confirmed(&mut self, deed: &Deed, confirmation: &[u8]) -> bool {
        let all = match deed {
            Deed::Unsubscribe(family, 0) => self.channels.count(*family).max(1),
            Deed::Subscribe(n) | Deed::Unsubscribe(_, n) => *n,
            _ => 1,
        };
        let left = self.confirmations_left.unwrap_or(all).saturating_sub(1);
        self.confirmations_left = (left > 0).then_some(left);
        self.channels.confirm(confirmation);
        left == 0
    }

    /// Whether another client may have the connection once it is clean.
    pub fn is_reusable(&self) -> bool {
        !self.stained
    }

    /// Its id or its user is known elsewhere, or it has seen what nobody understands.
    pub fn stain(&mut self) {
        self.stained = true;
    }

    /// Other connections know it by its id: its client keeps it for as long as it is there.
    pub fn keep(&mut self) {
        self.lasts = true;
    }

    /// Whether silence means nothing now.
    pub fn waits(&self) -> bool {
        self.waits > 0
    }

    /// Whether the reply has to be seen whole, though its command is one whose replies are passed on as they come.
    pub fn wants_whole_reply(&self, deed: &Deed) -> bool {
        match deed {
            Deed::Exec => false,
            Deed::Nothing | Deed::Wait | Deed::Stain | Deed::Confuse => self.multi.is_some(),
            _ => true,
        }
    }

    /// Nothing is outstanding: what was guessed is known now.
    pub fn settled(&mut self) {
        self.multi_sent = self.multi.is_some();
    }

    /// A command was sent.
    pub fn sent(&mut self, deed: &Deed) {
        match deed {
            Deed::Multi => self.multi_sent = true,
            Deed::Exec | Deed::Discard => self.multi_sent = false,
            Deed::Wait => self.waits += 1,
            // Whether or not it succeeds: the connection is not trusted any more.
            Deed::Stain => self.stained = true,
            _ => {}
        }
    }

    /// The transaction that the reply to EXEC, which begins now, says the end of.
    pub fn block(&self) -> Option<&Block> {
        self.multi.as_ref()
    }

    /// A part of the reply to EXEC, and what of it the client is to see. `None`: all of it, as it is.
    pub fn exec_part(&mut self, part: &[u8]) -> Option<Vec<Seen>> {
        let block = self.multi.as_mut()?;
        if !block.has_deeds() {
            return None;
        }
        let fresh = || (Elements::default(), block.places_shown().collect());
        let (elements, shows) = self.elements.get_or_insert_with(fresh);
        let (mut ended, mut seen) = (Vec::new(), Vec::new());
        let takes_out = |at: u64| shows.binary_search(&at).is_ok();
        elements.feed(part, takes_out, |told| match told {
            Told::Stay(range) => seen.push(Seen::AsItIs(range)),
            Told::Ended {
                at,
                succeeded,
                taken_out,
            } => {
                let deed = block.take_deed(at);
                if let (Some(deed), Some(element)) = (&deed, taken_out) {
                    seen.push(Seen::Instead(deed.clone(), element));
                }
                ended.extend(deed.map(|deed| (deed, succeeded)));
            }
        });
        for (deed, succeeded) in ended {
            if succeeded {
                self.execute(deed);
            } else {
                self.failed(&deed);
            }
        }
        Some(seen)
    }

    /// The reply to a command is complete. `reply` is all of it if it was wanted whole, else its beginning.
    pub fn answered(&mut self, deed: &Deed, reply: &[u8]) -> Answer {
        let failed = reply.starts_with(b"-") || reply.starts_with(b"!");
        if *deed == Deed::Wait {
            self.waits -= 1;
        }
        match deed {
            Deed::Exec => {
                // Redis 7 ends the transaction whatever is wrong with the EXEC; of others this is not certain.
                let known = !failed
                    || reply.starts_with(b"-EXECABORT")
                    || reply.starts_with(b"-ERR EXEC without MULTI");
                self.stained |= !known;
                // Without one there was nothing to end, and what is watched stays so.
                self.watches &= reply.starts_with(b"-ERR EXEC without MULTI");
                (self.multi, self.elements) = (None, None);
                return Answer::Executed;
            }
            Deed::Discard if !failed => {
                (self.multi, self.watches) = (None, false);
                return Answer::Executed;
            }
            _ => {}
        }
        if let Some(block) = &mut self.multi
            && reply == b"+QUEUED\r\n"
        {
            block.queue(deed);
            return Answer::Queued;
        }
        if failed {
            self.failed(deed);
        } else {
            self.execute(deed.clone());
        }
        Answer::Executed
    }

    /// A command that has just been queued touches these keys.
    pub fn touch(&mut self, hashes: impl Iterator<Item = u64>) {
        if let Some(block) = &mut self.multi {
            block.touch(hashes);
        }
    }

    /// A command that has just been queued may touch all.
    pub fn touch_all(&mut self, how: Everything) {
        if let Some(block) = &mut self.multi {
            block.all = block.all.max(how);
        }
    }

    /// Redis before 7.2 does what a HELLO asks for option by option, so one that failed may have logged in before.
    fn failed(&mut self, deed: &Deed) {
        self.stained |= matches!(deed, Deed::Hello { .. });
    }

    fn execute(&mut self, deed: Deed) {
        match deed {
            Deed::Nothing | Deed::Wait | Deed::Exec | Deed::Discard | Deed::ShowTracking => {}
            Deed::Subscribe(_) | Deed::Unsubscribe(..) | Deed::Confuse => {}
            Deed::ShowId | Deed::ShowClients(_) => {}
            Deed::Track(on) => self.tracks = on,
            Deed::Multi => self.multi = Some(Block::default()),
            Deed::Watch => self.watches = true,
            Deed::Unwatch => self.watches = false,
            Deed::Select(db) => self.db = db,
            Deed::Hello {
                version,
                name,
                user,
            } => {
                self.version = version.unwrap_or(self.version);
                self.user = user.or_else(|| self.user.take());
                if let Some(name) = name {
                    self.name = (!name.is_empty()).then_some(name);
                }
            }
            Deed::Name(name) => self.name = (!name.is_empty()).then_some(name),
            Deed::Stain => self.stained = true,
            Deed::Last => self.lasts = true,
            Deed::Auth(user) => self.user = Some(user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command with the reply to it, in turn.
    fn run(conversation: &[(Deed, &str)]) -> Session {
        let mut session = Session::new(Version::Resp2, 0);
        for (deed, reply) in conversation {
            session.sent(deed);
            if *deed == Deed::Exec {
                session.exec_part(reply.as_bytes());
            }
            session.answered(deed, reply.as_bytes());
        }
        session
    }

    const OK: &str = "+OK\r\n";
    const QUEUED: &str = "+QUEUED\r\n";

    #[test]
    fn a_transaction_begins_and_ends_as_redis_says() {
        assert!(run(&[]).is_clean());
        assert!(!run(&[(Deed::Multi, OK)]).is_clean());
        assert!(run(&[(Deed::Multi, "-NOPERM no\r\n")]).is_clean());
        for end in [
            (Deed::Exec, "*0\r\n"),
            (Deed::Exec, "*-1\r\n"),
            (Deed::Exec, "-EXECABORT because\r\n"),
            (Deed::Discard, OK),
        ] {
            let session = run(&[(Deed::Watch, OK), (Deed::Multi, OK), end]);
            assert!(session.is_clean() && session.is_reusable() && !session.is_in_multi());
        }
        let odd = run(&[(Deed::Multi, OK), (Deed::Exec, "-NOPERM no\r\n")]);
        assert!(odd.is_clean() && !odd.is_reusable());
        let refused = [(Deed::Multi, OK), (Deed::Discard, "-NOPERM no\r\n")];
        assert!(!run(&refused).is_clean());
    }

    #[test]
    fn watched_keys_last_until_unwatch_which_counts_only_when_executed() {
        assert!(!run(&[(Deed::Watch, OK)]).is_clean());
        assert!(run(&[(Deed::Watch, OK), (Deed::Unwatch, OK)]).is_clean());
        let queued = [
            (Deed::Watch, OK),
            (Deed::Multi, OK),
            (Deed::Unwatch, QUEUED),
        ];
        assert!(!run(&queued).is_clean());
        let inside = [
            (Deed::Multi, OK),
            (Deed::Watch, "-ERR inside\r\n"),
            (Deed::Exec, "*0\r\n"),
        ];
        assert!(run(&inside).is_clean());
    }

    #[test]
    fn what_a_transaction_does_to_the_connection_counts_when_its_own_element_says_so() {
        let hello = Deed::Hello {
            version: Some(Version::Resp3),
            name: Some(b"me".as_slice().into()),
            user: None,
        };
        let begun = [
            (Deed::Multi, OK),
            (Deed::Nothing, QUEUED),
            (Deed::Select(3), QUEUED),
            (Deed::Select(99), QUEUED),
            (Deed::Nothing, "-ERR refused\r\n"),
            (hello, QUEUED),
        ];
        let with = |reply| {
            let mut all = begun.to_vec();
            all.push((Deed::Exec, reply));
            run(&all)
        };
        let done = with("*4\r\n$2\r\n-x\r\n+OK\r\n-ERR range\r\n%1\r\n+a\r\n-b\r\n");
        assert_eq!((done.db, done.version), (3, Version::Resp3));
        assert_eq!(done.name.as_deref(), Some(&b"me"[..]));
        for nothing in ["*-1\r\n", "-EXECABORT x\r\n"] {
            let aborted = with(nothing);
            assert_eq!((aborted.db, aborted.version), (0, Version::Resp2));
        }
    }

    #[test]
    fn a_hello_that_failed_may_have_logged_in_before_it_did() {
        let hello = Deed::Hello {
            version: Some(Version::Resp3),
            name: None,
            user: Some(b"alice".as_slice().into()),
        };
        let wrong = "-ERR Client names cannot contain spaces\r\n";
        let refused = run(&[(hello.clone(), wrong)]);
        assert!(refused.is_clean() && !refused.is_reusable());
        let queued = [
            (Deed::Multi, OK),
            (hello, QUEUED),
            (Deed::Nothing, QUEUED),
            (Deed::Exec, "*2\r\n-ERR Client names\r\n+OK\r\n"),
        ];
        let refused = run(&queued);
        assert!(refused.is_clean() && !refused.is_reusable());
    }

    #[test]
    fn what_is_executed_without_a_transaction_leaves_the_watched_keys_alone() {
        for odd in [
            (Deed::Exec, "-ERR EXEC without MULTI\r\n"),
            (Deed::Discard, "-ERR DISCARD without MULTI\r\n"),
        ] {
            let watching = run(&[(Deed::Watch, OK), odd]);
            assert!(!watching.is_clean() && watching.is_reusable());
        }
    }

    #[test]
    fn a_multi_that_failed_is_forgotten_once_nothing_is_outstanding() {
        let mut session = run(&[(Deed::Watch, OK), (Deed::Multi, "-ERR arguments\r\n")]);
        session.settled();
        assert!(!session.is_in_multi());
        let mut session = run(&[(Deed::Multi, OK)]);
        session.settled();
        assert!(session.is_in_multi());
    }

    #[test]
    fn a_block_is_there_from_multi_to_exec() {
        let mut session = run(&[(Deed::Multi, OK), (Deed::Nothing, QUEUED)]);
        session.touch([1].into_iter());
        session.touch_all(Everything::Unreported);
        session.touch_all(Everything::Reported);
        let block = session.block().expect("it is in a transaction");
        assert_eq!(
            (&block.touched[..], block.all),
            (&[1][..], Everything::Unreported)
        );
        assert_eq!(session.queued(), Some(1));
        session.answered(&Deed::Exec, b"*0\r\n");
        session.touch([3].into_iter());
        assert!(session.block().is_none());
    }

    #[test]
    fn what_nobody_knows_stains_and_what_lasts_lasts() {
        let stained = run(&[(Deed::Stain, "-ERR unknown\r\n")]);
        assert!(stained.is_clean() && !stained.is_reusable());
        let login = Deed::Auth(b"alice".as_slice().into());
        let alice = run(&[(login.clone(), OK)]);
        assert!(!alice.is_clean() && alice.user() == Some(b"alice"));
        assert!(run(&[(login, "-WRONGPASS\r\n")]).is_clean());
        let mut waiting = Session::new(Version::Resp2, 0);
        waiting.sent(&Deed::Wait);
        assert!(waiting.waits());
        waiting.answered(&Deed::Wait, b"*-1\r\n");
        assert!(!waiting.waits() && waiting.is_clean());
    }
}
