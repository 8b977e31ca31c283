//! The table of commands: from a call's first arguments to its [`Spec`].
//!
//! It never allocates after it was built, and always answers: what it does not hold has a spec too, the careful one.
//! Invariant: a subcommand is found only through its container (`client|list` as a name is unknown, as to Redis), and
//! each slot's spec is reached from its name by probing without a gap.
//! Costs: a lookup is O(length of the name), one hash and about one comparison, twice for containers; GET, the name that
//! is nearly every call's, is compared first. Cloning shares one table.
#![forbid(unsafe_code)]

use super::keys::Keys;
use super::policy::{self, Policy};
use super::row::Row;
use super::{Arity, Flags, Place, Spec, builtin};
use std::collections::HashMap;
use std::sync::Arc;

/// Every command that a server knows, with our judgement of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(Arc<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    nodes: Vec<Node>,
    /// Open addressing, a power of two and at least twice as many as there are nodes: index into `nodes`, or `EMPTY`.
    slots: Vec<u16>,
    /// The longest name: longer ones are not even hashed.
    name_len_max: usize,
    get: Option<u16>,
    unknown: Spec,
    unknown_without_data: Spec,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    spec: Spec,
    /// The container, for a subcommand, else `NO_PARENT`.
    parent: u16,
    /// Where its own name begins in the spec's: behind the container's and the bar.
    own_name_at: usize,
    has_subcommands: bool,
    has_data: bool,
}

const EMPTY: u16 = u16::MAX;
const NO_PARENT: u16 = u16::MAX;
/// More than any server has; what is beyond it is unknown, hence treated with care.
const NODES_MAX: usize = 8192;

impl Table {
    /// The table of Redis 7.0, for as long as the server's own has not been read, or if it may not be.
    ///
    /// A call whose number of arguments it finds wrong is not taken for refused: the server may be newer.
    pub fn builtin() -> Table {
        build(&builtin_rows(), false)
    }

    /// A server's table, from [`super::row::rows_from_reply`].
    ///
    /// What a server before Redis 7 leaves out (subcommands, and the keys of commands that it calls `movablekeys`) is
    /// taken from the built-in table: no command ever changed where its keys are.
    pub fn from_rows(mut rows: Vec<Row>) -> Table {
        let builtin = builtin_rows();
        let builtin: HashMap<&str, &Row> =
            builtin.iter().map(|row| (row.name.as_str(), row)).collect();
        for row in &mut rows {
            let Some(ours) = builtin.get(row.name.as_str()) else {
                continue;
            };
            if row.key_specs.is_none() && row.flags.iter().any(|flag| flag == "movablekeys") {
                row.key_specs.clone_from(&ours.key_specs);
            }
            if row.subcommands.is_empty() {
                row.subcommands.clone_from(&ours.subcommands);
            }
        }
        build(&rows, true)
    }

    /// The spec of a call with these arguments, the name first, of which at most two are looked at. Names are compared
    /// without regard to case. Never fails: see [`Spec::is_known`].
    #[inline]
    pub fn find<'b>(&self, mut args: impl Iterator<Item = &'b [u8]>) -> &Spec {
        let inner = &*self.0;
        let Some(name) = args.next() else {
            return &inner.unknown;
        };
        if let (true, Some(get)) = (name.eq_ignore_ascii_case(b"get"), inner.get) {
            return &inner.nodes[usize::from(get)].spec;
        }
        let Some(at) = inner.probe(NO_PARENT, name) else {
            return &inner.unknown;
        };
        let node = &inner.nodes[usize::from(at)];
        if !node.has_subcommands {
            return &node.spec;
        }
        match args.next() {
            None => &node.spec,
            Some(sub) => match inner.probe(at, sub) {
                Some(at) => &inner.nodes[usize::from(at)].spec,
                None if node.has_data => &inner.unknown,
                None => &inner.unknown_without_data,
            },
        }
    }

    /// The name of the command in this place; `None` for what is not in the table.
    pub fn name_at(&self, place: Place) -> Option<&str> {
        match place {
            Place::GET => Some("get"),
            Place(at) => Some(self.0.nodes.get(usize::from(at))?.spec.name()),
        }
    }

    /// All specs, subcommands too, in no order.
    pub fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.0.nodes.iter().map(|node| &node.spec)
    }

    /// Walks the slots and panics where the invariant does not hold. For tests.
    pub fn check(&self) {
        let inner = &*self.0;
        assert!(inner.slots.len().is_power_of_two() && inner.slots.len() >= 2 * inner.nodes.len());
        for (at, node) in inner.nodes.iter().enumerate() {
            assert_eq!(
                inner.probe(node.parent, node.own_name()).map(usize::from),
                Some(at),
                "{}",
                node.spec.name
            );
        }
    }
}

