//! `estafette delete`: deletes a queue.

use anyhow::Context as _;
use estafette::QueueName;

use crate::{output, session::Session, values};

/// Deletes a queue with its messages and its dead letters
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette delete billing")]
pub(crate) struct Arguments {
    /// The queue's name
    #[arg(value_parser = values::name::<QueueName>)]
    queue: QueueName,
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Self { queue } = self;
        let bus = session.connect().await?;
        bus.admin().delete(&queue).await.with_context(|| format!("cannot delete {queue}"))?;
        if session.json() {
            output::print(&serde_json::json!({ "name": queue.as_str(), "deleted": true }).to_string())?;
        } else {
            output::print(&format!("deleted {queue}"))?;
        }
        Ok(bus.close().await?)
    }
}
