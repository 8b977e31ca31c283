//! What every reply must be: exactly what Redis answered to that very command, or a value inside the promise's window.
//!
//! A read may return any version of its key that is not older than: what the client read or wrote before it in program
//! order (RYW, MONO), what any client of the proxy had read or had been told of its writes when the read was sent (GMONO,
//! CROSS), what was in force when the bound on staleness began before it was sent, and, where Redis pushes, what was in
//! force when it executed the newest PING that it had answered. A stale answer (rule L18) is free of the last two, but not
//! older than the tracking that was lost. A value that stood there more than once counts as the oldest of its versions
//! that fits, so nothing right is ever refused.

use super::actor::{Actor, Asked, Sent};
use super::driver::codec::{bulk, reply_len};
use super::driver::redis::{Data, Execution, Key, Snapshot, Version};
use super::driver::world::World;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

#[derive(Default)]
pub struct Ledger {
    pub db: u32,
    /// How old an answer may be.
    pub bound: Duration,
    /// What the engine has been told of, and was when tracking began.
    pub told: Snapshot,
    pub up: Snapshot,
    /// The oldest version that a read sent now may return.
    pub floor: BTreeMap<Vec<u8>, usize>,
    /// Where each command stands in Redis's log.
    executed: HashMap<Vec<Vec<u8>>, Vec<usize>>,
    log_seen: usize,
    pub replies: u64,
    pub values: u64,
    /// Keys that other reads than GET have shown.
    pub looks: u64,
    pub old_values: u64,
    pub errors: u64,
    /// Transactions that succeeded after a WATCH, and that did not.
    pub updates: u64,
    pub conflicts: u64,
    /// Messages and elements that told of a write.
    pub events: u64,
    /// Which elements somebody got.
    popped: HashSet<Vec<u8>>,
    /// Whether what is told of is seen.
    pub holds_events: bool,
}

impl Ledger {
    pub fn new(db: u32, bound: Duration) -> Ledger {
        Ledger {
            db,
            bound,
            ..Ledger::default()
        }
    }

    fn read_log(&mut self, log: &[Execution]) {
        for (at, execution) in log.iter().enumerate().skip(self.log_seen) {
            self.executed
                .entry(execution.args.clone())
                .or_default()
                .push(at);
        }
        self.log_seen = log.len();
    }

    /// The version that a read's answer shows.
    pub fn value(
        &mut self,
        world: &World,
        actor: &mut Actor,
        sent: &Sent,
        name: &[u8],
        got: Option<&Data>,
        stale: bool,
    ) {
        self.values += 1;
        let key = (self.db, name.to_vec());
        let none = [];
        let history = world
            .redis
            .history
            .get(&key)
            .map_or(&none[..], Vec::as_slice);
        let lowest = self.lowest(actor, sent, &key, history, stale);
        let possible = |version: &usize| {
            let data = history
                .get(*version)
                .and_then(|version| version.data.as_ref());
            let ended = history
                .get(version + 1)
                .filter(|next| next.expired && next.at <= sent.at);
            // What had expired when the read was sent can only have come by a fetch that was under way.
            let joined = || {
                world.fetched.iter().any(|note| {
                    note.key == key
                        && note.completed > sent.step
                        && got
                            == note
                                .value
                                .as_ref()
                                .map(|value| Data::Text(value.clone()))
                                .as_ref()
                })
            };
            data == got && (ended.is_none() || joined())
        };
        let newest = history.len().saturating_sub(1);
        let version = (lowest..=newest).find(possible);
        let Some(version) = version else {
            panic!(
                "client {} read {got:?} from {:?}: nothing in versions {lowest}..={newest} of\n{}",
                actor.number,
                String::from_utf8_lossy(name),
                described(history),
            );
        };
        self.old_values += u64::from(version < newest);
        actor.last_read.insert(name.to_vec(), version);
        raise(&mut actor.floor, name, version);
        raise(&mut self.floor, name, version);
    }

    /// The reply to a read that is no GET: each of its keys had such a value no longer ago than a GET may show. Of what
    /// the client reads afterwards nothing follows (rule L13).
    pub fn looked(
        &mut self,
        world: &World,
        actor: &Actor,
        sent: &Sent,
        args: &[Vec<u8>],
        reply: &[u8],
    ) {
        let name = String::from_utf8_lossy(&args[0]).into_owned();
        let keys = match name.as_str() {
            "MGET" => &args[1..],
            _ => &args[1..2],
        };
        let head = reply.windows(2).position(|two| two == b"\r\n");
        let mut rest = match name.as_str() {
            "MGET" => &reply[head.expect("it is whole") + 2..],
            _ => reply,
        };
        for key in keys {
            let len = reply_len(rest).expect("one item for each key");
            let item = &rest[..len];
            rest = &rest[len..];
            let fits = |data: Option<&Data>| match (name.as_str(), data) {
                ("EXISTS", data) => item == if data.is_some() { b":2\r\n" } else { b":0\r\n" },
                ("STRLEN", None) => item == b":0\r\n",
                ("STRLEN", Some(Data::Text(text))) => {
                    item == format!(":{}\r\n", text.len()).as_bytes()
                }
                ("GETRANGE", None) => item == b"$0\r\n\r\n",
                (_, Some(Data::Text(text))) => item == bulk(text),
                _ => matches!(item, b"$-1\r\n" | b"_\r\n"),
            };
            let key = (self.db, key.clone());
            let history = world.redis.history.get(&key);
            let history = history.map_or(&[][..], Vec::as_slice);
            let lowest = self.lowest(actor, sent, &key, history, false);
            let newest = history.len().saturating_sub(1);
            let possible = |version: &usize| {
                let next = history.get(version + 1);
                let ended = next.is_some_and(|next| next.expired && next.at <= sent.at);
                let data = history.get(*version);
                fits(data.and_then(|version| version.data.as_ref())) && !ended
            };
            assert!(
                (lowest..=newest).any(|version| possible(&version)),
                "client {} got {:?} to {}: nothing in versions {lowest}..={newest} of\n{}",
                actor.number,
                String::from_utf8_lossy(reply),
                shown(args),
                described(history),
            );
            self.looks += 1;
        }
    }

