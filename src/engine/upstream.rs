//! Whether Redis is there: the control link says so. It learns the version and the command table, is pinged every
//! second, and is tried again when lost: at once, then with backoff and jitter, at most 250 ms after the last failure.
//!
//! While Redis is known to be away, whatever needs it gets an error at once. Between a loss and the failure of the
//! first new attempt nothing is known, and requests are tried.
#![forbid(unsafe_code)]

use super::timers::Timer;
use super::{ConnId, Engine};
use crate::client::Hold;
use crate::command::row::{REPLY_DEPTH_MAX, rows_from_reply};
use crate::command::table::Table;
use crate::config::LogLevel;
use crate::link::{Purpose, Role, State};
use crate::protocol::Parse;
use crate::protocol::resp::value::{self, Value};
use crate::stats::Counter;
use std::time::Duration;

const HEARTBEAT: Duration = Duration::from_millis(1000);
/// The first pause after a failed attempt; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// With a quarter of jitter on top this stays under 250 ms.
const PAUSE_MAX: Duration = Duration::from_millis(190);

/// What is known of Redis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Availability {
    /// The first answer is awaited, or the first one after a loss.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// The last attempt failed, for this reason.
    Away(String),
}

/// Redis as the control link sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Upstream {
    pub(super) availability: Availability,
    control: Option<ConnId>,
    pause: Duration,
    /// Whether the heartbeat's timer runs: it outlives a short loss, and there must never be two.
    beating: bool,
    /// `redis_version`, once it is known.
    pub(super) version: Option<String>,
    /// `run_id`, once it is known.
    pub(super) run_id: Option<String>,
    /// Clients that wait to know.
    pub(super) waiting: Vec<ConnId>,
}

impl Upstream {
    /// Why Redis cannot be asked, while that is certain.
    pub(super) fn away(&self) -> Option<&str> {
        match &self.availability {
            Availability::Away(why) => Some(why),
            Availability::Unknown | Availability::Up => None,
        }
    }

    /// The state as one word, for INFO.
    pub(super) fn state_name(&self) -> &'static str {
        match self.availability {
            Availability::Unknown => "connecting",
            Availability::Up => "up",
            Availability::Away(_) => "away",
        }
    }
}

impl Engine {
    /// Tries to reach Redis, now.
    pub(super) fn connect_control(&mut self) {
        let link = self.open_link(Role::Control);
        self.upstream.control = Some(link);
    }

    /// The control link failed. `greeted` tells a loss from an attempt that brought nothing.
    pub(super) fn control_lost(&mut self, why: &str, greeted: bool) {
        self.upstream.control = None;
        if greeted {
            self.upstream.availability = Availability::Unknown;
            self.upstream.pause = Duration::ZERO;
            self.stats.count(Counter::UpstreamLost);
            self.log(LogLevel::Warn, format!("Redis is lost: {why}"));
            return self.connect_control();
        }
        if !matches!(self.upstream.availability, Availability::Away(_)) {
            self.log(
                LogLevel::Warn,
                format!("Redis is not reachable: {why}; trying again until it is"),
            );
        }
        self.upstream.availability = Availability::Away(why.to_owned());
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
        match purpose {
            Purpose::Required if reply.starts_with(b"-") => {
                let text = String::from_utf8_lossy(&reply[1..]);
                return self.link_lost(id, text.trim_end());
            }
            Purpose::Server => self.read_server(reply),
            Purpose::CommandTable => self.read_table(reply),
            _ => {}
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
        let version = self
            .upstream
            .version
            .as_deref()
            .unwrap_or("of unknown version")
            .to_owned();
        self.log(LogLevel::Info, format!("Redis {version} is reached"));
        self.upstream.availability = Availability::Up;
        self.upstream.pause = Duration::ZERO;
        self.wake_waiting();
        if !self.upstream.beating {
            self.upstream.beating = true;
            self.timers.set(self.now + HEARTBEAT, Timer::Heartbeat);
        }
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
        self.upstream.beating = false;
        let Some(ix) = self.upstream.control.and_then(|id| self.link_index(id)) else {
            return;
        };
        if self.links[ix].state != State::Up {
            return;
        }
        if self.links[ix].owed.is_empty() {
            self.ask(ix, Purpose::Heartbeat, &[b"PING"]);
        }
        self.upstream.beating = true;
        self.timers.set(self.now + HEARTBEAT, Timer::Heartbeat);
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
        let (version, run_id) = (field("redis_version"), field("run_id"));
        if version.is_some() {
            self.upstream.version = version;
        }
        if run_id.is_some() && self.upstream.run_id.is_some() && run_id != self.upstream.run_id {
            self.log(
                LogLevel::Warn,
                "Redis was restarted or is another one; everything kept is dropped".to_owned(),
            );
            self.poison_all();
        }
        if run_id.is_some() {
            self.upstream.run_id = run_id;
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
            Ok(table) => self.table = table,
            Err(why) => self.log(
                LogLevel::Warn,
                format!("the reply to COMMAND is of no use ({why}); the built-in table serves"),
            ),
        }
    }
}
