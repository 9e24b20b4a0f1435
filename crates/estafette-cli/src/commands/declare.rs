//! `estafette declare`: makes sure a queue exists.

use anyhow::Context as _;
use estafette::{Pattern, QueueName, QueueSpec};

use crate::{output, session::Session, values};

/// Makes sure a queue exists and is subscribed to patterns
///
/// Declaring it again adds patterns and changes nothing else. A queue subscribed to a pattern gets a copy of every message
/// published to a topic the pattern stands for.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette declare billing --subscribe 'order.*'
  estafette declare audit --subscribe '#'              # everything
  estafette declare thumbnails                         # only for messages sent to it by name")]
pub(crate) struct Arguments {
    /// The queue's name
    #[arg(value_parser = values::name::<QueueName>)]
    queue: QueueName,

    /// A topic it takes; `*` stands for one word, `#` for any number of words. May be repeated
    #[arg(long, value_name = "PATTERN", value_parser = values::name::<Pattern>)]
    subscribe: Vec<Pattern>,
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Self { queue, subscribe } = self;
        let bus = session.connect().await?;
        let spec = subscribe.into_iter().fold(QueueSpec::durable(queue.clone()), QueueSpec::subscribe);
        bus.declare(&spec).await.with_context(|| format!("cannot declare {queue}"))?;
        let patterns: Vec<&str> = spec.patterns.iter().map(Pattern::as_str).collect();
        if session.json() {
            output::print(&serde_json::json!({ "name": queue.as_str(), "patterns": patterns }).to_string())?;
        } else if patterns.is_empty() {
            output::print(&format!("declared {queue}"))?;
        } else {
            output::print(&format!("declared {queue}, subscribed to {}", patterns.join(" ")))?;
        }
        Ok(bus.close().await?)
    }
}
