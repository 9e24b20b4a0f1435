//! Messages that wait for their time, and messages whose time is over.

use std::{collections::HashMap, time::Duration};

use estafette_core::{
    DeadLetter, DeadQuery, Envelope, MessageId, Outgoing, QueueName, Reason, Receiver, Timestamp,
};
use tokio::time::Instant;

use crate::{
    stage::{GRAIN, LEASE_LONG, MOMENT, Stage, patience, publish_all, receiver},
    taking::{ack_all, at_least_once, each_once, ids_of, nothing_comes, take, take_one},
    violation::{Check, ensure},
};

pub(crate) async fn delays_a_message(stage: &Stage) -> Check {
    let delay = 4 * MOMENT;
    let queue = stage.queue().await?;
    let message = stage.message(1)?;
    let started = Instant::now();
    send_delayed(stage, &queue, &message, delay).await?;
    let soon = stage.send(&queue, 1).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let first = take_one(&mut receiver).await?;
    // Both, when the machine slept in between.
    ensure!(
        first.envelope().id == soon[0].id || started.elapsed() >= delay,
        "the delayed message came before one without a delay, after {:?}",
        started.elapsed()
    );
    first.ack().await?;
    let second = take_one(&mut receiver).await?;
    let took = started.elapsed();
    ensure!(took + GRAIN >= delay, "delayed by {delay:?}, it came after {took:?}");
    second.ack().await?;
    nothing_comes(&mut receiver, MOMENT).await
}

pub(crate) async fn lets_short_delays_pass_long_ones(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    send_delayed(stage, &queue, &stage.message(9999)?, Duration::from_secs(600)).await?;
    let mut due: HashMap<MessageId, Duration> = HashMap::new();
    let mut sent = Vec::new();
    let mut batch = Vec::new();
    for number in 0..200_usize {
        // 0 to 995 ms, mixed: 37 and 200 have no common divisor.
        let delay = Duration::from_millis(u64::try_from(number * 37 % 200).unwrap_or_default() * 5);
        let message = stage.message(number)?;
        due.insert(message.id.clone(), delay);
        batch.push(Outgoing { delay, ..Outgoing::send(queue.clone(), message.clone()) });
        sent.push(message);
    }
    let started = Instant::now();
    publish_all(&*stage.transport, &batch).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let mut came = Vec::new();
    while came.len() < sent.len() {
        let deliveries = receiver.receive(50, patience()).await?;
        let took = started.elapsed();
        ensure!(!deliveries.is_empty(), "only {} of {} delayed messages came", came.len(), sent.len());
        for id in ids_of(&deliveries) {
            let delay = due.get(&id).copied().unwrap_or(Duration::MAX);
            ensure!(took + GRAIN >= delay, "a message delayed by {delay:?} came after {took:?}");
            came.push(id);
        }
        ack_all(deliveries).await?;
    }
    each_once(&sent, &came)
}

pub(crate) async fn keeps_a_delay_while_closed(stage: &Stage) -> Check {
    let delay = 4 * MOMENT;
    let queue = stage.queue().await?;
    let message = stage.message(1)?;
    let started = Instant::now();
    send_delayed(stage, &queue, &message, delay).await?;
    let reopened = stage.reopened().await?;
    let mut receiver = receiver(&*reopened, &queue, LEASE_LONG).await?;
    let delivery = take_one(&mut receiver).await?;
    let took = started.elapsed();
    ensure!(took + GRAIN >= delay, "delayed by {delay:?}, it came after {took:?}");
    at_least_once(&[message], &ids_of(std::slice::from_ref(&delivery)))?;
    delivery.ack().await?;
    Ok(())
}

pub(crate) async fn cancels_a_delayed_message(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let delay = 4 * MOMENT;
    let cancelled = stage.message(1)?;
    let kept = stage.message(2)?;
    send_delayed(stage, &queue, &kept, delay).await?;
    // Long, so that it is still waiting however slow the machine is.
    send_delayed(stage, &queue, &cancelled, Duration::from_secs(600)).await?;
    let admin = stage.transport.admin();
    ensure!(
        admin.cancel(&queue, &cancelled.id).await?,
        "cancelling a delayed message said it was not waiting"
    );
    ensure!(
        !admin.cancel(&queue, &cancelled.id).await?,
        "cancelling twice said it was waiting the second time too"
    );
    ensure!(!admin.cancel(&queue, &MessageId::new()).await?, "cancelling an unknown id said it was waiting");
    let status = admin.queue(&queue).await?;
    ensure!(status.delayed <= 1, "the cancelled message is still counted: {status:?}");
    let mut receiver = stage.receiver(&queue).await?;
    let deliveries = take(&mut receiver, 1).await?;
    at_least_once(&[kept], &ids_of(&deliveries))?;
    ack_all(deliveries).await?;
    nothing_comes(&mut receiver, MOMENT).await
}

