//! Subscriptions: which queues get a copy of what is published.

use estafette_core::{
    Envelope, ErrorKind, Lifetime, Outgoing, Pattern, QUEUE_NAME_BYTES_MAX, QueueName, QueueSpec,
    TOPIC_BYTES_MAX, Topic,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    crew::Agent,
    stage::{LEASE_LONG, MOMENT, Stage, must_fail, patience, publish_all, receiver},
    taking::{ack_all, drain, each_once, ids_of, nothing_comes, sent_ids, take, take_one},
    violation::{Check, Violation, ensure},
};

pub(crate) async fn copies_to_every_queue(stage: &Stage) -> Check {
    let queues = [
        stage.queue_with(&["event"]).await?,
        stage.queue_with(&["event"]).await?,
        stage.queue_with(&["*"]).await?,
    ];
    let sent = stage.publish("event", 50).await?;
    for queue in &queues {
        gets_exactly(stage, queue, &sent).await?;
    }
    Ok(())
}

pub(crate) async fn shares_a_queue_among_its_consumers(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 50).await?;
    let mut consumers = JoinSet::new();
    for handle in [stage.handle().await?, stage.handle().await?] {
        let mut receiver = receiver(&*handle, &queue, LEASE_LONG).await?;
        consumers.spawn(async move { drain(&mut receiver).await });
    }
    let mut came = Vec::new();
    while let Some(consumed) = consumers.join_next().await {
        came.extend(consumed??);
    }
    each_once(&sent, &came)
}

pub(crate) async fn matches_patterns(stage: &Stage) -> Check {
    let topics =
        ["order", "order.created", "order.created.eu", "order.paid", "invoice.created", "заказ.создан"];
    // Which of the topics each pattern means, by place.
    let patterns: [(&str, &[usize]); 9] = [
        ("order.created", &[1]),
        ("order.*", &[1, 3]),
        ("order.#", &[0, 1, 2, 3]),
        ("*.created", &[1, 4]),
        ("#.created", &[1, 4]),
        ("order.*.eu", &[2]),
        ("#", &[0, 1, 2, 3, 4, 5]),
        ("*", &[0]),
        ("заказ.#", &[5]),
    ];
    let mut queues = Vec::new();
    for (pattern, _) in patterns {
        queues.push(stage.queue_with(&[pattern]).await?);
    }
    let messages = topics
        .iter()
        .enumerate()
        .map(|(number, topic)| stage.message_about(topic, number))
        .collect::<Check<Vec<_>>>()?;
    let batch: Vec<_> = messages.iter().map(|message| Outgoing::publish(message.clone())).collect();
    publish_all(&*stage.transport, &batch).await?;
    // Together: each waits until nothing more comes.
    let mut consumers = JoinSet::new();
    for (queue, (pattern, meant)) in queues.into_iter().zip(patterns) {
        let mut receiver = stage.receiver(&queue).await?;
        let ids = sent_ids(&messages);
        consumers.spawn(async move {
            let came = drain(&mut receiver).await?;
            for (place, topic) in topics.into_iter().enumerate() {
                let copies = came.iter().filter(|id| **id == ids[place]).count();
                let expected = usize::from(meant.contains(&place));
                ensure!(
                    copies == expected,
                    "pattern {pattern} got {copies} copies of {topic}, expected {expected}"
                );
            }
            Ok::<(), Violation>(())
        });
    }
    while let Some(consumed) = consumers.join_next().await {
        consumed??;
    }
    Ok(())
}

pub(crate) async fn copies_once_to_a_queue_with_overlapping_patterns(stage: &Stage) -> Check {
    let queue = stage.queue_with(&["order.created", "order.*", "#", "*.created"]).await?;
    let sent = stage.publish("order.created", 5).await?;
    gets_exactly(stage, &queue, &sent).await
}

pub(crate) async fn keeps_messages_while_nobody_consumes(stage: &Stage) -> Check {
    let queue = stage.queue_with(&["event"]).await?;
    let first = stage.publish("event", 1).await?;
    gets_exactly(stage, &queue, &first).await?;
    let sent = stage.publish("event", 10).await?;
    gets_exactly(stage, &queue, &sent).await
}

