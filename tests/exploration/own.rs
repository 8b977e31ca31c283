//! Own links: clients with state upstream (rules L4, L5, L9, L12, L15 and L17), and what goes wrong without each rule.

use super::scenario::Op::{ExecGet, ExecSet, ExecSetL, Get, Publish, Set, Subscribe, Watch};
use super::scenario::{Scenario, TRACKED};

/// Scenarios in which no interleaving may break a promise.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "own: a watched read and a transaction, against a foreign write",
        scripts: &[&[Watch, Get, ExecSet], &[Get]],
        depth: 2,
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "own: a transaction on another key",
        scripts: &[&[Watch, Get, ExecSetL], &[Get]],
        depth: 1,
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "own: a read in a transaction",
        scripts: &[&[Watch, ExecGet, Get], &[Get, Get]],
        depth: 1,
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "own: a transaction that shares a link",
        scripts: &[&[ExecGet, ExecSet, Get], &[Get, Get]],
        foreign: &[Set],
        ..TRACKED
    },
    Scenario {
        name: "own: what follows a transaction",
        scripts: &[&[Watch, ExecSet, Set, Get], &[Get]],
        depth: 3,
        ..TRACKED
    },
    Scenario {
        name: "own: a lost link at each point",
        scripts: &[&[Watch, ExecSet, Get], &[Get, Get]],
        depth: 2,
        losses: 1,
        ..TRACKED
    },
    Scenario {
        name: "own: a message and what it tells of",
        scripts: &[&[Subscribe], &[Get, Get, Get]],
        depth: 1,
        foreign: &[Set, Publish, Set],
        ..TRACKED
    },
    Scenario {
        name: "own: a message and a heartbeat",
        scripts: &[&[Subscribe], &[Get, Get]],
        depth: 1,
        foreign: &[Set, Publish],
        waits: 1,
        ..TRACKED
    },
    Scenario {
        name: "own: a message held while the invalidation link goes",
        scripts: &[&[Subscribe], &[Get, Get]],
        depth: 1,
        foreign: &[Set, Publish],
        cuts: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    },
    Scenario {
        name: "own: a message held while its link goes",
        scripts: &[&[Subscribe], &[Get, Get]],
        depth: 1,
        foreign: &[Set, Publish],
        losses: 1,
        ..TRACKED
    },
    Scenario {
        name: "own: a message without tracking",
        mode: super::scenario::Mode::Bounded,
        scripts: &[&[Subscribe], &[Get, Get]],
        depth: 1,
        foreign: &[Set, Publish],
        ..TRACKED
    },
    Scenario {
        name: "own: a message behind two rounds",
        mode: super::scenario::Mode::TwoRounds,
        scripts: &[&[Subscribe], &[Get, Get]],
        depth: 1,
        foreign: &[Set, Publish],
        ..TRACKED
    },
];

#[cfg(debug_assertions)]
mod rules {
    use super::*;
    use crate::rules::rule;
    use crate::scenario::Op;
    use crate::scenario::Promise::{Cross, EventOrder, Gmono, Mono, Ryw, WatchSafe};
    use nearcache::engine::Rule;

    #[test]
    fn l15_a_client_with_state_reads_on_its_own_link() {
        let scenario = Scenario {
            scripts: &[&[Watch, Get, ExecSet], &[Get]],
            depth: 1,
            foreign: &[Set],
            ..TRACKED
        };
        rule(Rule::OwnLinkOnly, &[WatchSafe], scenario);
    }

    #[test]
    fn l5_a_get_on_an_own_link_poisons() {
        let scenario = Scenario {
            scripts: &[&[Watch, Get], &[Get, Get]],
            depth: 1,
            foreign: &[Set],
            ..TRACKED
        };
        rule(Rule::PoisonAfterOwnGet, &[Mono, Gmono], scenario);
        rule(
            Rule::PoisonMark,
            &[Mono, Gmono, super::super::scenario::Promise::Event],
            scenario,
        );
    }

    #[test]
    fn l5_a_get_in_a_transaction_poisons() {
        let scenario = Scenario {
            scripts: &[&[Watch, ExecGet], &[Get, Get]],
            depth: 1,
            foreign: &[Set],
            ..TRACKED
        };
        rule(Rule::PoisonAfterExecGet, &[Mono, Gmono], scenario);
    }

    #[test]
    fn l9_a_transaction_poisons() {
        const ON_BOTH: [&[&[Op]]; 2] = [
            &[&[Watch, ExecSet, Get], &[Get]],
            &[&[ExecSet, Get], &[Get]],
        ];
        for scripts in ON_BOTH {
            let scenario = Scenario {
                scripts,
                depth: 1,
                ..TRACKED
            };
            rule(Rule::PoisonAfterExec, &[Ryw, Cross], scenario);
        }
    }

    #[test]
    fn l17_a_message_is_held() {
        let scenario = Scenario {
            scripts: &[&[Subscribe], &[Get, Get]],
            depth: 1,
            foreign: &[Set, Publish],
            ..TRACKED
        };
        rule(Rule::HoldMessages, &[EventOrder], scenario);
        let heartbeat = Scenario {
            waits: 1,
            ..scenario
        };
        rule(Rule::BarrierNeedsFreshPing, &[EventOrder], heartbeat);
        let down = Scenario {
            cuts: 1,
            failures: 1,
            stale: true,
            ..scenario
        };
        rule(Rule::FlushAtLostBarrier, &[EventOrder], down);
    }
}
