//! The client: what a backend does to connections and channels.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use estafette_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    builder::{Builder, Settings},
    caller::{self, Job},
    consumer::Consumer,
    discovery::{self, Node},
    id::ConnectionId,
    wire::Outcome,
};

/// Requests that wait to be written.
const JOBS_MAX: usize = 1_024;

/// What is sent to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

/// How many connections a publish went to, on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Those it was written or queued to.
    pub success: u64,
    /// Those that could not take it.
    pub fail: u64,
}

/// A client of the gateway. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    nodes: watch::Receiver<Vec<Node>>,
    jobs: mpsc::Sender<Job>,
    /// Ended with the last clone.
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("host", &self.shared.settings.host).finish_non_exhaustive()
    }
}

impl Client {
    /// A client's settings.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn start(settings: Settings) -> Result<Self> {
        discovery::check_version(&settings).await?;
        let (list, nodes) = watch::channel(discovery::nodes(&settings).await?);
        let (jobs, asked) = mpsc::channel(JOBS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(discovery::follow(settings.clone(), list));
        tasks.spawn(caller::run(settings.clone(), nodes.clone(), asked));
        Ok(Self { shared: Arc::new(Shared { settings, nodes, jobs, _tasks: tasks }) })
    }

    /// The nodes, as last told.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        self.shared.nodes.borrow().clone()
    }

    /// Consumes queues on every node, also on those that join later.
    ///
    /// A message counts as taken when the node has written it: what is on the way when this program dies is lost.
    /// See [`Client::consume_acknowledging`].
    pub fn consume<Q: Into<String>>(&self, queues: impl IntoIterator<Item = Q>) -> Consumer {
        self.consumer(queues, false)
    }

    /// As [`Client::consume`], for messages that come again until they are acknowledged.
    ///
    /// They come again when the connection to their node ends, so that a message may come twice.
    pub fn consume_acknowledging<Q: Into<String>>(&self, queues: impl IntoIterator<Item = Q>) -> Consumer {
        self.consumer(queues, true)
    }

    fn consumer<Q: Into<String>>(
        &self,
        queues: impl IntoIterator<Item = Q>,
        acknowledging: bool,
    ) -> Consumer {
        let queues: Vec<String> = queues.into_iter().map(Into::into).collect();
        let request = json!({ "t": queues, "ack": acknowledging });
        // Holds the client, so that the nodes are followed as long as somebody consumes.
        Consumer::start(self.clone(), self.shared.settings.clone(), self.shared.nodes.clone(), request)
    }

    /// Sends to a connection, wherever it is.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) when the connection has ended or does not read; those of every request, which are:
    /// [`Unavailable`](ErrorKind::Unavailable) when no node could be reached in time and nothing was sent,
    /// [`TimedOut`](ErrorKind::TimedOut) when no answer came and it may have been done,
    /// [`InvalidInput`](ErrorKind::InvalidInput) for what the gateway does not accept, and
    /// [`Denied`](ErrorKind::Denied) for wrong credentials or a missing role.
    pub async fn send(&self, connection: ConnectionId, payload: impl Into<Payload>) -> Result<()> {
        let params = addressed(&connection.number().into(), payload.into());
        self.request("mesh.send", params).await.map(drop)
    }

    /// Sends to every connection that is subscribed to `channel`, on all nodes.
    ///
    /// # Errors
    ///
    /// Those of every request; see [`Client::send`]. A channel without subscribers is no error.
    pub async fn publish(&self, channel: &str, payload: impl Into<Payload>) -> Result<Published> {
        let params = addressed(&channel.into(), payload.into());
        let Outcome { s: success, f: fail } = self.request("mesh.publish", params).await?;
        Ok(Published { success, fail })
    }

    /// As [`Client::publish`], for any value, as JSON: an event that reaches the browsers.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) when it cannot be written as JSON; those of [`Client::publish`].
    pub async fn publish_json(&self, channel: &str, event: &(impl Serialize + Sync)) -> Result<Published> {
        let text = serde_json::to_string(event).map_err(invalid)?;
        self.publish(channel, text).await
    }

    /// Sets one value of a connection's context; wakes a script that waits for it.
    ///
    /// # Errors
    ///
    /// Those of [`Client::send`].
    pub async fn set_context_value(
        &self,
        connection: ConnectionId,
        key: &str,
        value: impl Serialize,
    ) -> Result<()> {
        let value = serde_json::to_value(value).map_err(invalid)?;
        self.call(connection, "set_context_value", json!([key, value])).await
    }

    /// Replaces a connection's context by an object.
    ///
    /// # Errors
    ///
    /// Those of [`Client::send`].
    pub async fn set_context(&self, connection: ConnectionId, context: impl Serialize) -> Result<()> {
        let context = serde_json::to_value(context).map_err(invalid)?;
        self.call(connection, "set_context", json!([context])).await
    }

    /// Subscribes a connection to channels.
    ///
    /// # Errors
    ///
    /// Those of [`Client::send`].
    pub async fn subscribe(
        &self,
        connection: ConnectionId,
        channels: impl IntoIterator<Item = &str>,
    ) -> Result<()> {
        let channels = channels.into_iter().map(Value::from).collect();
        self.call(connection, "subscribe", channels).await
    }

    /// Ends subscriptions of a connection.
    ///
    /// # Errors
    ///
    /// Those of [`Client::send`].
    pub async fn unsubscribe(
        &self,
        connection: ConnectionId,
        channels: impl IntoIterator<Item = &str>,
    ) -> Result<()> {
        let channels = channels.into_iter().map(Value::from).collect();
        self.call(connection, "unsubscribe", channels).await
    }

    async fn call(&self, connection: ConnectionId, function: &str, arguments: Value) -> Result<()> {
        let params = json!({ "c": connection.number(), "f": function, "a": arguments });
        self.request("conn.call", params).await.map(drop)
    }

    async fn request(&self, method: &'static str, params: Value) -> Result<Outcome> {
        let (answer, answered) = oneshot::channel();
        let is_written = Arc::new(AtomicBool::new(false));
        let job = Job { method, params, is_written: Arc::clone(&is_written), answer };
        let asking = async {
            let closed = |_| Error::new(ErrorKind::Closed, "the client has ended");
            self.shared.jobs.send(job).await.map_err(|_job| closed(()))?;
            answered.await.map_err(|_dropped| closed(()))?
        };
        match tokio::time::timeout(self.shared.settings.answer_time_max, asking).await {
            Ok(outcome) => outcome,
            Err(elapsed) if is_written.load(Ordering::Relaxed) => {
                Err(Error::new(ErrorKind::TimedOut, elapsed))
            }
            Err(elapsed) => Err(Error::new(ErrorKind::Unavailable, elapsed)),
        }
    }
}

fn addressed(to: &Value, payload: Payload) -> Value {
    match payload {
        Payload::Text(text) => json!({ "c": to, "d": text }),
        Payload::Binary(bytes) => json!({ "c": to, "d": STANDARD.encode(bytes), "t": "binary" }),
    }
}

fn invalid(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::InvalidInput, error)
}
