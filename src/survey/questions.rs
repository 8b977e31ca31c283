//! What is asked, in the order in which the proxy itself goes about it: who it is, what it speaks, what it tells of
//! itself, what its user may do, whether it tracks, how busy it is.
//!
//! It never judges what it hears, but for what makes every further question useless.
#![forbid(unsafe_code)]

use super::wire::{Answer, Wire};
use crate::command::Flags;
use crate::command::row::rows_from_reply;
use crate::command::table::Table;
use crate::config::Config;
use crate::tls;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Round trips that are measured. Enough for a median; a Redis a continent away answers them in seconds.
const PINGS: usize = 20;
/// Between two looks at what has been written.
const RATE_PAUSE: Duration = Duration::from_secs(1);
/// The sections of INFO that say something here. One by one, because some services refuse some of them.
const SECTIONS: [&str; 7] = [
    "server",
    "replication",
    "memory",
    "clients",
    "persistence",
    "stats",
    "commandstats",
];
/// What Redis says while it can do nothing for anybody, however often it is asked.
const FOR_NOW: [&str; 3] = ["BUSY ", "LOADING ", "MASTERDOWN "];

/// What came of a command that the proxy needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Allowed {
    Yes,
    /// The user may not.
    No,
    /// It may, but not with every key.
    NotThisKey,
    /// It was answered with another error.
    Failed(String),
}

/// All that was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The address that took the connection, over which TLS if any, and in what time.
    pub(super) address: String,
    pub(super) connected_in: Duration,
    /// Sorted, the shortest first; empty if PING is refused.
    pub(super) round_trips: Vec<Duration>,
    /// The error of HELLO 3, if that was its answer.
    pub(super) resp3_refused: Option<String>,
    /// Fields of INFO.
    pub(super) info: HashMap<String, String>,
    /// The rights that were tried, in the words of an ACL rule.
    pub(super) rights: Vec<(&'static str, Allowed)>,
    /// What CLIENT TRACKING said; `None`: it was not asked, because the configuration does not want it or RESP3 lacks.
    pub(super) tracking: Option<Allowed>,
    /// `client-output-buffer-limit` as CONFIG GET has it.
    pub(super) output_limits: Option<String>,
    /// Writes in the last second, and in each since Redis was started.
    pub(super) writes: Option<(u64, u64)>,
}

impl Found {
    /// A field of INFO.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.info.get(name).map(String::as_str)
    }

    /// The same as a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }
}

/// Asks everything. The error says why Redis is of no use.
pub(super) fn ask_all(config: &Config, tls: Option<&tls::Upstream>) -> Result<Found, String> {
    let began = Instant::now();
    let (wire, address) = Wire::connect(config, tls)?;
    let connected_in = began.elapsed();
    let mut survey = Survey { config, wire };
    survey.log_in()?;
    let mut rights = vec![("+ping", survey.first_ping()?)];
    let hello = survey.ask(&[b"HELLO", b"3"])?;
    let resp3_refused = hello.error();
    rights.push(("+hello", survey.allowed_unless_noperm(&hello)));
    for (right, args) in [
        (
            "+client|setname",
            &[b"CLIENT" as &[u8], b"SETNAME", b"nearcache:check"][..],
        ),
        ("+client|id", &[b"CLIENT", b"ID"]),
    ] {
        let answer = survey.ask(args)?;
        rights.push((right, survey.allowed(&answer)));
    }
    let (mut info, info_allowed) = survey.info()?;
    rights.push(("+info", info_allowed));
    // Where INFO is refused this much may be told all the same.
    for (field, word) in [
        ("redis_version", "version"),
        ("redis_mode", "mode"),
        ("role", "role"),
    ] {
        let told = hello.value().and_then(|map| {
            let text = map.map_get(word.as_bytes())?.as_bytes()?;
            Some(String::from_utf8_lossy(text).into_owned())
        });
        if let Some(told) = told {
            info.entry(field.to_owned()).or_insert(told);
        }
    }
    if info
        .get("redis_mode")
        .is_some_and(|mode| mode == "sentinel")
    {
        return Err("it is a Sentinel, which has no data: name the Redis that it watches".into());
    }
    let command = survey.ask(&[b"COMMAND"])?;
    rights.push(("+command", survey.allowed(&command)));
    let table = command
        .value()
        .and_then(|value| rows_from_reply(&value).ok())
        .map_or_else(Table::builtin, Table::from_rows);
    rights.extend(survey.data_rights()?);
    let round_trips = match rights[0].1 {
        Allowed::Yes => survey.round_trips()?,
        _ => Vec::new(),
    };
    let output_limits = survey.setting("client-output-buffer-limit")?;
    let writes = survey.writes(&info, &table)?;
    let wants_tracking = config.coherence == crate::config::Coherence::Tracking;
    let tracking = match wants_tracking && resp3_refused.is_none() {
        true => Some(survey.tracking()?),
        false => None,
    };
    if let Some(allowed) = &tracking {
        rights.push(("+client|tracking", allowed.clone()));
    }
    Ok(Found {
        address,
        connected_in,
        round_trips,
        resp3_refused,
        info,
        rights,
        tracking,
        output_limits,
        writes,
    })
}

