//! The coherence rules that a test can turn off, to show that each is needed and that the tests would notice.
//!
//! Exists in builds with debug assertions only: in a release build [`Switches`] is empty and every question a constant.
#![forbid(unsafe_code)]

use super::Engine;

/// A rule of RULES.md, as far as it acts at one place of the engine.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// L2: the start of a fetch removes the key's entry.
    RemoveAtStart,
    /// L3: only the fetch that holds the mark is kept.
    MarkIdentity,
    /// L4: a client with relayed commands outstanding stays on their link.
    PinToLink,
    /// L5: a GET behind an own relayed command of its key is relayed too.
    RelayBehindRelayed,
    /// L5: a relayed GET poisons its key.
    PoisonAfterGet,
    /// L7: a relayed command waits for the client's own fetch of its key.
    WaitForOwnFetch,
    /// L8: replies leave in the order of the commands.
    RepliesInOrder,
    /// L9: a write poisons its keys at completion.
    PoisonAfterWrite,
    /// R2: poison removes the entry.
    PoisonEntry,
    /// R2: poison removes the mark.
    PoisonMark,
    /// L10: a script may touch every key, as far as L5 and L7 are concerned.
    ScriptsTouchAll,
    /// L10: a script poisons everything at completion, or its reply is held.
    PoisonAfterScript,
    /// L10: a PING that is under way does not end a barrier for what came after its sending.
    BarrierNeedsFreshPing,
    /// L10 and L18: a barrier ended by the loss of its link empties the cache.
    FlushAtLostBarrier,
    /// The lease: no hits once the newest answered PING was sent too long ago.
    LeaseEnds,
    /// L6 and L19: a fetch is joined only while the lease runs or it is younger than an entry may be.
    JoinOnlyYoung,
    /// L11: entries go at DOWN (or wait aside).
    DropEntriesAtDown,
    /// L11: marks go at DOWN.
    DropMarksAtDown,
    /// L11: a fetch has no mark while nothing may be kept.
    NoMarkWhileDown,
    /// L19: entries go at UP.
    DropEntriesAtUp,
    /// L19: marks go at UP.
    DropMarksAtUp,
    /// L18: what waits aside goes at UP.
    DropStaleAtUp,
    /// L18: poison removes what waits aside.
    PoisonStale,
    /// L18: a fetch that succeeds removes what waits aside.
    SuccessDropsStale,
    /// What a fetch has put aside in a lapse goes when the lease runs again.
    DropLapsedAtRenewal,
    /// A check that differs is judged only after the answer to a PING sent afterwards.
    JudgeAfterPing,
    /// L19: without tracking an entry lives no longer than the staleness bound.
    BoundedLife,
    /// L19: the age of an entry counts from the dispatch of its fetch.
    AgeFromDispatch,
    /// L14: an MGET is answered from entries that came before an answered PING was sent.
    SettledTogether,
    /// What a worker read from another server than the tracked one is not kept.
    SameServer,
    /// L15: no read of a client with state upstream hits or joins.
    OwnLinkOnly,
    /// L5: a GET executed on an own link poisons its key.
    PoisonAfterOwnGet,
    /// L5: a GET inside a transaction poisons its key when that is executed.
    PoisonAfterExecGet,
    /// L9: EXEC poisons what its block touches.
    PoisonAfterExec,
    /// L17: what others cause is held for the barrier.
    HoldMessages,
    /// L16: what poisons a key poisons it in every database.
    EveryDatabase,
}

/// Which rules are turned off.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Switches {
    #[cfg(debug_assertions)]
    off: u64,
}

impl Switches {
    /// Whether the rule is in force.
    #[inline(always)]
    pub(super) fn holds(self, rule: Rule) -> bool {
        #[cfg(debug_assertions)]
        let holds = self.off & (1 << rule as u64) == 0;
        #[cfg(not(debug_assertions))]
        let holds = {
            let _ = rule;
            true
        };
        holds
    }
}

impl Engine {
    /// The state of coherence in one word, as INFO has it.
    #[doc(hidden)]
    pub fn coherence_state(&self) -> &'static str {
        self.coherence_name()
    }

    /// How many PINGs of the invalidation link were answered or lost, since the start.
    #[doc(hidden)]
    pub fn pings_answered(&self) -> u64 {
        self.tracking.newest_answered()
    }

    /// How many entries wait aside since DOWN (rule L18), and how many since a fetch removed them in a lapse.
    #[doc(hidden)]
    pub fn aside_lens(&self) -> (usize, usize) {
        (self.aside.len_down(), self.aside.len_lapsed())
    }

    /// Turns a rule off, for a test that shows what then goes wrong.
    #[doc(hidden)]
    #[cfg(debug_assertions)]
    pub fn break_rule(&mut self, rule: Rule) {
        self.switches.off |= 1 << rule as u64;
        self.refresh_lease();
    }

    /// Holds no memory in reserve, so that a search that clones it a million times copies less.
    #[doc(hidden)]
    pub fn hold_little(&mut self) {
        self.scratch = vec![0; 4096];
        self.pool.drop_spare();
        self.inbox_pool.drop_spare();
        self.insight.hold_little();
        self.ghost = crate::insight::ghost::Ghost::none();
    }

    /// With rule L16 turned off: an own command poisons its keys in the database of `REDIS_URL` only.
    #[cfg(debug_assertions)]
    pub(super) fn poison_in_one_database(&mut self, hash: u64) {
        let db = self.config.redis_url.db;
        let of_name = |key: &[u8]| self.hasher.hash(key) == hash;
        let mut entries = self.cache.iter_recent();
        let entry = entries.find(|(of, key)| *of == db && of_name(key));
        let entry = entry.map(|(_, key)| key.to_vec());
        let mut flights = self.fetches.iter_by_age();
        let is_marked =
            flights.any(|(_, flight, marked)| marked && flight.db == db && of_name(&flight.key));
        drop((entries, flights));
        if let Some(key) = entry {
            self.cache.remove(db, &key, hash);
        }
        if is_marked {
            self.fetches.forget_name(hash);
        }
    }

    /// With rule L8 turned off, a reply that is early leaves at once.
    #[inline(always)]
    pub(super) fn reply_is_ready(&mut self, ix: usize, slot: u64) {
        if self.switches.holds(Rule::RepliesInOrder) {
            return;
        }
        let client = &mut self.clients[ix];
        let at = (slot - client.owed.front_number()) as usize;
        if at > 0 {
            let early = client.owed.take_early(at);
            client.outbox.append_all(early, &mut self.pool);
        }
    }
}
