//! Attempts: counted when a message is claimed, and kept with it.

use std::time::Duration;

use estafette_core::{Delivery, Outcome, Receiver};
use tokio::time::Instant;

use crate::{
    stage::{GRAIN, LEASE_LONG, MOMENT, Stage, receiver},
    taking::{take_one, unchanged},
    violation::{Check, ensure},
};

pub(crate) async fn counts_from_one(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 1).await?;
    let mut receiver = stage.receiver(&queue).await?;
    for attempt in 1..=5 {
        let delivery = take_attempt(&mut receiver, attempt).await?;
        unchanged(&sent[0], delivery.envelope())?;
        delivery.retry(Duration::ZERO).await?;
    }
    take_attempt(&mut receiver, 6).await?.ack().await?;
    Ok(())
}

pub(crate) async fn does_not_count_a_release(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut receiver = stage.receiver(&queue).await?;
    for _ in 0..3 {
        take_attempt(&mut receiver, 1).await?.release().await?;
    }
    take_attempt(&mut receiver, 1).await?.retry(Duration::ZERO).await?;
    take_attempt(&mut receiver, 2).await?.release().await?;
    take_attempt(&mut receiver, 2).await?.ack().await?;
    Ok(())
}

pub(crate) async fn releases_after_a_delay(stage: &Stage) -> Check {
    let delay = 2 * MOMENT;
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let delivery = take_attempt(&mut receiver, 1).await?;
    let started = Instant::now();
    delivery.settle(Outcome::Release { after: delay }).await?;
    let delivery = take_attempt(&mut receiver, 1).await?;
    let took = started.elapsed();
    ensure!(took + GRAIN >= delay, "released for {delay:?}, it came after {took:?}");
    delivery.ack().await?;
    Ok(())
}

pub(crate) async fn counts_when_claimed(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut first = stage.receiver_with_lease(&queue, 2 * MOMENT).await?;
    let held = take_attempt(&mut first, 1).await?;
    let mut second = stage.receiver_with_lease(&queue, 2 * MOMENT).await?;
    drop(take_attempt(&mut second, 2).await?);
    let mut third = stage.receiver(&queue).await?;
    let last = take_attempt(&mut third, 3).await?;
    drop(held);
    last.ack().await?;
    Ok(())
}

pub(crate) async fn survives_reconnecting(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    // Long enough for a slow machine; only waited for where a dropped delivery does not return at once.
    let mut first = stage.receiver_with_lease(&queue, 20 * MOMENT).await?;
    take_attempt(&mut first, 1).await?.retry(Duration::ZERO).await?;
    // Out when the handle closes: the attempt counts all the same.
    let held = take_attempt(&mut first, 2).await?;
    first.close().await?;
    drop(held);
    drop(first);
    let reopened = stage.reopened().await?;
    let mut second = receiver(&*reopened, &queue, LEASE_LONG).await?;
    take_attempt(&mut second, 3).await?.ack().await?;
    Ok(())
}

pub(crate) async fn counts_for_each_queue(stage: &Stage) -> Check {
    let failing = stage.queue_with(&["shared"]).await?;
    let healthy = stage.queue_with(&["shared"]).await?;
    stage.publish("shared", 1).await?;
    let mut receiver = stage.receiver(&failing).await?;
    for attempt in 1..=3 {
        take_attempt(&mut receiver, attempt).await?.retry(Duration::ZERO).await?;
    }
    take_attempt(&mut stage.receiver(&healthy).await?, 1).await?.ack().await?;
    take_attempt(&mut receiver, 4).await?.ack().await?;
    Ok(())
}

/// Takes one delivery, which must be at this attempt.
async fn take_attempt(receiver: &mut Box<dyn Receiver>, attempt: u32) -> Check<Delivery> {
    let delivery = take_one(receiver).await?;
    ensure!(
        delivery.attempt() == attempt,
        "expected attempt {attempt}, but the delivery says {}",
        delivery.attempt()
    );
    Ok(delivery)
}
