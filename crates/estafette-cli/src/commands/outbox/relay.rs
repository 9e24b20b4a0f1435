//! `estafette outbox relay`: publishes what applications wrote.

use std::time::Duration;

use anyhow::Context as _;
use estafette::outbox::Relay;

use super::Place;
use crate::{
    daemon::{self, connect_patiently},
    output,
    session::Session,
    values,
};

/// Publishes events of an outbox, in the order of each subject
///
/// An event is marked sent only after the transport confirmed it. While that is away, events wait where they are. One that is
/// refused is tried again, later each time, and fails in the end: the later events of its subject wait until it is
/// retried or given up; no other subject does. Any number of relays may run on one outbox. Ends when asked to (SIGTERM,
/// SIGINT), with a summary on standard error.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette outbox relay --db postgres://localhost/shop --to amqp://localhost
  estafette outbox relay --db sqlite:./shop.db --to file:./mail --until-empty")]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,

    /// Where events are published: a URL, or a connection of the configuration file
    #[arg(long, value_name = "URL")]
    to: String,

    /// Events claimed and published together at most
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,

    /// How long claimed events are left alone by other relays; after a crash, how long they wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    lease: Duration,

    /// How often an event that is refused is tried
    #[arg(long, value_name = "N", default_value_t = 10)]
    attempts: u32,

    /// How often to look for events the database does not tell of; 100ms by default, 1s with PostgreSQL, which does
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    poll: Option<Duration>,

    /// Refuse events that no queue is subscribed to
    #[arg(long)]
    require_queue: bool,

    /// End when nothing is left to publish
    #[arg(long)]
    until_empty: bool,

    #[command(flatten)]
    service: daemon::Options,
}

impl Arguments {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let daemon = self.service.start()?;
        let stopped = daemon::stopped();
        let store = self.place.store()?;
        let bus = connect_patiently(&session.place(&self.to)?).await?;
        let retry = estafette::Retry::exponential(Duration::from_secs(1))
            .delay_max(Duration::from_secs(300))
            .attempts_max(self.attempts);
        let mut relay = Relay::new(store.clone(), bus.transport().clone())
            .batch(self.batch.into())
            .lease(self.lease)
            .retry(retry)
            .when_ready(daemon.ready());
        if let Some(poll) = self.poll {
            relay = relay.poll(poll);
        }
        if self.require_queue {
            relay = relay.require_queue();
        }
        let summary =
            if self.until_empty { relay.run_until_empty().await } else { relay.run_until(stopped).await };
        let summary = summary.with_context(|| format!("cannot relay from {}", self.place.shown()))?;
        output::warn(&format!("outbox relay: {summary}"));
        store.close().await;
        Ok(bus.close().await?)
    }
}
