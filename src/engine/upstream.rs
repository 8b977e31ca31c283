//! Whether Redis is there: the control link says so. It learns the version and the command table, is pinged every
//! second, and is tried again when lost: at once, then with backoff and jitter, at most 250 ms after the last failure.
//!
//! While Redis is known to be away, whatever needs it gets an error at once. Between a loss and the failure of the
//! first new attempt nothing is known, and requests are tried.
#![forbid(unsafe_code)]

use super::forget::Flush;
use super::local::Greeting;
use super::silence::Pauses;
use super::timers::Timer;
use super::{ConnId, Engine, Output};
use crate::client::Hold;
use crate::command::Place;
use crate::command::row::{REPLY_DEPTH_MAX, rows_from_reply};
use crate::command::table::Table;
use crate::fetch::RunId;
use crate::link::{Owed, Purpose, Role, State};
use crate::protocol::Parse;
use crate::protocol::resp::value::{self, Value};
use crate::stats::Counter;
use crate::time::Time;
use std::time::Duration;
use tracing::{info, warn};

/// How often workers on another server make everything connect anew.
const DIFFERS_PAUSE: Duration = Duration::from_secs(1);
/// The first pause after a failed attempt; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// With a quarter of jitter on top this stays under 250 ms.
const PAUSE_MAX: Duration = Duration::from_millis(190);

/// Errors that say why nothing can be done for now: a script runs, the data are being loaded, a replica has no master.
pub(super) const BUSY: [&str; 3] = ["BUSY ", "LOADING ", "MASTERDOWN "];
/// Those of them that come while one command of somebody's is executed.
const OCCUPIED: [&str; 2] = ["BUSY ", "LOADING "];

/// What is known of Redis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Availability {
    /// The first answer is awaited, or the first one after a loss.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It answers even a PING with one of [`BUSY`].
    Busy,
    /// The last attempt failed, for this reason.
    Away(String),
}

/// Redis as the control link sees it.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub(super) availability: Availability,
    control: Option<ConnId>,
    heartbeat: Option<u32>,
    pub(super) tracking_retry: Option<u32>,
    /// How many PINGs in a row a barrier takes (rule L10).
    pub(super) barrier_rounds: u8,
    /// `role` and `master_replid`, once they are known.
    replication: Option<(String, String)>,
    pause: Duration,
    /// When a worker was last found to have reached another server than this link.
    differed_at: Option<Time>,
    /// Whether HELLO 3 was accepted on the control link.
    speaks_resp3: bool,
    /// What HELLO was answered with, where that is an error: then no link can speak RESP3.
    pub(super) hello_refused: Option<Vec<u8>>,
    /// What it says of itself in answer to HELLO.
    pub(super) greeting: Greeting,
    /// `redis_version`, once it is known.
    pub(super) version: Option<String>,
    /// `run_id`, once it is known.
    pub(super) run_id: Option<RunId>,
    /// The greatest number of a database that this server is known to have.
    pub(super) db_known: u32,
    /// When it last said that it is occupied: that a script runs, or that it loads its data. It answers everybody so but
    /// the one whose command that is, so the silence of a link tells nothing of before.
    pub(super) occupied_at: Time,
    /// Clients that wait to know.
    pub(super) waiting: Vec<ConnId>,
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream {
            availability: Availability::Unknown,
            control: None,
            heartbeat: None,
            tracking_retry: None,
            barrier_rounds: 1,
            replication: None,
            differed_at: None,
            speaks_resp3: false,
            hello_refused: None,
            pause: Duration::ZERO,
            greeting: Greeting::default(),
            version: None,
            run_id: None,
            db_known: 0,
            occupied_at: Time::ZERO,
            waiting: Vec::new(),
        }
    }
}

impl Upstream {
    /// The control link, while there is one.
    pub(super) fn control(&self) -> Option<ConnId> {
        self.control
    }

    /// Why Redis cannot be asked, while that is certain.
    pub(super) fn away(&self) -> Option<&str> {
        match &self.availability {
            Availability::Away(why) => Some(why),
            Availability::Unknown | Availability::Up | Availability::Busy => None,
        }
    }

    /// Whether it answers even a PING with an error that will pass.
    pub(super) fn is_busy(&self) -> bool {
        self.availability == Availability::Busy
    }

    /// Its role in HELLO's words.
    pub(super) fn role(&self) -> &'static str {
        match &self.replication {
            Some((role, _)) if role != "master" => "replica",
            Some(_) | None => "master",
        }
    }

    /// The state as one word, for INFO.
    pub(super) fn state_name(&self) -> &'static str {
        match self.availability {
            Availability::Unknown => "connecting",
            Availability::Up => "up",
            Availability::Busy => "busy",
            Availability::Away(_) => "away",
        }
    }
}

