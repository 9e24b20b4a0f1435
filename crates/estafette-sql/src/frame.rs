//! Envelopes as bytes in a block: a length, then the fields one after the other, then the body as it is.
//!
//! Not `CloudEvents` JSON, which takes half as many bytes again and several times as long, and would write a binary body as
//! text. Dead letters, which people look at, are JSON. Numbers are little-endian; a text is its length as a variable-length
//! number (seven bits a byte, the lowest first) and its bytes.
//!
//! | field | form |
//! |---|---|
//! | length of what follows | 4 bytes |
//! | which optional fields there are, a bit each in the order below | 2 bytes |
//! | time, in microseconds since 1970 | 8 bytes |
//! | id | 16 bytes when it is a UUID, or else a text |
//! | topic, source | texts |
//! | subject, content type, correlation id, causation id, traceparent, partition key, reply to | texts, optional |
//! | expiry, in microseconds since 1970 | 8 bytes, optional |
//! | headers: how many, and name and value of each | number and texts, optional |
//! | body | the rest |

use estafette_core::{Bytes, Envelope, Error, ErrorKind, Headers, MessageId, Result, Timestamp};

const EXPIRES: u16 = 1 << 7;
const HEADERS: u16 = 1 << 8;
const ID_IS_UUID: u16 = 1 << 9;

/// Appends `envelope`.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] beyond 4 GiB.
pub(crate) fn encode_into(envelope: &Envelope, bytes: &mut Vec<u8>) -> Result<()> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    let reply_to = envelope.reply_to.as_ref().map(|queue| queue.as_str());
    let optional = [
        envelope.subject.as_deref(),
        envelope.content_type.as_deref(),
        envelope.correlation_id.as_deref(),
        envelope.causation_id.as_deref(),
        envelope.traceparent.as_deref(),
        envelope.partition_key.as_deref(),
        reply_to,
    ];
    let mut present = 0;
    for (bit, text) in optional.iter().enumerate() {
        present |= u16::from(text.is_some()) << bit;
    }
    present |= if envelope.expires_at.is_some() { EXPIRES } else { 0 };
    present |= if envelope.headers.is_empty() { 0 } else { HEADERS };
    let uuid = envelope.id.uuid_bytes();
    present |= if uuid.is_some() { ID_IS_UUID } else { 0 };
    bytes.extend_from_slice(&present.to_le_bytes());
    bytes.extend_from_slice(&envelope.time.as_micros().to_le_bytes());
    match uuid {
        Some(uuid) => bytes.extend_from_slice(&uuid),
        None => put_text(&envelope.id.to_string(), bytes),
    }
    put_text(envelope.topic.as_str(), bytes);
    put_text(&envelope.source, bytes);
    optional.into_iter().flatten().for_each(|text| put_text(text, bytes));
    if let Some(expires_at) = envelope.expires_at {
        bytes.extend_from_slice(&expires_at.as_micros().to_le_bytes());
    }
    if !envelope.headers.is_empty() {
        put_number(envelope.headers.len(), bytes);
        for (name, value) in envelope.headers.iter() {
            put_text(name, bytes);
            put_text(value, bytes);
        }
    }
    bytes.extend_from_slice(&envelope.body);
    let length = u32::try_from(bytes.len() - start - 4).map_err(|_too_long| ErrorKind::TooLarge)?;
    if let Some(place) = bytes.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

