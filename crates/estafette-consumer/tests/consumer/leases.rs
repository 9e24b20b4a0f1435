//! Handlers that take longer than a lease, and leases that end all the same.

use std::time::Duration;

use estafette_consumer::Context;

use crate::stage::{Notes, Order, Stage};

#[tokio::test(start_paused = true)]
async fn a_handler_longer_than_its_lease_is_called_once() {
    for concurrency in [1, 3] {
        let stage = Stage::with_orders(0..6).await;
        let notes = Notes::new();
        let calls = notes.clone();
        let handler = move |order: Order, context: Context| {
            calls.add((order.id, context.attempt()));
            tokio::time::sleep(Duration::from_secs(60))
        };
        let consumer = || {
            let handler = handler.clone();
            stage.consumer().lease(Duration::from_secs(2)).concurrency(concurrency).handle(handler)
        };
        let (one, two) = tokio::join!(consumer().run_until_empty(), consumer().run_until_empty());
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!((one.acked + two.acked, one.lost + two.lost), (6, 0));
        let mut calls = notes.all();
        calls.sort_unstable();
        assert_eq!(calls, (0..6).map(|id| (id, 1)).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_occupies_its_thread_keeps_its_lease() {
    for concurrency in [1, 2] {
        let stage = Stage::with_orders([1]).await;
        let notes = Notes::new();
        let calls = notes.clone();
        let handler = move |_: Order, context: Context| {
            calls.add(context.attempt());
            // The work itself, not a wait for something: four leases long.
            std::thread::sleep(Duration::from_millis(1200));
            std::future::ready(())
        };
        let consumer =
            stage.consumer().lease(Duration::from_millis(300)).concurrency(concurrency).handle(handler);
        let summary = tokio::spawn(consumer.run_until_empty()).await.unwrap().unwrap();
        assert_eq!((summary.acked, summary.lost, notes.all()), (1, 0, vec![1]));
    }
}

#[tokio::test(start_paused = true)]
async fn settling_after_the_lease_was_lost_is_counted_and_changes_nothing() {
    let stage = Stage::with_orders([1]).await;
    let (clock, notes) = (stage.memory.clone(), Notes::new());
    let calls = notes.clone();
    let handler = move |_: Order, context: Context| {
        calls.add(context.attempt());
        if context.attempt() == 1 {
            // The whole lease passes before anything here can notice, as when a process is frozen.
            clock.advance(Duration::from_secs(31));
        }
        std::future::ready(())
    };
    let summary = stage.consumer().handle(handler).run_until_empty().await.unwrap();
    assert_eq!((summary.acked, summary.lost), (1, 1));
    assert_eq!(notes.all(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn messages_that_wait_behind_a_slow_one_keep_their_leases_too() {
    let stage = Stage::with_orders(0..100).await;
    let handler = |order: Order, context: Context| async move {
        assert_eq!(context.attempt(), 1, "order {}", order.id);
        // The first are quick, so that many are taken ahead.
        if order.id == 60 {
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    };
    let summary =
        stage.consumer().lease(Duration::from_secs(2)).handle(handler).run_until_empty().await.unwrap();
    assert_eq!((summary.acked, summary.lost, summary.retried), (100, 0, 0));
}
