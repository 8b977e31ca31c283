//! The configuration: one row per key, from which everything that speaks of keys is made.
//!
//! What it is: [`rows::ROWS`] (name, default, kind with its range, help, reloadable) is the only place where a key is
//! described. [`Config::load`] reads sources by it; `--help`, `env.local` and the README's table are printed from it
//! ([`text`]). What it never does: touch a file, the environment, a socket or a clock. The shell reads those and
//! passes them as [`Sources`]; a secret that stands in a file is fetched through the function the shell passes.
//! Invariant: a [`Config`] that exists has every key within its range and is consistent as a whole.
//! Costs: at start only; O(keys × names) to look for the nearest name of a misspelt key.
//!
//! ```text
//!   environment ─┐  names: NEARCACHE_<KEY> > <KEY> > alias, within each source
//!   file ────────┼─▶ Config::load ─▶ Loaded { config, warnings, settings } ─▶ --check
//!   defaults ────┘                └▶ every ConfigError at once; nothing starts
//! ```
#![forbid(unsafe_code)]

pub mod args;
mod blank;
mod doors;
mod fraction;
pub mod load;
mod prefixes;
pub mod reload;
pub mod row;
pub mod rows;
pub mod socket;
pub mod text;
mod tls;
mod url;
pub mod value;
mod web;

use crate::prefix::Rule;
use crate::secret::Secret;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
pub use tls::{ClientCerts, TlsVersion};

/// Where Redis is and as whom to speak to it, from `REDIS_URL`.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The path of a Unix socket, which stands in the place of host and port: then these are empty and 0.
    pub socket: Option<PathBuf>,
    /// Inside TLS (`rediss://`).
    pub tls: bool,
    /// Database selected by the path, 0 when none.
    pub db: u32,
    /// ACL user name, if given.
    pub username: Option<String>,
    /// Password, if given. Never printed.
    pub password: Option<Secret>,
}

impl RedisUrl {
    /// What a server said, without the password: one that does not know AUTH repeats what it was given.
    pub fn without_password(&self, text: &str) -> String {
        match &self.password {
            Some(password) if !password.text().is_empty() => text.replace(password.text(), "***"),
            Some(_) | None => text.to_owned(),
        }
    }
}

impl fmt::Display for RedisUrl {
    /// The URL with `***` for the password, whatever it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.socket, self.tls) {
            (Some(_), _) => "unix://",
            (None, true) => "rediss://",
            (None, false) => "redis://",
        })?;
        if self.password.is_some() {
            write!(f, "{}:***@", self.username.as_deref().unwrap_or(""))?;
        }
        if let Some(path) = &self.socket {
            return write!(f, "{}?db={}", path.display(), self.db);
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        write!(f, ":{}/{}", self.port, self.db)
    }
}

impl fmt::Debug for RedisUrl {
    /// As it is displayed: a password must not reach a log by way of `{:?}` either.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How coherence with Redis is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coherence {
    /// Redis pushes every change (CLIENT TRACKING); `staleness_bound` holds in every state.
    Tracking,
    /// Entries live at most `cache_ttl`; that is the bound.
    Ttl,
    /// Nothing is kept: a pure relay.
    Off,
}

/// What a client is told when Redis is lost while it owes a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamLost {
    /// Its connection ends, as it would if it were connected to Redis: client libraries try again then.
    Close,
    /// An error in place of the reply; the connection stays.
    Error,
}

/// Whether clients must say the password of `REDIS_URL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// If there is one.
    Redis,
    /// Never.
    None,
}

/// What must be there before `/readyz` says that clients should come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyRequires {
    /// Only the process itself.
    Nothing,
    /// Redis.
    Redis,
    /// Redis, and that it tells of changes.
    Tracking,
}

/// How loud the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed that nobody repairs.
    Error,
    /// Something failed and was dealt with.
    Warn,
    /// What an operator wants to read once.
    Info,
    /// Per connection.
    Debug,
}

/// What a key is called in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKeys {
    /// By a hash of its name.
    Hash,
    /// As it is, escaped.
    Shown,
    /// Not at all.
    Hidden,
}

/// How events are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object in each line.
    Json,
}

/// Where sampled commands are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Among the lines of the log.
    Log,
    /// In a file of their own.
    File(PathBuf),
}

impl AccessLog {
    /// As it was said; nothing is off.
    fn named(name: Option<PathBuf>) -> AccessLog {
        match name {
            None => AccessLog::Off,
            Some(name) if name.as_os_str() == "off" => AccessLog::Off,
            Some(name) if name.as_os_str() == "log" => AccessLog::Log,
            Some(name) => AccessLog::File(name),
        }
    }
}

