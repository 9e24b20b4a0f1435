//! Settling: each outcome has its effect, once, and only for the one who holds the message.

use std::{collections::HashMap, time::Duration};

use estafette_core::{
    DeadQuery, Delivery, ErrorKind, Failure, Outcome, QueueName, Reason, Settlement, settle_all,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    stage::{GRAIN, LEASE_LONG, MOMENT, Stage, must_fail, patience, receiver},
    taking::{
        ack_all, at_least_once, drain, each_once, ids_of, name, nothing_comes, sent_ids, take, take_one,
    },
    violation::{Check, Violation, ensure},
};

/// A lease short enough to be waited for.
const LEASE_SHORT: Duration = Duration::from_millis(400);

pub(crate) async fn never_redelivers_what_was_acked(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 20).await?;
    let mut first = stage.receiver_with_lease(&queue, 7 * LEASE_SHORT).await?;
    let deliveries = take(&mut first, sent.len()).await?;
    let started = Instant::now();
    let (one_by_one, together): (Vec<_>, Vec<_>) =
        deliveries.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    for (_, delivery) in one_by_one {
        delivery.ack().await?;
    }
    ack_all(together.into_iter().map(|(_, delivery)| delivery).collect()).await?;
    first.close().await?;
    let other = stage.handle().await?;
    let mut second = receiver(&*other, &queue, LEASE_LONG).await?;
    while started.elapsed() < 8 * LEASE_SHORT {
        nothing_comes(&mut second, LEASE_SHORT / 2).await?;
    }
    let status = other.admin().queue(&queue).await?;
    ensure!(
        status.is_idle() && status.delayed == 0 && status.dead == 0,
        "all was acknowledged, but something is left: {status:?}"
    );
    Ok(())
}

pub(crate) async fn redelivers_after_retry(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 100).await?;
    let mut receiver = stage.receiver(&queue).await?;
    for delivery in take(&mut receiver, 2).await? {
        delivery.retry(Duration::ZERO).await?;
    }
    let deliveries = take(&mut receiver, sent.len()).await?;
    each_once(&sent, &ids_of(&deliveries))?;
    ack_all(deliveries).await?;
    nothing_comes(&mut receiver, MOMENT).await
}

pub(crate) async fn waits_before_a_retry_and_lets_others_pass(stage: &Stage) -> Check {
    let delay = 4 * MOMENT;
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 20).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let delivery = take_one(&mut receiver).await?;
    let retried = delivery.envelope().id.clone();
    let started = Instant::now();
    delivery.retry(delay).await?;
    let mut came = Vec::new();
    while came.len() < sent.len() {
        let delivery = take_one(&mut receiver).await?;
        let took = started.elapsed();
        if delivery.envelope().id == retried {
            ensure!(took + GRAIN >= delay, "retried with a delay of {delay:?}, it came after {took:?}");
            ensure!(
                came.len() == sent.len() - 1 || took > 3 * delay,
                "only {} of {} other messages came during the delay",
                came.len(),
                sent.len() - 1
            );
        }
        came.push(delivery.envelope().id.clone());
        delivery.ack().await?;
    }
    each_once(&sent, &came)
}

pub(crate) async fn survives_many_retries_by_many_consumers(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 50).await?;
    let wait = patience();
    let mut failing = JoinSet::new();
    for _ in 0..3 {
        let other = stage.handle().await?;
        let mut receiver = receiver(&*other, &queue, LEASE_LONG).await?;
        failing.spawn(async move {
            let mut left = 100;
            while left > 0 {
                let batch: Vec<_> = receiver
                    .receive(left.min(10), wait)
                    .await?
                    .into_iter()
                    .map(|delivery| (delivery, Outcome::Retry { after: Duration::ZERO, error: None }))
                    .collect();
                ensure!(!batch.is_empty(), "messages that were retried did not come again");
                left -= batch.len();
                for result in settle_all(batch).await {
                    result?;
                }
            }
            receiver.close().await?;
            Ok::<(), Violation>(())
        });
    }
    while let Some(failed) = failing.join_next().await {
        failed??;
    }
    let mut good = stage.receiver(&queue).await?;
    let deliveries = take(&mut good, sent.len()).await?;
    each_once(&sent, &ids_of(&deliveries))?;
    ack_all(deliveries).await
}

