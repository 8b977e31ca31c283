//! What the proxy says of its state in numbers, beside its counters: one row for each, with its help.
//!
//! `/metrics`, `/stats` and `NEARCACHE STATS` are printed from here and from `stats.rs`. Costs: O(clients + links).
#![forbid(unsafe_code)]

use crate::engine::Engine;
use crate::engine::upstream::Availability;
use crate::stats::Counter;
use crate::tracking::State;

/// A number that goes up and down.
pub(super) struct Gauge {
    /// Behind `nearcache_`, with its unit at the end.
    pub(super) name: &'static str,
    /// What it is, and what to think of it.
    pub(super) help: &'static str,
    /// NaN: there is none now.
    pub(super) value: f64,
}

/// How many commands Redis was spared and has had beside those that clients sent.
pub(super) struct Saving {
    /// Reads answered here that would have been commands to Redis.
    pub(super) spared: u64,
    /// Commands that only the proxy needs: the PTTL behind each fetched GET, heartbeats, checks, reports of use.
    pub(super) spent: u64,
}

impl Engine {
    pub(super) fn saving(&self) -> Saving {
        let get = |counter| self.stats.get(counter);
        let fetched = get(Counter::Misses);
        // Those that nobody asked for are two commands each.
        let unasked =
            get(Counter::FetchedAhead) + get(Counter::Warmed) + get(Counter::VerifyChecks);
        Saving {
            spared: get(Counter::Hits) + get(Counter::Joined),
            spent: fetched + 2 * unasked + get(Counter::Touched) + self.tracking.newest_sent(),
        }
    }

    /// Hits among cacheable reads, and among all commands; NaN before the first.
    pub(super) fn hit_ratios(&self) -> (f64, f64) {
        let get = |counter| self.stats.get(counter) as f64;
        let hits = get(Counter::Hits);
        let reads = hits + get(Counter::Misses) + get(Counter::Joined);
        let all = reads + get(Counter::Relayed) + get(Counter::Local);
        (hits / reads, hits / all)
    }

