//! Each rule is needed: with it turned off the search finds a run that breaks a promise, and prints it.
//!
//! Rows of the table in section 5 of RULES.md that are shown here, by what is removed: L1 routing; L2 removal of the
//! entry (by the lease, and by HTTP past the cache); R2/R3 identity, INV leaves the mark (and the entry); L4 pinning; L5;
//! L5 and L7 with unknown keys ignored; L5 no poison; L7; L8; L9; L9 entry but not mark; L10; barrier: a PING sent before
//! the reply counts; a PING of an earlier script counts; L11 entries kept, marks kept, marks while off; L18 poison, success,
//! UP, the barrier of a script ended by DOWN; L14 the test of PINGs; L19 no limit, age from completion, an older fetch is joined, UP keeps the
//! entries, the marks, end of a script. Beside the table: the end of the lease (for hits and for joins), and data of
//! another server.
//!
//! L16 in the own database only; that L13's MONOX is not promised.
//! Not here: L1 order of retries (the fetcher's tests), L5 with a relayed GET not counted, L7 with later commands let go
//! on, L10 with declared keys believed. Own links are in `own.rs`.

use super::driver::codec::request;
use super::driver::world::Routing;
use super::observer::bulk;
use super::scenario::Op::{
    Copy, Fresh, Get, GetL, Hello, Http, Mget, Mset, Other, Range, Script, Select, Set,
};
use super::scenario::Promise::{
    Bound, Cross, Event, Gmono, Half, Mono, Monox, Order, Ryw, StaleUp, Verify,
};
use super::scenario::{Mode, PLAIN, Promise, Scenario, TRACKED};
use super::state::State;
use super::{Search, explain, shortest};
use nearcache::engine::Rule;

/// Turns rules off and looks for what goes wrong; without that nothing may.
fn breaks(broken: &[Rule], routing: Routing, expected: &[Promise], scenario: Scenario) {
    let whole = Search::run(scenario, &[], Routing::ByKey);
    if let Some((promise, path)) = whole.found {
        let path = shortest(scenario, &[], Routing::ByKey, &path);
        panic!("with all rules: {}", explain(promise, &path));
    }
    let search = Search::run(scenario, broken, routing);
    let Some((promise, path)) = search.found else {
        panic!("{broken:?} is not missed in {} states", search.seen.len());
    };
    let path = shortest(scenario, broken, routing, &path);
    println!("{broken:?} turned off: {}", explain(promise, &path));
    assert!(
        expected.contains(&promise),
        "{promise:?} is not among {expected:?}"
    );
}

pub fn rule(rule: Rule, expected: &[Promise], scenario: Scenario) {
    breaks(&[rule], Routing::ByKey, expected, scenario);
}

fn rules(rules: &[Rule], expected: &[Promise], scenario: Scenario) {
    breaks(rules, Routing::ByKey, expected, scenario);
}

#[test]
fn l1_fetches_of_a_key_in_one_queue() {
    let scenario = Scenario {
        scripts: &[&[Get, Get], &[Set]],
        foreign: &[Set],
        ..PLAIN
    };
    breaks(&[], Routing::InTurn, &[Mono, Gmono, Cross], scenario);
    let scenario = Scenario {
        scripts: &[&[Get, Get]],
        foreign: &[Set, Set],
        ..TRACKED
    };
    breaks(&[], Routing::InTurn, &[Mono, Gmono], scenario);
}

#[test]
fn l2_the_entry_goes_when_a_fetch_starts() {
    let scenario = Scenario {
        scripts: &[&[Http, Fresh, Http], &[Get]],
        foreign: &[Set],
        ..PLAIN
    };
    rule(Rule::RemoveAtStart, &[Mono, Gmono], scenario);
    let scenario = Scenario {
        scripts: &[&[Get, Get, Get]],
        foreign: &[Set],
        lapses: 1,
        waits: 1,
        ..TRACKED
    };
    rule(Rule::RemoveAtStart, &[Mono, Gmono], scenario);
}

#[test]
fn l3_the_mark_has_an_identity() {
    let scenario = Scenario {
        scripts: &[&[Get], &[Set, Get]],
        ..PLAIN
    };
    rule(
        Rule::MarkIdentity,
        &[Ryw, Cross, Mono, Gmono, Event],
        scenario,
    );
    let scenario = Scenario {
        scripts: &[&[Get], &[Get]],
        foreign: &[Set],
        ..TRACKED
    };
    rule(Rule::MarkIdentity, &[Event, Mono, Gmono], scenario);
}

