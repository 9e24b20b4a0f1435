//! The codec beside tungstenite's: the same frames, cut anywhere, mean the same to both; and so does what is broken.

use std::io::{Cursor, Read, Write};

use bytes::BytesMut;
use estafette_gateway::websocket::{
    decoder::{Decoder, Event, Limits},
    frame::{Header, Opcode, apply_mask, encode_masked},
};
use proptest::prelude::*;
use tungstenite::{
    Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

/// A peer that said these bytes and listens to nothing.
struct Said(Cursor<Vec<u8>>);

impl Read for Said {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What each side made of the bytes: messages and control frames, and whether it found a fault.
type Meaning = (Vec<String>, bool);

fn theirs(bytes: &[u8]) -> Meaning {
    let config = WebSocketConfig::default().max_message_size(Some(1 << 20)).max_frame_size(Some(1 << 20));
    let mut socket =
        WebSocket::from_raw_socket(Said(Cursor::new(bytes.to_vec())), Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(format!("text {:?}", text.as_bytes())),
            Ok(Message::Binary(data)) => seen.push(format!("binary {:?}", &data[..])),
            Ok(Message::Ping(data)) => seen.push(format!("ping {:?}", &data[..])),
            Ok(Message::Pong(data)) => seen.push(format!("pong {:?}", &data[..])),
            Ok(Message::Close(_)) => {
                seen.push("close".into());
                return (seen, false);
            }
            Ok(Message::Frame(_)) => unreachable!("reading yields no raw frames"),
            // The end of what was said is no fault.
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => {
                return (seen, false);
            }
            Err(_) => return (seen, true),
        }
    }
}

fn ours(bytes: &[u8], step: usize) -> Meaning {
    let (mut decoder, mut buffer, mut seen) = (Decoder::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            let (taken, event) = match decoder.decode(&mut buffer, &Limits::default()) {
                Ok(Some(decoded)) => decoded,
                Ok(None) => break,
                Err(_) => return (seen, true),
            };
            match event {
                Some(Event::Message { kind, data }) => {
                    let kind = format!("{kind:?}").to_lowercase();
                    seen.push(format!("{kind} {data:?}"));
                }
                Some(Event::Ping(data)) => seen.push(format!("ping {data:?}")),
                Some(Event::Pong(data)) => seen.push(format!("pong {data:?}")),
                Some(Event::Close(_)) => {
                    seen.push("close".into());
                    return (seen, false);
                }
                None => {}
            }
            buffer.drain(..taken);
        }
    }
    (seen, false)
}

fn opcodes() -> impl Strategy<Value = Opcode> {
    let opcodes =
        [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Ping, Opcode::Pong, Opcode::Close];
    prop::sample::select(opcodes.to_vec())
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => "\\PC{0,20}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (1000_u16..1020).prop_map(|code| code.to_be_bytes().to_vec()),
        1 => Just(Vec::new()),
    ]
}

/// Frames that may or may not be in a right order.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (opcodes(), any::<bool>(), payloads(), any::<[u8; 4]>()).prop_map(
        |(opcode, finish, mut payload, mask)| {
            if opcode.is_control() {
                payload.truncate(125);
            }
            let mut out = BytesMut::new();
            let finish = finish || opcode.is_control();
            Header { finish, opcode, mask: Some(mask), length: payload.len() as u64 }.write(&mut out);
            apply_mask(&mut payload, mask, 0);
            out.extend_from_slice(&payload);
            out.to_vec()
        },
    );
    prop::collection::vec(frame, 0..8).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whole_messages_mean_the_same(texts: Vec<String>, mask: [u8; 4], step in 1_usize..64) {
        let bytes = texts.iter().flat_map(|text| encode_masked(Opcode::Text, text.as_bytes(), mask)).collect::<Vec<_>>();
        prop_assert_eq!(ours(&bytes, step), theirs(&bytes));
    }

    #[test]
    fn frames_in_any_order_mean_the_same(bytes in frames(), step in 1_usize..64) {
        let (ours, mut theirs) = (ours(&bytes, step), theirs(&bytes));
        // They let codes pass that may not stand in a close frame.
        if ours.1 && !theirs.1 && theirs.0.last().is_some_and(|last| last == "close") {
            theirs.0.pop();
            theirs.1 = true;
        }
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn a_changed_byte_means_the_same(bytes in frames(), place: prop::sample::Index, byte: u8, step in 1_usize..64) {
        prop_assume!(!bytes.is_empty());
        let mut bytes = bytes;
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let (seen, fault) = ours(&bytes, step);
        let (their_seen, their_fault) = theirs(&bytes);
        // We refuse what they let pass (lengths in more bytes than needed, reserved close codes), never the other way.
        prop_assert!(!their_fault || fault || seen.len() <= their_seen.len(), "{:?} {:?}", seen, their_seen);
        prop_assert!(fault || seen == their_seen, "{:?} {:?}", seen, their_seen);
    }
}
