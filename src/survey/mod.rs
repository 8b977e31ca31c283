//! `nearcache check-upstream`: connects to the configured Redis as the proxy would, asks it what matters, says what it
//! found in plain words.
//!
//! It never changes a key, a setting or a connection of anybody else's, and what it asks for is what the proxy asks for:
//! a right that is missing shows by being refused. What a managed service does not tell is said to be not known.
//!
//! ```text
//!   Config ─▶ questions.rs ─ asks over ─▶ wire.rs (one blocking connection)
//!                  └─▶ Found ─▶ report.rs ─▶ words and an exit code
//! ```
//!
//! Costs: some thirty commands and a pause of a second between two looks at what has been written.
#![forbid(unsafe_code)]

mod questions;
mod report;
mod wire;

use crate::config::Config;
use crate::tls;

/// What is printed, and what the process ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Lines for a person.
    pub text: String,
    /// 0: all is well. 1: the proxy works, but not in the way that is configured. 2: Redis cannot be used.
    pub code: u8,
}

/// Looks at the Redis of this configuration. Blocks for a second and as long as Redis takes, each answer at most
/// `REDIS_TIMEOUT_MS`. `tls` is there where the configuration has `rediss://`.
pub fn survey(config: &Config, tls: Option<&tls::Upstream>) -> Outcome {
    match questions::ask_all(config, tls) {
        Ok(found) => report::of(config, &found),
        Err(why) => report::unusable(config, &why),
    }
}
