//! `estafette dead export`: dead letters into a table, and back from it one by one.

use std::time::Duration;

use anyhow::Context as _;
use estafette::{Bus, DeadQuery, QueueName, outbox::Store};

use crate::{commands::outbox::Place, daemon, output, session::Session, values};

/// Moves the dead letters of queues into the table estafette_dead_letters of a database
///
/// Each is deleted here only after it is stored there. The table is made by `estafette outbox init`.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette dead export billing mailer --db postgres://localhost/shop
  estafette dead export billing mailer --every 10s --db postgres://localhost/shop
  estafette dead export --redrive 17 --db postgres://localhost/shop")]
pub(super) struct Export {
    /// The queues' names
    #[arg(value_parser = values::name::<QueueName>, required_unless_present = "redrive")]
    queues: Vec<QueueName>,

    #[command(flatten)]
    place: Place,

    /// Go on, and look for new ones so often, until asked to stop (SIGTERM, SIGINT)
    #[arg(long, value_name = "TIME", value_parser = values::duration, conflicts_with = "redrive")]
    every: Option<Duration>,

    #[command(flatten)]
    service: daemon::Options,

    /// Put the dead letter with this number (the column seq) back into its queue. May be repeated
    #[arg(long, value_name = "NUMBER", conflicts_with = "queues")]
    redrive: Vec<i64>,
}

impl Export {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let store = self.place.store()?;
        let bus = session.connect().await?;
        for number in &self.redrive {
            let redriven = store.redrive_dead(*number, &**bus.transport()).await;
            let id = redriven.with_context(|| format!("cannot redrive dead letter {number}"))?;
            output::print(&id.to_string())?;
        }
        match self.every {
            None => self.export(&bus, &store, session).await?,
            Some(every) => self.export_until_stopped(&bus, &store, session, every).await?,
        }
        store.close().await;
        Ok(bus.close().await?)
    }

    async fn export_until_stopped(
        &self,
        bus: &Bus,
        store: &Store,
        session: &Session,
        every: Duration,
    ) -> anyhow::Result<()> {
        let daemon = self.service.start()?;
        let stopped = daemon::stopped();
        tokio::pin!(stopped);
        daemon.ready()();
        loop {
            if let Err(error) = self.export(bus, store, session).await {
                match error.downcast_ref::<estafette::Error>() {
                    Some(cause) if cause.is_retryable() => {
                        tracing::warn!(error = format!("{error:#}"), "trying again in {every:?}");
                    }
                    _ => return Err(error),
                }
            }
            tokio::select! {
                () = &mut stopped => return Ok(()),
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    async fn export(&self, bus: &Bus, store: &Store, session: &Session) -> anyhow::Result<()> {
        for queue in &self.queues {
            let moved = estafette::outbox::export(&**bus.transport(), queue, &DeadQuery::all(), store).await;
            let moved = moved.with_context(|| format!("cannot export the dead letters of {queue}"))?;
            if moved == 0 && self.every.is_some() {
                continue;
            }
            if session.json() {
                let object = serde_json::json!({ "queue": queue.as_str(), "exported": moved });
                output::print(&object.to_string())?;
            } else {
                output::print(&format!("{moved} exported from {queue}"))?;
            }
        }
        Ok(())
    }
}