#[test]
fn l4_a_client_stays_on_its_link() {
    let scenario = Scenario {
        scripts: &[&[Set, Hello, Get]],
        depth: 3,
        ..PLAIN
    };
    rule(Rule::PinToLink, &[Ryw], scenario);
}

#[test]
fn l5_a_get_behind_an_own_write_goes_the_same_way() {
    let scenario = Scenario {
        scripts: &[&[Set, Get], &[Get]],
        ..PLAIN
    };
    rule(Rule::RelayBehindRelayed, &[Ryw], scenario);
    let scenario = Scenario {
        scripts: &[&[Get, Set, Range]],
        ..TRACKED
    };
    rule(Rule::RelayBehindRelayed, &[Ryw], scenario);
}

#[test]
fn l14_several_keys_are_those_of_one_moment() {
    let scenario = Scenario {
        scripts: &[&[Get, GetL, Mget]],
        depth: 1,
        foreign: &[Mset],
        waits: 1,
        ..TRACKED
    };
    rule(Rule::SettledTogether, &[Half], scenario);
    let scenario = Scenario {
        scripts: &[&[Get, GetL, Mget], &[Mset]],
        depth: 1,
        waits: 1,
        ..TRACKED
    };
    rule(Rule::SettledTogether, &[Half], scenario);
}

#[test]
fn l5_a_relayed_get_poisons() {
    let scenario = Scenario {
        scripts: &[&[Set, Get, Get], &[Get]],
        foreign: &[Set],
        ..PLAIN
    };
    rule(Rule::PoisonAfterGet, &[Mono, Gmono], scenario);
    let scenario = Scenario {
        scripts: &[&[Set, Get, Get], &[Get]],
        foreign: &[Set],
        ..TRACKED
    };
    rule(Rule::PoisonAfterGet, &[Mono, Gmono], scenario);
}

#[test]
fn l7_a_write_waits_for_the_own_fetch() {
    let scenario = Scenario {
        scripts: &[&[Get, Set]],
        ..TRACKED
    };
    rule(Rule::WaitForOwnFetch, &[Order], scenario);
}

#[test]
fn l8_replies_leave_in_order() {
    let scenario = Scenario {
        scripts: &[&[Set, Other]],
        ..TRACKED
    };
    rule(Rule::RepliesInOrder, &[Order], scenario);
}

#[test]
fn l9_a_write_poisons_at_completion() {
    for base in [PLAIN, TRACKED] {
        let scenario = Scenario {
            scripts: &[&[Set, Get], &[Get]],
            depth: 1,
            ..base
        };
        rule(Rule::PoisonAfterWrite, &[Ryw, Cross, Event], scenario);
    }
}

#[test]
fn r2_the_entry_goes() {
    let scenario = Scenario {
        scripts: &[&[Set, Get], &[Get]],
        depth: 1,
        ..PLAIN
    };
    rule(Rule::PoisonEntry, &[Ryw, Cross, Event], scenario);
    let scenario = Scenario {
        scripts: &[&[Get]],
        foreign: &[Set],
        ..TRACKED
    };
    rule(Rule::PoisonEntry, &[Event], scenario);
}

#[test]
fn r2_the_mark_goes() {
    let scenario = Scenario {
        scripts: &[&[Set, Get], &[Get]],
        depth: 1,
        ..PLAIN
    };
    rule(Rule::PoisonMark, &[Ryw, Cross, Event], scenario);
    let scenario = Scenario {
        scripts: &[&[Get]],
        foreign: &[Set],
        ..TRACKED
    };
    rule(Rule::PoisonMark, &[Event], scenario);
}

#[test]
fn l10_a_script_may_touch_every_key() {
    for base in [PLAIN, TRACKED] {
        let scenario = Scenario {
            scripts: &[&[Script, Get]],
            ..base
        };
        rule(Rule::ScriptsTouchAll, &[Ryw], scenario);
        let scenario = Scenario {
            scripts: &[&[Get, Script]],
            ..base
        };
        rule(Rule::ScriptsTouchAll, &[Order], scenario);
    }
}

