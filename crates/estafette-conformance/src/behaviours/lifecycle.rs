//! Opening and closing handles and receivers.

use std::{sync::Arc, time::Duration};

use estafette_core::{ErrorKind, Lifetime, Outgoing, QueueSpec, ReceiveOptions};

use tokio::task::JoinSet;

use crate::{
    stage::{LEASE_LONG, MOMENT, Stage, Surroundings, must_fail, patience, publish_all, receiver},
    taking::{ack_all, at_least_once, drain, each_once, ids_of, nothing_comes, take, take_one},
    violation::{Check, Violation, ensure},
};

pub(crate) async fn closes_twice(stage: &Stage) -> Check {
    let handle = stage.subject.connect().await?;
    let mut receiver = if stage.guarantees().shared {
        receiver(&*handle, &stage.queue().await?, LEASE_LONG).await?
    } else {
        stage.receiver(&stage.queue().await?).await?
    };
    receiver.close().await?;
    receiver.close().await?;
    let (first, second) = tokio::join!(handle.close(), handle.close());
    first?;
    second?;
    handle.close().await?;
    Ok(())
}

pub(crate) async fn refuses_work_when_closed(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let message = stage.message(1)?;
    let mut open = stage.receiver(&queue).await?;
    let mut closed = stage.receiver(&queue).await?;
    closed.close().await?;
    must_fail(closed.receive(1, MOMENT).await, ErrorKind::Closed, "receiving from a closed receiver")?;

    stage.transport.close().await?;
    for result in stage.transport.publish(&[Outgoing::send(queue.clone(), message)]).await {
        must_fail(result, ErrorKind::Closed, "publishing after closing")?;
    }
    must_fail(open.receive(1, MOMENT).await, ErrorKind::Closed, "receiving after closing")?;
    let receiver = stage.transport.receiver(&queue, ReceiveOptions::default()).await;
    must_fail(receiver, ErrorKind::Closed, "opening a receiver after closing")
}

pub(crate) async fn wakes_a_waiting_receiver_when_closed(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let mut receiver = stage.receiver(&queue).await?;
    let wait = 20 * patience();
    let waiting = tokio::spawn(async move { receiver.receive(1, wait).await });
    // Long enough for it to be waiting; nothing breaks when it is not yet.
    tokio::time::sleep(MOMENT / 2).await;
    stage.transport.close().await?;
    match tokio::time::timeout(patience(), waiting).await {
        Ok(ended) => {
            must_fail(ended?, ErrorKind::Closed, "a receive that waits while its transport is closed")
        }
        Err(_) => {
            Err(Violation::Broken("a waiting receive did not end when its transport was closed".into()))
        }
    }
}

pub(crate) async fn returns_what_a_closed_receiver_held_back(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 10).await?;
    let mut first = stage.receiver(&queue).await?;
    let held = take_one(&mut first).await?;
    first.close().await?;
    let other = stage.handle().await?;
    let mut second = receiver(&*other, &queue, LEASE_LONG).await?;
    // The leases are longer than this waits.
    let deliveries = take(&mut second, sent.len() - 1).await?;
    let mut came = ids_of(&deliveries);
    came.push(held.envelope().id.clone());
    each_once(&sent, &came)?;
    ack_all(deliveries).await?;
    held.ack().await?;
    Ok(())
}

pub(crate) async fn settles_after_its_receiver_closed(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 3).await?;
    let mut first = stage.receiver(&queue).await?;
    let held = take(&mut first, 3).await?;
    first.close().await?;
    drop(first);
    ack_all(held).await?;
    stage.status_becomes(&queue, "empty", |status| status.is_idle()).await?;
    nothing_comes(&mut stage.receiver(&queue).await?, MOMENT).await
}

pub(crate) async fn returns_unsettled_messages_of_a_closed_handle(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 10).await?;
    let other = stage.handle().await?;
    let mut first = receiver(&*other, &queue, 4 * MOMENT).await?;
    let held = take(&mut first, 5).await?;
    drop(held);
    first.close().await?;
    drop(first);
    other.close().await?;
    let mut second = stage.receiver(&queue).await?;
    let deliveries = take(&mut second, sent.len()).await?;
    at_least_once(&sent, &ids_of(&deliveries))?;
    ack_all(deliveries).await
}

