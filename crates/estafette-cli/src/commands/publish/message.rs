//! From a body to an outgoing message.

use std::time::Duration;

use estafette::{
    Bytes, Destination, Envelope, Outgoing, QueueName, Receipt, Result, Routing, Timestamp, Topic,
};
use serde_json::json;

/// What is the same for every message of a run.
pub(super) struct Template {
    pub(super) topic: Topic,
    pub(super) queue: Option<QueueName>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) delay: Option<Duration>,
    pub(super) ttl: Option<Duration>,
    pub(super) key: Option<String>,
    pub(super) require_queue: bool,
    pub(super) content_type: Option<String>,
}

impl Template {
    /// A message around `body`.
    pub(super) fn outgoing(&self, body: Bytes) -> Result<Outgoing> {
        let mut envelope = Envelope::new(self.topic.clone(), body);
        envelope.content_type = match &self.content_type {
            Some(given) => Some(given.as_str().into()),
            None => content_type(&envelope.body).map(Into::into),
        };
        for (name, value) in &self.headers {
            envelope.headers.insert(name, value)?;
        }
        envelope.expires_at = self.ttl.map(|ttl| Timestamp::now() + ttl);
        envelope.partition_key = self.key.as_deref().map(Into::into);
        Ok(Outgoing {
            destination: self.queue.clone().map_or(Destination::Topic, Destination::Queue),
            delay: self.delay.unwrap_or_default(),
            require_queue: self.require_queue,
            ..Outgoing::publish(envelope)
        })
    }

    /// Where messages go, for people.
    pub(super) fn target(&self) -> String {
        self.queue.as_ref().map_or_else(|| self.topic.to_string(), |queue| format!("queue {queue}"))
    }
}

/// What a body looks like. An empty one looks like nothing.
fn content_type(body: &[u8]) -> Option<&'static str> {
    if body.is_empty() {
        None
    } else if serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok() {
        Some("application/json")
    } else if std::str::from_utf8(body).is_ok() {
        Some("text/plain; charset=utf-8")
    } else {
        Some("application/octet-stream")
    }
}

/// A receipt for machines: `queues` is null when the engine does not say how many took the message.
pub(super) fn receipt_object(receipt: &Receipt) -> serde_json::Value {
    let queues = match receipt.routing {
        Routing::Unrouted => Some(0),
        Routing::Queues(count) => Some(count),
        Routing::Routed => None,
    };
    json!({ "id": receipt.id.to_string(), "routed": receipt.routing.is_routed(), "queues": queues })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_is_what_the_body_looks_like() {
        assert_eq!(content_type(b"{\"id\":42}"), Some("application/json"));
        assert_eq!(content_type(b"hello"), Some("text/plain; charset=utf-8"));
        assert_eq!(content_type(b"\xff\xd8"), Some("application/octet-stream"));
        assert_eq!(content_type(b""), None);
    }
}
