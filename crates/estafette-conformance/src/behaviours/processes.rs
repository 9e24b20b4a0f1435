//! Several processes on one store: publishers and consumers that compete, are killed and are frozen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use estafette_core::{Envelope, ErrorKind, MessageId, QueueName};
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    crew::{Agent, Then, ids_taken, publish_command},
    stage::{LEASE_LONG, MOMENT, PATIENCE, Stage, patience, patiently},
    taking::{ack_all, at_least_once, each_once, ids_of, nothing_comes, take_one, unchanged},
    violation::{Check, ensure},
};

pub(crate) async fn carries_messages_between_processes(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let publishers = Agent::crew(stage, 4).await?;
    let consumers = Agent::crew(stage, 4).await?;
    let sent = (0..400).map(|number| stage.message(number)).collect::<Check<Vec<_>>>()?;
    let consuming = consume_together(consumers, &queue, sent.len());
    let mut publishing = JoinSet::new();
    for (mut publisher, part) in publishers.into_iter().zip(sent.chunks(100)) {
        let (queue, part) = (queue.clone(), part.to_vec());
        publishing.spawn(async move {
            for messages in part.chunks(10) {
                publisher.publish(&queue, messages).await?;
            }
            publisher.kill().await
        });
    }
    while let Some(published) = publishing.join_next().await {
        published??;
    }
    each_once(&sent, &join(consuming).await?)
}

pub(crate) async fn lets_one_of_eight_processes_claim(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let consumers = Agent::crew(stage, 8).await?;
    let mut sent = Vec::new();
    // Singly and in batches: what is claimed together may be stored together.
    for (start, count) in [(0, 300), (300, 1), (301, 1), (302, 98), (400, 100)] {
        let messages =
            (start..start + count).map(|number| stage.message(number)).collect::<Check<Vec<_>>>()?;
        stage.send_these(&queue, &messages).await?;
        sent.extend(messages);
    }
    each_once(&sent, &join(consume_together(consumers, &queue, sent.len())).await?)?;
    nothing_comes(&mut stage.receiver(&queue).await?, MOMENT).await
}

/// Agents that consume at the same time; each returns what it got, and lives on.
type Consuming = JoinSet<Check<(Vec<MessageId>, Agent)>>;

/// Starts consuming with all agents until they got so many together.
fn consume_together(agents: Vec<Agent>, queue: &QueueName, total: usize) -> Consuming {
    let count = Arc::new(AtomicUsize::new(0));
    let mut consuming = JoinSet::new();
    for mut agent in agents {
        let (count, queue) = (Arc::clone(&count), queue.clone());
        consuming.spawn(patiently(async move {
            let deadline = Instant::now() + 2 * patience();
            let mut came = Vec::new();
            while count.load(Ordering::Acquire) < total && Instant::now() < deadline {
                let took = agent.take(&queue, 7, LEASE_LONG, Then::Ack).await?;
                count.fetch_add(took.len(), Ordering::AcqRel);
                came.extend(ids_taken(&took));
            }
            Ok((came, agent))
        }));
    }
    consuming
}

/// What all agents got. None is killed while another still takes: an engine that does not confirm acknowledgements may bring
/// the last ones of a killed process again, which is another behaviour's affair.
async fn join(mut consuming: Consuming) -> Check<Vec<MessageId>> {
    let mut came = Vec::new();
    let mut agents = Vec::new();
    while let Some(consumed) = consuming.join_next().await {
        let (ids, agent) = consumed??;
        came.extend(ids);
        agents.push(agent);
    }
    for agent in &mut agents {
        agent.kill().await?;
    }
    Ok(came)
}