pub(crate) async fn serves_many_handles_at_once(stage: &Stage) -> Check {
    let name = stage.queue_name()?;
    let spec = QueueSpec::durable(name.clone()).subscribe(stage.pattern("event")?);
    let mut handles = JoinSet::new();
    let mut sent = Vec::new();
    for number in 0..16 {
        let messages = (0..10)
            .map(|place| stage.message_about("event", number * 10 + place))
            .collect::<Check<Vec<_>>>()?;
        sent.extend(messages.iter().cloned());
        let (subject, spec) = (Arc::clone(&stage.subject), spec.clone());
        handles.spawn(async move {
            let handle = subject.connect().await?;
            handle.declare(&spec).await?;
            let mut receiver = receiver(&*handle, &spec.name, LEASE_LONG).await?;
            let mut came = Vec::new();
            for message in messages {
                publish_all(&*handle, &[Outgoing::publish(message)]).await?;
                let deliveries = receiver.receive(5, Duration::ZERO).await?;
                came.extend(ids_of(&deliveries));
                ack_all(deliveries).await?;
            }
            receiver.close().await?;
            handle.close().await?;
            Ok::<_, Violation>(came)
        });
    }
    let mut came = Vec::new();
    while let Some(served) = handles.join_next().await {
        came.extend(served??);
    }
    came.extend(drain(&mut stage.receiver(&name).await?).await?);
    each_once(&sent, &came)
}

pub(crate) async fn leaves_nothing_behind(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 5).await?;
    // One before counting, so that what a transport keeps running for good is running.
    stage.receiver(&queue).await?.close().await?;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let tasks_before = tasks();
    let other = stage.handle().await?;
    let mut made = Vec::new();
    for number in 0..100 {
        let handle = if number % 2 == 0 { &stage.transport } else { &other };
        let mut receiver = receiver(&**handle, &queue, LEASE_LONG).await?;
        if number % 10 == 0 {
            let taken = receiver.receive(1, Duration::ZERO).await?;
            for delivery in taken {
                delivery.release().await?;
            }
        }
        if number % 10 == 5 && stage.guarantees().temporary_queues.is_some() {
            let spec = QueueSpec { lifetime: Lifetime::Temporary, ..QueueSpec::durable(stage.queue_name()?) };
            handle.declare(&spec).await?;
            handle.receiver(&spec.name, ReceiveOptions::default()).await?.close().await?;
            made.push(spec.name);
        }
        // Half are closed, half only dropped.
        if number % 4 < 2 {
            receiver.close().await?;
        }
        drop(receiver);
    }
    if !Arc::ptr_eq(&other, &stage.transport) {
        other.close().await?;
    }
    let mut receiver = stage.receiver(&queue).await?;
    let deliveries = take(&mut receiver, sent.len()).await?;
    each_once(&sent, &ids_of(&deliveries))?;
    ack_all(deliveries).await?;
    receiver.close().await?;
    let left: Vec<_> =
        stage.transport.admin().queues().await?.into_iter().map(|status| status.name).collect();
    for name in made {
        ensure!(!left.contains(&name), "the temporary queue {name} is still there");
    }
    if stage.surroundings == Surroundings::Alone {
        tasks_end(tasks, tasks_before).await?;
    }
    Ok(())
}

/// Waits until no more tasks run than before, give or take a few that end or begin by themselves.
async fn tasks_end(tasks: impl Fn() -> usize, before: usize) -> Check {
    let deadline = tokio::time::Instant::now() + patience();
    while tasks() > before + 5 {
        ensure!(
            tokio::time::Instant::now() < deadline,
            "{before} tasks ran before 100 receivers started and stopped, {} do now",
            tasks()
        );
        tokio::time::sleep(MOMENT / 10).await;
    }
    Ok(())
}
