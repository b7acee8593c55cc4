//! See `kifa::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kifa::fuzzing::control(data));
