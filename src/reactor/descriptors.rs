//! How the open files that this process may have are shared out, so that clients never take the last of them: what
//! connects to Redis must find one when Redis comes back.
#![forbid(unsafe_code)]

use crate::config::Config;
use crate::socket;
use tracing::warn;

/// For listeners, poll, waker, signals, log and look-ups, with room; the workers come on top of it.
const FIXED: usize = 62;
/// Connections to Redis that there is room for in any case.
const LINKS_LEAST: usize = 4;

/// Lowers the limits on links where there are too few descriptors for all, and returns how many clients may have one. More
/// wait until one of them leaves.
pub(super) fn share_out(config: &mut Config) -> usize {
    let limit = match socket::raise_fd_limit() {
        Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        // The start has said so.
        Err(_) => return usize::MAX,
    };
    let (links, own_links) = (config.links_max, config.own_links_max);
    let clients = fit(config, limit);
    if (links, own_links) != (config.links_max, config.own_links_max) {
        warn!(
            open_files = limit,
            clients,
            links_max = config.links_max,
            own_links_max = config.own_links_max,
            "open files are limited, so connections to Redis are too"
        );
    }
    clients
}

fn fit(config: &mut Config, limit: usize) -> usize {
    let fixed = (FIXED + config.redis_workers).min(limit / 2);
    let wanted = [
        config.max_clients,
        config.admin_clients_max,
        config.links_max,
        config.own_links_max,
    ];
    let wanted = wanted.into_iter().fold(fixed, usize::saturating_add);
    if wanted > limit {
        let eighth = (limit / 8).max(LINKS_LEAST);
        config.links_max = config.links_max.min(eighth);
        // A client with a connection of its own takes two descriptors.
        config.own_links_max = config.own_links_max.min(2 * eighth);
    }
    let links = config.links_max.saturating_add(config.own_links_max);
    limit.saturating_sub(fixed.saturating_add(links)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(clients, links, own links)` of a limit.
    fn shares(limit: usize) -> (usize, usize, usize) {
        let mut config = Config::default();
        let clients = fit(&mut config, limit);
        (clients, config.links_max, config.own_links_max)
    }

    #[test]
    fn where_there_is_enough_nothing_is_lowered() {
        let (clients, links, own_links) = shares(1 << 20);
        assert_eq!((links, own_links), (1000, 4000));
        assert!(clients > 1_000_000);
        let (clients, links, own_links) = shares(16_000);
        assert_eq!((links, own_links), (1000, 4000));
        assert!(clients >= 10_064, "{clients}");
    }

    #[test]
    fn whatever_the_limit_all_shares_together_are_within_it_and_none_is_empty() {
        for limit in 40..20_000 {
            let mut config = Config::default();
            let clients = fit(&mut config, limit);
            assert!(clients > 0 && config.links_max >= 4 && config.own_links_max >= 4);
            let fixed = (FIXED + config.redis_workers).min(limit / 2);
            let all = clients + config.links_max + config.own_links_max + fixed;
            assert!(all <= limit, "{all} of {limit}");
        }
        assert_eq!(shares(1024), (576, 128, 256));
        assert_eq!(shares(64), (8, 8, 16));
    }

    #[test]
    fn limits_that_are_lower_than_their_share_stay() {
        let mut config = Config {
            links_max: 2,
            own_links_max: 1,
            ..Config::default()
        };
        assert_eq!(fit(&mut config, 64), 29);
        assert_eq!((config.links_max, config.own_links_max), (2, 1));
    }
}
