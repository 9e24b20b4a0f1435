//! RabbitMQ, persistent messages, a durable queue: the broker named by `ESTAFETTE_TEST_AMQP_URL`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use estafette::{
    Bytes, Envelope, Outcome, Outgoing, QueueName, QueueSpec, ReceiveOptions, Topic, Transport, settle_all,
};

use super::Size;
use crate::case::{Case, Loop, Rate, Target};
use crate::floor;

const TOPIC: Topic = Topic::from_static("bench.message");
const PREFETCH: u16 = 100;

/// The jobs of the RabbitMQ transport.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let messages = size.of(50_000);
    let mut cases = Vec::new();
    for window in [100, 1000] {
        let floor = Loop::blocking(move |_| floor::amqp::publish(&address()?, messages, window));
        let ours = Loop::asynchronous(move |_| spawned(publish(messages, window)));
        cases.push(
            Case::new(format!("amqp: publish with confirms, window {window}"), floor)
                .ours(ours, Target::RatioMin(0.9)),
        );
    }
    for (name, block) in [("an ack each", 1), ("acks in blocks", 50)] {
        let floor = Loop::blocking(move |_| floor::amqp::consume(&address()?, messages, PREFETCH, block));
        let ours = Loop::asynchronous(move |_| spawned(consume(messages, block == 1)));
        cases.push(
            Case::new(format!("amqp: consume {messages}, prefetch {PREFETCH}, {name}"), floor)
                .ours(ours, Target::RatioMin(0.85)),
        );
    }
    cases
}

fn url() -> anyhow::Result<String> {
    std::env::var("ESTAFETTE_TEST_AMQP_URL").context(
        "this benchmark needs RabbitMQ: run `scripts/services up`, then `eval \"$(scripts/services env)\"`",
    )
}

/// Host and port of the broker.
fn address() -> anyhow::Result<String> {
    let url = url()?;
    let authority = url.strip_prefix("amqp://").unwrap_or(&url).split(['/', '?']).next().unwrap_or_default();
    Ok(authority.rsplit('@').next().unwrap_or_default().to_owned())
}

async fn connect(window: u32) -> anyhow::Result<(Arc<dyn Transport>, QueueName)> {
    let transport = estafette::connect(&format!("{}?window={window}", url()?)).await?;
    let queue = QueueName::try_from(format!("bench-ours-{}", fastrand::u64(..)))?;
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    Ok((transport, queue))
}

fn batch(queue: &QueueName, messages: u32) -> Vec<Outgoing> {
    let body = Bytes::from_static(&floor::amqp::BODY);
    (0..messages).map(|_| Outgoing::send(queue.clone(), Envelope::new(TOPIC, body.clone()))).collect()
}

async fn publish(messages: u32, window: u32) -> anyhow::Result<Rate> {
    let (transport, queue) = connect(window).await?;
    let batch = batch(&queue, messages);
    // The first publication opens the channel.
    for result in transport.publish(batch.get(..1).unwrap_or_default()).await {
        result?;
    }
    let started = Instant::now();
    for result in transport.publish(&batch).await {
        result?;
    }
    let rate = Rate::of(messages, started.elapsed());
    transport.admin().delete(&queue).await?;
    transport.close().await?;
    Ok(rate)
}

async fn consume(messages: u32, ack_each: bool) -> anyhow::Result<Rate> {
    let (transport, queue) = connect(1000).await?;
    for result in transport.publish(&batch(&queue, messages)).await {
        result?;
    }
    let options = ReceiveOptions { unsettled_max: usize::from(PREFETCH), ..ReceiveOptions::default() };
    let mut receiver = transport.receiver(&queue, options).await?;
    let started = Instant::now();
    let mut received = 0;
    while received < messages {
        let deliveries = receiver.receive(usize::from(PREFETCH), Duration::from_secs(10)).await?;
        anyhow::ensure!(!deliveries.is_empty(), "only {received} of {messages} messages came");
        received += u32::try_from(deliveries.len())?;
        if ack_each {
            for delivery in deliveries {
                delivery.ack().await?;
            }
        } else {
            let batch = deliveries.into_iter().map(|delivery| (delivery, Outcome::Ack)).collect();
            for result in settle_all(batch).await {
                result?;
            }
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
