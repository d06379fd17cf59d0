#![no_main]

use blin_core::ingest::fuzzing;

libfuzzer_sys::fuzz_target!(init: fuzzing::init(), |data: &[u8]| fuzzing::quoted(data));
