//! Every field of the configuration before any row has stored into it.
#![forbid(unsafe_code)]

use super::{ClientAuth, Coherence, Config, LogLevel, ReadyRequires, RedisUrl, UpstreamLost};
use std::time::Duration;

impl Config {
    /// A configuration of no use yet: each row stores its field over this.
    pub(super) fn blank() -> Config {
        let redis_url = RedisUrl {
            host: String::new(),
            port: 0,
            db: 0,
            username: None,
            password: None,
        };
        Config {
            http_port: None,
            resp_port: None,
            admin_port: None,
            admin_bind: Vec::new(),
            admin_clients_max: 0,
            admin_password: None,
            admin_allowed_hosts: Vec::new(),
            ready_requires: ReadyRequires::Nothing,
            slow_relay: Duration::ZERO,
            bind: Vec::new(),
            redis_url,
            coherence: Coherence::Tracking,
            event_barrier: false,
            staleness_bound: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            verify_sample_ppm: 0,
            upstream_touch: Duration::ZERO,
            warm_reconnect: 0,
            tracking_prefixes: Vec::new(),
            cache_prefixes: Vec::new(),
            bypass_prefixes: Vec::new(),
            cache_capacity: 0,
            cache_max_bytes: 0,
            cache_max_value_bytes: 0,
            cache_max_key_bytes: 0,
            cache_ttl: Duration::ZERO,
            cache_negative_ttl: Duration::ZERO,
            redis_workers: 0,
            redis_timeout: Duration::ZERO,
            redis_connect_timeout: Duration::ZERO,
            link_dead: Duration::ZERO,
            shared_links_per_pool: 0,
            links_max: 0,
            upstream_lost: UpstreamLost::Close,
            client_auth: ClientAuth::Redis,
            own_links_max: 0,
            link_idle: Duration::ZERO,
            shared_request_bytes_max: 0,
            request_bytes_max: 0,
            max_clients: 0,
            max_concurrent_requests: 0,
            queue_wait: Duration::ZERO,
            outbox_max_bytes: 0,
            replies_owed_max: 0,
            buffers_max_bytes: 0,
            fetch_queue_max: 0,
            fetch_batch_max: 0,
            http_head_timeout: Duration::ZERO,
            http_idle_timeout: Duration::ZERO,
            http_cache_control: String::new(),
            http_allowed_origins: Vec::new(),
            http_allowed_hosts: Vec::new(),
            drain: Duration::ZERO,
            drain_accept: false,
            log_file: None,
            log_file_max_bytes: 0,
            log_level: LogLevel::Error,
        }
    }
}
