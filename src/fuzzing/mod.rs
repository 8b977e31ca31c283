//! The bodies of the fuzz targets: each takes any bytes and panics where a promise is broken.
//!
//! They live in the library so that tests on stable Rust drive the very same code over the samples in `fuzz/corpus`; the
//! targets in `fuzz/fuzz_targets` only call them. Nothing else does, so a release binary does not contain them.
#![forbid(unsafe_code)]

pub mod cache_ops;
pub mod engine;
pub mod http_request;
pub mod resp_parser;
pub mod wheel_ops;
