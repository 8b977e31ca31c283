//! Counters: one row each, with its name and help in one place.
//!
//! Plain adds on memory that the loop owns; nobody else writes them. Reading a counter costs nothing, listing all is
//! O(rows). The module never formats a reply: `INFO` and the metrics page ask for [`ROWS`].
#![forbid(unsafe_code)]

/// What is counted. The order is that of [`ROWS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// See [`ROWS`]; the same for the rest.
    Hits,
    #[allow(missing_docs)]
    OtherHits,
    #[allow(missing_docs)]
    Misses,
    #[allow(missing_docs)]
    Joined,
    #[allow(missing_docs)]
    FetchedAhead,
    #[allow(missing_docs)]
    Relayed,
    #[allow(missing_docs)]
    RelayedReads,
    #[allow(missing_docs)]
    Local,
    #[allow(missing_docs)]
    FetchErrors,
    #[allow(missing_docs)]
    FetchVoided,
    #[allow(missing_docs)]
    RelayErrors,
    #[allow(missing_docs)]
    Evictions,
    #[allow(missing_docs)]
    Expirations,
    #[allow(missing_docs)]
    Invalidations,
    #[allow(missing_docs)]
    InvalidationsOwn,
    #[allow(missing_docs)]
    InvalidationsForeign,
    #[allow(missing_docs)]
    Flushes,
    #[allow(missing_docs)]
    FlushesDown,
    #[allow(missing_docs)]
    FlushesUp,
    #[allow(missing_docs)]
    FlushesPushed,
    #[allow(missing_docs)]
    FlushesCommand,
    #[allow(missing_docs)]
    FlushesBarrier,
    #[allow(missing_docs)]
    FlushesSwitch,
    #[allow(missing_docs)]
    FlushesServer,
    #[allow(missing_docs)]
    FlushesMismatch,
    #[allow(missing_docs)]
    FlushesAsked,
    #[allow(missing_docs)]
    TooLarge,
    #[allow(missing_docs)]
    Queued,
    #[allow(missing_docs)]
    QueueTimeouts,
    #[allow(missing_docs)]
    ClientsOpened,
    #[allow(missing_docs)]
    ClientsClosed,
    #[allow(missing_docs)]
    ClientsRefused,
    #[allow(missing_docs)]
    TlsHandshakes,
    #[allow(missing_docs)]
    TlsHeld,
    #[allow(missing_docs)]
    TlsFailed,
    #[allow(missing_docs)]
    TlsFailedNotTls,
    #[allow(missing_docs)]
    TlsFailedNothingShared,
    #[allow(missing_docs)]
    TlsFailedCertificate,
    #[allow(missing_docs)]
    TlsFailedDistrusted,
    #[allow(missing_docs)]
    TlsFailedTimedOut,
    #[allow(missing_docs)]
    TlsFailedGone,
    #[allow(missing_docs)]
    TlsFailedBroken,
    #[allow(missing_docs)]
    ProtocolErrors,
    #[allow(missing_docs)]
    AuthFailures,
    #[allow(missing_docs)]
    CommandsDenied,
    #[allow(missing_docs)]
    OutboxOverflows,
    #[allow(missing_docs)]
    ClientsPaused,
    #[allow(missing_docs)]
    BuffersFull,
    #[allow(missing_docs)]
    LinksOpened,
    #[allow(missing_docs)]
    LinksClosed,
    #[allow(missing_docs)]
    LinksLost,
    #[allow(missing_docs)]
    UpstreamLost,
    #[allow(missing_docs)]
    Pushes,
    #[allow(missing_docs)]
    PushesOwn,
    #[allow(missing_docs)]
    PushesForeign,
    #[allow(missing_docs)]
    Barriers,
    #[allow(missing_docs)]
    StaleHits,
    #[allow(missing_docs)]
    VerifyChecks,
    #[allow(missing_docs)]
    VerifyMismatches,
    #[allow(missing_docs)]
    Touched,
    #[allow(missing_docs)]
    Warmed,
    #[allow(missing_docs)]
    BytesIn,
    #[allow(missing_docs)]
    BytesOut,
}

/// One counter as the operator sees it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Which counter.
    pub counter: Counter,
    /// Its name in `INFO`, behind `nearcache_`.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
}

const fn row(counter: Counter, name: &'static str, help: &'static str) -> Row {
    Row {
        counter,
        name,
        help,
    }
}

