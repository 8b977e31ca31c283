//! Every interleaving of small scenarios, on the real engine: what is said, executed, answered and completed, in every
//! order that FIFO connections and workers allow.
//!
//! Depth first over clones of the world, each state looked into once (its fingerprint is kept). Without a link for
//! invalidations, foreign writes are seen when entries expire, and here no time passes; so EVENT is not checked, and all
//! else is what RULES.md promises for answers with a bound (L19): RYW, ORDER, CROSS, MONO, GMONO, nobody stuck, and with
//! no other writers that what is kept at rest is right. CROSS and GMONO are checked from the moment a command is sent.
//!
//! The other half: with a rule turned off, the same search must find a violation, and prints the run that shows it.

#[path = "../core/mod.rs"]
mod driver;

mod state;

use driver::world::Routing;
#[cfg(debug_assertions)]
use nearcache::engine::Rule;
use state::Op::{Fresh, Get, Hello, Http, Mget, Other, Script, Set};
use state::{Promise, Scenario, State, Step};
use std::collections::HashSet;

/// With this many states a scenario is too large to be looked through in a test.
const STATES_MAX: usize = 400_000;

const PLAIN: Scenario = Scenario {
    name: "",
    scripts: &[],
    depth: 2,
    foreign: 0,
    losses: 0,
    failures: 0,
    limit: 1000,
};

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "write and read behind it",
        scripts: &[&[Set, Get, Get], &[Get, Get]],
        depth: 3,
        ..PLAIN
    },
    Scenario {
        name: "the same with a foreign write",
        scripts: &[&[Set, Get, Get], &[Get, Get]],
        foreign: 1,
        ..PLAIN
    },
    Scenario {
        name: "two writers",
        scripts: &[&[Set, Get], &[Set, Get]],
        foreign: 1,
        ..PLAIN
    },
    Scenario {
        name: "four each",
        scripts: &[&[Get, Set, Get, Get], &[Get, Set, Get, Set]],
        depth: 1,
        foreign: 1,
        ..PLAIN
    },
    Scenario {
        name: "two foreign writes",
        scripts: &[&[Get, Get, Get], &[Set, Get]],
        foreign: 2,
        ..PLAIN
    },
    Scenario {
        name: "a script",
        scripts: &[&[Script, Get], &[Get, Get]],
        depth: 2,
        foreign: 1,
        ..PLAIN
    },
    Scenario {
        name: "a read, then a script",
        scripts: &[&[Get, Script, Get], &[Get, Set]],
        ..PLAIN
    },
    Scenario {
        name: "other reads between",
        scripts: &[&[Get, Mget, Get], &[Set, Mget, Get]],
        ..PLAIN
    },
    Scenario {
        name: "another key",
        scripts: &[&[Set, Other, Get], &[Other, Get]],
        depth: 3,
        ..PLAIN
    },
    Scenario {
        name: "another version of RESP",
        scripts: &[&[Set, Hello, Get], &[Get, Get]],
        depth: 3,
        ..PLAIN
    },
    Scenario {
        name: "HTTP past the cache",
        scripts: &[&[Http, Fresh, Http], &[Get, Set]],
        foreign: 1,
        ..PLAIN
    },
    Scenario {
        name: "a lost connection",
        scripts: &[&[Set, Get], &[Get, Get]],
        losses: 1,
        ..PLAIN
    },
    Scenario {
        name: "a failing worker",
        scripts: &[&[Get, Set, Get], &[Get, Get]],
        failures: 1,
        ..PLAIN
    },
    Scenario {
        name: "one request at a time",
        scripts: &[&[Set, Get, Other], &[Get, Set]],
        limit: 1,
        ..PLAIN
    },
    Scenario {
        name: "three clients",
        scripts: &[&[Set, Get], &[Get], &[Get, Set]],
        depth: 2,
        ..PLAIN
    },
];

struct Search {
    seen: HashSet<u64>,
    path: Vec<Step>,
    found: Option<(Promise, Vec<Step>)>,
}

impl Search {
    fn run(state: State) -> Search {
        let mut search = Search {
            seen: HashSet::new(),
            path: Vec::new(),
            found: None,
        };
        search.seen.insert(state.fingerprint());
        search.visit(&state);
        search
    }

    /// Looks into all that can follow `state`. Recursion is as deep as a run is long.
    fn visit(&mut self, state: &State) {
        assert!(
            self.seen.len() < STATES_MAX,
            "{:?} is too large",
            state.scenario.name
        );
        let steps = state.steps();
        for step in &steps {
            let mut next = state.clone();
            self.path.push(*step);
            match next.step(*step) {
                Err(promise) => self.found = Some((promise, self.path.clone())),
                Ok(()) if self.seen.insert(next.fingerprint()) => self.visit(&next),
                Ok(()) => {}
            }
            if self.found.is_some() {
                return;
            }
            self.path.pop();
        }
        let others_may_write =
            |step: &Step| matches!(step, Step::Foreign | Step::Lose(_) | Step::Fail(_));
        if steps.iter().all(others_may_write)
            && let Err(promise) = state.clone().at_rest()
        {
            self.found = Some((promise, self.path.clone()));
        }
    }
}

fn explain(promise: Promise, path: &[Step]) -> String {
    let steps: Vec<String> = path.iter().map(|step| format!("{step:?}")).collect();
    format!("{promise:?} after {}", steps.join(" - "))
}

#[test]
fn no_interleaving_breaks_a_promise() {
    let mut states = 0;
    for scenario in SCENARIOS {
        let search = Search::run(State::new(*scenario, None, Routing::ByKey));
        if let Some((promise, path)) = search.found {
            panic!("{}: {}", scenario.name, explain(promise, &path));
        }
        println!("{:>8} states: {}", search.seen.len(), scenario.name);
        states += search.seen.len();
    }
    println!("{states:>8} states in all");
    assert!(states >= 10_000, "the search shows something");
}

