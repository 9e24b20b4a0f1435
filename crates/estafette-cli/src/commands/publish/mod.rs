//! `estafette publish`: publishes a message, or one for each line of standard input.
//!
//! `message` makes an outgoing message of a body; `lines` reads standard input in batches; `progress` shows how far it is.

mod lines;
mod message;
mod progress;

use std::{ffi::OsString, io::Read as _, os::unix::ffi::OsStringExt as _, time::Duration};

use anyhow::{Context as _, bail};
use clap::ArgAction;
use estafette::{Bus, Bytes, Outgoing, QueueName, Receipt, Topic};

use self::{lines::Lines, message::Template, progress::Progress};
use crate::{
    failure::UsageError,
    output::{self, OutputClosed},
    session::Session,
    values,
};

/// Publishes a message to a topic, or sends it to one queue
///
/// Prints the id of each message. Ends with status 0 only when all are stored. A message published to a topic no queue
/// is subscribed to goes nowhere; a warning says so, and with --require-queue it is an error.
#[derive(clap::Args)]
#[command(
    override_usage = "estafette publish [OPTIONS] TOPIC [BODY | -]\n       estafette publish [OPTIONS] --queue NAME [BODY | -]",
    after_help = "\
EXAMPLES
  estafette publish order.created '{\"id\":42}'
  estafette publish image.uploaded - --content-type image/png < photo.png
  estafette publish --queue billing '{\"id\":42}' --delay 5s --ttl 1h
  seq 1000 | estafette publish number.counted --ndjson --quiet"
)]
pub(crate) struct Arguments {
    /// What it is about, such as order.created. With --queue it may be left out and is the queue's name then
    topic: Option<OsString>,

    /// The message; - reads it from standard input (without the line feed after a JSON value), without one it is empty
    #[arg(allow_negative_numbers = true)]
    body: Option<OsString>,

    /// Send it to this one queue, which keeps it until somebody consumes
    #[arg(long, value_name = "NAME", value_parser = values::name::<QueueName>)]
    queue: Option<QueueName>,

    /// Publish a message for each line of standard input, each of which must be JSON
    #[arg(long)]
    ndjson: bool,

    /// Attach a header. May be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = values::header, action = ArgAction::Append)]
    headers: Vec<(String, String)>,

    /// Stay invisible for this long first
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    delay: Option<Duration>,

    /// Become a dead letter unless handled within this time
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    ttl: Option<Duration>,

    /// The partition key: messages with the same one keep their order where that is asked for
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Fail, and store nothing, when no queue takes the message
    #[arg(long)]
    require_queue: bool,

    /// The media type of the body; found out by looking when not given
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// Print how many messages were published instead of their ids
    #[arg(long, short)]
    quiet: bool,
}

impl Arguments {
    pub(crate) async fn run(mut self, session: &Session) -> anyhow::Result<()> {
        let (topic, body) = self.topic_and_body()?;
        let bus = session.connect().await?;
        let quiet = self.quiet;
        let mut publishing = Publishing {
            template: self.template(topic),
            bus,
            json: session.json(),
            quiet,
            published: 0,
            unrouted: 0,
        };
        let outcome = match body {
            Some(body) => publishing.publish(vec![(body, 1)], Of::One).await,
            None => publishing.publish_lines().await,
        };
        publishing.conclude()?;
        outcome?;
        Ok(publishing.bus.close().await?)
    }

    /// What the words on the command line mean; no body with `--ndjson`.
    fn topic_and_body(&mut self) -> anyhow::Result<(Topic, Option<Bytes>)> {
        // With a queue the topic may be left out: then the only word is the body, unless bodies come from elsewhere.
        let topic_is_given = self.queue.is_none() || self.ndjson || self.body.is_some();
        let mut words = self.topic.take().into_iter().chain(self.body.take());
        let topic = match words.by_ref().take(usize::from(topic_is_given)).next() {
            Some(word) => {
                let text = word.into_string().map_err(|_text| usage("the topic is not UTF-8"))?;
                values::name(&text).map_err(|sentence| usage(&sentence))?
            }
            None => match &self.queue {
                Some(queue) => values::name(queue.as_str()).map_err(|_sentence| {
                    usage(&format!("the queue's name {queue} is no topic: give one before the body"))
                })?,
                None => return Err(usage("say a TOPIC, or --queue NAME")),
            },
        };
        let body = match words.next() {
            Some(_) if self.ndjson => return Err(usage("with --ndjson the bodies are on standard input")),
            None if self.ndjson => None,
            Some(word) if word == "-" => Some(standard_input(self.content_type.is_none())?),
            Some(word) => Some(word.into_vec().into()),
            None => Some(Bytes::new()),
        };
        Ok((topic, body))
    }

