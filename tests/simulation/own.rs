//! Clients with state upstream: optimistic locking, transactions in one piece, subscribers, and who waits for data.
//!
//! What must hold of them: a transaction that succeeds has changed the very value that its client read since its WATCH
//! (no update is lost), and a message, or an element that was waited for, tells of a write that every read sent
//! afterwards shows (the order of events), by whomever and whatever is lost meanwhile.

use super::actor::{Actor, Asked};
use super::driver::codec::{bulk, reply_len, request};
use super::driver::redis::Data;
use super::driver::world::World;
use super::ledger::Ledger;
use fastrand::Rng;
use nearcache::engine::Port;

/// What is changed by optimistic locking.
pub const LOCKED: &str = "w";
/// Where foreign writers say what they have written.
pub const CHANNEL: &str = "news";
/// The same as a queue.
pub const QUEUE: &str = "queue";
/// A subscriber leaves after so many messages.
const MESSAGES: usize = 4;

/// What an actor does beside plain commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Nothing.
    Plain,
    /// It locks optimistically.
    Locks(Round),
    /// It has subscribed (or will), and has heard so much.
    Listens(Option<usize>),
    /// It waits for elements of the queue, now or not.
    Waits(bool),
}

/// Where it is between WATCH and EXEC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Round {
    Idle,
    /// WATCH and GET are under way.
    Watching,
    /// What the GET showed.
    Read(Option<Vec<u8>>),
    /// EXEC is under way, or what else ends the round.
    Ending,
}

impl Part {
    /// By the actor's number, so that every run in which there are any has some of each.
    pub fn of(number: usize, port: Port, any: bool) -> Part {
        match (port, number % 6) {
            _ if !any => Part::Plain,
            (Port::Resp, 1 | 2) => Part::Locks(Round::Idle),
            (Port::Resp, 4) => Part::Listens(None),
            (Port::Resp, 5) => Part::Waits(false),
            _ => Part::Plain,
        }
    }
}

/// What the actor says next on behalf of its part: `None` if a plain command may be said instead.
pub fn speak(actor: &mut Actor, tag: &str, random: &mut Rng) -> Option<Vec<(Vec<u8>, Asked)>> {
    let quiet = actor.awaited.is_empty();
    let ok = || Asked::Exactly(b"+OK\r\n".to_vec());
    let queued = || Asked::Exactly(b"+QUEUED\r\n".to_vec());
    let say = |args: &[&str], asked| (request(args), asked);
    let exec = |seen| Asked::Exec {
        tag: tag.as_bytes().to_vec(),
        seen,
    };
    match &mut actor.part {
        Part::Plain => None,
        Part::Locks(Round::Idle) if !quiet || random.bool() => None,
        Part::Locks(round @ Round::Idle) => {
            if random.u8(..4) == 0 {
                // In one piece, on a link that others share.
                *round = Round::Ending;
                return Some(vec![
                    say(&["MULTI"], ok()),
                    say(&["SET", LOCKED, tag], queued()),
                    say(&["EXEC"], exec(None)),
                ]);
            }
            *round = Round::Watching;
            Some(vec![
                say(&["WATCH", LOCKED], ok()),
                say(&["GET", LOCKED], Asked::Watched),
            ])
        }
        Part::Locks(round) => {
            let Round::Read(seen) = round.clone() else {
                return Some(Vec::new());
            };
            *round = Round::Ending;
            let last = |args: &[&str]| vec![say(args, Asked::RoundEnds)];
            let begun = vec![say(&["MULTI"], ok()), say(&["SET", LOCKED, tag], queued())];
            Some(match random.u8(..8) {
                0 => last(&["UNWATCH"]),
                1 => [begun, last(&["DISCARD"])].concat(),
                _ => [begun, vec![say(&["EXEC"], exec(Some(seen)))]].concat(),
            })
        }
        Part::Listens(heard @ None) => {
            *heard = Some(0);
            Some(vec![say(&["SUBSCRIBE", CHANNEL], Asked::Subscribed)])
        }
        Part::Listens(Some(_)) => Some(Vec::new()),
        Part::Waits(false) if !quiet || random.bool() => None,
        Part::Waits(waits @ false) => {
            *waits = true;
            Some(vec![say(&["BLPOP", QUEUE, "0"], Asked::Popped)])
        }
        Part::Waits(true) => Some(Vec::new()),
    }
}

/// A message that nobody asked for, if one begins here: how long it is.
pub fn hear_message(
    actor: &mut Actor,
    world: &mut World,
    ledger: &mut Ledger,
    bytes: &[u8],
) -> Option<usize> {
    let Part::Listens(Some(heard)) = &mut actor.part else {
        return None;
    };
    let is_message = [b"*3\r\n$7\r\nmessage\r\n", b">3\r\n$7\r\nmessage\r\n"];
    if !is_message.iter().any(|head| bytes.starts_with(*head)) {
        return None;
    }
    let len = reply_len(bytes)?;
    *heard += 1;
    if *heard == MESSAGES {
        actor.finished = true;
        world.sockets[actor.socket].fin = true;
    }
    ledger.told_of(world, &last_bulk(&bytes[..len]));
    Some(len)
}

/// The reply to something that only this module asks for.
pub fn hear(actor: &mut Actor, world: &World, ledger: &mut Ledger, asked: &Asked, reply: &[u8]) {
    let who = actor.number;
    let shown = String::from_utf8_lossy(reply).into_owned();
    let is_nil = [&b"$-1\r\n"[..], b"_\r\n", b"*-1\r\n"].contains(&reply);
    match asked {
        Asked::Subscribed => assert!(shown.contains("subscribe"), "client {who} got {shown}"),
        Asked::Popped => {
            actor.part = Part::Waits(false);
            ledger.popped(world, who, &last_bulk(reply));
        }
        Asked::RoundEnds => {
            assert_eq!(shown, "+OK\r\n", "client {who}");
            actor.part = Part::Locks(Round::Idle);
        }
        Asked::Exec { tag, seen } => {
            actor.part = Part::Locks(Round::Idle);
            if is_nil {
                assert!(seen.is_some(), "client {who} has watched nothing");
                ledger.conflicts += 1;
                return;
            }
            assert_eq!(shown, "*1\r\n+OK\r\n", "client {who}");
            ledger.updated(world, who, LOCKED.as_bytes(), tag, seen.as_ref());
        }
        _ => {
            let value = (!is_nil).then(|| last_bulk(reply));
            actor.part = Part::Locks(Round::Read(value));
        }
    }
}

/// As the data of the key that is locked.
pub fn data_of(value: Option<Vec<u8>>) -> Option<Data> {
    value.map(Data::Text)
}

/// The last element of an array of bulks, or a bulk itself.
pub fn last_bulk(reply: &[u8]) -> Vec<u8> {
    let ends: Vec<usize> = (0..reply.len()).filter(|at| reply[*at] == b'$').collect();
    for at in ends.into_iter().rev() {
        let text = &reply[at..];
        let head = text.windows(2).position(|two| two == b"\r\n");
        let value = head.map(|head| &text[head + 2..text.len() - 2]);
        if let Some(value) = value
            && bulk(value) == text
        {
            return value.to_vec();
        }
    }
    Vec::new()
}