impl Engine {
    /// Tries to reach Redis, now.
    pub(super) fn connect_control(&mut self) {
        self.tracking_down();
        self.upstream.replication = None;
        let link = self.open_link(Role::Control);
        self.upstream.control = Some(link);
    }

    /// The control link failed. `greeted` tells a loss from an attempt that brought nothing.
    pub(super) fn control_lost(&mut self, why: &str, greeted: bool) {
        self.upstream.control = None;
        let stopped = [
            self.upstream.heartbeat.take(),
            self.upstream.tracking_retry.take(),
        ];
        for timer in stopped.into_iter().flatten() {
            self.timers.cancel(timer);
        }
        // Redis is there, and says itself what it thinks of each command: that a script runs, and can be killed.
        let is_busy = BUSY.iter().any(|word| why.starts_with(word));
        if OCCUPIED.iter().any(|word| why.starts_with(word)) {
            self.upstream.occupied_at = self.now;
        }
        if greeted {
            self.upstream.availability = if is_busy {
                Availability::Busy
            } else {
                Availability::Unknown
            };
            self.upstream.pause = Duration::ZERO;
            self.stats.count(Counter::UpstreamLost);
            self.note_event("lost", format!("Redis is lost: {why}"));
            warn!(why, "Redis is lost");
            return self.connect_control();
        }
        let was = match self.upstream.availability {
            Availability::Away(_) => !is_busy,
            Availability::Busy => is_busy,
            Availability::Unknown | Availability::Up => false,
        };
        if !was {
            warn!(why, "Redis is not reachable, trying again until it is");
        }
        self.upstream.availability = if is_busy {
            Availability::Busy
        } else {
            Availability::Away(why.to_owned())
        };
        self.wake_waiting();
        let pause = (self.upstream.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.upstream.pause = pause;
        let jitter = pause.mul_f64((self.random() % 256) as f64 / 1024.0);
        self.timers.set(self.now + pause + jitter, Timer::Reconnect);
    }

    /// A reply to one of the proxy's own commands on a link.
    pub(super) fn greeted(&mut self, id: ConnId, purpose: Purpose, reply: &[u8]) {
        let Some(ix) = self.link_index(id) else {
            return;
        };
        if matches!(purpose, Purpose::Resp3 | Purpose::Hello) {
            let error = reply.strip_prefix(b"-");
            let error = error.map(|text| text.strip_suffix(b"\r\n").unwrap_or(text));
            self.upstream.hello_refused = error.map(<[u8]>::to_vec);
        }
        match purpose {
            Purpose::Required if reply.starts_with(b"-") => {
                let text = String::from_utf8_lossy(&reply[1..]);
                let text = self.config.redis_url.without_password(text.trim_end());
                return self.link_lost(id, &text);
            }
            Purpose::Resp3 if reply.starts_with(b"-") => {
                self.upstream.speaks_resp3 = false;
            }
            Purpose::Resp3 => {
                self.upstream.speaks_resp3 = true;
                self.upstream.greeting = Greeting::read(reply);
            }
            Purpose::Hello => self.upstream.greeting = Greeting::read(reply),
            Purpose::Server => self.read_server(reply),
            Purpose::Replication if !self.read_replication(reply) => {
                return self.link_lost(id, "Redis has changed its role or its history");
            }
            Purpose::Tracking if self.upstream.speaks_resp3 => self.tracking_answered(reply),
            Purpose::Tracking => {
                self.poison_all(Flush::Up);
                self.tracking_unavailable("it does not speak RESP3".to_owned());
            }
            Purpose::Heartbeat if reply.starts_with(b"-") => {
                let text = String::from_utf8_lossy(&reply[1..]);
                return self.link_lost(id, text.trim_end());
            }
            Purpose::Heartbeat => self.pong(),
            Purpose::CommandTable => self.read_table(reply),
            Purpose::Touch => self.touch_answered(id, reply),
            Purpose::Identity => self.identified(ix, reply),
            _ => {}
        }
        let link = &mut self.links[ix];
        let is_let_in = link
            .owed
            .iter()
            .all(|owed| owed.purpose != Purpose::Required);
        if link.gate.is_some() && is_let_in {
            link.gate = None;
            self.flush_link(ix);
        }
        let link = &mut self.links[ix];
        let greeting_over = link.owed.iter().all(|owed| owed.to.is_some());
        if link.state == State::Greeting && greeting_over {
            link.state = State::Up;
            if link.role == Role::Control {
                self.control_up();
            }
        }
    }

    fn control_up(&mut self) {
        let version = self.upstream.version.as_deref().unwrap_or("unknown");
        info!(version, "Redis is reached");
        self.upstream.availability = Availability::Up;
        self.upstream.pause = Duration::ZERO;
        self.outputs.push_back(Output::Recovered);
        self.wake_waiting();
        self.upstream.heartbeat = Some(
            self.timers
                .set(self.now + self.heartbeat_pause(), Timer::Heartbeat),
        );
    }

    fn wake_waiting(&mut self) {
        for client in std::mem::take(&mut self.upstream.waiting) {
            if let Some(ix) = self.client_index(client) {
                self.unhold(ix, Hold::Upstream);
            }
        }
    }

    /// Asks the control link for a sign of life, unless one is owed already.
    pub(super) fn heartbeat(&mut self) {
        self.upstream.heartbeat = None;
        let Some(ix) = self.upstream.control.and_then(|id| self.link_index(id)) else {
            return;
        };
        let owed = &self.links[ix].owed;
        let (is_at_rest, asks) = (owed.is_empty(), |owed: &Owed| {
            owed.purpose == Purpose::Replication
        });
        // Barriers may be under way all the time, and are signs of life, but say nothing of its role.
        if !owed.iter().any(asks) {
            self.ask(ix, Purpose::Replication, &[b"INFO", b"replication"]);
        }
        if is_at_rest {
            self.ping(ix);
        }
        self.upstream.heartbeat = Some(
            self.timers
                .set(self.now + self.heartbeat_pause(), Timer::Heartbeat),
        );
    }

    fn read_server(&mut self, reply: &[u8]) {
        let text = String::from_utf8_lossy(reply);
        let field = |name: &str| {
            text.lines().find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(':')
                    .map(|value| value.trim().to_owned())
            })
        };
        let (version, run_id) = (field("redis_version"), RunId::in_info(reply));
        let major = |version: Option<&str>| version?.split('.').next()?.parse::<u32>().ok();
        let newest = major(version.as_deref()).max(major(field("valkey_version").as_deref()));
        self.upstream.barrier_rounds = if newest.is_some_and(|major| major <= 7) {
            1
        } else {
            2
        };
        if version.is_some() {
            self.upstream.version = version;
        }
        if run_id.is_some() && self.upstream.run_id.is_some() && run_id != self.upstream.run_id {
            warn!("Redis was restarted or is another one, everything kept is dropped");
            self.poison_all(Flush::Server);
            // It has paused nobody.
            self.pauses = Pauses::default();
            self.retire_links();
            self.upstream.db_known = 0;
        }
        if run_id.is_some() {
            self.upstream.run_id = run_id;
        }
    }

    /// The role and the history of Redis. `false`: they are not those that this link began with.
    fn read_replication(&mut self, reply: &[u8]) -> bool {
        let text = String::from_utf8_lossy(reply);
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let (Some(role), Some(id)) = (field("role"), field("master_replid")) else {
            return true;
        };
        let now = (role.trim().to_owned(), id.trim().to_owned());
        let before = self.upstream.replication.replace(now.clone());
        before.is_none_or(|before| before == now)
    }

    /// A worker reads from another server than the one that tracks: the name has come to mean another Redis.
    pub(super) fn upstream_differs(&mut self) {
        // Where a name leads to several servers for good this would go on with every miss; nothing wrong is kept meanwhile.
        if self
            .upstream
            .differed_at
            .is_some_and(|at| self.now < at + DIFFERS_PAUSE)
        {
            return;
        }
        self.upstream.differed_at = Some(self.now);
        if let Some(control) = self.upstream.control {
            self.retire_links();
            self.link_lost(control, "a worker has reached another Redis");
        }
    }

    /// A write was refused because Redis is a replica now: if it was a master, the one we know is not there any more.
    pub(super) fn upstream_is_read_only(&mut self) {
        let was_master = self
            .upstream
            .replication
            .as_ref()
            .is_some_and(|(role, _)| role == "master");
        if let (true, Some(control)) = (was_master, self.upstream.control) {
            self.link_lost(control, "Redis has become read-only");
        }
    }

    fn read_table(&mut self, reply: &[u8]) {
        let table = match value::decode(reply, REPLY_DEPTH_MAX) {
            Parse::Done((Value::Error(text), _)) => Err(String::from_utf8_lossy(text).into_owned()),
            Parse::Done((value, _)) => rows_from_reply(&value)
                .map(Table::from_rows)
                .map_err(|error| error.to_string()),
            Parse::More | Parse::Bad(_) => Err("it cannot be decoded".to_owned()),
        };
        match table {
            Ok(table) => {
                if table != self.table {
                    // The places of commands are others now.
                    self.clients.each(|client| {
                        let name = self.table.name_at(client.last);
                        let words = name.map(|name| name.split('|').map(str::as_bytes));
                        client.last =
                            words.map_or(Place::UNKNOWN, |words| table.find(words).place());
                    });
                }
                self.table = table;
            }
            Err(why) => warn!(
                %why,
                "the reply to COMMAND is of no use, the built-in table serves"
            ),
        }
    }
}
