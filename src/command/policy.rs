//! Our own judgement of each command: its effect, its way, and where its keys are not what the server says.
//!
//! Commands that only read or write the keys they declare are not named here: their flags say enough ([`from_flags`]).
//! Named are all others that we know: what needs a connection, what touches keys it does not declare, what touches none.
//! Invariant: a command neither named here nor flagged `readonly` or `write` may change everything and leave anything
//! behind. Costs: consulted once per command when a table is built.
#![forbid(unsafe_code)]

use super::keys::Keys;
use super::row::Row;
use super::{Depends, Effect, Flags, KeptRead, LocalCommand, Refusal, StateKind, Way};

/// The judgement, apart from the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) effect: Effect,
    pub(super) way: Way,
    /// See [`super::Spec::flush_at_completion`].
    pub(super) flush: bool,
    pub(super) depends: Depends,
}

/// For what is in no table, and for whatever must be taken for it.
pub(super) const UNKNOWN: Policy = Policy {
    effect: Effect::Everything,
    way: Way::OwnLink(StateKind::Unknown),
    flush: true,
    depends: Depends::Never,
};

/// An unknown subcommand of a container that has nothing to do with data: keys are safe, the connection is not.
pub(super) const UNKNOWN_WITHOUT_DATA: Policy = Policy {
    effect: Effect::None,
    flush: false,
    ..UNKNOWN
};

const fn policy(effect: Effect, way: Way) -> Policy {
    Policy {
        effect,
        way,
        flush: false,
        depends: Depends::Never,
    }
}

/// The judgement of the command that `row` describes, and the rule for its keys.
pub(super) fn judge(row: &Row) -> (Policy, Keys) {
    if let Some(policy) = named(&row.name) {
        let keys = match policy.effect {
            Effect::Everything => Keys::All,
            _ => keys_by_name(&row.name).unwrap_or_else(|| Keys::from_row(row)),
        };
        return (policy, keys);
    }
    from_flags(row)
}

/// Commands that Redis may not list and we have a say in all the same.
pub(super) const SPOKEN_FOR: [(&str, i64); 7] = [
    // Redis before 7 knows it without listing it.
    ("quit", -1),
    ("post", -1),
    ("host:", -1),
    ("nearcache", -1),
    ("client|setinfo", 4),
    ("client|no-touch", 3),
    ("client|maint_notifications", -2),
];

/// Whether no subcommand of this container reads or writes data.
pub(super) fn is_container_without_data(name: &str) -> bool {
    matches!(
        name,
        "acl"
            | "client"
            | "cluster"
            | "command"
            | "commandlog"
            | "config"
            | "latency"
            | "pubsub"
            | "slowlog"
    )
}