    fn template(self, topic: Topic) -> Template {
        let Self { queue, headers, delay, ttl, key, require_queue, content_type, .. } = self;
        Template { topic, queue, headers, delay, ttl, key, require_queue, content_type }
    }
}

fn usage(sentence: &str) -> anyhow::Error {
    UsageError(format!("{sentence}; see `estafette publish --help`")).into()
}

/// What is on standard input. A JSON value loses the line feed that programs print after it.
fn standard_input(may_be_json: bool) -> anyhow::Result<Bytes> {
    let mut body = Vec::new();
    std::io::stdin().lock().read_to_end(&mut body).context("cannot read the body from standard input")?;
    if may_be_json
        && let Some((b'\n', value)) = body.split_last()
        && serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok()
    {
        body.pop();
    }
    Ok(body.into())
}

/// Whether messages are lines of something, which errors then name.
#[derive(Clone, Copy)]
enum Of {
    One,
    Lines,
}

struct Publishing {
    template: Template,
    bus: Bus,
    json: bool,
    quiet: bool,
    published: u64,
    unrouted: u64,
}

impl Publishing {
    async fn publish_lines(&mut self) -> anyhow::Result<()> {
        let progress = Progress::start(self.quiet);
        let mut lines = Lines::of_standard_input(self.bus.guarantees().body_bytes_max);
        while let Some(batch) = lines.next().await {
            let read = batch.bytes_read;
            self.publish(batch.lines, Of::Lines).await?;
            progress.advance(self.published, read);
            if let Some(problem) = batch.problem {
                let before = self.published;
                bail!("{problem}; {before} messages before it were published");
            }
        }
        progress.finish();
        Ok(())
    }

    /// Publishes bodies, each with the number of its line.
    async fn publish(&mut self, bodies: Vec<(Bytes, u64)>, of: Of) -> anyhow::Result<()> {
        let numbers: Vec<u64> = bodies.iter().map(|(_, number)| *number).collect();
        let outgoing = bodies.into_iter().map(|(body, _)| self.template.outgoing(body));
        let outgoing = outgoing.collect::<Result<Vec<Outgoing>, _>>()?;
        let results = self.bus.publish_batch(outgoing).await;
        let mut stored = Vec::new();
        let mut failed = Vec::new();
        for (result, number) in results.into_iter().zip(numbers) {
            match result {
                Ok(receipt) => stored.push(receipt),
                Err(error) => failed.push((error, number)),
            }
        }
        self.print(&stored)?;
        let count = failed.len();
        let Some((error, number)) = failed.into_iter().next() else { return Ok(()) };
        let sentence = match of {
            Of::One => format!("cannot publish to {}", self.template.target()),
            Of::Lines => format!(
                "{count} messages were not published, {} were; the first is on line {number}",
                self.published
            ),
        };
        Err(anyhow::Error::new(error).context(sentence))
    }

    fn print(&mut self, stored: &[Receipt]) -> anyhow::Result<()> {
        self.published += stored.len() as u64;
        self.unrouted += stored.iter().filter(|receipt| !receipt.routing.is_routed()).count() as u64;
        if self.quiet || stored.is_empty() {
            return Ok(());
        }
        let line = |receipt: &Receipt| match self.json {
            true => message::receipt_object(receipt).to_string(),
            false => receipt.id.to_string(),
        };
        let lines: Vec<String> = stored.iter().map(line).collect();
        match output::print(&lines.join("\n")) {
            // Nobody reads the ids any more; the messages are to be published all the same.
            Err(error) if error.is::<OutputClosed>() => self.quiet = true,
            other => return other,
        }
        Ok(())
    }

    /// Prints the count, and a warning about messages nobody takes.
    fn conclude(&self) -> anyhow::Result<()> {
        if self.unrouted > 0 {
            let topic = &self.template.topic;
            let (count, are) = match self.unrouted {
                1 => ("the message".to_owned(), "is"),
                count => (format!("{count} messages"), "are"),
            };
            output::warn(&format!(
                "warning: no queue is subscribed to {topic}: {count} {are} gone \
                 (see `estafette queues`; --require-queue makes this an error)"
            ));
        }
        if !self.quiet {
            return Ok(());
        }
        match self.json {
            true => output::print(&serde_json::json!({ "published": self.published }).to_string()),
            false => output::print(&self.published.to_string()),
        }
    }
}
