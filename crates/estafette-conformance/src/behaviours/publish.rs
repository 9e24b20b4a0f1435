//! Publishing: what is stored is what was published, and what is not stored is reported.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use estafette_core::{
    Envelope, ErrorKind, MessageId, Outgoing, QueueName, QueueSpec, Routing, Timestamp, Transport,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    stage::{LEASE_LONG, MOMENT, Stage, must_fail, patience, patiently, publish_all, receiver},
    taking::{ack_all, at_least_once, each_once, ids_of, nothing_comes, take, unchanged},
    violation::{Check, Violation, ensure},
};

pub(crate) async fn carries_what_was_published_before_anybody_listened(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 100).await?;
    arrive_unchanged(stage, &queue, &sent).await
}

pub(crate) async fn keeps_headers_and_attributes(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let mut full = stage.message(1)?;
    full.source = "conformance/suite?x=1".into();
    full.subject = Some("заказ 42; 'quoted' \"twice\"".into());
    full.content_type = Some("application/json; charset=utf-8".into());
    full.correlation_id = Some("correlation-1".into());
    full.causation_id = Some("causation-1".into());
    full.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    full.partition_key = Some("key/ü".into());
    full.expires_at = Some(Timestamp::from_micros(4_102_444_800_123_456));
    full.reply_to = Some(stage.queue_name()?);
    let long = "x".repeat(1024);
    for (name, value) in [
        ("empty", ""),
        ("X-Mixed-Case", "Value"),
        ("nonascii", "Größe 大小 размер 🛵"),
        ("long", long.as_str()),
        ("lines", "a\r\nb\tc\\d\"e'f"),
        ("dotted.name_with-signs", "=;,|&%"),
        ("number", "007"),
    ] {
        full.headers.insert(name, value)?;
    }
    let mut foreign = stage.message(2)?;
    foreign.id = MessageId::try_from("not a uuid: 11995/ü")?;
    let bare = Envelope { headers: estafette_core::Headers::new(), ..stage.message(3)? };
    let sent = [full, foreign, bare];
    stage.send_these(&queue, &sent).await?;
    arrive_unchanged(stage, &queue, &sent).await
}

pub(crate) async fn keeps_every_byte_of_a_body(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let every_byte: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    let bodies: [&[u8]; 9] = [
        &every_byte,
        b"",
        b"\n",
        b" {\"a\" : 1}\r\n",
        b"{\"a\":1}\n{\"b\":2}\n",
        b"\0",
        b"\xff\xfe not UTF-8",
        b"{\"number\": 1.50, \"big\": 123456789012345678901234567890}",
        b"null",
    ];
    let mut sent = Vec::new();
    for content_type in [None, Some("application/json"), Some("text/plain"), Some("application/octet-stream")]
    {
        for body in bodies {
            let mut envelope = stage.message(sent.len())?;
            envelope.body = Bytes::copy_from_slice(body);
            envelope.content_type = content_type.map(Into::into);
            sent.push(envelope);
        }
    }
    stage.send_these(&queue, &sent).await?;
    arrive_unchanged(stage, &queue, &sent).await
}

pub(crate) async fn carries_bodies_of_many_sizes(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let limit = stage.guarantees().body_bytes_max;
    let sizes = [0, 1, 63, 64, 65, 255, 256, 4095, 4096, 65_535, 65_536, 65_537, 1 << 20];
    let mut sent = Vec::new();
    for size in sizes.into_iter().filter(|size| *size <= limit) {
        sent.push(message_of_size(stage, size)?);
    }
    for message in &sent {
        stage.send_these(&queue, std::slice::from_ref(message)).await?;
    }
    arrive_unchanged(stage, &queue, &sent).await
}

pub(crate) async fn carries_a_body_as_large_as_allowed(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = [message_of_size(stage, stage.guarantees().body_bytes_max)?];
    stage.send_these(&queue, &sent).await?;
    arrive_unchanged(stage, &queue, &sent).await
}

pub(crate) async fn refuses_a_body_over_the_limit(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let fits = [stage.message(1)?, stage.message(2)?];
    let [first, last] = fits.clone();
    let large = message_of_size(stage, stage.guarantees().body_bytes_max + 1)?;
    let batch = [first, large, last].map(|message| Outgoing::send(queue.clone(), message));
    let results = stage.transport.publish(&batch).await;
    let [first, large, last] = three(results)?;
    must_fail(large, ErrorKind::TooLarge, "publishing a body one byte over the limit")?;
    first?;
    last?;
    arrive_unchanged(stage, &queue, &fits).await
}