/// Every counter, in the order of [`Counter`].
pub const ROWS: &[Row] = &[
    row(
        Counter::Hits,
        "hits",
        "cacheable reads answered from memory; each is a command that Redis did not get",
    ),
    row(
        Counter::OtherHits,
        "other_hits",
        "those among them that are no GET: MGET, EXISTS, STRLEN, GETRANGE",
    ),
    row(
        Counter::Misses,
        "misses",
        "cacheable reads that started a fetch; if there are many see the hot keys by misses, then CACHE_TTL_SECS and CACHE_CAPACITY",
    ),
    row(
        Counter::Joined,
        "joined",
        "cacheable reads that joined a fetch under way; many at once are a stampede that Redis was spared",
    ),
    row(
        Counter::FetchedAhead,
        "fetched_ahead",
        "keys fetched in the background because MGET had missed them twice; if hits of MGET do not follow, this costs Redis for nothing",
    ),
    row(
        Counter::Relayed,
        "relayed",
        "commands passed through to Redis on a link; what cannot be helped by a cache",
    ),
    row(
        Counter::RelayedReads,
        "relayed_reads",
        "relayed commands that only read keys; by command in relayed_reads_by_command",
    ),
    row(
        Counter::Local,
        "local",
        "commands answered by the proxy itself, such as PING and HELLO: neither a hit nor a command for Redis",
    ),
    row(
        Counter::FetchErrors,
        "fetch_errors",
        "fetches that brought an error; should not grow, see the reasons",
    ),
    row(
        Counter::FetchVoided,
        "fetch_voided",
        "fetches whose result was answered but not kept, because the key had changed; many: keys that change faster than they are read",
    ),
    row(
        Counter::RelayErrors,
        "relay_errors",
        "relayed commands answered with an error of the proxy's own; should not grow, Redis is away or a limit is reached",
    ),
    row(
        Counter::Evictions,
        "evictions",
        "entries dropped for room; steady growth with a low hit ratio asks for more CACHE_CAPACITY or CACHE_MAX_BYTES",
    ),
    row(
        Counter::Expirations,
        "expirations",
        "entries freed because their time was over; many with few invalidations allow a longer CACHE_TTL_SECS",
    ),
    row(
        Counter::Invalidations,
        "invalidations",
        "entries dropped because their key may have changed",
    ),
    row(
        Counter::InvalidationsOwn,
        "invalidations_own",
        "of these, those dropped because of a write that this proxy passed on",
    ),
    row(
        Counter::InvalidationsForeign,
        "invalidations_foreign",
        "of these, those dropped because of a write by others",
    ),
    row(
        Counter::Flushes,
        "flushes",
        "times everything kept was dropped at once",
    ),
    row(
        Counter::FlushesDown,
        "flushes_down",
        "of these, because the connection that pushes come on was lost",
    ),
    row(
        Counter::FlushesUp,
        "flushes_up",
        "of these, because Redis was asked to track",
    ),
    row(
        Counter::FlushesPushed,
        "flushes_pushed",
        "of these, because Redis said that anything may have changed (FLUSHALL, FLUSHDB)",
    ),
    row(
        Counter::FlushesCommand,
        "flushes_command",
        "of these, because of a command passed on here that may change anything untold (SWAPDB, unknown ones)",
    ),
    row(
        Counter::FlushesBarrier,
        "flushes_barrier",
        "of these, because a script's reply could not be held until its changes were heard of",
    ),
    row(
        Counter::FlushesSwitch,
        "flushes_switch",
        "of these, because the operator changed the mode",
    ),
    row(
        Counter::FlushesServer,
        "flushes_server",
        "of these, because Redis turned out to be another process",
    ),
    row(
        Counter::FlushesMismatch,
        "flushes_mismatch",
        "of these, because a checked hit was not what Redis has",
    ),
    row(
        Counter::FlushesAsked,
        "flushes_asked",
        "of these, because an operator asked for it",
    ),
    row(
        Counter::TooLarge,
        "too_large",
        "values passed on but too large to keep; see CACHE_MAX_VALUE_BYTES",
    ),
    row(
        Counter::Queued,
        "queued",
        "requests that waited because of MAX_CONCURRENT_REQUESTS; growth means that Redis is too slow for the load",
    ),
    row(
        Counter::QueueTimeouts,
        "queue_timeouts",
        "requests that waited for QUEUE_WAIT_MS and got an error; should be zero",
    ),
    row(
        Counter::ClientsOpened,
        "clients_opened",
        "client connections taken; many for few clients: they connect anew for each request",
    ),
    row(
        Counter::ClientsClosed,
        "clients_closed",
        "client connections ended; what for is in clients_closed_by_reason",
    ),
    row(
        Counter::ClientsRefused,
        "clients_refused",
        "client connections refused because of MAX_CLIENTS or ADMIN_CLIENTS_MAX; should be zero",
    ),
    row(
        Counter::TlsHandshakes,
        "tls_handshakes",
        "TLS handshakes with clients that came to their end; many for few clients: they connect anew for each request",
    ),
    row(
        Counter::TlsHeld,
        "tls_handshakes_held",
        "times clients waited to be accepted because TLS_HANDSHAKES_MAX were under way",
    ),
    row(
        Counter::TlsFailed,
        "tls_failed",
        "TLS handshakes with clients that failed; the log says of each kind what it was",
    ),
    row(
        Counter::TlsFailedNotTls,
        "tls_failed_not_tls",
        "of these, because the client did not speak TLS",
    ),
    row(
        Counter::TlsFailedNothingShared,
        "tls_failed_nothing_shared",
        "of these, because both ends have no version, cipher or protocol in common",
    ),
    row(
        Counter::TlsFailedCertificate,
        "tls_failed_client_certificate",
        "of these, because the client's certificate was missing or wrong (TLS_CLIENT_CA_FILE)",
    ),
    row(
        Counter::TlsFailedDistrusted,
        "tls_failed_distrusted",
        "of these, because the client refused TLS_CERT_FILE: expired, another name, or a CA it does not know",
    ),
    row(
        Counter::TlsFailedTimedOut,
        "tls_failed_timed_out",
        "of these, because of TLS_HANDSHAKE_TIMEOUT_SECS",
    ),
    row(
        Counter::TlsFailedGone,
        "tls_failed_gone",
        "of these, because the client went away first; checks of whether the port is open are among them",
    ),
    row(
        Counter::TlsFailedBroken,
        "tls_failed_broken",
        "of these, because the client broke the rules of TLS or ended it",
    ),
    row(
        Counter::ProtocolErrors,
        "protocol_errors",
        "client connections closed for breaking their protocol; should be zero, the log names the peers",
    ),
    row(
        Counter::AuthFailures,
        "auth_failures",
        "wrong passwords that clients said, by AUTH, HELLO or HTTP; a client with an old one, or somebody who guesses",
    ),
    row(
        Counter::CommandsDenied,
        "commands_denied",
        "commands refused because of DENY_COMMANDS; growth is a client that should be told, or watched",
    ),
    row(
        Counter::OutboxOverflows,
        "outbox_overflows",
        "client connections closed because replies piled up; clients that do not read what they ask for",
    ),
    row(
        Counter::ClientsPaused,
        "clients_paused",
        "times a client was not read from because all buffers together were near BUFFERS_MAX_BYTES; growth: raise it, or find who does not read",
    ),
    row(
        Counter::BuffersFull,
        "buffers_full",
        "client connections closed because all buffers together were near BUFFERS_MAX_BYTES; should be zero",
    ),
    row(
        Counter::LinksOpened,
        "links_opened",
        "connections to Redis made by the loop; steady growth is losses (links_lost), or clients with state of their own that come and go",
    ),
    row(
        Counter::LinksClosed,
        "links_closed",
        "connections to Redis ended, whatever for; less than links_opened by those that are open",
    ),
    row(
        Counter::LinksLost,
        "links_lost",
        "connections to Redis that failed or were closed by it; growth is the network, a time-out or a failing Redis",
    ),
    row(
        Counter::UpstreamLost,
        "upstream_lost",
        "times Redis went away; each empties the cache",
    ),
    row(
        Counter::Pushes,
        "pushes",
        "changes that Redis told of, by key or of everything",
    ),
    row(
        Counter::PushesOwn,
        "pushes_own",
        "of these, of keys that a command passed on here wrote within the second before",
    ),
    row(
        Counter::PushesForeign,
        "pushes_foreign",
        "of these, of keys that others wrote, or that expired or were evicted in Redis",
    ),
    row(
        Counter::Barriers,
        "barriers",
        "replies of scripts held until every change of before them was heard of; each waits for a PING's answer",
    ),
    row(
        Counter::StaleHits,
        "stale_hits",
        "reads answered with the last known value while Redis was away; errors that STALE_IF_ERROR_SECS spared your users",
    ),
    row(
        Counter::VerifyChecks,
        "verify_checks",
        "hits compared with what Redis has (VERIFY_SAMPLE); as long as it grows, somebody is watching",
    ),
    row(
        Counter::VerifyMismatches,
        "verify_mismatches",
        "of these, those that differed though Redis told of no change: zero, or something is wrong",
    ),
    row(
        Counter::Touched,
        "touched",
        "keys whose use was reported to Redis (UPSTREAM_TOUCH_SECS), so that its eviction knows what is hot",
    ),
    row(
        Counter::Warmed,
        "warmed",
        "keys fetched again after Redis was away (WARM_RECONNECT); two commands to Redis each",
    ),
    row(
        Counter::BytesIn,
        "bytes_in",
        "bytes received from clients; set it beside what your network carries",
    ),
    row(
        Counter::BytesOut,
        "bytes_out",
        "bytes sent to clients; set it beside what your network carries",
    ),
];

/// The values of all counters. All start at zero and only grow.
#[derive(Debug, Clone)]
pub struct Stats([u64; ROWS.len()]);

impl Default for Stats {
    fn default() -> Stats {
        Stats([0; ROWS.len()])
    }
}

impl Stats {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] = self.0[counter as usize].wrapping_add(n);
    }

    /// How many so far.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_stands_at_the_place_of_its_counter() {
        for (at, row) in ROWS.iter().enumerate() {
            assert_eq!(row.counter as usize, at, "{}", row.name);
            assert!(!row.help.is_empty());
        }
    }
}
