//! A broker that is low on memory takes no publications: it says so and stops reading that connection.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use estafette_core::{ErrorKind, Outgoing, QueueSpec, ReceiveOptions};

use crate::{
    message, queue,
    support::{Proxy, connect_through},
};

/// A transport connects to consume first, and to publish when it first does.
const PUBLISHING: u64 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_a_blocked_broker_within_its_patience() -> Result<()> {
    let proxy = Proxy::start().await?;
    let transport = connect_through(&proxy, "patience=1s").await?;
    let queue = queue();
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    let send = |number| [Outgoing::send(queue.clone(), message(number))];
    for result in transport.publish(&send(0)).await {
        result?;
    }
    proxy.block(PUBLISHING).await;
    for result in transport.publish(&send(1)).await {
        let Err(error) = result else { bail!("a blocked broker took it") };
        // One written before we heard of it has no answer; those after wait for the broker.
        ensure!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{}", error.report());
    }
    for result in transport.publish(&send(2)).await {
        let Err(error) = result else { bail!("a blocked broker took it") };
        ensure!(error.kind() == ErrorKind::Unavailable, "{}", error.report());
        ensure!(error.report().contains("low on memory"), "{}", error.report());
    }
    // Acknowledging goes on meanwhile.
    let mut receiver = transport.receiver(&queue, ReceiveOptions::default()).await?;
    let delivery = receiver.receive(1, Duration::from_secs(10)).await?.pop().context("nothing came")?;
    delivery.ack().await?;
    receiver.close().await?;
    proxy.unblock();
    transport.admin().delete(&queue).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_on_when_the_broker_is_unblocked() -> Result<()> {
    let proxy = Proxy::start().await?;
    let transport = connect_through(&proxy, "patience=30s").await?;
    let queue = queue();
    transport.declare(&QueueSpec::durable(queue.clone())).await?;
    let send = |number| [Outgoing::send(queue.clone(), message(number))];
    for result in transport.publish(&send(0)).await {
        result?;
    }
    proxy.block(PUBLISHING).await;
    let publishing = tokio::spawn({
        let (transport, batch) = (std::sync::Arc::clone(&transport), send(1));
        async move { transport.publish(&batch).await }
    });
    // Nothing tells that it waits but that it does not end.
    let mut publishing = publishing;
    ensure!(tokio::time::timeout(Duration::from_millis(300), &mut publishing).await.is_err());
    proxy.unblock();
    for result in tokio::time::timeout(Duration::from_secs(20), publishing).await?? {
        ensure!(result?.routing.is_routed());
    }
    transport.admin().delete(&queue).await?;
    Ok(())
}
