//! What a handler knows about the message it handles.

use std::{future::Future, sync::Arc};

use estafette_core::{Envelope, Message, Outgoing, QueueName, Receipt, Result, Transport};

use crate::trace;

tokio::task_local! {
    static CURRENT: Context;
}

/// The message being handled and where it came from. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    envelope: Arc<Envelope>,
    attempt: u32,
    origin: Arc<Origin>,
}

/// What is the same for every message of a consumer.
pub(crate) struct Origin {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) queue: QueueName,
}

impl Context {
    pub(crate) fn new(envelope: Arc<Envelope>, attempt: u32, origin: Arc<Origin>) -> Self {
        Self { envelope, attempt, origin }
    }

    /// The context of the handler that is running in this task, if one is.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Runs `future` as this context's handler.
    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// The message.
    #[must_use]
    pub fn envelope(&self) -> &Arc<Envelope> {
        &self.envelope
    }

    /// How many times this message was handed over, this time included: 1 the first time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The queue it came from.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.origin.queue
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.envelope.headers.get(name)
    }

    /// Publishes a message that this one is the cause of, on the same transport.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::publish`].
    pub async fn publish<M: Message>(&self, message: &M) -> Result<Receipt> {
        let mut outgoing = Outgoing::publish(Envelope::of(message)?);
        self.trace(outgoing.envelope_mut());
        let mut receipts = self.origin.transport.publish(std::slice::from_ref(&outgoing)).await;
        receipts.pop().unwrap_or_else(|| Err(estafette_core::ErrorKind::Engine.into()))
    }

    /// Says in `envelope` that this message is the cause of it: causation, conversation and trace, as far as they are not
    /// set.
    pub fn trace(&self, envelope: &mut Envelope) {
        let id = self.envelope.id.to_string().into_boxed_str();
        let conversation = || self.envelope.correlation_id.clone().unwrap_or_else(|| id.clone());
        envelope.correlation_id.get_or_insert_with(conversation);
        envelope.causation_id.get_or_insert_with(|| id.clone());
        envelope.traceparent.get_or_insert_with(|| trace::child_of(self.envelope.traceparent.as_deref()));
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("id", &self.envelope.id)
            .field("topic", &self.envelope.topic)
            .field("queue", &self.origin.queue)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
