//! Envelopes as AMQP messages and back.
//!
//! | envelope | property | or header |
//! |---|---|---|
//! | id | `message_id` | `cloudEvents:id` |
//! | topic | `type` | `cloudEvents:type` |
//! | source | `app_id` | `cloudEvents:source` |
//! | time | `timestamp`, in seconds | `cloudEvents:time` |
//! | content type | `content_type` | `cloudEvents:datacontenttype` |
//! | correlation id | `correlation_id` | `cloudEvents:correlationid` |
//! | reply to | `reply_to` | `cloudEvents:replyto` |
//! | expires at | `expiration`, milliseconds from now | `cloudEvents:expirytime` |
//! | subject, causation id, traceparent, partition key | | `cloudEvents:` and the attribute's name |
//! | headers | | headers of the same name |
//!
//! The header `cloudEvents:specversion` says that the property `type` is a topic. Without it the message is foreign: its topic
//! is the routing key (or the exchange), and every header that is text, number or truth value becomes a header.
//! What the broker and Estafette note about a message (`x-death`, `x-estafette-…`) is no part of the envelope.

use std::borrow::Cow;

use bytes::Bytes;
use estafette_core::{Envelope, Error, ErrorKind, MessageId, Result, Timestamp, Topic};

use crate::{
    config::Compat,
    error,
    link::Content,
    marks, names,
    protocol::{
        Properties, Reader,
        fields::{Fields, put_i32_field, put_text_field},
    },
};

const PREFIX: &str = "cloudEvents:";
/// What some writers use instead, since a colon is not allowed everywhere.
const OTHER_PREFIX: &str = "cloudEvents_";
/// The longest short string.
const SHORT_MAX: usize = 255;
/// The topic of a foreign message whose routing key and exchange are no topic.
const FOREIGN: Topic = Topic::from_static("foreign");

/// Appends the header frame of a new message.
pub(crate) fn put_header(
    out: &mut Vec<u8>,
    channel: u16,
    envelope: &Envelope,
    compat: Compat,
    expiration: Option<&str>,
) {
    let id = envelope.id.to_string();
    let fits = |text: &'_ Option<Box<str>>| text.as_ref().is_some_and(|text| text.len() <= SHORT_MAX);
    let short = |text: &'_ Option<Box<str>>| fits(text);
    let own = compat != Compat::Chocofamily;
    let properties = Properties {
        content_type: match compat {
            Compat::None => envelope.content_type.as_deref().filter(|_| short(&envelope.content_type)),
            Compat::Aed => Some("text/plain"),
            Compat::Chocofamily => None,
        },
        headers: Some(Fields(&[])),
        delivery_mode: Some(2),
        correlation_id: match &envelope.correlation_id {
            Some(text) if text.len() <= SHORT_MAX => Some(text),
            // Its subscribers die without one.
            _ if !own => Some(&id),
            _ => None,
        },
        reply_to: envelope.reply_to.as_ref().map(|queue| queue.as_str()),
        expiration,
        message_id: Some(&id),
        timestamp: u64::try_from(envelope.time.as_micros() / 1_000_000).ok().filter(|_| own),
        kind: Some(envelope.topic.as_str()).filter(|_| own),
        app_id: Some(&*envelope.source).filter(|text| text.len() <= SHORT_MAX),
        ..Properties::default()
    };
    properties.put_frame(out, channel, envelope.body.len(), |out| {
        if own {
            put_text_field(out, "cloudEvents:specversion", "1.0");
            put_text_field(out, "cloudEvents:time", &envelope.time.to_string());
        }
        put_fields(out, envelope, compat);
    });
}

/// Appends what has no property.
fn put_fields(out: &mut Vec<u8>, envelope: &Envelope, compat: Compat) {
    let long = |text: &'_ Option<Box<str>>| text.as_deref().is_some_and(|text| text.len() > SHORT_MAX);
    let text = |out: &mut Vec<u8>, name: &str, value: Option<&str>| {
        if let Some(value) = value {
            put_text_field(out, name, value);
        }
    };
    text(out, "cloudEvents:subject", envelope.subject.as_deref());
    text(out, "cloudEvents:causationid", envelope.causation_id.as_deref());
    text(out, "cloudEvents:traceparent", envelope.traceparent.as_deref());
    text(out, "cloudEvents:partitionkey", envelope.partition_key.as_deref());
    if long(&envelope.correlation_id) {
        text(out, "cloudEvents:correlationid", envelope.correlation_id.as_deref());
    }
    if long(&envelope.content_type) || (compat == Compat::Aed && envelope.content_type.is_some()) {
        text(out, "cloudEvents:datacontenttype", envelope.content_type.as_deref());
    }
    if envelope.source.len() > SHORT_MAX {
        text(out, "cloudEvents:source", Some(&envelope.source));
    }
    if let Some(expires_at) = envelope.expires_at {
        put_text_field(out, "cloudEvents:expirytime", &expires_at.to_string());
    }
    let mut has_span = compat != Compat::Chocofamily;
    for (name, value) in envelope.headers.iter() {
        match value.parse() {
            Ok(number) if compat == Compat::Chocofamily && name == "span_id" => {
                has_span = true;
                put_i32_field(out, name, number);
            }
            _ => put_text_field(out, name, value),
        }
    }
    if !has_span {
        put_i32_field(out, "span_id", 0);
    }
}

