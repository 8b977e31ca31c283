//! Bytes of a client of the HTTP port; the checks are in `nearcache::fuzzing::http_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache::fuzzing::http_request::run(data));
