//! Messages of other programs: what two PHP libraries put on the wire is read, and what they need is written.
//!
//! The other program is played by a bare connection that says exactly the bytes that were recorded.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod bare;
mod support;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bare::Bare;
use estafette_core::{
    DeadQuery, Delivery, Envelope, Failure, MessageId, Outgoing, Pattern, QueueName, QueueSpec, Reason,
    ReceiveOptions, Topic, Transport,
};
use support::connect;

fn unique(prefix: &str) -> String {
    format!("{prefix}{}", MessageId::new().to_string().replace('-', ""))
}

async fn take_one(transport: &dyn Transport, queue: &QueueName) -> Result<Delivery> {
    let mut receiver = transport.receiver(queue, ReceiveOptions::default()).await?;
    let mut deliveries = receiver.receive(1, Duration::from_secs(10)).await?;
    receiver.close().await?;
    deliveries.pop().context("nothing came")
}

/// The headers table `span_id` = int32.
fn span_id(number: i32) -> Vec<u8> {
    let mut table = b"\x07span_idI".to_vec();
    table.extend(number.to_be_bytes());
    table
}

#[tokio::test]
async fn reads_what_chocofamily_publishes() -> Result<()> {
    let transport = connect("compat=chocofamily").await?;
    let word = unique("order");
    let queue = QueueName::try_from(unique("choco-"))?;
    transport
        .declare(&QueueSpec::durable(queue.clone()).subscribe(Pattern::try_from(format!("{word}.*"))?))
        .await?;
    // Its own declarations of the same objects: RabbitMQ refuses them when ours differ.
    let mut php = Bare::connect().await?;
    php.declare_exchange(&word, "topic").await?;
    php.declare_queue(queue.as_str()).await?;
    // Recorded: headers, delivery mode 2, correlation id, message id, app id; nothing else.
    let mut properties = Vec::new();
    properties.extend((0b0011_0100_1000_1000_u16).to_be_bytes());
    bare::long(&mut properties, &span_id(5));
    properties.push(2);
    bare::short(&mut properties, "6f1b1a9e-6a44-4b55-a1a2-3f0b2c9ad6aa");
    bare::short(&mut properties, "11995");
    bare::short(&mut properties, "docs");
    let body = br#"{"event_id":11995,"name":"docx","age":25}"#;
    php.publish(&word, &format!("{word}.created"), &properties, body).await?;

    let delivery = take_one(&*transport, &queue).await?;
    let envelope = delivery.envelope();
    ensure!(
        envelope.id.to_string() == "11995" && envelope.topic == *format!("{word}.created"),
        "{envelope:?}"
    );
    ensure!(&*envelope.source == "docs" && envelope.body[..] == body[..], "{envelope:?}");
    ensure!(
        envelope.correlation_id.as_deref() == Some("6f1b1a9e-6a44-4b55-a1a2-3f0b2c9ad6aa"),
        "{envelope:?}"
    );
    ensure!(envelope.headers.get("span_id") == Some("5"), "{envelope:?}");
    // A refused event really comes again, after a delay, as it was.
    delivery.retry(Duration::from_millis(200)).await?;
    let again = take_one(&*transport, &queue).await?;
    ensure!(again.attempt() == 2 && again.envelope().topic == *format!("{word}.created"), "{again:?}");
    again.reject(Failure::new(Reason::Rejected, "no")).await?;
    let dead = transport.admin().dead(&queue, &DeadQuery::all()).await?;
    ensure!(
        dead.len() == 1 && dead[0].attempts == 2 && dead[0].envelope.headers.get("span_id") == Some("5"),
        "{dead:?}"
    );
    ensure!(transport.admin().redrive(&queue, &DeadQuery::all()).await? == 1);
    let redriven = take_one(&*transport, &queue).await?;
    ensure!(
        redriven.envelope().topic == *format!("{word}.created") && redriven.attempt() == 1,
        "{redriven:?}"
    );
    redriven.ack().await?;
    transport.admin().delete(&queue).await?;
    Ok(())
}

