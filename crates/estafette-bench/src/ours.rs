//! Estafette's loops: the jobs of the floors, through the bus, as an application would do them.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use estafette::{
    Bus, Context, Envelope, Outcome, Outgoing, QueueName, QueueSpec, ReceiveOptions, Timestamp, settle_all,
};
use tokio::task::JoinSet;

use crate::{case::Rate, floor::body};

const QUEUE: &str = "bench";

/// How much is stored before a draining job begins goes in batches of this many.
const PREPARED_BATCH: usize = 100;

/// Connects to `url` and makes the queue.
async fn bus(url: &str) -> anyhow::Result<Bus> {
    let bus = Bus::connect(url).await?;
    bus.declare(&QueueSpec::durable(QUEUE.try_into()?).subscribe("bench.#".try_into()?)).await?;
    Ok(bus)
}

fn message(number: u32) -> anyhow::Result<Outgoing> {
    let mut envelope = Envelope::new("bench.message".parse()?, body(number).into());
    envelope.content_type = Some("application/json".into());
    Ok(Outgoing::publish(envelope))
}

fn messages(count: u32) -> anyhow::Result<Vec<Outgoing>> {
    (0..count).map(message).collect()
}

async fn publish_in_batches(bus: &Bus, all: Vec<Outgoing>, batch: usize) -> anyhow::Result<()> {
    let mut all = all.into_iter();
    loop {
        let next: Vec<Outgoing> = all.by_ref().take(batch).collect();
        if next.is_empty() {
            return Ok(());
        }
        bus.publish_batch(next).await.into_iter().collect::<estafette::Result<Vec<_>>>()?;
    }
}

/// Publishes `count` messages, `batch` in each call, from `publishers` tasks at once.
///
/// # Errors
///
/// Those of the transport.
pub async fn publish(url: String, count: u32, batch: usize, publishers: u32) -> anyhow::Result<Rate> {
    let bus = bus(&url).await?;
    let share = count / publishers;
    let mut shares = Vec::new();
    for _ in 0..publishers {
        shares.push(messages(share)?);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for all in shares {
        let bus = bus.clone();
        tasks.spawn(async move { publish_in_batches(&bus, all, batch).await });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let rate = Rate::of(share * publishers, started.elapsed());
    bus.close().await?;
    Ok(rate)
}

/// Stores `count` messages and then takes and acknowledges them all, `batch` at a time.
///
/// # Errors
///
/// Those of the transport, or when a message went missing.
pub async fn drain(url: String, count: u32, batch: usize) -> anyhow::Result<Rate> {
    let bus = bus(&url).await?;
    publish_in_batches(&bus, messages(count)?, PREPARED_BATCH).await?;
    let mut receiver = bus.transport().receiver(&QUEUE.try_into()?, ReceiveOptions::default()).await?;
    let mut left = count as usize;
    let started = Instant::now();
    while left > 0 {
        let deliveries = receiver.receive(batch, Duration::from_secs(10)).await?;
        ensure!(!deliveries.is_empty(), "{left} of {count} messages did not come");
        left -= deliveries.len();
        let acks = deliveries.into_iter().map(|delivery| (delivery, Outcome::Ack)).collect();
        settle_all(acks).await.into_iter().collect::<estafette::Result<Vec<()>>>()?;
    }
    let rate = Rate::of(count, started.elapsed());
    receiver.close().await?;
    bus.close().await?;
    Ok(rate)
}

/// Publishes `count` messages, `batch` in each call, while a consumer with one handler at a time works them off.
///
/// # Errors
///
/// Those of the transport, or when a message went missing.
pub async fn handle(url: String, count: u32, batch: usize) -> anyhow::Result<Rate> {
    let bus = bus(&url).await?;
    let all = messages(count)?;
    let consumer = bus.consumer(QUEUE).handle_any(|_: Context| async {}).count_max(u64::from(count));
    let started = Instant::now();
    let consuming = tokio::spawn(consumer.run_until(tokio::time::sleep(Duration::from_secs(120))));
    publish_in_batches(&bus, all, batch).await?;
    let summary = consuming.await??;
    ensure!(summary.acked == u64::from(count), "{} of {count} were handled", summary.acked);
    Ok(Rate::of(count, started.elapsed()))
}

/// The first argument of the child that [`latency`] starts.
pub const LATENCY_AGENT: &str = "agent-latency";

/// How long the other process is idle before each message.
const IDLE: Duration = Duration::from_millis(30);

/// Publishes a message now and then to a consumer of another process, which is idle in between: the rate is one over the
/// time from before publishing to the handler's start.
///
/// # Errors
///
/// Those of the transport, or when the other process fails.
pub async fn latency(url: String, count: u32) -> anyhow::Result<Rate> {
    let bus = bus(&url).await?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([LATENCY_AGENT, &url, &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut times = Vec::new();
    for number in 0..count {
        tokio::time::sleep(IDLE).await;
        let outgoing = message(number)?;
        let before = Timestamp::now();
        bus.publish_batch(vec![outgoing]).await.into_iter().collect::<estafette::Result<Vec<_>>>()?;
        let handled: i64 = lines.next().context("the other process ended")??.parse()?;
        times.push(Timestamp::from_micros(handled).since(before));
    }
    ensure!(child.wait()?.success(), "the other process failed");
    bus.close().await?;
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(Rate::of(1, median))
}

/// The other process of [`latency`]: consumes `count` messages and prints when each handler began.
///
/// # Errors
///
/// Those of the transport.
pub fn latency_agent(arguments: &[String]) -> anyhow::Result<()> {
    let [url, count] = arguments else { anyhow::bail!("expected a URL and a count") };
    let count: u64 = count.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bus = Bus::connect(url).await?;
        let queue: QueueName = QUEUE.try_into()?;
        let consumer = bus.consumer(queue).handle_any(|_: Context| async {
            let mut output = std::io::stdout().lock();
            writeln!(output, "{}", Timestamp::now().as_micros())
        });
        consumer.run_for_count(count).await?;
        anyhow::Ok(())
    })
}