    /// A transaction has set the key to `tag`. What was `seen` since WATCH is what it has changed.
    pub fn updated(
        &mut self,
        world: &World,
        who: usize,
        name: &[u8],
        tag: &[u8],
        seen: Option<&Option<Vec<u8>>>,
    ) {
        let key = (self.db, name.to_vec());
        let history = world.redis.history.get(&key);
        let history = history.map_or(&[][..], Vec::as_slice);
        let set = Some(Data::Text(tag.to_vec()));
        let version = history.iter().rposition(|version| version.data == set);
        let Some(version) = version.filter(|version| *version > 0) else {
            panic!("client {who}: its transaction was not executed: {history:?}");
        };
        raise(&mut self.floor, name, version);
        let Some(seen) = seen else { return };
        self.updates += 1;
        assert_eq!(
            history[version - 1].data,
            seen.clone().map(Data::Text),
            "client {who}: an update is lost between what it read and version {version} of\n{}",
            described(history),
        );
    }

    /// Somebody was told of the write of this value: who reads from now on sees it, or a later one.
    pub fn told_of(&mut self, world: &World, value: &[u8]) {
        self.events += 1;
        if !self.holds_events {
            return;
        }
        let written = Some(Data::Text(value.to_vec()));
        for ((db, name), history) in &world.redis.history {
            let version = history.iter().rposition(|version| version.data == written);
            if let (true, Some(version)) = (*db == self.db, version) {
                raise(&mut self.floor, name, version);
            }
        }
    }

    /// Somebody got this element of the queue.
    pub fn popped(&mut self, world: &World, who: usize, value: &[u8]) {
        assert!(
            self.popped.insert(value.to_vec()),
            "client {who} got {:?}, which somebody else got too",
            String::from_utf8_lossy(value),
        );
        self.told_of(world, value);
    }

    /// The oldest version that a read may show.
    fn lowest(
        &self,
        actor: &Actor,
        sent: &Sent,
        key: &Key,
        history: &[Version],
        stale: bool,
    ) -> usize {
        let at = |snapshot: &Snapshot| snapshot.get(key).copied().unwrap_or(0);
        let in_force = |version: &Version| version.at + self.bound <= sent.at;
        let fresh = if stale {
            at(&sent.up)
        } else {
            let fresh = history.iter().rposition(in_force).unwrap_or(0);
            fresh.max(at(&sent.told))
        };
        let floor = sent.floor.get(&key.1).copied().unwrap_or(0);
        let own = actor.floor.get(&key.1).copied().unwrap_or(0);
        floor.max(own).max(fresh)
    }

    /// The reply to a relayed command: some execution of it answered exactly this, in the client's order.
    pub fn relayed(&mut self, world: &World, actor: &mut Actor, args: &[Vec<u8>], reply: &[u8]) {
        self.read_log(&world.redis.log);
        let log = &world.redis.log;
        let places = self.executed.get(args).map_or(&[][..], Vec::as_slice);
        assert!(
            places.len() <= 1 || !Asked::is_unique(args),
            "executed twice: {}",
            shown(args)
        );
        let place = places.iter().find(|at| {
            actor.last_execution.is_none_or(|last| **at > last) && log[**at].reply == reply
        });
        let Some(place) = place else {
            let said: Vec<String> = places
                .iter()
                .map(|at| format!("#{at} {:?}", String::from_utf8_lossy(&log[*at].reply)))
                .collect();
            panic!(
                "client {} got {:?} to {}, Redis answered {said:?}, the client's last was #{:?}",
                actor.number,
                String::from_utf8_lossy(reply),
                shown(args),
                actor.last_execution,
            );
        };
        actor.last_execution = Some(*place);
        for ((db, name), version) in &log[*place].made {
            if *db != self.db {
                continue;
            }
            let read = actor.last_read.get(name).copied();
            assert!(
                read.is_none_or(|read| read < *version),
                "client {} read version {read:?} before its own write of {version}: {}",
                actor.number,
                shown(args),
            );
            raise(&mut actor.floor, name, *version);
            raise(&mut self.floor, name, *version);
        }
    }

    /// The commands that were executed more than once though they were sent once.
    pub fn check_log(&mut self, world: &World) {
        self.read_log(&world.redis.log);
        for (args, places) in &self.executed {
            let unique = Asked::is_unique(args);
            assert!(
                places.len() <= 1 || !unique,
                "executed twice: {}",
                shown(args)
            );
        }
    }
}

fn raise(floor: &mut BTreeMap<Vec<u8>, usize>, name: &[u8], version: usize) {
    let at = floor.entry(name.to_vec()).or_default();
    *at = (*at).max(version);
}

fn described(history: &[Version]) -> String {
    let line = |version: &Version| format!("  {:>10} us {:?}\n", version.at.micros(), version.data);
    history.iter().map(line).collect()
}

fn shown(args: &[Vec<u8>]) -> String {
    args.iter()
        .map(|arg| String::from_utf8_lossy(&arg[..arg.len().min(40)]) + " ")
        .collect()
}