pub(crate) async fn forgets_a_temporary_queue(stage: &Stage) -> Check {
    let name = stage.queue_name()?;
    let spec = QueueSpec { lifetime: Lifetime::Temporary, ..QueueSpec::durable(name.clone()) }
        .subscribe(stage.pattern("event")?);
    stage.transport.declare(&spec).await?;
    let mut receiver = stage.receiver(&name).await?;
    let sent = stage.publish("event", 5).await?;
    let deliveries = take(&mut receiver, 2).await?;
    ack_all(deliveries).await?;
    let lifetime = stage.transport.admin().queue(&name).await?.lifetime;
    ensure!(lifetime == Lifetime::Temporary, "the queue says it is {lifetime:?}");
    receiver.close().await?;
    drop(receiver);
    must_fail(
        stage.transport.admin().queue(&name).await,
        ErrorKind::NotFound,
        "a temporary queue after its receiver",
    )?;
    let message = stage.message_about("event", sent.len())?;
    let required = Outgoing { require_queue: true, ..Outgoing::publish(message) };
    for result in stage.transport.publish(&[required]).await {
        must_fail(
            result,
            ErrorKind::Unroutable,
            "publishing to the topic of a temporary queue that is gone",
        )?;
    }
    Ok(())
}

pub(crate) async fn forgets_the_temporary_queue_of_a_killed_process(stage: &Stage) -> Check {
    let queue = stage.queue_name()?;
    let mut agent = Agent::start(stage).await?;
    agent.occupy(&queue).await?;
    stage.transport.admin().queue(&queue).await?;
    agent.kill().await?;
    let deadline = Instant::now() + 3 * patience();
    while stage.transport.admin().queue(&queue).await.is_ok() {
        ensure!(
            Instant::now() < deadline,
            "a temporary queue is still there {:?} after its process",
            3 * patience()
        );
        tokio::time::sleep(MOMENT).await;
    }
    Ok(())
}

pub(crate) async fn takes_every_legal_name(stage: &Stage) -> Check {
    let tag = stage.queue_name()?;
    let long = "x".repeat(QUEUE_NAME_BYTES_MAX - tag.as_str().len() - 1);
    let odd = [
        long.as_str(),
        "a/b",
        "a\\b",
        "..",
        "a/../b",
        "a.",
        "a:b",
        "a*?\"<>|",
        "a%2Fb",
        "a'b;--",
        "$a",
        "~a",
        "A",
        "a",
        "заказы",
        "订单",
        "🛵",
        "dead",
        "new",
        "con",
    ];
    let mut queues = Vec::new();
    for (number, end) in odd.into_iter().enumerate() {
        let name = stage.name_queue(format!("{tag}-{end}"))?;
        // The first as long as a topic may be, then the oddest, and another for each.
        let filler = if number == 0 {
            "y".repeat(TOPIC_BYTES_MAX - stage.topic("0")?.as_str().len() - 1)
        } else {
            end.replace(['*', '>', '#', '.'], "+")
        };
        let topic = stage.topic(&format!("{number}.{filler}"))?;
        stage.transport.declare(&QueueSpec::durable(name.clone()).subscribe(Pattern::from(&topic))).await?;
        let message = Envelope { topic, ..stage.message(number)? };
        publish_all(&*stage.transport, &[Outgoing::publish(message.clone())]).await?;
        queues.push((name, message));
    }
    let listed = stage.transport.admin().queues().await?;
    for (name, message) in queues {
        ensure!(listed.iter().any(|status| status.name == name), "queue {name} is not listed");
        let mut receiver = stage.receiver(&name).await?;
        let came = take(&mut receiver, 1).await?;
        each_once(&[message], &ids_of(&came))?;
        ack_all(came).await?;
        nothing_comes(&mut receiver, std::time::Duration::ZERO).await?;
        receiver.close().await?;
        stage.transport.admin().delete(&name).await?;
        must_fail(stage.transport.admin().queue(&name).await, ErrorKind::NotFound, "a deleted queue")?;
    }
    Ok(())
}

pub(crate) async fn adds_patterns_when_declared_again(stage: &Stage) -> Check {
    let queue = stage.queue_with(&["one"]).await?;
    let mut sent = stage.publish("one", 2).await?;
    for end in ["two", "one"] {
        let spec = QueueSpec::durable(queue.clone()).subscribe(stage.pattern(end)?);
        stage.transport.declare(&spec).await?;
    }
    stage.transport.declare(&QueueSpec::durable(queue.clone())).await?;
    sent.extend(stage.publish("one", 2).await?);
    sent.extend(stage.publish("two", 2).await?);
    let patterns = stage.transport.admin().queue(&queue).await?.patterns;
    let expected = [stage.pattern("one")?, stage.pattern("two")?];
    ensure!(patterns == expected, "the queue should have the patterns {expected:?}, but has {patterns:?}");
    gets_exactly(stage, &queue, &sent).await
}

