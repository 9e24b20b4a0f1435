//! Leases: how long an unsettled delivery stays with its consumer.

use std::time::Duration;

use estafette_core::ErrorKind;
use tokio::time::Instant;

use crate::{
    stage::{GRAIN, LEASE_LONG, MOMENT, Stage, must_fail, patience, receiver},
    taking::{ack_all, each_once, nothing_comes, take, take_one},
    violation::{Check, Violation, ensure},
};

/// Leases to try with, the next when the machine was too slow for the one before.
const LEASES: [Duration; 4] = [
    Duration::from_millis(600),
    Duration::from_millis(1500),
    Duration::from_secs(4),
    Duration::from_secs(10),
];

/// Whether the machine was quick enough for a trial to mean something.
enum Trial {
    Meaningful,
    TooSlow,
}

fn too_slow() -> Check {
    Err(Violation::Unknown(
        "this machine is too busy: steps of a moment took longer than the longest lease".into(),
    ))
}

pub(crate) async fn redelivers_when_a_lease_ends(stage: &Stage) -> Check {
    let lease = Duration::from_millis(500);
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 5).await?;
    let mut first = stage.receiver_with_lease(&queue, lease).await?;
    let started = Instant::now();
    let held = take(&mut first, sent.len()).await?;
    let other = stage.handle().await?;
    let mut second = receiver(&*other, &queue, LEASE_LONG).await?;
    let mut came = Vec::new();
    while came.len() < sent.len() {
        let delivery = take_one(&mut second).await?;
        let took = started.elapsed();
        ensure!(took + GRAIN >= lease, "leased for {lease:?}, it came again after {took:?}");
        came.push(delivery.envelope().id.clone());
        delivery.ack().await?;
    }
    drop(held);
    each_once(&sent, &came)?;
    nothing_comes(&mut second, MOMENT).await
}

pub(crate) async fn never_redelivers_to_its_own_holder(stage: &Stage) -> Check {
    let lease = Duration::from_millis(900);
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut receiver = stage.receiver_with_lease(&queue, lease).await?;
    let started = Instant::now();
    let held = take_one(&mut receiver).await?;
    let deadline = started + lease + patience();
    // Small steps, so that not only the first look is tried.
    let again = loop {
        let mut deliveries = receiver.receive(10, lease / 10).await?;
        let took = started.elapsed();
        if let Some(delivery) = deliveries.pop() {
            ensure!(took + GRAIN >= lease, "its own message came again {took:?} into a lease of {lease:?}");
            break delivery;
        }
        ensure!(
            Instant::now() < deadline,
            "its lease of {lease:?} ended, but its message did not come again"
        );
    };
    // Whether a late acknowledgement is noticed is another behaviour's question.
    drop(held);
    drop(again);
    Ok(())
}

pub(crate) async fn extends_a_lease(stage: &Stage) -> Check {
    for lease in LEASES {
        if let Trial::Meaningful = extend_once(stage, lease).await? {
            return Ok(());
        }
    }
    too_slow()
}

async fn extend_once(stage: &Stage, lease: Duration) -> Check<Trial> {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut first = stage.receiver_with_lease(&queue, lease).await?;
    let started = Instant::now();
    let held = take_one(&mut first).await?;
    let extended = held.extend(LEASE_LONG).await;
    if started.elapsed() > lease {
        return Ok(Trial::TooSlow);
    }
    extended?;
    let other = stage.handle().await?;
    let mut second = receiver(&*other, &queue, LEASE_LONG).await?;
    while started.elapsed() < lease + MOMENT {
        nothing_comes(&mut second, MOMENT).await?;
    }
    held.ack().await?;
    nothing_comes(&mut second, MOMENT).await?;
    Ok(Trial::Meaningful)
}

pub(crate) async fn shortens_a_lease(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut first = stage.receiver(&queue).await?;
    let held = take_one(&mut first).await?;
    let started = Instant::now();
    held.extend(MOMENT).await?;
    let mut second = stage.receiver(&queue).await?;
    let again = take_one(&mut second).await?;
    let took = started.elapsed();
    ensure!(took + GRAIN >= MOMENT, "extended by {MOMENT:?}, it came again after {took:?}");
    drop(held);
    again.ack().await?;
    Ok(())
}

pub(crate) async fn refuses_to_extend_a_lost_lease(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut first = stage.receiver_with_lease(&queue, MOMENT).await?;
    let lost = take_one(&mut first).await?;
    let other = stage.handle().await?;
    let mut second = receiver(&*other, &queue, LEASE_LONG).await?;
    let owned = take_one(&mut second).await?;
    must_fail(lost.extend(LEASE_LONG).await, ErrorKind::LeaseLost, "extending a lease that was lost")?;
    owned.extend(LEASE_LONG).await?;
    owned.ack().await?;
    Ok(())
}

pub(crate) async fn keeps_the_leases_of_what_waits_locally(stage: &Stage) -> Check {
    for lease in LEASES {
        if let Trial::Meaningful = work_slowly(stage, lease).await? {
            return Ok(());
        }
    }
    too_slow()
}

/// Works longer than a lease in between; a message fetched ahead must not have lost its lease when it is handed over.
async fn work_slowly(stage: &Stage, lease: Duration) -> Check<Trial> {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 6).await?;
    let mut receiver = stage.receiver_with_lease(&queue, lease).await?;
    let started = Instant::now();
    let acked = take_one(&mut receiver).await?.ack().await;
    if started.elapsed() > lease / 2 {
        return Ok(Trial::TooSlow);
    }
    acked?;
    tokio::time::sleep(lease + MOMENT).await;
    for _ in 1..sent.len() {
        let started = Instant::now();
        let delivery = take_one(&mut receiver).await?;
        let acked = delivery.ack().await;
        if started.elapsed() > lease / 2 {
            return Ok(Trial::TooSlow);
        }
        ensure!(acked.is_ok(), "a message had lost its lease when it was handed over: {acked:?}");
    }
    ack_all(receiver.receive(10, MOMENT).await?).await?;
    stage.status_becomes(&queue, "empty", |status| status.is_idle()).await?;
    Ok(Trial::Meaningful)
}
