//! `estafette bridge`: from a queue of one transport to another transport.

use anyhow::Context as _;
use estafette::{Bridge, Pattern, QueueName, QueueSpec};

use crate::{
    daemon::{self, connect_patiently},
    output,
    session::Session,
    values,
};

/// Takes messages from one transport and publishes them to another
///
/// A message is acknowledged only after the other side confirmed it; while that is down, messages wait where they are. One
/// that no queue of the other side takes, or that it refuses, becomes a dead letter on this side. Ends when asked to
/// (SIGTERM, SIGINT), with a summary on standard error.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette bridge --from file:./mail outbound --subscribe 'order.#' --to sqlite:./central.db
  estafette bridge --from file:./mail outbound --to sqlite:./central.db --to-queue inbox --until-empty")]
pub(crate) struct Arguments {
    /// Where messages are taken from: a URL, or a connection of the configuration file
    #[arg(long, value_name = "URL")]
    from: String,

    /// The queue they are taken from; it is declared first
    #[arg(value_parser = values::name::<QueueName>)]
    queue: QueueName,

    /// Where they are published: a URL, or a connection of the configuration file
    #[arg(long, value_name = "URL")]
    to: String,

    /// A topic to forward: the queue is subscribed to it. May be repeated
    #[arg(long, value_name = "PATTERN", value_parser = values::name::<Pattern>)]
    subscribe: Vec<Pattern>,

    /// Send everything to this queue of the other side, instead of publishing to the same topics
    #[arg(long, value_name = "NAME", value_parser = values::name::<QueueName>)]
    to_queue: Option<QueueName>,

    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// End when nothing is left to forward
    #[arg(long)]
    until_empty: bool,

    #[command(flatten)]
    service: daemon::Options,
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let daemon = self.service.start()?;
        let (from, to) = (session.place(&self.from)?, session.place(&self.to)?);
        let from = connect_patiently(&from).await?;
        let to = connect_patiently(&to).await?;
        let spec = self.subscribe.into_iter().fold(QueueSpec::durable(self.queue), QueueSpec::subscribe);
        let queue = spec.name.clone();
        let mut bridge =
            Bridge::new(from.transport().clone(), spec, to.transport().clone()).when_ready(daemon.ready());
        if let Some(name) = self.to_queue {
            bridge = bridge.to_queue(name);
        }
        if let Some(count) = self.count {
            bridge = bridge.count_max(count);
        }
        if self.until_empty {
            bridge = bridge.stop_when_empty();
        }
        let summary = bridge.run().await.with_context(|| format!("cannot forward from {queue}"))?;
        output::warn(&format!("bridge {queue}: {summary}"));
        to.close().await?;
        Ok(from.close().await?)
    }
}
