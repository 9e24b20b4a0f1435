//! `CloudEvents` binary mode: the envelope's attributes as names and texts, the body apart.

use std::borrow::Cow;

use bytes::Bytes;

use super::{FIELDS, HEADERS, is_extension};
use crate::{Envelope, Error, ErrorKind, Headers, Result, Timestamp};

/// Every attribute of the envelope that is set, by its `CloudEvents` name, headers included.
pub fn attributes(envelope: &Envelope) -> Vec<(Cow<'static, str>, Cow<'_, str>)> {
    let mut list: Vec<(Cow<'static, str>, Cow<'_, str>)> = Vec::with_capacity(8 + envelope.headers.len());
    for_each(envelope, |name, value| list.push((Cow::Owned(name.to_owned()), value)));
    list
}

/// Calls `each` with every attribute that is set. Names are those of [`FIELDS`] or of headers.
pub(super) fn for_each<'a>(envelope: &'a Envelope, mut each: impl FnMut(&str, Cow<'a, str>)) {
    each("specversion", Cow::Borrowed("1.0"));
    each("id", Cow::Owned(envelope.id.to_string()));
    each("source", Cow::Borrowed(&envelope.source));
    each("type", Cow::Borrowed(envelope.topic.as_str()));
    each("time", Cow::Owned(envelope.time.to_string()));
    let optional = [
        ("subject", &envelope.subject),
        ("datacontenttype", &envelope.content_type),
        ("correlationid", &envelope.correlation_id),
        ("causationid", &envelope.causation_id),
        ("traceparent", &envelope.traceparent),
        ("partitionkey", &envelope.partition_key),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            each(name, Cow::Borrowed(value));
        }
    }
    if let Some(expires_at) = envelope.expires_at {
        each("expirytime", Cow::Owned(expires_at.to_string()));
    }
    if let Some(reply_to) = &envelope.reply_to {
        each("replyto", Cow::Borrowed(reply_to.as_str()));
    }
    let mut others = serde_json::Map::new();
    for (name, value) in envelope.headers.iter() {
        if is_extension(name) {
            each(name, Cow::Borrowed(value));
        } else {
            others.insert(name.to_owned(), value.into());
        }
    }
    if !others.is_empty() {
        each(HEADERS, Cow::Owned(serde_json::Value::Object(others).to_string()));
    }
}

/// An envelope from attributes and a body: the reverse of [`attributes`]. Unknown attributes become headers.
///
/// # Errors
///
/// [`ErrorKind::Undecodable`] when `id` or `type` is missing, or an attribute has a value that is not allowed.
pub fn from_attributes<'a>(
    list: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: Bytes,
) -> Result<Envelope> {
    let mut builder = Builder::default();
    for (name, value) in list {
        builder.set(name, value)?;
    }
    builder.finish(body)
}

/// An envelope in the making.
#[derive(Default)]
pub(super) struct Builder {
    id: Option<crate::MessageId>,
    topic: Option<crate::Topic>,
    source: Option<Box<str>>,
    time: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    reply_to: Option<crate::QueueName>,
    subject: Option<Box<str>>,
    pub(super) content_type: Option<Box<str>>,
    correlation_id: Option<Box<str>>,
    causation_id: Option<Box<str>>,
    traceparent: Option<Box<str>>,
    partition_key: Option<Box<str>>,
    headers: Headers,
}

impl Builder {
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let invalid = |source: Error| {
            Error::new(ErrorKind::Undecodable, format!("attribute {name}: {}", source.report()))
        };
        match name {
            "specversion" if value != "1.0" => {
                let sentence = format!("specversion {value:?} is not 1.0");
                return Err(Error::new(ErrorKind::Undecodable, sentence));
            }
            "specversion" => {}
            "id" => self.id = Some(value.parse().map_err(invalid)?),
            "type" => self.topic = Some(value.parse().map_err(invalid)?),
            "source" => self.source = Some(value.into()),
            "time" => self.time = Some(value.parse().map_err(invalid)?),
            "expirytime" => self.expires_at = Some(value.parse().map_err(invalid)?),
            "replyto" => self.reply_to = Some(value.parse().map_err(invalid)?),
            "subject" => self.subject = Some(value.into()),
            "datacontenttype" => self.content_type = Some(value.into()),
            "correlationid" => self.correlation_id = Some(value.into()),
            "causationid" => self.causation_id = Some(value.into()),
            "traceparent" => self.traceparent = Some(value.into()),
            "partitionkey" => self.partition_key = Some(value.into()),
            HEADERS => self.set_headers(value).map_err(invalid)?,
            header => self.headers.insert(header, value).map_err(invalid)?,
        }
        debug_assert!(FIELDS.len() == 14, "a new field needs an arm above");
        Ok(())
    }

    fn set_headers(&mut self, object: &str) -> Result<()> {
        let headers: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(object).map_err(|source| Error::new(ErrorKind::Undecodable, source))?;
        for (name, value) in headers {
            match value {
                serde_json::Value::String(text) => self.headers.insert(&name, &text)?,
                other => self.headers.insert(&name, &other.to_string())?,
            }
        }
        Ok(())
    }

    pub(super) fn finish(self, body: Bytes) -> Result<Envelope> {
        let missing =
            |name: &str| Error::new(ErrorKind::Undecodable, format!("the attribute {name} is missing"));
        Ok(Envelope {
            id: self.id.ok_or_else(|| missing("id"))?,
            topic: self.topic.ok_or_else(|| missing("type"))?,
            source: self.source.unwrap_or_else(|| "unknown".into()),
            subject: self.subject,
            time: self.time.unwrap_or_else(Timestamp::now),
            content_type: self.content_type,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            traceparent: self.traceparent,
            partition_key: self.partition_key,
            expires_at: self.expires_at,
            reply_to: self.reply_to,
            headers: self.headers,
            body,
        })
    }
}
