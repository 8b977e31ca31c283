//! nearcache: a caching proxy that runs beside an application and speaks HTTP and RESP.
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod buffer;
pub mod cache;
pub mod client;
pub mod command;
pub mod config;
pub mod engine;
pub mod fetch;
pub mod fetcher;
pub mod fuzzing;
pub mod hash;
pub mod helper;
pub mod link;
pub mod outbox;
pub mod protocol;
pub mod reactor;
pub mod socket;
pub mod stats;
pub mod time;
pub mod tracking;
pub mod transport;
pub mod wheel;
