//! Requests and answers as text, in the short dialect.

use estafette_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A frame of the gateway: an answer or an event.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame {
    /// The message, of an event.
    pub(crate) p: Option<Event>,
    /// Why a request failed.
    #[serde(rename = "E")]
    pub(crate) error: Option<Fault>,
    /// What a request returns.
    pub(crate) r: Option<Outcome>,
    /// Of the request.
    pub(crate) i: Option<u64>,
}

/// A message of a queue.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    /// The connection, `"0"` for none.
    pub(crate) c: String,
    /// The queue.
    pub(crate) t: String,
    /// The data.
    pub(crate) d: Box<RawValue>,
    /// What acknowledges it.
    #[serde(default)]
    pub(crate) a: Option<u64>,
}

/// Why a request failed.
#[derive(Debug, Deserialize)]
pub(crate) struct Fault {
    c: u16,
    m: String,
}

/// What a request returns: a success, or counts.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub(crate) struct Outcome {
    #[serde(default, deserialize_with = "count")]
    pub(crate) s: u64,
    #[serde(default)]
    pub(crate) f: u64,
}

/// A number, or `true` for one.
fn count<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Count {
        Success(bool),
        Number(u64),
    }
    Ok(match Count::deserialize(deserializer)? {
        Count::Success(success) => u64::from(success),
        Count::Number(number) => number,
    })
}

#[derive(Serialize)]
struct Request<'a, P> {
    m: &'a str,
    p: P,
    i: u64,
}

/// A request as text.
pub(crate) fn request(method: &str, params: impl Serialize, id: u64) -> Result<String> {
    let request = Request { m: method, p: params, i: id };
    serde_json::to_string(&request).map_err(|error| Error::new(ErrorKind::InvalidInput, error))
}

impl Frame {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::new(ErrorKind::Undecodable, error))
    }

    /// What the request of this answer returned.
    pub(crate) fn outcome(self) -> Result<Outcome> {
        match self.error {
            Some(fault) => Err(fault.into_error()),
            None => Ok(self.r.unwrap_or_default()),
        }
    }
}

impl Fault {
    pub(crate) fn into_error(self) -> Error {
        let kind = match self.c {
            101 => ErrorKind::InvalidInput,
            201 => ErrorKind::Full,
            202 | 203 => ErrorKind::Conflict,
            // Nearly always: the connection has ended.
            301 | 401 => ErrorKind::NotFound,
            403 => ErrorKind::Denied,
            _ => ErrorKind::Engine,
        };
        Error::new(kind, format!("{} ({})", self.m, self.c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_events_are_told_apart() {
        let outcome =
            |text: &str| Frame::parse(text).unwrap().outcome().map(|outcome| (outcome.s, outcome.f));
        assert_eq!(outcome(r#"{"E":null,"r":{"s":true},"i":2}"#).unwrap(), (1, 0));
        assert_eq!(outcome(r#"{"E":null,"r":{"s":9,"f":1},"i":2}"#).unwrap(), (9, 1));
        let error = outcome(r#"{"E":{"c":301,"m":"gone"},"i":2}"#).unwrap_err();
        assert_eq!((error.kind(), error.report()), (ErrorKind::NotFound, "not found: gone (301)".into()));
        let text = r#"{"e":"queue.pop","p":{"n":1,"c":"7","t":"foo","d":{"x":1}},"i":null}"#;
        let event = Frame::parse(text).unwrap();
        assert_eq!(event.i, None);
        assert_eq!(event.p.unwrap().d.get(), r#"{"x":1}"#);
    }

    #[test]
    fn a_request_has_the_keys_of_the_short_dialect() {
        let text = request("queue.pop", ["foo"], 1).unwrap();
        assert_eq!(text, r#"{"m":"queue.pop","p":["foo"],"i":1}"#);
    }
}
