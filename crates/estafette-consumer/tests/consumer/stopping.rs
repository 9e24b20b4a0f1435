//! Stopping gracefully, and not so gracefully.

use std::{sync::Arc, time::Duration};

use estafette_consumer::{Context, StopReason};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::stage::{Notes, Order, Stage};

/// A handler that says when it begins and takes `time`, but with the first fifty messages takes none, so that the consumer
/// takes more ahead.
fn slow_after_fifty(
    began: &Arc<Notify>,
    time: Duration,
) -> impl Fn(Order, Context) -> futures_util::future::BoxFuture<'static, ()> + Clone + Send + Sync + 'static {
    let began = Arc::clone(began);
    move |order: Order, _| {
        let began = Arc::clone(&began);
        Box::pin(async move {
            if order.id >= 50 {
                began.notify_one();
                tokio::time::sleep(time).await;
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_runs_may_end_and_what_has_not_begun_goes_back_unspent() {
    for concurrency in [1, 4] {
        let stage = Stage::with_orders(0..100).await;
        let began = Arc::new(Notify::new());
        let handler = slow_after_fifty(&began, Duration::from_secs(20));
        let stop = async move { began.notified().await };
        let consumer = stage.consumer().concurrency(concurrency).handle(handler);
        let summary = consumer.run_until(stop).await.unwrap();
        let acked = summary.acked;
        assert!(acked > 50 && acked <= 50 + concurrency as u64, "{acked}");
        assert!(summary.released > 0, "nothing was taken ahead");
        let rest = stage.take(1000).await;
        assert_eq!(rest.len() as u64, 100 - acked);
        assert!(rest.iter().all(|delivery| delivery.attempt() == 1));
        assert_eq!(summary.reason, StopReason::Asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_exceeds_the_grace_period_is_ended_and_its_message_returned() {
    for concurrency in [1, 4] {
        let stage = Stage::with_orders([99]).await;
        let began = Arc::new(Notify::new());
        let handler = slow_after_fifty(&began, Duration::from_secs(1000));
        let stop = async move { began.notified().await };
        let consumer =
            stage.consumer().concurrency(concurrency).grace(Duration::from_secs(5)).handle(handler);
        let started = Instant::now();
        let summary = consumer.run_until(stop).await.unwrap();
        assert_eq!((summary.acked, summary.released), (0, 0));
        assert_eq!(started.elapsed().as_secs(), 5);
        let returned = stage.take(10).await;
        assert_eq!(returned.iter().map(estafette_core::Delivery::attempt).collect::<Vec<_>>(), [2]);
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_an_idle_consumer_takes_no_time_worth_mentioning() {
    let stage = Stage::new();
    let started = Instant::now();
    let consumer = stage.consumer().handle(|_: Order, _| async {});
    consumer.run_until(tokio::time::sleep(Duration::from_secs(1))).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(1100), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_occupies_its_thread_does_not_keep_a_run_from_ending() {
    let stage = Stage::with_orders([1]).await;
    let (let_go, wait) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let (begun, began) = oneshot::channel();
    let begun = Arc::new(std::sync::Mutex::new(Some(begun)));
    let handler = move |_: Order, _| {
        let (wait, begun) = (Arc::clone(&wait), begun.lock().unwrap().take());
        async move {
            if let Some(begun) = begun {
                begun.send(()).unwrap();
            }
            // Until the test lets go.
            wait.lock().unwrap().recv().unwrap_err();
        }
    };
    let consumer = stage.consumer().concurrency(2).grace(Duration::from_millis(10)).handle(handler);
    let stop = async move { began.await.unwrap() };
    let summary = consumer.run_until(stop).await.unwrap();
    assert_eq!(summary.acked, 0);
    drop(let_go);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_run_loses_nothing() {
    for (concurrency, after) in [(1, 1), (1, 73), (8, 1), (8, 73), (8, 400)] {
        let stage = Stage::with_orders(0..200).await;
        let notes = Notes::new();
        let handled = |notes: &Notes<u64>| {
            let notes = notes.clone();
            move |order: Order, _| {
                let notes = notes.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(order.id % 10)).await;
                    notes.add(order.id);
                }
            }
        };
        let run = stage.consumer().concurrency(concurrency).handle(handled(&notes)).run();
        assert!(tokio::time::timeout(Duration::from_millis(after), run).await.is_err());
        // Tasks that were ended let go of their messages when they have their turn.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(stage.status().await.leased, 0);
        stage.consumer().concurrency(concurrency).handle(handled(&notes)).run_until_empty().await.unwrap();
        let mut ids = notes.all();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 200);
        assert!(stage.status().await.is_idle() && stage.dead().await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_while_a_run_ends_is_not_lost() {
    let stage = Stage::new();
    let publisher = stage.clone();
    let stop = async move {
        // In the same instant.
        publisher.send(&crate::stage::order(1)).await;
    };
    let consumer = stage.consumer().handle(|_: Order, _| async {});
    let summary = consumer.run_until(stop).await.unwrap();
    let left = stage.take(10).await;
    assert_eq!(summary.acked + left.len() as u64, 1);
    let attempt = |delivery: &estafette_core::Delivery| delivery.attempt();
    assert!(left.iter().all(|delivery| attempt(delivery) == 1));
}