pub(crate) async fn refuses_another_lifetime(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let other = QueueSpec { lifetime: Lifetime::Temporary, ..QueueSpec::durable(queue.clone()) };
    let declared = stage.transport.declare(&other).await;
    must_fail(declared, ErrorKind::Conflict, "declaring a durable queue as temporary")?;
    let lifetime = stage.transport.admin().queue(&queue).await?.lifetime;
    ensure!(lifetime == Lifetime::Durable, "the queue was durable, and says it is {lifetime:?}");
    Ok(())
}

pub(crate) async fn keeps_what_is_there_when_unsubscribed(stage: &Stage) -> Check {
    let queue = stage.queue_with(&["ended", "kept"]).await?;
    let mut sent = stage.publish("ended", 2).await?;
    stage.transport.admin().unsubscribe(&queue, &stage.pattern("ended")?).await?;
    stage.publish("ended", 2).await?;
    sent.extend(stage.publish("kept", 2).await?);
    gets_exactly(stage, &queue, &sent).await
}

pub(crate) async fn routes_to_queues_declared_elsewhere(stage: &Stage) -> Check {
    let first = stage.queue_with(&["event.*"]).await?;
    let mut of_first = stage.publish("event.x", 1).await?;
    let other = stage.handle().await?;
    for pattern in ["event.x", "event.*", "#"] {
        let name = stage.queue_name()?;
        let spec = QueueSpec::durable(name.clone()).subscribe(stage.pattern(pattern)?);
        other.declare(&spec).await?;
        let sent = stage.publish("event.x", 1).await?;
        of_first.extend(sent.clone());
        gets_exactly(stage, &name, &sent).await?;
        other.admin().delete(&name).await?;
    }
    other.admin().unsubscribe(&first, &stage.pattern("event.*")?).await?;
    stage.publish("event.x", 1).await?;
    gets_exactly(stage, &first, &of_first).await
}

pub(crate) async fn deletes_a_queue_alone(stage: &Stage) -> Check {
    let doomed = stage.queue_with(&["event"]).await?;
    let other = stage.queue_with(&["event"]).await?;
    let mut sent = stage.publish("event", 5).await?;
    let mut receiver = stage.receiver(&doomed).await?;
    let held = take_one(&mut receiver).await?;
    stage.transport.admin().delete(&doomed).await?;
    // A receiver that fetches ahead may hand over what it had fetched before it hears of the end.
    let mut last = receiver.receive(sent.len(), patience()).await;
    for _ in 1..sent.len() {
        if !last.as_ref().is_ok_and(|fetched| !fetched.is_empty()) {
            break;
        }
        last = receiver.receive(sent.len(), patience()).await;
    }
    must_fail(last, ErrorKind::NotFound, "receiving from a queue that was deleted")?;
    // Its message is gone; all that counts is that nothing hangs or comes back.
    drop(held);
    sent.extend(stage.publish("event", 5).await?);
    gets_exactly(stage, &other, &sent).await?;
    stage.transport.declare(&QueueSpec::durable(doomed.clone())).await?;
    gets_exactly(stage, &doomed, &[]).await
}

pub(crate) async fn keeps_failures_apart(stage: &Stage) -> Check {
    let failing = stage.queue_with(&["event"]).await?;
    let healthy = stage.queue_with(&["event"]).await?;
    let sent = stage.publish("event", 5).await?;
    let mut receiver = stage.receiver(&failing).await?;
    for _ in 0..3 {
        for delivery in take(&mut receiver, sent.len()).await? {
            delivery.retry(std::time::Duration::ZERO).await?;
        }
    }
    gets_exactly(stage, &healthy, &sent).await?;
    gets_exactly(stage, &failing, &sent).await
}

/// Takes exactly these messages and sees that no more comes.
async fn gets_exactly(stage: &Stage, queue: &QueueName, sent: &[estafette_core::Envelope]) -> Check {
    let mut receiver = stage.receiver(queue).await?;
    let deliveries = take(&mut receiver, sent.len()).await?;
    each_once(sent, &ids_of(&deliveries))?;
    let topics: Vec<&Topic> = sent.iter().map(|message| &message.topic).collect();
    for delivery in &deliveries {
        ensure!(
            topics.contains(&&delivery.envelope().topic),
            "it came with topic {}",
            delivery.envelope().topic
        );
    }
    ack_all(deliveries).await?;
    nothing_comes(&mut receiver, MOMENT).await?;
    receiver.close().await?;
    Ok(())
}
