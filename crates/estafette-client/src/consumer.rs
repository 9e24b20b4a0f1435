//! Messages of queues, from every node: a task per node, one bounded buffer for all.
//!
//! When the buffer is full, the tasks stop reading, and the messages stay in the gateway's queues.

use std::{
    collections::HashMap,
    pin::Pin,
    task::{Context, Poll},
};

use estafette_core::{Error, ErrorKind, Result};
use futures_util::Stream;
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use crate::{
    builder::Settings,
    client::Client,
    discovery::Node,
    id::ConnectionId,
    socket::{Backoff, PING_EVERY, Socket},
    wire::{self, Event, Frame},
};

/// Acknowledgements that wait to be written; more than a gateway hands out unacknowledged.
const TAGS_MAX: usize = 4_096;

/// The ids of a consumer's requests.
const CONSUME: u64 = 1;
const CANCEL: u64 = 2;
const ACKNOWLEDGE: u64 = 3;

/// What a user's script pushed to a queue.
#[derive(Debug)]
pub struct Message {
    node: Node,
    connection: Option<ConnectionId>,
    queue: String,
    data: Box<RawValue>,
    acknowledgement: Option<(u64, mpsc::Sender<u64>)>,
}

impl Message {
    /// The node it came from.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The user's connection.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) for a message that no connection pushed.
    pub fn connection(&self) -> Result<ConnectionId> {
        self.connection.ok_or_else(|| Error::new(ErrorKind::NotFound, "no connection pushed the message"))
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// What was pushed, as JSON.
    #[must_use]
    pub fn json(&self) -> &str {
        self.data.get()
    }

    /// What was pushed.
    ///
    /// # Errors
    ///
    /// [`Undecodable`](ErrorKind::Undecodable) when it is not a `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.data.get()).map_err(|error| Error::new(ErrorKind::Undecodable, error))
    }

    /// Settles a message of [`Client::consume_acknowledging`]; nothing to do for others.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](ErrorKind::LeaseLost) when the connection it came on has ended: it comes again.
    pub fn acknowledge(self) -> Result<()> {
        let Some((tag, tags)) = self.acknowledgement else { return Ok(()) };
        let lost = |_| Error::new(ErrorKind::LeaseLost, "the connection it came on has ended");
        tags.try_send(tag).map_err(lost)
    }
}

/// A stream of messages. An error is about one connection, which is made again: the stream goes on.
///
/// Ends after [`Consumer::stop`]. When it is dropped, messages it holds are lost unless they are to be acknowledged.
#[derive(Debug)]
pub struct Consumer {
    messages: mpsc::Receiver<Result<Message>>,
    stop: watch::Sender<bool>,
    /// Ended when the consumer is dropped.
    _tasks: JoinSet<()>,
}

impl Consumer {
    pub(crate) fn start(
        client: Client,
        settings: Settings,
        nodes: watch::Receiver<Vec<Node>>,
        request: Value,
    ) -> Self {
        let (sender, messages) = mpsc::channel(settings.messages_max);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let link = Link { settings, request, sender, stop: stopped };
            follow(nodes, link).await;
            drop(client);
        });
        Self { messages, stop, _tasks: tasks }
    }

    /// Takes no more messages. The stream yields those that were taken, and ends. What is not acknowledged by then comes
    /// again, to another consumer.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Stream for Consumer {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(context)
    }
}

/// What each node's task works with.
#[derive(Clone)]
struct Link {
    settings: Settings,
    request: Value,
    sender: mpsc::Sender<Result<Message>>,
    stop: watch::Receiver<bool>,
}

/// Keeps a task for every node there is.
async fn follow(mut nodes: watch::Receiver<Vec<Node>>, mut link: Link) {
    let mut tasks = JoinSet::new();
    let mut running: HashMap<Node, AbortHandle> = HashMap::new();
    loop {
        let current = nodes.borrow_and_update().clone();
        running.retain(|node, task| {
            let stays = current.contains(node);
            if !stays {
                task.abort();
            }
            stays
        });
        for node in current {
            let of_task = node.clone();
            running.entry(node).or_insert_with(|| tasks.spawn(link.clone().run(of_task)));
        }
        tokio::select! {
            changed = nodes.changed() => if changed.is_err() { return },
            () = stopped(&mut link.stop) => break,
        }
    }
    drop(link);
    while tasks.join_next().await.is_some() {}
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A consumer that is gone is one that stopped.
    drop(stop.wait_for(|stop| *stop).await);
}

