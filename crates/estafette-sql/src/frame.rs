//! Envelopes as bytes in a block: a length, then the fields one after the other, then the body as it is.
//!
//! Not `CloudEvents` JSON, which takes half as many bytes again and several times as long, and would write a binary body as
//! text. Dead letters, which people look at, are JSON. Numbers are little-endian; a text is its length as a variable-length
//! number (seven bits a byte, the lowest first) and its bytes.
//!
//! | field | form |
//! |---|---|
//! | length of what follows | 4 bytes |
//! | which optional fields there are, a bit each, see the constants | 2 bytes |
//! | time, in microseconds since 1970 | 8 bytes |
//! | id | 16 bytes when it is a UUID, or else a text |
//! | topic, source | texts; left out, with the content type, when they are those of the block's first frame |
//! | subject, content type, correlation id, causation id, traceparent, partition key, reply to | texts, optional |
//! | expiry, in microseconds since 1970 | 8 bytes, optional |
//! | headers: how many, and name and value of each | number and texts, optional |
//! | body | the rest |

use estafette_core::{Bytes, Envelope, Error, ErrorKind, Headers, MessageId, Result, Timestamp, Topic};

// The lower bits are the optional texts, in the order of the table.
const CONTENT_TYPE: u16 = 1 << 1;
const EXPIRES: u16 = 1 << 7;
const HEADERS: u16 = 1 << 8;
const ID_IS_UUID: u16 = 1 << 9;
const LIKE_FIRST: u16 = 1 << 10;

/// What the envelopes of a block mostly share: they are of one kind and from one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    topic: Topic,
    source: Box<str>,
    content_type: Option<Box<str>>,
}

impl Kind {
    pub(crate) fn of(envelope: &Envelope) -> Self {
        let Envelope { topic, source, content_type, .. } = envelope.clone();
        Self { topic, source, content_type }
    }

    fn is_of(&self, envelope: &Envelope) -> bool {
        self.topic == envelope.topic
            && self.source == envelope.source
            && self.content_type == envelope.content_type
    }
}

/// Appends `envelope`; `first` is the kind of the block's first, when this is not the first.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] beyond 4 GiB.
pub(crate) fn encode_into(envelope: &Envelope, first: Option<&Kind>, bytes: &mut Vec<u8>) -> Result<()> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    let reply_to = envelope.reply_to.as_ref().map(|queue| queue.as_str());
    let like_first = first.is_some_and(|first| first.is_of(envelope));
    let optional = [
        envelope.subject.as_deref(),
        envelope.content_type.as_deref().filter(|_| !like_first),
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
    present |= if like_first { LIKE_FIRST } else { 0 };
    bytes.extend_from_slice(&present.to_le_bytes());
    bytes.extend_from_slice(&envelope.time.as_micros().to_le_bytes());
    match uuid {
        Some(uuid) => bytes.extend_from_slice(&uuid),
        None => put_text(&envelope.id.to_string(), bytes),
    }
    if !like_first {
        put_text(envelope.topic.as_str(), bytes);
        put_text(&envelope.source, bytes);
    }
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

/// The kind of the envelope in a block's first frame.
///
/// # Errors
///
/// As [`decode`].
pub(crate) fn kind(frame: &[u8]) -> Result<Kind> {
    let mut rest = Rest(frame);
    let (present, _time, _id) = rest.head()?;
    let (topic, source) = (rest.text()?.parse()?, rest.text()?.into());
    let before = present & (CONTENT_TYPE - 1);
    if before != 0 {
        rest.text()?;
    }
    let content_type = if present & CONTENT_TYPE == 0 { None } else { Some(rest.text()?.into()) };
    Ok(Kind { topic, source, content_type })
}

/// The envelope in a frame; `first` is the kind of the block's first, when this is not the first.
///
/// # Errors
///
/// [`ErrorKind::Undecodable`] when the bytes have another form.
pub(crate) fn decode(frame: &[u8], first: Option<&Kind>) -> Result<Envelope> {
    let mut rest = Rest(frame);
    let (present, time, id) = rest.head()?;
    let Kind { topic, source, content_type: shared } = match present & LIKE_FIRST {
        0 => Kind { topic: rest.text()?.parse()?, source: rest.text()?.into(), content_type: None },
        _ => first.ok_or_else(cut_short)?.clone(),
    };
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
        content_type: boxed(content_type).or(shared),
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

    /// Which optional fields there are, the time and the id.
    fn head(&mut self) -> Result<(u16, Timestamp, MessageId)> {
        let present = u16::from_le_bytes(self.array()?);
        let time = Timestamp::from_micros(i64::from_le_bytes(self.array()?));
        let id = match present & ID_IS_UUID {
            0 => self.text()?.parse()?,
            _ => MessageId::from_uuid_bytes(self.array()?),
        };
        Ok((present, time, id))
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
        let first = Kind::of(envelope);
        for first in [None, Some(&first)] {
            let mut bytes = Vec::new();
            encode_into(envelope, first, &mut bytes).unwrap();
            bytes.extend_from_slice(b"next");
            let (frame, rest) = split_first(&bytes);
            assert_eq!((&decode(frame, first).unwrap(), rest), (envelope, &b"next"[..]));
            if first.is_none() {
                assert_eq!(kind(frame).unwrap(), Kind::of(envelope));
            }
        }
    }

    #[test]
    fn only_what_is_shared_is_left_out() {
        let first = envelope(b"");
        let mut other = first.clone();
        for change in [
            |other: &mut Envelope| other.topic = Topic::from_static("other"),
            |other: &mut Envelope| other.source = "other".into(),
            |other: &mut Envelope| other.content_type = Some("text/plain".into()),
        ] {
            change(&mut other);
            let mut bytes = Vec::new();
            encode_into(&other, Some(&Kind::of(&first)), &mut bytes).unwrap();
            assert_eq!(decode(split_first(&bytes).0, None).unwrap(), other);
            other = first.clone();
        }
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
            prop_assert!(decode(frame, None).and_then(|_| kind(frame)).map_or_else(|error| !error.is_retryable(), |_| true));
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
