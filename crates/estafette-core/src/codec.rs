//! Codecs: between a message type and the bytes of a body.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, ErrorKind, Result};

/// Turns values of `T` into body bytes and back. Chosen per message type, as [`Message::Codec`](crate::Message::Codec).
pub trait Codec<T> {
    /// The media type of the bodies, such as `application/json`.
    const CONTENT_TYPE: &'static str;

    /// The body of `value`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when the value has no representation.
    fn encode(value: &T) -> Result<Bytes>;

    /// The value in `body`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Undecodable`] when the body has another form.
    fn decode(body: &[u8]) -> Result<T>;
}

/// JSON through serde: the default.
#[derive(Debug)]
pub enum Json {}

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode(value: &T) -> Result<Bytes> {
        match serde_json::to_vec(value) {
            Ok(body) => Ok(body.into()),
            Err(source) => Err(Error::new(ErrorKind::InvalidInput, source)),
        }
    }

    fn decode(body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).map_err(|source| Error::new(ErrorKind::Undecodable, source))
    }
}

/// UTF-8 text, for message types that are made from and into a `String`.
#[derive(Debug)]
pub enum Text {}

impl<T: AsRef<str> + From<String>> Codec<T> for Text {
    const CONTENT_TYPE: &'static str = "text/plain; charset=utf-8";

    fn encode(value: &T) -> Result<Bytes> {
        Ok(Bytes::copy_from_slice(value.as_ref().as_bytes()))
    }

    fn decode(body: &[u8]) -> Result<T> {
        match std::str::from_utf8(body) {
            Ok(text) => Ok(text.to_owned().into()),
            Err(source) => Err(Error::new(ErrorKind::Undecodable, source)),
        }
    }
}

/// Bytes as they are, for message types that are made from and into [`Bytes`].
#[derive(Debug)]
pub enum Raw {}

impl<T: AsRef<[u8]> + From<Bytes>> Codec<T> for Raw {
    const CONTENT_TYPE: &'static str = "application/octet-stream";

    fn encode(value: &T) -> Result<Bytes> {
        Ok(Bytes::copy_from_slice(value.as_ref()))
    }

    fn decode(body: &[u8]) -> Result<T> {
        Ok(Bytes::copy_from_slice(body).into())
    }
}