/// The rows behind [`Table::builtin`], sorted by name.
pub fn builtin_rows() -> Vec<Row> {
    builtin::COMMANDS
        .iter()
        .map(builtin::Command::to_row)
        .collect()
}

impl Inner {
    fn probe(&self, parent: u16, name: &[u8]) -> Option<u16> {
        if name.len() > self.name_len_max {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash(parent, name) & mask;
        loop {
            let at = self.slots[slot];
            if at == EMPTY {
                return None;
            }
            let node = &self.nodes[usize::from(at)];
            if node.parent == parent && node.own_name().eq_ignore_ascii_case(name) {
                return Some(at);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn insert(&mut self, at: u16) {
        let node = &self.nodes[usize::from(at)];
        let mask = self.slots.len() - 1;
        let mut slot = hash(node.parent, node.own_name()) & mask;
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = at;
    }
}

impl Node {
    fn own_name(&self) -> &[u8] {
        &self.spec.name.as_bytes()[self.own_name_at..]
    }
}

/// FNV-1a of the name in lower case. No seed: names come from the server's table, and what a client sends is only looked
/// up, at most as far as the longest run of full slots.
fn hash(parent: u16, name: &[u8]) -> usize {
    let start = 0x811c_9dc5 ^ u32::from(parent);
    let hash = name.iter().fold(start, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    (hash ^ (hash >> 15)) as usize
}

fn build(rows: &[Row], is_servers_own: bool) -> Table {
    let mut nodes: Vec<Node> = Vec::new();
    for row in rows {
        let parent = u16::try_from(nodes.len()).unwrap_or(NO_PARENT);
        if nodes.len() + 1 + row.subcommands.len() + policy::SPOKEN_FOR.len() > NODES_MAX {
            break;
        }
        nodes.push(node(row, NO_PARENT, is_servers_own));
        for sub in &row.subcommands {
            nodes.push(node(sub, parent, is_servers_own));
        }
        for (name, arity) in policy::SPOKEN_FOR {
            let is_new = || !row.subcommands.iter().any(|sub| sub.name == name);
            if name
                .split_once('|')
                .is_some_and(|(container, _)| container == row.name)
                && is_new()
            {
                nodes.push(node(&bare_row(name, arity), parent, false));
            }
        }
        let has_subcommands = nodes.len() > usize::from(parent) + 1;
        nodes[usize::from(parent)].has_subcommands = has_subcommands;
    }
    for (name, arity) in policy::SPOKEN_FOR {
        if !name.contains('|') && !rows.iter().any(|row| row.name == name) {
            nodes.push(node(&bare_row(name, arity), NO_PARENT, false));
        }
    }
    let mut inner = Inner {
        slots: vec![EMPTY; (2 * nodes.len()).next_power_of_two()],
        name_len_max: nodes
            .iter()
            .map(|node| node.own_name().len())
            .max()
            .unwrap_or(0),
        nodes,
        get: None,
        unknown: unknown(policy::UNKNOWN),
        unknown_without_data: unknown(policy::UNKNOWN_WITHOUT_DATA),
    };
    for at in 0..inner.nodes.len() {
        let place = u16::try_from(at).expect("there are at most NODES_MAX nodes");
        inner.nodes[at].spec.place = Place(place);
        inner.insert(place);
    }
    inner.get = inner.probe(NO_PARENT, b"get");
    Table(Arc::new(inner))
}

fn node(row: &Row, parent: u16, is_servers_own: bool) -> Node {
    let (policy, keys) = policy::judge(row);
    let own_name_at = match parent {
        NO_PARENT => 0,
        _ => row.name.find('|').map_or(0, |bar| bar + 1),
    };
    Node {
        spec: Spec {
            name: row.name.as_str().into(),
            arity: Arity {
                count: row.arity,
                is_servers_own,
            },
            flags: Flags::from_names(row.flags.iter().map(String::as_str)),
            keys,
            policy,
            place: Place::UNKNOWN,
        },
        parent,
        own_name_at,
        has_subcommands: false,
        has_data: !policy::is_container_without_data(&row.name),
    }
}

fn bare_row(name: &str, arity: i64) -> Row {
    Row {
        name: name.to_owned(),
        arity,
        flags: Vec::new(),
        range: (0, 0, 0),
        key_specs: Some(Vec::new()),
        subcommands: Vec::new(),
    }
}

fn unknown(policy: Policy) -> Spec {
    let keys = match policy.effect {
        super::Effect::None => Keys::None,
        _ => Keys::All,
    };
    let arity = Arity {
        count: -1,
        is_servers_own: false,
    };
    Spec {
        name: "".into(),
        arity,
        flags: Flags::from_names(std::iter::empty()),
        keys,
        policy,
        place: Place::UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::keys::Touch;
    use crate::command::{Effect, LocalCommand, Refusal, StateKind, Way};

    fn args(call: &str) -> Vec<&[u8]> {
        call.split(' ').map(str::as_bytes).collect()
    }

    fn check(table: &Table, call: &str, name: &str, way: Way, effect: Effect) {
        let args = args(call);
        let spec = table.find(args.iter().copied());
        let found = (
            spec.name(),
            spec.way(args.iter().copied(), args.len()),
            spec.effect(args.iter().copied(), args.len()),
        );
        assert_eq!(found, (name, way, effect), "{call}");
    }

    fn touch(table: &Table, call: &str) -> (Touch, String) {
        let args = args(call);
        let mut found: Vec<&[u8]> = Vec::new();
        let spec = table.find(args.iter().copied());
        let touch = spec.touch(args.iter().copied(), args.len(), &mut |key| found.push(key));
        (
            touch,
            String::from_utf8(found.join(&b' ')).expect("the calls of these tests are text"),
        )
    }

    #[test]
    fn names_are_found_in_any_case() {
        let table = Table::builtin();
        check(&table, "gEt k", "get", Way::Get, Effect::Read);
        check(&table, "SET k v", "set", Way::Relay, Effect::Write);
        check(
            &table,
            "ZRangeByScore k 0 1",
            "zrangebyscore",
            Way::Relay,
            Effect::Read,
        );
        check(
            &table,
            "restore-ASKING k 0 x",
            "restore-asking",
            Way::Relay,
            Effect::Write,
        );
    }

    #[test]
    fn subcommands_are_found_through_their_container_only() {
        let table = Table::builtin();
        let setname = Way::Local(LocalCommand::ClientSetname);
        let unknown = Way::OwnLink(StateKind::Unknown);
        check(
            &table,
            "client SetName x",
            "client|setname",
            setname,
            Effect::None,
        );
        check(&table, "CLIENT|SETNAME x", "", unknown, Effect::Everything);
        check(&table, "SETNAME x", "", unknown, Effect::Everything);
        check(&table, "CLIENT NONSENSE", "", unknown, Effect::None);
        check(&table, "XGROUP NONSENSE k", "", unknown, Effect::Everything);
        check(&table, "CLIENT", "client", Way::Relay, Effect::None);
        check(&table, "COMMAND", "command", Way::Relay, Effect::None);
        check(
            &table,
            "COMMAND DOCS get",
            "command|docs",
            Way::Relay,
            Effect::None,
        );
    }

    #[test]
    fn what_no_table_holds_touches_everything_and_shares_no_link() {
        let table = Table::builtin();
        let long = "x".repeat(100_000);
        for name in ["NONSENSE", "", "get\0", "GETT", "ge", &long] {
            check(
                &table,
                name,
                "",
                Way::OwnLink(StateKind::Unknown),
                Effect::Everything,
            );
            assert_eq!(touch(&table, name), (Touch::All, String::new()));
            assert!(table.find(args(name).into_iter()).flush_at_completion(1));
        }
        assert!(!table.find(std::iter::empty()).is_known());
    }

    #[test]
    fn quit_is_ours_though_redis_before_7_does_not_list_it() {
        let table = Table::from_rows(vec![bare_row("set", -3)]);
        check(
            &table,
            "set k v",
            "set",
            Way::OwnLink(StateKind::Unknown),
            Effect::Everything,
        );
        let quit = Way::Local(LocalCommand::Quit);
        check(&table, "QUIT", "quit", quit, Effect::None);
        check(&table, "quit now", "quit", quit, Effect::None);
    }

    #[test]
    fn what_has_no_business_upstream_is_refused() {
        let table = Table::builtin();
        let refused = |why| Way::Refuse(why);
        check(
            &table,
            "POST / HTTP/1.1",
            "post",
            refused(Refusal::CrossProtocol),
            Effect::None,
        );
        check(
            &table,
            "Host: example.org",
            "host:",
            refused(Refusal::CrossProtocol),
            Effect::None,
        );
        let pushes = refused(Refusal::MaintNotifications);
        check(
            &table,
            "CLIENT MAINT_NOTIFICATIONS ON",
            "client|maint_notifications",
            pushes,
            Effect::None,
        );
    }

    #[test]
    fn arguments_decide_where_they_matter() {
        let table = Table::builtin();
        let blocking = Way::OwnLink(StateKind::Blocking);
        check(
            &table,
            "XREAD STREAMS s 0",
            "xread",
            Way::Relay,
            Effect::Read,
        );
        check(
            &table,
            "XREAD block 0 STREAMS s $",
            "xread",
            blocking,
            Effect::Read,
        );
        check(
            &table,
            "XREAD BLOCK\0 0 STREAMS s $",
            "xread",
            blocking,
            Effect::Read,
        );
        check(
            &table,
            "XREADGROUP GROUP g c STREAMS s >",
            "xreadgroup",
            Way::Relay,
            Effect::Write,
        );
        check(
            &table,
            "XREADGROUP GROUP g c BLOCK 1 STREAMS s >",
            "xreadgroup",
            blocking,
            Effect::Write,
        );
        check(&table, "SORT k BY w", "sort", Way::Relay, Effect::Read);
        check(&table, "SORT k store d", "sort", Way::Relay, Effect::Write);
    }

    #[test]
    fn a_call_that_the_server_refuses_touches_nothing() {
        let servers = Table::from_rows(builtin_rows());
        check(&servers, "DEL", "del", Way::Relay, Effect::None);
        check(&servers, "GET a b", "get", Way::Relay, Effect::None);
        check(&servers, "EVAL x", "eval", Way::Relay, Effect::None);
        check(&servers, "BLPOP a", "blpop", Way::Relay, Effect::None);
        assert_eq!(touch(&servers, "DEL"), (Touch::Keys, String::new()));
        assert_eq!(touch(&servers, "SET a"), (Touch::Keys, String::new()));
    }

    #[test]
    fn a_call_that_only_the_builtin_table_finds_wrong_may_be_right() {
        let ours = Table::builtin();
        check(&ours, "SET a", "set", Way::Relay, Effect::Write);
        check(&ours, "EVAL x", "eval", Way::Relay, Effect::Everything);
        check(
            &ours,
            "BLPOP a",
            "blpop",
            Way::OwnLink(StateKind::Blocking),
            Effect::Write,
        );
        check(&ours, "GET a b", "get", Way::Relay, Effect::Read);
        check(&ours, "PSETEX", "psetex", Way::Relay, Effect::Write);
        assert_eq!(touch(&ours, "SET a"), (Touch::All, String::new()));
        assert_eq!(touch(&ours, "TIME x"), (Touch::Keys, String::new()));
    }

    #[test]
    fn touch_follows_the_rules_of_the_call() {
        let table = Table::builtin();
        let keys = |text: &str| (Touch::Keys, text.to_owned());
        assert_eq!(touch(&table, "RENAME a b"), keys("a b"));
        assert_eq!(touch(&table, "PFMERGE d"), keys("d"));
        assert_eq!(
            touch(&table, "ZUNIONSTORE d 2 a b WEIGHTS 1 2"),
            keys("d a b")
        );
        assert_eq!(touch(&table, "SPUBLISH c m"), keys(""));
        assert_eq!(touch(&table, "OBJECT FREQ k"), keys("k"));
        assert_eq!(touch(&table, "EVAL s 1 k").0, Touch::All);
        assert_eq!(touch(&table, "SCAN 0").0, Touch::All);
        assert_eq!(touch(&table, "MIGRATE h 1 k 0 9").0, Touch::All);
    }

    /// What Redis 6 says: no subcommands, no key specifications.
    #[test]
    fn an_older_server_is_understood_by_what_it_leaves_out() {
        let mut rows = builtin_rows();
        for row in &mut rows {
            row.key_specs = None;
            row.subcommands.clear();
        }
        let old = Table::from_rows(rows);
        let keys = |text: &str| (Touch::Keys, text.to_owned());
        old.check();
        assert_eq!(touch(&old, "MSET a 1 b 2"), keys("a b"));
        assert_eq!(touch(&old, "RENAME a b"), keys("a b"));
        assert_eq!(touch(&old, "ZUNIONSTORE d 2 a b"), keys("d a b"));
        assert_eq!(touch(&old, "XREAD STREAMS a 0"), keys("a"));
        assert_eq!(touch(&old, "XGROUP DESTROY s g"), keys("s"));
        check(&old, "PFCOUNT a", "pfcount", Way::Relay, Effect::Write);
        let mut rows = builtin_rows();
        rows.retain(|row| row.name == "georadius");
        rows[0].name = "geofork".to_owned();
        rows[0].key_specs = None;
        assert_eq!(
            touch(&Table::from_rows(rows), "GEOFORK k 1 1 1 m").0,
            Touch::All
        );
    }

    #[test]
    fn tables_of_any_size_are_whole() {
        Table::builtin().check();
        Table::from_rows(builtin_rows()).check();
        Table::from_rows(Vec::new()).check();
        let many = (0..20_000)
            .map(|n| bare_row(&format!("m.{n}"), -1))
            .collect();
        let table = Table::from_rows(many);
        table.check();
        assert!(table.find([b"m.100".as_slice()].into_iter()).is_known());
        assert!(!table.find([b"m.19999".as_slice()].into_iter()).is_known());
    }
}
