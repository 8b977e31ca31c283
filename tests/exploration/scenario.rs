//! What a search is given: who says what, who else may do what, and what must never be seen.

/// What a client can say. The keys are `k` and `l`; a value is the number of writes its key has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Get,
    /// GET of `l`.
    GetL,
    Set,
    /// MSET of both.
    Mset,
    Del,
    /// A script that writes `k` and declares nothing.
    Script,
    /// A script that declares `k` and writes both.
    ScriptBoth,
    /// GET of another key.
    Other,
    /// A read of `k` that is never from the cache.
    Look,
    /// MGET of both.
    Mget,
    /// GETRANGE of `k`, all of it.
    Range,
    /// COPY of `k` to database 1, over what is there. One in a scenario.
    Copy,
    /// SELECT of database 1: from here on GET is of its `k`.
    Select,
    /// From here on the client is answered in RESP3, by other links.
    Hello,
    /// WATCH of `k`.
    Watch,
    /// A transaction that sets `k`, sent whole.
    ExecSet,
    /// One that sets `l`.
    ExecSetL,
    /// One that gets `k`.
    ExecGet,
    /// SUBSCRIBE: from here on the client only listens.
    Subscribe,
    /// PUBLISH, by others.
    Publish,
    /// GET over HTTP.
    Http,
    /// The same, past what is kept.
    Fresh,
}

impl Op {
    /// How many replies it gets.
    pub fn replies(self) -> usize {
        match self {
            Op::ExecSet | Op::ExecSetL | Op::ExecGet => 3,
            _ => 1,
        }
    }

    /// Whether the client has state upstream from here on: it ends with that.
    pub fn begins_state(self) -> bool {
        matches!(self, Op::Watch | Op::Subscribe)
    }
}

/// How coherence is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody tells of changes, entries end by time alone.
    Ttl,
    /// Redis pushes.
    Tracking,
    /// Redis pushes and is newer than 7.x: a barrier takes two rounds.
    TwoRounds,
    /// Redis will not track: entries end at the staleness bound.
    Bounded,
    /// The same, and the next time it is asked it will.
    BoundedThenTracking,
}

/// Who may do what.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub mode: Mode,
    pub scripts: &'static [&'static [Op]],
    /// Commands a client may have under way.
    pub depth: usize,
    /// Writes by others, at any moment, in this order.
    pub foreign: &'static [Op],
    /// Connections to Redis, other than the invalidation link, that may break.
    pub losses: usize,
    /// Times that the invalidation link may break, with any suffix of what was under way.
    pub cuts: usize,
    /// Connections that Redis may refuse.
    pub refusals: usize,
    /// Times that a worker fails with all it has to do.
    pub failures: usize,
    /// Times that the lease may end: the staleness bound passes and no timer is looked at.
    pub lapses: usize,
    /// Times that a third of the bound passes: heartbeats and attempts to reconnect are due.
    pub waits: usize,
    /// Times that a little more than half of the bound passes, and no timer is looked at but those of entries.
    pub ticks: usize,
    /// Whether `STALE_IF_ERROR_SECS` is set.
    pub stale: bool,
    /// Whether a GET may not be older than what a read that is no GET has shown the same client (MONOX). Not promised:
    /// only for the scenario that shows so.
    pub monox: bool,
    /// Whether the first hit is checked (`VERIFY_SAMPLE=1`): none is ever found wrong.
    pub verify: bool,
    /// `WARM_RECONNECT`.
    pub warm: usize,
    /// `MAX_CONCURRENT_REQUESTS`.
    pub limit: usize,
}

/// Two keys: database and name.
pub type Keys = [(u32, &'static str); 2];

impl Scenario {
    /// What is looked at: `k` and `l`, or `k` in both databases.
    pub fn keys(&self) -> Keys {
        let selects = |script: &&[Op]| script.contains(&Op::Select);
        match self.scripts.iter().any(selects) {
            true => [(0, "k"), (1, "k")],
            false => [(0, "k"), (0, "l")],
        }
    }

    /// Which of them a GET reads that stands there in a script.
    pub fn key_of_get(&self, client: usize, op: usize) -> usize {
        usize::from(self.scripts[client][..op].contains(&Op::Select))
    }

    /// Where the COPY stands: its client, and its place in the script.
    pub fn copy(&self) -> Option<(usize, usize)> {
        let place = |script: &&[Op]| script.iter().position(|op| *op == Op::Copy);
        let mut scripts = self.scripts.iter().enumerate();
        scripts.find_map(|(client, script)| Some((client, place(script)?)))
    }

    /// Whether a client has state upstream.
    pub fn has_state(&self) -> bool {
        self.scripts
            .iter()
            .copied()
            .flatten()
            .any(|op| op.begins_state())
    }

    /// Whether a client reads both keys at once.
    pub fn reads_both(&self) -> bool {
        self.scripts.iter().any(|script| script.contains(&Op::Mget))
    }

    /// Whether whoever writes writes both keys.
    pub fn writes_both(&self) -> bool {
        let all = self.scripts.iter().copied().chain([self.foreign]);
        let one = [Op::Set, Op::Del, Op::Script];
        !all.flatten().any(|op| one.contains(op))
    }
}

/// What scenarios are made from.
pub const PLAIN: Scenario = Scenario {
    name: "",
    mode: Mode::Ttl,
    scripts: &[],
    depth: 2,
    foreign: &[],
    losses: 0,
    cuts: 0,
    refusals: 0,
    failures: 0,
    lapses: 0,
    waits: 0,
    ticks: 0,
    stale: false,
    monox: false,
    verify: false,
    warm: 0,
    limit: 1000,
};

/// The same, with pushes.
pub const TRACKED: Scenario = Scenario {
    mode: Mode::Tracking,
    ..PLAIN
};

/// What a run must never show. Names as in RULES.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// A GET returns at least what the client wrote before it.
    Ryw,
    /// A GET never shows the client's own later write; its writes are made in its order; replies come in order.
    Order,
    /// A GET sent after anyone was told of a write returns at least that.
    Cross,
    /// A client's GETs never go back.
    Mono,
    /// Not promised (rule L13): a client's GET returns at least what any read has shown it.
    Monox,
    /// No GET sent after anyone got a version returns an older one.
    Gmono,
    /// When all is quiet, what is kept is right: EVENT, and without pushes only where nobody else wrote.
    Event,
    /// A GET reflects what was written the staleness bound before it was sent (unless it is answered stale).
    Bound,
    /// Where both keys are only ever written together, an MGET of both shows both or neither.
    Half,
    /// Nothing waits aside while Redis pushes, and no stale answer is older than the last time it began to.
    StaleUp,
    /// No checked hit is found wrong: whatever changed meanwhile was told of in time (`engine/verify.rs`).
    Verify,
    /// If EXEC succeeds, every GET of the client since its WATCH has shown what was in force then.
    WatchSafe,
    /// A GET sent after a message was passed on shows all that was written before it was published.
    EventOrder,
    /// Every client gets all its replies.
    Stuck,
}
