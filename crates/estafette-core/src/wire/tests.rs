use bytes::Bytes;
use proptest::prelude::*;

use super::{attributes, decode, encode, from_attributes};
use crate::{Envelope, ErrorKind, Timestamp, Topic};

fn envelope(body: &[u8], content_type: Option<&str>) -> Envelope {
    let mut envelope = Envelope::new(Topic::from_static("order.created"), Bytes::copy_from_slice(body));
    envelope.content_type = content_type.map(Into::into);
    envelope
}

fn round_trip(envelope: &Envelope) {
    let line = encode(envelope);
    assert!(!line.contains(&b'\n'), "{}", String::from_utf8_lossy(&line));
    assert_eq!(&decode(&line).unwrap(), envelope, "{}", String::from_utf8_lossy(&line));
    let list = attributes(envelope);
    let list = list.iter().map(|(name, value)| (&**name, &**value));
    assert_eq!(&from_attributes(list, envelope.body.clone()).unwrap(), envelope);
}

#[test]
fn a_json_body_stands_in_the_line_as_it_is() {
    let line = String::from_utf8(encode(&envelope(br#"{"id": 42}"#, Some("application/json")))).unwrap();
    assert!(line.ends_with(r#""data":{"id": 42}}"#), "{line}");
    assert!(line.starts_with(r#"{"specversion":"1.0","id":""#), "{line}");
}

#[test]
fn every_kind_of_body_comes_back_byte_for_byte() {
    let every_byte: Vec<u8> = (0..=255).collect();
    let bodies: [&[u8]; 10] =
        [b"", b"{}", b" {} ", b"{\n}", b"not json", b"\"text\"", b"null", b"1.0", &every_byte, b"a\"\\\x01"];
    for body in bodies {
        for content_type in
            [None, Some("application/json"), Some("text/plain"), Some("image/png"), Some("a/b+json")]
        {
            round_trip(&envelope(body, content_type));
        }
    }
}

#[test]
fn headers_of_either_style_come_back() {
    let mut full = envelope(b"{}", None);
    full.headers.insert("tenant", "acme").unwrap();
    full.headers.insert("X-Empty", "").unwrap();
    full.headers.insert("Имя", "ü\u{1}\n\"").unwrap();
    full.headers.insert("longer-than-twenty-characters", &"x".repeat(1024)).unwrap();
    full.expires_at = Some(Timestamp::from_micros(1_800_000_000_000_001));
    full.reply_to = Some("replies".parse().unwrap());
    full.partition_key = Some("k".into());
    full.subject = Some("order/1".into());
    full.correlation_id = Some("c".into());
    full.causation_id = Some("d".into());
    full.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let decoded = decode(&encode(&full)).unwrap();
    assert_eq!(decoded.headers.get("X-Empty"), Some(""));
    assert_eq!(decoded.headers.get("Имя"), Some("ü\u{1}\n\""));
    assert_eq!(decoded.headers.len(), 4);
    assert_eq!(decoded.expires_at, full.expires_at);
    assert_eq!(decoded.reply_to, full.reply_to);
}

#[test]
fn documents_of_other_writers_are_read() {
    let line = r#" {"specversion":"1.0","type":"a.b","source":"/x","id":"1","sampled":true,"level":3,"note":null,
        "datacontenttype":"application/xml","data":"<a b=\"c\"/>","dataschema":"x"} "#;
    let envelope = decode(line.as_bytes()).unwrap();
    assert_eq!(envelope.headers.get("sampled"), Some("true"));
    assert_eq!(envelope.headers.get("level"), Some("3"));
    assert_eq!(envelope.headers.get("note"), None);
    assert_eq!(&envelope.body[..], br#"<a b="c"/>"#);
}

#[test]
fn what_is_no_envelope_is_refused_with_a_reason() {
    for (line, reason) in [
        ("", "EOF"),
        ("garbage", "expected"),
        ("[]", "CloudEvents object"),
        ("{}", "id is missing"),
        (r#"{"id":"1"}"#, "type is missing"),
        (r#"{"id":"1","type":"a b"}"#, "not allowed"),
        (r#"{"id":"1","type":"a","data_base64":"?"}"#, "Invalid"),
        (r#"{"id":"1","type":"a","specversion":"0.3"}"#, "not 1.0"),
        (r#"{"id":"1","type":"a","time":"yesterday"}"#, "time"),
    ] {
        let error = decode(line.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        assert!(error.report().contains(reason), "{line}: {}", error.report());
    }
}

proptest! {
    #[test]
    fn decoding_anything_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).map_or_else(|error| error.kind() == ErrorKind::Undecodable, |_| true));
    }

    #[test]
    fn decoding_what_was_encoded_gives_the_same(
        body in proptest::collection::vec(any::<u8>(), 0..100),
        value in ".{0,40}",
        content_type in proptest::option::of("[a-z]{1,5}/[a-z]{1,5}(\\+json)?|application/json"),
    ) {
        let mut envelope = envelope(&body, content_type.as_deref());
        envelope.subject = Some(value.clone().into());
        envelope.headers.insert("h", &value).unwrap();
        round_trip(&envelope);
    }

    #[test]
    fn json_bodies_come_back_byte_for_byte(text in "[\\[\\]{}:,\"0-9a-z\\\\ \n]{0,30}") {
        round_trip(&envelope(text.as_bytes(), None));
    }
}
