//! Messages: the application's own types.

use bytes::Bytes;

use crate::{Codec, Result, Topic};

/// A value that can be published: it names its topic and knows how its body is written.
///
/// Usually derived with `#[derive(Message)]` and `#[message(topic = "order.created")]`.
pub trait Message: Sized + Send + 'static {
    /// The topic of every message of this type.
    const TOPIC: Topic;

    /// How bodies are written and read; [`Json`](crate::Json) unless the derive says otherwise.
    type Codec: Codec<Self>;

    /// Messages with the same key are handled in order by consumers that ask for it.
    fn partition_key(&self) -> Option<String> {
        None
    }

    /// What in particular the message is about, such as the id of the order: the `CloudEvents` subject.
    fn subject(&self) -> Option<String> {
        None
    }

    /// The body of this message.
    ///
    /// # Errors
    ///
    /// Those of the codec.
    fn encode(&self) -> Result<Bytes> {
        Self::Codec::encode(self)
    }

    /// The message in `body`.
    ///
    /// # Errors
    ///
    /// Those of the codec.
    fn decode(body: &[u8]) -> Result<Self> {
        Self::Codec::decode(body)
    }
}
