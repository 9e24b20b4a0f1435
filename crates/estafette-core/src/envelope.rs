//! The envelope: a message as it travels, with everything that is known about it.

use bytes::Bytes;

use crate::{Codec, Headers, Message, MessageId, QueueName, Result, Timestamp, Topic};

/// An encoded message: the attributes of `CloudEvents` 1.0, the extensions Estafette uses, headers and the body.
///
/// How it is written where an engine has no place for attributes is in [`wire`](crate::wire).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Tells the message from every other; `id`.
    pub id: MessageId,
    /// What the message is about; `type`.
    pub topic: Topic,
    /// Who made the message, such as the service's name; `source`.
    pub source: Box<str>,
    /// What in particular it is about, such as an order's id; `subject`.
    pub subject: Option<Box<str>>,
    /// When the message was made; `time`.
    pub time: Timestamp,
    /// The media type of the body; `datacontenttype`. JSON when absent.
    pub content_type: Option<Box<str>>,
    /// The same for all messages of one conversation; `correlationid`.
    pub correlation_id: Option<Box<str>>,
    /// The id of the message whose handling made this one; `causationid`.
    pub causation_id: Option<Box<str>>,
    /// The W3C trace context the message was made in; `traceparent`.
    pub traceparent: Option<Box<str>>,
    /// Messages with the same key keep their order where that is asked for; `partitionkey`.
    pub partition_key: Option<Box<str>>,
    /// From then on the message is not handled but becomes a dead letter; `expirytime`.
    pub expires_at: Option<Timestamp>,
    /// The queue an answer is sent to; `replyto`.
    pub reply_to: Option<QueueName>,
    /// What the application attached.
    pub headers: Headers,
    /// The encoded message.
    pub body: Bytes,
}

impl Envelope {
    /// A new envelope with an id and the time of its own, and nothing else set.
    #[must_use]
    pub fn new(topic: Topic, body: Bytes) -> Self {
        Self {
            id: MessageId::new(),
            topic,
            source: "estafette".into(),
            subject: None,
            time: Timestamp::now(),
            content_type: None,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            partition_key: None,
            expires_at: None,
            reply_to: None,
            headers: Headers::new(),
            body,
        }
    }

    /// A new envelope around `message`.
    ///
    /// # Errors
    ///
    /// Those of the message's codec.
    pub fn of<M: Message>(message: &M) -> Result<Self> {
        let mut envelope = Self::new(M::TOPIC, message.encode()?);
        envelope.content_type = Some(M::Codec::CONTENT_TYPE.into());
        envelope.partition_key = message.partition_key().map(Into::into);
        envelope.subject = message.subject().map(Into::into);
        Ok(envelope)
    }

    /// An envelope around bytes that were found where one was expected and do not form one, for the dead letters.
    #[must_use]
    pub fn undecodable(raw: Bytes) -> Self {
        const TOPIC: Topic = Topic::from_static("estafette.undecodable");
        let mut envelope = Self::new(TOPIC, raw);
        envelope.content_type = Some("application/octet-stream".into());
        envelope
    }

    /// The message in the body.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) when the body has another form.
    pub fn decode<M: Message>(&self) -> Result<M> {
        M::decode(&self.body)
    }

    /// Whether the message is no longer to be handled at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}
