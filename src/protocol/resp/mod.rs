//! RESP, the Redis protocol: requests from clients, replies from Redis, and writing both.
//!
//! | file | noun |
//! |---|---|
//! | `request.rs` | the cursor parser of client requests, and the shortcut for a GET |
//! | `inline.rs` | unquoting of inline requests (`SET key "a b"` typed into telnet) |
//! | `reply.rs` | the scanner that finds where a reply of Redis ends |
//! | `value.rs` | a decoded reply, for handshakes |
//! | `write.rs` | appenders for requests and replies |
//! | `number.rs` | the integers in header lines |
//!
//! Never: I/O, a clock, an allocation that a peer's claim sizes. Facts about Redis are those of 7.0.15
//! (`networking.c`, `sds.c`, `util.c`), checked against that server.
#![forbid(unsafe_code)]

mod inline;
pub mod number;
pub mod reply;
pub mod request;
pub mod stream;
pub mod value;
pub mod write;

/// The byte at `at`. The request parser reads single bytes through here only, so that tests can count its looks.
#[inline(always)]
fn look(buf: &[u8], at: usize) -> Option<u8> {
    let byte = buf.get(at).copied();
    #[cfg(test)]
    looks::add(usize::from(byte.is_some()));
    byte
}

/// Counts how often the request parser looks at a byte, so that a test can hold it to its promise.
#[cfg(test)]
mod looks {
    use std::cell::Cell;

    thread_local!(static LOOKS: Cell<usize> = const { Cell::new(0) });

    pub(super) fn add(bytes: usize) {
        LOOKS.set(LOOKS.get() + bytes);
    }

    pub(super) fn take() -> usize {
        LOOKS.replace(0)
    }
}
