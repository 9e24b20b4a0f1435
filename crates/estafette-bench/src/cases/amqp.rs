//! RabbitMQ, persistent messages, a durable queue: the broker named by `ESTAFETTE_TEST_AMQP_URL`.

use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use estafette::{
    Bytes, Envelope, Outcome, Outgoing, QueueName, QueueSpec, ReceiveOptions, Topic, Transport, settle_all,
};

use super::Size;
use crate::case::{Case, Loop, Rate, Target};
use crate::floor::{
    self,
    amqp::{Job, Properties},
};
use crate::peer::amqp::{PEERS, Peer};

const TOPIC: Topic = Topic::from_static("bench.message");
const PREFETCH: u16 = 100;

/// How many messages an acknowledgement settles in blocks: half of what is fetched ahead, which is when a consumer asks for
/// more.
const BLOCK: u32 = 50;

/// The jobs of the RabbitMQ transport. The floor moves the same messages, properties included; beside it stand messages with
/// no properties, which are cheaper for the broker, and other clients where they are installed.
#[must_use]
pub fn cases(size: Size) -> Vec<Case> {
    let messages = size.of(50_000);
    let mut cases = Vec::new();
    for window in [100, 1000] {
        let name = format!("amqp: publish with confirms, window {window}");
        let ours = move || Loop::asynchronous(move |_| spawned(publish(messages, window)));
        let floor = |properties| {
            let job = Job { messages, properties };
            Loop::blocking(move |_| floor::amqp::publish(&address()?, job, window))
        };
        add(&mut cases, &name, floor, &ours, Target::RatioMin(0.9));
        for peer in peers() {
            let theirs = Loop::blocking(move |dir| peer.run(dir, "publish", &url()?, &[messages, window]));
            let name = format!("{name} ({})", peer.name);
            cases.push(Case::new(name, theirs).ours(ours(), Target::RatioMin(1.0)));
        }
    }
    for (acks, block) in [("an ack each", 1), ("acks in blocks", BLOCK)] {
        let name = format!("amqp: consume {messages}, prefetch {PREFETCH}, {acks}");
        let ours = move || Loop::asynchronous(move |_| spawned(consume(messages, block == 1)));
        let floor = |properties| {
            let job = Job { messages, properties };
            Loop::blocking(move |_| floor::amqp::consume(&address()?, job, PREFETCH, block))
        };
        add(&mut cases, &name, floor, &ours, Target::RatioMin(0.85));
        for peer in peers() {
            let numbers = [messages, u32::from(PREFETCH), block];
            let theirs = Loop::blocking(move |dir| peer.run(dir, "consume", &url()?, &numbers));
            let name = format!("{name} ({})", peer.name);
            cases.push(Case::new(name, theirs).ours(ours(), Target::RatioMin(1.0)));
        }
    }
    cases
}

/// Adds a job beside its floor, and beside what the floor does with messages that have no properties.
fn add(
    cases: &mut Vec<Case>,
    name: &str,
    floor: impl Fn(Properties) -> Loop,
    ours: &impl Fn() -> Loop,
    target: Target,
) {
    cases.push(Case::new(name, floor(Properties::Envelope)).ours(ours(), target));
    cases.push(
        Case::new(format!("{name} (floor: no properties)"), floor(Properties::Bare))
            .ours(ours(), Target::Shown),
    );
}

/// The other clients that are installed here; says which are not, and how they would be.
#[allow(clippy::print_stderr, reason = "a table with a row less should say why")]
fn peers() -> impl Iterator<Item = Peer> {
    static MISSING: Once = Once::new();
    MISSING.call_once(|| {
        for peer in PEERS.iter().filter(|peer| !peer.is_installed()) {
            eprintln!("without {}, which is not installed ({})", peer.name, peer.installation);
        }
    });
    PEERS.into_iter().filter(Peer::is_installed)
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
    let block = usize::try_from(BLOCK)?;
    let started = Instant::now();
    let mut received = 0;
    while received < messages {
        let deliveries = receiver.receive(block, Duration::from_secs(10)).await?;
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
