//! The page that Prometheus reads (text format 0.0.4).
//!
//! Names are `nearcache_*` with base units, counters end with `_total`, and every label comes from a bounded set of ours:
//! no key, no client name. Costs: some 15 KB of text, O(clients + links).
#![forbid(unsafe_code)]

use crate::config::Coherence;
use crate::engine::Engine;
use crate::insight::latency::Latency;
use crate::stats::{Counter, ROWS, Row};
use std::fmt::{Display, Write};

/// The page under construction.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        writeln!(
            self.0,
            "# HELP nearcache_{name} {help}\n# TYPE nearcache_{name} {kind}"
        )
        .expect("a string takes everything");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str("nearcache_");
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            write!(self.0, "{label}=\"{text}\"").expect("a string takes everything");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").expect("a string takes everything");
    }

    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn latency(&mut self, name: &str, labels: &[(&str, &str)], latency: &Latency) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in latency.cumulative() {
            let le = bound.as_secs_f64().to_string();
            self.sample(&bucket, &[labels, &[("le", le.as_str())]].concat(), count);
        }
        self.sample(
            &bucket,
            &[labels, &[("le", "+Inf")]].concat(),
            latency.count(),
        );
        self.sample(&format!("{name}_sum"), labels, latency.sum().as_secs_f64());
        self.sample(&format!("{name}_count"), labels, latency.count());
    }
}

/// Rows that are parts of one family: the beginning of their names, the family, its label and help. The row that is the
/// sum of its parts is left out: whoever wants it adds them up.
const FAMILIES: [(&str, &str, &str, &str); 3] = [
    (
        "flushes",
        "flushes",
        "reason",
        "Times everything kept was dropped at once. A few are normal (restarts, reconnects); many are a cache that is never warm: see the reason.",
    ),
    (
        "pushes",
        "pushes",
        "by",
        "Changes that Redis told of. Many foreign ones of keys nobody reads here cost for nothing: see TRACKING_PREFIXES.",
    ),
    (
        "invalidations",
        "invalidations",
        "by",
        "Entries dropped because their key may have changed. Set beside hits it says whether the keys are worth keeping.",
    ),
];

/// Counters whose name in `INFO` lacks its unit.
fn name_of(row: &Row) -> &'static str {
    match row.counter {
        Counter::BytesIn => "client_received_bytes",
        Counter::BytesOut => "client_sent_bytes",
        _ => row.name,
    }
}

impl Engine {
    /// The whole page.
    pub(super) fn metrics_page(&self) -> String {
        let mut page = Page::default();
        page.family("build_info", "gauge", "Always 1. Which version runs.");
        page.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        for gauge in self.gauges() {
            let value = match gauge.value.is_nan() {
                true => "NaN".to_owned(),
                false => gauge.value.to_string(),
            };
            page.single(gauge.name, "gauge", gauge.help, value);
        }
        page.family("coherence_mode", "gauge", "1 for the mode in force: tracking is normal, bounded means that Redis will not track, tracking_down and tracking_lapsed that nothing is answered from memory.");
        for mode in [
            "tracking",
            "tracking_lapsed",
            "tracking_down",
            "bounded",
            "ttl",
            "off",
        ] {
            let is = u8::from(mode == self.coherence_name());
            page.sample("coherence_mode", &[("mode", mode)], is);
        }
        self.write_counters(&mut page);
        self.write_maps(&mut page);
        self.write_shell(&mut page);
        let saving = self.saving();
        page.single("upstream_commands_spared_total", "counter", "Commands that Redis did not get because they were answered here. Spared less spent is what this proxy saves Redis.", saving.spared);
        page.single("upstream_commands_spent_total", "counter", "Commands that Redis got because of this proxy alone (PTTL of each fetch, heartbeats, checks). More than spared: take the proxy out of the way of this load.", saving.spent);
        page.family("request_duration_seconds", "histogram", "How long requests take here, by the way they went. hit (sampled): from the turn of the loop that read it to its reply being written; should stay below a millisecond, more means a busy loop. miss: Redis and a worker. relay: from being sent to Redis to the end of the reply, commands that wait there (BLPOP) left out; what Redis and the network take.");
        for (way, latency) in self.latencies() {
            page.latency("request_duration_seconds", &[("way", way)], latency);
        }
        if self.coherence == Coherence::Tracking {
            page.family("invalidation_lag_seconds", "histogram", "From the reply to a write that passed here to Redis's push for its key (one write at a time is watched). What others' changes take to be seen; milliseconds are normal.");
            page.latency("invalidation_lag_seconds", &[], self.measures.lag());
            page.family("heartbeat_seconds", "histogram", "From sending a PING on the connection of the pushes to its answer. Nearing STALENESS_BOUND_MS, hits end.");
            page.latency("heartbeat_seconds", &[], self.measures.ping());
        }
        page.0
    }

