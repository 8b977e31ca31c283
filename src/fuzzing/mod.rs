//! Bodies of the fuzz targets: each takes arbitrary bytes and panics when an invariant breaks.
//!
//! They stand in the library so that ordinary tests drive them too, with seeded bytes and with the files of
//! `fuzz/corpus`. They are not part of the proxy.
#![forbid(unsafe_code)]

pub mod cache_ops;
pub mod http_request;
pub mod wheel_ops;
