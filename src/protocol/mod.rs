//! What the wire says: RESP requests and replies, and HTTP/1 requests. No I/O, no clock.
#![forbid(unsafe_code)]

pub mod http;
pub mod resp;

/// A parser's answer. `More` is not an error: the bytes so far are the beginning of something valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parse<T, E> {
    /// A whole item.
    Done(T),
    /// Not enough bytes yet; call again with the same bytes and some more.
    More,
    /// No continuation of these bytes can be valid.
    Bad(E),
}
