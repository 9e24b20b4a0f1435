//! A message about to be published: what can be said about it before it goes.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use estafette_core::{Error, Outgoing, Receipt, Result, Timestamp};

use crate::Bus;

/// A message about to be published. It goes when this is awaited.
///
/// ```
/// # use std::time::Duration;
/// # use estafette::{Bus, Message, QueueSpec};
/// # #[derive(Message, serde::Serialize, serde::Deserialize)]
/// # #[message(topic = "order.created")] struct OrderCreated { id: u64 }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> estafette::Result<()> {
/// # let bus = Bus::connect("memory:").await?;
/// let receipt = bus
///     .publish(&OrderCreated { id: 42 })
///     .header("tenant", "acme")
///     .delay(Duration::from_secs(5))
///     .await?;
/// assert!(!receipt.routing.is_routed()); // nobody is subscribed
/// # Ok(()) }
/// ```
#[must_use = "a message is published when this is awaited"]
pub struct Publish {
    bus: Bus,
    outgoing: Result<Outgoing>,
}

impl Publish {
    pub(crate) fn new(bus: Bus, outgoing: Result<Outgoing>) -> Self {
        Self { bus, outgoing }
    }

    fn change(mut self, change: impl FnOnce(&mut Outgoing) -> Result<()>) -> Self {
        if let Ok(outgoing) = &mut self.outgoing
            && let Err(error) = change(outgoing)
        {
            self.outgoing = Err(error);
        }
        self
    }

    /// Attaches a header. A bad name is an error when this is awaited.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.change(|outgoing| outgoing.envelope_mut().headers.insert(name, value))
    }

    /// Stays invisible for this long first.
    pub fn delay(self, delay: Duration) -> Self {
        self.change(|outgoing| {
            outgoing.delay = delay;
            Ok(())
        })
    }

    /// Becomes a dead letter unless it is handled within this time from now.
    pub fn expires_in(self, time: Duration) -> Self {
        self.change(|outgoing| {
            outgoing.envelope_mut().expires_at = Some(Timestamp::now() + time);
            Ok(())
        })
    }

    /// Messages with the same key keep their order for consumers that ask for it.
    pub fn key(self, key: impl Into<Box<str>>) -> Self {
        self.change(|outgoing| {
            outgoing.envelope_mut().partition_key = Some(key.into());
            Ok(())
        })
    }

    /// What in particular the message is about.
    pub fn subject(self, subject: impl Into<Box<str>>) -> Self {
        self.change(|outgoing| {
            outgoing.envelope_mut().subject = Some(subject.into());
            Ok(())
        })
    }

    /// The conversation the message belongs to.
    pub fn correlation_id(self, id: impl Into<Box<str>>) -> Self {
        self.change(|outgoing| {
            outgoing.envelope_mut().correlation_id = Some(id.into());
            Ok(())
        })
    }

    /// Fails, and stores nothing, when no queue takes the message.
    pub fn require_queue(self) -> Self {
        self.change(|outgoing| {
            outgoing.require_queue = true;
            Ok(())
        })
    }

    /// The message, to be published together with others by [`Bus::publish_batch`].
    ///
    /// # Errors
    ///
    /// Those of encoding, and of headers with bad names.
    pub fn into_outgoing(self) -> Result<Outgoing> {
        self.outgoing
    }
}

impl IntoFuture for Publish {
    type Output = Result<Receipt>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Receipt>> + Send>>;

    /// Publishes the message: `Ok` means stored as durably as the transport promises.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let outgoing = self.outgoing?;
            let mut receipts = self.bus.publish_batch(vec![outgoing]).await;
            receipts.pop().unwrap_or_else(|| Err(Error::from(estafette_core::ErrorKind::Engine)))
        })
    }
}

impl std::fmt::Debug for Publish {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Publish").field("outgoing", &self.outgoing).finish_non_exhaustive()
    }
}
