//! Free loopback ports.
//!
//! They are taken from below the kernel's ephemeral range: a port inside it can be in use as the near end of anybody's
//! connection, and, worse, a client that keeps connecting to such a port while nobody listens (a proxy whose Redis is
//! down) ends up connected to itself.
//! A port that is free when we look may be taken when the server binds it: those who start servers try again.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;

const RANGE: Range<u16> = 11_000..32_000;
const TRIES_MAX: usize = 1000;

/// A port that nobody listens on, in neither family, and that this process has not been given before.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let given = given.get_or_insert_with(|| named_ports().into_iter().collect());
    for _ in 0..TRIES_MAX {
        let port = fastrand::u16(RANGE);
        if is_free(port) && given.insert(port) {
            return port;
        }
    }
    panic!("no free port found in {RANGE:?}");
}

/// Whether a listener could be bound to it now.
pub fn is_free(port: u16) -> bool {
    let v6_taken = TcpListener::bind((Ipv6Addr::LOCALHOST, port))
        .is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse);
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && !v6_taken
}

/// The HTTP port that the person who runs the tests asked for: `HTTP_PORT=8000 make test`, or by its alias.
pub fn named_http_port() -> Option<u16> {
    named("HTTP_PORT").or_else(|| named("FLASK_RUN_PORT"))
}

/// The RESP port that the person who runs the tests asked for: `RESP_PORT=21000 make test`.
pub fn named_resp_port() -> Option<u16> {
    named("RESP_PORT")
}

fn named_ports() -> Vec<u16> {
    named_http_port()
        .into_iter()
        .chain(named_resp_port())
        .collect()
}

fn named(key: &str) -> Option<u16> {
    let text = std::env::var(key).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{key}={text} is no port")),
    )
}
