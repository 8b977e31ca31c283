//! What was found, in words, and what follows from it for the proxy.
//!
//! It never asks anything, and prints no control character that a server may have sent. Invariant: whatever makes the exit
//! code 1 is named behind "It works, but"; advice alone never does.
#![forbid(unsafe_code)]

use super::Outcome;
use super::questions::{Allowed, Found};
use crate::config::value::show_size;
use crate::config::{Coherence, Config};
use std::time::Duration;

const CODE_WELL: u8 = 0;
const CODE_DEGRADED: u8 = 1;
const CODE_UNUSABLE: u8 = 2;

const NOT_KNOWN: &str = "not known (the server does not tell)";
/// Where the words begin.
const LABEL_COLUMNS: usize = 16;
/// A push of ten thousand keys of usual length is half of this.
const PUSHES_BYTES_ENOUGH: u64 = 1 << 20;

/// The words so far, and the judgement.
struct Report<'a> {
    config: &'a Config,
    found: &'a Found,
    text: String,
    /// Ways in which it works otherwise than configured.
    degraded: Vec<String>,
    advice: Vec<String>,
}

/// The report on a Redis that answers.
pub(super) fn of(config: &Config, found: &Found) -> Outcome {
    let mut report = Report {
        config,
        found,
        text: String::new(),
        degraded: Vec::new(),
        advice: Vec::new(),
    };
    report.line("upstream", &config.redis_url.to_string());
    report.reached();
    report.server();
    report.role();
    report.resp3();
    report.tracking();
    report.rights();
    report.memory();
    report.writes();
    report.clients();
    report.output_buffers();
    report.end()
}

/// The report on one that cannot be used.
pub(super) fn unusable(config: &Config, why: &str) -> Outcome {
    Outcome {
        text: clean(&format!(
            "{:LABEL_COLUMNS$}{}\nIt cannot be used: {why}.\n",
            "upstream", config.redis_url
        )),
        code: CODE_UNUSABLE,
    }
}