struct Survey<'a> {
    config: &'a Config,
    wire: Wire,
}

impl Survey<'_> {
    fn ask(&mut self, args: &[&[u8]]) -> Result<Answer, String> {
        self.wire.ask(args)
    }

    fn log_in(&mut self) -> Result<(), String> {
        let url = &self.config.redis_url;
        let Some(password) = &url.password else {
            return Ok(());
        };
        let mut args: Vec<&[u8]> = vec![b"AUTH"];
        args.extend(url.username.as_ref().map(|user| user.as_bytes()));
        args.push(password.text().as_bytes());
        match self.wire.ask(&args)?.error() {
            None => Ok(()),
            Some(why) => Err(format!(
                "it refuses the user or password of REDIS_URL: {}",
                url.without_password(&why)
            )),
        }
    }

    /// A server that wants a password, is full, protected or busy says so in answer to whatever comes first.
    fn first_ping(&mut self) -> Result<Allowed, String> {
        let answer = self.ask(&[b"PING"])?;
        match answer.error() {
            None => Ok(Allowed::Yes),
            Some(why) if why.starts_with("NOPERM") => Ok(Allowed::No),
            Some(why) if why.starts_with("NOAUTH") => {
                Err("it asks for a password, and REDIS_URL has none".into())
            }
            Some(why) if FOR_NOW.iter().any(|word| why.starts_with(word)) => {
                Err(format!("it can do nothing for now: {why}"))
            }
            Some(why) => Err(format!("it answers PING with an error: {why}")),
        }
    }

    /// Every section of INFO that is told, as one map.
    fn info(&mut self) -> Result<(HashMap<String, String>, Allowed), String> {
        let mut fields = HashMap::new();
        let mut allowed = None;
        for section in SECTIONS {
            let answer = self.ask(&[b"INFO", section.as_bytes()])?;
            // What the proxy needs of it is the first.
            allowed.get_or_insert(self.allowed(&answer));
            let text = answer.text().unwrap_or_default();
            let pairs = text.lines().filter_map(|line| line.split_once(':'));
            fields.extend(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
        }
        Ok((fields, allowed.expect("there are sections")))
    }

    /// What fetches need, tried with a key that nobody has.
    fn data_rights(&mut self) -> Result<Vec<(&'static str, Allowed)>, String> {
        let db = self.config.redis_url.db.to_string();
        let select = self.ask(&[b"SELECT", db.as_bytes()])?;
        let may_select = self.allowed(&select);
        if let Allowed::Failed(why) = &may_select {
            return Err(format!("database {db} of REDIS_URL is refused: {why}"));
        }
        let prefix = self.config.tracking_prefixes.first();
        let key = format!(
            "{}nearcache:check-upstream:{}",
            prefix.map_or("", String::as_str),
            std::process::id()
        );
        let mut rights = vec![("+select", may_select)];
        let mut wanted: Vec<(&'static str, &[u8])> = vec![("+get", b"GET"), ("+pttl", b"PTTL")];
        if !self.config.upstream_touch.is_zero() {
            wanted.push(("+touch", b"TOUCH"));
        }
        for (right, command) in wanted {
            let answer = self.ask(&[command, key.as_bytes()])?;
            rights.push((right, self.allowed(&answer)));
        }
        Ok(rights)
    }

    fn round_trips(&mut self) -> Result<Vec<Duration>, String> {
        let mut times = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let began = Instant::now();
            self.ask(&[b"PING"])?;
            times.push(began.elapsed());
        }
        times.sort();
        Ok(times)
    }

    /// A setting, unless it is not told.
    fn setting(&mut self, name: &str) -> Result<Option<String>, String> {
        let answer = self.ask(&[b"CONFIG", b"GET", name.as_bytes()])?;
        let value = answer.value();
        let text = value
            .as_ref()
            .and_then(|value| value.map_get(name.as_bytes())?.as_bytes());
        Ok(text.map(|text| String::from_utf8_lossy(text).into_owned()))
    }

    /// How much is written, from what Redis counts of each command; scripts' commands are among them.
    fn writes(
        &mut self,
        before: &HashMap<String, String>,
        table: &Table,
    ) -> Result<Option<(u64, u64)>, String> {
        let Some(before_calls) = writes_in(before, table) else {
            return Ok(None);
        };
        std::thread::sleep(RATE_PAUSE);
        let (after, _) = self.info()?;
        let uptime = after
            .get("uptime_in_seconds")
            .and_then(|secs| secs.parse::<u64>().ok());
        Ok(writes_in(&after, table)
            .zip(uptime)
            .map(|(calls, uptime)| (calls.saturating_sub(before_calls), calls / uptime.max(1))))
    }

    /// Asks for tracking as the control link does. It ends with this connection.
    fn tracking(&mut self) -> Result<Allowed, String> {
        let mut args: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
        for prefix in &self.config.tracking_prefixes {
            args.extend([b"PREFIX", prefix.as_bytes()]);
        }
        let answer = self.ask(&args)?;
        Ok(self.allowed(&answer))
    }

    fn allowed(&self, answer: &Answer) -> Allowed {
        match answer.error() {
            None => Allowed::Yes,
            Some(why) if why.starts_with("NOPERM") && why.contains(" access ") => {
                Allowed::NotThisKey
            }
            Some(why) if why.starts_with("NOPERM") => Allowed::No,
            Some(why) => Allowed::Failed(self.config.redis_url.without_password(&why)),
        }
    }

    /// A server that does not know HELLO needs no right for it.
    fn allowed_unless_noperm(&self, answer: &Answer) -> Allowed {
        match self.allowed(answer) {
            Allowed::Failed(_) => Allowed::Yes,
            other => other,
        }
    }
}