pub(crate) async fn keeps_a_rejected_message_as_a_dead_letter(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 2).await?;
    let mut receiver = stage.receiver(&queue).await?;
    for delivery in take(&mut receiver, 2).await? {
        if delivery.envelope().id == sent[0].id {
            delivery.reject(Failure::new(Reason::Rejected, "not a valid order")).await?;
        } else {
            delivery.ack().await?;
        }
    }
    nothing_comes(&mut receiver, MOMENT).await?;
    let dead = stage.transport.admin().dead(&queue, &DeadQuery::all()).await?;
    let ids: Vec<_> = dead.iter().map(|letter| letter.envelope.id.clone()).collect();
    ensure!(
        ids == sent_ids(&sent[..1]),
        "expected the rejected message among the dead letters, found {ids:?}"
    );
    Ok(())
}

pub(crate) async fn returns_a_dropped_delivery(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 3).await?;
    let mut receiver = stage.receiver_with_lease(&queue, 2 * LEASE_SHORT).await?;
    for _ in 0..2 {
        drop(take(&mut receiver, sent.len()).await?);
    }
    comes_and_is_acked(&mut receiver, &sent).await
}

pub(crate) async fn returns_the_deliveries_of_a_panicking_task(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 3).await?;
    let mut receiver = stage.receiver_with_lease(&queue, 2 * LEASE_SHORT).await?;
    let held = take(&mut receiver, 3).await?;
    // Unwinds as a panic does, without the panic hook's message on standard error.
    let panicked = tokio::spawn(async move {
        let _held = held;
        std::panic::resume_unwind(Box::new("the handler panics"));
    });
    ensure!(panicked.await.is_err(), "the task was to panic");
    comes_and_is_acked(&mut receiver, &sent).await
}

