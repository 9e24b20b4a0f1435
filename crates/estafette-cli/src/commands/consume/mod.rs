//! `estafette consume`: takes messages, and prints them or gives each to a command.

mod exec;
mod print;

use std::{ffi::OsString, sync::Arc, time::Duration};

use anyhow::Context as _;
use estafette::{Consumer, Pattern, QueueName, Retry, Summary};

use self::{exec::Exec, print::Printer};
use crate::{daemon, output, session::Session, values};

/// Takes messages from a queue and prints them, or runs a command for each
///
/// Without --exec, each message is printed as one line of CloudEvents JSON and acknowledged. With it, the command runs
/// through the shell for each message: the body on its standard input, and in its environment ESTAFETTE_ID,
/// ESTAFETTE_TOPIC, ESTAFETTE_QUEUE, ESTAFETTE_ATTEMPT and each header as ESTAFETTE_HEADER_<NAME>. Its exit status
/// decides: 0 acknowledges the message, 75 puts it back for a retry, 65 moves it to the dead letters; anything else is a
/// failed attempt, with the end of its standard error kept as the error. ESTAFETTE_URL is set too, so the command can
/// publish.
///
/// The queue is declared first. Ends when asked to (SIGTERM, SIGINT) or at a limit: what runs may finish, the rest goes
/// back. A summary is the last line on standard error.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette consume billing --subscribe 'order.*'
  estafette consume billing --exec ./bill.sh --concurrency 4
  estafette consume billing --exec 'curl -fsS --data-binary @- https://example.com/hook' --max-attempts 10
  estafette consume audit --until-empty | jq -r .type | sort | uniq -c")]
pub(crate) struct Arguments {
    /// The queue's name
    #[arg(value_parser = values::name::<QueueName>)]
    queue: QueueName,

    /// Subscribe the queue to a pattern first. May be repeated
    #[arg(long, value_name = "PATTERN", value_parser = values::name::<Pattern>)]
    subscribe: Vec<Pattern>,

    /// Run this command for each message
    #[arg(long, value_name = "CMD")]
    exec: Option<OsString>,

    #[command(flatten)]
    limits: Limits,

    #[command(flatten)]
    pace: Pace,

    #[command(flatten)]
    failures: Failures,

    #[command(flatten)]
    service: daemon::Options,
}

#[derive(clap::Args)]
#[command(next_help_heading = "When to end")]
struct Limits {
    /// After so many messages, whatever became of them
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// After this time
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
    time: Option<Duration>,

    /// When nothing is ready, held by a consumer or waiting for a retry
    #[arg(long)]
    until_empty: bool,

    /// When this process occupies so much memory, such as 256MiB
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    memory_limit: Option<u64>,

    /// After so many failed attempts
    #[arg(long, value_name = "N")]
    failure_limit: Option<u64>,

    /// How long what runs may go on when the end has come
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "30s")]
    grace: Duration,
}

#[derive(clap::Args)]
#[command(next_help_heading = "How many at once")]
struct Pace {
    /// How many messages are handled at the same time
    #[arg(long, value_name = "N", default_value = "1")]
    concurrency: std::num::NonZeroUsize,

    /// How many messages may be taken ahead
    #[arg(long, value_name = "N", default_value = "1000")]
    prefetch: std::num::NonZeroUsize,

    /// Handle messages with the same key strictly one after the other
    #[arg(long)]
    ordered: bool,
}

#[derive(clap::Args)]
#[command(next_help_heading = "When handling fails")]
struct Failures {
    /// How many times a message is tried before it is a dead letter
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: u32,

    /// How long after the first failure it is tried again; doubled after each further one
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "1s")]
    retry_delay: Duration,

    /// How long a message stays this consumer's without a sign of life
    #[arg(long, value_name = "TIME", value_parser = values::lease, default_value = "30s")]
    lease: Duration,

    /// How long one message may take; longer is a failed attempt, and the command is killed
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    time_limit: Option<Duration>,
}

impl Arguments {
    pub(crate) async fn run(mut self, session: &Session) -> anyhow::Result<()> {
        let daemon = self.service.start()?;
        let bus = session.connect().await?;
        let queue = self.queue.clone();
        let exec = self.exec.take();
        let for_time = self.limits.time;
        let consumer = self.configure(bus.consumer(queue.clone())).when_ready(daemon.ready());
        let summary = match exec {
            Some(command) => {
                let exec = Arc::new(Exec::new(command, &session.url()?));
                let consumer = consumer.handle_any(move |context| Arc::clone(&exec).handle(context));
                end(consumer, for_time).await
            }
            None => {
                let printer = Arc::new(Printer::default());
                let closed = Arc::clone(&printer);
                let consumer = consumer.stop_when(async move { closed.failed().await });
                let handler = Arc::clone(&printer);
                let consumer = consumer.handle_any(move |context| Arc::clone(&handler).handle(context));
                let summary = end(consumer, for_time).await;
                printer.outcome()?;
                summary
            }
        };
        let summary = summary.with_context(|| format!("cannot consume {queue}"))?;
        conclude(&queue, &summary, session);
        Ok(bus.close().await?)
    }

    /// The consumer with everything set but its handler and its time.
    fn configure(self, consumer: Consumer) -> Consumer {
        let Self { subscribe, limits, pace, failures, .. } = self;
        let retry = Retry::exponential(failures.retry_delay).attempts_max(failures.max_attempts);
        let mut consumer = subscribe.into_iter().fold(consumer, Consumer::subscribe_to);
        consumer = consumer.retry(retry).lease(failures.lease).grace(limits.grace);
        consumer = consumer.concurrency(pace.concurrency.get()).prefetch(pace.prefetch.get());
        if pace.ordered {
            consumer = consumer.ordered_by_key();
        }
        if let Some(time_limit) = failures.time_limit {
            consumer = consumer.time_limit(time_limit);
        }
        if let Some(count) = limits.count {
            consumer = consumer.count_max(count);
        }
        if limits.until_empty {
            consumer = consumer.stop_when_empty();
        }
        if let Some(bytes) = limits.memory_limit {
            consumer = consumer.memory_max(bytes);
        }
        if let Some(count) = limits.failure_limit {
            consumer = consumer.failures_max(count);
        }
        consumer
    }
}

async fn end(consumer: Consumer, for_time: Option<Duration>) -> estafette::Result<Summary> {
    match for_time {
        Some(time) => consumer.run_for(time).await,
        None => consumer.run().await,
    }
}

fn conclude(queue: &QueueName, summary: &Summary, session: &Session) {
    if !session.json() {
        return output::warn(&format!("consumed {queue}: {summary}"));
    }
    let Summary { acked, retried, dead, released, lost, reason } = summary;
    let object = serde_json::json!({
        "queue": queue.as_str(),
        "acked": acked,
        "retried": retried,
        "dead": dead,
        "released": released,
        "lost": lost,
        "reason": reason.as_str(),
    });
    output::warn(&object.to_string());
}