fn named(name: &str) -> Option<Policy> {
    use Effect::{Everything, None as Nothing, Read, Write};
    use LocalCommand::*;
    use StateKind::*;
    let local = |command: LocalCommand| policy(Nothing, Way::Local(command));
    let own = |effect: Effect, kind: StateKind| policy(effect, Way::OwnLink(kind));
    let relay = |effect: Effect| policy(effect, Way::Relay);
    Some(match name {
        "get" => policy(Read, Way::Get),
        "mget" => policy(Read, Way::Kept(KeptRead::Mget)),
        "exists" => policy(Read, Way::Kept(KeptRead::Exists)),
        "strlen" => policy(Read, Way::Kept(KeptRead::Strlen)),
        "getrange" | "substr" => policy(Read, Way::Kept(KeptRead::Getrange)),

        "ping" => local(Ping),
        "echo" => local(Echo),
        "quit" => local(Quit),
        "hello" => local(Hello),
        "auth" => local(Auth),
        "select" => local(Select),
        "reset" => local(Reset),
        "info" => local(Info),
        "readonly" => local(Readonly),
        "readwrite" => local(Readwrite),
        "asking" => local(Asking),
        "cluster" => local(Cluster),
        "client|id" => local(ClientId),
        "client|setname" => local(ClientSetname),
        "client|getname" => local(ClientGetname),
        "client|setinfo" => local(ClientSetinfo),
        "client|info" => local(ClientInfo),
        "client|list" => local(ClientList),
        "client|kill" => local(ClientKill),
        "client|unblock" => local(ClientUnblock),
        "client|no-evict" => local(ClientNoEvict),
        "client|no-touch" => local(ClientNoTouch),
        "client|reply" => local(ClientReply),
        "nearcache" => local(Nearcache),
        "client|maint_notifications" => policy(Nothing, Way::Refuse(Refusal::MaintNotifications)),
        "post" | "host:" => policy(Nothing, Way::Refuse(Refusal::CrossProtocol)),
        // About the tracking of the asking connection: none on a shared link, and a client that has some is on its own.
        "client|getredir" | "client|trackinginfo" => relay(Nothing),

        "multi" => own(Nothing, Multi),
        "exec" => own(Everything, Exec),
        "discard" => own(Nothing, Discard),
        "watch" => own(Read, Watch),
        "unwatch" => own(Nothing, Unwatch),
        "subscribe" | "psubscribe" | "ssubscribe" => own(Nothing, Subscribe),
        "unsubscribe" | "punsubscribe" | "sunsubscribe" => own(Nothing, Unsubscribe),
        "blpop" | "brpop" | "blmove" | "brpoplpush" | "blmpop" | "bzpopmin" | "bzpopmax"
        | "bzmpop" => own(Write, Blocking),
        "xread" => Policy {
            depends: Depends::OnBlock,
            ..relay(Read)
        },
        "xreadgroup" => Policy {
            depends: Depends::OnBlock,
            ..relay(Write)
        },
        "wait" | "waitaof" => own(Nothing, Wait),
        "monitor" => own(Nothing, Monitor),
        "sync" | "psync" | "replconf" => own(Nothing, Replication),
        "client|tracking" | "client|caching" => own(Nothing, Tracking),
        "script|debug" => own(Nothing, ScriptDebug),
        "shutdown" | "script|kill" | "function|kill" | "function|stats" | "client|pause"
        | "client|unpause" => own(Nothing, Urgent),

        // L10: the keys a script declares are not all it may touch. The read-only forms cannot write.
        "eval" | "evalsha" | "fcall" => relay(Everything),
        "eval_ro" | "evalsha_ro" | "fcall_ro" => relay(Read),

        "flushall" | "flushdb" | "swapdb" => Policy {
            flush: true,
            ..relay(Everything)
        },
        // Another master, another data set; what happens to it comes later, as a loss (run_id, role).
        "replicaof" | "slaveof" => Policy {
            flush: true,
            ..relay(Everything)
        },
        "failover" => Policy {
            flush: true,
            ..own(Everything, Urgent)
        },
        // DEBUG PROTOCOL writes pushes and attributes, DEBUG RELOAD loads old data; a module may do anything.
        "debug" | "module|load" | "module|loadex" | "module|unload" => UNKNOWN,

        // They look at all keys, or at any.
        "scan" | "keys" | "randomkey" | "dbsize" => relay(Read),
        // The pattern of BY and GET names keys by content, and STORE may come twice.
        "sort" => Policy {
            depends: Depends::OnStore,
            ..relay(Write)
        },
        "sort_ro" => relay(Read),
        // Flagged readonly, but it may write the count it found into the key; before Redis 7 nothing says so.
        "pfcount" => relay(Write),
        "pfdebug" => relay(Write),

        // These have an effect, though on no key.
        "publish" | "spublish" => relay(Write),
        "function|load" | "function|delete" | "function|flush" | "function|restore" => relay(Write),
        "script|load" | "script|exists" | "script|flush" | "function|list" | "function|dump" => {
            relay(Nothing)
        }

        "memory|doctor"
        | "memory|malloc-stats"
        | "memory|purge"
        | "memory|stats"
        | "module|list" => relay(Nothing),
        "bgrewriteaof" | "bgsave" | "save" | "lastsave" | "lolwut" | "pfselftest" | "role"
        | "time" => relay(Nothing),
        // A container by itself is refused by Redis, except COMMAND.
        "acl" | "client" | "command" | "config" | "function" | "latency" | "memory" | "module"
        | "object" | "pubsub" | "script" | "slowlog" | "commandlog" | "xgroup" | "xinfo" => {
            relay(Nothing)
        }
        _ => match name.split_once('|')? {
            ("cluster", _) => local(Cluster),
            (_, "help") => relay(Nothing),
            ("acl" | "command" | "commandlog" | "config" | "latency" | "pubsub" | "slowlog", _) => {
                relay(Nothing)
            }
            _ => return None,
        },
    })
}