fn put_number(mut number: usize, bytes: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn put_text(text: &str, bytes: &mut Vec<u8>) {
    put_number(text.len(), bytes);
    bytes.extend_from_slice(text.as_bytes());
}

/// Splits the first frame off a block: its bytes without the length. What is cut short is returned as far as it goes.
pub(crate) fn split_first(block: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = block.split_first_chunk::<4>() else { return (block, &[]) };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    rest.split_at(length.min(rest.len()))
}

/// The envelope in a frame.
///
/// # Errors
///
/// [`ErrorKind::Undecodable`] when the bytes have another form.
pub(crate) fn decode(frame: &[u8]) -> Result<Envelope> {
    let mut rest = Rest(frame);
    let present = u16::from_le_bytes(rest.array()?);
    let time = Timestamp::from_micros(i64::from_le_bytes(rest.array()?));
    let id = match present & ID_IS_UUID {
        0 => rest.text()?.parse()?,
        _ => MessageId::from_uuid_bytes(rest.array()?),
    };
    let topic = rest.text()?.parse()?;
    let source = rest.text()?.into();
    let mut optional = [const { None }; 7];
    for (bit, text) in optional.iter_mut().enumerate() {
        if present & (1 << bit) != 0 {
            *text = Some(rest.text()?);
        }
    }
    let [subject, content_type, correlation_id, causation_id, traceparent, partition_key, reply_to] =
        optional;
    let expires_at = match present & EXPIRES {
        0 => None,
        _ => Some(Timestamp::from_micros(i64::from_le_bytes(rest.array()?))),
    };
    let mut headers = Headers::new();
    let count = if present & HEADERS == 0 { 0 } else { rest.number()? };
    for _ in 0..count {
        let name = rest.text()?;
        headers.insert(name, rest.text()?)?;
    }
    let boxed = |text: Option<&str>| text.map(Box::from);
    Ok(Envelope {
        id,
        topic,
        source,
        subject: boxed(subject),
        time,
        content_type: boxed(content_type),
        correlation_id: boxed(correlation_id),
        causation_id: boxed(causation_id),
        traceparent: boxed(traceparent),
        partition_key: boxed(partition_key),
        expires_at,
        reply_to: reply_to.map(str::parse).transpose()?,
        headers,
        body: Bytes::copy_from_slice(rest.0),
    })
}

/// What of a frame is not read yet.
struct Rest<'f>(&'f [u8]);

impl<'f> Rest<'f> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or_else(cut_short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<usize> {
        let mut number = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let [byte] = self.array()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(cut_short())
    }

    fn text(&mut self) -> Result<&'f str> {
        let length = self.number()?;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(cut_short)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|source| Error::new(ErrorKind::Undecodable, source))
    }
}

fn cut_short() -> Error {
    Error::new(ErrorKind::Undecodable, "the stored envelope is cut short")
}

#[cfg(test)]
mod tests {
    use estafette_core::Topic;
    use proptest::prelude::*;

    use super::*;

    fn round_trip(envelope: &Envelope) {
        let mut bytes = Vec::new();
        encode_into(envelope, &mut bytes).unwrap();
        bytes.extend_from_slice(b"next");
        let (frame, rest) = split_first(&bytes);
        assert_eq!((&decode(frame).unwrap(), rest), (envelope, &b"next"[..]));
    }

    fn envelope(body: &[u8]) -> Envelope {
        Envelope::new(Topic::from_static("order.created"), Bytes::copy_from_slice(body))
    }

    #[test]
    fn every_field_comes_back() {
        let mut full = envelope(&(0..=255).collect::<Vec<u8>>());
        full.subject = Some("order/1".into());
        full.content_type = Some("application/json".into());
        full.correlation_id = Some("c".into());
        full.causation_id = Some("".into());
        full.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        full.partition_key = Some("k".into());
        full.reply_to = Some("replies".parse().unwrap());
        full.expires_at = Some(Timestamp::from_micros(1_800_000_000_000_001));
        full.headers.insert("Имя", &"ü\u{1}\n\"".repeat(100)).unwrap();
        full.headers.insert("empty", "").unwrap();
        round_trip(&full);
        full.id = "42".parse().unwrap();
        round_trip(&full);
        round_trip(&envelope(b""));
    }

    proptest! {
        #[test]
        fn decoding_anything_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (frame, _) = split_first(&bytes);
            prop_assert!(decode(frame).map_or_else(|error| !error.is_retryable(), |_| true));
        }

        #[test]
        fn decoding_what_was_encoded_gives_the_same(
            body in proptest::collection::vec(any::<u8>(), 0..100),
            subject in proptest::option::of(".{0,200}"),
            value in ".{0,40}",
        ) {
            let mut envelope = envelope(&body);
            envelope.subject = subject.map(Into::into);
            envelope.headers.insert("h", &value).unwrap();
            round_trip(&envelope);
        }
    }
}
