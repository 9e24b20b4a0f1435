//! What the children do: publish in batches, consume with every kind of settling. And the calm run at the end.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use estafette::{
    Bus, DeadQuery, Delivery, ErrorKind, Failure, Outcome, QueueName, Reason, ReceiveOptions, settle_all,
};

use tokio::time::Instant;

use crate::{
    QUEUE,
    ledger::{BATCH_MAX, Pen},
};

/// Short, so that what killed consumers held comes back while the torment lasts.
const LEASE: Duration = Duration::from_secs(2);

/// How long nothing may come while the queue is not empty.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What a child is told.
#[derive(clap::Args)]
pub(crate) struct Share {
    #[arg(long)]
    url: String,
    /// How many messages a publisher stores; without meaning for a consumer.
    #[arg(long)]
    share: u64,
    /// The folder everything is written down in.
    #[arg(long)]
    ledger: PathBuf,
}

/// Publishes batches of all sizes until as many messages as its share are stored by this process or those before it.
#[tokio::main]
pub(crate) async fn publish(share: &Share) -> Result<()> {
    let bus = Bus::connect(&share.url).await?;
    let mut pen = Pen::open(&share.ledger, "stored")?;
    let mut stored = 0;
    while stored < share.share {
        let size = if fastrand::bool() { 1 } else { fastrand::u64(2..BATCH_MAX) }.min(share.share - stored);
        let mut batch = Vec::new();
        for number in 0..size {
            let body = format!(r#"{{"number":{number},"text":"{}"}}"#, "x".repeat(fastrand::usize(..300)));
            batch.push(bus.publish_body("work.item", body).into_outgoing()?);
        }
        let ids: Vec<String> = batch.iter().map(|outgoing| outgoing.envelope.id.to_string()).collect();
        let receipts = bus.publish_batch(batch).await;
        let ok = ids.iter().zip(&receipts).filter(|(_, receipt)| receipt.is_ok()).map(|(id, _)| id.as_str());
        stored += pen.write(ok)?;
        if let Some(error) = receipts.into_iter().find_map(Result::err).filter(|error| !error.is_retryable())
        {
            return Err(error.into());
        }
    }
    bus.close().await?;
    Ok(())
}

/// Takes batches of all sizes and settles them in every way, until it is killed.
#[tokio::main]
pub(crate) async fn consume(share: &Share) -> Result<()> {
    let bus = Bus::connect(&share.url).await?;
    let mut taken = Pen::open(&share.ledger, "taken")?;
    let mut intended = Pen::open(&share.ledger, "intended")?;
    let mut moved = Pen::open(&share.ledger, "moved")?;
    let mut acknowledged = Pen::open(&share.ledger, "acknowledged")?;
    let options = ReceiveOptions { lease: LEASE, ..ReceiveOptions::default() };
    let mut receiver = bus.transport().receiver(&QUEUE.try_into()?, options).await?;
    loop {
        let asked_at = Pen::now();
        let deliveries = receiver.receive(fastrand::usize(1..100), Duration::from_secs(1)).await?;
        taken.write_at(asked_at, deliveries.iter().map(|delivery| delivery.envelope().id.to_string()))?;
        let decided: Vec<(Delivery, Outcome)> = deliveries.into_iter().map(decide).collect();
        let acks: Vec<Option<String>> = decided
            .iter()
            .map(|(delivery, outcome)| (*outcome == Outcome::Ack).then(|| delivery.envelope().id.to_string()))
            .collect();
        intended.write(acks.iter().flatten())?;
        let others = decided
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Retry { .. } | Outcome::Reject(_)));
        moved.write(others.map(|(delivery, _)| delivery.envelope().id.to_string()))?;
        let results = settle_all(decided).await;
        let ok =
            acks.iter().zip(&results).filter(|(_, result)| result.is_ok()).filter_map(|(id, _)| id.as_ref());
        acknowledged.write(ok)?;
        if let Some(error) =
            results.into_iter().find_map(Result::err).filter(|e| e.kind() != ErrorKind::LeaseLost)
        {
            return Err(error.into());
        }
    }
}

fn decide(delivery: Delivery) -> (Delivery, Outcome) {
    let outcome = match fastrand::u32(..100) {
        0..80 => Outcome::Ack,
        80..90 => {
            Outcome::Retry { after: Duration::from_millis(fastrand::u64(..500)), error: Some("later".into()) }
        }
        90..95 => Outcome::Reject(Failure::new(Reason::Rejected, "refused")),
        _ => Outcome::Release { after: Duration::ZERO },
    };
    (delivery, outcome)
}

/// What was left when the torment was over.
pub(crate) struct Drained {
    pub(crate) waiting: HashSet<String>,
    pub(crate) dead: HashSet<String>,
}

/// Takes everything that is left, calmly.
pub(crate) async fn drain(url: &str) -> Result<Drained> {
    let bus = Bus::connect(url).await?;
    let queue = QueueName::try_from(QUEUE)?;
    let mut receiver = bus.transport().receiver(&queue, ReceiveOptions::default()).await?;
    let mut waiting = HashSet::new();
    let mut last_came = Instant::now();
    loop {
        let deliveries = receiver.receive(500, Duration::from_millis(100)).await?;
        if deliveries.is_empty() {
            let status = bus.admin().queue(&queue).await?;
            if status.is_idle() {
                break;
            }
            ensure!(last_came.elapsed() < STUCK_AFTER, "the queue does not become empty: {status:?}");
        } else {
            last_came = Instant::now();
            waiting.extend(deliveries.iter().map(|delivery| delivery.envelope().id.to_string()));
            let acks = deliveries.into_iter().map(|delivery| (delivery, Outcome::Ack)).collect();
            settle_all(acks).await.into_iter().collect::<estafette::Result<Vec<()>>>()?;
        }
    }
    receiver.close().await?;
    let dead = bus.admin().dead(&queue, &DeadQuery::all()).await?;
    let dead = dead.into_iter().map(|letter| letter.envelope.id.to_string()).collect();
    bus.close().await?;
    Ok(Drained { waiting, dead })
}
