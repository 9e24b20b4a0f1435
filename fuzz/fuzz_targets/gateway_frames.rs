//! What a user may send after the handshake: the same events, however the bytes are cut.

#![no_main]

use estafette_gateway::websocket::decoder::{Decoder, Event, Limits};

fn events(bytes: &[u8], step: usize) -> (Vec<String>, bool) {
    let (mut decoder, mut buffer, mut seen) = (Decoder::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer, &Limits::default()) {
                Ok(None) => break,
                Err(_) => return (seen, true),
                Ok(Some((taken, event))) => {
                    let is_close = matches!(event, Some(Event::Close(_)));
                    seen.extend(event.map(|event| format!("{event:?}")));
                    if is_close {
                        return (seen, false);
                    }
                    buffer.drain(..taken);
                }
            }
        }
    }
    (seen, false)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert_eq!(events(bytes, 1), events(bytes, bytes.len().max(1)));
});