#[test]
fn l10_a_script_poisons_everything_or_is_held() {
    let bounded = Scenario {
        mode: Mode::Bounded,
        ..TRACKED
    };
    for base in [PLAIN, TRACKED, bounded] {
        let scenario = Scenario {
            scripts: &[&[Script, Get], &[Get]],
            depth: 1,
            ..base
        };
        rule(Rule::PoisonAfterScript, &[Ryw, Cross, Event], scenario);
    }
}

#[test]
fn l10_a_ping_under_way_ends_no_barrier() {
    // A heartbeat's, then that of an earlier script.
    let scripts: &[&[_]] = &[&[Script], &[Get, Get]];
    let scenario = Scenario {
        scripts,
        depth: 1,
        waits: 1,
        ..TRACKED
    };
    rule(Rule::BarrierNeedsFreshPing, &[Cross], scenario);
    let scripts: &[&[_]] = &[&[Script], &[Script], &[Get, Get]];
    let scenario = Scenario {
        scripts,
        depth: 1,
        ..TRACKED
    };
    rule(Rule::BarrierNeedsFreshPing, &[Cross], scenario);
}

#[test]
fn hits_and_joins_end_with_the_lease() {
    let scenario = Scenario {
        scripts: &[&[Get, Get]],
        foreign: &[Set],
        lapses: 1,
        ..TRACKED
    };
    rule(Rule::LeaseEnds, &[Bound], scenario);
    let scenario = Scenario {
        scripts: &[&[Get], &[Get]],
        foreign: &[Set],
        lapses: 1,
        ..TRACKED
    };
    rule(Rule::JoinOnlyYoung, &[Bound], scenario);
}

#[test]
fn l11_nothing_of_before_is_kept_when_the_link_is_back() {
    // The engine drops at DOWN and at UP; either alone would do.
    let scenario = Scenario {
        scripts: &[&[Get]],
        foreign: &[Set],
        cuts: 1,
        ..TRACKED
    };
    rules(
        &[Rule::DropEntriesAtDown, Rule::DropEntriesAtUp],
        &[Event],
        scenario,
    );
    rules(
        &[Rule::DropMarksAtDown, Rule::DropMarksAtUp],
        &[Event],
        scenario,
    );
    rules(
        &[Rule::NoMarkWhileDown, Rule::DropMarksAtUp],
        &[Event],
        scenario,
    );
}

#[test]
fn l18_poison_removes_what_waits_aside() {
    let scenario = Scenario {
        scripts: &[&[Get, Set, Get]],
        depth: 1,
        cuts: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    };
    rule(Rule::PoisonStale, &[Ryw, Cross], scenario);
}

#[test]
fn l18_a_get_that_succeeds_removes_what_waits_aside() {
    let scenario = Scenario {
        scripts: &[&[Get, Get, Get]],
        foreign: &[Set],
        depth: 1,
        cuts: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    };
    rule(Rule::SuccessDropsStale, &[Mono, Gmono], scenario);
}

#[test]
fn l18_nothing_waits_aside_once_redis_pushes_again() {
    let scenario = Scenario {
        scripts: &[&[Get, Get]],
        foreign: &[Set],
        depth: 1,
        cuts: 2,
        failures: 1,
        stale: true,
        ..TRACKED
    };
    rule(Rule::DropStaleAtUp, &[StaleUp], scenario);
}

#[test]
fn l18_a_barrier_ended_by_a_loss_empties_everything() {
    let scenario = Scenario {
        scripts: &[&[Script, Get], &[Get]],
        depth: 1,
        cuts: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    };
    rule(Rule::FlushAtLostBarrier, &[Ryw, Cross], scenario);
}

#[test]
fn what_a_lapse_puts_aside_obeys_the_same_rules() {
    let lapse = Scenario {
        depth: 1,
        lapses: 1,
        failures: 1,
        stale: true,
        ..TRACKED
    };
    let scenario = Scenario {
        scripts: &[&[Get, Get, Set, Get]],
        failures: 2,
        ..lapse
    };
    rule(Rule::PoisonStale, &[Ryw, Cross], scenario);
    let scenario = Scenario {
        scripts: &[&[Get, Get, Get]],
        foreign: &[Set],
        cuts: 1,
        ..lapse
    };
    rule(Rule::SuccessDropsStale, &[Mono, Gmono], scenario);
    let scenario = Scenario {
        scripts: &[&[Get, Get]],
        waits: 1,
        ..lapse
    };
    rule(Rule::DropLapsedAtRenewal, &[StaleUp], scenario);
}

