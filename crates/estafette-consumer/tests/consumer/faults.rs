//! A transport that fails for a while.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use estafette_consumer::{Consumer, Context};
use estafette_core::{ErrorKind, Transport};
use tokio::{sync::Notify, time::Instant};

use crate::{
    faulty::Faulty,
    stage::{Notes, Order, Stage, queue},
};

#[tokio::test(start_paused = true)]
async fn a_consumer_waits_for_an_engine_that_is_away_at_the_start() {
    let stage = Stage::with_orders([1]).await;
    let faulty = Faulty::around(stage.transport());
    faulty.failures.declare.store(10, Ordering::SeqCst);
    faulty.failures.receiver.store(3, Ordering::SeqCst);
    let began = Instant::now();
    let consumer = Consumer::new(Arc::new(faulty), queue()).handle(|_: Order, _| async {});
    assert_eq!(consumer.run_until_empty().await.unwrap().acked, 1);
    // With pauses that grow: neither a tight loop nor for ever.
    assert!((10..60).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_waits_for_its_engine_can_be_stopped() {
    let faulty = Faulty::around(Stage::new().transport());
    faulty.failures.declare.store(u32::MAX, Ordering::SeqCst);
    let consumer = Consumer::new(Arc::new(faulty), queue()).handle(|_: Order, _| async {});
    let summary = consumer.run_until(tokio::time::sleep(Duration::from_secs(60))).await.unwrap();
    assert_eq!(summary.acked, 0);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_goes_on_when_receiving_fails_for_a_while() {
    for concurrency in [1, 4] {
        let stage = Stage::with_orders(0..100).await;
        let faulty = Faulty::around(stage.transport());
        let failures = Arc::clone(&faulty.failures);
        let handler = move |order: Order, _| {
            if order.id.is_multiple_of(10) {
                failures.receive.store(5, Ordering::SeqCst);
            }
            std::future::ready(())
        };
        let consumer = Consumer::new(Arc::new(faulty), queue()).concurrency(concurrency).handle(handler);
        assert_eq!(consumer.run_until_empty().await.unwrap().acked, 100);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_settled_is_counted_and_comes_again() {
    let stage = Stage::with_orders([1]).await;
    let faulty = Faulty::around(stage.transport());
    faulty.failures.settle.store(1, Ordering::SeqCst);
    let notes = Notes::new();
    let calls = notes.clone();
    let handler = move |_: Order, context: Context| {
        calls.add(context.attempt());
        std::future::ready(())
    };
    let summary = Consumer::new(Arc::new(faulty), queue()).handle(handler).run_until_empty().await.unwrap();
    assert_eq!((summary.acked, summary.lost), (1, 1));
    assert_eq!(notes.all(), [1, 2]);
    assert!(stage.status().await.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_queue_deleted_meanwhile_ends_the_run_with_an_error() {
    let stage = Stage::with_orders([1]).await;
    let began = Arc::new(Notify::new());
    let begun = Arc::clone(&began);
    let handler = move |_: Order, _| {
        begun.notify_one();
        std::future::ready(())
    };
    let deleting = async {
        began.notified().await;
        stage.memory.admin().delete(&queue()).await.unwrap();
    };
    let (ended, ()) = tokio::join!(stage.consumer().handle(handler).run(), deleting);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_time_does_not_cure_ends_the_run() {
    let stage = Stage::new();
    stage.memory.close().await.unwrap();
    let ended = stage.consumer().handle(|_: Order, _| async {}).run().await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
}
