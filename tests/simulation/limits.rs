//! What a seed draws its configuration from: small limits, so that every one of them is reached.

use fastrand::Rng;
use nearcache::config::{Coherence, Config};
use std::time::Duration;

/// Longer than any run: a time-out that a seed leaves out.
pub const HOUR: Duration = Duration::from_secs(3600);

pub fn draw<T: Copy>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

pub fn config(random: &mut Rng, faults: bool) -> Config {
    let mut config = Config {
        coherence: if random.u8(..4) == 0 {
            Coherence::Ttl
        } else {
            Coherence::Tracking
        },
        staleness_bound: Duration::from_millis(draw(random, &[10, 50, 300, 3000])),
        cache_capacity: draw(random, &[1, 2, 3, 1000]),
        cache_max_value_bytes: draw(random, &[16, 5000, 1 << 20]),
        cache_max_key_bytes: draw(random, &[1, 1000]),
        cache_ttl: draw(random, &[5, 50, 500, 60_000].map(Duration::from_millis)),
        cache_negative_ttl: draw(random, &[0, 3, 5000].map(Duration::from_millis)),
        redis_workers: random.usize(1..4),
        shared_links_per_pool: random.usize(1..4),
        max_concurrent_requests: draw(random, &[1, 2, 3, 8, 10_000]),
        replies_owed_max: draw(random, &[1, 2, 10, 10_000]),
        shared_request_bytes_max: draw(random, &[60, 1 << 20]),
        redis_timeout: HOUR,
        redis_connect_timeout: HOUR,
        link_dead: HOUR,
        link_idle: draw(random, &[10, 500, 60_000].map(Duration::from_millis)),
        queue_wait: HOUR,
        http_head_timeout: HOUR,
        http_idle_timeout: HOUR,
        ..Config::default()
    };
    config.redis_url.db = draw(random, &[0, 3]);
    if random.bool() {
        config.redis_url.password = Some("secret".to_owned());
    }
    if random.u8(..6) == 0 {
        config.tracking_prefixes = vec!["a".to_owned(), "b".to_owned()];
    }
    if faults {
        config.stale_if_error = Duration::from_secs(draw(random, &[0, 1, 60]));
        let span = |ms: u64| Duration::from_millis(ms);
        config.redis_timeout = span(draw(random, &[5, 50, 3000]));
        config.redis_connect_timeout = span(draw(random, &[20, 1000]));
        config.link_dead = span(draw(random, &[50, 15_000]));
        config.queue_wait = span(draw(random, &[3, 30, 5000]));
        config.outbox_max_bytes = draw(random, &[200, 30_000, 32 << 20]);
        config.links_max = draw(random, &[2, 3, 1000]);
        config.http_idle_timeout = span(draw(random, &[100, 75_000]));
        config.http_head_timeout = span(draw(random, &[50, 10_000]));
    }
    config
}
