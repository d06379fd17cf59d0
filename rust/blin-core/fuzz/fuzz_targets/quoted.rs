#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blin_core::ingest::fuzzing::quoted(data));