/// The exchange and the routing key a message was published with.
pub(crate) fn origin(origin: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>)> {
    let mut reader = Reader(origin);
    let mut read = || Ok((reader.text()?, reader.text()?));
    read().map_err(error::malformed)
}

/// The envelope of a message as it came. `origin` is the exchange and the routing key.
///
/// # Errors
///
/// [`ErrorKind::Undecodable`] when it says it is a CloudEvent and is none.
pub(crate) fn read(content: &Content, from: &[u8]) -> Result<Envelope> {
    let properties = Properties::read(&content.header).map_err(error::malformed)?;
    let fields = properties.fields();
    let is_ours = attribute(fields, "specversion").is_some();
    let id = match properties.message_id.map(Cow::Borrowed).or_else(|| attribute(fields, "id")) {
        Some(text) => text
            .parse()
            .or_else(|error| if is_ours { Err(undecodable("id", &error)) } else { Ok(MessageId::new()) })?,
        None => MessageId::new(),
    };
    let topic = if is_ours {
        let text = attribute(fields, "type").or(properties.kind.map(Cow::Borrowed)).unwrap_or_default();
        text.parse().map_err(|error| undecodable("type", &error))?
    } else {
        foreign_topic(fields, from)?
    };
    let mut envelope = Envelope::new(topic, content.body.clone());
    envelope.id = id;
    envelope.source = properties.app_id.unwrap_or("unknown").into();
    envelope.content_type = properties.content_type.map(Into::into);
    envelope.correlation_id = properties.correlation_id.map(Into::into);
    envelope.reply_to = properties.reply_to.and_then(|text| text.parse().ok());
    if let Some(seconds) = properties.timestamp.and_then(|seconds| i64::try_from(seconds).ok()) {
        envelope.time = Timestamp::from_micros(seconds.saturating_mul(1_000_000));
    }
    for field in fields {
        // A name that is no UTF-8 cannot be a header of ours.
        let Ok(name) = std::str::from_utf8(field.name) else { continue };
        if marks::is_mark(name) {
            continue;
        }
        let Some(value) = field.value.to_text() else { continue };
        match name.strip_prefix(PREFIX).or_else(|| name.strip_prefix(OTHER_PREFIX)) {
            Some(attribute) => set_attribute(&mut envelope, attribute, &value)?,
            // Foreign headers may have names that ours cannot.
            None => drop(envelope.headers.insert(name, &value)),
        }
    }
    Ok(envelope)
}

fn attribute<'a>(fields: Fields<'a>, name: &str) -> Option<Cow<'a, str>> {
    let is_it = |field: &[u8]| {
        let rest =
            field.strip_prefix(PREFIX.as_bytes()).or_else(|| field.strip_prefix(OTHER_PREFIX.as_bytes()));
        rest == Some(name.as_bytes())
    };
    let mut fields = fields;
    fields.find(|field| is_it(field.name))?.value.to_text()
}

fn foreign_topic(fields: Fields<'_>, from: &[u8]) -> Result<Topic> {
    if let Some(key) = fields.text(marks::KEY).and_then(|key| names::topic_of(&key)) {
        return Ok(key);
    }
    let (exchange, key) = origin(from)?;
    Ok(names::topic_of(&key).or_else(|| names::topic_of(&exchange)).unwrap_or(FOREIGN))
}

fn set_attribute(envelope: &mut Envelope, name: &str, value: &str) -> Result<()> {
    let invalid = |error: Error| undecodable(name, &error);
    match name {
        "time" => envelope.time = value.parse().map_err(invalid)?,
        "source" => envelope.source = value.into(),
        "subject" => envelope.subject = Some(value.into()),
        "datacontenttype" => envelope.content_type = Some(value.into()),
        "correlationid" => envelope.correlation_id = Some(value.into()),
        "causationid" => envelope.causation_id = Some(value.into()),
        "traceparent" => envelope.traceparent = Some(value.into()),
        "partitionkey" => envelope.partition_key = Some(value.into()),
        "expirytime" => envelope.expires_at = Some(value.parse().map_err(invalid)?),
        "replyto" => envelope.reply_to = Some(value.parse().map_err(invalid)?),
        // Read before, or none of ours.
        "specversion" | "id" | "type" => {}
        other => envelope.headers.insert(other, value).map_err(invalid)?,
    }
    Ok(())
}

fn undecodable(name: &str, error: &Error) -> Error {
    Error::new(ErrorKind::Undecodable, format!("attribute {name}: {}", error.report()))
}

/// How long until the envelope expires, as the property `expiration` has it; none when it does not.
pub(crate) fn expiration(envelope: &Envelope) -> Option<String> {
    let left = envelope.expires_at?.since(Timestamp::now());
    // Rounded up, so that the broker never thinks it expired before we do.
    let millis = left.as_micros().div_ceil(1000).min(u128::from(u32::MAX - 1));
    Some(millis.to_string())
}

/// The envelope of a message that has none: its bytes.
pub(crate) fn undecoded(body: Bytes) -> Envelope {
    Envelope::undecodable(body)
}
