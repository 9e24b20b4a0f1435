//! `estafette bench`: how fast the user's own engine is.
//!
//! `stages` has what is measured; `timing` the times and what they come to.

mod stages;
mod timing;

use std::time::Duration;

use anyhow::Context as _;
use estafette::{QueueName, QueueSpec};
use indicatif::ProgressBar;
use serde_json::json;

use self::{stages::Stages, timing::Timing};
use crate::{output, session, session::Session, table::table, values};

/// Measures how fast your own engine publishes and delivers
///
/// Uses a queue of its own, which is deleted at the end. Publishes single messages and batches of 100, consumes and
/// acknowledges them, and measures the time from publishing to delivery on an idle queue. Each stage ends after so many
/// messages or so much time, whichever is first.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette bench --url file:./mail
  estafette bench --url sqlite:./mail.db --messages 20000 --body-bytes 1024
  estafette bench --url file:./mail --json | jq -c '[.stage, .per_second]'")]
pub(crate) struct Arguments {
    /// At most so many messages in each stage
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    messages: u32,

    /// The size of each body, a JSON text
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    body_bytes: u32,

    /// At most so much time for each stage
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "3s")]
    time_limit: Duration,
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let bus = session.connect().await?;
        let queue = QueueName::try_from(format!("estafette-bench-{}", QueueName::unique()).as_str())?;
        bus.declare(&QueueSpec::durable(queue.clone()))
            .await
            .context("cannot declare the queue to measure")?;
        let stages = Stages {
            bus: bus.clone(),
            queue: queue.clone(),
            messages_max: self.messages as usize,
            time_max: self.time_limit,
            body: body(self.body_bytes as usize).into(),
        };
        // Also when a stage fails, or somebody has waited long enough.
        let measured = tokio::select! {
            measured = measure(&stages) => measured,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        let deleted = bus.admin().delete(&queue).await.context("cannot delete the queue that was measured");
        let timings = measured?;
        deleted?;
        print(&timings, session)?;
        Ok(bus.close().await?)
    }
}

async fn measure(stages: &Stages) -> anyhow::Result<Vec<Timing>> {
    // Hidden by itself when standard error is no terminal.
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut timings = Vec::new();
    spinner.set_message("publishing single messages");
    timings.push(stages.publish_single().await?);
    spinner.set_message("publishing batches");
    timings.push(stages.publish_batches().await?);
    spinner.set_message("consuming");
    timings.push(stages.consume().await?);
    spinner.set_message("measuring latency");
    timings.push(stages.latency().await?);
    spinner.finish_and_clear();
    Ok(timings)
}

fn print(timings: &[Timing], session: &Session) -> anyhow::Result<()> {
    if session.json() {
        let objects = timings.iter().map(|timing| {
            json!({
                "stage": timing.stage,
                "messages": timing.messages,
                "seconds": timing.seconds(),
                "per_second": timing.per_second(),
                "p50_microseconds": timing.quantile(0.5).map(microseconds),
                "p99_microseconds": timing.quantile(0.99).map(microseconds),
            })
            .to_string()
        });
        return output::print(&objects.collect::<Vec<_>>().join("\n"));
    }
    let rows: Vec<_> = timings.iter().map(row).collect();
    let table = table(["stage", "messages", "per second", "p50", "p99", "time of"], &rows);
    output::print(&format!("{}\n\n{table}", session::without_secrets(&session.url()?)))
}

fn row(timing: &Timing) -> [String; 6] {
    let time = |quantile| timing.quantile(quantile).map_or_else(String::new, timing::readable);
    [
        timing.stage.to_owned(),
        timing.messages.to_string(),
        format!("{:.0}", timing.per_second()),
        time(0.5),
        time(0.99),
        timing.unit.to_owned(),
    ]
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A JSON text of so many bytes.
fn body(bytes: usize) -> Vec<u8> {
    let (start, end) = ("{\"text\":\"", "\"}");
    let filling = bytes.saturating_sub(start.len() + end.len());
    format!("{start}{}{end}", "x".repeat(filling)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_of_the_size_asked_for() {
        assert_eq!(body(256).len(), 256);
        assert!(serde_json::from_slice::<serde_json::Value>(&body(256)).is_ok());
    }
}
