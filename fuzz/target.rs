//! The program of each target: which one it is, its name says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| switchboard_fuzz::check(env!("CARGO_BIN_NAME"), data));
