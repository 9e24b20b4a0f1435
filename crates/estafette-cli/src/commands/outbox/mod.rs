//! `estafette outbox`: events written in an application's own transactions.

mod relay;

use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use estafette::{
    Pattern, Timestamp,
    outbox::{OutboxStatus, RetryQuery, Store},
};

use crate::{
    failure::UsageError,
    output,
    session::{Session, without_secrets},
    values,
};

/// Looks after an outbox: events an application wrote in its own transactions, and publishes them
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette outbox init --db postgres://localhost/shop
  estafette outbox relay --db postgres://localhost/shop --to amqp://localhost
  estafette outbox status --db postgres://localhost/shop
  estafette outbox retry --failed --db postgres://localhost/shop
  estafette outbox clean --older-than 30d --db postgres://localhost/shop")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Init(Init),
    Relay(relay::Arguments),
    Status(Status),
    Retry(Retry),
    Clean(Clean),
}

/// Where the tables are.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// The application's database: postgres://…, mysql://… or sqlite:PATH
    #[arg(long, value_name = "URL", env = "ESTAFETTE_DB", hide_env_values = true)]
    db: String,
}

impl Place {
    /// The store there. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// For a URL of another kind.
    pub(crate) fn store(&self) -> anyhow::Result<Store> {
        Store::open(&self.db).with_context(|| format!("cannot use the database {}", self.shown()))
    }

    fn shown(&self) -> String {
        without_secrets(&self.db)
    }
}

/// Makes the tables estafette_outbox, estafette_inbox and estafette_dead_letters
///
/// Tables that are there stay as they are.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette outbox init --db sqlite:./shop.db
  estafette outbox init --db postgres: --print > migrations/7_estafette.sql")]
struct Init {
    #[command(flatten)]
    place: Place,

    /// Only print the statements, for a migration tool; the database need not be there
    #[arg(long)]
    print: bool,
}

/// Counts what waits, was sent and failed
///
/// The lag is how long the oldest event that is due has been waiting.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette outbox status --db sqlite:./shop.db
  estafette outbox status --db sqlite:./shop.db --json | jq .lag_seconds")]
struct Status {
    #[command(flatten)]
    place: Place,
}

/// Publishes events again, with the same ids
///
/// Those that failed and those that were sent; a consumer with an inbox knows the latter.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette outbox retry --failed --db sqlite:./shop.db
  estafette outbox retry --since 2026-11-20T08:00:00Z --topic 'order.*' --db sqlite:./shop.db")]
struct Retry {
    #[command(flatten)]
    place: Place,

    /// Those written at that time or later: a date (UTC), or a time such as 2026-11-20T08:00:00Z
    #[arg(long, value_name = "DATE", value_parser = date)]
    since: Option<Timestamp>,

    /// Only those that failed
    #[arg(long)]
    failed: bool,

    /// Those of these topics
    #[arg(long, value_name = "PATTERN", value_parser = values::name::<Pattern>)]
    topic: Option<Pattern>,
}

/// Deletes events that were sent, and ids of messages that were handled, a while ago
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette outbox clean --db sqlite:./shop.db
  estafette outbox clean --older-than 7d --failed --db sqlite:./shop.db")]
struct Clean {
    #[command(flatten)]
    place: Place,

    /// How long ago
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = values::duration)]
    older_than: Duration,

    /// Also give up events that failed: the later events of their subjects go out then
    #[arg(long)]
    failed: bool,
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self.verb {
            Verb::Init(arguments) => arguments.run().await,
            Verb::Relay(arguments) => arguments.run(session).await,
            Verb::Status(arguments) => arguments.run(session).await,
            Verb::Retry(arguments) => arguments.run(session).await,
            Verb::Clean(arguments) => arguments.run(session).await,
        }
    }
}

impl Init {
    async fn run(self) -> anyhow::Result<()> {
        let store = self.place.store()?;
        if self.print {
            return output::print(Store::schema(store.dialect()).trim_end());
        }
        let made = store.init().await;
        made.with_context(|| format!("cannot make the tables in {}", self.place.shown()))?;
        output::print(&format!("the tables are in {}", self.place.shown()))
    }
}

impl Status {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        let status = self.place.store()?.status().await;
        let status = status.with_context(|| format!("cannot read the outbox of {}", self.place.shown()))?;
        output::print(&if session.json() { as_json(&status) } else { as_text(&status) })
    }
}

fn as_json(status: &OutboxStatus) -> String {
    let object = serde_json::json!({
        "waiting": status.waiting,
        "delayed": status.delayed,
        "sent": status.sent,
        "failed": status.failed,
        "oldest": status.oldest.map(|time| time.to_string()),
        "lag_seconds": status.lag.as_secs_f64(),
        "last_error": status.last_error,
    });
    object.to_string()
}

fn as_text(status: &OutboxStatus) -> String {
    let delayed = if status.delayed > 0 { format!(" ({} delayed)", status.delayed) } else { String::new() };
    let oldest = status.oldest.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let mut lines = vec![
        format!("waiting  {}{delayed}", status.waiting),
        format!("sent     {}", status.sent),
        format!("failed   {}", status.failed),
        format!("oldest   {oldest}"),
        format!("lag      {:.3} s", status.lag.as_secs_f64()),
    ];
    if let Some(error) = &status.last_error {
        lines.push(format!("error    {error}"));
    }
    lines.join("\n")
}

impl Retry {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        if self.since.is_none() && !self.failed && self.topic.is_none() {
            let sentence = "say which ones: --failed, --since DATE or --topic PATTERN";
            return Err(UsageError(sentence.into()).into());
        }
        let query = RetryQuery { since: self.since, failed: self.failed, topic: self.topic };
        let count = self.place.store()?.retry(&query).await;
        let count = count.with_context(|| format!("cannot change the outbox of {}", self.place.shown()))?;
        conclude(&[("waiting again", "retried", count)], session)
    }
}

impl Clean {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        let store = self.place.store()?;
        let context = || format!("cannot clean the outbox of {}", self.place.shown());
        let sent = store.clean(self.older_than).await.with_context(context)?;
        let handled = store.clean_inbox(self.older_than).await.with_context(context)?;
        let mut done =
            vec![("sent events deleted", "sent", sent), ("handled ids forgotten", "handled", handled)];
        if self.failed {
            let failed = store.discard_failed(self.older_than).await.with_context(context)?;
            done.push(("failed events given up", "failed", failed));
        }
        conclude(&done, session)
    }
}

fn conclude(done: &[(&str, &str, u64)], session: &Session) -> anyhow::Result<()> {
    if session.json() {
        let object: serde_json::Map<String, serde_json::Value> =
            done.iter().map(|(_, key, count)| ((*key).to_owned(), (*count).into())).collect();
        return output::print(&serde_json::Value::Object(object).to_string());
    }
    let lines: Vec<String> = done.iter().map(|(words, _, count)| format!("{count} {words}")).collect();
    output::print(&lines.join("\n"))
}

/// A day, which begins at midnight UTC, or a point in time.
fn date(text: &str) -> Result<Timestamp, String> {
    let is_day = text.len() == 10 && !text.contains('T');
    let full = if is_day { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let wrong = |_error| format!("{text:?} is no date such as 2026-11-20 or 2026-11-20T08:00:00Z");
    full.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_midnight() {
        assert_eq!(date("2026-11-20").unwrap().to_string(), "2026-11-20T00:00:00Z");
        assert_eq!(date("2026-11-20T08:00:00+02:00").unwrap().to_string(), "2026-11-20T06:00:00Z");
        assert!(date("yesterday").is_err());
    }
}
