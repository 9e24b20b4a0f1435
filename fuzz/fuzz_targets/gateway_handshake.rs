//! What a user may send as a handshake.

#![no_main]

use estafette_gateway::websocket::handshake::{Handshake, HandshakeLimits};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((handshake, length))) = Handshake::parse(bytes, &HandshakeLimits::default()) {
        assert!(length <= bytes.len());
        let _ = (handshake.path(), handshake.query("token"), handshake.origin_is_allowed(&[]));
    }
});
