//! The whole engine: clients, links, workers, pushes and time in any order.
//!
//! The body is `nearcache::fuzzing::engine`, which a test on stable Rust drives as well.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache::fuzzing::engine::run(data));
