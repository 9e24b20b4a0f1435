//! The bridge from one transport to another.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use estafette_consumer::{Bridge, StopReason};
use estafette_core::{Envelope, Lifetime, Outgoing, Pattern, QueueSpec, Reason, Transport};

use crate::{
    faulty::Faulty,
    stage::{Order, Stage, order, queue},
};

fn spec() -> QueueSpec {
    QueueSpec::durable(queue()).subscribe(Pattern::try_from("order.#").unwrap())
}

/// A stage whose queue is subscribed to orders.
async fn subscribed() -> Stage {
    let stage = Stage::new();
    stage.memory.declare(&spec()).await.unwrap();
    stage
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_on_the_other_side_as_they_were() {
    let (from, to) = (subscribed().await, subscribed().await);
    let sent: Vec<Envelope> = (0..900).map(|id| Envelope::of(&order(id)).unwrap()).collect();
    for envelope in &sent {
        from.put(Outgoing::publish(envelope.clone())).await;
    }
    let bridge = Bridge::new(from.transport(), spec(), to.transport()).stop_when_empty();
    let summary = bridge.run_until(std::future::pending()).await.unwrap();
    assert_eq!((summary.acked, summary.reason), (900, StopReason::Empty));
    let arrived = to.take(1000).await;
    assert!(arrived.iter().map(|delivery| &**delivery.envelope()).eq(&sent));
    assert!(from.status().await.is_idle());
}

#[tokio::test(start_paused = true)]
async fn while_the_other_side_is_away_messages_stay_and_no_attempt_is_spent() {
    let (from, to) = (Stage::with_orders(0..10).await, subscribed().await);
    let away = Faulty::around(to.transport());
    away.failures.publish.store(7, Ordering::SeqCst);
    let bridge = Bridge::new(from.transport(), spec(), Arc::new(away)).stop_when_empty();
    let summary = bridge.run_until(std::future::pending()).await.unwrap();
    assert_eq!((summary.acked, summary.dead), (10, 0));
    assert_eq!(to.status().await.ready, 10);
}

#[tokio::test(start_paused = true)]
async fn what_the_other_side_takes_nowhere_becomes_a_dead_letter_here() {
    let (from, to) = (Stage::with_orders([1]).await, Stage::new());
    let bridge = Bridge::new(from.transport(), spec(), to.transport()).count_max(1);
    let summary = bridge.run_until(std::future::pending()).await.unwrap();
    assert_eq!((summary.dead, summary.reason), (1, StopReason::Count));
    assert_eq!(from.dead_letter().await.reason, Reason::Unhandled);
}

#[tokio::test(start_paused = true)]
async fn a_bridge_to_one_queue_makes_it() {
    let (from, to) = (Stage::with_orders([1, 2, 3]).await, Stage::new());
    let bridge = Bridge::new(from.transport(), spec(), to.transport()).to_queue(queue()).count_max(2);
    assert_eq!(bridge.run_until(std::future::pending()).await.unwrap().acked, 2);
    let status = to.status().await;
    assert_eq!((status.ready, status.lifetime), (2, Lifetime::Durable));
    assert_eq!(to.consumer().handle(|_: Order, _| async {}).run_until_empty().await.unwrap().acked, 2);
    assert_eq!(from.status().await.ready, 1);
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_waits_can_be_stopped() {
    let (from, to) = (subscribed().await, subscribed().await);
    let bridge = Bridge::new(from.transport(), spec(), to.transport());
    let summary = bridge.run_until(tokio::time::sleep(Duration::from_secs(100))).await.unwrap();
    assert_eq!(summary.reason, StopReason::Asked);
}
