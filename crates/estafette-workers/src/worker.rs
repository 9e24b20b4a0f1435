//! The handle of a participant: what the application works with.

use std::{fmt, sync::Arc, time::Duration};

use estafette_core::{Message, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Address, Context, Counts, IntoReply, To,
    endpoint::Endpoint,
    frame::{Body, Form},
    listener::{decode_json, decode_message, listener},
    members::actions,
    wire::Parcel,
};

/// One participant of a group: listens, sends and asks. Cheap to clone.
///
/// A message is handed over at most once: one that was handed to a worker that then dies is gone, and nothing is ever
/// sent twice. Where more is needed, a queue of a transport is the right place.
#[derive(Clone)]
pub struct Worker {
    endpoint: Arc<Endpoint>,
}

impl Worker {
    pub(crate) fn of(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint }
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Who this is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.endpoint.address
    }

    /// The number of this worker, from 0; `None` for named processes, the supervisor and outsiders.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        match self.endpoint.address {
            Address::Worker(id) => Some(id),
            _ => None,
        }
    }

    /// How many numbered workers the group has at the moment, running or being started.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.endpoint.members.borrow().count()
    }

    /// The name of the group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.endpoint.group
    }

    /// What this participant has counted since it started.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.endpoint.counters.read()
    }

    /// Listens for an action whose data is JSON. Several may listen for the same; the first one's answer is the reply.
    ///
    /// A listener starts for each message in the order of its sender, and runs beside others as soon as it waits for
    /// something. What it returns answers a request; for a message that was only sent, an error is logged.
    pub fn on<T, F, Fut>(&self, action: &str, function: F)
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + Send + 'static,
    {
        self.endpoint.listeners.add(action, listener(decode_json::<T>, function));
    }

    /// Listens for messages of a type: its topic is the action, its codec reads the data.
    pub fn on_message<M, F, Fut>(&self, function: F)
    where
        M: Message,
        F: Fn(M, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + Send + 'static,
    {
        self.endpoint.listeners.add(M::TOPIC.as_str(), listener(decode_message::<M>, function));
    }

    /// Sends `data` as JSON under `action`; how many participants it was handed to.
    ///
    /// Handed to means: written to the connection of a participant that runs, or queued for it, in order. What was sent
    /// leaves at once, or, within a run of sends, at the latest when the sending task waits for something. Sending to
    /// several counts those that could be reached and skips those that wait for their next start after a death.
    ///
    /// # Errors
    ///
    /// [`NotFound`](estafette_core::ErrorKind::NotFound) when the group has no such member;
    /// [`Unavailable`](estafette_core::ErrorKind::Unavailable) when nobody could be reached, or took anything, within
    /// [`Limits::send_wait_max`](crate::Limits::send_wait_max); [`InvalidInput`](estafette_core::ErrorKind::InvalidInput)
    /// and [`TooLarge`](estafette_core::ErrorKind::TooLarge) for what cannot be sent. Nothing was sent then.
    pub async fn send<T: Serialize + ?Sized>(&self, action: &str, data: &T, to: To<'_>) -> Result<usize> {
        let parcel = Parcel::json(action, data, self.endpoint.limits.frame_bytes_max)?;
        self.endpoint.send(&parcel, to).await
    }

    /// Sends a message under its topic, written with its codec; how many participants it was handed to.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and of the codec.
    pub async fn send_message<M: Message>(&self, message: &M, to: To<'_>) -> Result<usize> {
        let parcel = self.parcel_of(message)?;
        self.endpoint.send(&parcel, to).await
    }

    /// Sends `data` as JSON under `action` to one participant and waits for what its listener answers.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](estafette_core::ErrorKind::TimedOut) when no reply came in time (a late one is dropped and
    /// counted); [`NotFound`](estafette_core::ErrorKind::NotFound) when the group has no such member, or nobody listens
    /// there; [`Closed`](estafette_core::ErrorKind::Closed) when it went away before it answered;
    /// [`Undecodable`](estafette_core::ErrorKind::Undecodable) when the reply has another form; the listener's own error,
    /// whose source is a [`ListenerError`](crate::ListenerError); and those of [`send`](Self::send).
    pub async fn request<T, R>(&self, action: &str, data: &T, to: To<'_>, wait_max: Duration) -> Result<R>
    where
        T: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let parcel = Parcel::json(action, data, self.endpoint.limits.frame_bytes_max)?;
        let reply = self.endpoint.request(&parcel, to, wait_max).await?;
        decode_json(reply.form, &reply.data)
    }

    /// Asks with a message, under its topic; the reply is JSON.
    ///
    /// # Errors
    ///
    /// Those of [`request`](Self::request), and of the codec.
    pub async fn request_message<M, R>(&self, message: &M, to: To<'_>, wait_max: Duration) -> Result<R>
    where
        M: Message,
        R: DeserializeOwned,
    {
        let parcel = self.parcel_of(message)?;
        let reply = self.endpoint.request(&parcel, to, wait_max).await?;
        decode_json(reply.form, &reply.data)
    }

    /// Asks several participants at once; what came in time, or why not, for each of them.
    ///
    /// # Errors
    ///
    /// Those that keep it from being sent at all; all others are in the list.
    pub async fn request_all<T, R>(
        &self,
        action: &str,
        data: &T,
        to: To<'_>,
        wait_max: Duration,
    ) -> Result<Vec<(Address, Result<R>)>>
    where
        T: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let parcel = Parcel::json(action, data, self.endpoint.limits.frame_bytes_max)?;
        let replies = self.endpoint.request_all(&parcel, to, wait_max).await?;
        Ok(replies
            .into_iter()
            .map(|(address, reply)| (address, reply.and_then(|body| decode_json(body.form, &body.data))))
            .collect())
    }

    /// Waits until this process is told to stop.
    ///
    /// From then on nothing new reaches its listeners; it may still send and ask until it ends, within the grace period.
    pub async fn stopping(&self) {
        // The sender lives in the endpoint, so waiting for it cannot fail.
        drop(self.endpoint.stopping.subscribe().wait_for(|stopping| *stopping).await);
    }

    /// Says that the listeners are in place: who calls from now on is answered.
    ///
    /// Only needed after [`WorkersBuilder::ready_when_told`](crate::WorkersBuilder::ready_when_told) and
    /// [`from_environment`](Self::from_environment).
    pub fn ready(&self) {
        self.endpoint.ready.send_replace(true);
    }

    /// Stops the whole group, this process included; returns when the supervisor has agreed.
    ///
    /// # Errors
    ///
    /// Those of [`request`](Self::request).
    pub async fn stop_group(&self) -> Result<()> {
        self.request(actions::STOP, &(), To::Supervisor, self.endpoint.limits.send_wait_max).await
    }

    fn parcel_of<M: Message>(&self, message: &M) -> Result<Parcel> {
        use estafette_core::Codec as _;
        let data = message.encode()?;
        let form = if M::Codec::CONTENT_TYPE == "application/json" { Form::Json } else { Form::Bytes };
        Parcel::body(M::TOPIC.as_str(), &Body { form, data }, self.endpoint.limits.frame_bytes_max)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Worker").field("address", self.address()).finish_non_exhaustive()
    }
}