impl Report<'_> {
    fn line(&mut self, label: &str, words: &str) {
        let line = format!("{label:LABEL_COLUMNS$}{}\n", clean(words).trim_end());
        self.text.push_str(&line);
    }

    fn reached(&mut self) {
        let times = &self.found.round_trips;
        let latency = match (times.first(), times.get(times.len() / 2), times.last()) {
            (Some(least), Some(median), Some(most)) => format!(
                "{} PINGs took {} at least, {} in the middle, {} at most",
                times.len(),
                millis(*least),
                millis(*median),
                millis(*most)
            ),
            _ => "PING is refused, so how long an answer takes is not known".to_owned(),
        };
        let connected = millis(self.found.connected_in);
        let words = format!(
            "{}, connected in {connected}; {latency}",
            self.found.address
        );
        self.line("reached", &words);
    }

    fn server(&mut self) {
        let found = self.found;
        let name = match found.field("valkey_version") {
            Some(version) => format!("Valkey {version}"),
            None => format!(
                "Redis {}",
                found.field("redis_version").unwrap_or("of unknown version")
            ),
        };
        let mode = found.field("redis_mode").or(found.field("server_mode"));
        let run_id = found.field("run_id").unwrap_or("not known");
        self.line(
            "server",
            &format!(
                "{name}, {}, run id {run_id}",
                mode.unwrap_or("mode not known")
            ),
        );
        if mode == Some("cluster") {
            self.degraded.push(
                "it is a node of a cluster, which nearcache does not follow: keys of other nodes are answered with MOVED"
                    .to_owned(),
            );
        }
        if found.number("loading") == Some(1) {
            self.degraded.push("it is loading its data".to_owned());
        }
    }

    fn role(&mut self) {
        let found = self.found;
        let words = match found.field("role") {
            Some("master") => {
                let replicas = found
                    .field("connected_slaves")
                    .unwrap_or("an unknown number of");
                format!("master, with {replicas} replicas")
            }
            Some("slave" | "replica") => {
                let of = found.field("master_host").unwrap_or("an unknown master");
                if found.field("master_link_status") == Some("down") {
                    self.degraded.push(
                        "it is a replica without its master: what it has may be old".to_owned(),
                    );
                }
                format!("replica of {of}: writes through the proxy are refused by it (READONLY)")
            }
            Some(other) => other.to_owned(),
            None => NOT_KNOWN.to_owned(),
        };
        self.line("role", &words);
    }

    fn resp3(&mut self) {
        let words = match &self.found.resp3_refused {
            None => "yes".to_owned(),
            Some(why) => format!("no, HELLO 3 was answered with: {why}"),
        };
        self.line("RESP3", &words);
    }

    fn tracking(&mut self) {
        let bound = bound(self.config.staleness_bound);
        let falls_back = format!(
            "COHERENCE=tracking falls back to its bound, entries live {bound} at most (COHERENCE=ttl would let them live {}, and that old they may be)",
            self.ttl()
        );
        let words = match (&self.found.tracking, &self.found.resp3_refused) {
            (Some(Allowed::Yes), _) => "allowed: Redis tells of every change".to_owned(),
            (Some(Allowed::No | Allowed::NotThisKey), _) => {
                self.degraded.push(falls_back);
                "not allowed: the user may not call CLIENT TRACKING".to_owned()
            }
            (Some(Allowed::Failed(why)), _) => {
                self.degraded.push(falls_back);
                format!("not to be had, CLIENT TRACKING was answered with: {why}")
            }
            (None, Some(_)) if self.config.coherence == Coherence::Tracking => {
                self.degraded.push(falls_back);
                "not to be had: it needs RESP3".to_owned()
            }
            (None, _) => format!(
                "not asked for: COHERENCE={}",
                match self.config.coherence {
                    Coherence::Off => "off",
                    Coherence::Ttl | Coherence::Tracking => "ttl",
                }
            ),
        };
        self.line("tracking", &words);
    }

    fn rights(&mut self) {
        let user = self
            .config
            .redis_url
            .username
            .as_deref()
            .unwrap_or("default");
        let tried = &self.found.rights;
        let of_kind = |kind: Allowed| -> Vec<&str> {
            let rights = tried.iter().filter(|(_, allowed)| *allowed == kind);
            rights.map(|(right, _)| *right).collect()
        };
        let missing = of_kind(Allowed::No);
        let words = match missing.as_slice() {
            [] => format!("user {user} has all that nearcache itself needs"),
            missing => format!("user {user} lacks {}", missing.join(" ")),
        };
        self.line("rights", &words);
        if !missing.is_empty() {
            self.degraded
                .push(format!("the user lacks {}", missing.join(" ")));
        }
        if !of_kind(Allowed::NotThisKey).is_empty() {
            self.line(
                "",
                "it may not read every key; keys that it may not read get Redis's NOPERM",
            );
        }
        for (right, allowed) in tried {
            if let (Allowed::Failed(why), false) = (allowed, *right == "+client|tracking") {
                self.line("", &format!("{right} could not be tried: {why}"));
            }
        }
        let mut all: Vec<&str> = tried.iter().map(|(right, _)| *right).collect();
        if self.config.coherence == Coherence::Tracking && !all.contains(&"+client|tracking") {
            all.push("+client|tracking");
        }
        self.line(
            "",
            &format!("it needs: ACL SETUSER {user} {}", all.join(" ")),
        );
        self.line("", "and, for what it relays, whatever the clients use");
    }

    fn memory(&mut self) {
        let used = self.found.number("used_memory").map(about);
        let limit = self.found.number("maxmemory");
        let policy = self.found.field("maxmemory_policy");
        let (Some(used), Some(limit), Some(policy)) = (used, limit, policy) else {
            return self.line("memory", NOT_KNOWN);
        };
        let limit = match limit {
            0 => "no maxmemory".to_owned(),
            bytes => format!("maxmemory {}", about(bytes)),
        };
        self.line("memory", &format!("{used} used, {limit}, policy {policy}"));
        let by_use = matches!(
            policy,
            "allkeys-lru" | "allkeys-lfu" | "volatile-lru" | "volatile-lfu"
        );
        if by_use && self.config.upstream_touch.is_zero() {
            self.advice.push(format!(
                "{policy} takes keys that are read from here for unused, because Redis does not see hits: set UPSTREAM_TOUCH_SECS=20"
            ));
        }
    }

    fn writes(&mut self) {
        let words = match self.found.writes {
            None => NOT_KNOWN.to_owned(),
            Some((now, ever)) => format!(
                "{now} in the last second, {ever} in each since Redis was started; each change is a push to each proxy that tracks"
            ),
        };
        self.line("writes", &words);
    }

    fn clients(&mut self) {
        let found = self.found;
        let Some(connected) = found.number("connected_clients") else {
            return self.line("clients", NOT_KNOWN);
        };
        let tracking = match found.number("tracking_clients") {
            Some(n) => format!("{n} of them track"),
            None => "how many of them track is not known".to_owned(),
        };
        let config = self.config;
        let ours = 1 + config.redis_workers + config.links_max + config.own_links_max;
        let most = found.number("maxclients");
        let of = most.map_or(String::new(), |most| format!(" of at most {most}"));
        self.line(
            "clients",
            &format!("{connected}{of}, {tracking}; a proxy opens {ours} connections at most"),
        );
        if most.is_some_and(|most| most < ours as u64) {
            self.advice.push(
                "its maxclients is less than a proxy may open: lower OWN_LINKS_MAX and LINKS_MAX, or raise maxclients"
                    .to_owned(),
            );
        }
    }

    fn output_buffers(&mut self) {
        let Some(limits) = self.found.output_limits.clone() else {
            return self.line("output buffers", NOT_KNOWN);
        };
        let normal = class(&limits, "normal");
        let words = |limit: Option<Limit>| match limit {
            None => "not known".to_owned(),
            Some(limit) => limit.to_string(),
        };
        let pubsub = words(class(&limits, "pubsub"));
        self.line(
            "output buffers",
            &format!("normal: {}; pubsub: {pubsub}", words(normal)),
        );
        self.line(
            "",
            "the link that hears of changes is a normal one: beyond its limit Redis closes it, and what is kept here is dropped; \
             subscribers are of the class pubsub",
        );
        let tight = normal.is_some_and(|limit| {
            [limit.hard, limit.soft]
                .iter()
                .any(|&bytes| bytes > 0 && bytes < PUSHES_BYTES_ENOUGH)
        });
        if tight {
            self.advice.push(format!(
                "a write of many keys at once is one long push: raise the limit of normal clients above {}",
                show_size(PUSHES_BYTES_ENOUGH)
            ));
        }
    }

    fn ttl(&self) -> String {
        bound(self.config.cache_ttl)
    }

    fn end(mut self) -> Outcome {
        for advice in std::mem::take(&mut self.advice) {
            self.line("advice", &advice);
        }
        let (words, code) = if self.degraded.is_empty() {
            let how = match self.config.coherence {
                Coherence::Tracking => format!(
                    "changes are pushed, and a hit is never more than {} behind",
                    bound(self.config.staleness_bound)
                ),
                Coherence::Ttl => format!("COHERENCE=ttl keeps an entry {} at most", self.ttl()),
                Coherence::Off => "COHERENCE=off keeps nothing".to_owned(),
            };
            (format!("All is well: {how}."), CODE_WELL)
        } else {
            let how = self.degraded.join("; ");
            (format!("It works, but: {how}."), CODE_DEGRADED)
        };
        self.text.push_str(&clean(&words));
        self.text.push('\n');
        Outcome {
            text: self.text,
            code,
        }
    }
}

