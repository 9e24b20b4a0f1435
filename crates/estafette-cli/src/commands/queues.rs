//! `estafette queues`: every queue, and how full it is.

use anyhow::Context as _;
use estafette::{Pattern, QueueStatus};
use serde_json::json;

use crate::{output, session::Session, table::table};

/// Lists every queue: its patterns and how many messages are in it
///
/// ready: a consumer would get them now. delayed: they wait for their time, or for a retry. leased: a consumer holds them.
/// dead: they are among the dead letters.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette queues
  estafette queues --json | jq 'select(.dead > 0) | .name'")]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Self {} = self;
        let bus = session.connect().await?;
        let queues = bus.admin().queues().await.context("cannot list the queues")?;
        if session.json() {
            for queue in &queues {
                output::print(&object(queue).to_string())?;
            }
        } else if queues.is_empty() {
            output::warn("there is no queue yet; try `estafette declare QUEUE --subscribe PATTERN`");
        } else {
            let rows: Vec<_> = queues.iter().map(row).collect();
            output::print(&table(["name", "patterns", "ready", "delayed", "leased", "dead"], &rows))?;
        }
        Ok(bus.close().await?)
    }
}

fn patterns(queue: &QueueStatus) -> Vec<&str> {
    queue.patterns.iter().map(Pattern::as_str).collect()
}

fn object(queue: &QueueStatus) -> serde_json::Value {
    let QueueStatus { ready, delayed, leased, dead, .. } = queue;
    json!({
        "name": queue.name.as_str(),
        "patterns": patterns(queue),
        "ready": ready,
        "delayed": delayed,
        "leased": leased,
        "dead": dead,
    })
}

fn row(queue: &QueueStatus) -> [String; 6] {
    let patterns = if queue.patterns.is_empty() { "-".into() } else { patterns(queue).join(" ") };
    let counts = [queue.ready, queue.delayed, queue.leased, queue.dead].map(|count| count.to_string());
    let [ready, delayed, leased, dead] = counts;
    [queue.name.to_string(), patterns, ready, delayed, leased, dead]
}
