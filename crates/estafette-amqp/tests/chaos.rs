//! Everything breaks while messages pass: consumers are killed, connections cut, and the broker restarted when asked for.
//!
//! A short run by default. A long one:
//! `ESTAFETTE_CHAOS_MESSAGES=100000 ESTAFETTE_CHAOS_RESTARTS=20 cargo nextest run -p estafette-amqp --test chaos --no-capture`
//! with the broker of `scripts/services`, which is killed and started again with its commands.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that reports its counts"
)]

mod support;

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use estafette_core::{Envelope, MessageId, Outgoing, QueueName, QueueSpec, ReceiveOptions, Topic};
use support::{Proxy, connect, connect_through};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::Instant,
};

const TOPIC: Topic = Topic::from_static("chaos.message");
const CONSUMERS: usize = 3;
const QUEUE: &str = "ESTAFETTE_CHAOS_QUEUE";
const URL: &str = "ESTAFETTE_CHAOS_URL";

type Seen = Arc<Mutex<HashMap<MessageId, u32>>>;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn loses_nothing_while_everything_breaks() -> Result<()> {
    let messages = setting("ESTAFETTE_CHAOS_MESSAGES", 4000);
    let restarts = setting("ESTAFETTE_CHAOS_RESTARTS", 0);
    let rounds = setting("ESTAFETTE_CHAOS_ROUNDS", 8).max(restarts);
    let proxy = Proxy::start().await?;
    let publisher = connect_through(&proxy, "heartbeat=2s&patience=120s").await?;
    let queue = QueueName::try_from(format!("chaos-{}", MessageId::new()))?;
    publisher.declare(&QueueSpec::durable(queue.clone())).await?;

    let seen = Seen::default();
    let mut consumers = Vec::new();
    let mut reading = JoinSet::new();
    for _ in 0..CONSUMERS {
        consumers.push(consumer(&proxy, &queue, &seen, &mut reading)?);
    }
    let publishing = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut stored = Vec::new();
            for start in (0..messages).step_by(100) {
                let batch: Vec<_> = (start..messages.min(start + 100))
                    .map(|number| {
                        Outgoing::send(queue.clone(), Envelope::new(TOPIC, number.to_string().into()))
                    })
                    .collect();
                for receipt in publisher.publish(&batch).await {
                    stored.push(receipt?.id);
                }
            }
            Ok::<_, estafette_core::Error>(stored)
        }
    });
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..400))).await;
        let victim = fastrand::usize(..CONSUMERS);
        consumers[victim].start_kill()?;
        consumers[victim].wait().await?;
        proxy.cut();
        if round < restarts {
            services(&["kill", "rabbitmq"]).await?;
            services(&["start", "rabbitmq"]).await?;
        }
        consumers[victim] = consumer(&proxy, &queue, &seen, &mut reading)?;
    }
    let stored = publishing.await??;
    let deadline = Instant::now() + Duration::from_secs(120);
    let missing = || {
        let seen = seen.lock().unwrap();
        stored.iter().filter(|id| !seen.contains_key(id)).count()
    };
    while missing() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for consumer in &mut consumers {
        consumer.start_kill()?;
        consumer.wait().await?;
    }
    let lost = missing();
    let duplicates: u32 = seen.lock().unwrap().values().map(|count| count - 1).sum();
    println!(
        "{messages} messages, {rounds} consumers killed, {rounds} cuts, {restarts} broker restarts: {lost} lost, {duplicates} handled again"
    );
    ensure!(lost == 0, "{lost} of {messages} stored messages were lost");
    connect("").await?.admin().delete(&queue).await?;
    Ok(())
}

async fn services(arguments: &[&str]) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/services");
    let status = Command::new(script).args(arguments).stdout(Stdio::null()).status().await?;
    ensure!(status.success(), "scripts/services {arguments:?} failed");
    Ok(())
}

/// Starts a consumer as another process, and notes what it handles.
fn consumer(proxy: &Proxy, queue: &QueueName, seen: &Seen, reading: &mut JoinSet<()>) -> Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "consumes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(QUEUE, queue.as_str())
        .env(URL, support::url_through(proxy, "heartbeat=2s&patience=120s"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().context("a pipe")?;
    let seen = Arc::clone(seen);
    reading.spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(id) = line.strip_prefix("handled ").and_then(|id| id.parse().ok()) {
                *seen.lock().unwrap().entry(id).or_default() += 1;
            }
        }
    });
    Ok(child)
}

#[tokio::test]
#[ignore = "started by the test above as another process"]
async fn consumes_until_it_is_killed() -> Result<()> {
    let queue = QueueName::try_from(std::env::var(QUEUE)?)?;
    let transport = estafette_amqp::connect(std::env::var(URL)?.parse()?).await?;
    let mut receiver = transport.receiver(&queue, ReceiveOptions::default()).await?;
    let mut output = tokio::io::stdout();
    loop {
        let deliveries = match receiver.receive(50, Duration::from_secs(5)).await {
            Ok(deliveries) => deliveries,
            Err(error) if error.is_retryable() => continue,
            Err(error) => return Err(error.into()),
        };
        for delivery in deliveries {
            // Handled is what was written here, before the acknowledgement.
            output.write_all(format!("handled {}\n", delivery.envelope().id).as_bytes()).await?;
            output.flush().await?;
            drop(delivery.ack().await);
        }
    }
}