pub(crate) async fn reports_each_message_of_a_batch(stage: &Stage) -> Check {
    let queue = stage.queue_with(&["taken"]).await?;
    let taken = stage.message_about("taken", 1)?;
    let nobody = Outgoing { require_queue: true, ..Outgoing::publish(stage.message_about("nobody", 2)?) };
    let sent = stage.message_about("sent", 3)?;
    let batch = [Outgoing::publish(taken.clone()), nobody, Outgoing::send(queue.clone(), sent.clone())];
    let [first, second, third] = three(stage.transport.publish(&batch).await)?;
    must_fail(second, ErrorKind::Unroutable, "publishing to a topic nobody takes, with a queue required")?;
    for (receipt, message) in [(first?, &taken), (third?, &sent)] {
        ensure!(receipt.id == message.id, "the receipt of {} names {}", message.id, receipt.id);
        ensure!(receipt.routing.is_routed(), "the receipt says no queue took {}, but one did", message.id);
    }
    arrive_unchanged(stage, &queue, &[taken, sent]).await
}

pub(crate) async fn stores_a_large_batch_whole(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let none = stage.transport.publish(&[]).await;
    ensure!(none.is_empty(), "publishing no messages gave {} results", none.len());
    let sent = stage.send(&queue, 3000).await?;
    let mut receiver = stage.receiver(&queue).await?;
    let mut came = Vec::new();
    while came.len() < sent.len() {
        let deliveries = take(&mut receiver, (sent.len() - came.len()).min(500)).await?;
        came.extend(ids_of(&deliveries));
        ack_all(deliveries).await?;
    }
    each_once(&sent, &came)
}

pub(crate) async fn loses_nothing_among_many_publishers_and_consumers(stage: &Stage) -> Check {
    const PUBLISHERS: usize = 50;
    const EACH: usize = 50;
    let count = Arc::new(AtomicUsize::new(0));
    let queue = stage.queue().await?;
    let handles = [Arc::clone(&stage.transport), stage.handle().await?];
    let mut consumers = JoinSet::new();
    for handle in handles.iter().cycle().take(PUBLISHERS) {
        let consuming =
            consume_until(Arc::clone(handle), queue.clone(), Arc::clone(&count), PUBLISHERS * EACH);
        consumers.spawn(patiently(consuming));
    }
    let mut publishers = JoinSet::new();
    let mut sent = Vec::new();
    for (publisher, handle) in handles.iter().cycle().take(PUBLISHERS).enumerate() {
        let messages =
            (0..EACH).map(|number| stage.message(publisher * EACH + number)).collect::<Check<Vec<_>>>()?;
        sent.extend(messages.iter().cloned());
        publishers.spawn(publish_in_tens(Arc::clone(handle), queue.clone(), messages));
    }
    while let Some(published) = publishers.join_next().await {
        published??;
    }
    let mut came = Vec::new();
    while let Some(consumed) = consumers.join_next().await {
        came.extend(consumed??);
    }
    each_once(&sent, &came)?;
    nothing_comes(&mut stage.receiver(&queue).await?, MOMENT).await
}

async fn publish_in_tens(transport: Arc<dyn Transport>, queue: QueueName, messages: Vec<Envelope>) -> Check {
    for messages in messages.chunks(10) {
        let batch: Vec<_> =
            messages.iter().map(|message| Outgoing::send(queue.clone(), message.clone())).collect();
        publish_all(&*transport, &batch).await?;
    }
    Ok(())
}

/// Consumes until the consumers together have got so many messages.
async fn consume_until(
    transport: Arc<dyn Transport>,
    queue: QueueName,
    count: Arc<AtomicUsize>,
    total: usize,
) -> Check<Vec<MessageId>> {
    let mut receiver = receiver(&*transport, &queue, LEASE_LONG).await?;
    let deadline = Instant::now() + 2 * patience();
    let mut came = Vec::new();
    while count.load(Ordering::Acquire) < total && Instant::now() < deadline {
        let deliveries = receiver.receive(20, MOMENT).await?;
        count.fetch_add(deliveries.len(), Ordering::AcqRel);
        came.extend(ids_of(&deliveries));
        ack_all(deliveries).await?;
    }
    Ok(came)
}

pub(crate) async fn keeps_queues_apart(stage: &Stage) -> Check {
    const QUEUES: usize = 20;
    let mut queues = Vec::new();
    for number in 0..QUEUES {
        queues.push(stage.queue_with(&[&format!("apart{number}")]).await?);
    }
    // Interleaved in one batch, so that nothing but the topic tells them apart.
    let mut sent = Vec::new();
    for number in 0..QUEUES * 10 {
        sent.push(stage.message_about(&format!("apart{}", number % QUEUES), number)?);
    }
    let batch: Vec<_> = sent.iter().map(|message| Outgoing::publish(message.clone())).collect();
    publish_all(&*stage.transport, &batch).await?;

    let mut consumers = JoinSet::new();
    for (number, queue) in queues.into_iter().enumerate() {
        let mut receiver = stage.receiver(&queue).await?;
        let own: Vec<_> = sent.iter().skip(number).step_by(QUEUES).cloned().collect();
        consumers.spawn(patiently(async move {
            let deliveries = take(&mut receiver, own.len()).await?;
            each_once(&own, &ids_of(&deliveries))?;
            ack_all(deliveries).await?;
            nothing_comes(&mut receiver, MOMENT).await
        }));
    }
    while let Some(consumed) = consumers.join_next().await {
        consumed??;
    }
    Ok(())
}

