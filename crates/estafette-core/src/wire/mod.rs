//! Envelopes as bytes and as attributes, for transports.
//!
//! [`encode`] and [`decode`] are `CloudEvents` 1.0 structured JSON on one line: for engines without a place for attributes,
//! and for people. [`attributes`] and [`from_attributes`] are the names and texts of `CloudEvents` binary mode: for engines
//! with headers, so that a foreign consumer sees the plain body.
//!
//! Headers whose name is legal for a `CloudEvents` extension (`a-z`, `0-9`, at most 20) are extension attributes of their
//! own; the others share one, `headers`, a JSON object in a string, since the specification allows no objects there.
//! Facts: `CloudEvents` 1.0.2, sections "Context Attributes" and "JSON Event Format".

mod attributes;
mod decode;
mod encode;

pub use attributes::{attributes, from_attributes};
pub use decode::decode;
pub use encode::{encode, encode_into};

/// The extension that holds the headers with names of their own style.
const HEADERS: &str = "headers";

/// The attributes that are fields of the envelope and never headers.
const FIELDS: [&str; 14] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "correlationid",
    "causationid",
    "traceparent",
    "partitionkey",
    "expirytime",
    "replyto",
    HEADERS,
];

/// Whether a header can be an extension attribute of its own.
fn is_extension(name: &str) -> bool {
    name.len() <= 20
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && !FIELDS.contains(&name)
        && !matches!(name, "data" | "datarefs" | "dataschema")
}

/// Whether bodies of this media type are JSON documents. No media type means JSON, as in `CloudEvents`.
fn is_json(content_type: Option<&str>) -> bool {
    let essence =
        content_type.map_or("application/json", |text| text.split(';').next().unwrap_or(text).trim());
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

#[cfg(test)]
mod tests;
