//! Taking deliveries with a time limit, and comparing them with what was sent.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use estafette_core::{Delivery, Envelope, MessageId, Outcome, Receiver, settle_all};
use tokio::time::Instant;

use crate::{
    stage::{MOMENT, patience},
    violation::{Check, Violation, ensure},
};

/// Takes exactly so many deliveries, in as many calls as it needs.
pub(crate) async fn take(receiver: &mut Box<dyn Receiver>, count: usize) -> Check<Vec<Delivery>> {
    let deadline = Instant::now() + patience();
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "only {} of {count} messages came within {:?}", taken.len(), patience());
        let max = count - taken.len();
        let deliveries = receiver.receive(max, left.min(Duration::from_secs(1))).await?;
        ensure!(deliveries.len() <= max, "asked for at most {max} deliveries, got {}", deliveries.len());
        taken.extend(deliveries);
    }
    Ok(taken)
}

/// Takes one delivery.
pub(crate) async fn take_one(receiver: &mut Box<dyn Receiver>) -> Check<Delivery> {
    let mut taken = take(receiver, 1).await?;
    taken.pop().ok_or_else(|| Violation::Broken("no message came".into()))
}

/// Checks that nothing comes for a while.
pub(crate) async fn nothing_comes(receiver: &mut Box<dyn Receiver>, within: Duration) -> Check {
    let deliveries = receiver.receive(1, within).await?;
    match deliveries.first() {
        None => Ok(()),
        Some(delivery) => Err(Violation::Broken(format!(
            "nothing may come now, but {} did, at attempt {}",
            name(delivery.envelope()),
            delivery.attempt()
        ))),
    }
}

/// Takes and acknowledges whatever comes until nothing does for a moment.
pub(crate) async fn drain(receiver: &mut Box<dyn Receiver>) -> Check<Vec<MessageId>> {
    let mut ids = Vec::new();
    loop {
        let deliveries = receiver.receive(100, 3 * MOMENT).await?;
        if deliveries.is_empty() {
            return Ok(ids);
        }
        ids.extend(ids_of(&deliveries));
        ack_all(deliveries).await?;
    }
}

/// Acknowledges all of them, each of which must work.
pub(crate) async fn ack_all(deliveries: Vec<Delivery>) -> Check {
    let count = deliveries.len();
    let batch = deliveries.into_iter().map(|delivery| (delivery, Outcome::Ack)).collect();
    let results = settle_all(batch).await;
    ensure!(results.len() == count, "settling {count} deliveries gave {} results", results.len());
    for result in results {
        result?;
    }
    Ok(())
}

pub(crate) fn ids_of(deliveries: &[Delivery]) -> Vec<MessageId> {
    deliveries.iter().map(|delivery| delivery.envelope().id.clone()).collect()
}

pub(crate) fn sent_ids(messages: &[Envelope]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id.clone()).collect()
}

/// Checks that each message sent came exactly once, and nothing else.
pub(crate) fn each_once(sent: &[Envelope], came: &[MessageId]) -> Check {
    at_least_once(sent, came)?;
    let mut counts: BTreeMap<&MessageId, usize> = BTreeMap::new();
    for id in came {
        *counts.entry(id).or_default() += 1;
    }
    match counts.into_iter().find(|(_, count)| *count > 1) {
        Some((id, count)) => {
            Err(Violation::Broken(format!("message {id} came {count} times instead of once")))
        }
        None => Ok(()),
    }
}

/// Checks that each message sent came, and nothing else.
pub(crate) fn at_least_once(sent: &[Envelope], came: &[MessageId]) -> Check {
    let came: HashSet<&MessageId> = came.iter().collect();
    let missing: Vec<&Envelope> = sent.iter().filter(|message| !came.contains(&message.id)).collect();
    if let Some(first) = missing.first() {
        let sentence = format!(
            "{} of {} messages did not come, the first is {}",
            missing.len(),
            sent.len(),
            name(first)
        );
        return Err(Violation::Broken(sentence));
    }
    let sent: HashSet<&MessageId> = sent.iter().map(|message| &message.id).collect();
    let stranger = came.difference(&sent).next();
    ensure!(stranger.is_none(), "a message came that was not meant for this queue: {stranger:?}");
    Ok(())
}

/// Checks that a message came as it was sent.
pub(crate) fn unchanged(sent: &Envelope, came: &Envelope) -> Check {
    ensure!(came.id == sent.id, "expected message {}, got {}", name(sent), name(came));
    ensure!(
        came.body == sent.body,
        "the body of {} changed: {} bytes were sent, {} came{}",
        name(sent),
        sent.body.len(),
        came.body.len(),
        first_difference(&sent.body, &came.body)
    );
    ensure!(
        came.headers == sent.headers,
        "the headers of {} changed from {:?} to {:?}",
        name(sent),
        sent.headers,
        came.headers
    );
    let bare = |envelope: &Envelope| Envelope { body: bytes::Bytes::new(), ..envelope.clone() };
    ensure!(bare(came) == bare(sent), "attributes changed from {:?} to {:?}", bare(sent), bare(came));
    Ok(())
}

fn first_difference(sent: &[u8], came: &[u8]) -> String {
    match sent.iter().zip(came).position(|(sent, came)| sent != came) {
        Some(index) => format!(", different from byte {index} on"),
        None => String::new(),
    }
}

/// A message as a report calls it.
pub(crate) fn name(envelope: &Envelope) -> String {
    match envelope.headers.get("number") {
        Some(number) => format!("message {} (number {number})", envelope.id),
        None => format!("message {}", envelope.id),
    }
}
