//! The publisher of the demo: a process.

use std::time::Duration;

use anyhow::Context as _;
use estafette::Outgoing;
use tokio::time::MissedTickBehavior;

use super::messages::Source;
use crate::{commands::demo::tally::Heard, output, session::Session};

/// Published together.
const BATCH: u32 = 50;

/// How long publishing all of them takes at least.
const TIME_MAX: Duration = Duration::from_secs(6);

/// The time for one message, unless that would be too long for all.
const TIME_EACH: Duration = Duration::from_millis(3);

/// Publishes the messages of the demo. Started by `demo`
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    messages: u32,
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let bus = session.connect().await?.with_source("demo");
        let mut source = Source::new(bus.clone());
        let time = (TIME_EACH * self.messages).min(TIME_MAX);
        let batches = self.messages.div_ceil(BATCH);
        let mut pace = tokio::time::interval((time / batches.max(1)).max(Duration::from_millis(1)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut left = self.messages;
        while left > 0 {
            pace.tick().await;
            let count = left.min(BATCH);
            let batch: Vec<Outgoing> = (0..count).map(|_| source.next()).collect::<Result<_, _>>()?;
            let topics: Vec<_> = batch.iter().map(|outgoing| outgoing.envelope.topic.clone()).collect();
            let receipts = bus.publish_batch(batch).await;
            let mut lines = Vec::new();
            for (receipt, topic) in receipts.into_iter().zip(topics) {
                let receipt = receipt.context("cannot publish")?;
                lines.push(
                    Heard::Published { id: receipt.id.to_string(), topic, routing: receipt.routing }.line(),
                );
            }
            output::print(&lines.join("\n"))?;
            left -= count;
        }
        Ok(bus.close().await?)
    }
}
