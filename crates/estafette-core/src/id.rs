//! Message ids.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

use crate::{Error, ErrorKind, Result};

/// The longest id, in bytes: what an AMQP short string holds.
pub const ID_BYTES_MAX: usize = 255;

/// What tells one message from another; the same through every retry, copy and redelivery.
///
/// Estafette's own ids are `UUIDv7`, which sort by time. Ids of foreign messages are any visible text of at most 255 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    // A text that is the canonical form of a UUID is always this one, so that equal ids are equal values.
    Uuid(Uuid),
    Text(Arc<str>),
}

impl MessageId {
    /// A new `UUIDv7`, later than every one this process made before.
    #[must_use]
    pub fn new() -> Self {
        Self(Repr::Uuid(Uuid::now_v7()))
    }

    /// The 16 bytes of an id that is a UUID, for engines that store it shorter than its text.
    #[must_use]
    pub fn uuid_bytes(&self) -> Option<[u8; 16]> {
        match &self.0 {
            Repr::Uuid(uuid) => Some(uuid.into_bytes()),
            Repr::Text(_) => None,
        }
    }

    /// The id whose [`uuid_bytes`](Self::uuid_bytes) these are.
    #[must_use]
    pub fn from_uuid_bytes(bytes: [u8; 16]) -> Self {
        Self(Repr::Uuid(Uuid::from_bytes(bytes)))
    }
}

impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl FromStr for MessageId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(uuid) = Uuid::try_parse(text)
            && uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text
        {
            return Ok(Self(Repr::Uuid(uuid)));
        }
        if text.is_empty() || text.len() > ID_BYTES_MAX || text.chars().any(char::is_control) {
            let sentence = format!("a message id is 1 to {ID_BYTES_MAX} bytes of visible text");
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
        Ok(Self(Repr::Text(Arc::from(text))))
    }
}

impl TryFrom<&str> for MessageId {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Uuid(uuid) => formatter.pad(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
            Repr::Text(text) => formatter.pad(text),
        }
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_text_as_it_was() {
        for text in
            ["11995", "018f3c5e-8a1b-7c3d-9e2f-0123456789ab", "018F3C5E-8A1B-7C3D-9E2F-0123456789AB", "ü"]
        {
            let id: MessageId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert!(id.uuid_bytes().map(MessageId::from_uuid_bytes).is_none_or(|same| same == id));
        }
        assert!("".parse::<MessageId>().is_err());
        assert!("a\nb".parse::<MessageId>().is_err());
    }

    #[test]
    fn new_ids_sort_by_time_of_making() {
        let ids: Vec<_> = (0..1000).map(|_| MessageId::new()).collect();
        assert!(ids.is_sorted());
    }
}
