//! The scenarios in which no interleaving may break a promise.

use super::scenario::Op::{
    Copy, Del, Fresh, Get, GetL, Hello, Http, Look, Mget, Mset, Other, Range, Script, ScriptBoth,
    Select, Set,
};
use super::scenario::{Mode, PLAIN, Scenario, TRACKED};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ttl: write and read behind it",
        scripts: &[&[Set, Get, Get], &[Get, Get]],
        depth: 3,
        ..PLAIN
    },
    Scenario {
        name: "ttl: the same with a foreign write",
        scripts: &[&[Set, Get, Get], &[Get, Get]],
        foreign: &[Set],
        ..PLAIN
    },
    Scenario {
        name: "ttl: two writers",
        scripts: &[&[Set, Get], &[Set, Get]],
        foreign: &[Set],
        ..PLAIN
    },
    Scenario {
        name: "ttl: four each",
        scripts: &[&[Get, Set, Get, Get], &[Get, Set, Get, Set]],
        depth: 1,
        foreign: &[Set],
        ..PLAIN
    },
    Scenario {
        name: "ttl: two foreign writes",
        scripts: &[&[Get, Get, Get], &[Set, Get]],
        foreign: &[Set, Set],
        ..PLAIN
    },
    Scenario {
        name: "ttl: a script",
        scripts: &[&[Script, Get], &[Get, Get]],
        foreign: &[Set],
        ..PLAIN
    },
    Scenario {
        name: "ttl: a read, then a script",
        scripts: &[&[Get, Script, Get], &[Get, Set]],
        ..PLAIN
    },
    Scenario {
        name: "ttl: other reads between",
        scripts: &[&[Get, Look, Get], &[Set, Look, Get]],
        ..PLAIN
    },
    Scenario {
        name: "ttl: another key",
        scripts: &[&[Set, Other, Get], &[Other, Get]],
        depth: 3,
        ..PLAIN
    },
    Scenario {
        name: "ttl: another version of RESP",
        scripts: &[&[Set, Hello, Get], &[Get, Get]],
        depth: 3,
        ..PLAIN
    },
    Scenario {
        name: "ttl: HTTP past the cache",
        scripts: &[&[Http, Fresh, Http], &[Get, Set]],
        foreign: &[Set],
        ..PLAIN
    },
    Scenario {
        name: "ttl: a lost connection",
        scripts: &[&[Set, Get], &[Get, Get]],
        losses: 1,
        ..PLAIN
    },
    Scenario {
        name: "ttl: a failing worker",
        scripts: &[&[Get, Set, Get], &[Get, Get]],
        failures: 1,
        ..PLAIN
    },
    Scenario {
        name: "ttl: one request at a time",
        scripts: &[&[Set, Get, Other], &[Get, Set]],
        limit: 1,
        ..PLAIN
    },
    Scenario {
        name: "ttl: three clients",
        scripts: &[&[Set, Get], &[Get], &[Get, Set]],
        ..PLAIN
    },
    Scenario {
        name: "one key, depth 1, two foreign writes",
        scripts: &[&[Set, Get, Get], &[Get]],
        depth: 1,
        foreign: &[Set, Set],
        ..TRACKED
    },
    Scenario {
        name: "one key, depth 2, a foreign write",
        scripts: &[&[Set, Get, Get], &[Get, Get]],
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "one key, depth 3",
        scripts: &[&[Get, Set, Get], &[Get, Get]],
        depth: 3,
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "three clients",
        scripts: &[&[Get, Get], &[Set, Get], &[Get]],
        ..TRACKED
    },
    Scenario {
        name: "a key that goes",
        scripts: &[&[Get, Del, Get], &[Get, Get]],
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "a key that goes by others",
        scripts: &[&[Set, Get], &[Get, Get]],
        foreign: &[Del],
        ..TRACKED
    },
    Scenario {
        name: "HTTP past the cache",
        scripts: &[&[Http, Fresh, Http], &[Get, Set]],
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "a lost connection",
        scripts: &[&[Set, Get], &[Get, Get]],
        losses: 1,
        ..TRACKED
    },
    Scenario {
        name: "a failing worker",
        scripts: &[&[Get, Get, Get], &[Set, Get]],
        depth: 1,
        foreign: &[Set],
        failures: 1,
        ..TRACKED
    },
    Scenario {
        name: "one request at a time",
        scripts: &[&[Script, Get], &[Get, Set]],
        foreign: &[Set],
        limit: 1,
        ..TRACKED
    },
    Scenario {
        name: "two databases, COPY",
        scripts: &[&[Copy, Select, Get], &[Select, Get, Get]],
        ..TRACKED
    },
    Scenario {
        name: "two keys, MSET",
        scripts: &[&[Mset, Get, GetL], &[Get, GetL]],
        ..TRACKED
    },
    Scenario {
        name: "two keys, foreign MSET",
        scripts: &[&[Get, GetL, Get], &[GetL, Get]],
        foreign: &[Mset],
        ..TRACKED
    },
    Scenario {
        name: "barrier: a script, then a read",
        scripts: &[&[Script, Get, Get], &[Get, Get]],
        ..TRACKED
    },
    Scenario {
        name: "barrier: a read, then a script, and a foreign write",
        scripts: &[&[Get, Script, Get], &[Get]],
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "barrier: shared by two",
        scripts: &[&[Script], &[Script], &[Get, Get]],
        depth: 1,
        ..TRACKED
    },
    Scenario {
        name: "barrier: two in a row, and a heartbeat",
        scripts: &[&[Script, Script], &[Get]],
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "barrier: two keys, one declared",
        scripts: &[&[ScriptBoth, GetL], &[GetL, Get]],
        ..TRACKED
    },
    Scenario {
        name: "barrier: two rounds",
        mode: Mode::TwoRounds,
        scripts: &[&[Script, Get], &[Get, Get]],
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "barrier: a lost connection",
        scripts: &[&[Script, Get], &[Get]],
        losses: 1,
        ..TRACKED
    },
    Scenario {
        name: "the lease lapses",
        scripts: &[&[Get, Get], &[Get]],
        foreign: &[Set],
        lapses: 1,
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "the lease lapses, a write",
        scripts: &[&[Set, Get], &[Get, Get]],
        depth: 1,
        lapses: 1,
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "the invalidation link is lost",
        scripts: &[&[Get, Get], &[Get]],
        foreign: &[Set],
        cuts: 1,
        ..TRACKED
    },
    Scenario {
        name: "the invalidation link is lost, a write",
        scripts: &[&[Set, Get], &[Get, Get]],
        depth: 1,
        cuts: 1,
        ..TRACKED
    },
    Scenario {
        name: "the invalidation link is lost twice",
        scripts: &[&[Get, Get]],
        depth: 1,
        foreign: &[Set],
        cuts: 2,
        ..TRACKED
    },
    Scenario {
        name: "the invalidation link is lost, a script",
        scripts: &[&[Script, Get], &[Get, Get]],
        depth: 1,
        cuts: 1,
        ..TRACKED
    },
    Scenario {
        name: "Redis refuses the invalidation link for a while",
        scripts: &[&[Get, Get]],
        foreign: &[Set],
        cuts: 1,
        refusals: 1,
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "stale: a write",
        scripts: &[&[Get, Set, Get], &[Get]],
        depth: 1,
        cuts: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "stale: a foreign write",
        scripts: &[&[Get, Get, Get]],
        foreign: &[Set],
        cuts: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "stale: two losses",
        scripts: &[&[Get, Get]],
        depth: 1,
        foreign: &[Set],
        cuts: 2,
        failures: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "stale: a script",
        scripts: &[&[Script, Get], &[Get]],
        depth: 1,
        cuts: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "stale: Redis refuses the invalidation link",
        scripts: &[&[Get, Get, Get]],
        foreign: &[Set],
        cuts: 1,
        refusals: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "bounded: a foreign write",
        mode: Mode::Bounded,
        scripts: &[&[Get, Get], &[Get, Set]],
        depth: 1,
        foreign: &[Set],
        ticks: 3,
        ..TRACKED
    },
    Scenario {
        name: "bounded: a write and reads behind it",
        mode: Mode::Bounded,
        scripts: &[&[Set, Get], &[Get, Get]],
        ticks: 1,
        ..TRACKED
    },
    Scenario {
        name: "bounded: a script",
        mode: Mode::Bounded,
        scripts: &[&[Script, Get], &[Get, Get]],
        ticks: 1,
        ..TRACKED
    },
    Scenario {
        name: "bounded, then tracking",
        mode: Mode::BoundedThenTracking,
        scripts: &[&[Get, Get], &[Get]],
        depth: 1,
        foreign: &[Set],
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "bounded, then tracking: a script",
        mode: Mode::BoundedThenTracking,
        scripts: &[&[Script, Get], &[Get]],
        depth: 1,
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "bounded: the link is lost",
        mode: Mode::Bounded,
        scripts: &[&[Set, Get], &[Get]],
        depth: 1,
        cuts: 1,
        ticks: 1,
        stale: true,
        failures: 1,
        ..TRACKED
    },
    Scenario {
        name: "stale: the lease lapses, a write",
        scripts: &[&[Get, Set, Get], &[Get]],
        depth: 1,
        lapses: 1,
        failures: 1,
        waits: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "stale: the lease lapses, a foreign write",
        scripts: &[&[Get, Get, Get]],
        foreign: &[Set],
        lapses: 1,
        failures: 1,
        waits: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "stale: the lease lapses, two clients and a foreign write",
        scripts: &[&[Get, Get], &[Get, Get]],
        depth: 1,
        foreign: &[Set],
        lapses: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "stale: the lease lapses, a script",
        scripts: &[&[Get, Script, Get], &[Get]],
        depth: 1,
        lapses: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "stale: the lease lapses, then the invalidation link is lost",
        scripts: &[&[Get, Get, Get]],
        foreign: &[Set],
        depth: 1,
        lapses: 1,
        cuts: 1,
        failures: 2,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "verify: a foreign write",
        scripts: &[&[Get, Get], &[Get]],
        foreign: &[Set],
        waits: 1,
        verify: true,
        ..TRACKED
    },
    Scenario {
        name: "verify: own writes",
        scripts: &[&[Get, Get], &[Set, Script]],
        depth: 1,
        waits: 1,
        verify: true,
        ..TRACKED
    },
    Scenario {
        name: "verify: two rounds, a foreign write",
        mode: Mode::TwoRounds,
        scripts: &[&[Get, Get]],
        foreign: &[Set, Del],
        waits: 2,
        verify: true,
        ..TRACKED
    },
    Scenario {
        name: "verify: the invalidation link is lost",
        scripts: &[&[Get, Get]],
        foreign: &[Set],
        cuts: 1,
        waits: 1,
        verify: true,
        ..TRACKED
    },
    Scenario {
        name: "what was used is fetched again after a loss",
        scripts: &[&[Get, Get], &[Set]],
        depth: 1,
        foreign: &[Set],
        cuts: 1,
        warm: 2,
        ..TRACKED
    },
    Scenario {
        name: "ttl: a part of a value",
        scripts: &[&[Get, Range, Get], &[Set, Range]],
        ..PLAIN
    },
    Scenario {
        name: "a part of a value, a foreign write",
        scripts: &[&[Get, Range, Get], &[Set, Range]],
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "MGET beside MSET",
        scripts: &[&[Get, GetL, Mget], &[Mset, Mget]],
        depth: 1,
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "MGET behind the own MSET",
        scripts: &[&[Get, GetL, Mset, Mget]],
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "MGET, foreign MSET",
        scripts: &[&[Get, GetL, Mget, Mget]],
        foreign: &[Mset],
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "MGET, two rounds",
        mode: Mode::TwoRounds,
        scripts: &[&[Get, GetL, Mget]],
        depth: 1,
        foreign: &[Mset],
        waits: 2,
        ..TRACKED
    },
    Scenario {
        name: "MGET that misses twice, a foreign MSET",
        scripts: &[&[Mget, Mget, Mget]],
        depth: 1,
        foreign: &[Mset],
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "MGET that misses twice, beside MSET",
        scripts: &[&[Mget, Mget, Mget], &[Mset]],
        depth: 1,
        ..TRACKED
    },
    Scenario {
        name: "MGET, the invalidation link is lost",
        scripts: &[&[Get, GetL, Mget]],
        depth: 1,
        foreign: &[Mset],
        cuts: 1,
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "MGET, bounded",
        mode: Mode::Bounded,
        scripts: &[&[Get, GetL, Mget], &[Mset]],
        depth: 1,
        ticks: 1,
        ..TRACKED
    },
];