/// All that can be configured, with the defaults of DESIGN section 5.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // each field is its config row, where the help text stands
pub struct Config {
    pub http_port: Option<u16>,
    pub resp_port: Option<u16>,
    pub admin_port: Option<u16>,
    /// Addresses the admin port listens on.
    pub admin_bind: Vec<String>,
    pub admin_clients_max: usize,
    /// Where health and metrics alone are.
    pub probe_port: Option<u16>,
    pub probe_bind: Vec<String>,
    pub admin_password: Option<Secret>,
    /// Names that the admin port may be called by, beside IP addresses and `localhost`.
    pub admin_allowed_hosts: Vec<String>,
    pub ready_requires: ReadyRequires,
    pub slow_relay: Duration,
    /// Unix sockets that are listened on as well as the data ports.
    pub http_socket: Option<PathBuf>,
    pub resp_socket: Option<PathBuf>,
    pub socket_mode: u32,
    /// `user`, `user:group` or `:group`; empty: as they are made.
    pub socket_owner: String,
    /// Addresses the data ports listen on: `localhost` (both families) or IP addresses.
    pub bind: Vec<String>,
    pub tls_resp_port: Option<u16>,
    pub tls_http_port: Option<u16>,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    pub tls_client_ca_file: Option<PathBuf>,
    pub tls_client_certs: ClientCerts,
    pub tls_min_version: TlsVersion,
    pub tls_handshake_timeout: Duration,
    pub tls_handshakes_max: usize,
    pub redis_url: RedisUrl,
    pub redis_tls_ca_file: Option<PathBuf>,
    pub redis_tls_cert_file: Option<PathBuf>,
    pub redis_tls_key_file: Option<PathBuf>,
    /// The name that the certificate of Redis must be for, where it is not the host's.
    pub redis_tls_server_name: Option<String>,
    pub coherence: Coherence,
    pub event_barrier: bool,
    pub staleness_bound: Duration,
    pub stale_if_error: Duration,
    /// How many of a million hits are checked.
    pub verify_sample_ppm: u32,
    pub upstream_touch: Duration,
    pub warm_reconnect: usize,
    /// Only keys that begin with one of these are tracked and kept; empty: all.
    pub tracking_prefixes: Vec<String>,
    /// Only keys that these rules name are kept; empty: all.
    pub cache_prefixes: Vec<Rule>,
    /// Keys that begin with one of these are never kept.
    pub bypass_prefixes: Vec<String>,
    pub cache_capacity: usize,
    pub cache_max_bytes: usize,
    pub cache_max_value_bytes: usize,
    pub cache_max_key_bytes: usize,
    pub cache_ttl: Duration,
    pub cache_negative_ttl: Duration,
    pub redis_workers: usize,
    pub redis_timeout: Duration,
    pub redis_connect_timeout: Duration,
    pub link_dead: Duration,
    pub shared_links_per_pool: usize,
    pub links_max: usize,
    pub upstream_lost: UpstreamLost,
    pub client_auth: ClientAuth,
    pub client_password: Option<Secret>,
    pub allow_unauthenticated: bool,
    pub auth_delay: Duration,
    /// What no client may call, in lower case: a command, or `container|subcommand`.
    pub deny_commands: Vec<String>,
    pub own_links_max: usize,
    pub link_idle: Duration,
    pub shared_request_bytes_max: usize,
    pub request_bytes_max: usize,
    pub max_clients: usize,
    /// How long a client's machine may leave unanswered what it was sent; zero for as long as the kernel likes.
    pub client_dead: Duration,
    pub max_concurrent_requests: usize,
    pub queue_wait: Duration,
    pub outbox_max_bytes: usize,
    pub replies_owed_max: usize,
    pub buffers_max_bytes: usize,
    pub fetch_queue_max: usize,
    pub fetch_batch_max: usize,
    pub http_head_timeout: Duration,
    pub http_idle_timeout: Duration,
    /// The value of `Cache-Control` on HTTP replies; empty: the header is not sent.
    pub http_cache_control: String,
    /// Origins whose pages may ask, as browsers write them; `*` alone: all.
    pub http_allowed_origins: Vec<String>,
    /// Host names, with a port or without; empty: any.
    pub http_allowed_hosts: Vec<String>,
    pub drain: Duration,
    pub drain_accept: bool,
    pub log_file: Option<PathBuf>,
    pub log_file_max_bytes: usize,
    pub log_level: LogLevel,
    pub log_keys: LogKeys,
    /// Whether the system may write this process's memory to a file when it dies, and let others look into it.
    pub core_dumps: bool,
    pub log_format: LogFormat,
    /// So many events of a kind are written in ten seconds.
    pub log_burst: usize,
    pub access_log: AccessLog,
    /// How many of a million commands it has.
    pub access_log_sample_ppm: u32,
}

impl Default for Config {
    /// Every row at its default, on a machine whose memory nobody limits.
    fn default() -> Config {
        let sources = Sources {
            file: None,
            env: &[],
            memory_limit: None,
            read_file: &|_| Err("unused".to_string()),
        };
        Config::load(&sources)
            .expect("the defaults are within their own ranges (tested)")
            .config
    }
}

/// What a configuration is made from. The shell gathers it; nothing here is read twice.
pub struct Sources<'a> {
    /// The name of the file given with `--config`, for messages, and its contents.
    pub file: Option<(&'a str, &'a str)>,
    /// The whole environment; names that are not ours are passed over.
    pub env: &'a [(String, String)],
    /// Bytes this process may use, where the system sets a limit (cgroup): the sizes that are `auto` go by it.
    pub memory_limit: Option<u64>,
    /// Reads the file a `*_FILE` key names: its text, or why that failed.
    pub read_file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// A configuration and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to run with.
    pub config: Config,
    /// What was passed over and is worth a line in the log.
    pub warnings: Vec<String>,
    /// Every key in the order of the rows, for `--check`.
    pub settings: Vec<Setting>,
}

/// The effective value of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key's own name.
    pub name: &'static str,
    /// Its value as the configuration would take it again, secrets masked.
    pub shown: String,
    /// Where it came from: `default`, `environment`, `env.local line 3`; with the name used there, if another.
    pub origin: String,
}

/// Why nothing starts: one line that names the place, the key, what is allowed there, and the nearest known key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `environment`, or the file and the line; empty when it concerns the whole.
    pub place: String,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.is_empty() {
            true => f.write_str(&self.message),
            false => write!(f, "{}: {}", self.place, self.message),
        }
    }
}
