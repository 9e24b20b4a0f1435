//! Calls to the broker one after the other, on a channel that is opened again when a call has closed it.

use std::sync::Arc;

use estafette_core::{Error, ErrorKind, QueueName, Result};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    config::AmqpConfig,
    connector::Connector,
    link::{Channel, Events, Reply},
    protocol::request::{self, DeclareQueue},
};

/// A channel nothing comes on by itself.
pub(crate) struct Quiet;

impl Events for Quiet {}

/// Where calls are made.
pub(crate) struct Desk {
    config: Arc<AmqpConfig>,
    connector: Arc<Connector>,
    channel: Mutex<Option<Channel>>,
}

impl Desk {
    pub(crate) fn new(config: Arc<AmqpConfig>, connector: Arc<Connector>) -> Self {
        Self { config, connector, channel: Mutex::default() }
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.patience
    }

    /// A call that may be made again when the connection breaks meanwhile. A refusal is final.
    pub(crate) async fn call(&self, encode: impl Fn(&mut Vec<u8>, u16)) -> Result<Reply> {
        let deadline = self.deadline();
        let mut channel = self.channel.lock().await;
        loop {
            let open = self.open(&mut channel, deadline).await?;
            match open.call(&encode).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {}
                result => return result,
            }
        }
    }

    async fn open<'a>(&self, channel: &'a mut Option<Channel>, deadline: Instant) -> Result<&'a Channel> {
        loop {
            if channel.as_ref().is_none_or(|channel| !channel.is_open()) {
                let link = self.connector.link(deadline).await?;
                match link.channel(Arc::new(Quiet)).await {
                    Ok(opened) => *channel = Some(opened),
                    Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            if let Some(channel) = channel {
                return Ok(channel);
            }
        }
    }

    /// How many messages are ready in a queue, and how many consumers it has; none when it does not exist.
    pub(crate) async fn look(&self, queue: &str) -> Result<Option<(u32, u32)>> {
        let passive =
            DeclareQueue { name: queue, passive: true, durable: false, auto_delete: false, arguments: &[] };
        match self.call(|out, id| request::queue_declare(out, id, &passive)).await {
            Ok(reply) => reply.counts().map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fails when a queue does not exist.
    pub(crate) async fn must_exist(&self, queue: &QueueName) -> Result<(u32, u32)> {
        self.look(queue.as_str()).await?.ok_or_else(|| Error::no_queue(queue))
    }

    /// A channel of its own for `events`.
    pub(crate) async fn channel(&self, events: Arc<dyn Events>, deadline: Instant) -> Result<Channel> {
        loop {
            let link = self.connector.link(deadline).await?;
            match link.channel(Arc::clone(&events)).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {}
                result => return result,
            }
        }
    }

    pub(crate) async fn close(&self) {
        drop(self.channel.lock().await.take());
    }
}
