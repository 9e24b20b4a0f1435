//! What a backend may send to the management API, in both dialects.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| estafette_gateway::api::fuzz(bytes));
