//! The attributes of an envelope that have no column of their own, as JSON.

use std::borrow::Cow;

use estafette_core::{Envelope, Error, ErrorKind, Headers, Result};
use serde::{Deserialize, Serialize};

/// What only some messages have. Absent members are not written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Attributes<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    causation_id: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    reply_to: Option<Cow<'a, str>>,
    // Pairs and not an object: the order they were set in is kept.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// The rarer attributes of `envelope` as JSON; none when it has none.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] when they cannot be written, which no text does.
pub(crate) fn encode(envelope: &Envelope) -> Result<Option<String>> {
    let Envelope { subject, correlation_id, causation_id, traceparent, reply_to, headers, .. } = envelope;
    let none = [subject, correlation_id, causation_id, traceparent].into_iter().all(Option::is_none);
    if none && reply_to.is_none() && headers.is_empty() {
        return Ok(None);
    }
    let borrowed = |text: &'_ Option<Box<str>>| text.as_deref().map(|text| Cow::Owned(text.to_owned()));
    let attributes = Attributes {
        subject: borrowed(subject),
        correlation_id: borrowed(correlation_id),
        causation_id: borrowed(causation_id),
        traceparent: borrowed(traceparent),
        reply_to: reply_to.as_ref().map(|queue| Cow::Borrowed(queue.as_str())),
        headers: headers.iter().map(|(name, value)| (name.into(), value.into())).collect(),
    };
    match serde_json::to_string(&attributes) {
        Ok(text) => Ok(Some(text)),
        Err(source) => Err(Error::new(ErrorKind::InvalidInput, source)),
    }
}

/// Sets the rarer attributes of `envelope` from JSON.
///
/// # Errors
///
/// [`ErrorKind::Undecodable`] when it has another form.
pub(crate) fn decode_into(envelope: &mut Envelope, json: &str) -> Result<()> {
    let attributes: Attributes<'_> =
        serde_json::from_str(json).map_err(|source| Error::new(ErrorKind::Undecodable, source))?;
    let boxed = |text: Option<Cow<'_, str>>| text.map(|text| Box::from(&*text));
    envelope.subject = boxed(attributes.subject);
    envelope.correlation_id = boxed(attributes.correlation_id);
    envelope.causation_id = boxed(attributes.causation_id);
    envelope.traceparent = boxed(attributes.traceparent);
    envelope.reply_to = attributes.reply_to.map(|queue| queue.parse()).transpose()?;
    envelope.headers = Headers::new();
    for (name, value) in &attributes.headers {
        envelope.headers.insert(name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use estafette_core::{Bytes, Topic};

    use super::*;

    fn envelope() -> Envelope {
        Envelope::new(Topic::from_static("order.created"), Bytes::from_static(b"{}"))
    }

    #[test]
    fn an_envelope_without_rare_attributes_needs_no_json() {
        assert_eq!(encode(&envelope()).unwrap(), None);
    }

    #[test]
    fn rare_attributes_come_back() {
        let mut full = envelope();
        full.subject = Some("order/1".into());
        full.correlation_id = Some("c".into());
        full.causation_id = Some("d\"\n".into());
        full.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        full.reply_to = Some("replies".parse().unwrap());
        full.headers.insert("Имя", "ü\u{1}\n\"").unwrap();
        full.headers.insert("empty", "").unwrap();
        let json = encode(&full).unwrap().unwrap();
        let mut read = Envelope { id: full.id.clone(), time: full.time, ..envelope() };
        decode_into(&mut read, &json).unwrap();
        assert_eq!(read, full);
    }

    #[test]
    fn other_json_is_undecodable() {
        for bad in ["", "[]", "{\"subject\":1}", "{\"headers\":[[\"\",\"x\"]]}", "{\"reply_to\":\".x\"}"] {
            assert!(decode_into(&mut envelope(), bad).is_err(), "{bad}");
        }
    }
}
