//! Looking after queues.

use std::time::Duration;

use estafette_core::{
    DeadQuery, ErrorKind, Failure, Guarantees, Lifetime, MessageId, Order, Outcome, Outgoing, QueueSpec,
    Reason, ReceiveOptions, Timestamp,
};

use crate::{
    stage::{MOMENT, Stage, must_fail},
    taking::{ack_all, drain, each_once, nothing_comes, take, take_one},
    violation::{Check, ensure},
};

pub(crate) async fn counts_what_is_there(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let counts = |ready: u64, leased: u64| {
        move |status: &estafette_core::QueueStatus| {
            (status.ready, status.leased, status.delayed, status.dead) == (ready, leased, 0, 0)
        }
    };
    stage.status_becomes(&queue, "nothing", counts(0, 0)).await?;
    stage.send(&queue, 10).await?;
    stage.status_becomes(&queue, "10 ready", counts(10, 0)).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let mut held = take(&mut receiver, 4).await?;
    stage.status_becomes(&queue, "6 ready, 4 leased", counts(6, 4)).await?;
    let kept = held.split_off(1);
    ack_all(held).await?;
    stage.status_becomes(&queue, "6 ready, 3 leased", counts(6, 3)).await?;
    for delivery in kept {
        delivery.retry(Duration::ZERO).await?;
    }
    stage.status_becomes(&queue, "9 ready", counts(9, 0)).await?;
    drain(&mut receiver).await?;
    stage.status_becomes(&queue, "nothing", counts(0, 0)).await?;
    Ok(())
}

pub(crate) async fn counts_what_waits(stage: &Stage) -> Check {
    let delay = Duration::from_secs(600);
    let queue = stage.queue().await?;
    let delayed = Outgoing { delay, ..Outgoing::send(queue.clone(), stage.message(1)?) };
    crate::stage::publish_all(&*stage.transport, &[delayed]).await?;
    let expected = "1 delayed by its publisher";
    stage
        .status_becomes(&queue, expected, |status| {
            (status.ready, status.delayed, status.retrying) == (0, 1, 0)
        })
        .await?;
    stage.send(&queue, 2).await?;
    let mut receiver = stage.receiver(&queue).await?;
    for delivery in take(&mut receiver, 2).await? {
        delivery.retry(delay).await?;
    }
    let status = stage
        .status_becomes(&queue, "3 delayed, 2 of them for a retry", |status| {
            (status.ready, status.leased, status.delayed, status.retrying) == (0, 0, 3, 2)
        })
        .await?;
    ensure!(!status.is_idle(), "messages wait for a retry, but the queue says it is idle");
    Ok(())
}

pub(crate) async fn lists_queues_by_name(stage: &Stage) -> Check {
    let first = stage.queue_with(&["z", "a.*", "#"]).await?;
    let second = stage.queue().await?;
    let listed = stage.transport.admin().queues().await?;
    ensure!(listed.is_sorted_by(|a, b| a.name < b.name), "the queues are not listed by name, each once");
    for (name, ends) in [(&first, ["#", "a.*", "z"].as_slice()), (&second, &[])] {
        let mut patterns = ends.iter().map(|end| stage.pattern(end)).collect::<Check<Vec<_>>>()?;
        patterns.sort();
        let found = listed.iter().find(|status| status.name == *name);
        ensure!(found.is_some(), "queue {name} is not listed");
        let Some(status) = found else { continue };
        ensure!(
            status.patterns == patterns,
            "expected the patterns {patterns:?}, found {:?}",
            status.patterns
        );
        ensure!(
            status.lifetime == Lifetime::Durable,
            "the queue is durable, but listed as {:?}",
            status.lifetime
        );
        let alone = stage.transport.admin().queue(name).await?;
        ensure!(alone == *status, "the list says {status:?}, asked alone it is {alone:?}");
    }
    Ok(())
}

pub(crate) async fn purges_what_nobody_holds(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 10).await?;
    let mut expected = 8;
    if stage.guarantees().delay.is_some() {
        let delay = Duration::from_secs(600);
        let delayed = Outgoing { delay, ..Outgoing::send(queue.clone(), stage.message(11)?) };
        crate::stage::publish_all(&*stage.transport, &[delayed]).await?;
        expected += 1;
    }
    let mut receiver = stage.receiver(&queue).await?;
    let mut held = take(&mut receiver, 2).await?;
    // What the receiver has fetched ahead goes back first.
    receiver.close().await?;
    let count = stage.transport.admin().purge(&queue).await?;
    ensure!(count == expected, "expected {expected} messages to be purged, it said {count}");
    if let Some(delivery) = held.pop() {
        delivery.ack().await?;
    }
    let mut receiver = stage.receiver(&queue).await?;
    nothing_comes(&mut receiver, MOMENT).await?;
    if let Some(delivery) = held.pop() {
        delivery.retry(Duration::ZERO).await?;
    }
    take_one(&mut receiver).await?.ack().await?;
    let sent = stage.send(&queue, 3).await?;
    each_once(&sent, &drain(&mut receiver).await?)
}

pub(crate) async fn purges_no_dead_letters(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 3).await?;
    let mut receiver = stage.receiver(&queue).await?;
    take_one(&mut receiver).await?.reject(Failure::new(Reason::Rejected, "no")).await?;
    receiver.close().await?;
    let count = stage.transport.admin().purge(&queue).await?;
    ensure!(count == 2, "expected 2 messages to be purged, it said {count}");
    let dead = stage.transport.admin().dead(&queue, &DeadQuery::all()).await?.len();
    ensure!(dead == 1, "purging the queue left {dead} dead letters, expected 1");
    stage.status_becomes(&queue, "1 dead", |status| status.dead == 1 && status.is_idle()).await?;
    Ok(())
}