    pub(super) fn gauges(&self) -> Vec<Gauge> {
        let mut all = Vec::new();
        let mut row = |name, value: f64, help| all.push(Gauge { name, help, value });
        let truth = |is: bool| f64::from(u8::from(is));
        let limits = self.cache.limits();
        let (cacheable, _) = self.hit_ratios();
        row(
            "redis_up",
            truth(self.upstream.availability == Availability::Up),
            "Whether Redis answers. 0: hits have stopped or soon will, whatever needs Redis gets an error; look at Redis and the network, nothing here needs a restart.",
        );
        row(
            "tracking_on",
            truth(*self.tracking.state() == State::On),
            "Whether Redis tells of changes. 0 with COHERENCE=tracking while Redis is up: its user may lack the right to CLIENT TRACKING, see the log.",
        );
        row(
            "hits_allowed",
            truth(self.now < self.hits_until),
            "Whether a hit would be given now. 0: every read goes to Redis; expect its load of before this proxy.",
        );
        row(
            "staleness_bound_seconds",
            self.bound().as_secs_f64(),
            "How old a hit may ever be, as configured. What you promise your users.",
        );
        row(
            "staleness_worst_seconds",
            self.worst_staleness()
                .map_or(f64::NAN, |age| age.as_secs_f64()),
            "How old a hit given now could be at most; no number while none is given. Usually below 1.1 with tracking; alert on nearing the bound.",
        );
        row(
            "entries",
            self.cache.len() as f64,
            "Keys kept, missing ones among them. At entries_max the least recently used go: see evictions.",
        );
        row(
            "entries_max",
            limits.keys_max as f64,
            "CACHE_CAPACITY; the dashboard estimates what another one would bring.",
        );
        row(
            "cache_bytes",
            self.cache.bytes() as f64,
            "Memory of all entries as they really cost. At cache_bytes_max the least recently used go.",
        );
        row(
            "cache_bytes_max",
            limits.bytes_max as f64,
            "CACHE_MAX_BYTES; the process needs memory for buffers beside it.",
        );
        row(
            "cacheable_hit_ratio",
            cacheable,
            "Hits among reads that can be hits, since the start. For a window use rate() of hits, misses and joined.",
        );
        row(
            "tls_clients",
            self.tls_clients() as f64,
            "Clients connected now by TLS_RESP_PORT and TLS_HTTP_PORT, those among them that still shake hands.",
        );
        row(
            "clients_max",
            self.config.max_clients as f64,
            "MAX_CLIENTS. Above it clients are refused; alert at nine tenths.",
        );
        row(
            "clients_paused_now",
            self.paused_clients() as f64,
            "Clients that are not read from because buffers are near BUFFERS_MAX_BYTES and they hold most. Should be 0.",
        );
        row(
            "admin_clients",
            self.admin_clients as f64,
            "Connections to the admin port, this one among them. At admin_clients_max even an operator is refused.",
        );
        row(
            "admin_clients_max",
            self.config.admin_clients_max as f64,
            "ADMIN_CLIENTS_MAX. Above it even Prometheus is refused.",
        );
        row(
            "buffer_bytes",
            self.buffer_bytes() as f64,
            "Memory of requests and replies on their way, of all connections. Above half of buffer_bytes_max the cache gives way, above three quarters greedy clients wait.",
        );
        row(
            "buffer_bytes_max",
            self.config.buffers_max_bytes as f64,
            "BUFFERS_MAX_BYTES, for all connections together. Near it clients that hold most are not read from, at it they are closed.",
        );
        row(
            "links_max",
            self.config.links_max as f64,
            "LINKS_MAX, connections to Redis that clients share; own_links_max is beside it. See links for how many there are.",
        );
        row(
            "own_links_max",
            self.config.own_links_max as f64,
            "OWN_LINKS_MAX, connections of clients with state upstream. Alert when links with role=own come near: who needs one more is refused.",
        );
        row(
            "workers",
            self.config.redis_workers as f64,
            "REDIS_WORKERS, threads that fetch misses. What each does is in workers_by_state.",
        );
        row(
            "requests_in_flight",
            self.admission.in_flight() as f64,
            "Requests that Redis has not answered yet. Near requests_in_flight_max Redis is too slow for the load.",
        );
        row(
            "requests_in_flight_max",
            self.config.max_concurrent_requests as f64,
            "MAX_CONCURRENT_REQUESTS; above it requests wait in their order.",
        );
        row(
            "requests_queued",
            self.admission.waiting() as f64,
            "Clients that wait for a place among those. Should be 0; more means that requests wait before they even start.",
        );
        row(
            "fetches_in_flight",
            self.fetches.len() as f64,
            "Misses that Redis has not answered yet. Steadily high: Redis is slow, or fetch_queue_length grows.",
        );
        row(
            "replies_held",
            self.barriers.counted() as f64,
            "Replies of scripts that wait until every change of before them was heard of. Each waits for a PING; more than a few for long: Redis answers slowly.",
        );
        row(
            "entries_aside",
            (self.aside.len_down() + self.aside.len_lapsed()) as f64,
            "Values of before Redis went away, for STALE_IF_ERROR_SECS. 0 while all is well.",
        );
        row(
            "fetch_queue_max",
            self.config.fetch_queue_max as f64,
            "FETCH_QUEUE_MAX, misses that may wait for one worker. At it a miss is answered with an error.",
        );
        row(
            "timers",
            self.timers.len() as f64,
            "Timers that run, other than those of entries. Grows with clients and requests in flight only.",
        );
        row(
            "uptime_seconds",
            self.now.since(self.started).as_secs_f64(),
            "Time since the start. A cache is cold for about CACHE_TTL_SECS after it.",
        );
        row(
            "draining",
            truth(self.draining),
            "Whether the process was asked to end and shows its clients out.",
        );
        all
    }
}