#[tokio::test]
async fn writes_what_chocofamily_reads() -> Result<()> {
    let transport = connect("compat=chocofamily").await?;
    let word = unique("order");
    let topic = Topic::try_from(format!("{word}.created"))?;
    let mut php = Bare::connect().await?;
    let queue = unique("choco-");
    php.declare_exchange(&word, "topic").await?;
    php.declare_queue(&queue).await?;
    php.bind(&queue, &word, &format!("{word}.created")).await?;
    let mut envelope = Envelope::new(topic, r#"{"event_id":1}"#.into());
    envelope.source = "shop".into();
    for result in transport.publish(&[Outgoing::publish(envelope.clone())]).await {
        ensure!(result?.routing.is_routed());
    }
    let (header, body) = php.get(&queue).await?.context("nothing came")?;
    let id = envelope.id.to_string();
    let mut expected = Vec::new();
    expected.extend((0b0011_0100_1000_1000_u16).to_be_bytes());
    bare::long(&mut expected, &span_id(0));
    expected.push(2);
    bare::short(&mut expected, &id);
    bare::short(&mut expected, &id);
    bare::short(&mut expected, "shop");
    ensure!(header[12..] == expected[..], "{header:?}");
    ensure!(body == br#"{"event_id":1}"#);
    transport.admin().delete(&QueueName::try_from(queue)?).await?;
    Ok(())
}

#[tokio::test]
async fn shares_the_topology_of_the_event_dispatcher() -> Result<()> {
    let transport = connect("compat=aed").await?;
    let event = unique("event");
    let queue = QueueName::try_from(format!("aed.{event}.receiver"))?;
    let topic = Topic::try_from(event.as_str())?;
    transport.declare(&QueueSpec::durable(queue.clone()).subscribe((&topic).into())).await?;
    let mut php = Bare::connect().await?;
    php.declare_exchange("async_event_dispatcher", "direct").await?;
    php.declare_queue(queue.as_str()).await?;
    // Recorded: a content type and nothing else; PHP's serialisation is opaque.
    let mut properties = 0x8000_u16.to_be_bytes().to_vec();
    bare::short(&mut properties, "text/plain");
    let body = b"C:7:\"MyEvent\":33:{a:2:{s:3:\"foo\";i:1;s:3:\"bar\";N;}\0}";
    php.publish("async_event_dispatcher", &format!("aed.rk.{event}"), &properties, body).await?;
    let delivery = take_one(&*transport, &queue).await?;
    ensure!(delivery.envelope().topic == topic && delivery.envelope().body[..] == body[..], "{delivery:?}");
    // What its own library drops really comes again.
    delivery.retry(Duration::from_millis(200)).await?;
    let again = take_one(&*transport, &queue).await?;
    ensure!(again.attempt() == 2 && again.envelope().topic == topic, "{again:?}");
    ensure!(again.envelope().body[..] == body[..], "{again:?}");
    again.ack().await?;
    // And the other way.
    for result in transport.publish(&[Outgoing::publish(Envelope::new(topic, body.to_vec().into()))]).await {
        ensure!(result?.routing.is_routed());
    }
    let (_, back) = php.get(queue.as_str()).await?.context("nothing came")?;
    ensure!(back == body);
    let wild = QueueSpec::durable(queue.clone()).subscribe(Pattern::try_from("#")?);
    ensure!(transport.declare(&wild).await.is_err(), "a direct exchange has no wildcards");
    transport.admin().delete(&queue).await?;
    Ok(())
}

#[tokio::test]
async fn keeps_what_expires_in_the_broker_and_what_others_reject() -> Result<()> {
    let transport = connect("queue_arguments=x-max-length:2,x-message-ttl:300").await?;
    let queue = QueueName::try_from(unique("limited-"))?;
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    let topic = Topic::from_static("limited.message");
    let batch: Vec<_> = (0..3)
        .map(|number| Outgoing::send(queue.clone(), Envelope::new(topic.clone(), number.to_string().into())))
        .collect();
    for result in transport.publish(&batch).await {
        result?;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let dead = loop {
        let dead = transport.admin().dead(&queue, &DeadQuery::all()).await?;
        if dead.len() == 3 || tokio::time::Instant::now() > deadline {
            break dead;
        }
    };
    let reasons: Vec<Reason> = dead.iter().map(|letter| letter.reason).collect();
    ensure!(reasons == [Reason::Rejected, Reason::Expired, Reason::Expired], "{dead:?}");
    ensure!(dead.iter().all(|letter| letter.envelope.topic == topic), "{dead:?}");
    transport.admin().delete(&queue).await?;
    Ok(())
}
