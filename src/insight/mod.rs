//! What an operator wants to know and no request needs: how long things take, which keys are hot, what another capacity
//! would bring, what has happened lately.
//!
//! Everything here is bounded by constants and looks at samples or at rare events; nothing of it changes what is
//! answered, and nothing reads a clock. [`latency`] counts durations, [`hot`] finds the keys that are asked for most,
//! [`ghost`] estimates the hit ratio of other capacities, [`events`] remembers the last things that happened.
#![forbid(unsafe_code)]

pub mod events;
pub mod ghost;
pub mod hot;
pub mod latency;
