//! A driver of `nearcache::engine::Engine` for tests: everything the reactor, the kernel and Redis would do, in memory.
//!
//! [`world::World`] holds one engine, a model Redis, the wires between them, the workers and the clients' sockets. It
//! moves nothing by itself: a test chooses each step (and how many bytes of it), so the simulation can draw steps from a
//! seed, the exploration can try all of them, and a transcript can be cut where it likes. Cloning a world clones the run.
//! It shares no code with the product beyond the engine's own contract: requests, replies and expiry are done anew here.
#![allow(dead_code)] // each test crate uses its own part

pub mod codec;
pub mod listen;
pub mod redis;
pub mod world;