/// Takes until each message came, and acknowledges. A lease may end before its acknowledgement on a slow machine.
async fn comes_and_is_acked(
    receiver: &mut Box<dyn estafette_core::Receiver>,
    sent: &[estafette_core::Envelope],
) -> Check {
    let deadline = Instant::now() + patience();
    let mut came = Vec::new();
    while came.len() < sent.len() {
        ensure!(Instant::now() < deadline, "only {} of {} messages came again", came.len(), sent.len());
        for delivery in receiver.receive(10, MOMENT).await? {
            let id = delivery.envelope().id.clone();
            match delivery.ack().await {
                Ok(()) => came.push(id),
                Err(error) if error.kind() == ErrorKind::LeaseLost => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    each_once(sent, &came)
}

pub(crate) async fn settles_in_any_order_from_any_task(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 30).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let mut held = take(&mut receiver, sent.len()).await?;
    each_once(&sent, &ids_of(&held))?;
    held.reverse();
    let from_thread = held.split_off(20);
    let mut tasks = JoinSet::new();
    for delivery in held {
        tasks.spawn(delivery.ack());
    }
    // A thread that is no worker of this runtime.
    let runtime = tokio::runtime::Handle::current();
    tasks.spawn_blocking(move || {
        from_thread.into_iter().try_for_each(|delivery| runtime.block_on(delivery.ack()))
    });
    while let Some(settled) = tasks.join_next().await {
        settled??;
    }
    stage.status_becomes(&queue, "empty", |status| status.is_idle()).await?;
    nothing_comes(&mut receiver, MOMENT).await
}

pub(crate) async fn settles_a_mixed_batch(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 8).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let held = take(&mut receiver, sent.len()).await?;
    let outcomes = [
        Outcome::Ack,
        Outcome::Retry { after: Duration::ZERO, error: Some("again".into()) },
        Outcome::Reject(Failure::new(Reason::Unhandled, "nobody")),
        Outcome::Release { after: Duration::ZERO },
    ];
    let mut expected: HashMap<&str, Vec<_>> = HashMap::new();
    let mut batch = Vec::new();
    for (delivery, outcome) in held.into_iter().zip(outcomes.iter().cycle()) {
        let place = match outcome {
            Outcome::Ack => "gone",
            Outcome::Reject(_) => "dead",
            Outcome::Retry { .. } | Outcome::Release { .. } => "again",
        };
        expected.entry(place).or_default().push(delivery.envelope().id.clone());
        batch.push((delivery, outcome.clone()));
    }
    let results = settle_all(batch).await;
    ensure!(results.len() == 8, "settling 8 deliveries gave {} results", results.len());
    for result in results {
        result?;
    }
    let mut again = drain(&mut receiver).await?;
    again.sort();
    let mut dead: Vec<_> = stage.transport.admin().dead(&queue, &DeadQuery::all()).await?;
    dead.sort_by(|a, b| a.envelope.id.cmp(&b.envelope.id));
    let dead: Vec<_> = dead.into_iter().map(|letter| letter.envelope.id).collect();
    for (place, ids) in [("again", again), ("dead", dead)] {
        let mut wanted = expected.remove(place).unwrap_or_default();
        wanted.sort();
        ensure!(wanted == ids, "{wanted:?} were to be {place}, but {ids:?} are");
    }
    Ok(())
}

pub(crate) async fn refuses_a_late_settlement(stage: &Stage) -> Check {
    let mut outcomes = vec![
        Outcome::Ack,
        Outcome::Retry { after: Duration::ZERO, error: None },
        Outcome::Release { after: Duration::ZERO },
    ];
    if stage.guarantees().dead_letters.is_some() {
        outcomes.push(Outcome::Reject(Failure::new(Reason::Rejected, "too late")));
    }
    for outcome in outcomes {
        let queue = stage.queue().await?;
        let (late, owned) = lost_and_owned(stage, &queue).await?;
        must_fail(
            late.settle(outcome.clone()).await,
            ErrorKind::LeaseLost,
            "settling after the lease was lost",
        )?;
        still_owned(stage, &queue, owned, &format!("a late {outcome:?}")).await?;
    }
    Ok(())
}

pub(crate) async fn leaves_the_new_owner_alone_when_a_lost_delivery_is_dropped(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let (late, owned) = lost_and_owned(stage, &queue).await?;
    drop(late);
    still_owned(stage, &queue, owned, "dropping a lost delivery").await
}

/// One message twice: a delivery whose lease has ended, and the delivery of its new owner.
async fn lost_and_owned(stage: &Stage, queue: &QueueName) -> Check<(Delivery, Delivery)> {
    let sent = stage.send(queue, 1).await?;
    let mut first = stage.receiver_with_lease(queue, LEASE_SHORT).await?;
    let late = take_one(&mut first).await?;
    let other = stage.handle().await?;
    let mut second = receiver(&*other, queue, LEASE_LONG).await?;
    let owned = take_one(&mut second).await?;
    at_least_once(&sent, &ids_of(std::slice::from_ref(&owned)))?;
    Ok((late, owned))
}

/// Checks that the owner still has its message: nobody else gets it, and acknowledging works.
async fn still_owned(stage: &Stage, queue: &QueueName, owned: Delivery, after: &str) -> Check {
    let mut receiver = stage.receiver(queue).await?;
    if let Some(delivery) = receiver.receive(1, MOMENT).await?.first() {
        let what = name(delivery.envelope());
        return Err(Violation::Broken(format!("{after} took {what} from its new owner")));
    }
    if let Err(error) = owned.ack().await {
        let sentence = format!("after {after} the new owner could not acknowledge: {}", error.report());
        return Err(Violation::Broken(sentence));
    }
    nothing_comes(&mut receiver, MOMENT).await
}

pub(crate) async fn settles_once_only(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let first = take_one(&mut receiver).await?;
    let ticket = first.ticket();
    let Some(settler) = first.settler().cloned() else {
        return Err(Violation::Broken("a new delivery has no settler".into()));
    };
    first.retry(Duration::ZERO).await?;
    let second = take_one(&mut receiver).await?;
    ensure!(second.ticket() != ticket, "two hand-overs of a message have the same ticket, {ticket:?}");
    for outcome in [Outcome::Ack, Outcome::Retry { after: Duration::ZERO, error: None }] {
        let results = settler.settle(vec![Settlement { ticket, outcome }]).await;
        ensure!(results.len() == 1, "one settlement gave {} results", results.len());
        for result in results {
            must_fail(result, ErrorKind::LeaseLost, "settling a hand-over a second time")?;
        }
    }
    settler.abandon(ticket);
    still_owned(stage, &queue, second, "a second settlement").await
}
