//! RESP: requests, the GET shortcut, replies.
//!
//! The body is `nearcache::fuzzing::resp_parser`, which a test on stable Rust drives as well.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache::fuzzing::resp_parser::run(data));
