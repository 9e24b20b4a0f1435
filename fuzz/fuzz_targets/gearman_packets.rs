//! What a Gearman server may send, and what a job's data may be.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| estafette_gearman::fuzz(bytes));
