//! Every interleaving of small scenarios, on the real engine: what is said, executed, pushed, answered and completed, in
//! every order that FIFO connections and workers allow.
//!
//! Depth first over clones of the world, each state looked into once (its fingerprint is kept). The scenarios are those
//! of section 4 of RULES.md, as far as the engine can run them: one key and two, two clients and three, writes by others,
//! loss and return of the invalidation link (with any suffix of what was under way), of links and of workers, the lapse
//! of the lease, barriers of one round and of two, stale answers, entries without tracking. Time passes in steps of its
//! own. Checked are RYW, ORDER, CROSS, MONO, GMONO, EVENT, BOUND, STALEUP, and that nobody is stuck; floors count from
//! the moment a command is sent.
//!
//! The other half is `rules.rs`: with a rule turned off, the same search must find a violation.

#[path = "../core/mod.rs"]
mod driver;

mod observer;
mod own;
#[cfg(debug_assertions)]
mod rules;
mod scenario;
mod scenarios;
mod state;

use driver::world::Routing;
use nearcache::engine::Rule;
use scenario::{Promise, Scenario};
use scenarios::SCENARIOS;
use state::{State, Step};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

/// With this many states a scenario is too large to be looked through in a test.
const STATES_MAX: usize = 400_000;

/// The search recurses as deep as a run is long, with a whole state in each frame; what is not touched costs nothing.
const STACK_BYTES: usize = 256 * 1024 * 1024;

struct Search {
    seen: HashSet<u64>,
    path: Vec<Step>,
    found: Option<(Promise, Vec<Step>)>,
}

impl Search {
    fn run(scenario: Scenario, broken: &[Rule], routing: Routing) -> Search {
        let state = State::new(scenario, broken, routing);
        let mut search = Search {
            seen: HashSet::new(),
            path: Vec::new(),
            found: None,
        };
        search.seen.insert(state.fingerprint());
        search.visit(state);
        search
    }

    /// Looks into all that can follow `state`. Recursion is as deep as a run is long.
    fn visit(&mut self, state: State) {
        assert!(
            self.seen.len() < STATES_MAX,
            "{:?} is too large",
            state.scenario.name
        );
        let mut steps = state.steps();
        let said = |step: &Step| step.is_optional() || matches!(step, Step::Say(_));
        let found = if steps.iter().all(|step| step.is_optional()) {
            state.at_rest().and_then(|()| state.quiet())
        } else if steps.iter().all(said) {
            state.quiet()
        } else {
            Ok(())
        };
        if let Err(promise) = found {
            self.found = Some((promise, self.path.clone()));
            return;
        }
        let last = steps.pop();
        for step in steps {
            self.follow(state.clone(), step);
            if self.found.is_some() {
                return;
            }
        }
        // The last needs no copy.
        if let Some(step) = last {
            self.follow(state, step);
        }
    }

    /// Lets one thing happen, and looks further if that leads to a state not seen yet.
    fn follow(&mut self, mut state: State, step: Step) {
        self.path.push(step);
        match state.step(step) {
            Err(promise) => self.found = Some((promise, self.path.clone())),
            Ok(()) if self.seen.insert(state.fingerprint()) => self.visit(state),
            Ok(()) => {}
        }
        if self.found.is_none() {
            self.path.pop();
        }
    }
}

fn explain(promise: Promise, path: &[Step]) -> String {
    let steps: Vec<String> = path.iter().map(|step| format!("{step:?}")).collect();
    let steps = steps.join(" - ").replace("ConnId { place: Link(", "link ");
    let steps = steps.replace("), generation: ", ".").replace(" }", "");
    format!("{promise:?} after {steps}")
}

/// Steps of a run that show the same violation and of which none can be left out.
fn shortest(scenario: Scenario, broken: &[Rule], routing: Routing, path: &[Step]) -> Vec<Step> {
    let violates = |path: &[Step]| {
        let mut state = State::new(scenario, broken, routing);
        for step in path {
            if !state.steps().contains(step) {
                return false;
            }
            if state.step(*step).is_err() {
                return true;
            }
        }
        let said = |step: &Step| step.is_optional() || matches!(step, Step::Say(_));
        state.steps().iter().all(said) && state.quiet().is_err()
    };
    let mut path = path.to_vec();
    let mut at = 0;
    while at < path.len() {
        let mut without = path.clone();
        without.remove(at);
        if violates(&without) {
            (path, at) = (without, 0);
        } else {
            at += 1;
        }
    }
    path
}

#[test]
fn no_interleaving_breaks_a_promise() {
    let all = [SCENARIOS, own::SCENARIOS].concat();
    let states: usize = on_all_cores(&all, |scenario| {
        let began = std::time::Instant::now();
        let search = Search::run(*scenario, &[], Routing::ByKey);
        if let Some((promise, path)) = search.found {
            let path = shortest(*scenario, &[], Routing::ByKey, &path);
            panic!("{}: {}", scenario.name, explain(promise, &path));
        }
        let (n, ms) = (search.seen.len(), began.elapsed().as_millis());
        println!("{n:>8} states {ms:>6} ms: {}", scenario.name);
        n
    });
    println!("{states:>8} states in all");
    assert!(states >= 100_000, "the search shows something");
}

/// The sum of what `look` says of each, from as many threads as there are processors.
fn on_all_cores(all: &[Scenario], look: impl Fn(&Scenario) -> usize + Sync) -> usize {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    let work = || {
        let take = || all.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(take).map(&look).sum::<usize>()
    };
    std::thread::scope(|scope| {
        let spawn = |_| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, work).expect("a thread")
        };
        let parts: Vec<_> = (0..threads).map(spawn).collect();
        let parts = parts.into_iter().map(|part| part.join());
        parts
            .map(|part| part.expect("a promise is broken, see above"))
            .sum()
    })
}
