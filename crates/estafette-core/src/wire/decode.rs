//! `CloudEvents` structured JSON, reading.

use std::{borrow::Cow, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{attributes::Builder, is_json};
use crate::{Envelope, Error, ErrorKind, Result};

/// The envelope in one JSON document.
///
/// Also reads documents of other `CloudEvents` writers: attributes that are numbers or booleans become text, unknown ones
/// headers.
///
/// # Errors
///
/// [`ErrorKind::Undecodable`] when the text is not JSON, not an object, lacks `id` or `type`, or an attribute has a value
/// that is not allowed.
pub fn decode(line: &[u8]) -> Result<Envelope> {
    let Document { builder, data, data_base64 } =
        serde_json::from_slice(line).map_err(|source| Error::new(ErrorKind::Undecodable, source))?;
    let body = match (data, data_base64) {
        (Some(data), _) => plain_body(data, builder.content_type.as_deref())?,
        (None, Some(text)) => match BASE64_STANDARD.decode(text.as_bytes()) {
            Ok(body) => body.into(),
            Err(source) => return Err(Error::new(ErrorKind::Undecodable, source)),
        },
        (None, None) => Bytes::new(),
    };
    builder.finish(body)
}

/// The body in a `data` member: the JSON text itself, or what is in the string when the media type is another.
fn plain_body(data: &RawValue, content_type: Option<&str>) -> Result<Bytes> {
    let text = data.get();
    if is_json(content_type) || !text.starts_with('"') {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    match serde_json::from_str::<String>(text) {
        Ok(text) => Ok(text.into()),
        Err(source) => Err(Error::new(ErrorKind::Undecodable, source)),
    }
}

struct Document<'a> {
    builder: Builder,
    data: Option<&'a RawValue>,
    data_base64: Option<Cow<'a, str>>,
}

impl<'de> Deserialize<'de> for Document<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a CloudEvents object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut document = Document { builder: Builder::default(), data: None, data_base64: None };
        while let Some(name) = map.next_key::<Text<'de>>()? {
            match &*name.0 {
                "data" => document.data = Some(map.next_value()?),
                "data_base64" => document.data_base64 = Some(map.next_value::<Text<'de>>()?.0),
                "dataschema" => {
                    map.next_value::<IgnoredAny>()?;
                }
                name => {
                    if let Some(value) = map.next_value::<Attribute<'de>>()?.0 {
                        document
                            .builder
                            .set(name, &value)
                            .map_err(|error| A::Error::custom(error.report()))?;
                    }
                }
            }
        }
        Ok(document)
    }
}

/// A string, borrowed from the document where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An attribute's value as text; none for null.
struct Attribute<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Attribute<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if raw == "null" {
            return Ok(Self(None));
        }
        if !raw.starts_with('"') {
            return Ok(Self(Some(Cow::Borrowed(raw))));
        }
        let text: Text<'de> = serde_json::from_str(raw).map_err(D::Error::custom)?;
        Ok(Self(Some(text.0)))
    }
}
