//! The timer wheel against a naive reference.
//!
//! The body is `nearcache::fuzzing::wheel_ops`, which a test on stable Rust drives as well.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache::fuzzing::wheel_ops::run(data));