/// How much Redis keeps for a client that does not read. 0: without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    hard: u64,
    soft: u64,
    soft_secs: u64,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.hard, self.soft) {
            (0, 0) => f.write_str("without a limit"),
            (hard, 0) => f.write_str(&show_size(hard)),
            (0, soft) => write!(f, "{} for {} s", show_size(soft), self.soft_secs),
            (hard, soft) => write!(
                f,
                "{}, or {} for {} s",
                show_size(hard),
                show_size(soft),
                self.soft_secs
            ),
        }
    }
}

/// The limits of one class in `normal 0 0 0 slave 268435456 67108864 60 pubsub ...`.
fn class(limits: &str, name: &str) -> Option<Limit> {
    let words: Vec<&str> = limits.split_whitespace().collect();
    let found = words.chunks_exact(4).find(|class| class[0] == name)?;
    let number = |at: usize| found[at].parse::<u64>().ok();
    Some(Limit {
        hard: number(1)?,
        soft: number(2)?,
        soft_secs: number(3)?,
    })
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// A time that was configured, without a fraction it does not have.
fn bound(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// A size to one decimal, since nobody wants the bytes.
fn about(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

/// What a server says is printed on somebody's terminal.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push(c),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_by_class_and_said_in_words() {
        let limits = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        let check = |name: &str, expected: Option<&str>| {
            let said = class(limits, name).map(|limit| limit.to_string());
            assert_eq!(said.as_deref(), expected, "{name}");
        };
        check("normal", Some("without a limit"));
        check("pubsub", Some("32MiB, or 8MiB for 60 s"));
        check("replica", None);
        assert_eq!(class("normal 1 x 0", "normal"), None);
        assert_eq!(class("normal 1 2", "normal"), None);
    }

    #[test]
    fn sizes_are_said_to_one_decimal() {
        for (bytes, said) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(about(bytes), said);
        }
    }

    #[test]
    fn what_a_server_says_reaches_no_terminal_raw() {
        assert_eq!(clean("a\u{1b}[31mb\rc\nd"), "a\\u{1b}[31mb\\rc\nd");
    }
}