/// Turns a rule off and looks for what goes wrong; without that nothing may.
#[cfg(debug_assertions)]
fn breaks(rule: Option<Rule>, routing: Routing, expected: &[Promise], scenario: Scenario) {
    let whole = Search::run(State::new(scenario, None, Routing::ByKey));
    if let Some((promise, path)) = whole.found {
        panic!("with all rules: {}", explain(promise, &path));
    }
    let broken = Search::run(State::new(scenario, rule, routing));
    let Some((promise, path)) = broken.found else {
        panic!("{rule:?} is not missed in {} states", broken.seen.len());
    };
    println!("{rule:?} turned off: {}", explain(promise, &path));
    assert!(
        expected.contains(&promise),
        "{promise:?} is not among {expected:?}"
    );
}

#[cfg(debug_assertions)]
mod each_rule_is_needed {
    use super::*;
    use Promise::{Cross, Gmono, Mono, Order, Quiet, Ryw};

    fn rule(rule: Rule, expected: &[Promise], scenario: Scenario) {
        breaks(Some(rule), Routing::ByKey, expected, scenario);
    }

    #[test]
    fn l1_fetches_of_a_key_in_one_queue() {
        let scripts: &[&[_]] = &[&[Get, Get], &[Set]];
        breaks(
            None,
            Routing::InTurn,
            &[Mono, Gmono, Cross],
            Scenario {
                scripts,
                foreign: 1,
                ..PLAIN
            },
        );
    }

    #[test]
    fn l2_the_entry_goes_when_a_fetch_starts() {
        let scripts: &[&[_]] = &[&[Http, Fresh, Http], &[Get]];
        rule(
            Rule::RemoveAtStart,
            &[Mono, Gmono],
            Scenario {
                scripts,
                foreign: 1,
                ..PLAIN
            },
        );
    }

    #[test]
    fn l3_the_mark_has_an_identity() {
        let scripts: &[&[_]] = &[&[Get], &[Set, Get]];
        rule(
            Rule::MarkIdentity,
            &[Ryw, Cross, Mono, Gmono, Quiet],
            Scenario { scripts, ..PLAIN },
        );
    }

    #[test]
    fn l4_a_client_stays_on_its_link() {
        let scripts: &[&[_]] = &[&[Set, Hello, Get]];
        rule(
            Rule::PinToLink,
            &[Ryw],
            Scenario {
                scripts,
                depth: 3,
                ..PLAIN
            },
        );
    }

    #[test]
    fn l5_a_get_behind_an_own_write_goes_the_same_way() {
        let scripts: &[&[_]] = &[&[Set, Get], &[Get]];
        rule(
            Rule::RelayBehindRelayed,
            &[Ryw],
            Scenario { scripts, ..PLAIN },
        );
    }

    #[test]
    fn l5_a_relayed_get_poisons() {
        let scripts: &[&[_]] = &[&[Set, Get, Get], &[Get]];
        rule(
            Rule::PoisonAfterGet,
            &[Mono, Gmono],
            Scenario {
                scripts,
                foreign: 1,
                ..PLAIN
            },
        );
    }

    #[test]
    fn l7_a_write_waits_for_the_own_fetch() {
        let scripts: &[&[_]] = &[&[Get, Set]];
        rule(
            Rule::WaitForOwnFetch,
            &[Order],
            Scenario { scripts, ..PLAIN },
        );
    }

    #[test]
    fn l8_replies_leave_in_order() {
        let scripts: &[&[_]] = &[&[Set, Other]];
        rule(
            Rule::RepliesInOrder,
            &[Order],
            Scenario { scripts, ..PLAIN },
        );
    }

    #[test]
    fn l9_a_write_poisons_at_completion() {
        let scripts: &[&[_]] = &[&[Set, Get], &[Get]];
        rule(
            Rule::PoisonAfterWrite,
            &[Ryw, Cross, Quiet],
            Scenario {
                scripts,
                depth: 1,
                ..PLAIN
            },
        );
    }

    #[test]
    fn r2_the_entry_goes() {
        let scripts: &[&[_]] = &[&[Set, Get], &[Get]];
        rule(
            Rule::PoisonEntry,
            &[Ryw, Cross, Quiet],
            Scenario {
                scripts,
                depth: 1,
                ..PLAIN
            },
        );
    }

    #[test]
    fn r2_the_mark_goes() {
        let scripts: &[&[_]] = &[&[Set, Get], &[Get]];
        rule(
            Rule::PoisonMark,
            &[Ryw, Cross, Quiet],
            Scenario {
                scripts,
                depth: 1,
                ..PLAIN
            },
        );
    }

    #[test]
    fn l10_a_script_may_touch_every_key() {
        let scripts: &[&[_]] = &[&[Script, Get]];
        rule(Rule::ScriptsTouchAll, &[Ryw], Scenario { scripts, ..PLAIN });
        let scripts: &[&[_]] = &[&[Get, Script]];
        rule(
            Rule::ScriptsTouchAll,
            &[Order],
            Scenario { scripts, ..PLAIN },
        );
    }

    #[test]
    fn l10_a_script_poisons_everything() {
        let scripts: &[&[_]] = &[&[Script, Get], &[Get]];
        rule(
            Rule::PoisonAfterScript,
            &[Ryw, Cross, Quiet],
            Scenario {
                scripts,
                depth: 1,
                ..PLAIN
            },
        );
    }
}
