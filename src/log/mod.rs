//! How an event of the log is written down, and how a flood of one kind is kept from the rest.
//!
//! Events are made where they are decided, by the macros of `tracing`, in the core too: without somebody who listens
//! (tests, the simulation) such a macro costs one comparison. The helper listens (`helper/listen.rs`), asks [`burst`]
//! whether this one is written, has [`line`](mod@line) write it, and puts it into its queue.
//!
//! Nothing here reads a clock, opens a file or takes a lock.
#![forbid(unsafe_code)]

pub mod burst;
pub mod line;

/// The target of lines of the access log; they go by `ACCESS_LOG` and not by `LOG_LEVEL`.
pub const ACCESS: &str = "access";

/// Fields that tell one kind of event from another where both are said at the same place: a thousand clients that were
/// idle for too long do not hide the one that was closed for another reason. Each has few values.
pub const KIND_FIELDS: [&str; 3] = ["reason", "setting", "problem"];
