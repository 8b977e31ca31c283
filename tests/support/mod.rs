//! What the end-to-end tests are made of: a real redis-server, the real binary, clients that speak raw bytes, and a
//! relay that breaks the connection between the two.
//!
//! Never: an assertion on how fast something was, or a sleep that hopes something has happened meanwhile. What takes
//! time is polled for with [`eventually`], and every read has a deadline ([`PATIENCE`]).
//! Invariant: whatever a value here has started (a process, a thread, a directory) is gone when the value is dropped,
//! also when its test fails.
//! Costs: a redis-server and a proxy per test, about 50 ms together.
#![allow(dead_code)] // each suite that includes this module uses another part of it

pub mod abuse;
pub mod coherent;
pub mod http;
pub mod ports;
pub mod proxy;
pub mod redis_server;
pub mod relay;
pub mod resp;
pub mod scratch;
pub mod tls;
pub mod tool;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before its test fails: long enough for a loaded machine, since only failures wait for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at something that is being waited for.
const POLL_PAUSE: Duration = Duration::from_millis(5);

/// Polls until `holds` says so; panics with `what` at the deadline.
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    eventually_some(what, deadline, || holds().then_some(()));
}

/// Polls until `look` finds something and returns it; panics with `what` at the deadline.
#[track_caller]
pub fn eventually_some<T>(what: &str, deadline: Duration, look: impl FnMut() -> Option<T>) -> T {
    match within(deadline, look) {
        Some(found) => found,
        None => panic!("not within {deadline:?}: {what}"),
    }
}

/// Polls until `look` finds something; `None` at the deadline.
pub fn within<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(POLL_PAUSE);
    }
}

/// Sends a signal by its name (`TERM`, `STOP`, `CONT`) to one process. Through the shell, whose `kill` is built in, so
/// that the tests need no `unsafe`.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status();
    assert!(
        status.expect("sh can be run").success(),
        "kill -{name} {pid} failed"
    );
}

/// Bytes as one reads them in a failed assertion.
pub fn show(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 2000;
    let text: String = bytes
        .iter()
        .take(SHOWN_MAX)
        .flat_map(|&b| std::ascii::escape_default(b))
        .map(char::from)
        .collect();
    if bytes.len() > SHOWN_MAX {
        format!("{text}... ({} bytes)", bytes.len())
    } else {
        text
    }
}
