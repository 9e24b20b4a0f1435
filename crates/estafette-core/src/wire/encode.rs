//! `CloudEvents` structured JSON, writing.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{attributes::for_each, is_json};
use crate::Envelope;

/// The envelope as one line of JSON, without the line feed.
#[must_use]
pub fn encode(envelope: &Envelope) -> Vec<u8> {
    let mut line = Vec::with_capacity(envelope.body.len() + 320);
    encode_into(envelope, &mut line);
    line
}

/// Appends the envelope as one line of JSON, without the line feed.
pub fn encode_into(envelope: &Envelope, line: &mut Vec<u8>) {
    line.push(b'{');
    for_each(envelope, |name, value| {
        // Attribute names are plain: the specification's own, or checked by `is_extension`.
        line.push(b'"');
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b"\":");
        string(&value, line);
        line.push(b',');
    });
    data(envelope, line);
    if line.last() == Some(&b',') {
        line.pop();
    }
    line.push(b'}');
}

fn data(envelope: &Envelope, line: &mut Vec<u8>) {
    let content_type = envelope.content_type.as_deref();
    if envelope.body.is_empty() {
        return;
    }
    if is_json(content_type) {
        if is_one_json_value(&envelope.body) {
            line.extend_from_slice(b"\"data\":");
            line.extend_from_slice(&envelope.body);
            return;
        }
    } else if let Some(text) =
        content_type.filter(|text| text.starts_with("text/")).and_then(|_| utf8(envelope))
    {
        line.extend_from_slice(b"\"data\":");
        return string(text, line);
    }
    line.extend_from_slice(b"\"data_base64\":\"");
    line.extend_from_slice(BASE64_STANDARD.encode(&envelope.body).as_bytes());
    line.push(b'"');
}

fn utf8(envelope: &Envelope) -> Option<&str> {
    std::str::from_utf8(&envelope.body).ok()
}

/// Whether the body can stand in the line as it is and be read back byte for byte: one JSON value, no line breaks, no space
/// around it.
fn is_one_json_value(body: &[u8]) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
    !edge(body.first())
        && !edge(body.last())
        && !body.iter().any(|byte| matches!(byte, b'\n' | b'\r'))
        && serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok()
}

/// Appends `text` as a JSON string.
fn string(text: &str, line: &mut Vec<u8>) {
    // Nearly all attributes need no escape, and finding that out is quicker than a serialiser.
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        line.push(b'"');
        line.extend_from_slice(text.as_bytes());
        line.push(b'"');
    } else {
        line.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}
