//! `estafette dead`: the dead letters of a queue.

mod export;
mod show;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use estafette::{Bus, DeadLetter, DeadQuery, MessageId, Pattern, QueueName, Reason};

use crate::{failure::UsageError, output, session::Session, values};

/// Dead letters read at a time.
const PAGE: usize = 500;

/// Looks after dead letters: messages that were refused, expired, or failed too often
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette dead list billing
  estafette dead show billing --id 0193e0a2-7c4f-7d1c-9a55-0d6a1f0c2b1e
  estafette dead redrive billing --reason attempts_exhausted
  estafette dead purge billing --all")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Lists them, oldest first
    #[command(after_help = "\
EXAMPLES
  estafette dead list billing
  estafette dead list billing --json | jq -r .reason | sort | uniq -c")]
    List(Selection),
    /// Shows them with their messages
    #[command(after_help = "\
EXAMPLES
  estafette dead show billing --id 0193e0a2-7c4f-7d1c-9a55-0d6a1f0c2b1e
  estafette dead show billing --json | jq .message.data")]
    Show(Selection),
    Export(export::Export),
    /// Puts them back into their queue, with all their attempts before them
    #[command(after_help = "\
EXAMPLES
  estafette dead redrive billing --all
  estafette dead redrive billing --topic 'order.*' --reason expired")]
    Redrive(Selection),
    /// Deletes them
    #[command(after_help = "\
EXAMPLES
  estafette dead purge billing --all
  estafette dead purge billing --reason undecodable")]
    Purge(Selection),
}

#[derive(clap::Args)]
struct Selection {
    /// The queue's name
    #[arg(value_parser = values::name::<QueueName>)]
    queue: QueueName,

    /// The one with this id. May be repeated
    #[arg(long, value_name = "ID", value_parser = values::name::<MessageId>)]
    id: Vec<MessageId>,

    /// All of them
    #[arg(long, conflicts_with_all = ["id", "reason", "topic"])]
    all: bool,

    /// Those that died for this reason
    #[arg(long, value_name = "REASON", value_parser = reason_parser())]
    reason: Option<Reason>,

    /// Those of these topics
    #[arg(long, value_name = "PATTERN", value_parser = values::name::<Pattern>)]
    topic: Option<Pattern>,
}

/// Reads a reason, and lists them in the help.
fn reason_parser() -> impl clap::builder::TypedValueParser<Value = Reason> {
    use clap::builder::TypedValueParser as _;
    let words = Reason::ALL.map(Reason::as_str);
    clap::builder::PossibleValuesParser::new(words).try_map(|word| values::name::<Reason>(&word))
}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self.verb {
            Verb::List(selection) => selection.print(session, show::Detail::Line).await,
            Verb::Show(selection) => selection.print(session, show::Detail::Message).await,
            Verb::Export(export) => export.run(session).await,
            Verb::Redrive(selection) => selection.redrive(session).await,
            Verb::Purge(selection) => selection.purge(session).await,
        }
    }
}

impl Selection {
    fn query(&self) -> DeadQuery {
        DeadQuery { ids: self.id.clone(), reason: self.reason, topic: self.topic.clone(), ..DeadQuery::all() }
    }

    /// Refuses to change everything unless asked for in so many words.
    fn check_narrowed(&self) -> anyhow::Result<()> {
        if self.all || !self.id.is_empty() || self.reason.is_some() || self.topic.is_some() {
            return Ok(());
        }
        Err(UsageError("say which ones: --id ID, --reason REASON, --topic PATTERN, or --all".into()).into())
    }

    async fn print(self, session: &Session, detail: show::Detail) -> anyhow::Result<()> {
        let bus = session.connect().await?;
        let mut printed = 0;
        loop {
            let page = self.page(&bus, printed).await?;
            printed += page.len();
            let is_last = page.len() < PAGE;
            if !page.is_empty() {
                output::print(&show::text(&page, detail, session.json()))?;
            }
            if is_last {
                break;
            }
        }
        self.check_found(printed as u64)?;
        if printed == 0 && !session.json() {
            output::warn(&format!("{} has no such dead letter", self.queue));
        }
        Ok(bus.close().await?)
    }

    async fn page(&self, bus: &Bus, skip: usize) -> anyhow::Result<Vec<DeadLetter>> {
        let query = DeadQuery { skip, limit: Some(PAGE), ..self.query() };
        let page = bus.admin().dead(&self.queue, &query).await;
        page.with_context(|| format!("cannot read the dead letters of {}", self.queue))
    }

    async fn redrive(self, session: &Session) -> anyhow::Result<()> {
        self.check_narrowed()?;
        let bus = session.connect().await?;
        let count = bus.admin().redrive(&self.queue, &self.query()).await;
        let count = count.with_context(|| format!("cannot redrive the dead letters of {}", self.queue))?;
        self.conclude("redriven", count, session)?;
        Ok(bus.close().await?)
    }

    async fn purge(self, session: &Session) -> anyhow::Result<()> {
        self.check_narrowed()?;
        let bus = session.connect().await?;
        let count = bus.admin().purge_dead(&self.queue, &self.query()).await;
        let count = count.with_context(|| format!("cannot purge the dead letters of {}", self.queue))?;
        self.conclude("purged", count, session)?;
        Ok(bus.close().await?)
    }

    fn conclude(&self, done: &str, count: u64, session: &Session) -> anyhow::Result<()> {
        if session.json() {
            let object = serde_json::json!({ "queue": self.queue.as_str(), done: count });
            output::print(&object.to_string())?;
        } else {
            output::print(&format!("{count} {done}"))?;
        }
        self.check_found(count)
    }

    /// An id that was asked for and is not there is a failure; an empty selection of another kind is not.
    fn check_found(&self, count: u64) -> anyhow::Result<()> {
        let asked = self.id.len() as u64;
        if count < asked {
            bail!("{} of {asked} ids given are not among the dead letters of {}", asked - count, self.queue);
        }
        Ok(())
    }
}
