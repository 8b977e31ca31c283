//! nearcache: a caching proxy that runs beside an application and speaks HTTP and the Redis protocol.
//!
//! # Threads
//!
//! | thread | owns | may block in |
//! |---|---|---|
//! | main, the loop | clients, links, cache, fetches, timers, counters: all mutable state | `Poll::poll` |
//! | `fetch0` .. | one connection of the `redis` crate each; sees only jobs and completions | its queue, its Redis calls |
//! | `helper` | log output and name look-ups, through bounded queues | all of that; it never sees a request |
//!
//! # A request's way
//!
//! ```text
//!            ┌────────────────────────────── the loop ──────────────────────────────┐
//!  client ──▶│ reactor ─▶ engine ─▶ protocol ─▶ command ─┬▶ cache ── hit ──────────┐ │
//!            │                                            ├▶ fetch ─▶ job ───────────┼─┼─▶ worker ─▶ Redis
//!            │                                            └▶ link ── raw bytes ──────┼─┼──────────▶ Redis
//!         ◀──┤ reactor ◀─ outbox ◀─ client (replies in the order of the commands) ◀──┘ │
//!            │ tracking ◀── pushes: what has changed ─────────────────────────────────┼──────────── Redis
//!            └───────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - The core (everything but the shell below) has no socket, no clock, no thread, no randomness of its own and no
//!   `unsafe`. What it logs it says by the macros of `tracing`, which do nothing where nobody listens and give nothing back. The reactor and the tests are two drivers of the same calls; `tests/house.rs` holds the modules to it.
//! - An entry of a key exists only while no fetch of it may still be kept (`engine/read.rs`, rule L2).
//! - A reply leaves in the order of its command, or its connection is closed with a reason (`client.rs`).
//! - Whatever waits has a deadline and someone whose job is to wake it (`engine/timers.rs`, `client::Hold`).
//! - No length, count or depth that a peer claims sizes anything before the bytes have come.
//!
//! # In reading order
//!
//! Shell, which may call the kernel, block and read the clock: [`reactor`] (one turn of the loop), [`transport`], [`tls`],
//! [`socket`] and [`process`] (the only `unsafe`), [`fetcher`] (the workers), [`helper`], [`survey`] (`nearcache
//! check-upstream`), [`mischief`] (failures that tests order).
//!
//! Core: [`engine`] (the decisions), [`client`], [`link`], [`session`] (what one of them is in the middle of), [`tracking`] (the invalidation link), [`fetch`] (misses in
//! flight), [`command`] (the vocabulary), [`protocol`] (RESP and HTTP), [`cache`], [`wheel`], [`buffer`] and [`outbox`]
//! (bytes in and out), [`prefix`] (what may be kept), [`hash`], [`secret`], [`keyname`] (what a key is called in the log), [`time`], [`config`], [`stats`], [`insight`] (what an operator wants to know), [`log`](mod@log) (how an event becomes a line). [`fuzzing`] holds the bodies of the fuzz targets.
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
pub mod insight;
pub mod keyname;
pub mod link;
pub mod log;
pub mod mischief;
pub mod outbox;
pub mod prefix;
pub mod process;
pub mod protocol;
pub mod reactor;
pub mod secret;
pub mod session;
pub mod socket;
pub mod stats;
pub mod survey;
pub mod time;
pub mod tls;
pub mod tracking;
pub mod transport;
pub mod wheel;