pub(crate) async fn says_when_no_queue_took_it(stage: &Stage) -> Check {
    let early = Outgoing::publish(stage.message_about("rare", 1)?);
    let routing = only(stage.transport.publish(std::slice::from_ref(&early)).await)??.routing;
    ensure!(routing == Routing::Unrouted, "nobody takes the topic, but the receipt says {routing:?}");
    let required = Outgoing { require_queue: true, ..early };
    let refused = only(stage.transport.publish(&[required]).await)?;
    must_fail(refused, ErrorKind::Unroutable, "publishing to a topic nobody takes, with a queue required")?;

    let queue = stage.queue_with(&["rare"]).await?;
    stage.queue_with(&["#"]).await?;
    let late = stage.message_about("rare", 2)?;
    let required = Outgoing { require_queue: true, ..Outgoing::publish(late.clone()) };
    let routing = only(stage.transport.publish(&[required]).await)??.routing;
    ensure!(
        matches!(routing, Routing::Queues(2) | Routing::Routed),
        "two queues take the topic, but the receipt says {routing:?}"
    );
    arrive_unchanged(stage, &queue, &[late]).await
}

pub(crate) async fn sends_to_a_queue_nobody_declared(stage: &Stage) -> Check {
    let queue = stage.queue_name()?;
    let sent = stage.send(&queue, 3).await?;
    stage.transport.declare(&QueueSpec::durable(queue.clone())).await?;
    arrive_unchanged(stage, &queue, &sent).await
}

pub(crate) async fn makes_no_queue_that_was_required(stage: &Stage) -> Check {
    let queue = stage.queue_name()?;
    let message = stage.message(1)?;
    let required = Outgoing { require_queue: true, ..Outgoing::send(queue.clone(), message) };
    let refused = only(stage.transport.publish(std::slice::from_ref(&required)).await)?;
    must_fail(
        refused,
        ErrorKind::Unroutable,
        "sending to a queue that does not exist, with the queue required",
    )?;

    stage.transport.declare(&QueueSpec::durable(queue.clone())).await?;
    nothing_comes(&mut stage.receiver(&queue).await?, MOMENT).await?;
    let routing = only(stage.transport.publish(&[required]).await)??.routing;
    ensure!(routing.is_routed(), "the queue exists, but the receipt says {routing:?}");
    Ok(())
}

pub(crate) async fn outlives_its_handle(stage: &Stage) -> Check {
    let queue = stage.queue().await?;
    let sent = stage.send(&queue, 50).await?;
    let reopened = stage.reopened().await?;
    let mut receiver = receiver(&*reopened, &queue, LEASE_LONG).await?;
    let deliveries = take(&mut receiver, sent.len()).await?;
    at_least_once(&sent, &ids_of(&deliveries))?;
    ack_all(deliveries).await
}

/// Takes exactly these messages, as they were, and sees that no more comes.
async fn arrive_unchanged(stage: &Stage, queue: &QueueName, sent: &[Envelope]) -> Check {
    let mut receiver = stage.receiver(queue).await?;
    let deliveries = take(&mut receiver, sent.len()).await?;
    each_once(sent, &ids_of(&deliveries))?;
    for delivery in &deliveries {
        let came = delivery.envelope();
        let of_it = sent.iter().find(|message| message.id == came.id);
        unchanged(of_it.unwrap_or(came), came)?;
        ensure!(delivery.queue() == queue, "the delivery says it is from {}", delivery.queue());
    }
    ack_all(deliveries).await?;
    nothing_comes(&mut receiver, MOMENT).await
}

/// A message whose body is that long and does not repeat with the usual block sizes.
fn message_of_size(stage: &Stage, size: usize) -> Check<Envelope> {
    let mut envelope = stage.message(size)?;
    envelope.content_type = Some("application/octet-stream".into());
    envelope.body = (0..=250).cycle().take(size).collect::<Vec<u8>>().into();
    Ok(envelope)
}

fn three<T>(results: Vec<T>) -> Check<[T; 3]> {
    let count = results.len();
    results
        .try_into()
        .map_err(|_results: Vec<T>| Violation::Broken(format!("3 messages gave {count} results")))
}

fn only<T>(mut results: Vec<T>) -> Check<T> {
    let count = results.len();
    match results.pop() {
        Some(result) if count == 1 => Ok(result),
        _ => Err(Violation::Broken(format!("1 message gave {count} results"))),
    }
}
