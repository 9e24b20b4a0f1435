//! `estafette doctor`: what a URL can do, and whether it works.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use console::style;
use estafette::{
    Bus, Bytes, DeadQuery, Delivery, Envelope, Failure, Outgoing, QueueName, QueueSpec, Reason,
    ReceiveOptions, Receiver, Topic,
};
use serde_json::{Map, Value, json};

use crate::{failure, output, session, session::Session};

/// How long one step may take.
const STEP_MAX: Duration = Duration::from_secs(15);

/// How long connecting may take: more than the 30 seconds for which transports try an unreachable server, so that it is
/// their error, which knows why, that is shown.
const CONNECT_MAX: Duration = Duration::from_secs(40);

/// The topic of the message that is tried out.
const TOPIC: Topic = Topic::from_static("estafette.doctor");

/// Says what a URL can do, and whether it works
///
/// Connects, declares a queue of its own, writes, reads, retries, rejects and removes: each step is tried out for real,
/// and nothing is left behind. Ends with status 1 when one fails.
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  estafette doctor --url file:./mail
  estafette doctor --url sqlite:./mail.db --json")]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Self {} = self;
        let url = &*session.url()?;
        let mut examination = Examination { steps: Vec::new(), json: session.json() };
        let outcome = examination.examine(url).await;
        let guarantees = outcome.as_ref().map_or(&[] as &[_], |guarantees| guarantees);
        if session.json() {
            let guarantees: Map<_, _> = guarantees
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())))
                .collect();
            let report = json!({
                "url": session::without_secrets(url),
                "works": outcome.is_ok(),
                "steps": examination.steps,
                "guarantees": guarantees,
            });
            output::print(&report.to_string())?;
        } else if outcome.is_ok() {
            let lines = guarantees.iter().map(|(name, value)| format!("  {name:<18}{value}"));
            let lines: Vec<String> = lines.collect();
            let title = style("guarantees").bold();
            output::print(&format!(
                "\n{title}\n{}\n\n{url} works",
                lines.join("\n"),
                url = session::without_secrets(url)
            ))?;
        }
        outcome.map(|_guarantees| ())
    }
}

struct Examination {
    steps: Vec<Value>,
    json: bool,
}

type Rows = Vec<(&'static str, String)>;

impl Examination {
    /// Tries everything out and returns what the transport promises.
    async fn examine(&mut self, url: &str) -> anyhow::Result<Rows> {
        let bus = self.step_within(CONNECT_MAX, "connects", session::connect(url)).await?;
        let queue = QueueName::try_from(format!("estafette-doctor-{}", QueueName::unique()).as_str())?;
        let declared = async { Ok(bus.declare(&QueueSpec::durable(queue.clone())).await?) };
        self.step("declares a queue", declared).await?;
        let tried = self.try_queue(&bus, &queue).await;
        // Also when something failed: nothing is left behind.
        let removed = async { Ok(bus.admin().delete(&queue).await?) };
        let removed = self.step("removes the queue", removed).await;
        tried.and(removed)?;
        let guarantees = bus.guarantees().rows().into();
        bus.close().await?;
        Ok(guarantees)
    }

    async fn try_queue(&mut self, bus: &Bus, queue: &QueueName) -> anyhow::Result<()> {
        let guarantees = bus.guarantees();
        self.step("writes a message", send(bus, queue)).await?;
        let opened = async { Ok(bus.transport().receiver(queue, ReceiveOptions::default()).await?) };
        let mut receiver = self.step("opens a receiver", opened).await?;
        let mut delivery = self.step("reads it", take(&mut *receiver)).await?;
        if guarantees.attempts.is_some() {
            let again = async {
                delivery.retry(Duration::ZERO).await.context("the retry was refused")?;
                let delivery = take(&mut *receiver).await?;
                ensure!(delivery.attempt() == 2, "it came as attempt {} instead of 2", delivery.attempt());
                Ok(delivery)
            };
            delivery = self.step("gets it again after a retry", again).await?;
        }
        if guarantees.dead_letters.is_some() {
            let failure = Failure::new(Reason::Rejected, "tried out by the doctor");
            let rejected = async {
                delivery.reject(failure).await?;
                let dead = bus.admin().dead(queue, &DeadQuery::all()).await?;
                ensure!(dead.len() == 1, "{} dead letters were found instead of 1", dead.len());
                Ok(())
            };
            self.step("keeps it as a dead letter", rejected).await?;
        } else {
            let acked = async { Ok(delivery.ack().await?) };
            self.step("acknowledges it", acked).await?;
        }
        let closed = async { Ok(receiver.close().await?) };
        self.step("closes the receiver", closed).await
    }

    /// Runs a step and says how it went.
    async fn step<T>(
        &mut self,
        name: &str,
        step: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        self.step_within(STEP_MAX, name, step).await
    }

    async fn step_within<T>(
        &mut self,
        time_max: Duration,
        name: &str,
        step: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        let result = match tokio::time::timeout(time_max, step).await {
            Ok(result) => result,
            Err(_elapsed) => Err(anyhow!("no answer within {time_max:?}")),
        };
        let milliseconds = started.elapsed().as_secs_f64() * 1e3;
        let error = result.as_ref().err().map(failure::chain);
        if !self.json {
            let sign = if error.is_none() { style("✓").green() } else { style("✗").red() };
            output::print(&format!("{sign} {name:<30}{milliseconds:8.1} ms"))?;
        }
        self.steps.push(json!({
            "name": name,
            "works": error.is_none(),
            "milliseconds": milliseconds,
            "error": error,
        }));
        result.with_context(|| format!("the step {name:?} failed"))
    }
}

async fn send(bus: &Bus, queue: &QueueName) -> anyhow::Result<()> {
    let envelope = Envelope::new(TOPIC, Bytes::from_static(b"{\"feels\":\"well\"}"));
    let mut results = bus.publish_batch(vec![Outgoing::send(queue.clone(), envelope)]).await;
    results.pop().context("the transport did not answer")??;
    Ok(())
}

async fn take(receiver: &mut dyn Receiver) -> anyhow::Result<Delivery> {
    let mut deliveries = receiver.receive(1, STEP_MAX).await?;
    deliveries.pop().context("the message that was written does not come")
}
