//! Receiving: waiting, waking up, limits.

use std::time::Duration;

use estafette_core::{Delivery, ErrorKind, MessageId, Outcome, Outgoing, ReceiveOptions, settle_all};
use tokio::time::Instant;

use crate::{
    stage::{GRAIN, LEASE_LONG, MOMENT, Stage, patience, publish_all, receiver},
    taking::{ack_all, at_least_once, ids_of, nothing_comes, take},
    violation::{Check, ensure},
};

pub(crate) async fn looks_without_waiting(stage: &Stage) -> Check {
    let mut receiver = stage.receiver(&stage.queue().await?).await?;
    let started = Instant::now();
    nothing_comes(&mut receiver, Duration::ZERO).await?;
    let took = started.elapsed();
    ensure!(took < patience() / 4, "a look without waiting took {took:?}");
    Ok(())
}

pub(crate) async fn waits_no_shorter_than_asked(stage: &Stage) -> Check {
    let mut receiver = stage.receiver(&stage.queue().await?).await?;
    for wait in [MOMENT, 3 * MOMENT] {
        let started = Instant::now();
        nothing_comes(&mut receiver, wait).await?;
        let took = started.elapsed();
        ensure!(took + GRAIN >= wait, "asked to wait {wait:?}, it returned nothing after {took:?}");
        ensure!(took < wait + patience() / 2, "asked to wait {wait:?}, it waited {took:?}");
    }
    Ok(())
}

pub(crate) async fn wakes_up_for_a_message(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let receiver = stage.receiver(&queue).await?;
    wakes_up(stage, receiver, |message| Outgoing::send(queue.clone(), message)).await
}

pub(crate) async fn wakes_up_for_a_message_of_another_handle(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let other = stage.handle().await?;
    let waiting = receiver(&*other, &queue, LEASE_LONG).await?;
    wakes_up(stage, waiting, |message| Outgoing::send(queue.clone(), message)).await
}

/// Publishes while a receiver waits much longer than the message may take.
async fn wakes_up(
    stage: &Stage,
    mut receiver: Box<dyn estafette_core::Receiver>,
    outgoing: impl Fn(estafette_core::Envelope) -> Outgoing,
) -> Check {
    // More than once: the first time may be lucky, when the message is there before the receiver waits.
    let wait = 3 * patience();
    for number in 0..3 {
        let waiting = tokio::spawn(async move {
            let deliveries = receiver.receive(1, wait).await;
            (receiver, deliveries)
        });
        // Long enough for the receiver to be waiting; nothing breaks when it is not yet.
        tokio::time::sleep(MOMENT / 2).await;
        let published = Instant::now();
        publish_all(&*stage.transport, &[outgoing(stage.message(number)?)]).await?;
        let (back, deliveries) = waiting.await?;
        let took = published.elapsed();
        receiver = back;
        let deliveries = deliveries?;
        ensure!(deliveries.len() == 1, "the waiting receiver got {} messages, not one", deliveries.len());
        ensure!(
            took < patience() / 2,
            "the waiting receiver got the message {took:?} after it was published"
        );
        ack_all(deliveries).await?;
    }
    Ok(())
}

pub(crate) async fn takes_no_more_than_asked(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 20).await?;
    let mut receiver = stage.receiver(&queue).await?;
    ensure!(receiver.receive(0, MOMENT).await?.is_empty(), "asked for no deliveries, got some");
    let mut came = Vec::new();
    for max in [1, 2, 7, 10] {
        let deliveries = take(&mut receiver, max).await?;
        came.extend(ids_of(&deliveries));
        ack_all(deliveries).await?;
    }
    at_least_once(&sent, &came)
}

pub(crate) async fn loses_nothing_when_cancelled(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let mut receiver = stage.receiver_with_lease(&queue, 4 * MOMENT).await?;
    let sent = stage.send(&queue, 200).await?;
    let mut came = Vec::new();
    // Cancelled after 0 to 2 ms: before, while and after it takes something.
    for micros in (0..2000).step_by(20) {
        let receiving = receiver.receive(2, MOMENT);
        if let Ok(deliveries) = tokio::time::timeout(Duration::from_micros(micros), receiving).await {
            came.extend(ack_if_held(deliveries?).await?);
        }
    }
    let deadline = Instant::now() + patience();
    while at_least_once(&sent, &came).is_err() && Instant::now() < deadline {
        came.extend(ack_if_held(receiver.receive(50, MOMENT).await?).await?);
    }
    at_least_once(&sent, &came)
}

/// Acknowledges. On a slow machine a short lease may have ended already: then the message comes again.
async fn ack_if_held(deliveries: Vec<Delivery>) -> Check<Vec<MessageId>> {
    let ids = ids_of(&deliveries);
    let batch = deliveries.into_iter().map(|delivery| (delivery, Outcome::Ack)).collect();
    for result in settle_all(batch).await {
        let is_fine = result.as_ref().map_or_else(|error| error.kind() == ErrorKind::LeaseLost, |()| true);
        ensure!(is_fine, "acknowledging failed: {result:?}");
    }
    Ok(ids)
}

pub(crate) async fn holds_back_beyond_the_unsettled_maximum(stage: &Stage) -> Check {
    const MAX: usize = 5;
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 20).await?;
    let options = ReceiveOptions { lease: LEASE_LONG, unsettled_max: MAX, ..ReceiveOptions::default() };
    let mut receiver = stage.transport.receiver(&queue, options).await?;
    let mut held = take(&mut receiver, MAX).await?;
    nothing_comes(&mut receiver, MOMENT).await?;
    let mut came = ids_of(&held);
    while came.len() < sent.len() {
        match held.pop() {
            Some(delivery) => delivery.ack().await?,
            None => break,
        }
        let next = receiver.receive(20, patience()).await?;
        ensure!(next.len() == 1, "one was settled, but {} came", next.len());
        came.extend(ids_of(&next));
        held.extend(next);
    }
    nothing_comes(&mut receiver, Duration::ZERO).await?;
    at_least_once(&sent, &came)?;
    ack_all(held).await
}
