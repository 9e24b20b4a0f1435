//! Request and reply: a message whose handler's answer comes back to whoever asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use estafette_core::{
    Delivery, Envelope, Error, ErrorKind, Message, MessageId, Outgoing, QueueName, QueueSpec, ReceiveOptions,
    Receiver, Result, Transport, settle_all,
};
use tokio::{
    sync::{Mutex as AsyncMutex, oneshot},
    task::JoinHandle,
};

/// The header of a reply that says the handler refused the request; its value is the handler's reason.
pub const REPLY_ERROR_HEADER: &str = "replyerror";

/// Sends requests and waits for their replies, on a temporary queue of its own that all its requests share.
///
/// The queue is made at the first request and goes away with the last clone.
#[derive(Clone)]
pub struct Requester {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Arc<dyn Transport>,
    /// Where replies arrive; made again when that has ended.
    replies: AsyncMutex<Option<Replies>>,
    waiting: Mutex<HashMap<Box<str>, oneshot::Sender<Arc<Envelope>>>>,
}

struct Replies {
    queue: QueueName,
    task: JoinHandle<()>,
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Requester {
    /// A requester on `transport`.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        let shared = Shared { transport, replies: AsyncMutex::default(), waiting: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes `request` and waits for the reply, `time_limit` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] when no reply came in time (the request may still be handled);
    /// [`ErrorKind::Unroutable`] when no queue takes the topic; [`ErrorKind::Engine`] with the handler's reason when it
    /// rejected the request; [`ErrorKind::Undecodable`] when the reply has another form; those of publishing.
    pub async fn request<M: Message>(&self, mut request: Outgoing, time_limit: Duration) -> Result<M> {
        let limited = tokio::time::timeout(time_limit, async {
            let queue = self.shared.reply_queue(&self.shared).await?;
            let id = request.envelope.id.to_string().into_boxed_str();
            let envelope = request.envelope_mut();
            envelope.reply_to = Some(queue);
            // Nobody waits longer, so nobody should begin later.
            envelope.expires_at.get_or_insert(envelope.time + time_limit);
            request.require_queue = true;
            let (sender, receiver) = oneshot::channel();
            let _guard = Waiting::register(&self.shared, id, sender);
            let mut receipts = self.shared.transport.publish(std::slice::from_ref(&request)).await;
            receipts.pop().unwrap_or_else(|| Err(ErrorKind::Engine.into()))?;
            receiver.await.map_err(|_closed| Error::from(ErrorKind::Closed))
        });
        let Ok(reply) = limited.await else {
            let sentence = format!("no reply to {} within {time_limit:?}", request.envelope.topic);
            return Err(Error::new(ErrorKind::TimedOut, sentence));
        };
        let reply = reply?;
        match reply.headers.get(REPLY_ERROR_HEADER) {
            Some(error) => Err(Error::new(ErrorKind::Engine, format!("the handler refused: {error}"))),
            None => reply.decode(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, oneshot::Sender<Arc<Envelope>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reply_queue(&self, shared: &Arc<Self>) -> Result<QueueName> {
        let mut replies = self.replies.lock().await;
        if let Some(live) = replies.as_ref().filter(|replies| !replies.task.is_finished()) {
            return Ok(live.queue.clone());
        }
        let spec = QueueSpec::temporary();
        self.transport.declare(&spec).await?;
        let receiver = self.transport.receiver(&spec.name, ReceiveOptions::default()).await?;
        let task = tokio::spawn(collect(Arc::downgrade(shared), receiver));
        *replies = Some(Replies { queue: spec.name.clone(), task });
        Ok(spec.name)
    }

    fn resolve(&self, delivery: &Delivery) {
        let envelope = delivery.envelope();
        let waiting = envelope.correlation_id.as_deref().and_then(|id| self.lock().remove(id));
        if waiting.is_none_or(|sender| sender.send(Arc::clone(envelope)).is_err()) {
            metrics::counter!("estafette_replies_late_total").increment(1);
            tracing::debug!(id = %envelope.id, "a reply came after its request had ended");
        }
    }
}

/// A request that waits; forgotten when it ends, whichever way.
struct Waiting<'a> {
    shared: &'a Shared,
    id: Box<str>,
}

impl<'a> Waiting<'a> {
    fn register(shared: &'a Shared, id: Box<str>, sender: oneshot::Sender<Arc<Envelope>>) -> Self {
        shared.lock().insert(id.clone(), sender);
        Self { shared, id }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.lock().remove(&self.id);
    }
}

/// Hands replies to the requests that wait, as long as the requester is there.
async fn collect(shared: Weak<Shared>, mut receiver: Box<dyn Receiver>) {
    loop {
        let received = receiver.receive(100, Duration::from_secs(60)).await;
        let Some(shared) = shared.upgrade() else { return };
        match received {
            Ok(deliveries) => {
                for delivery in &deliveries {
                    shared.resolve(delivery);
                }
                let acks =
                    deliveries.into_iter().map(|delivery| (delivery, estafette_core::Outcome::Ack)).collect();
                for error in settle_all(acks).await.into_iter().filter_map(Result::err) {
                    tracing::debug!(error = error.report(), "a reply could not be acknowledged");
                }
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(error = error.report(), "replies cannot be received; trying again");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => {
                return tracing::error!(error = error.report(), "replies cannot be received any more");
            }
        }
    }
}

/// The reply to a request.
pub(crate) fn reply_to(request: &Envelope, mut reply: Envelope) -> Option<Outgoing> {
    let queue = request.reply_to.clone()?;
    let id: &MessageId = &request.id;
    reply.correlation_id = Some(id.to_string().into());
    reply.causation_id = Some(id.to_string().into());
    reply.traceparent = Some(crate::trace::child_of(request.traceparent.as_deref()));
    let mut outgoing = Outgoing::send(queue, reply);
    // Whoever asked may be gone, and its queue with it: no queue is to be made for a reply nobody reads.
    outgoing.require_queue = true;
    Some(outgoing)
}