/// One connection's state.
struct Taking {
    node: Node,
    tags: mpsc::Sender<u64>,
    acknowledged: mpsc::Receiver<u64>,
    /// Has no place in the buffer yet.
    waiting: Option<Message>,
    is_stopping: bool,
}

/// Why a connection is not used any more.
enum End {
    Stopped,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Link {
    /// Consumes from `node`, connecting again and again, until stopped.
    async fn run(mut self, node: Node) {
        let mut backoff = Backoff::new(self.settings.reconnect_after);
        loop {
            let ended = match Socket::connect(&self.settings, &node).await {
                Ok(socket) => self.take(socket, &node, &mut backoff).await,
                Err(error) => End::Failed(error),
            };
            let End::Failed(error) = ended else { return };
            tracing::debug!(error = error.report(), node = node.id, "no messages from a node");
            // A program that does not look at its messages does not look at errors either.
            if let Err(mpsc::error::TrySendError::Closed(_)) = self.sender.try_send(Err(error)) {
                return;
            }
            tokio::select! {
                () = backoff.pause() => {}
                () = stopped(&mut self.stop) => return,
            }
        }
    }

    async fn take(&mut self, mut socket: Socket, node: &Node, backoff: &mut Backoff) -> End {
        let (tags, acknowledged) = mpsc::channel(TAGS_MAX);
        let node = node.clone();
        let mut taking = Taking { node, tags, acknowledged, waiting: None, is_stopping: false };
        let ended = self.exchange(&mut socket, &mut taking, backoff).await;
        let end = ended.map_or_else(std::convert::identity, |never| match never {});
        if let End::Stopped = end {
            socket.close().await;
        }
        end
    }

    async fn exchange(
        &mut self,
        socket: &mut Socket,
        taking: &mut Taking,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, End> {
        socket.send(vec![wire::request("queue.pop", &self.request, CONSUME)?]).await?;
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_full = taking.waiting.is_some();
            tokio::select! {
                frame = socket.next(), if !is_full => taking.heard(frame?, backoff)?,
                place = self.sender.reserve(), if is_full => {
                    let place = place.map_err(|_closed| End::Stopped)?;
                    if let Some(message) = taking.waiting.take() {
                        place.send(Ok(message));
                    }
                    socket.listen_again();
                }
                Some(tag) = taking.acknowledged.recv() => {
                    socket.send(vec![taking.acknowledgement(tag)?]).await?;
                }
                _ = pings.tick(), if !is_full => socket.ping().await?,
                () = stopped(&mut self.stop), if !taking.is_stopping => {
                    taking.is_stopping = true;
                    let mut requests = Vec::new();
                    // What was acknowledged before must not come again.
                    if let Ok(tag) = taking.acknowledged.try_recv() {
                        requests.push(taking.acknowledgement(tag)?);
                    }
                    requests.push(wire::request("queue.unpop", (), CANCEL)?);
                    socket.send(requests).await?;
                }
                () = self.sender.closed() => return Err(End::Stopped),
            }
        }
    }
}

impl Taking {
    /// One request for this tag and all that wait.
    fn acknowledgement(&mut self, tag: u64) -> Result<String> {
        let mut tags = vec![tag];
        while let Ok(tag) = self.acknowledged.try_recv() {
            tags.push(tag);
        }
        wire::request("queue.ack", tags, ACKNOWLEDGE)
    }

    fn heard(&mut self, frame: Frame, backoff: &mut Backoff) -> Result<(), End> {
        if let Some(event) = frame.p {
            self.waiting = Some(self.message(event));
            return Ok(());
        }
        match frame.i {
            Some(CONSUME) => {
                frame.outcome()?;
                backoff.succeeded();
                Ok(())
            }
            Some(CANCEL) => Err(End::Stopped),
            // An unknown tag was acknowledged on a connection that broke: the message comes again.
            _ => Ok(()),
        }
    }

    fn message(&self, event: Event) -> Message {
        Message {
            node: self.node.clone(),
            connection: event.c.parse().ok(),
            queue: event.t,
            data: event.d,
            acknowledgement: event.a.map(|tag| (tag, self.tags.clone())),
        }
    }
}