pub(crate) async fn buries_an_expired_message(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let past = expiring(stage, 1, Timestamp::now() - Duration::from_secs(60))?;
    let soon = expiring(stage, 2, Timestamp::now() + MOMENT)?;
    let never = stage.message(3)?;
    stage.send_these(&queue, &[past.clone(), soon.clone(), never.clone()]).await?;
    let expires_at = soon.expires_at.unwrap_or_default();
    while Timestamp::now() < expires_at + GRAIN {
        tokio::time::sleep(GRAIN).await;
    }
    let mut receiver = stage.receiver(&queue).await?;
    let deliveries = take(&mut receiver, 1).await?;
    each_once(&[never], &ids_of(&deliveries))?;
    ack_all(deliveries).await?;
    let dead = dead_letters(stage, &queue, &mut receiver, 2).await?;
    let mut ids: Vec<_> = dead.iter().map(|letter| letter.envelope.id.clone()).collect();
    ids.sort();
    let mut expected = [past.id, soon.id];
    expected.sort();
    ensure!(ids == expected, "expected the dead letters {expected:?}, found {ids:?}");
    for letter in dead {
        ensure!(letter.reason == Reason::Expired, "it expired, but its reason is `{}`", letter.reason);
        ensure!(letter.attempts == 0, "it was never handed over, but counts {} attempts", letter.attempts);
    }
    Ok(())
}

pub(crate) async fn expires_while_waiting_for_a_retry(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    // Long enough to be taken before it expires, also on a slow machine.
    let life = Duration::from_secs(2);
    let message = expiring(stage, 1, Timestamp::now() + life)?;
    stage.send_these(&queue, std::slice::from_ref(&message)).await?;
    let mut receiver = stage.receiver(&queue).await?;
    if let Some(delivery) = receiver.receive(1, MOMENT).await?.pop() {
        ensure!(delivery.envelope().expires_at == message.expires_at, "the expiry changed");
        delivery.retry(life).await?;
    }
    let dead = dead_letters(stage, &queue, &mut receiver, 1).await?;
    ensure!(dead[0].reason == Reason::Expired, "it expired, but its reason is `{}`", dead[0].reason);
    Ok(())
}

pub(crate) async fn delivers_what_has_not_expired(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let message = expiring(stage, 1, Timestamp::now() + Duration::from_secs(3600))?;
    stage.send_these(&queue, std::slice::from_ref(&message)).await?;
    let mut receiver = stage.receiver(&queue).await?;
    for _ in 0..2 {
        let delivery = take_one(&mut receiver).await?;
        ensure!(
            delivery.envelope().expires_at == message.expires_at,
            "it was to expire at {:?}, but says {:?}",
            message.expires_at,
            delivery.envelope().expires_at
        );
        delivery.retry(Duration::ZERO).await?;
    }
    take_one(&mut receiver).await?.ack().await?;
    Ok(())
}

fn expiring(stage: &Stage, number: usize, expires_at: Timestamp) -> Check<Envelope> {
    Ok(Envelope { expires_at: Some(expires_at), ..stage.message(number)? })
}

async fn send_delayed(stage: &Stage, queue: &QueueName, message: &Envelope, delay: Duration) -> Check {
    let outgoing = Outgoing { delay, ..Outgoing::send(queue.clone(), message.clone()) };
    publish_all(&*stage.transport, &[outgoing]).await
}

/// Keeps receiving, which moves expired messages, until there are so many dead letters. Nothing may be delivered.
async fn dead_letters(
    stage: &Stage,
    queue: &QueueName,
    receiver: &mut Box<dyn Receiver>,
    count: usize,
) -> Check<Vec<DeadLetter>> {
    let deadline = Instant::now() + patience();
    loop {
        nothing_comes(receiver, MOMENT).await?;
        let dead = stage.transport.admin().dead(queue, &DeadQuery::all()).await?;
        if dead.len() == count {
            return Ok(dead);
        }
        ensure!(Instant::now() < deadline, "expected {count} dead letters, found {}", dead.len());
    }
}