/// The calls of commands that write; `None` if Redis does not count them.
fn writes_in(info: &HashMap<String, String>, table: &Table) -> Option<u64> {
    let mut any = false;
    let mut calls = 0;
    for (name, value) in info {
        let Some(command) = name.strip_prefix("cmdstat_") else {
            continue;
        };
        any = true;
        let spec = table.find(command.split('|').map(str::as_bytes));
        if spec.flags().has(Flags::WRITE) {
            calls += value
                .strip_prefix("calls=")
                .and_then(|rest| rest.split(',').next()?.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    any.then_some(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_by_the_flags_of_their_commands() {
        let info = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            let pairs = pairs.iter();
            pairs.map(|(a, b)| (a.to_string(), b.to_string())).collect()
        };
        let table = Table::builtin();
        assert_eq!(
            writes_in(&info(&[("redis_version", "7.0.15")]), &table),
            None
        );
        let counted = info(&[
            ("cmdstat_set", "calls=7,usec=1,usec_per_call=0.1"),
            ("cmdstat_get", "calls=100,usec=1"),
            ("cmdstat_xgroup|create", "calls=2,usec=1"),
            ("cmdstat_config|set", "calls=50,usec=1"),
            ("cmdstat_nosuch", "calls=1000"),
        ]);
        assert_eq!(writes_in(&counted, &table), Some(9));
    }
}
