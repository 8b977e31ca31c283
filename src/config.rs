//! The configuration: one row per key.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

/// Where Redis is and as whom to speak to it, from `REDIS_URL`.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database selected by the path, 0 when none.
    pub db: u32,
    /// ACL user name, if given.
    pub username: Option<String>,
    /// Password, if given. Never printed.
    pub password: Option<String>,
}

/// How coherence with Redis is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coherence {
    /// Entries live at most `cache_ttl`; that is the bound.
    Ttl,
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

/// All that can be configured, with the defaults of DESIGN section 5.
#[derive(Clone)]
#[allow(missing_docs)] // each field is its config row, where the help text stands
pub struct Config {
    pub http_port: Option<u16>,
    pub resp_port: Option<u16>,
    /// Addresses the data ports listen on: `localhost` (both families) or IP addresses.
    pub bind: Vec<String>,
    pub redis_url: RedisUrl,
    pub coherence: Coherence,
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
    pub link_idle: Duration,
    pub shared_request_bytes_max: usize,
    pub request_bytes_max: usize,
    pub max_clients: usize,
    pub max_concurrent_requests: usize,
    pub queue_wait: Duration,
    pub outbox_max_bytes: usize,
    pub replies_owed_max: usize,
    pub buffers_max_bytes: usize,
    pub fetch_queue_max: usize,
    pub fetch_batch_max: usize,
    pub http_head_timeout: Duration,
    pub http_idle_timeout: Duration,
    pub http_cache_control: String,
    pub drain: Duration,
    pub log_file: Option<PathBuf>,
    pub log_level: LogLevel,
}
