//! Connections to a real broker: recovery behind a proxy that cuts, stalls, refuses and blocks; TLS; what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "../bare/mod.rs"]
mod bare;
mod blocked;
mod refused;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use std::{collections::HashSet, time::Duration};

use anyhow::{Result, ensure};
use estafette_core::{
    Envelope, ErrorKind, Lifetime, MessageId, Outgoing, QueueName, QueueSpec, ReceiveOptions, Routing, Topic,
    Transport,
};
use support::{Proxy, connect, connect_through};
use tokio::time::Instant;

pub(crate) const TOPIC: Topic = Topic::from_static("recovery.tested");

pub(crate) fn queue() -> QueueName {
    QueueName::try_from(format!("recovery-{}", MessageId::new())).unwrap()
}

pub(crate) fn message(number: usize) -> Envelope {
    Envelope::new(TOPIC, number.to_string().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn loses_nothing_while_connections_are_cut_at_random() -> Result<()> {
    const MESSAGES: usize = 3000;
    let proxy = Proxy::start().await?;
    let transport = connect_through(&proxy, "heartbeat=2s").await?;
    let queue = queue();
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    let publisher = connect_through(&proxy, "heartbeat=2s").await?;
    let publishing = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut stored = HashSet::new();
            let messages: Vec<_> = (0..MESSAGES).map(message).collect();
            for batch in messages.chunks(50) {
                let outgoing: Vec<_> =
                    batch.iter().map(|message| Outgoing::send(queue.clone(), message.clone())).collect();
                for receipt in publisher.publish(&outgoing).await {
                    stored.insert(receipt?.id);
                }
            }
            Ok::<_, anyhow::Error>(stored)
        }
    });
    let cutting = tokio::spawn({
        let proxy = proxy.clone();
        async move {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(20..150))).await;
                proxy.cut();
            }
        }
    });
    let mut receiver = transport.receiver(&queue, ReceiveOptions::default()).await?;
    let mut came = HashSet::new();
    let mut deliveries_total = 0;
    let deadline = Instant::now() + Duration::from_secs(25);
    while came.len() < MESSAGES {
        if publishing.is_finished() && Instant::now() > deadline {
            println!("publishing ended: {:?}", publishing.await?.map(|stored| stored.len()));
            anyhow::bail!("only {} of {MESSAGES} came", came.len());
        }
        ensure!(Instant::now() < deadline, "only {} of {MESSAGES} came", came.len());
        let deliveries = match receiver.receive(100, Duration::from_secs(2)).await {
            Ok(deliveries) => deliveries,
            Err(error) if error.is_retryable() => continue,
            Err(error) => return Err(error.into()),
        };
        for delivery in deliveries {
            deliveries_total += 1;
            came.insert(delivery.envelope().id.clone());
            // A cut in between is a lost lease, and the message comes again.
            drop(delivery.ack().await);
        }
    }
    cutting.await?;
    let stored = publishing.await??;
    ensure!(stored.is_subset(&came), "{} stored messages did not come", stored.difference(&came).count());
    println!("{MESSAGES} messages, {} deliveries beyond that", deliveries_total - MESSAGES);
    connect("").await?.admin().delete(&queue).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_a_connection_that_went_silent() -> Result<()> {
    let proxy = Proxy::start().await?;
    let transport = connect_through(&proxy, "heartbeat=1s&patience=20s").await?;
    let queue = queue();
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    for result in transport.publish(&[Outgoing::send(queue.clone(), message(0))]).await {
        result?;
    }
    // Everything on these connections disappears from now on; new ones work.
    proxy.stall();
    let started = Instant::now();
    for result in transport.publish(&[Outgoing::send(queue.clone(), message(1))]).await {
        result?;
    }
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(10), "it took {took:?} to notice");
    let mut receiver = transport.receiver(&queue, ReceiveOptions::default()).await?;
    let mut came = HashSet::new();
    while came.len() < 2 {
        for delivery in receiver.receive(2, Duration::from_secs(10)).await? {
            came.insert(delivery.envelope().body.clone());
            delivery.ack().await?;
        }
    }
    transport.admin().delete(&queue).await?;
    Ok(())
}

#[tokio::test]
async fn fails_within_its_patience_when_the_broker_is_away() -> Result<()> {
    let proxy = Proxy::start().await?;
    let transport = connect_through(&proxy, "patience=1s").await?;
    let queue = queue();
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    proxy.refuse(true);
    proxy.cut();
    let started = Instant::now();
    let results = transport.publish(&[Outgoing::send(queue.clone(), message(0))]).await;
    ensure!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    for result in results {
        let kind = result.err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::Unavailable), "{kind:?}");
    }
    proxy.refuse(false);
    for result in transport.publish(&[Outgoing::send(queue.clone(), message(1))]).await {
        result?;
    }
    transport.admin().delete(&queue).await?;
    Ok(())
}

#[tokio::test]
async fn connects_to_the_next_broker_when_one_is_away() -> Result<()> {
    let address = support::address();
    let url = format!("amqp://127.0.0.1:1,{address}");
    let transport = estafette_amqp::connect(url.parse()?).await?;
    let receipts = transport.publish(&[Outgoing::publish(message(0))]).await;
    ensure!(matches!(&receipts[..], [Ok(receipt)] if receipt.routing == Routing::Unrouted), "{receipts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_to_the_next_broker_when_the_first_goes_away() -> Result<()> {
    let proxy = Proxy::start().await?;
    let both = support::url_through(&proxy, "").replace('?', &format!(",{}", support::address()));
    let transport = estafette_amqp::connect(both.parse()?).await?;
    let queue = queue();
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    for result in transport.publish(&[Outgoing::send(queue.clone(), message(0))]).await {
        result?;
    }
    let mut receiver = transport.receiver(&queue, ReceiveOptions::default()).await?;
    proxy.refuse(true);
    proxy.cut();
    for result in transport.publish(&[Outgoing::send(queue.clone(), message(1))]).await {
        result?;
    }
    let mut came = 0;
    while came < 2 {
        let deliveries = receiver.receive(2, Duration::from_secs(10)).await?;
        ensure!(!deliveries.is_empty(), "only {came} came");
        came += deliveries.len();
        for delivery in deliveries {
            delivery.ack().await?;
        }
    }
    receiver.close().await?;
    transport.admin().delete(&queue).await?;
    Ok(())
}

#[tokio::test]
async fn makes_a_temporary_queue_again_after_a_cut() -> Result<()> {
    let proxy = Proxy::start().await?;
    let transport = connect_through(&proxy, "").await?;
    let topic: Topic = format!("recovery.{}", MessageId::new()).parse()?;
    let spec =
        QueueSpec { lifetime: Lifetime::Temporary, ..QueueSpec::temporary() }.subscribe((&topic).into());
    transport.declare(&spec).await?;
    let mut receiver = transport.receiver(&spec.name, ReceiveOptions::default()).await?;
    proxy.cut();
    let publisher = connect("").await?;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        ensure!(Instant::now() < deadline, "nothing comes after the cut");
        let message = Envelope::new(topic.clone(), "{}".into());
        for result in publisher.publish(&[Outgoing::publish(message)]).await {
            result?;
        }
        let Ok(deliveries) = receiver.receive(1, Duration::from_millis(200)).await else { continue };
        if !deliveries.is_empty() {
            return Ok(receiver.close().await?);
        }
    }
}