    fn write_counters(&self, page: &mut Page) {
        for row in ROWS {
            let of_family = |(begin, ..): &&(&str, _, _, _)| row.name.starts_with(begin);
            if FAMILIES.iter().find(of_family).is_some() {
                continue;
            }
            let name = format!("{}_total", name_of(row));
            page.single(&name, "counter", row.help, self.stats.get(row.counter));
        }
        for (begin, family, label, help) in FAMILIES {
            let name = format!("{family}_total");
            page.family(&name, "counter", help);
            let mut rest = 0;
            for row in ROWS.iter().filter(|row| row.name.starts_with(begin)) {
                let value = self.stats.get(row.counter);
                match row
                    .name
                    .strip_prefix(begin)
                    .and_then(|part| part.strip_prefix('_'))
                {
                    Some(part) => {
                        page.sample(&name, &[(label, part)], value);
                        rest -= i128::from(value);
                    }
                    None => rest += i128::from(value),
                }
            }
            if begin != "flushes" {
                page.sample(&name, &[(label, "other")], rest.max(0));
            }
        }
    }

    fn write_maps(&self, page: &mut Page) {
        page.family("relayed_reads_by_command_total", "counter", "Relayed reads by command: what a later version could answer from memory, or your application could ask for with GET.");
        for (command, count) in &self.relayed_reads {
            page.sample(
                "relayed_reads_by_command_total",
                &[("command", command)],
                count,
            );
        }
        page.family("fetch_errors_by_reason_total", "counter", "Fetches that brought an error. redis_said_so is Redis's own (WRONGTYPE); timed_out and connection_lost are Redis or the network; queue_full is more misses than the workers can bring.");
        for (reason, count) in self.insight.fetch_errors() {
            page.sample("fetch_errors_by_reason_total", &[("reason", reason)], count);
        }
        page.family("clients_closed_by_reason_total", "counter", "Client connections ended. asked is normal; outbox_overflow and slow_reader are clients that do not read; protocol_error is a client that speaks something else.");
        for (reason, count) in self.insight.closes() {
            page.sample(
                "clients_closed_by_reason_total",
                &[("reason", reason)],
                count,
            );
        }
        page.family("clients", "gauge", "Client connections now. waiting: for Redis; queued: for a place under MAX_CONCURRENT_REQUESTS; not_reading: for themselves; own_link: with state in Redis.");
        for ((protocol, state), count) in self.clients_by_state() {
            page.sample(
                "clients",
                &[("protocol", protocol), ("state", state)],
                count,
            );
        }
        page.family(
            "links",
            "gauge",
            "Connections of the loop to Redis now. invalidation should be 1 and up.",
        );
        for ((role, state), count) in self.links_by_role() {
            page.sample("links", &[("role", role), ("state", state)], count);
        }
    }

    /// The durations of requests by their way.
    pub(super) fn latencies(&self) -> [(&'static str, &Latency); 3] {
        let insight = &self.insight;
        [
            ("hit", &insight.hit),
            ("miss", &insight.miss),
            ("relay", &insight.relay),
        ]
    }
}