#[test]
fn a_difference_is_no_mismatch_before_a_later_ping_is_answered() {
    let scenario = Scenario {
        scripts: &[&[Get, Get]],
        foreign: &[Set],
        waits: 1,
        verify: true,
        ..TRACKED
    };
    rule(Rule::JudgeAfterPing, &[Verify], scenario);
}

#[test]
fn a_check_finds_a_hit_that_should_have_gone() {
    // The push is read and the entry stays; the check begins after it.
    let scenario = Scenario {
        scripts: &[&[Get, Get]],
        foreign: &[Set],
        depth: 1,
        waits: 1,
        verify: true,
        ..TRACKED
    };
    rule(Rule::PoisonEntry, &[Verify, Event], scenario);
}

#[test]
fn l19_without_tracking_the_bound_ends_an_entry_from_dispatch() {
    let scenario = Scenario {
        mode: Mode::Bounded,
        scripts: &[&[Get, Get]],
        depth: 1,
        foreign: &[Set],
        ticks: 3,
        ..TRACKED
    };
    rule(Rule::BoundedLife, &[Bound, Event], scenario);
    rule(Rule::AgeFromDispatch, &[Bound], scenario);
    let scenario = Scenario {
        scripts: &[&[Get], &[Get]],
        ..scenario
    };
    rule(Rule::JoinOnlyYoung, &[Bound], scenario);
}

#[test]
fn l19_nothing_of_before_is_kept_when_tracking_begins() {
    let scenario = Scenario {
        mode: Mode::BoundedThenTracking,
        scripts: &[&[Get]],
        foreign: &[Set],
        waits: 1,
        ..TRACKED
    };
    rule(Rule::DropEntriesAtUp, &[Event], scenario);
    rule(Rule::DropMarksAtUp, &[Event], scenario);
}

#[test]
fn l13_a_get_may_be_older_than_what_another_read_has_shown() {
    // MONOX is not promised: a GETRANGE is relayed past the fetch under way, which is then kept.
    let scenario = Scenario {
        scripts: &[&[Get], &[Range, Get]],
        depth: 1,
        foreign: &[Set],
        ..TRACKED
    };
    let whole = Search::run(scenario, &[], Routing::ByKey);
    assert!(whole.found.is_none(), "nothing that is promised is missed");
    let scenario = Scenario {
        monox: true,
        ..scenario
    };
    let (promise, path) = Search::run(scenario, &[], Routing::ByKey)
        .found
        .expect("if this holds now, RULES.md and the README can promise it");
    let path = shortest(scenario, &[], Routing::ByKey, &path);
    println!("not promised: {}", explain(promise, &path));
    assert_eq!(promise, Monox);
}

#[test]
fn l16_a_name_is_poisoned_in_every_database() {
    let cross = Scenario {
        scripts: &[&[Copy], &[Select, Get, Get]],
        depth: 1,
        ..TRACKED
    };
    rule(Rule::EveryDatabase, &[Cross], cross);
    let own = Scenario {
        scripts: &[&[Copy, Select, Get], &[Select, Get]],
        depth: 1,
        ..TRACKED
    };
    rule(Rule::EveryDatabase, &[Ryw, Cross], own);
    let untold = Scenario {
        mode: Mode::Ttl,
        ..cross
    };
    rule(Rule::EveryDatabase, &[Cross, Event], untold);
}

#[test]
fn what_another_server_says_is_not_kept() {
    let scenario = Scenario {
        scripts: &[&[Get]],
        ..TRACKED
    };
    for (broken, expected) in [(&[][..], "1"), (&[Rule::SameServer], "elsewhere")] {
        let mut world = State::new(scenario, broken, Routing::ByKey).world;
        let mut get = |elsewhere: bool| {
            for worker in &mut world.workers {
                worker.elsewhere = elsewhere;
            }
            world.sockets[0].incoming.extend(request(&["GET", "k"]));
            world.settle();
            let received = std::mem::take(&mut world.sockets[0].received);
            (bulk(&received).expect("a value"), world.renewals)
        };
        assert_eq!(get(true).0, b"elsewhere", "who waits is answered");
        let (value, renewals) = get(false);
        assert_eq!(value, expected.as_bytes());
        assert_eq!(
            renewals > 0,
            broken.is_empty(),
            "the name is resolved again"
        );
    }
}