/// Keys that are not what the server's description says, or that it does not describe.
fn keys_by_name(name: &str) -> Option<Keys> {
    match name {
        "sort" | "sort_ro" => Some(Keys::Sort),
        "scan" | "keys" | "randomkey" | "dbsize" | "eval_ro" | "evalsha_ro" | "fcall_ro" => {
            Some(Keys::All)
        }
        _ => None,
    }
}

/// The judgement of a command by what the server says of it, for all that are not named above: the plain commands of
/// every version, newer ones, and those of modules.
///
/// - `write` with keys changes them; without keys, everything. A module's `write` changes everything, unless the
///   module is known to declare all keys that its commands write.
/// - `readonly` reads its keys, or any if it has none; it writes if a key specification says so.
/// - Neither: nobody says that it leaves data alone, so it may change everything; nor that it leaves the connection
///   alone, so it does not share one. The price, a link of its own and an empty cache, is paid by commands that nobody
///   has named above yet.
fn from_flags(row: &Row) -> (Policy, Keys) {
    let flags = Flags::from_names(row.flags.iter().map(String::as_str));
    let keys = Keys::from_row(row);
    let of_connection = Flags::NOSCRIPT
        .or(Flags::PUBSUB)
        .or(Flags::NO_AUTH)
        .or(Flags::NO_MULTI);
    let way = if flags.has(Flags::BLOCKING) {
        Way::OwnLink(StateKind::Blocking)
    } else if flags.has(of_connection) || !flags.has(Flags::READONLY.or(Flags::WRITE)) {
        Way::OwnLink(StateKind::Unknown)
    } else {
        Way::Relay
    };
    let is_module = flags.has(Flags::MODULE) || row.name.contains('.');
    let is_believed = keys != Keys::None && (!is_module || declares_all_it_writes(&row.name));
    let effect = if !flags.has(Flags::READONLY.or(Flags::WRITE)) {
        Effect::Everything
    } else if !flags.has(Flags::WRITE.or(Flags::MAY_REPLICATE)) && !has_written_key(row) {
        Effect::Read
    } else if is_believed {
        Effect::Write
    } else {
        Effect::Everything
    };
    match effect {
        Effect::Everything => (Policy { way, ..UNKNOWN }, Keys::All),
        Effect::Read if keys == Keys::None => (policy(effect, way), Keys::All),
        _ => (policy(effect, way), keys),
    }
}

/// A key specification that says RW, OW or RM, or that the flags of a key depend on the call.
fn has_written_key(row: &Row) -> bool {
    let written = |flag: &String| matches!(flag.as_str(), "RW" | "OW" | "RM" | "variable_flags");
    row.key_specs.iter().flatten().any(|spec| {
        let is_key = !spec.flags.iter().any(|flag| flag == "not_key");
        is_key && spec.flags.iter().any(written)
    })
}

