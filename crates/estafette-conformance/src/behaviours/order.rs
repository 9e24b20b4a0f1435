//! Order: of a queue, and of each partition key.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use estafette_core::{Delivery, Envelope, Failure, QueueName, Reason, ReceiveOptions, Receiver, Transport};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    stage::{LEASE_LONG, MOMENT, Stage, patience, patiently},
    taking::{ack_all, ids_of, name, nothing_comes, sent_ids, take, take_one},
    violation::{Check, ensure},
};

pub(crate) async fn keeps_the_order_of_publishing(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let mut sent = Vec::new();
    // Batches and single messages.
    for (start, count) in [(0, 400), (400, 1), (401, 1), (402, 398), (800, 200)] {
        let messages =
            (start..start + count).map(|number| stage.message(number)).collect::<Check<Vec<_>>>()?;
        stage.send_these(&queue, &messages).await?;
        sent.extend(messages);
    }
    let mut receiver = stage.receiver(&queue).await?;
    let mut came = Vec::new();
    for max in [1, 2, 100].into_iter().cycle() {
        if came.len() == sent.len() {
            break;
        }
        let deliveries = take(&mut receiver, max.min(sent.len() - came.len())).await?;
        came.extend(ids_of(&deliveries));
        ack_all(deliveries).await?;
    }
    let wrong = sent_ids(&sent).iter().zip(&came).position(|(sent, came)| sent != came);
    ensure!(wrong.is_none(), "the order changed at message number {}", wrong.unwrap_or_default());
    Ok(())
}

pub(crate) async fn keeps_the_order_of_each_key_among_many_consumers(stage: &Stage) -> Check {
    const KEYS: usize = 16;
    const EACH: usize = 15;
    let queue = stage.queue().await?;
    let mut sent = Vec::new();
    for number in 0..KEYS * EACH {
        sent.push(message_of_key(stage, &format!("key{}", number % KEYS), number)?);
    }
    stage.send_these(&queue, &sent).await?;

    let seen = Arc::new(Mutex::new(Seen::default()));
    let handles = [Arc::clone(&stage.transport), stage.handle().await?];
    let mut consumers = JoinSet::new();
    for handle in handles.iter().cycle().take(4) {
        let receiver = ordered_receiver(&**handle, &queue).await?;
        consumers.spawn(patiently(consume_in_order(receiver, Arc::clone(&seen), sent.len())));
    }
    while let Some(consumed) = consumers.join_next().await {
        consumed??;
    }
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(seen.count == sent.len(), "only {} of {} messages came", seen.count, sent.len());
    Ok(())
}

/// What the consumers saw, together.
#[derive(Default)]
struct Seen {
    count: usize,
    last: HashMap<String, usize>,
    out: HashSet<String>,
}

impl Seen {
    fn taken(&mut self, delivery: &Delivery) -> Check {
        let (key, number) = key_and_number(delivery.envelope());
        ensure!(self.out.insert(key.clone()), "two messages of key {key} were out at once");
        let last = self.last.insert(key.clone(), number);
        ensure!(last < Some(number), "number {number} of key {key} came after number {last:?}");
        self.count += 1;
        Ok(())
    }

    fn settling(&mut self, delivery: &Delivery) {
        self.out.remove(&key_and_number(delivery.envelope()).0);
    }
}

async fn consume_in_order(mut receiver: Box<dyn Receiver>, seen: Arc<Mutex<Seen>>, total: usize) -> Check {
    let deadline = Instant::now() + 2 * patience();
    loop {
        let deliveries = receiver.receive(5, MOMENT).await?;
        for delivery in &deliveries {
            seen.lock().unwrap_or_else(PoisonError::into_inner).taken(delivery)?;
        }
        for delivery in deliveries {
            tokio::task::yield_now().await;
            // Before settling: the next one may be taken elsewhere before this call returns.
            seen.lock().unwrap_or_else(PoisonError::into_inner).settling(&delivery);
            delivery.ack().await?;
        }
        let count = seen.lock().unwrap_or_else(PoisonError::into_inner).count;
        if count == total || Instant::now() > deadline {
            return Ok(());
        }
    }
}

