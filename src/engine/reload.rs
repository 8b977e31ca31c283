//! Another configuration while running.
//!
//! Everything that reads the configuration when it needs it has the new values from here on; here is what was made from
//! it before. Entries keep the deadline they have. Where fewer keys may be kept, or for less time, everything kept goes:
//! looking for those that may stay would take a walk over all, and until its end a hit could be one that may not be.
#![forbid(unsafe_code)]

use super::forget::Flush;
use super::{Engine, local};
use crate::cache::Limits;
use crate::config::Config;
use crate::prefix::Prefixes;
use crate::stats::Counter;

impl Engine {
    /// Takes `config` over, which differs from the present one in reloadable keys only.
    pub fn reload(&mut self, config: Config) {
        let keeps_less = config.keeps_less_than(&self.config);
        self.config = config;
        self.recount_lent_room();
        // The password may be another one, and what was remembered of heads is of no use where there is one now.
        self.http_policy = local::http_policy(&self.config);
        self.known_heads.fill(Default::default());
        let config = &self.config;
        self.prefixes = Prefixes::new(&config.cache_prefixes, &config.bypass_prefixes);
        self.admission.set_max(config.max_concurrent_requests);
        if keeps_less {
            self.poison_all(Flush::Switch);
        }
        self.set_cache_limits(self.cache_limits());
        self.plan_access();
        self.admit_waiting();
    }

    pub(super) fn set_cache_limits(&mut self, limits: Limits) {
        if self.cache.limits() == limits {
            return;
        }
        let evicted = self.cache.set_limits(limits);
        self.aside.set_limits(limits);
        self.stats.add(Counter::Evictions, u64::from(evicted));
    }
}
