//! The bus: a connection to one transport, and everything an application does with it.

use std::{sync::Arc, time::Duration};

use estafette_consumer::{Consumer, Context, Requester, traceparent};
use estafette_core::{
    Admin, Bytes, Envelope, Error, Guarantees, Message, Outgoing, QueueName, QueueSpec, Receipt, Result,
    Topic, Transport,
};

use tracing::Instrument as _;

use crate::{Publish, drivers, observe};

/// A connection to one transport. Clones share it.
#[derive(Clone)]
pub struct Bus {
    transport: Arc<dyn Transport>,
    requester: Requester,
    source: Box<str>,
}

impl Bus {
    /// Connects to the transport that `url` names, such as `file:./mail`.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](crate::connect).
    pub async fn connect(url: &str) -> Result<Self> {
        Ok(Self::from(drivers::connect(url).await?))
    }

    /// A bus on a transport of one's own.
    pub fn new(transport: impl Transport + 'static) -> Self {
        Self::from(Arc::new(transport) as Arc<dyn Transport>)
    }

    /// The same bus with another name for who publishes: the `source` of its messages, `estafette` by default.
    #[must_use]
    pub fn with_source(mut self, source: &str) -> Self {
        self.source = source.into();
        self
    }

    /// A message for every queue subscribed to its topic. It goes when the returned [`Publish`] is awaited.
    ///
    /// Published from within a handler, it carries that message's conversation and trace on.
    pub fn publish<M: Message>(&self, message: &M) -> Publish {
        let envelope = Envelope::of(message);
        Publish::new(self.clone(), envelope.map(Outgoing::publish))
    }

    /// A message for one queue, which keeps it until somebody consumes, even if nobody has yet.
    pub fn send<N, M>(&self, queue: N, message: &M) -> Publish
    where
        N: TryInto<QueueName>,
        Error: From<N::Error>,
        M: Message,
    {
        let outgoing =
            Envelope::of(message).and_then(|envelope| Ok(Outgoing::send(queue.try_into()?, envelope)));
        Publish::new(self.clone(), outgoing)
    }

    /// A message without a type of its own: a topic and a body.
    pub fn publish_body<T>(&self, topic: T, body: impl Into<Bytes>) -> Publish
    where
        T: TryInto<Topic>,
        Error: From<T::Error>,
    {
        let topic = topic.try_into().map_err(Error::from);
        Publish::new(self.clone(), topic.map(|topic| Outgoing::publish(Envelope::new(topic, body.into()))))
    }

    /// Publishes many messages of one type together: one flush, one round trip. One result for each, in order.
    pub async fn publish_all<'a, M: Message>(
        &self,
        messages: impl IntoIterator<Item = &'a M>,
    ) -> Vec<Result<Receipt>> {
        let mut encoded = Vec::new();
        let mut results: Vec<Result<Receipt>> = Vec::new();
        let mut places = Vec::new();
        for message in messages {
            match Envelope::of(message) {
                Ok(envelope) => {
                    places.push(results.len());
                    encoded.push(Outgoing::publish(envelope));
                    // Replaced by the receipt below.
                    results.push(Err(estafette_core::ErrorKind::Engine.into()));
                }
                Err(error) => results.push(Err(error)),
            }
        }
        for (place, receipt) in places.into_iter().zip(self.publish_batch(encoded).await) {
            if let Some(result) = results.get_mut(place) {
                *result = receipt;
            }
        }
        results
    }

    /// Publishes messages of any kind together: one result for each, in order.
    ///
    /// Fills in what every message carries: who published it, and which conversation and trace it belongs to.
    pub async fn publish_batch(&self, mut batch: Vec<Outgoing>) -> Vec<Result<Receipt>> {
        let cause = Context::current();
        for outgoing in &mut batch {
            let envelope = outgoing.envelope_mut();
            if &*envelope.source == "estafette" {
                envelope.source.clone_from(&self.source);
            }
            match &cause {
                Some(context) => context.trace(envelope),
                None => {
                    envelope.traceparent.get_or_insert_with(traceparent);
                }
            }
        }
        let span = observe::publishing(&batch);
        let results = self.transport.publish(&batch).instrument(span).await;
        observe::count(&results);
        results
    }

    /// Publishes a request and waits for the reply, `time_limit` at most.
    ///
    /// # Errors
    ///
    /// Those of [`Requester::request`].
    pub async fn request<M: Message, R: Message>(&self, request: &M, time_limit: Duration) -> Result<R> {
        let mut outgoing = Outgoing::publish(Envelope::of(request)?);
        let envelope = outgoing.envelope_mut();
        envelope.source.clone_from(&self.source);
        envelope.traceparent = Some(traceparent());
        self.requester.request(outgoing, time_limit).await
    }

    /// A consumer of the durable queue `queue`: the receiver key.
    pub fn consumer<N>(&self, queue: N) -> Consumer
    where
        N: TryInto<QueueName>,
        Error: From<N::Error>,
    {
        Consumer::new(Arc::clone(&self.transport), queue)
    }

    /// A consumer without a key: it gets what is published while it runs, and its queue goes away with it.
    pub fn temporary_consumer(&self) -> Consumer {
        Consumer::temporary(Arc::clone(&self.transport))
    }

    /// Makes sure a queue exists and is subscribed to its patterns.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::declare`].
    pub async fn declare(&self, queue: &QueueSpec) -> Result<()> {
        self.transport.declare(queue).await
    }

    /// Looking after queues and dead letters.
    #[must_use]
    pub fn admin(&self) -> &dyn Admin {
        self.transport.admin()
    }

    /// What the transport promises.
    #[must_use]
    pub fn guarantees(&self) -> Guarantees {
        self.transport.guarantees()
    }

    /// The transport itself.
    #[must_use]
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Stores what is not stored yet and lets go of files and connections.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::close`].
    pub async fn close(&self) -> Result<()> {
        self.transport.close().await
    }
}

impl From<Arc<dyn Transport>> for Bus {
    fn from(transport: Arc<dyn Transport>) -> Self {
        let requester = Requester::new(Arc::clone(&transport));
        Self { transport, requester, source: "estafette".into() }
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bus").field("guarantees", &self.guarantees()).finish_non_exhaustive()
    }
}
