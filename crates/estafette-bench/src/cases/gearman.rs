//! Gearman, background jobs: the server named by `ESTAFETTE_TEST_GEARMAN_URL`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use estafette::{
    Bytes, Envelope, Outcome, Outgoing, QueueName, QueueSpec, ReceiveOptions, Topic, Transport, settle_all,
    wire,
};

use super::Size;
use crate::case::{Case, Loop, Rate, Target};
use crate::floor;

const TOPIC: Topic = Topic::from_static("bench.message");

/// The jobs of the Gearman transport. The floor moves the same bytes: an envelope's.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    for (messages, window) in [(size.of(20_000), 1), (size.of(100_000), 100)] {
        let floor = Loop::blocking(move |_| floor_publish(messages, window));
        let ours = Loop::asynchronous(move |_| spawned(publish(messages, window)));
        let name = format!("gearman: publish, {window} at a time");
        cases.push(Case::new(name, floor).ours(ours, Target::RatioMin(0.8)));
        let floor = Loop::blocking(move |_| floor_consume(messages, window));
        let ours = Loop::asynchronous(move |_| spawned(consume(messages, window)));
        let name = format!("gearman: consume {messages}, {window} at a time");
        cases.push(Case::new(name, floor).ours(ours, Target::RatioMin(0.8)));
    }
    cases
}

fn url() -> anyhow::Result<String> {
    std::env::var("ESTAFETTE_TEST_GEARMAN_URL").context(
        "this benchmark needs gearmand: run `scripts/services up`, then `eval \"$(scripts/services env)\"`",
    )
}

fn address() -> anyhow::Result<String> {
    Ok(url()?.trim_start_matches("gearman://").to_owned())
}

fn function() -> String {
    format!("bench-{}", fastrand::u64(..))
}

fn envelope() -> Envelope {
    Envelope::new(TOPIC, Bytes::from_static(&floor::gearman::BODY))
}

fn floor_publish(messages: u32, window: u32) -> anyhow::Result<Rate> {
    let (address, function) = (address()?, function());
    let rate = floor::gearman::submit(&address, &function, &wire::encode(&envelope()), messages, window)?;
    floor::gearman::work(&address, &function, messages, 100)?;
    Ok(rate)
}

fn floor_consume(messages: u32, window: u32) -> anyhow::Result<Rate> {
    let (address, function) = (address()?, function());
    floor::gearman::submit(&address, &function, &wire::encode(&envelope()), messages, 100)?;
    floor::gearman::work(&address, &function, messages, window)
}

async fn connect() -> anyhow::Result<(Arc<dyn Transport>, QueueName)> {
    let transport = estafette::connect(&url()?).await?;
    let queue = QueueName::try_from(function())?;
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    Ok((transport, queue))
}

async fn publish(messages: u32, window: u32) -> anyhow::Result<Rate> {
    let (transport, queue) = connect().await?;
    let batch: Vec<_> = (0..messages).map(|_| Outgoing::send(queue.clone(), envelope())).collect();
    let started = Instant::now();
    for chunk in batch.chunks(usize::try_from(window)?) {
        for result in transport.publish(chunk).await {
            result?;
        }
    }
    let rate = Rate::of(messages, started.elapsed());
    transport.admin().delete(&queue).await?;
    transport.close().await?;
    Ok(rate)
}

async fn consume(messages: u32, window: u32) -> anyhow::Result<Rate> {
    let (transport, queue) = connect().await?;
    let batch: Vec<_> = (0..messages).map(|_| Outgoing::send(queue.clone(), envelope())).collect();
    for result in transport.publish(&batch).await {
        result?;
    }
    let mut receiver = transport.receiver(&queue, ReceiveOptions::default()).await?;
    let window = usize::try_from(window)?;
    let started = Instant::now();
    let mut received = 0;
    while received < messages {
        let deliveries = receiver.receive(window, Duration::from_secs(10)).await?;
        anyhow::ensure!(!deliveries.is_empty(), "only {received} of {messages} messages came");
        received += u32::try_from(deliveries.len())?;
        let batch = deliveries.into_iter().map(|delivery| (delivery, Outcome::Ack)).collect();
        for result in settle_all(batch).await {
            result?;
        }
    }
    let rate = Rate::of(messages, started.elapsed());
    receiver.close().await?;
    transport.admin().delete(&queue).await?;
    transport.close().await?;
    Ok(rate)
}

/// Runs on a worker thread, as a service does, and not on the thread that waits for the runtime.
async fn spawned(work: impl Future<Output = anyhow::Result<Rate>> + Send + 'static) -> anyhow::Result<Rate> {
    tokio::spawn(work).await?
}