pub(crate) async fn does_not_find_an_unknown_queue(stage: &Stage) -> Check {
    let name = stage.queue_name()?;
    let admin = stage.transport.admin();
    let all = DeadQuery::all();
    let kind = ErrorKind::NotFound;
    must_fail(admin.queue(&name).await, kind, "asking for a queue that does not exist")?;
    must_fail(admin.delete(&name).await, kind, "deleting a queue that does not exist")?;
    must_fail(admin.purge(&name).await, kind, "purging a queue that does not exist")?;
    let receiver = stage.transport.receiver(&name, ReceiveOptions::default()).await;
    must_fail(receiver, kind, "receiving from a queue that does not exist")?;
    if stage.guarantees().topics.is_some() {
        let ended = admin.unsubscribe(&name, &stage.pattern("x")?).await;
        must_fail(ended, kind, "ending a subscription of a queue that does not exist")?;
    }
    if stage.guarantees().dead_letters.is_some() {
        must_fail(
            admin.dead(&name, &all).await,
            kind,
            "listing dead letters of a queue that does not exist",
        )?;
        must_fail(admin.redrive(&name, &all).await, kind, "redriving in a queue that does not exist")?;
        must_fail(
            admin.purge_dead(&name, &all).await,
            kind,
            "purging dead letters of a queue that does not exist",
        )?;
    }
    if stage.guarantees().cancel.is_some() {
        must_fail(
            admin.cancel(&name, &MessageId::new()).await,
            kind,
            "cancelling in a queue that does not exist",
        )?;
    }
    let listed = admin.queues().await?.into_iter().any(|status| status.name == name);
    ensure!(!listed, "asking for queue {name} made it");
    Ok(())
}

pub(crate) async fn refuses_what_it_does_not_promise(stage: &Stage) -> Check {
    let promised = stage.guarantees();
    refuses_publishing(stage, &promised).await?;
    refuses_settling(stage, &promised).await?;
    let queue = stage.queue().await?;
    let kind = ErrorKind::Unsupported;
    let admin = stage.transport.admin();
    if promised.order < Order::Key {
        let options = ReceiveOptions { ordered_by_key: true, ..ReceiveOptions::default() };
        must_fail(stage.transport.receiver(&queue, options).await, kind, "asking for order by key")?;
    }
    if !promised.temporary_queues.is_some() {
        must_fail(
            stage.transport.declare(&QueueSpec::temporary()).await,
            kind,
            "declaring a temporary queue",
        )?;
    }
    if !promised.topics.is_some() {
        let spec = QueueSpec::durable(queue.clone()).subscribe(stage.pattern("x")?);
        must_fail(stage.transport.declare(&spec).await, kind, "subscribing to a pattern")?;
    }
    if !promised.cancel.is_some() {
        must_fail(admin.cancel(&queue, &MessageId::new()).await, kind, "cancelling a delayed message")?;
    }
    if !promised.dead_letters.is_some() {
        must_fail(admin.dead(&queue, &DeadQuery::all()).await, kind, "listing dead letters")?;
        must_fail(admin.redrive(&queue, &DeadQuery::all()).await, kind, "redriving dead letters")?;
    }
    Ok(())
}

async fn refuses_publishing(stage: &Stage, promised: &Guarantees) -> Check {
    let queue = stage.queue().await?;
    let plain = Outgoing::send(queue, stage.message(1)?);
    let mut refused = Vec::new();
    if !promised.delay.is_some() {
        refused
            .push((Outgoing { delay: Duration::from_secs(600), ..plain.clone() }, "publishing with a delay"));
    }
    if !promised.expiry.is_some() {
        let mut outgoing = plain.clone();
        outgoing.envelope_mut().expires_at = Some(Timestamp::now() + Duration::from_secs(600));
        refused.push((outgoing, "publishing with an expiry"));
    }
    if !promised.topics.is_some() {
        refused.push((Outgoing::publish(stage.message(2)?), "publishing to a topic"));
    }
    for (outgoing, what) in refused {
        for result in stage.transport.publish(&[outgoing]).await {
            must_fail(result, ErrorKind::Unsupported, what)?;
        }
    }
    Ok(())
}

async fn refuses_settling(stage: &Stage, promised: &Guarantees) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 3).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let mut held = take(&mut receiver, 3).await?;
    if let Some(delivery) = held.pop()
        && !promised.lease_extend.is_some()
    {
        let extended = delivery.extend(Duration::from_secs(60)).await;
        must_fail(extended, ErrorKind::Unsupported, "extending a lease")?;
    }
    let failure = Failure::new(Reason::Rejected, "no");
    let retry = Outcome::Retry { after: Duration::from_secs(600), error: None };
    let outcomes = [
        (promised.dead_letters.is_some(), Outcome::Reject(failure), "rejecting"),
        (promised.delay.is_some(), retry, "retrying with a delay"),
    ];
    for (delivery, (is_promised, outcome, what)) in held.into_iter().zip(outcomes) {
        if !is_promised {
            must_fail(delivery.settle(outcome).await, ErrorKind::Unsupported, what)?;
        }
    }
    Ok(())
}
