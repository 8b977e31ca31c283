//! Forgetting: a key, or everything, and why (rule R2).
//!
//! Whatever must not be answered any more goes through here, so that nothing that is kept in several places (the cache,
//! the marks, what waits aside, the checks under way) is forgotten in one of them only.
#![forbid(unsafe_code)]

use super::Engine;
use super::switches::Rule;
use crate::link::Poison;
use crate::stats::Counter;

/// Why a key is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A command passed on here wrote it.
    Own,
    /// Somebody else wrote it, or Redis dropped it.
    Foreign,
    /// It was read beside the fetches (rule L5). It need not have changed.
    Get,
    /// An operator said so.
    Asked,
}

impl Cause {
    /// The reason in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Cause::Own => "a command passed on here wrote it",
            Cause::Foreign => "somebody else wrote it, or it expired or was evicted in Redis",
            Cause::Get => "it was read on a connection beside the fetches",
            Cause::Asked => "an operator asked for it",
        }
    }

    /// At the completion of a relayed command.
    fn of_command(poison: Poison) -> Cause {
        match poison {
            Poison::AfterGet => Cause::Get,
            _ => Cause::Own,
        }
    }
}

/// Why everything is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// The invalidation link is gone.
    Down,
    /// Redis was asked to track, and answered.
    Up,
    /// Redis pushed that anything may have changed.
    Pushed,
    /// A command passed on here may have changed anything, and Redis need not tell of it.
    Command,
    /// What a barrier would have been for.
    Barrier,
    /// The operator changed the mode, or what may be kept.
    Switch,
    /// Redis is another process now.
    Server,
    /// A hit was found to be wrong.
    Mismatch,
    /// An operator said so.
    Asked,
}

impl Flush {
    /// At the completion of a relayed command that may touch every key.
    pub(super) fn of_command(poison: Poison) -> Flush {
        match poison {
            Poison::Barrier => Flush::Barrier,
            _ => Flush::Command,
        }
    }

    /// The reason in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Flush::Down => "the connection on which Redis tells of changes was lost",
            Flush::Up => "Redis was asked to tell of changes",
            Flush::Pushed => "Redis said that anything may have changed (FLUSHALL, FLUSHDB)",
            Flush::Command => "a command that may change anything",
            Flush::Barrier => "a script's changes could not be waited for",
            Flush::Switch => "the mode or what may be kept was changed",
            Flush::Server => "Redis is another process",
            Flush::Mismatch => "a checked hit was wrong",
            Flush::Asked => "an operator asked for it",
        }
    }

    fn counter(self) -> Counter {
        match self {
            Flush::Down => Counter::FlushesDown,
            Flush::Up => Counter::FlushesUp,
            Flush::Pushed => Counter::FlushesPushed,
            Flush::Command => Counter::FlushesCommand,
            Flush::Barrier => Counter::FlushesBarrier,
            Flush::Switch => Counter::FlushesSwitch,
            Flush::Server => Counter::FlushesServer,
            Flush::Mismatch => Counter::FlushesMismatch,
            Flush::Asked => Counter::FlushesAsked,
        }
    }
}

impl Engine {
    /// Rules L5, L9 and L16: a command that was passed on is completed, and this is one of its keys.
    pub(super) fn poison_touched(&mut self, hash: u64, poison: Poison) {
        #[cfg(debug_assertions)]
        if !self.switches.holds(Rule::EveryDatabase) {
            return self.poison_in_one_database(hash);
        }
        self.poison_name(hash, Cause::of_command(poison));
    }

    /// Rule R2: the key's entry and mark go, in every database.
    pub(super) fn poison_name(&mut self, hash: u64, cause: Cause) {
        let removed = match cause {
            _ if !self.switches.holds(Rule::PoisonEntry) => 0,
            // That a value is too large is no answer to anybody: it stays known until the value may be another one.
            Cause::Get => self.cache.remove_readable(hash),
            Cause::Own | Cause::Foreign | Cause::Asked => self.cache.remove_name(hash),
        };
        if self.switches.holds(Rule::PoisonStale) {
            self.aside.remove_name(hash);
        }
        if self.switches.holds(Rule::PoisonMark) {
            self.fetches.forget_name(hash);
        }
        self.verify.explain(hash);
        self.ghost.forget(hash);
        if removed > 0 {
            self.insight.note_forgotten(hash, cause, self.now);
        }
        self.stats.add(Counter::Invalidations, removed as u64);
        let by = match cause {
            Cause::Own => Counter::InvalidationsOwn,
            Cause::Foreign => Counter::InvalidationsForeign,
            Cause::Get | Cause::Asked => return,
        };
        self.stats.add(by, removed as u64);
    }

    /// Everything kept goes, and no fetch under way is kept.
    pub(super) fn poison_all(&mut self, why: Flush) {
        self.cache.clear();
        self.aside.clear();
        self.fetches.forget_all();
        self.note_flush(why);
    }

    /// Everything kept has gone, or was put aside.
    pub(super) fn note_flush(&mut self, why: Flush) {
        self.verify.explain_all();
        self.stats.count(Counter::Flushes);
        self.stats.count(why.counter());
        self.ghost.forget_all();
        self.insight.note_flushed(why, self.now);
        self.note_event(
            "flush",
            format!("everything kept was dropped: {}", why.words()),
        );
    }
}