/// Modules, all of whose writing commands change no string but those they declare as keys.
///
/// Not among them: RediSearch (FT.DROPINDEX deletes documents), RedisGears and functions of any kind (they run code).
/// Time series with compaction rules write to further keys, but only to time series, which no GET can read.
fn declares_all_it_writes(name: &str) -> bool {
    let families = ["json.", "bf.", "cf.", "cms.", "topk.", "tdigest.", "ts."];
    families.iter().any(|family| name.starts_with(family))
        || matches!(name, "vadd" | "vrem" | "vsetattr")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::keys::{Begin, Find};
    use crate::command::row::KeySpec;
    use crate::command::table::builtin_rows;
    use std::collections::BTreeMap;

    fn describe(keys: &Keys) -> String {
        let one = |(begin, find): &(Begin, Find)| {
            let begin = match begin {
                Begin::Index(at) => format!("{at}"),
                Begin::Keyword(word, _) => format!("after {word}"),
                Begin::Unknown => "?".to_owned(),
            };
            match *find {
                Find::Range { last: 0, .. } => begin,
                Find::Range {
                    last,
                    step: 1,
                    limit: 0,
                } => format!("{begin} to {last}"),
                Find::Range {
                    last,
                    step,
                    limit: 0,
                } => format!("{begin} to {last} by {step}"),
                Find::Range { limit, .. } => format!("{begin} 1/{limit} of the rest"),
                Find::Keynum { .. } => format!("{begin} says how many"),
                Find::Unknown => "?".to_owned(),
            }
        };
        match keys {
            Keys::None => "no key".to_owned(),
            Keys::First => "first".to_owned(),
            Keys::Specs(specs) => specs.iter().map(one).collect::<Vec<_>>().join(", "),
            Keys::Sort => "as SORT".to_owned(),
            Keys::All => "all keys".to_owned(),
        }
    }

    fn all_rows() -> impl Iterator<Item = Row> {
        builtin_rows().into_iter().flat_map(|row| {
            let subcommands = row.subcommands.clone();
            std::iter::once(row).chain(subcommands)
        })
    }

    /// Every command of Redis 7.0 by way, effect and keys. After a change on purpose, replace `judgement.txt` with what
    /// the failing test prints, and read the difference as if the cache depended on it.
    #[test]
    fn every_command_is_judged_as_written_down() {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in all_rows() {
            let (policy, keys) = judge(&row);
            let depends = match policy.depends {
                Depends::Never => "",
                Depends::OnBlock => " (own link if BLOCK)",
                Depends::OnStore => " (read unless STORE)",
            };
            let flush = if policy.flush { " and flush" } else { "" };
            let judgement = format!(
                "{:?} | {:?}{flush}{depends} | {}",
                policy.way,
                policy.effect,
                describe(&keys)
            );
            groups.entry(judgement).or_default().push(row.name);
        }
        let mut now = String::new();
        for (judgement, names) in &groups {
            now.push_str(&format!("{judgement}\n"));
            for line in names.chunks(8) {
                now.push_str(&format!("    {}\n", line.join(" ")));
            }
        }
        let written = include_str!("judgement.txt");
        assert!(
            now == written,
            "the judgement differs from src/command/judgement.txt; it is now:\n{now}"
        );
    }

    #[test]
    fn what_is_not_named_only_reads_or_writes_keys_it_declares() {
        for row in all_rows().filter(|row| named(&row.name).is_none()) {
            let flags = Flags::from_names(row.flags.iter().map(String::as_str));
            let reads_or_writes = flags.has(Flags::READONLY) != flags.has(Flags::WRITE);
            assert!(
                reads_or_writes && Keys::from_row(&row) != Keys::None,
                "{}",
                row.name
            );
            assert_eq!(judge(&row).0.way, Way::Relay, "{}", row.name);
        }
    }

    #[test]
    fn an_effect_agrees_with_the_flags_and_the_keys() {
        for row in all_rows() {
            let (policy, keys) = judge(&row);
            let writes = row.flags.iter().any(|flag| flag == "write");
            let writes_data = !matches!(policy.effect, Effect::None | Effect::Read);
            assert!(!writes || writes_data, "{} is a write", row.name);
            assert!(
                policy.effect != Effect::None || keys == Keys::None,
                "{} has keys",
                row.name
            );
            assert!(
                policy.effect != Effect::Everything || keys == Keys::All,
                "{}",
                row.name
            );
            assert!(
                !policy.flush || policy.effect == Effect::Everything,
                "{}",
                row.name
            );
        }
    }

    fn row(name: &str, flags: &str, range: (i64, i64, i64), spec_flags: Option<&str>) -> Row {
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let spec = |flags| KeySpec {
            begin: Begin::Index(range.0),
            find: Find::Range {
                last: range.1 - range.0,
                step: 1,
                limit: 0,
            },
            flags: words(flags),
        };
        Row {
            name: name.to_owned(),
            arity: -2,
            flags: words(flags),
            range,
            key_specs: spec_flags.map(|flags| vec![spec(flags)]),
            subcommands: Vec::new(),
        }
    }

    fn check(row: Row, effect: Effect, way: Way, keys: Keys) {
        let (policy, found) = judge(&row);
        assert_eq!(
            (policy.effect, policy.way, found),
            (effect, way, keys),
            "{}",
            row.name
        );
    }

    #[test]
    fn a_command_of_a_newer_redis_is_judged_by_its_flags() {
        let first = (1, 1, 1);
        check(
            row("hexpire", "write fast", first, Some("RW update")),
            Effect::Write,
            Way::Relay,
            Keys::First,
        );
        check(
            row("digest", "readonly", first, Some("RO access")),
            Effect::Read,
            Way::Relay,
            Keys::First,
        );
        check(
            row("count2", "readonly", first, Some("RW access")),
            Effect::Write,
            Way::Relay,
            Keys::First,
        );
        check(
            row("odd", "readonly", first, Some("RO variable_flags")),
            Effect::Write,
            Way::Relay,
            Keys::First,
        );
        check(
            row("part", "write", first, Some("RW incomplete")),
            Effect::Write,
            Way::Relay,
            Keys::All,
        );
        check(
            row("shard", "readonly", first, Some("not_key")),
            Effect::Read,
            Way::Relay,
            Keys::All,
        );
        let blocking = Way::OwnLink(StateKind::Blocking);
        check(
            row("bnew", "write blocking", first, Some("RW")),
            Effect::Write,
            blocking,
            Keys::First,
        );
    }

    #[test]
    fn what_says_nothing_of_itself_may_do_anything() {
        let unknown = Way::OwnLink(StateKind::Unknown);
        check(
            row("tfcall", "noscript", (1, 1, 1), Some("RW")),
            Effect::Everything,
            unknown,
            Keys::All,
        );
        check(
            row("whatever", "fast", (0, 0, 0), None),
            Effect::Everything,
            unknown,
            Keys::All,
        );
        check(
            row("swapall", "write", (0, 0, 0), None),
            Effect::Everything,
            Way::Relay,
            Keys::All,
        );
        check(
            row("client|new", "noscript loading", (0, 0, 0), None),
            Effect::Everything,
            unknown,
            Keys::All,
        );
    }

    #[test]
    fn a_module_is_believed_only_where_its_keys_are_known_to_be_all() {
        let first = (1, 1, 1);
        check(
            row("json.set", "write module", first, Some("RW")),
            Effect::Write,
            Way::Relay,
            Keys::First,
        );
        check(
            row("ft.add", "write module", first, Some("RW")),
            Effect::Everything,
            Way::Relay,
            Keys::All,
        );
        check(
            row("rg.get", "readonly", first, None),
            Effect::Read,
            Way::Relay,
            Keys::First,
        );
        check(
            row("rg.put", "write", first, None),
            Effect::Everything,
            Way::Relay,
            Keys::All,
        );
        let movable = row("json.all", "readonly module movablekeys", first, Some("RO"));
        check(movable, Effect::Read, Way::Relay, Keys::All);
    }
}