pub(crate) async fn counts_the_attempt_of_a_killed_consumer(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 1).await?;
    let lease = Duration::from_millis(1500);
    for attempt in 1..=2 {
        let mut agent = Agent::start(stage).await?;
        let held = agent.hold_one(&queue, lease).await?;
        ensure!(
            held.attempt == attempt,
            "expected attempt {attempt}, but the delivery says {}",
            held.attempt
        );
        agent.kill().await?;
    }
    let delivery = take_one(&mut stage.receiver(&queue).await?).await?;
    unchanged(&sent[0], delivery.envelope())?;
    let attempt = delivery.attempt();
    ensure!(attempt == 3, "two processes were killed with it, but the third delivery says attempt {attempt}");
    delivery.ack().await?;
    Ok(())
}

pub(crate) async fn takes_over_from_a_frozen_consumer(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    stage.send(&queue, 1).await?;
    let mut agent = Agent::start(stage).await?;
    let lease = Duration::from_millis(1500);
    let started = Instant::now();
    let held = agent.hold_one(&queue, lease).await?;
    agent.freeze()?;
    let mut receiver = stage.receiver(&queue).await?;
    // An engine that notices a silent client by its heartbeats takes two of these, of ten seconds by default in RabbitMQ.
    let owned = PATIENCE.scope(2 * patience(), take_one(&mut receiver)).await?;
    ensure!(started.elapsed() >= lease, "leased for {lease:?}, it came again after {:?}", started.elapsed());
    at_least_once(&[held.envelope], &ids_of(std::slice::from_ref(&owned)))?;
    agent.thaw()?;
    let settled = agent.settle().await?;
    ensure!(
        settled == [ErrorKind::LeaseLost.as_str()],
        "the thawed consumer's acknowledgement must be `lease lost`, but was {settled:?}"
    );
    nothing_comes(&mut receiver, MOMENT).await?;
    owned.ack().await?;
    agent.kill().await?;
    nothing_comes(&mut receiver, MOMENT).await
}

pub(crate) async fn keeps_what_a_killed_publisher_stored(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let mut stored = Vec::new();
    let mut sent = Vec::new();
    // Each is killed somewhere else in its stream of batches.
    for answers in [1, 7, 20] {
        let messages = (0..500).map(|number| stage.message(number)).collect::<Check<Vec<_>>>()?;
        stored.extend(publish_and_die(stage, &queue, &messages, answers).await?);
        sent.extend(messages);
    }
    let mut receiver = stage.receiver(&queue).await?;
    let mut came = Vec::new();
    loop {
        let deliveries = receiver.receive(100, 8 * MOMENT).await?;
        if deliveries.is_empty() {
            break;
        }
        for delivery in &deliveries {
            let of_it = sent.iter().find(|message| message.id == delivery.envelope().id);
            ensure!(of_it.is_some(), "message {} came, which nobody sent", delivery.envelope().id);
            unchanged(of_it.unwrap_or(delivery.envelope()), delivery.envelope())?;
        }
        came.extend(ids_of(&deliveries));
        ack_all(deliveries).await?;
    }
    let came_of_stored: Vec<_> =
        came.into_iter().filter(|id| stored.iter().any(|message| message.id == *id)).collect();
    at_least_once(&stored, &came_of_stored)
}

/// Has an agent publish one batch after the other and kills it after so many answers. Returns what it had stored by
/// its own word.
async fn publish_and_die(
    stage: &Stage,
    queue: &QueueName,
    messages: &[Envelope],
    answers: usize,
) -> Check<Vec<Envelope>> {
    let mut agent = Agent::start(stage).await?;
    for batch in messages.chunks(10) {
        agent.tell(&publish_command(queue, batch)).await?;
    }
    let mut confirmed = 0;
    while confirmed < answers {
        let Some(answer) = agent.answer().await? else { break };
        confirmed += usize::from(is_stored(&answer));
    }
    agent.kill().await?;
    // What it had answered before it died counts too.
    while let Some(answer) = agent.answer().await? {
        confirmed += usize::from(is_stored(&answer));
    }
    Ok(messages.iter().take(confirmed * 10).cloned().collect())
}

fn is_stored(answer: &Value) -> bool {
    answer.get("stored").is_some()
}