pub(crate) async fn holds_a_key_back_while_one_is_out(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = [
        message_of_key(stage, "a", 0)?,
        message_of_key(stage, "a", 1)?,
        message_of_key(stage, "b", 2)?,
        stage.message(3)?,
        stage.message(4)?,
    ];
    stage.send_these(&queue, &sent).await?;
    let other = stage.handle().await?;
    let mut first = ordered_receiver(&*stage.transport, &queue).await?;
    let mut second = ordered_receiver(&*other, &queue).await?;

    let mut held = take(&mut first, 4).await?;
    held.sort_by_key(|delivery| key_and_number(delivery.envelope()).1);
    let numbers: Vec<_> = held.iter().map(|delivery| key_and_number(delivery.envelope()).1).collect();
    ensure!(
        numbers == [0, 2, 3, 4],
        "key a must be held back and the others not, but numbers {numbers:?} came"
    );
    nothing_comes(&mut first, MOMENT).await?;
    nothing_comes(&mut second, MOMENT).await?;
    held.remove(0).ack().await?;
    let next = take_one(&mut second).await?;
    ensure!(next.envelope().id == sent[1].id, "expected number 1 of key a, got {}", name(next.envelope()));
    held.push(next);
    ack_all(held).await
}

pub(crate) async fn holds_a_key_back_during_a_retry(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent =
        [message_of_key(stage, "a", 0)?, message_of_key(stage, "a", 1)?, message_of_key(stage, "b", 2)?];
    stage.send_these(&queue, &sent).await?;
    let mut receiver = ordered_receiver(&*stage.transport, &queue).await?;
    for delivery in take(&mut receiver, 2).await? {
        match key_and_number(delivery.envelope()).1 {
            0 => delivery.retry(2 * MOMENT).await?,
            2 => delivery.ack().await?,
            other => ensure!(false, "number {other} came while its key was out"),
        }
    }
    for expected in [0, 1] {
        let delivery = take_one(&mut receiver).await?;
        let number = key_and_number(delivery.envelope()).1;
        ensure!(number == expected, "expected number {expected} of key a, got number {number}");
        delivery.ack().await?;
    }
    Ok(())
}

pub(crate) async fn frees_a_key_however_it_is_settled(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let has_dead_letters = stage.guarantees().dead_letters.is_some();
    let sent = (0..4).map(|number| message_of_key(stage, "a", number)).collect::<Check<Vec<_>>>()?;
    stage.send_these(&queue, &sent).await?;
    // Only waited for where a dropped delivery does not return at once.
    let options = ReceiveOptions { lease: 20 * MOMENT, ordered_by_key: true, ..ReceiveOptions::default() };
    let mut receiver = stage.transport.receiver(&queue, options).await?;
    drop(take_one(&mut receiver).await?);
    for expected in 0..sent.len() {
        let delivery = take_one(&mut receiver).await?;
        let number = key_and_number(delivery.envelope()).1;
        ensure!(number == expected, "expected number {expected} of key a, got number {number}");
        match number {
            1 if has_dead_letters => delivery.reject(Failure::new(Reason::Rejected, "no")).await?,
            _ => delivery.ack().await?,
        }
    }
    Ok(())
}

pub(crate) async fn holds_no_key_back_unasked(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = (0..10).map(|number| message_of_key(stage, "a", number)).collect::<Check<Vec<_>>>()?;
    stage.send_these(&queue, &sent).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let held = take(&mut receiver, sent.len()).await?;
    ack_all(held).await
}

async fn ordered_receiver(transport: &dyn Transport, queue: &QueueName) -> Check<Box<dyn Receiver>> {
    let options = ReceiveOptions { lease: LEASE_LONG, ordered_by_key: true, ..ReceiveOptions::default() };
    Ok(transport.receiver(queue, options).await?)
}

fn message_of_key(stage: &Stage, key: &str, number: usize) -> Check<Envelope> {
    Ok(Envelope { partition_key: Some(key.into()), ..stage.message(number)? })
}

fn key_and_number(envelope: &Envelope) -> (String, usize) {
    let number = envelope.headers.get("number").and_then(|text| text.parse().ok()).unwrap_or_default();
    (envelope.partition_key.as_deref().unwrap_or_default().to_owned(), number)
}
